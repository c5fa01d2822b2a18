/*! System call filters. */

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::case::Result;
use crate::ctx::{Ctx, Tried, receive_fds};
use crate::runtime::DEADLINE;
use crate::{check, group, reaper, same, skip};

group! { "seccomp":
    none_by_default: "config-linux.md#seccomp",
    errno: "config-linux.md#seccomp: SCMP_ACT_ERRNO",
    errno_of_choice: "config-linux.md#seccomp: errnoRet",
    kill: "config-linux.md#seccomp: SCMP_ACT_KILL_PROCESS",
    arguments: "config-linux.md#seccomp: args, SCMP_CMP_EQ",
    default_errno_with_a_list: "config-linux.md#seccomp: defaultAction",
    unknown_calls_are_no_error: "runc CLI: names that this kernel or library does not know are skipped",
    an_unknown_action_is_refused: "config-linux.md#seccomp: action",
    without_no_new_privileges: "config-linux.md#seccomp",
    holds_for_exec: "config-linux.md#seccomp",
    notify_sends_the_descriptor: "config-linux.md#the-container-process-state: listenerPath",
}

/// Everything is allowed but this.
fn but(bundle: &mut Bundle, rule: Value) {
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
}

const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

fn none_by_default(ctx: &Ctx) -> Result {
    same!(ctx.report(&mut ctx.bundle()?)?.seccomp, 0, "seccomp mode");
    Ok(())
}

fn errno(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    but(&mut bundle, json!({"names": MKDIR, "action": "SCMP_ACT_ERRNO"}));
    let answers = ctx.ask(&mut bundle, &["mkdir /d", "create /f x", "read /proc/self/status"])?;
    answers[0].failed_with(&[libc::EPERM])?;
    answers[1].worked()?;
    let status = answers[2].worked()?.as_str().unwrap_or_default().to_owned();
    check!(status.contains("Seccomp:\t2"), "the process should have a filter");
    Ok(())
}

fn errno_of_choice(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    but(&mut bundle, json!({"names": MKDIR, "action": "SCMP_ACT_ERRNO", "errnoRet": 95}));
    ctx.ask(&mut bundle, &["mkdir /d"])?[0].failed_with(&[libc::EOPNOTSUPP])
}

fn kill(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    but(&mut bundle, json!({"names": MKDIR, "action": "SCMP_ACT_KILL_PROCESS"}));
    bundle.args(&["/probe", "do", "mkdir /d"]);
    ctx.run(&bundle)?.code_is(128 + libc::SIGSYS)?;
    check!(!bundle.rootfs("d").exists(), "the call was made all the same");
    Ok(())
}

fn arguments(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let netlink = json!([{"index": 0, "value": libc::AF_NETLINK, "op": "SCMP_CMP_EQ"}]);
    but(&mut bundle, json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97, "args": netlink}));
    let answers = ctx.ask(&mut bundle, &["socket inet", "socket netlink"])?;
    answers[0].worked()?;
    answers[1].failed_with(&[libc::EAFNOSUPPORT])
}

