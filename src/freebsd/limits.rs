//! Limits of a pot as rules of rctl(8) and a cpuset(1).

use crate::bundle::pot::Limits;
use crate::op::Op;

/// The rules, to be added before the jail is made: a rule goes by the jail's name and may come first, so that no
/// process is ever without it. Whole words and plain numbers, as rctl_add_rule(2) wants them.
///
/// `memoryuse:deny` is pot's rule. It fails no allocation: the resident size is not deniable, and the kernel pages the
/// jail out instead (sys/vm/vm_swapout.c, `vm_daemon`). `pcpu` counts in percent of one processor.
#[must_use]
pub fn rules(jail: &str, limits: &Limits) -> Vec<Op> {
    let rules = [
        limits.memory.map(|bytes| format!("memoryuse:deny={bytes}")),
        limits.millicpus.map(|thousandths| format!("pcpu:deny={}", thousandths.div_ceil(10))),
        limits.pids.map(|processes| format!("maxproc:deny={processes}")),
    ];
    rules.into_iter().flatten().map(|rule| Op::AddRctl { rule: format!("jail:{jail}:{rule}") }).collect()
}

/// The processors of the jail, which must be there.
#[must_use]
pub fn cpuset(jail: &str, limits: &Limits) -> Option<Op> {
    Some(Op::SetCpuset { jail: jail.into(), cpus: limits.cpuset.clone()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_its_rule() {
        let limits = Limits {
            memory: Some(512 << 20),
            millicpus: Some(1500),
            cpuset: Some("0-3,8".into()),
            pids: Some(64),
            disk: None,
        };
        let text: Vec<String> =
            rules("web1", &limits).into_iter().chain(cpuset("web1", &limits)).map(|op| op.to_string()).collect();
        assert_eq!(
            text,
            [
                "add resource rule jail:web1:memoryuse:deny=536870912",
                "add resource rule jail:web1:pcpu:deny=150",
                "add resource rule jail:web1:maxproc:deny=64",
                "confine jail web1 to processors 0-3,8",
            ]
        );
        let little = Limits { millicpus: Some(1), ..Limits::default() };
        assert_eq!(rules("j", &little), [Op::AddRctl { rule: "jail:j:pcpu:deny=1".into() }]);
    }

    #[test]
    fn all_rules_of_a_jail_go_at_once() {
        let limits = Limits { memory: Some(1), ..Limits::default() };
        assert_eq!(rules("a.b", &limits)[0].undo(), Some(Op::RemoveRctl { filter: "jail:a.b".into() }));
    }
}
