//! By system calls.

use std::ffi::{CStr, CString};
use std::io;
use std::ptr;

use crate::Mount;

/// What is mounted, as this process sees it (getfsstat(2)).
///
/// # Errors
/// Of the call.
pub fn mounts() -> io::Result<Vec<Mount>> {
    // SAFETY: without a buffer the call only counts.
    let count = unsafe { libc::getfsstat(ptr::null_mut(), 0, libc::MNT_NOWAIT) };
    // More may have come meanwhile.
    let room = usize::try_from(count).map_err(|_| io::Error::last_os_error())? + 64;
    // SAFETY: `statfs` consists of integers and arrays of them, for which zero is a value.
    let mut all: Vec<libc::statfs> = vec![unsafe { std::mem::zeroed() }; room];
    let size = libc::c_long::try_from(size_of_val(all.as_slice())).map_err(io::Error::other)?;
    // SAFETY: the buffer lives across the call and has the size that is passed.
    let count = unsafe { libc::getfsstat(all.as_mut_ptr(), size, libc::MNT_NOWAIT) };
    all.truncate(usize::try_from(count).map_err(|_| io::Error::last_os_error())?);
    Ok(all.iter().map(mount).collect())
}

fn mount(one: &libc::statfs) -> Mount {
    let flags = [
        (libc::MNT_RDONLY, "ro"),
        (libc::MNT_NOEXEC, "noexec"),
        (libc::MNT_NOSUID, "nosuid"),
        (libc::MNT_NOATIME, "noatime"),
    ];
    let on = flags.iter().filter(|(flag, _)| one.f_flags & u64::from(flag.cast_unsigned()) != 0);
    Mount {
        root: String::new(),
        point: text(&one.f_mntonname),
        options: on.map(|(_, name)| (*name).to_owned()).collect(),
        propagation: Vec::new(),
        fstype: text(&one.f_fstypename),
        source: text(&one.f_mntfromname),
        super_options: Vec::new(),
    }
}

/// A string of the kernel in an array that it fits in.
fn text(chars: &[libc::c_char]) -> String {
    let bytes: Vec<u8> = chars.iter().map(|&c| c.cast_unsigned()).take_while(|&b| b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Names of the network interfaces that this process sees.
///
/// # Errors
/// Of if_nameindex(3).
pub fn links() -> io::Result<Vec<String>> {
    let all = nix::net::if_::if_nameindex()?;
    Ok(all.iter().map(|one| one.name().to_string_lossy().into_owned()).collect())
}

/// Processes that this process sees: those of its jail (sysctl(3), `KERN_PROC_PROC`).
#[must_use]
pub fn pids() -> Vec<i32> {
    let Ok(bytes) = sysctl(&[libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PROC, 0]) else { return Vec::new() };
    let mut pids: Vec<i32> = bytes
        .chunks_exact(size_of::<libc::kinfo_proc>())
        .map(|one| {
            let at = std::mem::offset_of!(libc::kinfo_proc, ki_pid);
            i32::from_ne_bytes([one[at], one[at + 1], one[at + 2], one[at + 3]])
        })
        .collect();
    pids.sort_unstable();
    pids
}

/// Signals that this process ignores: bit N - 1 for signal N.
#[must_use]
pub fn ignored() -> u64 {
    let is_ignored = |signal: &i32| {
        // SAFETY: `sigaction` consists of integers and a pointer, for which zero is a value.
        let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: without a new action the call only writes the old one, to a live variable.
        let done = unsafe { libc::sigaction(*signal, ptr::null(), &raw mut now) };
        done == 0 && now.sa_sigaction == libc::SIG_IGN
    };
    (1..=64).filter(is_ignored).fold(0, |mask, signal| mask | 1 << (signal - 1))
}

/// Signals that are blocked, in the same way.
#[must_use]
pub fn blocked() -> u64 {
    // SAFETY: `sigset_t` consists of integers, for which zero is a value.
    let mut now: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: without a new set the call only writes the old one, to a live variable.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, ptr::null(), &raw mut now) };
    // SAFETY: the set is a whole one, and the numbers are signals.
    let is_blocked = |signal: &i32| unsafe { libc::sigismember(&raw const now, *signal) == 1 };
    (1..=64).filter(is_blocked).fold(0, |mask, signal| mask | 1 << (signal - 1))
}

/// What a process was started as: words that end with NUL. Nothing, if it is gone.
#[must_use]
pub fn command_line(pid: i32) -> String {
    let bytes = sysctl(&[libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_ARGS, pid]);
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

/// NIS domain of the host or jail.
#[must_use]
pub fn domainname() -> String {
    let mut name: [libc::c_char; 256] = [0; 256]; // MAXHOSTNAMELEN
    // SAFETY: the buffer is live and has the length that is passed.
    let done = unsafe { libc::getdomainname(name.as_mut_ptr(), 256) };
    if done == 0 { text(&name) } else { String::new() }
}

/// Whether no program of this process can gain privileges (procctl(2), `PROC_NO_NEW_PRIVS_STATUS`).
#[must_use]
pub fn no_new_privileges() -> bool {
    let mut state: libc::c_int = 0;
    // SAFETY: this request writes one int to the address, which is that of a live one.
    let done = unsafe { libc::procctl(libc::P_PID, 0, libc::PROC_NO_NEW_PRIVS_STATUS, (&raw mut state).cast()) };
    done == 0 && state == libc::PROC_NO_NEW_PRIVS_ENABLE
}

/// Name of the terminal that a descriptor is.
#[must_use]
pub fn terminal(fd: i32) -> Option<String> {
    // SAFETY: the call takes an integer, and returns null or a string that lives until the next call.
    let name = unsafe { libc::ttyname(fd) };
    if name.is_null() {
        return None;
    }
    // SAFETY: as above; it is copied at once.
    Some(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

/// A number of sysctl(8), which is set if there is a new value.
///
/// # Errors
/// Of sysctlbyname(3).
pub fn number(name: &str, new: Option<libc::c_int>) -> io::Result<libc::c_int> {
    let name = CString::new(name)?;
    let mut old: libc::c_int = 0;
    let mut size = size_of_val(&old);
    let (value, length) = new.as_ref().map_or((ptr::null(), 0), |new| (ptr::from_ref(new).cast(), size));
    // SAFETY: the name ends with NUL, and both buffers are live ints or null with the size that is passed.
    let done = unsafe { libc::sysctlbyname(name.as_ptr(), (&raw mut old).cast(), &raw mut size, value, length) };
    if done == 0 { Ok(old) } else { Err(io::Error::last_os_error()) }
}

fn sysctl(name: &[libc::c_int]) -> io::Result<Vec<u8>> {
    let count = libc::c_uint::try_from(name.len()).map_err(io::Error::other)?;
    loop {
        let mut size = 0;
        // SAFETY: the name has the length that is passed; without a buffer the call only tells the size.
        let done = unsafe { libc::sysctl(name.as_ptr(), count, ptr::null_mut(), &raw mut size, ptr::null(), 0) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut bytes = vec![0u8; size];
        // SAFETY: as above, and the buffer is live and has the size that is passed.
        let done =
            unsafe { libc::sysctl(name.as_ptr(), count, bytes.as_mut_ptr().cast(), &raw mut size, ptr::null(), 0) };
        if done == 0 {
            bytes.truncate(size);
            return Ok(bytes);
        }
        // There is more than there was.
        if io::Error::last_os_error().raw_os_error() != Some(libc::ENOMEM) {
            return Err(io::Error::last_os_error());
        }
    }
}
