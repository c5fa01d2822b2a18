//! The compiler against a model that evaluates the profile as written, both run on the same calls. The kernel's own
//! answers are in `host::bpf::tests`.

use oci_spec::runtime::{LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSyscallBuilder};
use proptest::prelude::*;

use super::*;

/// What the kernel hands to a filter.
#[derive(Debug, Clone, Copy)]
struct Data {
    nr: u32,
    arch: u32,
    args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.nr,
            4 => self.arch,
            8 | 12 => 0x5a5a_5a5a, // the instruction pointer: no filter of ours looks
            _ => (self.args[(offset as usize - 16) / 8] >> (8 * (offset % 8))) as u32,
        }
    }
}

/// Runs a program as the kernel would. Returns the verdict, and how many instructions it took.
fn run(program: &[SockFilter], data: &Data) -> (u32, usize) {
    let (mut pc, mut a, mut steps) = (0, 0u32, 0);
    loop {
        let i = program[pc];
        (pc, steps) = (pc + 1, steps + 1);
        let mut jump = |yes: bool| pc += usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            code::LD_W_ABS => a = data.word(i.k),
            code::ALU_AND_K => a &= i.k,
            code::JMP_JA => pc += i.k as usize,
            code::JMP_JEQ_K => jump(a == i.k),
            code::JMP_JGT_K => jump(a > i.k),
            code::JMP_JGE_K => jump(a >= i.k),
            code::RET_K => return (i.k, steps),
            other => panic!("opcode {other:#x}"),
        }
    }
}

/// The profile, evaluated call by call as the prologue of this module says.
fn model(spec: &LinuxSeccomp, native: Arch, data: &Data) -> u32 {
    let mut archs = vec![native];
    archs.extend(spec.architectures().iter().flatten());
    let listed = |abi: Abi| archs.iter().any(|&arch| Abi::of(arch) == Some(abi));
    let x32_number = data.nr & 0x4000_0000 != 0;
    let abi = match data.arch {
        0xc000_003e if x32_number => Abi::X32,
        0xc000_003e => Abi::X86_64,
        0x4000_0003 => Abi::X86,
        0x4000_0028 => Abi::Arm,
        0xc000_00b7 => Abi::Aarch64,
        0xc000_00f3 => Abi::Riscv64,
        _ => return RET_KILL_THREAD,
    };
    let default = verdict(spec.default_action(), spec.default_errno_ret());
    let rules = || spec.syscalls().iter().flatten();
    let named = || rules().flat_map(LinuxSyscall::names);

    if listed(abi) && !matches!(default >> 16, 0x7fff | 0x7ffc | 0x7ff0) {
        let newest = named().filter_map(|name| abi.number(name)).max().unwrap_or(0);
        if newest != 0 && data.nr > newest {
            return 0x0005_0000 | 38;
        }
    }
    let pair = [Abi::X86_64, Abi::X32];
    if pair.contains(&abi) {
        if !pair.iter().any(|&one| listed(one)) {
            return RET_KILL_THREAD;
        }
        if !listed(Abi::X32) && data.nr >= 0x4000_0000 && data.nr != u32::MAX {
            return RET_KILL_THREAD;
        }
        if !listed(Abi::X86_64) && data.nr < 0x4000_0000 {
            return RET_KILL_THREAD;
        }
    } else if !listed(abi) {
        return RET_KILL_THREAD;
    }

    let wide = matches!(abi, Abi::X86_64 | Abi::Aarch64 | Abi::Riscv64);
    let mut holding: Vec<(Vec<LinuxSeccompArg>, u32)> = Vec::new();
    for rule in rules() {
        let action = verdict(rule.action(), rule.errno_ret());
        if action == default {
            continue;
        }
        let args = rule.args().clone().unwrap_or_default();
        let repeated = (0..6).any(|i| args.iter().filter(|arg| arg.index() == i).count() > 1);
        let alternatives: Vec<_> = if repeated { args.iter().map(|arg| vec![*arg]).collect() } else { vec![args] };
        for name in rule.names() {
            for args in &alternatives {
                let mut ways = Vec::new();
                if abi.number(name) == Some(data.nr) {
                    ways.push(args.clone());
                }
                match table::x86_multiplexed(name) {
                    Some((number, which)) if abi == Abi::X86 && number == data.nr => {
                        let mut args: Vec<_> = args.iter().filter(|arg| arg.index() != 0).copied().collect();
                        args.push(arg(0, LinuxSeccompOperator::ScmpCmpEq, which, None));
                        ways.push(args);
                    }
                    _ => {}
                }
                for mut args in ways {
                    args.retain(|arg| !vacuous(arg, wide));
                    args.sort_by_key(LinuxSeccompArg::index);
                    if args.iter().all(|arg| holds(arg, wide, data.args[arg.index()])) {
                        holding.push((args, action));
                    }
                }
            }
        }
    }
    match holding.iter().find(|(args, _)| args.is_empty()) {
        Some(&(_, action)) => action,
        None => {
            // Not `min_by`, which would ask the order to be total on equals: of equals, take the first.
            let mut best: Option<&(Vec<LinuxSeccompArg>, u32)> = None;
            for rule in &holding {
                if best.is_none_or(|best| comes_first(&rule.0, &best.0, wide)) {
                    best = Some(rule);
                }
            }
            best.map_or(default, |&(_, action)| action)
        }
    }
}

