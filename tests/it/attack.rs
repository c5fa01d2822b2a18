//! Attacks, by images, by containers that run, and by callers: each leaves the host as it was.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::util::{World, wait_for_end};

fn none(_: &mut Value) {}

/// A directory of the host that no container is given.
fn outside(world: &World) -> PathBuf {
    let path = world.dir.join("outside");
    fs::create_dir(&path).unwrap();
    path
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Makes a link, in the place of what is there.
fn replace(path: &Path, target: impl AsRef<Path>) {
    if path.is_dir() && !path.is_symlink() {
        fs::remove_dir(path).unwrap();
    } else {
        drop(fs::remove_file(path));
    }
    symlink(target, path).unwrap();
}

fn add_mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

// Images.

#[test]
fn links_of_an_image_lead_nowhere_but_into_the_image() {
    let Some(world) = World::new("links") else { return };
    let outside = outside(&world);
    let file = world.shared("file");
    fs::write(&file, "bound").unwrap();
    let tmpfs = |target: &str| json!({"mounts": [{"destination": target, "type": "tmpfs", "source": "tmpfs"}]});
    let bind = |target: &str| {
        let mount = json!({"destination": target, "type": "bind", "source": file, "options": ["bind"]});
        json!({"mounts": [mount]})
    };
    let node = |path: &str| json!({"linux": {"devices": [{"path": path, "type": "c", "major": 1, "minor": 3}]}});
    let cases = [
        tmpfs("/absolute/new"),
        tmpfs("/up/new/deep"),
        bind("/absolute/new"),
        bind("/up/new/deep"),
        bind("/dangling"),
        node("/absolute/new"),
        node("/up/new/deep"),
        json!({"process": {"cwd": "/absolute/new"}}),
        json!({"process": {"cwd": "/up/new/deep"}}),
        json!({"pot": {"dns": {"nameservers": ["192.0.2.1"]}}}),
        json!({"pot": {"hosts": [{"address": "192.0.2.2", "name": "x"}]}}),
    ];
    let before = world.snapshot();
    for (n, case) in cases.iter().enumerate() {
        let bundle = world.bundle("exit 0", |config| merge(config, case));
        let root = Path::new(&bundle).join("rootfs");
        symlink(&outside, root.join("absolute")).unwrap();
        symlink(format!("../../../../../../../..{}", outside.display()), root.join("up")).unwrap();
        symlink(outside.join("file"), root.join("dangling")).unwrap();
        symlink(outside.join("resolv"), root.join("etc/resolv.conf")).unwrap();
        symlink(outside.join("hosts"), root.join("etc/hosts")).unwrap();
        // Whether it runs is the image's affair; where it reaches is not.
        let outcome = world.run(&["run", "-b", &bundle, &world.id(&format!("a{n}"))]);
        assert!(matches!(outcome.code, Some(0 | 1)) && !outcome.stderr.contains("panicked"), "{case}: {outcome:?}");
        assert_eq!(names(&outside), [""; 0], "{case}: {outcome:?}");
        assert_eq!(world.snapshot(), before, "{case}");
    }
}

/// Adds the members of `more`, and the items of its arrays.
fn merge(to: &mut Value, more: &Value) {
    match (to, more) {
        (Value::Object(to), Value::Object(more)) => {
            for (name, value) in more {
                merge(to.entry(name.as_str()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(to), Value::Array(more)) => to.extend(more.iter().cloned()),
        (to, more) => *to = more.clone(),
    }
}

#[test]
fn proc_and_sys_that_are_links_are_refused() {
    let Some(world) = World::new("proc-link") else { return };
    let outside = outside(&world);
    for (name, target) in [("proc", "/tmp"), ("proc", "tmp"), ("sys", "/tmp"), ("proc", outside.to_str().unwrap())] {
        let bundle = world.bundle("true", |config| {
            add_mount(config, json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}));
        });
        replace(&Path::new(&bundle).join("rootfs").join(name), target);
        let before = world.snapshot();
        let stderr = world.fails(1, &["create", "-b", &bundle, &world.id("a")]);
        assert!(stderr.contains(&format!("/{name}")), "{stderr}");
        assert_eq!(world.snapshot(), before);
        assert_eq!(names(&outside), [""; 0]);
    }
}

#[test]
fn a_dev_that_is_a_link_makes_no_device_on_the_host() {
    let Some(world) = World::new("dev-link") else { return };
    let outside = outside(&world);
    for own in [true, false] {
        let bundle = world.bundle("true", |config| {
            if own {
                config["mounts"]
                    .as_array_mut()
                    .unwrap()
                    .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
            }
        });
        replace(&Path::new(&bundle).join("rootfs/dev"), &outside);
        let outcome = world.run(&["run", "-b", &bundle, &world.id("a")]);
        assert!(outcome.code.is_some(), "{outcome:?}");
        assert_eq!(names(&outside), [""; 0], "{outcome:?}");
    }
}

#[test]
fn a_mask_is_the_hosts_null_device_whatever_the_image_calls_so() {
    let Some(world) = World::new("null") else { return };
    // The container's /dev is a volume in which null is a link to what must be masked (CVE-2025-31133).
    let dev = world.dir.join("dev");
    fs::create_dir(&dev).unwrap();
    symlink("/proc/sys/kernel/core_pattern", dev.join("null")).unwrap();
    symlink("/etc/passwd", dev.join("zero")).unwrap();
    let script = "stat -L -c '%F %t:%T' /proc/version; cat /proc/version; cat /proc/sys/kernel/core_pattern | wc -c";
    let bundle = world.bundle(script, |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        add_mount(config, json!({"destination": "/dev", "type": "bind", "source": dev, "options": ["rbind"]}));
        config["linux"]["maskedPaths"] = json!(["/proc/version", "/proc/sys/kernel/core_pattern"]);
    });
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    assert_eq!(world.ok(&["run", "-b", &bundle, &world.id("a")]), "character special file 1:3\n0\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
    assert_eq!(names(&dev), ["null", "zero"]);
    // An image that brings its own null, as a link: refused rather than taken for a device.
    let bundle = world.bundle("true", |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    });
    symlink("/proc/sys/kernel/core_pattern", Path::new(&bundle).join("rootfs/dev/null")).unwrap();
    let before = world.snapshot();
    let stderr = world.fails(1, &["create", "-b", &bundle, &world.id("a")]);
    assert!(stderr.contains("/dev/null"), "{stderr}");
    assert_eq!(world.snapshot(), before);
}

#[test]
fn nothing_is_mounted_inside_proc() {
    let Some(world) = World::new("in-proc") else { return };
    let before = world.snapshot();
    for target in ["/proc/self/attr", "/proc/sys", "/proc/1", "/way/attr", "/proc/self/fd/0"] {
        let bundle = world.bundle("true", |config| {
            add_mount(config, json!({"destination": target, "type": "tmpfs", "source": "tmpfs"}));
        });
        symlink("/proc/self", Path::new(&bundle).join("rootfs/way")).unwrap();
        let stderr = world.fails(1, &["create", "-b", &bundle, &world.id("a")]);
        assert!(stderr.contains(target), "{stderr}");
        assert_eq!(world.snapshot(), before, "{target}");
    }
}

#[test]
fn mounts_do_not_follow_a_volume_that_changes_under_them() {
    let Some(world) = World::new("race") else { return };
    let outside = outside(&world);
    // /volume/a is now a directory, now a link out of the container (CVE-2021-30465, CVE-2024-45310).
    let volume = world.dir.join("volume");
    fs::create_dir_all(volume.join("a")).unwrap();
    symlink(format!("../../../../../../../..{}", outside.display()), volume.join("link")).unwrap();
    let file = world.shared("file");
    fs::write(&file, "").unwrap();
    let bundle = world.bundle("exit 0", |config| {
        add_mount(config, json!({"destination": "/volume", "type": "bind", "source": volume, "options": ["rbind"]}));
        for n in 0..6 {
            let target = format!("/volume/a/{n}/deep");
            add_mount(config, json!({"destination": target, "type": "tmpfs", "source": "tmpfs"}));
            let target = format!("/volume/a/file{n}");
            add_mount(config, json!({"destination": target, "type": "bind", "source": file, "options": ["bind"]}));
        }
    });
    let (stop, mut won) = (AtomicBool::new(false), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
            while !stop.load(Ordering::Relaxed) {
                let (a, link) = (volume.join("a"), volume.join("link"));
                renameat2(AT_FDCWD, &a, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        for n in 0..200 {
            let outcome = world.run(&["run", "-b", &bundle, &world.id(&format!("r{n}"))]);
            // Being told so is fine, and so is being right.
            let fine = matches!(outcome.code, Some(0 | 1)) && !outcome.stderr.contains("panicked");
            let clean = names(&outside).is_empty();
            won += u32::from(outcome.code == Some(0));
            if !fine || !clean {
                stop.store(true, Ordering::Relaxed);
                panic!("round {n}: {outcome:?}, outside: {:?}", names(&outside));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(names(&world.root()), [""; 0]);
    println!("{won} of 200 containers ran");
}

// Ways out.

#[test]
fn a_directory_that_the_caller_left_open_is_no_way_out() {
    let Some(world) = World::new("cwd") else { return };
    let open = "exec \"$0\" \"$@\" 3</ 4</ 5</ 6</ 7</ 8</ 9</";
    let running = world.running("a", none);
    let before = world.snapshot();
    for n in 3..16 {
        let cwd = format!("/proc/self/fd/{n}");
        let bundle = world.bundle("pwd; ls ..", |config| config["process"]["cwd"] = json!(cwd));
        let outcome = world.call(world.script(open, &["run", "-b", &bundle, &world.id("b")]));
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
        let bundle = world.bundle("pwd; ls ..", |config| config["process"]["cwd"] = json!("/way"));
        symlink(&cwd, Path::new(&bundle).join("rootfs/way")).unwrap();
        let outcome = world.call(world.script(open, &["run", "-b", &bundle, &world.id("b")]));
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
        let outcome = world.call(world.script(open, &["exec", "--cwd", &cwd, &running, "sh", "-c", "pwd; ls .."]));
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(255), ""), "{outcome:?}");
        assert_eq!(world.snapshot(), before);
    }
}

fn hash(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    fs::read(path).unwrap().hash(&mut hasher);
    hasher.finish()
}

#[test]
fn potruns_own_file_is_out_of_reach() {
    let Some(mut world) = World::new("exe") else { return };
    let copy = world.dir.join("potrun");
    fs::copy(&world.potrun, &copy).unwrap();
    world.potrun = copy.clone();
    let before = hash(&copy);
    // As the program of create and of exec (CVE-2019-5736).
    let bundle = world.bundle("true", |config| config["process"]["args"] = json!(["/evil"]));
    let evil = Path::new(&bundle).join("rootfs/evil");
    fs::write(&evil, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
    let outcome = world.run(&["run", "-b", &bundle, &world.id("a")]);
    assert_ne!(outcome.code, Some(0), "{outcome:?}");
    // By a container that lies in wait for exec: it holds on to the file, and writes to it once potrun has ended.
    let (begun, caught) = (world.fifo("begun"), world.shared("caught"));
    let script = "echo begun > /shared/begun; while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || {
        case $(readlink /proc/self/fd/3) in */busybox) ;; *)
            while [ -e $p ]; do :; done; printf evil > /proc/1/fd/3; echo $? > /shared/caught ;;
        esac; } 3< $p/exe; done; done 2>/dev/null";
    let capabilities = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"];
    let bundle = world.bundle(script, |config| {
        let sets = json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities});
        config["process"]["capabilities"] = sets;
    });
    let id = world.id("b");
    world.ok(&["run", "-d", "-b", &bundle, &id]);
    assert_eq!(begun.line(), "begun");
    let mut tries = 0;
    while !caught.exists() && tries < 400 {
        tries += 1;
        assert_eq!(world.run(&["exec", &id, "true"]).code, Some(0));
        assert_eq!(hash(&copy), before, "try {tries}");
    }
    world.ok(&["delete", "-f", &id]);
    assert_eq!(hash(&copy), before);
    assert!(caught.exists(), "the container never saw potrun: this has tested nothing");
}

