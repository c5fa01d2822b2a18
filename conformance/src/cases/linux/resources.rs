/*! Control groups: where they are, and what is set in them, at create and by update. */

use std::fs;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::case::Result;
use crate::ctx::Ctx;
use crate::system::cgroups;
use crate::{check, group, same, skip};

group! { "resources":
    cgroups_path_is_followed: "config-linux.md#cgroups-path",
    cgroups_path_may_be_deep: "config-linux.md#cgroups-path",
    cgroups_path_may_be_missing: "config-linux.md#cgroups-path: the runtime MAY define a default",
    the_process_is_in_every_controller: "config-linux.md#cgroups-path: consistently in all hierarchies",
    memory_limit: "config-linux.md#memory: limit",
    pids_limit: "config-linux.md#pids: limit",
    pids_limit_is_in_force: "config-linux.md#pids: limit",
    cpu_shares: "config-linux.md#cpu: shares",
    cpu_quota: "config-linux.md#cpu: quota, period",
    cpuset: "config-linux.md#cpu: cpus",
    a_limit_that_cannot_be_set_is_refused: "runtime.md#create: cannot apply a property",
    update_by_flags: "runc CLI: update --pids-limit, --memory",
    update_by_file: "podman: update --resources FILE",
    update_by_stdin: "containerd, CRI-O: update --resources -",
    update_of_a_stopped_container_is_refused: "runc CLI: update",
    update_with_a_broken_file_changes_nothing: "runtime.md#errors: as if the operation were never attempted",
    update_keeps_the_other_limits: "runc CLI: update",
    events_stats: "runc CLI: events --stats",
}

/// Content of the file in the container's group, whichever version the hierarchy has.
fn value(ctx: &Ctx, v1: &str, v2: &str) -> Result<String> {
    let read = |name: &str| {
        let dirs = cgroups(&ctx.id).ok()?;
        dirs.iter().find_map(|dir| fs::read_to_string(dir.join(name)).ok()).map(|text| text.trim().to_owned())
    };
    match read(v1).or_else(|| read(v2)) {
        Some(text) => Ok(text),
        None => skip!("no hierarchy here has {v1} or {v2}"),
    }
}

/// A running container with these resources; skips if the controller is not to be had here.
fn with(ctx: &Ctx, controller: &str, resources: &[(&str, Value)]) -> Result {
    needs(controller)?;
    let mut bundle = ctx.bundle()?;
    for (pointer, value) in resources {
        bundle.set(&format!("/linux/resources{pointer}"), value.clone());
    }
    ctx.start(&bundle).map(drop)
}

/// A v1 hierarchy of this name, or cgroup2 with this controller.
fn needs(controller: &str) -> Result {
    let table = conformance::kernel::mounts()?;
    let v1 = table.iter().any(|m| m.fstype == "cgroup" && m.super_has(controller));
    let v2 = table.iter().filter(|m| m.fstype == "cgroup2").any(|m| {
        fs::read_to_string(format!("{}/cgroup.controllers", m.point))
            .is_ok_and(|all| all.split_whitespace().any(|c| c == controller))
    });
    if !v1 && !v2 {
        skip!("no hierarchy here has the {controller} controller");
    }
    Ok(())
}

fn cgroups_path_is_followed(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid))?;
    let wanted = format!(":/{}", ctx.id);
    check!(text.lines().any(|line| line.ends_with(&wanted)), "no group at {wanted}: {text}");
    Ok(())
}

/// Whether the parent is taken away is left open, so the case does it.
fn cgroups_path_may_be_deep(ctx: &Ctx) -> Result {
    let parent = format!("conformance-{}", std::process::id());
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/cgroupsPath", json!(format!("/{parent}/{}", ctx.id)));
    let text =
        ctx.start(&bundle).and_then(|container| Ok(fs::read_to_string(format!("/proc/{}/cgroup", container.pid))?));
    ctx.call(&["delete", "--force", &ctx.id])?.ok()?;
    for dir in cgroups(&parent)? {
        fs::remove_dir(dir)?;
    }
    let (text, wanted) = (text?, format!("/{parent}/{}", ctx.id));
    check!(text.lines().any(|line| line.ends_with(&wanted)), "no group at {wanted}: {text}");
    Ok(())
}

fn cgroups_path_may_be_missing(ctx: &Ctx) -> Result {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let mut bundle = ctx.bundle()?;
    let container = ctx.start(bundle.remove("/linux/cgroupsPath"))?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid))?;
    check!(text != own, "the container is in the caller's control groups");
    let paths: Vec<String> =
        text.lines().filter_map(|line| line.rsplit_once(':')).map(|(_, path)| path.to_owned()).collect();
    check!(paths.iter().any(|path| path.contains(&ctx.id)), "no group is named after the container: {text}");
    Ok(())
}

fn the_process_is_in_every_controller(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid))?;
    let table = conformance::kernel::mounts()?;
    for controller in ["memory", "pids", "cpu", "devices", "freezer", "cpuset"] {
        if !table.iter().any(|m| m.fstype == "cgroup" && m.super_has(controller)) {
            continue;
        }
        let line =
            text.lines().find(|line| line.split(':').nth(1).is_some_and(|all| all.split(',').any(|c| c == controller)));
        check!(line.is_some_and(|line| line.contains(&ctx.id)), "not in a {controller} group of its own: {text}");
    }
    check!(text.contains(&ctx.id), "in no group of its own: {text}");
    Ok(())
}

