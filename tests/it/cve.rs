//! What has gone wrong in runtimes before, by number, and the test that does the attack.
//!
//! | CVE | what | test |
//! |---|---|---|
//! | 2016-9962, 2019-5736, 2020-14298, -14300 | the runtime's own file, by /proc/PID/exe | `attack::potruns_own_file_is_out_of_reach` |
//! | 2018-15664 | copies that follow a link out | `copy::` |
//! | 2019-16884 | a fake /proc takes the label | `attack::nothing_is_mounted_inside_proc`, the guest's `apparmor_is_not_fooled_by_a_proc_that_is_covered` |
//! | 2019-18837, 2025-24965 | links of the image lead out | `attack::links_of_an_image_lead_nowhere_but_into_the_image` |
//! | 2019-19921, 2023-27561, -28642, 2025-54867 | /proc and /sys that are links | `attack::proc_and_sys_that_are_links_are_refused` |
//! | 2021-30465, 2024-45310 | targets that change under a mount | `attack::mounts_do_not_follow_a_volume_that_changes_under_them` |
//! | 2021-43784 | lengths that overflow between the processes | `megabytes_of_mounts_and_maps_inject_nothing` |
//! | 2022-0492 | cgroup v1's release_agent | `no_release_agent_is_in_reach` |
//! | 2022-0811 | sysctls that smuggle others | `a_sysctl_is_one_key_and_one_value` |
//! | 2022-24769, -27649 to -27651, -29162, 2025-27612 | inheritable capabilities of exec | `properties::`, `exec_hands_on_no_capabilities` |
//! | 2023-25809 | the caller's groups, without root and without a cgroup namespace | `without_root_the_callers_groups_are_out_of_reach`, `attack::groups_of_the_caller_are_shown_read_only` |
//! | 2024-21626 | a directory that was left open | `attack::a_directory_that_the_caller_left_open_is_no_way_out` |
//! | 2025-31133, -62161 | a mask that is the image's own /dev/null | `attack::a_mask_is_the_hosts_null_device_whatever_the_image_calls_so`, `masks_hold_while_the_device_changes` |
//! | 2025-52565 | the terminal lands elsewhere | `a_console_that_changes_is_a_console_or_an_error`, `a_devpts_that_changes_leads_nowhere` |
//! | 2025-52881, -62596 | writes to /proc land elsewhere | `sysctls_reach_the_kernel_whatever_the_image_has_at_proc`, the guest's as above |
//! | 2026-30892 | `exec --user` that cannot be read is root | `verb::exec::tests::users_are_numbers_and_nothing_else`, `cli::` |
//! | 2026-41579, -47766 | a /dev that is a link | `attack::a_dev_that_is_a_link_makes_no_device_on_the_host` |

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::{Value, json};

use crate::util::World;

fn names(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|item| item.unwrap().file_name().into()).collect();
    all.sort();
    all
}

/// Does something again and again while two names change places as fast as they can.
fn while_changing(one: &Path, other: &Path, rounds: u32, mut work: impl FnMut(u32)) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (0..rounds).for_each(&mut work)));
        stop.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// /dev is a volume that somebody else writes to.
fn dev_of_others(world: &World, config: &mut Value) -> PathBuf {
    let dev = world.dir.join("dev");
    fs::create_dir_all(dev.join("pts")).unwrap();
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    mounts.push(json!({"destination": "/dev", "type": "bind", "source": dev, "options": ["rbind"]}));
    dev
}

fn with_terminal(config: &mut Value) {
    config["process"]["terminal"] = json!(true);
    let pts = json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["newinstance", "ptmxmode=0666"]});
    config["mounts"].as_array_mut().unwrap().push(pts);
}

