/*! `ps` and `list`. */

use serde_json::{Value, json};

use crate::case::Result;
use crate::ctx::Ctx;
use crate::{check, group, same};

group! { "ps":
    as_json_is_an_array_of_pids: "containerd: ps --format json is a JSON array of integers",
    has_the_processes_of_exec: "runc CLI: ps",
    as_table_has_a_header: "runc CLI: ps",
    of_a_stopped_container_has_no_process: "runc CLI: ps",
    with_an_unknown_format_is_refused: "runc CLI: ps --format",
    list_as_json: "runc CLI: list --format json",
    list_as_table: "runc CLI: list",
    list_quiet: "runc CLI: list --quiet",
    list_without_containers: "runc CLI: list",
    list_has_every_status: "runc CLI: list",
    list_forgets_the_deleted: "runc CLI: list",
}

fn pids(ctx: &Ctx) -> Result<Vec<i64>> {
    let pids = ctx.call(&["ps", "--format", "json", &ctx.id])?.ok()?.json()?;
    check!(pids.is_array(), "not an array: {pids}");
    Ok(pids.as_array().into_iter().flatten().filter_map(Value::as_i64).collect())
}

fn as_json_is_an_array_of_pids(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    same!(pids(ctx)?, [i64::from(container.pid)], "pids");
    Ok(())
}

fn has_the_processes_of_exec(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    let mut exec = container.exec(&[], &["/probe", "wait"])?.spawn()?;
    crate::ctx::expect_line(&mut exec, "ready")?;
    let pids = pids(ctx)?;
    check!(pids.len() == 2 && pids.contains(&i64::from(container.pid)), "pids: {pids:?}");
    ctx.call(&["kill", "--all", &ctx.id, "KILL"])?.ok()?;
    exec.finish()?.code_is(137).map(drop)
}

fn as_table_has_a_header(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    let table = ctx.call(&["ps", &ctx.id])?.ok()?.out;
    check!(table.lines().next().is_some_and(|line| line.contains("PID")), "no header: {table}");
    let listed = table.split_whitespace().any(|word| word == container.pid.to_string());
    check!(listed, "no line for {}: {table}", container.pid);
    Ok(())
}

/// runc prints `[]` or `null`; whether the call fails is left open.
fn of_a_stopped_container_has_no_process(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    container.stop()?;
    let out = ctx.call(&["ps", "--format", "json", &ctx.id])?.out.replace(char::is_whitespace, "");
    check!(["", "[]", "null"].contains(&out.as_str()), "processes of a stopped container: {out}");
    Ok(())
}

fn with_an_unknown_format_is_refused(ctx: &Ctx) -> Result {
    ctx.start(&ctx.bundle()?)?;
    ctx.call(&["ps", "--format", "yaml", &ctx.id])?.fails().map(drop)
}

fn list(ctx: &Ctx) -> Result<Vec<Value>> {
    let list = ctx.call(&["list", "--format", "json"])?.ok()?.json()?;
    Ok(list.as_array().cloned().unwrap_or_default())
}

fn list_as_json(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    let container = ctx.start(&bundle)?;
    let list = list(ctx)?;
    check!(list.len() == 1, "one container: {list:?}");
    let members = [
        ("id", json!(ctx.id)),
        ("pid", json!(container.pid)),
        ("status", json!("running")),
        ("bundle", json!(bundle.dir)),
    ];
    for (name, value) in members {
        same!(list[0][name], value, "{name}");
    }
    let created = list[0]["created"].as_str().unwrap_or_default();
    check!(super::logs::is_rfc3339(created), "created should be RFC 3339: {created:?}");
    Ok(())
}

fn list_as_table(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    let table = ctx.call(&["list"])?.ok()?.out;
    let header = table.lines().next().unwrap_or_default();
    for column in ["PID", "STATUS", "BUNDLE", "CREATED"] {
        check!(header.contains(column), "no column {column}: {header:?}");
    }
    let row = table.lines().find(|line| line.starts_with(&ctx.id)).unwrap_or_default();
    check!(row.contains(&container.pid.to_string()) && row.contains("running"), "row: {table}");
    Ok(())
}

fn list_quiet(ctx: &Ctx) -> Result {
    let second = ctx.other("b");
    ctx.create(&ctx.bundle()?)?;
    ctx.create_as(&ctx.bundle_at("second", &second)?, &second)?;
    let out = ctx.call(&["list", "--quiet"])?.ok()?.out;
    let mut ids: Vec<&str> = out.lines().collect();
    ids.sort_unstable();
    same!(ids, [ctx.id.as_str(), &second], "ids");
    Ok(())
}

fn list_without_containers(ctx: &Ctx) -> Result {
    std::fs::create_dir(&ctx.root)?;
    let outcome = ctx.call(&["list", "--quiet"])?.ok()?;
    same!(outcome.out.trim(), "", "ids");
    same!(list(ctx)?.len(), 0, "containers");
    Ok(())
}

fn list_has_every_status(ctx: &Ctx) -> Result {
    let (b, c) = (ctx.other("b"), ctx.other("c"));
    ctx.create(&ctx.bundle()?)?;
    let mut running = ctx.create_as(&ctx.bundle_at("b", &b)?, &b)?;
    running.start()?;
    running.expect("ready")?;
    ctx.create_as(&ctx.bundle_at("c", &c)?, &c)?.stop()?;
    let list = list(ctx)?;
    for (id, status) in [(&ctx.id, "created"), (&b, "running"), (&c, "stopped")] {
        let entry = list.iter().find(|entry| entry["id"] == json!(id)).cloned().unwrap_or_default();
        same!(entry["status"], json!(status), "status of {id}");
    }
    Ok(())
}

fn list_forgets_the_deleted(ctx: &Ctx) -> Result {
    ctx.create(&ctx.bundle()?)?;
    ctx.call(&["delete", "--force", &ctx.id])?.ok()?;
    same!(list(ctx)?.len(), 0, "containers");
    Ok(())
}
