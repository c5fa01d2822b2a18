//! Everything potrun can do to a machine.
//!
//! An [`Op`] is data: it is planned, printed, journalled, carried out by a [`Host`](crate::host::Host) and taken back
//! by its inverse, which is an `Op` again ([`Op::undo`]). Its `Display` is one line: the text of `potrun plan`, of the
//! log and of an error's subject.
//!
//! Ops of [`Spawn`]'s lists are carried out by the container's first process, in its own namespaces or jail; they have
//! no inverse, because they end with that process.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxSeccomp};
use serde::{Deserialize, Serialize};

use crate::facts::Interface;
use crate::id::ContainerId;
use crate::lease::Port;
use crate::linux::nft::{self, Element};
use crate::linux::systemd::{Property, Unit};
use crate::names;
use crate::state::Identity;

/// One step.
#[allow(missing_docs)] // a variant's line says what its fields are
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Op {
    // --- storage of the host -------------------------------------------------------------------------------------
    /// Note that the pot uses a base, so that the base cannot be removed.
    UseBase {
        base: PathBuf,
        id: ContainerId,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        keep: bool,
    },
    /// Inverse of [`Op::UseBase`]. `keep`: not if the container was created and is deleted.
    ReleaseBase {
        base: PathBuf,
        id: ContainerId,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        keep: bool,
    },
    /// Make the pot's own layer of an overlay: `upper`, `work`, `root`, and `owner`, a link to the state directory
    /// that this layer belongs to (the mark). `disk`: bytes that it may hold, by a project quota of its file system.
    /// `keep`: the base below a layer that outlives its container.
    CreateLayer {
        path: PathBuf,
        owner: PathBuf,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disk: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep: Option<PathBuf>,
    },
    /// Take up a layer that was left for this pot: by an earlier container of its id, a clone or an import. It stays when
    /// the pot goes. `layers`: what it lies on besides its base, the topmost first.
    TakeUpLayer {
        path: PathBuf,
        owner: PathBuf,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disk: Option<u64>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        layers: Vec<PathBuf>,
    },
    /// Make all that a pot's own layer holds a layer that pots share and none changes, `layer`; the pot gets an empty one
    /// of its own above it.
    FreezeLayer { path: PathBuf, layer: PathBuf },
    /// Inverse of [`Op::FreezeLayer`], as long as no other pot lies on it and the pot has nothing above it: else it stays.
    ThawLayer { path: PathBuf, layer: PathBuf },
    /// Leave a layer for a pot that is still to come, over `layers`, the topmost first, and its base, whose use is noted.
    /// Its root is like that of the layer `of`. `copy`: what is copied into it, the topmost first.
    LeaveLayer {
        path: PathBuf,
        owner: PathBuf,
        base: PathBuf,
        of: PathBuf,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        layers: Vec<PathBuf>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        copy: Vec<PathBuf>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disk: Option<u64>,
    },
    /// Inverse of [`Op::LeaveLayer`], unless a container has taken it up.
    ForgetLayer { path: PathBuf, owner: PathBuf },
    /// Inverse of [`Op::CreateLayer`]: the layer goes with all that was written to it, and with the shared layers below it
    /// that no other pot lies on. `keep`: not if the container was created and is deleted.
    RemoveLayer {
        path: PathBuf,
        owner: PathBuf,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        keep: bool,
    },
    /// `zfs create`, with properties; `potrun:id` is the mark.
    CreateDataset { dataset: String, properties: BTreeMap<String, String> },
    /// `zfs clone` below a dataset of the pot's own, with which it goes.
    CloneDataset { snapshot: String, dataset: String, properties: BTreeMap<String, String> },
    /// Say how many bytes a dataset that was left for the pot may show (`refquota`), or that it has no limit.
    LimitDataset {
        dataset: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
    },
    /// Inverse of [`Op::CreateDataset`]: destroys it, with all that lies below it, if its mark names `id`, and removes
    /// the directory that it was mounted on. `keep`: not if the container was created and is deleted.
    DestroyDataset {
        dataset: String,
        id: ContainerId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mountpoint: Option<PathBuf>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        keep: bool,
    },
    /// Write a file beneath `root` (never through a link), replacing what has that name.
    WriteFile { root: PathBuf, path: PathBuf, text: String, mode: u32 },

    /// Make a symbolic link beneath `root`, replacing what has that name (FreeBSD, where no single file can be mounted
    /// before 14.0).
    WriteLink { root: PathBuf, path: PathBuf, to: PathBuf },

    // --- mounts of the host, beneath a root (FreeBSD) -------------------------------------------------------------
    /// Make the mount point that `mount` needs below `root`, if nothing has that name: a root that is shown read-only
    /// gets none later.
    HostTarget { root: PathBuf, mount: Mount },
    /// Mount a file system of the host below `root`; the target is resolved beneath it. A mount can carry no mark, so
    /// `before` says what was mounted there already, by its id.
    HostMount {
        root: PathBuf,
        mount: Mount,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        before: Vec<String>,
    },
    /// Inverse of [`Op::HostMount`].
    HostUnmount {
        root: PathBuf,
        mount: Mount,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        before: Vec<String>,
    },

    // --- mounts of a pot that runs (Linux) --------------------------------------------------------------------------
    /// Mount a directory or file of the host in the mount namespace of a process, with which it ends at the latest.
    MountInto { process: Identity, mount: Mount },
    /// Inverse of [`Op::MountInto`].
    UnmountFrom { process: Identity, mount: Mount },

    // --- network of the host --------------------------------------------------------------------------------------
    /// Enter addresses and ports of the host into the ledger; `owner`, the state directory, is the mark.
    Lease { ledger: PathBuf, id: ContainerId, owner: PathBuf, addresses: Vec<IpAddr>, ports: Vec<Port> },
    /// Inverse of [`Op::Lease`].
    EndLease { ledger: PathBuf, id: ContainerId, owner: PathBuf },
    /// Tell the pots of a bridge the pot's own lines of hosts(5), and keep `hosts`, the file that the pot itself sees,
    /// which begins with `head`.
    PublishNames { hosts: PathBuf, head: String, lines: Vec<String> },
    /// Inverse of [`Op::PublishNames`].
    WithdrawNames { hosts: PathBuf, lines: Vec<String> },
    /// A pair of connected interfaces; `host` stays, `pot` goes into the pot. They carry `description`. `into`: the pot
    /// that is there already, in which the second one is made (Linux).
    CreatePair {
        host: String,
        pot: String,
        description: String,
        macs: [String; 2],
        #[serde(default, skip_serializing_if = "Option::is_none")]
        into: Option<String>,
    },
    /// Destroys an interface that carries `description`.
    DestroyInterface { name: String, description: String },
    /// A bridge with its address, if it is not there yet.
    EnsureBridge { name: String, description: String, addresses: Vec<String> },
    /// Inverse of [`Op::EnsureBridge`]: destroys it if potrun made it and it has no member.
    ReleaseBridge { name: String, description: String },
    /// Attach an interface to a bridge; `isolated` members cannot reach each other. On Linux the port also takes back
    /// what it sent (hairpin mode): with br_netfilter a pot reaches itself at the host's address only so.
    AddMember { bridge: String, member: String, isolated: bool },
    /// Let the host forward packets of a family. `note`: the file that says what that changes, so that it can be put
    /// back; without it, it stays.
    EnableForwarding {
        family: Family,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<PathBuf>,
    },
    /// Inverse of [`Op::EnableForwarding`]: puts back what the note says, unless a bridge of pots is left.
    ReleaseForwarding { family: Family, note: PathBuf },
    /// Add an address to an interface of the host that does not have it.
    AddAddress { interface: String, address: String },
    /// Inverse of [`Op::AddAddress`].
    RemoveAddress { interface: String, address: String },
    /// Move an interface of our own into the pot.
    MoveInterface { interface: String, pot: String },
    /// Move an interface of the host into the pot, and know it again when it comes back.
    LendInterface { interface: String, pot: String },
    /// Inverse of [`Op::LendInterface`]: before the pot's network ends, or the interface may be gone with it.
    ReclaimInterface { interface: String, pot: String },
    /// Move an interface of the host into the pot as it is, under the name that it has there (Linux).
    LendDevice { device: Device },
    /// Inverse of [`Op::LendDevice`]: puts it back as it was, unless it ended with the pot's network.
    ReclaimDevice { device: Device },
    /// Let packets that come from the host's loopback address leave by an interface (`route_localnet`, Linux).
    RouteLoopback { interface: String },
    /// Bring up an interface inside the pot with addresses (`address/prefix`).
    ConfigureInterface { pot: String, interface: String, addresses: Vec<String> },
    /// A default route inside the pot.
    AddRoute { pot: String, gateway: IpAddr },
    /// Load rules into a pf anchor of our own, replacing what it held.
    LoadAnchor { anchor: String, rules: String },
    /// Inverse of [`Op::LoadAnchor`]; the states of `addresses` end too.
    FlushAnchor { anchor: String, addresses: Vec<IpAddr> },
    /// Add rules that all pots share to a pf anchor, as far as it lacks them: pot's own stay. The tag `potrun` in a rule
    /// is the mark.
    EnsureAnchor { anchor: String, rules: String },
    /// Inverse of [`Op::EnsureAnchor`]: takes the rules with the mark out, unless a bridge of pots still has a member.
    ReleaseAnchor { anchor: String },
    /// The nftables table `potrun`, if it is not there yet, and the bridge in it.
    EnsureNft { bridge: String },
    /// Inverse of [`Op::EnsureNft`]: takes the bridge out if it is gone, and the table away with the last bridge of pots.
    ReleaseNft { bridge: String },
    /// Add elements to the sets of the nftables table `potrun` in one transaction; their comment is the pot's name.
    LoadNft { name: String, elements: Vec<Element> },
    /// Inverse of [`Op::LoadNft`]; the tracked connections of the pot's addresses end too.
    FlushNft { name: String, elements: Vec<Element> },

    // --- limits ----------------------------------------------------------------------------------------------------
    /// `rctl -a`.
    AddRctl { rule: String },
    /// Inverse: `rctl -r` of everything of a jail. Rules outlive their jail (`rctl(8)`).
    RemoveRctl { filter: String },
    /// Confine a jail to processors.
    SetCpuset { jail: String, cpus: String },
    /// A control group of our own.
    CreateCgroup { path: PathBuf },
    /// Inverse: kills what is in it, waits until it is empty, removes it.
    RemoveCgroup { path: PathBuf },
    /// A control group that systemd makes for us: a scope. `path` is where it will be.
    CreateUnit { unit: Unit, path: PathBuf, properties: Vec<Property> },
    /// Inverse: kills what is in it and stops it, if its description is ours.
    RemoveUnit { unit: Unit, path: PathBuf },
    /// Tell systemd of other limits of a scope.
    SetUnit { unit: Unit, properties: Vec<Property> },
    /// Write one file of a control group.
    SetCgroup { path: PathBuf, file: String, value: String },
    /// Hold the sockets of a control group to these addresses.
    ConfineAddresses { path: PathBuf, addresses: Vec<IpAddr> },
    /// A group of resctrl, or a group of its monitoring.
    CreateResctrl { path: PathBuf },
    /// Inverse of [`Op::CreateResctrl`].
    RemoveResctrl { path: PathBuf },
    /// Write what a group of resctrl gets of caches and of bandwidth.
    SetSchemata { path: PathBuf, lines: Vec<String> },
    /// Put the first process into a group of resctrl.
    JoinResctrl { path: PathBuf },
    /// Attach the device filter to a control group.
    FilterDevices { path: PathBuf, rules: Vec<LinuxDeviceCgroup> },

    // --- the jail and the process ------------------------------------------------------------------------------------
    /// `jail_set(2)` with `JAIL_CREATE`.
    /// `before`: what was mounted beneath its root before potrun came.
    CreateJail {
        name: String,
        parameters: Vec<(String, String)>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        before: Vec<String>,
    },
    /// Inverse: kills what is in it, unmounts what it may have mounted beneath `root`, and removes it. The kernel holds
    /// a jail until the last of its mounts is gone.
    RemoveJail {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        root: Option<PathBuf>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        before: Vec<String>,
    },
    /// Start the container's first process. It does `create` and waits; at `start` it does the rest.
    Spawn(Box<Spawn>),
    /// Inverse of [`Op::Spawn`]: ends the first process and all others in the control group.
    KillAll { cgroup: Option<PathBuf> },
    /// Let the first process go on from [`Op::AwaitRuntime`], until it has done all of `create`.
    Resume,
    /// Run a hook of the bundle on the host.
    Hook(Hook),

    // --- inside the pot, before start ---------------------------------------------------------------------------------
    /// Let the runtime begin what it does from outside, and go on meanwhile: both have work for some milliseconds.
    CallRuntime,
    /// Wait for [`Op::Resume`]: the runtime's hooks run while the namespaces exist and the root is not entered yet.
    AwaitRuntime,
    /// Enter the jail.
    AttachJail { name: String },
    /// Take a session keyring of its own, so that the keys of potrun's caller are out of reach (keyrings(7)). `label`:
    /// what SELinux calls it.
    NewKeyring {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label: Option<String>,
    },
    /// Set the propagation of all mounts of the new namespace.
    Propagate { propagation: String },
    /// Make the root file system.
    MountRoot(Root),
    /// Mount something; the target is resolved beneath the root.
    Mount(Mount),
    /// Give a file SELinux's label, where its file system takes none when it is mounted.
    Relabel { path: PathBuf, label: String },
    /// Make a device node, or bind the host's where nodes cannot be made.
    CreateNode(Node),
    /// Make a symbolic link beneath the root, if nothing has that name.
    Link { path: PathBuf, to: PathBuf },
    /// Put the terminal on `/dev/console`.
    BindConsole,
    /// Hide a path: a file behind `/dev/null`, a directory behind an empty one. Nothing there: nothing to hide. `label`:
    /// what SELinux calls that directory.
    Mask {
        path: PathBuf,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label: Option<String>,
    },
    /// Make a path read-only.
    MakeReadonly { path: PathBuf },
    /// Make the directory that the process starts in, if it is not there.
    CreateCwd { path: PathBuf },
    /// Change the root to the pot's and let go of the host's.
    EnterRoot { readonly: bool, propagation: Option<String> },
    /// `sethostname(2)`.
    SetHostname { name: String },
    /// `setdomainname(2)`.
    SetDomainname { name: String },
    /// Write a sysctl of the pot's own namespaces.
    Sysctl { key: String, value: String },
    /// Bring up the loopback interface of the pot.
    LoopbackUp,
    /// Say what interfaces that are to come into the pot's network have of IPv6: nothing, or addresses at once and no
    /// router of somebody else's.
    PresetIpv6 { off: bool },
    /// Check that the program of the bundle is there.
    FindProgram { args: Vec<String>, env: Vec<String>, cwd: PathBuf },

    // --- inside the pot, at start -------------------------------------------------------------------------------------
    /// `/proc/self/oom_score_adj`.
    SetOomScore { score: i32 },
    /// `setrlimit(2)`.
    SetRlimit { kind: String, soft: u64, hard: u64 },
    /// How the kernel treats the process besides its limits (Linux). Before [`Op::Spawn`] it is about potrun itself, and
    /// what that starts.
    Tune(Tuning),
    /// What the kernel confines the program by from its first instruction on.
    Confine { module: Module, label: String },
    /// User, groups and umask.
    SetIds(Ids),
    /// The five capability sets.
    SetCapabilities(Capabilities),
    /// `PR_SET_NO_NEW_PRIVS`, `PROC_NO_NEW_PRIVS_CTL`.
    NoNewPrivileges,
    /// Install the system call filter.
    Seccomp { seccomp: Box<LinuxSeccomp> },
    /// Change to the directory that the process starts in.
    ChangeDir { path: PathBuf },
    /// Become the program.
    Exec { args: Vec<String>, env: Vec<String> },
}

