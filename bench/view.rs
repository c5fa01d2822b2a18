//! The place where runtimes are measured: a network namespace of our own, a mount namespace in which cgroup v2 is all
//! there is at /sys/fs/cgroup and /run is empty, and a cgroup of our own that is empty and gone in the end, whatever happened.

use std::path::{Path, PathBuf};
use std::{fs, io, process};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::wait::{WaitStatus, wait};

use crate::measure::Res;

const CGROUPS: &str = "/sys/fs/cgroup";
const NONE: Option<&str> = None;

pub(crate) struct View {
    /// The cgroup of all we start, below the root of cgroup v2.
    pub(crate) name: String,
    /// What cgroup.subtree_control of the root said: runtimes write it.
    delegated: String,
}

impl View {
    /// Unshares, so nothing of it is seen outside. Orphans become our children: we are what conmon is to podman.
    pub(crate) fn enter(scratch: &Path) -> Res<Self> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
        let cgroup2 = mountinfo
            .lines()
            .find(|line| line.contains(" - cgroup2 "))
            .and_then(|line| line.split(' ').nth(4))
            .ok_or("cgroup v2 is not mounted")?;
        prctl::set_child_subreaper(true)?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        if cgroup2 != CGROUPS {
            // Moved and not mounted anew: a new mount could change the options of the only cgroup2 there is.
            let aside = scratch.join("cgroup");
            fs::create_dir_all(&aside)?;
            mount(Some(cgroup2), &aside, NONE, MsFlags::MS_BIND, NONE)?;
            umount2(CGROUPS, MntFlags::MNT_DETACH)?;
            mount(Some(&aside), CGROUPS, NONE, MsFlags::MS_MOVE, NONE)?;
        }
        // The ledger of a host's pots: this is another host.
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), NONE)?;
        // The usual home of a runtime's state is a tmpfs.
        fs::create_dir_all(scratch.join("state"))?;
        mount(Some("tmpfs"), &scratch.join("state"), Some("tmpfs"), MsFlags::empty(), NONE)?;
        let delegated = fs::read_to_string(Path::new(CGROUPS).join("cgroup.subtree_control"))?;
        let view = Self { name: format!("potrun-bench-{}", process::id()), delegated };
        fs::create_dir(view.cgroup())?;
        Ok(view)
    }

    pub(crate) fn cgroup(&self) -> PathBuf {
        Path::new(CGROUPS).join(&self.name)
    }

    /// Ends what still runs, and removes the cgroups a failed command left.
    pub(crate) fn clear(&self) -> io::Result<()> {
        fs::write(self.cgroup().join("cgroup.kill"), "1")?;
        while !matches!(wait(), Err(Errno::ECHILD)) {}
        for entry in fs::read_dir(self.cgroup())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir(entry.path())?;
            }
        }
        Ok(())
    }

    fn leave(&self) -> io::Result<()> {
        self.clear()?;
        fs::remove_dir(self.cgroup())?;
        let control = Path::new(CGROUPS).join("cgroup.subtree_control");
        for controller in fs::read_to_string(&control)?.split_whitespace() {
            if !self.delegated.split_whitespace().any(|before| before == controller) {
                fs::write(&control, format!("-{controller}"))?;
            }
        }
        Ok(())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            eprintln!("life: {} is left: {error}", self.cgroup().display());
        }
    }
}

/// Waits for one child, and for every orphan that ends before it.
pub(crate) fn wait_for(child: u32) -> nix::Result<bool> {
    loop {
        match wait()? {
            WaitStatus::Exited(pid, code) if pid.as_raw().unsigned_abs() == child => {
                return Ok(code == 0);
            }
            WaitStatus::Signaled(pid, ..) if pid.as_raw().unsigned_abs() == child => {
                return Ok(false);
            }
            _ => {}
        }
    }
}
