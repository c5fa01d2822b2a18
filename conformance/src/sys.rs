/*! The suite's system calls that have no safe wrapper. */

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

/// A child that has ended, and how; none if there is none. (nix knows no real-time signals.)
pub(crate) fn wait_any() -> io::Result<Option<(i32, ExitStatus)>> {
    let mut status = 0;
    // SAFETY: waitpid writes one int to the address, which is that of a live one.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match pid {
        0 => Ok(None),
        -1 if io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD) => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(Some((pid, ExitStatus::from_raw(status)))),
    }
}

/// How this child ends, which is about to; none if it is no child.
pub(crate) fn wait_for(pid: i32) -> io::Result<Option<ExitStatus>> {
    let mut status = 0;
    // SAFETY: waitpid writes one int to the address, which is that of a live one.
    match unsafe { libc::waitpid(pid, &raw mut status, 0) } {
        -1 if io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD) => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(Some(ExitStatus::from_raw(status))),
    }
}

/// Descriptors that recvmsg has just delivered.
pub(crate) fn received(fds: &[RawFd]) -> Vec<OwnedFd> {
    // SAFETY: a descriptor in SCM_RIGHTS is a new one of this process, and the caller passes each message once.
    fds.iter().map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

/// Lets the program inherit each descriptor at the number that goes with it. The numbers must lie below all of the
/// descriptors, see `high`.
pub(crate) fn hand_over(command: &mut Command, fds: Vec<(OwnedFd, RawFd)>) {
    let dup_all = move || {
        for (from, to) in &fds {
            // SAFETY: dup2 takes two integers; `from` is owned by the closure, and `to` belongs to the child alone.
            if unsafe { libc::dup2(from.as_raw_fd(), *to) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure calls dup2 only, which is async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(dup_all) };
}

/// Becomes the leader of a session whose terminal is fd 0, before the program starts.
pub(crate) fn own_session(command: &mut Command) {
    let lead = || {
        // SAFETY: setsid and this ioctl take integers, are async-signal-safe, and change the child alone.
        let ret = unsafe {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0)
        };
        if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: as argued above, nothing in the closure is unsafe between fork and exec.
    unsafe { command.pre_exec(lead) };
}

/// A copy of the descriptor above every number a test hands over.
pub(crate) fn high(fd: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an integer and returns a new descriptor or -1.
    let new = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100) };
    if new < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, and nothing else has seen it.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// Whether the descriptor is the outer side of a terminal: the side that has no name, and knows that of the other.
pub(crate) fn is_outer_side(fd: &impl AsRawFd) -> bool {
    // SAFETY: the call takes an integer; the string that it may return is not read.
    unsafe { !libc::ptsname(fd.as_raw_fd()).is_null() }
}

/// A new terminal: its outer and its inner side. (openpty(3) is in libutil, whose number differs from one FreeBSD to the
/// next.)
pub(crate) fn terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    // SAFETY: posix_openpt takes an integer and returns a new descriptor or -1.
    let fd = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, and nothing else has seen it.
    let outer = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the calls take an integer. The string that ptsname returns lives until the next call, and is copied at once;
    // the suite has one thread.
    let name = unsafe {
        if libc::grantpt(fd) < 0 || libc::unlockpt(fd) < 0 {
            return Err(io::Error::last_os_error());
        }
        let name = libc::ptsname(fd);
        if name.is_null() {
            return Err(io::Error::last_os_error());
        }
        CStr::from_ptr(name).to_string_lossy().into_owned()
    };
    let inner = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(name)?;
    Ok((outer, inner.into()))
}
