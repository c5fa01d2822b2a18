//! The verbs of orchestrators: what a container uses, how it ends, and other limits while it runs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::sys;
use crate::util::{DEADLINE, World, readable, wait_for_end};

fn none(_: &mut Value) {}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// A container whose program ends with what is written to the fifo `NAME-code`.
fn ends_as_told(world: &World, name: &str) -> String {
    let (begun, id) = (world.fifo(&format!("{name}-begun")), world.id(name));
    drop(world.fifo(&format!("{name}-code")));
    let script = format!("echo begun > /shared/{name}-begun; read code < /shared/{name}-code; exit $code");
    let bundle = world.bundle(&script, none);
    world.ok(&["run", "-d", "-b", &bundle, &id]);
    assert_eq!(begun.line(), "begun");
    id
}

#[test]
fn wait_sees_the_end_and_it_stays_on_record() {
    let Some(world) = World::new("wait") else { return };
    let id = ends_as_told(&world, "a");
    let stderr = world.fails(1, &["wait", "--timeout", "0", &id]);
    assert!(stderr.contains("container still running"), "{stderr}");
    let mut waiters: Vec<_> =
        (0..3).map(|_| world.command(&["wait", &id]).stdout(Stdio::piped()).spawn().unwrap()).collect();
    // They watch when they have a pidfd.
    let watches = |pid: u32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link.to_string_lossy().contains("[pidfd]")))
    };
    let end = Instant::now() + DEADLINE;
    while !waiters.iter().all(|child| watches(child.id())) {
        assert!(Instant::now() < end, "nobody watches");
        std::thread::yield_now();
    }
    fs::write(world.shared("a-code"), "7\n").unwrap();
    for child in &mut waiters {
        wait_for_end(child.id() as i32);
        assert!(child.wait().unwrap().success());
        let exit = json_of(&std::io::read_to_string(child.stdout.take().unwrap()).unwrap());
        assert_eq!((&exit["exitCode"], &exit["signal"]), (&json!(7), &Value::Null), "{exit}");
        let time = |name: &str| humantime::parse_rfc3339(exit[name].as_str().unwrap()).unwrap();
        assert!(time("created") <= time("started") && time("started") <= time("ended"), "{exit}");
    }
    let exit = json_of(&world.ok(&["wait", &id]));
    assert_eq!(exit["exitCode"], 7);
    assert_eq!(json_of(&world.ok(&["stop", &id])), exit, "what has ended needs no stop");
    assert_eq!(json_of(&world.ok(&["show", &id]))["exit"], exit);
    world.ok(&["delete", &id]);
    world.fails(1, &["wait", &id]);
}

#[test]
fn an_end_that_nobody_saw_has_no_code() {
    let Some(world) = World::new("unseen") else { return };
    let id = ends_as_told(&world, "a");
    let pid = world.pid(&id);
    fs::write(world.shared("a-code"), "7\n").unwrap();
    // Until whoever adopted it has asked for its status.
    let end = Instant::now() + DEADLINE;
    while fs::exists(format!("/proc/{pid}")).unwrap() {
        assert!(Instant::now() < end, "nobody reaps process {pid}");
        std::thread::yield_now();
    }
    let exit = json_of(&world.ok(&["wait", &id]));
    assert_eq!([&exit["exitCode"], &exit["signal"], &exit["ended"]], [&Value::Null; 3], "{exit}");
    world.ok(&["delete", &id]);
}

#[test]
fn run_is_the_parent_and_knows() {
    let Some(world) = World::new("run-knows") else { return };
    let id = world.id("a");
    let bundle = world.bundle("exit 4", none);
    assert_eq!(world.run(&["run", "--keep", "-b", &bundle, &id]).code, Some(4));
    let exit = json_of(&world.ok(&["wait", &id]));
    assert_eq!((&exit["exitCode"], exit["ended"].is_string()), (&json!(4), true), "{exit}");
    world.ok(&["delete", &id]);
    // A parent that does not ask: the process stays as a zombie, whose status can be read.
    let begun = world.fifo("begun");
    let bundle = world.bundle("echo begun > /shared/begun; exec sleep 100000", none);
    let mut child = world.command(&["run", "-b", &bundle, &id]).spawn().unwrap();
    assert_eq!(begun.line(), "begun");
    world.fails(1, &["start", &id]); // waits until `run` has let go of the container
    kill(Pid::from_raw(child.id() as i32), Signal::SIGSTOP).unwrap();
    let pid = world.pid(&id);
    world.ok(&["kill", &id, "KILL"]);
    wait_for_end(pid);
    let exit = json_of(&world.ok(&["wait", &id]));
    assert_eq!((&exit["exitCode"], &exit["signal"]), (&json!(137), &json!(9)), "{exit}");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGCONT).unwrap();
    wait_for_end(child.id() as i32);
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

