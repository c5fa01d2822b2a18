//! The process of the bundle, or of `exec`: which steps turn the waiting process into the program.

use oci_spec::runtime::{LinuxCapabilities, LinuxSeccomp, Process};

use crate::op::{Capabilities, Ids, Op};

use super::Draft;

/// How the process is confined besides what its own section says.
#[derive(Clone, Copy, Debug)]
pub struct Confinement<'a> {
    /// The system call filter.
    pub seccomp: Option<&'a LinuxSeccomp>,
    /// Whether supplementary groups can be set.
    pub set_groups: bool,
    /// Whether capabilities are a thing here (Linux).
    pub capabilities: bool,
    /// Capabilities of a process that does not say which it wants.
    pub default_capabilities: &'a [&'a str],
}

/// Checks that the program is there: the last step of `create`.
#[must_use]
pub fn find(process: &Process) -> Op {
    Op::FindProgram { args: args(process), env: env(process), cwd: process.cwd().clone() }
}

/// The steps of `start`, in the only order that works: limits while there is still the privilege to set them; the
/// filter before capabilities go where it needs one (seccomp(2): `CAP_SYS_ADMIN` or no_new_privs), otherwise last, so
/// that it need not allow our own calls.
#[must_use]
pub fn start(process: &Process, with: Confinement<'_>) -> Vec<Op> {
    let mut ops = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        ops.push(Op::SetRlimit { kind: limit.typ().to_string(), soft: limit.soft(), hard: limit.hard() });
    }
    let seccomp = || with.seccomp.map(|seccomp| Op::Seccomp { seccomp: Box::new(seccomp.clone()) });
    let no_new_privileges = process.no_new_privileges() == Some(true);
    if no_new_privileges {
        ops.push(Op::NoNewPrivileges);
    } else {
        ops.extend(seccomp());
    }
    ops.push(Op::ChangeDir { path: process.cwd().clone() });
    let user = process.user();
    ops.push(Op::SetIds(Ids {
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask(),
        set_groups: with.set_groups,
    }));
    if with.capabilities {
        ops.push(Op::SetCapabilities(match process.capabilities() {
            Some(sets) => capabilities(sets),
            None => all_of(with.default_capabilities),
        }));
    }
    if no_new_privileges {
        ops.extend(seccomp());
    }
    ops.push(Op::Exec { args: args(process), env: env(process) });
    ops
}

/// The five sets, sorted: config.json's own order means nothing, and a plan is the same bytes every time.
#[must_use]
pub fn capabilities(sets: &LinuxCapabilities) -> Capabilities {
    let sorted = |set: &Option<oci_spec::runtime::Capabilities>| {
        let mut names: Vec<String> = set.iter().flatten().map(|cap| format!("CAP_{cap}")).collect();
        names.sort_unstable();
        names
    };
    Capabilities {
        bounding: sorted(sets.bounding()),
        effective: sorted(sets.effective()),
        inheritable: sorted(sets.inheritable()),
        permitted: sorted(sets.permitted()),
        ambient: sorted(sets.ambient()),
    }
}

/// The same capabilities where they help, none that a program could pass on (CVE-2022-29162).
fn all_of(names: &[&str]) -> Capabilities {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    Capabilities {
        bounding: names.clone(),
        effective: names.clone(),
        permitted: names,
        inheritable: Vec::new(),
        ambient: Vec::new(),
    }
}

fn args(process: &Process) -> Vec<String> {
    process.args().clone().unwrap_or_default()
}

fn env(process: &Process) -> Vec<String> {
    process.env().clone().unwrap_or_default()
}

/// Refuses the members of a process that its operating system does not carry out. `at` is its JSON pointer.
pub fn refuse_unsupported(draft: &mut Draft<'_>, process: &Process, at: &str) {
    let labelled = |label: &Option<String>| {
        draft.facts.os == crate::facts::Os::Freebsd && label.as_ref().is_some_and(|text| !text.is_empty())
    };
    let unsupported = [
        ("apparmorProfile", labelled(process.apparmor_profile())),
        ("selinuxLabel", labelled(process.selinux_label())),
        ("commandLine", process.command_line().as_ref().is_some_and(|text| !text.is_empty())),
    ];
    for (name, given) in unsupported {
        if given {
            draft.not_yet(format!("{at}/{name}"));
        }
    }
}