fn vacuous(arg: &LinuxSeccompArg, wide: bool) -> bool {
    arg.op() == LinuxSeccompOperator::ScmpCmpMaskedEq && (arg.value() == 0 || (!wide && arg.value() as u32 == 0))
}

fn holds(arg: &LinuxSeccompArg, wide: bool, actual: u64) -> bool {
    let cut = |x: u64| if wide { x } else { u64::from(x as u32) };
    let (x, value) = (cut(actual), cut(arg.value()));
    match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => x != value,
        LinuxSeccompOperator::ScmpCmpLt => x < value,
        LinuxSeccompOperator::ScmpCmpLe => x <= value,
        LinuxSeccompOperator::ScmpCmpEq => x == value,
        LinuxSeccompOperator::ScmpCmpGe => x >= value,
        LinuxSeccompOperator::ScmpCmpGt => x > value,
        LinuxSeccompOperator::ScmpCmpMaskedEq => x & value == cut(arg.value_two().unwrap_or(0)) & value,
    }
}

/// Whether a rule is asked before another that holds, too.
fn comes_first(a: &[LinuxSeccompArg], b: &[LinuxSeccompArg], wide: bool) -> bool {
    use LinuxSeccompOperator::*;
    let class = |arg: &LinuxSeccompArg| match arg.op() {
        ScmpCmpNe | ScmpCmpEq | ScmpCmpMaskedEq => 3,
        ScmpCmpLt | ScmpCmpLe => 2,
        ScmpCmpGt | ScmpCmpGe => 1,
    };
    let value = |arg: &LinuxSeccompArg| {
        let value = match arg.op() {
            ScmpCmpMaskedEq => arg.value() & arg.value_two().unwrap_or(0),
            _ => arg.value(),
        };
        if wide { value } else { u64::from(value as u32) }
    };
    for (a, b) in a.iter().zip(b) {
        if a.index() != b.index() {
            return a.index() > b.index();
        }
        if class(a) != class(b) {
            return class(a) > class(b);
        }
        if value(a) != value(b) {
            return if class(a) == 2 { value(a) < value(b) } else { value(a) > value(b) };
        }
    }
    a.len() < b.len()
}

fn arg(index: usize, op: LinuxSeccompOperator, value: u64, two: Option<u64>) -> LinuxSeccompArg {
    let arg = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
    match two {
        Some(two) => arg.value_two(two).build(),
        None => arg.build(),
    }
    .expect("every field has a default")
}

fn rule(names: &[&str], action: LinuxSeccompAction, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    LinuxSyscallBuilder::default().names(names).action(action).args(args).build().expect("every field has a default")
}

fn profile(default: LinuxSeccompAction, archs: &[Arch], rules: Vec<LinuxSyscall>) -> LinuxSeccomp {
    LinuxSeccompBuilder::default()
        .default_action(default)
        .architectures(archs)
        .syscalls(rules)
        .build()
        .expect("every field has a default")
}

