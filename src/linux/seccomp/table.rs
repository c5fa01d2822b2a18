//! Syscall numbers by ABI.
//!
//! The numbers are those of the crate `syscalls`, which is generated from the kernel's `syscall.tbl` files. What the
//! crate has not, or has wrong, is put right here. The result was compared with the table of libseccomp 90d3f7d
//! (src/syscalls.csv, Linux 7.1), and agrees for each of its 508 names on each ABI.

use std::cmp::Ordering;

use oci_spec::runtime::Arch;

/// Marks an x32 call in the syscall number: `__X32_SYSCALL_BIT` of arch/x86/include/uapi/asm/unistd.h.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// A syscall table. x86_64 and x32 are two tables of one kernel architecture, told apart by [`X32_BIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Abi {
    X86_64,
    X32,
    X86,
    Aarch64,
    Arm,
    Riscv64,
}

impl Abi {
    /// The ABI an OCI architecture names, if we have its table.
    pub(super) fn of(arch: Arch) -> Option<Self> {
        match arch {
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX32 => Some(Self::X32),
            Arch::ScmpArchX86 => Some(Self::X86),
            Arch::ScmpArchAarch64 => Some(Self::Aarch64),
            Arch::ScmpArchArm => Some(Self::Arm),
            Arch::ScmpArchRiscv64 => Some(Self::Riscv64),
            _ => None,
        }
    }

    /// `seccomp_data.arch` of a call of this ABI: AUDIT_ARCH_* of linux/audit.h. All of them are little-endian, which
    /// is what the offsets of argument halves rely on.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
        }
    }

    /// Whether all 64 bits of an argument count. libseccomp compares the low half alone on its 32-bit ABIs, and x32 is
    /// one of these (`.size` in its src/arch-*.c).
    pub(super) fn wide(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64 | Self::Riscv64)
    }

    /// The number of the syscall `name`, if the ABI has it.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        if let Some(&(_, number)) = NEWER.iter().find(|(newer, _)| *newer == name) {
            return Some(if self == Self::X32 { number | X32_BIT } else { number });
        }
        match self {
            Self::X86_64 => find(&X86_64, name),
            Self::X32 => x32(name),
            Self::X86 => find(&X86, name),
            Self::Aarch64 => aarch64(name),
            Self::Arm => {
                find(&ARM, name).or_else(|| ARM_PRIVATE.iter().find_map(|&(private, n)| (private == name).then_some(n)))
            }
            Self::Riscv64 => find(&RISCV64, name),
        }
    }
}

/// The calls of one of the crate's tables, sorted when this is compiled. The crate itself compares a name with one after
/// the other, which for podman's profile took more instructions than all else that `create` does outside of the kernel.
macro_rules! sorted {
    ($name:ident, $abi:ident) => {
        static $name: [(&str, u32); syscalls::$abi::Sysno::count()] = {
            use syscalls::$abi::Sysno;
            let mut all = [("", 0); Sysno::count()];
            let (mut at, mut number) = (0, Sysno::first().id());
            while number <= Sysno::last().id() {
                if let Some(call) = Sysno::new(number as usize) {
                    all[at] = (call.name(), number as u32);
                    at += 1;
                }
                number += 1;
            }
            sort(all)
        };
    };
}

sorted!(X86_64, x86_64);
sorted!(X86, x86);
sorted!(AARCH64, aarch64);
sorted!(ARM, arm);
sorted!(RISCV64, riscv64);

/// Sorts by length, then by the bytes (Shell's sort, since the library's are not `const`).
const fn sort<const N: usize>(mut all: [(&str, u32); N]) -> [(&str, u32); N] {
    let mut gap = N / 2;
    while gap > 0 {
        let mut end = gap;
        while end < N {
            let mut at = end;
            while at >= gap && is_less(all[at].0, all[at - gap].0) {
                (all[at], all[at - gap]) = (all[at - gap], all[at]);
                at -= gap;
            }
            end += 1;
        }
        gap /= 2;
    }
    all
}

const fn is_less(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return a.len() < b.len();
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return a[at] < b[at];
        }
        at += 1;
    }
    false
}

fn find(table: &[(&str, u32)], name: &str) -> Option<u32> {
    // The crate names each call by `stringify!` of an identifier, so the one that is a keyword keeps its `r#`.
    let name = if name == "break" { "r#break" } else { name };
    let order = |other: &str| -> Ordering { other.len().cmp(&name.len()).then_with(|| other.cmp(name)) };
    table.binary_search_by(|(other, _)| order(other)).ok().map(|at| table[at].1)
}

/// Newer than the crate (syscalls 0.8.1 ends at file_setattr, 469); one number for every ABI here, see the kernel's
/// scripts/syscall.tbl.
const NEWER: [(&str, u32); 2] = [("listns", 470), ("rseq_slice_yield", 471)];

/// Calls in the range private to ARM (arch/arm/include/uapi/asm/unistd.h, `__ARM_NR_BASE`). Docker's and podman's
/// profiles name three of them.
const ARM_PRIVATE: [(&str, u32); 6] = [
    ("breakpoint", 0xf_0001),
    ("cacheflush", 0xf_0002),
    ("usr26", 0xf_0003),
    ("usr32", 0xf_0004),
    ("set_tls", 0xf_0005),
    ("get_tls", 0xf_0006),
];

