//! System calls of FreeBSD that nobody wraps, each behind a safe function.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;

use nix::unistd::{ForkResult, fork};

use crate::host::Trouble;

/// Does `work` in a forked child, which has no descriptor but stdio, and returns what it made or why it could not.
///
/// The child never comes back into potrun. What it holds while it works, its directory and the jail it enters, end
/// with it.
pub(super) fn forked(work: impl FnOnce() -> Result<Vec<u8>, Trouble>) -> Result<Vec<u8>, Trouble> {
    let (ours, theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // SAFETY: potrun has one thread, so the child may do whatever the parent may.
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let told = only(theirs.as_raw_fd()).and_then(|mut to| {
                let (tag, bytes) = match work() {
                    Ok(bytes) => (b'+', bytes),
                    Err(trouble) => (b'-', crate::error::chain(&*trouble).into_bytes()),
                };
                to.write_all(&[tag])?;
                to.write_all(&bytes)
            });
            exit(i32::from(told.is_err()))
        }
    };
    drop(theirs);
    let mut answer = Vec::new();
    let read = File::from(ours).read_to_end(&mut answer);
    let status = nix::sys::wait::waitpid(child, None)?;
    read?;
    match answer.split_first() {
        Some((b'+', bytes)) => Ok(bytes.to_vec()),
        Some((_, text)) => Err(String::from_utf8_lossy(text).into()),
        None => Err(format!("a child of potrun ended without a word: {status:?}").into()),
    }
}

/// Closes every descriptor from 3 on but `keep`, which becomes descriptor 3.
fn only(keep: i32) -> io::Result<File> {
    use std::os::fd::FromRawFd;
    // SAFETY: the descriptors of the parent's values are not used again in this child, which ends without running
    // their destructors; descriptor 3 is ours alone then.
    unsafe {
        if keep != 3 && libc::dup2(keep, 3) == -1 {
            return Err(io::Error::last_os_error());
        }
        libc::closefrom(4);
        Ok(File::from_raw_fd(3))
    }
}

/// Ends this process without running anything of potrun's.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: _exit(2) only ends.
    unsafe { libc::_exit(code) }
}

/// An iovec of a name or a value that the kernel reads or writes.
fn part(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

/// The id of the jail of this name, if there is one that is not dying.
pub(super) fn jail_id(name: &str) -> io::Result<Option<i32>> {
    let mut key = b"name\0".to_vec();
    let mut value = CString::new(name)?.into_bytes_with_nul();
    let mut iov = [part(&mut key), part(&mut value)];
    // SAFETY: both parts outlive the call, which reads them only.
    match unsafe { libc::jail_get(iov.as_mut_ptr(), 2, 0) } {
        -1 => match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            e => Err(e),
        },
        id => Ok(Some(id)),
    }
}

/// Enters a jail. No directory may be open (sys/kern/kern_descrip.c, `pwd_chroot_chdir`).
pub(super) fn jail_attach(id: i32) -> io::Result<()> {
    // SAFETY: takes a number.
    if unsafe { libc::jail_attach(id) } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