use LinuxSeccompAction::{
    ScmpActAllow as Allow, ScmpActErrno as Errno, ScmpActKill as Kill, ScmpActKillProcess as KillProcess,
    ScmpActLog as Log, ScmpActNotify as Notify, ScmpActTrace as Trace, ScmpActTrap as Trap,
};
use LinuxSeccompOperator::{
    ScmpCmpEq as EqualTo, ScmpCmpGe as AtLeast, ScmpCmpGt as Above, ScmpCmpLe as AtMost, ScmpCmpLt as Below,
    ScmpCmpMaskedEq as Masked, ScmpCmpNe as NotEqual,
};

const X86_64: Arch = Arch::ScmpArchX86_64;
const ARCHS: [Arch; 6] = [
    Arch::ScmpArchX86_64,
    Arch::ScmpArchX32,
    Arch::ScmpArchX86,
    Arch::ScmpArchAarch64,
    Arch::ScmpArchArm,
    Arch::ScmpArchRiscv64,
];
const AUDITS: [u32; 7] = [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0xc000_00f3, 0x8000_0016, 0];

fn call(nr: u32, args: [u64; 6]) -> Data {
    Data { nr, arch: 0xc000_003e, args }
}

fn on_x86_64(spec: &LinuxSeccomp, data: Data) -> u32 {
    let compiled = compile(spec, X86_64).expect("the profile compiles");
    run(&compiled.filter.program, &data).0
}

/// Few names, so that rules meet; of every kind: on all ABIs, on some, multiplexed, in ARM's private range, on none.
const NAMES: [&str; 18] = [
    "read",
    "write",
    "open",
    "ioctl",
    "socket",
    "recv",
    "accept",
    "semop",
    "socketcall",
    "ipc",
    "clone3",
    "openat",
    "rt_sigaction",
    "set_tls",
    "futex_time64",
    "newfstatat",
    "uselib",
    "no_such_call",
];

/// Values around what splitting in halves could get wrong.
const VALUES: [u64; 12] = [
    0,
    1,
    2,
    5,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x2_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_0000_0000,
    u64::MAX,
];

fn values() -> impl Strategy<Value = u64> {
    prop_oneof![4 => prop::sample::select(&VALUES[..]), 1 => any::<u64>()]
}

fn args() -> impl Strategy<Value = Vec<LinuxSeccompArg>> {
    let op = prop::sample::select(vec![NotEqual, Below, AtMost, EqualTo, AtLeast, Above, Masked]);
    let one = (0usize..6, op, values(), prop::option::of(values()));
    let one = one.prop_map(|(index, op, value, two)| arg(index % 3 * (1 + index / 3), op, value, two));
    prop::collection::vec(one, 0..4)
}

fn actions() -> impl Strategy<Value = (LinuxSeccompAction, Option<u32>)> {
    let action = prop::sample::select(vec![Allow, Errno, Kill, KillProcess, Trap, Trace, Log]);
    (action, prop::option::of(prop::sample::select(vec![0, 1, 38, 4095, 0x1_0001])))
}

/// Rules with actions of their own, or all with one.
fn rules(names: Vec<&'static str>, count: usize) -> impl Strategy<Value = Vec<LinuxSyscall>> {
    let names = prop::collection::vec(prop::sample::select(names), 1..4);
    let rules = prop::collection::vec((names, actions(), args()), 0..count);
    (rules, prop::option::of(actions())).prop_map(|(rules, same)| {
        rules
            .into_iter()
            .map(|(names, own, args)| {
                let (action, errno) = same.unwrap_or(own);
                let mut rule = rule(&names, action, args);
                rule.set_errno_ret(errno);
                rule
            })
            .collect()
    })
}

fn profiles(names: Vec<&'static str>, count: usize) -> impl Strategy<Value = (LinuxSeccomp, Arch)> {
    let archs = prop::collection::vec(prop::sample::select(&ARCHS[..]), 0..4);
    let native = prop::sample::select(vec![ARCHS[0], ARCHS[0], ARCHS[3], ARCHS[5]]);
    (actions(), archs, native, rules(names, count)).prop_map(|((default, errno), archs, native, rules)| {
        let mut spec = profile(default, &archs, rules);
        spec.set_default_errno_ret(errno);
        (spec, native)
    })
}

