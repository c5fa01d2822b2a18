/*! Attacks on things that only FreeBSD has. */

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::super::security::{Outside, reaches_nothing};
use crate::case::Result;
use crate::ctx::Ctx;
use crate::{check, group};

group! { "security":
    dev_as_a_symlink: "CVE-2026-41579 class: rootfs/dev is a symlink to the host",
    cwd_through_a_descriptor: "CVE-2024-21626 class: cwd is /dev/fd/N",
    exec_cwd_through_a_descriptor: "CVE-2024-21626 class: exec --cwd /dev/fd/N",
    cwd_is_not_left_outside: "jail(2): a working directory that is outside of the root leads out of it",
}

fn dev_as_a_symlink(ctx: &Ctx) -> Result {
    let (mut bundle, outside) = (ctx.bundle()?, Outside::new(ctx)?);
    symlink(&outside.dir, bundle.rootfs("dev"))?;
    bundle.args(&["/probe", "exit", "0"]);
    reaches_nothing(ctx, &bundle, &outside)
}

/// The host has /etc, and the containers here do not.
fn shows_host(out: &str) -> bool {
    out.contains("\"etc\"") || out.contains("\"usr\"")
}

/// What the suite is in is given away as a descriptor, and the runtime has some of its own. Each may be refused, or lead
/// to a directory of the container, but never to one of the host.
fn cwd_through_a_descriptor(ctx: &Ctx) -> Result {
    let host = fs::File::open("/")?;
    for number in 3..=12 {
        let mut bundle = ctx.bundle_at(&format!("b{number}"), &ctx.id)?;
        bundle.mount("fdescfs", "fdescfs", "/dev/fd", &["nodup"]);
        bundle.set("/process/cwd", json!(format!("/dev/fd/{number}")));
        bundle.args(&["/probe", "do", "ls .", "ls ../../../.."]);
        let outcome = ctx.run_verb(&bundle)?.fd(&host, 3)?.fd(&host, 9)?.go()?;
        check!(outcome.code() != 0 || !shows_host(&outcome.out), "cwd /dev/fd/{number} leads out: {}", outcome.out);
    }
    Ok(())
}

fn exec_cwd_through_a_descriptor(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.mount("fdescfs", "fdescfs", "/dev/fd", &["nodup"]);
    let container = ctx.start(&bundle)?;
    let host = fs::File::open("/")?;
    for number in 3..=12 {
        let words = ["/probe", "do", "ls .", "ls ../../../.."];
        let exec = container.exec(&["--cwd", &format!("/dev/fd/{number}")], &words)?;
        let outcome = exec.fd(&host, 3)?.fd(&host, 9)?.go()?;
        check!(outcome.code() != 0 || !shows_host(&outcome.out), "cwd /dev/fd/{number} leads out: {}", outcome.out);
    }
    Ok(())
}

fn cwd_is_not_left_outside(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "do", "ls .", "ls ..", "ls ../../../../.."]);
    let outcome = ctx.run_verb(&bundle)?.cwd("/usr".as_ref()).go()?.ok()?;
    check!(!shows_host(&outcome.out), "the working directory leads out: {}", outcome.out);
    Ok(())
}
