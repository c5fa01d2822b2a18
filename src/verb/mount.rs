//! `mount-in` and `mount-out`: directories and files of the host in a container that runs.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::apply::apply;
use crate::bundle::pot::is_name;
use crate::bundle::{Bundle, edit};
use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::facts::Os;
use crate::host::{Host, This, this};
use crate::op::{Mount, Op};
use crate::state::{Record, Status};
use crate::store::{Entry, Lock, Store};

/// Arguments of `mount-in`.
#[derive(Debug, Args)]
pub struct MountIn {
    /// Only to be read
    #[arg(long, visible_alias = "readonly")]
    ro: bool,
    /// Write it into the bundle's config.json, too
    #[arg(long)]
    save: bool,
    /// SRC is the name of a volume
    #[arg(short, long)]
    fscomp: bool,
    /// The container
    id: String,
    /// Directory or file of the host
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// Where it is mounted in the container
    #[arg(value_name = "DST")]
    target: PathBuf,
}

/// Arguments of `mount-out`.
#[derive(Debug, Args)]
pub struct MountOut {
    /// Take it out of the bundle's config.json, too
    #[arg(long)]
    save: bool,
    /// The container
    id: String,
    /// Where it is mounted in the container
    #[arg(value_name = "DST")]
    target: PathBuf,
}

impl cli::Run for MountIn {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let what = if self.fscomp { Source::fscomp(context, &self.source)? } else { Source::host(&self.source)? };
        let source = what.path.clone();
        let target = target(&self.target)?;
        let (entry, record, _lock) = running(context, &self.id)?;
        let save = if self.save { Some(Saved::with(&record, &what, &target, self.ro)?) } else { None };
        let mut journal = entry.journal()?;
        if journal.pending().iter().any(|(_, op)| unmounts(op).is_some_and(|mount| mount.target == target)) {
            return Err(Error::caller(format!("something is mounted on {} already", target.display())));
        }
        let doing = || format!("mount {} on {}", source.display(), target.display());
        let op = this::files::mounting(&record, source.clone(), target.clone(), self.ro).doing(doing)?;
        let mut host = This::new();
        apply(&mut host, &mut journal, &[op]).map_err(|e| Error::operator(e.what).because(e.source))?;
        if let Some(Err(error)) = save.map(|saved| saved.write()) {
            let Some((n, undo)) = journal.pending().pop() else { return Err(error) };
            return Err(match host.run(&undo) {
                Ok(()) => {
                    journal.strike(n).doing(|| "write the journal")?;
                    error
                }
                Err(e) => error.hint(format!("left: {undo} failed: {}", crate::error::chain(&*e))),
            });
        }
        Ok(0)
    }
}

impl cli::Run for MountOut {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let target = target(&self.target)?;
        let (entry, record, _lock) = running(context, &self.id)?;
        let mut journal = entry.journal()?;
        let found = journal.pending().into_iter().rev();
        let found = found.into_iter().find(|(_, op)| unmounts(op).is_some_and(|mount| mount.target == target));
        let (n, op) = match (found, this::files::unmounting(&record, &target)) {
            (Some((n, op)), _) => (Some(n), op),
            (None, Some(op)) => (None, op),
            (None, None) => {
                let what = format!("nothing of the host was mounted on {}", target.display());
                return Err(Error::caller(what));
            }
        };
        let save = if self.save { Some(Saved::without(&record, &target)?) } else { None };
        This::new().run(&op).map_err(|e| Error::operator(op.to_string()).because(e))?;
        if let Some(n) = n {
            journal.strike(n).doing(|| "write the journal")?;
        }
        save.map_or(Ok(()), |saved| saved.write())?;
        Ok(0)
    }
}

/// What is mounted.
struct Source {
    path: PathBuf,
    /// Its name, where it is a volume.
    fscomp: Option<String>,
}

impl Source {
    fn host(path: &Path) -> Result<Self> {
        let path = path.canonicalize().doing(|| format!("look for {}", path.display()))?;
        Ok(Self { path, fscomp: None })
    }

    fn fscomp(context: &Context, name: &Path) -> Result<Self> {
        let name = name.to_str().filter(|name| is_name(name));
        let name = name.ok_or_else(|| Error::caller("SRC is not a name of an fscomp"))?;
        let path = this::facts::storage(&context.store).fscomp(name);
        if !path.is_dir() {
            return Err(Error::caller(format!("fscomp {name} does not exist")));
        }
        Ok(Self { path, fscomp: Some(name.into()) })
    }
}

