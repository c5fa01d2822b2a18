//! Volumes as datasets of pot's store, `<POT_ZFS_ROOT>/fscomp/NAME`: pot has the same ones.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use super::{Datasets, missing, words, zfs};

impl Datasets {
    pub(super) fn fscomp(&self, name: &str) -> String {
        format!("{}/fscomp/{name}", self.store)
    }

    /// Makes an empty volume, which may have so many bytes.
    ///
    /// # Errors
    /// `AlreadyExists`, or zfs(8)'s words.
    pub fn create_fscomp(&self, name: &str, quota: Option<u64>) -> io::Result<()> {
        self.lay_out().map_err(io::Error::other)?;
        let properties: BTreeMap<_, _> =
            quota.map(|bytes| ("refquota".into(), bytes.to_string())).into_iter().collect();
        super::create(&self.fscomp(name), &properties).map_err(|e| match e.to_string() {
            text if text.contains("dataset already exists") => io::ErrorKind::AlreadyExists.into(),
            text => io::Error::other(text),
        })
    }

    /// Says how many bytes a volume may have.
    ///
    /// # Errors
    /// `NotFound`, or zfs(8)'s words.
    pub fn limit_fscomp(&self, name: &str, quota: u64) -> io::Result<()> {
        match zfs(&words(&["set", &format!("refquota={quota}"), &self.fscomp(name)])) {
            Err(e) if missing(&e) => Err(io::ErrorKind::NotFound.into()),
            other => other.map(drop).map_err(io::Error::other),
        }
    }

    /// The names of all volumes.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn fscomps(&self) -> io::Result<Vec<String>> {
        let all = format!("{}/fscomp", self.store);
        match zfs(&words(&["list", "-H", "-o", "name", "-d", "1", "-t", "filesystem", &all])) {
            Err(e) if missing(&e) => Ok(Vec::new()),
            other => {
                let listed = other.map_err(io::Error::other)?;
                let name = |line: &str| Some(line.strip_prefix(&all)?.strip_prefix('/')?.to_string());
                Ok(listed.lines().filter_map(name).collect())
            }
        }
    }

    /// Removes an empty volume.
    ///
    /// # Errors
    /// `NotFound`, `DirectoryNotEmpty`, or zfs(8)'s words: snapshots, clones, somebody in it.
    pub fn remove_fscomp(&self, name: &str) -> io::Result<()> {
        let dataset = self.fscomp(name);
        let mut at = super::mountpoints(std::slice::from_ref(&dataset)).map_err(io::Error::other)?;
        let at = at.remove(&dataset).ok_or(io::ErrorKind::NotFound)?;
        let at =
            at.ok_or_else(|| io::Error::other(format!("{dataset} is not mounted: what is in it cannot be seen")))?;
        if fs::read_dir(at)?.next().is_some() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        zfs(&words(&["destroy", &dataset])).map(drop).map_err(io::Error::other)
    }
}
