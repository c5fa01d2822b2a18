//! Processes of the host: who they are, whether they live, signals.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::exit::End;
use crate::state::{Group, Identity};
use crate::stats::{FILES, Files};

use super::{cgroup, sys};

/// A descriptor that becomes readable when a process ends.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// Watches `pid`.
    ///
    /// # Errors
    /// pidfd_open(2)'s.
    pub fn process(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        Ok(Self(sys::pidfd_open(pid)?))
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// poll(2)'s.
    pub fn wait(&self) -> io::Result<()> {
        loop {
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                other => return other.map(drop).map_err(Into::into),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Who the process `pid` is.
///
/// # Errors
/// There is none.
pub fn identity(pid: i32) -> io::Result<Identity> {
    let (_, started) = stat(pid)?.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    let unique = unique(sys::pidfd_open(pid)?.as_fd())?;
    Ok(Identity { pid, started, boot: boot()?, unique: Some(unique) })
}

/// The number of a pidfd's process: its inode, which pidfs gives once a boot (Linux 6.9). Before, all pidfds have one
/// inode, and the start time alone tells.
fn unique(pidfd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(nix::sys::stat::fstat(pidfd)?.st_ino)
}

/// Which boot this is: after another, the same pid and start time mean nothing.
fn boot() -> io::Result<String> {
    Ok(super::read_text("/proc/sys/kernel/random/boot_id")?.trim().to_string())
}

/// State and start time of a process (proc_pid_stat(5), fields 3 and 22).
fn stat(pid: i32) -> io::Result<Option<(char, u64)>> {
    let Some(fields) = fields(pid)? else { return Ok(None) };
    let state = fields.first().and_then(|field| field.chars().next());
    let started = fields.get(22 - 3).and_then(|field| field.parse().ok());
    state.zip(started).map(Some).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not understood")))
}

/// The fields of /proc/PID/stat from the third on.
fn fields(pid: i32) -> io::Result<Option<Vec<String>>> {
    let text = match super::read_text(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        // A process may have named itself with bytes that are no text.
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat"))?).into_owned()
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(e) => return Err(e),
    };
    // The name in field 2 may hold anything, parentheses and blanks too; the last one ends it.
    let rest = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    Ok(Some(rest.split(' ').map(Into::into).collect()))
}

/// Whether this very process lives; a zombie does not.
///
/// # Errors
/// /proc cannot be read.
pub fn alive(who: &Identity) -> io::Result<bool> {
    open(who).map(|fd| fd.is_some())
}

/// A descriptor of this very process, or `None` if it is gone.
pub(super) fn open(who: &Identity) -> io::Result<Option<OwnedFd>> {
    let fd = match sys::pidfd_open(who.pid) {
        // EINVAL, ENOENT: said of what is no leader of a group of threads, a process that got the pid later.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::EINVAL | libc::ENOENT)) => return Ok(None),
        other => other?,
    };
    if who.unique.is_some_and(|number| unique(fd.as_fd()).map_or(true, |now| now != number)) {
        return Ok(None);
    }
    // Asked after it was opened: the pid cannot have changed hands in between without the start time telling.
    Ok(match stat(who.pid)? {
        Some((state, started)) if started == who.started && !matches!(state, 'Z' | 'X') => {
            (boot()? == who.boot).then_some(fd)
        }
        _ => None,
    })
}

/// The highest number of a signal, and the real-time ones, of which glibc keeps the first two (signal(7)).
pub const SIGNALS: i32 = 64;
/// See [`SIGNALS`].
pub const REAL_TIME: RangeInclusive<i32> = 34..=64;

/// Sends a signal to this very process. `false`: it is gone.
///
/// # Errors
/// pidfd_send_signal(2)'s.
pub fn signal(who: &Identity, signal: i32) -> io::Result<bool> {
    let Some(fd) = open(who)? else { return Ok(false) };
    match sys::pidfd_signal(fd.as_fd(), signal) {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Waits until this very process has ended, at most for `most`, and says how. `first` may be what ends it: it is done when
/// the process is watched.
///
/// # Errors
/// The kernel's words, or `first`'s.
pub fn end(who: &Identity, most: Option<Duration>, first: impl FnOnce() -> io::Result<()>) -> io::Result<End> {
    let opened = open(who)?;
    first()?;
    let Some(fd) = opened else { return Ok(End::Past(zombie(who)?)) };
    let deadline = most.map(|most| Instant::now() + most);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Rounded up, so that it is not asked again for less than a millisecond.
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(End::Lives),
            Ok(0) => {}
            Ok(_) => break,
            Err(e) => return Err(e.into()),
        }
    }
    // Its parent may ask for its status at any moment: then the kernel tells whoever had the descriptor.
    let status = match sys::pidfd_exit(fd.as_fd()) {
        None => zombie(who)?.or_else(|| sys::pidfd_exit(fd.as_fd())),
        told => told,
    };
    Ok(End::Seen(status))
}

/// The wait status of this very process, if it has ended and its parent has not asked yet (proc_pid_stat(5), field 52).
fn zombie(who: &Identity) -> io::Result<Option<i32>> {
    let found = fields(who.pid)?.filter(|fields| {
        let field = |n: usize| fields.get(n - 3).map(String::as_str);
        field(3) == Some("Z") && field(22) == Some(who.started.to_string().as_str())
    });
    if found.is_none() || boot()? != who.boot {
        return Ok(None);
    }
    Ok(found.and_then(|fields| fields.get(52 - 3)?.trim().parse().ok()))
}

/// Whether the kernel has killed a process of the group for want of memory; `None` where nothing counts that.
#[must_use]
pub fn oom_killed(group: &Group) -> Option<bool> {
    let events = fs::read_to_string(path(group).ok()?.join("memory.events")).ok()?;
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")).map(|count| count != "0")
}

/// Rules of resource limits, which are FreeBSD's.
///
/// # Errors
/// There is none.
pub fn rules(_: &str) -> io::Result<Vec<String>> {
    Ok(Vec::new())
}

/// What the processes of a group have used, as the kernel's files say it.
///
/// # Errors
/// The kernel's words.
pub fn usage(group: &Group) -> io::Result<Files> {
    let path = path(group)?;
    let mut files = Files::new();
    for item in fs::read_dir(path)? {
        let name = item?.file_name();
        let Some(name) = name.to_str() else { continue };
        let pages = name.starts_with("hugetlb.") && (name.ends_with(".current") || name.ends_with(".events"));
        if pages || FILES.contains(&name) {
            // One that cannot be read has no figures: io.pressure where the host does not count it.
            if let Ok(text) = fs::read_to_string(path.join(name)) {
                files.insert(name.into(), text);
            }
        }
    }
    Ok(files)
}

/// A descriptor of a process, for who wants to signal it safely.
///
/// # Errors
/// pidfd_open(2)'s.
pub fn descriptor(pid: i32) -> io::Result<OwnedFd> {
    sys::pidfd_open(pid)
}

/// Kills this very process and waits until it has ended.
///
/// # Errors
/// The kernel's words.
pub fn kill(who: &Identity) -> io::Result<()> {
    let Some(fd) = open(who)? else { return Ok(()) };
    match sys::pidfd_signal(fd.as_fd(), libc::SIGKILL) {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        other => other?,
    }
    Watch(fd).wait()
}

/// The group's directory; another system's group is nothing here.
fn path(group: &Group) -> io::Result<&Path> {
    match group {
        Group::Cgroup(path) => Ok(path),
        Group::Jail(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Sends a signal to all processes of a group.
///
/// # Errors
/// The kernel's words.
pub fn signal_group(group: &Group, signal: i32) -> io::Result<()> {
    let path = path(group)?;
    if signal == libc::SIGKILL {
        return match cgroup::set(path, "cgroup.kill", "1") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
    }
    for pid in cgroup::processes(path)? {
        // One that has ended meanwhile needs no signal; one that came later is a child of one that got it.
        match sys::pidfd_open(pid).and_then(|fd| sys::pidfd_signal(fd.as_fd(), signal)) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
            other => other?,
        }
    }
    Ok(())
}

/// The processes of a group.
///
/// # Errors
/// The kernel's words.
pub fn group(group: &Group) -> io::Result<Vec<i32>> {
    cgroup::processes(path(group)?)
}

/// Freezes or thaws all processes of a group, and waits until it is so.
///
/// # Errors
/// The kernel's words.
pub fn freeze(group: &Group, frozen: bool) -> io::Result<()> {
    cgroup::freeze(path(group)?, frozen)
}

/// Whether a group is frozen.
#[must_use]
pub fn frozen(group: &Group) -> bool {
    path(group).is_ok_and(cgroup::frozen)
}
