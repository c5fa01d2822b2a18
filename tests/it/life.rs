//! The life of containers on the real kernel, with what their programs and the kernel say as witnesses.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::sys;
use crate::util::{DEADLINE, World, readable, wait_for_end};

fn none(_: &mut Value) {}

// The verbs.

#[test]
fn a_container_is_created_started_and_deleted_and_nothing_is_left() {
    let Some(world) = World::new("life") else { return };
    let begun = world.fifo("begun");
    let bundle = world.bundle("echo begun > /shared/begun; exec sleep 100000", none);
    let before = world.snapshot();
    let (id, pid_file) = (world.id("a"), world.dir.join("pid"));
    world.ok(&["create", "-b", &bundle, "--pid-file", pid_file.to_str().unwrap(), &id]);
    let state = world.state(&id);
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], json!(id));
    assert_eq!(state["bundle"], json!(bundle));
    let pid = state["pid"].as_i64().unwrap();
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), pid.to_string(), "no newline: containerd's reader takes none");
    let group = fs::read_to_string(world.group(&id).join("cgroup.procs")).unwrap();
    assert_eq!(group.trim(), pid.to_string());
    world.ok(&["start", &id]);
    assert_eq!(begun.line(), "begun");
    assert_eq!(world.status(&id), "running");
    assert_eq!(world.pid(&id), i32::try_from(pid).unwrap(), "the program is the process that waited");
    assert_eq!(fs::metadata(world.root().join(&id)).unwrap().mode() & 0o777, 0o700);
    world.fails(1, &["delete", &id]);
    assert_eq!(world.status(&id), "running", "a refused delete changes nothing");
    world.ok(&["kill", &id, "KILL"]);
    wait_for_end(pid as i32);
    assert_eq!(world.status(&id), "stopped");
    assert_eq!(world.state(&id)["pid"], 0);
    world.ok(&["delete", &id]);
    assert_eq!(world.snapshot(), before);
    world.fails(1, &["delete", &id]);
    world.ok(&["delete", "--force", &id]);
}

#[test]
fn run_ends_as_its_program_does() {
    let Some(world) = World::new("codes") else { return };
    let before = world.snapshot();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -KILL $$", 0),
        ("exec 2>/dev/null; sh -c 'kill -TERM $$'; exit $?", 143),
    ] {
        let bundle = world.bundle(script, none);
        let outcome = world.run(&["run", "-b", &bundle, &world.id("a")]);
        assert_eq!(outcome.code, Some(code), "{script}: {outcome:?}"); // init is deaf to its own KILL
        assert_eq!(outcome.stderr, "", "{script}");
    }
    let bundle = world.bundle("exec sleep 100000", none);
    let id = world.id("killed");
    let mut child = world.command(&["run", "-b", &bundle, &id]).spawn().unwrap();
    until(&world, &id, "running");
    world.ok(&["kill", &id, "9"]);
    wait_for_end(child.id() as i32);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert_eq!(world.snapshot(), before);
}

/// Waits until the container has that status. Asking is an event in itself: it takes some milliseconds.
fn until(world: &World, id: &str, status: &str) {
    let end = Instant::now() + DEADLINE;
    while !world.root().join(id).join("state.json").exists() || world.status(id) != status {
        assert!(Instant::now() < end, "{id} does not become {status}");
        std::thread::yield_now();
    }
}

#[test]
fn run_passes_signals_on() {
    let Some(world) = World::new("signals") else { return };
    let (begun, id) = (world.fifo("begun"), world.id("a"));
    let script = "trap 'echo got USR1; exit 3' USR1; echo begun > /shared/begun; while :; do sleep 1; done";
    let bundle = world.bundle(script, none);
    let mut child = world.command(&["run", "-b", &bundle, &id]).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(begun.line(), "begun");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGUSR1).unwrap();
    wait_for_end(child.id() as i32);
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), child.wait().unwrap().code()), ("got USR1\n", Some(3)));
}

#[test]
fn run_detached_returns_and_keep_keeps() {
    let Some(world) = World::new("detach") else { return };
    let before = world.snapshot();
    let bundle = world.bundle("exec sleep 100000", none);
    let id = world.id("a");
    world.ok(&["run", "-d", "-b", &bundle, &id]);
    assert_eq!(world.status(&id), "running");
    world.ok(&["gc"]);
    assert_eq!(world.status(&id), "running", "gc leaves alone what nobody abandoned");
    world.ok(&["delete", "-f", &id]);
    let bundle = world.bundle("exit 4", none);
    assert_eq!(world.run(&["run", "--keep", "-b", &bundle, &id]).code, Some(4));
    assert_eq!(world.status(&id), "stopped");
    world.ok(&["delete", &id]);
    assert_eq!(world.snapshot(), before);
}

#[test]
fn pause_freezes_and_resume_thaws() {
    let Some(world) = World::new("pause") else { return };
    let id = world.running("a", none);
    world.ok(&["pause", &id]);
    assert_eq!(world.status(&id), "paused");
    let events = fs::read_to_string(world.group(&id).join("cgroup.events")).unwrap();
    assert!(events.contains("frozen 1"), "{events}");
    world.ok(&["resume", &id]);
    assert_eq!(world.status(&id), "running");
    assert_eq!(world.ok(&["exec", &id, "echo", "awake"]), "awake\n");
    world.ok(&["pause", &id]);
    world.ok(&["delete", "--force", &id]);
    assert!(!world.group(&id).exists());
}

