/*! `exec`: a second process in a container. */

use std::fs;

use conformance::kernel::command_line;
use serde_json::{Value, json};

use crate::case::Result;
use crate::ctx::{Container, Ctx, Tried, await_pid};
use crate::system::ROOT;
use crate::{check, group, same};

group! { "exec":
    hands_the_exit_status_on: "runc CLI: exec ends with the status of the process",
    counts_a_signal_from_128: "runc CLI: exec ends with 128 + signal",
    keeps_the_streams_apart: "runc CLI: stdio of the runtime is that of the process",
    works_in_a_created_container: "runc CLI: runc and crun exec in a created container",
    in_a_stopped_container_is_refused: "runc CLI: cannot exec in a stopped container",
    of_a_missing_program_fails: "runc CLI: exec setup failure is 255 (runc) or 1 (crun), and the container lives on",
    sees_the_root_of_the_container: "runc CLI: exec",
    has_the_limits_of_the_container: "runc CLI: exec has the config's rlimits",
    has_the_environment_of_the_container: "runc CLI: exec adds --env to the config's env",
    cwd_flag: "runc CLI: exec --cwd",
    cwd_is_that_of_the_config: "runc CLI: exec",
    user_flag: "runc CLI: exec --user",
    user_of_the_config_is_the_default: "runc CLI: exec",
    umask_of_the_config: "config.md#user: umask",
    user_flag_takes_no_garbage: "CVE-2026-30892: exec -u",
    user_flag_takes_no_number_out_of_range: "CVE-2026-30892: exec -u; 4294967295 is no user",
    flags_of_the_command_are_not_ours: "runc CLI: flags end at the id",
    process_file: "conmon: exec --process FILE",
    a_broken_process_file_is_refused: "runc CLI: exec --process",
    detached_with_pid_file: "conmon, containerd: exec --detach --pid-file",
    detached_process_is_left_to_the_caller: "conmon, containerd: the subreaper reaps the process",
    detached_failure_is_told: "conmon: exec --detach of a missing program fails",
    terminal_over_a_socket: "conmon: exec --tty --console-socket --detach",
    terminal_of_ones_own: "runc CLI: exec --tty",
    additional_groups_flag: "runc CLI: exec --additional-gids",
    no_new_privs_flag: "runc CLI: exec --no-new-privs",
    inherits_no_descriptors: "runtime-linux.md#file-descriptors",
    preserves_descriptors: "runc CLI: exec --preserve-fds",
    has_nothing_blocked_or_ignored: "runc CLI: signals are as at start of a program",
    many_at_once: "runc CLI: exec",
    leaves_the_config_of_the_container_alone: "runtime.md#state",
    does_not_read_the_config_again: "runtime.md#lifecycle 2: updates to config.json MUST NOT affect the container",
}

pub(super) fn running(ctx: &Ctx) -> Result<Container<'_>> {
    ctx.start(&ctx.bundle()?)
}

fn hands_the_exit_status_on(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    for code in [0, 7, 254] {
        container.exec(&[], &["/probe", "exit", &code.to_string()])?.go()?.code_is(code)?;
    }
    Ok(())
}

