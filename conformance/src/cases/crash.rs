/*! The runtime is killed in the middle of its work; afterwards `delete --force` must put the machine back.

A hook that hangs is where each case stops the runtime: the middle of create, of start and of delete are reached without
any waiting for a moment. */

use std::fs;

use conformance::kernel::command_line;
use serde_json::json;

use crate::bundle::Bundle;
use crate::case::{Fail, Result};
use crate::ctx::Ctx;
use crate::runtime::{Running, Stream, Verb};
use crate::world::World;
use crate::{check, group, same};

group! { "crash":
    during_create_runtime: "runtime.md#delete after a killed create: MUST delete the resources of the create step",
    during_create_container: "runtime.md#delete after a killed create: MUST delete the resources of the create step",
    during_poststart: "runtime.md#delete after a killed start",
    during_poststop: "runtime.md#delete after a killed delete",
    of_run_in_the_foreground: "runtime.md#delete after a killed run",
    an_id_is_free_after_a_crash: "runtime.md#create after a killed create and delete --force",
    state_after_a_crash_is_no_lie: "runtime.md#state: a container that was never made is not created or running",
    of_exec_leaves_the_container_alone: "runc CLI: exec",
    of_create_at_its_very_start: "runtime.md#delete after a killed create",
}

/// A hook at this moment that tells when it runs, and then never ends.
fn with_hanging_hook(ctx: &Ctx, moment: &str) -> Result<(Bundle, Stream)> {
    let mut bundle = ctx.bundle()?;
    let fifo = ctx.dir.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    let reader = fs::OpenOptions::new().read(true).write(true).open(&fifo)?;
    let args = json!(["probe", "hook", fifo, moment, "hang"]);
    bundle.push(&format!("/hooks/{moment}"), json!({"path": ctx.probe.path, "args": args}));
    Ok((bundle, Stream::new(reader.into())?))
}

/// Kills the call while its hook runs.
fn crash(verb: Verb, hook: &mut Stream) -> Result {
    let running: Running = verb.spawn()?;
    hook.line()?;
    running.crash()
}

/// What is left is taken away by `delete --force`, except for the hook itself, which is no part of the container.
fn is_cleared(ctx: &Ctx, before: &World) -> Result {
    end_hooks(ctx)?;
    ctx.call(&["delete", "--force", &ctx.id])?.ok()?;
    ctx.nothing_left(before)
}

/// The hooks that hang, which the suite has inherited from the killed runtime.
fn end_hooks(ctx: &Ctx) -> Result {
    let mark = format!("hook\0{}", ctx.dir.join("fifo").display());
    for pid in crate::system::children()? {
        if command_line(pid).contains(&mark) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
            crate::ctx::await_pid(pid)?;
        }
    }
    Ok(())
}

fn during_create_runtime(ctx: &Ctx) -> Result {
    let before = World::now()?;
    let (bundle, mut hook) = with_hanging_hook(ctx, "createRuntime")?;
    crash(ctx.create_verb(&bundle, &ctx.id)?, &mut hook)?;
    is_cleared(ctx, &before)
}

fn during_create_container(ctx: &Ctx) -> Result {
    let before = World::now()?;
    let (bundle, mut hook) = with_hanging_hook(ctx, "createContainer")?;
    crash(ctx.create_verb(&bundle, &ctx.id)?, &mut hook)?;
    is_cleared(ctx, &before)
}

fn during_poststart(ctx: &Ctx) -> Result {
    let before = World::now()?;
    let (bundle, mut hook) = with_hanging_hook(ctx, "poststart")?;
    let creating = ctx.create_verb(&bundle, &ctx.id)?.spawn()?;
    if creating.or_readable(&hook)? {
        creating.crash()?;
        end_hooks(ctx)?;
        return Err(Fail::Failed("create ran the poststart hook".into()));
    }
    let _created = creating.finish()?.ok()?;
    crash(ctx.verb(&["start", &ctx.id])?, &mut hook)?;
    is_cleared(ctx, &before)
}

/// The hook runs again in the second delete, so there it must end: the fifo is gone, and it fails.
fn during_poststop(ctx: &Ctx) -> Result {
    let before = World::now()?;
    let (bundle, mut hook) = with_hanging_hook(ctx, "poststop")?;
    let container = ctx.start(&bundle)?;
    container.stop()?;
    crash(ctx.verb(&["delete", &ctx.id])?, &mut hook)?;
    end_hooks(ctx)?;
    fs::remove_file(ctx.dir.join("fifo"))?;
    fs::create_dir(ctx.dir.join("fifo"))?;
    ctx.call(&["delete", "--force", &ctx.id])?.ok()?;
    ctx.nothing_left(&before)
}

fn of_run_in_the_foreground(ctx: &Ctx) -> Result {
    let before = World::now()?;
    let mut running = ctx.run_verb(&ctx.bundle()?)?.spawn()?;
    crate::ctx::expect_line(&mut running, "ready")?;
    running.crash()?;
    is_cleared(ctx, &before)
}

fn an_id_is_free_after_a_crash(ctx: &Ctx) -> Result {
    let (bundle, mut hook) = with_hanging_hook(ctx, "createRuntime")?;
    crash(ctx.create_verb(&bundle, &ctx.id)?, &mut hook)?;
    end_hooks(ctx)?;
    ctx.call(&["delete", "--force", &ctx.id])?.ok()?;
    ctx.start(&ctx.bundle_at("second", &ctx.id)?)?.status_is("running")
}

fn state_after_a_crash_is_no_lie(ctx: &Ctx) -> Result {
    let (bundle, mut hook) = with_hanging_hook(ctx, "createRuntime")?;
    crash(ctx.create_verb(&bundle, &ctx.id)?, &mut hook)?;
    end_hooks(ctx)?;
    let state = ctx.call(&["state", &ctx.id])?;
    if state.code() == 0 {
        let status = state.json()?["status"].clone();
        check!(
            ["stopped", "creating"].contains(&status.as_str().unwrap_or_default()),
            "status of half a container: {status}"
        );
    }
    ctx.call(&["start", &ctx.id])?.fails().map(drop)
}

fn of_exec_leaves_the_container_alone(ctx: &Ctx) -> Result {
    let mut container = ctx.start(&ctx.bundle()?)?;
    let mut exec = container.exec(&[], &["/probe", "wait"])?.spawn()?;
    crate::ctx::expect_line(&mut exec, "ready")?;
    exec.crash()?;
    container.status_is("running")?;
    container.kill("USR1")?;
    container.expect_signal(libc::SIGUSR1)?;
    same!(container.exec_report(&[])?.uid, 0, "uid of the next exec");
    Ok(())
}

/// Killed after it was given its input and before it could read much of it: again and again, a little later each time.
fn of_create_at_its_very_start(ctx: &Ctx) -> Result {
    let before = World::now()?;
    let bundle = ctx.bundle()?;
    for moment in 1..=12 {
        let running = ctx.create_verb(&bundle, &ctx.id)?.spawn()?;
        let pause = std::time::Duration::from_millis(moment * 3);
        crate::reaper::pass(std::time::Instant::now() + pause)?;
        running.crash()?;
        ctx.call(&["delete", "--force", &ctx.id])?.ok()?;
        ctx.nothing_left(&before)?;
    }
    Ok(())
}
