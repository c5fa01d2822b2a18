//! The system calls of rctl(4) and cpuset(2).

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;

use libc::{c_char, c_int};

unsafe extern "C" {
    fn rctl_add_rule(rule: *const c_char, length: usize, out: *mut c_char, out_length: usize) -> c_int;
    fn rctl_remove_rule(filter: *const c_char, length: usize, out: *mut c_char, out_length: usize) -> c_int;
    fn cpuset_setaffinity(level: c_int, which: c_int, id: libc::id_t, size: usize, mask: *const u64) -> c_int;
}

fn cvt(result: c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// rctl_add_rule(2).
pub(super) fn add_rule(rule: &str) -> io::Result<()> {
    let rule = CString::new(rule)?;
    let length = rule.as_bytes_with_nul().len();
    // SAFETY: the rule lives until the call returns and has the length that is said; nothing is written.
    cvt(unsafe { rctl_add_rule(rule.as_ptr(), length, std::ptr::null_mut(), 0) })
}

/// rctl_remove_rule(2).
pub(super) fn remove_rules(filter: &str) -> io::Result<()> {
    let filter = CString::new(filter)?;
    let length = filter.as_bytes_with_nul().len();
    // SAFETY: as above.
    cvt(unsafe { rctl_remove_rule(filter.as_ptr(), length, std::ptr::null_mut(), 0) })
}

/// How many processors a set can name: what FreeBSD 13's kernel takes at most (sys/kern/kern_cpuset.c, four times
/// MAXCPU of 256), and FreeBSD 14's at least.
pub(super) const PROCESSORS: usize = 1024;

/// Confines the jail with this id to the processors whose bits are set.
pub(super) fn set_jail_affinity(jail: c_int, mask: &[u64; PROCESSORS / 64]) -> io::Result<()> {
    let (level, which) = (libc::CPU_LEVEL_WHICH, libc::CPU_WHICH_JAIL);
    // SAFETY: the mask lives until the call returns and has the size that is said.
    cvt(unsafe { cpuset_setaffinity(level, which, jail.into(), size_of_val(mask), mask.as_ptr()) })
}