/// Creates and deletes a container with a terminal; whether it was created. `told` says what its terminal is.
fn create_with_terminal(world: &World, bundle: &str, n: u32) -> bool {
    let socket = world.dir.join(format!("console{n}"));
    let _listener = UnixListener::bind(&socket).unwrap();
    let id = world.id(&format!("t{n}"));
    let outcome = world.run(&["create", "-b", bundle, "--console-socket", socket.to_str().unwrap(), &id]);
    assert!(matches!(outcome.code, Some(0 | 1)) && !outcome.stderr.contains("panicked"), "{outcome:?}");
    world.ok(&["delete", "-f", &id]);
    fs::remove_file(&socket).unwrap();
    outcome.code == Some(0)
}

#[test]
fn a_console_that_changes_is_a_console_or_an_error() {
    let Some(world) = World::new("console-race") else { return };
    let outside = world.dir.join("outside");
    fs::write(&outside, "of the host").unwrap();
    let mut dev = PathBuf::new();
    let bundle = world.bundle("true", |config| {
        dev = dev_of_others(&world, config);
        with_terminal(config);
    });
    let picture = || {
        use std::os::unix::fs::MetadataExt;
        let pattern = fs::metadata("/proc/sys/kernel/core_pattern").unwrap();
        let file = fs::metadata(&outside).unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().matches(world.token.as_str()).count();
        (
            pattern.uid(),
            pattern.mode(),
            file.uid(),
            file.mode(),
            file.ino(),
            fs::read_to_string(&outside).unwrap(),
            mounts,
        )
    };
    let before = (picture(), world.snapshot());
    // A link, from the beginning: it leads to a file of the image's /proc, or to nothing.
    for target in ["/proc/sys/kernel/core_pattern", outside.to_str().unwrap(), "../../../../../../../etc/passwd"] {
        symlink(target, dev.join("console")).unwrap();
        create_with_terminal(&world, &bundle, 0);
        fs::remove_file(dev.join("console")).unwrap();
        assert_eq!((picture(), world.snapshot()), before, "{target}");
    }
    // Now a file, now a link.
    fs::write(dev.join("console"), "").unwrap();
    symlink(format!("../../../../../../../..{}", outside.display()), dev.join("link")).unwrap();
    let mut created = 0;
    while_changing(&dev.join("console"), &dev.join("link"), 100, |n| {
        created += u32::from(create_with_terminal(&world, &bundle, n));
        assert_eq!(picture(), before.0, "round {n}");
    });
    assert_eq!(world.snapshot(), before.1);
    println!("{created} of 100 were created");
}

#[test]
fn a_devpts_that_changes_leads_nowhere() {
    let Some(world) = World::new("pts-race") else { return };
    let outside = world.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    // Who follows a link to this takes the host's file for the multiplexor of terminals.
    fs::write(outside.join("ptmx"), "of the host").unwrap();
    let mut dev = PathBuf::new();
    let bundle = world.bundle("true", |config| {
        dev = dev_of_others(&world, config);
        with_terminal(config);
    });
    symlink(format!("../../../../../../../..{}", outside.display()), dev.join("link")).unwrap();
    let before = world.snapshot();
    while_changing(&dev.join("pts"), &dev.join("link"), 100, |n| {
        create_with_terminal(&world, &bundle, n);
        assert_eq!(names(&outside), [PathBuf::from("ptmx")], "round {n}");
        assert_eq!(fs::read_to_string(outside.join("ptmx")).unwrap(), "of the host", "round {n}");
    });
    assert_eq!(world.snapshot(), before);
}

#[test]
fn masks_hold_while_the_device_changes() {
    let Some(world) = World::new("mask-race") else { return };
    let mut dev = PathBuf::new();
    let bundle = world.bundle("cat /proc/version; stat -c %t:%T /proc/version", |config| {
        dev = dev_of_others(&world, config);
        config["linux"]["maskedPaths"] = json!(["/proc/version"]);
    });
    fs::write(dev.join("null"), "").unwrap();
    symlink("/proc/sys/kernel/core_pattern", dev.join("link")).unwrap();
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    while_changing(&dev.join("null"), &dev.join("link"), 50, |n| {
        let outcome = world.run(&["run", "-b", &bundle, &world.id(&format!("m{n}"))]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "1:3\n"), "round {n}: {outcome:?}");
    });
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
}