/// The container's first process (or one more, for `exec`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spawn {
    /// Namespaces it gets of its own, by their OCI names (Linux).
    pub namespaces: Vec<String>,
    /// Namespaces it joins: OCI name and path (Linux).
    pub join: Vec<(String, PathBuf)>,
    /// The process whose namespaces it joins all (Linux, `exec`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<i32>,
    /// User and group maps of its own user namespace: inside, outside, count (Linux).
    pub uid_map: Vec<(u32, u32, u32)>,
    /// The same for groups.
    pub gid_map: Vec<(u32, u32, u32)>,
    /// Offsets of the clocks of its own time namespace: clock, seconds, nanoseconds (Linux).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub time_offsets: Vec<(String, i64, u32)>,
    /// The control group that it starts in (Linux).
    pub cgroup: Option<PathBuf>,
    /// Whether it gets a terminal of its own.
    pub terminal: bool,
    /// Size of that terminal: rows, columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_size: Option<(u16, u16)>,
    /// What it does before it waits.
    pub create: Vec<Op>,
    /// What it does when started.
    pub start: Vec<Op>,
}

/// The root file system of a pot on Linux.
#[allow(missing_docs)] // a variant's line says what its fields are
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Root {
    /// An existing directory, bound onto itself.
    Bind { source: PathBuf },
    /// A base below the pot's own layer; between them `layers` that pots share, the topmost first.
    Overlay {
        lower: PathBuf,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        layers: Vec<PathBuf>,
        layer: PathBuf,
    },
}