#[test]
fn kill_all_and_ps_know_every_process() {
    let Some(world) = World::new("all") else { return };
    let fifo = world.fifo("begun");
    let id = world.id("a");
    let script = "sleep 100000 & sleep 100000 & echo begun > /shared/begun; wait";
    // Without a pid namespace nothing but the group knows who belongs to the container.
    let bundle = world.bundle(script, |config| {
        config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "cgroup"}]);
    });
    world.ok(&["run", "-d", "-b", &bundle, &id]);
    assert_eq!(fifo.line(), "begun");
    let pids: Vec<i32> = serde_json::from_str(&world.ok(&["ps", "-f", "json", &id])).unwrap();
    assert_eq!(pids.len(), 3, "{pids:?}");
    assert!(pids.contains(&world.pid(&id)));
    world.ok(&["kill", "--all", &id, "KILL"]);
    pids.iter().for_each(|pid| wait_for_end(*pid));
    assert_eq!(world.status(&id), "stopped");
    world.ok(&["kill", "--all", &id, "KILL"]);
    world.ok(&["delete", &id]);
}

#[test]
fn delete_ends_what_outlives_the_first_process() {
    let Some(world) = World::new("outlive") else { return };
    let before = world.snapshot();
    let id = world.id("a");
    let bundle = world.bundle("sleep 100000 & exit 0", |config| {
        config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "cgroup"}]);
    });
    world.ok(&["create", "-b", &bundle, &id]);
    let pid = world.pid(&id);
    world.ok(&["start", &id]);
    wait_for_end(pid);
    assert_eq!(world.status(&id), "stopped");
    world.ok(&["delete", &id]);
    assert_eq!(world.snapshot(), before);
}

// Terminals.

/// A terminal of the test's own.
struct Terminal {
    master: File,
    slave: OwnedFd,
}

impl Terminal {
    fn new(world: &World, rows: u16, columns: u16) -> Self {
        use nix::fcntl::{OFlag, open};
        // Not by openpty(3): its descriptors would come into the containers of other tests.
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = nix::pty::posix_openpt(flags).unwrap();
        nix::pty::grantpt(&master).unwrap();
        nix::pty::unlockpt(&master).unwrap();
        let path = nix::pty::ptsname_r(&master).unwrap();
        let slave = open(path.as_str(), flags, nix::sys::stat::Mode::empty()).unwrap();
        let terminal = Self { master: OwnedFd::from(master).into(), slave };
        let mut stty = std::process::Command::new(&world.busybox);
        stty.args(["stty", "rows", &rows.to_string(), "cols", &columns.to_string()]).stdin(terminal.stdio());
        assert!(stty.status().unwrap().success());
        terminal
    }

    fn stdio(&self) -> Stdio {
        self.slave.try_clone().unwrap().into()
    }
}

/// Reads until `text` has come, or until the other side has closed.
fn read_until(master: &mut File, text: &str) -> String {
    let end = Instant::now() + DEADLINE;
    let mut all = String::new();
    while !all.contains(text) {
        assert!(readable(master.as_fd(), end), "{text:?} does not come: {all:?}");
        let mut buffer = [0; 1024];
        match master.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => all.push_str(&String::from_utf8_lossy(&buffer[..n])),
            Err(e) if e.raw_os_error() == Some(libc::EIO) => break,
            Err(e) => panic!("{e}"),
        }
    }
    all
}

#[test]
fn run_with_a_terminal_relays_the_callers_own() {
    let Some(world) = World::new("tty") else { return };
    let bundle = world.bundle("tty; stty size; read line; echo \"<$line>\"; exit 5", |config| {
        config["process"]["terminal"] = json!(true);
    });
    let mut terminal = Terminal::new(&world, 33, 77);
    let before = nix::sys::termios::tcgetattr(&terminal.slave).unwrap();
    let id = world.id("a");
    let mut command = world.command(&["run", "-b", &bundle, &id]);
    command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio());
    let mut child = command.spawn().unwrap();
    let first = read_until(&mut terminal.master, "33 77");
    assert!(first.contains("/dev/pts/0") || first.contains("/dev/console"), "{first:?}");
    terminal.master.write_all(b"hello\n").unwrap();
    let second = read_until(&mut terminal.master, "<hello>");
    assert!(second.contains("<hello>"), "{second:?}");
    wait_for_end(child.id() as i32);
    assert_eq!(child.wait().unwrap().code(), Some(5));
    let after = nix::sys::termios::tcgetattr(&terminal.slave).unwrap();
    assert_eq!(after, before, "the caller's terminal is as it was");
}

#[test]
fn exec_with_a_terminal_has_one_of_its_own() {
    let Some(world) = World::new("exec-tty") else { return };
    let id = world.running("a", none);
    let mut terminal = Terminal::new(&world, 12, 34);
    let mut command = world.command(&["exec", "-t", &id, "sh", "-c", "test -t 0 && stty size; exit 6"]);
    command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio());
    let mut child = command.spawn().unwrap();
    let text = read_until(&mut terminal.master, "12 34");
    assert!(text.contains("12 34"), "{text:?}");
    wait_for_end(child.id() as i32);
    assert_eq!(child.wait().unwrap().code(), Some(6));
}

#[test]
fn the_console_socket_gets_the_master() {
    let Some(world) = World::new("console") else { return };
    let socket = world.dir.join("console.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (bundle, id) = (
        world.bundle("stty size; tty; exec sleep 100000", |config| {
            config["process"]["terminal"] = json!(true);
            config["process"]["consoleSize"] = json!({"height": 20, "width": 60});
        }),
        world.id("a"),
    );
    let before = world.snapshot();
    world.ok(&["create", "-b", &bundle, "--console-socket", socket.to_str().unwrap(), &id]);
    assert!(readable(listener.as_fd(), Instant::now() + DEADLINE));
    let (connection, _) = listener.accept().unwrap();
    assert!(readable(connection.as_fd(), Instant::now() + DEADLINE));
    let (master, name) = sys::receive_fd(connection.as_fd()).unwrap();
    assert!(!name.is_empty(), "conmon takes a name");
    let mut master = File::from(master);
    world.ok(&["start", &id]);
    let text = read_until(&mut master, "/dev/");
    assert!(text.contains("20 60"), "{text:?}");
    world.ok(&["delete", "-f", &id]);
    assert_eq!(world.snapshot(), before);
}

