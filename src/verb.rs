//! One file per verb: argv in, exit code out.

pub mod base;
pub mod checkpoint;
pub mod clone;
pub mod copy;
pub mod create;
pub mod delete;
pub mod diff;
pub mod events;
pub mod exec;
pub mod export;
pub mod features;
pub mod fscomp;
pub mod gc;
pub mod import;
pub mod info;
pub mod kill;
pub mod list;
mod making;
pub mod mount;
pub mod network;
pub mod pause;
pub mod plan;
pub mod ps;
pub mod run;
pub mod show;
pub mod snapshot;
pub mod spec;
pub mod start;
pub mod stop;
pub mod update;
pub mod wait;

use std::path::Path;

use crate::apply::{Left, take_back};
use crate::bundle::{Bundle, Refusal};
use crate::error::{Doing, Error, Result, Who};
use crate::host::{Host, This, first, this};
use crate::id::ContainerId;
use crate::lease::{self, Lease};
use crate::names;
use crate::op::Op;
use crate::state::{Group, Record, State, Status};
use crate::store::{Entry, Store};

/// The id of a caller.
fn id(text: &str) -> Result<ContainerId> {
    ContainerId::new(text).map_err(|e| Error::caller(e.to_string()))
}

/// Who makes the control groups, as the command line says it.
fn groups(context: &crate::cli::Context, facts: &mut crate::facts::Facts) -> Result<()> {
    match (context.cgroups, context.systemd) {
        (false, _) => facts.cgroup = None,
        (true, true) => facts.cgroup = Some(this::facts::managed()?),
        (true, false) => {}
    }
    Ok(())
}

/// A bundle that was not taken.
fn refused(error: crate::bundle::BundleError) -> Error {
    match error {
        crate::bundle::BundleError::Refused(refusal) => Error::new(Who::Author, refusal.to_string()),
        read @ crate::bundle::BundleError::Read { .. } => Error::operator(read.to_string()).because_of(&read),
    }
}

/// A container that is there, with its record and its status. A container whose making never ended has no record.
fn find(store: &Store, id: &ContainerId) -> Result<(Entry, Option<Record>, Status)> {
    let entry = store.find(id)?;
    let record = entry.record()?;
    let status = status(&entry, record.as_ref())?;
    Ok((entry, record, status))
}

/// A container that is made, and its status.
fn find_made(store: &Store, id: &ContainerId) -> Result<(Entry, Record, Status)> {
    let (entry, record, status) = find(store, id)?;
    let record = record.ok_or_else(|| Error::caller(format!("container is {status}, and its create never ended")))?;
    Ok((entry, record, status))
}

/// The container's configuration as it was at create.
fn saved(entry: &Entry, record: &Record) -> Result<Bundle> {
    let path = entry.config();
    let config = std::fs::read(&path).doing(|| format!("read {}", path.display()))?;
    Bundle::parse(record.bundle.clone(), config).map_err(|e: Refusal| refused(e.into()))
}

/// What the kernel says of a container.
fn status(entry: &Entry, record: Option<&Record>) -> Result<Status> {
    let Some(record) = record else {
        // Whoever makes it holds the lock.
        let busy = entry.try_lock()?.is_none();
        return Ok(if busy { Status::Creating } else { Status::Stopped });
    };
    let alive = this::process::alive(&record.process)
        .map_err(|e| Error::operator(format!("look at process {}", record.process.pid)).because(e))?;
    Ok(match &record.group {
        _ if !alive => Status::Stopped,
        Some(group) if this::process::frozen(group) => Status::Paused,
        _ if entry.waits() => Status::Created,
        _ => Status::Running,
    })
}

/// Takes back everything of a container that is noted as being unmade, and removes its entry. The caller holds its lock.
/// `made`: it was created, and what its bundle keeps stays.
fn unmake(host: &mut This, entry: &Entry, made: bool) -> Result<()> {
    if let Some(Record { process, .. }) = entry.unfinished() {
        this::process::kill(&process)
            .map_err(|e| Error::operator(format!("kill process {}", process.pid)).because(e))?;
    }
    let lost = !entry.has_journal();
    let mut journal = entry.journal()?;
    // Somebody removed it: the record knows of the group at least, and gc finds layers by their marks.
    if let (true, Ok(Some(Record { group: Some(group), .. }))) = (lost, entry.record()) {
        let ops = match group {
            Group::Cgroup(path) => vec![Op::RemoveCgroup { path: path.clone() }, Op::KillAll { cgroup: Some(path) }],
            Group::Jail(name) => vec![Op::RemoveJail { name, root: None, before: Vec::new() }],
        };
        for op in ops {
            journal.note(op).map_err(|e| Error::operator("write the journal").because(e))?;
        }
    }
    for (n, op) in journal.pending() {
        if made && op.keeps() {
            journal.strike(n).map_err(|e| Error::operator("write the journal").because(e))?;
        }
    }
    let ledger = journal.pending().into_iter().find_map(|(_, op)| match op {
        Op::EndLease { ledger, .. } => Some(ledger),
        _ => None,
    });
    let _networks = ledger.as_deref().map(networks).transpose()?;
    let left = take_back(host, &mut journal);
    if left.is_empty() {
        return entry.remove();
    }
    Err(report(Error::operator("not everything could be taken back"), &left))
}

/// The lock of the host's pot networks.
fn networks(ledger: &Path) -> Result<lease::Networks> {
    lease::lock(ledger).map_err(|e| Error::operator(format!("lock {}", ledger.display())).because(e))
}

/// Ends the leases of containers that are gone without a delete, and takes away what else they had of the host's network.
/// The caller holds its lock.
fn sweep_leases(ledger: &Path) -> Result<Vec<Lease>> {
    let (gone, left) = lease::orphans(ledger).doing(|| format!("read {}", ledger.display()))?;
    let mut host = This::new();
    for one in &gone {
        let named = left.iter().any(|other| other.id == one.id);
        for op in this::OS.into_iter().flat_map(|os| crate::plan::network::remains(os, one, named)) {
            host.run(&op).map_err(|e| Error::operator(op.to_string()).because(e))?;
        }
        let names = ledger.with_extension("hosts");
        names::forget(&names, &one.addresses).doing(|| format!("take {} out of {}", one.id, names.display()))?;
        lease::end(ledger, &one.id, &one.owner).doing(|| format!("end lease of {}", one.id))?;
    }
    Ok(gone)
}

/// Says what is left.
fn report(error: Error, left: &[Left]) -> Error {
    left.iter()
        .fold(error, |error, one| error.hint(format!("left: {} failed: {}", one.op, crate::error::chain(&*one.source))))
}

/// Runs the hooks of a moment that the record keeps.
fn hooks(record: &Record, moment: crate::op::Moment) -> Result<()> {
    for hook in record.hooks.iter().filter(|hook| hook.moment == moment) {
        first::run_hook(hook, State::of(record, Status::Running))
            .map_err(|e| Error::operator(hook.to_string()).because(e))?;
    }
    Ok(())
}

/// Writes a verb's result to stdout; that the reader has gone is no failure.
fn print(text: &str) -> Result<()> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::operator("write the result").because(e)),
        _ => Ok(()),
    }
}

/// Rows in columns, three blanks apart, as runc has them.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}
