//! The seam of storage: bases, volumes and the roots of pots are kept by one of two drivers, [`Store`].
//!
//! Which one is found out once, by the system's `facts::storage`, and `potrun info` says why. What is said here of
//! volumes and bases is then done by the driver: datasets ([`Datasets`]), or directories.

use std::fs::{self, DirBuilder};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::base::{self, Bases, UnpackError, UnpackOptions, Unpacked};
use crate::error::Error;
use crate::facts::Store;
use crate::files::Changed;
use crate::id::ContainerId;
use crate::state::Record;

use super::zfs::Datasets;
use super::{Trouble, this};

/// What is left for a container that is still to come.
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    /// The container.
    pub id: &'a ContainerId,
    /// Its state directory, which is not there yet.
    pub owner: &'a Path,
    /// The base that its root lies on.
    pub base: &'a str,
    /// Bytes that it may have over its base.
    pub disk: Option<u64>,
}

/// Where bases, volumes and pots are kept.
#[derive(Clone, Debug)]
pub struct Storage {
    /// The driver, and the place.
    pub store: Store,
    /// The directory of what no dataset keeps: downloads, bridges.
    pub directory: PathBuf,
    /// Why it is this one.
    pub why: String,
}

/// What `--store` begins with where a dataset is meant.
const DATASET: &str = "zfs:";

/// The dataset that `--store` names, if it is one: `zfs:tank/pot`.
#[must_use]
pub fn dataset(store: &Path) -> Option<&str> {
    store.to_str()?.strip_prefix(DATASET)
}

impl Storage {
    /// Datasets.
    #[must_use]
    pub fn zfs(datasets: Datasets, directory: PathBuf, why: impl Into<String>) -> Self {
        let Datasets { store: dataset, path } = datasets;
        Self { store: Store::Zfs { dataset, path }, directory, why: why.into() }
    }

    /// Directories.
    #[must_use]
    pub fn overlay(directory: PathBuf, why: impl Into<String>) -> Self {
        Self { store: Store::Overlay { path: directory.clone() }, directory, why: why.into() }
    }

    /// The datasets, if that is the driver.
    #[must_use]
    pub fn datasets(&self) -> Option<Datasets> {
        match &self.store {
            Store::Zfs { dataset, path } => Some(Datasets { store: dataset.clone(), path: path.clone() }),
            Store::Overlay { .. } => None,
        }
    }

    /// The datasets, for what directories cannot do.
    ///
    /// # Errors
    /// The driver is another one.
    pub fn needs_datasets(&self, what: &str) -> Result<Datasets, Error> {
        let why = || format!("the store is {}: {}", self.directory.display(), self.why);
        self.datasets()
            .ok_or_else(|| Error::caller(format!("{what} needs a ZFS store: directories cannot do this")).hint(why()))
    }

    /// The bases.
    #[must_use]
    pub fn bases(&self) -> Bases {
        match self.datasets() {
            Some(datasets) => Bases::kept(Box::new(datasets), &self.directory),
            None => Bases::at(&self.directory),
        }
    }

