/*! Cases of `process` that only Linux can have. */

use std::fs;

use serde_json::{Value, json};

use crate::case::Result;
use crate::ctx::{Ctx, Tried};
use crate::{check, group, same};

group! { "process":
    capabilities_of_root: "config.md#linux-process: capabilities",
    capabilities_are_five_sets: "config.md#linux-process: bounding, effective, inheritable, permitted, ambient",
    capabilities_of_a_user: "config.md#linux-process, capabilities(7): none without ambient",
    ambient_capabilities_of_a_user: "config.md#linux-process: ambient",
    no_capabilities_at_all: "config.md#linux-process: capabilities",
    an_unknown_capability_is_no_error: "config.md#linux-process: MUST be logged as a warning, SHOULD NOT fail",
    oom_score_adj: "config.md#linux-process: MUST set oom_score_adj to the given value",
    oom_score_adj_is_left_alone: "config.md#linux-process: if not set, MUST NOT change",
    is_the_first_of_its_pid_namespace: "config-linux.md#namespaces: pid",
    keys_of_the_caller_stay_outside: "runc CLI: a session keyring of its own, without --no-new-keyring",
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

fn keys_of_the_caller_stay_outside(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let outside = std::process::Command::new(&ctx.probe.path).args(["do", "keyring"]).output()?;
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
