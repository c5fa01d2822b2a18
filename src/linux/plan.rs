//! The order of steps on Linux.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespaceType, LinuxSeccompAction, Process};

use crate::bundle::pot::{NetworkKind, Pot};
use crate::facts::{Os, Store};
use crate::op::{Moment, Mount, Node, Op, Root, Spawn};
use crate::plan::{Draft, Plan, dataset, files, process};
use crate::state::Group;

use super::{labels, mount, resources, tuning};

/// The capabilities of a pot that does not say which it wants: what Docker and podman give, since images expect them.
pub const DEFAULT_CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What a pot does not see, unless its bundle has a `linux` section of its own: runc's example configuration.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];

/// What a pot cannot write to, likewise.
const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The file systems of a pot that its bundle does not mention (config-linux.md, "Default Filesystems").
const MOUNTS: &[(&str, &str, &str, &[&str])] = &[
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
];

/// The devices that every container has (config-linux.md, "Default Devices"): name and minor number; all have major
/// number 1 but `tty`.
const DEVICES: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The links that every container has (config-linux.md, "Dev symbolic links").
const LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// The namespaces that the container gets.
#[derive(Default)]
struct Namespaces {
    new: Vec<String>,
    join: Vec<(String, PathBuf)>,
}

impl Namespaces {
    fn own(&self, name: &str) -> bool {
        self.new.iter().any(|kind| kind == name)
    }

    fn has(&self, name: &str) -> bool {
        self.own(name) || self.join.iter().any(|(kind, _)| kind == name)
    }
}

/// Plans `create` on Linux.
pub fn order(draft: &mut Draft<'_>) -> Plan {
    let pot = draft.bundle.pot.clone();
    let bundle = draft.bundle; // outlives the draft: a profile of system calls has hundreds of names to copy
    let linux = bundle.spec.linux().as_ref();
    refuse(draft, linux, pot.as_ref());
    let namespaces = namespaces(draft, linux, pot.as_ref());
    let (mut ops, root, rootfs) = root(draft, pot.as_ref());
    let cgroup = resources::path(draft);
    ops.extend(resources::steps(draft, cgroup.as_deref()));
    ops.extend(devices_filter(linux, pot.is_some(), cgroup.as_deref(), draft.facts.euid));
    let steps = pot.as_ref().map(|pot| super::network::steps(draft, pot, cgroup.as_deref()));
    let [before, mut meanwhile] = steps.unwrap_or_default();
    ops.extend(before);

    let mut spawn = Spawn {
        uid_map: map(draft, linux, &namespaces, |linux| linux.uid_mappings(), draft.facts.euid),
        gid_map: map(draft, linux, &namespaces, |linux| linux.gid_mappings(), draft.facts.egid),
        time_offsets: time_offsets(draft, linux, &namespaces),
        namespaces: namespaces.new.clone(),
        join: namespaces.join.clone(),
        cgroup: cgroup.clone(),
        ..Spawn::default()
    };
    if let Some(process) = draft.bundle.spec.process() {
        spawn.terminal = process.terminal() == Some(true);
        spawn.console_size = console_size(process);
    }
    spawn.start = at_start(draft, linux, pot.is_some());
    spawn.create = inside(draft, linux, pot.as_ref(), &namespaces, root, spawn.terminal);
    spawn.create.insert(
        spawn.create.iter().take_while(|op| matches!(op, Op::SetOomScore { .. })).count(),
        labels::keyring(&spawn.start),
    );

    let mut hooks = draft.hooks(Moment::Prestart);
    hooks.extend(draft.hooks(Moment::CreateRuntime));
    let [caches, joining] = super::rdt::steps(draft);
    ops.extend(caches);
    meanwhile.extend(joining);
    meanwhile.extend(super::network::lend(draft, namespaces.has("network")));
    meanwhile.extend(hooks.into_iter().map(Op::Hook));
    if meanwhile.is_empty() {
        spawn.create.retain(|op| !matches!(op, Op::CallRuntime | Op::AwaitRuntime));
    } else {
        meanwhile.push(Op::Resume);
    }
    ops.push(Op::Spawn(Box::new(spawn)));
    ops.extend(meanwhile);
    Plan { os: Os::Linux, ops, rootfs, group: cgroup.map(Group::Cgroup), network: None, notes: Vec::new() }
}

