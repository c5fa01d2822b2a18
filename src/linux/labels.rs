//! What a program is confined by besides its user and its namespaces: a profile of AppArmor, a context of SELinux.

use oci_spec::runtime::{Process, Spec};

use crate::facts::Labels;
use crate::op::{Module, Mount, Op};
use crate::plan::Draft;

/// The profile that confines nothing. Every host has it, whether it has AppArmor or not.
const UNCONFINED: &str = "unconfined";

/// Whether the bundle, or a process beside its own, names a profile or a context: only then the host is asked for them.
#[must_use]
pub fn asked(spec: &Spec, process: Option<&Process>) -> bool {
    let named = |process: &Process| given(process.apparmor_profile()).or(given(process.selinux_label())).is_some();
    process.is_some_and(named) || spec.process().as_ref().is_some_and(named) || of_mounts(spec).is_some()
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

fn of_mounts(spec: &Spec) -> Option<&str> {
    given(spec.linux().as_ref()?.mount_label())
}

/// What confines the program of `process`; where that says nothing, and it is one more process of a container, what
/// confines the container's own.
#[must_use]
pub fn steps(draft: &mut Draft<'_>, process: &Process, at: &str) -> Vec<Op> {
    let Labels { apparmor, selinux } = draft.facts.labels;
    let bundle = draft.bundle;
    let own = bundle.spec.process().as_ref();
    let named = |of: fn(&Process) -> &Option<String>| {
        given(of(process)).or(own.and_then(|own| given(of(own)))).map(String::from)
    };
    let mut ops = Vec::new();
    for (module, member, label, there) in [
        (Module::Apparmor, "apparmorProfile", named(Process::apparmor_profile), apparmor),
        (Module::Selinux, "selinuxLabel", named(Process::selinux_label), selinux),
    ] {
        let Some(label) = label else { continue };
        let at = format!("{at}/{member}");
        if !there && module == Module::Apparmor && label == UNCONFINED {
            continue;
        }
        if label.contains(char::is_control) {
            draft.refuse(at, "is not one name");
        } else if !there {
            draft.refuse(at, format!("this host has no {module}, or it is off"));
        } else {
            ops.push(Op::Confine { module, label });
        }
    }
    ops
}

/// SELinux's context of the container's own file systems, if this host can give it.
#[must_use]
pub fn mount_label(draft: &mut Draft<'_>) -> Option<String> {
    let label = of_mounts(&draft.bundle.spec)?.to_string();
    let at = "/linux/mountLabel";
    if !draft.facts.labels.selinux {
        draft.refuse(at, "this host has no selinux, or it is off");
        return None;
    }
    if label.contains(|c: char| c.is_control() || matches!(c, '"' | '\\')) {
        draft.refuse(at, "is not a context");
        return None;
    }
    if draft.bundle.pot.as_ref().is_some_and(|pot| pot.base.is_some()) {
        draft.refuse(at, "a pot on a base has the labels of its base");
        return None;
    }
    Some(label)
}

/// The option of mount(8) that gives all files of a file system one context. Contexts have commas.
#[must_use]
pub fn context(label: &str) -> String {
    format!("context=\"{label}\"")
}

/// A mount that carries the label, and what has to be done besides. As in runc: procfs and sysfs have labels of their own,
/// mqueue takes none when it is mounted, and what is bound belongs to somebody else.
#[must_use]
pub fn labelled(mut mount: Mount, label: Option<&str>) -> [Option<Op>; 2] {
    let Some(label) = label else { return [Some(Op::Mount(mount)), None] };
    let after = match mount.fstype.as_str() {
        "proc" | "sysfs" | "bind" | "cgroup2" => None,
        "mqueue" => Some(Op::Relabel { path: mount.target.clone(), label: label.into() }),
        _ => {
            mount.data.push(context(label));
            None
        }
    };
    [Some(Op::Mount(mount)), after]
}

/// The session keyring of a process, labelled as the process is, which has to search it.
#[must_use]
pub fn keyring(ops: &[Op]) -> Op {
    let label = ops.iter().find_map(|op| match op {
        Op::Confine { module: Module::Selinux, label } => Some(label.clone()),
        _ => None,
    });
    Op::NewKeyring { label }
}