#[test]
fn a_group_path_stays_in_the_hierarchy() {
    let Some(world) = World::new("cgroup-path") else { return };
    let before = world.snapshot();
    for path in ["../../x", "/../x", "/a/../../x", "/", "..", "a:b:c"] {
        let bundle = world.bundle("true", |config| config["linux"]["cgroupsPath"] = json!(path));
        let stderr = world.fails(1, &["create", "-b", &bundle, &world.id("a")]);
        assert!(stderr.contains("/linux/cgroupsPath"), "{path}: {stderr}");
        assert_eq!(world.snapshot(), before);
    }
}

// Bad input.

/// CVE-2023-25809: without root and without a cgroup namespace the groups of the caller are in sight.
#[test]
fn groups_of_the_caller_are_shown_read_only() {
    let Some(world) = World::new("rootless-groups") else { return };
    let bundle = world.bundle("true", |config| {
        config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "user"}]);
        add_mount(
            config,
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]}),
        );
    });
    let mut facts: Value = serde_json::from_str(&world.ok(&["plan", "--show-facts", &bundle])).unwrap();
    facts["euid"] = json!(1000);
    facts["cgroup"]["parent"] = json!(world.cgroup2.join("user.slice"));
    let file = world.dir.join("facts.json");
    fs::write(&file, facts.to_string()).unwrap();
    let plan = world.ok(&["plan", "--facts", file.to_str().unwrap(), &bundle]);
    let line = plan.lines().find(|line| line.contains(" on /sys/fs/cgroup ")).unwrap();
    assert!(line.ends_with(",ro,rro)"), "{line}");
}

