/*! Namespaces and what is set in them. */

use std::fs;
use std::os::unix::fs::MetadataExt;

use conformance::Report;
use serde_json::json;

use crate::case::{Fail, Result};
use crate::ctx::{Ctx, Tried};
use crate::{check, group, same, skip};

group! { "linux":
    listed_namespaces_are_new: "config-linux.md#namespaces: a new one without path",
    namespaces_not_listed_are_the_callers: "config-linux.md#namespaces: otherwise inherited",
    cgroup_namespace: "config-linux.md#namespaces: cgroup",
    time_namespace: "config-linux.md#offset-for-time-namespace",
    network_namespace_by_path: "config-linux.md#namespaces: path",
    ipc_and_uts_namespace_by_path: "config-linux.md#namespaces: path",
    pid_namespace_by_path: "config-linux.md#namespaces: path",
    a_namespace_of_the_wrong_kind_is_refused: "config-linux.md#namespaces: MUST generate an error if not of type",
    a_missing_namespace_path_is_refused: "config-linux.md#namespaces: path",
    a_namespace_given_twice_is_refused: "config-linux.md#namespaces: duplicated entries MUST generate an error",
    an_unknown_namespace_is_refused: "config-linux.md#namespaces: type",
    user_namespace: "config-linux.md#user-namespace-mappings",
    user_namespace_root_is_not_root: "config-linux.md#user-namespace-mappings: hostID",
    user_namespace_with_many_ranges: "CVE-2021-43784: lengths between the runtime's processes are bounded",
    user_namespace_exec: "runc CLI: exec",
    hostname: "config.md#hostname",
    hostname_without_namespace_is_refused: "runc CLI: the host's name is not changed",
    domainname: "config.md#domainname",
    loopback_is_up: "runc CLI: lo of a new network namespace is up",
    sysctl: "config-linux.md#sysctl",
    sysctl_of_the_host_is_refused: "config-linux.md#sysctl; CVE-2022-0811",
    sysctl_of_a_foreign_namespace_is_refused: "runc CLI: net.* needs a network namespace of its own",
    personality: "config-linux.md#personality",
    network_namespace_ends_with_the_container: "runtime.md#delete",
    ipc_is_its_own: "config-linux.md#namespaces: ipc",
}

fn own(name: &str) -> Result<u64> {
    Ok(fs::metadata(format!("/proc/self/ns/{name}"))?.ino())
}

fn listed_namespaces_are_new(ctx: &Ctx) -> Result {
    let report = ctx.report(&mut ctx.bundle()?)?;
    for name in ["pid", "net", "ipc", "uts", "mnt"] {
        check!(report.ns[name] != own(name)?, "the {name} namespace is that of the caller");
    }
    Ok(())
}

fn namespaces_not_listed_are_the_callers(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    for kind in ["pid", "network", "ipc", "uts"] {
        bundle.without_namespace(kind);
    }
    fs::create_dir(bundle.rootfs("dev"))?;
    bundle.remove("/hostname");
    let report =
        ctx.report(bundle.set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}])))?;
    for name in ["pid", "net", "ipc", "uts", "cgroup", "user", "time"] {
        same!(report.ns[name], own(name)?, "namespace {name}");
    }
    check!(report.ns["mnt"] != own("mnt")?, "the mount namespace is that of the caller");
    Ok(())
}

fn cgroup_namespace(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let report = ctx.report(bundle.push("/linux/namespaces", json!({"type": "cgroup"})))?;
    check!(report.ns["cgroup"] != own("cgroup")?, "the cgroup namespace is that of the caller");
    let inside = report.cgroup.lines().filter(|line| line.ends_with(":/")).count();
    check!(
        inside > 0 && !report.cgroup.contains(&ctx.id),
        "its root should be the container's group: {}",
        report.cgroup
    );
    Ok(())
}

fn time_namespace(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.push("/linux/namespaces", json!({"type": "time"}));
    bundle.set("/linux/timeOffsets", json!({"monotonic": {"secs": 7200, "nanosecs": 5}, "boottime": {"secs": 3600}}));
    let report = ctx.report(&mut bundle)?;
    check!(report.ns["time"] != own("time")?, "the time namespace is that of the caller");
    let offsets: Vec<&str> = report.timens.split_whitespace().collect();
    same!(offsets, ["monotonic", "7200", "5", "boottime", "3600", "0"], "offsets");
    Ok(())
}

/// Namespaces of a process beside the container.
fn by_path(ctx: &Ctx, flags: &[&str], kinds: &[(&str, &str)]) -> Result<(Report, Vec<u64>)> {
    let mut helper = ctx.helper_in(flags, &["linger"])?;
    same!(helper.out.line()?, "ready", "the helper says");
    let mut bundle = ctx.bundle()?;
    bundle.remove("/hostname");
    let mut inodes = Vec::new();
    for (kind, name) in kinds {
        let path = format!("/proc/{}/ns/{name}", helper.pid());
        inodes.push(fs::metadata(&path)?.ino());
        bundle.without_namespace(kind).push("/linux/namespaces", json!({"type": kind, "path": path}));
    }
    Ok((ctx.report(&mut bundle)?, inodes))
}

