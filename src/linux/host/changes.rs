//! What the layers of an overlay change of its base.
//!
//! overlayfs(5), kernel documentation "Overlay Filesystem": what is deleted is a character device 0/0 in the upper
//! directory; a directory that hides the one below has the attribute `trusted.overlay.opaque`; one that was renamed has
//! `trusted.overlay.redirect`, the path or name of what it shows from below; a file with `trusted.overlay.metacopy` has
//! its data below, and changed all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fstatat};
use xattr::FileExt;

use crate::files::{Change, Changed};

/// One of the directories that make up a directory of the overlay.
struct Part {
    /// The layer that it is in, counted from the topmost; the last one is the base.
    layer: usize,
    dir: File,
}

/// A directory of the overlay: what makes it up, the topmost first, and what the base has at the same place.
struct Place<'a> {
    parts: &'a [Part],
    base: Option<&'a File>,
    path: &'a Path,
}

/// A comparison.
struct Comparison {
    /// The layers, the topmost first, and the base.
    layers: Vec<File>,
    all: Vec<Changed>,
}

/// What `layers`, the topmost first, change of `base`.
pub(super) fn of(base: &Path, layers: &[PathBuf]) -> io::Result<Vec<Changed>> {
    let paths = layers.iter().map(PathBuf::as_path).chain([base]);
    let layers: Vec<File> = paths.map(open_top).collect::<io::Result<_>>()?;
    let base = open_top(base)?;
    let mut comparison = Comparison { layers, all: Vec::new() };
    let parts = comparison.tops(0)?;
    comparison.compare(&Place { parts: &parts, base: Some(&base), path: Path::new("/") })?;
    Ok(comparison.all)
}

impl Comparison {
    /// What makes up the root, from a layer downwards.
    fn tops(&self, from: usize) -> io::Result<Vec<Part>> {
        let layers = self.layers.iter().enumerate().skip(from);
        layers.map(|(layer, dir)| Ok(Part { layer, dir: dir.try_clone()? })).collect()
    }

    fn is_base(&self, part: &Part) -> bool {
        part.layer + 1 == self.layers.len()
    }

    fn compare(&mut self, at: &Place<'_>) -> io::Result<()> {
        let mut shown: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for (n, part) in at.parts.iter().enumerate() {
            for name in names(Some(&part.dir))? {
                shown.entry(name).or_insert(n);
            }
        }
        for (name, n) in &shown {
            let part = &at.parts[*n];
            // The same in the overlay and in the base, unless the directory was moved here.
            if !self.is_base(part) || !same(Some(&part.dir), at.base) {
                self.entry(at, &at.parts[*n..], name)?;
            }
        }
        for name in names(at.base)?.iter().filter(|name| !shown.contains_key(*name)) {
            self.add(Change::Deleted, at.path, name, None);
        }
        Ok(())
    }

    /// What `parts`, of which the first has it, show under a name.
    fn entry(&mut self, at: &Place<'_>, parts: &[Part], name: &[u8]) -> io::Result<()> {
        let base = status(at.base, name)?;
        let Some((first, here)) =
            parts.first().and_then(|part| Some((part, status(Some(&part.dir), name).transpose()?)))
        else {
            return Ok(());
        };
        let here = here?;
        if !self.is_base(first) && is_whiteout(&here) {
            if base.is_some() {
                self.add(Change::Deleted, at.path, name, None);
            }
            return Ok(());
        }
        self.add(if base.is_some() { Change::Changed } else { Change::Added }, at.path, name, Some(&here));
        if !is_directory(&here) {
            return Ok(());
        }
        let parts = self.parts_of(parts, name)?;
        let base = directory(at.base, name)?;
        let path = at.path.join(OsStr::from_bytes(name));
        self.compare(&Place { parts: &parts, base: base.as_ref(), path: &path })
    }

    /// What makes up the directory `name` of one that `parts` make up.
    fn parts_of(&self, parts: &[Part], name: &[u8]) -> io::Result<Vec<Part>> {
        let (mut found, mut name) = (Vec::new(), name.to_vec());
        for part in parts {
            match status(Some(&part.dir), &name)? {
                None => continue,
                Some(here) if !is_directory(&here) => break,
                Some(_) => {}
            }
            let (layer, dir) = (part.layer, open_directory(&part.dir, &name)?);
            let attribute = |name: &str| dir.get_xattr(format!("trusted.overlay.{name}"));
            let (opaque, redirect) = (attribute("opaque")?, attribute("redirect")?);
            found.push(Part { layer, dir });
            match (opaque, redirect) {
                _ if layer + 1 == self.layers.len() => break,
                (Some(value), _) if value == b"y" => break,
                (_, Some(to)) if to.starts_with(b"/") => {
                    found.extend(self.redirected(layer + 1, &to)?);
                    break;
                }
                (_, Some(to)) => name = to,
                (_, None) => {}
            }
        }
        Ok(found)
    }

    /// What a directory that was renamed shows from a layer downwards.
    fn redirected(&self, from: usize, to: &[u8]) -> io::Result<Vec<Part>> {
        let mut here = self.tops(from)?;
        for name in to.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            here = self.parts_of(&here, name)?;
        }
        Ok(here)
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

fn is_whiteout(status: &FileStat) -> bool {
    status.st_mode & libc::S_IFMT == libc::S_IFCHR && status.st_rdev == 0
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