#[test]
fn terminal_and_console_socket_belong_together() {
    let Some(world) = World::new("console-bad") else { return };
    let socket = world.dir.join("console.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let with = world.bundle("true", |config| config["process"]["terminal"] = json!(true));
    let without = world.bundle("true", none);
    let before = world.snapshot();
    let id = world.id("a");
    world.fails(1, &["create", "-b", &with, &id]);
    world.fails(1, &["create", "-b", &without, "--console-socket", socket.to_str().unwrap(), &id]);
    let missing = world.dir.join("no.sock");
    world.fails(1, &["create", "-b", &with, "--console-socket", missing.to_str().unwrap(), &id]);
    assert_eq!(world.snapshot(), before);
}

// Hooks.

/// A hook of the host that notes its moment, its arguments, its environment and the state that it reads.
fn hook(world: &World, moment: &str, more: &str) -> Value {
    let log = world.shared("hooks");
    let script = format!("IFS=; read -r state; echo \"$1 $HOOK $state\" >> {}; {more}", log.display());
    let args = ["sh", "-c", &script, "hook", moment];
    json!([{"path": world.busybox, "args": args, "env": [format!("HOOK={moment}-env")]}])
}

#[test]
fn hooks_run_in_their_order_with_the_state_on_stdin() {
    let Some(world) = World::new("hooks") else { return };
    let bundle = world.bundle("echo program >> /shared/hooks", |config| {
        let inside = "IFS=; read -r state; echo \"$1 $HOOK $state\" >> /shared/hooks";
        config["annotations"] = json!({"key": "value"});
        config["hooks"] = json!({
            "prestart": hook(&world, "prestart", ""),
            "createRuntime": hook(&world, "createRuntime", ""),
            "createContainer": hook(&world, "createContainer", ""),
            "startContainer": [{
                "path": "/bin/sh", "args": ["sh", "-c", inside, "hook", "startContainer"],
                "env": ["HOOK=startContainer-env"],
            }],
            "poststart": hook(&world, "poststart", ""),
            "poststop": hook(&world, "poststop", ""),
        });
    });
    let id = world.id("a");
    world.ok(&["create", "-b", &bundle, &id]);
    let pid = world.pid(&id);
    world.ok(&["start", &id]);
    wait_for_end(pid);
    world.ok(&["delete", &id]);
    let text = fs::read_to_string(world.shared("hooks")).unwrap();
    let mut lines: Vec<Vec<&str>> = text.lines().map(|line| line.splitn(3, ' ').collect()).collect();
    // The program and the hook after its start are not ordered with each other.
    let program = lines.iter().position(|line| line == &["program"]).unwrap();
    assert!((4..=5).contains(&program), "{text}");
    lines.remove(program);
    let expected = [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("startContainer", "created"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ];
    assert_eq!(lines.len(), expected.len(), "{text}");
    for (line, (moment, status)) in lines.iter().zip(expected) {
        assert_eq!((line[0], line[1]), (moment, format!("{moment}-env").as_str()), "{text}");
        let state: Value = serde_json::from_str(line[2]).unwrap();
        assert_eq!(state["status"], status, "{moment}");
        assert_eq!(state["id"], json!(id), "{moment}");
        assert_eq!(state["bundle"], json!(bundle), "{moment}");
        assert_eq!(state["annotations"]["key"], "value", "{moment}");
        match moment {
            "prestart" | "createRuntime" | "poststart" => assert_eq!(state["pid"], pid, "{moment}"),
            _ => {}
        }
    }
}

#[test]
fn a_hook_of_create_that_fails_leaves_nothing() {
    let Some(world) = World::new("hooks-fail") else { return };
    let before = world.snapshot();
    for moment in ["prestart", "createRuntime", "createContainer"] {
        let bundle = world.bundle("true", |config| {
            config["hooks"] = json!({moment: hook(&world, moment, "echo because >&2; exit 9")});
        });
        let stderr = world.fails(1, &["create", "-b", &bundle, &world.id(moment)]);
        assert!(stderr.contains("exited with 9: because"), "{stderr}");
        assert_eq!(world.snapshot(), before, "{moment}");
        let bundle = world.bundle("true", |config| config["hooks"] = json!({moment: [{"path": "/no/such/hook"}]}));
        let stderr = world.fails(1, &["create", "-b", &bundle, &world.id(moment)]);
        assert!(stderr.contains("/no/such/hook"), "{stderr}");
        assert_eq!(world.snapshot(), before, "{moment}");
    }
}

#[test]
fn a_hook_that_takes_too_long_is_killed_with_its_children() {
    let Some(world) = World::new("hooks-hang") else { return };
    let before = world.snapshot();
    for moment in ["createRuntime", "createContainer"] {
        let bundle = world.bundle("true", |config| {
            let mut hooks = hook(&world, moment, "sleep 100000 & sleep 100000");
            hooks[0]["timeout"] = json!(1);
            config["hooks"] = json!({moment: hooks});
        });
        let stderr = world.fails(1, &["create", "-b", &bundle, &world.id(moment)]);
        assert!(stderr.contains("took more than 1 s and was killed"), "{stderr}");
        assert_eq!(world.snapshot(), before, "{moment}");
    }
}

#[test]
fn a_hook_of_start_that_fails_stops_the_container() {
    let Some(world) = World::new("hooks-start") else { return };
    let before = world.snapshot();
    for moment in ["startContainer", "poststart"] {
        let id = world.id(moment);
        let bundle = world.bundle("exec sleep 100000", |config| {
            let mut hooks = hook(&world, moment, "exit 9");
            if moment == "startContainer" {
                hooks[0]["path"] = json!("/bin/busybox");
                hooks[0]["args"][2] = json!("exit 9");
            }
            config["hooks"] = json!({moment: hooks});
        });
        world.ok(&["create", "-b", &bundle, &id]);
        let pid = world.pid(&id);
        let stderr = world.fails(1, &["start", &id]);
        assert!(stderr.contains("exited with 9"), "{stderr}");
        wait_for_end(pid);
        assert_eq!(world.status(&id), "stopped", "{moment}");
        world.ok(&["delete", &id]);
        assert_eq!(world.snapshot(), before, "{moment}");
    }
    let bundle =
        world.bundle("exit 0", |config| config["hooks"] = json!({"poststop": hook(&world, "poststop", "exit 9")}));
    world.ok(&["run", "-b", &bundle, &world.id("poststop")]);
    assert_eq!(world.snapshot(), before, "a failed poststop hook is a warning");
}

// The file system.

#[test]
fn masked_and_readonly_paths_are_that() {
    let Some(world) = World::new("masks") else { return };
    let script = "wc -c < /proc/version; ls /masked; cat /masked-file; echo x > /readonly/file; echo $?; \
        echo x > /proc/sys/kernel/hostname; echo $?; echo gone > /free/file && cat /free/file";
    let bundle = world.bundle(script, |config| {
        config["linux"]["maskedPaths"] = json!(["/proc/version", "/masked", "/masked-file", "/not/there"]);
        config["linux"]["readonlyPaths"] = json!(["/readonly", "/proc/sys", "/not/there/either"]);
    });
    let root = std::path::Path::new(&bundle).join("rootfs");
    for dir in ["masked", "readonly", "free"] {
        fs::create_dir(root.join(dir)).unwrap();
        fs::write(root.join(dir).join("secret"), "secret").unwrap();
    }
    fs::write(root.join("masked-file"), "secret").unwrap();
    assert_eq!(world.ok(&["run", "-b", &bundle, &world.id("a")]), "0\n1\n1\ngone\n");
}

#[test]
fn a_readonly_root_cannot_be_written_to_but_its_mounts_can() {
    let Some(world) = World::new("ro") else { return };
    let text = world.output(
        "echo x > /file; echo $?; echo x > /tmp/file; echo $?; grep -c ' / / ro\\|  */ ro' /proc/mounts >&2; true",
        |config| {
            config["root"]["readonly"] = json!(true);
            let tmpfs = json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"});
            config["mounts"].as_array_mut().unwrap().push(tmpfs);
        },
    );
    assert_eq!(text, "1\n0\n");
}

#[test]
fn mounts_have_their_options() {
    let Some(world) = World::new("mounts") else { return };
    fs::write(world.shared("file"), "of the host\n").unwrap();
    let file = world.shared("file");
    let text =
        world.output("grep ' /m' /proc/mounts; cat /m/file; echo x > /m/file; echo $?; stat -c %a /made", |config| {
            config["mounts"].as_array_mut().unwrap().extend([
                json!({"destination": "/made/m-tmpfs", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "nodev", "noexec", "size=64k", "mode=711"]}),
                json!({"destination": "/m", "type": "tmpfs", "source": "tmpfs"}),
                json!({"destination": "/m/file", "type": "bind", "source": file, "options": ["bind", "ro", "noexec"]}),
            ]);
        });
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("tmpfs /made/m-tmpfs tmpfs rw,nosuid,nodev,noexec,"), "{text}");
    assert!(lines[0].contains("size=64k") && lines[0].contains("mode=711"), "{text}");
    assert!(lines[2].contains(" /m/file ") && lines[2].contains("ro,") && lines[2].contains("noexec"), "{text}");
    assert_eq!(lines[3..], ["of the host", "1", "755"]);
    assert_eq!(fs::read_to_string(file).unwrap(), "of the host\n");
}

