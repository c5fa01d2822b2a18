//! The compilers' programs in the kernel that runs the tests.

mod sys;

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxSeccomp};

use super::{attach, seccomp_install};
use crate::linux::bpf::Hook;
use crate::linux::{devices, seccomp};
use seccomp::Filter;
use sys::{End, call, in_child};

const X32: i64 = 0x4000_0000;

fn filter(json: &str) -> Option<Filter> {
    let Some(native) = seccomp::arch_named(std::env::consts::ARCH) else {
        eprintln!("skipped: no syscall table for {}", std::env::consts::ARCH);
        return None;
    };
    let spec: LinuxSeccomp = serde_json::from_str(json).expect("a profile");
    Some(seccomp::compile(&spec, native).expect("the profile compiles").filter)
}

/// Reports in `report[0]` how the installation went, then what `calls` report.
fn filtered<const N: usize>(filter: &Filter, calls: impl FnOnce(&mut [i64; N])) -> ([i64; N], End) {
    let child = in_child(|report: &mut [i64; N]| {
        // An Option of a descriptor: to be dropped, it would have to be closed under the filter.
        let installed = std::mem::ManuallyDrop::new(sys::no_new_privs().then(|| seccomp_install(filter)));
        report[0] = match &*installed {
            Some(Ok(None)) => 0,
            Some(Ok(Some(listener))) => listener.as_raw_fd().into(),
            Some(Err(error)) => -i64::from(error.raw_os_error().unwrap_or(-1)),
            None => -1,
        };
        if report[0] >= 0 {
            calls(report);
        }
    });
    child.expect("fork")
}

#[test]
fn verdicts_reach_the_caller() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13, "syscalls": [
        {"names": ["exit_group", "getpid", "cachestat"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4000},
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 0, "value": 4294967295, "op": "SCMP_CMP_EQ"}]},
        {"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
         "args": [{"index": 1, "value": 4294967296, "op": "SCMP_CMP_GE"}]}]}"#;
    let Some(filter) = filter(profile) else { return };
    let (report, end) = filtered(&filter, |report: &mut [i64; 10]| {
        report[1] = call(libc::SYS_getpid, [0; 6]);
        report[2] = call(libc::SYS_getppid, [0; 6]);
        report[3] = call(libc::SYS_getuid, [0; 6]);
        report[4] = call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]);
        report[5] = call(libc::SYS_personality, [0x1_ffff_ffff, 0, 0, 0, 0, 0]);
        report[6] = call(libc::SYS_getpriority, [0, 0x1_0000_0000, 0, 0, 0, 0]);
        report[7] = call(libc::SYS_getpriority, [0, 0xffff_ffff, 0, 0, 0, 0]);
        report[8] = call(452, [0; 6]); // fchmodat2, newer than cachestat (451)
        report[9] = call(450, [0; 6]); // set_mempolicy_home_node, older
    });
    assert_eq!(end, End::Exit(0));
    assert!(report[1] > 0, "getpid: {report:?}");
    assert_eq!(report[0], 0);
    assert_eq!(report[2..4], [-4000, -13]);
    assert!(report[4] >= 0, "personality: {report:?}");
    assert_eq!(report[5..], [-13, -77, -13, -38, -13]);
}

