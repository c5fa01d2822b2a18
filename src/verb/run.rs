//! `run`: create, start, wait, delete.

use std::os::fd::{AsFd, OwnedFd};

use clap::Args;

use crate::bundle::Bundle;
use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::exit;
use crate::host::terminal::{self, Foreground};
use crate::host::this;
use crate::state::Record;
use crate::store::{Entry, Lock};

use super::create::{Create, Created};

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Return when the program has started
    #[arg(short, long)]
    detach: bool,
    /// Do not delete the container when it has ended
    #[arg(long)]
    keep: bool,
    /// Accepted as runc's callers give it: the first process is potrun's own child
    #[arg(long, hide = true)]
    no_subreaper: bool,
    #[command(flatten)]
    pub(crate) create: Create,
}

impl cli::Run for Run {
    fn subject(&self) -> Option<&str> {
        Some(&self.create.id)
    }

    /// The exit code is the program's.
    fn run(&self, context: &Context) -> Result<u8> {
        let bundle = Bundle::read(&self.create.bundle).map_err(super::refused)?;
        let terminal = bundle.spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal) == Some(true);
        let socket = self.create.console_socket.as_deref();
        let (mut console, mut relay) = (super::create::console(&bundle, socket, self.detach)?, None);
        if terminal && socket.is_none() {
            let (ours, theirs) = terminal::pair().doing(|| "make a socket for the terminal")?;
            (console, relay) = (Some(theirs), Some(ours));
        }
        let own = std::process::id() as i32;
        let supervisor =
            if self.detach { None } else { Some(this::process::identity(own).doing(|| "look at ourselves")?) };
        let created = self.create.create(context, &bundle, console, supervisor)?;
        let Created { entry, record, lock } = created;
        match self.go_on(&entry, &record, lock, relay) {
            Ok(code) if self.detach || self.keep => Ok(code),
            result => {
                let deleted = finish(&entry, &record);
                result.and_then(|code| deleted.map(|()| code))
            }
        }
    }
}

impl Run {
    /// Starts it, lets others at it, and waits for its end.
    fn go_on(&self, entry: &Entry, record: &Record, lock: Lock, relay: Option<OwnedFd>) -> Result<u8> {
        if self.detach {
            return super::start::start(entry, record).map(|()| 0);
        }
        let mut foreground = Foreground::new().doing(|| "take signals")?;
        if let Some(socket) = relay {
            foreground.attach(socket.as_fd()).doing(|| "attach to the terminal")?;
        }
        super::start::start(entry, record)?;
        drop(lock);
        let status = foreground.wait(record.process.pid).doing(|| "wait for the program")?;
        if self.keep {
            super::wait::keep(entry, record, Some(status), Some(exit::now()))?;
        }
        exit::code(status).0.ok_or_else(|| Error::operator(format!("the program ended with status {status}")))
    }
}

/// Deletes the container, unless another was faster.
fn finish(entry: &Entry, record: &Record) -> Result<()> {
    match entry.lock() {
        Err(_) if !entry.dir().exists() => Ok(()),
        lock => lock.and_then(|_lock| super::delete::delete(entry, Some(record))),
    }
}