/// Engines write filters this way round. The list has what the probe needs and what runtimes do after the filter is on.
fn default_errno_with_a_list(ctx: &Ctx) -> Result {
    let names = [
        "arch_prctl",
        "brk",
        "capget",
        "capset",
        "chdir",
        "clone",
        "clone3",
        "close",
        "close_range",
        "dup",
        "dup2",
        "dup3",
        "epoll_create1",
        "epoll_ctl",
        "epoll_pwait",
        "execve",
        "execveat",
        "exit",
        "exit_group",
        "faccessat2",
        "fchdir",
        "fcntl",
        "fstat",
        "fstatfs",
        "futex",
        "getcwd",
        "getdents64",
        "getgid",
        "getpgrp",
        "getpid",
        "getppid",
        "getrandom",
        "gettid",
        "getuid",
        "ioctl",
        "lseek",
        "madvise",
        "mmap",
        "mprotect",
        "mremap",
        "munmap",
        "nanosleep",
        "newfstatat",
        "open",
        "openat",
        "openat2",
        "poll",
        "ppoll",
        "prctl",
        "prlimit64",
        "read",
        "readlink",
        "readlinkat",
        "rseq",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "sched_getaffinity",
        "sched_yield",
        "sendto",
        "set_robust_list",
        "set_tid_address",
        "setgid",
        "setgroups",
        "setsid",
        "setuid",
        "sigaltstack",
        "stat",
        "statfs",
        "statx",
        "tgkill",
        "umask",
        "uname",
        "write",
        "writev",
    ];
    let mut bundle = ctx.bundle()?;
    let allowed = json!({"names": names.as_slice(), "action": "SCMP_ACT_ALLOW"});
    let arches = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    if !cfg!(target_arch = "x86_64") {
        skip!("the list is for x86_64");
    }
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": arches, "syscalls": [allowed]});
    bundle.set("/linux/seccomp", profile);
    let answers = ctx.ask(&mut bundle, &["mkdir /d", "socket inet", "create /f x"])?;
    answers[0].failed_with(&[libc::ENOSYS])?;
    answers[1].failed_with(&[libc::ENOSYS])?;
    answers[2].worked().map(drop)
}

fn unknown_calls_are_no_error(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    but(&mut bundle, json!({"names": ["call_of_tomorrow", "mkdir"], "action": "SCMP_ACT_ERRNO"}));
    ctx.ask(&mut bundle, &["mkdir /d"])?[0].failed_with(&[libc::EPERM])
}

fn an_unknown_action_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    but(&mut bundle, json!({"names": MKDIR, "action": "SCMP_ACT_NOSUCH"}));
    ctx.refuses(&bundle).map(drop)
}

fn without_no_new_privileges(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    but(&mut bundle, json!({"names": MKDIR, "action": "SCMP_ACT_ERRNO"}));
    bundle.set("/process/noNewPrivileges", json!(false)).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let report = ctx.report(&mut bundle)?;
    same!((report.seccomp, report.no_new_privs), (2, 0), "seccomp mode and no_new_privs");
    Ok(())
}

fn holds_for_exec(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    but(&mut bundle, json!({"names": MKDIR, "action": "SCMP_ACT_ERRNO"}));
    ctx.start(&bundle)?.exec_ask(&[], &["mkdir /d"])?[0].failed_with(&[libc::EPERM])
}

fn notify_sends_the_descriptor(ctx: &Ctx) -> Result {
    let path = ctx.dir.join("seccomp.sock");
    let listener = UnixListener::bind(&path)?;
    let mut bundle = ctx.bundle()?;
    but(&mut bundle, json!({"names": MKDIR, "action": "SCMP_ACT_NOTIFY"}));
    bundle
        .set("/linux/seccomp/listenerPath", json!(path))
        .set("/linux/seccomp/listenerMetadata", json!("for the agent"));
    let container = ctx.create(&bundle)?;
    let starting = ctx.verb(&["start", &ctx.id])?.spawn()?;
    let until = Instant::now() + DEADLINE;
    check!(reaper::ready(&[listener.as_fd()], until)? == [true], "nobody has connected to listenerPath");
    let (peer, _) = listener.accept()?;
    check!(reaper::ready(&[peer.as_fd()], until)? == [true], "nothing was sent to listenerPath");
    let (payload, fds) = receive_fds(&peer)?;
    starting.finish()?.ok()?;
    let state: Value = serde_json::from_slice(&payload)?;
    same!(fds.len(), 1, "descriptors");
    same!(state["fds"], json!(["seccompFd"]), "fds");
    same!(state["metadata"], json!("for the agent"), "metadata");
    same!(state["state"]["id"], json!(ctx.id), "state.id");
    same!(state["pid"], json!(container.pid), "pid");
    Ok(())
}