#[test]
fn sysctls_reach_the_kernel_whatever_the_image_has_at_proc() {
    let Some(world) = World::new("sysctl-proc") else { return };
    let configure = |config: &mut Value| {
        config["linux"]["sysctl"] = json!({"kernel.shmmax": "4242"});
    };
    // A tree that looks like procfs, and one of links to what a write must not reach.
    let bundle = world.bundle("cat /proc/sys/kernel/shmmax", configure);
    let fake = Path::new(&bundle).join("rootfs/proc/sys/kernel");
    fs::create_dir_all(&fake).unwrap();
    fs::write(fake.join("shmmax"), "fake").unwrap();
    assert_eq!(world.ok(&["run", "-b", &bundle, &world.id("a")]), "4242\n");
    assert_eq!(fs::read_to_string(fake.join("shmmax")).unwrap(), "fake");
    fs::remove_file(fake.join("shmmax")).unwrap();
    let victim = world.dir.join("victim");
    fs::write(&victim, "of the host").unwrap();
    symlink(&victim, fake.join("shmmax")).unwrap();
    assert_eq!(world.ok(&["run", "-b", &bundle, &world.id("b")]), "4242\n");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "of the host");
}

#[test]
fn a_sysctl_is_one_key_and_one_value() {
    let Some(world) = World::new("sysctl-smuggled") else { return };
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for (key, value) in [
        ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/evil"),
        ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/evil"),
        ("kernel.shm_rmid_forced/../core_pattern", "|/evil"),
        ("net/../kernel/core_pattern", "|/evil"),
        ("kernel.core_pattern", "|/evil"),
        ("fs.mqueue.../kernel/core_pattern", "|/evil"),
    ] {
        let bundle = world.bundle("true", |config| {
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "network"}));
            config["linux"]["sysctl"] = json!({key: value});
        });
        world.fails(1, &["run", "-b", &bundle, &world.id("a")]);
        assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern, "{key}={value}");
    }
}

#[test]
fn no_release_agent_is_in_reach() {
    let Some(world) = World::new("release-agent") else { return };
    // With what a pot may do, and with all that lets it mount but CAP_SYS_ADMIN of the host: a hierarchy of version 1 is
    // not mounted, and of those that are nothing is shown.
    let script = "find / -name release_agent 2>/dev/null; mkdir /tmp/g 2>/dev/null
        for one in memory name=x rdma cpu; do mount -t cgroup -o none,$one none /tmp/g 2>/dev/null && echo mounted $one; done
        mount -t cgroup -o memory none /tmp/g 2>/dev/null && echo mounted
        echo evil 2>/dev/null >/sys/fs/cgroup/release_agent && echo written
        mkdir /sys/fs/cgroup/evil 2>/dev/null && echo made; echo end";
    let groups = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]});
    let sysfs = json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]});
    let capabilities = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_MKNOD", "CAP_SETUID", "CAP_SYS_CHROOT"];
    for own in [true, false] {
        let bundle = world.bundle(script, |config| {
            let sets = json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities});
            config["process"]["capabilities"] = sets;
            config["mounts"].as_array_mut().unwrap().extend([sysfs.clone(), groups.clone()]);
            if !own {
                let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
                namespaces.retain(|namespace| namespace["type"] != "cgroup");
            }
        });
        assert_eq!(world.ok(&["run", "-b", &bundle, &world.id("a")]), "end\n", "cgroup namespace: {own}");
    }
}

