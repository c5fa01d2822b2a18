//! Removes a tree, without following a link and without leaving its file system.

use super::unpack::sys;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Removes `name` in `parent` and everything below it; what is not there is removed already.
///
/// Works where the caller has no right to read or write a directory of its own, and on files that FreeBSD's flags make
/// immutable.
///
/// # Errors
/// The kernel's, and `EXDEV` for a file system mounted below: what is on it is not ours.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let device = fstat(parent)?.st_dev;
    remove_any(parent, name, device)
}

fn remove_any(parent: BorrowedFd<'_>, name: &CStr, device: libc::dev_t) -> io::Result<()> {
    let status = match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    let is_directory = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    if is_directory { remove_directory(parent, name, device) } else { unlink(parent, name) }
}

fn unlink(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    forced(parent, name, || match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    })
}

fn remove_directory(parent: BorrowedFd<'_>, name: &CStr, device: libc::dev_t) -> io::Result<()> {
    loop {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let open = || Dir::openat(parent, name, flags, Mode::empty());
        let mut dir = match open() {
            Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EACCES) => {
                fchmodat(parent, name, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)?;
                open()?
            }
            other => other?,
        };
        let status = fstat(&dir)?;
        if status.st_dev != device {
            return Err(Errno::EXDEV.into());
        }
        if !Mode::from_bits_truncate(status.st_mode).contains(Mode::S_IRWXU) {
            nix::sys::stat::fchmod(&dir, Mode::S_IRWXU)?;
        }
        // An immutable directory does not let go of its entries.
        sys::set_flags(parent, name.to_bytes(), 0)?;
        let removed = empty(&mut dir, device)?;
        match forced(parent, name, || unlinkat(parent, name, UnlinkatFlags::RemoveDir)) {
            // A directory that changes while it is read may have kept entries back: read it again.
            Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) && removed > 0 => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
    }
}

/// Removes what is in `dir`, and returns how much that was.
fn empty(dir: &mut Dir, device: libc::dev_t) -> io::Result<u64> {
    let mut removed = 0;
    // The iterator borrows the directory whole: its descriptor is needed beside it.
    let fd = dir.as_fd().try_clone_to_owned()?;
    for entry in dir.iter() {
        let entry = entry?;
        let name = entry.file_name();
        match (name.to_bytes(), entry.file_type()) {
            (b"." | b"..", _) => continue,
            (_, Some(Type::Directory)) => remove_directory(fd.as_fd(), name, device)?,
            (_, Some(_)) => unlink(fd.as_fd(), name)?,
            (_, None) => remove_any(fd.as_fd(), name, device)?,
        }
        removed += 1;
    }
    Ok(removed)
}

/// Takes the flags off a file that may not be removed, and tries again.
fn forced(parent: BorrowedFd<'_>, name: &CStr, remove: impl Fn() -> nix::Result<()>) -> io::Result<()> {
    match remove() {
        Err(Errno::EPERM) if sys::set_flags(parent, name.to_bytes(), 0)? => Ok(remove()?),
        other => Ok(other?),
    }
}
