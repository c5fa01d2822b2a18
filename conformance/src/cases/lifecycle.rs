/*! create, start, delete in every order, with right and wrong ids. */

use std::fs;

use serde_json::json;

use crate::case::Result;
use crate::ctx::Ctx;
use crate::system::traces;
use crate::world::World;
use crate::{check, group, same};

group! { "lifecycle":
    create_does_not_run_the_process: "runtime.md#create: process.args MUST NOT be applied until start",
    create_reports_created: "runtime.md#state: created",
    start_runs_the_process: "runtime.md#start",
    exit_makes_it_stopped: "runtime.md#state: stopped",
    config_is_read_at_create: "runtime.md#lifecycle 2: updates to config.json after this step MUST NOT affect the container",
    start_twice_is_refused: "runtime.md#start: not created MUST generate an error and have no effect",
    start_of_a_stopped_container_is_refused: "runtime.md#start: not created MUST generate an error",
    start_after_init_was_killed_is_refused: "runtime.md#start: not created MUST generate an error",
    delete_takes_everything_away: "runtime.md#delete: MUST delete the resources of the create step",
    delete_of_a_running_container_is_refused: "runtime.md#delete: not stopped MUST have no effect and generate an error",
    delete_of_a_created_container_is_whole_or_nothing: "runtime.md#delete; runc and crun take a created container away",
    delete_force_of_a_running_container: "runc CLI: delete --force kills first",
    delete_force_of_a_created_container: "runc CLI: delete --force kills first",
    delete_twice_is_refused: "runtime.md#delete: of a container that does not exist",
    delete_force_of_a_missing_container_succeeds: "runc CLI: delete --force",
    delete_leaves_the_bundle_alone: "runtime.md#delete: resources not created by this container MUST NOT be deleted",
    delete_without_pid_namespace_takes_all_processes: "runtime.md#delete: resources of the container",
    missing_containers_are_refused: "runtime.md#operations: a container that does not exist MUST generate an error",
    an_id_is_unique: "runtime.md#create: an id that is not unique MUST generate an error",
    an_id_is_unique_until_delete: "runtime.md#create: an id that is not unique MUST generate an error",
    an_id_can_be_used_again: "runtime.md#delete: its ID MAY be used by a subsequent container",
    two_creates_at_once_make_one_container: "runtime.md#create: an id that is not unique MUST generate an error",
    two_containers_do_not_mix: "runtime.md#scope-of-a-container",
    ids_that_are_paths_are_refused: "runc CLI: invalid container ID format",
    ids_with_odd_characters_are_refused: "runc CLI: invalid container ID format",
    ids_may_have_all_usual_characters: "runc CLI: [A-Za-z0-9_+.-]",
    a_missing_bundle_is_refused: "runtime.md#create: MUST generate an error and a new container MUST NOT be created",
    a_missing_config_is_refused: "bundle.md: config.json MUST exist",
    a_broken_config_is_refused: "config.md: config.json in JSON format",
    a_config_of_wrong_types_is_refused: "config.md#valid-values",
    a_config_without_args_is_refused: "config.md#process: args",
    unknown_members_are_ignored: "config.md#extensibility: MUST ignore unknown properties",
    a_missing_rootfs_is_refused: "config.md#root: a directory MUST exist at the path",
    the_bundle_is_the_working_directory_by_default: "runc CLI: --bundle",
    a_relative_bundle_is_found: "runc CLI: --bundle",
    a_bundle_below_a_symlink_is_found: "runc CLI: --bundle",
    a_root_flag_is_a_world_of_its_own: "runc CLI: --root",
}

fn create_does_not_run_the_process(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "do", "create /mark x"]);
    let container = ctx.create(&bundle)?;
    check!(container.alive()?, "nothing waits for start");
    container.status_is("created")?;
    check!(!bundle.rootfs("mark").exists(), "the process ran before start");
    container.start()?;
    same!(container.wait()?, 0, "exit status");
    check!(bundle.rootfs("mark").exists(), "the process did not run");
    Ok(())
}

fn create_reports_created(ctx: &Ctx) -> Result {
    ctx.create(&ctx.bundle()?)?.status_is("created")
}