fn counts_a_signal_from_128(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    let mut exec = container.exec(&[], &["/probe", "linger"])?.spawn()?;
    crate::ctx::expect_line(&mut exec, "ready")?;
    let pids = ctx.call(&["ps", "--format", "json", &ctx.id])?.ok()?.json()?;
    let all = pids.as_array().into_iter().flatten().filter_map(Value::as_i64);
    let pid = all.filter_map(|pid| i32::try_from(pid).ok()).find(|&pid| pid != container.pid).unwrap_or_default();
    check!(pid > 1, "ps does not list the second process: {pids}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    exec.finish()?.code_is(137).map(drop)
}

fn keeps_the_streams_apart(ctx: &Ctx) -> Result {
    let outcome = running(ctx)?.exec(&[], &["/probe", "echo", "one two"])?.go()?.ok()?;
    same!(outcome.out, "one two\n", "stdout");
    same!(outcome.err, "one two!\n", "stderr");
    Ok(())
}

fn works_in_a_created_container(ctx: &Ctx) -> Result {
    let mut container = ctx.create(&ctx.bundle()?)?;
    container.exec(&[], &["/probe", "exit", "7"])?.go()?.code_is(7)?;
    container.status_is("created")?;
    container.start()?;
    container.expect("ready")
}

fn in_a_stopped_container_is_refused(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    container.stop()?;
    let outcome = container.exec(&[], &["/probe", "report"])?.go()?.fails()?;
    check!(outcome.out.is_empty(), "it ran: {}", outcome.out);
    container.status_is("stopped")
}

fn of_a_missing_program_fails(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    let outcome = container.exec(&[], &["/no-such-program"])?.go()?.fails()?;
    check!([1, 126, 127, 255].contains(&outcome.code()), "status {}", outcome.code());
    check!(!outcome.err.trim().is_empty(), "nothing on stderr");
    container.status_is("running")
}

fn sees_the_root_of_the_container(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    let answers = container.exec_ask(&[], &["ls /", "pids"])?;
    same!(*answers[0].worked()?, json!(ROOT), "the root directory");
    same!(answers[1].worked()?.as_array().map(Vec::len), Some(2), "how many processes it sees: {answers:?}");
    Ok(())
}

fn has_the_limits_of_the_container(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]));
    let report = ctx.start(&bundle)?.exec_report(&[])?;
    same!(report.rlimits["RLIMIT_NOFILE"], (100, 200), "RLIMIT_NOFILE");
    Ok(())
}

fn has_the_environment_of_the_container(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/env", json!(["PATH=/bin", "A=config", "B=config"]));
    let report = ctx.start(&bundle)?.exec_report(&["--env", "B=flag", "--env", "C=with space=x"])?;
    for (name, value) in [("PATH", "/bin"), ("A", "config"), ("B", "flag"), ("C", "with space=x")] {
        let last = report.env.iter().rev().find_map(|e| e.strip_prefix(name)?.strip_prefix('='));
        same!(last, Some(value), "{name} in {:?}", report.env);
    }
    Ok(())
}

fn cwd_flag(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    fs::create_dir(bundle.rootfs("there"))?;
    same!(ctx.start(&bundle)?.exec_report(&["--cwd", "/there"])?.cwd, "/there", "cwd");
    Ok(())
}

fn cwd_is_that_of_the_config(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    fs::create_dir(bundle.rootfs("there"))?;
    bundle.set("/process/cwd", json!("/there"));
    same!(ctx.start(&bundle)?.exec_report(&[])?.cwd, "/there", "cwd");
    Ok(())
}

fn user_flag(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    let report = container.exec_report(&["--user", "1000:1001"])?;
    same!((report.uid, report.gid), (1000, 1001), "uid and gid");
    same!(report.caps.get("CapEff").copied().unwrap_or_default(), 0, "CapEff of a user who is not root");
    let report = container.exec_report(&["-u", "1000"])?;
    same!(report.uid, 1000, "uid");
    Ok(())
}

fn user_of_the_config_is_the_default(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 7]}));
    let report = ctx.start(&bundle)?.exec_report(&[])?;
    same!((report.uid, report.gid), (1000, 1001), "uid and gid");
    check!([5, 7].iter().all(|gid| report.groups.contains(gid)), "groups: {:?}", report.groups);
    Ok(())
}

fn umask_of_the_config(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/user/umask", json!(0o27));
    same!(ctx.start(&bundle)?.exec_report(&[])?.umask, 0o27, "umask");
    Ok(())
}

fn user_flag_takes_no_garbage(ctx: &Ctx) -> Result {
    users_are_refused(ctx, &["no-such-user", "1000x", "1000:x", "1000 ", "0x10"])
}

fn user_flag_takes_no_number_out_of_range(ctx: &Ctx) -> Result {
    users_are_refused(ctx, &["4294967296", "-1", "1000:4294967296", "4294967295", "18446744073709551616"])
}

fn users_are_refused(ctx: &Ctx, users: &[&str]) -> Result {
    let container = running(ctx)?;
    for user in users {
        let outcome = container.exec(&[&format!("--user={user}")], &["/probe", "report"])?.go()?;
        if outcome.code() == 0 {
            let report: conformance::Report = crate::ctx::parse(&outcome.out)?;
            check!(false, "--user {user:?} was taken, and became {}:{}", report.uid, report.gid);
        }
        check!(outcome.out.is_empty(), "--user {user} started the process");
    }
    Ok(())
}

