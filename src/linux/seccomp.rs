//! The seccomp section of config.json, compiled to classic BPF.
//!
//! Pure: no IO, no kernel, the same on every OS. Loading the program is `host::bpf`'s.
//!
//! The meaning of a profile is the one runc and libseccomp give it (runc 76d9cf5, libcontainer/seccomp/
//! {seccomp_linux,patchbpf/enosys_linux}.go and libcontainer/specconv/spec_linux.go `SetupSeccomp`; libseccomp 90d3f7d,
//! src/{db,gen_bpf,syscalls}.c), since that is what profiles are written and tested against:
//!
//! - The native architecture always counts, listed or not; a call of any other that is not listed kills the thread. So
//!   does an x32 call where `SCMP_ARCH_X32` is not listed, but not the number -1, by which a tracer skips a call.
//! - `SCMP_ACT_KILL` kills the thread. ERRNO and TRACE carry `errnoRet`, EPERM unless given, cut to 16 bits.
//! - A rule whose action is the default's is dropped: it does not shadow a later rule for the same call.
//! - The conditions of one rule are ANDed. But if two of them are on the same argument, each is a rule of its own.
//! - Rules for one call are ORed. A rule without conditions wins over all that have some, and the first of these over
//!   later ones. Where rules with different actions both hold, the more specific one wins: compared condition by
//!   condition, it is the one on the higher argument, then (NE, EQ, MASKED_EQ) before (LT, LE) before (GE, GT), then
//!   the larger value (the smaller for LT and LE), then the one with fewer conditions. libseccomp reaches the same order by
//!   the way it sorts its tree of conditions. The same conditions with two actions are refused, as libseccomp does.
//!   Where merging that tree lets libseccomp lose a rule, or find one that does not hold (GE and LT on one argument, some
//!   NE beside others), rules mean what they say.
//! - On i386, arm and x32 only the low half of arguments and values is compared.
//! - On i386 a socket or System V IPC call is filtered both as itself and through socketcall(2) or ipc(2).
//! - Unless the default action lets calls through, a call newer than all those the profile names fails with ENOSYS, so
//!   that programs fall back to older ones instead of taking EPERM for an answer.
//! - Without `flags`, SPEC_ALLOW is set; TSYNC is accepted and does nothing, since potrun has one thread.
//! - Names no listed architecture knows are skipped, and returned for the log.
//!
//! Where runc is odd we differ, and say so: on i386 runc forgets socket and IPC calls when it looks for the newest call
//! named, so that a profile which allows socket(2) and little else has it fail with ENOSYS; we count them.

mod code;
mod table;
#[cfg(test)]
mod tests;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, HashMap};

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};

use code::{Backwards, Compare, Label};
use table::{Abi, X32_BIT};

pub use code::SockFilter;

// SECCOMP_RET_* of linux/seccomp.h.
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0x0000_0000;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ACTION_FULL: u32 = 0xffff_0000;

// SECCOMP_FILTER_FLAG_* of linux/seccomp.h.
/// Put the filter on all threads of the process.
pub const FLAG_TSYNC: u32 = 1 << 0;
/// Log what is not allowed.
pub const FLAG_LOG: u32 = 1 << 1;
/// Leave the mitigation of speculative store bypass off.
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// Give a descriptor on which SCMP_ACT_NOTIFY is answered.
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// Let only a fatal signal interrupt a call that waits for its answer.
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

// Errno values of Linux, the same on every architecture in the table; not those of the OS this is compiled on.
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

// Offsets in `struct seccomp_data`.
const DATA_NR: u32 = 0;
const DATA_ARCH: u32 = 4;
const DATA_ARGS: u32 = 16;

const MAX_ARGS: usize = 6;

/// Why a profile cannot be compiled.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    #[error("seccomp architecture {0} is not supported")]
    UnknownArch(Arch),
    #[error("SCMP_ACT_NOTIFY cannot be the default action")]
    NotifyByDefault,
    /// The runtime still has to hand over the listener when the filter is on, and that takes write(2).
    #[error("SCMP_ACT_NOTIFY cannot be used for the write syscall")]
    NotifyOnWrite,
    #[error("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY")]
    WaitKillableWithoutNotify,
    #[error("seccomp rule {rule} has an empty syscall name")]
    EmptyName { rule: usize },
    #[error("seccomp rule {rule}: a syscall has arguments 0 to 5, not {index}")]
    NoSuchArg { rule: usize, index: usize },
    #[error("seccomp rules give {syscall} two actions under the same conditions")]
    Conflict { syscall: String },
    #[error("seccomp program has {0} instructions, the kernel takes {max}", max = code::MAX_INSNS)]
    TooLong(usize),
}

