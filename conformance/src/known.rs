/*! Where runtimes that are trusted in the field do not do what a case asks, and why the case asks it all the same. */

use crate::case::Case;
use crate::format::Verdict;
use crate::runtime::Runtime;

/// How its `--version` begins, the case, and the reason. A runtime that is not named here is not excused.
const KNOWN: &[(&str, &str, &str)] = &[
    // Both. The specification is clear, or the promise is potrun's own.
    (RUNC, "exec/user-flag-takes-no-number-out-of-range", "4294967296 is cut to 32 bits and becomes root"),
    (CRUN, "exec/user-flag-takes-no-number-out-of-range", "-1 is taken and becomes root"),
    (RUNC, "process/an-rlimit-that-is-given-twice-is-refused", "the last one wins"),
    (CRUN, "process/an-rlimit-that-is-given-twice-is-refused", "the last one wins"),
    (RUNC, "crash/during-create-runtime", "state is written after the control groups are made"),
    (CRUN, "crash/during-create-runtime", "state is written after the control groups are made"),
    (RUNC, "crash/during-create-container", "init waits for a parent that is gone, and its group stays"),
    (CRUN, "crash/during-create-container", "init waits for a parent that is gone, and its group stays"),
    (RUNC, "crash/state-after-a-crash-is-no-lie", "the control groups stay"),
    (CRUN, "crash/state-after-a-crash-is-no-lie", "the control groups stay"),
    (RUNC, "crash/of-create-at-its-very-start", "state is written after the control groups are made"),
    (CRUN, "crash/of-create-at-its-very-start", "state is written after the control groups are made"),
    (RUNC, "hooks/all-moments-in-order", "poststart hooks run at the end of create"),
    (
        CRUN,
        "hooks/all-moments-in-order",
        "poststart hooks do not wait for startContainer hooks, so sometimes come first",
    ),
    (RUNC, "hooks/create-runs-the-first-three", "poststart hooks run at the end of create"),
    (CRUN, "hooks/create-runs-the-first-three", "poststart hooks do not wait for startContainer hooks"),
    (RUNC, "hooks/status-follows-the-moment", "poststart hooks run at the end of create"),
    (CRUN, "hooks/status-follows-the-moment", "startContainer hooks get `starting`, a status of its own"),
    (RUNC11, "security/masked-with-a-false-null", "CVE-2025-31133"),
    (CRUN, "security/masked-with-a-false-null", "stdio is taken for /dev/null by the image's symlink"),
    // runc
    (RUNC, "crash/during-poststart", "poststart hooks run at the end of create"),
    (RUNC, "crash/an-id-is-free-after-a-crash", "the control groups stay, and are not empty at once"),
    (RUNC, "exec/does-not-read-the-config-again", "exec takes the process of the bundle's config.json"),
    (RUNC, "hooks/a-failing-poststop-only-warns", "the remaining hooks do not run; since 1.2 delete fails, too"),
    (RUNC, "logs/json-log-has-one-error", "with cgroup2 without memory, a warning goes to the log before the error"),
    // runc 1.1
    (RUNC11, "exec/umask-of-the-config", "exec ignores umask before 1.2"),
    (RUNC11, "exec/process-file", "Go raises the soft limit of RLIMIT_NOFILE now and then before 1.2"),
    (
        RUNC11,
        "lifecycle/two-creates-at-once-make-one-container",
        "no lock: sometimes each takes the other's state away",
    ),
    (RUNC11, "root/propagation-shared", "not before 1.2"),
    (RUNC11, "mounts/bind-keeps-flags-of-the-source", "not before 1.2"),
    (
        RUNC11,
        "exec/has-the-limits-of-the-container",
        "Go raises the soft limit of RLIMIT_NOFILE now and then before 1.2",
    ),
    (RUNC11, "linux/time-namespace", "not before 1.2"),
    (RUNC11, "linux/domainname", "not before 1.2"),
    (RUNC11, "linux/personality", "not before 1.2"),
    (RUNC11, "security/dev-as-a-symlink", "CVE-2026-41579"),
    (RUNC11, "security/racing-symlink-in-a-volume", "CVE-2024-45310"),
    // crun: what it takes without a word
    (CRUN, "lifecycle/a-config-of-wrong-types-is-refused", "members of a wrong type are skipped"),
    (CRUN, "kill/by-name-in-any-case", "names in capitals only"),
    (CRUN, "kill/with-an-unknown-signal-is-refused", "9x is taken for 9"),
    (CRUN, "process/cwd-that-is-relative-is-refused", "a relative cwd is taken"),
    (CRUN, "root/an-unknown-propagation-is-refused", "an unknown value is skipped"),
    (CRUN, "devices/of-an-unknown-type-are-refused", "an unknown type is taken"),
    (CRUN, "pause/resume-of-a-running-container-is-refused", "resume of a running container does nothing"),
    (CRUN, "resources/update-of-a-stopped-container-is-refused", "update of a stopped container does nothing"),
    (CRUN, "mounts/opposite-options-undo", "flags only add up"),
    // crun: exec without --process starts from defaults of its own, not from the config
    (CRUN, "exec/has-the-rights-of-the-container", "exec does not take noNewPrivileges of the config"),
    (CRUN, "exec/has-the-limits-of-the-container", "exec does not take rlimits of the config"),
    (CRUN, "exec/cwd-is-that-of-the-config", "exec starts in /"),
    (CRUN, "exec/cap-flag", "--cap replaces the capabilities of the config"),
    (CRUN, "exec/terminal-of-ones-own", "sometimes a log line gets onto the terminal before the output"),
    // crun: the rest
    (CRUN, "console/is-dev-console", "a symlink to the terminal, not a bind mount"),
    (CRUN, "fds/socket-activation", "LISTEN_FDS is not handed on"),
    (CRUN, "hooks/state-is-on-stdin", "startContainer hooks get / as the bundle"),
    (CRUN, "logs/delete-of-a-missing-container", "says: cannot open directory"),
    (CRUN, "security/console-as-a-symlink", "an empty file is made where the image's /dev/console points, on the host"),
    (CRUN, "security/volume-over-proc", "mounts over /proc are allowed"),
    (CRUN, "security/volume-over-proc-self-attr", "mounts over /proc are allowed"),
    (CRUN, "resources/a-limit-that-cannot-be-set-is-refused", "a failed create leaves its control groups"),
    (CRUN, "process/an-unknown-rlimit-is-refused", "with cgroup2, a failed create leaves its control group"),
    (CRUN, "linux/a-namespace-of-the-wrong-kind-is-refused", "with cgroup2, a failed create leaves its control group"),
    (CRUN, "linux/a-missing-namespace-path-is-refused", "with cgroup2, a failed create leaves its control group"),
    (CRUN, "linux/a-namespace-given-twice-is-refused", "with cgroup2, a failed create leaves its control group"),
    (CRUN, "linux/an-unknown-namespace-is-refused", "with cgroup2, a failed create leaves its control group"),
];

const RUNC: &str = "runc version ";
const RUNC11: &str = "runc version 1.1.";
const CRUN: &str = "crun version ";

/// Turns a failure that is listed into a known deviation.
pub(crate) fn excuse(case: &Case, runtime: &Runtime, verdict: Verdict) -> Verdict {
    let listed = KNOWN.iter().find(|(version, name, _)| runtime.version.starts_with(version) && *name == case.name());
    match (verdict, listed) {
        (Verdict::Failed(_), Some((_, _, reason))) => Verdict::Known(reason),
        (verdict, _) => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::KNOWN;
    use crate::cases;

    #[test]
    fn every_entry_names_a_case() {
        let names: Vec<String> = cases::all().map(|case| case.name()).collect();
        let stale: Vec<_> = KNOWN.iter().filter(|(_, name, _)| !names.iter().any(|n| n == name)).collect();
        assert!(stale.is_empty(), "{stale:?}");
    }

    #[test]
    fn no_two_cases_have_one_name() {
        let mut names: Vec<String> = cases::all().map(|case| case.name()).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
