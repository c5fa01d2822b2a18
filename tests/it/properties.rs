//! Properties of config.json's `linux` section and of its process on the real kernel, which is the witness.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::{Value, json};

use crate::sys;
use crate::util::World;

fn none(_: &mut Value) {}

fn add_mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

// Mounts.

#[test]
fn a_tmpfs_copies_up_what_it_covers() {
    let Some(world) = World::new("copyup") else { return };
    let outside = world.dir.join("outside");
    fs::write(&outside, "of the host\n").unwrap();
    let script = "cd /t; stat -c '%n %F %a %u %g' . dir dir/file fifo link; cat dir/file; readlink link; \
        echo new > dir/file || echo cannot; cat dir/file";
    for (options, last) in [(json!(["tmpcopyup", "mode=700"]), "new"), (json!(["ro", "tmpcopyup"]), "below")] {
        let bundle = world.bundle(&format!("exec 2>/dev/null; {script}"), |config| {
            add_mount(config, json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": options}));
        });
        let t = Path::new(&bundle).join("rootfs/t");
        fs::create_dir_all(t.join("dir")).unwrap();
        fs::write(t.join("dir/file"), "below\n").unwrap();
        fs::set_permissions(t.join("dir/file"), fs::Permissions::from_mode(0o4750)).unwrap();
        chown(t.join("dir"), Some(5), Some(6)).unwrap();
        fs::set_permissions(&t, fs::Permissions::from_mode(0o1711)).unwrap();
        symlink(&outside, t.join("link")).unwrap();
        nix::unistd::mkfifo(&t.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let text = world.ok(&["run", "-b", &bundle, &world.id("a")]);
        let lines: Vec<&str> = text.lines().filter(|line| *line != "cannot").collect();
        assert_eq!(
            lines[..5],
            [
                ". directory 1711 0 0",
                "dir directory 755 5 6",
                "dir/file regular file 4750 0 0",
                "fifo fifo 600 0 0",
                "link symbolic link 777 0 0",
            ]
        );
        assert_eq!(lines[5..], ["below", outside.to_str().unwrap(), last], "{options}");
        assert_eq!(fs::read_to_string(t.join("dir/file")).unwrap(), "below\n");
    }
    let bundle = world.bundle("true", |config| {
        add_mount(config, json!({"destination": "/t", "type": "proc", "source": "proc", "options": ["tmpcopyup"]}));
    });
    let stderr = world.fails(1, &["create", "-b", &bundle, &world.id("b")]);
    assert!(stderr.contains("/mounts/4/options/0: is for a tmpfs only"), "{stderr}");
}

// Namespaces.

#[test]
fn a_user_namespace_of_another_is_joined() {
    let Some(world) = World::new("join-user") else { return };
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    let first = world.running("a", |config| {
        let kinds = ["mount", "pid", "ipc", "uts", "cgroup", "network", "user"];
        config["linux"]["namespaces"] = kinds.iter().map(|kind| json!({"type": kind})).collect();
        (config["linux"]["uidMappings"], config["linux"]["gidMappings"]) = (maps.clone(), maps.clone());
    });
    let pid = world.pid(&first);
    let link = |pid: i32, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let before = world.snapshot();
    for joined in [&["user"][..], &["user", "network", "ipc"], &["user", "pid", "network", "uts"]] {
        let second = world.running("b", |config| {
            let namespace = |kind: &&str| match joined.contains(kind) {
                true => json!({"type": kind, "path": format!("/proc/{pid}/ns/{}", kind.replace("network", "net"))}),
                false => json!({"type": kind}),
            };
            let kinds = ["mount", "pid", "ipc", "uts", "cgroup", "network", "user"];
            config["linux"]["namespaces"] = kinds.iter().map(namespace).collect();
        });
        for kind in ["user", "pid", "ipc", "uts", "net"] {
            let same = link(world.pid(&second), kind) == link(pid, kind);
            assert_eq!(same, joined.contains(&kind.replace("net", "network").as_str()), "{kind} {joined:?}");
        }
        assert_eq!(world.ok(&["exec", &second, "sh", "-c", "id -u"]), "0\n");
        let outside = fs::read_to_string(format!("/proc/{}/status", world.pid(&second))).unwrap();
        assert!(outside.contains("Uid:\t100000\t100000\t100000\t100000\n"), "{outside}");
        world.ok(&["delete", "-f", &second]);
        assert_eq!(world.snapshot(), before);
    }
}

#[test]
fn a_new_user_namespace_goes_with_a_network_that_is_the_hosts() {
    let Some(world) = World::new("user-net") else { return };
    let text = world.output("cat /proc/self/uid_map; readlink /proc/self/ns/net", |config| {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
        (config["linux"]["uidMappings"], config["linux"]["gidMappings"]) = (map.clone(), map);
        let path = format!("/proc/{}/ns/net", std::process::id());
        config["linux"]["namespaces"] =
            json!([{"type": "mount"}, {"type": "pid"}, {"type": "user"}, {"type": "network", "path": path}]);
    });
    let net = fs::read_link("/proc/self/ns/net").unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "10", net.to_str().unwrap()]);
}