/// Calls near the edges of what the profile names.
fn calls() -> impl Strategy<Value = Vec<(usize, usize, i32, u32, [u64; 6])>> {
    let bits = prop::sample::select(vec![0, 0, 0, X32_BIT, 0x8000_0000, 0xc000_0000]);
    let one = (0usize..6, 0..NAMES.len() + 2, -1..2i32, bits, prop::array::uniform6(values()));
    prop::collection::vec(one, 24)
}

fn agree(spec: &LinuxSeccomp, native: Arch, calls: impl IntoIterator<Item = Data>) -> Result<(), TestCaseError> {
    let program = match compile(spec, native) {
        Ok(compiled) => compiled.filter.program,
        // Random rules do collide now and then. That they really do is `two_actions_for_one_condition` to test.
        Err(SeccompError::Conflict { .. }) => return Ok(()),
        Err(SeccompError::TooLong(length)) if length > code::MAX_INSNS => return Ok(()),
        Err(other) => return Err(TestCaseError::fail(other.to_string())),
    };
    prop_assert!(code::is_sound(&program));
    for data in calls {
        prop_assert_eq!(run(&program, &data).0, model(spec, native, &data), "{:?}", data);
    }
    Ok(())
}

fn data(at: &(usize, usize, i32, u32, [u64; 6])) -> Data {
    let &(arch, name, step, bits, args) = at;
    let number = NAMES.get(name).and_then(|name| {
        let abi = Abi::of(ARCHS[arch])?;
        abi.number(name).or_else(|| table::x86_multiplexed(name).map(|(number, _)| number))
    });
    let nr = number.unwrap_or(if name % 2 == 0 { u32::MAX } else { 500 });
    let audit = Abi::of(ARCHS[arch]).map_or(0, Abi::audit);
    Data { nr: nr.wrapping_add_signed(step) ^ bits, arch: audit, args }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn small_profiles_mean_what_they_say((spec, native) in profiles(NAMES.to_vec(), 7), calls in calls()) {
        agree(&spec, native, calls.iter().map(data))?;
    }

    #[test]
    fn a_verdict_for_every_architecture(
        (spec, native) in profiles(NAMES.to_vec(), 4),
        arch in prop::sample::select(&AUDITS[..]),
        nr in any::<u32>(),
        args in prop::array::uniform6(values()),
    ) {
        agree(&spec, native, [Data { nr, arch, args }])?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Programs of hundreds and thousands of instructions, where jumps need stepping stones.
    #[test]
    fn large_profiles_mean_what_they_say(
        (spec, native) in profiles(every_name(), 260),
        numbers in prop::collection::vec((0u32..480, prop::sample::select(&AUDITS[..]), prop::array::uniform6(values())), 40),
        bits in prop::sample::select(vec![0, X32_BIT]),
    ) {
        agree(&spec, native, numbers.into_iter().map(|(nr, arch, args)| Data { nr: nr | bits, arch, args }))?;
    }
}

fn every_name() -> Vec<&'static str> {
    syscalls::x86_64::Sysno::iter().map(|call| call.name()).collect()
}

/// All numbers of a table, all verdicts: nothing between the numbers that the random calls above do not hit.
#[test]
fn each_call_of_a_large_profile() {
    let allowed: Vec<&str> = every_name().into_iter().enumerate().filter(|(i, _)| i % 7 != 0).map(|(_, n)| n).collect();
    let trapped: Vec<&str> = every_name().into_iter().enumerate().filter(|(i, _)| i % 7 == 0).map(|(_, n)| n).collect();
    let high = arg(5, AtLeast, 0x1_0000_0005, None);
    let spec = profile(Errno, &ARCHS[..3], vec![rule(&allowed, Allow, vec![]), rule(&trapped, Trap, vec![high])]);
    let compiled = compile(&spec, X86_64).expect("the profile compiles");
    for arch in AUDITS {
        for nr in (0..600).chain(X32_BIT..X32_BIT + 600).chain([u32::MAX, 0x8000_0000, 0xc000_0000]) {
            for last in [0, 0x1_0000_0005, 0x2_0000_0000, 5] {
                let data = Data { nr, arch, args: [0, 0, 0, 0, 0, last] };
                assert_eq!(run(&compiled.filter.program, &data).0, model(&spec, X86_64, &data), "{data:?}");
            }
        }
    }
}

