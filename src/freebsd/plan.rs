//! The order of steps on FreeBSD.
//!
//! Storage, mounts, limits, the jail, its network, the process: each needs those before it. Taken back in reverse, so
//! the process goes first, and the interfaces before the jail whose network stack they are in. The first process waits
//! outside the jail, where nothing inside can reach it, and enters when it is started.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{PosixRlimitType, Process, Root};

use crate::bundle::pot::Pot;
use crate::facts::Os;
use crate::names;
use crate::op::{Moment, Op, Spawn};
use crate::plan::network as common;
use crate::plan::{Draft, Plan, files, process};
use crate::state::Group;

use super::{annotations, jail, limits, mounts, network, root};

/// The resources of setrlimit(2) that both the specification's list and FreeBSD have.
const RLIMITS: &[PosixRlimitType] = &[
    PosixRlimitType::RlimitAs,
    PosixRlimitType::RlimitCore,
    PosixRlimitType::RlimitCpu,
    PosixRlimitType::RlimitData,
    PosixRlimitType::RlimitFsize,
    PosixRlimitType::RlimitMemlock,
    PosixRlimitType::RlimitNofile,
    PosixRlimitType::RlimitNproc,
    PosixRlimitType::RlimitRss,
    PosixRlimitType::RlimitStack,
];

/// Plans `create` on FreeBSD.
pub fn order(draft: &mut Draft<'_>) -> Plan {
    let pot = draft.bundle.pot.clone();
    refuse(draft);
    let wanted = annotations::merge(draft);
    let name = jail::name(draft, wanted.parent.as_deref());

    let (mut ops, below) = root::storage(draft, pot.as_ref());
    if let Some(pot) = &pot {
        ops.extend(files::names(draft, pot, &below));
        ops.extend(neighbours(draft, pot, &below));
    }
    let mounts = mounts::all(draft, pot.as_ref());
    let readonly = draft.bundle.spec.root().as_ref().and_then(Root::readonly) == Some(true);
    let (shown, rootfs) = if readonly { root::readonly(draft, &below, &mounts) } else { (Vec::new(), below) };
    ops.extend(shown);
    let ruleset = mounts::ruleset(&mounts, pot.as_ref());
    // What potrun made itself has nothing mounted in it yet.
    let before = if rootfs.starts_with(draft.bundle.root().unwrap_or_else(|| "/dev/null".into())) {
        draft.facts.mounts.clone()
    } else {
        Vec::new()
    };
    let mount = |mount| Op::HostMount { root: rootfs.clone(), mount, before: before.clone() };
    ops.extend(mounts.into_iter().map(mount));

    let (bounds, attributes) = pot.as_ref().map(|pot| (pot.limits.clone(), pot.attributes.clone())).unwrap_or_default();
    ops.extend(limits::rules(&name, &bounds));
    let (stack, before) = network::stack(draft, &wanted, pot.as_ref());
    ops.extend(before);
    let parameters = jail::parameters(draft, &wanted, &stack, &rootfs, ruleset, &attributes);
    ops.push(Op::CreateJail { name: name.clone(), parameters, before: draft.facts.mounts.clone() });
    ops.extend(limits::cpuset(&name, &bounds));
    ops.extend(network::wire(draft, &wanted, &name, &stack, pot.as_ref()));
    ops.extend(first_process(draft, &name));
    Plan { os: Os::Freebsd, ops, rootfs, group: Some(Group::Jail(name)), network: None, notes: Vec::new() }
}

/// The names of the pot and of its neighbours, which it finds behind a link.
fn neighbours(draft: &mut Draft<'_>, pot: &Pot, below: &Path) -> Vec<Op> {
    if !common::bridged(pot) {
        return Vec::new();
    }
    let ends = common::ends(draft, pot);
    let mut ops: Vec<Op> = files::publish(draft, pot, &ends).into_iter().collect();
    ops.extend(files::hosts(draft, pot).map(|_| Op::WriteLink {
        root: below.into(),
        path: files::HOSTS.into(),
        to: Path::new(mounts::NAMES).join(names::FILE),
    }));
    ops
}