fn network_namespace_by_path(ctx: &Ctx) -> Result {
    let (report, inodes) = by_path(ctx, &["--net"], &[("network", "net")])?;
    same!(report.ns["net"], inodes[0], "network namespace");
    Ok(())
}

fn ipc_and_uts_namespace_by_path(ctx: &Ctx) -> Result {
    let (report, inodes) = by_path(ctx, &["--ipc", "--uts"], &[("ipc", "ipc"), ("uts", "uts")])?;
    same!([report.ns["ipc"], report.ns["uts"]], [inodes[0], inodes[1]], "ipc and uts namespaces");
    Ok(())
}

/// As in a pod that shares its pid namespace: the container's process is not the first one there.
fn pid_namespace_by_path(ctx: &Ctx) -> Result {
    let id = ctx.other("b");
    let first = ctx.start(&ctx.bundle()?)?;
    let mut bundle = ctx.bundle_at("second", &id)?;
    let path = format!("/proc/{}/ns/pid", first.pid);
    bundle.without_namespace("pid").push("/linux/namespaces", json!({"type": "pid", "path": path}));
    bundle.args(&["/probe", "report"]);
    let mut second = ctx.create_as(&bundle, &id)?;
    second.start()?;
    let report: Report = crate::ctx::parse(&second.out.line()?)?;
    same!(report.ns["pid"], fs::metadata(path)?.ino(), "pid namespace");
    check!(report.pid > 1 && report.pids.contains(&1), "pid {} among {:?}", report.pid, report.pids);
    second.wait()?;
    second.delete()?;
    first.status_is("running")
}

fn a_namespace_of_the_wrong_kind_is_refused(ctx: &Ctx) -> Result {
    let mut helper = ctx.helper_in(&["--ipc"], &["linger"])?;
    same!(helper.out.line()?, "ready", "the helper says");
    let mut bundle = ctx.bundle()?;
    let path = format!("/proc/{}/ns/ipc", helper.pid());
    bundle.without_namespace("network").push("/linux/namespaces", json!({"type": "network", "path": path}));
    let outcome = ctx.create_verb(&bundle, &ctx.id)?.go()?;
    outcome.fails().map(drop)
}

fn a_missing_namespace_path_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle
        .without_namespace("network")
        .push("/linux/namespaces", json!({"type": "network", "path": "/no-such-namespace"}));
    ctx.refuses(&bundle).map(drop)
}

fn a_namespace_given_twice_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    ctx.refuses(bundle.push("/linux/namespaces", json!({"type": "uts"}))).map(drop)
}

fn an_unknown_namespace_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    ctx.refuses(bundle.push("/linux/namespaces", json!({"type": "nosuch"}))).map(drop)
}

fn user_namespace(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace()?;
    let report = ctx.report(&mut bundle)?;
    same!((report.uid, report.gid), (0, 0), "uid and gid inside");
    for map in [&report.uid_map, &report.gid_map] {
        same!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"], "mapping");
    }
    check!(report.ns["user"] != own("user")?, "the user namespace is that of the caller");
    Ok(())
}

fn user_namespace_root_is_not_root(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace()?;
    fs::write(ctx.dir.join("secret"), "of root")?;
    nix::sys::stat::fchmodat(
        nix::fcntl::AT_FDCWD,
        &ctx.dir.join("secret"),
        nix::sys::stat::Mode::from_bits_truncate(0o600),
        nix::sys::stat::FchmodatFlags::FollowSymlink,
    )?;
    bundle.mount("bind", ctx.dir.join("secret"), "/secret", &["bind"]);
    let answers = ctx.ask(&mut bundle, &["create /mine x", "read /secret"])?;
    answers[0].worked()?;
    answers[1].failed_with(&[libc::EACCES])?;
    same!(fs::metadata(bundle.rootfs("mine"))?.uid(), 100_000, "owner of a file, from outside");
    Ok(())
}

fn user_namespace_with_many_ranges(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace()?;
    // The kernel takes 340 ranges, and a page of text.
    let ranges: Vec<_> =
        (0..200).map(|n| json!({"containerID": n * 10, "hostID": 100_000 + n * 10, "size": 10})).collect();
    bundle.set("/linux/uidMappings", json!(ranges)).set("/linux/gidMappings", json!(ranges));
    let report = ctx.report(&mut bundle)?;
    same!((report.uid_map.lines().count(), report.gid_map.lines().count()), (200, 200), "ranges");
    Ok(())
}

