//! `copy-in` and `copy-out` on the real kernel: what is kept, where it goes, and who must not be followed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use xattr::FileExt;

use crate::base::Archive;
use crate::util::{World, wait_for_end};

fn none(_: &mut Value) {}

fn pot(config: &mut Value) {
    config["pot"] = json!({"base": {"release": "small"}, "dns": "off"});
}

/// What is told of each file of a tree: kind, mode, owner, time, contents.
fn tree(top: &Path) -> BTreeMap<String, String> {
    fn look(top: &Path, path: &Path, all: &mut BTreeMap<String, String>) {
        let status = fs::symlink_metadata(path).unwrap();
        let kind = status.file_type();
        let what = if kind.is_dir() {
            "directory".into()
        } else if kind.is_symlink() {
            format!("-> {}", fs::read_link(path).unwrap().display())
        } else if kind.is_fifo() {
            "fifo".into()
        } else {
            format!("{:?} of {} names", fs::read_to_string(path).unwrap(), status.nlink())
        };
        let attribute = if kind.is_file() || kind.is_dir() {
            fs::File::open(path).unwrap().get_xattr("user.test").unwrap_or_default()
        } else {
            None
        };
        let mode = if kind.is_symlink() { 0 } else { status.mode() & 0o7777 };
        let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
        let (uid, gid, mtime) = (status.uid(), status.gid(), (status.mtime(), status.mtime_nsec()));
        all.insert(name, format!("{what} {mode:o} {uid}:{gid} {mtime:?} {attribute:?}"));
        if kind.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                look(top, &entry.unwrap().path(), all);
            }
        }
    }
    let mut all = BTreeMap::new();
    look(top, top, &mut all);
    all
}

