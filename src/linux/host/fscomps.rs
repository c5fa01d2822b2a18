//! Volumes as directories of the store.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes an empty volume.
///
/// # Errors
/// `AlreadyExists`, or the kernel's words.
pub fn create(store: &Path, name: &str) -> io::Result<()> {
    let all = store.join("fscomps");
    DirBuilder::new().mode(0o700).recursive(true).create(&all)?;
    DirBuilder::new().mode(0o755).create(all.join(name))
}

/// The names of all volumes.
///
/// # Errors
/// The kernel's words.
pub fn names(store: &Path) -> io::Result<Vec<String>> {
    let all = match fs::read_dir(store.join("fscomps")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    all.map(|item| Ok(item?.file_name().display().to_string())).collect()
}

/// Removes an empty volume.
///
/// # Errors
/// `NotFound`, `DirectoryNotEmpty`, or the kernel's words.
pub fn remove(store: &Path, name: &str) -> io::Result<()> {
    fs::remove_dir(store.join("fscomps").join(name))
}