/// What the kernel is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The instructions, first one first.
    pub program: Vec<SockFilter>,
    /// SECCOMP_FILTER_FLAG_*, as the `FLAG_*` here.
    pub flags: u32,
}

/// What [`compile`] makes of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// For the kernel.
    pub filter: Filter,
    /// Names in the profile that are no syscall of any of its architectures, sorted: worth a line in the debug log.
    pub ignored: Vec<String>,
}

/// The OCI name of the architecture that Rust calls `name` (`std::env::consts::ARCH`), if we have its syscall table.
pub fn arch_named(name: &str) -> Option<Arch> {
    match name {
        "x86_64" => Some(Arch::ScmpArchX86_64),
        "x86" => Some(Arch::ScmpArchX86),
        "aarch64" => Some(Arch::ScmpArchAarch64),
        "arm" => Some(Arch::ScmpArchArm),
        "riscv64" => Some(Arch::ScmpArchRiscv64),
        _ => None,
    }
}

/// Compiles a profile for a machine whose own architecture is `native`.
pub fn compile(spec: &LinuxSeccomp, native: Arch) -> Result<Compiled, SeccompError> {
    let profile = Profile::read(spec)?;
    let abis = abis(spec, native)?;
    let flags = flags(spec, &profile)?;

    let tables: Vec<Table> = abis.into_iter().map(|abi| profile.look_up(abi)).collect();
    let mut machines: Vec<(u32, Vec<Span>)> = Vec::new();
    for Table { abi, .. } in &tables {
        if machines.iter().all(|&(audit, _)| audit != abi.audit()) {
            let group: Vec<&Table> = tables.iter().filter(|table| table.abi.audit() == abi.audit()).collect();
            machines.push((abi.audit(), profile.spans(&group)?));
        }
    }
    let program = assemble(&machines, profile.default);
    if program.len() > code::MAX_INSNS {
        return Err(SeccompError::TooLong(program.len()));
    }
    let nowhere = |&(i, _): &(usize, &str)| tables.iter().all(|table| table.places[i].is_nowhere());
    let ignored: BTreeSet<&str> = profile.names().enumerate().filter(nowhere).map(|(_, name)| name).collect();
    Ok(Compiled { filter: Filter { program, flags }, ignored: ignored.into_iter().map(str::to_owned).collect() })
}

fn abis(spec: &LinuxSeccomp, native: Arch) -> Result<Vec<Abi>, SeccompError> {
    let mut abis = Vec::new();
    let listed = spec.architectures().iter().flatten().copied();
    for arch in std::iter::once(native).chain(listed) {
        let arch = if arch == Arch::ScmpArchNative { native } else { arch };
        let abi = Abi::of(arch).ok_or(SeccompError::UnknownArch(arch))?;
        if !abis.contains(&abi) {
            abis.push(abi);
        }
    }
    Ok(abis)
}

fn flags(spec: &LinuxSeccomp, profile: &Profile) -> Result<u32, SeccompError> {
    let mut bits = match spec.flags() {
        None => FLAG_SPEC_ALLOW,
        Some(flags) => flags.iter().fold(0, |bits, flag| {
            bits | match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => FLAG_WAIT_KILLABLE_RECV,
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            }
        }),
    };
    if profile.notifies() {
        bits |= FLAG_NEW_LISTENER;
    } else if bits & FLAG_WAIT_KILLABLE_RECV != 0 {
        // The kernel says no more than EINVAL to this (kernel/seccomp.c, seccomp_set_mode_filter).
        return Err(SeccompError::WaitKillableWithoutNotify);
    }
    Ok(bits)
}

