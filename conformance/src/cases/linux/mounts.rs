/*! Cases of `mounts` that only Linux can have. */

use std::fs;
use std::path::PathBuf;

use conformance::Mount;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use super::super::mounts::data;
use crate::bundle::Bundle;
use crate::case::{Fail, Result};
use crate::ctx::{Ctx, Tried};
use crate::{check, group, same, skip};

group! { "mounts":
    bind_is_not_recursive: "config.md#linux-mount-options: bind",
    rbind_is_recursive: "config.md#linux-mount-options: rbind",
    rbind_readonly_is_of_the_top_only: "config.md#linux-mount-options: ro",
    rbind_recursively_readonly: "config.md#linux-mount-options: rro",
    bind_keeps_flags_of_the_source: "runc CLI: a readonly bind of a nosuid, nodev mount works",
    options_are_flags: "config.md#linux-mount-options: nosuid, nodev, noexec, noatime, ro",
    opposite_options_undo: "config.md#linux-mount-options: the last one counts",
    nodev_is_enforced: "config.md#linux-mount-options: nodev",
    proc_is_that_of_the_container: "config-linux.md#default-filesystems: /proc",
    sys_is_that_of_the_container: "config-linux.md#default-filesystems: /sys",
    devpts_is_new: "config-linux.md#default-filesystems: /dev/pts",
    mqueue: "runc spec: /dev/mqueue",
    cgroup_is_that_of_the_container: "config-linux.md#control-groups: a mount of type cgroup",
    propagation_rslave: "config.md#linux-mount-options: rslave gets what the host mounts",
    propagation_rprivate: "config.md#linux-mount-options: rprivate does not get what the host mounts",
    propagation_rshared: "config.md#linux-mount-options: rshared gives the host what the container mounts",
    inside_proc_of_a_single_file: "runc CLI: lxcfs mounts over /proc/meminfo and the like",
}

fn mount_at(ctx: &Ctx, bundle: &mut Bundle, point: &str) -> Result<Mount> {
    let report = ctx.report(bundle)?;
    report.mount(point).cloned().ok_or_else(|| Fail::Failed(format!("nothing is mounted at {point}")))
}

