/*! Mounts of the configuration. */

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::json;

use crate::case::{Fail, Result};
use crate::ctx::{Ctx, Tried};
use crate::{check, group, same};

group! { "mounts":
    bind_of_a_directory: "config.md#mounts: bind",
    bind_of_a_file: "config.md#mounts: bind",
    bind_without_type: "config.md#mounts: type is a dummy of a bind mount",
    bind_readonly: "config.md#linux-mount-options: ro",
    bind_source_relative_to_the_bundle: "config.md#mounts: source relative to the bundle",
    targets_are_made: "runc CLI: missing targets are made, files and directories",
    are_made_in_order: "config.md#mounts: the runtime MUST mount entries in the listed order",
    later_ones_hide_earlier_ones: "config.md#mounts: the runtime MUST mount entries in the listed order",
    tmpfs_has_size_and_mode: "config.md#mounts: options of the file system",
    tmpfs_copies_up: "podman: tmpcopyup",
    tmpfs_copies_up_before_it_is_readonly: "podman: tmpcopyup, and config.md#linux-mount-options: ro",
    noexec_is_enforced: "config.md#linux-mount-options: noexec",
    of_a_missing_source_is_refused: "config.md#mounts; runtime.md#create",
    of_an_unknown_type_is_refused: "config.md#mounts: type",
    with_a_wrong_option_are_refused: "config.md#mounts: options",
    over_a_symlink_stay_in_the_root: "CVE-2019-18837: targets resolve within the root file system",
}

/// A directory of the host with a file in it.
pub(super) fn data(ctx: &Ctx) -> Result<PathBuf> {
    let dir = ctx.dir.join("data");
    fs::create_dir(&dir)?;
    fs::write(dir.join("file"), "data")?;
    Ok(dir)
}

fn bind_of_a_directory(ctx: &Ctx) -> Result {
    let (mut bundle, data) = (ctx.bundle()?, data(ctx)?);
    bundle.mount("bind", &data, "/data", &["bind"]);
    let answers = ctx.ask(&mut bundle, &["read /data/file", "create /data/new new"])?;
    same!(*answers[0].worked()?, json!("data"), "content");
    answers[1].worked()?;
    same!(fs::read_to_string(data.join("new"))?, "new", "the new file, from outside");
    Ok(())
}

fn bind_of_a_file(ctx: &Ctx) -> Result {
    let (mut bundle, data) = (ctx.bundle()?, data(ctx)?);
    bundle.mount("bind", data.join("file"), "/etc/deep/name", &["rbind", "ro"]);
    let answers = ctx.ask(&mut bundle, &["read /etc/deep/name", "write /etc/deep/name x", "lstat /etc/deep/name"])?;
    same!(*answers[0].worked()?, json!("data"), "content");
    answers[1].failed_with(&[libc::EROFS])?;
    same!(answers[2].worked()?["kind"], json!("f"), "kind");
    Ok(())
}

fn bind_without_type(ctx: &Ctx) -> Result {
    let (mut bundle, data) = (ctx.bundle()?, data(ctx)?);
    bundle.push("/mounts", json!({"destination": "/a", "source": data, "options": ["bind"]}));
    bundle.mount("none", &data, "/b", &["rbind"]);
    for answer in ctx.ask(&mut bundle, &["read /a/file", "read /b/file"])? {
        same!(*answer.worked()?, json!("data"), "content");
    }
    Ok(())
}

fn bind_readonly(ctx: &Ctx) -> Result {
    let (mut bundle, data) = (ctx.bundle()?, data(ctx)?);
    bundle.mount("bind", &data, "/data", &["bind", "ro"]);
    let answers = ctx.ask(&mut bundle, &["read /data/file", "create /data/new new", "unlink /data/file"])?;
    answers[0].worked()?;
    answers[1].failed_with(&[libc::EROFS])?;
    answers[2].failed_with(&[libc::EROFS])?;
    fs::write(data.join("still"), "writable").map_err(|err| Fail::Failed(format!("the source became read-only: {err}")))
}

fn bind_source_relative_to_the_bundle(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    fs::create_dir(bundle.dir.join("beside"))?;
    fs::write(bundle.dir.join("beside/file"), "data")?;
    bundle.mount("bind", "beside", "/data", &["rbind"]);
    same!(*ctx.ask(&mut bundle, &["read /data/file"])?[0].worked()?, json!("data"), "content");
    Ok(())
}