/// The crate lists for aarch64 the `_time64` calls, which only 32-bit architectures have (403 to 423 in
/// scripts/syscall.tbl), and calls newfstatat by another name.
fn aarch64(name: &str) -> Option<u32> {
    const TIME64: std::ops::RangeInclusive<u32> = 403..=423;
    match name {
        "newfstatat" => Some(79),
        "fstatat" => None,
        _ => find(&AARCH64, name).filter(|n| !TIME64.contains(n)),
    }
}

/// x32 shares the numbers of x86_64, but for calls it never had and those with a layout of their own, from 512 on
/// (the `x32` and `64` lines of arch/x86/entry/syscalls/syscall_64.tbl).
fn x32(name: &str) -> Option<u32> {
    let number = find(&X86_64, name).filter(|_| !X32_ABSENT.contains(&name))?;
    let own = (512..).zip(X32_OWN).find_map(|(n, own)| (own == name).then_some(n));
    Some(own.unwrap_or(number) | X32_BIT)
}

const X32_ABSENT: [&str; 11] = [
    "_sysctl",
    "create_module",
    "epoll_ctl_old",
    "epoll_wait_old",
    "get_kernel_syms",
    "get_thread_area",
    "nfsservctl",
    "query_module",
    "set_thread_area",
    "uselib",
    "vserver",
];

/// Numbers 512 to 547, in order.
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// How the call `name` is reached on i386 besides (or instead of) a number of its own: the number of the multiplexer and
/// the value of its first argument (include/uapi/linux/net.h SYS_*, include/uapi/linux/ipc.h). libseccomp filters both
/// ways, see `abi_rule_add` in its src/syscalls.c.
pub(super) fn x86_multiplexed(name: &str) -> Option<(u32, u64)> {
    const SOCKETCALL: u32 = 102;
    const IPC: u32 = 117;
    const SOCKET_CALLS: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC_CALLS: [(&str, u64); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    let socket = (1..).zip(SOCKET_CALLS).find_map(|(n, call)| (call == name).then_some((SOCKETCALL, n)));
    socket.or_else(|| IPC_CALLS.iter().find_map(|&(call, n)| (call == name).then_some((IPC, n))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from the kernel's own tables, one of each kind of correction.
    #[test]
    fn numbers_are_the_kernels() {
        let cases = [
            (Abi::X86_64, "read", Some(0)),
            (Abi::X86_64, "clone3", Some(435)),
            (Abi::X86_64, "recv", None),
            (Abi::X32, "read", Some(X32_BIT)),
            (Abi::X32, "rt_sigaction", Some(X32_BIT | 512)),
            (Abi::X32, "ioctl", Some(X32_BIT | 514)),
            (Abi::X32, "setsockopt", Some(X32_BIT | 541)),
            (Abi::X32, "pwritev2", Some(X32_BIT | 547)),
            (Abi::X32, "uselib", None),
            (Abi::X32, "listns", Some(X32_BIT | 470)),
            (Abi::X86, "break", Some(17)),
            (Abi::X86, "socket", Some(359)),
            (Abi::X86, "accept", None),
            (Abi::Aarch64, "newfstatat", Some(79)),
            (Abi::Aarch64, "fstatat", None),
            (Abi::Aarch64, "futex_time64", None),
            (Abi::Aarch64, "open", None),
            (Abi::Arm, "futex_time64", Some(422)),
            (Abi::Arm, "set_tls", Some(0xf_0005)),
            (Abi::Riscv64, "riscv_flush_icache", Some(259)),
            (Abi::Riscv64, "rseq_slice_yield", Some(471)),
        ];
        for (abi, name, number) in cases {
            assert_eq!(abi.number(name), number, "{name} on {abi:?}");
        }
    }

    /// Each call that the crate knows is found, under the crate's number.
    #[test]
    fn the_sorted_tables_are_the_crates() {
        for (all, parse) in [
            (&X86_64[..], (|name| name.parse().ok().map(|call: syscalls::x86_64::Sysno| call as u32)) as fn(&str) -> _),
            (&X86, |name| name.parse().ok().map(|call: syscalls::x86::Sysno| call as u32)),
            (&AARCH64, |name| name.parse().ok().map(|call: syscalls::aarch64::Sysno| call as u32)),
            (&ARM, |name| name.parse().ok().map(|call: syscalls::arm::Sysno| call as u32)),
            (&RISCV64, |name| name.parse().ok().map(|call: syscalls::riscv64::Sysno| call as u32)),
        ] {
            assert!(all.is_sorted_by(|(a, _), (b, _)| is_less(a, b)));
            for (name, number) in all {
                assert_eq!((find(all, name), parse(name)), (Some(*number), Some(*number)), "{name}");
            }
            for none in ["", "reads", "zzz", "a_name_longer_than_all_that_there_are"] {
                assert_eq!(find(all, none), None);
            }
        }
    }

    #[test]
    fn multiplexed_calls_have_the_numbers_of_net_h_and_ipc_h() {
        assert_eq!(x86_multiplexed("socket"), Some((102, 1)));
        assert_eq!(x86_multiplexed("accept4"), Some((102, 18)));
        assert_eq!(x86_multiplexed("sendmmsg"), Some((102, 20)));
        assert_eq!(x86_multiplexed("msgctl"), Some((117, 14)));
        assert_eq!(x86_multiplexed("read"), None);
    }
}