    /// Makes an empty volume, which may have so many bytes.
    ///
    /// # Errors
    /// `AlreadyExists`, `Unsupported`: it cannot have a limit, or the kernel's or zfs(8)'s words.
    pub fn create_fscomp(&self, name: &str, quota: Option<u64>) -> io::Result<()> {
        if let Some(datasets) = self.datasets() {
            return datasets.create_fscomp(name, quota);
        }
        let all = self.directories();
        if quota.is_some() && !this::files::can_limit(&self.directory) {
            let what = "needs a ZFS store, or one on a file system that keeps project quotas (prjquota)";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        DirBuilder::new().mode(0o700).recursive(true).create(&all)?;
        let path = all.join(name);
        DirBuilder::new().mode(0o755).create(&path)?;
        let limited = quota.map_or(Ok(()), |bytes| this::files::limit(&path, bytes));
        limited.or_else(|e| fs::remove_dir(&path).and(Err(e)))
    }

    /// Says how many bytes a volume may have.
    ///
    /// # Errors
    /// `NotFound`, or the kernel's or zfs(8)'s words.
    pub fn limit_fscomp(&self, name: &str, quota: u64) -> io::Result<()> {
        match self.datasets() {
            Some(datasets) => datasets.limit_fscomp(name, quota),
            None => this::files::limit_anew(&self.directories().join(name), quota),
        }
    }

    /// The names of all volumes.
    ///
    /// # Errors
    /// The kernel's or zfs(8)'s words.
    pub fn fscomps(&self) -> io::Result<Vec<String>> {
        if let Some(datasets) = self.datasets() {
            return datasets.fscomps();
        }
        let all = match fs::read_dir(self.directories()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        all.map(|item| Ok(item?.file_name().display().to_string())).collect()
    }

    /// Removes an empty volume.
    ///
    /// # Errors
    /// `NotFound`, `DirectoryNotEmpty`, or the kernel's or zfs(8)'s words.
    pub fn remove_fscomp(&self, name: &str) -> io::Result<()> {
        match self.datasets() {
            Some(datasets) => datasets.remove_fscomp(name),
            None => {
                let path = self.directories().join(name);
                if fs::read_dir(&path)?.next().is_some() {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                this::files::unlimit(&path)?;
                fs::remove_dir(path)
            }
        }
    }

    /// The directory that a volume is seen at, there or not.
    #[must_use]
    pub fn fscomp(&self, name: &str) -> PathBuf {
        match &self.store {
            Store::Zfs { path, .. } => path.join("fscomp").join(name),
            Store::Overlay { .. } => self.directories().join(name),
        }
    }

    fn directories(&self) -> PathBuf {
        self.directory.join("fscomps")
    }

    /// Whether something is kept for the container `id`: of an earlier one, or left by a clone or an import.
    ///
    /// # Errors
    /// The kernel's or zfs(8)'s words.
    pub fn has_left(&self, id: &ContainerId) -> Result<bool, Trouble> {
        match self.datasets() {
            Some(datasets) => datasets.has_pot(id),
            None => Ok(this::files::has_layer(&self.directory, id)?),
        }
    }

    /// Whether something is kept for the container `id` that is whole.
    ///
    /// # Errors
    /// The kernel's or zfs(8)'s words.
    pub fn keeps(&self, id: &ContainerId) -> Result<bool, Trouble> {
        match self.datasets() {
            Some(datasets) => datasets.keeps(id),
            // It gets its name when it is.
            None => Ok(this::files::has_layer(&self.directory, id)?),
        }
    }

    /// Writes what a pot has over its base as a layer of an OCI image.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn pack_pot(&self, record: &Record, base: &str, to: impl Write) -> Result<Unpacked, Trouble> {
        match self.datasets() {
            Some(datasets) => Ok(datasets.pack_pot(&record.id, base, to)?),
            None => Ok(base::pack_upper(&this::files::own_layers(record)?, to)?),
        }
    }

    /// Leaves such a layer for a container that is still to come.
    ///
    /// # Errors
    /// The kernel's or zfs(8)'s words, or what is wrong with the layer; then there is nothing new.
    pub fn unpack_pot(
        &self,
        left: &Left<'_>,
        read: impl FnOnce(&mut dyn FnMut(&mut dyn Read) -> Result<Unpacked, UnpackError>) -> Result<Unpacked, UnpackError>,
    ) -> Result<Unpacked, Trouble> {
        // No device nodes: whoever made the file could name any disk of this host.
        let options = UnpackOptions::default();
        let mut done = Unpacked::default();
        match self.datasets() {
            Some(datasets) => datasets.leave_pot(left, |to| {
                done = read(&mut |input| base::extract_over(input, to, &options))?;
                Ok(())
            }),
            None => this::files::leave_layer(&self.directory, left, |to| {
                done = read(&mut |input| base::extract_upper(input, to, &options))?;
                Ok(())
            }),
        }?;
        Ok(done)
    }

    /// What has changed in a pot since it was cloned from its base, create's own work included.
    ///
    /// # Errors
    /// The kernel's or zfs(8)'s words.
    pub fn changes(&self, record: &Record) -> Result<Vec<Changed>, Trouble> {
        match self.datasets() {
            Some(datasets) => datasets.changes(&record.id),
            None => this::files::changes(record),
        }
    }

    /// Destroys what outlived the container `id`. Whether there was something.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn forget(&self, id: &ContainerId) -> Result<bool, Error> {
        let done = self.datasets().map(|datasets| datasets.forget(id)).transpose();
        let done = done.map_err(|e| Error::operator(format!("destroy what {id} left")).because(e))?;
        Ok(done.unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_is_named_by_its_prefix() {
        assert_eq!(dataset(Path::new("zfs:tank/pot")), Some("tank/pot"));
        assert_eq!(dataset(Path::new("/var/lib/potrun")), None);
    }
}