/// A tree with something of each kind.
fn sample(world: &World, name: &str) -> String {
    let top = world.dir.join(name);
    fs::create_dir_all(top.join("sub/deep")).unwrap();
    fs::write(top.join("sub/file"), "contents").unwrap();
    chown(top.join("sub/file"), Some(12), Some(34)).unwrap();
    fs::set_permissions(top.join("sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(top.join("sub/file"), top.join("again")).unwrap();
    // Without the attribute where the file system has none: then it is lost for both.
    drop(fs::File::open(top.join("sub/file")).unwrap().set_xattr("user.test", b"a\nb"));
    symlink("../../etc/passwd", top.join("sub/up")).unwrap();
    symlink("/nowhere", top.join("dangling")).unwrap();
    nix::unistd::mkfifo(&top.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let holes = fs::File::create(top.join("holes")).unwrap();
    holes.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&holes, b"x", 1 << 19).unwrap();
    fs::write(top.join("n".repeat(200)), "long").unwrap();
    fs::set_permissions(top.join("sub/deep"), fs::Permissions::from_mode(0o1770)).unwrap();
    let old = nix::sys::time::TimeSpec::new(1_000_000_000, 123_456_789);
    for path in ["sub/file", "fifo", "dangling", "holes", "sub/deep", "sub"] {
        let at = nix::fcntl::AT_FDCWD;
        let flag = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
        nix::sys::stat::utimensat(at, &top.join(path), &old, &old, flag).unwrap();
    }
    top.to_str().unwrap().to_owned()
}

fn end(world: &World, id: &str) {
    let pid = world.pid(id);
    world.ok(&["kill", id, "KILL"]);
    wait_for_end(pid);
    assert_eq!(world.status(id), "stopped");
}

#[test]
fn trees_come_back_as_they_went_in_in_every_state() {
    let Some(world) = World::new("copies") else { return };
    world.base("small");
    let before = world.snapshot();
    let source = sample(&world, "source");
    let wanted = tree(Path::new(&source));
    for (kind, edit) in [("plain", none as fn(&mut Value)), ("pot", pot)] {
        let id = world.running(kind, edit);
        let created = world.id(&format!("{kind}-created"));
        world.ok(&["create", "-b", &world.bundle("exit 0", edit), &created]);
        let check = |id: &str, state: &str| {
            assert_eq!(world.status(id), state);
            world.ok(&["copy-in", id, &source, &format!("/tmp/{state}")]);
            let back = world.dir.join(format!("{kind}-{state}"));
            world.ok(&["copy-out", id, &format!("/tmp/{state}"), back.to_str().unwrap()]);
            assert_eq!(tree(&back), wanted, "{kind} {state}");
            assert!(fs::metadata(back.join("holes")).unwrap().blocks() < 1000, "holes are kept");
        };
        check(&created, "created");
        check(&id, "running");
        let seen = world.ok(&["exec", &id, "stat", "-c", "%a %u %g %s", "/tmp/running/sub/file"]);
        assert_eq!(seen, "640 12 34 8\n");
        world.ok(&["pause", &id]);
        check(&id, "paused");
        world.ok(&["resume", &id]);
        end(&world, &id);
        check(&id, "stopped");
        // What went in while it ran is there, too.
        let again = world.dir.join(format!("{kind}-again"));
        world.ok(&["copy-out", &id, "/tmp/running", again.to_str().unwrap()]);
        assert_eq!(tree(&again), wanted, "{kind}");
        world.ok(&["delete", &id]);
        world.ok(&["delete", "--force", &created]);
    }
    world.settles(&before);
}

#[test]
fn targets_are_those_of_docker_cp() {
    let Some(world) = World::new("targets") else { return };
    let id = world.running("t", none);
    let root = world.dir.join("bundle0/rootfs/tmp");
    let host = world.dir.join("host");
    fs::create_dir_all(host.join("d/e")).unwrap();
    fs::write(host.join("d/e/x"), "x").unwrap();
    fs::write(host.join("f"), "f").unwrap();
    symlink("f", host.join("l")).unwrap();
    symlink("d", host.join("ld")).unwrap();
    // Not by join, which would take `/.` away.
    let from = |name: &str| format!("{}/{name}", host.display());
    let fresh = || {
        drop(fs::remove_dir_all(&root));
        fs::create_dir_all(root.join("dir")).unwrap();
        fs::write(root.join("file"), "old").unwrap();
        symlink("dir", root.join("to-dir")).unwrap();
        symlink("/tmp/file", root.join("to-file")).unwrap();
        symlink("/tmp/none", root.join("to-none")).unwrap();
    };
    // Source, target, where a file is then and what is in it.
    for (source, target, path, text) in [
        ("f", "/tmp/new", "new", "f"),
        ("f", "/tmp/file", "file", "f"),
        ("f", "/tmp/dir", "dir/f", "f"),
        ("f", "/tmp/dir/", "dir/f", "f"),
        ("f", "tmp/dir/.", "dir/f", "f"),
        ("f", "/tmp/to-dir", "dir/f", "f"),
        ("f", "/tmp/to-file", "file", "f"),
        ("f", "/tmp/../../../tmp/dir/../new", "new", "f"),
        ("d", "/tmp/new", "new/e/x", "x"),
        ("d", "/tmp/new/", "new/e/x", "x"),
        ("d", "/tmp/dir", "dir/d/e/x", "x"),
        ("d/.", "/tmp/dir", "dir/e/x", "x"),
        ("d/.", "/tmp/new", "new/e/x", "x"),
        ("ld/", "/tmp/dir", "dir/ld/e/x", "x"),
        ("l", "/tmp/dir", "dir/l", "f"),
        ("ld", "/tmp/new", "new", "-"),
    ] {
        fresh();
        if source == "l" {
            fs::write(root.join("dir/f"), "f").unwrap();
        }
        world.ok(&["copy-in", &id, &from(source), target]);
        match fs::read_link(root.join(path)) {
            Ok(to) => assert_eq!(to, Path::new(if source == "l" { "f" } else { "d" }), "{source} to {target}"),
            Err(_) => assert_eq!(fs::read_to_string(root.join(path)).unwrap(), text, "{source} to {target}"),
        }
        assert!(root.join("to-file").is_symlink(), "a link is not replaced");
    }
    for (source, target, words) in [
        ("f", "/tmp/new/", "does not exist"),
        ("f", "/tmp/file/", "no directory"),
        ("f", "/tmp/none/new", "No such file"),
        ("f", "/tmp/to-none", "leads nowhere"),
        ("d", "/tmp/file", "no directory"),
        ("d", "/tmp/to-file", "no directory"),
        ("none", "/tmp/dir", "does not exist"),
        ("f/", "/tmp/dir", "no directory"),
    ] {
        fresh();
        let stderr = world.fails(1, &["copy-in", &id, &from(source), target]);
        assert!(stderr.contains(words), "{source} to {target}: {stderr:?} does not say {words:?}");
    }
    // A directory does not take the place of a file below, nor a file that of a directory.
    fresh();
    fs::create_dir_all(root.join("dir/f")).unwrap();
    assert!(world.fails(1, &["copy-in", &id, &from("f"), "/tmp/dir"]).contains("replace a directory"));
    fs::write(root.join("dir/d"), "").unwrap();
    assert!(world.fails(1, &["copy-in", &id, &from("d"), "/tmp/dir"]).contains("no directory"));
    // And out, by the same rules.
    fresh();
    fs::create_dir(world.dir.join("back")).unwrap();
    let back = world.dir.join("back").to_str().unwrap().to_owned();
    world.ok(&["copy-out", &id, "/tmp/file", &back]);
    world.ok(&["copy-out", &id, "tmp/to-file", &back]);
    world.ok(&["copy-out", &id, "/tmp/.", &format!("{back}/all")]);
    assert_eq!(fs::read_to_string(format!("{back}/file")).unwrap(), "old");
    assert_eq!(fs::read_link(format!("{back}/to-file")).unwrap(), Path::new("/tmp/file"), "a link is copied as one");
    assert_eq!(fs::read_to_string(format!("{back}/all/file")).unwrap(), "old");
    world.ok(&["delete", "--force", &id]);
}

#[test]
fn streams_are_tar() {
    let Some(world) = World::new("streams") else { return };
    let id = world.running("s", none);
    let source = sample(&world, "source");
    let wanted = tree(Path::new(&source));
    world.ok(&["copy-in", &id, &source, "/tmp"]);

    let stream = world.dir.join("stream.tar");
    let mut command = world.command(&["copy-out", &id, "/tmp/source", "-"]);
    command.stdout(fs::File::create(&stream).unwrap());
    assert!(command.status().unwrap().success());
    // Read by other hands: tar(1), and the tar crate.
    let listed = std::process::Command::new("tar").arg("tf").arg(&stream).output();
    if let Ok(output) = listed {
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("source/sub/deep/\n"), "{text}");
    }
    let mut archive = tar::Archive::new(fs::File::open(&stream).unwrap());
    let names: Vec<String> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert!(names.contains(&format!("source/{}", "n".repeat(200))), "{names:?}");

    // And by potrun: into the container, plain and compressed.
    let gz = world.dir.join("stream.tar.gz");
    fs::write(&gz, crate::base::gzip(&fs::read(&stream).unwrap())).unwrap();
    for (n, file) in [&stream, &gz].into_iter().enumerate() {
        let (to, back) = (format!("/tmp/{n}"), world.dir.join(format!("back{n}")));
        world.ok(&["exec", &id, "mkdir", &to]);
        let mut command = world.command(&["copy-in", &id, "-", &to]);
        command.stdin(fs::File::open(file).unwrap());
        let outcome = world.call(command);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        world.ok(&["copy-out", &id, &format!("{to}/source"), back.to_str().unwrap()]);
        assert_eq!(tree(&back), wanted);
    }
    world.ok(&["delete", "--force", &id]);
}

#[test]
fn a_stopped_container_has_its_volumes_and_its_read_only_root() {
    let Some(world) = World::new("volumes") else { return };
    world.base("small");
    let before = world.snapshot();
    let file = world.dir.join("file");
    fs::write(&file, "text").unwrap();
    let file = file.to_str().unwrap();
    let id = world.running("v", |config| {
        pot(config);
        config["root"]["readonly"] = json!(true);
    });
    for state in ["running", "stopped"] {
        if state == "stopped" {
            end(&world, &id);
        }
        world.ok(&["copy-in", &id, file, &format!("/shared/{state}")]);
        assert_eq!(fs::read_to_string(world.shared(state)).unwrap(), "text");
        let stderr = world.fails(1, &["copy-in", &id, file, "/etc/x"]);
        assert!(stderr.contains("Read-only file system"), "{stderr}");
        assert!(world.fails(1, &["copy-out", &id, "/nowhere", "."]).contains("does not exist"));
    }
    world.ok(&["delete", &id]);
    world.settles(&before);
}

// Attacks.

/// A directory of the host that no container is given, with a file.
fn outside(world: &World) -> String {
    let path = world.dir.join("outside");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("secret"), "secret").unwrap();
    path.to_str().unwrap().into()
}