/// Plans one more process of a running container (`exec`), which joins the namespaces of process `pid`.
pub fn exec(draft: &mut Draft<'_>, asked: &Process, pid: i32, cgroup: Option<PathBuf>) -> Plan {
    process::refuse_unsupported(draft, asked, "/process");
    let bundle = draft.bundle;
    let linux = bundle.spec.linux().as_ref();
    let mut spawn = Spawn {
        like: Some(pid),
        cgroup: cgroup.clone(),
        terminal: asked.terminal() == Some(true),
        console_size: console_size(asked),
        ..Spawn::default()
    };
    if let Some(score) = asked.oom_score_adj() {
        spawn.create.push(Op::SetOomScore { score });
    }
    let confined = labels::steps(draft, asked, "/process");
    spawn.create.extend([labels::keyring(&confined), process::find(asked)]);
    let [before, after] = tuning::affinity(draft, asked, "/process");
    spawn.start = tuning::steps(draft, linux, asked, "/process");
    spawn.start.extend(confined);
    spawn.start.extend(after);
    spawn.start.extend(process::start(asked, confinement(draft, linux, draft.bundle.pot.is_some())));
    let group = cgroup.map(Group::Cgroup);
    Plan {
        os: Os::Linux,
        ops: before.into_iter().chain([Op::Spawn(Box::new(spawn))]).collect(),
        rootfs: PathBuf::new(),
        group,
        network: None,
        notes: Vec::new(),
    }
}

fn console_size(process: &Process) -> Option<(u16, u16)> {
    let size = process.console_size()?;
    Some((u16::try_from(size.height()).ok()?, u16::try_from(size.width()).ok()?))
}

/// Refuses what is understood and not carried out here.
fn refuse(draft: &mut Draft<'_>, linux: Option<&Linux>, pot: Option<&Pot>) {
    if let Some(process) = draft.bundle.spec.process().clone() {
        process::refuse_unsupported(draft, &process, "/process");
        if draft.facts.euid != 0 && process.user().additional_gids().as_ref().is_some_and(|gids| !gids.is_empty()) {
            draft.refuse(
                "/process/user/additionalGids",
                "needs root: a user namespace without root has no setgroups(2)",
            );
        }
    }
    for (section, given) in [
        ("solaris", draft.bundle.spec.solaris().is_some()),
        ("windows", draft.bundle.spec.windows().is_some()),
        ("vm", draft.bundle.spec.vm().is_some()),
        ("zos", draft.bundle.spec.zos().is_some()),
    ] {
        if given {
            draft.refuse(format!("/{section}"), "is not for linux");
        }
    }
    if let Some(seccomp) = linux.and_then(|linux| linux.seccomp().as_ref()) {
        let rules = seccomp.syscalls().iter().flatten();
        let notifies = rules.filter(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify).count() > 0;
        match seccomp.listener_path() {
            Some(path) if !path.is_absolute() => {
                draft.refuse("/linux/seccomp/listenerPath", "must be an absolute path");
            }
            None if notifies => {
                draft.refuse("/linux/seccomp/listenerPath", "is required where a rule has SCMP_ACT_NOTIFY");
            }
            _ => {}
        }
    }
    if let Some(pot) = pot {
        if pot.start_at_boot {
            draft.note("/pot/startAtBoot: who starts pots at boot reads it");
        }
        let attributes = &pot.attributes;
        for (name, given) in [
            ("devfsRuleset", attributes.devfs_ruleset.is_some()),
            ("childrenMax", attributes.children_max.is_some()),
            ("securelevel", attributes.securelevel.is_some()),
            ("osrelease", attributes.osrelease.is_some()),
        ] {
            if given {
                draft.note(format!("/pot/attributes/{name}: linux has no such thing"));
            }
        }
    }
}

