//! Volumes as datasets of pot's store, `<POT_ZFS_ROOT>/fscomp/NAME`: pot has the same ones.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::settings::{self, Settings};

use super::zfs::{self, words, zfs};

/// Makes an empty volume.
///
/// # Errors
/// `AlreadyExists`, or zfs(8)'s words.
pub fn create(_: &Path, name: &str) -> io::Result<()> {
    let settings = Settings::installed(&settings::POT);
    let dataset = format!("{}/fscomp/{name}", settings.dataset);
    let all = super::bases::Datasets { store: settings.dataset, path: settings.path };
    all.lay_out().map_err(io::Error::other)?;
    zfs::create(&dataset, &BTreeMap::new()).map_err(|e| match e.to_string() {
        text if text.contains("dataset already exists") => io::ErrorKind::AlreadyExists.into(),
        text => io::Error::other(text),
    })
}

/// The names of all volumes.
///
/// # Errors
/// zfs(8)'s words.
pub fn names(_: &Path) -> io::Result<Vec<String>> {
    let all = format!("{}/fscomp", Settings::installed(&settings::POT).dataset);
    match zfs(&words(&["list", "-H", "-o", "name", "-d", "1", "-t", "filesystem", &all])) {
        Err(e) if zfs::missing(&e) => Ok(Vec::new()),
        other => {
            let listed = other.map_err(io::Error::other)?;
            Ok(listed
                .lines()
                .filter_map(|line| Some(line.strip_prefix(&all)?.strip_prefix('/')?.to_string()))
                .collect())
        }
    }
}

/// Removes an empty volume.
///
/// # Errors
/// `NotFound`, `DirectoryNotEmpty`, or zfs(8)'s words: snapshots, clones, somebody in it.
pub fn remove(_: &Path, name: &str) -> io::Result<()> {
    let settings = Settings::installed(&settings::POT);
    let dataset = format!("{}/fscomp/{name}", settings.dataset);
    let at = zfs::mountpoints(std::slice::from_ref(&dataset)).map_err(io::Error::other)?;
    let at = at.get(&dataset).ok_or(io::ErrorKind::NotFound)?;
    if fs::read_dir(at)?.next().is_some() {
        return Err(io::ErrorKind::DirectoryNotEmpty.into());
    }
    zfs(&words(&["destroy", &dataset])).map(drop).map_err(io::Error::other)
}