#[track_caller]
fn untouched(outside: &str) {
    let names: Vec<_> = fs::read_dir(outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["secret"]);
    assert_eq!(fs::read_to_string(format!("{outside}/secret")).unwrap(), "secret");
    assert_eq!(fs::metadata(format!("{outside}/secret")).unwrap().nlink(), 1);
}

#[test]
fn no_link_leads_a_copy_out_of_the_root() {
    let Some(world) = World::new("copy-links") else { return };
    let outside = outside(&world);
    let up = "../".repeat(12);
    let source = sample(&world, "source");
    for (n, state) in ["running", "stopped"].into_iter().enumerate() {
        let id = world.running(state, none);
        let root = world.dir.join(format!("bundle{n}/rootfs/tmp"));
        symlink(&outside, root.join("absolute")).unwrap();
        symlink(format!("{up}{outside}"), root.join("relative")).unwrap();
        symlink("/proc/1/root", root.join("magic")).unwrap();
        symlink("/proc/self/cwd", root.join("own")).unwrap();
        fs::create_dir(root.join("d")).unwrap();
        symlink(&outside, root.join("d/source")).unwrap();
        if state == "stopped" {
            end(&world, &id);
        }
        let back = world.dir.join(format!("back{n}"));
        fs::create_dir(&back).unwrap();
        let back = back.to_str().unwrap();
        for target in [
            "/tmp/absolute",
            "/tmp/relative",
            "/tmp/absolute/",
            "/tmp/absolute/secret",
            "/tmp/magic/x",
            "/tmp/own",
            "/tmp/d",
        ] {
            world.fails(1, &["copy-in", &id, &source, target]);
        }
        for path in [
            "/tmp/absolute/",
            "/tmp/absolute/secret",
            "/tmp/relative/secret",
            "/tmp/magic/etc/passwd",
            "/tmp/own/x",
            &format!("{up}{outside}/secret"),
        ] {
            world.fails(1, &["copy-out", &id, path, back]);
        }
        // What is below is taken for what it is.
        world.ok(&["copy-out", &id, "/tmp/d", back]);
        assert!(Path::new(back).join("d/source").is_symlink());
        untouched(&outside);
        // And back into a tree where that link is now: it is replaced or refused, never followed.
        let stderr = world.fails(1, &["copy-in", &id, &source, "/tmp/d"]);
        assert!(stderr.contains("no directory"), "{stderr}");
        untouched(&outside);
        world.ok(&["delete", "--force", &id]);
    }
}

