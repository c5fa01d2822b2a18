//! System calls that both systems have and no crate of ours wraps safely, one honest wrapper each.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::c_int;

/// -1 is the errno, anything else the result.
fn cvt(result: c_int) -> io::Result<c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Replaces this process by the program at `path`.
pub(crate) fn exec(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with NULL and point to NUL-terminated strings that live until the call returns.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// A list of strings as execve(2) takes it.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// The next connection of a listening socket.
pub(crate) fn accept(listen: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let none = std::ptr::null_mut::<libc::sockaddr>();
    loop {
        // SAFETY: the address is not asked for.
        let result = unsafe { libc::accept4(listen.as_raw_fd(), none, std::ptr::null_mut(), libc::SOCK_CLOEXEC) };
        match cvt(result) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // SAFETY: the kernel has just made this descriptor for us.
            other => return other.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    }
}

/// The descriptor that the other side of a socket sends.
pub(crate) fn receive_fd(from: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut text = [0; 256];
    let mut bytes = [io::IoSliceMut::new(&mut text)];
    let mut space = nix::cmsg_space!(RawFd);
    let message = recvmsg::<()>(from.as_raw_fd(), &mut bytes, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel has just made this descriptor for us; there is room for one only, so no other.
            return Ok(unsafe { OwnedFd::from_raw_fd(*fd) });
        }
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no descriptor came"))
}

/// Makes the terminal at `fd` the controlling one of this session.
pub(crate) fn set_controlling_terminal(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the argument is an integer.
    cvt(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) })?;
    Ok(())
}

/// Sets rows and columns of a terminal.
pub(crate) fn set_terminal_size(fd: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize, which lives until the call returns.
    cvt(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}

/// Rows and columns of a terminal.
pub(crate) fn terminal_size(fd: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes a winsize, which lives until the call returns.
    cvt(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

/// Restores every signal's default action: a handler cannot be inherited by exec, but "ignored" can.
pub(crate) fn reset_signals() {
    for signal in 1..=128 {
        // SAFETY: SIG_DFL needs no handler; KILL, STOP, the library's own signals and numbers above _NSIG fail with EINVAL, as they should.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Ends this process at once: a forked child must not run the parent's exit handlers.
pub(crate) fn exit(code: c_int) -> ! {
    // SAFETY: no precondition.
    unsafe { libc::_exit(code) }
}

/// Whether `fd` is open and closes by exec.
pub(crate) fn is_close_on_exec(fd: u32) -> bool {
    // SAFETY: integers only.
    let flags = unsafe { libc::fcntl(fd as c_int, libc::F_GETFD) };
    flags != -1 && flags & libc::FD_CLOEXEC != 0
}
