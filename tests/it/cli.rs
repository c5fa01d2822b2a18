//! The whole outcome of many calls as callers see them: stdout, stderr and exit code, kept as text in `snapshots/`.
//! `POTRUN_BLESS=1` writes them anew; a snapshot that is missing is a failure.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::util::{Outcome, World, wait_for_end};

fn none(_: &mut Value) {}

/// Calls and their outcomes, as text.
pub(crate) struct Shown<'w> {
    world: &'w World,
    text: String,
    pids: Vec<i32>,
}

impl<'w> Shown<'w> {
    pub(crate) fn new(world: &'w World) -> Self {
        Self { world, text: String::new(), pids: Vec::new() }
    }

    fn say(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    pub(crate) fn show(&mut self, args: &[&str]) {
        let Outcome { code, signal, stdout, stderr } = self.world.run(args);
        let call: Vec<String> = args.iter().map(|arg| quoted(arg)).collect();
        self.say(&format!("$ potrun {}", call.join(" ")));
        for (mark, text) in [("", &stdout), ("! ", &stderr)] {
            for line in text.lines() {
                self.say(&format!("{mark}{line}"));
            }
        }
        let code = code.map_or_else(|| format!("signal {}", signal.unwrap_or(0)), |code| code.to_string());
        self.say(&format!("= {code}\n"));
    }

    /// The text without what differs from run to run.
    fn normal(&self) -> String {
        let world = self.world;
        let mut text = self.text.replace(world.dir.to_str().unwrap(), "<dir>");
        text = text.replace(world.cgroup2.to_str().unwrap(), "<cgroup2>");
        text = text.replace(&format!("{}-", world.token), "");
        text = text.replace(&"x".repeat(1025), "<1025 x>").replace(&"x".repeat(249), "<249 x>");
        text = text.lines().map(|line| without_time(line) + "\n").collect();
        for pid in &self.pids {
            text = replace_number(&text, *pid);
        }
        text.lines().map(|line| squeeze(line) + "\n").collect()
    }

    #[track_caller]
    pub(crate) fn compare(self, name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/snapshots").join(format!("{name}.txt"));
        let new = self.normal();
        if std::env::var_os("POTRUN_BLESS").is_some() {
            fs::write(&path, &new).unwrap();
        }
        let old = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}\n{new}", path.display()));
        let different = new.lines().zip(old.lines()).enumerate().find(|(_, (new, old))| new != old);
        let at = different.map_or(0, |(at, _)| at);
        let around = |text: &str| text.lines().skip(at.saturating_sub(4)).take(9).collect::<Vec<_>>().join("\n");
        assert!(new == old, "{} line {}:\nis\n{}\nwas\n{}", path.display(), at + 1, around(&new), around(&old));
    }
}

fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,<>".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) { arg.into() } else { format!("{arg:?}") }
}

/// Replaces RFC 3339 times.
fn without_time(line: &str) -> String {
    let shape = "dddd-dd-ddTdd:dd:dd";
    let is_time = |at: usize| {
        let part = line.get(at..at + shape.len());
        part.is_some_and(|part| {
            part.chars().zip(shape.chars()).all(|(c, s)| if s == 'd' { c.is_ascii_digit() } else { c == s })
        })
    };
    let Some(at) = (0..line.len()).find(|at| is_time(*at)) else { return line.into() };
    let rest = line[at + shape.len()..].trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    format!("{}<time>{}", &line[..at], without_time(rest.strip_prefix('Z').unwrap_or(rest)))
}

/// Replaces `pid` where it is a number of its own.
fn replace_number(text: &str, pid: i32) -> String {
    let (pid, mut rest, mut all) = (pid.to_string(), text, String::new());
    while let Some(at) = rest.find(&pid) {
        let (before, after) = (&rest[..at], &rest[at + pid.len()..]);
        let part = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        all.push_str(before);
        all.push_str(if part(before.chars().last()) || part(after.chars().next()) { &pid } else { "<pid>" });
        rest = after;
    }
    all + rest
}

/// Columns are as wide as pids and paths are: their blanks become three.
fn squeeze(line: &str) -> String {
    if line.starts_with(' ') {
        return line.into();
    }
    let words: Vec<&str> = line.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    words.join("   ")
}