#[test]
fn what_the_container_mounts_is_not_the_hosts() {
    let Some(world) = World::new("propagation") else { return };
    let before = world.snapshot();
    let id = world.running("a", |config| {
        config["process"]["capabilities"] = all_sets(&["CAP_SYS_ADMIN"]);
    });
    world.ok(&["exec", &id, "mount", "-t", "tmpfs", "tmpfs", "/shared"]);
    world.ok(&["exec", &id, "touch", "/shared/inside"]);
    assert!(!world.shared("inside").exists());
    world.ok(&["delete", "-f", &id]);
    assert_eq!(world.snapshot(), before);
}

#[test]
fn devices_are_there_and_others_are_denied() {
    let Some(world) = World::new("devices") else { return };
    let script = "stat -c '%n %t:%T %a %u' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/fuse; \
        for link in fd stdin ptmx; do readlink /dev/$link; done; head -c 3 /dev/zero | wc -c; \
        mknod /tmp/kmsg c 1 11; cat /tmp/kmsg > /dev/null; echo $?; cat /dev/fuse > /dev/null; echo $?";
    let text = world.output(script, |config| {
        config["process"]["capabilities"] = all_sets(&["CAP_MKNOD"]);
        config["linux"]["devices"] =
            json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7}]);
        config["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
    });
    let expected = "/dev/null 1:3 666 0\n/dev/zero 1:5 666 0\n/dev/full 1:7 666 0\n/dev/random 1:8 666 0\n\
        /dev/urandom 1:9 666 0\n/dev/tty 5:0 666 0\n/dev/fuse a:e5 640 7\n\
        /proc/self/fd\n/proc/self/fd/0\npts/ptmx\n3\n";
    assert!(text.starts_with(expected), "{text}");
    assert_eq!(text[expected.len()..].lines().next(), Some("1"), "a device that nobody allowed");
}