/// Starts a container with that script, which says when it has begun.
fn begun(world: &World, name: &str, script: &str, edit: impl FnOnce(&mut Value)) -> String {
    let (fifo, id) = (world.fifo(&format!("{name}-begun")), world.id(name));
    let bundle = world.bundle(script, edit);
    world.ok(&["create", "-b", &bundle, &id]);
    world.ok(&["start", &id]);
    assert_eq!(fifo.line(), "begun");
    id
}

#[test]
fn stop_asks_first_and_kills_at_last() {
    let Some(world) = World::new("stop") else { return };
    let before = world.snapshot();
    let script = |name: &str, trap: &str| {
        format!("trap '{trap}' TERM USR1; echo begun > /shared/{name}-begun; while :; do sleep 0.05; done")
    };
    // A signal that is heard; it is the image's where it has one.
    let id = begun(&world, "term", &script("term", "exit 3"), none);
    let exit = json_of(&world.ok(&["stop", "--timeout", "80", &id]));
    assert_eq!(exit["exitCode"], 3, "{exit}");
    world.ok(&["delete", &id]);
    let image = "trap 'exit 4' USR1; trap '' TERM; echo begun > /shared/image-begun; while :; do sleep 0.05; done";
    let id = begun(&world, "image", image, |config| {
        config["annotations"] = json!({"org.opencontainers.image.stopSignal": "SIGUSR1"});
    });
    assert_eq!(json_of(&world.ok(&["stop", "-t", "80", &id]))["exitCode"], 4);
    world.ok(&["delete", &id]);
    // One that is not.
    let id = begun(&world, "deaf", &script("deaf", ""), none);
    let (start, exit) = (Instant::now(), json_of(&world.ok(&["stop", "--timeout", "1", &id])));
    assert_eq!((&exit["exitCode"], &exit["signal"]), (&json!(137), &json!(9)), "{exit}");
    assert!(start.elapsed() >= Duration::from_secs(1));
    world.ok(&["delete", &id]);
    // One that cannot hear: paused, or not started.
    let id = begun(&world, "paused", &script("paused", "exit 3"), none);
    world.ok(&["pause", &id]);
    assert_eq!(json_of(&world.ok(&["stop", &id]))["signal"], 9);
    world.ok(&["delete", &id]);
    let bundle = world.bundle("exit 0", none);
    world.ok(&["create", "-b", &bundle, &id]);
    let exit = json_of(&world.ok(&["stop", &id]));
    assert_eq!((&exit["signal"], &exit["started"]), (&json!(9), &Value::Null), "{exit}");
    world.ok(&["delete", &id]);
    assert_eq!(world.snapshot(), before);
}

#[test]
fn stop_runs_the_pots_command() {
    let Some(world) = World::new("stop-command") else { return };
    world.base("base");
    let pot = |name: &str, command: &str, timeout: u64| {
        let script = format!(
            "trap 'exit 5' TERM; echo begun > /shared/{name}-begun; while ! test -e /tmp/stop; do sleep 0.05; done; exit 6"
        );
        begun(&world, name, &script, |config| {
            config["pot"] = json!({"base": {"release": "base"},
                "stop": {"command": ["/bin/sh", "-c", command], "timeout": timeout}});
            config.as_object_mut().unwrap().remove("root");
        })
    };
    // It ends the pot; it fails, so a signal follows; it takes too long.
    for (name, command, timeout, code) in [
        ("ends", "touch /tmp/stop; while :; do sleep 1; done", 80, 6),
        ("fails", "exit 1", 80, 5),
        ("hangs", "exec sleep 100000", 1, 137),
    ] {
        let id = pot(name, command, timeout);
        let exit = json_of(&world.ok(&["stop", &id]));
        assert_eq!(exit["exitCode"], code, "{name}: {exit}");
        world.ok(&["delete", &id]);
    }
}

