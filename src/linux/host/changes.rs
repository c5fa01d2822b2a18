//! What the layer of an overlay changes of its base.
//!
//! overlayfs(5), kernel documentation "Overlay Filesystem": what is deleted is a character device 0/0 in the upper
//! directory; a directory that hides the one below has the attribute `trusted.overlay.opaque`; one that was renamed has
//! `trusted.overlay.redirect`, the path or name of what it shows from below; a file with `trusted.overlay.metacopy` has
//! its data below, and changed all the same.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fstatat};
use xattr::FileExt;

use crate::files::{Change, Changed};

/// The directories that are compared, each at its own place: what the pot has in its layer, what that shows from below,
/// and what the base has there.
struct Place<'a> {
    upper: Option<&'a File>,
    below: Option<&'a File>,
    base: Option<&'a File>,
    path: &'a Path,
}

/// A comparison.
struct Comparison {
    lower: File,
    all: Vec<Changed>,
}

/// What `upper` changes of `lower`.
pub(super) fn of(lower: &Path, upper: &Path) -> io::Result<Vec<Changed>> {
    let (lower, upper) = (open_top(lower)?, open_top(upper)?);
    let mut comparison = Comparison { lower: lower.try_clone()?, all: Vec::new() };
    let path = Path::new("/");
    comparison.compare(&Place { upper: Some(&upper), below: Some(&lower), base: Some(&lower), path })?;
    Ok(comparison.all)
}

impl Comparison {
    fn compare(&mut self, at: &Place<'_>) -> io::Result<()> {
        let shown = names(at.upper)?;
        for name in &shown {
            self.entry(at, name)?;
        }
        let mut rest = names(at.below)?;
        rest.retain(|name| !shown.contains(name));
        for name in &rest {
            // The same below and in the base, unless the directory was moved here or is hidden.
            if !same(at.below, at.base) {
                self.shown_from_below(at, name)?;
            }
        }
        for name in names(at.base)?.iter().filter(|name| !shown.contains(*name) && !rest.contains(*name)) {
            self.add(Change::Deleted, at.path, name, None);
        }
        Ok(())
    }

    /// What the layer has.
    fn entry(&mut self, at: &Place<'_>, name: &[u8]) -> io::Result<()> {
        let (Some(upper), base) = (at.upper, status(at.base, name)?) else { return Ok(()) };
        let Some(here) = status(Some(upper), name)? else { return Ok(()) };
        if here.st_mode & libc::S_IFMT == libc::S_IFCHR && here.st_rdev == 0 {
            if base.is_some() {
                self.add(Change::Deleted, at.path, name, None);
            }
            return Ok(());
        }
        self.add(if base.is_some() { Change::Changed } else { Change::Added }, at.path, name, Some(&here));
        if !is_directory(&here) {
            return Ok(());
        }
        let dir = open_directory(upper, name)?;
        let path = at.path.join(OsStr::from_bytes(name));
        let attribute = |name: &str| dir.get_xattr(format!("trusted.overlay.{name}"));
        let below = match (attribute("opaque")?, attribute("redirect")?) {
            (Some(value), _) if value == b"y" => None,
            (_, Some(to)) => self.redirected(at, &to)?,
            _ => directory(at.below, name)?,
        };
        let base = directory(at.base, name)?;
        self.compare(&Place { upper: Some(&dir), below: below.as_ref(), base: base.as_ref(), path: &path })
    }

    /// What a renamed directory shows.
    fn redirected(&self, at: &Place<'_>, to: &[u8]) -> io::Result<Option<File>> {
        if !to.starts_with(b"/") {
            return directory(at.below, to);
        }
        let mut here = Some(self.lower.try_clone()?);
        for name in to.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            here = directory(here.as_ref(), name)?;
        }
        Ok(here)
    }

    /// What is shown from below at another place than its own.
    fn shown_from_below(&mut self, at: &Place<'_>, name: &[u8]) -> io::Result<()> {
        let Some(here) = status(at.below, name)? else { return Ok(()) };
        let there = status(at.base, name)?;
        self.add(if there.is_some() { Change::Changed } else { Change::Added }, at.path, name, Some(&here));
        if !is_directory(&here) {
            return Ok(());
        }
        let (below, base) = (directory(at.below, name)?, directory(at.base, name)?);
        let path = at.path.join(OsStr::from_bytes(name));
        self.compare(&Place { upper: None, below: below.as_ref(), base: base.as_ref(), path: &path })
    }

    fn add(&mut self, kind: Change, dir: &Path, name: &[u8], status: Option<&FileStat>) {
        let at = status.map_or(SystemTime::UNIX_EPOCH, |status| {
            let (seconds, nanoseconds) = (u64::try_from(status.st_ctime), u32::try_from(status.st_ctime_nsec));
            SystemTime::UNIX_EPOCH + Duration::new(seconds.unwrap_or(0), nanoseconds.unwrap_or(0))
        });
        self.all.push(Changed { kind, path: dir.join(OsStr::from_bytes(name)), at });
    }
}

fn same(a: Option<&File>, b: Option<&File>) -> bool {
    let place = |dir: Option<&File>| nix::sys::stat::fstat(dir?).ok().map(|status| (status.st_dev, status.st_ino));
    place(a) == place(b)
}

fn is_directory(status: &FileStat) -> bool {
    status.st_mode & libc::S_IFMT == libc::S_IFDIR
}

fn status(dir: Option<&File>, name: &[u8]) -> io::Result<Option<FileStat>> {
    let Some(dir) = dir else { return Ok(None) };
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => Ok(None),
        other => Ok(other.map(Some)?),
    }
}

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

fn open_top(path: &Path) -> io::Result<File> {
    Ok(open(path, DIRECTORY, Mode::empty())?.into())
}

fn open_directory(dir: &File, name: &[u8]) -> io::Result<File> {
    Ok(openat(dir.as_fd(), name, DIRECTORY, Mode::empty())?.into())
}

/// The directory `name`, if there is one.
fn directory(dir: Option<&File>, name: &[u8]) -> io::Result<Option<File>> {
    match status(dir, name)?.filter(is_directory).zip(dir) {
        Some((_, dir)) => open_directory(dir, name).map(Some),
        None => Ok(None),
    }
}

fn names(dir: Option<&File>) -> io::Result<BTreeSet<Vec<u8>>> {
    let Some(dir) = dir else { return Ok(BTreeSet::new()) };
    let mut listing = Dir::from_fd(open_directory(dir, b".")?.into())?;
    let mut all = BTreeSet::new();
    for entry in listing.iter() {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") {
            all.insert(name);
        }
    }
    Ok(all)
}