/// Namespaces, sorted by their OCI names so that the plan does not depend on the order of the bundle.
fn namespaces(draft: &mut Draft<'_>, linux: Option<&Linux>, pot: Option<&Pot>) -> Namespaces {
    let mut all = Namespaces::default();
    let listed = linux.and_then(|linux| linux.namespaces().clone());
    match (listed, pot) {
        (Some(listed), _) => {
            for (n, namespace) in listed.iter().enumerate() {
                let name = namespace_name(namespace.typ()).to_string();
                let at = format!("/linux/namespaces/{n}");
                if all.has(&name) {
                    draft.refuse(at, format!("{name} is given twice"));
                    continue;
                }
                match (namespace.typ(), namespace.path()) {
                    (LinuxNamespaceType::Time, None) if draft.facts.euid != 0 => {
                        draft.refuse(at, "needs root: a time namespace belongs to who made it");
                    }
                    (_, Some(path)) if path.is_absolute() => all.join.push((name, path.clone())),
                    (_, Some(_)) => draft.refuse(format!("{at}/path"), "must be an absolute path"),
                    (_, None) => all.new.push(name),
                }
            }
        }
        (None, Some(_)) => all.new.extend(["cgroup", "ipc", "mount", "pid", "uts"].map(String::from)),
        (None, None) => {}
    }
    if let Some(pot) = pot {
        let inherit = pot.network.kind == NetworkKind::Inherit || pot.network.kind == NetworkKind::Alias;
        let listed = all.has("network");
        let joined = all.join.iter().any(|(kind, _)| kind == "network");
        let word = pot.network.kind.word();
        match (inherit, pot.network.given) {
            (true, true) if all.own("network") => {
                draft.refuse(
                    "/pot/network/type",
                    format!("{word} is the host's network, but /linux/namespaces asks for a new one"),
                );
            }
            (false, _) if joined => {
                draft.refuse(
                    "/pot/network/type",
                    format!("{word} is a network of its own, but /linux/namespaces joins an existing one"),
                );
            }
            (false, _) if !listed => all.new.push("network".into()),
            _ => {}
        }
    }
    if draft.facts.euid != 0 && !all.has("user") {
        all.new.push("user".into());
    }
    if !all.has("mount") {
        draft.refuse("/linux/namespaces", "a container without a mount namespace is not carried out");
    }
    all.new.sort_unstable();
    all.join.sort();
    all
}

/// The word of config-linux.md, which oci-spec keeps to itself.
fn namespace_name(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    }
}

/// By how much the clocks of a time namespace of its own differ (time_namespaces(7)), sorted.
fn time_offsets(draft: &mut Draft<'_>, linux: Option<&Linux>, namespaces: &Namespaces) -> Vec<(String, i64, u32)> {
    let mut all = Vec::new();
    for (clock, offset) in linux.and_then(|linux| linux.time_offsets().as_ref()).into_iter().flatten() {
        let at = format!("/linux/timeOffsets/{clock}");
        if !namespaces.own("time") {
            draft.refuse(at, "needs a time namespace of its own");
        } else if !matches!(clock.as_str(), "monotonic" | "boottime") {
            draft.refuse(at, "is not one of monotonic, boottime");
        } else {
            all.push((clock.clone(), offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)));
        }
    }
    all.sort();
    all
}

/// The map of users or groups of a user namespace of its own.
fn map(
    draft: &Draft<'_>,
    linux: Option<&Linux>,
    namespaces: &Namespaces,
    given: impl Fn(&Linux) -> &Option<Vec<oci_spec::runtime::LinuxIdMapping>>,
    own: u32,
) -> Vec<(u32, u32, u32)> {
    if !namespaces.own("user") {
        return Vec::new();
    }
    match linux.and_then(|linux| given(linux).as_ref()).filter(|maps| !maps.is_empty()) {
        Some(maps) => maps.iter().map(|one| (one.container_id(), one.host_id(), one.size())).collect(),
        // Root inside is the caller outside: all that a caller without subordinate ids can have.
        None if draft.facts.euid != 0 => vec![(0, own, 1)],
        None => Vec::new(),
    }
}

