/*! The root file system, and what of it is hidden. */

use std::fs;

use serde_json::json;

use crate::case::Result;
use crate::ctx::{Ctx, Tried};
use crate::system::ROOT;
use crate::{group, same};

group! { "root":
    is_writable_by_default: "config.md#root: readonly is false by default",
    readonly: "config.md#root: readonly",
    absolute_path: "config.md#root: path",
    has_no_way_up: "config.md#root",
}

fn is_writable_by_default(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.remove("/root/readonly");
    ctx.ask(&mut bundle, &["create /written here"])?[0].worked()?;
    same!(fs::read_to_string(bundle.rootfs("written"))?, "here", "the file, from outside");
    Ok(())
}

fn readonly(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/root/readonly", json!(true)).mount("tmpfs", "tmpfs", "/scratch", &[]);
    fs::write(bundle.rootfs("file"), "old")?;
    let answers =
        ctx.ask(&mut bundle, &["create /written here", "write /file x", "mkdir /d", "create /scratch/x here"])?;
    for answer in &answers[..3] {
        answer.failed_with(&[libc::EROFS])?;
    }
    answers[3].worked().map(drop)
}

fn absolute_path(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let path = bundle.rootfs("");
    bundle.set("/root/path", json!(path)).args(&["/probe", "exit", "5"]);
    ctx.run(&bundle)?.code_is(5).map(drop)
}

fn has_no_way_up(ctx: &Ctx) -> Result {
    let answers = ctx.ask(&mut ctx.bundle()?, &["ls /..", "ls /../.."])?;
    for answer in &answers {
        same!(*answer.worked()?, json!(ROOT), "what is above the root");
    }
    Ok(())
}