#[test]
fn a_config_that_cannot_be_understood_is_refused() {
    let Some(world) = World::new("config") else { return };
    let bundle = world.bundle("true", none);
    let path = Path::new(&bundle).join("config.json");
    let good = fs::read(&path).unwrap();
    let mut bad: Vec<Vec<u8>> =
        ["", " ", "null", "[]", "{}", "\"x\"", "1e999", "{\"ociVersion\":\"1.0.0\"", "\u{feff}{}"]
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect();
    bad.extend((1..good.len()).step_by(37).map(|end| good[..end].to_vec()));
    bad.push([b"[".repeat(100_000), b"]".repeat(100_000)].concat());
    bad.push(b"{\"a\":".repeat(100_000));
    bad.push([good.clone(), b" ".repeat(17 << 20)].concat());
    bad.push([good.clone(), b"x".to_vec()].concat());
    bad.push([good.clone(), good.clone()].concat());
    bad.push(vec![0; 4096]);
    bad.push(vec![0xff; 4096]);
    let mut wrong = |pointer: &str, value: Value| {
        let mut config: Value = serde_json::from_slice(&good).unwrap();
        *config.pointer_mut(pointer).unwrap() = value;
        bad.push(config.to_string().into_bytes());
    };
    wrong("/ociVersion", json!("2.0.0"));
    wrong("/ociVersion", json!(""));
    wrong("/process/args", json!([]));
    wrong("/process/args", json!("true"));
    wrong("/process/args", json!(["a\0b"]));
    wrong("/process/cwd", json!("relative"));
    wrong("/process/env", json!(["NOVALUE"]));
    wrong("/process/user/uid", json!(-1));
    wrong("/process/user/uid", json!(4_294_967_296_u64));
    wrong("/mounts/0/destination", json!("/a/../../b"));
    wrong("/mounts/0/destination", json!("/"));
    wrong("/mounts/0/type", json!("nosuchfs"));
    wrong("/linux/namespaces", json!([{"type": "nosuch"}]));
    wrong("/linux/namespaces", json!([{"type": "pid"}]));
    wrong("/linux/namespaces", json!([{"type": "mount"}, {"type": "mount"}]));
    wrong("/root/path", json!("no/such/directory"));
    wrong("/root/path", json!("config.json"));
    wrong("/root/path", json!(""));
    wrong("/process", json!(null));
    let before = world.snapshot();
    for text in bad {
        fs::write(&path, &text).unwrap();
        let stderr = world.fails(1, &["create", "-b", &bundle, &world.id("a")]);
        assert!(stderr.len() < 4000, "{} bytes of error", stderr.len());
        let start = String::from_utf8_lossy(&text[..text.len().min(80)]).into_owned();
        assert_eq!(world.snapshot(), before, "{start}");
    }
    fs::remove_file(&path).unwrap();
    assert!(world.fails(1, &["create", "-b", &bundle, &world.id("a")]).contains("config.json"));
    assert!(world.fails(1, &["create", "-b", "/no/such/bundle", &world.id("a")]).contains("/no/such/bundle"));
    assert_eq!(world.snapshot(), before);
}