/// The root file system: what prepares it on the host, how it is mounted, where it is seen.
fn root(draft: &mut Draft<'_>, pot: Option<&Pot>) -> (Vec<Op>, Root, PathBuf) {
    let id = draft.id.clone();
    let Some((pot, base)) = pot.and_then(|pot| Some((pot, pot.base.as_ref()?))) else {
        if let Some(pot) = pot {
            dataset::quota(draft, &pot.limits);
            if pot.persistent {
                draft.note("/pot/persistent: without a base the root is the bundle's own, which stays as it is");
            }
        }
        let Some(path) = draft.bundle.root() else {
            draft.refuse("/root/path", "is required where no base is named in /pot/base");
            return (Vec::new(), Root::Bind { source: PathBuf::new() }, PathBuf::new());
        };
        return (Vec::new(), Root::Bind { source: path.clone() }, path);
    };
    match &draft.facts.store {
        Store::Overlay { path } => {
            let disk = pot.limits.disk;
            if disk.is_some() && !draft.facts.quota {
                let what = "needs a ZFS store, or one on a file system that keeps project quotas (prjquota; as root)";
                draft.refuse("/pot/limits/disk", what);
            }
            let base = path.join("bases").join(&base.release);
            let layer = path.join("pots").join(id.as_str());
            let owner = draft.facts.state.join(id.as_str());
            // The layer first: a note of a pot without a layer is one that gc removes.
            let keep = pot.persistent.then(|| base.clone());
            let ops = vec![
                Op::CreateLayer { path: layer.clone(), owner: owner.clone(), disk, keep },
                Op::UseBase { base: base.clone(), id, keep: pot.persistent },
            ];
            let rootfs = layer.join("root");
            let (ops, layers) = match draft.facts.kept.clone() {
                None => (ops, Vec::new()),
                Some(kept) => {
                    take_up(draft, &kept, &layer);
                    let layers = draft.facts.layers.clone();
                    (vec![Op::TakeUpLayer { path: layer.clone(), owner, disk, layers: layers.clone() }], layers)
                }
            };
            (ops, Root::Overlay { lower: base.join("tree"), layers, layer }, rootfs)
        }
        Store::Zfs { .. } => {
            let (ops, rootfs) = dataset::clone(draft, pot);
            (ops, Root::Bind { source: rootfs.clone() }, rootfs)
        }
    }
}

/// Says that a layer is there for the pot, if it lies on the base that the bundle names.
fn take_up(draft: &mut Draft<'_>, kept: &str, layer: &Path) {
    let (id, shown) = (draft.id.clone(), layer.display());
    if draft.bundle.pot.as_ref().and_then(|pot| pot.base.as_ref()).is_some_and(|base| base.release == kept) {
        draft.note(format!("root: {shown} is taken up as it was left for {id}"));
    } else {
        let what = format!("{shown} is kept, over base {kept}: first potrun delete --data {id}, or name that base");
        draft.refuse("/pot/base/release", what);
    }
}

/// The device filter of the container's group. Without root there is none, and no device can be made either.
fn devices_filter(linux: Option<&Linux>, is_pot: bool, cgroup: Option<&Path>, euid: u32) -> Option<Op> {
    let given = linux.and_then(|linux| linux.resources().as_ref()).and_then(|all| all.devices().clone());
    let path = cgroup?.to_path_buf();
    if euid != 0 || (given.is_none() && !is_pot && linux.is_none()) {
        return None;
    }
    let mut rules = given.unwrap_or_default();
    if rules.is_empty() {
        let mut nothing = LinuxDeviceCgroup::default();
        nothing.set_access(Some("rwm".into()));
        rules.push(nothing);
    }
    // runc's order: the bundle's rules, then the devices that every container has.
    rules.extend(super::devices::defaults(linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default()));
    Some(Op::FilterDevices { path, rules })
}

