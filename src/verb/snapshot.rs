//! `snapshot`, `revert` and `snapshots`: pots and volumes as they were, where the store is ZFS.

use std::io::IsTerminal;
use std::time::{Duration, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::bundle::pot::is_name;
use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::host::storage::Storage;
use crate::host::zfs::Datasets;
use crate::host::zfs::snapshots::{self, Of, is_snapshot};
use crate::host::{Trouble, this};
use crate::state::Status;
use crate::store::Store;

use super::list::Form;

/// A pot, or a volume.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The container
    id: Option<String>,
    /// The volume instead
    #[arg(long, value_name = "NAME")]
    fscomp: Option<String>,
}

impl What {
    fn of(&self) -> Result<Of> {
        of(self.id.as_deref(), self.fscomp.as_deref())
    }
}

fn of(id: Option<&str>, fscomp: Option<&str>) -> Result<Of> {
    match (id, fscomp) {
        (_, Some(name)) if is_name(name) => Ok(Of::Fscomp(name.into())),
        (_, Some(name)) => Err(Error::caller(format!("{name:?} is not a name of an fscomp"))),
        (id, None) => Ok(Of::Pot(super::id(id.unwrap_or_default())?)),
    }
}

/// Arguments of `snapshot`.
#[derive(Debug, Args)]
pub struct Snapshot {
    #[command(flatten)]
    what: What,
    /// What it is called; the seconds since 1970 where absent
    #[arg(long, value_name = "SNAPSHOT")]
    name: Option<String>,
}

/// Arguments of `revert`.
#[derive(Debug, Args)]
pub struct Revert {
    #[command(flatten)]
    what: What,
    /// The snapshot; the latest where absent
    #[arg(long, value_name = "SNAPSHOT")]
    to: Option<String>,
    /// Destroy the snapshots that are later
    #[arg(long)]
    newer: bool,
}

/// Arguments of `snapshots`.
#[derive(Debug, Args)]
pub struct Snapshots {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the snapshots of a pot or a volume, the oldest first
    Ls {
        #[command(flatten)]
        what: What,
        /// Form of the list
        #[arg(short, long, value_enum, default_value_t)]
        format: Form,
    },
    /// Destroy a snapshot
    Rm {
        #[command(flatten)]
        what: What,
        /// Its name
        #[arg(long = "name", value_name = "SNAPSHOT")]
        name: String,
    },
}

impl cli::Run for Snapshot {
    fn run(&self, context: &Context) -> Result<u8> {
        take(context, &self.what.of()?, self.name.as_deref())
    }
}

impl cli::Run for Revert {
    fn run(&self, context: &Context) -> Result<u8> {
        revert(context, &self.what.of()?, self.to.as_deref(), self.newer)
    }
}

impl cli::Run for Snapshots {
    fn run(&self, context: &Context) -> Result<u8> {
        match &self.verb {
            Verb::Ls { what, format } => list(context, &what.of()?, *format),
            Verb::Rm { what, name } => {
                let of = what.of()?;
                let (_, dataset) = find(context, &of, "a snapshot")?;
                there(&dataset, checked(name)?)?;
                Datasets::remove_snapshot(&dataset, name).map_err(failed(format!("remove snapshot {name} of {of}")))?;
                Ok(0)
            }
        }
    }
}

/// Makes a snapshot and says its name.
pub(super) fn take(context: &Context, of: &Of, name: Option<&str>) -> Result<u8> {
    let name = name.map(checked).transpose()?;
    let (_, dataset) = find(context, of, "a snapshot")?;
    let made = Datasets::snapshot(&dataset, name).map_err(failed(format!("make a snapshot of {of}")))?;
    super::print(&format!("{made}\n"))?;
    Ok(0)
}

/// Puts a pot or a volume back. Nobody may look at it meanwhile: what he has open would be gone.
pub(super) fn revert(context: &Context, of: &Of, name: Option<&str>, newer: bool) -> Result<u8> {
    let name = name.map(checked).transpose()?;
    let (storage, dataset) = find(context, of, "going back to a snapshot")?;
    if let Some(name) = name {
        there(&dataset, name)?;
    }
    match of {
        Of::Pot(id) => {
            if let Ok((_, _, status)) = super::find(&Store::at(&context.root), id)
                && status != Status::Stopped
            {
                return Err(Error::caller(format!("{id} is {status}: it must be stopped")));
            }
        }
        Of::Fscomp(name) => unused(&storage, name)?,
    }
    Datasets::roll_back(&dataset, name, newer).map_err(failed(format!("go back to a snapshot of {of}")))?;
    Ok(0)
}

/// Refuses a volume that is mounted where a pot sees it.
pub(super) fn unused(storage: &Storage, name: &str) -> Result<()> {
    let shown = this::facts::shown(&storage.fscomp(name)).doing(|| "look at mounts")?;
    match shown.first() {
        Some(place) => Err(Error::caller(format!("fscomp {name} is in use: it is mounted on {}", place.display()))),
        None => Ok(()),
    }
}

