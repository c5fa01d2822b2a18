//! The systemd driver: what potrun says to the manager, who here is a server of the test's own that speaks the bus's
//! protocol and makes the groups as systemd does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::json;
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{LE, to_bytes};
use zbus::{DynamicType, ObjectPath, OwnedVariant, Signature, Variant};

use crate::util::{World, wait_for_end};

type Properties = Vec<(String, OwnedVariant)>;

/// What the manager was asked for, and its units: name to description and group.
#[derive(Default)]
struct Seen {
    calls: Vec<String>,
    started: Properties,
    set: Properties,
    units: BTreeMap<String, (String, PathBuf)>,
    /// How jobs end.
    result: String,
}

struct Manager {
    socket: PathBuf,
    /// Its group, below the hierarchy.
    group: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

impl Manager {
    fn start(world: &World) -> Self {
        let socket = world.dir.join("bus");
        let group = world.cgroup2.join(format!("{}-manager", world.token));
        let seen = Arc::new(Mutex::new(Seen { result: "done".into(), ..Seen::default() }));
        let listener = UnixListener::bind(&socket).unwrap();
        fs::create_dir(&group).unwrap();
        let (there, all) = (group.clone(), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(&mut stream.unwrap(), &there, &all);
            }
        });
        Self { socket, group, seen }
    }

    /// potrun with the systemd driver and this manager.
    fn command(&self, world: &World, args: &[&str]) -> Command {
        let mut all = vec!["--systemd-cgroup"];
        all.extend(args);
        let mut command = world.command(&all);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", self.socket.display()));
        command
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap().calls)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        fn remove(dir: &std::path::Path) {
            for item in fs::read_dir(dir).into_iter().flatten().flatten().filter(|item| item.path().is_dir()) {
                remove(&item.path());
            }
            drop(fs::remove_dir(dir));
        }
        remove(&self.group);
    }
}

/// One connection, to its end.
fn serve(stream: &mut UnixStream, group: &std::path::Path, seen: &Mutex<Seen>) {
    let mut line = Vec::new();
    let mut read_line = |stream: &mut UnixStream| {
        line.clear();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            line.extend(byte);
        }
        String::from_utf8(line.clone()).unwrap()
    };
    assert_eq!(read_line(stream), "\0AUTH EXTERNAL\r\n");
    stream.write_all(b"DATA\r\n").unwrap();
    assert_eq!(read_line(stream), "DATA\r\n");
    stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").unwrap();
    assert_eq!(read_line(stream), "BEGIN\r\n");
    let mut start = [0; 16];
    while stream.read_exact(&mut start).is_ok() {
        answer(stream, &start, group, seen);
    }
}

type Header<'a> = (u8, u8, u8, u8, u32, u32, Vec<(u8, Variant<'a>)>);