#[test]
fn hostile_streams_stay_in_their_directory() {
    let Some(world) = World::new("copy-streams") else { return };
    let outside = outside(&world);
    let id = world.running("h", none);
    let root = world.dir.join("bundle0/rootfs/tmp");
    symlink(&outside, root.join("link")).unwrap();
    for (archive, words) in [
        (Archive::default().file("../x", ""), "leads upwards"),
        (Archive::default().file("link/secret", "changed"), "its parent link is a link"),
        (Archive::default().directory("link", 0o755), "no directory"),
        (Archive::default().symlink("l", &outside).file("l/x", ""), "its parent l is a link"),
        (Archive::default().hard_link("x", "link/secret"), "behind a link"),
        (Archive::default().hard_link("x", "../../outside/secret"), "leads upwards"),
        (Archive::default().file("x", "cut"), "is damaged"),
    ] {
        let mut bytes = archive.end();
        if words == "is damaged" {
            bytes[1024] = 1;
        }
        let mut command = world.command(&["copy-in", &id, "-", "/tmp"]);
        let file = world.dir.join("stream");
        fs::write(&file, &bytes).unwrap();
        command.stdin(fs::File::open(&file).unwrap());
        let outcome = world.call(command);
        assert_eq!(outcome.code, Some(1), "{words}: {outcome:?}");
        assert!(outcome.stderr.contains(words), "{outcome:?} does not say {words:?}");
        untouched(&outside);
    }
    // A hard link to a link is one more name of the link, and a file that replaces it leaves the other alone.
    let archive = Archive::default().hard_link("again", "link").file("again", "new").add(b'3', "null", "", 0o666, b"");
    let file = world.dir.join("stream");
    fs::write(&file, archive.end()).unwrap();
    let mut command = world.command(&["copy-in", &id, "-", "/tmp"]);
    command.stdin(fs::File::open(&file).unwrap());
    let outcome = world.call(command);
    assert_eq!((outcome.code, outcome.stderr.contains("1 device nodes left out")), (Some(0), true), "{outcome:?}");
    assert_eq!(fs::read_to_string(root.join("again")).unwrap(), "new");
    assert!(!root.join("null").exists());
    untouched(&outside);
    // Neither a stream that never ends nor a file with a hole of any size fills the disk.
    fs::File::create(root.join("huge")).unwrap().set_len(1 << 40).unwrap();
    let back = world.dir.join("huge");
    let stderr = world.fails(1, &["copy-out", &id, "/tmp/huge", back.to_str().unwrap()]);
    assert!(stderr.contains("more than the limit"), "{stderr}");
    let stderr = world.fails(1, &["copy-out", "--max-entries", "3", &id, "/", world.dir.join("few").to_str().unwrap()]);
    assert!(stderr.contains("more than the limit of 3 entries"), "{stderr}");
    world.ok(&["delete", "--force", &id]);
}