/// What the first process does before it waits.
fn inside(
    draft: &mut Draft<'_>,
    linux: Option<&Linux>,
    pot: Option<&Pot>,
    namespaces: &Namespaces,
    root: Root,
    terminal: bool,
) -> Vec<Op> {
    let spec = &draft.bundle.spec;
    let mut ops = Vec::new();
    if let Some(score) = spec.process().as_ref().and_then(Process::oom_score_adj) {
        ops.push(Op::SetOomScore { score });
    }
    let propagation = linux.and_then(|linux| linux.rootfs_propagation().clone()).filter(|p| !p.is_empty());
    let known = ["shared", "slave", "private", "unbindable"];
    if let Some(word) = propagation.as_ref().filter(|word| !known.contains(&word.trim_start_matches('r'))) {
        draft.refuse("/linux/rootfsPropagation", format!("{word:?} is not one of {}", known.join(", ")));
    }
    // A slave still sees what the host mounts later, and the host never sees our mounts; unless the bundle wants just
    // that.
    let first = match propagation.as_deref() {
        Some(word) if word.contains("private") => "rprivate",
        Some(word) if word.contains("shared") => "rshared",
        _ => "rslave",
    };
    ops.push(Op::Propagate { propagation: first.into() });
    ops.push(Op::MountRoot(root));
    let mounts = mounts(draft, pot, namespaces);
    let own_dev = !mounts.iter().any(|m| m.target == Path::new("/dev") && mount::Options::of(&m.options).bind);
    let label = labels::mount_label(draft);
    // What comes from outside needs nothing of ours but the settings of the network, which are seen below /proc; unless
    // the bundle has hooks beside it, or says how interfaces are to be.
    let waits = waits_at_once(draft, linux);
    let mut calls: Vec<Op> = namespaces.own("network").then_some(Op::LoopbackUp).into_iter().collect();
    calls.extend(pot.and_then(|pot| super::network::preset(draft, pot)));
    calls.push(if waits { Op::AwaitRuntime } else { Op::CallRuntime });
    let mut early = if waits { Vec::new() } else { std::mem::take(&mut calls) };
    if !mounts.iter().any(is_proc) {
        ops.append(&mut early);
    }
    for mount in mounts {
        let called = is_proc(&mount);
        ops.extend(labels::labelled(mount, label.as_deref()).into_iter().flatten());
        if called {
            ops.append(&mut early);
        }
    }
    ops.extend(nodes(draft, linux, namespaces, own_dev));
    if own_dev {
        ops.extend(LINKS.iter().map(|(path, to)| Op::Link { path: path.into(), to: to.into() }));
    }
    if terminal {
        ops.push(Op::BindConsole);
    }
    if let Some(pot) = pot {
        ops.extend(files::names(draft, pot, Path::new("/")));
    }
    ops.append(&mut calls);
    ops.extend(draft.hooks(Moment::CreateContainer).into_iter().map(Op::Hook));
    ops.extend(identity(draft, namespaces));
    ops.extend(sysctls(draft, linux, namespaces));
    let (masked, readonly) = match linux {
        Some(linux) => (linux.masked_paths().clone(), linux.readonly_paths().clone()),
        None if pot.is_some() => {
            let texts = |all: &[&str]| Some(all.iter().map(ToString::to_string).collect());
            (texts(MASKED), texts(READONLY))
        }
        None => (None, None),
    };
    ops.extend(readonly.into_iter().flatten().map(|path| Op::MakeReadonly { path: path.into() }));
    ops.extend(masked.into_iter().flatten().map(|path| Op::Mask { path: path.into(), label: label.clone() }));
    if let Some(process) = draft.bundle.spec.process() {
        ops.push(Op::CreateCwd { path: process.cwd().clone() });
    }
    let readonly = draft.bundle.spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true);
    ops.push(Op::EnterRoot { readonly, propagation });
    ops.extend(draft.bundle.spec.process().as_ref().map(process::find));
    ops.extend((!waits).then_some(Op::AwaitRuntime));
    ops
}

/// Whether the first process goes no further before the runtime has done its part: hooks find the one where the
/// specification wants it (config.md, "POSIX-platform Hooks"), and settings of interfaces find these.
fn waits_at_once(draft: &Draft<'_>, linux: Option<&Linux>) -> bool {
    let hooks = [Moment::Prestart, Moment::CreateRuntime, Moment::CreateContainer];
    // net.ipv4.conf.eth0.*, net.ipv6.neigh.eth0.*, and `all` and `default` in the place of the name.
    let interfaces = |key: &String| key.contains("conf") || key.contains("neigh");
    hooks.into_iter().any(|moment| !draft.hooks(moment).is_empty())
        || linux.and_then(|linux| linux.sysctl().as_ref()).is_some_and(|all| all.keys().any(interfaces))
}

fn is_proc(mount: &Mount) -> bool {
    mount.fstype == "proc" && mount.target == Path::new("/proc")
}

/// What the first process does when it is started.
fn at_start(draft: &mut Draft<'_>, linux: Option<&Linux>, is_pot: bool) -> Vec<Op> {
    let mut ops: Vec<Op> = draft.hooks(Moment::StartContainer).into_iter().map(Op::Hook).collect();
    if let Some(process) = draft.bundle.spec.process() {
        ops.extend(tuning::steps(draft, linux, process, "/process"));
        ops.extend(labels::steps(draft, process, "/process"));
        ops.extend(process::start(process, confinement(draft, linux, is_pot)));
    }
    ops
}

