/*! What a container may leave behind on the machine, looked at from outside: mounts, processes, control groups or jails,
network interfaces and the runtime's own state. */

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use conformance::Mount;
use conformance::kernel::{self, command_line};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::case::{Fail, Result};
use crate::system::{self, children};
use crate::{reaper, runtime};

/// What was there before a case.
pub(crate) struct World {
    mounts: Vec<Mount>,
    links: Vec<String>,
    children: Vec<i32>,
}

impl World {
    /// Looks.
    pub(crate) fn now() -> io::Result<Self> {
        Ok(Self { mounts: kernel::mounts()?, links: kernel::links()?, children: children()? })
    }

    /// What is there now and was not before, in words.
    pub(crate) fn leaks(&self, id: &str, root: &Path) -> Result<Vec<String>> {
        let mut leaks = Vec::new();
        let now = Self::now()?;
        leaks.extend(now.mounts.iter().filter(|m| !self.mounts.contains(m)).map(|m| format!("mount {}", m.point)));
        leaks.extend(now.links.iter().filter(|l| !self.links.contains(l)).map(|l| format!("network interface {l}")));
        leaks.extend(
            children_that_stay(&self.children)?
                .into_iter()
                .map(|pid| format!("process {pid} ({})", command_line(pid).replace('\0', " ").trim())),
        );
        leaks.extend(system::traces(id)?);
        leaks.extend(state(id, root).iter().map(|path| format!("state {}", path.display())));
        Ok(leaks)
    }

    /// Puts the machine back, so that the next case starts clean.
    pub(crate) fn scrub(&self, id: &str) -> Result {
        for pid in children()?.into_iter().filter(|pid| !self.children.contains(pid)) {
            kill_and_await(pid)?;
        }
        reaper::forget()?;
        for mount in kernel::mounts()?.iter().rev().filter(|m| !self.mounts.contains(m)) {
            system::unmount(&mount.point)?;
        }
        Ok(system::remove_traces(id)?)
    }
}

/// State of the container, or anything else that is not a hidden file of the runtime as a whole.
fn state(id: &str, root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(root, &mut |path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.contains(id) {
            found.push(path.to_owned());
        }
    });
    found
}

/// Visits everything below a directory.
pub(crate) fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        visit(&entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
}

/// Of the signals a process ignores, those for which the runtime has to answer: not those that the suite itself was
/// started with, nor 32 and 33, which glibc's posix_spawn ignores in everything it starts. (SIGPIPE, which Rust ignores
/// in the suite, it restores in whatever is started.)
pub(crate) fn ignored_by_runtime(seen: u64) -> u64 {
    let own = kernel::ignored() & !(1 << (libc::SIGPIPE - 1));
    seen & !own & !(0b11 << 31)
}

/// Children that do not end by themselves, at once: a process that was killed takes a moment to be gone.
fn children_that_stay(old: &[i32]) -> Result<Vec<i32>> {
    let until = Instant::now() + Duration::from_millis(500);
    loop {
        reaper::collect()?;
        let stay: Vec<i32> = children()?.into_iter().filter(|pid| !old.contains(pid)).collect();
        if stay.is_empty() || Instant::now() > until {
            return Ok(stay);
        }
        ended(stay[0], until)?;
    }
}

/// Whether the process ends in time.
pub(crate) fn ended(pid: i32, until: Instant) -> Result<bool> {
    match system::watch(pid) {
        Ok(pidfd) => Ok(reaper::ready(&[pidfd.as_fd()], until)? == [true]),
        Err(err) if err.raw_os_error() == Some(libc::ESRCH) => Ok(true),
        Err(err) => Err(err.into()),
    }
}

/// Ends a process.
pub(crate) fn kill_and_await(pid: i32) -> io::Result<()> {
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) => match ended(pid, Instant::now() + runtime::DEADLINE) {
            Ok(_) => Ok(()),
            Err(Fail::Failed(why) | Fail::Skipped(why)) => Err(io::Error::other(why)),
        },
        Err(Errno::ESRCH) => Ok(()),
        Err(err) => Err(err.into()),
    }
}
