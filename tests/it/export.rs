//! `clone`, `export` and `import` on the real kernel.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::{Value, json};

use crate::base::Archive;
use crate::crash::{End, killed_at};
use crate::util::{World, wait_for_end};

fn none(_: &mut Value) {}

fn pot(config: &mut Value) {
    config["pot"] = json!({"base": {"release": "small"}, "dns": "off"});
}

/// What a container changes in its root, and says about it when it comes again.
const SCRIPT: &str =
    "if [ -e /made ]; then cat /made /etc/base 2>&1; ls /etc /opaque; test -e /bin/wc || echo gone; exit; fi
    echo made >/made; chmod 640 /made; chown 12:34 /made; rm /bin/wc; rm -r /etc; mkdir /etc; echo new >/etc/new
    mkdir /opaque; mkfifo /opaque/fifo; ln /made /opaque/again";

/// What it says then.
const SAID: &str =
    "made\ncat: can't open '/etc/base': No such file or directory\n/etc:\nnew\n\n/opaque:\nagain\nfifo\ngone\n";

/// A container that has ended, with changes.
fn ended(world: &World, name: &str, edit: impl FnOnce(&mut Value)) -> String {
    let id = world.id(name);
    world.ok(&["create", "-b", &world.bundle(SCRIPT, edit), &id]);
    let pid = world.pid(&id);
    world.ok(&["start", &id]);
    wait_for_end(pid);
    id
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_clone_has_the_data_and_leaves_the_original_alone() {
    let Some(world) = World::new("clone") else { return };
    world.base("small");
    for dir in ["partial", "making", "layers"] {
        fs::create_dir(world.store().join(dir)).unwrap();
    }
    let before = world.snapshot();
    for (kind, edit) in [("plain", none as fn(&mut Value)), ("pot", pot)] {
        let id = ended(&world, kind, edit);
        let (new, bundle) = (world.id(&format!("{kind}-new")), world.dir.join(format!("{kind}-new")));
        world.ok(&["clone", "--bundle", path(&bundle), &id, &new]);
        // Twice: it is kept.
        for _ in 0..2 {
            assert_eq!(world.ok(&["run", "-b", path(&bundle), &new]), SAID, "{kind}");
        }
        if kind == "pot" {
            assert!(world.fails(1, &["clone", "--bundle", path(&world.dir.join("x")), &id, &new]).contains("data of"));
            assert!(world.fails(1, &["base", "rm", "small"]).contains("in use"));
            world.ok(&["gc"]);
            let layer = world.store().join("pots").join(&new);
            let shared = fs::read_dir(world.store().join("layers")).unwrap().next().unwrap().unwrap().path();
            assert_eq!(fs::metadata(shared.join("upper/made")).unwrap().mode() & 0o7777, 0o640);
            assert_eq!(fs::metadata(shared.join("upper/made")).unwrap().nlink(), 2);
            assert!(fs::metadata(shared.join("upper/opaque/fifo")).unwrap().file_type().is_fifo());
            world.ok(&["delete", "--data", &new]);
            assert!(!layer.exists());
            // Without its data it begins anew.
            world.ok(&["run", "-b", path(&bundle), &new]);
            world.ok(&["delete", "--force", "--data", &new]);
        }
        assert!(world.fails(1, &["clone", "--bundle", path(&bundle), &id, &world.id("y")]).contains("make directory"));
        world.ok(&["delete", &id]);
    }
    world.settles(&before);
    let id = world.running("running", pot);
    assert!(world.fails(1, &["clone", &id, &world.id("z")]).contains("it runs"));
    world.ok(&["pause", &id]);
    let bundle = world.dir.join("paused");
    world.ok(&["clone", "--bundle", path(&bundle), &id, &world.id("z")]);
    world.ok(&["delete", "--force", &id]);
    world.ok(&["delete", "--force", "--data", &world.id("z")]);
}

#[test]
fn two_containers_do_not_share_what_was_left() {
    let Some(world) = World::new("share") else { return };
    world.base("small");
    let id = ended(&world, "first", pot);
    let (new, bundle) = (world.id("new"), world.dir.join("new"));
    world.ok(&["clone", "--bundle", path(&bundle), &id, &new]);
    world.ok(&["create", "-b", path(&bundle), &new]);
    // The same id, noted elsewhere.
    let other = world.dir.join("other");
    let mut command = std::process::Command::new(&world.potrun);
    command.arg("--root").arg(&other).arg("--store").arg(world.store()).args(["create", "-b", path(&bundle), &new]);
    let outcome = world.call(command);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("in use by the container noted in"), "{outcome:?}");
    // A bundle of another base does not take it.
    world.ok(&["delete", "--force", &new]);
    world.base("large");
    let config = bundle.join("config.json");
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("\"small\"", "\"large\"")).unwrap();
    assert!(world.fails(1, &["create", "-b", path(&bundle), &new]).contains("is kept, over base small"));
    world.ok(&["delete", "--force", "--data", &new]);
    world.ok(&["delete", &id]);
}

