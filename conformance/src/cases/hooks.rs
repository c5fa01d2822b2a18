/*! Hooks: when they run, where, with what, and what follows if they fail. */

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::case::{Fail, Result};
use crate::ctx::Ctx;
use crate::system::ROOT;
use crate::world::World;
use crate::{check, group, same};

group! { "hooks":
    all_moments_in_order: "runtime.md#lifecycle: prestart, createRuntime, createContainer, startContainer, poststart, poststop",
    create_runs_the_first_three: "runtime.md#lifecycle 3 to 5",
    several_of_one_moment_in_order: "config.md#posix-platform-hooks: MUST be called in the listed order",
    state_is_on_stdin: "config.md#posix-platform-hooks: the state MUST be passed over stdin",
    status_follows_the_moment: "runtime.md#state: creating or created, running, stopped",
    args_are_argv: "config.md#posix-platform-hooks: args has execv semantics",
    args_may_be_missing: "config.md#posix-platform-hooks: args is optional",
    env_is_that_of_the_hook: "config.md#posix-platform-hooks: env",
    start_container_runs_in_the_container: "config.md#startcontainer-hooks: path resolves in the container",
    a_failing_prestart_ends_create: "runtime.md#lifecycle 3: error, stop the container, continue at step 12",
    a_failing_create_runtime_ends_create: "runtime.md#lifecycle 4: error, stop the container, continue at step 12",
    a_failing_create_container_ends_create: "runtime.md#lifecycle 5: error, stop the container, continue at step 12",
    a_failing_start_container_ends_the_container: "runtime.md#lifecycle 7: the process MUST NOT be run",
    a_failing_poststop_only_warns: "runtime.md#lifecycle 13: MUST log a warning, but the remaining hooks continue",
    a_failing_hook_stops_those_after_it: "runtime.md#lifecycle 3: continue at step 12",
    a_hook_that_hangs_is_ended: "config.md#posix-platform-hooks: timeout",
    a_missing_hook_ends_create: "runtime.md#lifecycle 4",
    a_relative_path_is_refused: "config.md#posix-platform-hooks: path MUST be absolute",
    the_error_names_the_hook: "runtime.md#errors: the user has to find the culprit",
    poststop_runs_once: "runtime.md#lifecycle 13",
    poststop_runs_on_forced_delete: "runtime.md#lifecycle 13",
    poststop_sees_the_container_gone: "runtime.md#lifecycle 12, 13: the container is destroyed first",
}

/// Where hooks write; inside of the container it is /hooks.log.
fn log(bundle: &Bundle) -> PathBuf {
    bundle.rootfs("hooks.log")
}

fn add(ctx: &Ctx, bundle: &mut Bundle, moment: &str, name: &str, then: &[&str]) {
    let inside = moment == "startContainer";
    let file = if inside { PathBuf::from("/hooks.log") } else { log(bundle) };
    let path = if inside { Path::new("/probe") } else { &ctx.probe.path };
    let mut args = vec!["probe".to_owned(), "hook".to_owned(), file.display().to_string(), name.to_owned()];
    args.extend(then.iter().map(|&word| word.to_owned()));
    bundle.push(&format!("/hooks/{moment}"), json!({"path": path, "args": args, "env": ["HOOK=1", "PATH=/x"]}));
}

const MOMENTS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

pub(super) fn with_all(ctx: &Ctx) -> Result<Bundle> {
    let mut bundle = ctx.bundle()?;
    for moment in MOMENTS {
        add(ctx, &mut bundle, moment, moment, &[]);
    }
    Ok(bundle)
}

fn seen(bundle: &Bundle) -> Result<Vec<Value>> {
    let text = fs::read_to_string(log(bundle)).unwrap_or_default();
    Ok(text.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?)
}

fn names(bundle: &Bundle) -> Result<Vec<String>> {
    Ok(seen(bundle)?.iter().filter_map(|entry| entry["name"].as_str()).map(str::to_owned).collect())
}

pub(super) fn entry(bundle: &Bundle, name: &str) -> Result<Value> {
    let found = seen(bundle)?.into_iter().find(|entry| entry["name"] == name);
    found.ok_or_else(|| Fail::Failed(format!("the {name} hook did not run")))
}

/// create, start, end, delete.
pub(super) fn whole_life(ctx: &Ctx, bundle: &Bundle) -> Result {
    let container = ctx.start(bundle)?;
    container.stop()?;
    container.delete()
}