/// The value a filter returns for an action.
fn verdict(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    let data = errno.unwrap_or(EPERM) & !RET_ACTION_FULL;
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => RET_KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => RET_TRAP,
        LinuxSeccompAction::ScmpActErrno => RET_ERRNO | data,
        LinuxSeccompAction::ScmpActNotify => RET_USER_NOTIF,
        LinuxSeccompAction::ScmpActTrace => RET_TRACE | data,
        LinuxSeccompAction::ScmpActLog => RET_LOG,
        LinuxSeccompAction::ScmpActAllow => RET_ALLOW,
    }
}

/// The profile as the spec says it, before any architecture comes in.
struct Profile<'a> {
    default: u32,
    rules: Vec<Rule<'a>>,
}

struct Rule<'a> {
    names: &'a [String],
    action: u32,
    /// The rule holds if all the conditions of one of these do. One empty list: it always holds.
    alternatives: Vec<Vec<LinuxSeccompArg>>,
}

impl<'a> Profile<'a> {
    fn read(spec: &'a LinuxSeccomp) -> Result<Self, SeccompError> {
        let default = verdict(spec.default_action(), spec.default_errno_ret());
        if default == RET_USER_NOTIF {
            return Err(SeccompError::NotifyByDefault);
        }
        let rules = spec.syscalls().iter().flatten().enumerate().map(|(i, syscall)| Rule::read(i, syscall));
        Ok(Self { default, rules: rules.collect::<Result<_, _>>()? })
    }

    fn names(&self) -> impl Iterator<Item = &'a str> {
        self.rules.iter().flat_map(|rule| rule.names.iter().map(String::as_str))
    }

    fn notifies(&self) -> bool {
        self.rules.iter().any(|rule| rule.action == RET_USER_NOTIF && !rule.names.is_empty())
    }

    /// Looks up all names, in their order.
    fn look_up(&self, abi: Abi) -> Table {
        let place = |name| Place {
            direct: abi.number(name),
            multiplexed: if abi == Abi::X86 { table::x86_multiplexed(name) } else { None },
        };
        Table { abi, places: self.names().map(place).collect() }
    }

    /// What becomes of each call number of one kernel architecture.
    fn spans(&self, tables: &[&Table]) -> Result<Vec<Span>, SeccompError> {
        // As libseccomp, src/gen_bpf.c `_gen_bpf_arch`, "additional ABI filtering".
        let foreign = match tables {
            [Table { abi: Abi::X86_64, .. }] => Some((X32_BIT, u32::MAX - 1)),
            [Table { abi: Abi::X32, .. }] => Some((0, X32_BIT - 1)),
            _ => None,
        };
        let newer: Vec<(u32, u32)> = match self.default & RET_ACTION_FULL {
            RET_ALLOW | RET_LOG | RET_TRACE => Vec::new(),
            _ => tables.iter().flat_map(|table| table.newer()).collect(),
        };
        let calls = self.fates(tables)?;

        let ends = |(from, to): (u32, u32)| std::iter::once(from).chain(to.checked_add(1));
        let ranges = foreign.into_iter().chain(newer.iter().copied());
        let mut starts: Vec<u32> = ranges.chain(calls.iter().map(|&(n, _)| (n, n))).flat_map(ends).collect();
        starts.push(0);
        starts.sort_unstable();
        starts.dedup();
        let within = |at: u32, (from, to): (u32, u32)| (from..=to).contains(&at);
        let mut calls = calls.into_iter().peekable();
        let mut spans: Vec<Span> = Vec::new();
        for from in starts {
            let named = calls.next_if(|&(number, _)| number == from).map(|(_, fate)| fate);
            let fate = if newer.iter().any(|&range| within(from, range)) {
                Fate::Return(RET_ERRNO | ENOSYS)
            } else if let Some(fate) = named {
                fate
            } else if foreign.is_some_and(|range| within(from, range)) {
                Fate::Return(RET_KILL_THREAD)
            } else {
                Fate::Return(self.default)
            };
            if spans.last().is_none_or(|last| last.fate != fate) {
                spans.push(Span { from, fate });
            }
        }
        Ok(spans)
    }

    /// What becomes of the calls that the ABIs have and the profile names, by their numbers.
    fn fates(&self, tables: &[&Table]) -> Result<Vec<(u32, Fate)>, SeccompError> {
        let mut all: Vec<(u32, &str, Vec<Test>, u32)> = Vec::with_capacity(self.names().count() * tables.len());
        for table in tables {
            let mut places = table.places.iter();
            for rule in &self.rules {
                let alternatives: Vec<Vec<Test>> =
                    rule.alternatives.iter().map(|args| tests(args, table.abi.wide())).collect();
                for (name, place) in rule.names.iter().zip(&mut places).filter(|_| rule.action != self.default) {
                    let conditions = alternatives.iter().flat_map(|tests| place.conditions(tests));
                    all.extend(conditions.map(|(number, tests)| (number, name.as_str(), tests, rule.action)));
                }
            }
        }
        all.sort_by_key(|(number, ..)| *number); // stable: what comes first in the profile stays first
        let mut calls: Vec<(u32, Call)> = Vec::with_capacity(all.len());
        for (number, name, tests, action) in all {
            match calls.last_mut().filter(|(last, _)| *last == number) {
                Some((_, call)) => call.add(name, tests, action)?,
                None => {
                    let mut call = Call::default();
                    call.add(name, tests, action)?;
                    calls.push((number, call));
                }
            }
        }
        Ok(calls.into_iter().map(|(number, call)| (number, call.fate())).collect())
    }
}

