//! The system calls of the tests that no crate of ours wraps safely.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A descriptor that becomes readable when process `pid` ends.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: integers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, close-on-exec, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Lets the program of `command` start in these namespaces.
pub(crate) fn enter(command: &mut std::process::Command, namespaces: Vec<RawFd>) {
    use std::os::unix::process::CommandExt;
    let join = move || {
        for namespace in &namespaces {
            // SAFETY: integers only; the child of fork has one thread.
            if unsafe { libc::setns(*namespace, 0) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec `join` makes system calls only; the list was made before.
    unsafe { command.pre_exec(join) };
}

/// Lets the program of `command` start with no descriptor but the standard ones: other tests of this process have some open
/// at the moment.
pub(crate) fn keep_none(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec it makes one system call, with numbers only.
    unsafe {
        command.pre_exec(|| match libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
}

/// Lets the program of `command` start in a network and mount namespace of its own.
pub(crate) fn unshare(command: &mut std::process::Command, flags: i32) {
    use std::os::unix::process::CommandExt;
    // SAFETY: integers only; the child of fork has one thread.
    let leave = move || if unsafe { libc::unshare(flags) } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: between fork and exec `leave` makes one system call.
    unsafe { command.pre_exec(leave) };
}

/// The descriptor and the text that the other side of a socket has sent.
pub(crate) fn receive_fd(from: BorrowedFd<'_>) -> io::Result<(OwnedFd, String)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut text = [0; 4096];
    let mut bytes = [io::IoSliceMut::new(&mut text)];
    let mut space = nix::cmsg_space!(RawFd);
    let message = recvmsg::<()>(from.as_raw_fd(), &mut bytes, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let length = message.bytes;
    let sent = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    let sent = sent.ok_or_else(|| io::Error::other("no descriptor came"))?;
    // SAFETY: the kernel has just made this descriptor for us; there was room for one only.
    let fd = unsafe { OwnedFd::from_raw_fd(sent) };
    Ok((fd, String::from_utf8_lossy(&text[..length]).into_owned()))
}

/// Number and arguments of the system call that the traced process `pid` is about to make, if it is.
pub(crate) fn entered(pid: nix::unistd::Pid) -> nix::Result<Option<(i64, [u64; 6])>> {
    let info = nix::sys::ptrace::syscall_info(pid)?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Ok(None);
    }
    // SAFETY: `op` says which member of the union the kernel has filled in.
    let entry = unsafe { info.u.entry };
    Ok(Some((entry.nr as i64, entry.args)))
}

/// Waits for the next system call that a seccomp filter asks about, and answers it with `errno`
/// (seccomp_unotify(2)).
pub(crate) fn deny_one(listener: &OwnedFd, errno: i32) -> io::Result<()> {
    const SECCOMP_IOCTL_NOTIF_RECV: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl; // _IOWR('!', 0, 80 bytes)
    const SECCOMP_IOCTL_NOTIF_SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl; // _IOWR('!', 1, 24 bytes)
    // SAFETY: both structures are plain integers, for which zero is a value.
    let (mut asked, mut answer): (libc::seccomp_notif, libc::seccomp_notif_resp) = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one seccomp_notif, which lives until the call returns.
    if unsafe { libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) } == -1 {
        return Err(io::Error::last_os_error());
    }
    (answer.id, answer.error) = (asked.id, -errno);
    // SAFETY: the kernel reads one seccomp_notif_resp, which lives until the call returns.
    if unsafe { libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