#[test]
fn a_time_namespace_has_clocks_of_its_own() {
    let Some(world) = World::new("time") else { return };
    if !Path::new("/proc/self/ns/time").exists() {
        return println!("skipped: time: a kernel without time namespaces");
    }
    let uptime = |text: &str| text.split('.').next().unwrap().parse::<u64>().unwrap();
    let here = || uptime(&fs::read_to_string("/proc/uptime").unwrap());
    let id = world.running("a", |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        config["linux"]["timeOffsets"] =
            json!({"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 7, "nanosecs": 5}});
    });
    let before = here();
    let there = uptime(&world.ok(&["exec", &id, "cat", "/proc/uptime"]));
    assert!((1_000_000 + before..=1_000_000 + here()).contains(&there), "{there} is not a million after {before}");
    let pid = world.pid(&id);
    assert_eq!(
        world.ok(&["exec", &id, "cat", "/proc/1/timens_offsets"]).split_whitespace().collect::<Vec<_>>(),
        ["monotonic", "7", "5", "boottime", "1000000", "0",]
    );
    // Another container joins it.
    let text = world.output("cat /proc/uptime", |config| {
        let path = format!("/proc/{pid}/ns/time");
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time", "path": path}));
    });
    assert!(uptime(&text) >= 1_000_000, "{text}");
    let bundle = world.bundle("true", |config| {
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1}});
    });
    let stderr = world.fails(1, &["create", "-b", &bundle, &world.id("b")]);
    assert!(stderr.contains("/linux/timeOffsets/boottime: needs a time namespace of its own"), "{stderr}");
}

// How the kernel treats a process.

/// Nice value, real-time priority and policy of the shell (proc_pid_stat(5), fields 19, 40, 41).
const SCHEDULING: &str = "read line < /proc/self/stat; set -- ${line##*) }; echo ${17} ${38} ${39}; \
    ionice -p $$; taskset -p $$; cat /proc/self/personality; uname -m; grep -q ' bind:0 ' /proc/self/numa_maps && echo bound";

#[test]
fn scheduler_priorities_personality_and_memory_policy() {
    let Some(world) = World::new("tuning") else { return };
    if !Path::new("/proc/self/numa_maps").exists() {
        return println!("skipped: tuning: a kernel without NUMA");
    }
    let script = SCHEDULING.replace("ionice", "/bin/busybox ionice").replace("taskset", "/bin/busybox taskset");
    let text = world.output(&script, |config| {
        config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5,
            "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
        config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
        config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
        config["linux"]["personality"] = json!({"domain": "LINUX32"});
        config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
    });
    let lines: Vec<&str> = text.lines().collect();
    // 3 is SCHED_BATCH; affinity is for exec alone.
    assert_eq!(lines[..2], ["5 0 3", "best-effort: prio 6"], "{text}");
    let all = format!("{:x}", (1_u64 << std::thread::available_parallelism().unwrap().get()) - 1);
    assert!(lines[2].ends_with(&format!("mask: {all}")), "{text}");
    assert_eq!(lines[3..], ["00000008", "i686", "bound"], "{text}");
}

#[test]
fn exec_takes_them_from_its_process_and_its_affinity_too() {
    let Some(world) = World::new("exec-tuning") else { return };
    let id = world.running("a", |config| {
        config["process"]["execCPUAffinity"] = json!({"initial": "1", "final": "0"});
        config["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": 3});
    });
    let own = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    if !own.is_set(0).unwrap() || !own.is_set(1).unwrap() {
        return println!("skipped: exec-tuning: not on two processors");
    }
    let text = world
        .run(&["exec", &id, "sh", "-c", &SCHEDULING.replace("ionice -p $$; taskset", "/bin/busybox taskset")])
        .stdout;
    assert!(text.starts_with("3 0 0\n") && text.contains("mask: 1\n"), "{text}");
    let process = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["/bin/busybox", "taskset", "-p", "1"],
        "execCPUAffinity": {"final": "9999"}});
    let file = world.dir.join("process.json");
    fs::write(&file, process.to_string()).unwrap();
    let stderr = world.fails(255, &["exec", "--process", file.to_str().unwrap(), &id]);
    assert!(stderr.contains("/process/execCPUAffinity/final: \"9999\" is not a list of processors"), "{stderr}");
}

