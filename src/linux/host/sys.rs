//! The system calls of Linux that no crate of ours wraps safely, one honest wrapper each.
//!
//! Nothing here decides anything. A path is a C string because the child that calls this must not be surprised by an
//! allocation's failure half way; descriptors come back owned and close-on-exec.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, c_long, c_uint};

/// -1 is the errno, anything else the result.
fn cvt(result: c_long) -> io::Result<c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A descriptor that a system call has just returned.
fn owned(result: c_long) -> io::Result<OwnedFd> {
    let fd = cvt(result)?;
    // SAFETY: the kernel returned `fd` from a call that opens one, so nobody else owns it; it fits, since descriptors
    // are ints.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The descriptor of that number, which the caller knows to be open, and owned by nobody else.
pub(crate) fn take(number: RawFd) -> OwnedFd {
    // SAFETY: that it is so is what the caller says; this module's callers are crate-private.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// `NETLINK_GET_STRICT_CHK` (linux/netlink.h), which libc has not.
const NETLINK_GET_STRICT_CHK: c_int = 12;

/// Has the kernel look at the header of a dump's request (netlink(7)).
pub(crate) fn netlink_strict(socket: BorrowedFd<'_>) -> io::Result<()> {
    let (on, size): (c_int, _) = (1, size_of::<c_int>() as libc::socklen_t);
    let (level, name) = (libc::SOL_NETLINK, NETLINK_GET_STRICT_CHK);
    // SAFETY: `on` lives until the call returns and has the size that is passed.
    cvt(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), size) }.into()).map(drop)
}

/// How clone3(2) is asked.
pub(crate) struct Clone<'a> {
    /// `CLONE_NEW*`.
    pub(crate) flags: u64,
    /// The cgroup that the child starts in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// clone3(2); the constant of libc is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks. In the parent: the child's pid; in the child: `None`.
pub(crate) fn clone3(how: &Clone<'_>) -> io::Result<Option<libc::pid_t>> {
    // SAFETY: clone_args is plain integers, for which zero is a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = how.flags;
    // A sibling ends with the signal that its maker ends with, and clone3(2) wants to be told none.
    args.exit_signal = if how.flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(cgroup) = how.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: args lives until the call returns and has the size that is passed. Without CLONE_VM the child has its
    // own copy of everything, so the call is fork(2); this process has one thread, so no lock is held by another.
    let pid = cvt(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })?;
    Ok((pid != 0).then_some(pid as libc::pid_t))
}

/// openat2(2).
pub(crate) fn openat2(dir: BorrowedFd<'_>, path: &CStr, flags: c_int, mode: u32, resolve: u64) -> io::Result<OwnedFd> {
    // SAFETY: open_how is plain integers, for which zero is a value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = u64::from(mode);
    how.resolve = resolve;
    // SAFETY: path is NUL-terminated, how lives until the call returns and has the size that is passed.
    owned(unsafe {
        libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), path.as_ptr(), &raw const how, size_of::<libc::open_how>())
    })
}

/// `OPEN_TREE_CLONE` of open_tree(2).
const OPEN_TREE_CLONE: c_uint = 1;

/// A detached copy of the mount at `path` (with `recursive`, and of what is mounted below).
pub(crate) fn clone_tree(dir: RawFd, path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as c_uint;
    if recursive {
        flags |= libc::AT_RECURSIVE as c_uint;
    }
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH as c_uint;
    }
    // SAFETY: path is NUL-terminated.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) })
}

/// Attaches a detached mount on what `target` refers to.
pub(crate) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 0x4;
    const MOVE_MOUNT_T_EMPTY_PATH: c_uint = 0x40;
    // SAFETY: both paths are empty C strings.
    cvt(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    })?;
    Ok(())
}

/// Changes attributes of the mount `fd` is in, and with `recursive` of all below.
pub(crate) fn mount_setattr(
    fd: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
) -> io::Result<()> {
    set_attributes(fd, recursive, &MountAttr { set, clear, propagation, userns_fd: 0 })
}

/// Maps the owners of files in the detached mount of `fd` by the maps of a user namespace (`MOUNT_ATTR_IDMAP`).
pub(crate) fn map_mount(fd: BorrowedFd<'_>, recursive: bool, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
    let userns_fd = user_namespace.as_raw_fd() as u64;
    set_attributes(fd, recursive, &MountAttr { set: MOUNT_ATTR_IDMAP, clear: 0, propagation: 0, userns_fd })
}

