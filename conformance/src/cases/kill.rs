/*! `kill`: by name and number, to one process and to all. */

use std::time::Instant;

use crate::case::Result;
use crate::ctx::Ctx;
use crate::{check, group, same};

group! { "kill":
    by_name: "runc CLI: kill ID NAME",
    by_name_with_prefix: "runc CLI: kill ID SIGNAME",
    by_name_in_any_case: "runc CLI: kill ID name",
    by_number: "containerd: kill ID NUM",
    by_real_time_number: "runtime.md#kill: MUST send the specified signal",
    is_term_by_default: "runc CLI: kill ID; buildah gives no signal",
    cannot_be_ignored_if_kill: "runtime.md#kill: MUST send the specified signal",
    of_a_created_container: "runtime.md#kill: created or running",
    of_a_stopped_container_is_refused: "runtime.md#kill: neither created nor running MUST generate an error",
    with_an_unknown_signal_is_refused: "runtime.md#kill",
    goes_to_the_first_process_only: "runtime.md#kill: to the container process",
    all_reaches_every_process: "runc CLI: kill --all",
    all_of_a_stopped_container_does_not_fail: "containerd: kill --all ID 9 after the end of init",
    keeps_the_order_of_signals: "runtime.md#kill: MUST send the specified signal",
}

fn reaches(ctx: &Ctx, signal: &str, number: i32) -> Result {
    let mut container = ctx.start(&ctx.bundle()?)?;
    container.kill(signal)?;
    container.expect_signal(number)
}

fn by_name(ctx: &Ctx) -> Result {
    reaches(ctx, "USR1", libc::SIGUSR1)
}

fn by_name_with_prefix(ctx: &Ctx) -> Result {
    reaches(ctx, "SIGUSR2", libc::SIGUSR2)
}

fn by_name_in_any_case(ctx: &Ctx) -> Result {
    reaches(ctx, "sighup", libc::SIGHUP)
}

fn by_number(ctx: &Ctx) -> Result {
    reaches(ctx, &libc::SIGUSR2.to_string(), libc::SIGUSR2)
}

/// The probe leaves real-time signals at their default, which ends it.
fn by_real_time_number(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.without_namespace("pid").args(&["/probe", "linger"]);
    let container = ctx.start(&bundle)?;
    // libc has no SIGRTMIN of FreeBSD, which is 65 (sys/signal.h).
    #[cfg(target_os = "freebsd")]
    let signal = 65 + 1;
    #[cfg(target_os = "linux")]
    let signal = libc::SIGRTMIN() + 1;
    container.kill(&signal.to_string())?;
    same!(container.wait()?, 128 + signal, "exit status");
    container.status_is("stopped")
}

fn is_term_by_default(ctx: &Ctx) -> Result {
    let mut container = ctx.start(&ctx.bundle()?)?;
    ctx.call(&["kill", &ctx.id])?.ok()?;
    container.expect_signal(libc::SIGTERM)?;
    same!(container.wait()?, 0, "exit status");
    Ok(())
}

fn cannot_be_ignored_if_kill(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    container.kill("KILL")?;
    same!(container.wait()?, 137, "exit status");
    container.status_is("stopped")
}

fn of_a_created_container(ctx: &Ctx) -> Result {
    let container = ctx.create(&ctx.bundle()?)?;
    container.kill("KILL")?;
    container.wait()?;
    container.status_is("stopped")?;
    container.delete()
}

fn of_a_stopped_container_is_refused(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    container.stop()?;
    ctx.call(&["kill", &ctx.id, "KILL"])?.fails()?;
    container.status_is("stopped")
}

fn with_an_unknown_signal_is_refused(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    for signal in ["NOSUCH", "SIG", "-1", "1000", "9x", "TERM "] {
        ctx.call(&["kill", &ctx.id, signal])?.fails()?;
    }
    check!(container.alive()?, "a signal that does not exist ended the process");
    Ok(())
}

/// A container without a pid namespace, whose process has a child; the child's pid.
fn family(ctx: &Ctx) -> Result<(crate::ctx::Container<'_>, i32)> {
    let mut bundle = ctx.bundle()?;
    bundle.without_namespace("pid").args(&["/probe", "wait-family"]);
    let mut container = ctx.create(&bundle)?;
    container.start()?;
    let line = container.out.line()?;
    let child = line.strip_prefix("child ").and_then(|pid| pid.parse().ok()).unwrap_or_default();
    check!(child > 0, "the process should name its child: {line}");
    container.expect("ready")?;
    Ok((container, child))
}

fn goes_to_the_first_process_only(ctx: &Ctx) -> Result {
    let (mut container, child) = family(ctx)?;
    container.kill("USR1")?;
    container.expect_signal(libc::SIGUSR1)?;
    check!(!crate::world::ended(child, Instant::now())?, "the signal went to a child too");
    Ok(())
}

fn all_reaches_every_process(ctx: &Ctx) -> Result {
    let (container, child) = family(ctx)?;
    ctx.call(&["kill", "--all", &ctx.id, "KILL"])?.ok()?;
    same!(container.wait()?, 137, "how the first process ended");
    same!(crate::ctx::await_pid(child)?, 137, "how its child ended");
    Ok(())
}

fn all_of_a_stopped_container_does_not_fail(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    container.stop()?;
    let outcome = ctx.call(&["kill", "--all", &ctx.id, "9"])?;
    if outcome.code() != 0 {
        outcome.fails()?.says(&["container not running", "no such process"])?;
    }
    container.delete()
}

fn keeps_the_order_of_signals(ctx: &Ctx) -> Result {
    let mut container = ctx.start(&ctx.bundle()?)?;
    let signals = [("USR2", libc::SIGUSR2), ("HUP", libc::SIGHUP), ("USR1", libc::SIGUSR1), ("TERM", libc::SIGTERM)];
    for (name, number) in signals {
        container.kill(name)?;
        container.expect_signal(number)?;
    }
    same!(container.wait()?, 0, "exit status");
    Ok(())
}
