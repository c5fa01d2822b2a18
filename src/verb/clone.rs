//! `clone`: a new bundle with the data of a container.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;

use crate::base::{Source, UnpackOptions, copy};
use crate::bundle::Bundle;
use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::host::storage::Left;
use crate::host::this;
use crate::id::ContainerId;
use crate::state::{Record, Status};
use crate::store::{Entry, Lock, Store};

use super::making::Making;

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
        let (entry, record, lock) = still(context, &self.id)?;
        let bundle = super::saved(&entry, &record)?;
        free(context, &new)?;
        let dir = self.bundle.clone().unwrap_or_else(|| new.as_str().into());
        let storage = this::facts::storage(&context.store);
        let made = Making::bundle(&storage, &dir)?;
        let base = bundle.pot.as_ref().and_then(|pot| pot.base.as_ref());
        if let Some(base) = base {
            made.config(&bundle.config)?;
            let owner = context.root.join(new.as_str());
            let disk = bundle.pot.as_ref().and_then(|pot| pot.limits.disk);
            let left = Left { id: &new, owner: &owner, base: &base.release, disk };
            match storage.datasets() {
                Some(datasets) => {
                    made.finish_with_data(&storage, &new, || datasets.clone_pot(&record.id, &left))?;
                }
                None => {
                    let steps = this::files::cloning(&storage.directory, &record, &left);
                    let steps =
                        steps.map_err(|e| Error::operator(format!("look at what {} has", self.id)).because(e))?;
                    made.finish_by(&steps, lock)?;
                }
            }
        } else {
            let (name, from) = rootfs(&bundle)?;
            let from = fs::File::open(&from).doing(|| format!("open {}", from.display()))?;
            let to = made.root(&name)?;
            let source = Source { dir: from.as_fd(), name: b".", to: b"." };
            let options = UnpackOptions { allow_devices: true, ..UnpackOptions::default() };
            copy(source, to.as_fd(), &options).map_err(|e| Error::operator("copy the root").because(e))?;
            made.config(&bundle.config)?;
            made.finish()?;
        }
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