/// A map of users or groups: inside, outside, count.
pub type IdMap = Vec<(u32, u32, u32)>;

/// A mount: of a file system, or with type `bind` (Linux) or `nullfs` (FreeBSD) of a directory or file of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// File system type.
    pub fstype: String,
    /// Device, directory, or the type's own word.
    pub source: PathBuf,
    /// Absolute path inside the pot.
    pub target: PathBuf,
    /// Options of the mount: `ro`, `nosuid`, `rbind`, `rprivate`, ...
    pub options: Vec<String>,
    /// Options of the file system: `size=64k`, `ruleset=4`.
    pub data: Vec<String>,
    /// By what the owners of files are mapped, users and groups: in the file system, outside, count (Linux).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owners: Option<Box<[IdMap; 2]>>,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Absolute path inside the pot.
    pub path: PathBuf,
    /// `c`, `b` or `p`.
    pub kind: char,
    /// Device numbers.
    pub major: u32,
    /// Device numbers.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bind the host's node of the same path instead: nodes cannot be made in a user namespace.
    pub bind: bool,
}

/// A security module of Linux that confines programs by names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Module {
    /// Profiles (apparmor(7)).
    Apparmor,
    /// Contexts (selinux(8)).
    Selinux,
}

/// An interface of the host that a pot has for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its name on the host.
    pub name: String,
    /// Its name in the pot.
    pub inside: String,
    /// What its alias says while it is lent.
    pub mark: String,
    /// How it is on the host.
    pub was: Interface,
}

