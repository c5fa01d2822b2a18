//! Security modules: what the kernel is told of the program's confinement before it begins.
//!
//! Such a write must reach the kernel. A container that can change what is mounted on its /proc would have it land in a
//! file of its own, so that the program runs unconfined, or in another file of the kernel (CVE-2019-16884,
//! CVE-2025-52881): so it goes by a procfs that nobody else sees, or by one on which nothing is mounted.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};

use crate::facts::Labels;
use crate::host::Trouble;
use crate::op::{Module, Op};

use super::{beneath, into, name_of, sys};

/// include/uapi/linux/magic.h.
const SELINUX_MAGIC: i64 = 0xf97c_ff8c;

/// Which security modules this kernel has, switched on.
#[must_use]
pub(super) fn there() -> Labels {
    let apparmor = fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"));
    // Without a policy everything is of the context "kernel".
    let policy = || fs::read("/proc/self/attr/current").is_ok_and(|text| text.contains(&b':'));
    let selinux = super::open_path("/sys/fs/selinux".as_ref())
        .and_then(|dir| sys::filesystem(dir.as_fd()))
        .is_ok_and(|magic| magic == SELINUX_MAGIC && policy());
    Labels { apparmor, selinux }
}

/// Says what the program that this process will become is confined by.
pub(super) fn confine(module: Module, label: &str) -> Result<(), Trouble> {
    const COMMON: &str = "thread-self/attr/exec";
    // Beside another module the file of all of them may not be AppArmor's; before Linux 5.8 there is no other.
    const APPARMOR: &str = "thread-self/attr/apparmor/exec";
    let (first, text) = match module {
        Module::Apparmor => (APPARMOR, format!("exec {label}")),
        Module::Selinux => (COMMON, label.into()),
    };
    let mut path = first;
    let mut file = own(path);
    if module == Module::Apparmor && file.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        path = COMMON;
        file = own(path);
    }
    // The name in this form is what podman knows the error by.
    let failed = |what: &str, e: io::Error| format!("{what} `/proc/{path}`: {e}");
    let mut file = file.map_err(|e| failed("open", e))?;
    file.write_all(text.as_bytes()).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOENT) => failed("write", e) + "; is the profile loaded?",
        _ => failed("write", e),
    })?;
    Ok(())
}

/// Whether the kernel takes what a program will be confined by, before anything is made for it. A child asks: what is said
/// of the program of a process holds for that of its children, hooks, too, and cannot be taken back.
pub(super) fn try_out(steps: &[Op]) -> Result<(), Trouble> {
    let confined = steps.iter().filter_map(|op| match op {
        Op::Confine { module, label } => Some((op, *module, label)),
        _ => None,
    });
    for (op, module, label) in confined {
        into::forked(|| confine(module, label)).map_err(|e| format!("{op}: {e}"))?;
    }
    Ok(())
}

/// Takes a new session keyring.
pub(super) fn new_keyring(label: Option<&str>) -> Result<(), Trouble> {
    let created = "thread-self/attr/keycreate";
    let write = |text: &[u8]| {
        own(created).and_then(|mut file| file.write_all(text)).map_err(|e| format!("write `/proc/{created}`: {e}"))
    };
    label.map_or(Ok(()), |label| write(label.as_bytes()))?;
    match sys::new_session_keyring() {
        // A kernel without keys has none to hide.
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {}
        other => other?,
    }
    // Keys that the program makes are labelled as the kernel does it; "\n" is how it is told so.
    Ok(label.map_or(Ok(()), |_| write(b"\n"))?)
}

/// Gives a file its label.
pub(super) fn relabel(file: BorrowedFd<'_>, label: &str) -> io::Result<()> {
    // The descriptor is O_PATH, which fsetxattr(2) does not take.
    xattr::set_deref(name_of(file), "security.selinux", label.as_bytes())
}

/// Opens a file of this process for writing, beneath a procfs that can be trusted.
fn own(path: &str) -> io::Result<File> {
    below(own_proc()?.as_fd(), path).map(File::from)
}

/// A procfs of our pid namespace: one that is mounted nowhere; without the right to make one, that at /proc, if it is a
/// whole one.
fn own_proc() -> io::Result<OwnedFd> {
    if let Ok(proc) = sys::detached_procfs() {
        return Ok(proc);
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let proc = open(Path::new("/proc"), flags, Mode::empty())?;
    beneath::must_be_proc(proc.as_fd())?;
    // PROC_ROOT_INO of include/linux/proc_fs.h: a directory within a procfs has another number.
    if fstat(&proc)?.st_ino != 1 {
        return Err(io::Error::other("/proc is not the root of a procfs"));
    }
    Ok(proc)
}

/// Opens what `path` names, on the very file system of `proc`: what is mounted over it is an error.
fn below(proc: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let name = std::ffi::CString::new(path)?;
    let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_MAGICLINKS;
    loop {
        match sys::openat2(proc, &name, libc::O_WRONLY, 0, resolve) {
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => {}
            other => return other,
        }
    }
}