fn all_moments_in_order(ctx: &Ctx) -> Result {
    let bundle = with_all(ctx)?;
    whole_life(ctx, &bundle)?;
    same!(names(&bundle)?, MOMENTS, "hooks that ran");
    Ok(())
}

fn create_runs_the_first_three(ctx: &Ctx) -> Result {
    let bundle = with_all(ctx)?;
    let mut container = ctx.create(&bundle)?;
    same!(names(&bundle)?, MOMENTS[..3], "hooks that ran by the end of create");
    container.start()?;
    container.expect("ready")?;
    same!(names(&bundle)?, MOMENTS[..5], "hooks that ran by the end of start");
    Ok(())
}

fn several_of_one_moment_in_order(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    for name in ["c", "a", "b"] {
        add(ctx, &mut bundle, "createRuntime", name, &[]);
        add(ctx, &mut bundle, "poststop", &format!("post-{name}"), &[]);
    }
    whole_life(ctx, &bundle)?;
    same!(names(&bundle)?, ["c", "a", "b", "post-c", "post-a", "post-b"], "hooks that ran");
    Ok(())
}

fn state_is_on_stdin(ctx: &Ctx) -> Result {
    let mut bundle = with_all(ctx)?;
    bundle.set("/annotations", json!({"org.example.key": "value"}));
    let container = ctx.start(&bundle)?;
    let pid = container.pid;
    container.stop()?;
    container.delete()?;
    for moment in MOMENTS {
        let state = &entry(&bundle, moment)?["state"];
        same!(state["id"], json!(ctx.id), "id in the state for {moment}");
        same!(state["bundle"], json!(bundle.dir), "bundle in the state for {moment}");
        same!(state["annotations"]["org.example.key"], json!("value"), "annotation in the state for {moment}");
        check!(state["ociVersion"].is_string(), "ociVersion in the state for {moment}: {state}");
        if ["prestart", "createRuntime", "poststart"].contains(&moment) {
            same!(state["pid"], json!(pid), "pid in the state for {moment}");
        }
    }
    Ok(())
}

fn status_follows_the_moment(ctx: &Ctx) -> Result {
    let bundle = with_all(ctx)?;
    whole_life(ctx, &bundle)?;
    for moment in MOMENTS {
        let status = entry(&bundle, moment)?["state"]["status"].clone();
        let right: &[&str] = match moment {
            "poststart" => &["running"],
            "poststop" => &["stopped"],
            "startContainer" => &["created", "creating"],
            _ => &["creating", "created"],
        };
        check!(status.as_str().is_some_and(|status| right.contains(&status)), "status for {moment}: {status}");
    }
    Ok(())
}

fn args_are_argv(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    add(ctx, &mut bundle, "createRuntime", "a b", &["", "\"'$"]);
    ctx.create(&bundle)?;
    same!(entry(&bundle, "a b")?["args"], bundle.config["hooks"]["createRuntime"][0]["args"], "argv of the hook");
    Ok(())
}

fn args_may_be_missing(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.push("/hooks/createRuntime", json!({"path": "/usr/bin/true"}));
    ctx.create(&bundle)?.status_is("created")
}

fn env_is_that_of_the_hook(ctx: &Ctx) -> Result {
    let bundle = with_all(ctx)?;
    let outcome = ctx.create_verb(&bundle, &ctx.id)?.env("SECRET", "of the caller").go()?.ok()?;
    let mut container = ctx.created(&ctx.id, outcome)?;
    container.start()?;
    container.expect("ready")?;
    for moment in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        same!(entry(&bundle, moment)?["env"], json!(["HOOK=1", "PATH=/x"]), "environment of {moment}");
    }
    Ok(())
}

fn start_container_runs_in_the_container(ctx: &Ctx) -> Result {
    let bundle = with_all(ctx)?;
    ctx.start(&bundle)?;
    let root = entry(&bundle, "startContainer")?["root"].clone();
    let names = root.as_array().into_iter().flatten().filter(|name| *name != "hooks.log");
    same!(json!(names.collect::<Vec<_>>()), json!(ROOT), "the root directory of startContainer");
    Ok(())
}