fn confinement<'a>(draft: &Draft<'_>, linux: Option<&'a Linux>, is_pot: bool) -> process::Confinement<'a> {
    process::Confinement {
        seccomp: linux.and_then(|linux| linux.seccomp().as_ref()),
        // user_namespaces(7): setgroups(2) is off where an unprivileged process wrote the group map.
        set_groups: draft.facts.euid == 0,
        capabilities: true,
        default_capabilities: if is_pot { DEFAULT_CAPABILITIES } else { &[] },
    }
}

/// All mounts in their order: a pot's defaults, what the bundle lists, then a pot's own by depth, so that no parent
/// covers its child.
fn mounts(draft: &mut Draft<'_>, pot: Option<&Pot>, namespaces: &Namespaces) -> Vec<Mount> {
    let mut all = Vec::new();
    let listed = draft.bundle.spec.mounts().clone().unwrap_or_default();
    if pot.is_some() {
        for (target, fstype, source, options) in MOUNTS {
            if listed.iter().any(|one| one.destination() == Path::new(target)) {
                continue;
            }
            let options: Vec<String> = options.iter().map(ToString::to_string).collect();
            all.extend(translate(draft, "", target.into(), fstype, source.into(), &options, namespaces));
        }
    }
    for (n, one) in listed.iter().enumerate() {
        let at = format!("/mounts/{n}");
        // A relative destination is taken from the root, with a warning in runc (config.md, "Mounts").
        let target = Path::new("/").join(one.destination());
        let options = one.options().clone().unwrap_or_default();
        let fstype = one.typ().clone().unwrap_or_default();
        let source = one.source().clone().unwrap_or_default();
        let mount = translate(draft, &at, target, &fstype, source, &options, namespaces);
        all.extend(mount.map(|mount| map_owners(draft, &at, one, mount, namespaces)));
    }
    all.extend(own_mounts(draft, pot));
    all
}

/// The maps of an idmapped mount: its own, or those of the container's user namespace (config.md, "Mounts").
fn map_owners(
    draft: &mut Draft<'_>,
    at: &str,
    one: &oci_spec::runtime::Mount,
    mut mount: Mount,
    namespaces: &Namespaces,
) -> Mount {
    let given = |maps: &Option<Vec<oci_spec::runtime::LinuxIdMapping>>| -> Vec<(u32, u32, u32)> {
        maps.iter().flatten().map(|one| (one.container_id(), one.host_id(), one.size())).collect()
    };
    let mut maps = [given(one.uid_mappings()), given(one.gid_mappings())];
    let options = mount::Options::of(&mount.options);
    if maps[0].is_empty() != maps[1].is_empty() {
        let missing = if maps[0].is_empty() { "uidMappings" } else { "gidMappings" };
        draft.refuse(format!("{at}/{missing}"), "is required beside the other");
        return mount;
    }
    if maps[0].is_empty() && options.id_map.is_none() {
        return mount;
    }
    if maps[0].is_empty() {
        let linux = draft.bundle.spec.linux().clone();
        let own = |given: fn(&Linux) -> &Option<Vec<oci_spec::runtime::LinuxIdMapping>>| {
            map(draft, linux.as_ref(), namespaces, given, 0)
        };
        maps = [own(|linux| linux.uid_mappings()), own(|linux| linux.gid_mappings())];
        if maps[0].is_empty() || maps[1].is_empty() {
            draft.refuse(format!("{at}/uidMappings"), "is required, or a user namespace of its own with mappings");
        }
    } else if options.id_map.is_none() {
        mount.options.push("idmap".into());
    }
    if !options.bind {
        draft.refuse(at, "only a bind mount can be idmapped");
    } else if draft.facts.euid != 0 {
        draft.refuse(at, "an idmapped mount needs root");
    }
    mount.owners = Some(Box::new(maps));
    mount
}