fn start_runs_the_process(ctx: &Ctx) -> Result {
    ctx.start(&ctx.bundle()?)?.status_is("running")
}

fn exit_makes_it_stopped(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "exit", "3"]);
    let container = ctx.create(&bundle)?;
    container.start()?;
    same!(container.wait()?, 3, "exit status");
    container.status_is("stopped")
}

fn config_is_read_at_create(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "exit", "3"]);
    let container = ctx.create(&bundle)?;
    bundle.args(&["/probe", "exit", "4"]).write()?;
    container.start()?;
    same!(container.wait()?, 3, "exit status by the config of create");
    fs::remove_file(bundle.dir.join("config.json"))?;
    container.delete()
}

fn start_twice_is_refused(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    ctx.call(&["start", &ctx.id])?.fails()?;
    container.status_is("running")?;
    check!(container.alive()?, "the second start ended the process");
    Ok(())
}

fn start_of_a_stopped_container_is_refused(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    container.stop()?;
    ctx.call(&["start", &ctx.id])?.fails()?;
    container.status_is("stopped")
}

fn start_after_init_was_killed_is_refused(ctx: &Ctx) -> Result {
    let container = ctx.create(&ctx.bundle()?)?;
    container.stop()?;
    ctx.call(&["start", &ctx.id])?.fails()?;
    container.status_is("stopped")
}

fn delete_takes_everything_away(ctx: &Ctx) -> Result {
    let before = World::now()?;
    let container = ctx.start(&ctx.bundle()?)?;
    check!(!traces(&ctx.id)?.is_empty(), "a running container should have a control group or a jail");
    container.stop()?;
    container.delete()?;
    ctx.nothing_left(&before)
}

fn delete_of_a_running_container_is_refused(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    ctx.call(&["delete", &ctx.id])?.fails()?;
    container.status_is("running")?;
    check!(container.alive()?, "the refused delete ended the process");
    Ok(())
}

/// The specification wants an error; runc and crun have always deleted it. Half a deletion is wrong by both.
fn delete_of_a_created_container_is_whole_or_nothing(ctx: &Ctx) -> Result {
    let before = World::now()?;
    let container = ctx.create(&ctx.bundle()?)?;
    if ctx.call(&["delete", &ctx.id])?.code() == 0 {
        return ctx.nothing_left(&before);
    }
    container.status_is("created")?;
    container.start()
}

fn delete_force_of_a_running_container(ctx: &Ctx) -> Result {
    let before = World::now()?;
    let container = ctx.start(&ctx.bundle()?)?;
    ctx.call(&["delete", "--force", &ctx.id])?.ok()?;
    same!(container.wait()?, 137, "how the process ended");
    ctx.nothing_left(&before)
}

fn delete_force_of_a_created_container(ctx: &Ctx) -> Result {
    let before = World::now()?;
    ctx.create(&ctx.bundle()?)?;
    ctx.call(&["delete", "-f", &ctx.id])?.ok()?;
    ctx.nothing_left(&before)
}

fn delete_twice_is_refused(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    container.stop()?;
    container.delete()?;
    ctx.call(&["delete", &ctx.id])?.fails().map(drop)
}

fn delete_force_of_a_missing_container_succeeds(ctx: &Ctx) -> Result {
    ctx.call(&["delete", "--force", &ctx.id])?.ok().map(drop)
}

fn delete_leaves_the_bundle_alone(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let data = ctx.dir.join("data");
    fs::create_dir(&data)?;
    fs::write(data.join("keep"), "kept")?;
    bundle.mount("bind", &data, "/data", &["rbind"]);
    ctx.start(&bundle)?;
    ctx.call(&["delete", "--force", &ctx.id])?.ok()?;
    same!(fs::read_to_string(data.join("keep"))?, "kept", "a file in a bind mount");
    check!(bundle.rootfs("probe").exists() && bundle.dir.join("config.json").exists(), "delete took the bundle");
    Ok(())
}

