/*! The command line as callers use it, apart from containers. */

use std::fs;

use serde_json::{Value, json};

use crate::case::Result;
use crate::ctx::Ctx;
use crate::{check, group, same};

group! { "cli":
    version_is_told: "docker, go-runc: a line with `version` on stdout of --version",
    help_is_told: "runc CLI: --help",
    an_unknown_verb_is_refused: "runc CLI",
    an_unknown_flag_is_refused: "runc CLI",
    missing_arguments_are_refused: "runtime.md#operations: MUST generate an error if it is not provided the ID",
    surplus_arguments_are_refused: "runc CLI",
    features_are_told: "features.md: ociVersionMin, ociVersionMax; CRI-O ignores features without them",
    features_need_no_root_directory: "containerd: `features` is called without global flags",
    spec_writes_a_config_that_runs: "runc CLI: spec",
    spec_does_not_overwrite: "runc CLI: spec",
    failing_calls_leave_no_root_directory_entries: "runtime.md#errors: as if the operation were never attempted",
}

fn version_is_told(ctx: &Ctx) -> Result {
    let out = ctx.verb(&["--version"])?.only_globals(&[]).go()?.ok()?.out;
    let told = out.lines().any(|line| line.contains(" version ") && line.chars().any(|c| c.is_ascii_digit()));
    check!(told, "no line with `NAME version X`: {out}");
    Ok(())
}

fn help_is_told(ctx: &Ctx) -> Result {
    let help = ctx.verb(&["--help"])?.only_globals(&[]).go()?.ok()?.out;
    for verb in ["create", "start", "state", "kill", "delete", "exec", "run", "list", "ps"] {
        check!(help.contains(verb), "help does not mention {verb}");
    }
    Ok(())
}

fn an_unknown_verb_is_refused(ctx: &Ctx) -> Result {
    ctx.call(&["no-such-verb"])?.fails().map(drop)
}

fn an_unknown_flag_is_refused(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    bundle.write()?;
    ctx.verb(&["create", "--no-such-flag", "--bundle"])?.arg(&bundle.dir).arg(&ctx.id).go()?.fails()?;
    ctx.call(&["state", &ctx.id])?.fails().map(drop)
}

fn missing_arguments_are_refused(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    bundle.write()?;
    for verb in ["create", "start", "state", "kill", "delete", "exec", "run", "pause", "resume", "ps"] {
        ctx.verb(&[verb])?.cwd(&bundle.dir).go()?.fails()?;
    }
    ctx.start(&bundle)?;
    ctx.call(&["exec", &ctx.id])?.fails().map(drop)
}

fn surplus_arguments_are_refused(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    for verb in ["start", "state", "delete"] {
        ctx.call(&[verb, &ctx.id, "surplus"])?.fails()?;
    }
    container.status_is("running")
}

fn features_are_told(ctx: &Ctx) -> Result {
    ctx.needs_verb("features")?;
    let features = ctx.call(&["features"])?.ok()?.json()?;
    for member in ["ociVersionMin", "ociVersionMax"] {
        check!(features[member].is_string(), "no {member}: {features}");
    }
    for member in ["hooks", "mountOptions"] {
        check!(features[member].as_array().is_some_and(|all| !all.is_empty()), "no {member}: {features}");
    }
    let namespaces = features["linux"]["namespaces"].as_array();
    let mount = namespaces.is_some_and(|all| all.contains(&json!("mount")));
    check!(mount || !cfg!(target_os = "linux"), "no mount namespace: {features}");
    Ok(())
}

fn features_need_no_root_directory(ctx: &Ctx) -> Result {
    ctx.needs_verb("features")?;
    ctx.verb(&["features"])?.only_globals(&[]).go()?.ok()?.json().map(drop)
}

fn spec_writes_a_config_that_runs(ctx: &Ctx) -> Result {
    ctx.needs_verb("spec")?;
    let mut bundle = ctx.bundle()?;
    ctx.verb(&["spec"])?.cwd(&bundle.dir).go()?.ok()?;
    let text = fs::read(bundle.dir.join("config.json"))?;
    bundle.config = serde_json::from_slice::<Value>(&text)?;
    check!(bundle.config["ociVersion"].is_string(), "no ociVersion");
    bundle.set("/process/terminal", json!(false)).set("/process/rlimits", json!([]));
    bundle.args(&["/probe", "exit", "5"]);
    ctx.run(&bundle)?.code_is(5).map(drop)
}

fn spec_does_not_overwrite(ctx: &Ctx) -> Result {
    ctx.needs_verb("spec")?;
    let bundle = ctx.bundle()?;
    let file = bundle.dir.join("config.json");
    fs::write(&file, "mine")?;
    ctx.verb(&["spec"])?.cwd(&bundle.dir).go()?.fails()?;
    same!(fs::read_to_string(file)?, "mine", "config.json");
    Ok(())
}

fn failing_calls_leave_no_root_directory_entries(ctx: &Ctx) -> Result {
    for words in [["state", &ctx.id], ["start", &ctx.id], ["delete", &ctx.id], ["kill", &ctx.id]] {
        ctx.call(&words)?.fails()?;
    }
    let Ok(entries) = fs::read_dir(&ctx.root) else { return Ok(()) };
    let names: Vec<_> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    check!(names.iter().all(|name| !name.contains(&ctx.id)), "left in --root: {names:?}");
    Ok(())
}