#[test]
fn exec_hands_on_no_capabilities() {
    let Some(world) = World::new("inheritable") else { return };
    let id = world.running("a", |config| {
        config["process"]["capabilities"] =
            json!({"bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]});
    });
    for extra in [&[][..], &["--cap", "CAP_CHOWN"], &["--user", "1000", "--cap", "CAP_CHOWN"]] {
        let mut arguments = vec!["exec"];
        arguments.extend(extra);
        arguments.extend([id.as_str(), "grep", "-E", "Cap(Inh|Amb)", "/proc/self/status"]);
        assert_eq!(world.ok(&arguments), "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n", "{extra:?}");
    }
    world.ok(&["delete", "-f", &id]);
}

#[test]
fn megabytes_of_mounts_and_maps_inject_nothing() {
    let Some(world) = World::new("lengths") else { return };
    let before = world.snapshot();
    // More than 64 KiB of each, the length that runc's message had a field for.
    let bundle = world.bundle("readlink /proc/self/ns/net; echo end", |config| {
        let long = format!("/{}", "x/".repeat(1000));
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.extend((0..100).map(|n| json!({"destination": format!("/m{n}"), "type": "tmpfs", "source": long})));
        config["process"]["env"]
            .as_array_mut()
            .unwrap()
            .extend((0..600).map(|n| json!(format!("V{n}={}", "y".repeat(2000)))));
    });
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let outcome = world.run(&["run", "-b", &bundle, &world.id("a")]);
    assert_eq!((outcome.code, outcome.stdout), (Some(0), format!("{}\nend\n", own.display())), "{}", outcome.stderr);
    let maps: Vec<Value> = (0..4000).map(|n| json!({"containerID": n, "hostID": 100_000 + 2 * n, "size": 1})).collect();
    let bundle = world.bundle("true", |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = json!(maps);
        config["linux"]["gidMappings"] = json!(maps);
    });
    // The kernel takes 340 (user_namespaces(7)).
    assert!(world.fails(1, &["run", "-b", &bundle, &world.id("b")]).contains("uid_map"));
    assert_eq!(world.snapshot(), before);
}

#[test]
fn without_root_the_callers_groups_are_out_of_reach() {
    const USER: u32 = 12345;
    let Some(mut world) = World::new("groups-attack") else { return };
    if !["/usr/bin/setpriv", "/bin/setpriv"].iter().any(|path| fs::exists(path).unwrap()) {
        println!("skipped: groups-attack: no setpriv");
        return;
    }
    // The caller has a group of its own, as a session of systemd's has: what the container must not write to.
    let group = world.cgroup2.join(format!("{}-session", world.token));
    fs::create_dir(&group).unwrap();
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        std::os::unix::fs::chown(group.join(file), Some(USER), Some(USER)).unwrap();
    }
    let name = group.file_name().unwrap().to_str().unwrap().to_string();
    let script = format!(
        "cd /sys/fs/cgroup/{name} || exit 3; mkdir evil 2>/dev/null && echo made; ls >/dev/null
         echo 0 2>/dev/null >cgroup.procs && echo moved; mount -o remount,rw /sys/fs/cgroup 2>/dev/null && mkdir evil && echo made
         umount /sys/fs/cgroup 2>/dev/null && echo unmounted; echo end"
    );
    let bundle = world.bundle(&script, |config| {
        config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "user"}, {"type": "pid"}]);
        let groups = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]});
        config["mounts"].as_array_mut().unwrap().push(groups);
    });
    // The caller cannot make it in an image that is root's.
    fs::create_dir_all(Path::new(&bundle).join("rootfs/sys/fs/cgroup")).unwrap();
    world.become_user(USER);
    let inner = format!(
        "echo $$ >{}/cgroup.procs; exec setpriv --reuid {USER} --regid {USER} --clear-groups \"$@\"",
        group.display()
    );
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &inner, "sh"]).arg(&world.potrun).arg("--root").arg(world.root());
    command.arg("--store").arg(world.store()).args(["--cgroup-manager", "cgroupfs", "run", "-b", &bundle]);
    command.arg(world.id("a")).env("HOME", &world.dir).current_dir("/");
    let outcome = world.call(command);
    let made = group.join("evil").exists();
    // What has ended may hold its group for a moment.
    let end = std::time::Instant::now() + crate::util::DEADLINE;
    while fs::remove_dir(&group).is_err() {
        assert!(std::time::Instant::now() < end, "{} stays", group.display());
        std::thread::yield_now();
    }
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "end\n"), "{outcome:?}");
    assert!(!made);
}
