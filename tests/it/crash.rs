//! potrun killed at every moment at which it could have changed anything: just before each of its system calls that is
//! more than a look. Whatever the moment, `delete --force` and `gc`, each on its own, put the world back.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Instant;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::sys;
use crate::util::{DEADLINE, World, readable};

/// Calls that change nothing outside of the process: being killed before one of them is being killed before the next
/// one that is not here. Closing is one, because death closes everything.
const LOOKS: &[i64] = &[
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_readlinkat,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_socket,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_uname,
];

/// The older names that x86 still has of the same.
#[cfg(target_arch = "x86_64")]
const OLD_LOOKS: &[i64] =
    &[libc::SYS_access, libc::SYS_arch_prctl, libc::SYS_lstat, libc::SYS_poll, libc::SYS_readlink, libc::SYS_stat];
#[cfg(not(target_arch = "x86_64"))]
const OLD_LOOKS: &[i64] = &[];

fn only_looks(number: i64, args: [u64; 6]) -> bool {
    let opens_only = number == libc::SYS_openat && args[2] & libc::O_CREAT as u64 == 0;
    opens_only || LOOKS.contains(&number) || OLD_LOOKS.contains(&number)
}

/// How a stepped potrun ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was killed before its call of this number.
    Killed(i64),
    /// It came to its own end first.
    Exited(i32),
}

/// Runs potrun and kills it just before the `n`th of its calls that could change something.
pub(crate) fn killed_at(world: &World, args: &[&str], n: usize) -> End {
    let mut command = world.script("kill -STOP $$; exec \"$0\" \"$@\"", args);
    let out = || File::create(world.dir.join("out/stepped")).unwrap();
    command.stdout(out()).stderr(out());
    let pid = Pid::from_raw(spawn_stopped(&mut command));
    ptrace::seize(pid, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL)
        .unwrap();
    let pidfd = sys::pidfd_open(pid.as_raw()).unwrap();
    let watchdog = std::thread::spawn(move || {
        if !readable(pidfd.as_fd(), Instant::now() + DEADLINE) {
            kill(pid, Signal::SIGKILL).unwrap();
        }
    });
    kill(pid, Signal::SIGCONT).unwrap();
    let end = step(pid, n);
    watchdog.join().unwrap();
    end
}

fn spawn_stopped(command: &mut Command) -> i32 {
    let pid = command.spawn().unwrap().id() as i32;
    let status = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert!(matches!(status, WaitStatus::Stopped(..)), "{status:?}");
    pid
}

fn step(pid: Pid, n: usize) -> End {
    let (mut seen, mut is_potrun, mut killed) = (0, false, None);
    loop {
        let mut deliver = None;
        match waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::Exited(_, code) => return End::Exited(code),
            WaitStatus::Signaled(_, signal, _) => return killed.map(End::Killed).unwrap_or_else(|| panic!("{signal}")),
            WaitStatus::PtraceEvent(_, _, event) => is_potrun |= event == libc::PTRACE_EVENT_EXEC,
            WaitStatus::PtraceSyscall(_) if is_potrun => {
                if let Some((number, args)) = sys::entered(pid).unwrap() {
                    seen += usize::from(!only_looks(number, args));
                    if seen == n {
                        killed = Some(number);
                        kill(pid, Signal::SIGKILL).unwrap();
                        continue;
                    }
                }
            }
            WaitStatus::Stopped(_, signal) => deliver = Some(signal),
            _ => {}
        }
        match ptrace::syscall(pid, deliver) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(e) => panic!("{e}"),
        }
    }
}

/// Kills the verb at its first, its second, .. moment (`stride` apart) until it comes to its own end. `check` is told
/// the moment; the first of its two turns puts back with `delete --force`, the second one with `gc`.
pub(crate) fn at_every_moment(stride: usize, mut check: impl FnMut(usize, bool) -> End) {
    for by_gc in [false, true] {
        let mut moments = 0;
        for n in (1 + stride / 2 * usize::from(by_gc)..).step_by(stride) {
            match check(n, by_gc) {
                End::Killed(_) => moments += 1,
                End::Exited(code) => {
                    assert_eq!(code, 0, "moment {n}: it fails when it is left alone");
                    break;
                }
            }
        }
        assert!(moments >= 3, "only {moments} moments: this cannot be the whole verb");
    }
}

