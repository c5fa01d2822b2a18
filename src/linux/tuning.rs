//! How the kernel treats a process besides its limits: config.json's words as the kernel's numbers.

use oci_spec::runtime::{Linux, Process};
use serde::Serialize;

use crate::op::{Op, Tuning};
use crate::plan::Draft;

// Numbers of include/uapi/linux: part of the kernel's ABI, so the same everywhere.

/// `PER_LINUX` and `PER_LINUX32` of personality.h.
const DOMAINS: &[(&str, u64)] = &[("LINUX", 0), ("LINUX32", 8)];

/// Policies of sched.h.
const POLICIES: &[(&str, u64)] = &[
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

/// `SCHED_FLAG_*` of sched.h.
const SCHED_FLAGS: &[(&str, u64)] = &[
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// Classes of ioprio.h.
const IO_CLASSES: &[(&str, u64)] = &[("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// Modes and flags of mempolicy.h.
const MODES: &[(&str, u64)] = &[
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

/// The kernel's number of a word, whichever of the tables it is in; 0 for none.
#[must_use]
pub fn number(word: &str) -> u64 {
    let tables = [DOMAINS, POLICIES, SCHED_FLAGS, IO_CLASSES, MODES];
    tables.iter().copied().flatten().find(|(name, _)| *name == word).map_or(0, |(_, number)| *number)
}

/// The bits of a list of words.
#[must_use]
pub fn bits(words: &[String]) -> u64 {
    words.iter().fold(0, |all, word| all | number(word))
}

/// More processors, or NUMA nodes, than a kernel can have (`NR_CPUS` is at most 8192).
const MOST: u32 = 8192;

/// `0-3,7` as a mask of 64-bit words, or `None` if it is no such list.
#[must_use]
pub fn mask(list: &str) -> Option<Vec<u64>> {
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|n| *n < MOST);
    let mut mask = Vec::new();
    for part in list.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return None;
        }
        for n in first..=last {
            let word = n as usize / 64;
            if mask.len() <= word {
                mask.resize(word + 1, 0);
            }
            mask[word] |= 1 << (n % 64);
        }
    }
    Some(mask)
}

/// The words of the specification that oci-spec has others for: theirs, and its.
pub const OTHER_WORDS: &[(&str, &str)] =
    &[("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"), ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN")];

/// The specification's word for `value`.
fn word(value: impl Serialize) -> String {
    let word = serde_json::to_value(value).ok().and_then(|json| json.as_str().map(String::from)).unwrap_or_default();
    OTHER_WORDS.iter().find(|(_, its)| *its == word).map_or(word, |(theirs, _)| (*theirs).into())
}

/// What a process asks for, `at` being its JSON pointer, and the container for all its processes.
#[must_use]
pub fn steps(draft: &mut Draft<'_>, linux: Option<&Linux>, process: &Process, at: &str) -> Vec<Op> {
    let mut all = Vec::new();
    if let Some(personality) = linux.and_then(|linux| linux.personality().as_ref()) {
        if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
            draft.refuse("/linux/personality/flags", "the specification has no flags yet");
        }
        all.push(Tuning::Personality { domain: word(personality.domain()) });
    }
    if let Some(policy) = linux.and_then(|linux| linux.memory_policy().as_ref()) {
        let nodes = policy.nodes().clone().unwrap_or_default();
        if !nodes.is_empty() && mask(&nodes).is_none() {
            draft.refuse("/linux/memoryPolicy/nodes", format!("{nodes:?} is not a list of nodes such as 0-1,3"));
        }
        let flags = policy.flags().iter().flatten().map(word).collect();
        all.push(Tuning::MemoryPolicy { mode: word(policy.mode()), flags, nodes });
    }
    if let Some(scheduler) = process.scheduler() {
        all.push(Tuning::Scheduler {
            policy: word(scheduler.policy()),
            flags: scheduler.flags().iter().flatten().map(word).collect(),
            nice: scheduler.nice().unwrap_or(0),
            priority: match u32::try_from(scheduler.priority().unwrap_or(0)) {
                Ok(priority) => priority,
                Err(_) => {
                    draft.refuse(format!("{at}/scheduler/priority"), "must not be negative");
                    0
                }
            },
            runtime: scheduler.runtime().unwrap_or(0),
            deadline: scheduler.deadline().unwrap_or(0),
            period: scheduler.period().unwrap_or(0),
        });
    }
    if let Some(priority) = process.io_priority() {
        // ioprio_set(2): three bits in all classes but the idle one, which ignores them.
        let level = u8::try_from(priority.priority()).ok().filter(|level| *level < 8);
        if level.is_none() {
            draft.refuse(format!("{at}/ioPriority/priority"), format!("{} is not one of 0 to 7", priority.priority()));
        }
        all.push(Tuning::IoPriority { class: word(priority.class()), level: level.unwrap_or(0) });
    }
    all.into_iter().map(Op::Tune).collect()
}

/// Where `exec` may run a process: on the host before it is in the container's group, and from then on.
#[must_use]
pub fn affinity(draft: &mut Draft<'_>, process: &Process, at: &str) -> [Option<Op>; 2] {
    let Some(affinity) = process.exec_cpu_affinity() else { return [None, None] };
    [("initial", affinity.initial()), ("final", affinity.cpu_affinity_final())].map(|(name, cpus)| {
        let cpus = cpus.clone().filter(|cpus| !cpus.is_empty())?;
        if mask(&cpus).is_none() {
            draft.refuse(
                format!("{at}/execCPUAffinity/{name}"),
                format!("{cpus:?} is not a list of processors such as 0-1,3"),
            );
        }
        Some(Op::Tune(Tuning::Affinity { cpus }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_masks() {
        assert_eq!(mask("0-1,3"), Some(vec![0b1011]));
        assert_eq!(mask("64"), Some(vec![0, 1]));
        for bad in ["", "a", "3-1", "1-", "-1", "8192", "1,,2"] {
            assert_eq!(mask(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn every_word_of_the_specification_has_a_number() {
        use oci_spec::runtime::{IOPriorityClass, LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyModeType};
        assert_eq!(number(&word(LinuxSchedulerPolicy::SchedDeadline)), 6);
        assert_eq!(number(&word(LinuxSchedulerFlag::SchedFlagDLOverrun)), 4);
        assert_eq!(number(&word(LinuxSchedulerFlag::SchedResetOnFork)), 1);
        assert_eq!(number(&word(LinuxSchedulerFlag::SchedFlagUtilClampMax)), 0x40);
        assert_eq!(number(&word(IOPriorityClass::IoprioClassIdle)), 3);
        assert_eq!(number(&word(MemoryPolicyModeType::MpolWeightedInterleave)), 6);
    }
}
