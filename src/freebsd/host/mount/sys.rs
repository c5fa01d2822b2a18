//! The system calls of mounts and of devfs(5)'s rules.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::freebsd::wire::{DevfsRule, RULE_BYTES};

use super::super::sys::cvt;

/// A mounted file system.
#[derive(Clone, Debug)]
pub(super) struct Mounted {
    /// `FSID:a:b`, as unmount(2) takes it with `MNT_BYFSID`.
    pub(super) id: String,
    pub(super) fstype: String,
    pub(super) from: PathBuf,
    pub(super) on: PathBuf,
}

fn text(chars: &[libc::c_char]) -> &CStr {
    // SAFETY: the slice is of one array of the kernel's, which ends its texts with NUL within it (sys/mount.h).
    unsafe { CStr::from_ptr(chars.as_ptr()) }
}

fn of(stat: &libc::statfs) -> Mounted {
    // SAFETY: fsid_t is two 32-bit integers (sys/_types.h); libc keeps them private.
    let id: [i32; 2] = unsafe { std::mem::transmute_copy(&stat.f_fsid) };
    let path = |chars| PathBuf::from(OsStr::from_bytes(text(chars).to_bytes()));
    Mounted {
        id: format!("FSID:{}:{}", id[0], id[1]),
        fstype: text(&stat.f_fstypename).to_string_lossy().into_owned(),
        from: path(&stat.f_mntfromname),
        on: path(&stat.f_mntonname),
    }
}

/// The file system that an open file is on.
pub(super) fn mounted(file: BorrowedFd<'_>) -> io::Result<Mounted> {
    // SAFETY: statfs is integers and arrays of them, for which zero is a value; it lives until the call returns.
    let stat = unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        cvt(libc::fstatfs(file.as_raw_fd(), &raw mut stat))?;
        stat
    };
    Ok(of(&stat))
}

/// Everything that is mounted, in the order in which it was.
pub(super) fn all() -> io::Result<Vec<Mounted>> {
    loop {
        // SAFETY: without a buffer the kernel says how many there are.
        let count = cvt(unsafe { libc::getfsstat(std::ptr::null_mut(), 0, libc::MNT_NOWAIT) })? as usize + 8;
        // SAFETY: as in `mounted`.
        let mut stats: Vec<libc::statfs> = vec![unsafe { std::mem::zeroed() }; count];
        let bytes = libc::c_long::try_from(size_of_val(stats.as_slice())).map_err(io::Error::other)?;
        // SAFETY: the buffer has the length that is said.
        let got = cvt(unsafe { libc::getfsstat(stats.as_mut_ptr(), bytes, libc::MNT_NOWAIT) })? as usize;
        if got < count {
            return Ok(stats[..got].iter().map(of).collect());
        }
    }
}

/// Takes a file system away, whoever still uses it; that it is gone is as good.
pub(super) fn unmount(id: &str) -> io::Result<()> {
    let id = CString::new(id)?;
    // SAFETY: the text lives until the call returns.
    match cvt(unsafe { libc::unmount(id.as_ptr(), libc::MNT_BYFSID | libc::MNT_FORCE) }) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(()),
        other => other.map(drop),
    }
}

/// ioctls of a devfs(5) (fs/devfs/devfs.h).
const DEVFSIO_RAPPLY: libc::c_ulong = 0x80ec_4402;
const DEVFSIO_RGETNEXT: libc::c_ulong = 0xc0ec_4404;

/// Applies a rule to the devfs whose root is `dir`.
pub(super) fn apply_rule(dir: BorrowedFd<'_>, rule: &[u8; RULE_BYTES]) -> io::Result<()> {
    let mut rule = *rule;
    // SAFETY: the ioctl reads a devfs_rule, which has this many bytes.
    cvt(unsafe { libc::ioctl(dir.as_raw_fd(), DEVFSIO_RAPPLY, rule.as_mut_ptr()) }).map(drop)
}

/// The rule of a set after number `after`.
pub(super) fn rule_after(ruleset: u16, after: u16) -> io::Result<Option<DevfsRule>> {
    let dir = File::open("/dev")?;
    let mut rule = DevfsRule::asked(ruleset, after);
    // SAFETY: the ioctl reads and writes a devfs_rule, which has this many bytes.
    match cvt(unsafe { libc::ioctl(dir.as_raw_fd(), DEVFSIO_RGETNEXT, rule.as_mut_ptr()) }) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        other => other.map(|_| Some(DevfsRule::read(&rule))),
    }
}