/// Puts back by `delete --force`, or by `gc`. A container that `gc` leaves alone must be whole.
pub(crate) fn put_back(world: &World, id: &str, by_gc: bool, whole: &[&str], end: &End) {
    if by_gc {
        let deadline = Instant::now() + DEADLINE;
        world.ok(&["gc"]);
        // The first process of a create that died holds the lock for the moment that it takes to die, too: then gc
        // leaves the container to it, and the next one takes it back.
        while world.root().join(id).exists() && !world.root().join(id).join("state.json").exists() {
            assert!(Instant::now() < deadline, "gc does not take it back, after {end:?}");
            world.ok(&["gc"]);
        }
        if world.root().join(id).exists() {
            let status = world.status(id);
            assert!(whole.contains(&status.as_str()), "gc left a container that is {status}, after {end:?}");
            if status == "created" {
                world.ok(&["start", id]); // it really waits
            }
            world.ok(&["delete", "--force", id]);
        }
    } else {
        world.ok(&["delete", "--force", id]);
        world.ok(&["delete", "--force", id]);
    }
}

fn create_killed(name: &str, stride: usize, prepare: impl Fn(&World), edit: impl FnOnce(&mut Value)) {
    let Some(world) = World::new(name) else { return };
    prepare(&world);
    let bundle = world.bundle("exec sleep 100000", edit);
    let before = world.snapshot();
    at_every_moment(stride, |n, by_gc| {
        let id = world.id(&format!("c{n}"));
        let end = killed_at(&world, &["create", "-b", &bundle, &id], n);
        put_back(&world, &id, by_gc, &["created"], &end);
        assert_eq!(world.snapshot(), before, "moment {n}, by gc: {by_gc}, {end:?}");
        end
    });
}

#[test]
fn create_can_die_at_any_moment() {
    create_killed("create", 1, |_| (), |_| ());
}

#[test]
fn create_of_a_pot_with_a_base_can_die_at_any_moment() {
    let prepare = |world: &World| world.base("small");
    create_killed("create-pot", 1, prepare, |config| {
        config["pot"] = json!({"base": {"release": "small"}});
        config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}]);
    });
}

#[test]
fn create_without_root_can_die_at_any_moment() {
    let Some(mut world) = World::new("create-user") else { return };
    world.become_user(12345);
    let bundle = world.bundle("exec sleep 100000", |_| ());
    let before = world.snapshot();
    // There is no group to kill by: that nothing is left rests on the first process alone.
    at_every_moment(1, |n, by_gc| {
        let id = world.id(&format!("c{n}"));
        let end = killed_at(&world, &["create", "-b", &bundle, &id], n);
        put_back(&world, &id, by_gc, &["created"], &end);
        world.settles(&before);
        end
    });
}