/// The hook fails, and nothing is left but what poststop hooks did.
fn failing_ends_create(ctx: &Ctx, moment: &str) -> Result {
    let mut bundle = ctx.bundle()?;
    add(ctx, &mut bundle, moment, moment, &["fail"]);
    bundle.args(&["/probe", "do", "create /mark x"]);
    ctx.refuses(&bundle)?;
    same!(names(&bundle)?, [moment], "hooks that ran");
    check!(!bundle.rootfs("mark").exists(), "the process ran");
    Ok(())
}

fn a_failing_prestart_ends_create(ctx: &Ctx) -> Result {
    failing_ends_create(ctx, "prestart")
}

fn a_failing_create_runtime_ends_create(ctx: &Ctx) -> Result {
    failing_ends_create(ctx, "createRuntime")
}

fn a_failing_create_container_ends_create(ctx: &Ctx) -> Result {
    failing_ends_create(ctx, "createContainer")
}

fn a_failing_start_container_ends_the_container(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    add(ctx, &mut bundle, "startContainer", "startContainer", &["fail"]);
    bundle.args(&["/probe", "do", "create /mark x"]);
    let container = ctx.create(&bundle)?;
    // That the hook failed may come to light after start has returned.
    ctx.call(&["start", &ctx.id])?;
    container.wait()?;
    check!(!bundle.rootfs("mark").exists(), "the process ran");
    ctx.call(&["delete", "--force", &ctx.id])?.ok().map(drop)
}

fn a_failing_poststop_only_warns(ctx: &Ctx) -> Result {
    let before = World::now()?;
    let mut bundle = ctx.bundle()?;
    add(ctx, &mut bundle, "poststop", "first", &["fail"]);
    add(ctx, &mut bundle, "poststop", "second", &[]);
    whole_life(ctx, &bundle)?;
    same!(names(&bundle)?, ["first", "second"], "hooks that ran");
    ctx.nothing_left(&before)
}

fn a_failing_hook_stops_those_after_it(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    add(ctx, &mut bundle, "createRuntime", "first", &["fail"]);
    add(ctx, &mut bundle, "createRuntime", "second", &[]);
    add(ctx, &mut bundle, "createContainer", "third", &[]);
    ctx.refuses(&bundle)?;
    same!(names(&bundle)?, ["first"], "hooks that ran");
    Ok(())
}

fn a_hook_that_hangs_is_ended(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    add(ctx, &mut bundle, "createRuntime", "slow", &["hang"]);
    bundle.set("/hooks/createRuntime/0/timeout", json!(1));
    ctx.refuses(&bundle).map(drop)
}

fn a_missing_hook_ends_create(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.push("/hooks/createRuntime", json!({"path": "/no-such-hook", "args": ["hook"]}));
    ctx.refuses(&bundle).map(drop)
}

fn a_relative_path_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.push("/hooks/createRuntime", json!({"path": "bin/true", "args": ["true"]}));
    ctx.refuses(&bundle).map(drop)
}

fn the_error_names_the_hook(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    add(ctx, &mut bundle, "createRuntime", "bad", &["fail"]);
    ctx.refuses(&bundle)?.says(&["hook"]).map(drop)
}

fn poststop_runs_once(ctx: &Ctx) -> Result {
    let bundle = with_all(ctx)?;
    whole_life(ctx, &bundle)?;
    ctx.call(&["delete", "--force", &ctx.id])?.ok()?;
    same!(names(&bundle)?.iter().filter(|name| *name == "poststop").count(), 1, "runs of poststop");
    Ok(())
}

fn poststop_runs_on_forced_delete(ctx: &Ctx) -> Result {
    let bundle = with_all(ctx)?;
    ctx.start(&bundle)?;
    ctx.call(&["delete", "--force", &ctx.id])?.ok()?;
    entry(&bundle, "poststop").map(drop)
}

/// The hook asks for the process, by the pid that the suite knows.
fn poststop_sees_the_container_gone(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let file = ctx.dir.join("seen");
    let script = format!(
        "kill -0 $(cat {}) 2>/dev/null || echo gone > {}",
        ctx.dir.join(format!("{}.pid", ctx.id)).display(),
        file.display()
    );
    bundle.push(
        "/hooks/poststop",
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}),
    );
    let container = ctx.start(&bundle)?;
    container.stop()?;
    container.delete()?;
    same!(fs::read_to_string(file)?, "gone\n", "what poststop saw");
    Ok(())
}