/// A number is found by halving: 400 calls in 200 runs cost no more than a dozen instructions.
#[test]
fn the_way_to_a_verdict_is_short() {
    let every_other: Vec<&str> = every_name().into_iter().step_by(2).collect();
    let spec = profile(Errno, &[], vec![rule(&every_other, Allow, vec![])]);
    let compiled = compile(&spec, X86_64).expect("the profile compiles");
    let longest = (0..500).map(|nr| run(&compiled.filter.program, &call(nr, [0; 6])).1).max();
    assert!(longest.is_some_and(|steps| steps <= 16), "{longest:?} instructions");
    assert!(compiled.filter.program.len() < 500, "{} instructions", compiled.filter.program.len());
}

#[test]
fn neighbours_with_one_fate_are_one_range() {
    let spec = profile(Errno, &[], vec![rule(&["read", "write", "open", "close"], Allow, vec![])]);
    let spans = Profile::read(&spec)
        .and_then(|profile| profile.spans(&[&profile.look_up(Abi::X86_64)]))
        .expect("the profile compiles");
    let spans: Vec<(u32, Fate)> = spans.into_iter().map(|span| (span.from, span.fate)).collect();
    let (allow, enosys, kill) = (Fate::Return(RET_ALLOW), Fate::Return(RET_ERRNO | 38), Fate::Return(RET_KILL_THREAD));
    assert_eq!(
        spans,
        [
            (0, allow),
            (4, enosys.clone()),
            (0x4000_0000, kill.clone()),
            (0x8000_0000, enosys),
            (0xc000_0000, kill),
            (u32::MAX, Fate::Return(RET_ERRNO | 1)),
        ]
    );
}

#[test]
fn verdicts_are_the_numbers_of_linux_seccomp_h() {
    let cases = [
        (Kill, None, 0),
        (LinuxSeccompAction::ScmpActKillThread, Some(7), 0),
        (KillProcess, None, 0x8000_0000),
        (Trap, None, 0x0003_0000),
        (Errno, None, 0x0005_0001),
        (Errno, Some(38), 0x0005_0026),
        (Errno, Some(0x1_0002), 0x0005_0002),
        (Notify, Some(3), 0x7fc0_0000),
        (Trace, None, 0x7ff0_0001),
        (Trace, Some(9), 0x7ff0_0009),
        (Log, None, 0x7ffc_0000),
        (Allow, None, 0x7fff_0000),
    ];
    for (action, errno, value) in cases {
        assert_eq!(verdict(action, errno), value, "{action} {errno:?}");
    }
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    // clone3 is 435, on every architecture.
    let spec = |default| profile(default, &[], vec![rule(&["read", "clone3"], Allow, vec![])]);
    assert_eq!(on_x86_64(&spec(Errno), call(434, [0; 6])), RET_ERRNO | EPERM);
    assert_eq!(on_x86_64(&spec(Errno), call(436, [0; 6])), RET_ERRNO | ENOSYS);
    assert_eq!(on_x86_64(&spec(Kill), call(436, [0; 6])), RET_ERRNO | ENOSYS);
    for default in [Log, Trace] {
        assert_ne!(on_x86_64(&spec(default), call(436, [0; 6])), RET_ERRNO | ENOSYS, "{default}");
    }
}