/// A pot's fscomps, datasets and directories, the parents first, and the names of its neighbours. A dataset is shown from
/// where it is mounted; one that is not is mounted in the pot alone, so its own mountpoint never changes.
fn own_mounts(draft: &mut Draft<'_>, pot: Option<&Pot>) -> Vec<Mount> {
    let Some(pot) = pot else { return Vec::new() };
    let show = |source, target: &Path, readonly| mount::of_host(source, target.into(), readonly);
    let mut all = Vec::new();
    for one in &pot.fscomps {
        let source = draft.facts.fscomps.get(&one.name).cloned();
        all.extend(source.map(|source| show(source, &one.destination, one.readonly)));
    }
    for (n, one) in pot.datasets.iter().enumerate() {
        match draft.facts.datasets.get(&one.dataset).cloned() {
            Some(Some(source)) => all.push(show(source, &one.destination, one.readonly)),
            Some(None) => all.push(Mount {
                fstype: "zfs".into(),
                source: one.dataset.clone().into(),
                target: one.destination.clone(),
                options: if one.readonly { vec!["ro".into()] } else { Vec::new() },
                ..Mount::default()
            }),
            None => {
                draft.refuse(format!("/pot/datasets/{n}/dataset"), format!("dataset {} does not exist", one.dataset));
            }
        }
    }
    all.extend(pot.directories.iter().map(|one| show(one.source.clone(), &one.destination, one.readonly)));
    all.extend(files::hosts(draft, pot).map(|hosts| show(hosts, Path::new(files::HOSTS), true)));
    all.sort_by_key(|mount| mount.target.components().count());
    all
}

/// One mount of the bundle in the words of this kernel and of these namespaces.
fn translate(
    draft: &mut Draft<'_>,
    at: &str,
    target: PathBuf,
    fstype: &str,
    source: PathBuf,
    words: &[String],
    namespaces: &Namespaces,
) -> Option<Mount> {
    if target == Path::new("/") {
        draft.refuse(format!("{at}/destination"), "must be below /");
        return None;
    }
    if matches!(fstype, "devfs" | "fdescfs" | "procfs" | "linprocfs" | "linsysfs") {
        draft.refuse(format!("{at}/type"), format!("{fstype} is a file system of freebsd"));
        return None;
    }
    let mut options = Vec::new();
    let mut data = Vec::new();
    for (n, text) in words.iter().enumerate() {
        match text.as_str() {
            "tmpcopyup" if fstype != "tmpfs" => draft.refuse(format!("{at}/options/{n}"), "is for a tmpfs only"),
            text if mount::word(text).is_some() => options.push(text.to_string()),
            // In a user namespace of one group no other group can be named.
            text if fstype == "devpts" && text.starts_with("gid=") && draft.facts.euid != 0 => {}
            text => data.push(text.to_string()),
        }
    }
    // nullfs is what bind is called on FreeBSD: the same bundle runs on both.
    let bind = mount::Options::of(&options).bind || matches!(fstype, "bind" | "nullfs");
    if bind {
        if source.as_os_str().is_empty() {
            draft.refuse(format!("{at}/source"), "is required for a bind mount");
        }
        if !mount::Options::of(&options).bind {
            options.insert(0, "bind".into());
        }
        let source = draft.bundle.dir.join(source);
        return Some(Mount { fstype: "bind".into(), source, target, options, data, owners: None });
    }
    match fstype {
        "" => {
            draft.refuse(format!("{at}/type"), "is required where it is not a bind mount");
            None
        }
        "cgroup" | "cgroup2" => cgroup(draft, target, options, namespaces),
        // sysfs shows the network of its mounter: only who owns the network namespace may mount it.
        "sysfs" if draft.facts.euid != 0 && !namespaces.own("network") => {
            options.retain(|word| word != "ro");
            options.splice(0..0, ["rbind", "rro"].map(String::from));
            Some(Mount { fstype: "bind".into(), source: "/sys".into(), target, options, data, owners: None })
        }
        _ => Some(Mount { fstype: fstype.into(), source, target, options, data, owners: None }),
    }
}

/// The container's view of its control group: a mount of its own where it has a cgroup namespace, otherwise its
/// directory of the host's mount. (Mounting cgroup2 anew in the host's namespace waits for RCU: 10 ms in crun.)
fn cgroup(draft: &mut Draft<'_>, target: PathBuf, mut options: Vec<String>, namespaces: &Namespaces) -> Option<Mount> {
    let Some(cgroup) = draft.facts.cgroup.clone() else {
        draft.note(format!("{}: no cgroup2 hierarchy that this caller can write to", target.display()));
        return None;
    };
    if namespaces.has("cgroup") {
        return Some(Mount { fstype: "cgroup2".into(), source: "cgroup".into(), target, options, ..Mount::default() });
    }
    options.insert(0, "rbind".into());
    if draft.facts.euid != 0 {
        // The caller's own groups are among what is shown, and root inside is the caller (CVE-2023-25809).
        options.extend(["ro", "rro"].map(String::from));
    }
    Some(Mount { fstype: "bind".into(), source: cgroup.mount, target, options, ..Mount::default() })
}