/// `struct mount_attr` of include/uapi/linux/mount.h (`MOUNT_ATTR_SIZE_VER0`, 32 bytes).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

fn set_attributes(fd: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: attr is the kernel's structure of that size and lives until the call returns.
    cvt(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// Replaces this process by the program that `fd` refers to.
pub(crate) fn exec_fd(fd: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> io::Error {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with NULL and point to NUL-terminated strings that live until the call returns.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// A pidfd of a process.
pub(crate) fn pidfd_open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: integers only.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends a signal to the process of a pidfd.
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed (pidfd_send_signal(2)).
    cvt(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) })?;
    Ok(())
}

/// `struct pidfd_info` of include/uapi/linux/pidfd.h, version 0 (64 bytes).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// The wait status of the ended and reaped process of a pidfd that was opened before (`PIDFD_GET_INFO`, Linux 6.15).
/// `None`: not yet, or this kernel does not tell.
pub(crate) fn pidfd_exit(pidfd: BorrowedFd<'_>) -> Option<i32> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    const PIDFD_GET_INFO: u64 = nix::request_code_readwrite!(0xff, 11, size_of::<PidfdInfo>()) as u64;
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the kernel writes no more to info than the size in the request says, and it lives until the call returns.
    let asked = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as libc::Ioctl, &raw mut info) };
    (asked == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// Marks all descriptors from `first` on close-on-exec.
pub(crate) fn close_on_exec_from(first: c_uint) -> io::Result<()> {
    // SAFETY: integers only.
    cvt(unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// Closes all descriptors from `first` to `last`. Whoever owns one of them must not use or drop it any more: for the
/// child after clone, which never returns to the code that owns them.
pub(crate) fn close_range(first: c_uint, last: c_uint) -> io::Result<()> {
    // SAFETY: integers only.
    cvt(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
    Ok(())
}

/// Joins namespaces: of one kind by a descriptor of it, or several of the process of a pidfd.
pub(crate) fn setns(fd: BorrowedFd<'_>, kinds: c_int) -> io::Result<()> {
    // SAFETY: integers only.
    cvt(c_long::from(unsafe { libc::setns(fd.as_raw_fd(), kinds) }))?;
    Ok(())
}

/// prctl(2) with integer arguments.
pub(crate) fn prctl(option: c_int, argument: u64, argument3: u64) -> io::Result<c_int> {
    // SAFETY: only options whose arguments are integers are passed by this module's callers (crate-private).
    let result = cvt(c_long::from(unsafe { libc::prctl(option, argument, argument3, 0, 0) }))?;
    Ok(result as c_int)
}

/// Sets the effective, permitted and inheritable sets, each a bit mask of capability numbers.
pub(crate) fn capset(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522; // _LINUX_CAPABILITY_VERSION_3: two Data
    let half = |shift: u32| Data {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let (mut header, data) = (Header { version: VERSION_3, pid: 0 }, [half(0), half(32)]);
    // SAFETY: header and data are the kernel's structures of that version and live until the call returns.
    cvt(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) })?;
    Ok(())
}

/// setdomainname(2).
pub(crate) fn setdomainname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length are of one string.
    cvt(c_long::from(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }))?;
    Ok(())
}

/// Brings up the interface `name` of the network namespace of `socket`.
pub(crate) fn link_up(socket: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: ifreq is plain bytes, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes()) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives until the call returns; its name is NUL-terminated, because
    // zip stops at the 16 bytes and all callers pass shorter names.
    cvt(c_long::from(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }))?;
    Ok(())
}

/// The other end of a pseudo terminal, without looking up any path (CVE-2025-52565).
pub(crate) fn terminal_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlock: c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int, which lives until the call returns.
    cvt(c_long::from(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) }))?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a descriptor.
    owned(c_long::from(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }))
}

/// Sets a resource limit by its number.
pub(crate) fn setrlimit(resource: c_uint, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let none = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: the new limit lives until the call returns; the old one is not asked for.
    cvt(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, none) })?;
    Ok(())
}

/// personality(2).
pub(crate) fn personality(domain: u64) -> io::Result<()> {
    // SAFETY: integers only.
    cvt(unsafe { libc::syscall(libc::SYS_personality, domain) })?;
    Ok(())
}

/// set_mempolicy(2).
pub(crate) fn set_mempolicy(mode: c_int, nodes: &[u64]) -> io::Result<()> {
    // One more than the mask has bits: the kernel takes the last for none (get_nodes of mm/mempolicy.c).
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    // SAFETY: the kernel reads no more of the mask than it is told that there are bits.
    cvt(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), bits) })?;
    Ok(())
}