#[test]
fn x32_is_refused_unless_listed() {
    let rules = || vec![rule(&["read", "clone3"], Allow, vec![])];
    let without = profile(Errno, &[X86_64], rules());
    let with = profile(Errno, &[X86_64, Arch::ScmpArchX32], rules());
    assert_eq!(on_x86_64(&without, call(X32_BIT, [0; 6])), RET_KILL_THREAD);
    assert_eq!(on_x86_64(&without, call(X32_BIT | 500, [0; 6])), RET_KILL_THREAD);
    assert_eq!(on_x86_64(&without, call(u32::MAX, [0; 6])), RET_ERRNO | EPERM);
    assert_eq!(on_x86_64(&with, call(X32_BIT, [0; 6])), RET_ALLOW);
    assert_eq!(on_x86_64(&with, call(X32_BIT | 1, [0; 6])), RET_ERRNO | EPERM);
    assert_eq!(on_x86_64(&with, call(X32_BIT | 500, [0; 6])), RET_ERRNO | ENOSYS);
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let both = vec![arg(1, EqualTo, 3, None), arg(1, EqualTo, 4, None), arg(0, EqualTo, 9, None)];
    let spec = profile(Allow, &[], vec![rule(&["ioctl"], Errno, both)]);
    for (args, refused) in [([0, 3], true), ([0, 4], true), ([9, 0], true), ([0, 5], false)] {
        let verdict = on_x86_64(&spec, call(16, [args[0], args[1], 0, 0, 0, 0]));
        assert_eq!(verdict == (RET_ERRNO | EPERM), refused, "{args:?}");
    }
}

#[test]
fn a_rule_without_conditions_wins() {
    let condition = || vec![arg(0, EqualTo, 1, None)];
    let orders = [
        vec![rule(&["read"], Trap, condition()), rule(&["read"], Allow, vec![]), rule(&["read"], Log, vec![])],
        vec![rule(&["read"], Allow, vec![]), rule(&["read"], Log, vec![]), rule(&["read"], Trap, condition())],
        // One with the default's action is none.
        vec![rule(&["read"], Errno, vec![]), rule(&["read"], Allow, vec![]), rule(&["read"], Trap, condition())],
        // A mask without bits is no condition.
        vec![rule(&["read"], Trap, condition()), rule(&["read"], Allow, vec![arg(0, Masked, 0, Some(5))])],
    ];
    for rules in orders {
        let spec = profile(Errno, &[], rules);
        assert_eq!(on_x86_64(&spec, call(0, [1, 0, 0, 0, 0, 0])), RET_ALLOW);
    }
}

/// Rules that hold at once with two actions, one line for each part of the order. The first of a pair wins, wherever it
/// stands.
#[test]
fn the_more_specific_rule_wins() {
    let one = |index, op, value| vec![arg(index, op, value, None)];
    let pairs = [
        (one(2, AtLeast, 1), one(1, EqualTo, 10)),
        (one(1, EqualTo, 10), one(1, Below, 100)),
        (one(1, NotEqual, 5), one(1, AtMost, 10)),
        (one(1, Below, 100), one(1, Above, 3)),
        (one(1, Above, 7), one(1, Above, 3)),
        (one(1, Below, 20), one(1, Below, 100)),
        (one(1, AtMost, 20), one(1, Below, 1 << 40)),
        (one(1, EqualTo, 10), vec![arg(1, EqualTo, 10, None), arg(2, EqualTo, 10, None)]),
        (
            vec![arg(1, EqualTo, 10, None), arg(2, AtLeast, 9, None)],
            vec![arg(1, EqualTo, 10, None), arg(2, AtLeast, 3, None)],
        ),
    ];
    for (first, second) in pairs {
        let (trap, log) = (rule(&["ioctl"], Trap, first.clone()), rule(&["ioctl"], Log, second.clone()));
        for rules in [vec![trap.clone(), log.clone()], vec![log, trap]] {
            let verdict = on_x86_64(&profile(Errno, &[], rules), call(16, [10; 6]));
            assert_eq!(verdict, RET_TRAP, "{first:?} before {second:?}");
        }
    }
}

#[test]
fn two_actions_for_one_condition() {
    let rules = |second| {
        let value = |v| vec![arg(1, EqualTo, 7, None), arg(0, Masked, 0xf0, Some(v))];
        vec![rule(&["ioctl"], Trap, value(0x1f)), rule(&["ioctl"], Log, value(second))]
    };
    // 0x1f and 0x10 are the same under the mask.
    let refused = compile(&profile(Errno, &[], rules(0x10)), X86_64);
    assert_eq!(refused, Err(SeccompError::Conflict { syscall: "ioctl".into() }));
    assert!(compile(&profile(Errno, &[], rules(0x20)), X86_64).is_ok());
}