// The process.

fn all_sets(names: &[&str]) -> Value {
    json!({"bounding": names, "effective": names, "permitted": names})
}

#[test]
fn capabilities_are_what_was_asked_for() {
    let Some(world) = World::new("caps") else { return };
    let caps = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with("Cap") || line.starts_with("NoNewPrivs"));
        lines.map(|line| line.split_whitespace().nth(1).unwrap().trim_start_matches('0').into()).collect()
    };
    // CapInh, CapPrm, CapEff, CapBnd, CapAmb, NoNewPrivs; CAP_CHOWN is bit 0, CAP_KILL bit 5.
    let text = world.output("cat /proc/self/status", |config| {
        config["process"]["capabilities"] = all_sets(&["CAP_CHOWN", "CAP_KILL"]);
        config["process"]["noNewPrivileges"] = json!(true);
    });
    assert_eq!(caps(&text), ["", "21", "21", "21", "", "1"]);
    let text = world.output("cat /proc/self/status", none);
    assert_eq!(caps(&text), ["", "", "", "", "", ""], "who asks for nothing gets nothing");
    // Of another user: only what is ambient survives exec.
    let text = world.output("cat /proc/self/status", |config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        config["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_CHOWN", "CAP_KILL"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
        });
    });
    assert_eq!(caps(&text), ["20", "20", "20", "21", "20", ""]);
}

#[test]
fn ids_groups_umask_directory_and_environment() {
    let Some(world) = World::new("process") else { return };
    let script = "id -u; id -g; id -G; umask; pwd; echo $HOME; env | sort";
    let text = world.output(script, |config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o27});
        config["process"]["cwd"] = json!("/made/for/it");
        config["process"]["env"] = json!(["PATH=/bin", "A=b=c", "EMPTY="]);
    });
    let expected = "1000\n1001\n1001 5 6\n0027\n/made/for/it\n/home/user\n\
        A=b=c\nEMPTY=\nHOME=/home/user\nPATH=/bin\nPWD=/made/for/it\n";
    let text = text.lines().filter(|line| !line.starts_with("SHLVL=")).map(|line| format!("{line}\n"));
    assert_eq!(text.collect::<String>(), expected);
    let text =
        world.output("umask; echo $HOME; id -G", |config| config["process"]["env"] = json!(["PATH=/bin", "HOME=/x"]));
    assert_eq!(text, "0022\n/x\n0\n");
}

#[test]
fn limits_and_oom_score() {
    let Some(world) = World::new("limits") else { return };
    let text = world.output("ulimit -Sn; ulimit -Hn; ulimit -Sc; cat /proc/self/oom_score_adj", |config| {
        config["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ]);
        config["process"]["oomScoreAdj"] = json!(500);
    });
    assert_eq!(text, "64\n128\n0\n500\n");
}

#[test]
fn names_and_sysctls_are_the_containers_own() {
    let Some(world) = World::new("names") else { return };
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let shm = fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    let script = "cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname /proc/sys/kernel/shmmni \
        /proc/sys/net/ipv4/ip_forward; grep -c lo: /proc/net/dev";
    let text = world.output(script, |config| {
        config["hostname"] = json!("inner");
        config["domainname"] = json!("example");
        config["linux"]["sysctl"] = json!({"kernel.shmmni": "123", "net.ipv4.ip_forward": "1"});
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "network"}));
    });
    assert_eq!(text, "inner\nexample\n123\n1\n1\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), host);
    assert_eq!(fs::read_to_string("/proc/sys/kernel/shmmni").unwrap(), shm);
}

#[test]
fn sysctls_and_names_of_the_host_are_refused() {
    let Some(world) = World::new("host-sysctl") else { return };
    let before = world.snapshot();
    let refused: [(&str, &str); 5] = [
        ("kernel.core_pattern", "x"),
        ("net.ipv4.ip_forward", "1"),
        ("kernel.shmmni", "1\n2"),
        ("fs/mqueue/../../kernel/core_pattern", "x"),
        ("vm.overcommit_memory", "1"),
    ];
    for (key, value) in refused {
        let bundle = world.bundle("true", |config| config["linux"]["sysctl"] = json!({key: value}));
        let stderr = world.fails(1, &["create", "-b", &bundle, &world.id("a")]);
        assert!(stderr.contains("/linux/sysctl/"), "{stderr}");
    }
    let bundle = world.bundle("true", |config| {
        config["hostname"] = json!("x");
        config["linux"]["namespaces"] = json!([{"type": "mount"}]);
    });
    assert!(world.fails(1, &["create", "-b", &bundle, &world.id("a")]).contains("/hostname"));
    assert_eq!(world.snapshot(), before);
}

#[test]
fn the_system_call_filter_answers() {
    let Some(world) = World::new("seccomp") else { return };
    for no_new_privileges in [true, false] {
        let text = world.output(
            "mkdir /tmp/x 2>&1; chmod 700 /tmp 2>&1; grep Seccomp: /proc/self/status; echo ok",
            |config| {
                config["process"]["noNewPrivileges"] = json!(no_new_privileges);
                config["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [
                        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
                        {"names": ["chmod", "fchmodat", "no_such_call"], "action": "SCMP_ACT_ERRNO"},
                    ],
                });
            },
        );
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("Function not implemented"), "{text}");
        assert!(lines[1].ends_with("Operation not permitted"), "{text}");
        assert_eq!(lines[2..], ["Seccomp:\t2", "ok"], "{text}");
    }
}