#[test]
fn an_unlisted_abi_kills() {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("skipped: x32 is of x86_64");
        return;
    }
    let profile = |archs: &str| {
        let rules = r#"[{"names": ["exit_group", "getpid", "clone3"], "action": "SCMP_ACT_ALLOW"}]"#;
        format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "architectures": [{archs}], "syscalls": {rules}}}"#)
    };
    let Some(alone) = filter(&profile("")) else { return };
    let (report, end) = filtered(&alone, |report: &mut [i64; 3]| {
        report[1] = call(-1, [0; 6]);
        report[2] = call(X32 | 0x1ff, [0; 6]);
    });
    // The number -1 is not x32, and takes the default action.
    assert_eq!((report, end), ([0, -1, 0], End::Signal(libc::SIGSYS)));

    let Some(with_x32) = filter(&profile(r#""SCMP_ARCH_X86_64", "SCMP_ARCH_X32""#)) else { return };
    let (report, end) = filtered(&with_x32, |report: &mut [i64; 3]| {
        report[1] = call(X32 | 1, [0; 6]);
        report[2] = call(X32 | 0x1ff, [0; 6]);
    });
    assert_eq!((report, end), ([0, -1, -38], End::Exit(0)));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn i386_calls_have_numbers_of_their_own() {
    let rules = r#"[{"names": ["exit_group", "getpid", "clone3"], "action": "SCMP_ACT_ALLOW"},
                    {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99},
                    {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 98,
                     "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]}]"#;
    let json =
        format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": {rules}}}"#);
    let probe = in_child(|report: &mut [i64; 1]| report[0] = sys::call_i386(20, 0).into()).expect("fork");
    if probe.1 != End::Exit(0) || probe.0[0] <= 0 {
        eprintln!("skipped: the kernel runs no i386 calls ({probe:?})");
        return;
    }
    let Some(filter) = filter(&json) else { return };
    let (report, end) = filtered(&filter, |report: &mut [i64; 6]| {
        report[1] = sys::call_i386(20, 0).into(); // getpid
        report[2] = sys::call_i386(64, 0).into(); // getppid
        report[3] = sys::call_i386(39, 0).into(); // mkdir there, getpid on x86_64
        report[4] = sys::call_i386(102, 1).into(); // socketcall: socket
        report[5] = sys::call_i386(102, 2).into(); // socketcall: bind
    });
    assert_eq!(end, End::Exit(0));
    assert!(report[1] > 0, "{report:?}");
    assert_eq!(report[2..], [-99, -1, -98, -1]);
}

#[test]
fn killing_verdicts_kill() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let json = format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["getppid"], "action": "{action}"}}]}}"#
        );
        let Some(filter) = filter(&json) else { return };
        let (report, end) = filtered(&filter, |report: &mut [i64; 3]| {
            report[1] = call(libc::SYS_getpid, [0; 6]);
            report[2] = call(libc::SYS_getppid, [0; 6]);
        });
        assert_eq!((report[2], end), (0, End::Signal(libc::SIGSYS)), "{action}");
        assert!(report[1] > 0);
    }
}

#[test]
fn a_notifying_filter_has_a_listener() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
                      "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}]}"#;
    let Some(filter) = filter(profile) else { return };
    assert!(filter.has_listener());
    let (report, end) = filtered(&filter, |report: &mut [i64; 2]| {
        // SECCOMP_IOCTL_NOTIF_ID_VALID of an id that no call waits under: only a listener knows the answer ENOENT.
        let id = 0u64;
        report[1] = call(libc::SYS_ioctl, [report[0] as u64, 0x4008_2102, (&raw const id).addr() as u64, 0, 0, 0]);
    });
    assert!(report[0] > 2, "the listener is {}", report[0]);
    assert_eq!((report[1], end), (-i64::from(libc::ENOENT), End::Exit(0)));
}

#[test]
fn the_kernel_takes_every_flag() {
    for flags in
        ["", r#""SECCOMP_FILTER_FLAG_LOG""#, r#""SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC""#]
    {
        let Some(filter) = filter(&format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "flags": [{flags}]}}"#)) else {
            return;
        };
        let tsync = Filter { flags: filter.flags | seccomp::FLAG_TSYNC, ..filter.clone() };
        for filter in [filter, tsync] {
            assert_eq!(filtered(&filter, |_: &mut [i64; 1]| {}), ([0], End::Exit(0)), "{:#x}", filter.flags);
        }
    }
}

