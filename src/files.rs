//! Finding what is to be copied, and where it goes: in the tree of a container or in that of the host.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstatat};

/// As many links at the end of a way as Linux follows (path_resolution(7)).
const LINKS: usize = 40;

/// A tree in which paths are resolved.
pub trait Tree {
    /// Opens the directory `path`, whose links are followed inside the tree.
    ///
    /// # Errors
    /// The kernel's words.
    fn directory(&self, path: &Path) -> io::Result<File>;
}

/// The files of the host, by the paths of the caller.
#[derive(Clone, Copy, Debug)]
pub struct Host;

impl Tree for Host {
    fn directory(&self, path: &Path) -> io::Result<File> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(nix::fcntl::open(path, flags, Mode::empty())?.into())
    }
}

/// What has become of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// Its contents, its kind, its owner or the like are others; of a directory, also what is in it.
    Changed,
    /// It is no more, with all that was in it.
    Deleted,
}

impl Change {
    /// docker diff's letter.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// A path that has changed.
#[derive(Debug)]
pub struct Changed {
    /// How.
    pub kind: Change,
    /// Which: from the root of the pot.
    pub path: PathBuf,
    /// When that was (its `ctime`), unless it is no more.
    pub at: SystemTime,
}

/// What a path names.
#[derive(Debug)]
pub enum Found {
    /// A directory.
    Directory(File),
    /// Something else: the directory that it is in, and its name there.
    Other(File, OsString),
    /// Nothing yet: the directory that it would be in, and its name there.
    Missing(File, OsString),
}

/// Looks for `path` in `tree`; `follow`: a link at its end, too.
///
/// # Errors
/// The kernel's words: of the directories on the way, too many links, a link that leads nowhere.
pub fn find(tree: &impl Tree, path: &Path, follow: bool) -> io::Result<Found> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Some(name) = last(&path).map(OsStr::to_owned) else {
            return tree.directory(&path).map(Found::Directory);
        };
        let above = path.parent().unwrap_or(Path::new("")).to_owned();
        let dir = tree.directory(&above)?;
        let status = match fstatat(&dir, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(Found::Missing(dir, name)),
            other => other?,
        };
        match status.st_mode & libc::S_IFMT {
            libc::S_IFDIR => {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let opened = openat(dir.as_fd(), name.as_os_str(), flags, Mode::empty())?;
                return Ok(Found::Directory(opened.into()));
            }
            libc::S_IFLNK if follow => {
                // Resolved by the tree, links on the way and `..` and all.
                let to = PathBuf::from(readlinkat(&dir, name.as_os_str())?);
                let next = above.join(to);
                if matches!(find_end(tree, &next), Err(Errno::ENOENT)) {
                    return Err(io::Error::new(io::ErrorKind::NotFound, "a link that leads nowhere"));
                }
                path = next;
            }
            _ => return Ok(Found::Other(dir, name)),
        }
    }
    Err(Errno::ELOOP.into())
}

/// Whether there is something at the end of a path, a link counting as something.
fn find_end(tree: &impl Tree, path: &Path) -> nix::Result<()> {
    let errno = |e: io::Error| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let Some(name) = last(path) else { return tree.directory(path).map(drop).map_err(errno) };
    let dir = tree.directory(path.parent().unwrap_or(Path::new(""))).map_err(errno)?;
    fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).map(drop)
}

/// The last name of a path that has one: neither `/` nor `.` nor `..`.
fn last(path: &Path) -> Option<&OsStr> {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let text = &bytes[..end];
    let name = text.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if matches!(name, b"" | b"." | b"..") { None } else { path.file_name() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_names() {
        for (path, name) in [("/a/b", "b"), ("a/", "a"), ("a", "a"), ("/a/../b//", "b")] {
            assert_eq!(last(Path::new(path)), Some(OsStr::new(name)), "{path}");
        }
        for path in ["/", "", ".", "..", "a/.", "a/..", "a/../", "//"] {
            assert_eq!(last(Path::new(path)), None, "{path}");
        }
    }
}