#[test]
fn show_tells_all_that_is_known() {
    let Some(world) = World::new("show") else { return };
    let id = world.running("a", |config| {
        config["annotations"] = json!({"org.bsdpot.pot": "{\"network\": {\"type\": \"inherit\"}}", "other": "x"});
    });
    let all = json_of(&world.ok(&["show", &id, "--json"]));
    let pid = world.pid(&id);
    assert_eq!((&all["status"], &all["pid"], &all["id"]), (&json!("running"), &json!(pid), &json!(id)), "{all}");
    assert_eq!(all["processes"], json!([pid]));
    assert_eq!(all["group"], json!({"cgroup": world.group(&id)}));
    assert_eq!(all["pot"], json!({"network": {"type": "inherit"}}));
    assert_eq!(all["exit"], Value::Null);
    assert!(all["stats"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{all}");
    assert!(humantime::parse_rfc3339(all["started"].as_str().unwrap()).is_ok(), "{all}");
}

#[test]
fn events_tell_what_is_used_until_the_end() {
    let Some(world) = World::new("events") else { return };
    let id = ends_as_told(&world, "a");
    let once = world.ok(&["events", "--stats", &id]);
    let stat = fs::read_to_string(world.group(&id).join("cpu.stat")).unwrap();
    let usage: u64 = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().parse().unwrap();
    let event = json_of(&once);
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(id)));
    let told = event["data"]["cpu"]["usage"]["total"].as_u64().unwrap();
    assert!(told > 0 && told <= usage * 1000, "{event}, {stat}");
    let mut child = world.command(&["events", "--interval", "20ms", &id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        assert_eq!(json_of(&lines.next().unwrap().unwrap())["type"], "stats");
    }
    fs::write(world.shared("a-code"), "0\n").unwrap();
    wait_for_end(child.id() as i32);
    assert!(child.wait().unwrap().success());
    let stderr = world.fails(1, &["events", "--stats", &id]);
    assert!(stderr.contains("container not running"), "{stderr}");
    assert_eq!(world.run(&["events", "--interval", "0s", &id]).code, Some(2));
}

#[test]
fn update_changes_the_limits_that_the_host_has() {
    let Some(world) = World::new("update") else { return };
    let id = world.running("a", none);
    let controllers = fs::read_to_string(world.cgroup2.join("cgroup.controllers")).unwrap();
    for (flags, controller, file, value) in [
        (&["--memory", "64m"][..], "memory", "memory.max", "67108864"),
        (&["--pids-limit", "20"], "pids", "pids.max", "20"),
        (&["--cpu-quota", "50000", "--cpu-period", "100000"], "cpu", "cpu.max", "50000 100000"),
    ] {
        let args: Vec<&str> = ["update"].iter().chain(flags).copied().chain([id.as_str()]).collect();
        if controllers.split_whitespace().any(|name| name == controller) {
            world.ok(&args);
            assert_eq!(fs::read_to_string(world.group(&id).join(file)).unwrap().trim(), value);
        } else {
            let stderr = world.fails(1, &args);
            assert!(stderr.contains(&format!("needs the cgroup v2 controller {controller}")), "{stderr}");
        }
    }
    // No limit is what a group has where nothing limits.
    world.ok(&["update", "--memory", "-1", "--pids-limit", "-1", &id]);
    let stderr = world.fails(1, &["update", "--cpu-rt-period", "5", "--blkio-weight", "100", &id]);
    assert!(stderr.contains("/linux/resources/cpu/realtimePeriod: cgroup v2 cannot do this"), "{stderr}");
    assert_eq!(world.run(&["update", "--memory", "lots", &id]).code, Some(2));
    let pid = world.pid(&id);
    world.ok(&["kill", &id, "KILL"]);
    wait_for_end(pid);
    let stderr = world.fails(1, &["update", "--memory", "-1", &id]);
    assert!(stderr.contains("container not running"), "{stderr}");
}

#[test]
fn update_takes_resources_by_file_and_by_stdin_and_all_or_none() {
    let Some(world) = World::new("update-file") else { return };
    let controllers = fs::read_to_string(world.cgroup2.join("cgroup.controllers")).unwrap();
    if !controllers.split_whitespace().any(|name| name == "hugetlb") {
        return println!("skipped: update-file: no controller hugetlb");
    }
    let id = world.running("a", none);
    let path = world.dir.join("resources.json");
    let limit = |bytes: u64| json!({"hugepageLimits": [{"pageSize": "2MB", "limit": bytes}]}).to_string();
    let now = || fs::read_to_string(world.group(&id).join("hugetlb.2MB.max")).unwrap();
    fs::write(&path, limit(4 << 20)).unwrap();
    world.ok(&["update", "--resources", path.to_str().unwrap(), &id]);
    assert_eq!(now().trim(), (4 << 20).to_string());
    fs::write(&path, limit(8 << 20)).unwrap();
    let mut command = world.command(&["update", "-r", "-", &id]);
    command.stdin(fs::File::open(&path).unwrap());
    assert_eq!(world.call(command).code, Some(0));
    assert_eq!(now().trim(), (8 << 20).to_string());
    // The second is refused by the kernel: the first is taken back.
    let both = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 2 << 20}], "unified": {"cgroup.freeze": "x"}});
    fs::write(&path, both.to_string()).unwrap();
    let stderr = world.fails(1, &["update", "--resources", path.to_str().unwrap(), &id]);
    assert!(stderr.contains("set cgroup.freeze of cgroup") && !stderr.contains("left: "), "{stderr}");
    assert_eq!(now().trim(), (8 << 20).to_string());
    fs::write(&path, "{").unwrap();
    world.fails(1, &["update", "--resources", path.to_str().unwrap(), &id]);
}

