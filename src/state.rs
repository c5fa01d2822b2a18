//! The state of a container: what is kept, what the kernel says, and what callers are told.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::facts::Os;
use crate::id::ContainerId;
use crate::linux::systemd::Unit;
use crate::op::{Hook, Mount, Op, Root};

/// The version of the specification that state JSON follows.
pub const OCI_VERSION: &str = "1.3.0";

/// `status` of the OCI specification's state (runtime.md, "State"), and runc's `paused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// A `create` is under way.
    Creating,
    /// The first process waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// All its processes are frozen.
    Paused,
    /// The program has ended.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// A process, so that another one which got its pid later is not taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Its pid.
    pub pid: i32,
    /// When it started, in the kernel's own unit (Linux: field 22 of proc_pid_stat(5)).
    pub started: u64,
    /// Which boot that was (Linux: `/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// Number that the kernel gives no other process of that boot (Linux: the inode of its pidfd, from 6.9 on). Two
    /// processes may have had one pid within one unit of `started`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<u64>,
}

/// What the kernel knows all processes of a container by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Group {
    /// A control group (Linux).
    Cgroup(PathBuf),
    /// A jail (FreeBSD). The first process is in it from `start` on.
    Jail(String),
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
            Self::Jail(name) => write!(f, "jail {name}"),
        }
    }
}

/// What is kept of a created container: `state.json` in its directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The container.
    pub id: ContainerId,
    /// Its first process.
    pub process: Identity,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// Where its root file system is.
    pub rootfs: PathBuf,
    /// What holds its processes together.
    pub group: Option<Group>,
    /// Effective user of the potrun that created it.
    pub euid: u32,
    /// When it was created, RFC 3339 with nanoseconds.
    pub created: String,
    /// The operating system.
    pub os: Os,
    /// The bundle's annotations, and potrun's own about the network.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Hooks for after `start` and after `delete`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// The unit of systemd that its group is (Linux).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// What its root file system is made of (Linux).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// The potrun that will delete it when it ends (`run`); `gc` does so if that potrun is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<Identity>,
}

/// What a root file system is made of: so that it can be put together again when no process holds it any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// The file system at `/`.
    pub root: Root,
    /// Whether that is read-only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub readonly: bool,
    /// Directories and files of the host below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
}

impl Storage {
    /// That of the first process of a plan.
    #[must_use]
    pub fn of(ops: &[Op]) -> Option<Self> {
        let spawn = ops.iter().find_map(|op| match op {
            Op::Spawn(spawn) => Some(spawn),
            _ => None,
        })?;
        let root = spawn.create.iter().find_map(|op| match op {
            Op::MountRoot(root) => Some(root.clone()),
            _ => None,
        })?;
        let readonly = spawn.create.iter().any(|op| matches!(op, Op::EnterRoot { readonly: true, .. }));
        let bind = |mount: &Mount| crate::linux::mount::Options::of(&mount.options).bind;
        let mounts = spawn.create.iter().filter_map(|op| match op {
            Op::Mount(mount) if bind(mount) => Some(mount.clone()),
            _ => None,
        });
        Some(Self { root, readonly, mounts: mounts.collect() })
    }
}

/// What callers are told: the OCI state, with runc's additions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the specification.
    pub oci_version: String,
    /// The container.
    pub id: String,
    /// Pid of the first process; 0 when stopped.
    pub pid: i32,
    /// Status.
    pub status: Status,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// Where its root file system is (runc).
    pub rootfs: PathBuf,
    /// When it was created (runc).
    pub created: String,
    /// The bundle's annotations, and potrun's own about the network.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Name of the user who created it (runc): always empty, as runc's is where it cannot be looked up.
    pub owner: String,
}

impl State {
    /// What is told of a container of which this is known.
    #[must_use]
    pub fn of(record: &Record, status: Status) -> Self {
        Self {
            oci_version: OCI_VERSION.into(),
            id: record.id.to_string(),
            pid: if status == Status::Stopped { 0 } else { record.process.pid },
            status,
            bundle: record.bundle.clone(),
            rootfs: record.rootfs.clone(),
            created: record.created.clone(),
            annotations: record.annotations.clone(),
            owner: String::new(),
        }
    }
}
