//! The parent's side of a process that this potrun has started, whatever the system.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
#[cfg(target_os = "linux")]
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
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
    stage: Stage,
}

/// What a process does that has been started.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// It was not heard of yet.
    Begins,
    /// It has called the runtime, and goes on beside it.
    Works,
    /// It waits.
    Waits,
}

impl Child {
    /// The child `pid`, at the other end of `link`.
    pub(crate) fn new(pid: i32, link: OwnedFd) -> Self {
        Self { pid, link, free: false, stage: Stage::Begins }
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Lets it go on.
    pub(crate) fn go(&self) -> io::Result<()> {
        link::tell(self.link.as_fd(), &Message::Go)
    }

    /// Lets it go on after what the runtime did, until it is ready.
    pub(crate) fn resume(&mut self) -> Result<(), Trouble> {
        self.meet()?;
        match self.go() {
            // It failed meanwhile, and has told why.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            other => other?,
        }
        self.stage = Stage::Waits;
        while self.next()? != Message::Ready {}
        Ok(())
    }

    /// Waits until it has called the runtime, if it has not yet.
    pub(crate) fn meet(&mut self) -> Result<(), Trouble> {
        if self.stage == Stage::Begins { self.wait() } else { Ok(()) }
    }

    /// Why it failed, if it did so while the runtime worked on it.
    #[cfg(target_os = "linux")] // elsewhere none calls
    pub(crate) fn failure(&mut self) -> Option<Trouble> {
        let mut told = [PollFd::new(self.link.as_fd(), PollFlags::POLLIN)];
        let told = self.stage == Stage::Works && poll(&mut told, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
        if told { self.next().err() } else { None }
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

    /// Waits until it is ready, or calls or awaits the runtime.
    pub(crate) fn wait(&mut self) -> Result<(), Trouble> {
        self.stage = if self.next()? == Message::CallsRuntime { Stage::Works } else { Stage::Waits };
        Ok(())
    }

    fn next(&mut self) -> Result<Message, Trouble> {
        match link::hear(self.link.as_fd())? {
            Some(told @ (Message::CallsRuntime | Message::AwaitsRuntime | Message::Ready)) => Ok(told),
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
