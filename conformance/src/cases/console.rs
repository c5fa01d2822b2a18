/*! Terminals of the container's process. */

use conformance::Report;
use serde_json::json;

use crate::bundle::Bundle;
use crate::case::Result;
use crate::ctx::{Ctx, parse};
use crate::runtime::{Outcome, Stream};
use crate::world::World;
use crate::{check, group, same};

group! { "console":
    arrives_over_the_socket: "runc CLI: create --console-socket sends one terminal with SCM_RIGHTS",
    is_stdio_of_the_process: "config.md#process: terminal",
    is_the_controlling_terminal: "config.md#process: terminal",
    has_the_size_of_the_config: "config.md#process: consoleSize",
    belongs_to_the_user: "runc CLI: a user who is not root can open the terminal",
    interrupts_the_process: "config.md#process: terminal",
    carries_input: "config.md#process: terminal",
    hangs_up_when_the_process_ends: "conmon: reads the terminal to its end",
    without_a_socket_is_refused: "runc CLI: create with terminal needs --console-socket",
    to_a_missing_socket_is_refused: "runc CLI: --console-socket",
    of_run_in_the_foreground: "runc CLI: run on a terminal",
}

/// `create` with a terminal, and the terminal.
fn create(ctx: &Ctx, bundle: &mut Bundle) -> Result<(Outcome, Stream)> {
    bundle.set("/process/terminal", json!(true));
    let console = ctx.console()?;
    let flags = ["--console-socket", &console.path.display().to_string()];
    let creating = ctx.create_with(bundle, &flags, &ctx.id)?.spawn()?;
    let terminal = console.receive()?;
    Ok((creating.finish()?.ok()?, terminal))
}

fn started(ctx: &Ctx, bundle: &mut Bundle) -> Result<Stream> {
    let (_, terminal) = create(ctx, bundle)?;
    ctx.call(&["start", &ctx.id])?.ok()?;
    Ok(terminal)
}

pub(super) fn report(ctx: &Ctx, bundle: &mut Bundle) -> Result<Report> {
    bundle.args(&["/probe", "report"]);
    parse(&started(ctx, bundle)?.line()?)
}

fn arrives_over_the_socket(ctx: &Ctx) -> Result {
    let (_, terminal) = create(ctx, &mut ctx.bundle()?)?;
    check!(nix::unistd::isatty(terminal.file())?, "what was received is no terminal");
    check!(crate::sys::is_outer_side(terminal.file()), "what was received is not the outer side");
    Ok(())
}

fn is_stdio_of_the_process(ctx: &Ctx) -> Result {
    let report = report(ctx, &mut ctx.bundle()?)?;
    same!(report.tty, [true; 3], "stdio are terminals");
    same!(report.fds.keys().copied().collect::<Vec<_>>(), [0, 1, 2], "descriptors: {:?}", report.fds);
    // A devpts(5) of its own begins with 0; a jail sees its terminals among those of the host.
    let inside = |name: &String| match cfg!(target_os = "linux") {
        true => ["/dev/pts/0", "/dev/console"].contains(&name.as_str()),
        false => name.starts_with("/dev/pts/"),
    };
    check!(report.fds.values().all(inside), "not terminals of the container: {:?}", report.fds);
    Ok(())
}

fn is_the_controlling_terminal(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "do", "open-write /dev/tty"]);
    let answers: Vec<conformance::Answer> = parse(&started(ctx, &mut bundle)?.line()?)?;
    crate::ctx::Tried::worked(&answers[0]).map(drop)
}

fn has_the_size_of_the_config(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/consoleSize", json!({"height": 17, "width": 71}));
    same!(report(ctx, &mut bundle)?.winsize, Some((17, 71)), "rows and columns");
    Ok(())
}

fn belongs_to_the_user(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    bundle.args(&["/probe", "do", "terminal"]);
    let answers: Vec<conformance::Answer> = parse(&started(ctx, &mut bundle)?.line()?)?;
    same!(crate::ctx::Tried::worked(&answers[0])?["uid"], json!(1000), "owner");
    Ok(())
}

fn interrupts_the_process(ctx: &Ctx) -> Result {
    let mut terminal = started(ctx, &mut ctx.bundle()?)?;
    same!(terminal.line()?, "ready", "the process says");
    terminal.send(b"\x03")?;
    let line = terminal.line()?;
    check!(line.ends_with("signal 2"), "^C should be SIGINT: {line:?}");
    Ok(())
}

fn carries_input(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "cat"]);
    let mut terminal = started(ctx, &mut bundle)?;
    terminal.send(b"typed\n")?;
    same!(terminal.line()?, "typed", "the echo");
    same!(terminal.line()?, "typed", "what the process has read");
    Ok(())
}

fn hangs_up_when_the_process_ends(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "echo", "bye"]);
    let mut terminal = started(ctx, &mut bundle)?;
    same!(terminal.line()?, "bye", "the process says");
    same!(terminal.line()?, "bye!", "the process says");
    check!(terminal.ends()?, "somebody holds the terminal open after the process has ended");
    Ok(())
}

fn without_a_socket_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/terminal", json!(true));
    ctx.refuses(&bundle).map(drop)
}

fn to_a_missing_socket_is_refused(ctx: &Ctx) -> Result {
    let before = World::now()?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/terminal", json!(true));
    ctx.create_with(&bundle, &["--console-socket", "/no-such-socket"], &ctx.id)?.go()?.fails()?;
    ctx.nothing_left(&before)
}

fn of_run_in_the_foreground(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/terminal", json!(true)).args(&["/probe", "report"]);
    let (outer, inner) = crate::sys::terminal()?;
    let mut outside = Stream::new(outer)?;
    let run = ctx.run_verb(&bundle)?.terminal(&inner)?.spawn()?;
    let report: Report = parse(&outside.line()?)?;
    run.finish()?.ok()?;
    same!(report.tty, [true; 3], "stdio are terminals");
    Ok(())
}