/// The same, with a tmpfs and a file below it.
fn nested(ctx: &Ctx) -> Result<PathBuf> {
    let dir = data(ctx)?;
    fs::create_dir(dir.join("sub"))?;
    mount(Some("tmpfs"), &dir.join("sub"), Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    fs::write(dir.join("sub/file"), "below")?;
    Ok(dir)
}

fn end_nested(dir: &std::path::Path, result: Result) -> Result {
    umount2(&dir.join("sub"), MntFlags::MNT_DETACH)?;
    result
}

fn bind_is_not_recursive(ctx: &Ctx) -> Result {
    let (mut bundle, dir) = (ctx.bundle()?, nested(ctx)?);
    bundle.mount("bind", &dir, "/data", &["bind"]);
    let answers = ctx.ask(&mut bundle, &["read /data/file", "read /data/sub/file"]);
    end_nested(
        &dir,
        answers.and_then(|answers| {
            answers[0].worked()?;
            answers[1].failed_with(&[libc::ENOENT])
        }),
    )
}

fn rbind_is_recursive(ctx: &Ctx) -> Result {
    let (mut bundle, dir) = (ctx.bundle()?, nested(ctx)?);
    bundle.mount("bind", &dir, "/data", &["rbind"]);
    let answers = ctx.ask(&mut bundle, &["read /data/sub/file"]);
    end_nested(
        &dir,
        answers.and_then(|answers| {
            same!(*answers[0].worked()?, json!("below"), "content");
            Ok(())
        }),
    )
}

fn rbind_readonly_is_of_the_top_only(ctx: &Ctx) -> Result {
    let (mut bundle, dir) = (ctx.bundle()?, nested(ctx)?);
    bundle.mount("bind", &dir, "/data", &["rbind", "ro"]);
    let answers = ctx.ask(&mut bundle, &["create /data/new x", "create /data/sub/new x"]);
    end_nested(
        &dir,
        answers.and_then(|answers| {
            answers[0].failed_with(&[libc::EROFS])?;
            answers[1].worked().map(drop)
        }),
    )
}

fn rbind_recursively_readonly(ctx: &Ctx) -> Result {
    let (mut bundle, dir) = (ctx.bundle()?, nested(ctx)?);
    bundle.mount("bind", &dir, "/data", &["rbind", "rro"]);
    let answers = ctx.ask(&mut bundle, &["create /data/new x", "create /data/sub/new x", "read /data/sub/file"]);
    end_nested(
        &dir,
        answers.and_then(|answers| {
            answers[0].failed_with(&[libc::EROFS])?;
            answers[1].failed_with(&[libc::EROFS])?;
            answers[2].worked().map(drop)
        }),
    )
}

/// The kernel locks these flags in a user namespace: a remount that drops them fails there.
fn bind_keeps_flags_of_the_source(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let dir = ctx.dir.join("data");
    fs::create_dir_all(dir.join("sub"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &dir.join("sub"), Some("tmpfs"), flags, None::<&str>)?;
    bundle.user_namespace()?;
    bundle.mount("bind", dir.join("sub"), "/data", &["rbind", "ro"]);
    let found = mount_at(ctx, &mut bundle, "/data");
    end_nested(
        &dir,
        found.and_then(|found| {
            for option in ["ro", "nosuid", "nodev", "noexec"] {
                check!(found.has(option), "{option} is missing: {:?}", found.options);
            }
            Ok(())
        }),
    )
}

fn options_are_flags(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.mount("tmpfs", "tmpfs", "/t", &["nosuid", "nodev", "noexec", "noatime", "ro"]);
    let mount = mount_at(ctx, &mut bundle, "/t")?;
    for option in ["nosuid", "nodev", "noexec", "noatime", "ro"] {
        check!(mount.has(option), "{option} is missing: {:?}", mount.options);
    }
    same!(mount.fstype, "tmpfs", "type");
    Ok(())
}

fn opposite_options_undo(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.mount("tmpfs", "tmpfs", "/t", &["nosuid", "suid", "ro", "rw", "noexec", "exec", "dev", "nodev"]);
    let mount = mount_at(ctx, &mut bundle, "/t")?;
    for option in ["nosuid", "ro", "noexec"] {
        check!(!mount.has(option), "{option} was undone: {:?}", mount.options);
    }
    check!(mount.has("nodev"), "nodev came last: {:?}", mount.options);
    Ok(())
}

fn nodev_is_enforced(ctx: &Ctx) -> Result {
    let (mut bundle, data) = (ctx.bundle()?, data(ctx)?);
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    mknod(&data.join("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3))?;
    bundle.mount("bind", &data, "/with", &["bind"]).mount("bind", &data, "/without", &["bind", "nodev"]);
    let answers = ctx.ask(&mut bundle, &["open-write /with/null", "open-write /without/null"])?;
    answers[0].worked()?;
    answers[1].failed_with(&[libc::EACCES])
}

fn proc_is_that_of_the_container(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let report = ctx.report(&mut bundle)?;
    same!(report.mount("/proc").map(|m| m.fstype.as_str()), Some("proc"), "type at /proc");
    same!(report.pids, [1], "processes that can be seen");
    Ok(())
}

fn sys_is_that_of_the_container(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let answers = ctx.ask(&mut bundle, &["ls /sys/class/net", "create /sys/x x"])?;
    same!(*answers[0].worked()?, json!(["lo"]), "network interfaces in /sys");
    answers[1].failed_with(&[libc::EROFS])
}

fn devpts_is_new(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let answers = ctx.ask(&mut bundle, &["ls /dev/pts", "stat /dev/ptmx", "open-write /dev/ptmx"])?;
    same!(*answers[0].worked()?, json!(["ptmx"]), "names in /dev/pts");
    same!(answers[1].worked()?["rdev"], json!([5, 2]), "device number of /dev/ptmx");
    answers[2].worked().map(drop)
}

fn mqueue(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.mount("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]);
    same!(mount_at(ctx, &mut bundle, "/dev/mqueue")?.fstype, "mqueue", "type");
    Ok(())
}

fn cgroup_is_that_of_the_container(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    bundle.push("/linux/namespaces", json!({"type": "cgroup"}));
    let report = ctx.report(&mut bundle)?;
    let all: Vec<_> = report.mounts.iter().filter(|m| m.fstype.starts_with("cgroup")).collect();
    check!(!all.is_empty(), "no control groups are mounted");
    for mount in &all {
        check!(mount.has("ro"), "{} can be written", mount.point);
        check!(mount.root == "/" || mount.root.contains(&ctx.id), "{} shows {} of the host", mount.point, mount.root);
    }
    let ops: Vec<String> = all.iter().map(|m| format!("mkdir {}/new", m.point)).collect();
    for answer in ctx.ask(&mut bundle, &ops.iter().map(String::as_str).collect::<Vec<_>>())? {
        answer.failed_with(&[libc::EROFS, libc::EACCES, libc::EPERM])?;
    }
    Ok(())
}

/// A shared mount of the host, bound into a container with this propagation; then the host mounts below it.
fn with_shared(
    ctx: &Ctx,
    option: &str,
    then: impl FnOnce(&crate::ctx::Container, &std::path::Path) -> Result,
) -> Result {
    let (mut bundle, dir) = (ctx.bundle()?, ctx.dir.join("shared"));
    fs::create_dir(&dir)?;
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    mount(None::<&str>, &dir, None::<&str>, MsFlags::MS_SHARED, None::<&str>)?;
    fs::create_dir(dir.join("sub"))?;
    // As docker and podman do it: the root must be as open as the mount.
    bundle.set("/linux/rootfsPropagation", json!(option));
    bundle.mount("bind", &dir, "/shared", &["rbind", option]).caps(&["CAP_SYS_ADMIN"]);
    let result = ctx.start(&bundle).and_then(|container| then(&container, &dir));
    let deleted = ctx.call(&["delete", "--force", &ctx.id]).map(drop);
    umount2(&dir.join("sub"), MntFlags::MNT_DETACH).ok();
    umount2(&dir, MntFlags::MNT_DETACH)?;
    result.and(deleted)
}

fn sees_mount_of_host(ctx: &Ctx, option: &str, sees: bool) -> Result {
    with_shared(ctx, option, |container, dir| {
        mount(Some("tmpfs"), &dir.join("sub"), Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        let report = container.exec_report(&[])?;
        same!(report.mount("/shared/sub").is_some(), sees, "whether the container sees the mount");
        Ok(())
    })
}

fn propagation_rslave(ctx: &Ctx) -> Result {
    sees_mount_of_host(ctx, "rslave", true)
}

fn propagation_rprivate(ctx: &Ctx) -> Result {
    sees_mount_of_host(ctx, "rprivate", false)
}

fn propagation_rshared(ctx: &Ctx) -> Result {
    with_shared(ctx, "rshared", |container, dir| {
        container.exec_ask(&[], &["mount-tmpfs /shared/sub"])?[0].worked()?;
        let seen = conformance::kernel::mounts()?.iter().any(|m| m.point == dir.join("sub").display().to_string());
        check!(seen, "the host does not see the mount");
        Ok(())
    })
}

fn inside_proc_of_a_single_file(ctx: &Ctx) -> Result {
    let (mut bundle, data) = (ctx.bundle()?, data(ctx)?);
    if !std::path::Path::new("/proc/meminfo").exists() {
        skip!("no /proc/meminfo");
    }
    bundle.mount("bind", data.join("file"), "/proc/meminfo", &["bind", "ro"]);
    same!(*ctx.ask(&mut bundle, &["read /proc/meminfo"])?[0].worked()?, json!("data"), "content");
    Ok(())
}
