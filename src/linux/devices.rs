//! Device rules, compiled to the eBPF program of a cgroup (BPF_PROG_TYPE_CGROUP_DEVICE).
//!
//! Pure: no IO, no kernel, the same on every OS. Attaching the program is `host::bpf`'s.
//!
//! The rules count in their order: of those that match an access, the last one decides, for each of read, write and mknod
//! by itself; what no rule matches is denied. An access goes through if all of it is allowed. runc says the same of cgroup
//! v2 in most words (opencontainers/cgroups 30a2293, devices/{devicefilter,devices_emulator}.go), but it goes through an
//! emulation of cgroup v1, which was never made for rules in order. Where that shows, we keep to the rules as written:
//!
//! - A rule that takes back part of a wider one (allow `c *:* m`, then deny `c 10:200 m`) is refused by runc; here it
//!   does what it says.
//! - A deny that is wider than an earlier allow has no effect in runc; here it denies.
//! - After "allow all, deny write", runc lets open(2) with O_RDWR through, since not all of the access is denied;
//!   here it fails.
//! - Read by one rule and write by another make O_RDWR fail in runc; here it goes through.
//! - With `type` `a` or without, runc ignores `major`, `minor` and `access`, and allows or denies everything; here they
//!   count, as in crun, and as runtime-spec says (config-linux.md, "Allowed Device list").

#[cfg(test)]
mod tests;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::bpf::{BpfInsn, insn};

/// Why a rule makes no program.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error("device rule {rule}: a fifo is not a device that can be allowed or denied")]
    Fifo { rule: usize },
    #[error("device rule {rule}: {number} is not a device number")]
    Number { rule: usize, number: i64 },
    #[error("device rule {rule}: access must be some of r, w and m, not \"{access}\"")]
    Access { rule: usize, access: String },
    #[error("{0} device rules are too many")]
    TooMany(usize),
}

/// The device rules runc adds to those of a config.json, to be put *after* them (runc 76d9cf5,
/// libcontainer/specconv/spec_linux.go `AllowedDevices` and `CreateCgroupConfig`): nodes may be made for any device, but
/// opened only for these. No `/dev/console` among them: what is there in a container is a pty, 136:*.
///
/// A device node in `linux.devices` with the path of one of them stands in for it, and needs a rule of its own if it is
/// another device.
pub fn defaults(nodes: &[LinuxDevice]) -> Vec<LinuxDeviceCgroup> {
    use LinuxDeviceType::{B, C};
    let defaults = [
        ("", C, None, None, "m"),
        ("", B, None, None, "m"),
        ("/dev/null", C, Some(1), Some(3), "rwm"),
        ("/dev/random", C, Some(1), Some(8), "rwm"),
        ("/dev/full", C, Some(1), Some(7), "rwm"),
        ("/dev/tty", C, Some(5), Some(0), "rwm"),
        ("/dev/zero", C, Some(1), Some(5), "rwm"),
        ("/dev/urandom", C, Some(1), Some(9), "rwm"),
        // /dev/pts/*, /dev/ptmx, and /dev/net/tun, which runc 1.2 left out and had to take in again.
        ("", C, Some(136), None, "rwm"),
        ("", C, Some(5), Some(2), "rwm"),
        ("", C, Some(10), Some(200), "rwm"),
    ];
    let given = |path: &str| nodes.iter().any(|node| node.path().as_os_str() == path);
    defaults
        .into_iter()
        .filter(|(path, ..)| !given(path))
        .map(|(_, kind, major, minor, access)| rule(true, kind, major, minor, access))
        .collect()
}

fn rule(allow: bool, kind: LinuxDeviceType, major: Option<i64>, minor: Option<i64>, access: &str) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_typ(Some(kind)).set_major(major).set_minor(minor).set_access(Some(access.to_owned()));
    rule
}

// BPF_DEVCG_* of linux/bpf.h.
const ACC_MKNOD: u8 = 1;
const ACC_READ: u8 = 2;
const ACC_WRITE: u8 = 4;
const ACC_ALL: u8 = ACC_MKNOD | ACC_READ | ACC_WRITE;
const DEV_BLOCK: i32 = 1;
const DEV_CHAR: i32 = 2;

/// A rule, understood.
#[derive(Debug, Clone, Copy)]
struct Match {
    allow: bool,
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: u8,
}

impl Match {
    fn read(rule: usize, spec: &LinuxDeviceCgroup) -> Result<Self, DeviceError> {
        let kind = match spec.typ() {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some(DEV_BLOCK),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(DEV_CHAR),
            Some(LinuxDeviceType::P) => return Err(DeviceError::Fifo { rule }),
        };
        let number = |number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            // The kernel's numbers are unsigned; the immediate has the same bits, and is compared as 32 of them.
            Some(number) => match u32::try_from(number) {
                Ok(number) => Ok(Some(number.cast_signed())),
                Err(_) => Err(DeviceError::Number { rule, number }),
            },
        };
        let access = spec.access().as_deref().unwrap_or_default();
        let bits = access.chars().try_fold(0, |bits, letter| match letter {
            'r' => Some(bits | ACC_READ),
            'w' => Some(bits | ACC_WRITE),
            'm' => Some(bits | ACC_MKNOD),
            _ => None,
        });
        match bits {
            None | Some(0) => Err(DeviceError::Access { rule, access: access.to_owned() }),
            Some(access) => Ok(Self {
                allow: spec.allow(),
                kind,
                major: number(spec.major())?,
                minor: number(spec.minor())?,
                access,
            }),
        }
    }

    /// Whether no rule before this one can have a say.
    fn decides_all(&self) -> bool {
        matches!(self, Self { kind: None, major: None, minor: None, access: ACC_ALL, .. })
    }
}

