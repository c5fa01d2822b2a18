/*! What a container may leave behind on the machine, looked at from outside: mounts, processes, control groups,
network interfaces and the runtime's own state. */

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use conformance::{Mount, mounts};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::case::Result;
use crate::{reaper, runtime, sys};

/// The suite's mount table.
pub(crate) fn mount_table() -> io::Result<Vec<Mount>> {
    Ok(mounts(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// What was there before a case.
pub(crate) struct World {
    mounts: Vec<Mount>,
    links: Vec<String>,
    children: Vec<i32>,
}

impl World {
    /// Looks.
    pub(crate) fn now() -> io::Result<Self> {
        Ok(Self { mounts: mount_table()?, links: links()?, children: children()? })
    }

    /// What is there now and was not before, in words.
    pub(crate) fn leaks(&self, id: &str, root: &Path) -> Result<Vec<String>> {
        let mut leaks = Vec::new();
        let now = Self::now()?;
        leaks.extend(now.mounts.iter().filter(|m| !self.mounts.contains(m)).map(|m| format!("mount {}", m.point)));
        leaks.extend(now.links.iter().filter(|l| !self.links.contains(l)).map(|l| format!("network interface {l}")));
        leaks.extend(
            children_that_stay(&self.children)?.into_iter().map(|pid| format!("process {pid} ({})", command_line(pid))),
        );
        leaks.extend(cgroups(id)?.iter().map(|dir| format!("cgroup {}", dir.display())));
        leaks.extend(state(id, root).iter().map(|path| format!("state {}", path.display())));
        Ok(leaks)
    }

    /// Puts the machine back, so that the next case starts clean.
    pub(crate) fn scrub(&self, id: &str) -> Result {
        for pid in children()?.into_iter().filter(|pid| !self.children.contains(pid)) {
            kill_and_await(pid)?;
        }
        reaper::forget()?;
        for mount in mount_table()?.iter().rev().filter(|m| !self.mounts.contains(m)) {
            match umount2(mount.point.as_str(), MntFlags::MNT_DETACH) {
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
                Err(err) => return Err(err.into()),
            }
        }
        for dir in cgroups(id)?.iter().rev() {
            for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines().flat_map(str::parse) {
                kill_and_await(pid)?;
            }
            if let Err(err) = fs::remove_dir(dir) {
                eprintln!("cannot remove {}: {err}", dir.display());
            }
        }
        Ok(())
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

/// Directories of control groups that carry this id, in every hierarchy; parents first.
pub(crate) fn cgroups(id: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for mount in mount_table()?.iter().filter(|m| m.fstype.starts_with("cgroup")) {
        walk(Path::new(&mount.point), &mut |path| {
            if path.is_dir() && path.to_string_lossy().contains(id) {
                found.push(path.to_owned());
            }
        });
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) {
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
pub(crate) fn ignored_by_runtime(seen: u64) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    let own = u64::from_str_radix(mask.trim(), 16)? & !(1 << (libc::SIGPIPE - 1));
    Ok(seen & !own & !(0b11 << 31))
}

fn links() -> io::Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/net/dev")?;
    Ok(text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect())
}

/// Parent of a process, and whether it is alive.
fn parent(pid: i32) -> Option<(i32, bool)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    let alive = !matches!(words.next()?, "Z" | "X");
    Some((words.next()?.parse().ok()?, alive))
}

/// The suite's living children, which are all that containers have left, too.
pub(crate) fn children() -> io::Result<Vec<i32>> {
    let us = std::process::id().cast_signed();
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    Ok(pids.filter(|&pid| parent(pid) == Some((us, true))).collect())
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
    match sys::pidfd_open(pid) {
        Ok(pidfd) => Ok(reaper::ready(&[pidfd.as_fd()], until)? == [true]),
        Err(err) if err.raw_os_error() == Some(libc::ESRCH) => Ok(true),
        Err(err) => Err(err.into()),
    }
}

fn kill_and_await(pid: i32) -> Result {
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) => ended(pid, Instant::now() + runtime::DEADLINE).map(|_| ()),
        Err(Errno::ESRCH) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()
}