fn memory_limit(ctx: &Ctx) -> Result {
    with(ctx, "memory", &[("/memory/limit", json!(64 << 20))])?;
    same!(value(ctx, "memory.limit_in_bytes", "memory.max")?, (64 << 20).to_string(), "memory limit");
    Ok(())
}

fn pids_limit(ctx: &Ctx) -> Result {
    with(ctx, "pids", &[("/pids/limit", json!(77))])?;
    same!(value(ctx, "pids.max", "pids.max")?, "77", "pids limit");
    Ok(())
}

fn pids_limit_is_in_force(ctx: &Ctx) -> Result {
    with(ctx, "pids", &[("/pids/limit", json!(40))])?;
    ctx.call(&["update", "--pids-limit", "1", &ctx.id])?.ok()?;
    // To join a full group is allowed; to fork in it is not.
    ctx.call(&["exec", &ctx.id, "/probe", "wait-family"])?.fails().map(drop)
}

fn cpu_shares(ctx: &Ctx) -> Result {
    with(ctx, "cpu", &[("/cpu/shares", json!(2048))])?;
    let text = value(ctx, "cpu.shares", "cpu.weight")?;
    check!(text == "2048" || text.parse::<u32>().is_ok_and(|weight| weight > 0), "cpu shares: {text}");
    Ok(())
}

fn cpu_quota(ctx: &Ctx) -> Result {
    with(ctx, "cpu", &[("/cpu/quota", json!(20_000)), ("/cpu/period", json!(50_000))])?;
    let text = value(ctx, "cpu.cfs_quota_us", "cpu.max")?;
    check!(["20000", "20000 50000"].contains(&text.as_str()), "cpu quota: {text}");
    Ok(())
}

fn cpuset(ctx: &Ctx) -> Result {
    with(ctx, "cpuset", &[("/cpu/cpus", json!("0"))])?;
    same!(value(ctx, "cpuset.cpus", "cpuset.cpus")?, "0", "cpus");
    Ok(())
}

fn a_limit_that_cannot_be_set_is_refused(ctx: &Ctx) -> Result {
    needs("cpuset")?;
    let mut bundle = ctx.bundle()?;
    ctx.refuses(bundle.set("/linux/resources/cpu/cpus", json!("9999"))).map(drop)
}

fn update_by_flags(ctx: &Ctx) -> Result {
    with(ctx, "pids", &[("/pids/limit", json!(77))])?;
    ctx.call(&["update", "--pids-limit", "33", &ctx.id])?.ok()?;
    same!(value(ctx, "pids.max", "pids.max")?, "33", "pids limit");
    Ok(())
}

fn update_by_file(ctx: &Ctx) -> Result {
    with(ctx, "pids", &[("/pids/limit", json!(77))])?;
    let file = ctx.dir.join("resources.json");
    fs::write(&file, json!({"pids": {"limit": 34}}).to_string())?;
    ctx.verb(&["update"])?.arg(format!("--resources={}", file.display())).arg(&ctx.id).go()?.ok()?;
    same!(value(ctx, "pids.max", "pids.max")?, "34", "pids limit");
    Ok(())
}

fn update_by_stdin(ctx: &Ctx) -> Result {
    with(ctx, "pids", &[("/pids/limit", json!(77))])?;
    let file = ctx.dir.join("resources.json");
    fs::write(&file, json!({"pids": {"limit": 35}}).to_string())?;
    ctx.verb(&["update", "--resources", "-", &ctx.id])?.stdin(fs::File::open(file)?).go()?.ok()?;
    same!(value(ctx, "pids.max", "pids.max")?, "35", "pids limit");
    Ok(())
}

fn update_of_a_stopped_container_is_refused(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    container.stop()?;
    ctx.call(&["update", "--pids-limit", "33", &ctx.id])?.fails().map(drop)
}

fn update_with_a_broken_file_changes_nothing(ctx: &Ctx) -> Result {
    with(ctx, "pids", &[("/pids/limit", json!(77))])?;
    let file = ctx.dir.join("resources.json");
    fs::write(&file, "{\"pids\": {\"limit\": ")?;
    ctx.verb(&["update", "--resources"])?.arg(file).arg(&ctx.id).go()?.fails()?;
    same!(value(ctx, "pids.max", "pids.max")?, "77", "pids limit");
    Ok(())
}

fn update_keeps_the_other_limits(ctx: &Ctx) -> Result {
    needs("memory")?;
    with(ctx, "pids", &[("/pids/limit", json!(77)), ("/memory/limit", json!(64 << 20))])?;
    ctx.call(&["update", "--memory", &(96 << 20).to_string(), &ctx.id])?.ok()?;
    same!(value(ctx, "pids.max", "pids.max")?, "77", "pids limit");
    same!(value(ctx, "memory.limit_in_bytes", "memory.max")?, (96 << 20).to_string(), "memory limit");
    Ok(())
}

fn events_stats(ctx: &Ctx) -> Result {
    ctx.needs_verb("events")?;
    let bundle: Bundle = ctx.bundle()?;
    ctx.start(&bundle)?;
    let event = ctx.call(&["events", "--stats", &ctx.id])?.ok()?.json()?;
    same!(event["type"], json!("stats"), "type");
    same!(event["id"], json!(ctx.id), "id");
    check!(event["data"].is_object(), "no data: {event}");
    Ok(())
}
