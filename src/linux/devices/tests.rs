//! The compiler against a model, by an interpreter of the few instructions it uses. The kernel's own answers are in
//! `host::bpf::tests`.

use std::path::Path;

use oci_spec::runtime::LinuxDeviceBuilder;
use oci_spec::runtime::LinuxDeviceType::{A, B, C, P, U};
use proptest::prelude::*;

use super::*;

/// An access as the kernel asks about it.
#[derive(Debug, Clone, Copy)]
struct Access {
    kind: i32,
    major: u32,
    minor: u32,
    bits: u8,
}

fn run(code: &[BpfInsn], access: Access) -> bool {
    let context = [u32::from(access.bits) << 16 | access.kind as u32, access.major, access.minor];
    let (mut r, mut pc) = ([0u64; 11], 0);
    loop {
        let i = code[pc];
        let dst = usize::from(if cfg!(target_endian = "little") { i.regs & 15 } else { i.regs >> 4 });
        let src = usize::from(if cfg!(target_endian = "little") { i.regs >> 4 } else { i.regs & 15 });
        pc += 1;
        let mut jump = |yes: bool| pc += if yes { i.off as usize } else { 0 };
        match i.code {
            LDX_W => r[dst] = context[i.off as usize / 4].into(),
            AND_K => r[dst] &= i64::from(i.imm) as u64,
            RSH_K => r[dst] >>= i.imm,
            MOV_K => r[dst] = i64::from(i.imm) as u64,
            MOV32_X => r[dst] = r[src] as u32 as u64,
            XOR32_K => r[dst] = (r[dst] as u32 ^ i.imm as u32).into(),
            OR32_X => r[dst] = (r[dst] as u32 | r[src] as u32).into(),
            JNE32_K => jump(r[dst] as u32 != i.imm as u32),
            JSET32_K => jump(r[dst] as u32 & i.imm as u32 != 0),
            JA => jump(true),
            EXIT => return r[0] != 0,
            other => panic!("opcode {other:#x}"),
        }
    }
}

/// Bit by bit: the last rule that matches decides.
fn model(rules: &[LinuxDeviceCgroup], access: Access) -> bool {
    let one = |letter: char| {
        let matches = |rule: &&LinuxDeviceCgroup| {
            let kind = match rule.typ() {
                None | Some(A) => true,
                Some(B) => access.kind == 1,
                Some(_) => access.kind == 2,
            };
            let number = |said: Option<i64>, is: u32| said.is_none_or(|said| said == -1 || said == i64::from(is));
            kind && number(rule.major(), access.major)
                && number(rule.minor(), access.minor)
                && rule.access().as_ref().is_some_and(|access| access.contains(letter))
        };
        rules.iter().rfind(matches).is_some_and(LinuxDeviceCgroup::allow)
    };
    [('m', 1), ('r', 2), ('w', 4)].into_iter().all(|(letter, bit)| access.bits & bit == 0 || one(letter))
}

fn numbers() -> impl Strategy<Value = i64> {
    prop_oneof![6 => 0i64..4, 2 => Just(-1), 1 => Just(0x8000_0001), 1 => Just(0xffff_ffff)]
}

fn rules() -> impl Strategy<Value = Vec<LinuxDeviceCgroup>> {
    let kind = prop::sample::select(vec![None, Some(A), Some(B), Some(C), Some(C), Some(U)]);
    let access = prop::sample::select(vec!["r", "w", "m", "rw", "mw", "rwm", "rwm", "mmrr"]);
    let one = (any::<bool>(), kind, prop::option::of(numbers()), prop::option::of(numbers()), access);
    let one = one.prop_map(|(allow, kind, major, minor, access)| {
        let mut rule = rule(allow, C, major, minor, access);
        rule.set_typ(kind);
        rule
    });
    prop::collection::vec(one, 0..9)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rules_mean_what_they_say(
        rules in rules(),
        accesses in prop::collection::vec((1i32..3, numbers(), numbers(), 1u8..8), 20),
    ) {
        let code = program(&rules).expect("the rules compile");
        for (kind, major, minor, bits) in accesses {
            // -1 becomes a number no rule names.
            let access = Access { kind, major: (major as u32).min(0xffff_fff0), minor: minor as u32, bits };
            prop_assert_eq!(run(&code, access), model(&rules, access), "{:?}", access);
        }
    }
}

fn allowed(rules: &[LinuxDeviceCgroup], kind: i32, major: u32, minor: u32, access: &str) -> bool {
    let bits = access.bytes().map(|letter| match letter {
        b'm' => 1,
        b'r' => 2,
        _ => 4,
    });
    let code = program(rules).expect("the rules compile");
    run(&code, Access { kind, major, minor, bits: bits.sum() })
}