#[test]
fn namespaces_are_joined_by_their_paths() {
    let Some(world) = World::new("join") else { return };
    let kinds = ["ipc", "uts", "pid", "net"];
    let first = world.running("a", |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "network"}));
    });
    let pid = world.pid(&first);
    let links = |pid: i32| kinds.map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap());
    let second = world.running("b", |config| {
        let path = |kind: &str| format!("/proc/{pid}/ns/{kind}");
        config["linux"]["namespaces"] = json!([
            {"type": "mount"}, {"type": "ipc", "path": path("ipc")}, {"type": "uts", "path": path("uts")},
            {"type": "pid", "path": path("pid")}, {"type": "network", "path": path("net")},
        ]);
    });
    assert_eq!(links(world.pid(&second)), links(pid));
    assert_ne!(links(std::process::id() as i32), links(pid));
    world.ok(&["delete", "-f", &second]);
    assert_eq!(world.status(&first), "running", "what was joined lives on");
    let own = fs::read_link("/proc/self/ns/pid").unwrap();
    assert_ne!(links(pid)[2], own);
}

#[test]
fn a_namespace_path_that_is_none_is_an_error() {
    let Some(world) = World::new("join-bad") else { return };
    let before = world.snapshot();
    for path in ["/no/such/namespace", "/dev/null", "/proc/self/ns/net"] {
        let bundle = world.bundle("true", |config| {
            config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "ipc", "path": path}]);
        });
        let stderr = world.fails(1, &["create", "-b", &bundle, &world.id("a")]);
        assert!(stderr.contains("namespace"), "{path}: {stderr}");
        assert_eq!(world.snapshot(), before, "{path}");
    }
}

#[test]
fn the_group_is_where_the_bundle_wants_it_and_goes() {
    let Some(world) = World::new("cgroup") else { return };
    let id = world.id("a");
    let parent = world.cgroup2.join(world.id("parent"));
    fs::create_dir(&parent).unwrap();
    let group = parent.join("inner");
    let id = {
        let path = format!("/{}/inner", world.id("parent"));
        let made = world.running("a", |config| config["linux"]["cgroupsPath"] = json!(path));
        assert_eq!(made, id);
        made
    };
    let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    assert_eq!(pids.trim(), world.pid(&id).to_string());
    world.ok(&["exec", "-d", &id, "sleep", "100000"]);
    assert_eq!(fs::read_to_string(group.join("cgroup.procs")).unwrap().lines().count(), 2);
    world.ok(&["delete", "-f", &id]);
    assert!(!group.exists());
    assert!(parent.exists(), "what the engine made is the engine's");
    fs::remove_dir(&parent).unwrap();
}

#[test]
fn only_descriptors_that_were_asked_for_come_in() {
    let Some(world) = World::new("fds") else { return };
    let script = "ls /proc/self/fd | sort -n | tr '\\n' ' '";
    let bundle = world.bundle(script, none);
    let id = world.id("a");
    let open = "exec \"$0\" \"$@\" 3</ 4</tmp 7</ 9</dev/null";
    // ls has opened the directory that it lists, at the lowest free number.
    let outcome = world.call(world.script(open, &["run", "-b", &bundle, &id]));
    assert_eq!(outcome.stdout, "0 1 2 3 ", "{outcome:?}");
    let outcome = world.call(world.script(open, &["run", "--preserve-fds", "2", "-b", &bundle, &id]));
    assert_eq!(outcome.stdout, "0 1 2 3 4 5 ", "{outcome:?}");
    let first = world.running("b", none);
    let exec = ["exec", &first, "sh", "-c", script];
    let outcome = world.call(world.script(open, &exec));
    assert_eq!(outcome.stdout, "0 1 2 3 ", "{outcome:?}");
    let exec = ["exec", "--preserve-fds", "1", &first, "sh", "-c", script];
    let outcome = world.call(world.script(open, &exec));
    assert_eq!(outcome.stdout, "0 1 2 3 4 ", "{outcome:?}");
}

#[test]
fn descriptors_that_are_not_there_cannot_be_kept_and_do_no_harm() {
    let Some(world) = World::new("fds-none") else { return };
    let bundle = world.bundle("ls /proc/self/fd | tr '\\n' ' '", none);
    for count in ["20", "100000", "4294967295"] {
        let id = world.id(&format!("p{count}"));
        let outcome = world.run(&["create", "--preserve-fds", count, "-b", &bundle, &id]);
        if outcome.code == Some(0) {
            let pid = world.pid(&id);
            world.ok(&["start", &id]); // which must not wait for a lock that the container holds
            wait_for_end(pid);
            world.ok(&["delete", &id]);
        } else {
            assert!(outcome.stderr.starts_with("potrun: "), "{outcome:?}");
        }
        let mut run = world.command(&["run", "--preserve-fds", count, "-b", &bundle, &id]);
        sys::keep_none(&mut run);
        let outcome = world.call(run);
        // ls opens what it lists.
        let theirs: Vec<&str> = outcome.stdout.split_whitespace().collect();
        assert!(theirs.len() <= 4 && theirs[..3] == ["0", "1", "2"], "{outcome:?}");
    }
}

// More processes.