#[test]
fn a_filter_the_kernel_refuses() {
    let empty = Filter { program: vec![], flags: 0 };
    assert_eq!(filtered(&empty, |_: &mut [i64; 1]| {}), ([-i64::from(libc::EINVAL)], End::Exit(0)));
    let unknown = Filter { flags: 1 << 31, ..filter(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).expect("a filter") };
    assert_eq!(filtered(&unknown, |_: &mut [i64; 1]| {}), ([-i64::from(libc::EINVAL)], End::Exit(0)));
}

/// A cgroup v2 directory of the test's own, gone with it.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
        let mount = mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let point = before.split(' ').nth(4)?;
            after.starts_with("cgroup2 ").then_some(point)
        });
        let mount = mount.ok_or("no cgroup2 is mounted")?;
        let path = Path::new(mount).join(format!("potrun-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    fn attach(&self, rules: &[LinuxDeviceCgroup]) -> io::Result<()> {
        let directory = File::open(&self.0)?;
        attach(directory.as_fd(), Hook::Device, &devices::program(rules).expect("the rules compile"))
    }

    /// Runs `body` in a child that is in the cgroup.
    fn run<const N: usize>(&self, body: impl FnOnce(&mut [i64; N])) -> [i64; N] {
        let procs = File::options().write(true).open(self.0.join("cgroup.procs")).expect("cgroup.procs");
        let child = in_child(|report: &mut [i64; N]| {
            let entered = call(libc::SYS_write, [procs.as_raw_fd() as u64, c"0".as_ptr().addr() as u64, 1, 0, 0, 0]);
            if entered == 1 {
                body(report);
            } else {
                report.fill(entered);
            }
        });
        let (report, end) = child.expect("fork");
        assert_eq!(end, End::Exit(0));
        report
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// A cgroup with the rules, or the reason why there cannot be one.
fn cgroup(name: &str, rules: &[LinuxDeviceCgroup]) -> Option<Cgroup> {
    let cgroup = Cgroup::new(name).map_err(|reason| eprintln!("skipped: {reason}")).ok()?;
    match cgroup.attach(rules) {
        Ok(()) => Some(cgroup),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            eprintln!("skipped: bpf(2): {error}");
            None
        }
        Err(error) => panic!("attach: {error}"),
    }
}

fn json(rules: &str) -> Vec<LinuxDeviceCgroup> {
    serde_json::from_str(rules).expect("rules")
}

fn open(path: &CStr, flags: i32) -> i64 {
    let flags = (flags | libc::O_CLOEXEC | libc::O_NONBLOCK) as u64;
    let at = i64::from(libc::AT_FDCWD) as u64;
    let fd = call(libc::SYS_openat, [at, path.as_ptr().addr() as u64, flags, 0, 0, 0]);
    if fd < 0 {
        return fd;
    }
    call(libc::SYS_close, [fd as u64, 0, 0, 0, 0, 0])
}

/// A path where nothing is.
fn temporary(name: &str) -> CString {
    let path = std::env::temp_dir().join(format!("potrun-test-bpf-{name}-{}", std::process::id()));
    CString::new(path.into_os_string().into_vec()).expect("a path without NUL")
}

/// Makes a node in a directory that has it not, and takes it away again.
fn mknod(path: &CStr, kind: u32, major: u32, minor: u32) -> i64 {
    let at = i64::from(libc::AT_FDCWD) as u64;
    let path = path.as_ptr().addr() as u64;
    let made = call(libc::SYS_mknodat, [at, path, u64::from(kind | 0o600), libc::makedev(major, minor), 0, 0]);
    if made == 0 {
        call(libc::SYS_unlinkat, [at, path, 0, 0, 0, 0]);
    }
    made
}

const EPERM: i64 = -(libc::EPERM as i64);

#[test]
fn an_ordinary_containers_devices() {
    let mut rules = json(r#"[{"allow": false, "access": "rwm"}]"#);
    rules.extend(devices::defaults(&[]));
    let Some(cgroup) = cgroup("ordinary", &rules) else { return };
    let (node, other) = (temporary("char"), temporary("block"));
    let report = cgroup.run(|report: &mut [i64; 8]| {
        *report = [
            open(c"/dev/null", libc::O_RDWR),
            open(c"/dev/zero", libc::O_RDONLY),
            open(c"/dev/full", libc::O_WRONLY),
            open(c"/dev/urandom", libc::O_RDWR),
            open(c"/dev/kmsg", libc::O_RDONLY),
            open(c"/dev/kmsg", libc::O_WRONLY),
            mknod(&node, libc::S_IFCHR, 1, 1),
            mknod(&other, libc::S_IFBLK, 8, 0),
        ];
    });
    assert_eq!(report, [0, 0, 0, 0, EPERM, EPERM, 0, 0]);
    // That it was the filter: out of the cgroup, the same open succeeds.
    assert_eq!(open(c"/dev/kmsg", libc::O_RDONLY), 0);
}

#[test]
fn the_last_rule_that_matches_decides() {
    let rules = r#"[{"allow": true, "access": "rwm"},
                    {"allow": false, "type": "c", "major": 1, "minor": 3, "access": "w"},
                    {"allow": false, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "r"},
                    {"allow": false, "type": "b", "access": "m"}]"#;
    let Some(cgroup) = cgroup("order", &json(rules)) else { return };
    let (node, zero) = (temporary("node"), temporary("zero"));
    let report = cgroup.run(|report: &mut [i64; 9]| {
        *report = [
            open(c"/dev/null", libc::O_RDONLY),
            open(c"/dev/null", libc::O_WRONLY),
            open(c"/dev/null", libc::O_RDWR),
            open(c"/dev/zero", libc::O_RDONLY),
            open(c"/dev/zero", libc::O_RDWR),
            mknod(&zero, libc::S_IFCHR, 1, 5),
            open(c"/dev/full", libc::O_RDWR),
            mknod(&node, libc::S_IFBLK, 8, 0),
            mknod(&node, libc::S_IFCHR, 8, 0),
        ];
    });
    assert_eq!(report, [0, EPERM, EPERM, 0, EPERM, EPERM, 0, EPERM, 0]);
}

#[test]
fn a_second_filter_only_takes_away() {
    let Some(cgroup) = cgroup("second", &json(r#"[{"allow": false, "access": "rwm"}]"#)) else { return };
    cgroup.attach(&json(r#"[{"allow": true, "access": "rwm"}]"#)).expect("attach");
    assert_eq!(cgroup.run(|report: &mut [i64; 1]| report[0] = open(c"/dev/null", libc::O_RDONLY)), [EPERM]);
}

#[test]
fn the_kernel_takes_as_many_rules_as_we_do() {
    let mut rules = json(r#"[{"allow": false, "access": "rwm"}]"#);
    rules.extend((1..1024u32).flat_map(|minor| {
        let access = ["r", "w", "m", "rw", "rwm"][minor as usize % 5];
        let allow = minor % 3 != 0;
        json(&format!(r#"[{{"allow": {allow}, "type": "c", "major": 1, "minor": {minor}, "access": "{access}"}}]"#))
    }));
    let Some(cgroup) = cgroup("many", &rules) else { return };
    let report = cgroup.run(|report: &mut [i64; 2]| {
        *report = [open(c"/dev/full", libc::O_RDONLY), open(c"/dev/null", libc::O_RDONLY)];
    });
    // 7 has "m" only; 3 is denied.
    assert_eq!(report, [EPERM, EPERM]);
}

#[test]
fn what_is_no_cgroup_takes_no_filter() {
    let rules = json(r#"[{"allow": false, "access": "rwm"}]"#);
    let Some(_able) = cgroup("able", &rules) else { return };
    let directory = File::open("/").expect("/");
    let refused = attach(directory.as_fd(), Hook::Device, &devices::program(&rules).expect("compiles"));
    assert!(refused.is_err_and(|error| error.raw_os_error() == Some(libc::EBADF)));
}