fn flags_of_the_command_are_not_ours(ctx: &Ctx) -> Result {
    let words = ["/probe", "report", "--cwd", "/none", "-d", "--", "-u"];
    let outcome = running(ctx)?.exec(&[], &words)?.go()?.ok()?;
    let report: conformance::Report = crate::ctx::parse(&outcome.out)?;
    same!(report.args, words, "argv");
    Ok(())
}

fn process_file_with(ctx: &Ctx, process: &Value) -> Result<String> {
    let file = ctx.dir.join("process.json");
    fs::write(&file, process.to_string())?;
    Ok(file.display().to_string())
}

pub(super) fn by_process_file(container: &Container, ctx: &Ctx, process: &Value) -> Result<conformance::Report> {
    let file = process_file_with(ctx, process)?;
    crate::ctx::parse(&container.exec(&["--process", &file], &[])?.go()?.ok()?.out)
}

fn process_file(ctx: &Ctx) -> Result {
    let bundle = ctx.bundle()?;
    fs::create_dir(bundle.rootfs("there"))?;
    let container = ctx.start(&bundle)?;
    let process = json!({
        "args": ["/probe", "report", "a b"], "env": ["PATH=/", "X=y"], "cwd": "/there",
        "user": {"uid": 5, "gid": 6, "additionalGids": [8]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}], "oomScoreAdj": 700,
    });
    let report = by_process_file(&container, ctx, &process)?;
    same!(report.args, ["/probe", "report", "a b"], "args");
    check!(report.env.contains(&"X=y".into()), "env: {:?}", report.env);
    same!(report.cwd, "/there", "cwd");
    same!((report.uid, report.gid), (5, 6), "user");
    check!(report.groups.contains(&8), "groups: {:?}", report.groups);
    same!(report.rlimits["RLIMIT_NOFILE"], (50, 60), "RLIMIT_NOFILE");
    Ok(())
}

fn a_broken_process_file_is_refused(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    for process in
        [json!([]), json!({"cwd": "/", "args": []}), json!({"cwd": "relative", "args": ["/probe", "report"]})]
    {
        let file = process_file_with(ctx, &process)?;
        let outcome = container.exec(&["--process", &file], &[])?.go()?.fails()?;
        check!(outcome.out.is_empty(), "{process} started the process");
    }
    container.exec(&["--process", "/no-such-file"], &[])?.go()?.fails().map(drop)
}

/// `exec --detach --pid-file`: its outcome and the pid.
fn detach(ctx: &Ctx, container: &Container, words: &[&str]) -> Result<(crate::runtime::Outcome, i32)> {
    let file = ctx.dir.join("exec.pid");
    let flags = ["--detach", "--pid-file", &file.display().to_string()];
    let outcome = container.exec(&flags, words)?.go()?.ok()?;
    let text = fs::read_to_string(file)?;
    let pid = text.parse();
    check!(pid.is_ok(), "pid file should be a bare number: {text:?}");
    Ok((outcome, pid?))
}

fn detached_with_pid_file(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    let (mut outcome, pid) = detach(ctx, &container, &["/probe", "wait"])?;
    same!(outcome.stream.line()?, "ready", "the process says");
    same!(command_line(pid), "/probe\0wait\0", "what has the pid");
    check!(pid != container.pid, "the pid is that of the first process");
    Ok(())
}

fn detached_process_is_left_to_the_caller(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    let (_outcome, pid) = detach(ctx, &container, &["/probe", "exit", "9"])?;
    same!(await_pid(pid)?, 9, "exit status");
    container.status_is("running")
}

fn detached_failure_is_told(ctx: &Ctx) -> Result {
    running(ctx)?.exec(&["--detach"], &["/no-such-program"])?.go()?.fails().map(drop)
}

