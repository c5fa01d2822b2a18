//! What FreeBSD and Linux do differently for a file of a base: file flags, extended attributes and how to force
//! everything onto the disk.

use std::io;
use std::os::fd::BorrowedFd;

/// Whether files have flags here.
pub(super) const HAS_FLAGS: bool = cfg!(target_os = "freebsd");

/// Sets file flags (chflags(2)) on `name` in `dir` without following a link; `Ok(false)` where there are none.
#[cfg(target_os = "freebsd")]
pub(in crate::base) fn set_flags(dir: BorrowedFd<'_>, name: &[u8], flags: u32) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    let name = std::ffi::CString::new(name)?;
    // SAFETY: chflagsat(2) reads `name` up to its NUL, which CString guarantees to be within its allocation, and keeps
    // no pointer; `name` lives until the end of this function, and `dir` borrows a descriptor that is open.
    let result = unsafe { libc::chflagsat(dir.as_raw_fd(), name.as_ptr(), flags.into(), libc::AT_SYMLINK_NOFOLLOW) };
    nix::errno::Errno::result(result)?;
    Ok(true)
}

/// Sets file flags (chflags(2)) on `name` in `dir` without following a link; `Ok(false)` where there are none.
#[cfg(not(target_os = "freebsd"))]
pub(in crate::base) fn set_flags(_dir: BorrowedFd<'_>, _name: &[u8], _flags: u32) -> io::Result<bool> {
    Ok(false)
}

/// Whether an extended attribute may come from an archive; `root`: whether the caller may set those of `security`.
///
/// Everything that changes how the *host* sees the file stays out: `trusted.overlay.*` and `user.overlay.*` steer
/// overlayfs, which this tree becomes the lower layer of, and the labels of a security module belong to the host.
#[cfg(target_os = "linux")]
pub(super) fn keeps_attribute(name: &str, root: bool) -> bool {
    match name {
        "security.capability" => root,
        "system.posix_acl_access" | "system.posix_acl_default" => true,
        _ => name.starts_with("user.") && !name.starts_with("user.overlay."),
    }
}

/// Whether an extended attribute may come from an archive: FreeBSD has the `user` namespace in common with Linux.
#[cfg(not(target_os = "linux"))]
pub(super) fn keeps_attribute(name: &str, _root: bool) -> bool {
    name.starts_with("user.")
}

/// Writes the file system that `fd` is on to the disk (syncfs(2)).
#[cfg(target_os = "linux")]
pub(in crate::base) fn sync(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(nix::unistd::syncfs(fd)?)
}

/// Writes file systems to the disk (sync(2)); ZFS keeps the order of writes across a power cut in any case.
#[cfg(not(target_os = "linux"))]
pub(in crate::base) fn sync(_fd: BorrowedFd<'_>) -> io::Result<()> {
    nix::unistd::sync();
    Ok(())
}