#[test]
fn exec_is_the_container_with_what_its_flags_change() {
    let Some(world) = World::new("exec") else { return };
    let id = world.running("a", |config| {
        config["process"]["env"] = json!(["PATH=/bin", "OF=create"]);
        config["process"]["capabilities"] = all_sets(&["CAP_CHOWN"]);
    });
    let sh = |flags: &[&str], script: &str| {
        let args = [&["exec"], flags, &[id.as_str(), "sh", "-c", script]].concat();
        world.ok(&args)
    };
    assert_eq!(sh(&[], "echo $OF; pwd; id -u; umask"), "create\n/\n0\n0022\n");
    assert_eq!(sh(&["-e", "OF=exec", "--env", "B=c"], "echo $OF $B"), "exec c\n");
    assert_eq!(sh(&["--cwd", "/bin"], "pwd"), "/bin\n");
    assert_eq!(
        sh(&["-u", "1000:1001", "-g", "5"], "id -u; id -g; id -G; echo $HOME"),
        "1000\n1001\n1001 5\n/home/user\n"
    );
    let caps =
        |flags: &[&str]| sh(flags, "grep 'CapInh\\|CapEff\\|CapAmb\\|NoNew' /proc/self/status | tr -d '0\\t\\n'");
    assert_eq!(caps(&[]), "CapInh:CapEff:1CapAmb:NoNewPrivs:");
    assert_eq!(caps(&["--cap", "CAP_KILL"]), "CapInh:CapEff:21CapAmb:NoNewPrivs:", "CVE-2022-29162");
    assert_eq!(caps(&["--no-new-privs"]), "CapInh:CapEff:1CapAmb:NoNewPrivs:1");
    for (script, code) in [("exit 7", 7), ("kill -KILL $$", 137)] {
        assert_eq!(world.run(&["exec", &id, "sh", "-c", script]).code, Some(code));
    }
    let process = world.dir.join("process.json");
    let args = ["/bin/sh", "-c", "pwd; id -u; echo $A"];
    let asked = json!({"cwd": "/tmp", "args": args, "env": ["A=1"], "user": {"uid": 5, "gid": 5}});
    fs::write(&process, asked.to_string()).unwrap();
    assert_eq!(world.ok(&["exec", "--process", process.to_str().unwrap(), &id]), "/tmp\n5\n1\n");
    let pid_file = world.dir.join("exec-pid");
    world.ok(&["exec", "-d", "--pid-file", pid_file.to_str().unwrap(), &id, "sleep", "100000"]);
    let pid = fs::read_to_string(&pid_file).unwrap();
    let group = fs::read_to_string(world.group(&id).join("cgroup.procs")).unwrap();
    assert!(group.lines().any(|line| line == pid), "{pid} is in the container's group: {group}");
    let kinds = ["mnt", "pid", "ipc", "uts", "cgroup", "net"];
    for kind in kinds {
        let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(link(&pid), link(&world.pid(&id).to_string()), "{kind}");
    }
}

#[test]
fn exec_needs_a_container_that_runs() {
    let Some(world) = World::new("exec-state") else { return };
    let bundle = world.bundle("exec sleep 100000", none);
    let id = world.id("a");
    world.ok(&["create", "-b", &bundle, &id]);
    assert_eq!(world.ok(&["exec", &id, "echo", "before start"]), "before start\n");
    assert_eq!(world.status(&id), "created");
    world.ok(&["start", &id]);
    world.ok(&["pause", &id]);
    world.fails(255, &["exec", &id, "true"]);
    world.ok(&["resume", &id]);
    let pid = world.pid(&id);
    world.ok(&["kill", &id, "KILL"]);
    wait_for_end(pid);
    world.fails(255, &["exec", &id, "true"]);
    world.ok(&["delete", &id]);
    world.fails(255, &["exec", &id, "true"]);
}

// Pots with a base.

#[test]
fn pots_share_their_base_and_nothing_else() {
    let Some(world) = World::new("pots") else { return };
    world.base("small");
    let tree = world.store().join("bases/small/tree");
    let pot = |config: &mut Value| {
        config["pot"] = json!({"base": {"release": "small"}, "dns": "off", "network": {"type": "inherit"}});
        config.as_object_mut().unwrap().remove("root");
    };
    let before = world.snapshot();
    let (a, b) = (world.running("a", pot), world.running("b", pot));
    world.ok(&["exec", &a, "sh", "-c", "echo changed > /etc/base; echo new > /etc/new; rm /etc/passwd"]);
    let seen = "cat /etc/base; ls /etc";
    assert_eq!(world.ok(&["exec", &a, "sh", "-c", seen]), "changed\nbase\nnew\n");
    assert_eq!(world.ok(&["exec", &b, "sh", "-c", seen]), "of the base\nbase\npasswd\n");
    assert_eq!(fs::read_to_string(tree.join("etc/base")).unwrap(), "of the base\n");
    assert!(tree.join("etc/passwd").exists() && !tree.join("etc/new").exists());
    assert_eq!(fs::metadata(world.store().join("pots").join(&a)).unwrap().mode() & 0o777, 0o700);
    assert!(world.store().join("bases/small/users").join(&a).exists());
    world.ok(&["delete", "-f", &a]);
    assert_eq!(world.ok(&["exec", &b, "sh", "-c", seen]), "of the base\nbase\npasswd\n");
    world.ok(&["delete", "-f", &b]);
    assert_eq!(world.snapshot(), before);
    let again = world.running("a", pot);
    assert_eq!(world.ok(&["exec", &again, "cat", "/etc/base"]), "of the base\n", "a new pot begins anew");
}