/// Where an ABI has the calls that a profile names, in the order of the names.
struct Table {
    abi: Abi,
    places: Vec<Place>,
}

impl Table {
    /// The numbers above all those named, in ranges; runc counts the rules it drops, too, and has none if there is nothing
    /// newer than number 0. On x86_64, bit 30 says whose number it is.
    fn newer(&self) -> Vec<(u32, u32)> {
        let newest = self.places.iter().filter_map(|place| place.direct).max();
        let Some(next) = newest.filter(|&newest| newest > 0).and_then(|newest| newest.checked_add(1)) else {
            return Vec::new();
        };
        let ranges = match self.abi {
            Abi::X86_64 => vec![(0, X32_BIT - 1), (0x8000_0000, 0xbfff_ffff)],
            Abi::X32 => vec![(X32_BIT, 0x7fff_ffff), (0xc000_0000, u32::MAX)],
            Abi::X86 | Abi::Aarch64 | Abi::Arm | Abi::Riscv64 => vec![(0, u32::MAX)],
        };
        ranges.into_iter().map(|(from, to)| (next.max(from), to)).filter(|(from, to)| from <= to).collect()
    }
}

/// Where an ABI has a call.
struct Place {
    direct: Option<u32>,
    multiplexed: Option<(u32, u64)>,
}

impl Place {
    fn is_nowhere(&self) -> bool {
        self.direct.is_none() && self.multiplexed.is_none()
    }

    /// The numbers of the call, each with the conditions that pick it out there.
    fn conditions(&self, tests: &[Test]) -> impl Iterator<Item = (u32, Vec<Test>)> {
        let direct = self.direct.map(|number| (number, tests.to_vec()));
        let multiplexed = self.multiplexed.map(|(number, which)| {
            // What the profile says of the first argument gives way to the multiplexer's, and the rest stays, though the
            // arguments are elsewhere: so does libseccomp.
            let which = Test { arg: 0, op: Op::Eq, mask: u32::MAX.into(), value: which };
            let rest = tests.iter().copied().filter(|test| test.arg != 0);
            (number, std::iter::once(which).chain(rest).collect())
        });
        direct.into_iter().chain(multiplexed)
    }
}

