/*! What the suite and its probe share: the words in which the probe reports from inside a container.

Nothing of any runtime is linked here. The suite (`main.rs`) sees a runtime only as a program that is started, and
the probe (`probe/main.rs`) sees only its own process. */

pub mod kernel;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Everything the probe can see of itself. What a system does not have is empty there.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// argv, with the program's name.
    pub args: Vec<String>,
    /// The environment, as `NAME=value`, in the order it came.
    pub env: Vec<String>,
    /// The working directory.
    pub cwd: String,
    /// Process id, in the container's namespace.
    pub pid: i32,
    /// Parent.
    pub ppid: i32,
    /// Session.
    pub sid: i32,
    /// Process group.
    pub pgid: i32,
    /// Real user.
    pub uid: u32,
    /// Real group.
    pub gid: u32,
    /// Supplementary groups, sorted.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// `CapInh`, `CapPrm`, `CapEff`, `CapBnd`, `CapAmb` as bit masks.
    pub caps: BTreeMap<String, u64>,
    /// Whether no program it runs can gain privileges.
    pub no_new_privs: u64,
    /// `Seccomp` mode: 0 none, 2 filter.
    pub seccomp: u64,
    /// Signals that are blocked: bit N - 1 for signal N.
    pub blocked: u64,
    /// Signals that are ignored, in the same way.
    pub ignored: u64,
    /// Name of limit to soft and hard value.
    pub rlimits: BTreeMap<String, (u64, u64)>,
    /// Name of the host.
    pub hostname: String,
    /// NIS domain of the host.
    pub domainname: String,
    /// `uname -m`.
    pub machine: String,
    /// Open file descriptors and what they are.
    pub fds: BTreeMap<i32, String>,
    /// The mount table.
    pub mounts: Vec<Mount>,
    /// Namespace name to inode.
    pub ns: BTreeMap<String, u64>,
    /// `/proc/self/oom_score_adj`.
    pub oom_score_adj: i32,
    /// What is in /dev.
    pub dev: BTreeMap<String, Node>,
    /// Whether fd 0, 1 and 2 are terminals.
    pub tty: Vec<bool>,
    /// Rows and columns of the terminal on fd 0.
    pub winsize: Option<(u16, u16)>,
    /// `/proc/self/cgroup`.
    pub cgroup: String,
    /// `/proc/self/uid_map`.
    pub uid_map: String,
    /// `/proc/self/gid_map`.
    pub gid_map: String,
    /// `/proc/self/timens_offsets`.
    pub timens: String,
    /// Names of network interfaces.
    pub links: Vec<String>,
    /// Processes that can be seen.
    pub pids: Vec<i32>,
}

impl Report {
    /// The topmost mount at `point`.
    #[must_use]
    pub fn mount(&self, point: &str) -> Option<&Mount> {
        self.mounts.iter().rev().find(|m| m.point == point)
    }
}

/// One file, as lstat sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `f`, `d`, `l`, `c`, `b`, `p` or `s`.
    pub kind: char,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: (u64, u64),
    /// Device it is on.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Length.
    pub size: u64,
    /// Where a symbolic link points.
    pub link: Option<String>,
}

/// One line of mountinfo on Linux, one `struct statfs` on FreeBSD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Root of the mount within its file system.
    pub root: String,
    /// Where it is mounted.
    pub point: String,
    /// Options of the mount.
    pub options: Vec<String>,
    /// Propagation: `shared:N`, `master:N`, or nothing for private.
    pub propagation: Vec<String>,
    /// File system type.
    pub fstype: String,
    /// Source.
    pub source: String,
    /// Options of the superblock.
    pub super_options: Vec<String>,
}

impl Mount {
    /// Whether the mount has this option.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }

    /// Whether its superblock has this option.
    #[must_use]
    pub fn super_has(&self, option: &str) -> bool {
        self.super_options.iter().any(|o| o == option)
    }
}

/// What came of one thing the probe was asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It worked, with this result.
    Ok(Value),
    /// It failed with this errno.
    Errno(i32),
}
