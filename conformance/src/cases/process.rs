/*! What the `process` object asks for, as the process itself sees it. */

use std::fs;

use serde_json::{Value, json};

use crate::case::Result;
use crate::ctx::{Ctx, Tried};
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
    capabilities_of_root: "config.md#linux-process: capabilities",
    capabilities_are_five_sets: "config.md#linux-process: bounding, effective, inheritable, permitted, ambient",
    capabilities_of_a_user: "config.md#linux-process, capabilities(7): none without ambient",
    ambient_capabilities_of_a_user: "config.md#linux-process: ambient",
    no_capabilities_at_all: "config.md#linux-process: capabilities",
    an_unknown_capability_is_no_error: "config.md#linux-process: MUST be logged as a warning, SHOULD NOT fail",
    no_new_privileges: "config.md#linux-process: noNewPrivileges",
    new_privileges: "config.md#linux-process: noNewPrivileges is false by default",
    oom_score_adj: "config.md#linux-process: MUST set oom_score_adj to the given value",
    oom_score_adj_is_left_alone: "config.md#linux-process: if not set, MUST NOT change",
    is_the_first_of_its_pid_namespace: "config-linux.md#namespaces: pid",
    leads_a_session: "runc CLI: the process cannot signal the caller's group",
    keys_of_the_caller_stay_outside: "runc CLI: a session keyring of its own, without --no-new-keyring",
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
    let limits = [
        ("RLIMIT_NOFILE", 300, 400),
        ("RLIMIT_CORE", 0, 0),
        ("RLIMIT_NPROC", 1000, 2000),
        ("RLIMIT_STACK", 1 << 22, 1 << 23),
    ];
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

const KILL: u64 = 1 << 5;
const CHOWN: u64 = 1;
const RAW: u64 = 1 << 13;

fn sets_are(ctx: &Ctx, capabilities: Value, user: Value, expected: [(&str, u64); 5]) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/capabilities", capabilities).set("/process/user", user);
    let report = ctx.report(&mut bundle)?;
    for (set, mask) in expected {
        check!(report.caps[set] == mask, "{set} should be {mask:x}: {:x?}", report.caps);
    }
    Ok(())
}

fn capabilities_of_root(ctx: &Ctx) -> Result {
    let given = json!(["CAP_CHOWN", "CAP_KILL"]);
    let sets = json!({"bounding": given, "effective": given, "permitted": given});
    let both = CHOWN | KILL;
    sets_are(
        ctx,
        sets,
        json!({"uid": 0, "gid": 0}),
        [("CapInh", 0), ("CapPrm", both), ("CapEff", both), ("CapBnd", both), ("CapAmb", 0)],
    )
}

fn capabilities_are_five_sets(ctx: &Ctx) -> Result {
    let all = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]);
    let sets = json!({"bounding": all, "effective": all, "permitted": all, "inheritable": ["CAP_KILL", "CAP_NET_RAW"], "ambient": ["CAP_KILL"]});
    let user = json!({"uid": 1000, "gid": 1000});
    sets_are(
        ctx,
        sets,
        user,
        [("CapInh", KILL | RAW), ("CapPrm", KILL), ("CapEff", KILL), ("CapBnd", CHOWN | KILL | RAW), ("CapAmb", KILL)],
    )
}

fn capabilities_of_a_user(ctx: &Ctx) -> Result {
    let given = json!(["CAP_CHOWN"]);
    let sets = json!({"bounding": given, "effective": given, "permitted": given});
    sets_are(
        ctx,
        sets,
        json!({"uid": 1000, "gid": 1000}),
        [("CapInh", 0), ("CapPrm", 0), ("CapEff", 0), ("CapBnd", CHOWN), ("CapAmb", 0)],
    )
}

fn ambient_capabilities_of_a_user(ctx: &Ctx) -> Result {
    let given = json!(["CAP_CHOWN"]);
    let sets =
        json!({"bounding": given, "effective": given, "permitted": given, "inheritable": given, "ambient": given});
    sets_are(
        ctx,
        sets,
        json!({"uid": 1000, "gid": 1000}),
        [("CapInh", CHOWN), ("CapPrm", CHOWN), ("CapEff", CHOWN), ("CapBnd", CHOWN), ("CapAmb", CHOWN)],
    )
}

fn no_capabilities_at_all(ctx: &Ctx) -> Result {
    sets_are(
        ctx,
        json!({"bounding": [], "effective": [], "permitted": []}),
        json!({"uid": 0, "gid": 0}),
        [("CapInh", 0), ("CapPrm", 0), ("CapEff", 0), ("CapBnd", 0), ("CapAmb", 0)],
    )
}

fn an_unknown_capability_is_no_error(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.caps(&["CAP_KILL", "CAP_OF_TOMORROW"]);
    same!(ctx.report(&mut bundle)?.caps["CapEff"], KILL, "CapEff");
    Ok(())
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

fn oom_score_adj(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/oomScoreAdj", json!(513));
    same!(ctx.report(&mut bundle)?.oom_score_adj, 513, "oom_score_adj");
    Ok(())
}

fn oom_score_adj_is_left_alone(ctx: &Ctx) -> Result {
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")?.trim().parse()?;
    same!(ctx.report(&mut ctx.bundle()?)?.oom_score_adj, own, "oom_score_adj");
    Ok(())
}

fn is_the_first_of_its_pid_namespace(ctx: &Ctx) -> Result {
    let report = ctx.report(&mut ctx.bundle()?)?;
    same!((report.pid, report.ppid), (1, 0), "pid and parent");
    same!(report.pids, [1], "processes in /proc");
    Ok(())
}

fn leads_a_session(ctx: &Ctx) -> Result {
    let report = ctx.report(&mut ctx.bundle()?)?;
    same!((report.sid, report.pgid), (1, 1), "session and process group");
    Ok(())
}

fn keys_of_the_caller_stay_outside(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let outside = std::process::Command::new(&ctx.probe).args(["do", "keyring"]).output()?;
    let outside: Vec<conformance::Answer> = crate::ctx::parse(&String::from_utf8_lossy(&outside.stdout))?;
    let own = outside[0].worked()?.clone();
    let inside = ctx.ask(&mut bundle, &["keyring"])?;
    check!(*inside[0].worked()? != own, "the session keyring is the caller's");
    bundle.args(&["/probe", "do", "keyring"]);
    bundle.write()?;
    let verb = ctx.verb(&["run", "--no-new-keyring", "--bundle"])?.arg(&bundle.dir).arg(&ctx.id);
    let kept: Vec<conformance::Answer> = crate::ctx::parse(&verb.go()?.ok()?.out)?;
    same!(*kept[0].worked()?, own, "the session keyring with --no-new-keyring");
    Ok(())
}

fn has_nothing_blocked_or_ignored(ctx: &Ctx) -> Result {
    let report = ctx.report(&mut ctx.bundle()?)?;
    same!((report.blocked, ignored_by_runtime(report.ignored)?), (0, 0), "blocked and ignored signals");
    Ok(())
}