/// The mount of the host that an op takes away.
fn unmounts(op: &Op) -> Option<&Mount> {
    match op {
        Op::HostUnmount { mount, .. } | Op::UnmountFrom { mount, .. } => Some(mount),
        _ => None,
    }
}

/// An absolute path below the root, without what would make two names of one place.
fn target(path: &Path) -> Result<PathBuf> {
    let plain = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    let path: PathBuf = path.components().collect();
    if path.is_absolute() && plain && path != Path::new("/") {
        return Ok(path);
    }
    Err(Error::caller(format!("{} is no absolute path below /", path.display())))
}

/// A container with a process, and its lock.
fn running(context: &Context, id: &str) -> Result<(Entry, Record, Lock)> {
    let id = super::id(id)?;
    let store = Store::at(&context.root);
    let lock = store.find(&id)?.lock()?;
    let (entry, record, status) = super::find_made(&store, &id)?;
    if status == Status::Stopped {
        let error = Error::caller("the container is stopped");
        return Err(error.hint("directories of its next create are in /pot/directories of its config.json"));
    }
    Ok((entry, record, lock))
}

/// A config.json that is to be written.
struct Saved {
    path: PathBuf,
    text: Vec<u8>,
}

impl Saved {
    /// The bundle's, with one more directory or volume.
    fn with(record: &Record, source: &Source, target: &Path, readonly: bool) -> Result<Self> {
        let (Some(path), Some(destination)) = (source.path.to_str(), target.to_str()) else {
            return Err(Error::caller("a path that is no text cannot be saved in config.json"));
        };
        let list = if source.fscomp.is_some() { "fscomps" } else { "directories" };
        Self::edited(record, list, |is_pot, all| {
            let same = |one: &Value| one["destination"].as_str() == Some(destination);
            if all.iter().any(same) {
                return Err(format!("config.json mounts something on {destination} already"));
            }
            all.push(match &source.fscomp {
                Some(name) if is_pot => json!({"name": name, "destination": destination, "readonly": readonly}),
                None if is_pot => json!({"source": path, "destination": destination, "readonly": readonly}),
                _ => {
                    let kind = if record.os == Os::Freebsd { "nullfs" } else { "bind" };
                    let mut options = if record.os == Os::Freebsd { vec![] } else { vec!["rbind", "rprivate"] };
                    options.extend(readonly.then_some("ro"));
                    json!({"destination": destination, "type": kind, "source": path, "options": options})
                }
            });
            Ok(())
        })
    }

    /// The bundle's, with one directory or volume less.
    fn without(record: &Record, target: &Path) -> Result<Self> {
        let there = |one: &Value| one["destination"].as_str().map(Path::new) == Some(target);
        let bundle = Bundle::read(&record.bundle).map_err(super::refused)?;
        let is_fscomp = bundle.pot.iter().flat_map(|pot| &pot.fscomps).any(|one| one.destination == target);
        Self::edited(record, if is_fscomp { "fscomps" } else { "directories" }, |_, all| {
            let count = all.len();
            all.retain(|one| !there(one));
            if all.len() < count { Ok(()) } else { Err(format!("config.json mounts nothing on {}", target.display())) }
        })
    }

    /// The bundle's config.json with a changed list of its pot, or changed mounts where it is no pot. What comes of it must
    /// be a bundle.
    fn edited(
        record: &Record,
        list: &str,
        change: impl FnOnce(bool, &mut Vec<Value>) -> std::result::Result<(), String>,
    ) -> Result<Self> {
        let path = record.bundle.join("config.json");
        let bundle = Bundle::read(&record.bundle).map_err(super::refused)?;
        let is_pot = bundle.pot.is_some();
        if is_pot && bundle.pot_at() != "/pot" {
            return Err(Error::caller(format!("the pot section of {} is an annotation", path.display())));
        }
        let at: &[&str] = if is_pot { &["pot", list] } else { &["mounts"] };
        let mut refused = Ok(());
        let text = edit::array(&bundle.config, at, |all| refused = change(is_pot, all));
        refused.map_err(Error::caller)?;
        let text = text.doing(|| format!("change {}", path.display()))?;
        Bundle::parse(record.bundle.clone(), text.clone()).map_err(|e| super::refused(e.into()))?;
        Ok(Self { path, text })
    }

    /// Writes it, all at once, with the mode that it has.
    fn write(&self) -> Result<()> {
        let part = self.path.with_extension("json.part");
        let write = || {
            let mode = fs::metadata(&self.path)?.permissions().mode() & 0o7777;
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&part)?;
            file.write_all(&self.text)?;
            file.sync_all()?;
            fs::rename(&part, &self.path)
        };
        write().doing(|| format!("write {}", self.path.display()))
    }
}