#[test]
fn what_is_refused() {
    use SeccompError::*;
    let cases = [
        (profile(Notify, &[], vec![]), NotifyByDefault),
        (profile(Errno, &[], vec![rule(&["read", "write"], Notify, vec![])]), NotifyOnWrite),
        (profile(Errno, &[], vec![rule(&["read"], Allow, vec![]), rule(&[""], Allow, vec![])]), EmptyName { rule: 1 }),
        (
            profile(Errno, &[], vec![rule(&["read"], Allow, vec![arg(6, EqualTo, 0, None)])]),
            NoSuchArg { rule: 0, index: 6 },
        ),
        (profile(Errno, &[Arch::ScmpArchS390x], vec![]), UnknownArch(Arch::ScmpArchS390x)),
    ];
    for (spec, error) in cases {
        assert_eq!(compile(&spec, X86_64), Err(error));
    }
    assert_eq!(UnknownArch(Arch::ScmpArchS390x).to_string(), "seccomp architecture SCMP_ARCH_S390X is not supported");
}

#[test]
fn a_program_longer_than_the_kernel_takes_is_refused() {
    let rules = (0..600).map(|i| rule(&["ioctl"], Trap, vec![arg(0, EqualTo, i, None), arg(1, Above, i << 32, None)]));
    let spec = profile(Errno, &[], rules.collect());
    assert!(matches!(compile(&spec, X86_64), Err(SeccompError::TooLong(5000..))));
}

#[test]
fn flags_are_runcs() {
    use LinuxSeccompFilterFlag::*;
    let flags = |flags: Option<Vec<LinuxSeccompFilterFlag>>, action| {
        let mut spec = profile(Errno, &[], vec![rule(&["read"], action, vec![])]);
        spec.set_flags(flags);
        compile(&spec, X86_64).map(|compiled| compiled.filter.flags)
    };
    assert_eq!(flags(None, Allow), Ok(4));
    assert_eq!(flags(Some(vec![]), Allow), Ok(0));
    assert_eq!(flags(Some(vec![SeccompFilterFlagTsync, SeccompFilterFlagLog]), Allow), Ok(2));
    assert_eq!(flags(Some(vec![SeccompFilterFlagWaitKillableRecv]), Notify), Ok(8 | 32));
    assert_eq!(
        flags(Some(vec![SeccompFilterFlagWaitKillableRecv]), Allow),
        Err(SeccompError::WaitKillableWithoutNotify)
    );
}

#[test]
fn unknown_names_are_named() {
    let names = ["read", "no_such_call", "set_tls", "recv", "no_such_call"];
    let spec = |archs: &[Arch]| profile(Errno, archs, vec![rule(&names, Allow, vec![])]);
    let ignored = |archs| compile(&spec(archs), X86_64).map(|compiled| compiled.ignored);
    assert_eq!(ignored(&[]), Ok(vec!["no_such_call".into(), "recv".into(), "set_tls".into()]));
    assert_eq!(ignored(&[Arch::ScmpArchX86, Arch::ScmpArchArm]), Ok(vec!["no_such_call".into()]));
}

/// The names of config.json arrive as the enums that the tests above use.
#[test]
fn a_profile_as_json() {
    let spec: LinuxSeccomp = serde_json::from_str(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
              {"names": ["personality", "clone3"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
              {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#,
    )
    .expect("a profile");
    assert_eq!(on_x86_64(&spec, call(135, [8, 0, 0, 0, 0, 0])), RET_ALLOW);
    assert_eq!(on_x86_64(&spec, call(135, [8 | 1 << 32, 0, 0, 0, 0, 0])), RET_ERRNO | 13);
    assert_eq!(on_x86_64(&spec, call(56, [17, 0, 0, 0, 0, 0])), RET_ALLOW);
    assert_eq!(on_x86_64(&spec, call(56, [17 | 0x1000_0000, 0, 0, 0, 0, 0])), RET_ERRNO | 13);
    assert_eq!(on_x86_64(&spec, Data { arch: 0x4000_0003, ..call(136, [8 | 1 << 32, 0, 0, 0, 0, 0]) }), RET_ALLOW);
}