#[test]
fn usage() {
    let Some(world) = World::new("usage") else { return };
    let mut shown = Shown::new(&world);
    let calls: &[&[&str]] = &[
        &["frobnicate"],
        &["creat"],
        &["--no-such-flag", "list"],
        &["create"],
        &["create", "--no-such-flag", "a"],
        &["create", "a", "b"],
        &["create", "--preserve-fds", "-1", "a"],
        &["create", "--preserve-fds", "x", "a"],
        &["create", "--bundle"],
        &["start"],
        &["start", "a", "b"],
        &["state"],
        &["kill"],
        &["kill", "a", "TERM", "b"],
        &["delete"],
        &["exec"],
        &["exec", "-g", "x", "a", "true"],
        &["list", "-f", "yaml"],
        &["list", "a"],
        &["ps"],
        &["pause"],
        &["resume"],
        &["--log-format", "xml", "list"],
        &["--log-level", "loud", "list"],
        &["--systemd-cgroup", "list"],
        &["--cgroup-manager", "systemd", "list"],
        &["--log", "/no/such/directory/log", "list"],
        &["plan", "--os", "plan9", "."],
    ];
    calls.iter().for_each(|call| shown.show(call));
    shown.compare("usage");
}

#[test]
fn ids() {
    let Some(world) = World::new("ids") else { return };
    let bundle = world.bundle("exit 0", none);
    let before = world.snapshot();
    let mut shown = Shown::new(&world);
    let (long, longest) = ("x".repeat(1025), "x".repeat(249));
    for id in ["", ".", "..", "../a", "a/b", "/a", "a b", "a\nb", "a\tb", "ü", "a:b", "a*", "$a", &longest, &long] {
        shown.show(&["create", "-b", &bundle, id]);
    }
    for verb in ["run", "start", "state", "kill", "delete", "exec", "ps", "pause", "resume"] {
        shown.show(&match verb {
            "exec" => vec![verb, "a/b", "true"],
            "run" => vec![verb, "-b", &bundle, "a/b"],
            _ => vec![verb, "a/b"],
        });
    }
    shown.show(&["delete", "--force", ".."]);
    shown.show(&["create", "-b", &bundle, "--", "-a"]);
    let taken = world.id("taken");
    world.ok(&["create", "-b", &bundle, &taken]);
    let state = world.state(&taken);
    shown.show(&["create", "-b", &bundle, &taken]);
    shown.show(&["run", "-b", &bundle, &taken]);
    assert_eq!(world.state(&taken), state, "who has the id keeps it");
    world.ok(&["delete", &taken]);
    assert_eq!(world.snapshot(), before);
    shown.compare("ids");
}

#[test]
fn unknown_containers() {
    let Some(world) = World::new("missing") else { return };
    let before = world.snapshot();
    let mut shown = Shown::new(&world);
    let calls: &[&[&str]] = &[
        &["start", "a"],
        &["state", "a"],
        &["kill", "a"],
        &["kill", "a", "KILL"],
        &["kill", "--all", "a", "9"],
        &["delete", "a"],
        &["delete", "--force", "a"],
        &["delete", "-f", "a"],
        &["exec", "a", "true"],
        &["exec", "-d", "a", "true"],
        &["ps", "a"],
        &["ps", "-f", "json", "a"],
        &["pause", "a"],
        &["resume", "a"],
        &["list"],
        &["list", "-q"],
        &["list", "-f", "json"],
        &["gc"],
    ];
    calls.iter().for_each(|call| shown.show(call));
    assert_eq!(world.snapshot(), before);
    shown.compare("unknown_containers");
}

/// A container in the given state.
fn in_state(world: &World, shown: &mut Shown<'_>, id: &str, state: &str) {
    let bundle = world.bundle("exec sleep 100000", none);
    match state {
        "died in create" => return fs::create_dir(world.root().join(id)).unwrap(),
        _ => drop(world.ok(&["create", "-b", &bundle, id])),
    }
    let pid = world.pid(id);
    shown.pids.push(pid);
    if state != "created" {
        world.ok(&["start", id]);
    }
    match state {
        "paused" => drop(world.ok(&["pause", id])),
        "stopped" => {
            world.ok(&["kill", id, "KILL"]);
            wait_for_end(pid);
        }
        _ => {}
    }
}

