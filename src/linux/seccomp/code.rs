//! Classic BPF, as much of it as a seccomp filter needs.
//!
//! Jumps go forward only, and a conditional one reaches 255 instructions. So the program is written from its end: when
//! an instruction is put down, its targets are already there and their distance is known, and where one is too far, a
//! stepping stone is put down first.

/// `struct sock_filter` of linux/filter.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockFilter {
    /// What to do.
    pub code: u16,
    /// How many instructions a jump skips if the comparison holds.
    pub jt: u8,
    /// And if it does not.
    pub jf: u8,
    /// The constant.
    pub k: u32,
}

// Opcodes: linux/bpf_common.h and linux/filter.h.
pub(super) const LD_W_ABS: u16 = 0x20;
pub(super) const ALU_AND_K: u16 = 0x54;
pub(super) const JMP_JA: u16 = 0x05;
pub(super) const JMP_JEQ_K: u16 = 0x15;
pub(super) const JMP_JGT_K: u16 = 0x25;
pub(super) const JMP_JGE_K: u16 = 0x35;
pub(super) const RET_K: u16 = 0x06;

/// BPF_MAXINSNS of linux/bpf_common.h.
pub(super) const MAX_INSNS: usize = 4096;

/// `sizeof(struct seccomp_data)`: loads must stay inside it, and be aligned.
#[cfg(test)]
pub(super) const DATA_SIZE: u32 = 64;

/// A comparison of the accumulator with a constant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Compare {
    Eq,
    Gt,
    Ge,
}

/// An instruction already put down, counted from the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program that grows at its front.
#[derive(Debug, Default)]
pub(super) struct Backwards {
    /// Last instruction first.
    code: Vec<SockFilter>,
    /// The nearest return of each action, of which a profile has few.
    returns: Vec<(u32, Label)>,
}

impl Backwards {
    /// The program, front first.
    pub(super) fn finish(mut self) -> Vec<SockFilter> {
        self.code.reverse();
        self.code
    }

    /// A place that returns `action`: one that is there already, if there is one.
    pub(super) fn ret(&mut self, action: u32) -> Label {
        match self.returns.iter().find(|(other, _)| *other == action) {
            Some(&(_, label)) => label,
            None => self.new_ret(action),
        }
    }

    /// Loads the word at `offset` of `seccomp_data`, then goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.fall_into(next);
        self.put(SockFilter { code: LD_W_ABS, jt: 0, jf: 0, k: offset })
    }

    /// Masks the accumulator, then goes on at `next`.
    pub(super) fn and(&mut self, mask: u32, next: Label) -> Label {
        self.fall_into(next);
        self.put(SockFilter { code: ALU_AND_K, jt: 0, jf: 0, k: mask })
    }

    /// Goes on at `yes` or `no`.
    pub(super) fn branch(&mut self, compare: Compare, k: u32, mut yes: Label, mut no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let code = match compare {
            Compare::Eq => JMP_JEQ_K,
            Compare::Gt => JMP_JGT_K,
            Compare::Ge => JMP_JGE_K,
        };
        // A stepping stone for one target moves the other away by one, so look again; each target needs at most one.
        loop {
            match (u8::try_from(self.distance(yes)), u8::try_from(self.distance(no))) {
                (Ok(jt), Ok(jf)) => return self.put(SockFilter { code, jt, jf, k }),
                (Err(_), _) => yes = self.stone(yes),
                (_, Err(_)) => no = self.stone(no),
            }
        }
    }

    fn put(&mut self, instruction: SockFilter) -> Label {
        self.code.push(instruction);
        Label(self.code.len() - 1)
    }

    fn new_ret(&mut self, action: u32) -> Label {
        let label = self.put(SockFilter { code: RET_K, jt: 0, jf: 0, k: action });
        match self.returns.iter_mut().find(|(other, _)| *other == action) {
            Some((_, nearest)) => *nearest = label,
            None => self.returns.push((action, label)),
        }
        label
    }

    /// How many instructions a jump put down now would skip to reach `target`.
    fn distance(&self, target: Label) -> usize {
        self.code.len() - 1 - target.0
    }

    /// Makes sure that an instruction that does not jump, put down now, is followed by `next`.
    fn fall_into(&mut self, next: Label) {
        if self.distance(next) > 0 {
            self.stone(next);
        }
    }

    /// A nearer way to `target`: a second return costs no more than a jump to the first.
    fn stone(&mut self, target: Label) -> Label {
        let there = self.code[target.0];
        if there.code == RET_K {
            return self.new_ret(there.k);
        }
        // Longer than 32 bits can say, it would have outgrown memory; longer than the kernel allows is the caller's to
        // refuse, once the length is known.
        let k = u32::try_from(self.distance(target)).unwrap_or(u32::MAX);
        self.put(SockFilter { code: JMP_JA, jt: 0, jf: 0, k })
    }
}

/// Whether the kernel's `bpf_check_classic` and `seccomp_check_filter` (net/core/filter.c, kernel/seccomp.c) would take
/// a program made of our opcodes alone: so tests judge what is made here.
#[cfg(test)]
pub(super) fn is_sound(program: &[SockFilter]) -> bool {
    let sound = |(at, i): (usize, &SockFilter)| {
        let lands = |jump: usize| at + 1 + jump < program.len();
        match i.code {
            LD_W_ABS => i.k < DATA_SIZE && i.k.is_multiple_of(4),
            ALU_AND_K | RET_K => true,
            JMP_JA => usize::try_from(i.k).is_ok_and(|k| k < MAX_INSNS && lands(k)),
            JMP_JEQ_K | JMP_JGT_K | JMP_JGE_K => lands(i.jt.into()) && lands(i.jf.into()),
            _ => false,
        }
    };
    program.len() <= MAX_INSNS
        && program.last().is_some_and(|last| last.code == RET_K)
        && program.iter().enumerate().all(sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(program: Backwards) -> Vec<(u16, u8, u8, u32)> {
        program.finish().into_iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect()
    }

    /// What cannot jump is followed by where it goes on.
    #[test]
    fn a_load_goes_on_where_it_is_told() {
        let mut program = Backwards::default();
        let one = program.ret(1);
        program.ret(2);
        program.load(4, one);
        assert_eq!(codes(program), [(LD_W_ABS, 0, 0, 4), (RET_K, 0, 0, 1), (RET_K, 0, 0, 2), (RET_K, 0, 0, 1)]);
    }

    /// 255 instructions are a jump, 256 are a stepping stone and a jump.
    #[test]
    fn far_targets_get_a_stepping_stone() {
        for (between, stones) in [(255, 0), (256, 1)] {
            let mut program = Backwards::default();
            let end = program.ret(0);
            let far = program.and(1, end);
            let mut near = far;
            for _ in 0..between {
                near = program.and(2, near);
            }
            program.branch(Compare::Eq, 7, far, near);
            let codes = codes(program);
            assert_eq!(codes.len(), between + 3 + stones);
            match stones {
                0 => assert_eq!(codes[0], (JMP_JEQ_K, 255, 0, 7)),
                _ => assert_eq!(codes[..2], [(JMP_JEQ_K, 0, 1, 7), (JMP_JA, 0, 0, 256)]),
            }
        }
    }
}
