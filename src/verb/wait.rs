//! `wait`: how a container's first process ended, or will.

use std::io;
use std::time::Duration;

use clap::Args;

use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::exit::{self, End, Exit};
use crate::host::this;
use crate::state::Record;
use crate::store::{Entry, Store};

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub struct Wait {
    /// Seconds until it is given up
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// The container
    pub id: String,
}

impl cli::Run for Wait {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let (entry, record, _) = super::find_made(&Store::at(&context.root), &super::id(&self.id)?)?;
        let most = self.timeout.map(Duration::from_secs);
        let exit = ended(&entry, &record, most, || Ok(()))?.ok_or_else(|| Error::caller("container still running"))?;
        print(&exit)
    }
}

/// Prints a record of an end.
pub(super) fn print(exit: &Exit) -> Result<u8> {
    let json = serde_json::to_string(exit).doing(|| "write JSON")?;
    super::print(&format!("{json}\n"))?;
    Ok(0)
}

/// Waits, at most for `most`, until the first process has ended; says how, and keeps that. `None`: it lives. `first` may be
/// what ends it: nobody would know how, if its parent were faster than we.
pub(super) fn ended(
    entry: &Entry,
    record: &Record,
    most: Option<Duration>,
    first: impl FnOnce() -> io::Result<()>,
) -> Result<Option<Exit>> {
    if let Some(exit) = entry.exit()? {
        return Ok(Some(exit));
    }
    let doing = || format!("end process {}", record.process.pid);
    let end = this::process::end(&record.process, most, first).doing(doing)?;
    let (status, ended) = match end {
        End::Lives => return Ok(None),
        End::Seen(status) => (status, Some(exit::now())),
        End::Past(status) => (status, None),
    };
    keep(entry, record, status, ended).map(Some)
}

/// Makes the record of an end and keeps it, if the container is still there. The first who saw it is right.
pub(super) fn keep(entry: &Entry, record: &Record, status: Option<i32>, ended: Option<String>) -> Result<Exit> {
    let (exit_code, signal) = status.map_or((None, None), exit::code);
    let exit = Exit {
        exit_code,
        signal,
        oom_killed: record.group.as_ref().and_then(this::process::oom_killed),
        created: record.created.clone(),
        started: entry.started(),
        ended,
    };
    let lock = match entry.lock() {
        Err(_) if !entry.dir().exists() => return Ok(exit),
        lock => lock?,
    };
    let kept = entry.exit()?;
    match &kept {
        // Another saw it, or no more of it than we.
        Some(kept) if kept.exit_code.is_some() || exit_code.is_none() => return Ok(kept.clone()),
        _ => entry.keep_exit(&exit)?,
    }
    drop(lock);
    Ok(exit)
}