/// Plans one more process of a running container (`exec`), in its jail.
pub fn exec(draft: &mut Draft<'_>, asked: &Process, jail: &str) -> Plan {
    check(draft, asked, "/process");
    let mut spawn = waiting(asked);
    spawn.start = entering(jail);
    spawn.start.extend(process::start(asked, CONFINEMENT));
    let ops = vec![Op::Spawn(Box::new(spawn))];
    Plan {
        os: Os::Freebsd,
        ops,
        rootfs: PathBuf::new(),
        group: Some(Group::Jail(jail.into())),
        network: None,
        notes: Vec::new(),
    }
}

const CONFINEMENT: process::Confinement<'static> =
    process::Confinement { seccomp: None, set_groups: true, capabilities: false, default_capabilities: &[] };

/// The first process and the hooks beside it. Hooks of the host run while it waits; those of createContainer are its
/// own, on the host still, after them.
fn first_process(draft: &Draft<'_>, jail: &str) -> Vec<Op> {
    let asked = draft.bundle.spec.process().as_ref();
    let mut spawn = asked.map(waiting).unwrap_or_default();
    let mut runtime = draft.hooks(Moment::Prestart);
    runtime.extend(draft.hooks(Moment::CreateRuntime));
    let container = draft.hooks(Moment::CreateContainer);
    let awaited = !runtime.is_empty() && !container.is_empty();
    spawn.create.extend(awaited.then_some(Op::AwaitRuntime));
    spawn.create.extend(container.into_iter().map(Op::Hook));
    spawn.start = entering(jail);
    let cwd = asked.map(Process::cwd).filter(|cwd| *cwd != Path::new("/"));
    spawn.start.extend(cwd.map(|cwd| Op::CreateCwd { path: cwd.clone() }));
    spawn.start.extend(draft.hooks(Moment::StartContainer).into_iter().map(Op::Hook));
    spawn.start.extend(asked.map(|asked| process::start(asked, CONFINEMENT)).unwrap_or_default());
    let mut ops = vec![Op::Spawn(Box::new(spawn))];
    ops.extend(runtime.into_iter().map(Op::Hook));
    ops.extend(awaited.then_some(Op::Resume));
    ops
}

fn waiting(asked: &Process) -> Spawn {
    let size = asked.console_size();
    let size = size.and_then(|size| Some((u16::try_from(size.height()).ok()?, u16::try_from(size.width()).ok()?)));
    Spawn { terminal: asked.terminal() == Some(true), console_size: size, ..Spawn::default() }
}

fn entering(jail: &str) -> Vec<Op> {
    vec![Op::AttachJail { name: jail.into() }]
}

/// Refuses what is understood and not carried out here. The `linux` section is Linux's alone (config.md,
/// "Platform-specific configuration").
fn refuse(draft: &mut Draft<'_>) {
    let spec = &draft.bundle.spec;
    let sections = [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("vm", spec.vm().is_some()),
        ("zos", spec.zos().is_some()),
    ];
    let asked = spec.process().clone();
    for (section, given) in sections {
        if given {
            draft.refuse(format!("/{section}"), "is not for freebsd");
        }
    }
    if let Some(asked) = asked {
        check(draft, &asked, "/process");
    }
    if draft.bundle.pot.as_ref().is_some_and(|pot| pot.persistent && pot.base.is_none()) {
        draft.note("/pot/persistent: without a base the root is the bundle's own, which stays as it is");
    }
}

/// Refuses what FreeBSD does not have of a process, and says what is Linux's alone.
fn check(draft: &mut Draft<'_>, asked: &Process, at: &str) {
    process::refuse_unsupported(draft, asked, at);
    let linux = [
        ("ioPriority", asked.io_priority().is_some()),
        ("scheduler", asked.scheduler().is_some()),
        ("execCPUAffinity", asked.exec_cpu_affinity().is_some()),
    ];
    for (name, _) in linux.iter().filter(|(_, given)| *given) {
        draft.not_yet(format!("{at}/{name}"));
    }
    for (n, limit) in asked.rlimits().iter().flatten().enumerate() {
        if !RLIMITS.contains(&limit.typ()) {
            draft.refuse(format!("{at}/rlimits/{n}/type"), format!("freebsd has no {}", limit.typ()));
        }
    }
    for (name, given) in
        [("capabilities", asked.capabilities().is_some()), ("oomScoreAdj", asked.oom_score_adj().is_some())]
    {
        if given {
            draft.note(format!("{at}/{name}: freebsd has no such thing"));
        }
    }
}