/// How the kernel treats a process, in the words of config.json (Linux).
#[allow(missing_docs)] // a variant's line says what its fields are
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Tuning {
    /// personality(2).
    Personality { domain: String },
    /// set_mempolicy(2).
    MemoryPolicy { mode: String, flags: Vec<String>, nodes: String },
    /// sched_setattr(2); times in nanoseconds.
    Scheduler { policy: String, flags: Vec<String>, nice: i32, priority: u32, runtime: u64, deadline: u64, period: u64 },
    /// ioprio_set(2).
    IoPriority { class: String, level: u8 },
    /// sched_setaffinity(2).
    Affinity { cpus: String },
}

/// User, groups and umask of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ids {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// File mode creation mask; unchanged where absent.
    pub umask: Option<u32>,
    /// Whether the groups can be set: not in a user namespace of an unprivileged caller (user_namespaces(7)).
    pub set_groups: bool,
}

/// The five capability sets, each sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// Bounding set.
    pub bounding: Vec<String>,
    /// Effective set.
    pub effective: Vec<String>,
    /// Inheritable set.
    pub inheritable: Vec<String>,
    /// Permitted set.
    pub permitted: Vec<String>,
    /// Ambient set.
    pub ambient: Vec<String>,
}

/// The six moments of the OCI specification's hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Moment {
    /// Deprecated twin of `createRuntime`.
    Prestart,
    /// On the host, namespaces made, root not entered.
    CreateRuntime,
    /// In the container's namespaces, root not entered.
    CreateContainer,
    /// Inside the container, before the program.
    StartContainer,
    /// On the host, program started.
    Poststart,
    /// On the host, container deleted.
    Poststop,
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// When.
    pub moment: Moment,
    /// Absolute path of the program.
    pub path: PathBuf,
    /// Its whole argv; the path where absent.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<String>,
    /// Seconds it may take.
    pub timeout: Option<u64>,
}

