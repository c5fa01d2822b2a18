//! What the tests of this module need unsafe for: a process to put filters on, and bare system calls.

use std::io;
use std::ptr;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Exit(i32),
    Signal(i32),
}

/// Runs `body` in a forked child, and returns what it reported and how the child ended.
///
/// The test harness has threads, so `body` must do no more than between fork and exec: no allocation, no locks.
pub(super) fn in_child<const N: usize>(body: impl FnOnce(&mut [i64; N])) -> io::Result<([i64; N], End)> {
    // SAFETY: a new anonymous mapping, at an address of the kernel's choice; it overlaps nothing.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<[i64; N]>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let report = page.cast::<[i64; N]>();
    // SAFETY: the child calls `body`, which the caller keeps to what is safe there, and `_exit`; it does not return.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: `report` is page-aligned, zeroed, large enough, and the parent does not look before the child is gone.
        body(unsafe { &mut *report });
        // SAFETY: ends the process without running anything of it.
        unsafe { libc::_exit(0) }
    }
    let end = wait(pid);
    // SAFETY: as above; the child is gone, so nobody writes.
    let reported = unsafe { *report };
    // SAFETY: the mapping made above; `report` is not used any more.
    unsafe { libc::munmap(page, size_of::<[i64; N]>()) };
    end.map(|end| (reported, end))
}

fn wait(pid: libc::pid_t) -> io::Result<End> {
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut status = 0;
    // SAFETY: `status` is a local that waitpid fills in. The pid is our child's, and only we wait for it.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(if libc::WIFSIGNALED(status) {
        End::Signal(libc::WTERMSIG(status))
    } else {
        End::Exit(libc::WEXITSTATUS(status))
    })
}

/// A system call as the kernel answers it: the result, or minus the errno.
pub(super) fn call(number: i64, args: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the tests call with numbers that are refused before they do anything, or with calls that take no pointers
    // or C strings that outlive the call.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    // SAFETY: errno of this thread, which is always there.
    if result == -1 { -i64::from(unsafe { *libc::__errno_location() }) } else { result }
}

/// A system call by the i386 gate.
#[cfg(target_arch = "x86_64")]
pub(super) fn call_i386(number: i32, arg: u32) -> i32 {
    let result;
    // SAFETY: `int 0x80` clobbers r8 to r11 and takes its first argument in ebx, which LLVM keeps to itself, so it is
    // swapped in and out. The tests pass no pointers.
    unsafe {
        std::arch::asm!(
            "xchg {arg:r}, rbx", "int 0x80", "xchg {arg:r}, rbx",
            arg = inout(reg) u64::from(arg) => _,
            inlateout("eax") number => result,
            in("ecx") 0, in("edx") 0, in("esi") 0, in("edi") 0,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    result
}

/// Lets the calling process have no_new_privs, without which seccomp(2) takes a capability.
pub(super) fn no_new_privs() -> bool {
    // SAFETY: takes four integers.
    unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 }
}
