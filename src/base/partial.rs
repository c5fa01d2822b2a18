//! Directories on their way to become a base, or the layer of a pot, or no longer one.
//!
//! Their names begin with a dot, which no base's does, and their maker holds a lock (flock(2)) on them. So what a
//! killed process left is told from what a living one works on: the kernel drops the lock with its holder, and whoever
//! can take it may remove the directory.

use super::error::{At, BaseError};
use super::tree;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open, openat};
use nix::sys::stat::{Mode, fstat, fstatat, mkdirat};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Opens the directory at `path`.
pub(super) fn open_directory(path: &Path) -> nix::Result<File> {
    open(path, DIRECTORY, Mode::empty()).map(File::from)
}

/// A directory with a name like `.NAME.partial-PID-NANOSECONDS`, locked, and removed when dropped.
#[derive(Debug)]
pub struct Partial {
    parent: File,
    name: CString,
    path: PathBuf,
    dir: Flock<File>,
    keep: bool,
}

impl Partial {
    /// Makes one for the base `name` in `bases`, only for its owner to enter: setuid files of a base are not for the
    /// users of the host.
    ///
    /// # Errors
    /// [`BaseError::Io`].
    pub fn make(bases: &Path, name: &str) -> Result<Self, BaseError> {
        let parent = open_directory(bases).at("open", bases)?;
        loop {
            let name = unused_name(name, "partial");
            let path = bases.join(name.to_string_lossy().as_ref());
            match mkdirat(&parent, name.as_c_str(), Mode::S_IRWXU) {
                Err(Errno::EEXIST) => continue,
                other => other.at("make directory", &path)?,
            }
            // A sweep may have found the directory before it was locked, and removed it: then another one is made.
            if let Some(dir) = lock(&parent, &name, FlockArg::LockExclusive).at("lock", &path)? {
                return Ok(Self { parent, name, path, dir, keep: false });
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it to the next sweep.
    pub fn leave_to_sweep(&mut self) {
        self.keep = true;
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Makes it the base `name`, with `sync` so that a power cut cannot take the name back; `Ok(false)` when there is a
    /// base with this name already.
    pub(super) fn publish(self, name: &str, sync: bool) -> Result<bool, BaseError> {
        let parent = self.parent.try_clone().at("open", &self.path)?;
        self.publish_in(&parent, name, sync)
    }

    /// The same in another directory.
    ///
    /// # Errors
    /// [`BaseError::Io`].
    pub fn publish_in(mut self, to: &File, name: &str, sync: bool) -> Result<bool, BaseError> {
        // rename(2) replaces a directory only while that is empty, which neither a base nor a layer ever is.
        match nix::fcntl::renameat(&self.parent, self.name.as_c_str(), to, name) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => return Ok(false),
            other => other.at("rename", &self.path)?,
        }
        self.keep = true;
        if sync {
            to.sync_all().at("write", &self.path)?;
        }
        Ok(true)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.keep {
            // An error is already on its way to the caller, or the next sweep meets this one again and reports it.
            tree::remove(self.parent.as_fd(), &self.name).unwrap_or_default();
        }
    }
}

/// Takes the base `name` away and removes it; `Ok` when another process did.
pub(super) fn remove_base(bases: &Path, name: &str) -> Result<(), BaseError> {
    let path = bases.join(name);
    let parent = open_directory(bases).at("open", bases)?;
    let Some(locked) = lock(&parent, &c_name(name), FlockArg::LockExclusive).at("lock", &path)? else {
        return Ok(());
    };
    let gone = loop {
        let gone = unused_name(name, "gone");
        match nix::fcntl::renameat(&parent, name, &parent, gone.as_c_str()) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
            other => {
                other.at("rename", &path)?;
                break gone;
            }
        }
    };
    tree::remove(parent.as_fd(), &gone).at("remove", &path)?;
    drop(locked);
    Ok(())
}

/// Removes what dead processes left in `bases`, and returns the paths.
///
/// # Errors
/// [`BaseError::Io`].
pub fn sweep(bases: &Path) -> Result<Vec<PathBuf>, BaseError> {
    sweep_with(bases, |_| Ok(()))
}

/// The same; `end` does first what belongs to it.
///
/// # Errors
/// [`BaseError::Io`].
pub fn sweep_with(bases: &Path, mut end: impl FnMut(&Path) -> io::Result<()>) -> Result<Vec<PathBuf>, BaseError> {
    let parent = match open_directory(bases) {
        Err(Errno::ENOENT) => return Ok(Vec::new()),
        other => other.at("open", bases)?,
    };
    let mut swept = Vec::new();
    for entry in std::fs::read_dir(bases).at("list", bases)? {
        let entry = entry.at("list", bases)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_leftover(name)) else { continue };
        let path = entry.path();
        let name = c_name(name);
        match lock(&parent, &name, FlockArg::LockExclusiveNonblock) {
            // Its maker lives.
            Err(Errno::EWOULDBLOCK) => {}
            Err(errno) => return Err(errno).at("lock", path),
            Ok(None) => {}
            Ok(Some(locked)) => {
                end(&path).at("finish", &path)?;
                tree::remove(parent.as_fd(), &name).at("remove", &path)?;
                drop(locked);
                swept.push(path);
            }
        }
    }
    Ok(swept)
}

/// Whether a name is one of those that [`unused_name`] gives.
fn is_leftover(name: &str) -> bool {
    name.starts_with('.') && (name.contains(".partial-") || name.contains(".gone-"))
}

fn unused_name(base: &str, what: &str) -> CString {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    c_name(&format!(".{base}.{what}-{}-{now}", std::process::id()))
}

/// Names of bases and of what [`unused_name`] makes of them hold no NUL.
fn c_name(name: &str) -> CString {
    CString::new(name).unwrap_or_default()
}

/// Opens and locks the directory `name`, and makes sure that it still has the name when the lock is held.
fn lock(parent: &File, name: &CString, how: FlockArg) -> nix::Result<Option<Flock<File>>> {
    let dir = match openat(parent, name.as_c_str(), DIRECTORY, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(None),
        other => File::from(other?),
    };
    let dir = Flock::lock(dir, how).map_err(|(_, errno)| errno)?;
    let held = fstat(&*dir)?;
    match fstatat(parent, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
        Ok(named) => Ok(((held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)).then_some(dir)),
    }
}
