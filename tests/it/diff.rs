//! `diff` on the real kernel.

use std::fs;

use serde_json::{Value, json};

use crate::util::World;

fn pot(config: &mut Value) {
    config["pot"] = json!({
        "base": {"release": "small"}, "hosts": [{"address": "192.0.2.1", "name": "x"}],
        "dns": {"nameservers": ["192.0.2.2"]},
    });
}

/// What a script changes in a pot.
fn changes(world: &World, name: &str, script: &str) -> Vec<String> {
    let id = world.id(name);
    world.ok(&["create", "-b", &world.bundle(script, pot), &id]);
    assert_eq!(world.ok(&["diff", &id]), "", "create's own work is no change");
    let pid = world.pid(&id);
    world.ok(&["start", &id]);
    crate::util::wait_for_end(pid);
    let lines: Vec<String> = world.ok(&["diff", &id]).lines().map(Into::into).collect();
    let told: Value = serde_json::from_str(&world.ok(&["diff", "--format", "json", &id])).unwrap();
    let told: Vec<String> = told
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {}", one["kind"].as_str().unwrap(), one["path"].as_str().unwrap()))
        .collect();
    assert_eq!(lines, told);
    world.ok(&["delete", &id]);
    lines
}

#[test]
fn changed_paths_are_told() {
    let Some(world) = World::new("diff") else { return };
    world.base("small");
    let before = world.snapshot();
    assert_eq!(changes(&world, "nothing", "true"), Vec::<String>::new());
    let script = "echo >/etc/new; echo >>/etc/base; rm /bin/wc; mkdir -p /a/b; chmod 600 /etc/passwd";
    assert_eq!(
        changes(&world, "some", script),
        ["A /a", "A /a/b", "C /bin", "D /bin/wc", "C /etc", "C /etc/base", "A /etc/new", "C /etc/passwd"]
    );
    // What create has made counts once it is touched.
    assert_eq!(changes(&world, "hosts", "echo >>/etc/hosts"), ["A /etc/hosts"]);
    // A directory in the place of another hides what was there (opaque), and other kinds change places.
    let script = "rm -r /etc; mkdir /etc; echo >/etc/base; rm /bin/ls; mkdir /bin/ls; rm -r /mnt; echo >/mnt";
    assert_eq!(
        changes(&world, "kinds", script),
        ["C /bin", "C /bin/ls", "C /etc", "C /etc/base", "D /etc/passwd", "C /mnt"]
    );
    // A directory that moves, by redirect or by copy, as the kernel does it.
    let script = "mv /etc /moved; rm /moved/passwd";
    let told = changes(&world, "moved", script);
    for line in ["D /etc", "A /moved", "A /moved/base"] {
        assert!(told.contains(&line.to_owned()), "{told:?} lacks {line}");
    }
    assert!(!told.iter().any(|line| line.ends_with("/moved/passwd")), "{told:?}");
    world.settles(&before);
}

#[test]
fn renamed_directories_and_metadata_alone_are_understood() {
    let Some(world) = World::new("redirect") else { return };
    world.base("small");
    let id = world.id("r");
    world.ok(&["create", "-b", &world.bundle("true", pot), &id]);
    // The same layer, mounted with what potrun does not ask for.
    let layer = world.store().join("pots").join(&id);
    let target = world.dir.join("mounted");
    fs::create_dir(&target).unwrap();
    let script = format!(
        "mount -t overlay o -o redirect_dir=on,metacopy=on,lowerdir={},upperdir={},workdir={} {t} || exit 77
         mv {t}/etc {t}/mnt/moved && rm {t}/mnt/moved/passwd && echo >{t}/mnt/moved/new && chmod 700 {t}/bin/busybox
         mv {t}/bin/busybox {t}/bin/box; umount {t}",
        world.store().join("bases/small/tree").display(),
        layer.join("upper").display(),
        layer.join("work").display(),
        t = target.display()
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]);
    let outcome = world.call(command);
    if outcome.code == Some(77) {
        return println!("skipped: renamed_directories...: no redirect_dir here: {outcome:?}");
    }
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let told = world.ok(&["diff", &id]);
    for line in ["D /etc", "A /mnt/moved", "A /mnt/moved/base", "A /mnt/moved/new", "D /bin/busybox", "A /bin/box"] {
        assert!(told.lines().any(|one| one == line), "{told} lacks {line}");
    }
    assert!(!told.contains("/mnt/moved/passwd"), "{told}");
    world.ok(&["delete", "--force", &id]);
}

#[test]
fn without_a_base_there_is_nothing_to_compare_with() {
    let Some(world) = World::new("diff-plain") else { return };
    let id = world.running("p", |_| ());
    assert!(world.fails(1, &["diff", &id]).contains("it has no base"));
    world.ok(&["delete", "--force", &id]);
}
