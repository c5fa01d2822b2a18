//! `stop`: the graceful end: the pot's command or a signal, and after a while an end that nobody can refuse.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::exit::End;
use crate::host::{Host, This, first, this};
use crate::plan;
use crate::state::{Record, State, Status};
use crate::store::Store;

/// What podman and docker wait, where nobody says it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where engines keep the signal that an image wants (conversion.md of the OCI image specification).
const SIGNAL: &str = "org.opencontainers.image.stopSignal";

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub struct Stop {
    /// Seconds until it is killed; the pot's own stop.timeout by default, or 10
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// The container
    pub id: String,
}

impl cli::Run for Stop {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    /// Prints how it ended.
    fn run(&self, context: &Context) -> Result<u8> {
        let store = Store::at(&context.root);
        let (entry, record, status) = super::find_made(&store, &super::id(&self.id)?)?;
        let bundle = super::saved(&entry, &record)?;
        let stop = bundle.pot.as_ref().map(|pot| pot.stop.clone()).unwrap_or_default();
        let timeout = self.timeout.or(stop.timeout).map_or(TIMEOUT, Duration::from_secs);
        let deadline = Instant::now() + timeout;
        let left = || Some(deadline.saturating_duration_since(Instant::now()));
        let wanted = signal(&record)?;
        // Watched before it is asked: who sees no end does not know how it was.
        let ended = |most, first: &dyn Fn() -> io::Result<()>| super::wait::ended(&entry, &record, most, first);
        let by_command = || {
            if let Err(e) = command(&bundle, &record, &stop.command, store.filters(), deadline) {
                tracing::warn!("stop command: {}", e.chain());
            }
            Ok(())
        };
        let ask = || this::process::signal(&record.process, wanted).map(drop);
        // All that is left, the first process among it.
        let kill = || match &record.group {
            Some(group) => this::process::signal_group(group, libc::SIGKILL),
            None => this::process::signal(&record.process, libc::SIGKILL).map(drop),
        };
        let mut exit = None;
        if status == Status::Running && !stop.command.is_empty() {
            // What the command has ended needs no signal, and may be ending still.
            exit = ended(Some(Duration::ZERO), &by_command)?;
        }
        if status == Status::Running && exit.is_none() {
            exit = ended(left(), &ask)?;
        }
        if exit.is_none() {
            exit = match status {
                Status::Creating | Status::Stopped => ended(None, &|| Ok(()))?,
                // Also what waits for start, deaf to everything else, or is paused and would hear when it is resumed.
                Status::Created | Status::Running | Status::Paused => ended(None, &kill)?,
            };
        }
        super::wait::print(&exit.ok_or_else(|| Error::operator("the first process does not end"))?)
    }
}

/// The signal that the image wants, or SIGTERM.
fn signal(record: &Record) -> Result<i32> {
    let wanted = record.annotations.get(SIGNAL).filter(|text| !text.is_empty());
    wanted.map_or(Ok(libc::SIGTERM), |text| super::kill::parse(text))
}

/// Runs the pot's command inside, as its first process's user, until the deadline at most.
fn command(
    bundle: &crate::bundle::Bundle,
    record: &Record,
    args: &[String],
    filters: PathBuf,
    deadline: Instant,
) -> Result<()> {
    let mut process =
        bundle.spec.process().clone().ok_or_else(|| Error::caller("the container has no process to take after"))?;
    process.set_args(Some(args.to_vec())).set_terminal(Some(false)).set_console_size(None);
    let labels = this::facts::labels(bundle, Some(&process));
    let plan = plan::exec(bundle, record, &process, labels).map_err(|e| super::refused(e.into()))?;
    let state = State::of(record, Status::Running);
    let mut host = This::with(first::Io { listen: None, waiting: None, console: None, preserve: 0, filters, state });
    let failed = |trouble: crate::host::Trouble| Error::operator(crate::error::chain(&*trouble));
    for op in &plan.ops {
        host.run(op).map_err(failed)?;
    }
    host.release();
    let pid = host.pid().ok_or_else(|| Error::operator("the plan started no process"))?;
    let who = this::process::identity(pid).doing(|| format!("look at process {pid}"))?;
    host.commit().and_then(|()| host.started()).map_err(failed)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let late = this::process::end(&who, Some(left), || Ok(())).doing(|| "wait for it")? == End::Lives;
    if late {
        this::process::signal(&who, libc::SIGKILL).doing(|| "kill it")?;
    }
    // In any case: the container's first process cannot end before all in its pid namespace are reaped.
    match waitpid(Pid::from_raw(pid), None).doing(|| "wait for it")? {
        WaitStatus::Exited(_, 0) => Ok(()),
        _ if late => Err(Error::operator("it took too long")),
        status => Err(Error::operator(format!("it failed: {status:?}"))),
    }
}
