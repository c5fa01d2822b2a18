/*! pause and resume. */

use std::time::{Duration, Instant};

use crate::case::Result;
use crate::ctx::{Container, Ctx};
use crate::system::is_paused;
use crate::{check, group, reaper, same};

group! { "pause":
    stops_every_process: "runc CLI: pause",
    is_a_status: "runc CLI: state of a paused container is `paused`",
    resume_continues: "runc CLI: resume",
    delete_force_of_a_paused_container: "runc CLI: delete --force",
    delete_of_a_paused_container_is_refused: "runtime.md#delete: not stopped MUST generate an error",
    exec_in_a_paused_container_is_refused: "runc CLI: cannot exec in a paused container",
    pause_of_a_stopped_container_is_refused: "runc CLI: container not running; crun marks it paused",
    resume_of_a_running_container_is_refused: "runc CLI: container not paused",
    kill_of_a_paused_container_ends_it_after_resume: "runtime.md#kill: MUST send the specified signal",
    start_of_a_paused_container_is_refused: "runtime.md#start: not created MUST generate an error",
}

fn paused(ctx: &Ctx) -> Result<Container<'_>> {
    let container = ctx.start(&ctx.bundle()?)?;
    ctx.call(&["pause", &ctx.id])?.ok()?;
    Ok(container)
}

/// A process that gets SIGTERM ends; one that is frozen does not, and the kernel says why.
fn stops_every_process(ctx: &Ctx) -> Result {
    let container = paused(ctx)?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(container.pid), nix::sys::signal::Signal::SIGTERM)?;
    reaper::pass(Instant::now() + Duration::from_millis(50))?;
    check!(container.alive()?, "a paused process took a signal");
    check!(is_paused(&ctx.id, container.pid)?, "the kernel knows of nothing that is paused");
    ctx.call(&["resume", &ctx.id])?.ok()?;
    same!(container.wait()?, 0, "exit status after SIGTERM");
    Ok(())
}

fn is_a_status(ctx: &Ctx) -> Result {
    let container = paused(ctx)?;
    container.status_is("paused")?;
    ctx.call(&["resume", &ctx.id])?.ok()?;
    container.status_is("running")
}

fn resume_continues(ctx: &Ctx) -> Result {
    let mut container = paused(ctx)?;
    ctx.call(&["resume", &ctx.id])?.ok()?;
    container.kill("USR1")?;
    container.expect_signal(libc::SIGUSR1)
}

fn delete_force_of_a_paused_container(ctx: &Ctx) -> Result {
    let before = crate::world::World::now()?;
    paused(ctx)?;
    ctx.call(&["delete", "--force", &ctx.id])?.ok()?;
    ctx.nothing_left(&before)
}

fn delete_of_a_paused_container_is_refused(ctx: &Ctx) -> Result {
    let container = paused(ctx)?;
    ctx.call(&["delete", &ctx.id])?.fails()?;
    container.status_is("paused")
}

fn exec_in_a_paused_container_is_refused(ctx: &Ctx) -> Result {
    let container = paused(ctx)?;
    let outcome = container.exec(&[], &["/probe", "exit", "0"])?.go()?.fails()?;
    check!(outcome.out.is_empty(), "the process ran");
    Ok(())
}

fn pause_of_a_stopped_container_is_refused(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    container.stop()?;
    ctx.call(&["pause", &ctx.id])?.fails()?;
    container.status_is("stopped")?;
    container.delete()
}

fn resume_of_a_running_container_is_refused(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    ctx.call(&["resume", &ctx.id])?.fails()?;
    container.status_is("running")
}

fn kill_of_a_paused_container_ends_it_after_resume(ctx: &Ctx) -> Result {
    let container = paused(ctx)?;
    container.kill("KILL")?;
    // It may have ended already: a runtime may thaw what it kills, and cgroup2 kills the frozen.
    ctx.call(&["resume", &ctx.id])?;
    same!(container.wait()?, 137, "exit status");
    container.status_is("stopped")
}

fn start_of_a_paused_container_is_refused(ctx: &Ctx) -> Result {
    let container = paused(ctx)?;
    ctx.call(&["start", &ctx.id])?.fails()?;
    container.status_is("paused")
}
