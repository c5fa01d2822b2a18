/*! The suite's system calls that have no safe wrapper. */

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

/// A descriptor that becomes readable when the process ends.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor, and nothing else has seen it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

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

/// Forks a process that has this very pid, does nothing, and ends with the suite.
pub(crate) fn fork_as(pid: i32) -> io::Result<()> {
    // SAFETY: `clone_args` consists of integers, for which zero is a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    args.set_tid = (&raw const pid) as u64;
    args.set_tid_size = 1;
    // SAFETY: without CLONE_VM this is fork: `args` lives across the call and has the size that is passed. The suite has
    // one thread, and the child calls only async-signal-safe functions and never returns.
    unsafe {
        match libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                loop {
                    libc::pause();
                }
            }
            _ => Ok(()),
        }
    }
}