#[test]
fn a_pot_goes_through_a_file() {
    let Some(world) = World::new("export") else { return };
    world.base("small");
    for (kind, edit) in [("plain", none as fn(&mut Value)), ("pot", pot)] {
        let id = ended(&world, kind, edit);
        let file = world.dir.join(format!("{kind}.tar"));
        world.ok(&["export", &id, path(&file)]);
        assert!(world.fails(1, &["export", &id, path(&file)]).contains("left alone"));
        world.ok(&["delete", &id]);
        // By another hand: it is an ordinary archive.
        let mut archive = tar::Archive::new(fs::File::open(&file).unwrap());
        let names: Vec<String> =
            archive.entries().unwrap().map(|one| one.unwrap().path().unwrap().display().to_string()).collect();
        let data = if kind == "pot" { "layer.tar" } else { "rootfs.tar" };
        assert_eq!(names, ["manifest.json", "config.json", data]);

        let bundle = world.dir.join(format!("{kind}-back"));
        fs::create_dir(&bundle).unwrap();
        world.ok(&["import", "--bundle", path(&bundle), path(&file)]);
        assert_eq!(world.ok(&["run", "-b", path(&bundle), &id]), SAID, "{kind}");
        assert!(world.fails(1, &["import", "--bundle", path(&bundle), path(&file)]).contains("left alone"));
        let again = world.dir.join(format!("{kind}-again"));
        fs::create_dir(&again).unwrap();
        if kind == "pot" {
            assert!(world.fails(1, &["import", "--bundle", path(&again), path(&file)]).contains("data of"));
            assert_eq!(fs::read_dir(&again).unwrap().count(), 0);
        }
        let new = world.id(&format!("{kind}-named"));
        world.ok(&["import", "--bundle", path(&again), "--id", &new, path(&file)]);
        assert_eq!(world.ok(&["run", "-b", path(&again), &new]), SAID, "{kind}");
        for id in [&id, &new] {
            world.ok(&["delete", "--force", "--data", id]);
        }
    }
    // A bundle that was never created: the configuration, and the root if it has no base.
    let bundle = world.bundle("cat /etc/base", pot);
    let file = world.dir.join("bundle.tar");
    world.ok(&["export", &bundle, path(&file)]);
    let back = world.dir.join("bundle-back");
    fs::create_dir(&back).unwrap();
    world.ok(&["import", "--bundle", path(&back), path(&file)]);
    assert_eq!(world.ok(&["run", "-b", path(&back), &world.id("b")]), "of the base\n");
}

