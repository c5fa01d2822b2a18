//! `events`: what a container uses, once or again and again, and that the kernel killed it for want of memory.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::exit::End;
use crate::host::this;
use crate::state::{Record, Status};
use crate::stats;
use crate::store::Store;

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Time between two of them
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = interval)]
    interval: Duration,
    /// Show what it has used so far, and end
    #[arg(long)]
    stats: bool,
    /// The container
    pub id: String,
}

/// `5s`, `500ms`, `1m30s`: Go's durations, which runc takes.
fn interval(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if time.is_zero() { Err("must be longer than nothing".into()) } else { Ok(time) }
}

impl cli::Run for Events {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let (_, record, status) = super::find_made(&Store::at(&context.root), &super::id(&self.id)?)?;
        if matches!(status, Status::Stopped | Status::Creating) {
            return Err(Error::caller("container not running"));
        }
        if self.stats {
            return print(&record, "stats", &data(&record)?).map(|_| 0);
        }
        let mut killed = false;
        loop {
            let end = this::process::end(&record.process, Some(self.interval), || Ok(()));
            let end = end.doing(|| "wait for the next event")?;
            let oom = record.group.as_ref().and_then(this::process::oom_killed) == Some(true);
            // runc tells of each; here it is the first that is told, since the kernel counts them together.
            if oom && !std::mem::replace(&mut killed, true) {
                print(&record, "oom", &Value::Null)?;
            }
            if end != End::Lives {
                return Ok(0);
            }
            if !print(&record, "stats", &data(&record)?)? {
                return Ok(0);
            }
        }
    }
}

/// What a container has used.
pub(super) fn data(record: &Record) -> Result<Value> {
    let group = record.group.as_ref().ok_or_else(|| Error::operator("the container has no control group"))?;
    let files = this::process::usage(group).doing(|| format!("look at {group}"))?;
    Ok(stats::data(&files))
}

/// One event on one line. `false`: nobody reads them any more.
fn print(record: &Record, kind: &str, data: &Value) -> Result<bool> {
    use std::io::Write;
    let mut event = json!({"type": kind, "id": record.id});
    if !data.is_null() {
        event["data"] = data.clone();
    }
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{event}").and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        other => other.doing(|| "write the result").map(|()| true),
    }
}
