//! `mount-in` and `mount-out` on the real kernel.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::crash::{End, killed_at};
use crate::util::{World, wait_for_end};

fn none(_: &mut Value) {}

fn pot(config: &mut Value) {
    config["pot"] = json!({"base": {"release": "small"}, "dns": "off"});
}

/// A directory of the host, with a file.
fn data(world: &World) -> String {
    let path = world.dir.join("data");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), "text\n").unwrap();
    path.to_str().unwrap().into()
}

#[test]
fn a_directory_comes_and_goes_while_the_container_runs() {
    let Some(world) = World::new("mount-in") else { return };
    world.base("small");
    let before = world.snapshot();
    let data = data(&world);
    for (name, edit) in [("plain", none as fn(&mut Value)), ("pot", pot)] {
        let id = world.running(name, edit);
        world.ok(&["mount-in", &id, &data, "/mnt/new/deep"]);
        assert_eq!(world.ok(&["exec", &id, "cat", "/mnt/new/deep/file"]), "text\n");
        world.ok(&["exec", &id, "touch", &format!("/mnt/new/deep/{name}")]);
        assert!(fs::exists(format!("{data}/{name}")).unwrap());
        let seen = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!seen.contains("/mnt/new/deep"), "the host sees the mount");
        assert!(world.fails(1, &["mount-in", &id, &data, "/mnt/new/deep"]).contains("already"));

        world.ok(&["mount-in", "--ro", &id, &format!("{data}/file"), "/etc/one"]);
        assert_eq!(world.ok(&["exec", &id, "cat", "/etc/one"]), "text\n");
        let outcome = world.run(&["exec", &id, "sh", "-c", "echo >/etc/one"]);
        assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
        assert_eq!(fs::read_to_string(format!("{data}/file")).unwrap(), "text\n");

        world.ok(&["mount-out", &id, "/mnt/new/deep"]);
        world.ok(&["mount-out", &id, "/etc/one"]);
        assert_eq!(world.ok(&["exec", &id, "ls", "/mnt/new/deep"]), "");
        assert!(world.fails(1, &["mount-out", &id, "/mnt/new/deep"]).contains("nothing of the host"));
        // What create has mounted goes, too.
        world.ok(&["mount-out", &id, "/shared"]);
        assert_eq!(world.ok(&["exec", &id, "ls", "/shared"]), "");
        // One that stays until the end is no obstacle to it.
        world.ok(&["mount-in", &id, &data, "/mnt"]);
        let pid = world.pid(&id);
        world.ok(&["kill", &id, "KILL"]);
        wait_for_end(pid);
        assert!(world.fails(1, &["mount-in", &id, &data, "/mnt"]).contains("stopped"));
        world.ok(&["delete", &id]);
        assert_eq!(fs::read_to_string(format!("{data}/file")).unwrap(), "text\n");
    }
    world.settles(&before);
}

#[test]
fn saved_mounts_are_in_the_bundle() {
    let Some(world) = World::new("mount-save") else { return };
    world.base("small");
    let data = data(&world);
    for (n, (name, edit)) in [("plain", none as fn(&mut Value)), ("pot", pot)].into_iter().enumerate() {
        let id = world.running(name, edit);
        let path = world.dir.join(format!("bundle{n}/config.json"));
        let config = || serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap();
        let before = config();
        world.ok(&["mount-in", "--save", "--ro", &id, &data, "/mnt"]);
        let saved = config();
        let entry = match name {
            "pot" => saved["pot"]["directories"].as_array().unwrap().last(),
            _ => saved["mounts"].as_array().unwrap().last(),
        };
        assert_eq!(entry.unwrap()["destination"], "/mnt");
        // The next create has it.
        let next = world.id(&format!("{name}-next"));
        let bundle = path.parent().unwrap().to_str().unwrap();
        world.ok(&["create", "-b", bundle, &next]);
        world.ok(&["copy-out", &next, "/mnt/file", world.dir.join(format!("got-{name}")).to_str().unwrap()]);
        assert!(world.fails(1, &["copy-in", &next, &format!("{data}/file"), "/mnt/x"]).contains("Read-only"));
        world.ok(&["delete", "--force", &next]);
        world.ok(&["mount-out", "--save", &id, "/mnt"]);
        let after = config();
        assert_eq!(after["mounts"], before["mounts"]);
        assert_eq!(after["pot"]["base"], before["pot"]["base"]);
        // A bundle that cannot be written leaves no mount.
        fs::remove_file(&path).unwrap();
        world.fails(1, &["mount-in", "--save", &id, &data, "/mnt"]);
        assert_eq!(world.ok(&["exec", &id, "ls", "/mnt"]), "");
        world.ok(&["delete", "--force", &id]);
    }
}

