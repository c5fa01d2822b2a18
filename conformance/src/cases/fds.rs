/*! Descriptors: none too many, and those that are asked for. */

use std::fs::{self, File};

use conformance::{Answer, Report};
use serde_json::json;

use crate::case::Result;
use crate::ctx::{Ctx, Tried, parse};
use crate::{check, group, same};

group! { "fds":
    only_the_standard_streams: "runtime-linux.md#file-descriptors: only stdin, stdout and stderr",
    none_of_the_callers: "runtime-linux.md#file-descriptors; CVE-2024-21626",
    none_of_the_callers_after_create: "runtime-linux.md#file-descriptors; CVE-2024-21626",
    preserve_fds_of_run: "runc CLI: --preserve-fds N passes 3..3+N",
    preserve_fds_of_create: "runc CLI: --preserve-fds N passes 3..3+N",
    socket_activation: "runtime-linux.md#file-descriptors, sd_listen_fds(3): LISTEN_FDS",
    no_runtime_process_holds_the_streams: "conmon: no process of the runtime may outlive create holding the pipes",
}

fn only_the_standard_streams(ctx: &Ctx) -> Result {
    let fds = ctx.report(&mut ctx.bundle()?)?.fds;
    same!(fds.keys().copied().collect::<Vec<_>>(), [0, 1, 2], "descriptors: {fds:?}");
    Ok(())
}

fn none_of_the_callers(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "report"]);
    let host = File::open("/")?;
    let run = ctx.run_verb(&bundle)?.fd(&host, 3)?.fd(&host, 7)?.fd(&host, 42)?;
    let fds = parse::<Report>(&run.go()?.ok()?.out)?.fds;
    same!(fds.keys().copied().collect::<Vec<_>>(), [0, 1, 2], "descriptors: {fds:?}");
    Ok(())
}

fn none_of_the_callers_after_create(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "report"]);
    let host = File::open("/")?;
    let outcome = ctx.create_verb(&bundle, &ctx.id)?.fd(&host, 3)?.fd(&host, 9)?.go()?.ok()?;
    let mut container = ctx.created(&ctx.id, outcome)?;
    ctx.verb(&["start", &ctx.id])?.fd(&host, 3)?.fd(&host, 8)?.go()?.ok()?;
    let fds = parse::<Report>(&container.out.line()?)?.fds;
    same!(fds.keys().copied().collect::<Vec<_>>(), [0, 1, 2], "descriptors: {fds:?}");
    Ok(())
}

fn given(ctx: &Ctx) -> Result<File> {
    fs::write(ctx.dir.join("given"), "given")?;
    Ok(File::open(ctx.dir.join("given"))?)
}

fn is_given(answers: &[Answer]) -> Result {
    same!(*answers[0].worked()?, json!("given"), "fd 3");
    answers[1].worked()?;
    answers[2].failed_with(&[libc::EBADF])
}

const READ: [&str; 5] = ["/probe", "do", "fd-read 3", "fd-read 4", "fd-read 5"];

fn preserve_fds_of_run(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&READ).write()?;
    let file = given(ctx)?;
    let run = ctx.verb(&["run", "--preserve-fds", "2", "--bundle"])?.arg(&bundle.dir).arg(&ctx.id);
    let outcome = run.fd(&file, 3)?.fd(&file, 4)?.fd(&file, 5)?.go()?.ok()?;
    is_given(&parse::<Vec<Answer>>(&outcome.out)?)
}

fn preserve_fds_of_create(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&READ);
    let file = given(ctx)?;
    let create = ctx.create_with(&bundle, &["--preserve-fds=2"], &ctx.id)?;
    let outcome = create.fd(&file, 3)?.fd(&file, 4)?.fd(&file, 5)?.go()?.ok()?;
    let mut container = ctx.created(&ctx.id, outcome)?;
    container.start()?;
    is_given(&parse::<Vec<Answer>>(&container.out.line()?)?)
}

fn socket_activation(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "do", "fd-read 3", "fd-read 4", "env LISTEN_FDS", "env LISTEN_PID", "getpid"]);
    let file = given(ctx)?;
    // LISTEN_PID is the pid of the runtime, which only the process that becomes it can know.
    let script = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    let (program, root) = (ctx.runtime.path.display().to_string(), ctx.root.display().to_string());
    let mut globals = vec!["-c", script, &program];
    globals.extend(ctx.runtime.args.iter().map(String::as_str));
    globals.extend(["--root", &root]);
    let run = ctx.run_verb(&bundle)?.program("/bin/sh".as_ref()).only_globals(&globals).fd(&file, 3)?.fd(&file, 4)?;
    let answers: Vec<Answer> = parse(&run.go()?.ok()?.out)?;
    same!(*answers[0].worked()?, json!("given"), "fd 3");
    answers[1].failed_with(&[libc::EBADF])?;
    same!(*answers[2].worked()?, json!("1"), "LISTEN_FDS");
    same!(*answers[3].worked()?, json!(answers[4].worked()?.to_string()), "LISTEN_PID");
    Ok(())
}

/// With the container's process gone, the end of the pipe is seen at once.
fn no_runtime_process_holds_the_streams(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/probe", "exit", "0"]);
    let mut container = ctx.create(&bundle)?;
    container.start()?;
    same!(container.wait()?, 0, "exit status");
    check!(container.out.ends()?, "somebody still holds the stdout that create was given");
    Ok(())
}
