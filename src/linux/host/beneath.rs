//! Finding and making things beneath the root of an image that cannot be trusted.
//!
//! Every look-up is one openat2(2) with `RESOLVE_IN_ROOT`: the image's links are followed inside the image only
//! (CVE-2019-18837, CVE-2021-30465, CVE-2024-45310). What is found is held by a descriptor and never looked up again.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};

use super::sys;

/// How links are treated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// Followed, inside the root.
    Inside,
    /// Not allowed anywhere on the way.
    None,
}

/// Opens what `path` names beneath `root`, `O_PATH` only.
pub(super) fn find(root: BorrowedFd<'_>, path: &Path, links: Links) -> io::Result<OwnedFd> {
    open(root, path, libc::O_PATH, links)
}

/// Opens `path` beneath `root` with the given flags.
pub(super) fn open(root: BorrowedFd<'_>, path: &Path, flags: i32, links: Links) -> io::Result<OwnedFd> {
    let mut resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    if links == Links::None {
        resolve |= libc::RESOLVE_NO_SYMLINKS;
    }
    let name = CString::new(path.as_os_str().as_bytes())?;
    loop {
        match sys::openat2(root, &name, flags, 0, resolve) {
            // A rename or mount elsewhere came between (openat2(2), EAGAIN): ask again.
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => {}
            other => return other,
        }
    }
}

/// The directory `path` beneath `root`, its missing parts made with mode 0755.
pub(super) fn directory(root: BorrowedFd<'_>, path: &Path, links: Links) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    match open(root, path, flags, links) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let mut here = open(root, Path::new("/"), flags, links)?;
    let mut so_far = std::path::PathBuf::from("/");
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        so_far.push(name);
        // From the root each time, so that a link on the way is resolved as the image means it.
        here = match open(root, &so_far, flags, links) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                match mkdirat(&here, name, Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                // Just made, or made by another meanwhile, or a link that leads nowhere: the last is an error.
                open(here.as_fd(), Path::new(name), flags, Links::None)?
            }
            other => other?,
        };
    }
    Ok(here)
}

/// The file `path` beneath `root`, made empty with its directories if it is missing.
pub(super) fn file(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    match find(root, path, Links::Inside) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let (parent, name) = parent(root, path)?;
    match mknodat(&parent, name.as_path(), SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
        Err(e) => return Err(e.into()),
    }
    open(parent.as_fd(), &name, libc::O_PATH, Links::None)
}

/// The directory that `path` is in beneath `root`, made if it is missing, and the last component.
pub(super) fn parent(root: BorrowedFd<'_>, path: &Path) -> io::Result<(OwnedFd, std::path::PathBuf)> {
    let name = path.file_name().ok_or_else(|| io::Error::from_raw_os_error(libc::EISDIR))?;
    let above = path.parent().unwrap_or(Path::new("/"));
    Ok((directory(root, above, Links::Inside)?, name.into()))
}

/// Writes a whole file beneath `root`, replacing what has its name: a link is replaced, not followed.
pub(super) fn write(root: BorrowedFd<'_>, path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    use nix::fcntl::{OFlag, openat, renameat};
    use std::io::Write;
    let (parent, name) = parent(root, path)?;
    let part = format!(".potrun-{}", name.display());
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let open = || openat(&parent, part.as_str(), flags, Mode::from_bits_truncate(mode));
    let fd = match open() {
        Err(nix::errno::Errno::EEXIST) => {
            nix::unistd::unlinkat(&parent, part.as_str(), nix::unistd::UnlinkatFlags::NoRemoveDir)?;
            open()?
        }
        other => other?,
    };
    std::fs::File::from(fd).write_all(text)?;
    Ok(renameat(&parent, part.as_str(), &parent, name.as_path())?)
}

/// Whether a descriptor refers to a directory.
pub(super) fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = nix::sys::stat::fstat(fd)?;
    Ok(SFlag::from_bits_truncate(stat.st_mode).contains(SFlag::S_IFDIR) && stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Fails unless `fd` is in a procfs: a write meant for the kernel must not land in a file (CVE-2019-16884,
/// CVE-2025-52881).
pub(super) fn must_be_proc(fd: BorrowedFd<'_>) -> io::Result<()> {
    if sys::filesystem(fd)? == libc::PROC_SUPER_MAGIC {
        return Ok(());
    }
    Err(io::Error::other(format!("descriptor {} is not in a procfs", fd.as_raw_fd())))
}