#[test]
fn no_link_leads_a_mount_out_or_over_what_is_the_kernels() {
    let Some(world) = World::new("mount-links") else { return };
    let data = data(&world);
    let outside = world.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    let id = world.running("l", none);
    let root = world.dir.join("bundle0/rootfs");
    symlink(&outside, root.join("tmp/absolute")).unwrap();
    symlink(format!("{}{}", "../".repeat(12), outside.display()), root.join("tmp/relative")).unwrap();
    symlink("/proc", root.join("tmp/proc")).unwrap();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for target in ["/tmp/absolute", "/tmp/relative", "/tmp/relative/new"] {
        // Inside the root, or not at all.
        let outcome = world.run(&["mount-in", &id, &data, target]);
        assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{target}");
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before, "{target}");
    }
    for target in ["/proc", "/proc/sys", "/tmp/proc/sys", "/proc/1/attr"] {
        world.fails(1, &["mount-in", &id, &data, target]);
    }
    for target in ["/", "tmp", "/tmp/../etc", "/tmp/./.."] {
        assert!(world.fails(1, &["mount-in", &id, &data, target]).contains("no absolute path"), "{target}");
    }
    assert!(world.fails(1, &["mount-in", &id, "/nowhere", "/tmp"]).contains("No such file"));
    world.ok(&["mount-in", &id, &data, "/mnt"]);
    world.ok(&["delete", "--force", &id]);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

#[test]
fn both_can_die_at_any_moment() {
    let Some(world) = World::new("mount-crash") else { return };
    let data = data(&world);
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let (before, table) = (world.snapshot(), mounts());
    for verb in ["mount-in", "mount-out"] {
        // Every third moment: each is a container of its own.
        for n in (1..).step_by(3) {
            let id = world.running(&format!("{verb}{n}"), none);
            let args = if verb == "mount-in" {
                vec![verb, id.as_str(), data.as_str(), "/mnt"]
            } else {
                world.ok(&["mount-in", &id, &data, "/mnt"]);
                vec![verb, id.as_str(), "/mnt"]
            };
            let end = killed_at(&world, &args, n);
            // Whatever happened, it can be taken away, once or not at all, and comes again.
            drop(world.run(&["mount-out", &id, "/mnt"]));
            world.ok(&["mount-in", &id, &data, "/mnt"]);
            assert_eq!(world.ok(&["exec", &id, "cat", "/mnt/file"]), "text\n", "{verb} moment {n}, {end:?}");
            world.ok(&["delete", "--force", &id]);
            fs::remove_file(world.shared(&format!("{verb}{n}-begun"))).unwrap();
            world.settles(&before);
            assert_eq!(mounts(), table, "{verb} moment {n}, {end:?}");
            assert_eq!(fs::read_to_string(format!("{data}/file")).unwrap(), "text\n");
            if let End::Exited(code) = end {
                assert_eq!(code, 0, "{verb}");
                break;
            }
        }
    }
}

#[test]
fn a_volume_is_mounted_by_its_name() {
    let Some(world) = World::new("mount-fscomp") else { return };
    world.base("small");
    world.ok(&["fscomp", "create", "data"]);
    fs::write(world.store().join("fscomps/data/file"), "text\n").unwrap();
    for (name, edit) in [("plain", none as fn(&mut Value)), ("pot", pot)] {
        let id = world.running(name, edit);
        world.ok(&["mount-in", "--fscomp", "--ro", "--save", &id, "data", "/mnt"]);
        assert_eq!(world.ok(&["exec", &id, "cat", "/mnt/file"]), "text\n");
        assert!(world.fails(1, &["fscomp", "rm", "data"]).contains("in use"));
        let bundle = world.state(&id)["bundle"].as_str().unwrap().to_owned();
        let config = || serde_json::from_slice::<Value>(&fs::read(format!("{bundle}/config.json")).unwrap()).unwrap();
        if name == "pot" {
            let saved = json!([{"name": "data", "destination": "/mnt", "readonly": true}]);
            assert_eq!(config()["pot"]["fscomps"], saved);
            assert!(config()["pot"].get("directories").is_none());
        }
        world.ok(&["mount-out", "--save", &id, "/mnt"]);
        assert!(!config().to_string().contains("/mnt"), "{}", config());
        for wrong in ["no", "../data", "a b", "%"] {
            assert!(world.fails(1, &["mount-in", "--fscomp", &id, wrong, "/mnt"]).contains("fscomp"), "{wrong}");
        }
        world.ok(&["delete", "--force", &id]);
    }
}