/// A family of internet addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Op {
    /// Whether it takes away what outlives a container that was created and is deleted.
    #[must_use]
    pub fn keeps(&self) -> bool {
        matches!(
            self,
            Self::DestroyDataset { keep: true, .. }
                | Self::RemoveLayer { keep: true, .. }
                | Self::ReleaseBase { keep: true, .. }
        )
    }

    /// The op that takes this one back. `None`: nothing outlives the step, or what it changed goes with another op's
    /// object.
    #[must_use]
    pub fn undo(&self) -> Option<Self> {
        Some(match self {
            Self::UseBase { base, id, keep } => Self::ReleaseBase { base: base.clone(), id: id.clone(), keep: *keep },
            Self::CreateLayer { path, owner, keep, .. } => {
                Self::RemoveLayer { path: path.clone(), owner: owner.clone(), keep: keep.is_some() }
            }
            Self::FreezeLayer { path, layer } => Self::ThawLayer { path: path.clone(), layer: layer.clone() },
            Self::LeaveLayer { path, owner, .. } => Self::ForgetLayer { path: path.clone(), owner: owner.clone() },
            Self::CreateDataset { dataset, properties } => {
                let id = properties.get(MARK).and_then(|id| ContainerId::new(id).ok())?;
                let mountpoint = properties.get("mountpoint").map(PathBuf::from);
                let keep = properties.contains_key(KEEP);
                Self::DestroyDataset { dataset: dataset.clone(), id, mountpoint, keep }
            }
            Self::HostMount { root, mount, before } => {
                Self::HostUnmount { root: root.clone(), mount: mount.clone(), before: before.clone() }
            }
            Self::MountInto { process, mount } => Self::UnmountFrom { process: process.clone(), mount: mount.clone() },
            Self::Lease { ledger, id, owner, .. } => {
                Self::EndLease { ledger: ledger.clone(), id: id.clone(), owner: owner.clone() }
            }
            Self::PublishNames { hosts, lines, .. } => {
                Self::WithdrawNames { hosts: hosts.clone(), lines: lines.clone() }
            }
            Self::CreatePair { host, description, .. } => {
                Self::DestroyInterface { name: host.clone(), description: description.clone() }
            }
            Self::EnsureBridge { name, description, .. } => {
                Self::ReleaseBridge { name: name.clone(), description: description.clone() }
            }
            Self::AddAddress { interface, address } => {
                Self::RemoveAddress { interface: interface.clone(), address: address.clone() }
            }
            Self::LoadAnchor { anchor, rules } => {
                Self::FlushAnchor { anchor: anchor.clone(), addresses: targets(rules) }
            }
            Self::LendInterface { interface, pot } => {
                Self::ReclaimInterface { interface: interface.clone(), pot: pot.clone() }
            }
            Self::EnsureAnchor { anchor, .. } => Self::ReleaseAnchor { anchor: anchor.clone() },
            Self::EnableForwarding { family, note } => Self::ReleaseForwarding { family: *family, note: note.clone()? },
            Self::EnsureNft { bridge } => Self::ReleaseNft { bridge: bridge.clone() },
            Self::LoadNft { name, elements } => Self::FlushNft { name: name.clone(), elements: elements.clone() },
            Self::LendDevice { device } => Self::ReclaimDevice { device: device.clone() },
            Self::CreateResctrl { path } => Self::RemoveResctrl { path: path.clone() },
            Self::AddRctl { rule } => Self::RemoveRctl { filter: rctl_filter(rule) },
            Self::CreateCgroup { path } => Self::RemoveCgroup { path: path.clone() },
            Self::CreateUnit { unit, path, .. } => Self::RemoveUnit { unit: unit.clone(), path: path.clone() },
            Self::CreateJail { name, parameters, before } => {
                let value = |wanted: &str| parameters.iter().find(|(key, _)| key == wanted).map(|(_, value)| value);
                let root = value("allow.mount").and(value("path")).map(PathBuf::from);
                Self::RemoveJail { name: name.clone(), root, before: before.clone() }
            }
            Self::Spawn(spawn) => Self::KillAll { cgroup: spawn.cgroup.clone() },
            Self::ReleaseBase { .. }
            | Self::TakeUpLayer { .. }
            | Self::ThawLayer { .. }
            | Self::ForgetLayer { .. }
            | Self::RemoveLayer { .. }
            | Self::CloneDataset { .. }
            | Self::LimitDataset { .. }
            | Self::DestroyDataset { .. }
            | Self::WriteFile { .. }
            | Self::WriteLink { .. }
            | Self::HostTarget { .. }
            | Self::HostUnmount { .. }
            | Self::UnmountFrom { .. }
            | Self::EndLease { .. }
            | Self::WithdrawNames { .. }
            | Self::DestroyInterface { .. }
            | Self::ReleaseBridge { .. }
            | Self::AddMember { .. }
            | Self::ReleaseForwarding { .. }
            | Self::RemoveAddress { .. }
            | Self::MoveInterface { .. }
            | Self::ReclaimInterface { .. }
            | Self::ReclaimDevice { .. }
            | Self::RemoveResctrl { .. }
            | Self::SetSchemata { .. }
            | Self::JoinResctrl { .. }
            | Self::RouteLoopback { .. }
            | Self::ConfigureInterface { .. }
            | Self::AddRoute { .. }
            | Self::FlushAnchor { .. }
            | Self::ReleaseAnchor { .. }
            | Self::ReleaseNft { .. }
            | Self::FlushNft { .. }
            | Self::RemoveRctl { .. }
            | Self::SetCpuset { .. }
            | Self::RemoveCgroup { .. }
            | Self::SetCgroup { .. }
            | Self::RemoveUnit { .. }
            | Self::SetUnit { .. }
            | Self::ConfineAddresses { .. }
            | Self::FilterDevices { .. }
            | Self::RemoveJail { .. }
            | Self::KillAll { .. }
            | Self::Resume
            | Self::Hook(_)
            | Self::CallRuntime
            | Self::AwaitRuntime
            | Self::AttachJail { .. }
            | Self::NewKeyring { .. }
            | Self::Propagate { .. }
            | Self::MountRoot(_)
            | Self::Mount(_)
            | Self::Relabel { .. }
            | Self::CreateNode(_)
            | Self::Link { .. }
            | Self::BindConsole
            | Self::Mask { .. }
            | Self::MakeReadonly { .. }
            | Self::CreateCwd { .. }
            | Self::EnterRoot { .. }
            | Self::SetHostname { .. }
            | Self::SetDomainname { .. }
            | Self::Sysctl { .. }
            | Self::LoopbackUp
            | Self::PresetIpv6 { .. }
            | Self::FindProgram { .. }
            | Self::SetOomScore { .. }
            | Self::SetRlimit { .. }
            | Self::Tune(_)
            | Self::Confine { .. }
            | Self::SetIds(_)
            | Self::SetCapabilities(_)
            | Self::NoNewPrivileges
            | Self::Seccomp { .. }
            | Self::ChangeDir { .. }
            | Self::Exec { .. } => return None,
        })
    }
}

impl Op {
    /// Whether it takes something away only if no pot uses it any more.
    #[must_use]
    pub fn releases_shared(&self) -> bool {
        matches!(
            self,
            Self::ReleaseBridge { .. }
                | Self::ReleaseAnchor { .. }
                | Self::ReleaseForwarding { .. }
                | Self::ReleaseNft { .. }
                | Self::ThawLayer { .. }
        )
    }
}

/// The ZFS user property that says whose a dataset is.
pub const MARK: &str = "potrun:id";

/// The ZFS user property that names the state directory of the container that a dataset belongs to.
pub const STATE: &str = "potrun:state";

/// The ZFS user property of a dataset that outlives its container.
pub const KEEP: &str = "potrun:persistent";

/// `jail:web1` of `jail:web1:memoryuse:deny=1073741824`.
fn rctl_filter(rule: &str) -> String {
    rule.splitn(3, ':').take(2).collect::<Vec<_>>().join(":")
}

/// The addresses behind `->` of redirect rules: whose states end with the rules.
fn targets(rules: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> =
        rules.lines().filter_map(|line| line.split("-> ").nth(1)?.split_whitespace().next()?.parse().ok()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// `a, b` in front of the text, or nothing.
fn list(f: &mut fmt::Formatter<'_>, before: &str, items: &[String], after: &str) -> fmt::Result {
    if items.is_empty() { Ok(()) } else { write!(f, "{before}{}{after}", items.join(",")) }
}

fn show(path: &Path) -> std::path::Display<'_> {
    path.display()
}

/// The rules of a firewall on one line.
fn one_line(rules: &str) -> String {
    rules.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ")
}

/// One line for a terminal and for who reads lines, whatever a bundle wrote into it: control characters, separators of
/// lines and overrides of direction (UAX #9) are shown as escapes.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Words<'a>(&'a Op);
        impl fmt::Display for Words<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.words(f)
            }
        }
        fmt::Write::write_fmt(&mut OneLine(f), format_args!("{}", Words(self)))
    }
}

