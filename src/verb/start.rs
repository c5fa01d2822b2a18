//! `start`: the waiting process becomes the program.

use clap::Args;

use crate::cli::{self, Context};
use crate::error::{Error, Result};
use crate::exit;
use crate::host::{link, this};
use crate::op::Moment;
use crate::state::{Record, Status};
use crate::store::{Entry, Store};

/// Arguments of `start`.
#[derive(Debug, Args)]
pub struct Start {
    /// The container
    pub id: String,
}

impl cli::Run for Start {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let id = super::id(&self.id)?;
        let entry = Store::at(&context.root).find(&id)?;
        let _lock = entry.lock()?;
        if entry.record()?.is_none() {
            // Whoever was making it would hold the lock.
            return Err(Error::caller("container is stopped, and its create never ended"));
        }
        let (entry, record, status) = super::find_made(&Store::at(&context.root), &id)?;
        match status {
            Status::Created => start(&entry, &record).map(|()| 0),
            Status::Stopped => Err(Error::caller("cannot start a container that has stopped")),
            Status::Creating => Err(Error::caller("cannot start a container that is being created")),
            Status::Running | Status::Paused => Err(Error::caller("cannot start an already running container")),
        }
    }
}

/// Starts the program and runs what must follow.
pub(super) fn start(entry: &Entry, record: &Record) -> Result<()> {
    link::start(&entry.socket()).map_err(|e| Error::operator(e.to_string()))?;
    if let Err(e) = entry.note_start(&exit::now()) {
        tracing::warn!("{}", e.chain()); // it runs all the same
    }
    super::hooks(record, Moment::Poststart).inspect_err(|_| {
        // runtime.md, "Lifecycle" 9: a failed poststart hook stops the container.
        if let Err(e) = this::process::kill(&record.process) {
            tracing::warn!("kill process {}: {e}", record.process.pid);
        }
    })
}