/// What podman and containerd write, and what runc adds.
#[test]
fn an_ordinary_container() {
    let mut rules = vec![rule(false, A, None, None, "rwm"), rule(true, C, Some(10), Some(229), "rw")];
    rules.extend(defaults(&[]));
    let cases = [
        (2, 1, 3, "rw", true),
        (2, 1, 5, "r", true),
        (2, 1, 7, "w", true),
        (2, 1, 8, "r", true),
        (2, 1, 9, "rw", true),
        (2, 5, 0, "rw", true),
        (2, 5, 2, "rw", true),
        (2, 136, 17, "rw", true),
        (2, 10, 200, "rw", true),
        (2, 10, 229, "rw", true),
        (2, 1, 1, "r", false),
        (2, 5, 1, "r", false),
        (1, 1, 3, "r", false),
        (1, 8, 0, "r", false),
        (1, 8, 0, "m", true),
        (2, 1, 1, "m", true),
    ];
    for (kind, major, minor, access, verdict) in cases {
        assert_eq!(allowed(&rules, kind, major, minor, access), verdict, "{kind} {major}:{minor} {access}");
    }
}

#[test]
fn without_rules_all_is_denied() {
    assert!(!allowed(&[], 2, 1, 3, "r"));
    assert!(!allowed(&[], 1, 8, 0, "m"));
}

/// Each line of the prologue on where we are not runc.
#[test]
fn rules_in_order() {
    let all = || rule(true, A, None, None, "rwm");
    let hole = [rule(true, C, None, None, "m"), rule(false, C, Some(10), Some(200), "m")];
    assert!(allowed(&hole, 2, 10, 201, "m") && !allowed(&hole, 2, 10, 200, "m"));

    let wider = [rule(true, C, Some(1), Some(3), "rwm"), rule(false, C, Some(1), None, "rwm")];
    assert!(!allowed(&wider, 2, 1, 3, "r"));

    let read_only = [all(), rule(false, C, Some(1), Some(3), "w")];
    assert!(allowed(&read_only, 2, 1, 3, "r") && !allowed(&read_only, 2, 1, 3, "rw"));

    let split = [rule(true, C, Some(5), None, "r"), rule(true, C, Some(5), Some(1), "w")];
    assert!(allowed(&split, 2, 5, 1, "rw") && !allowed(&split, 2, 5, 2, "rw"));

    let numbered = [rule(true, A, Some(10), Some(229), "rwm")];
    assert!(allowed(&numbered, 2, 10, 229, "rw") && !allowed(&numbered, 2, 10, 228, "rw"));

    let again = [all(), rule(false, A, None, None, "rwm"), rule(true, B, Some(8), Some(-1), "r")];
    assert!(allowed(&again, 1, 8, 3, "r") && !allowed(&again, 2, 1, 3, "r"));
}

#[test]
fn a_rule_for_all_ends_the_program() {
    let rules = [rule(true, C, Some(1), Some(3), "r"), rule(false, A, None, Some(-1), "mwr")];
    assert_eq!(program(&rules), program(&rules[1..]));
}

#[test]
fn what_is_refused() {
    let good = rule(true, C, Some(1), Some(3), "r");
    let cases = [
        (rule(true, P, None, None, "r"), DeviceError::Fifo { rule: 1 }),
        (rule(true, C, Some(-2), None, "r"), DeviceError::Number { rule: 1, number: -2 }),
        (rule(true, C, None, Some(1 << 32), "r"), DeviceError::Number { rule: 1, number: 1 << 32 }),
        (rule(true, C, None, None, ""), DeviceError::Access { rule: 1, access: String::new() }),
        (rule(true, C, None, None, "rx"), DeviceError::Access { rule: 1, access: "rx".into() }),
        (LinuxDeviceCgroup::default(), DeviceError::Access { rule: 1, access: String::new() }),
    ];
    for (bad, error) in cases {
        assert_eq!(program(&[good.clone(), bad]), Err(error));
    }
    assert_eq!(program(&vec![good; 1025]), Err(DeviceError::TooMany(1025)));
}

#[test]
fn a_node_of_the_spec_stands_in_for_a_default() {
    let null = LinuxDeviceBuilder::default().path(Path::new("/dev/null")).typ(C).major(1).minor(5).build();
    let without = defaults(&[null.expect("a device")]);
    assert_eq!(without.len(), defaults(&[]).len() - 1);
    assert!(without.iter().all(|rule| (rule.major(), rule.minor()) != (Some(1), Some(3))));
}

#[test]
fn rules_as_json() {
    let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(
        r#"[{"allow": false, "access": "rwm"},
            {"allow": true, "type": "u", "major": 1, "minor": 3, "access": "rw"},
            {"allow": true, "type": "b", "major": -1, "access": "m"}]"#,
    )
    .expect("rules");
    assert!(allowed(&rules, 2, 1, 3, "rw") && !allowed(&rules, 2, 1, 3, "m") && allowed(&rules, 1, 9, 9, "m"));
}