fn answer(stream: &mut UnixStream, start: &[u8; 16], group: &std::path::Path, seen: &Mutex<Seen>) {
    let context = Context::new(LE, 0);
    assert_eq!((start[0], start[1], start[3]), (b'l', 1, 1), "a call of version 1 from this machine");
    let number = |at: usize| u32::from_le_bytes(start[at..at + 4].try_into().unwrap()) as usize;
    let (length, serial, fields) = (number(4), number(8) as u32, number(12));
    let mut bytes = start.to_vec();
    let begin = (16 + fields).next_multiple_of(8);
    bytes.resize(begin + length, 0);
    stream.read_exact(&mut bytes[16..]).unwrap();
    let body = bytes.split_off(begin);
    let data = Data::new(&bytes, context);
    let (header, _): (Header<'_>, _) = data.deserialize().unwrap();
    let text = |code: u8| {
        let field = header.6.iter().find(|(one, _)| *one == code);
        field.and_then(|(_, value)| <&str>::try_from(value).ok()).unwrap_or_default().to_string()
    };
    let (member, service) = (text(3), text(6));
    let body = Data::new(&body, context);
    let mut seen = seen.lock().unwrap();
    let job = ObjectPath::try_from("/org/freedesktop/systemd1/job/7").unwrap();
    let missing = |stream: &mut UnixStream| {
        let name = "org.freedesktop.systemd1.NoSuchUnit";
        send(stream, 3, &[(5, Variant::from(serial)), (4, Variant::from(name))], &("not loaded",));
    };
    let mut ended = None;
    match (service.as_str(), member.as_str()) {
        ("org.freedesktop.DBus", "Hello") => reply(stream, serial, &(":1.1",)),
        ("org.freedesktop.DBus", "AddMatch") => {
            let (rule,): (String,) = body.deserialize().unwrap().0;
            assert!(rule.contains("member='JobRemoved'") && rule.contains("type='signal'"), "{rule}");
            reply(stream, serial, &());
        }
        ("org.freedesktop.systemd1", "Subscribe") => reply(stream, serial, &()),
        ("org.freedesktop.systemd1", "Get") => {
            let (_, name): (String, String) = body.deserialize().unwrap().0;
            let value = match name.as_str() {
                "ControlGroup" => format!("/{}", group.file_name().unwrap().display()),
                "Description" => seen.units.values().next().unwrap().0.clone(),
                other => panic!("property {other}"),
            };
            seen.calls.push(format!("Get {name}"));
            reply(stream, serial, &(Variant::from(value),));
        }
        ("org.freedesktop.systemd1", "StartTransientUnit") => {
            type Start = (String, String, Properties, Vec<(String, Properties)>);
            let (name, mode, properties, more): Start = body.deserialize().unwrap().0;
            assert!(mode == "replace" && more.is_empty());
            let value = |wanted: &str| &properties.iter().find(|(one, _)| one == wanted).unwrap().1;
            let slice = String::try_from(value("Slice").try_clone().unwrap()).unwrap();
            let pids = Vec::<u32>::try_from(value("PIDs").try_clone().unwrap()).unwrap();
            let description = String::try_from(value("Description").try_clone().unwrap()).unwrap();
            // a-b.slice lies in a.slice.
            let at = group.join("test.slice").join(&slice).join(&name);
            fs::create_dir_all(&at).unwrap();
            pids.iter().for_each(|pid| fs::write(at.join("cgroup.procs"), pid.to_string()).unwrap());
            seen.calls.push(format!("StartTransientUnit {name} {slice} {}", pids.len()));
            seen.units.insert(name.clone(), (description, at));
            seen.started = properties;
            reply(stream, serial, &(&job,));
            ended = Some(name);
        }
        ("org.freedesktop.systemd1", "GetUnit") => {
            let (name,): (String,) = body.deserialize().unwrap().0;
            match seen.units.contains_key(&name) {
                true => reply(stream, serial, &(ObjectPath::try_from("/org/freedesktop/systemd1/unit/x").unwrap(),)),
                false => missing(stream),
            }
        }
        ("org.freedesktop.systemd1", "StopUnit") => {
            let (name, mode): (String, String) = body.deserialize().unwrap().0;
            assert_eq!(mode, "replace");
            let (_, at) = seen.units.remove(&name).unwrap();
            seen.calls.push(format!("StopUnit {name}"));
            // All that was in it has been killed by now. Slices end with the last unit in them.
            fs::remove_dir(&at).unwrap();
            at.ancestors()
                .skip(1)
                .take_while(|above| above.starts_with(group) && *above != group)
                .for_each(|above| drop(fs::remove_dir(above)));
            reply(stream, serial, &(&job,));
            ended = Some(name);
        }
        ("org.freedesktop.systemd1", "ResetFailedUnit") => missing(stream),
        ("org.freedesktop.systemd1", "SetUnitProperties") => {
            let (name, runtime, properties): (String, bool, Properties) = body.deserialize().unwrap().0;
            assert!(runtime);
            seen.calls.push(format!("SetUnitProperties {name}"));
            seen.set = properties;
            reply(stream, serial, &());
        }
        other => panic!("{other:?}"),
    }
    if let Some(name) = ended {
        let fields = [
            (1, Variant::from(ObjectPath::try_from("/org/freedesktop/systemd1").unwrap())),
            (2, Variant::from("org.freedesktop.systemd1.Manager")),
            (3, Variant::from("JobRemoved")),
        ];
        // Somebody else's job ends, too.
        let other = ObjectPath::try_from("/org/freedesktop/systemd1/job/6").unwrap();
        send(stream, 4, &fields, &(6_u32, other, "other.scope", "failed"));
        let result = seen.result.clone();
        send(stream, 4, &fields, &(7_u32, job, name, result));
    }
}

fn reply<B: serde::Serialize + DynamicType>(stream: &mut UnixStream, serial: u32, body: &B) {
    send(stream, 2, &[(5, Variant::from(serial))], body);
}

fn send<B: serde::Serialize + DynamicType>(stream: &mut UnixStream, kind: u8, fields: &[(u8, Variant<'_>)], body: &B) {
    let context = Context::new(LE, 0);
    let signature = body.signature().to_string_no_parens();
    let body = if signature.is_empty() { Vec::new() } else { to_bytes(context, body).unwrap().bytes().to_vec() };
    // A signature of one type is one for `Variant`, too; potrun does without those of several.
    let mut fields: Vec<(u8, Variant<'_>)> =
        fields.iter().map(|(code, value)| (*code, value.try_clone().unwrap())).collect();
    if let Ok(signature) = Signature::try_from(signature.as_str())
        && !matches!(signature, Signature::Structure(_) | Signature::Unit)
    {
        fields.push((8, Variant::from(signature)));
    }
    let header = (b'l', kind, 0_u8, 1_u8, body.len() as u32, 1_u32, fields);
    let mut bytes = to_bytes(context, &header).unwrap().bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(body);
    stream.write_all(&bytes).unwrap();
}

/// A property, as text.
fn property(all: &Properties, name: &str) -> String {
    // The last one is what systemd keeps.
    match all.iter().rfind(|(one, _)| one == name).map(|(_, value)| &**value) {
        None => String::new(),
        Some(Variant::Bool(value)) => value.to_string(),
        Some(Variant::U64(value)) => value.to_string(),
        Some(Variant::Str(value)) => value.to_string(),
        Some(Variant::I32(value)) => format!("int32 {value}"),
        Some(Variant::Array(all)) => {
            let text = |one: &Variant<'_>| match one {
                Variant::Structure(tuple) => format!("{:?}", tuple.fields()),
                other => String::try_from(other.try_clone().unwrap()).unwrap(),
            };
            format!("{} {}", all.signature(), all.iter().map(text).collect::<Vec<_>>().join(","))
        }
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_container_is_a_scope_of_its_slice_and_ends_with_it() {
    let Some(world) = World::new("scope") else { return };
    let manager = Manager::start(&world);
    let bundle = world.bundle("sleep 1000", |config| {
        config["linux"]["cgroupsPath"] = json!("test-a.slice:libpod:abc");
    });
    let id = world.id("a");
    let outcome = world.call(manager.command(&world, &["create", "-b", &bundle, &id]));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(manager.calls(), ["Get ControlGroup", "StartTransientUnit libpod-abc.scope test-a.slice 1"]);
    {
        let seen = manager.seen.lock().unwrap();
        let is = |name: &str, value: &str| assert_eq!(property(&seen.started, name), value, "{name}");
        is("Delegate", "true");
        is("DefaultDependencies", "false");
        is("Description", &format!("potrun container {id}"));
        is("MemoryAccounting", "true");
        is("TasksMax", "");
    }
    let state: serde_json::Value = serde_json::from_str(&world.ok(&["state", &id])).unwrap();
    let scope = manager.group.join("test.slice/test-a.slice/libpod-abc.scope");
    // The placeholder is gone, the first process is there.
    assert_eq!(fs::read_to_string(scope.join("cgroup.procs")).unwrap(), format!("{}\n", state["pid"]));
    world.ok(&["start", &id]);
    // As podman calls it: without the flag. Where there is no controller no limit is taken, and systemd is told of none.
    let mut update = world.command(&["update", "--pids-limit", "7", &id]);
    update.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", manager.socket.display()));
    let outcome = world.call(update);
    let has_pids = fs::read_to_string(world.cgroup2.join("cgroup.controllers")).unwrap().contains("pids");
    if has_pids {
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert_eq!(property(&manager.seen.lock().unwrap().set, "TasksMax"), "7");
    } else {
        assert!(outcome.stderr.contains("/linux/resources/pids/limit"), "{outcome:?}");
    }
    manager.calls();
    let outcome = world.call(manager.command(&world, &["delete", "-f", &id]));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(manager.calls(), ["Get Description", "StopUnit libpod-abc.scope"]);
    assert!(!scope.exists());
    wait_for_end(i32::try_from(state["pid"].as_i64().unwrap()).unwrap());
}

#[test]
fn a_scope_has_the_properties_that_annotations_give_it() {
    let Some(world) = World::new("scope-properties") else { return };
    let manager = Manager::start(&world);
    let annotated = |more: serde_json::Value| {
        world.bundle("true", |config| {
            config["linux"]["cgroupsPath"] = json!("test-a.slice:libpod:abc");
            config["annotations"] = more.clone();
        })
    };
    let bundle = annotated(json!({
        "org.systemd.property.TimeoutStopSec": "1.5",
        "org.systemd.property.KillSignal": "15",
        "org.systemd.property.CollectMode": "'inactive'",
        "org.systemd.property.DefaultDependencies": "true",
        "org.systemd.property.After": "['a.service', 'b.service']",
        "org.systemd.property.DeviceAllow": "[('/dev/null', 'rw')]",
        "org.systemd.properties": "none",
    }));
    let id = world.id("a");
    let outcome = world.call(manager.command(&world, &["create", "-b", &bundle, &id]));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    {
        let seen = manager.seen.lock().unwrap();
        let is = |name: &str, value: &str| assert_eq!(property(&seen.started, name), value, "{name}");
        is("TimeoutStopUSec", "1500000");
        is("TimeoutStopSec", "");
        is("KillSignal", "int32 15");
        is("CollectMode", "inactive");
        is("DefaultDependencies", "true");
        is("After", "as a.service,b.service");
        assert!(property(&seen.started, "DeviceAllow").starts_with("a(ss) "), "{:?}", seen.started);
        is("Description", &format!("potrun container {id}"));
    }
    let outcome = world.call(manager.command(&world, &["delete", "-f", &id]));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    // All that is wrong is said at once, and nobody is asked for a unit.
    manager.calls();
    let wrong = json!({
        "org.systemd.property.CollectMode": "inactive",
        "org.systemd.property.Slice": "'other.slice'",
        "org.systemd.property.TimeoutStopSec": "1",
        "org.systemd.property.TimeoutStopUSec": "uint64 1",
        "org.systemd.property.a/b": "1",
    });
    let bundle = annotated(wrong.clone());
    let outcome = world.call(manager.command(&world, &["create", "-b", &bundle, &id]));
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    for name in ["CollectMode", "Slice", "TimeoutStopUSec", "a~1b"] {
        assert!(outcome.stderr.contains(&format!("/annotations/org.systemd.property.{name}: ")), "{name}: {outcome:?}");
    }
    assert_eq!(manager.calls(), ["Get ControlGroup"]);
    // Without a unit they are nobody's.
    let bundle = world.bundle("true", |config| config["annotations"] = wrong.clone());
    world.ok(&["run", "-b", &bundle, &id]);
}

#[test]
fn a_scope_of_somebody_else_is_left_alone() {
    let Some(world) = World::new("scope-other") else { return };
    let manager = Manager::start(&world);
    let bundle = world.bundle("true", |config| config["linux"]["cgroupsPath"] = json!("test-a.slice:libpod:abc"));
    let id = world.id("a");
    let outcome = world.call(manager.command(&world, &["create", "-b", &bundle, &id]));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    for unit in manager.seen.lock().unwrap().units.values_mut() {
        unit.0 = "another".into();
    }
    manager.calls();
    let outcome = world.call(manager.command(&world, &["delete", "-f", &id]));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(manager.calls(), ["Get Description"]);
}

#[test]
fn a_scope_that_does_not_start_leaves_nothing() {
    let Some(world) = World::new("scope-fails") else { return };
    let manager = Manager::start(&world);
    manager.seen.lock().unwrap().result = "failed".into();
    let before = world.snapshot();
    let bundle = world.bundle("true", |config| config["linux"]["cgroupsPath"] = json!("test-a.slice:libpod:abc"));
    let outcome = world.call(manager.command(&world, &["create", "-b", &bundle, &world.id("a")]));
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("libpod-abc.scope") && outcome.stderr.contains("\"failed\""), "{outcome:?}");
    assert_eq!(world.snapshot(), before);
    // Nor does one that systemd is not there for.
    let mut command = world.command(&["--systemd-cgroup", "create", "-b", &bundle, &world.id("b")]);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}/none", world.dir.display()));
    let outcome = world.call(command);
    assert!(outcome.code == Some(1) && outcome.stderr.contains("connect to systemd"), "{outcome:?}");
    // The names of systemd are not paths.
    for path in ["/a/b", "a:b", "a.slice:b:../c", "test.slice:b:c.slice"] {
        let bundle = world.bundle("true", |config| config["linux"]["cgroupsPath"] = json!(path));
        let outcome = world.call(manager.command(&world, &["create", "-b", &bundle, &world.id("c")]));
        assert!(outcome.code == Some(1) && outcome.stderr.contains("/linux/cgroupsPath"), "{path}: {outcome:?}");
    }
    assert_eq!(world.snapshot(), before);
}