#[test]
fn a_pot_is_for_all_its_users_whatever_the_umask_of_its_maker() {
    let Some(world) = World::new("umask") else { return };
    world.base("small");
    let bundle = world.bundle("id -u; cat /etc/base; stat -c %a /", |config| {
        config["pot"] = json!({"base": {"release": "small"}});
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    let before = world.snapshot();
    let outcome = world.call(world.script("umask 077; exec \"$0\" \"$@\"", &["run", "-b", &bundle, &world.id("a")]));
    assert_eq!(outcome.stdout, "1000\nof the base\n755\n", "{outcome:?}");
    assert_eq!(world.snapshot(), before);
}

#[test]
fn a_pot_of_a_base_that_is_not_there_is_refused() {
    let Some(world) = World::new("no-base") else { return };
    let bundle = world.bundle("true", |config| config["pot"] = json!({"base": {"release": "none"}}));
    let before = world.snapshot();
    let stderr = world.fails(1, &["create", "-b", &bundle, &world.id("a")]);
    assert!(stderr.contains("/pot/base/release"), "{stderr}");
    assert_eq!(world.snapshot(), before);
}

// Without root, and with users of its own.

#[test]
fn a_user_namespace_maps_its_users_and_changes_nothing_of_the_hosts() {
    let Some(world) = World::new("userns") else { return };
    let null = fs::metadata("/dev/null").unwrap();
    let edit = |config: &mut Value| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    };
    std::os::unix::fs::chown(world.dir.join("shared"), Some(100_000), Some(100_000)).unwrap();
    let before = world.snapshot();
    let id = world.running("a", edit);
    let script = "id -u; cat /proc/self/uid_map | tr -s ' '; echo x > /dev/null && touch /shared/made && echo ok";
    assert_eq!(world.ok(&["exec", &id, "sh", "-c", script]), "0\n 0 100000 65536\nok\n");
    assert_eq!(fs::metadata(world.shared("made")).unwrap().uid(), 100_000);
    let script = "id -u; echo x > /dev/null && echo ok";
    assert_eq!(world.ok(&["exec", "-u", "1000:1000", &id, "sh", "-c", script]), "1000\nok\n");
    let after = fs::metadata("/dev/null").unwrap();
    assert_eq!((after.uid(), after.gid(), after.mode()), (null.uid(), null.gid(), null.mode()));
    world.ok(&["delete", "-f", &id]);
    assert_eq!(world.snapshot(), before);
}

#[test]
fn without_root_the_caller_is_root_inside() {
    let Some(mut world) = World::new("user") else { return };
    world.become_user(12345);
    let before = world.snapshot();
    let text = world.output("id -u; cat /proc/self/uid_map | tr -s ' '; echo x > /dev/null && echo ok", none);
    assert_eq!(text, "0\n 0 12345 1\nok\n");
    let id = world.running("a", |config| config["root"]["readonly"] = json!(true));
    assert_eq!(world.ok(&["exec", &id, "sh", "-c", "id -u; touch /x || echo read-only"]), "0\nread-only\n");
    assert_eq!(world.status(&id), "running");
    world.fails(1, &["pause", &id]);
    world.ok(&["kill", &id, "KILL"]);
    world.ok(&["delete", "-f", &id]);
    world.settles(&before);
}

#[test]
fn without_root_a_pot_has_a_layer_of_its_own() {
    let Some(mut world) = World::new("user-pot") else { return };
    world.become_user(12345);
    world.base("small");
    let before = world.snapshot();
    let text = world.output("cat /etc/base; echo x > /etc/new && ls /etc", |config| {
        config["pot"] = json!({"base": {"release": "small"}, "dns": "off"});
    });
    assert_eq!(text, "of the base\nbase\nnew\npasswd\n");
    assert_eq!(world.snapshot(), before);
}

// Many at once.

#[test]
fn of_many_creates_of_one_id_one_wins_and_many_deletes_agree() {
    let Some(world) = World::new("many") else { return };
    let bundle = world.bundle("exec sleep 100000", none);
    let before = world.snapshot();
    let id = world.id("a");
    let all = |args: &[&str]| -> Vec<Option<i32>> {
        let quiet =
            |mut command: std::process::Command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let children: Vec<_> = (0..8).map(|_| quiet(world.command(args))).collect();
        let end = |mut child: std::process::Child| {
            wait_for_end(child.id() as i32);
            child.wait().unwrap().code()
        };
        children.into_iter().map(end).collect()
    };
    for _ in 0..5 {
        let codes = all(&["create", "-b", &bundle, &id]);
        assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
        assert_eq!(world.status(&id), "created");
        let codes = all(&["start", &id]);
        assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
        assert_eq!(all(&["delete", "--force", &id]), [Some(0); 8]);
        assert_eq!(world.snapshot(), before);
    }
}

#[test]
fn gc_does_no_harm_to_what_is_being_made() {
    let Some(world) = World::new("gc-race") else { return };
    world.base("small");
    let bundle = world.bundle("exit 0", |config| config["pot"] = json!({"base": {"release": "small"}}));
    let before = world.snapshot();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let status = world_gc(&world.dir, &world.potrun);
                    if !status {
                        stop.store(true, std::sync::atomic::Ordering::Relaxed);
                    }
                    assert!(status, "gc failed");
                }
            });
        }
        for n in 0..60 {
            let id = world.id(&format!("g{n}"));
            let outcome = world.run(&["run", "-b", &bundle, &id]);
            if outcome.code != Some(0) {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("round {n}: {outcome:?}");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(world.snapshot(), before);
}

/// Runs gc; a world cannot be shared between threads.
fn world_gc(dir: &std::path::Path, potrun: &std::path::Path) -> bool {
    let mut command = std::process::Command::new(potrun);
    command.arg("--root").arg(dir.join("root")).arg("--store").arg(dir.join("store")).arg("gc");
    command.stdout(Stdio::null()).status().unwrap().success()
}
