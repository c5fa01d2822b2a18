//! The files of a container, for verbs of the host: as its processes see them, or would if there were any.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};

use crate::files::{Changed, Tree};
use crate::host::Trouble;
use crate::host::storage::Left;
use crate::id::ContainerId;
use crate::linux::mount::{self, ATTR_RDONLY, Options};
use crate::op::{self, Op};
use crate::plan;
use crate::state::{Record, Status, Storage};

use super::beneath::{self, Links};
use super::{changes, inside, layer, layers, open_path, process, program, quota, sys};

/// The root of a container, which its links do not lead out of.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Of a container with processes: the root of its first one. Otherwise it is mounted again, in a mount namespace that
    /// ends with this process, whatever ends that.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn of(record: &Record, status: Status) -> Result<Self, Trouble> {
        if status != Status::Stopped {
            return Self::running(record);
        }
        let storage = record.storage.as_ref().ok_or("what its root is made of was not noted")?;
        if !nix::unistd::geteuid().is_root() {
            return Err("without root that takes a container that is not stopped".into());
        }
        Self::stopped(storage)
    }

    fn running(record: &Record) -> Result<Self, Trouble> {
        let pid = record.process.pid;
        let root = open_path(format!("/proc/{pid}/root").as_ref())?;
        // Its users are not ours: what is owned by 0 here is nobody's there.
        if nix::unistd::geteuid().is_root() && !program::same_namespace(Some(pid), "user")? {
            return Err("its user namespace is not the host's: owners would not be kept".into());
        }
        // Asked after all was looked at: it was this process, and no other that got its pid.
        if !process::alive(&record.process)? {
            return Err("its first process has ended".into());
        }
        Ok(Self(root))
    }

    fn stopped(storage: &Storage) -> Result<Self, Trouble> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        inside::propagate("/".as_ref(), "rprivate")?;
        let root = inside::mount_root(&as_it_is(&storage.root)?, false)?;
        for mount in &storage.mounts {
            if mount.owners.is_some() {
                return Err(format!("{mount}: is mapped by the user namespace of a container that runs").into());
            }
            inside::bind(root.as_fd(), mount, &Options::of(&mount.options), None)
                .map_err(|e| format!("{mount}: {}", crate::error::chain(&*e)))?;
        }
        if storage.readonly {
            sys::mount_setattr(root.as_fd(), false, ATTR_RDONLY, 0, 0)?;
        }
        Ok(Self(root))
    }
}

/// The step that mounts a directory or file of the host in a container that runs.
///
/// # Errors
/// None.
pub fn mounting(record: &Record, source: PathBuf, target: PathBuf, readonly: bool) -> io::Result<Op> {
    Ok(Op::MountInto { process: record.process.clone(), mount: mount::of_host(source, target, readonly) })
}

/// The step that takes away what create has mounted at `target`.
#[must_use]
pub fn unmounting(record: &Record, target: &Path) -> Option<Op> {
    let mounts = record.storage.iter().flat_map(|storage| &storage.mounts);
    let mount = mounts.rev().find(|mount| mount.target == target)?;
    Some(Op::UnmountFrom { process: record.process.clone(), mount: mount.clone() })
}

/// A root with the layers that it lies on now: since it was created it may have been cloned.
fn as_it_is(root: &op::Root) -> io::Result<op::Root> {
    let mut root = root.clone();
    if let op::Root::Overlay { layers, layer, .. } = &mut root {
        *layers = layer::below(layer)?;
    }
    Ok(root)
}

/// The base of a pot, and the directories that hold what it has over that, the topmost first.
fn over_base(record: &Record) -> Result<(PathBuf, Vec<PathBuf>), Trouble> {
    match record.storage.as_ref().map(|storage| as_it_is(&storage.root)).transpose()? {
        Some(op::Root::Overlay { lower, layers, layer }) => {
            Ok((lower, std::iter::once(layer).chain(layers).map(|layer| layer.join("upper")).collect()))
        }
        _ => Err("its root is no layer of an overlay".into()),
    }
}

/// What a pot on a base has over it: the upper directory of its overlay, and those of the layers that it shares.
///
/// # Errors
/// It has no such thing, or the kernel's words.
pub fn own_layers(record: &Record) -> Result<Vec<File>, Trouble> {
    Ok(over_base(record)?.1.iter().map(File::open).collect::<io::Result<_>>()?)
}

/// The layers between a pot's own and its base, the topmost first, which other pots may lie on as well.
///
/// # Errors
/// The kernel's words.
pub fn shared_layers(record: &Record) -> io::Result<Vec<PathBuf>> {
    match record.storage.as_ref().map(|storage| &storage.root) {
        Some(op::Root::Overlay { layer, .. }) => layer::below(layer),
        _ => Ok(Vec::new()),
    }
}

/// The steps that leave what a pot has over its base for a container that is still to come. The caller holds its lock.
///
/// # Errors
/// It has no such thing, or the kernel's words.
pub fn cloning(store: &Path, record: &Record, left: &Left<'_>) -> Result<Vec<Op>, Trouble> {
    match record.storage.as_ref().map(|storage| &storage.root) {
        Some(op::Root::Overlay { layer, .. }) => Ok(plan::clone::clone(store, &layers::look(layer)?, left)),
        _ => Err("its root is no layer of an overlay".into()),
    }
}

/// Whether something was left for a container that is still to come.
///
/// # Errors
/// The kernel's words.
pub fn has_layer(store: &Path, id: &ContainerId) -> io::Result<bool> {
    store.join("pots").join(id.as_str()).try_exists()
}

/// Leaves a layer for a container that is still to come; `fill` puts into its upper directory what it holds.
///
/// # Errors
/// The kernel's words, or those of `fill`: then nothing is left.
pub fn leave_layer(
    store: &Path,
    left: &Left<'_>,
    fill: impl FnOnce(BorrowedFd<'_>) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let Left { id, owner, base, disk } = *left;
    layer::leave(&layer::New { store, id, owner, base: &store.join("bases").join(base), layers: &[], disk }, fill)
}

/// What the layers of an overlay change of its base.
///
/// # Errors
/// It has no such thing, or the kernel's words.
pub fn changes(record: &Record) -> Result<Vec<Changed>, Trouble> {
    let (base, layers) = over_base(record)?;
    Ok(changes::of(&base, &layers)?)
}

/// Whether directories of a store can have a limit.
#[must_use]
pub fn can_limit(store: &Path) -> bool {
    nix::unistd::geteuid().is_root() && quota::offered(store)
}

/// Says how many bytes an empty directory may have.
///
/// # Errors
/// The kernel's words.
pub fn limit(dir: &Path, bytes: u64) -> io::Result<()> {
    let lock = File::open(dir.parent().unwrap_or(dir))?;
    lock.lock()?;
    quota::limit(&[dir], bytes)
}

/// Says anew how many bytes a directory may have that was made with a limit.
///
/// # Errors
/// It was not, or the kernel's words.
pub fn limit_anew(dir: &Path, bytes: u64) -> io::Result<()> {
    quota::change(dir, bytes)
}

/// Takes the limit of a directory away, if it has one.
///
/// # Errors
/// The kernel's words.
pub fn unlimit(dir: &Path) -> io::Result<()> {
    quota::release(dir)
}

impl Tree for Root {
    fn directory(&self, path: &Path) -> io::Result<File> {
        beneath::open(self.0.as_fd(), path, libc::O_RDONLY | libc::O_DIRECTORY, Links::Inside).map(File::from)
    }
}