#[test]
fn words_that_are_none_are_refused_where_they_stand() {
    let Some(world) = World::new("tuning-refused") else { return };
    let bundle = world.bundle("true", |config| {
        config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 8});
        config["process"]["scheduler"] = json!({"policy": "SCHED_FIFO", "priority": -1});
        config["linux"]["personality"] = json!({"domain": "LINUX", "flags": ["X"]});
        config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "x"});
    });
    let stderr = world.fails(1, &["create", "-b", &bundle, &world.id("a")]);
    for at in [
        "/linux/memoryPolicy/nodes: \"x\" is not",
        "/linux/personality/flags: ",
        "/process/ioPriority/priority: 8 is not one of 0 to 7",
        "/process/scheduler/priority: must not be negative",
    ] {
        assert!(stderr.contains(at), "{at}: {stderr}");
    }
    world.output("true", none);
}

// Mounts whose owners are mapped.

#[test]
fn an_idmapped_mount_shows_other_owners() {
    let Some(world) = World::new("idmap") else { return };
    let volume = world.shared("volume");
    fs::create_dir(&volume).unwrap();
    for uid in [0, 5] {
        fs::write(volume.join(uid.to_string()), "").unwrap();
        chown(volume.join(uid.to_string()), Some(uid), Some(uid)).unwrap();
    }
    let map = |inside: u32, outside: u32| json!([{"containerID": inside, "hostID": outside, "size": 10}]);
    let script = "stat -c '%n %u %g' /mnt/*; if echo x 2>/dev/null > /mnt/new; then stat -c '%u' /mnt/new; fi";
    // Maps of its own: what is 0 to 9 in the file system is 1000 to 1009 here.
    let text = world.output(script, |config| {
        config["process"]["user"] = json!({"uid": 1003, "gid": 1003});
        add_mount(
            config,
            json!({"destination": "/mnt", "type": "bind", "source": volume, "options": ["rbind"],
            "uidMappings": map(0, 1000), "gidMappings": map(0, 1000)}),
        );
    });
    assert_eq!(text, "/mnt/0 1000 1000\n/mnt/5 1005 1005\n", "a user who is not the owner of /mnt cannot write");
    // Those of the container's user namespace: root of the file system is root inside.
    let text = world.output(script, |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = map(0, 100_000);
        config["linux"]["gidMappings"] = map(0, 100_000);
        add_mount(
            config,
            json!({"destination": "/mnt", "type": "bind", "source": volume, "options": ["bind", "ridmap"]}),
        );
    });
    assert_eq!(text, "/mnt/0 0 0\n/mnt/5 5 5\n0\n");
    assert_eq!(fs::metadata(volume.join("new")).unwrap().uid(), 0, "on the file system it is root's");
    for (mount, at) in [
        (json!({"options": ["bind", "idmap"]}), "/mounts/4/uidMappings: is required"),
        (json!({"options": ["bind"], "uidMappings": map(0, 5)}), "/mounts/4/gidMappings: is required beside the other"),
        (json!({"type": "tmpfs", "uidMappings": map(0, 5), "gidMappings": map(0, 5)}), "/mounts/4: only a bind mount"),
    ] {
        let bundle = world.bundle("true", |config| {
            let mut whole = json!({"destination": "/mnt", "type": "bind", "source": volume});
            mount.as_object().unwrap().iter().for_each(|(name, value)| whole[name] = value.clone());
            add_mount(config, whole);
        });
        let stderr = world.fails(1, &["create", "-b", &bundle, &world.id("b")]);
        assert!(stderr.contains(at), "{at}: {stderr}");
    }
}

// The filter that asks.

#[test]
fn an_agent_answers_for_the_filter() {
    let Some(world) = World::new("notify") else { return };
    let path = world.dir.join("agent.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let id = world.id("a");
    let bundle =
        world.bundle("mkdir /tmp/made 2>/dev/null || echo denied > /shared/result; exec sleep 100000", |config| {
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "to the agent",
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
            });
        });
    let result = world.fifo("result");
    world.ok(&["create", "-b", &bundle, &id]);
    let pid = world.pid(&id);
    world.ok(&["start", &id]);
    let (listener, text) = sys::receive_fd(socket.accept().unwrap().0.as_fd()).unwrap();
    let state: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&state["pid"], &state["metadata"]), (&json!(pid), &json!("to the agent")), "{state}");
    assert_eq!((&state["fds"], &state["state"]["id"]), (&json!(["seccompFd"]), &json!(id)), "{state}");
    sys::deny_one(&listener, libc::EACCES).unwrap();
    assert_eq!(result.line(), "denied");
    world.ok(&["delete", "--force", &id]);
    // Without an agent there is no container.
    drop(socket);
    fs::remove_file(&path).unwrap();
    let stderr = world.fails(1, &["create", "-b", &bundle, &id]);
    assert!(stderr.contains("agent.sock: No such file or directory"), "{stderr}");
    let bundle = world.bundle("true", |config| {
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    });
    let stderr = world.fails(1, &["create", "-b", &bundle, &id]);
    assert!(stderr.contains("/linux/seccomp/listenerPath: is required where"), "{stderr}");
}