#[test]
fn a_file_that_is_not_what_it_says_changes_nothing() {
    let Some(world) = World::new("import-bad") else { return };
    world.base("small");
    let id = ended(&world, "e", pot);
    let file = world.dir.join("good.tar");
    world.ok(&["export", &id, path(&file)]);
    world.ok(&["delete", &id]);
    let before = world.snapshot();
    let bytes = fs::read(&file).unwrap();
    let bundle = world.dir.join("to");
    fs::create_dir(&bundle).unwrap();
    let refuses = |bytes: &[u8], words: &str| {
        let bad = world.dir.join("bad.tar");
        fs::write(&bad, bytes).unwrap();
        let stderr = world.fails(1, &["import", "--bundle", path(&bundle), path(&bad)]);
        assert!(words.is_empty() || stderr.contains(words), "{stderr:?} does not say {words:?}");
        assert_eq!(fs::read_dir(&bundle).unwrap().count(), 0, "{words}");
        assert_eq!(world.snapshot(), before, "{words}");
    };
    // Cut anywhere.
    for at in [0, 1, 511, 512, 1000, bytes.len() / 2, bytes.len() - 1024, bytes.len() - 1025] {
        refuses(&bytes[..at], "");
    }
    // One byte of each part.
    let find = |text: &[u8]| bytes.windows(text.len()).rposition(|window| window == text).unwrap();
    for (text, words) in
        [(&b"\"ociVersion\""[..], "config.json has"), (b"made\n", "layer.tar has"), (b"\"sha256\"", "unknown field")]
    {
        let mut bad = bytes.clone();
        bad[find(text) + 1] ^= 1;
        refuses(&bad, words);
    }
    // Another hand's archives.
    let mut entries = tar::Archive::new(bytes.as_slice());
    let mut parts = Vec::new();
    for entry in entries.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut text).unwrap();
        parts.push((name, text));
    }
    let archive = |parts: &[(String, Vec<u8>)]| {
        let add = |all: Archive, (name, text): &(String, Vec<u8>)| all.add(b'0', name, "", 0o600, text);
        parts.iter().fold(Archive::default(), add)
    };
    refuses(&archive(&parts[1..]).end(), "does not begin with manifest.json");
    refuses(&archive(&parts[..2]).end(), "it has no layer.tar");
    refuses(&archive(&parts).file("more", "x").end(), "the unknown member more");
    refuses(&archive(&parts).file("config.json", "x").end(), "config.json twice");
    refuses(&archive(&parts).symlink("config.json", "/etc/passwd").end(), "no plain file");
    refuses(b"nothing of the kind", "archive");
    let changed = |from: &str, to: &str| {
        let mut parts = parts.clone();
        parts[0].1 = String::from_utf8(parts[0].1.clone()).unwrap().replace(from, to).into_bytes();
        archive(&parts).end()
    };
    refuses(&changed("\"potrunExport\": 1", "\"potrunExport\": 2"), "version 2 is not known");
    refuses(&changed("\"os\"", "\"so\""), "unknown field");
    refuses(&changed("\"name\": \"small\"", "\"name\": \"other\""), "different bases");
    let digest: Value = serde_json::from_slice(&parts[0].1).unwrap();
    let digest = digest["base"]["sha256"].as_str().unwrap().to_owned();
    refuses(&changed(&digest, &"0".repeat(64)), "which has sha256");
    // A base that is not there.
    world.ok(&["base", "rm", "small"]);
    let before = world.snapshot();
    let stderr = world.fails(1, &["import", "--bundle", path(&bundle), path(&file)]);
    assert!(stderr.contains("which is not imported"), "{stderr}");
    assert_eq!(world.snapshot(), before);
}