#[test]
fn every_verb_in_every_state() {
    let Some(world) = World::new("states") else { return };
    let mut shown = Shown::new(&world);
    let before = world.snapshot();
    let verbs: &[&[&str]] = &[
        &["state"],
        &["start"],
        &["kill", "ID", "USR1"],
        &["kill", "--all", "ID", "USR1"],
        &["pause"],
        &["resume"],
        &["exec", "ID", "echo", "hello"],
        &["ps", "-f", "json"],
        &["list"],
        &["delete"],
        &["delete", "--force"],
    ];
    for state in ["created", "running", "paused", "stopped", "died in create"] {
        shown.say(&format!("# {state}\n"));
        for verb in verbs {
            let id = world.id("a");
            in_state(&world, &mut shown, &id, state);
            let mut args: Vec<&str> = verb.iter().map(|arg| if *arg == "ID" { &id } else { *arg }).collect();
            if !verb.contains(&"ID") && verb != &["list"] {
                args.push(&id);
            }
            shown.show(&args);
            if !verb.contains(&"kill") && world.root().join(&id).exists() {
                let status = world.status(&id);
                shown.say(&format!("then it is {status}\n"));
            }
            world.ok(&["delete", "--force", &id]);
        }
    }
    assert_eq!(world.snapshot(), before);
    shown.compare("every_verb_in_every_state");
}

#[test]
fn signals_have_many_names() {
    let Some(world) = World::new("signals") else { return };
    let mut shown = Shown::new(&world);
    // 0 of a shell's trap is its end; all that can be caught is caught, so that the container lives on.
    let (heard, id) = (world.fifo("heard"), world.id("a"));
    let traps = "for s in HUP INT TERM USR1 USR2 WINCH 35 64; do trap \"echo $s > /shared/heard\" $s; done";
    let script = format!("{traps}; echo begun > /shared/heard; while :; do sleep 0.01; done");
    world.ok(&["run", "-d", "-b", &world.bundle(&script, none), &id]);
    shown.pids.push(world.pid(&id));
    assert_eq!(heard.line(), "begun");
    for (form, name) in [
        ("TERM", "TERM"),
        ("SIGTERM", "TERM"),
        ("sigterm", "TERM"),
        ("15", "TERM"),
        ("Hup", "HUP"),
        ("1", "HUP"),
        ("USR2", "USR2"),
        ("winch", "WINCH"),
        ("RTMIN+1", "35"),
        ("SIGRTMIN+1", "35"),
        ("RTMAX", "64"),
        ("64", "64"),
    ] {
        shown.show(&["kill", &id, form]);
        assert_eq!(heard.line(), name, "{form}");
    }
    for form in ["", "BADSIG", "SIG", "0", "-1", "65", "9x", "0x9", "SIGSIGTERM", "RTMIN+99", "RTMAX+1", "TERM ", "1.5"]
    {
        shown.show(&["kill", &id, "--", form]);
    }
    world.ok(&["delete", "-f", &id]);
    shown.compare("signals_have_many_names");
}

#[test]
fn exec_flags_that_are_wrong() {
    let Some(world) = World::new("exec-bad") else { return };
    let mut shown = Shown::new(&world);
    let id = world.running("a", none);
    shown.pids.push(world.pid(&id));
    for user in ["1000:", ":5", "abc", "4294967296", "4294967295", "-1", "1:2:3", " 1", "+1", "0x10", ":", "root"] {
        shown.show(&["exec", &format!("--user={user}"), &id, "id"]);
    }
    shown.show(&["exec", &id]);
    shown.show(&["exec", &id, "nosuch"]);
    shown.show(&["exec", &id, "/no/such"]);
    shown.show(&["exec", &id, "/etc"]);
    shown.show(&["exec", &id, "/etc/passwd"]);
    shown.show(&["exec", "--cwd", "relative", &id, "true"]);
    shown.show(&["exec", "--cwd", "/no/such", &id, "true"]);
    shown.show(&["exec", "-e", "NOVALUE", &id, "true"]);
    shown.show(&["exec", "--cap", "CAP_NO_SUCH", &id, "true"]);
    shown.show(&["exec", "--console-socket", "/no/such", &id, "true"]);
    shown.show(&["exec", "-t", "-d", &id, "true"]);
    shown.show(&["exec", "-t", "--console-socket", "/no/such", &id, "true"]);
    shown.show(&["exec", "--pid-file", "/no/such/pid", &id, "true"]);
    let file = world.dir.join("process.json");
    for text in [
        "",
        "null",
        "[]",
        "{",
        "{}",
        r#"{"args":["true"]}"#,
        r#"{"cwd":"/","args":[],"user":{"uid":0,"gid":0}}"#,
        r#"{"cwd":"x","args":["true"],"user":{"uid":0,"gid":0}}"#,
        r#"{"cwd":"/","args":["true"],"user":{"uid":-1,"gid":0}}"#,
        r#"{"cwd":"/","args":["true"],"user":{"uid":0,"gid":0},"env":["X"]}"#,
        r#"{"cwd":"/","args":["true"],"user":{"uid":0,"gid":0}} x"#,
        r#"{"cwd":"/","args":["a\u0000b"],"user":{"uid":0,"gid":0}}"#,
        r#"{"cwd":"/","args":["true"],"user":{"uid":0,"gid":0},"env":["A=\u0000"]}"#,
    ] {
        fs::write(&file, text).unwrap();
        shown.say(&format!("# {text}"));
        shown.show(&["exec", "--process", file.to_str().unwrap(), &id]);
    }
    shown.show(&["exec", "--process", "/no/such/process.json", &id]);
    assert_eq!(world.status(&id), "running");
    world.ok(&["delete", "-f", &id]);
    shown.compare("exec_flags_that_are_wrong");
}

