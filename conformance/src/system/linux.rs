//! By namespaces, pidfds, control groups and proc(5).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use serde_json::{Value, json};

use crate::world;

/// The control groups of the suite's mount namespace.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum View {
    /// As the host has them
    Host,
    /// Without cgroup2
    V1,
    /// Only cgroup2
    V2,
}

/// The place where containers are made.
pub(crate) struct Workshop {
    /// A tmpfs in a mount namespace of the suite's own, which goes away with it.
    pub(crate) dir: PathBuf,
}

impl Workshop {
    /// Makes it.
    pub(crate) fn open(view: View) -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        show_cgroups(view)?;
        let dir = std::env::temp_dir().join(format!("conformance-{}", std::process::id()));
        fs::create_dir(&dir)?;
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
        Ok(Self { dir })
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        umount2(&self.dir, MntFlags::MNT_DETACH).ok();
        fs::remove_dir(&self.dir).ok();
    }
}

/// Nothing of this is seen outside of the suite's mount namespace.
fn show_cgroups(view: View) -> io::Result<()> {
    match view {
        View::Host => {}
        View::V1 => {
            if Path::new("/sys/fs/cgroup/unified").exists() {
                umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH)?;
            }
        }
        // Mounted once more, it would lose options of the host's mount, which has the same superblock (nsdelegate).
        View::V2 if statfs("/sys/fs/cgroup")?.filesystem_type() == CGROUP2_SUPER_MAGIC => {}
        View::V2 => {
            umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH)?;
            mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), None::<&str>)?;
        }
    }
    File::open("/sys/fs/cgroup").map(drop)
}

/// What the probe needs beside itself in a root file system: nothing, as it is static.
pub(crate) fn libraries(_: &Path, _: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(Vec::new())
}

/// What the root directory of a running container has in it.
pub(crate) const ROOT: &[&str] = &["dev", "probe", "proc", "sys"];

/// A container that is confined the way callers confine by default.
pub(crate) fn config(id: &str) -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["/probe", "wait"],
            "env": ["PATH=/bin:/"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "conformance",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
        },
    })
}

/// Makes the suite the reaper of all that is left by what it starts.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Signals that come as something to read.
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Takes these from now on.
    pub(crate) fn of(signals: &[Signal]) -> io::Result<Self> {
        let set: SigSet = signals.iter().copied().collect();
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// Whether any came since the last time.
    pub(crate) fn came(&self) -> io::Result<bool> {
        let mut came = false;
        while self.0.read_signal()?.is_some() {
            came = true;
        }
        Ok(came)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A descriptor that becomes readable when the process ends. ESRCH if it has been reaped.
pub(crate) fn watch(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor, and nothing else has seen it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The suite's living children, which are all that containers have left, too.
pub(crate) fn children() -> io::Result<Vec<i32>> {
    let us = std::process::id().cast_signed();
    Ok(conformance::kernel::pids().into_iter().filter(|&pid| parent(pid) == Some((us, true))).collect())
}

/// Parent of a process, and whether it is alive.
fn parent(pid: i32) -> Option<(i32, bool)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    let alive = !matches!(words.next()?, "Z" | "X");
    Some((words.next()?.parse().ok()?, alive))
}

/// Takes a mount away, whoever uses it. Nothing if it is gone.
pub(crate) fn unmount(point: &str) -> io::Result<()> {
    match umount2(point, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

/// What the kernel keeps for containers of this id, in words.
pub(crate) fn traces(id: &str) -> io::Result<Vec<String>> {
    Ok(cgroups(id)?.iter().map(|dir| format!("cgroup {}", dir.display())).collect())
}

/// Takes it away.
pub(crate) fn remove_traces(id: &str) -> io::Result<()> {
    for dir in cgroups(id)?.iter().rev() {
        for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines().flat_map(str::parse) {
            world::kill_and_await(pid)?;
        }
        if let Err(err) = fs::remove_dir(dir) {
            eprintln!("cannot remove {}: {err}", dir.display());
        }
    }
    Ok(())
}

/// Directories of control groups that carry this id, in every hierarchy; parents first.
pub(crate) fn cgroups(id: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for mount in conformance::kernel::mounts()?.iter().filter(|m| m.fstype.starts_with("cgroup")) {
        world::walk(Path::new(&mount.point), &mut |path| {
            if path.is_dir() && path.to_string_lossy().contains(id) {
                found.push(path.to_owned());
            }
        });
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Whether the kernel says that the container is frozen.
pub(crate) fn is_paused(id: &str, _: i32) -> io::Result<bool> {
    Ok(cgroups(id)?.iter().any(|dir| {
        let v1 = fs::read_to_string(dir.join("freezer.state")).is_ok_and(|text| text.trim() == "FROZEN");
        v1 || fs::read_to_string(dir.join("cgroup.events")).is_ok_and(|text| text.contains("frozen 1"))
    }))
}

/// Forks a process that has this very pid, does nothing, and ends with the suite.
pub(crate) fn fork_as(pid: i32) -> io::Result<()> {
    // SAFETY: `clone_args` consists of integers, for which zero is a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    args.set_tid = (&raw const pid) as u64;
    args.set_tid_size = 1;
    // SAFETY: without CLONE_VM this is fork: `args` lives across the call and has the size that is passed. The suite has
    // one thread, and the child calls only async-signal-safe functions and never returns.
    unsafe {
        match libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                loop {
                    libc::pause();
                }
            }
            _ => Ok(()),
        }
    }
}
