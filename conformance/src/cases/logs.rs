/*! What callers read when something goes wrong: `--log`, and the texts they match. */

use std::fs;

use serde_json::{Deserializer, Value, json};

use crate::case::Result;
use crate::ctx::Ctx;
use crate::{check, group, same};

group! { "logs":
    json_log_has_one_error: "podman: the log of a failed create is one JSON object {level, msg, time}",
    json_log_of_exec_has_one_error: "containerd: the last error of log.json is what the user sees",
    a_success_logs_nothing: "podman: the log holds at most one object",
    an_error_goes_to_stderr_too: "conmon: stderr of a runtime that fails is the message",
    text_log_has_the_error: "runc CLI: --log-format text",
    an_unknown_log_format_is_refused: "runc CLI: --log-format",
    state_of_a_missing_container: "containerd, podman: \"does not exist\"",
    kill_of_a_missing_container: "containerd: \"does not exist\"",
    delete_of_a_missing_container: "containerd: \"does not exist\"",
    kill_of_a_stopped_container: "containerd, CRI-O: \"container not running\" or \"no such process\"",
    create_of_an_existing_container: "runc CLI: \"already exists\"",
    a_missing_program: "podman, docker: \"no such file or directory\" or \"executable file not found\" is 127",
    a_missing_program_in_path: "podman, docker: \"executable file not found\" or \"no such file or directory\" is 127",
    a_program_that_may_not_be_executed: "podman: \"permission denied\" or \"operation not permitted\" is 126",
    a_missing_program_of_exec: "podman, docker: \"no such file or directory\" or \"executable file not found\" is 127",
    an_error_names_the_mount: "runtime.md#errors: the user has to find the culprit",
}

/// `2026-11-24T00:25:04[.fraction](Z|+hh:mm)`
pub(super) fn is_rfc3339(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let Some(rest) = shape.strip_prefix("0000-00-00T00:00:00") else { return false };
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches('0'),
        None => rest,
    };
    matches!(zone, "Z" | "+00:00" | "-00:00") && !rest.starts_with(".Z")
}

/// The log after a call that fails.
fn log_of(ctx: &Ctx, format: &str, words: &[&str]) -> Result<String> {
    let file = ctx.dir.join("runtime.log");
    let flags = ["--log", &file.display().to_string(), "--log-format", format];
    ctx.verb(words)?.globals(&flags).go()?.fails()?;
    Ok(fs::read_to_string(file)?)
}

fn one_error(log: &str) -> Result {
    let entries = Deserializer::from_str(log).into_iter::<Value>().collect::<std::result::Result<Vec<_>, _>>()?;
    check!(entries.len() == 1, "one object should be in the log, not {}: {log}", entries.len());
    let entry = &entries[0];
    same!(entry["level"], json!("error"), "level");
    check!(entry["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "no msg: {log}");
    check!(entry["time"].as_str().is_some_and(is_rfc3339), "time should be RFC 3339: {log}");
    Ok(())
}

fn json_log_has_one_error(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/no-such-program"]).write()?;
    one_error(&log_of(ctx, "json", &["run", "--bundle", &bundle.dir.display().to_string(), &ctx.id])?)
}

fn json_log_of_exec_has_one_error(ctx: &Ctx) -> Result {
    ctx.start(&ctx.bundle()?)?;
    one_error(&log_of(ctx, "json", &["exec", &ctx.id, "/no-such-program"])?)
}

fn a_success_logs_nothing(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    let file = ctx.dir.join("runtime.log");
    let flags = ["--log", &file.display().to_string(), "--log-format", "json"];
    ctx.create_verb(&bundle, &ctx.id)?.globals(&flags).go()?.ok()?;
    ctx.verb(&["start", &ctx.id])?.globals(&flags).go()?.ok()?;
    ctx.verb(&["delete", "--force", &ctx.id])?.globals(&flags).go()?.ok()?;
    same!(fs::read_to_string(file).unwrap_or_default(), "", "log after success");
    Ok(())
}

fn an_error_goes_to_stderr_too(ctx: &Ctx) -> Result {
    let file = ctx.dir.join("runtime.log").display().to_string();
    let flags = ["--log", &file, "--log-format", "json"];
    let outcome = ctx.verb(&["state", &ctx.id])?.globals(&flags).go()?.fails()?;
    check!(!outcome.err.trim().is_empty(), "nothing on stderr");
    same!(outcome.out, "", "stdout");
    Ok(())
}

fn text_log_has_the_error(ctx: &Ctx) -> Result {
    let log = log_of(ctx, "text", &["state", &ctx.id])?;
    check!(log.to_lowercase().contains("does not exist"), "the log should say what happened: {log:?}");
    Ok(())
}

fn an_unknown_log_format_is_refused(ctx: &Ctx) -> Result {
    let file = ctx.dir.join("runtime.log").display().to_string();
    ctx.verb(&["list"])?.globals(&["--log", &file, "--log-format", "yaml"]).go()?.fails().map(drop)
}

fn state_of_a_missing_container(ctx: &Ctx) -> Result {
    ctx.call(&["state", &ctx.id])?.fails()?.says(&["does not exist"]).map(drop)
}

fn kill_of_a_missing_container(ctx: &Ctx) -> Result {
    ctx.call(&["kill", &ctx.id, "9"])?.fails()?.says(&["does not exist"]).map(drop)
}

fn delete_of_a_missing_container(ctx: &Ctx) -> Result {
    ctx.call(&["delete", &ctx.id])?.fails()?.says(&["does not exist"]).map(drop)
}

fn kill_of_a_stopped_container(ctx: &Ctx) -> Result {
    ctx.start(&ctx.bundle()?)?.stop()?;
    ctx.call(&["kill", &ctx.id, "TERM"])?.fails()?.says(&["container not running", "no such process"]).map(drop)
}

fn create_of_an_existing_container(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    ctx.create(&bundle)?;
    let texts = ["already exists", "already exist"];
    ctx.create_verb(&bundle, &ctx.id)?.go()?.fails()?.says(&texts).map(drop)
}

const MISSING: [&str; 2] = ["no such file or directory", "executable file not found"];

fn a_missing_program(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/no-such-program"]);
    ctx.will_not_run(&bundle)?.says(&MISSING).map(drop)
}

fn a_missing_program_in_path(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["no-such-program"]);
    ctx.will_not_run(&bundle)?.says(&MISSING).map(drop)
}

fn a_program_that_may_not_be_executed(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    fs::write(bundle.rootfs("plain"), "no program")?;
    bundle.args(&["/plain"]);
    ctx.will_not_run(&bundle)?.says(&["permission denied", "operation not permitted"]).map(drop)
}

fn a_missing_program_of_exec(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    container.exec(&[], &["/no-such-program"])?.go()?.fails()?.says(&MISSING)?;
    container.status_is("running")
}

fn an_error_names_the_mount(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.mount("bind", ctx.dir.join("no-such-source"), "/there", &["rbind"]);
    ctx.refuses(&bundle)?.says(&["no-such-source"]).map(drop)
}
