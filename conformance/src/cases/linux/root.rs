/*! Cases of `root` that only Linux can have. */

use std::fs;

use conformance::Report;
use serde_json::json;

use crate::case::Result;
use crate::ctx::{Ctx, Tried};
use crate::{check, group, same};

group! { "root":
    has_nothing_of_the_host: "config.md#root: the container sees its own root only",
    masked_files_are_empty: "config-linux.md#masked-paths: cannot be read",
    masked_directories_are_empty: "config-linux.md#masked-paths: cannot be read",
    masked_paths_may_be_missing: "config-linux.md#masked-paths; runc CLI",
    masked_paths_hold_for_exec: "config-linux.md#masked-paths",
    readonly_paths: "config-linux.md#readonly-paths",
    readonly_paths_may_be_missing: "config-linux.md#readonly-paths; runc CLI",
    readonly_paths_keep_flags: "config-linux.md#readonly-paths: nosuid, nodev, noexec stay",
    propagation_private: "config-linux.md#rootfs-mount-propagation: private",
    propagation_slave: "config-linux.md#rootfs-mount-propagation: slave",
    propagation_shared: "config-linux.md#rootfs-mount-propagation: shared",
    propagation_by_default_does_not_reach_the_host: "config-linux.md#rootfs-mount-propagation",
    an_unknown_propagation_is_refused: "config-linux.md#rootfs-mount-propagation",
}

fn has_nothing_of_the_host(ctx: &Ctx) -> Result {
    let report = ctx.report(&mut ctx.bundle()?)?;
    let mut points: Vec<&str> = report.mounts.iter().map(|m| m.point.as_str()).collect();
    points.dedup();
    same!(points, ["/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/sys"], "mount points");
    Ok(())
}

fn with_secrets(ctx: &Ctx) -> Result<crate::bundle::Bundle> {
    let bundle = ctx.bundle()?;
    fs::create_dir(bundle.rootfs("dir"))?;
    fs::write(bundle.rootfs("dir/secret"), "secret")?;
    fs::write(bundle.rootfs("file"), "secret")?;
    Ok(bundle)
}

fn masked_files_are_empty(ctx: &Ctx) -> Result {
    let mut bundle = with_secrets(ctx)?;
    bundle.set("/linux/maskedPaths", json!(["/file", "/proc/version"]));
    let answers = ctx.ask(&mut bundle, &["read /file", "read /proc/version", "create /file x"])?;
    for answer in &answers[..2] {
        same!(*answer.worked()?, json!(""), "content of a masked file");
    }
    same!(fs::read_to_string(bundle.rootfs("file"))?, "secret", "the file behind the mask");
    Ok(())
}

fn masked_directories_are_empty(ctx: &Ctx) -> Result {
    let mut bundle = with_secrets(ctx)?;
    bundle.set("/linux/maskedPaths", json!(["/dir", "/proc/tty"]));
    let answers = ctx.ask(&mut bundle, &["ls /dir", "ls /proc/tty", "create /dir/x x"])?;
    for answer in &answers[..2] {
        same!(*answer.worked()?, json!([]), "names in a masked directory");
    }
    answers[2].failed_with(&[libc::EROFS, libc::EACCES])
}

fn masked_paths_may_be_missing(ctx: &Ctx) -> Result {
    let mut bundle = with_secrets(ctx)?;
    bundle.set("/linux/maskedPaths", json!(["/missing", "/file"]));
    same!(*ctx.ask(&mut bundle, &["read /file"])?[0].worked()?, json!(""), "content of a masked file");
    check!(!bundle.rootfs("missing").exists(), "a path that was missing was made");
    Ok(())
}

fn masked_paths_hold_for_exec(ctx: &Ctx) -> Result {
    let mut bundle = with_secrets(ctx)?;
    bundle.set("/linux/maskedPaths", json!(["/file"])).set("/linux/readonlyPaths", json!(["/dir"]));
    let answers = ctx.start(&bundle)?.exec_ask(&[], &["read /file", "create /dir/x x"])?;
    same!(*answers[0].worked()?, json!(""), "content of a masked file");
    answers[1].failed_with(&[libc::EROFS])
}