#[test]
fn exec_runs_in_a_group_below_the_containers() {
    let Some(world) = World::new("exec-cgroup") else { return };
    let id = world.running("a", none);
    fs::create_dir(world.group(&id).join("below")).unwrap();
    let text = world.ok(&["exec", "--cgroup", "below", &id, "cat", "/proc/self/cgroup"]);
    assert!(text.lines().any(|line| line == "0::/below"), "{text}");
    for path in ["..", "below/../..", "/..", "nothing"] {
        world.fails(255, &["exec", "--cgroup", path, &id, "true"]);
    }
    world.ok(&["delete", "--force", &id]);
}

#[test]
fn a_descriptor_of_the_process_is_sent() {
    let Some(world) = World::new("pidfd") else { return };
    let path = world.dir.join("pidfd.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let (bundle, id) = (world.bundle("exec sleep 100000", none), world.id("a"));
    world.ok(&["create", "--pidfd-socket", path.to_str().unwrap(), "-b", &bundle, &id]);
    let ended = received(&socket);
    world.ok(&["delete", "--force", &id]);
    assert!(readable(ended.as_fd(), Instant::now() + DEADLINE), "the descriptor is not of that process");
    let id = world.running("b", none);
    world.ok(&["exec", "-d", "--pidfd-socket", path.to_str().unwrap(), &id, "true"]);
    assert!(readable(received(&socket).as_fd(), Instant::now() + DEADLINE));
}

fn received(socket: &UnixListener) -> std::os::fd::OwnedFd {
    let (fd, text) = sys::receive_fd(socket.accept().unwrap().0.as_fd()).unwrap();
    assert_eq!(text, "pidfd");
    fd
}

#[test]
fn checkpoint_and_restore_are_not_offered() {
    let Some(world) = World::new("checkpoint") else { return };
    for args in [&["checkpoint", "--help"][..], &["checkpoint", "--image-path", "/x", "a"], &["restore", "-d", "a"]] {
        let stderr = world.fails(1, args);
        assert!(stderr.contains("not offered"), "{stderr}");
    }
    // podman looks for these words.
    let stderr = world.fails(1, &["restore", "--lsm-mount-context"]);
    assert!(!stderr.contains("requires an argument") && !stderr.contains("needs an argument"), "{stderr}");
}