#[test]
fn nothing_special_is_opened_and_no_right_is_carried_out() {
    let Some(world) = World::new("copy-special") else { return };
    let id = world.running("x", none);
    let root = world.dir.join("bundle0/rootfs/tmp");
    let back = world.dir.join("back");
    let to = back.to_str().unwrap();
    // A fifo that nobody writes to, a socket, the kernel's own words: none is waited for.
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
    let dev = libc::makedev(1, 8);
    let kind = nix::sys::stat::SFlag::S_IFCHR;
    nix::sys::stat::mknod(&root.join("device"), kind, nix::sys::stat::Mode::S_IRWXU, dev).unwrap();
    fs::write(root.join("su"), "x").unwrap();
    fs::set_permissions(root.join("su"), fs::Permissions::from_mode(0o6755)).unwrap();
    let outcome = world.run(&["copy-out", &id, "/", to]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    for words in
        ["1 sockets left out", "device nodes left out", "file systems of the kernel left out", "1 files lost setuid"]
    {
        assert!(outcome.stderr.contains(words), "{outcome:?} does not say {words:?}");
    }
    assert!(fs::symlink_metadata(back.join("tmp/fifo")).unwrap().file_type().is_fifo());
    assert!(!back.join("tmp/device").exists() && !back.join("tmp/socket").exists());
    assert_eq!(fs::read_dir(back.join("proc")).unwrap().count(), 0);
    assert_eq!(fs::metadata(back.join("tmp/su")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(back.join("tmp/su")).unwrap().uid(), 0);
    for path in ["/proc/version", "/proc/1/environ", "/proc", "/proc/"] {
        let stderr = world.fails(1, &["copy-out", &id, path, world.dir.join("none").to_str().unwrap()]);
        assert!(stderr.contains("the kernel's own words"), "{path}: {stderr}");
    }
    world.ok(&["copy-out", "--setuid", &id, "/tmp/su", world.dir.join("su").to_str().unwrap()]);
    assert_eq!(fs::metadata(world.dir.join("su")).unwrap().mode() & 0o7777, 0o6755);
    // In, it keeps them.
    world.ok(&["copy-in", &id, world.dir.join("su").to_str().unwrap(), "/tmp/su2"]);
    assert_eq!(fs::metadata(root.join("su2")).unwrap().mode() & 0o7777, 0o6755);
    world.ok(&["delete", "--force", &id]);
}

#[test]
fn a_container_that_swaps_directories_for_links_gets_nothing_out() {
    let Some(world) = World::new("copy-race") else { return };
    let outside = outside(&world);
    let source = sample(&world, "source");
    let begun = world.fifo("begun");
    // A directory, and a link out of the root, in turn.
    let script = format!(
        "cd /tmp; mkdir d; echo begun > /shared/begun; \
         while :; do rm -rf d; ln -s {outside} d; rm d; mkdir d; echo x > d/secret; done"
    );
    let bundle = world.bundle(&script, none);
    let id = world.id("racer");
    world.ok(&["create", "-b", &bundle, &id]);
    world.ok(&["start", &id]);
    assert_eq!(begun.line(), "begun");
    let mut done = 0;
    for n in 0..60 {
        let outcome = world.run(&["copy-in", &id, &source, "/tmp/d"]);
        assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
        done += u32::from(outcome.code == Some(0));
        let back = world.dir.join(format!("back{n}"));
        let outcome = world.run(&["copy-out", &id, "/tmp/d/.", back.to_str().unwrap()]);
        assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
        let secret = fs::read_to_string(back.join("secret"));
        assert!(secret.is_err() || matches!(secret.as_deref(), Ok("" | "x\n")), "{secret:?} came out");
        untouched(&outside);
    }
    println!("{done} of 60 copies were whole");
    world.ok(&["delete", "--force", &id]);
    untouched(&outside);
}

#[test]
fn a_stream_that_breaks_off_is_an_error() {
    let Some(world) = World::new("copy-cut") else { return };
    let id = world.running("c", none);
    let bytes = Archive::default().file("a", "1").file("b", "2").end();
    let mut command = world.command(&["copy-in", &id, "-", "/tmp"]);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&bytes[..700]).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("the archive is cut off"), "{stderr}");
    world.ok(&["delete", "--force", &id]);
}