fn delete_without_pid_namespace_takes_all_processes(ctx: &Ctx) -> Result {
    let before = World::now()?;
    let mut bundle = ctx.bundle()?;
    bundle.without_namespace("pid").args(&["/probe", "wait-family"]);
    let mut container = ctx.create(&bundle)?;
    container.start()?;
    check!(container.out.line()?.starts_with("child "), "the process has a child");
    container.expect("ready")?;
    ctx.call(&["delete", "--force", &ctx.id])?.ok()?;
    ctx.nothing_left(&before)
}

fn missing_containers_are_refused(ctx: &Ctx) -> Result {
    let id = ctx.id.as_str();
    let calls: [&[&str]; 8] = [
        &["state", id],
        &["start", id],
        &["kill", id, "KILL"],
        &["delete", id],
        &["pause", id],
        &["resume", id],
        &["ps", id],
        &["exec", id, "/probe", "report"],
    ];
    for call in calls {
        let outcome = ctx.call(call)?.fails()?;
        check!(outcome.out.is_empty(), "{call:?} prints {}", outcome.out);
    }
    Ok(())
}

fn an_id_is_unique(ctx: &Ctx) -> Result {
    let mut container = ctx.create(&ctx.bundle()?)?;
    let second = ctx.bundle_at("second", &ctx.id)?;
    ctx.create_verb(&second, &ctx.id)?.go()?.fails()?;
    container.status_is("created")?;
    container.start()?;
    container.expect("ready")?;
    ctx.create_verb(&second, &ctx.id)?.go()?.fails()?;
    container.status_is("running")
}

fn an_id_is_unique_until_delete(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    container.stop()?;
    ctx.create_verb(&ctx.bundle_at("second", &ctx.id)?, &ctx.id)?.go()?.fails()?;
    container.status_is("stopped")?;
    container.delete()
}

fn an_id_can_be_used_again(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    for _ in 0..2 {
        let container = ctx.start(&bundle)?;
        container.stop()?;
        container.delete()?;
    }
    Ok(())
}

fn two_creates_at_once_make_one_container(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    let second = ctx.bundle_at("second", &ctx.id)?;
    second.write()?;
    let one = ctx.create_verb(&bundle, &ctx.id)?.spawn()?;
    let two = ctx.verb(&["create", "--bundle"])?.arg(&second.dir).arg(&ctx.id).spawn()?;
    let (one, two) = (one.finish()?, two.finish()?);
    check!((one.code() == 0) != (two.code() == 0), "exactly one create should win: {} and {}", one.code(), two.code());
    let (mut winner, loser) = if one.code() == 0 { (one, two) } else { (two, one) };
    loser.fails()?;
    ctx.call(&["start", &ctx.id])?.ok()?;
    same!(winner.stream.line()?, "ready", "the winner's process says");
    Ok(())
}

fn two_containers_do_not_mix(ctx: &Ctx) -> Result {
    let id = ctx.other("b");
    let one = ctx.start(&ctx.bundle()?)?;
    let mut two = ctx.create_as(&ctx.bundle_at("second", &id)?, &id)?;
    one.stop()?;
    one.delete()?;
    two.status_is("created")?;
    two.start()?;
    two.expect("ready")?;
    two.status_is("running")
}

fn ids_that_are_paths_are_refused(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    let (up, slash) = (format!("../{}", ctx.id), format!("{}/x", ctx.id));
    for id in ["", ".", "..", "/", &up, &slash] {
        bundle.write()?;
        ctx.verb(&["create", "--bundle"])?.arg(&bundle.dir).arg(id).go()?.fails()?;
        check!(!ctx.root.join(id).join("state.json").exists(), "there is state for {id:?}");
    }
    check!(!ctx.dir.join(&ctx.id).exists(), "something was made outside of --root");
    Ok(())
}

fn ids_with_odd_characters_are_refused(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    bundle.write()?;
    for odd in [" ", "\n", "*", "ü", ":", "\\", "$"] {
        let id = format!("{}{odd}", ctx.id);
        let outcome = ctx.verb(&["create", "--bundle"])?.arg(&bundle.dir).arg(&id).go()?;
        if outcome.code() == 0 {
            ctx.call(&["delete", "--force", &id])?;
        }
        outcome.fails()?;
    }
    Ok(())
}

