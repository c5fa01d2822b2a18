//! `clone`: a new bundle with the data of a container.

use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::base::{Source, UnpackOptions, copy, remove_tree};
use crate::bundle::Bundle;
use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::host::storage::Left;
use crate::host::this;
use crate::id::ContainerId;
use crate::state::{Record, Status};
use crate::store::{Entry, Lock, Store};

/// Arguments of `clone`.
#[derive(Debug, Args)]
pub struct Clone {
    /// Directory of the new bundle; default: the new id
    #[arg(short, long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// The container, which must not run at this moment
    id: String,
    /// The container that the new bundle is for
    #[arg(value_name = "NEW")]
    new: String,
}

impl cli::Run for Clone {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let new = super::id(&self.new)?;
        let (entry, record, _lock) = still(context, &self.id)?;
        let bundle = super::saved(&entry, &record)?;
        free(context, &new)?;
        let dir = self.bundle.clone().unwrap_or_else(|| new.as_str().into());
        let mut made = NewBundle::make(&dir)?;
        let base = bundle.pot.as_ref().and_then(|pot| pot.base.as_ref());
        if let Some(base) = base {
            let owner = context.root.join(new.as_str());
            let disk = bundle.pot.as_ref().and_then(|pot| pot.limits.disk);
            let left = Left { id: &new, owner: &owner, base: &base.release, disk };
            this::facts::storage(&context.store)
                .clone_pot(&record, &left)
                .map_err(|e| Error::operator(format!("leave its data for {new}")).because(e))?;
            made.write_for(&bundle.config, context, &new)?;
        } else {
            let (name, from) = rootfs(&bundle)?;
            let from = fs::File::open(&from).doing(|| format!("open {}", from.display()))?;
            let to = made.directory(&name)?;
            let source = Source { dir: from.as_fd(), name: b".", to: b"." };
            let options = UnpackOptions { allow_devices: true, ..UnpackOptions::default() };
            copy(source, to.as_fd(), &options).map_err(|e| Error::operator("copy the root").because(e))?;
            made.write(&bundle.config)?;
        }
        made.keep();
        Ok(0)
    }
}

/// A container that nobody changes: it does not run, or is paused; with its lock.
pub(super) fn still(context: &Context, id: &str) -> Result<(Entry, Record, Lock)> {
    let id = super::id(id)?;
    let store = Store::at(&context.root);
    let lock = store.find(&id)?.lock()?;
    let (entry, record, status) = super::find_made(&store, &id)?;
    if status == Status::Running {
        let error = Error::caller("it runs, and what it writes meanwhile would be half there");
        return Err(error.hint(format!("first: potrun pause {id}")));
    }
    Ok((entry, record, lock))
}

/// Refuses an id that a container or something left has.
pub(super) fn free(context: &Context, id: &ContainerId) -> Result<()> {
    if Store::at(&context.root).find(id).is_ok() {
        return Err(Error::caller(format!("container {id} exists")));
    }
    let left = this::facts::storage(&context.store).has_left(id);
    if left.map_err(|e| Error::operator(format!("look for what {id} left")).because(e))? {
        let error = Error::caller(format!("there is data of {id} already"));
        return Err(error.hint(format!("potrun delete --data {id} removes it")));
    }
    Ok(())
}

/// The root of a bundle without a base: a directory of the bundle itself, by its name there and its path.
pub(super) fn rootfs(bundle: &Bundle) -> Result<(PathBuf, PathBuf)> {
    let name = bundle.spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
    let plain =
        name.components().count() == 1 && matches!(name.components().next(), Some(std::path::Component::Normal(_)));
    if !plain {
        return Err(Error::caller(format!("/root/path, {}, is no directory of the bundle itself", name.display())));
    }
    let name: PathBuf = name.components().collect();
    let path = bundle.dir.join(&name);
    Ok((name, path))
}

/// A bundle in the making, of which nothing is left unless it is kept.
pub(super) struct NewBundle {
    dir: PathBuf,
    /// Whether the directory is new.
    own: bool,
    /// What was made in it.
    made: Vec<CString>,
}

impl NewBundle {
    /// Makes the directory.
    pub(super) fn make(dir: &Path) -> Result<Self> {
        let made = DirBuilder::new().mode(0o700).create(dir);
        made.doing(|| format!("make directory {}", dir.display()))?;
        Ok(Self { dir: dir.into(), own: true, made: Vec::new() })
    }

    /// Takes a directory that has no config.json.
    pub(super) fn in_directory(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        if path.symlink_metadata().is_ok() {
            return Err(Error::caller(format!("{} exists; it is left alone", path.display())));
        }
        Ok(Self { dir: dir.into(), own: false, made: Vec::new() })
    }

    /// Makes a directory in it.
    pub(super) fn directory(&mut self, name: &Path) -> Result<fs::File> {
        let path = self.dir.join(name);
        fs::create_dir(&path).doing(|| format!("make directory {}", path.display()))?;
        self.made.extend(CString::new(name.as_os_str().as_bytes()));
        fs::File::open(&path).doing(|| format!("open {}", path.display()))
    }

    /// The same where data was left for container `id`: which goes again if that fails.
    pub(super) fn write_for(&mut self, config: &[u8], context: &Context, id: &ContainerId) -> Result<()> {
        self.write(config).map_err(|error| match this::facts::forget(&context.store, id) {
            Ok(_) => error,
            Err(e) => error.hint(format!("left: {}", e.chain())),
        })
    }

    /// Writes its config.json: last of all, for a directory without it is no bundle.
    pub(super) fn write(&mut self, config: &[u8]) -> Result<()> {
        let path = self.dir.join("config.json");
        let part = self.dir.join("config.json.part");
        self.made.push(c"config.json.part".into());
        fs::write(&part, config).doing(|| format!("write {}", part.display()))?;
        self.made.push(c"config.json".into());
        fs::rename(&part, &path).doing(|| format!("write {}", path.display()))
    }

    /// It is whole.
    pub(super) fn keep(mut self) {
        self.made.clear();
        self.own = false;
    }
}

impl Drop for NewBundle {
    fn drop(&mut self) {
        // An error is on its way already.
        if let Ok(dir) = fs::File::open(&self.dir) {
            self.made.iter().for_each(|name| remove_tree(dir.as_fd(), name).unwrap_or_default());
        }
        if self.own {
            fs::remove_dir(&self.dir).unwrap_or_default();
        }
    }
}