#[test]
fn create_with_hooks_and_devices_can_die_at_any_moment() {
    create_killed(
        "create-hooks",
        4,
        |_| (),
        |config| {
            let hook = json!([{"path": "/bin/true"}]);
            config["hooks"] = json!({"createRuntime": hook, "createContainer": hook, "poststop": hook});
            config["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
            config["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
            config["root"]["readonly"] = json!(true);
        },
    );
}

#[test]
fn start_can_die_at_any_moment() {
    let Some(world) = World::new("start") else { return };
    let begun = world.fifo("begun");
    let bundle = world.bundle("echo begun > /shared/begun; exec sleep 100000", |_| ());
    let before = world.snapshot();
    at_every_moment(1, |n, by_gc| {
        let id = world.id(&format!("s{n}"));
        world.ok(&["create", "-b", &bundle, &id]);
        let end = killed_at(&world, &["start", &id], n);
        let status = world.status(&id);
        assert!(["created", "running"].contains(&status.as_str()), "moment {n}, {end:?}: {status}");
        // Either the first start went through, or the second one does; never both, never neither.
        let second = world.run(&["start", &id]);
        assert_eq!(begun.line(), "begun", "moment {n}, {end:?}: {second:?}");
        assert_eq!(world.status(&id), "running");
        put_back(&world, &id, by_gc, &["running"], &end);
        assert_eq!(world.snapshot(), before, "moment {n}, {end:?}");
        end
    });
}

fn delete_killed(name: &str, prepare: impl Fn(&World), edit: impl FnOnce(&mut Value)) {
    let Some(world) = World::new(name) else { return };
    prepare(&world);
    let bundle = world.bundle("exec sleep 100000", edit);
    let before = world.snapshot();
    at_every_moment(1, |n, by_gc| {
        let id = world.id(&format!("d{n}"));
        world.ok(&["create", "-b", &bundle, &id]);
        world.ok(&["start", &id]);
        let end = killed_at(&world, &["delete", "--force", &id], n);
        put_back(&world, &id, by_gc, &["running"], &end);
        assert_eq!(world.snapshot(), before, "moment {n}, by gc: {by_gc}, {end:?}");
        end
    });
}

#[test]
fn delete_can_die_at_any_moment() {
    delete_killed("delete", |_| (), |_| ());
}

#[test]
fn delete_of_a_pot_with_a_base_can_die_at_any_moment() {
    delete_killed(
        "delete-pot",
        |world| world.base("small"),
        |config| {
            config["pot"] = json!({"base": {"release": "small"}});
        },
    );
}

#[test]
fn run_can_die_at_any_moment() {
    let Some(world) = World::new("run") else { return };
    let bundle = world.bundle("exit 0", |_| ());
    let before = world.snapshot();
    at_every_moment(1, |n, by_gc| {
        let id = world.id(&format!("r{n}"));
        let end = killed_at(&world, &["run", "-b", &bundle, &id], n);
        // Its potrun is gone, so it is nobody's: gc takes it back whatever it is doing.
        put_back(&world, &id, by_gc, &[], &end);
        assert_eq!(world.snapshot(), before, "moment {n}, by gc: {by_gc}, {end:?}");
        end
    });
}

#[test]
fn gc_can_die_at_any_moment() {
    let Some(world) = World::new("gc") else { return };
    world.base("small");
    let bundle = world.bundle("exec sleep 100000", |config| config["pot"] = json!({"base": {"release": "small"}}));
    let before = world.snapshot();
    at_every_moment(1, |n, by_gc| {
        let id = world.id(&format!("g{n}"));
        // A run that dies once its program runs leaves all there can be for gc.
        world.ok(&["create", "-b", &bundle, &id]);
        std::fs::remove_file(world.root().join(&id).join("state.json")).unwrap();
        let end = killed_at(&world, &["gc"], n);
        put_back(&world, &id, by_gc, &[], &end);
        assert_eq!(world.snapshot(), before, "moment {n}, by gc: {by_gc}, {end:?}");
        end
    });
}

#[test]
fn exec_can_die_at_any_moment_and_the_container_lives_on() {
    let Some(world) = World::new("exec") else { return };
    let before = world.snapshot();
    let id = world.running("e", |_| ());
    let mut n = 1;
    while let End::Killed(_) = killed_at(&world, &["exec", &id, "true"], n) {
        assert_eq!(world.status(&id), "running", "moment {n}");
        n += 1;
    }
    assert!(n > 3, "{n}");
    assert_eq!(world.ok(&["exec", &id, "echo", "well"]), "well\n");
    world.ok(&["delete", "--force", &id]);
    assert_eq!(world.snapshot(), before);
}

#[test]
fn a_create_that_dies_in_the_group_of_another_does_it_no_harm() {
    let Some(world) = World::new("group") else { return };
    let path = format!("/{}", world.id("group"));
    let first = world.running("first", |config| config["linux"]["cgroupsPath"] = json!(path));
    let bundle = world.bundle("exit 0", |config| config["linux"]["cgroupsPath"] = json!(path));
    let second = world.id("second");
    let mut n = 1;
    while let end @ End::Killed(_) = killed_at(&world, &["create", "-b", &bundle, &second], n) {
        world.ok(&["delete", "--force", &second]);
        assert_eq!(world.status(&first), "running", "moment {n}, {end:?}");
        n += 1;
    }
    assert!(n > 3, "{n}");
    world.ok(&["delete", "--force", &first]);
}
