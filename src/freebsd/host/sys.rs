//! System calls of FreeBSD that nobody wraps, each behind a safe function.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::c_int;

use crate::freebsd::wire::Pair;
use crate::host::Trouble;

/// Does `work` in a forked child, which has no descriptor but stdio and what programs would be given (the lock of the
/// journal), and returns what it made or why it could not.
///
/// The child never comes back into potrun. What it holds while it works, its directory and the jail it enters, end
/// with it.
pub(super) fn forked(work: impl FnOnce() -> Result<Vec<u8>, Trouble>) -> Result<Vec<u8>, Trouble> {
    let (ours, theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let child = match self::fork()? {
        Some(child) => nix::unistd::Pid::from_raw(child),
        None => {
            let mut to = File::from(theirs);
            let told = close_private(to.as_raw_fd()).and_then(|()| {
                let (tag, bytes) = match work() {
                    Ok(bytes) => (b'+', bytes),
                    Err(trouble) => (b'-', crate::error::chain(&*trouble).into_bytes()),
                };
                to.write_all(&[tag])?;
                to.write_all(&bytes)
            });
            crate::host::sys::exit(i32::from(told.is_err()))
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

/// How many descriptors this process has open (sys/sysctl.h).
const KERN_PROC_NFDS: c_int = 43;

/// Closes what no program would be given, but for `keep`, and every directory, with which no jail can be entered.
fn close_private(keep: RawFd) -> io::Result<()> {
    let open = sysctl(&[libc::CTL_KERN, libc::KERN_PROC, KERN_PROC_NFDS, 0])?;
    let mut open = open.try_into().map(c_int::from_ne_bytes).map_err(|_| io::Error::other("it is no number"))?;
    for fd in 0.. {
        if open == 0 {
            break;
        }
        // SAFETY: integers only.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        open -= c_int::from(flags != -1);
        if fd > 2 && fd != keep && flags != -1 && (flags & libc::FD_CLOEXEC != 0 || is_directory(fd)) {
            close_range(fd as u32, fd as u32, 0)?;
        }
    }
    Ok(())
}

/// -1 is the errno, anything else the result.
pub(super) fn cvt(result: c_int) -> io::Result<c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// fork(2). In the parent: the child's pid; in the child: `None`.
pub(super) fn fork() -> io::Result<Option<c_int>> {
    // SAFETY: potrun has one thread, so the child may do whatever the parent may.
    Ok(match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Some(child.as_raw()),
        nix::unistd::ForkResult::Child => None,
    })
}

/// The kernel's words for a failed jail_set(2) or nmount(2): what it wrote, else the errno's.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) errno: i32,
    words: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        if self.words.is_empty() { write!(f, "{error}") } else { write!(f, "{}: {error}", self.words) }
    }
}

impl std::error::Error for Refused {}

/// Pairs as iovecs, with room for the kernel's words at the end. JAIL_ERRMSGLEN is 1024 (lib/libjail/jail.h).
fn with_words(pairs: &[Pair], call: impl FnOnce(*mut libc::iovec, u32) -> c_int) -> Result<c_int, Refused> {
    let mut pairs = pairs.to_vec();
    pairs.push((b"errmsg\0".to_vec(), Some(vec![0; 1024])));
    let mut iov = Vec::with_capacity(2 * pairs.len());
    for (name, value) in &mut pairs {
        iov.push(part(name));
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        iov.push(value.as_mut().map_or(none, |value| part(value)));
    }
    let result = call(iov.as_mut_ptr(), iov.len() as u32);
    if result != -1 {
        return Ok(result);
    }
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    let words = pairs.pop().and_then(|(_, words)| words).unwrap_or_default();
    let words = CStr::from_bytes_until_nul(&words).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    Err(Refused { errno, words })
}

/// An iovec of bytes that the kernel reads or writes.
fn part(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

/// jail_set(2) with `JAIL_CREATE` alone, so that no jail of this name is changed. Returns the jail's id.
pub(super) fn jail_create(pairs: &[Pair]) -> Result<c_int, Refused> {
    // SAFETY: the iovecs are of buffers that live until the call returns.
    with_words(pairs, |iov, n| unsafe { libc::jail_set(iov, n, libc::JAIL_CREATE) })
}

/// nmount(2).
pub(super) fn nmount(pairs: &[Pair]) -> Result<(), Refused> {
    // SAFETY: as above.
    with_words(pairs, |iov, n| unsafe { libc::nmount(iov, n, 0) }).map(drop)
}

/// The id of a jail that fits a key, if there is one.
fn jail_find(name: &[u8], value: &mut [u8], flags: c_int) -> io::Result<Option<c_int>> {
    let mut key = name.to_vec();
    let mut iov = [part(&mut key), part(value)];
    // SAFETY: both parts outlive the call.
    match cvt(unsafe { libc::jail_get(iov.as_mut_ptr(), 2, flags) }) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        other => other.map(Some),
    }
}

/// The id of the jail of this name, if there is one; `dying`: also one that is on its way out.
pub(super) fn jail_id(name: &str, dying: bool) -> io::Result<Option<c_int>> {
    let mut value = CString::new(name)?.into_bytes_with_nul();
    jail_find(b"name\0", &mut value, if dying { libc::JAIL_DYING } else { 0 })
}

/// Whether there is still anything of the jail with this id.
pub(super) fn jail_there(id: c_int) -> io::Result<bool> {
    Ok(jail_find(b"jid\0", &mut id.to_ne_bytes(), libc::JAIL_DYING)?.is_some())
}

/// jail_remove(2): kills what is in it, and returns at once.
pub(super) fn jail_remove(id: c_int) -> io::Result<()> {
    // SAFETY: takes a number.
    cvt(unsafe { libc::jail_remove(id) }).map(drop)
}

/// Enters a jail. No directory may be open (sys/kern/kern_descrip.c, `pwd_chroot_chdir`).
pub(super) fn jail_attach(id: c_int) -> io::Result<()> {
    // SAFETY: takes a number.
    cvt(unsafe { libc::jail_attach(id) }).map(drop)
}

/// procctl(2) of this process with a number.
fn procctl(command: c_int, mut value: c_int) -> io::Result<()> {
    // SAFETY: these commands read an int, which lives until the call returns.
    cvt(unsafe { libc::procctl(libc::P_PID, 0, command, (&raw mut value).cast()) }).map(drop)
}

/// The signal that this process gets when its parent ends; 0: none.
pub(super) fn die_with_parent(signal: c_int) -> io::Result<()> {
    procctl(libc::PROC_PDEATHSIG_CTL, signal)
}

/// Until the next exec, nobody but the host's root can trace this process or read its memory.
pub(super) fn untraceable() -> io::Result<()> {
    procctl(libc::PROC_TRACE_CTL, libc::PROC_TRACE_CTL_DISABLE)
}

/// No program that this process becomes gets privileges by being setuid.
pub(super) fn no_new_privileges() -> io::Result<()> {
    procctl(libc::PROC_NO_NEW_PRIVS_CTL, libc::PROC_NO_NEW_PRIVS_ENABLE)
}

/// setrlimit(2).
pub(super) fn setrlimit(resource: c_int, soft: u64, hard: u64) -> io::Result<()> {
    let value = |limit: u64| i64::try_from(limit).unwrap_or(libc::RLIM_INFINITY);
    let limit = libc::rlimit { rlim_cur: value(soft), rlim_max: value(hard) };
    // SAFETY: the limit lives until the call returns.
    cvt(unsafe { libc::setrlimit(resource, &raw const limit) }).map(drop)
}

/// The name that getlogin(2) tells in this session.
pub(super) fn setlogin(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the name lives until the call returns.
    cvt(unsafe { libc::setlogin(name.as_ptr()) }).map(drop)
}

/// Sets all of a process's groups, and its group and user: real, effective and saved.
pub(super) fn set_ids(groups: &[libc::gid_t], gid: libc::gid_t, uid: libc::uid_t) -> io::Result<()> {
    let count = c_int::try_from(groups.len()).map_err(io::Error::other)?;
    // SAFETY: pointer and length are of one slice.
    cvt(unsafe { libc::setgroups(count, groups.as_ptr()) })?;
    // SAFETY: integers only.
    cvt(unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: integers only.
    cvt(unsafe { libc::setresuid(uid, uid, uid) }).map(drop)
}

/// kill(2); -1 is every process that may be signalled but this one.
pub(super) fn kill(pid: c_int, signal: c_int) -> io::Result<()> {
    // SAFETY: integers only.
    cvt(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Whether a descriptor is a directory; one that is not open is none.
pub(super) fn is_directory(fd: c_int) -> bool {
    // SAFETY: stat is plain integers, for which zero is a value, and lives until the call returns.
    let (result, stat) = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(fd, &raw mut stat), stat)
    };
    result == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFDIR
}

/// A new terminal: its master, its slave, and the slave's name.
pub(super) fn open_terminal() -> io::Result<(OwnedFd, OwnedFd, String)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the kernel makes a descriptor for us, which nobody else owns.
    let master = unsafe { OwnedFd::from_raw_fd(cvt(libc::posix_openpt(flags))?) };
    let mut name = [0u8; 64]; // SPECNAMELEN is 255, but pts are named /dev/pts/N
    // SAFETY: the buffer lives until the call returns and has the length that is said.
    unsafe {
        cvt(libc::grantpt(master.as_raw_fd()))?;
        cvt(libc::unlockpt(master.as_raw_fd()))?;
        match libc::ptsname_r(master.as_raw_fd(), name.as_mut_ptr().cast(), name.len()) {
            0 => {}
            _ => return Err(io::Error::last_os_error()),
        }
    }
    let name = CStr::from_bytes_until_nul(&name).map_err(io::Error::other)?;
    // SAFETY: as above.
    let slave = unsafe { OwnedFd::from_raw_fd(cvt(libc::open(name.as_ptr(), flags))?) };
    Ok((master, slave, name.to_string_lossy().into_owned()))
}

/// What the kernel says of a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    pub(super) pid: c_int,
    /// The jail that it is in.
    pub(super) jail: c_int,
    /// When it started: microseconds since boot.
    pub(super) started: u64,
    pub(super) zombie: bool,
    pub(super) stopped: bool,
}