impl<'a> Rule<'a> {
    fn read(rule: usize, syscall: &'a LinuxSyscall) -> Result<Self, SeccompError> {
        let action = verdict(syscall.action(), syscall.errno_ret());
        for name in syscall.names() {
            if name.is_empty() {
                return Err(SeccompError::EmptyName { rule });
            }
            if name == "write" && action == RET_USER_NOTIF {
                return Err(SeccompError::NotifyOnWrite);
            }
        }
        let args = syscall.args().as_deref().unwrap_or_default();
        let mut seen = [false; MAX_ARGS];
        let mut repeated = false;
        for arg in args {
            let index = arg.index();
            let seen = seen.get_mut(index).ok_or(SeccompError::NoSuchArg { rule, index })?;
            repeated |= std::mem::replace(seen, true);
        }
        let alternatives = if repeated { args.iter().map(|&arg| vec![arg]).collect() } else { vec![args.to_vec()] };
        Ok(Self { names: syscall.names(), action, alternatives })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Op {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
}

/// One condition, cut to the width of its ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Test {
    arg: u8,
    op: Op,
    /// All ones of the width, unless `op` is [`Op::Eq`].
    mask: u64,
    value: u64,
}

impl Test {
    /// The order of libseccomp's tree (src/db.c `_db_chain_lt`), first one first.
    fn order(&self) -> (Reverse<u8>, u8, Reverse<u64>) {
        let (class, value) = match self.op {
            Op::Ne | Op::Eq => (0, self.value),
            Op::Lt | Op::Le => (1, !self.value),
            Op::Ge | Op::Gt => (2, self.value),
        };
        (Reverse(self.arg), class, Reverse(value))
    }
}

/// The conditions in the order of their arguments, without those that always hold.
fn tests(args: &[LinuxSeccompArg], wide: bool) -> Vec<Test> {
    let width = if wide { u64::MAX } else { u32::MAX.into() };
    let test = |arg: &LinuxSeccompArg| {
        let (op, mask, value) = match arg.op() {
            LinuxSeccompOperator::ScmpCmpNe => (Op::Ne, width, arg.value()),
            LinuxSeccompOperator::ScmpCmpLt => (Op::Lt, width, arg.value()),
            LinuxSeccompOperator::ScmpCmpLe => (Op::Le, width, arg.value()),
            LinuxSeccompOperator::ScmpCmpEq => (Op::Eq, width, arg.value()),
            LinuxSeccompOperator::ScmpCmpGe => (Op::Ge, width, arg.value()),
            LinuxSeccompOperator::ScmpCmpGt => (Op::Gt, width, arg.value()),
            LinuxSeccompOperator::ScmpCmpMaskedEq => (Op::Eq, arg.value() & width, arg.value_two().unwrap_or(0)),
        };
        // `Rule::read` let only 0 to 5 through.
        Test { arg: arg.index() as u8, op, mask, value: value & mask }
    };
    let mut tests: Vec<Test> = args.iter().map(test).filter(|test| test.mask != 0).collect();
    tests.sort_by_key(|test| test.arg);
    tests
}

/// The rules for one call number.
#[derive(Default)]
struct Call {
    always: Option<u32>,
    sometimes: Vec<(Vec<Test>, u32)>,
}

impl Call {
    fn add(&mut self, name: &str, tests: Vec<Test>, action: u32) -> Result<(), SeccompError> {
        if tests.is_empty() {
            self.always.get_or_insert(action);
            return Ok(());
        }
        match self.sometimes.iter().find(|(other, _)| *other == tests) {
            None => self.sometimes.push((tests, action)),
            Some(&(_, same)) if same == action => {}
            // Harmless if a rule without conditions decides anyway, and libseccomp refuses it or not by the order of
            // the rules. What the profile's author meant is unclear either way.
            Some(_) => return Err(SeccompError::Conflict { syscall: name.to_owned() }),
        }
        Ok(())
    }

    fn fate(mut self) -> Fate {
        if let Some(action) = self.always {
            return Fate::Return(action);
        }
        self.sometimes.sort_by(|(a, _), (b, _)| more_specific(a, b));
        Fate::Match(self.sometimes)
    }
}

/// Which of two rules is asked first.
fn more_specific(a: &[Test], b: &[Test]) -> Ordering {
    a.iter().map(Test::order).cmp(b.iter().map(Test::order))
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Fate {
    Return(u32),
    /// The first rule that holds decides, the default action if none does.
    Match(Vec<(Vec<Test>, u32)>),
}

/// The call numbers from `from` up to the next span have one fate.
struct Span {
    from: u32,
    fate: Fate,
}

/// The whole program: which architecture, then which span by binary search, then the conditions.
fn assemble(machines: &[(u32, Vec<Span>)], default: u32) -> Vec<SockFilter> {
    let mut writer = Writer { code: Backwards::default(), default, matches: HashMap::new() };
    let mut entry = writer.code.ret(RET_KILL_THREAD);
    let mut entries: Vec<(u32, Label)> = Vec::new();
    for (audit, spans) in machines.iter().rev() {
        let search = writer.search(spans);
        entries.push((*audit, writer.code.load(DATA_NR, search)));
    }
    for (audit, machine) in entries {
        entry = writer.code.branch(Compare::Eq, audit, machine, entry);
    }
    writer.code.load(DATA_ARCH, entry);
    writer.code.finish()
}

struct Writer<'a> {
    code: Backwards,
    default: u32,
    /// Conditions already written: calls that share them share the code.
    matches: HashMap<&'a [(Vec<Test>, u32)], Label>,
}

impl<'a> Writer<'a> {
    fn search(&mut self, spans: &'a [Span]) -> Label {
        match spans {
            [] => self.code.ret(self.default),
            [span] => self.fate(&span.fate),
            _ => {
                let (low, high) = spans.split_at(spans.len() / 2);
                let from = high[0].from;
                let high = self.search(high);
                let low = self.search(low);
                self.code.branch(Compare::Ge, from, high, low)
            }
        }
    }