#[test]
fn a_layer_of_a_file_stays_in_its_place() {
    let Some(world) = World::new("import-hostile") else { return };
    world.base("small");
    let outside = world.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    let config = json!({
        "ociVersion": "1.2.0", "pot": {"base": {"release": "small"}},
        "process": {"args": ["/bin/true"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
    });
    let base: Value = serde_json::from_str(&world.ok(&["base", "ls", "--json"])).unwrap();
    let bundle = world.dir.join("to");
    fs::create_dir(&bundle).unwrap();
    let file = world.dir.join("hostile.tar");
    let export = |layer: Vec<u8>| {
        let parts = [("config.json", config.to_string().into_bytes()), ("layer.tar", layer)];
        let part = |(name, text): &(&str, Vec<u8>)| {
            let digest = crate::base::sha256(text).to_string();
            json!({"name": name, "size": text.len(), "sha256": digest})
        };
        let manifest = json!({
            "potrunExport": 1, "name": world.id("h"), "os": "linux", "created": "2026-01-01T00:00:00Z",
            "base": {"name": "small", "sha256": base[0]["sha256"]}, "parts": parts.iter().map(part).collect::<Vec<_>>(),
        });
        let all = Archive::default().file("manifest.json", &manifest.to_string());
        let add = |all: Archive, (name, text): &(&str, Vec<u8>)| all.add(b'0', name, "", 0o600, text);
        fs::write(&file, parts.iter().fold(all, add).end()).unwrap();
    };
    for (layer, words) in [
        (Archive::default().symlink("out", path(&outside)).file("out/x", ""), "its parent out is a link"),
        (Archive::default().file("../x", ""), "leads upwards"),
        (Archive::default().file("d/.wh...", ""), "whiteout of no name"),
        (Archive::default().file(".wh.d/x", ""), "whiteout of no name"),
    ] {
        export(layer.end());
        let stderr = world.fails(1, &["import", "--bundle", path(&bundle), path(&file)]);
        assert!(stderr.contains(words), "{stderr:?} does not say {words:?}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(fs::read_dir(&bundle).unwrap().count(), 0);
        assert!(!world.store().join("pots").join(world.id("h")).exists());
        assert_eq!(fs::read_dir(world.store().join("partial")).unwrap().count(), 0);
    }
    // Neither devices nor what steers overlayfs comes with a file.
    let layer = Archive::default()
        .add(b'3', "null", "", 0o666, b"")
        .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/bin")])
        .directory("d", 0o755);
    export(layer.end());
    world.ok(&["import", "--bundle", path(&bundle), path(&file)]);
    let upper = world.store().join("pots").join(world.id("h")).join("upper");
    assert!(!upper.join("null").exists());
    assert_eq!(xattr::get(upper.join("d"), "trusted.overlay.redirect").unwrap(), None);
    let mode = fs::metadata(world.store().join("pots").join(world.id("h"))).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700, "setuid files are out of reach of the host's users");
    world.ok(&["delete", "--force", "--data", &world.id("h")]);
}

#[test]
fn a_clone_an_import_and_an_export_can_die_at_any_moment() {
    let Some(world) = World::new("clone-crash") else { return };
    world.base("small");
    for dir in ["partial", "making", "pots", "layers"] {
        fs::create_dir_all(world.store().join(dir)).unwrap();
    }
    for (kind, edit) in [("plain", none as fn(&mut Value)), ("pot", pot)] {
        let id = ended(&world, kind, edit);
        let file = world.dir.join(format!("{kind}.tar"));
        world.ok(&["export", &id, path(&file)]);
        let before = world.snapshot();
        let dir = world.dir.join(format!("{kind}-dir"));
        fs::create_dir(&dir).unwrap();
        let (new, bundle, exported) = (world.id("new"), dir.join("new"), dir.join("x.tar"));
        let cases = [
            vec!["clone", "--bundle", path(&bundle), id.as_str(), new.as_str()],
            vec!["import", "--bundle", path(&bundle), "--id", new.as_str(), path(&file)],
            vec!["export", id.as_str(), path(&exported)],
        ];
        for args in cases {
            // Every so many moments: each is a clone, an import or an export of its own.
            for n in (1..).step_by(9) {
                drop(fs::remove_dir_all(&bundle));
                drop(fs::remove_file(&exported));
                if args[0] == "import" {
                    fs::create_dir(&bundle).unwrap();
                }
                let end = killed_at(&world, &args, n);
                world.ok(&["gc"]);
                let what = format!("{args:?} moment {n}, {end:?}");
                let made: Vec<_> = fs::read_dir(&dir).unwrap().map(|one| one.unwrap().file_name()).collect();
                if args[0] == "export" {
                    assert!(made.is_empty() || made == ["x.tar"], "{what}: {made:?}");
                    assert_eq!(fs::read_dir(world.store().join("making")).unwrap().count(), 0, "{what}");
                } else if bundle.join("config.json").exists() {
                    // Then it is whole, with its data.
                    assert_eq!(made, ["new"], "{what}");
                    assert!(fs::read_dir(&bundle).unwrap().count() <= 2, "{what}");
                    assert_eq!(world.ok(&["run", "-b", path(&bundle), &new]), SAID, "{what}");
                    let data = world.run(&["delete", "--force", "--data", &new]);
                    assert_eq!(data.code, Some(0), "{what}");
                    world.ok(&["gc"]); // what both had is its own again
                } else {
                    // Then nothing of it is there, and no data.
                    let there = if args[0] == "import" { fs::read_dir(&bundle).unwrap().count() } else { made.len() };
                    assert_eq!(there, 0, "{what}");
                    assert!(!world.store().join("pots").join(&new).exists(), "{what}");
                }
                assert_eq!(world.snapshot(), before, "{what}");
                if end == End::Exited(0) {
                    break;
                }
            }
        }
        world.ok(&["delete", &id]);
    }
}

#[test]
fn a_persistent_root_outlives_its_container() {
    let Some(world) = World::new("persistent") else { return };
    world.base("small");
    let before = world.snapshot();
    let persistent = |config: &mut Value| {
        pot(config);
        config["pot"]["persistent"] = json!(true);
    };
    let bundle = world.bundle("cat /kept 2>/dev/null; echo once >/kept", persistent);
    let id = world.id("p");
    assert_eq!(world.ok(&["run", "-b", &bundle, &id]), "");
    assert_eq!(world.ok(&["gc"]), "");
    assert_eq!(world.ok(&["run", "-b", &bundle, &id]), "once\n");
    assert!(world.fails(1, &["base", "rm", "small"]).contains("in use"));
    // A create that fails takes away what it has made, and not what was there.
    let failing = |config: &mut Value| {
        persistent(config);
        config["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]});
    };
    let bad = world.bundle("true", failing);
    assert!(world.fails(1, &["create", "-b", &bad, &id]).contains("createRuntime"));
    assert_eq!(world.ok(&["run", "-b", &bundle, &id]), "once\n");
    world.ok(&["delete", "--data", &id]);
    assert!(world.fails(1, &["delete", "--data", &id]).contains("does not exist"));
    assert!(world.fails(1, &["create", "-b", &bad, &id]).contains("createRuntime"));
    world.settles(&before);
}

/// Owner, mode, kind, links and contents of all that is in a directory.
fn listing(dir: &Path) -> String {
    let script = "find . -printf '%P %y %m %U:%G %n %l\\n' | sort; find . -type f -exec cksum {} + | sort";
    let done = std::process::Command::new("sh").args(["-c", script]).current_dir(dir).output().unwrap();
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn what_a_clone_has_over_its_base_is_a_layer() {
    use potrun::base::{UnpackOptions, extract_over, pack_over};
    let Some(world) = World::new("over") else { return };
    let sh = |script: &str| {
        let done = std::process::Command::new("sh").args(["-ec", script]).current_dir(&world.dir).status().unwrap();
        assert!(done.success(), "{script}");
    };
    sh("mkdir -p base/etc base/bin base/old/deep base/kind base/same; echo a >base/etc/a; echo b >base/etc/b
        echo c >base/bin/c; ln base/bin/c base/bin/d; echo x >base/old/deep/x; echo k >base/kind/k; echo s >base/same/s");
    // Links are what a clone of a dataset has: files that are the same ones. Its directories are.
    sh("cp -al base pot; cp -a base other; cd pot; rm etc/a; echo new >etc/new; chmod 640 etc/new; chown 12:34 etc/new
        rm etc/b; echo other >etc/b; rm -r old; ln -s away old; rm -r kind; echo file >kind; mkfifo etc/fifo
        ln etc/new etc/again; mkdir made; chmod 700 made; touch made/.hidden");
    let open = |name: &str| fs::File::open(world.dir.join(name)).unwrap();
    let mut layer = Vec::new();
    pack_over(open("pot").as_fd(), open("base").as_fd(), &mut layer).unwrap();
    let mut archive = tar::Archive::new(layer.as_slice());
    let names: Vec<String> =
        archive.entries().unwrap().map(|one| one.unwrap().path().unwrap().display().to_string()).collect();
    assert!(names.iter().any(|name| name.ends_with("etc/.wh.a")), "{names:?}");
    assert!(!names.iter().any(|name| name.ends_with("same/s") || name.ends_with("bin/c")), "{names:?}");
    extract_over(layer.as_slice(), open("other").as_fd(), &UnpackOptions::default()).unwrap();
    // But for the links to the base that the clone of this test has.
    sh("rm bases -rf; cp -a pot pot2; rm -r base");
    let (pot, other) = (listing(&world.dir.join("pot2")), listing(&world.dir.join("other")));
    assert_eq!(pot, other);
    // What is called like a whiteout cannot be told.
    sh("mkdir base; touch pot/etc/.wh.z");
    let error = pack_over(open("pot").as_fd(), open("base").as_fd(), std::io::sink()).unwrap_err();
    assert!(error.to_string().contains(".wh."), "{error}");
}