/// The value of a sysctl by its number.
pub(super) fn sysctl(mib: &[c_int]) -> io::Result<Vec<u8>> {
    loop {
        let mut length = 0;
        let (mib_ptr, count) = (mib.as_ptr(), mib.len() as u32);
        // SAFETY: without a buffer the kernel says how long the value is.
        cvt(unsafe { libc::sysctl(mib_ptr, count, std::ptr::null_mut(), &raw mut length, std::ptr::null(), 0) })?;
        length += length / 8; // processes are started meanwhile
        let mut value = vec![0u8; length];
        // SAFETY: the buffer has the length that is said.
        let result = cvt(unsafe {
            libc::sysctl(mib_ptr, count, value.as_mut_ptr().cast(), &raw mut length, std::ptr::null(), 0)
        });
        match result {
            Err(e) if e.raw_os_error() == Some(libc::ENOMEM) => {}
            other => {
                other?;
                value.truncate(length);
                return Ok(value);
            }
        }
    }
}

/// The value of a sysctl by its name.
pub(super) fn sysctl_named(name: &CStr) -> io::Result<Vec<u8>> {
    let mut mib = [0; 24]; // CTL_MAXNAME
    let mut length = mib.len();
    // SAFETY: the buffer has the length that is said.
    cvt(unsafe { libc::sysctlnametomib(name.as_ptr(), mib.as_mut_ptr(), &raw mut length) })?;
    sysctl(&mib[..length])
}