    fn fate(&mut self, fate: &'a Fate) -> Label {
        let rules = match fate {
            Fate::Return(action) => return self.code.ret(*action),
            Fate::Match(rules) => rules,
        };
        if let Some(&label) = self.matches.get(rules.as_slice()) {
            return label;
        }
        let mut label = self.code.ret(self.default);
        for (tests, action) in rules.iter().rev() {
            let no = label;
            label = self.code.ret(*action);
            for test in tests.iter().rev() {
                label = self.test(test, label, no);
            }
        }
        self.matches.insert(rules, label);
        label
    }

    /// A comparison of 64 bits in two of 32. The mask tells the width: a half it leaves out is not looked at.
    fn test(&mut self, test: &Test, yes: Label, no: Label) -> Label {
        let compare = match test.op {
            Op::Eq => return self.equal(test, yes, no),
            Op::Ne => return self.equal(test, no, yes),
            Op::Lt => return self.test(&Test { op: Op::Ge, ..*test }, no, yes),
            Op::Le => return self.test(&Test { op: Op::Gt, ..*test }, no, yes),
            Op::Ge => Compare::Ge,
            Op::Gt => Compare::Gt,
        };
        let [low, high] = halves(test);
        let label = self.code.branch(compare, low.value, yes, no);
        let label = self.code.load(low.offset, label);
        if high.mask == 0 {
            return label;
        }
        let label = self.code.branch(Compare::Eq, high.value, label, no);
        let label = self.code.branch(Compare::Gt, high.value, yes, label);
        self.code.load(high.offset, label)
    }

    fn equal(&mut self, test: &Test, yes: Label, no: Label) -> Label {
        halves(test).into_iter().filter(|half| half.mask != 0).fold(yes, |yes, half| {
            let label = self.code.branch(Compare::Eq, half.value, yes, no);
            let label = if half.mask == u32::MAX { label } else { self.code.and(half.mask, label) };
            self.code.load(half.offset, label)
        })
    }
}

struct Half {
    offset: u32,
    mask: u32,
    value: u32,
}

/// The halves of a condition, low one first.
fn halves(test: &Test) -> [Half; 2] {
    [0, 1].map(|high| Half {
        offset: DATA_ARGS + 8 * u32::from(test.arg) + 4 * high,
        mask: (test.mask >> (32 * high)) as u32,
        value: (test.value >> (32 * high)) as u32,
    })
}

impl Filter {
    /// As it is kept: the flags, how many instructions there are, and these as the kernel has them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + 8 * self.program.len());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend((self.program.len() as u32).to_ne_bytes()); // code::MAX_INSNS at most
        for SockFilter { code, jt, jf, k } in &self.program {
            bytes.extend(code.to_ne_bytes());
            bytes.extend([*jt, *jf]);
            bytes.extend(k.to_ne_bytes());
        }
        bytes
    }

    /// What was kept, if it is whole.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first_chunk()?;
        let (many, rest) = rest.split_first_chunk()?;
        let (instructions, cut) = rest.as_chunks::<8>();
        let instruction = |&[c0, c1, jt, jf, k0, k1, k2, k3]: &[u8; 8]| SockFilter {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        };
        let whole = cut.is_empty() && u32::from_ne_bytes(*many) as usize == instructions.len();
        let program = || instructions.iter().map(instruction).collect();
        whole.then(|| Self { program: program(), flags: u32::from_ne_bytes(*flags) })
    }

    /// Whether loading the filter gives a listener for SCMP_ACT_NOTIFY.
    pub fn has_listener(&self) -> bool {
        self.flags & FLAG_NEW_LISTENER != 0
    }
}
