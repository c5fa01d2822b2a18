//! The system calls of rctl(4) and cpuset(2).

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;

use libc::{c_char, c_int};

unsafe extern "C" {
    fn rctl_add_rule(rule: *const c_char, length: usize, out: *mut c_char, out_length: usize) -> c_int;
    fn rctl_remove_rule(filter: *const c_char, length: usize, out: *mut c_char, out_length: usize) -> c_int;
    fn rctl_get_rules(filter: *const c_char, length: usize, out: *mut c_char, out_length: usize) -> c_int;
    fn rctl_get_racct(filter: *const c_char, length: usize, out: *mut c_char, out_length: usize) -> c_int;
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

/// rctl_get_rules(2): the rules that fit `filter`, with commas between them.
pub(super) fn rules(filter: &str) -> io::Result<String> {
    ask(rctl_get_rules, filter)
}

/// rctl_get_racct(2): what is counted for `subject`, `jail:NAME:`, as `resource=amount` with commas between them.
pub(super) fn usage(subject: &str) -> io::Result<String> {
    ask(rctl_get_racct, subject)
}

type Question = unsafe extern "C" fn(*const c_char, usize, *mut c_char, usize) -> c_int;

fn ask(question: Question, about: &str) -> io::Result<String> {
    let about = CString::new(about)?;
    let length = about.as_bytes_with_nul().len();
    // The kernel answers ERANGE as long as it is too small, and takes at most 2 MiB (RCTL_MAX_OUTBUFLEN, sys/kern/kern_rctl.c).
    let mut buffer = vec![0u8; 4096];
    loop {
        // SAFETY: both buffers live until the call returns and have the lengths that are said.
        match cvt(unsafe { question(about.as_ptr(), length, buffer.as_mut_ptr().cast(), buffer.len()) }) {
            Err(e) if e.raw_os_error() == Some(libc::ERANGE) && buffer.len() < 2 << 20 => {
                buffer.resize(buffer.len() * 2, 0);
            }
            other => {
                other?;
                let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(buffer.len());
                return Ok(String::from_utf8_lossy(&buffer[..end]).into_owned());
            }
        }
    }
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