/// `struct sched_attr` of include/uapi/linux/sched/types.h, version 0 (48 bytes).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scheduling {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

/// sched_setattr(2) of this process.
pub(crate) fn sched_setattr(how: &Scheduling) -> io::Result<()> {
    let how = Scheduling { size: size_of::<Scheduling>() as u32, ..*how };
    // SAFETY: how is the kernel's struct sched_attr of that size and lives until the call returns.
    cvt(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const how, 0) })?;
    Ok(())
}

/// ioprio_set(2) of this process.
pub(crate) fn ioprio_set(class: c_int, level: c_int) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: c_int = 1;
    const IOPRIO_CLASS_SHIFT: c_int = 13;
    // SAFETY: integers only.
    cvt(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, class << IOPRIO_CLASS_SHIFT | level) })?;
    Ok(())
}

/// sched_setaffinity(2) of this process.
pub(crate) fn sched_setaffinity(cpus: &[u64]) -> io::Result<()> {
    // SAFETY: the length in bytes is that of the slice.
    cvt(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(cpus), cpus.as_ptr()) })?;
    Ok(())
}

/// setgroups, setresgid, setresuid of this process, which has one thread, in this order.
pub(crate) fn set_ids(groups: Option<&[libc::gid_t]>, gid: libc::gid_t, uid: libc::uid_t) -> io::Result<()> {
    if let Some(groups) = groups {
        // SAFETY: pointer and length are of one slice.
        cvt(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    }
    // SAFETY: integers only. The raw calls act on this thread, which is the only one.
    cvt(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: as above.
    cvt(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    Ok(())
}

/// A procfs of this pid namespace that is mounted nowhere (fsopen(2), fsmount(2)).
pub(crate) fn detached_procfs() -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: c_uint = 1;
    const FSMOUNT_CLOEXEC: c_uint = 1;
    const FSCONFIG_CMD_CREATE: c_uint = 6; // include/uapi/linux/mount.h
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: the name lives until the call returns.
    let fs = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"proc".as_ptr(), FSOPEN_CLOEXEC) })?;
    // SAFETY: this command takes neither key nor value.
    cvt(unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) })?;
    const NOSUID_NODEV_NOEXEC: c_uint = 0x2 | 0x4 | 0x8;
    // SAFETY: no pointers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), FSMOUNT_CLOEXEC, NOSUID_NODEV_NOEXEC) })
}

/// Whether the overlay of these directories can be had as the only one that has any of them as its upper or work directory
/// (`index=on`). With `Ok` it is there, seen by nobody, until the descriptor is closed; `volatile`, so that then nothing is
/// written to the disk: else the kernel syncs all of the file system.
pub(crate) fn exclusive_overlay(lower: &CStr, upper: &CStr, work: &CStr) -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: c_uint = 1;
    const FSCONFIG_SET_FLAG: c_uint = 0; // include/uapi/linux/mount.h
    const FSCONFIG_SET_STRING: c_uint = 1; // the same
    const FSCONFIG_CMD_CREATE: c_uint = 6; // the same
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: the name lives until the call returns.
    let fs = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), FSOPEN_CLOEXEC) })?;
    for (key, value) in [(c"lowerdir", lower), (c"upperdir", upper), (c"workdir", work), (c"index", c"on")] {
        // SAFETY: key and value are NUL-terminated and live until the call returns.
        cvt(unsafe {
            libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0)
        })?;
    }
    let volatile = c"volatile".as_ptr();
    // SAFETY: the key lives until the call returns, and there is no value.
    cvt(unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_SET_FLAG, volatile, none, 0) })?;
    // SAFETY: this command takes neither key nor value.
    cvt(unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) })?;
    Ok(fs)
}

/// Lets two files or directories change places (`RENAME_EXCHANGE` of renameat2(2)).
pub(crate) fn exchange(one: &CStr, other: &CStr) -> io::Result<()> {
    const RENAME_EXCHANGE: c_uint = 1 << 1; // include/uapi/linux/fs.h
    let (one, other) = (one.as_ptr(), other.as_ptr());
    // SAFETY: both names are NUL-terminated and live until the call returns.
    cvt(unsafe { libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, one, libc::AT_FDCWD, other, RENAME_EXCHANGE) })?;
    Ok(())
}

/// keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`: a new one without a name, which nobody else can have made.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1; // include/uapi/linux/keyctl.h
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: without a name the call reads no memory.
    cvt(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, none) }).map(drop)
}

/// The type of the file system that `fd` is in.
pub(crate) fn filesystem(fd: BorrowedFd<'_>) -> io::Result<i64> {
    // SAFETY: statfs is plain integers, for which zero is a value.
    let mut buffer: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes a statfs to the buffer.
    cvt(c_long::from(unsafe { libc::fstatfs(fd.as_raw_fd(), &raw mut buffer) }))?;
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)] // its width differs between architectures
    Ok(buffer.f_type as i64)
}

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    reserved: [u8; 8],
}

/// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR` (ioctl_fsxattr(2)).
mod attributes {
    use super::Attributes;
    nix::ioctl_read!(get, b'X', 31, Attributes);
    nix::ioctl_write_ptr!(set, b'X', 32, Attributes);
}

/// `FS_XFLAG_PROJINHERIT` of linux/fs.h: what is made in the directory is of its project.
const INHERIT_PROJECT: u32 = 0x200;

/// The project that a file or directory is of; 0 is none.
pub(crate) fn project(file: BorrowedFd<'_>) -> io::Result<u32> {
    let mut all = Attributes::default();
    // SAFETY: all is what the kernel fills, and lives until the call returns.
    unsafe { attributes::get(file.as_raw_fd(), &raw mut all) }?;
    Ok(all.project)
}

/// Makes a directory, and all that is made in it from now on, one of a project.
pub(crate) fn set_project(dir: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let mut all = Attributes::default();
    // SAFETY: as above.
    unsafe { attributes::get(dir.as_raw_fd(), &raw mut all) }?;
    (all.project, all.flags) = (project, all.flags | INHERIT_PROJECT);
    // SAFETY: all is only read, and lives until the call returns.
    unsafe { attributes::set(dir.as_raw_fd(), &raw const all) }?;
    Ok(())
}

/// quotactl_fd(2) for the project quotas of the file system that `file` is on.
fn quotactl<T>(file: BorrowedFd<'_>, command: c_uint, id: u32, about: *mut T) -> io::Result<()> {
    const PRJQUOTA: c_uint = 2; // linux/quota.h
    let command = command << 8 | PRJQUOTA;
    // SAFETY: every caller below passes the type that its command is documented with, which lives until the call returns.
    cvt(unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), command, id, about) }).map(drop)
}

/// Whether the file system that `file` is on keeps limits of projects. One that has no quotas says so by an error.
pub(crate) fn limits_projects(file: BorrowedFd<'_>) -> bool {
    const Q_XGETQSTAT: c_uint = 0x5805; // linux/dqblk_xfs.h
    const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5; // the same
    // struct fs_quota_stat, of which the second member is asked, is 80 bytes.
    let mut about = [0_u16; 64];
    quotactl(file, Q_XGETQSTAT, 0, about.as_mut_ptr()).is_ok() && about[1] & FS_QUOTA_PDQ_ENFD != 0
}

/// Bytes that a project may have, and has; no limit is 0.
pub(crate) fn quota(file: BorrowedFd<'_>, project: u32) -> io::Result<(u64, u64)> {
    const Q_GETQUOTA: c_uint = 0x80_0007; // linux/quota.h
    // SAFETY: dqblk is plain integers, for which zero is a value.
    let mut about: libc::dqblk = unsafe { std::mem::zeroed() };
    match quotactl(file, Q_GETQUOTA, project, &raw mut about) {
        // XFS knows nothing of a project that nobody has used.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok((0, 0)),
        Err(e) => Err(e),
        Ok(()) => Ok((about.dqb_bhardlimit.saturating_mul(QUOTA_BLOCK), about.dqb_curspace)),
    }
}

/// The unit of a limit (quotactl(2), `QIF_DQBLKSIZE`).
const QUOTA_BLOCK: u64 = 1024;

/// Sets how many bytes a project may have; no limit is 0.
pub(crate) fn set_quota(file: BorrowedFd<'_>, project: u32, bytes: u64) -> io::Result<()> {
    const Q_SETQUOTA: c_uint = 0x80_0008; // linux/quota.h
    // SAFETY: as above.
    let mut about: libc::dqblk = unsafe { std::mem::zeroed() };
    about.dqb_bhardlimit = bytes.div_ceil(QUOTA_BLOCK);
    about.dqb_valid = libc::QIF_BLIMITS;
    quotactl(file, Q_SETQUOTA, project, &raw mut about)
}
