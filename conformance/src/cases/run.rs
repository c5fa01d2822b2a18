/*! `run`: exit status, standard streams, signals. */

use std::fs::{self, File};
use std::io::{self, Write};

use nix::sys::signal::Signal;

use crate::case::Result;
use crate::ctx::{Ctx, expect_line};
use crate::world::World;
use crate::{check, group, same};

group! { "run":
    hands_the_exit_status_on: "runc CLI: run ends with the status of the process",
    counts_a_signal_from_128: "runc CLI: run ends with 128 + signal",
    takes_the_container_away: "runc CLI: run deletes the container",
    keeps_the_streams_apart: "runc CLI: stdio of the runtime is that of the process",
    hands_stdin_on: "runc CLI: stdio of the runtime is that of the process",
    does_not_lose_output: "runc CLI: stdio of the runtime is that of the process",
    does_not_wait_for_stdin: "runc CLI: run ends when the process ends",
    forwards_signals: "runc CLI: run hands SIGTERM on",
    ends_if_the_process_ends_at_once: "runc CLI: run ends when the process ends; youki hangs",
    detached_returns_at_once: "runc CLI: run --detach",
    detached_leaves_the_process_to_the_caller: "conmon, containerd: the subreaper reaps the process",
    a_missing_program_leaves_nothing: "runtime.md#create: a new container MUST NOT be created",
    a_directory_is_no_program: "docker: \"is a directory\" or \"permission denied\" is 126",
    the_program_is_found_in_the_path_of_the_container: "config.md#process: args, env",
    a_relative_program_is_found_from_cwd: "config.md#process: args has execvp semantics",
    a_script_is_run: "config.md#process: args has execvp semantics",
    keeps_orphans_no_longer_than_the_container: "runc CLI: run ends when the process ends",
}

fn hands_the_exit_status_on(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    for code in [0, 1, 7, 255] {
        bundle.args(&["/probe", "exit", &code.to_string()]);
        ctx.run(&bundle)?.code_is(code)?;
    }
    Ok(())
}

fn counts_a_signal_from_128(ctx: &Ctx) -> Result {
    let run = ctx.run_verb(&ctx.bundle()?)?;
    let mut running = run.spawn()?;
    expect_line(&mut running, "ready")?;
    ctx.call(&["kill", &ctx.id, "KILL"])?.ok()?;
    running.finish()?.code_is(137).map(drop)
}

fn takes_the_container_away(ctx: &Ctx) -> Result {
    let before = World::now()?;
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "exit", "0"]);
    ctx.run(&bundle)?.ok()?;
    ctx.nothing_left(&before)
}

fn keeps_the_streams_apart(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "echo", "one"]);
    let outcome = ctx.run(&bundle)?.ok()?;
    same!(outcome.out, "one\n", "stdout");
    same!(outcome.err, "one!\n", "stderr");
    Ok(())
}

fn hands_stdin_on(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "cat"]);
    let input = ctx.dir.join("input");
    fs::write(&input, "some\0bytes\n")?;
    let outcome = ctx.run_verb(&bundle)?.stdin(File::open(input)?).go()?.ok()?;
    same!(outcome.out, "some\0bytes\n", "stdout");
    Ok(())
}

fn does_not_lose_output(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "flood", "1000000"]);
    same!(ctx.run(&bundle)?.ok()?.out.len(), 1_000_000, "bytes of stdout");
    Ok(())
}

fn does_not_wait_for_stdin(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "exit", "0"]);
    let (stdin, mut open_end) = io::pipe()?;
    ctx.run_verb(&bundle)?.stdin(stdin).go()?.ok()?;
    check!(open_end.write_all(b"x").is_err(), "somebody still holds the other end of stdin");
    Ok(())
}

fn forwards_signals(ctx: &Ctx) -> Result {
    let mut running = ctx.run_verb(&ctx.bundle()?)?.spawn()?;
    expect_line(&mut running, "ready")?;
    running.signal(Signal::SIGTERM)?;
    let outcome = running.finish()?.ok()?;
    check!(outcome.out.contains("signal 15"), "SIGTERM did not reach the process: {}", outcome.out);
    Ok(())
}

fn ends_if_the_process_ends_at_once(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "exit", "0"]);
    for _ in 0..10 {
        ctx.run(&bundle)?.ok()?;
    }
    Ok(())
}

fn detached(ctx: &Ctx) -> Result<crate::ctx::Container<'_>> {
    let bundle = ctx.bundle()?;
    bundle.write()?;
    let verb = ctx.verb(&["run", "-d", "--bundle"])?.arg(&bundle.dir).arg("--pid-file");
    let outcome = verb.arg(ctx.dir.join(format!("{}.pid", ctx.id))).arg(&ctx.id).go()?.ok()?;
    let mut container = ctx.created(&ctx.id, outcome)?;
    container.expect("ready")?;
    Ok(container)
}

fn detached_returns_at_once(ctx: &Ctx) -> Result {
    detached(ctx)?.status_is("running")
}

fn detached_leaves_the_process_to_the_caller(ctx: &Ctx) -> Result {
    let container = detached(ctx)?;
    container.kill("TERM")?;
    same!(container.wait()?, 0, "exit status");
    container.status_is("stopped")
}

fn a_missing_program_leaves_nothing(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/no-such-program"]);
    ctx.will_not_run(&bundle).map(drop)
}

fn a_directory_is_no_program(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/dev"]);
    let texts = ["permission denied", "is a directory", "operation not permitted"];
    ctx.will_not_run(&bundle)?.says(&texts).map(drop)
}

fn the_program_is_found_in_the_path_of_the_container(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    fs::create_dir_all(bundle.rootfs("opt/bin"))?;
    fs::hard_link(&ctx.probe.path, bundle.rootfs("opt/bin/tool"))?;
    bundle.set("/process/env", serde_json::json!(["PATH=/none:/opt/bin"])).args(&["tool", "exit", "5"]);
    ctx.run(&bundle)?.code_is(5).map(drop)
}

fn a_relative_program_is_found_from_cwd(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    fs::create_dir_all(bundle.rootfs("opt/bin"))?;
    fs::hard_link(&ctx.probe.path, bundle.rootfs("opt/bin/tool"))?;
    bundle.set("/process/cwd", serde_json::json!("/opt")).args(&["./bin/tool", "exit", "5"]);
    ctx.run(&bundle)?.code_is(5).map(drop)
}

fn a_script_is_run(ctx: &Ctx) -> Result {
    use std::os::unix::fs::PermissionsExt;
    let mut bundle = ctx.bundle()?;
    let script = bundle.rootfs("script");
    fs::write(&script, "#!/probe exit\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    bundle.args(&["/script"]);
    // The kernel makes `/probe exit /script` of it, and the probe answers 98 to a status that is no number.
    ctx.run(&bundle)?.code_is(98).map(drop)
}

fn keeps_orphans_no_longer_than_the_container(ctx: &Ctx) -> Result {
    let before = World::now()?;
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "wait-family"]);
    let mut running = ctx.run_verb(&bundle)?.spawn()?;
    check!(running.out.line()?.starts_with("child "), "the process has a child");
    expect_line(&mut running, "ready")?;
    running.signal(Signal::SIGTERM)?;
    running.finish()?.ok()?;
    ctx.nothing_left(&before)
}
