//! What FreeBSD and Linux do differently for a file of a base: file flags, extended attributes and how to force
//! everything onto the disk.

use std::fs::File;
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
pub(in crate::base) fn keeps_attribute(name: &str, root: bool) -> bool {
    match name {
        "security.capability" => root,
        "system.posix_acl_access" | "system.posix_acl_default" => true,
        _ => name.starts_with("user.") && !name.starts_with("user.overlay."),
    }
}

/// Whether an extended attribute may come from an archive: FreeBSD has the `user` namespace in common with Linux.
#[cfg(not(target_os = "linux"))]
pub(in crate::base) fn keeps_attribute(name: &str, _root: bool) -> bool {
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

/// Opens a regular file to read it; `None` if it is none. Nothing else is ever opened: a look at a descriptor that can do
/// nothing comes first, and then that is what is opened (proc_pid_fd(5)).
#[cfg(target_os = "linux")]
pub(in crate::base) fn open_regular(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<File>> {
    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::{Mode, fstat};
    use std::os::fd::AsRawFd;
    let found = openat(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    if fstat(&found)?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Ok(None);
    }
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map(Some)
}

/// Opens a regular file to read it; `None` if it is none. No fifo is waited for, and outside of devfs(5) there are no
/// devices.
#[cfg(not(target_os = "linux"))]
pub(in crate::base) fn open_regular(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<File>> {
    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::{Mode, fstat};
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty())?;
    Ok((fstat(&file)?.st_mode & libc::S_IFMT == libc::S_IFREG).then(|| file.into()))
}

/// Whether the files of a file system are the kernel's words (linux/magic.h).
#[cfg(target_os = "linux")]
pub(in crate::base) fn is_of_kernel(fd: BorrowedFd<'_>) -> nix::Result<bool> {
    const TYPES: &[u64] = &[
        0x9fa0,      // proc
        0x6265_6572, // sysfs
        0x0027_e0eb, // cgroup
        0x6367_7270, // cgroup2
        0x1cd1,      // devpts
        0x1980_0202, // mqueue
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0x7363_6673, // securityfs
        0xf97c_ff8c, // selinuxfs
        0xcafe_4a11, // bpf
        0x6165_676c, // pstore
        0xde5e_81e4, // efivarfs
        0x6265_6570, // configfs
        0x6573_5543, // fusectl
        0x4249_4e4d, // binfmt_misc
        0x6e73_6673, // nsfs
    ];
    let found = nix::sys::statfs::fstatfs(fd)?.filesystem_type().0;
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation)] // 32 bits of a type that differs by architecture
    let found = u64::from(found as u32);
    Ok(TYPES.contains(&found))
}

/// Whether the files of a file system are the kernel's words.
#[cfg(not(target_os = "linux"))]
pub(in crate::base) fn is_of_kernel(fd: BorrowedFd<'_>) -> nix::Result<bool> {
    const TYPES: &[&str] = &["devfs", "fdescfs", "procfs", "linprocfs", "linsysfs", "mqueuefs"];
    let status = nix::sys::statfs::fstatfs(fd)?;
    Ok(TYPES.contains(&status.filesystem_type_name()))
}