fn targets_are_made(ctx: &Ctx) -> Result {
    let (mut bundle, data) = (ctx.bundle()?, data(ctx)?);
    bundle.mount("bind", &data, "/new/a/b", &["rbind"]).mount("tmpfs", "tmpfs", "/new/c/d", &[]);
    bundle.mount("bind", data.join("file"), "/new/e/f", &["bind"]).args(&["/probe", "exit", "0"]);
    ctx.run(&bundle)?.ok()?;
    check!(bundle.rootfs("new/a/b").is_dir() && bundle.rootfs("new/c/d").is_dir(), "directories");
    check!(bundle.rootfs("new/e/f").is_file(), "file");
    let mode = fs::metadata(bundle.rootfs("new/a"))?.permissions().mode() & 0o777;
    same!(mode, 0o755, "mode of a directory that was made");
    Ok(())
}

fn are_made_in_order(ctx: &Ctx) -> Result {
    let (mut bundle, data) = (ctx.bundle()?, data(ctx)?);
    bundle.mount("tmpfs", "tmpfs", "/t", &[]).mount("bind", &data, "/t/data", &["rbind"]);
    same!(*ctx.ask(&mut bundle, &["read /t/data/file"])?[0].worked()?, json!("data"), "content");
    check!(!bundle.rootfs("t/data").exists(), "the second target was made below the first mount");
    Ok(())
}

fn later_ones_hide_earlier_ones(ctx: &Ctx) -> Result {
    let (mut bundle, data) = (ctx.bundle()?, data(ctx)?);
    bundle.mount("bind", &data, "/t/data", &["rbind"]).mount("tmpfs", "tmpfs", "/t", &[]);
    same!(*ctx.ask(&mut bundle, &["ls /t"])?[0].worked()?, json!([]), "names in the later mount");
    Ok(())
}

fn tmpfs_has_size_and_mode(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.mount("tmpfs", "tmpfs", "/t", &["size=64k", "mode=1770", "uid=5"]);
    let answers = ctx.ask(&mut bundle, &["stat /t", "size /t"])?;
    same!(answers[0].worked()?["mode"], json!(0o1770), "mode");
    same!(answers[0].worked()?["uid"], json!(5), "owner");
    same!(*answers[1].worked()?, json!(65536), "size");
    Ok(())
}

fn tmpfs_copies_up(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    fs::create_dir_all(bundle.rootfs("t/dir"))?;
    fs::write(bundle.rootfs("t/dir/file"), "below")?;
    bundle.mount("tmpfs", "tmpfs", "/t", &["tmpcopyup"]);
    let answers = ctx.ask(&mut bundle, &["read /t/dir/file", "create /t/dir/file above"])?;
    same!(*answers[0].worked()?, json!("below"), "content of the copy");
    answers[1].worked()?;
    same!(fs::read_to_string(bundle.rootfs("t/dir/file"))?, "below", "content of the original");
    Ok(())
}

fn tmpfs_copies_up_before_it_is_readonly(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    fs::create_dir_all(bundle.rootfs("t"))?;
    fs::write(bundle.rootfs("t/file"), "below")?;
    bundle.mount("tmpfs", "tmpfs", "/t", &["tmpcopyup", "ro"]);
    let answers = ctx.ask(&mut bundle, &["read /t/file", "create /t/new x"])?;
    same!(*answers[0].worked()?, json!("below"), "content of the copy");
    answers[1].failed_with(&[libc::EROFS])
}

fn noexec_is_enforced(ctx: &Ctx) -> Result {
    let (mut bundle, data) = (ctx.bundle()?, data(ctx)?);
    fs::hard_link(&ctx.probe.path, data.join("probe"))?;
    bundle.mount("bind", &data, "/data", &["bind", "noexec"]).args(&["/data/probe", "exit", "0"]);
    ctx.will_not_run(&bundle).map(drop)
}

fn of_a_missing_source_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.mount("bind", ctx.dir.join("none"), "/data", &["rbind"]);
    ctx.refuses(&bundle).map(drop)
}

fn of_an_unknown_type_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.mount("no-such-fs", "x", "/data", &[]);
    ctx.refuses(&bundle).map(drop)
}

fn with_a_wrong_option_are_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.mount("tmpfs", "tmpfs", "/t", &["no-such-option=1"]);
    ctx.refuses(&bundle).map(drop)
}

fn over_a_symlink_stay_in_the_root(ctx: &Ctx) -> Result {
    let (mut bundle, data) = (ctx.bundle()?, data(ctx)?);
    fs::create_dir(bundle.rootfs("real"))?;
    std::os::unix::fs::symlink("/real", bundle.rootfs("link"))?;
    bundle.mount("bind", &data, "/link", &["rbind"]);
    same!(*ctx.ask(&mut bundle, &["read /real/file"])?[0].worked()?, json!("data"), "content");
    Ok(())
}