/// `kern.osreldate`: the version of the kernel.
pub(super) fn release_date() -> io::Result<i32> {
    let value = sysctl_named(c"kern.osreldate")?;
    value.try_into().map(i32::from_ne_bytes).map_err(|_| io::Error::other("kern.osreldate is no number"))
}

/// shm_unlink(2).
pub(super) fn shm_unlink(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the text lives until the call returns.
    cvt(unsafe { libc::shm_unlink(path.as_ptr()) }).map(drop)
}

/// Sets a sysctl by its name.
pub(super) fn sysctl_set(name: &CStr, value: &[u8]) -> io::Result<()> {
    let none = std::ptr::null_mut();
    // SAFETY: the value lives until the call returns and has the length that is said.
    cvt(unsafe { libc::sysctlbyname(name.as_ptr(), none, std::ptr::null_mut(), value.as_ptr().cast(), value.len()) })
        .map(drop)
}

/// The processes that fit one of the selectors of sysctl(3), `KERN_PROC`.
fn select(which: c_int, argument: c_int) -> io::Result<Vec<Process>> {
    let boot = sysctl(&[libc::CTL_KERN, libc::KERN_BOOTTIME])?;
    let boot: [u8; size_of::<libc::timeval>()] =
        boot.try_into().map_err(|_| io::Error::other("kern.boottime is not a timeval"))?;
    // SAFETY: a timeval is two integers.
    let boot: libc::timeval = unsafe { std::mem::transmute(boot) };
    let all = match sysctl(&[libc::CTL_KERN, libc::KERN_PROC, which, argument]) {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(Vec::new()),
        other => other?,
    };
    let micros = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    let size = size_of::<libc::kinfo_proc>();
    let mut found = Vec::with_capacity(all.len() / size);
    for bytes in all.chunks_exact(size) {
        // SAFETY: the kernel fills the list with kinfo_proc; the bytes may lie at any address.
        let one = unsafe { bytes.as_ptr().cast::<libc::kinfo_proc>().read_unaligned() };
        if one.ki_structsize as usize != size {
            return Err(io::Error::other("this kernel's kinfo_proc is not the one that potrun knows"));
        }
        found.push(Process {
            pid: one.ki_pid,
            jail: one.ki_jid,
            started: (micros(one.ki_start) - micros(boot)) as u64,
            zombie: one.ki_stat == libc::SZOMB,
            stopped: one.ki_stat == libc::SSTOP,
        });
    }
    Ok(found)
}

