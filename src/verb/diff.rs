//! `diff`: the paths of a pot that have changed since it was created.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::bundle::Bundle;
use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::facts::Facts;
use crate::files::Change;
use crate::host::this;
use crate::id::ContainerId;
use crate::op::Op;
use crate::plan;
use crate::state::{Record, Status};
use crate::store::Store;

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// Lines, or JSON
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Form,
    /// The container
    id: String,
}

/// How changes are told.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Form {
    /// `A PATH`, `C PATH`, `D PATH`: added, changed, deleted.
    #[default]
    Text,
    /// The same as an array.
    Json,
}

/// A change as JSON has it.
#[derive(Serialize)]
struct Told {
    kind: char,
    path: String,
}

impl cli::Run for Diff {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let id = super::id(&self.id)?;
        let (entry, record, status) = super::find_made(&Store::at(&context.root), &id)?;
        // A clone changes what it lies on.
        let _lock = if status == Status::Stopped { Some(entry.lock()?) } else { None };
        let bundle = super::saved(&entry, &record)?;
        if bundle.pot.as_ref().is_none_or(|pot| pot.base.is_none()) {
            let error = Error::caller("it has no base: what its root held at create is not known");
            return Err(error.hint("only pots with /pot/base can be compared"));
        }
        let told: Vec<Told> = changes(context, &bundle, &record)?
            .into_iter()
            .map(|(kind, path)| Told { kind: kind.letter(), path: path.to_string_lossy().into_owned() })
            .collect();
        match self.format {
            Form::Json => {
                super::print(&(serde_json::to_string_pretty(&told).doing(|| "write JSON")? + "\n"))?;
            }
            Form::Text => {
                let line = |one: &Told| format!("{} {}\n", one.kind, one.path.escape_debug());
                super::print(&told.iter().map(line).collect::<String>())?;
            }
        }
        Ok(0)
    }
}

/// What has changed, by path, without what create itself has made and nobody has touched since.
fn changes(context: &Context, bundle: &Bundle, record: &Record) -> Result<Vec<(Change, PathBuf)>> {
    let made = made(bundle, record, &record.id);
    let created = humantime::parse_rfc3339(&record.created).unwrap_or(SystemTime::UNIX_EPOCH);
    let all = this::facts::storage(&context.store).changes(record);
    let all = all.map_err(|e| Error::operator("compare it with its base").because(e))?;
    let mut kept: Vec<(Change, PathBuf)> = all
        .into_iter()
        .filter(|one| one.kind == Change::Deleted || one.at > created || !made.contains(&one.path))
        .map(|one| (one.kind, one.path))
        .collect();
    kept.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(kept)
}

/// The paths that create makes by itself, with the directories that lead there: mount points, devices, files of names.
fn made(bundle: &Bundle, record: &Record, id: &ContainerId) -> BTreeSet<PathBuf> {
    // What is different on this machine is not about paths. A plan that fails all the same hides nothing.
    let ops = plan::plan(bundle, &Facts::assumed(record.os, bundle), id).map(|plan| plan.ops).unwrap_or_default();
    let inner = ops.iter().flat_map(|op| match op {
        Op::Spawn(spawn) => spawn.create.as_slice(),
        _ => &[],
    });
    let mut all = BTreeSet::from([PathBuf::from("/")]);
    for op in ops.iter().chain(inner) {
        let path = match op {
            Op::HostTarget { mount, .. } | Op::HostMount { mount, .. } | Op::Mount(mount) => &mount.target,
            Op::WriteFile { path, .. } | Op::Link { path, .. } | Op::CreateCwd { path } => path,
            Op::CreateNode(node) => &node.path,
            Op::BindConsole => Path::new("/dev/console"),
            _ => continue,
        };
        all.extend(path.ancestors().map(Path::to_owned));
    }
    all
}