#[test]
fn a_program_that_cannot_be_run_is_an_error_in_the_words_engines_know() {
    let Some(world) = World::new("program") else { return };
    let before = world.snapshot();
    let cases = [
        ("/no/such/program", "no such file or directory"),
        ("nosuch", "executable file not found in $PATH"),
        ("/etc", "is a directory: permission denied"),
        ("/etc/passwd", "permission denied"),
        ("/etc/passwd/x", "not a directory"),
        ("/loop", "Too many levels"),
    ];
    for (program, words) in cases {
        let bundle = world.bundle("", |config| config["process"]["args"] = json!([program]));
        symlink("/loop", Path::new(&bundle).join("rootfs/loop")).unwrap();
        let stderr = world.fails(1, &["create", "-b", &bundle, &world.id("a")]);
        assert!(stderr.contains(words), "{stderr}");
        assert_eq!(world.snapshot(), before);
    }
    // Only exec(2) itself can tell.
    let bundle = world.bundle("", |config| config["process"]["args"] = json!(["/data"]));
    let data = Path::new(&bundle).join("rootfs/data");
    fs::write(&data, [0x7f, 1, 2, 3]).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let id = world.id("b");
    world.ok(&["create", "-b", &bundle, &id]);
    let pid = world.pid(&id);
    let stderr = world.fails(1, &["start", &id]);
    assert!(stderr.contains("exec format error"), "{stderr}");
    wait_for_end(pid);
    assert_eq!(world.status(&id), "stopped");
    world.ok(&["delete", &id]);
    world.fails(1, &["run", "-b", &bundle, &id]);
    assert_eq!(world.snapshot(), before);
}

