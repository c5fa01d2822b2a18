//! Copying a directory of an image into a file system of the container's own (`tmpcopyup`).
//!
//! Everything is named by the descriptor of its directory and one component, and no link is followed: the image may be a
//! volume that changes meanwhile.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstat, fstatat, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{fchownat, symlinkat};
use xattr::FileExt;

/// Copies what is in the directory `from` into the directory `to`, which becomes like it: owners, modes, times,
/// extended attributes. What is a hard link in one is a file of its own in the other.
pub(super) fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let from = File::from(directory(from, Path::new("."))?);
    let to = File::from(directory(to, Path::new("."))?);
    let mut listing = Dir::from_fd(from.try_clone()?.into())?;
    for item in listing.iter() {
        let item = item?;
        let name = OsStr::from_bytes(item.file_name().to_bytes());
        if name != "." && name != ".." {
            let name = Path::new(name);
            one(from.as_fd(), to.as_fd(), name).map_err(|e| io::Error::other(format!("{}: {e}", name.display())))?;
        }
    }
    like(&from, &to)
}

/// Gives an open file or directory what another has: owners, mode, extended attributes, times.
pub(super) fn like(from: &File, to: &File) -> io::Result<()> {
    let stat = fstat(from)?;
    nix::unistd::fchown(to, Some(stat.st_uid.into()), Some(stat.st_gid.into()))?;
    nix::sys::stat::fchmod(to, permissions(&stat))?;
    attributes(from, to)?;
    Ok(nix::sys::stat::futimens(to, &accessed(&stat), &modified(&stat))?)
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFDIR => {
            let below = directory(from, name)?;
            mkdirat(to, name, Mode::S_IRWXU)?;
            return tree(below.as_fd(), directory(to, name)?.as_fd());
        }
        libc::S_IFLNK => symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?,
        libc::S_IFREG => return file(from, to, name),
        // A socket whose listener is not here.
        libc::S_IFSOCK => return Ok(()),
        kind => match mknodat(to, name, SFlag::from_bits_truncate(kind), permissions(&stat), stat.st_rdev) {
            // No device can be made in a user namespace; the container could not open it either.
            Err(Errno::EPERM) if kind != libc::S_IFIFO => return Ok(()),
            other => other?,
        },
    }
    let (uid, gid) = (Some(stat.st_uid.into()), Some(stat.st_gid.into()));
    fchownat(to, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFLNK {
        fchmodat(to, name, permissions(&stat), FchmodatFlags::FollowSymlink)?; // just made by us, and no link
    }
    Ok(utimensat(to, name, &accessed(&stat), &modified(&stat), UtimensatFlags::NoFollowSymlink)?)
}

fn file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    // Not to be kept waiting by a fifo that came meanwhile.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let mut source = File::from(openat(from, name, flags | OFlag::O_RDONLY, Mode::empty())?);
    let new = flags | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let mut target = File::from(openat(to, name, new, Mode::S_IRUSR | Mode::S_IWUSR)?);
    io::copy(&mut source, &mut target)?;
    like(&source, &target)
}

fn directory(at: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(at, name, flags, Mode::empty())?)
}

/// Extended attributes, as far as the other file system has such; but for what an overlay keeps in its own directories.
fn attributes(from: &File, to: &File) -> io::Result<()> {
    let unsupported = |e: &io::Error| matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EPERM));
    let names = match from.list_xattr() {
        Err(e) if unsupported(&e) => return Ok(()),
        other => other?,
    };
    for name in names {
        if name.as_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        let Some(value) = from.get_xattr(&name)? else { continue };
        match to.set_xattr(&name, &value) {
            Err(e) if unsupported(&e) => {}
            other => other?,
        }
    }
    Ok(())
}

fn permissions(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode)
}

fn accessed(stat: &FileStat) -> TimeSpec {
    TimeSpec::new(stat.st_atime, stat.st_atime_nsec)
}

fn modified(stat: &FileStat) -> TimeSpec {
    TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec)
}
