//! seccomp(2) and bpf(2).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::linux::bpf::{BpfInsn, Hook};
use crate::linux::seccomp::{FLAG_NEW_LISTENER, FLAG_TSYNC, Filter, SockFilter};

/// `struct sock_fprog` of linux/filter.h.
#[repr(C)]
struct Program {
    len: u16,
    filter: *const SockFilter,
}

/// Puts the filter on the calling thread, for good. Gives the listener if the filter notifies.
///
/// The thread needs `no_new_privs` or CAP_SYS_ADMIN in its user namespace. May be called between fork and exec: it
/// makes one system call and allocates nothing.
pub(crate) fn seccomp_install(filter: &Filter) -> io::Result<Option<OwnedFd>> {
    let len = u16::try_from(filter.program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = Program { len, filter: filter.program.as_ptr() };
    // SAFETY: seccomp(2) reads `struct sock_fprog` at the pointer and `len` instructions at the pointer in it. Both
    // are laid out as the kernel's (`repr(C)`, same fields), `program` and `filter` outlive the call, and the kernel
    // copies what it keeps.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, filter.flags, &raw const program) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if filter.flags & FLAG_NEW_LISTENER != 0 {
        return owned(result).map(Some);
    }
    if filter.flags & FLAG_TSYNC != 0 && result > 0 {
        // Not an errno but the id of a thread that has a filter the others have not; nothing was installed.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(None)
}

/// Attaches the program to a hook of the cgroup v2 directory `cgroup`. Programs already attached, here or above, stay: what any of
/// them denies is denied.
///
/// Needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, in the initial user namespace. RLIMIT_MEMLOCK is left alone: since
/// Linux 5.11 programs count as memory of the cgroup.
pub(crate) fn attach(cgroup: BorrowedFd, hook: Hook, program: &[BpfInsn]) -> io::Result<()> {
    let program = load(hook, program)?;
    let mut attr = Attach {
        target_fd: cgroup.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type: hook.numbers().0,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    bpf(&mut attr).map(drop)
    // The cgroup holds the program from here on, and our descriptor closes.
}

// Commands and flags: include/uapi/linux/bpf.h.
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;

/// The kernel lets a program call GPL-only helpers by its license. Ours calls none, so any will do; this is potrun's.
const LICENSE: &CStr = c"BSD-2-Clause";

/// The verifier gives up with EAGAIN when a signal comes in (since Linux 4.20); runc and libbpf try again, too.
const LOAD_ATTEMPTS: usize = 30;

/// What a bpf(2) command is given.
///
/// # Safety
/// The type is `repr(C)`, has no padding, and begins as the struct for `COMMAND` in `union bpf_attr` does; pointers in it
/// are good for what the command does with them as long as the value lives.
unsafe trait Attr {
    const COMMAND: libc::c_int;
}

/// For BPF_PROG_LOAD. The kernel takes what is beyond it to be zero.
#[repr(C)]
struct Load<'a> {
    prog_type: u32,
    insn_cnt: u32,
    insns: Pointer<'a, BpfInsn>,
    license: Pointer<'a, u8>,
    /// Log of the verifier, version of the kernel, flags, name, interface: none.
    unused: [u32; 11],
    expected_attach_type: u32,
}

/// A pointer in 64 bits, whatever the machine's size, as `__aligned_u64` in bpf_attr.
#[repr(C, align(8))]
struct Pointer<'a, T> {
    address: u64,
    of: std::marker::PhantomData<&'a [T]>,
}

impl<'a, T> Pointer<'a, T> {
    fn to(target: &'a [T]) -> Self {
        Self { address: target.as_ptr().expose_provenance() as u64, of: std::marker::PhantomData }
    }
}

// SAFETY: two u32, two u64 at 8 and 16, and twelve u32 from 24 to 72, as the struct for BPF_PROG_LOAD begins. `load` is the only one to make it, with
// as many instructions as it says and a license that ends in NUL; the lifetime keeps both.
unsafe impl Attr for Load<'_> {
    const COMMAND: libc::c_int = 5; // BPF_PROG_LOAD
}

/// For BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target_fd: libc::c_int,
    attach_bpf_fd: libc::c_int,
    attach_type: u32,
    attach_flags: u32,
}

// SAFETY: four 32-bit fields, as the struct for BPF_PROG_ATTACH begins; no pointers.
unsafe impl Attr for Attach {
    const COMMAND: libc::c_int = 8; // BPF_PROG_ATTACH
}

fn load(hook: Hook, program: &[BpfInsn]) -> io::Result<OwnedFd> {
    let license = LICENSE.to_bytes_with_nul();
    let mut attr = Load {
        prog_type: hook.numbers().1,
        insn_cnt: u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        insns: Pointer::to(program),
        license: Pointer::to(license),
        unused: [0; 11],
        expected_attach_type: hook.numbers().0,
    };
    for _ in 1..LOAD_ATTEMPTS {
        match bpf(&mut attr) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            done => return done.and_then(owned),
        }
    }
    bpf(&mut attr).and_then(owned)
}

fn bpf<A: Attr>(attr: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: of these two commands bpf(2) touches no more than the size it is told, which is the value's own; that the
    // value is what the command takes, and its pointers good, is what `Attr` promises. Nothing is kept beyond the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, A::COMMAND, &raw mut *attr, size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The descriptor a system call returned.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = libc::c_int::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: only called with the non-negative result of a system call that makes a descriptor; nobody else has it yet.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