fn ids_may_have_all_usual_characters(ctx: &Ctx) -> Result {
    let id = ctx.other("A-z_0.9+x");
    let container = ctx.create_as(&ctx.bundle()?, &id)?;
    same!(container.state()?["id"], json!(id), "id in state");
    Ok(())
}

fn a_missing_bundle_is_refused(ctx: &Ctx) -> Result {
    let before = World::now()?;
    ctx.verb(&["create", "--bundle"])?.arg(ctx.dir.join("none")).arg(&ctx.id).go()?.fails()?;
    ctx.nothing_left(&before)
}

fn a_missing_config_is_refused(ctx: &Ctx) -> Result {
    let before = World::now()?;
    let bundle = ctx.bundle()?;
    ctx.verb(&["create", "--bundle"])?.arg(&bundle.dir).arg(&ctx.id).go()?.fails()?;
    ctx.nothing_left(&before)
}

fn a_broken_config_is_refused(ctx: &Ctx) -> Result {
    let before = World::now()?;
    let bundle = ctx.bundle()?;
    for text in ["", "{", "[]", "{\"ociVersion\": \"1.0.2\",}"] {
        fs::write(bundle.dir.join("config.json"), text)?;
        ctx.verb(&["create", "--bundle"])?.arg(&bundle.dir).arg(&ctx.id).go()?.fails()?;
    }
    ctx.nothing_left(&before)
}

fn a_config_of_wrong_types_is_refused(ctx: &Ctx) -> Result {
    let before = World::now()?;
    for (pointer, value) in
        [("/process/args", json!("sh")), ("/mounts", json!({"a": 1})), ("/process/user/uid", json!(-1))]
    {
        let name = pointer.replace('/', "-");
        let mut bundle = ctx.bundle_at(&name, &ctx.id)?;
        bundle.set(pointer, value).write()?;
        ctx.verb(&["create", "--bundle"])?.arg(&bundle.dir).arg(&ctx.id).go()?.fails()?;
    }
    ctx.nothing_left(&before)
}

fn a_config_without_args_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&[]);
    ctx.will_not_run(&bundle).map(drop)
}

fn unknown_members_are_ignored(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/org.example.unknown", json!({"a": [1, null]})).set("/process/unknown", json!(true));
    bundle.set("/linux/unknown", json!("x")).args(&["/probe", "exit", "0"]);
    ctx.run(&bundle)?.ok().map(drop)
}

fn a_missing_rootfs_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/root/path", json!("no-such-directory"));
    ctx.refuses(&bundle)?;
    check!(!bundle.dir.join("no-such-directory").exists(), "the missing root was made");
    Ok(())
}

fn the_bundle_is_the_working_directory_by_default(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "exit", "5"]).write()?;
    ctx.verb(&["run", &ctx.id])?.cwd(&bundle.dir).go()?.code_is(5).map(drop)
}

fn a_relative_bundle_is_found(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    bundle.write()?;
    ctx.verb(&["create", "--bundle=bundle", &ctx.id])?.cwd(&ctx.dir).go()?.ok()?;
    let state = ctx.call(&["state", &ctx.id])?.ok()?.json()?;
    same!(state["bundle"], json!(bundle.dir), "bundle in state");
    Ok(())
}

fn a_bundle_below_a_symlink_is_found(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "exit", "5"]).write()?;
    std::os::unix::fs::symlink("bundle", ctx.dir.join("link"))?;
    ctx.verb(&["run", "-b"])?.arg(ctx.dir.join("link")).arg(&ctx.id).go()?.code_is(5).map(drop)
}

fn a_root_flag_is_a_world_of_its_own(ctx: &Ctx) -> Result {
    let container = ctx.create(&ctx.bundle()?)?;
    let elsewhere = ctx.dir.join("elsewhere").display().to_string();
    ctx.verb(&["state", &ctx.id])?.only_globals(&["--root", &elsewhere]).go()?.fails()?;
    let here = format!("--root={}", ctx.root.display());
    ctx.verb(&["state", &ctx.id])?.only_globals(&[&here]).go()?.ok()?;
    container.status_is("created")
}
