//! Pots that lie on layers which they share, on the real kernel: nothing is copied, nothing is mixed up, nothing is lost,
//! and nothing is left.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::crash::{End, killed_at};
use crate::util::{World, wait_for_end};

fn pot(config: &mut Value) {
    config["pot"] = json!({"base": {"release": "small"}, "dns": "off"});
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A world with a base, and the directories that a store has once it was used.
fn world(name: &str) -> Option<World> {
    let world = World::new(name)?;
    world.base("small");
    for dir in ["partial", "making", "layers"] {
        fs::create_dir(world.store().join(dir)).unwrap();
    }
    Some(world)
}

/// Runs the container of a bundle to its end; it stays.
fn ended(world: &World, bundle: &str, id: &str) {
    world.ok(&["create", "-b", bundle, id]);
    let pid = world.pid(id);
    world.ok(&["start", id]);
    wait_for_end(pid);
}

/// A container that has ended, with what its script has changed.
fn changed(world: &World, name: &str, script: &str) -> String {
    let id = world.id(name);
    ended(world, &world.bundle(script, pot), &id);
    id
}

/// A clone, and its bundle.
fn cloned(world: &World, id: &str, name: &str) -> (String, String) {
    let (new, bundle) = (world.id(name), world.dir.join(name));
    world.ok(&["clone", "--bundle", path(&bundle), id, &new]);
    (new, path(&bundle).into())
}

/// Replaces the script of a bundle.
fn script(bundle: &str, script: &str) {
    let path = Path::new(bundle).join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["process"]["args"] = json!(["/bin/sh", "-c", script]);
    fs::write(path, config.to_string()).unwrap();
}

/// Names of all in a directory, in order.
fn names(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> =
        fs::read_dir(dir).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

fn layers(world: &World) -> Vec<String> {
    names(&world.store().join("layers"))
}

fn layer(world: &World, id: &str) -> PathBuf {
    world.store().join("pots").join(id)
}

/// Blocks of the disk that a tree takes, each file once.
fn blocks(dir: &Path) -> u64 {
    let done = std::process::Command::new("du").arg("-s").arg("-B512").arg(dir).output().unwrap();
    String::from_utf8(done.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// All that a container that does not run has, but for what the kernel shows: owner, mode, kind, links and contents.
fn seen(world: &World, id: &str) -> String {
    let to = world.dir.join("seen");
    fs::create_dir(&to).unwrap();
    world.ok(&["copy-out", "--setuid", id, "/.", path(&to)]);
    let script = "rm -rf dev proc sys; find . -printf '%P %y %m %U:%G %n %l %s\\n' | sed '/ d /s/ [0-9]*$//' | sort
        find . -type f -exec cksum {} + | sort";
    let done = std::process::Command::new("sh").args(["-c", script]).current_dir(&to).output().unwrap();
    fs::remove_dir_all(to).unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.lines().count() > 20, "{text}");
    text
}

/// What a container sees that is made of what was left for it.
fn seen_by_next(world: &World, bundle: &str, id: &str) -> String {
    world.ok(&["create", "-b", bundle, id]);
    let text = seen(world, id);
    world.ok(&["delete", "--force", id]);
    text
}

#[test]
fn a_clone_of_much_copies_nothing() {
    let Some(world) = world("much") else { return };
    let before = world.snapshot();
    let id = changed(
        &world,
        "a",
        "dd if=/dev/zero of=/big bs=1M count=200 2>/dev/null; mkdir /many; for n in $(seq 5000); do echo $n >/many/$n; done",
    );
    let upper = layer(&world, &id).join("upper");
    let place = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).unwrap();
    let (number, room) = (fs::metadata(layer(&world, &id)).unwrap().ino().to_string(), blocks(&world.store()));
    let files: Vec<String> = (1..=5000).map(|n| format!("many/{n}")).chain(["big".into()]).collect();
    let places: Vec<_> = files.iter().map(|file| place(&upper.join(file))).collect();
    assert!(room > 2 * 200 * 1024, "{room}");

    let (new, bundle) = cloned(&world, &id, "b");
    // The same files, where both find them, and nowhere else.
    let frozen = world.store().join("layers").join(&number).join("upper");
    assert_eq!(layers(&world), [number.as_str()]);
    for (file, was) in files.iter().zip(places) {
        assert_eq!(place(&frozen.join(file)), was, "{file}");
    }
    for pot in [&id, &new] {
        assert!(names(&layer(&world, pot).join("upper")).is_empty());
        assert_eq!(fs::read_link(layer(&world, pot).join("lower")).unwrap(), Path::new(&number));
    }
    let more = blocks(&world.store()) - room;
    assert!(more < 200, "{more} blocks more");

    // Both have all of it, and what one does is not seen by the other.
    script(
        &bundle,
        "wc -c </big; ls /many | wc -l; stat -c %i /big; rm /many/2; echo changed >/many/1; echo new >/new",
    );
    let told = world.ok(&["run", "-b", &bundle, &new]);
    assert_eq!(told, format!("{}\n5000\n{}\n", 200 << 20, place(&frozen.join("big")).1));
    let file = world.dir.join("file");
    fs::write(&file, "of the first\n").unwrap();
    world.ok(&["copy-in", &id, path(&file), "/many/3"]);
    let cat = |id: &str, name: &str| {
        let back = world.dir.join("back");
        let outcome = world.run(&["copy-out", id, name, path(&back)]);
        (outcome.code == Some(0)).then(|| fs::read_to_string(back).unwrap())
    };
    let told = ["/many/1", "/many/2", "/many/3", "/new"].map(|name| cat(&id, name));
    assert_eq!(told, [Some("1\n".into()), Some("2\n".into()), Some("of the first\n".into()), None]);
    script(&bundle, "true");
    ended(&world, &bundle, &new);
    let told = ["/many/1", "/many/2", "/many/3", "/new"].map(|name| cat(&new, name));
    assert_eq!(told, [Some("changed\n".into()), None, Some("3\n".into()), Some("new\n".into())]);

    // Each can go first: the layer goes with the second.
    world.ok(&["delete", &id]);
    assert_eq!(layers(&world), [number.as_str()]);
    assert_eq!(cat(&new, "/many/4").as_deref(), Some("4\n"));
    assert!(world.fails(1, &["base", "rm", "small"]).contains("in use"));
    world.ok(&["delete", "--data", &new]);
    world.settles(&before);
}

/// What can be done to a file or directory. A file with two names is changed by neither: in an overlay that parts them.
const FIRST: &str = "mkdir -p /d/e /moved /hidden /kind /links; echo 1 >/d/e/f; echo 1 >/d/g; echo 1 >/moved/a; echo 1 >/hidden/a
    echo 1 >/kind/a; echo 1 >/links/a; ln /links/a /links/b; ln -s a /links/c; mkfifo /links/fifo; rm /etc/passwd; chmod 751 /
    echo 1 >/setuid; chmod 4755 /setuid; chown 7:8 /d";
const SECOND: &str =
    "rm /d/e/f; echo 2 >>/d/g; mv /moved /place; rm -r /hidden; mkdir /hidden; echo 2 >/hidden/b; rm -r /kind
    echo 2 >/kind; rm /links/c; mkdir /links/c; echo 2 >/links/c/d; rm -r /etc; mkdir /etc; echo 2 >/etc/new";
const THIRD: &str = "echo 3 >/d/e/f; mv /place /moved; rm /kind; mkdir /kind; echo 3 >/kind/b; rm -r /hidden /links/c
    rm -r /bin/wc /d/e; mkdir /d/e; chmod 755 /; echo 3 >/etc/base";

#[test]
fn what_lies_in_layers_is_seen_whole() {
    let Some(world) = world("whole") else { return };
    let before = world.snapshot();
    // The same changes, in one layer by one pot, and in as many as there are clones.
    let whole = changed(&world, "whole", &format!("{FIRST}\n{SECOND}\n{THIRD}"));
    let expected = seen(&world, &whole);
    let changes = world.ok(&["diff", &whole]);
    let first = changed(&world, "first", FIRST);
    let (second, bundle) = cloned(&world, &first, "second");
    let once = seen(&world, &first);
    assert_eq!(seen_by_next(&world, &bundle, &second), once);
    script(&bundle, SECOND);
    ended(&world, &bundle, &second);
    let twice = seen(&world, &second);
    let (third, bundle) = cloned(&world, &second, "third");
    script(&bundle, THIRD);
    ended(&world, &bundle, &third);
    let pots = [(&first, &once), (&second, &twice), (&third, &expected)];
    let all_are = |when: &str| pots.iter().for_each(|(id, was)| assert_eq!(seen(&world, id), **was, "{id} {when}"));
    assert_eq!(layers(&world).len(), 2);
    all_are("after it was cloned");
    assert_eq!(world.ok(&["diff", &third]), changes);

    // One more, which adds nothing: by a layer, by a file, by a copy while it is mounted.
    let (fourth, bundle) = cloned(&world, &third, "fourth");
    assert_eq!((layers(&world).len(), seen_by_next(&world, &bundle, &fourth).as_str()), (3, expected.as_str()));
    assert_eq!(world.ok(&["diff", &third]), changes);
    let file = world.dir.join("third.tar");
    world.ok(&["export", &third, path(&file)]);
    let (back, bundle) = (world.id("back"), world.dir.join("back"));
    fs::create_dir(&bundle).unwrap();
    world.ok(&["import", "--bundle", path(&bundle), "--id", &back, path(&file)]);
    assert_eq!(seen_by_next(&world, path(&bundle), &back), expected);
    world.ok(&["create", "-b", path(&bundle), &back]);
    assert_eq!(world.ok(&["diff", &back]), changes);
    let (copy, bundle) = cloned(&world, &back, "copy");
    assert_eq!((layers(&world).len(), seen_by_next(&world, &bundle, &copy).as_str()), (3, expected.as_str()));
    all_are("in the end");

    world.ok(&["delete", &second]);
    world.ok(&["delete", "--force", "--data", &back]);
    assert_eq!(seen(&world, &third), expected);
    for id in [&whole, &first, &third] {
        world.ok(&["delete", id]);
    }
    assert_eq!(layers(&world).len(), 3);
    for id in [&second, &third, &fourth, &copy] {
        world.ok(&["delete", "--force", "--data", id]);
    }
    world.settles(&before);
}

#[test]
fn what_is_called_like_a_whiteout_cannot_be_told() {
    let Some(world) = world("whiteout") else { return };
    for (n, script) in ["mkdir /.wh.made", "echo >/bin/.wh.made"].iter().enumerate() {
        let id = changed(&world, &format!("a{n}"), script);
        let file = world.dir.join("file.tar");
        assert!(world.fails(1, &["export", &id, path(&file)]).contains("begins with .wh."));
        // A clone shares it as it is.
        let (new, bundle) = cloned(&world, &id, &format!("b{n}"));
        assert_eq!(seen_by_next(&world, &bundle, &new), seen(&world, &id));
        world.ok(&["delete", &id]);
    }
}

#[test]
fn what_is_mounted_is_not_touched() {
    let Some(world) = world("mounted") else { return };
    let id = world.id("a");
    let bundle = world.bundle("echo 1 >/made; exec sleep 100000", pot);
    // One that waits, one that is paused, and one that has ended, but whose root somebody holds open.
    world.ok(&["create", "-b", &bundle, &id]);
    cloned(&world, &id, "of-created");
    assert_eq!(layers(&world), [""; 0]);
    world.ok(&["start", &id]);
    let root = PathBuf::from(format!("/proc/{}/root", world.pid(&id)));
    while !root.join("made").exists() {
        std::thread::yield_now();
    }
    world.ok(&["pause", &id]);
    let (paused, of_paused) = cloned(&world, &id, "of-paused");
    assert_eq!(layers(&world), [""; 0]);
    assert_eq!(fs::read_to_string(layer(&world, &paused).join("upper/made")).unwrap(), "1\n");
    let held = File::open(root.join("made")).unwrap();
    world.ok(&["resume", &id]);
    let pid = world.pid(&id);
    world.ok(&["kill", &id, "KILL"]);
    wait_for_end(pid);
    assert_eq!(world.status(&id), "stopped");
    let (of_held, _) = cloned(&world, &id, "of-held");
    assert_eq!(layers(&world), [""; 0]);
    assert_eq!(fs::read_to_string(layer(&world, &of_held).join("upper/made")).unwrap(), "1\n");
    drop(held);
    cloned(&world, &id, "of-ended");
    assert_eq!(layers(&world).len(), 1);
    // What was copied is a pot like any other.
    script(&of_paused, "cat /made");
    assert_eq!(world.ok(&["run", "-b", &of_paused, &paused]), "1\n");
    world.ok(&["delete", &id]);
}

#[test]
fn layers_do_not_become_too_many() {
    let Some(world) = world("deep") else { return };
    let before = world.snapshot();
    let mut all = vec![changed(&world, "p0", "echo 0 >/n0")];
    let mut most = 0;
    for n in 1..=34 {
        let (new, bundle) = cloned(&world, &all[n - 1], &format!("p{n}"));
        // What it has of its own is all over the place.
        script(&bundle, &format!("echo {n} >/n{n}; rm -f /n{}; echo {n} >/same", n / 2));
        ended(&world, &bundle, &new);
        let lower = fs::read_link(layer(&world, &new).join("lower")).map_or(0, |lower| path(&lower).split(':').count());
        most = most.max(lower);
        all.push(new);
    }
    assert_eq!((most, layers(&world).len()), (32, 33));
    let last = seen(&world, &all[34]);
    for n in 0..=34 {
        assert_eq!(last.contains(&format!("\nn{n} ")), n > 17, "{n}: {last}");
    }
    for id in all {
        world.ok(&["delete", "--force", &id]);
        world.ok(&["gc"]);
    }
    // The clones themselves are still there, for the next containers of their ids.
    for n in 1..=34 {
        world.ok(&["delete", "--data", &world.id(&format!("p{n}"))]);
    }
    world.settles(&before);
}

#[test]
fn gc_puts_a_lone_layer_back() {
    let Some(world) = world("lone") else { return };
    let id = changed(&world, "a", "echo 1 >/made");
    let before = world.snapshot();
    let (new, _) = cloned(&world, &id, "b");
    let (other, _) = cloned(&world, &id, "c");
    assert_eq!(layers(&world).len(), 1);
    world.ok(&["delete", "--data", &new]);
    world.ok(&["gc"]);
    // Two lie on it.
    assert_eq!(layers(&world).len(), 1);
    world.ok(&["delete", "--data", &other]);
    let told = world.ok(&["gc"]);
    assert!(told.contains("/layers/"), "{told}");
    assert_eq!(world.snapshot(), before);
    assert_eq!(fs::read_to_string(layer(&world, &id).join("upper/made")).unwrap(), "1\n");
    world.ok(&["delete", &id]);
}

#[test]
fn a_clone_that_shares_can_die_at_any_moment() {
    let Some(world) = world("share-crash") else { return };
    let id = changed(&world, "a", "echo 1 >/made; rm /bin/wc; chmod 751 /");
    let (before, was) = (world.snapshot(), seen(&world, &id));
    let (dir, file) = (world.dir.join("made"), world.dir.join("file"));
    fs::write(&file, "later\n").unwrap();
    fs::create_dir(&dir).unwrap();
    let (new, bundle) = (world.id("b"), dir.join("b"));
    let mut moments = 0;
    for n in 1.. {
        let end = killed_at(&world, &["clone", "--bundle", path(&bundle), &id, &new], n);
        let what = format!("moment {n}, {end:?}");
        assert_eq!(seen(&world, &id), was, "{what}");
        // Every other time the pot itself changes before somebody cleans up.
        let written = n % 2 == 0;
        if written {
            world.ok(&["copy-in", &id, path(&file), "/later"]);
        }
        world.ok(&["gc"]);
        if bundle.join("config.json").exists() {
            assert_eq!(seen_by_next(&world, path(&bundle), &new), was, "{what}");
            world.ok(&["delete", "--data", &new]);
            fs::remove_dir_all(&bundle).unwrap();
        }
        assert_eq!((names(&dir), layer(&world, &new).exists()), (Vec::new(), false), "{what}");
        if written {
            // What it had may lie below that; and it is all its own.
            assert!(seen(&world, &id).contains("\nlater "), "{what}");
            world.ok(&["delete", &id]);
            ended(&world, &world.bundle("echo 1 >/made; rm /bin/wc; chmod 751 /", pot), &id);
        }
        world.ok(&["gc"]);
        assert_eq!(world.snapshot(), before, "{what}");
        assert_eq!(seen(&world, &id), was, "{what}");
        match end {
            End::Killed(_) => moments += 1,
            End::Exited(code) => {
                assert_eq!(code, 0, "{what}");
                break;
            }
        }
    }
    assert!(moments > 30, "only {moments} moments: this cannot be the whole verb");
    world.ok(&["delete", &id]);
}

#[test]
fn delete_and_gc_of_who_shares_can_die_at_any_moment() {
    let Some(world) = world("unshare-crash") else { return };
    let before = world.snapshot();
    // The original goes, or the last that lies on the layer; by itself, or by gc when its container is gone.
    for (last, by_gc) in [(false, false), (true, false), (true, true)] {
        for n in 1.. {
            let id = changed(&world, "a", "echo 1 >/made; mkdir /d; echo 2 >/d/e");
            let (new, bundle) = cloned(&world, &id, "b");
            if last {
                world.ok(&["delete", "--data", &new]);
            }
            if by_gc {
                // As after a reboot.
                fs::remove_dir_all(world.root().join(&id)).unwrap();
                fs::remove_dir(world.group(&id)).unwrap();
            }
            let args = if by_gc { vec!["gc"] } else { vec!["delete", "--force", &id] };
            let end = killed_at(&world, &args, n);
            let what = format!("moment {n} of {args:?}, {last}, {end:?}");
            if !last {
                script(&bundle, "cat /made /d/e");
                assert_eq!(world.ok(&["run", "-b", &bundle, &new]), "1\n2\n", "{what}");
            }
            if !by_gc {
                world.ok(&["delete", "--force", &id]);
            }
            if !last {
                assert_eq!(world.ok(&["run", "-b", &bundle, &new]), "1\n2\n", "{what}");
                world.ok(&["delete", "--data", &new]);
            }
            if by_gc {
                world.ok(&["gc"]);
            }
            fs::remove_dir_all(bundle).unwrap();
            assert_eq!(world.snapshot(), before, "{what}");
            match end {
                End::Killed(_) => {}
                End::Exited(code) => {
                    assert_eq!(code, 0, "{what}");
                    assert!(n > 5, "{what}");
                    break;
                }
            }
        }
    }
}
