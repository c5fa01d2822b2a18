//! The parent's side of a process that this potrun has started, whatever the system.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::Trouble;
use super::link::{self, Message};

/// A process that this potrun has started. It ends with this value, until it is committed.
#[derive(Debug)]
pub(crate) struct Child {
    pid: i32,
    link: OwnedFd,
    /// Nothing is left to kill: it is on record, or reaped.
    free: bool,
}

impl Child {
    /// The child `pid`, at the other end of `link`.
    pub(crate) fn new(pid: i32, link: OwnedFd) -> Self {
        Self { pid, link, free: false }
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Lets it go on.
    pub(crate) fn go(&self) -> io::Result<()> {
        link::tell(self.link.as_fd(), &Message::Go)
    }

    /// Lets it go on after the runtime's hooks, until it is ready.
    pub(crate) fn resume(&mut self) -> Result<(), Trouble> {
        self.go()?;
        self.wait()
    }

    /// It no longer ends with this potrun.
    pub(crate) fn commit(&mut self) -> Result<(), Trouble> {
        self.go()?;
        // The answer means that the kernel no longer kills it with us.
        self.wait()?;
        self.free = true;
        Ok(())
    }

    /// Waits until it has become its program: the link closes by exec.
    pub(crate) fn started(&mut self) -> Result<(), Trouble> {
        match link::hear(self.link.as_fd())? {
            None => Ok(()),
            Some(Message::Failed(text)) => {
                self.reap()?;
                Err(text.into())
            }
            Some(other) => Err(format!("unexpected {other:?} of the first process").into()),
        }
    }

    /// Waits until it is ready, or awaits the runtime.
    pub(crate) fn wait(&mut self) -> Result<(), Trouble> {
        match link::hear(self.link.as_fd())? {
            Some(Message::AwaitsRuntime | Message::Ready) => Ok(()),
            Some(Message::Failed(text)) => {
                self.reap()?;
                Err(text.into())
            }
            Some(other) => Err(format!("unexpected {other:?} of the first process").into()),
            None => Err(match self.reap()? {
                WaitStatus::Signaled(_, signal, _) => format!("the first process was killed by {signal}").into(),
                status => format!("the first process ended: {status:?}").into(),
            }),
        }
    }

    fn reap(&mut self) -> io::Result<WaitStatus> {
        self.free = true;
        loop {
            match waitpid(Pid::from_raw(self.pid), None) {
                Err(Errno::EINTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Not reaped yet, so the pid is its own; failing means that it is gone already.
        if !self.free && kill(Pid::from_raw(self.pid), Signal::SIGKILL).is_ok() {
            drop(self.reap());
        }
    }
}
