/*! Cases of `state` that only Linux can have. */

use crate::case::Result;
use crate::ctx::Ctx;
use crate::{check, group};

group! { "state":
    is_not_fooled_by_a_pid_that_is_used_again: "runtime.md#state: stopped",
    delete_spares_a_process_that_has_the_old_pid: "runtime.md#delete: resources not created by this container MUST NOT be deleted",
    kill_spares_a_process_that_has_the_old_pid: "runtime.md#kill: not created or running MUST generate an error",
}

/// The container's process has ended, and another one has got its pid.
fn with_impostor(ctx: &Ctx, then: impl FnOnce(&crate::ctx::Container) -> Result) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    container.stop()?;
    crate::system::fork_as(container.pid)?;
    let result = then(&container);
    let alive = crate::system::children()?.contains(&container.pid);
    if alive {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(container.pid), nix::sys::signal::Signal::SIGKILL)?;
    }
    crate::ctx::await_pid(container.pid)?;
    result?;
    check!(alive, "a stranger that has the old pid was killed");
    Ok(())
}

fn is_not_fooled_by_a_pid_that_is_used_again(ctx: &Ctx) -> Result {
    with_impostor(ctx, |container| container.status_is("stopped"))
}

fn delete_spares_a_process_that_has_the_old_pid(ctx: &Ctx) -> Result {
    with_impostor(ctx, |_| ctx.call(&["delete", "--force", &ctx.id])?.ok().map(drop))
}

/// Whether the call fails is another case's question.
fn kill_spares_a_process_that_has_the_old_pid(ctx: &Ctx) -> Result {
    with_impostor(ctx, |_| ctx.call(&["kill", &ctx.id, "KILL"]).map(drop))
}