/// Writes escapes for what is more than text.
struct OneLine<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let acts = |c: char| {
            c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        text.split_inclusive(acts).try_for_each(|part| match part.chars().next_back().filter(|c| acts(*c)) {
            Some(last) => write!(self.0, "{}{}", &part[..part.len() - last.len_utf8()], last.escape_default()),
            None => self.0.write_str(part),
        })
    }
}

impl Op {
    #[allow(clippy::too_many_lines)] // one arm per variant: this is the vocabulary
    fn words(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Display;
        match self {
            Self::UseBase { base, id, .. } => write!(f, "use base {} for {id}", show(base)),
            Self::ReleaseBase { base, id, .. } => write!(f, "release base {} of {id}", show(base)),
            Self::CreateLayer { path, disk, keep, .. } => {
                write!(f, "create layer {}", show(path))?;
                disk.iter().try_for_each(|bytes| write!(f, ", at most {bytes} bytes"))?;
                f.write_str(if keep.is_some() { ", to be kept" } else { "" })
            }
            Self::TakeUpLayer { path, disk, layers, .. } => {
                write!(f, "take up layer {}{}", show(path), On(layers))?;
                disk.iter().try_for_each(|bytes| write!(f, ", at most {bytes} bytes"))
            }
            Self::FreezeLayer { path, layer } => write!(f, "freeze layer {} as {}", show(path), show(layer)),
            Self::ThawLayer { path, layer } => write!(f, "thaw {} as layer {}", show(layer), show(path)),
            Self::LeaveLayer { path, base, of, layers, copy, disk, .. } => {
                write!(f, "leave layer {}{} on {}", show(path), On(layers), show(base))?;
                match copy.as_slice() {
                    [] => write!(f, ", like {}", show(of))?,
                    [own] => write!(f, ", with a copy of {}", show(own))?,
                    [own, below @ ..] => write!(f, ", with a copy of {}{}", show(own), On(below))?,
                }
                disk.iter().try_for_each(|bytes| write!(f, ", at most {bytes} bytes"))
            }
            Self::ForgetLayer { path, .. } => write!(f, "forget layer {}", show(path)),
            Self::RemoveLayer { path, .. } => write!(f, "remove layer {}", show(path)),
            Self::CreateDataset { dataset, properties } => {
                write!(f, "create dataset {dataset}{}", Properties(properties))
            }
            Self::CloneDataset { snapshot, dataset, properties } => {
                write!(f, "clone dataset {snapshot} to {dataset}{}", Properties(properties))
            }
            Self::LimitDataset { dataset, bytes: Some(bytes) } => write!(f, "limit dataset {dataset} to {bytes} bytes"),
            Self::LimitDataset { dataset, bytes: None } => write!(f, "take the limit of dataset {dataset} away"),
            Self::DestroyDataset { dataset, id, .. } => write!(f, "destroy dataset {dataset} of {id}"),
            Self::WriteFile { root, path, text, mode } => {
                write!(f, "write {} below {}, mode {mode:04o}: {}", show(path), show(root), one_line(text))
            }
            Self::WriteLink { root, path, to } => {
                write!(f, "link {} below {} to {}", show(path), show(root), show(to))
            }
            Self::HostTarget { root, mount } => {
                write!(f, "make mount point {} below {}", show(&mount.target), show(root))
            }
            Self::HostMount { root, mount, .. } => write!(f, "{mount} below {}", show(root)),
            Self::HostUnmount { root, mount, .. } => {
                write!(f, "unmount {} below {}", show(&mount.target), show(root))
            }
            Self::MountInto { process, mount } => write!(f, "{mount} of process {}", process.pid),
            Self::UnmountFrom { process, mount } => {
                write!(f, "unmount {} of process {}", show(&mount.target), process.pid)
            }
            Self::Lease { addresses, ports, .. } => {
                let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                write!(f, "lease {}", all.join(","))?;
                let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                list(f, ", ports ", &ports, "")
            }
            Self::EndLease { id, .. } => write!(f, "end lease of {id}"),
            Self::PublishNames { hosts, head, lines } => {
                write!(f, "publish names, seen in {}: {}", show(hosts), lines.join("; "))?;
                let own: Vec<&str> = head.strip_prefix(names::LOCALHOST).unwrap_or(head).lines().collect();
                if own.is_empty() { Ok(()) } else { write!(f, "; for itself: {}", own.join("; ")) }
            }
            Self::WithdrawNames { lines, .. } => write!(f, "withdraw names: {}", lines.join("; ")),
            Self::CreatePair { host, pot, description, macs, into } => {
                write!(f, "create interface pair {host} ({}) and {pot} ({}) for {description}", macs[0], macs[1])?;
                into.iter().try_for_each(|into| write!(f, ", the second in {into}"))
            }
            Self::DestroyInterface { name, description } => write!(f, "destroy interface {name} of {description}"),
            Self::EnsureBridge { name, description, addresses } => {
                write!(f, "ensure bridge {name}, {description}")?;
                list(f, ", ", addresses, "")
            }
            Self::ReleaseBridge { name, description } => write!(f, "release bridge {name}, {description}"),
            Self::AddMember { bridge, member, isolated } => {
                write!(f, "add {member} to bridge {bridge}{}", if *isolated { ", isolated" } else { "" })
            }
            Self::EnableForwarding { family, .. } => write!(f, "enable forwarding of {family}"),
            Self::ReleaseForwarding { family, .. } => write!(f, "release forwarding of {family}"),
            Self::AddAddress { interface, address } => write!(f, "add address {address} to {interface}"),
            Self::RemoveAddress { interface, address } => write!(f, "remove address {address} of {interface}"),
            Self::MoveInterface { interface, pot } => write!(f, "move interface {interface} into {pot}"),
            Self::LendInterface { interface, pot } => write!(f, "lend interface {interface} to {pot}"),
            Self::ReclaimInterface { interface, pot } => write!(f, "reclaim interface {interface} from {pot}"),
            Self::LendDevice { device } => {
                write!(f, "lend interface {} as {}", device.name, device.inside)?;
                list(f, ", ", &device.was.addresses, "")
            }
            Self::ReclaimDevice { device } => write!(f, "reclaim interface {}", device.name),
            Self::CreateResctrl { path } => write!(f, "create resctrl group {}", show(path)),
            Self::RemoveResctrl { path } => write!(f, "remove resctrl group {}", show(path)),
            Self::SetSchemata { path, lines } => {
                write!(f, "set schemata of resctrl group {} to {}", show(path), lines.join("; "))
            }
            Self::JoinResctrl { path } => write!(f, "put the first process into resctrl group {}", show(path)),
            Self::RouteLoopback { interface } => write!(f, "route the loopback address by {interface}"),
            Self::ConfigureInterface { pot, interface, addresses } => {
                write!(f, "bring up {interface} in {pot}")?;
                list(f, ", ", addresses, "")
            }
            Self::AddRoute { pot, gateway } => write!(f, "add default route in {pot} by {gateway}"),
            Self::LoadAnchor { anchor, rules } => write!(f, "load anchor {anchor}: {}", one_line(rules)),
            Self::FlushAnchor { anchor, .. } => write!(f, "flush anchor {anchor}"),
            Self::EnsureAnchor { anchor, rules } => write!(f, "ensure anchor {anchor}: {}", one_line(rules)),
            Self::ReleaseAnchor { anchor } => write!(f, "release anchor {anchor}"),
            Self::EnsureNft { bridge } => {
                write!(f, "ensure nftables table {} with bridge {bridge}: {}", nft::TABLE, one_line(&nft::text()))
            }
            Self::ReleaseNft { bridge } => write!(f, "release nftables table {} of bridge {bridge}", nft::TABLE),
            Self::LoadNft { name, elements } => {
                let all: Vec<String> = elements.iter().map(|one| one.text(name)).collect();
                write!(f, "add to nftables table {}: {}", nft::TABLE, all.join("; "))
            }
            Self::FlushNft { name, .. } => write!(f, "take {name} out of nftables table {}", nft::TABLE),
            Self::AddRctl { rule } => write!(f, "add resource rule {rule}"),
            Self::RemoveRctl { filter } => write!(f, "remove resource rules {filter}"),
            Self::SetCpuset { jail, cpus } => write!(f, "confine jail {jail} to processors {cpus}"),
            Self::CreateCgroup { path } => write!(f, "create cgroup {}", show(path)),
            Self::RemoveCgroup { path } => write!(f, "remove cgroup {}", show(path)),
            Self::CreateUnit { unit, properties, .. } => {
                write!(f, "create unit {unit}")?;
                let all: Vec<String> = properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
                list(f, ", ", &all, "")
            }
            Self::RemoveUnit { unit, .. } => write!(f, "remove unit {unit}"),
            Self::SetUnit { unit, properties } => {
                let all: Vec<String> = properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "set {} of unit {unit}", all.join(","))
            }
            Self::SetCgroup { path, file, value } => write!(f, "set {file} of cgroup {} to {value}", show(path)),
            Self::ConfineAddresses { path, addresses } => {
                let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                write!(f, "hold sockets of cgroup {} to {}", show(path), all.join(","))
            }
            Self::FilterDevices { path, rules } => {
                write!(f, "filter devices of cgroup {}:", show(path))?;
                rules.iter().try_for_each(|rule| write!(f, " {}", DeviceRule(rule)))
            }
            Self::CreateJail { name, parameters, .. } => {
                write!(f, "create jail {name}:")?;
                parameters.iter().try_for_each(|(key, value)| match value.as_str() {
                    "" => write!(f, " {key}"),
                    _ => write!(f, " {key}={value}"),
                })
            }
            Self::RemoveJail { name, .. } => write!(f, "remove jail {name}"),
            Self::Spawn(spawn) => spawn.fmt(f),
            Self::KillAll { cgroup: Some(cgroup) } => write!(f, "kill all in cgroup {}", show(cgroup)),
            Self::KillAll { cgroup: None } => f.write_str("kill the container's processes"),
            Self::Resume => f.write_str("resume the first process"),
            Self::Hook(hook) => hook.fmt(f),
            Self::CallRuntime => f.write_str("let the runtime begin"),
            Self::AwaitRuntime => f.write_str("wait for the runtime"),
            Self::AttachJail { name } => write!(f, "attach to jail {name}"),
            Self::NewKeyring { label } => {
                f.write_str("take a session keyring")?;
                label.iter().try_for_each(|label| write!(f, ", labelled {label}"))
            }
            Self::Propagate { propagation } => write!(f, "make all mounts {propagation}"),
            Self::MountRoot(Root::Bind { source }) => write!(f, "mount root {}", show(source)),
            Self::MountRoot(Root::Overlay { lower, layers, layer }) => {
                write!(f, "mount root overlay of {}{} on {}", show(layer), On(layers), show(lower))
            }
            Self::Mount(mount) => mount.fmt(f),
            Self::Relabel { path, label } => write!(f, "label {} {label}", show(path)),
            Self::CreateNode(node) => node.fmt(f),
            Self::Link { path, to } => write!(f, "link {} to {}", show(path), show(to)),
            Self::BindConsole => f.write_str("bind the terminal on /dev/console"),
            Self::Mask { path, label } => {
                write!(f, "mask {}", show(path))?;
                label.iter().try_for_each(|label| write!(f, ", labelled {label}"))
            }
            Self::MakeReadonly { path } => write!(f, "make {} read-only", show(path)),
            Self::CreateCwd { path } => write!(f, "create directory {}", show(path)),
            Self::EnterRoot { readonly, propagation } => {
                f.write_str("enter root")?;
                if *readonly {
                    f.write_str(", read-only")?;
                }
                propagation.iter().try_for_each(|p| write!(f, ", {p}"))
            }
            Self::SetHostname { name } => write!(f, "set hostname {name}"),
            Self::SetDomainname { name } => write!(f, "set domainname {name}"),
            Self::Sysctl { key, value } => write!(f, "set sysctl {key} to {value}"),
            Self::LoopbackUp => f.write_str("bring up the loopback interface"),
            Self::PresetIpv6 { off: true } => f.write_str("preset IPv6 of interfaces to come: off"),
            Self::PresetIpv6 { off: false } => f.write_str("preset IPv6 of interfaces to come: no routers, no waiting"),
            Self::FindProgram { args, .. } => write!(f, "find program {:?}", args.first().map_or("", String::as_str)),
            Self::SetOomScore { score } => write!(f, "set oom score adjustment {score}"),
            Self::SetRlimit { kind, soft, hard } => write!(f, "set {kind} to {}:{}", Limit(*soft), Limit(*hard)),
            Self::Tune(tuning) => tuning.fmt(f),
            Self::Confine { module, label } => write!(f, "confine the program: {module} {label}"),
            Self::SetIds(ids) => ids.fmt(f),
            Self::SetCapabilities(sets) => sets.fmt(f),
            Self::NoNewPrivileges => f.write_str("set no new privileges"),
            Self::Seccomp { seccomp } => write!(
                f,
                "install seccomp filter: {} by default, {} rules",
                seccomp.default_action(),
                seccomp.syscalls().as_ref().map_or(0, Vec::len)
            ),
            Self::ChangeDir { path } => write!(f, "change to directory {}", show(path)),
            Self::Exec { args, env } => write!(f, "exec {args:?}, {} environment variables", env.len()),
        }
    }
}