#[test]
fn a_full_disk_is_an_error_and_nothing_is_left_on_it() {
    let Some(world) = World::new("full") else { return };
    world.base("small");
    let bundle = world.bundle("exit 0", |config| config["pot"] = json!({"base": {"release": "small"}}));
    let before = world.snapshot();
    let (mut failed, mut ran) = (0, 0);
    let mut options: Vec<String> = (2..14).map(|inodes| format!("nr_inodes={inodes}")).collect();
    options.extend((1..8).map(|pages| format!("size={}k", 4 * pages)));
    for below in ["root", "store/pots"] {
        for option in &options {
            // In a mount namespace of its own, so that the small disk ends with the script.
            let dir = world.dir.join(below);
            let script = format!(
                "{busybox} mount -t tmpfs -o {option} tmpfs {dir} || exit 99; \"$0\" \"$@\"; code=$?; \
                 {busybox} ls -A {dir}; {busybox} grep -c \"^tmpfs {dir} \" /proc/mounts; exit $code",
                busybox = world.busybox.display(),
                dir = dir.display(),
            );
            let id = world.id("full");
            let outer = "exec unshare -m --propagation private \"$BUSYBOX\" sh -c \"$SCRIPT\" \"$0\" \"$@\"";
            let mut command = world.script(outer, &["run", "-b", &bundle, &id]);
            command.env("SCRIPT", script).env("BUSYBOX", &world.busybox);
            let outcome = world.call(command);
            // What ls and grep said: nothing is there, and it was the small disk that was looked at.
            assert_eq!(outcome.stdout, "1\n", "{below}, {option}: {outcome:?}");
            match outcome.code {
                Some(0) => ran += 1,
                Some(1) => {
                    failed += 1;
                    assert!(
                        outcome.stderr.contains("No space left on device")
                            || outcome.stderr.contains("is the disk full"),
                        "{below}, {option}: {outcome:?}"
                    );
                }
                _ => panic!("{below}, {option}: {outcome:?}"),
            }
            assert_eq!(world.snapshot(), before, "{below}, {option}");
        }
    }
    assert!(failed > 4 && ran > 4, "{failed} failed, {ran} ran");
}

