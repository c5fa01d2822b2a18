//! Names, stores and quotas that are wrong, at the command line: a clear error, and nothing is changed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};

use crate::util::World;

fn pot(config: &mut Value) {
    config["pot"] = json!({"base": {"release": "small"}, "dns": "off"});
}

#[test]
fn names_that_are_none_change_nothing() {
    let Some(world) = World::new("names-bad") else { return };
    world.base("small");
    world.ok(&["fscomp", "create", "data"]);
    let id = world.running("e", pot);
    world.ok(&["pause", &id]);
    let archive = world.dir.join("a.tar");
    fs::write(&archive, crate::base::Archive::default().file("f", "x").end()).unwrap();
    let (archive, bundle) = (archive.as_os_str(), world.dir.join("to"));
    let before = world.snapshot();
    let word = OsStr::new;
    let bad: [&[u8]; 10] =
        [b"a@b", b"a/b", b"../a", b"a b", b"%41", b"a\nb", b"\xff\xfe", b"", b".", "n\u{e4}me".as_bytes()];
    for name in bad.map(OsStr::from_bytes) {
        let calls: [&[&OsStr]; 8] = [
            &[word("base"), word("import"), name, archive],
            &[word("base"), word("rm"), name],
            &[word("fscomp"), word("create"), name],
            &[word("fscomp"), word("rm"), name],
            &[word("fscomp"), word("quota"), name, word("1m")],
            &[word("clone"), word("--bundle"), bundle.as_os_str(), word(&id), name],
            &[word("mount-in"), word("--fscomp"), word(&id), name, word("/mnt")],
            &[word("delete"), word("--data"), name],
        ];
        for args in calls {
            let outcome = world.run(args);
            assert!(matches!(outcome.code, Some(1 | 2)), "{args:?}: {outcome:?}");
            assert!(!outcome.stderr.contains("panicked") && outcome.stderr.len() > 20, "{args:?}: {outcome:?}");
            assert!(!bundle.exists(), "{args:?}");
            assert_eq!(world.snapshot(), before, "{args:?}");
        }
    }
    world.ok(&["delete", "--force", &id]);
}

#[test]
fn a_store_that_names_a_dataset_is_one() {
    let Some(world) = World::new("store-zfs") else { return };
    let mut command = std::process::Command::new(&world.potrun);
    command.args(["--store", "zfs:nosuchpool/pot", "info", "--format", "json"]).current_dir(&world.dir);
    let outcome = world.call(command);
    let told: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(told["store"]["driver"], "zfs");
    assert_eq!(told["store"]["dataset"], "nosuchpool/pot");
}

#[test]
fn a_quota_that_nobody_keeps_is_refused() {
    let Some(world) = World::new("quota") else { return };
    world.base("small");
    let before = world.snapshot();
    let limited = |config: &mut Value| {
        pot(config);
        config["pot"]["limits"] = json!({"disk": "8m"});
    };
    let plan = world.run(&["plan", &world.bundle("true", limited)]);
    if plan.code == Some(0) {
        println!("skipped: the file system of the tests keeps project quotas");
        return;
    }
    assert!(
        plan.stderr.contains("/pot/limits/disk: needs a ZFS store, or one on a file system that keeps"),
        "{plan:?}"
    );
    assert!(world.fails(1, &["fscomp", "create", "--quota", "1m", "data"]).contains("--quota needs a ZFS store"));
    for size in ["0", "-1", "1.5g", "x", "1t", "99999999999999999999"] {
        let outcome = world.run(&["fscomp", "create", &format!("--quota={size}"), "data"]);
        assert!(outcome.code == Some(2) && outcome.stderr.contains("whole number"), "{outcome:?}");
    }
    assert_eq!(world.snapshot(), before);
    // A volume without one cannot get one: what is in it is counted nowhere.
    world.ok(&["fscomp", "create", "data"]);
    world.fails(1, &["fscomp", "quota", "data", "1m"]);
    assert!(world.fails(1, &["fscomp", "quota", "none", "1m"]).contains("does not exist"));
}
