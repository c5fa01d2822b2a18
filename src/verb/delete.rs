//! `delete`: the journal backwards, and nothing is left.

use clap::Args;

use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::host::{This, first, this};
use crate::op::Moment;
use crate::state::{Record, Status};
use crate::store::{Entry, Store};

/// Arguments of `delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// Kill the container first if it is running; no container is no error
    #[arg(short, long)]
    force: bool,
    /// Destroy as well what a persistent pot leaves, of this container or of an earlier one of its id
    #[arg(long)]
    data: bool,
    /// The container
    pub id: String,
}

impl cli::Run for Delete {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let store = Store::at(&context.root);
        let id = super::id(&self.id)?;
        let entry = match store.find(&id) {
            Err(_)
                if !context.root.join(id.as_str()).exists()
                    && self.data
                    && this::facts::forget(&context.store, &id)? =>
            {
                return Ok(0);
            }
            Err(_) if self.force && !context.root.join(id.as_str()).exists() => return Ok(0),
            other => other?,
        };
        let lock = match entry.lock() {
            // Another delete was faster.
            Err(_) if self.force && !entry.dir().exists() => return Ok(0),
            other => other?,
        };
        let record = match entry.record() {
            // Damaged: the journal still says what to take back.
            Err(_) if self.force => None,
            other => other?,
        };
        let status = super::status(&entry, record.as_ref());
        // Holding the lock ourselves, nobody is creating it.
        let status = match status? {
            Status::Creating => Status::Stopped,
            other => other,
        };
        if matches!(status, Status::Running | Status::Paused) && !self.force {
            return Err(Error::caller(format!("cannot delete container {id} that is not stopped: {status}")));
        }
        let result = delete(&entry, record.as_ref()).and_then(|()| {
            if self.data {
                this::facts::forget(&context.store, &id)?;
            }
            Ok(0)
        });
        drop(lock);
        result
    }
}

/// Ends and takes back a container whose lock the caller holds.
pub(super) fn delete(entry: &Entry, record: Option<&Record>) -> Result<()> {
    // From here on it is one whose delete must be finished, whoever finds it.
    entry.unmake()?;
    if let Some(record) = record {
        this::process::kill(&record.process).doing(|| format!("kill process {}", record.process.pid))?;
    }
    super::unmake(&mut This::new(), entry, record.is_some())?;
    let Some(record) = record else { return Ok(()) };
    for hook in record.hooks.iter().filter(|hook| hook.moment == Moment::Poststop) {
        let state = crate::state::State::of(record, Status::Stopped);
        // runtime.md, "Lifecycle" 13: a failed poststop hook is a warning.
        if let Err(e) = first::run_hook(hook, state) {
            tracing::warn!("{hook}: {}", crate::error::chain(&e));
        }
    }
    Ok(())
}