#[test]
fn a_damaged_state_directory_is_told_and_can_be_deleted() {
    let Some(world) = World::new("damaged") else { return };
    let before = world.snapshot();
    let other = world.running("other", none);
    let with_other = world.snapshot();
    let whole = |id: &str| fs::read(world.root().join(id).join("state.json")).unwrap();
    let mut damages: Vec<(&str, Option<Vec<u8>>)> = Vec::new();
    let length = whole(&other).len();
    for end in [0, 1, length / 2, length - 1] {
        damages.push(("state.json", Some(whole(&other)[..end].to_vec())));
    }
    damages.push(("state.json", Some(b"garbage".to_vec())));
    damages.push(("state.json", Some(vec![0; 4096])));
    for name in ["state.json", "journal", "config.json", "start.sock"] {
        damages.push((name, None));
    }
    damages.push(("config.json", Some(Vec::new())));
    for (name, content) in damages {
        let id = world.running("damaged", none);
        let path = world.root().join(&id).join(name);
        fs::remove_file(&path).unwrap();
        if let Some(content) = &content {
            fs::write(&path, content).unwrap();
        }
        let told = format!("{name} {content:?}");
        for args in
            [vec!["state", &id], vec!["list"], vec!["exec", &id, "true"], vec!["pause", &id], vec!["start", &id]]
        {
            let outcome = world.run(&args);
            assert!(outcome.code.is_some() && !outcome.stderr.contains("panicked"), "{told}: {args:?}: {outcome:?}");
        }
        assert!(world.run(&["list", "-q"]).stdout.contains(&other), "{told}: one does not hide the others");
        world.ok(&["delete", "--force", &id]);
        assert_eq!(world.snapshot(), with_other, "{told}");
    }
    // A journal that cannot be read is kept: it is all that says what there is to take back.
    let id = world.running("journal", none);
    let path = world.root().join(&id).join("journal");
    let journal = fs::read(&path).unwrap();
    fs::write(&path, [b"+9 {\"op\":\"noSuchOp\"}\n", journal.as_slice()].concat()).unwrap();
    let stderr = world.fails(1, &["delete", "--force", &id]);
    assert!(stderr.contains("journal"), "{stderr}");
    world.fails(1, &["gc"]);
    assert!(path.exists());
    fs::write(&path, journal).unwrap();
    world.ok(&["gc"]);
    assert_eq!(world.snapshot(), with_other);
    assert_eq!(world.status(&other), "running");
    world.ok(&["delete", "-f", &other]);
    assert_eq!(world.snapshot(), before);
}

#[test]
fn what_is_not_a_containers_directory_is_left_alone() {
    let Some(world) = World::new("foreign") else { return };
    fs::write(world.root().join("file"), "").unwrap();
    fs::create_dir(world.root().join("not an id")).unwrap();
    fs::write(world.root().join("not an id/file"), "").unwrap();
    let pots = world.store().join("pots");
    fs::create_dir_all(pots.join("foreign/upper")).unwrap();
    fs::create_dir_all(pots.join("of-another-root/upper")).unwrap();
    symlink("/somewhere/else/id", pots.join("of-another-root/owner")).unwrap();
    let before = world.snapshot();
    let outcome = world.run(&["gc"]);
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    let outcome = world.run(&["list"]);
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    assert_eq!(world.snapshot(), before);
}