fn readonly_paths(ctx: &Ctx) -> Result {
    let mut bundle = with_secrets(ctx)?;
    bundle.set("/linux/readonlyPaths", json!(["/file", "/dir", "/proc/sys"]));
    let ops = [
        "write /file x",
        "create /dir/x x",
        "write /dir/secret x",
        "write /proc/sys/kernel/hostname x",
        "read /file",
        "create /free x",
    ];
    let answers = ctx.ask(&mut bundle, &ops)?;
    for answer in &answers[..4] {
        answer.failed_with(&[libc::EROFS])?;
    }
    same!(*answers[4].worked()?, json!("secret"), "content of a read-only file");
    answers[5].worked().map(drop)
}

fn readonly_paths_may_be_missing(ctx: &Ctx) -> Result {
    let mut bundle = with_secrets(ctx)?;
    bundle.set("/linux/readonlyPaths", json!(["/missing", "/dir"]));
    ctx.ask(&mut bundle, &["create /dir/x x"])?[0].failed_with(&[libc::EROFS])
}

fn readonly_paths_keep_flags(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.mount("tmpfs", "tmpfs", "/t", &["nosuid", "nodev", "noexec"]).set("/linux/readonlyPaths", json!(["/t"]));
    let report = ctx.report(&mut bundle)?;
    let Some(mount) = report.mount("/t") else { return Err(crate::case::Fail::Failed("no mount at /t".into())) };
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        check!(mount.has(option), "/t should be {option}: {:?}", mount.options);
    }
    Ok(())
}

fn with_propagation(ctx: &Ctx, propagation: &str) -> Result<Report> {
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/rootfsPropagation", json!(propagation));
    ctx.report(&mut bundle)
}

fn of_root(report: &Report) -> Vec<String> {
    report.mount("/").map(|m| m.propagation.clone()).unwrap_or_default()
}

fn propagation_private(ctx: &Ctx) -> Result {
    same!(of_root(&with_propagation(ctx, "private")?), Vec::<String>::new(), "propagation of /");
    Ok(())
}

/// Of a private mount of the host no slave can be made, so it must just not be shared.
fn propagation_slave(ctx: &Ctx) -> Result {
    let propagation = of_root(&with_propagation(ctx, "rslave")?);
    check!(propagation.iter().all(|p| !p.starts_with("shared:")), "propagation of /: {propagation:?}");
    Ok(())
}

fn propagation_shared(ctx: &Ctx) -> Result {
    let propagation = of_root(&with_propagation(ctx, "shared")?);
    check!(propagation.iter().any(|p| p.starts_with("shared:")), "propagation of /: {propagation:?}");
    Ok(())
}

/// The bundle lies on a shared mount of the host, and nothing of what the container mounts is seen there.
fn propagation_by_default_does_not_reach_the_host(ctx: &Ctx) -> Result {
    use nix::mount::{MsFlags, mount};
    let bundle = ctx.bundle()?;
    mount(Some(&ctx.dir), &ctx.dir, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    mount(None::<&str>, &ctx.dir, None::<&str>, MsFlags::MS_SHARED, None::<&str>)?;
    let before = conformance::kernel::mounts()?;
    let container = ctx.start(&bundle);
    let after = conformance::kernel::mounts()?;
    let outcome = container.and_then(|container| container.stop());
    ctx.call(&["delete", "--force", &ctx.id])?.ok()?;
    nix::mount::umount2(&ctx.dir, nix::mount::MntFlags::MNT_DETACH)?;
    outcome?;
    let new: Vec<_> = after.iter().filter(|m| !before.contains(m)).map(|m| &m.point).collect();
    check!(new.is_empty(), "mounts of the container are seen on the host: {new:?}");
    Ok(())
}

fn an_unknown_propagation_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/rootfsPropagation", json!("sideways"));
    ctx.refuses(&bundle).map(drop)
}
