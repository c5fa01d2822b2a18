/*! What the `process` object asks for, as the process itself sees it. */

use std::fs;

use serde_json::{Value, json};

use crate::case::Result;
use crate::ctx::Ctx;
use crate::world::ignored_by_runtime;
use crate::{check, group, same};

group! { "process":
    args_are_argv: "config.md#process: args",
    env_is_that_of_the_config: "config.md#process: env",
    env_of_the_runtime_stays_outside: "config.md#process: env",
    cwd_is_that_of_the_config: "config.md#process: cwd",
    cwd_that_is_missing_is_made: "runc CLI: docker relies on WORKDIR being made",
    cwd_that_is_relative_is_refused: "config.md#process: cwd MUST be an absolute path",
    cwd_that_is_a_file_is_refused: "config.md#process: cwd",
    user_and_groups: "config.md#user: uid, gid, additionalGids",
    no_groups_are_inherited: "config.md#user: additionalGids",
    umask: "config.md#user: umask",
    umask_by_default_does_not_depend_on_the_caller: "runc CLI: 0022 without umask in the config",
    rlimits: "config.md#posix-process: rlim_cur and rlim_max MUST match",
    an_rlimit_that_is_given_twice_is_refused: "config.md#posix-process: duplicated entries MUST generate an error",
    an_unknown_rlimit_is_refused: "config.md#posix-process: MUST generate an error",
    no_new_privileges: "config.md#linux-process: noNewPrivileges",
    new_privileges: "config.md#linux-process: noNewPrivileges is false by default",
    leads_a_session: "runc CLI: the process cannot signal the caller's group",
    has_nothing_blocked_or_ignored: "runc CLI: signals are as at start of a program",
}

fn args_are_argv(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let args = ["/probe", "report", "", " a  b ", "ü\u{1f980}", "$HOME", "'\"\\", "--", "line\nbreak"];
    bundle.args(&args);
    let report: conformance::Report = crate::ctx::parse(&ctx.run(&bundle)?.ok()?.out)?;
    same!(report.args, args, "argv");
    Ok(())
}

/// runc adds HOME if it is missing, which callers rely on.
fn env_is_that_of_the_config(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let env = ["PATH=/bin", "EMPTY=", "EQUALS=a=b", "SPACE=a b", "TERM=xterm"];
    bundle.set("/process/env", json!(env));
    let mut seen = ctx.report(&mut bundle)?.env;
    seen.retain(|entry| !entry.starts_with("HOME="));
    same!(seen, env, "environment");
    Ok(())
}

fn env_of_the_runtime_stays_outside(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "report"]);
    let run = ctx.run_verb(&bundle)?.env("SECRET", "x").env("LD_PRELOAD_OF_CALLER", "y").env("NOTIFY", "z");
    let report: conformance::Report = crate::ctx::parse(&run.go()?.ok()?.out)?;
    let names: Vec<_> = report.env.iter().filter_map(|entry| entry.split('=').next()).collect();
    check!(names.iter().all(|name| ["PATH", "HOME"].contains(name)), "environment: {:?}", report.env);
    Ok(())
}

fn cwd_is_that_of_the_config(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    fs::create_dir_all(bundle.rootfs("a/b"))?;
    bundle.set("/process/cwd", json!("/a/b"));
    same!(ctx.report(&mut bundle)?.cwd, "/a/b", "cwd");
    Ok(())
}

fn cwd_that_is_missing_is_made(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/cwd", json!("/made/here"));
    same!(ctx.report(&mut bundle)?.cwd, "/made/here", "cwd");
    check!(bundle.rootfs("made/here").is_dir(), "it was not made in the root file system");
    Ok(())
}

fn cwd_that_is_relative_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/cwd", json!("dev")).args(&["/probe", "report"]);
    ctx.will_not_run(&bundle).map(drop)
}

fn cwd_that_is_a_file_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/cwd", json!("/probe")).args(&["/probe", "report"]);
    ctx.will_not_run(&bundle).map(drop)
}

fn user_and_groups(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 2_000_000_000]}));
    let report = ctx.report(&mut bundle)?;
    same!((report.uid, report.gid), (1000, 1001), "uid and gid");
    let mut extra = report.groups;
    extra.retain(|&gid| gid != 1001);
    same!(extra, [5, 2_000_000_000], "supplementary groups");
    Ok(())
}

fn no_groups_are_inherited(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1001}));
    let groups = ctx.report(&mut bundle)?.groups;
    check!(groups.iter().all(|&gid| gid == 1001), "supplementary groups: {groups:?}");
    Ok(())
}

fn umask(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/user/umask", json!(0o37));
    same!(ctx.report(&mut bundle)?.umask, 0o37, "umask");
    Ok(())
}

fn umask_by_default_does_not_depend_on_the_caller(ctx: &Ctx) -> Result {
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o77));
    let report = ctx.bundle().and_then(|mut bundle| ctx.report(&mut bundle));
    nix::sys::stat::umask(old);
    same!(report?.umask, 0o22, "umask");
    Ok(())
}

fn rlimits(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let limits =
        [("RLIMIT_NOFILE", 300, 400), ("RLIMIT_CORE", 0, 0), ("RLIMIT_NPROC", 1000, 2000), ("RLIMIT_CPU", 1000, 2000)];
    let json: Vec<Value> =
        limits.iter().map(|(name, soft, hard)| json!({"type": name, "soft": soft, "hard": hard})).collect();
    bundle.set("/process/rlimits", json!(json));
    let report = ctx.report(&mut bundle)?;
    for (name, soft, hard) in limits {
        same!(report.rlimits[name], (soft, hard), "{name}");
    }
    Ok(())
}

fn an_rlimit_that_is_given_twice_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let limit = json!({"type": "RLIMIT_NOFILE", "soft": 300, "hard": 400});
    bundle.set("/process/rlimits", json!([limit, limit])).args(&["/probe", "report"]);
    ctx.will_not_run(&bundle).map(drop)
}

fn an_unknown_rlimit_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle
        .set("/process/rlimits", json!([{"type": "RLIMIT_NOSUCH", "soft": 3, "hard": 4}]))
        .args(&["/probe", "report"]);
    ctx.will_not_run(&bundle).map(drop)
}

fn no_new_privileges(ctx: &Ctx) -> Result {
    same!(ctx.report(&mut ctx.bundle()?)?.no_new_privs, 1, "no_new_privs");
    Ok(())
}

fn new_privileges(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.remove("/process/noNewPrivileges");
    same!(ctx.report(&mut bundle)?.no_new_privs, 0, "no_new_privs");
    Ok(())
}

fn leads_a_session(ctx: &Ctx) -> Result {
    let report = ctx.report(&mut ctx.bundle()?)?;
    same!((report.sid, report.pgid), (report.pid, report.pid), "session and process group");
    Ok(())
}

fn has_nothing_blocked_or_ignored(ctx: &Ctx) -> Result {
    let report = ctx.report(&mut ctx.bundle()?)?;
    same!((report.blocked, ignored_by_runtime(report.ignored)), (0, 0), "blocked and ignored signals");
    Ok(())
}