/// The process with this pid.
pub(super) fn process(pid: c_int) -> io::Result<Option<Process>> {
    Ok(select(libc::KERN_PROC_PID, pid)?.into_iter().next())
}

/// All processes.
pub(super) fn processes() -> io::Result<Vec<Process>> {
    select(libc::KERN_PROC_PROC, 0)
}

unsafe extern "C" {
    fn bindat(fd: c_int, s: c_int, name: *const libc::sockaddr, len: libc::socklen_t) -> c_int;
    fn connectat(fd: c_int, s: c_int, name: *const libc::sockaddr, len: libc::socklen_t) -> c_int;
}

/// The address of a socket in the directory that is opened here: sun_path has 104 bytes, state directories often more
/// (unix(4)).
fn local(path: &Path) -> io::Result<(File, libc::sockaddr_un, libc::socklen_t)> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?.as_bytes();
    // SAFETY: sockaddr_un is integers, for which zero is a value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    if name.len() >= address.sun_path.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    address.sun_len = size_of::<libc::sockaddr_un>() as u8;
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    Ok((File::open(dir)?, address, size_of::<libc::sockaddr_un>() as libc::socklen_t))
}

/// bind(2) at a path of any length.
pub(super) fn bind(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let (dir, address, length) = local(path)?;
    // SAFETY: the address lives until the call returns and has the length that is said.
    cvt(unsafe { bindat(dir.as_raw_fd(), socket.as_raw_fd(), (&raw const address).cast(), length) }).map(drop)
}

/// connect(2) to a path of any length.
pub(super) fn connect(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let (dir, address, length) = local(path)?;
    // SAFETY: as above.
    cvt(unsafe { connectat(dir.as_raw_fd(), socket.as_raw_fd(), (&raw const address).cast(), length) }).map(drop)
}

/// Flag of close_range(2): not now, but at exec (sys/unistd.h).
pub(super) const CLOSE_RANGE_CLOEXEC: c_int = 4;

/// The name of the interface with this index.
pub(super) fn interface_name(index: u32) -> Option<String> {
    let mut name = [0u8; libc::IFNAMSIZ];
    // SAFETY: the buffer has the length that is asked for, and lives until the call returns.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    let text = CStr::from_bytes_until_nul(&name).ok()?;
    (!found.is_null()).then(|| text.to_string_lossy().into_owned())
}

/// close_range(2).
pub(super) fn close_range(first: u32, last: u32, flags: c_int) -> io::Result<()> {
    // SAFETY: integers only.
    cvt(unsafe { libc::close_range(first, last, flags) }).map(drop)
}
