//! Limits of a pot as rules of rctl(8) and a cpuset(1).

use oci_spec::runtime::LinuxResources;

use crate::bundle::pot::Limits;
use crate::op::Op;
use crate::plan::Draft;
use crate::stats::Files;

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

/// Other limits for a jail that runs, in the terms of the OCI: of each that is asked for, the old rule goes and the new one
/// comes; -1 is no limit.
#[must_use]
pub fn update(draft: &mut Draft<'_>, jail: &str, asked: &LinuxResources) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut replace = |resource: &str, amount: Option<i64>| {
        let filter = format!("jail:{jail}:{resource}:deny");
        match amount {
            None => {}
            Some(amount) => {
                ops.push(Op::RemoveRctl { filter: filter.clone() });
                ops.extend((amount >= 0).then(|| Op::AddRctl { rule: format!("{filter}={amount}") }));
            }
        }
    };
    let memory = asked.memory().unwrap_or_default();
    let cpu = asked.cpu().clone().unwrap_or_default();
    replace("memoryuse", memory.limit());
    replace("maxproc", asked.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit));
    // The kernel's period of a control group, where none is given (sched-bwc.rst).
    let period = i64::try_from(cpu.period().unwrap_or(100_000)).unwrap_or(i64::MAX).max(1);
    replace("pcpu", cpu.quota().map(|quota| if quota < 0 { -1 } else { (quota.saturating_mul(100) / period).max(1) }));
    ops.extend(cpu.cpus().clone().map(|cpus| Op::SetCpuset { jail: jail.into(), cpus }));
    for (at, given) in [
        ("memory/reservation", memory.reservation().is_some()),
        ("memory/swap", memory.swap().is_some()),
        ("memory/kernel", memory.kernel().is_some()),
        ("memory/kernelTCP", memory.kernel_tcp().is_some()),
        ("memory/swappiness", memory.swappiness().is_some()),
        ("cpu/shares", cpu.shares().is_some()),
        ("cpu/burst", cpu.burst().is_some()),
        ("cpu/idle", cpu.idle().is_some()),
        ("cpu/realtimePeriod", cpu.realtime_period().is_some()),
        ("cpu/realtimeRuntime", cpu.realtime_runtime().is_some()),
        ("cpu/mems", cpu.mems().is_some()),
        ("blockIO", asked.block_io().is_some()),
        ("hugepageLimits", asked.hugepage_limits().is_some()),
        ("network", asked.network().is_some()),
        ("rdma", asked.rdma().is_some()),
        ("unified", asked.unified().is_some()),
    ] {
        if given {
            draft.refuse(format!("/linux/resources/{at}"), "rctl(4) has no such limit");
        }
    }
    ops
}

/// What racct(9) counts, `resource=amount` with commas between them, in the files of a control group that
/// [`crate::stats`] reads. Not `swapuse`: that is what is promised, not what is swapped out (rctl(8)).
#[must_use]
pub fn files(counted: &str) -> Files {
    let all = counted.split(',').filter_map(|one| one.split_once('='));
    all.filter_map(|(resource, amount)| {
        let file = match resource {
            "cputime" => {
                return Some(("cpu.stat".into(), format!("usage_usec {}\n", amount.parse::<u64>().ok()? * 1_000_000)));
            }
            "memoryuse" => "memory.current",
            "maxproc" => "pids.current",
            _ => return None,
        };
        Some((file.into(), format!("{amount}\n")))
    })
    .collect()
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
    fn what_is_counted_is_told_as_of_a_control_group() {
        // Of FreeBSD 13.2, shortened.
        let counted = "cputime=3,datasize=0,memoryuse=13213696,maxproc=4,openfiles=16,swapuse=0,pcpu=2,readbps=0";
        let data = crate::stats::data(&files(counted));
        assert_eq!(data["cpu"]["usage"]["total"], 3_000_000_000_u64);
        assert_eq!(data["memory"]["usage"]["usage"], 13_213_696);
        assert_eq!(data["pids"], serde_json::json!({"current": 4}));
    }

    #[test]
    fn all_rules_of_a_jail_go_at_once() {
        let limits = Limits { memory: Some(1), ..Limits::default() };
        assert_eq!(rules("a.b", &limits)[0].undo(), Some(Op::RemoveRctl { filter: "jail:a.b".into() }));
    }
}