/// The default devices and those that the bundle lists, which win.
fn nodes(draft: &mut Draft<'_>, linux: Option<&Linux>, namespaces: &Namespaces, own_dev: bool) -> Vec<Op> {
    let bind = namespaces.has("user");
    let mut all: Vec<Node> = Vec::new();
    let listed = linux.and_then(|linux| linux.devices().clone()).unwrap_or_default();
    for (n, device) in listed.iter().enumerate() {
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => 'c',
            LinuxDeviceType::B => 'b',
            LinuxDeviceType::P => 'p',
            LinuxDeviceType::A => {
                draft.refuse(format!("/linux/devices/{n}/type"), "a device is one of c, b, u, p");
                continue;
            }
        };
        let number = |n: i64| u32::try_from(n).unwrap_or(0);
        all.push(Node {
            path: device.path().clone(),
            kind,
            major: number(device.major()),
            minor: number(device.minor()),
            mode: device.file_mode().map_or(0o666, |mode| mode & 0o7777),
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
            bind,
        });
    }
    if own_dev {
        for (name, major, minor) in DEVICES {
            let path = Path::new("/dev").join(name);
            if !all.iter().any(|node| node.path == path) {
                let (major, minor) = (*major, *minor);
                all.push(Node { path, kind: 'c', major, minor, mode: 0o666, uid: 0, gid: 0, bind });
            }
        }
    }
    all.into_iter().map(Op::CreateNode).collect()
}

/// Host and domain name, which only a container with its own UTS namespace may set.
fn identity(draft: &mut Draft<'_>, namespaces: &Namespaces) -> Vec<Op> {
    let spec = &draft.bundle.spec;
    let mut ops = Vec::new();
    let (hostname, domainname) = (spec.hostname().clone(), spec.domainname().clone());
    if let Some(name) = hostname.filter(|name| !name.is_empty()) {
        own_uts(draft, namespaces, "/hostname", &name);
        ops.push(Op::SetHostname { name });
    }
    if let Some(name) = domainname.filter(|name| !name.is_empty()) {
        own_uts(draft, namespaces, "/domainname", &name);
        ops.push(Op::SetDomainname { name });
    }
    ops
}

fn own_uts(draft: &mut Draft<'_>, namespaces: &Namespaces, at: &str, name: &str) {
    if !namespaces.has("uts") {
        draft.refuse(at, "needs a uts namespace, or it would rename the host");
    }
    // __NEW_UTS_LEN of include/uapi/linux/utsname.h.
    if name.len() > 64 {
        draft.refuse(at, format!("{} bytes, more than 64", name.len()));
    }
}

/// Sysctls, sorted; only those of namespaces that the container has itself, or they would be the host's.
fn sysctls(draft: &mut Draft<'_>, linux: Option<&Linux>, namespaces: &Namespaces) -> Vec<Op> {
    let mut all: Vec<(String, String)> =
        linux.and_then(|linux| linux.sysctl().clone()).unwrap_or_default().into_iter().collect();
    all.sort();
    let mut ops = Vec::new();
    for (key, value) in all {
        let at = format!("/linux/sysctl/{}", key.replace('~', "~0").replace('/', "~1"));
        // Either separator; with a slash first, a dot is part of a name (sysctl(8)).
        let path = if key.find('/') < key.find('.') && key.contains('/') { key.clone() } else { key.replace('.', "/") };
        let needs = match path.as_str() {
            "kernel/domainname" => Some("uts"),
            "kernel/hostname" => {
                draft.refuse(at.clone(), "say it as /hostname");
                None
            }
            p if p.starts_with("net/") => Some("network"),
            p if p.starts_with("fs/mqueue/") || p.starts_with("kernel/msg") || p.starts_with("kernel/shm") => {
                Some("ipc")
            }
            "kernel/sem" => Some("ipc"),
            _ => {
                draft.refuse(at.clone(), "is not a sysctl of a namespace: it would be the host's");
                None
            }
        };
        if needs.is_some_and(|name| !namespaces.has(name)) {
            draft.refuse(at.clone(), format!("needs a {} namespace", needs.unwrap_or_default()));
        }
        // CVE-2022-0811: what is written must be one value of one key.
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") || value.contains('\n') {
            draft.refuse(at, "is not one key and one value");
        }
        ops.push(Op::Sysctl { key: path, value });
    }
    ops
}
