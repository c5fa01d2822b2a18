/*! Taking leave of processes. The suite is the subreaper of everything the runtimes start and leave, and reaps at once,
whatever it is waiting for: a pid namespace does not end while a process of it, killed long ago, is not reaped. */

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::case::{Fail, Result};
use crate::sys;
use crate::system::{self, Signals};

thread_local! {
    /// How processes ended that nobody has asked about yet.
    static ENDED: RefCell<BTreeMap<i32, ExitStatus>> = const { RefCell::new(BTreeMap::new()) };
    /// Readable when a child has ended.
    static NEWS: OnceCell<Signals> = const { OnceCell::new() };
}

/// Makes the suite the reaper.
pub(crate) fn open() -> io::Result<()> {
    system::adopt_orphans()?;
    let news = Signals::of(&[Signal::SIGCHLD])?;
    NEWS.with(|cell| cell.set(news)).map_err(|_| io::Error::other("the reaper is there already"))
}

/// Waits until one of these can be read, and reaps meanwhile. All are false when time is up.
pub(crate) fn ready(fds: &[BorrowedFd], until: Instant) -> Result<Vec<bool>> {
    NEWS.with(|news| {
        let Some(news) = news.get() else { return Err(Fail::Failed("there is no reaper".into())) };
        loop {
            let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
            polled.push(PollFd::new(news.as_fd(), PollFlags::POLLIN));
            // Rounded up: to poll with less than a millisecond left would be to spin.
            let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
            poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))?;
            let mut ready: Vec<bool> = polled.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            if ready.pop() == Some(true) {
                news.came()?;
                collect()?;
            }
            if ready.contains(&true) || Instant::now() >= until {
                return Ok(ready);
            }
        }
    })
}

/// Waits for nothing but the end of children.
pub(crate) fn pass(until: Instant) -> Result {
    ready(&[], until).map(drop)
}

/// Takes leave of every child that has ended.
pub(crate) fn collect() -> Result {
    loop {
        match sys::wait_any()? {
            None => return Ok(()),
            Some((pid, status)) => ENDED.with_borrow_mut(|ended| ended.insert(pid, status)),
        };
    }
}

/// How a child has ended, as a shell counts it, and whether by a signal. (FreeBSD tells of the end of a process a moment
/// before it can be waited for.)
pub(crate) fn status(pid: i32) -> Result<(i32, bool)> {
    collect()?;
    let known = ENDED.with_borrow_mut(|ended| ended.remove(&pid));
    let Some(status) = known.map_or_else(|| sys::wait_for(pid), |status| Ok(Some(status)))? else {
        return Err(Fail::Failed(format!("process {pid} was not left to the caller, its subreaper")));
    };
    Ok(status.code().map_or_else(|| (128 + status.signal().unwrap_or_default(), true), |code| (code, false)))
}

/// Forgets what nobody has asked about.
pub(crate) fn forget() -> Result {
    collect()?;
    ENDED.with_borrow_mut(BTreeMap::clear);
    Ok(())
}