#[test]
fn what_is_logged() {
    let Some(world) = World::new("log") else { return };
    let mut shown = Shown::new(&world);
    let log = world.dir.join("log");
    let path = log.to_str().unwrap();
    let refused = world.bundle("true", |config| {
        config["ociVersion"] = json!("3.0");
        config["process"]["cwd"] = json!("relative \"quoted\"\nand broken");
    });
    for format in ["text", "json"] {
        for args in
            [vec!["state", "a"], vec!["delete", "a"], vec!["exec", "a", "true"], vec!["create", "-b", &refused, "a"]]
        {
            drop(fs::remove_file(&log));
            shown.show(&[&["--log", path, "--log-format", format], args.as_slice()].concat());
            let text = fs::read_to_string(&log).unwrap();
            assert_eq!(text.lines().count(), 1, "podman reads one object: {text}");
            if format == "json" {
                let line: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(line["level"], "error");
            }
            shown.say(&format!("log: {text}"));
        }
        drop(fs::remove_file(&log));
        shown.show(&["--log", path, "--log-format", format, "list"]);
        let text = fs::read_to_string(&log).unwrap_or_default();
        assert_eq!(text, "", "what went well is not logged");
        let bundle = world.bundle("exit 3", none);
        shown.show(&["--log", path, "--log-format", format, "run", "-b", &bundle, &world.id("a")]);
        assert_eq!(fs::read_to_string(&log).unwrap_or_default(), "", "a program's failure is not potrun's");
    }
    shown.compare("what_is_logged");
}

#[test]
fn create_arguments_that_are_wrong() {
    let Some(world) = World::new("create-bad") else { return };
    let mut shown = Shown::new(&world);
    let bundle = world.bundle("true", none);
    let before = world.snapshot();
    let id = world.id("a");
    shown.show(&["create", "-b", "/no/such/bundle", &id]);
    shown.show(&["create", "-b", "/dev/null", &id]);
    shown.show(&["create", "-b", "", &id]);
    shown.show(&["create", "-b", &bundle, "--pid-file", "/no/such/pid", &id]);
    shown.show(&["create", "-b", &bundle, "--pid-file", "/", &id]);
    shown.show(&["create", "-b", &bundle, "--console-socket", "/no/such/socket", &id]);
    shown.show(&["run", "-b", &bundle, "--pid-file", "/no/such/pid", &id]);
    let refused = world.bundle("true", |config| {
        config["ociVersion"] = json!("3.0");
        config["process"]["cwd"] = json!("relative");
        config["process"]["env"] = json!(["A"]);
        config["pot"] = json!({"base": {"release": "none"}, "nosuch": 1});
        config["hooks"] = json!({"createRuntime": [{"path": "relative", "timeout": 0}]});
    });
    shown.show(&["create", "-b", &refused, &id]);
    // Given twice: the caller's wrapper and the caller do not agree.
    shown.show(&["--root=/no/such", "list"]);
    assert_eq!(world.snapshot(), before);
    shown.compare("create_arguments_that_are_wrong");
}
