/*! Attacks that have worked on some runtime. Each works on things of the case's own, so that a runtime that is wrong
harms nothing else. */

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use serde_json::json;

use crate::bundle::Bundle;
use crate::case::Result;
use crate::ctx::Ctx;
use crate::{check, group, same};

group! { "security":
    mount_target_as_a_symlink: "CVE-2019-18837: a target that points out of the root file system",
    mount_target_below_a_symlink: "CVE-2019-18837: a part of the target points out of the root file system",
    mount_target_with_dots: "CVE-2021-30465: a target with ..",
    file_target_as_a_symlink: "CVE-2019-18837: a file target that points out of the root file system",
    cwd_below_a_symlink: "CVE-2024-45310: cwd is made within the root file system",
    racing_symlink_in_a_volume: "CVE-2021-30465, CVE-2024-45310: the target is exchanged while it is resolved",
    config_of_the_rootfs_is_not_read: "CVE-2024-21626 class: exec takes nothing from the container",
    huge_configuration: "CVE-2021-43784: lengths between the runtime's processes are bounded",
    an_id_is_no_flag: "CVE checklist 21: an id that begins with a dash",
}

/// A directory of the host where nothing may change.
pub(super) struct Outside {
    pub(super) dir: PathBuf,
}

impl Outside {
    pub(super) fn new(ctx: &Ctx) -> Result<Self> {
        let dir = ctx.dir.join("outside");
        fs::create_dir(&dir)?;
        fs::write(dir.join("file"), "of the host")?;
        Ok(Self { dir })
    }

    pub(super) fn is_untouched(&self) -> Result {
        let names: Vec<_> = fs::read_dir(&self.dir)?.flatten().map(|e| e.file_name()).collect();
        same!(names, ["file"], "what is in a directory of the host");
        same!(fs::read_to_string(self.dir.join("file"))?, "of the host", "a file of the host");
        let mode = fs::metadata(self.dir.join("file"))?.permissions().mode() & 0o7777;
        same!(mode, 0o644, "mode of a file of the host");
        let point = self.dir.display().to_string();
        check!(!conformance::kernel::mounts()?.iter().any(|m| m.point.starts_with(&point)), "there is a mount outside");
        Ok(())
    }
}

/// The attack may be refused or be confined, but may not reach the host.
pub(super) fn reaches_nothing(ctx: &Ctx, bundle: &Bundle, outside: &Outside) -> Result {
    ctx.run(bundle)?;
    outside.is_untouched()
}

/// The image has a symlink for one of its directories, and the mount there must not follow it out.
fn directory_as_symlink(ctx: &Ctx, name: &str) -> Result {
    let (mut bundle, outside) = (ctx.bundle()?, Outside::new(ctx)?);
    symlink(&outside.dir, bundle.rootfs(name))?;
    bundle.args(&["/probe", "exit", "0"]);
    reaches_nothing(ctx, &bundle, &outside)
}

fn mount_target_as_a_symlink(ctx: &Ctx) -> Result {
    let (mut bundle, outside) = (ctx.bundle()?, Outside::new(ctx)?);
    symlink(&outside.dir, bundle.rootfs("target"))?;
    bundle.mount("tmpfs", "tmpfs", "/target", &[]).args(&["/probe", "do", "create /target/x x"]);
    reaches_nothing(ctx, &bundle, &outside)?;
    directory_as_symlink(&Ctx::new(&ctx.runtime, &ctx.probe, ctx.dir.join("again"), ctx.id.clone())?, "sub")
}

fn mount_target_below_a_symlink(ctx: &Ctx) -> Result {
    let (mut bundle, outside) = (ctx.bundle()?, Outside::new(ctx)?);
    symlink(&outside.dir, bundle.rootfs("link"))?;
    symlink("../../../../../../../..", bundle.rootfs("up"))?;
    bundle.mount("tmpfs", "tmpfs", "/link/new/deep", &[]);
    bundle.mount("tmpfs", "tmpfs", &format!("/up{}/new", outside.dir.display()), &[]);
    bundle.args(&["/probe", "exit", "0"]);
    reaches_nothing(ctx, &bundle, &outside)
}

