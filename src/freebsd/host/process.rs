//! Processes of the host: who they are, whether they live, signals.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::exit::End;
use crate::state::{Group, Identity};

use super::{jail, limits, sys};

/// A descriptor that becomes readable when a process ends.
#[derive(Debug)]
pub struct Watch(Kqueue);

impl Watch {
    /// Watches `pid`.
    ///
    /// # Errors
    /// kevent(2)'s.
    pub fn process(pid: u32) -> io::Result<Self> {
        Ok(Self::processes([pid as i32])?.0)
    }

    /// Watches all of `pids`, and says how many of them were still there.
    pub(super) fn processes(pids: impl IntoIterator<Item = i32>) -> io::Result<(Self, usize)> {
        let queue = Kqueue::new()?;
        let mut there = 0;
        for pid in pids {
            let flags = (EvFlags::EV_ADD | EvFlags::EV_ONESHOT, FilterFlag::NOTE_EXIT);
            let event = KEvent::new(pid as usize, EventFilter::EVFILT_PROC, flags.0, flags.1, 0, 0);
            match queue.kevent(&[event], &mut [], None) {
                Err(Errno::ESRCH) => {}
                other => {
                    other?;
                    there += 1;
                }
            }
        }
        Ok((Self(queue), there))
    }

    /// Waits for the next of them to end.
    pub(super) fn wait(&self, most: Option<Duration>) -> io::Result<bool> {
        self.next(most).map(|status| status.is_some())
    }

    /// The wait status of the next of them that ends.
    fn next(&self, most: Option<Duration>) -> io::Result<Option<isize>> {
        let mut events = [KEvent::new(0, EventFilter::EVFILT_PROC, EvFlags::empty(), FilterFlag::empty(), 0, 0)];
        let most = most.map(|most| libc::timespec {
            tv_sec: most.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(most.subsec_nanos()),
        });
        loop {
            match self.0.kevent(&[], &mut events, most) {
                Err(Errno::EINTR) => {}
                other => return Ok((other? > 0).then(|| events[0].data())),
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
/// The kernel tells a start time that moves with the clock; counted from the boot, which moves with it, it stands
/// still. A pid that was given again after another boot would have to start in the very same microsecond of it.
///
/// # Errors
/// There is none.
pub fn identity(pid: i32) -> io::Result<Identity> {
    let found = sys::process(pid)?.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    Ok(Identity { pid, started: found.started, boot: String::new(), unique: None })
}

/// Whether this very process lives; a zombie does not.
///
/// # Errors
/// The kernel's words.
pub fn alive(who: &Identity) -> io::Result<bool> {
    Ok(sys::process(who.pid)?.is_some_and(|found| found.started == who.started && !found.zombie))
}

/// Sends a signal to this very process. `false`: it is gone.
///
/// What the processes of a jail have used, where racct(9) counts it.
///
/// # Errors
/// rctl_get_racct(2)'s: `ENOSYS` where resource accounting is off.
pub fn usage(group: &Group) -> io::Result<crate::stats::Files> {
    let Group::Jail(name) = group else { return Err(io::ErrorKind::Unsupported.into()) };
    limits::usage(name).map(|text| crate::freebsd::limits::files(&text))
}

/// The rules of resource limits that fit `filter`; none where those are off.
///
/// # Errors
/// rctl_get_rules(2)'s.
pub fn rules(filter: &str) -> io::Result<Vec<String>> {
    match limits::rules(filter) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::ESRCH)) => Ok(Vec::new()),
        other => other,
    }
}

/// The highest number of a signal, and the real-time ones (sys/signal.h).
pub const SIGNALS: i32 = 128;
/// See [`SIGNALS`].
pub const REAL_TIME: RangeInclusive<i32> = 65..=126;

/// FreeBSD 13 has no descriptor of a process that is not a child: between the look and the signal its pid would have to
/// end, be reaped and given again.
///
/// # Errors
/// kill(2)'s.
pub fn signal(who: &Identity, signal: i32) -> io::Result<bool> {
    if !alive(who)? {
        return Ok(false);
    }
    match sys::kill(who.pid, signal) {
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
    let (watch, there) = Watch::processes([who.pid])?;
    // Asked after the watch was set: the pid cannot have changed hands in between.
    let found = sys::process(who.pid)?.filter(|found| found.started == who.started);
    first()?;
    let lived = match &found {
        None => return Ok(End::Past(None)),
        Some(found) => !found.zombie,
    };
    if there == 0 {
        return Ok(End::Past(None));
    }
    // kqueue(2), NOTE_EXIT: the data is the wait status.
    Ok(match (watch.next(most)?, lived) {
        (None, _) => End::Lives,
        (Some(status), true) => End::Seen(i32::try_from(status).ok()),
        (Some(status), false) => End::Past(i32::try_from(status).ok()),
    })
}

/// The kernel counts no processes that were killed for want of memory by jail.
#[must_use]
pub fn oom_killed(_: &Group) -> Option<bool> {
    None
}

/// FreeBSD 13 has no descriptor of a process that is not a child.
///
/// # Errors
/// Always.
pub fn descriptor(_: i32) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Kills this very process and waits until it has ended. One of our own (`run`) is reaped: a zombie holds its jail.
///
/// # Errors
/// The kernel's words.
pub fn kill(who: &Identity) -> io::Result<()> {
    let (watch, there) = Watch::processes([who.pid])?;
    if there > 0 && signal(who, libc::SIGKILL)? {
        watch.wait(None)?;
    }
    match waitpid(Pid::from_raw(who.pid), Some(WaitPidFlag::WNOHANG)) {
        Ok(_) | Err(Errno::ECHILD) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// The jail's name; another system's group is nothing here.
fn name(group: &Group) -> io::Result<&str> {
    match group {
        Group::Jail(name) => Ok(name),
        Group::Cgroup(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Sends a signal to all processes of a jail.
///
/// # Errors
/// The kernel's words.
pub fn signal_group(group: &Group, signal: i32) -> io::Result<()> {
    let name = name(group)?;
    if jail::id(name)?.is_none() {
        return Ok(());
    }
    jail::signal(name, signal).map_err(io::Error::other)
}

/// The processes of a jail.
///
/// # Errors
/// The kernel's words.
pub fn group(group: &Group) -> io::Result<Vec<i32>> {
    Ok(jail::processes(name(group)?)?.into_iter().map(|process| process.pid).collect())
}

/// Stops or continues all processes of a jail. FreeBSD freezes no jail: a process that is stopped can tell, by its
/// parent's wait(2).
///
/// # Errors
/// The kernel's words.
pub fn freeze(group: &Group, frozen: bool) -> io::Result<()> {
    signal_group(group, if frozen { libc::SIGSTOP } else { libc::SIGCONT })
}

/// Whether all processes of a jail are stopped.
#[must_use]
pub fn frozen(group: &Group) -> bool {
    let all = name(group).and_then(jail::processes).unwrap_or_default();
    !all.is_empty() && all.iter().all(|process| process.stopped)
}

/// Who started us.
pub(super) fn parent() -> i32 {
    Pid::parent().as_raw()
}