fn terminal_over_a_socket(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    let console = ctx.console()?;
    let socket = console.path.display().to_string();
    let flags = ["--tty", "--detach", "--console-socket", &socket];
    let outcome = container.exec(&flags, &["/probe", "report"])?.spawn()?;
    let mut terminal = console.receive()?;
    outcome.finish()?.ok()?;
    let report: conformance::Report = crate::ctx::parse(&terminal.line()?)?;
    same!(report.tty, [true; 3], "stdio are terminals");
    check!(report.fds[&0].starts_with("/dev/pts/"), "fd 0 is {}", report.fds[&0]);
    same!(report.sid, report.pid, "it leads its session");
    Ok(())
}

/// The runtime's own stdio is a terminal, which it copies to and from the container's.
fn terminal_of_ones_own(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    let (outer, inner) = crate::sys::terminal()?;
    let mut outside = crate::runtime::Stream::new(outer)?;
    let exec = container.exec(&["--tty"], &["/probe", "do", "terminals"])?.terminal(&inner)?.spawn()?;
    let answers: Vec<conformance::Answer> = crate::ctx::parse(&outside.line()?)?;
    exec.finish()?.ok()?;
    same!(*answers[0].worked()?, json!([true, true, true]), "stdio are terminals");
    Ok(())
}

fn additional_groups_flag(ctx: &Ctx) -> Result {
    ctx.needs_flag("exec", "--additional-gids")?;
    let report = running(ctx)?.exec_report(&["--user", "5:6", "--additional-gids", "70", "--additional-gids", "71"])?;
    check!([70, 71].iter().all(|gid| report.groups.contains(gid)), "groups: {:?}", report.groups);
    Ok(())
}

fn no_new_privs_flag(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/noNewPrivileges", json!(false));
    let container = ctx.start(&bundle)?;
    same!(container.exec_report(&[])?.no_new_privs, 0, "no_new_privs without the flag");
    same!(container.exec_report(&["--no-new-privs"])?.no_new_privs, 1, "no_new_privs with the flag");
    Ok(())
}

fn inherits_no_descriptors(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    let secret = fs::File::open(&ctx.dir)?;
    let outcome = container.exec(&[], &["/probe", "report"])?.fd(&secret, 5)?.go()?.ok()?;
    let report: conformance::Report = crate::ctx::parse(&outcome.out)?;
    same!(report.fds.keys().copied().collect::<Vec<_>>(), [0, 1, 2], "descriptors: {:?}", report.fds);
    Ok(())
}

fn preserves_descriptors(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    let file = ctx.dir.join("given");
    fs::write(&file, "given")?;
    let given = fs::File::open(&file)?;
    let exec = container.exec(&["--preserve-fds", "1"], &["/probe", "do", "fd-read 3", "fd-read 4"])?;
    let outcome = exec.fd(&given, 3)?.fd(&given, 4)?.go()?.ok()?;
    let answers: Vec<conformance::Answer> = crate::ctx::parse(&outcome.out)?;
    same!(*answers[0].worked()?, json!("given"), "fd 3");
    answers[1].failed_with(&[libc::EBADF])
}

fn has_nothing_blocked_or_ignored(ctx: &Ctx) -> Result {
    let report = running(ctx)?.exec_report(&[])?;
    same!((report.blocked, crate::world::ignored_by_runtime(report.ignored)), (0, 0), "blocked and ignored signals");
    Ok(())
}

fn many_at_once(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    let start = |n: i32| container.exec(&[], &["/probe", "exit", &n.to_string()])?.spawn();
    let all = (1..=6).map(start).collect::<Result<Vec<_>>>()?;
    for (exec, code) in all.into_iter().zip(1..) {
        exec.finish()?.code_is(code)?;
    }
    container.status_is("running")
}

fn leaves_the_config_of_the_container_alone(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    let before = container.state()?;
    container.exec_report(&["--env", "X=y", "--user", "7"])?;
    same!(container.state()?, before, "state after exec");
    check!(!container.exec_report(&[])?.env.contains(&"X=y".into()), "the environment of one exec is that of the next");
    Ok(())
}

fn does_not_read_the_config_again(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    let container = ctx.start(&bundle)?;
    bundle.set("/process/user/uid", json!(77)).set("/process/env", json!(["EVIL=1"])).write()?;
    let report = container.exec_report(&[])?;
    same!(report.uid, 0, "uid");
    check!(!report.env.contains(&"EVIL=1".into()), "the changed environment was taken");
    Ok(())
}