fn mount_target_with_dots(ctx: &Ctx) -> Result {
    let (mut bundle, outside) = (ctx.bundle()?, Outside::new(ctx)?);
    bundle.mount("tmpfs", "tmpfs", "/../../outside/new", &[]).mount("tmpfs", "tmpfs", "/x/../../../outside/file2", &[]);
    bundle.args(&["/probe", "exit", "0"]);
    reaches_nothing(ctx, &bundle, &outside)
}

fn file_target_as_a_symlink(ctx: &Ctx) -> Result {
    let (mut bundle, outside) = (ctx.bundle()?, Outside::new(ctx)?);
    let source = ctx.dir.join("source");
    fs::write(&source, "of the volume")?;
    symlink(outside.dir.join("made"), bundle.rootfs("one"))?;
    symlink(outside.dir.join("file"), bundle.rootfs("two"))?;
    bundle.mount("bind", &source, "/one", &["bind"]).mount("bind", &source, "/two", &["bind"]);
    bundle.args(&["/probe", "do", "write /two evil"]);
    reaches_nothing(ctx, &bundle, &outside)
}

fn cwd_below_a_symlink(ctx: &Ctx) -> Result {
    let (mut bundle, outside) = (ctx.bundle()?, Outside::new(ctx)?);
    symlink(&outside.dir, bundle.rootfs("link"))?;
    bundle.set("/process/cwd", json!("/link/new")).args(&["/probe", "exit", "0"]);
    reaches_nothing(ctx, &bundle, &outside)
}

/// A second container of the same volume exchanges a directory and a symlink out of it, as fast as it can.
fn racing_symlink_in_a_volume(ctx: &Ctx) -> Result {
    let (mut bundle, outside) = (ctx.bundle()?, Outside::new(ctx)?);
    let volume = ctx.dir.join("volume");
    fs::create_dir_all(volume.join("a"))?;
    symlink(&outside.dir, volume.join("b"))?;
    let words = [volume.join("a").display().to_string(), volume.join("b").display().to_string()];
    let mut racer = ctx.helper(&["exchange", &words[0], &words[1]])?;
    same!(racer.out.line()?, "ready", "the racer says");
    bundle.mount("bind", &volume, "/volume", &["rbind"]).mount("tmpfs", "tmpfs", "/volume/a/new", &[]);
    bundle.args(&["/probe", "do", "ls /"]);
    for _ in 0..25 {
        ctx.run(&bundle)?;
        outside.is_untouched()?;
    }
    Ok(())
}

/// The container writes what looks like the runtime's own files into its root.
fn config_of_the_rootfs_is_not_read(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    for name in ["config.json", "state.json", "status"] {
        fs::write(
            bundle.rootfs(name),
            json!({"pid": 1, "status": "stopped", "process": {"user": {"uid": 0}}}).to_string(),
        )?;
    }
    let container = ctx.start(&bundle)?;
    container.status_is("running")?;
    same!(container.exec_report(&["--user", "9"])?.uid, 9, "uid");
    Ok(())
}

fn huge_configuration(ctx: &Ctx) -> Result {
    // FreeBSD tells a jail of one mount by default, that of its root.
    let (many, seen) = if cfg!(target_os = "linux") { (300, 300) } else { (60, 0) };
    let mut bundle = ctx.bundle()?;
    let data = ctx.dir.join("data");
    fs::create_dir(&data)?;
    for n in 0..many {
        bundle.mount("bind", &data, &format!("/m/{}{n}", "long-name-".repeat(20)), &["rbind"]);
    }
    let env: Vec<String> = (0..700).map(|n| format!("V{n}={}", "x".repeat(200))).collect();
    bundle.set("/process/env", json!(env)).set("/annotations", json!({"org.example.big": "y".repeat(1 << 20)}));
    let report = ctx.report(&mut bundle)?;
    let mounts = report.mounts.iter().filter(|m| m.point.starts_with("/m/")).count();
    same!((mounts, report.env.iter().filter(|e| e.starts_with('V')).count()), (seen, 700), "mounts and variables");
    Ok(())
}

fn an_id_is_no_flag(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    for words in [["delete", "--force", "--", "--help"], ["delete", "--force", "--", "-f"]] {
        ctx.call(&words)?;
    }
    container.status_is("running")
}