fn list(context: &Context, of: &Of, form: Form) -> Result<u8> {
    let (_, dataset) = find(context, of, "a snapshot")?;
    let all = Datasets::snapshots(&dataset).map_err(failed(format!("list snapshots of {of}")))?;
    let time = |seconds| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
    if form == Form::Json {
        let all: Vec<_> = all
            .into_iter()
            .map(|snapshots::Snapshot { name, created, used, referenced }| {
                json!({"name": name, "created": time(created), "used": used, "referenced": referenced})
            })
            .collect();
        let text = serde_json::to_string_pretty(&all).doing(|| "write JSON")?;
        super::print(&format!("{text}\n"))?;
        return Ok(0);
    }
    let mut rows = vec![["NAME", "CREATED", "USED", "REFERENCED"].map(String::from)];
    rows.extend(
        all.into_iter().map(|one| [one.name, time(one.created), one.used.to_string(), one.referenced.to_string()]),
    );
    super::print(&super::table(&rows))?;
    Ok(0)
}

/// Makes a volume of a snapshot of another one, or of one that is made for it.
pub(super) fn clone(context: &Context, from: &Of, snapshot: Option<&str>, new: &str) -> Result<u8> {
    let (storage, dataset) = find(context, from, "a clone")?;
    let datasets = storage.needs_datasets("a clone")?;
    if datasets.dataset_of(&Of::Fscomp(new.into())).map_err(failed(format!("look at fscomp {new}")))?.is_some() {
        return Err(Error::caller(format!("fscomp {new} already exists")));
    }
    let doing = || failed(format!("clone {from}"));
    let name = match snapshot {
        Some(name) => there(&dataset, name)?.to_string(),
        None => Datasets::snapshot(&dataset, None).map_err(doing())?,
    };
    let cloned = datasets.clone_fscomp(&dataset, &name, new);
    if cloned.is_err() && snapshot.is_none() {
        Datasets::remove_snapshot(&dataset, &name).map_err(doing())?;
    }
    cloned.map_err(doing())?;
    Ok(0)
}

/// Writes a snapshot of a volume to stdout.
pub(super) fn send(context: &Context, of: &Of, snapshot: Option<&str>, from: Option<&str>) -> Result<u8> {
    let (_, dataset) = find(context, of, "a stream")?;
    if std::io::stdout().is_terminal() {
        return Err(Error::caller("a stream is not for a terminal: send it to a file or to a receive"));
    }
    let from = from.map(|from| there(&dataset, from)).transpose()?;
    let name = match snapshot {
        Some(name) => there(&dataset, name)?.to_string(),
        None => {
            let all = Datasets::snapshots(&dataset).map_err(failed(format!("list snapshots of {of}")))?;
            let latest = all.into_iter().next_back();
            latest.ok_or_else(|| Error::caller(format!("{of} has no snapshot: first potrun fscomp snapshot")))?.name
        }
    };
    Datasets::send(&dataset, &name, from).map_err(failed(format!("send {of}")))?;
    Ok(0)
}

/// Makes a volume of the stream on stdin, or brings it up to date.
pub(super) fn receive(context: &Context, name: &str, discard: bool) -> Result<u8> {
    let storage = this::facts::storage(&context.store);
    let datasets = storage.needs_datasets("a stream")?;
    if std::io::stdin().is_terminal() {
        return Err(Error::caller("a stream does not come from a terminal"));
    }
    unused(&storage, name)?;
    if discard {
        let of = Of::Fscomp(name.into());
        let (_, dataset) = find(context, &of, "a stream")?;
        Datasets::roll_back(&dataset, None, false).map_err(failed(format!("go back to a snapshot of {of}")))?;
    }
    datasets.receive(name).map_err(failed(format!("receive fscomp {name}")))?;
    Ok(0)
}

/// The store of this host, and the dataset that is meant.
fn find(context: &Context, of: &Of, what: &str) -> Result<(Storage, String)> {
    let storage = this::facts::storage(&context.store);
    let found = storage.needs_datasets(what)?.dataset_of(of).map_err(failed(format!("look at {of}")))?;
    let dataset = found.ok_or_else(|| Error::caller(format!("{of} does not exist, or is no dataset of its own")))?;
    Ok((storage, dataset))
}

/// The name of a snapshot that is there.
fn there<'a>(dataset: &str, name: &'a str) -> Result<&'a str> {
    checked(name)?;
    let all = Datasets::snapshots(dataset).map_err(failed(format!("list snapshots of {dataset}")))?;
    if all.iter().any(|one| one.name == name) {
        Ok(name)
    } else {
        Err(Error::caller(format!("there is no snapshot {name} of {dataset}")))
    }
}

/// `NAME` or `NAME@SNAPSHOT`.
pub(super) fn split(text: &str) -> Result<(Of, Option<&str>)> {
    let (name, snapshot) = text.split_once('@').map_or((text, None), |(name, snapshot)| (name, Some(snapshot)));
    Ok((of(None, Some(name))?, snapshot.map(checked).transpose()?))
}

fn checked(name: &str) -> Result<&str> {
    if is_snapshot(name) { Ok(name) } else { Err(Error::caller(format!("{name:?} is not a name of a snapshot"))) }
}

fn failed(doing: String) -> impl FnOnce(Trouble) -> Error {
    move |trouble| Error::operator(doing).because(trouble)
}
