//! The files of a container, for verbs of the host: as its processes see them. They are mounted from create to delete.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use crate::files::{Changed, Tree};
use crate::freebsd::mounts;
use crate::host::Trouble;
use crate::host::storage::Left;
use crate::id::ContainerId;
use crate::op::Op;
use crate::state::{Record, Status};

use super::beneath::{self, Missing};

/// The root of a container, which its links do not lead out of.
#[derive(Debug)]
pub struct Root(PathBuf);

impl Root {
    /// Of a container in any state.
    ///
    /// # Errors
    /// None.
    pub fn of(record: &Record, _: Status) -> Result<Self, Trouble> {
        Ok(Self(record.rootfs.clone()))
    }
}

/// The step that mounts a directory or file of the host in a container that runs.
///
/// # Errors
/// The kernel's words.
pub fn mounting(record: &Record, source: PathBuf, target: PathBuf, readonly: bool) -> io::Result<Op> {
    let before = super::mount::beneath(&record.rootfs)?;
    Ok(Op::HostMount { root: record.rootfs.clone(), mount: mounts::of_host(source, target, readonly), before })
}

/// The step that takes away what create has mounted at `target`: it is in the journal.
#[must_use]
pub fn unmounting(_: &Record, _: &Path) -> Option<Op> {
    None
}

/// What a pot on a base has over it, where that is layers.
///
/// # Errors
/// Always: there are datasets only.
pub fn own_layers(_: &Record) -> Result<Vec<File>, Trouble> {
    Err("its root is no layer of an overlay".into())
}

/// The layers that a pot shares with others.
///
/// # Errors
/// None: there are datasets only.
pub fn shared_layers(_: &Record) -> io::Result<Vec<PathBuf>> {
    Ok(Vec::new())
}

/// The steps that leave it for a container that is still to come.
///
/// # Errors
/// Always: there are datasets only.
pub fn cloning(_: &Path, _: &Record, _: &Left<'_>) -> Result<Vec<Op>, Trouble> {
    Err("its root is no layer of an overlay".into())
}

/// Whether a layer was left for a container that is still to come.
///
/// # Errors
/// None.
pub fn has_layer(_: &Path, _: &ContainerId) -> io::Result<bool> {
    Ok(false)
}

/// Leaves a layer for a container that is still to come.
///
/// # Errors
/// Always: there are datasets only.
pub fn leave_layer(
    _: &Path,
    _: &Left<'_>,
    _: impl FnOnce(BorrowedFd<'_>) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    Err("there are no layers of overlays here".into())
}

/// What a layer changes of its base.
///
/// # Errors
/// Always: there are datasets only.
pub fn changes(_: &Record) -> Result<Vec<Changed>, Trouble> {
    Err("its root is no layer of an overlay".into())
}

/// Whether directories of a store can have a limit.
#[must_use]
pub fn can_limit(_: &Path) -> bool {
    false
}

/// Says how many bytes an empty directory may have.
///
/// # Errors
/// Always: there are datasets only.
pub fn limit(_: &Path, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Says anew how many bytes a directory may have.
///
/// # Errors
/// Always: there are datasets only.
pub fn limit_anew(_: &Path, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Takes the limit of a directory away.
///
/// # Errors
/// None: it has none.
pub fn unlimit(_: &Path) -> io::Result<()> {
    Ok(())
}

impl Tree for Root {
    fn directory(&self, path: &Path) -> io::Result<File> {
        let place = beneath::directory(&self.0, path, Missing::Error)?;
        place.dir().try_clone_to_owned().map(File::from)
    }
}