fn user_namespace_exec(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace()?;
    let container = ctx.start(&bundle)?;
    let report = container.exec_report(&["--user", "7:8"])?;
    same!((report.uid, report.gid), (7, 8), "uid and gid inside");
    let link = fs::metadata(format!("/proc/{}/ns/user", container.pid))?.ino();
    same!(report.ns["user"], link, "user namespace");
    Ok(())
}

fn hostname(ctx: &Ctx) -> Result {
    let before = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let mut bundle = ctx.bundle()?;
    same!(ctx.report(bundle.set("/hostname", json!("pot.example")))?.hostname, "pot.example", "hostname");
    same!(fs::read_to_string("/proc/sys/kernel/hostname")?, before, "hostname of the caller");
    Ok(())
}

/// The suite sits in a UTS namespace of its own meanwhile: a runtime that is wrong renames nothing.
fn hostname_without_namespace_is_refused(ctx: &Ctx) -> Result {
    let mut helper = ctx.helper_in(&["--uts"], &["linger"])?;
    same!(helper.out.line()?, "ready", "the helper says");
    let home = fs::File::open("/proc/self/ns/uts")?;
    let away = fs::File::open(format!("/proc/{}/ns/uts", helper.pid()))?;
    let mut bundle = ctx.bundle()?;
    bundle.without_namespace("uts");
    nix::sched::setns(&away, nix::sched::CloneFlags::CLONE_NEWUTS)?;
    let refused = ctx.refuses(&bundle);
    nix::sched::setns(&home, nix::sched::CloneFlags::CLONE_NEWUTS)?;
    refused.map(drop)
}

fn domainname(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    same!(ctx.report(bundle.set("/domainname", json!("example.org")))?.domainname, "example.org", "domainname");
    Ok(())
}

fn loopback_is_up(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    same!(ctx.report(&mut bundle)?.links, ["lo"], "network interfaces");
    ctx.ask(&mut bundle, &["loopback"])?[0].worked().map(drop)
}

fn sysctl(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let all = json!({"net.ipv4.ip_unprivileged_port_start": "99", "kernel.msgmax": "9000", "fs.mqueue.msg_max": "11"});
    bundle.set("/linux/sysctl", all);
    let files = [
        "read /proc/sys/net/ipv4/ip_unprivileged_port_start",
        "read /proc/sys/kernel/msgmax",
        "read /proc/sys/fs/mqueue/msg_max",
    ];
    for (answer, value) in ctx.ask(&mut bundle, &files)?.iter().zip(["99\n", "9000\n", "11\n"]) {
        same!(*answer.worked()?, json!(value), "value");
    }
    Ok(())
}

/// A setting that does nothing: the value it has.
fn sysctl_of_the_host_is_refused(ctx: &Ctx) -> Result {
    let value = fs::read_to_string("/proc/sys/kernel/printk_ratelimit_burst")?;
    for (n, name) in
        ["kernel.printk_ratelimit_burst", "kernel/printk_ratelimit_burst", "../sys/kernel/printk_ratelimit_burst"]
            .iter()
            .enumerate()
    {
        let mut bundle = ctx.bundle_at(&format!("b{n}"), &ctx.id)?;
        ctx.refuses(bundle.set("/linux/sysctl", json!({*name: value.trim()})))?;
    }
    Ok(())
}

fn sysctl_of_a_foreign_namespace_is_refused(ctx: &Ctx) -> Result {
    let value = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")?;
    let mut bundle = ctx.bundle()?;
    fs::create_dir(bundle.rootfs("dev"))?;
    bundle.without_namespace("network");
    bundle.set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}]));
    ctx.refuses(bundle.set("/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": value.trim()}))).map(drop)
}

fn personality(ctx: &Ctx) -> Result {
    if !cfg!(target_arch = "x86_64") {
        skip!("the name of the 32-bit machine is known for x86_64 only");
    }
    let mut bundle = ctx.bundle()?;
    same!(ctx.report(bundle.set("/linux/personality", json!({"domain": "LINUX32"})))?.machine, "i686", "machine");
    Ok(())
}

fn network_namespace_ends_with_the_container(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    let inode = fs::metadata(format!("/proc/{}/ns/net", container.pid))?.ino();
    ctx.call(&["delete", "--force", &ctx.id])?.ok()?;
    let held = conformance::kernel::mounts()?.into_iter().find(|m| m.root == format!("net:[{inode}]"));
    held.map_or(Ok(()), |m| Err(Fail::Failed(format!("the namespace is held by a mount at {}", m.point))))
}

fn ipc_is_its_own(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/sysctl", json!({"kernel.shm_rmid_forced": "1"}));
    let before = fs::read_to_string("/proc/sys/kernel/shm_rmid_forced")?;
    same!(*ctx.ask(&mut bundle, &["read /proc/sys/kernel/shm_rmid_forced"])?[0].worked()?, json!("1\n"), "inside");
    same!(fs::read_to_string("/proc/sys/kernel/shm_rmid_forced")?, before, "outside");
    Ok(())
}
