//! Finding and making things beneath the root of an image that cannot be trusted.
//!
//! FreeBSD has no call that resolves a path as if a directory were the root: `O_RESOLVE_BENEATH` refuses absolute links
//! instead of following them inside. So each component is opened by itself, links are read and followed here, and `..`
//! goes back to the descriptor that it came from: nothing is ever looked up by a path that somebody else can change.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

/// As many links on a way as the kernel follows (sys/param.h, `MAXSYMLINKS`).
pub(super) const LINKS: usize = 32;

/// What becomes of what is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Directories are made with mode 0755.
    Made,
    /// It is an error.
    Error,
}

/// A place beneath a root: the directories that lead there, the root first, and a name in the last of them, unless the
/// place is that directory itself.
pub(super) struct Place {
    way: Vec<OwnedFd>,
    name: Option<OsString>,
}

impl Place {
    /// The directory: the place itself, or the one that the name is in.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        // There is always the root.
        self.way[self.way.len() - 1].as_fd()
    }

    /// The name of what is no directory.
    pub(super) fn name(&self) -> Option<&OsStr> {
        self.name.as_deref()
    }
}

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The directory `path` beneath `root`.
pub(super) fn directory(root: &Path, path: &Path, missing: Missing) -> io::Result<Place> {
    let place = find(root, path, missing, false)?;
    if place.name.is_some() { Err(Errno::ENOTDIR.into()) } else { Ok(place) }
}

/// The directory that `path` is in, and its last name, which is not looked at: a link there is not followed.
pub(super) fn parent(root: &Path, path: &Path, missing: Missing) -> io::Result<Place> {
    let above = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().ok_or(Errno::EISDIR)?.to_owned();
    Ok(Place { name: Some(name), ..directory(root, above, missing)? })
}

/// The file `path` beneath `root`, made empty with its directories if it is missing.
pub(super) fn file(root: &Path, path: &Path) -> io::Result<Place> {
    let place = find(root, path, Missing::Made, true)?;
    let Some(name) = place.name() else { return Err(Errno::EISDIR.into()) };
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(place.dir(), name, flags, Mode::from_bits_truncate(0o644)) {
        Ok(_) | Err(Errno::EEXIST) => Ok(place),
        Err(e) => Err(e.into()),
    }
}

/// Follows `path` to its end. `file`: a missing last component is not made.
fn find(root: &Path, path: &Path, missing: Missing, file: bool) -> io::Result<Place> {
    let top = open(root, DIRECTORY.difference(OFlag::O_NOFOLLOW), Mode::empty())?;
    let mut place = Place { way: vec![top], name: None };
    let mut left: VecDeque<OsString> = parts(path).collect();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            // The root's parent is the root.
            if place.way.len() > 1 {
                place.way.pop();
            }
            continue;
        }
        match openat(place.dir(), name.as_os_str(), DIRECTORY, Mode::empty()) {
            Ok(next) => place.way.push(next),
            Err(Errno::ENOENT) if file && left.is_empty() => place.name = Some(name),
            Err(Errno::ENOENT) if missing == Missing::Made => {
                match mkdirat(place.dir(), name.as_os_str(), Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                // Just made, or made by another meanwhile; a link that leads nowhere is an error.
                place.way.push(openat(place.dir(), name.as_os_str(), DIRECTORY, Mode::empty())?);
            }
            // A link is ENOTDIR with O_DIRECTORY, and EMLINK with O_NOFOLLOW alone (open(2)).
            Err(Errno::ENOTDIR | Errno::EMLINK | Errno::ELOOP) => match readlinkat(place.dir(), name.as_os_str()) {
                Ok(to) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::ELOOP.into());
                    }
                    let to = Path::new(&to);
                    if to.is_absolute() {
                        place.way.truncate(1);
                    }
                    for part in parts(to).collect::<Vec<_>>().into_iter().rev() {
                        left.push_front(part);
                    }
                }
                Err(Errno::EINVAL) if left.is_empty() => place.name = Some(name), // no link: a file
                Err(Errno::EINVAL) => return Err(Errno::ENOTDIR.into()),
                Err(e) => return Err(e.into()),
            },
            Err(e) => return Err(e.into()),
        }
    }
    Ok(place)
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

/// Writes a whole file beneath `root`, replacing what has its name: a link is replaced, not followed.
pub(super) fn write(root: &Path, path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let place = parent(root, path, Missing::Made)?;
    let name = place.name().ok_or(Errno::EISDIR)?;
    let part = format!(".potrun-{}", name.display());
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(mode as libc::mode_t);
    let open = || openat(place.dir(), part.as_str(), flags, mode);
    let fd = match open() {
        Err(Errno::EEXIST) => {
            unlinkat(place.dir(), part.as_str(), UnlinkatFlags::NoRemoveDir)?;
            open()?
        }
        other => other?,
    };
    std::fs::File::from(fd).write_all(text)?;
    Ok(renameat(place.dir(), part.as_str(), place.dir(), name)?)
}

/// Makes a link beneath `root`, replacing what has its name.
pub(super) fn link(root: &Path, path: &Path, to: &Path) -> io::Result<()> {
    let place = parent(root, path, Missing::Made)?;
    let name = place.name().ok_or(Errno::EISDIR)?;
    let part = format!(".potrun-{}", name.display());
    let make = || symlinkat(to, place.dir(), part.as_str());
    match make() {
        Err(Errno::EEXIST) => {
            unlinkat(place.dir(), part.as_str(), UnlinkatFlags::NoRemoveDir)?;
            make()?;
        }
        other => other?,
    }
    Ok(renameat(place.dir(), part.as_str(), place.dir(), name)?)
}

/// Opens a file beneath `root` to read it; what is no regular file does not block.
pub(super) fn open_file(root: &Path, path: &Path) -> io::Result<std::fs::File> {
    let place = find(root, path, Missing::Error, true)?;
    let name = place.name().ok_or(Errno::EISDIR)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(place.dir(), name, flags, Mode::empty())?.into())
}