impl fmt::Display for Spawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("spawn the first process")?;
        list(f, ", new ", &self.namespaces, "")?;
        for (kind, path) in &self.join {
            write!(f, ", {kind} of {}", show(path))?;
        }
        self.like.iter().try_for_each(|pid| write!(f, ", namespaces of process {pid}"))?;
        for (name, map) in [("users", &self.uid_map), ("groups", &self.gid_map)] {
            for (inside, outside, count) in map {
                write!(f, ", {name} {inside}={outside}+{count}")?;
            }
        }
        for (clock, seconds, nanoseconds) in &self.time_offsets {
            write!(f, ", clock {clock} {seconds}s {nanoseconds}ns ahead")?;
        }
        self.cgroup.iter().try_for_each(|cgroup| write!(f, ", in cgroup {}", show(cgroup)))?;
        if self.terminal { f.write_str(", with a terminal") } else { Ok(()) }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mount {} {} on {}", self.fstype, show(&self.source), show(&self.target))?;
        let all: Vec<String> = self.options.iter().chain(&self.data).cloned().collect();
        list(f, " (", &all, ")")?;
        for (name, map) in ["users", "groups"].iter().zip(self.owners.iter().flat_map(|owners| owners.iter())) {
            for (inside, outside, count) in map {
                write!(f, ", {name} {inside}={outside}+{count}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bind {
            return write!(f, "bind device {} of the host", show(&self.path));
        }
        let Self { path, kind, major, minor, mode, uid, gid, .. } = self;
        write!(f, "create device {} {kind} {major}:{minor} {mode:04o} {uid}:{gid}", show(path))
    }
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Personality { domain } => write!(f, "set personality {domain}"),
            Self::MemoryPolicy { mode, flags, nodes } => {
                write!(f, "set memory policy {mode}")?;
                list(f, " ", flags, "")?;
                if nodes.is_empty() { Ok(()) } else { write!(f, " of nodes {nodes}") }
            }
            Self::Scheduler { policy, flags, nice, priority, runtime, deadline, period } => {
                write!(f, "set scheduler {policy}")?;
                list(f, " ", flags, "")?;
                write!(f, " nice {nice} priority {priority} runtime {runtime} deadline {deadline} period {period}")
            }
            Self::IoPriority { class, level } => write!(f, "set io priority {class} {level}"),
            Self::Affinity { cpus } => write!(f, "run on processors {cpus}"),
        }
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apparmor => "apparmor",
            Self::Selinux => "selinux",
        })
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "set user {} group {}", self.uid, self.gid)?;
        if self.set_groups {
            write!(f, " groups {:?}", self.groups)?;
        }
        self.umask.iter().try_for_each(|mask| write!(f, " umask {mask:04o}"))
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("set capabilities")?;
        let sets = [
            ("bounding", &self.bounding),
            ("effective", &self.effective),
            ("inheritable", &self.inheritable),
            ("permitted", &self.permitted),
            ("ambient", &self.ambient),
        ];
        sets.iter().try_for_each(|(name, set)| write!(f, " {name}=[{}]", set.join(" ")))
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {} hook {}", self.moment, show(&self.path))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}

/// ` on a on b` of layers.
struct On<'a>(&'a [PathBuf]);

impl fmt::Display for On<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|layer| write!(f, " on {}", show(layer)))
    }
}

/// ` (a=b,c=d)` of ZFS properties.
struct Properties<'a>(&'a BTreeMap<String, String>);

impl fmt::Display for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
        list(f, " (", &all, ")")
    }
}

/// A limit, or the word for none.
struct Limit(u64);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == u64::MAX { f.write_str("unlimited") } else { self.0.fmt(f) }
    }
}

/// A device rule in the words of cgroup v1's devices.allow: `+c1:3rwm`.
struct DeviceRule<'a>(&'a LinuxDeviceCgroup);

impl fmt::Display for DeviceRule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or_else(|| "*".into(), |n| n.to_string());
        write!(
            f,
            "{}{}{}:{}{}",
            if rule.allow() { '+' } else { '-' },
            rule.typ().as_ref().map_or("a", LinuxDeviceType::as_str),
            number(rule.major()),
            number(rule.minor()),
            rule.access().as_deref().unwrap_or("rwm"),
        )
    }
}
