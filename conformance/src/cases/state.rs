/*! The state document and the pid file. */

use std::fs;

use conformance::kernel::command_line;
use serde_json::json;

use crate::case::Result;
use crate::ctx::Ctx;
use crate::{check, group, same};

group! { "state":
    has_all_required_fields: "runtime.md#state: ociVersion, id, status, pid, bundle",
    pid_is_that_of_the_first_process: "runtime.md#state: pid, as seen by the host",
    stopped_has_no_pid: "runc CLI: state prints pid 0 once it has stopped",
    bundle_is_absolute: "runtime.md#state: bundle is an absolute path",
    carries_annotations: "runtime.md#state: annotations",
    created_is_a_time: "runc CLI: go-runc reads `created` as RFC 3339",
    is_not_changed_by_looking: "runtime.md#query-state",
    sees_a_process_killed_from_outside: "runtime.md#state: stopped",
    is_private: "CVE checklist (f): nobody else can change a container's state",
    pid_file_is_a_bare_number: "containerd: strconv.Atoi of the whole pid file",
    pid_file_of_run: "runc CLI: run --pid-file",
    pid_file_that_cannot_be_written_is_an_error: "runc CLI: create --pid-file",
}

fn has_all_required_fields(ctx: &Ctx) -> Result {
    let state = ctx.create(&ctx.bundle()?)?.state()?;
    for field in ["ociVersion", "id", "status", "pid", "bundle"] {
        check!(!state[field].is_null(), "no {field}: {state}");
    }
    same!(state["id"], json!(ctx.id), "id");
    let version = state["ociVersion"].as_str().unwrap_or_default();
    check!(version.starts_with("1."), "ociVersion should be SemVer 1.x: {state}");
    Ok(())
}

fn pid_is_that_of_the_first_process(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    let pid = container.state()?["pid"].as_i64();
    same!(pid, Some(i64::from(container.pid)), "pid in state and pid file");
    same!(command_line(container.pid), "/probe\0wait\0", "what has the pid");
    Ok(())
}

fn stopped_has_no_pid(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    container.stop()?;
    let state = container.state()?;
    check!(state["pid"].is_null() || state["pid"] == 0, "a stopped container has no process: {state}");
    Ok(())
}

fn bundle_is_absolute(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    let container = ctx.create(&bundle)?;
    same!(container.state()?["bundle"], json!(bundle.dir), "bundle");
    Ok(())
}

fn carries_annotations(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let annotations = json!({"org.example.key": "a \"value\"\nwith a line", "org.example.empty": ""});
    bundle.set("/annotations", annotations.clone());
    let state = ctx.create(&bundle)?.state()?;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        same!(state["annotations"][key], *value, "annotation {key}");
    }
    Ok(())
}

fn created_is_a_time(ctx: &Ctx) -> Result {
    let state = ctx.create(&ctx.bundle()?)?.state()?;
    let created = state["created"].as_str().unwrap_or_default();
    check!(super::logs::is_rfc3339(created), "created should be RFC 3339: {created:?}");
    Ok(())
}

fn is_not_changed_by_looking(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    let once = container.state()?;
    same!(container.state()?, once, "state the second time");
    check!(container.alive()?, "looking ended it");
    Ok(())
}

fn sees_a_process_killed_from_outside(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(container.pid), nix::sys::signal::Signal::SIGKILL)?;
    container.wait()?;
    container.status_is("stopped")?;
    container.delete()
}

fn is_private(ctx: &Ctx) -> Result {
    use std::os::unix::fs::PermissionsExt;
    ctx.create(&ctx.bundle()?)?;
    for entry in fs::read_dir(&ctx.root)? {
        let path = entry?.path();
        let mode = fs::symlink_metadata(&path)?.permissions().mode();
        check!(mode & 0o022 == 0, "{} can be written by others: {mode:o}", path.display());
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            let mode = entry.metadata()?.permissions().mode();
            let open = entry.file_type()?.is_file() && mode & 0o022 != 0;
            check!(!open, "{} can be written by others: {mode:o}", entry.path().display());
        }
    }
    Ok(())
}

fn pid_file_is_a_bare_number(ctx: &Ctx) -> Result {
    let container = ctx.create(&ctx.bundle()?)?;
    let text = fs::read_to_string(ctx.dir.join(format!("{}.pid", ctx.id)))?;
    same!(text, container.pid.to_string(), "pid file");
    same!(container.state()?["pid"], json!(container.pid), "pid in state");
    Ok(())
}

fn pid_file_of_run(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    bundle.write()?;
    let file = ctx.dir.join("run.pid");
    let run = ctx.verb(&["run", "--detach", "--bundle"])?.arg(&bundle.dir).arg("--pid-file").arg(&file);
    let mut run = run.arg(&ctx.id).go()?.ok()?;
    same!(run.stream.line()?, "ready", "the process says");
    let state = ctx.call(&["state", &ctx.id])?.ok()?.json()?;
    same!(fs::read_to_string(file)?, state["pid"].to_string(), "pid file");
    Ok(())
}

fn pid_file_that_cannot_be_written_is_an_error(ctx: &Ctx) -> Result {
    let before = crate::world::World::now()?;
    let bundle = ctx.bundle()?;
    bundle.write()?;
    let file = ctx.dir.join("none/pid");
    ctx.verb(&["create", "--bundle"])?.arg(&bundle.dir).arg("--pid-file").arg(file).arg(&ctx.id).go()?.fails()?;
    ctx.nothing_left(&before)
}