// Opcodes: linux/bpf.h and linux/bpf_common.h. Jumps look at 32 bits (BPF_JMP32, Linux 5.1), for the numbers are that wide.
const LDX_W: u8 = 0x61;
const AND_K: u8 = 0x57;
const RSH_K: u8 = 0x77;
const MOV_K: u8 = 0xb7;
const MOV32_X: u8 = 0xbc;
const XOR32_K: u8 = 0xa4;
const OR32_X: u8 = 0x4c;
const JNE32_K: u8 = 0x56;
const JSET32_K: u8 = 0x46;
const JA: u8 = 0x05;
const EXIT: u8 = 0x95;

// Registers. The context is `struct bpf_cgroup_dev_ctx`: access and type in one word, major, minor.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// The part of the access that no rule has allowed yet.
const PENDING: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
// Free once the context is read.
const DIFFERENCE: u8 = RESULT;
const SCRATCH: u8 = CONTEXT;

/// The verifier goes through a million instructions at most (BPF_COMPLEXITY_LIMIT_INSNS), and keeps at most 8192 branches
/// open (BPF_COMPLEXITY_LIMIT_JMP_SEQ). This many rules are far from both, and far more than anybody has.
const MAX_RULES: usize = 1024;

/// Compiles rules to a program for BPF_CGROUP_DEVICE.
pub fn program(rules: &[LinuxDeviceCgroup]) -> Result<Vec<BpfInsn>, DeviceError> {
    if rules.len() > MAX_RULES {
        return Err(DeviceError::TooMany(rules.len()));
    }
    let matches: Vec<Match> =
        rules.iter().enumerate().map(|(i, rule)| Match::read(i, rule)).collect::<Result<_, _>>()?;
    let mut code = vec![
        insn(LDX_W, KIND, CONTEXT, 0, 0),
        insn(AND_K, KIND, 0, 0, 0xffff),
        insn(LDX_W, PENDING, CONTEXT, 0, 0),
        insn(RSH_K, PENDING, 0, 0, 16),
        insn(LDX_W, MAJOR, CONTEXT, 4, 0),
        insn(LDX_W, MINOR, CONTEXT, 8, 0),
    ];
    // The last rule that matches decides: so ask from the last one on.
    for rule in matches.iter().rev() {
        if rule.decides_all() {
            code.extend(verdict(rule.allow));
            return Ok(code);
        }
        code.extend(asked(rule));
    }
    code.extend(verdict(false));
    Ok(code)
}

/// A rule that does not decide goes on behind itself.
fn asked(rule: &Match) -> Vec<BpfInsn> {
    let decided = verdict(rule.allow);
    let then = match (rule.access, rule.allow) {
        (ACC_ALL, _) => decided.to_vec(),
        (access, true) => {
            let clear = insn(AND_K, PENDING, 0, 0, (!access & ACC_ALL).into());
            [vec![clear, insn(JNE32_K, PENDING, 0, 2, 0)], decided.to_vec()].concat()
        }
        // There is no jump for "none of these bits".
        (access, false) => {
            let touched = insn(JSET32_K, PENDING, 0, 1, access.into());
            [vec![touched, insn(JA, 0, 0, 2, 0)], decided.to_vec()].concat()
        }
    };

    // All conditions in one word, and one branch on it. A branch on each of the registers would teach the verifier what
    // is in them, and it would go through the rest of the program anew for each rule: 1.7 s for 800 rules, not 0.2.
    let conditions = [(KIND, rule.kind), (MAJOR, rule.major), (MINOR, rule.minor)];
    let mut conditions = conditions.into_iter().filter_map(|(register, k)| k.map(|k| (register, k)));
    let mut code = Vec::new();
    if let Some((register, k)) = conditions.next() {
        code.extend([insn(MOV32_X, DIFFERENCE, register, 0, 0), insn(XOR32_K, DIFFERENCE, 0, 0, k)]);
        for (register, k) in conditions {
            code.extend([insn(MOV32_X, SCRATCH, register, 0, 0), insn(XOR32_K, SCRATCH, 0, 0, k)]);
            code.push(insn(OR32_X, DIFFERENCE, SCRATCH, 0, 0));
        }
        code.push(insn(JNE32_K, DIFFERENCE, 0, then.len() as i16, 0)); // 2 or 4
    }
    code.extend(then);
    code
}

fn verdict(allow: bool) -> [BpfInsn; 2] {
    [insn(MOV_K, RESULT, 0, 0, allow.into()), insn(EXIT, 0, 0, 0, 0)]
}
