//! What the tests on the real kernel share: a world of their own, bundles, a potrun that cannot hang, and a picture of
//! everything that a container could leave behind.
//!
//! Nothing sleeps: every wait is for an event, and a deadline only turns a hang into a failure.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use crate::sys;

/// When a wait counts as a hang. Nothing that is right comes near it, even on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// The programs of a root file system.
const APPLETS: &[&str] = &[
    "sh", "cat", "chmod", "chown", "cp", "dd", "df", "echo", "env", "false", "grep", "head", "hostname", "id", "kill",
    "ln", "ls", "mkdir", "mkfifo", "mknod", "mount", "mv", "od", "printf", "ps", "pwd", "readlink", "rm", "seq", "sed",
    "sleep", "sort", "stat", "stty", "test", "touch", "tr", "true", "tty", "umount", "uname", "wc",
];

/// A test's own directory, state root, store and ids. Everything is called after `token`, so that what is left can be
/// told from what other tests have.
pub(crate) struct World {
    pub(crate) dir: PathBuf,
    pub(crate) token: String,
    pub(crate) busybox: PathBuf,
    pub(crate) cgroup2: PathBuf,
    pub(crate) potrun: PathBuf,
    user: Option<u32>,
    /// The namespaces that potrun is called in, unless the test's own: network and mounts.
    pub(crate) host: Option<[File; 2]>,
    calls: Cell<u32>,
    bundles: Cell<u32>,
}

/// How a potrun ended.
#[must_use]
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Everything of a world that a container could leave behind.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    mounts: Vec<String>,
    groups: Vec<PathBuf>,
    processes: Vec<i32>,
    state: Vec<PathBuf>,
    store: Vec<PathBuf>,
}

impl World {
    /// A new world, or none, having said why the test is skipped.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let skipped = |reason: &str| {
            println!("skipped: {name}: {reason}");
            None
        };
        if !nix::unistd::geteuid().is_root() {
            return skipped("not root");
        }
        let busybox = ["/usr/bin/busybox", "/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists());
        let Some(busybox) = busybox else { return skipped("no busybox") };
        if !is_static(&busybox) {
            return skipped("busybox is not static");
        }
        let Some(cgroup2) = cgroup2() else { return skipped("no cgroup2 hierarchy") };
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let token = format!("it{}n{}x", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().canonicalize().unwrap().join(format!("potrun-{token}-{name}"));
        for below in ["", "root", "store", "store/pots", "store/bases", "shared", "out"] {
            fs::create_dir(dir.join(below)).unwrap();
        }
        fs::copy(&busybox, dir.join("busybox")).unwrap();
        let potrun = env!("CARGO_BIN_EXE_potrun").into();
        Some(Self {
            dir,
            token,
            busybox,
            cgroup2,
            potrun,
            user: None,
            host: None,
            calls: Cell::new(0),
            bundles: Cell::new(0),
        })
    }

    /// From now on potrun is called by user `uid`, who may write to what is the world's.
    pub(crate) fn become_user(&mut self, uid: u32) {
        for below in ["root", "store", "store/pots", "store/bases", "shared"] {
            std::os::unix::fs::chown(self.dir.join(below), Some(uid), Some(uid)).unwrap();
        }
        // The caller's own file may be where others cannot look.
        let copy = self.dir.join("potrun");
        fs::copy(&self.potrun, &copy).unwrap();
        (self.potrun, self.user) = (copy, Some(uid));
    }

    fn caller(&self, command: &mut Command) {
        if let Some(uid) = self.user {
            command.uid(uid).gid(uid).current_dir("/").env("HOME", &self.dir);
        }
        if let Some(host) = &self.host {
            sys::enter(command, host.iter().map(AsRawFd::as_raw_fd).collect());
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// What containers see as `/shared`.
    pub(crate) fn shared(&self, name: &str) -> PathBuf {
        self.dir.join("shared").join(name)
    }

    /// An id of this world.
    pub(crate) fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.token)
    }

    /// Where the group of container `id` is, unless its bundle says otherwise.
    pub(crate) fn group(&self, id: &str) -> PathBuf {
        self.cgroup2.join(format!("potrun-{id}"))
    }

    /// potrun with `args`, its stdin empty.
    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(&self.potrun);
        command.arg("--root").arg(self.root()).arg("--store").arg(self.store()).args(args).stdin(Stdio::null());
        self.caller(&mut command);
        command
    }

    /// A shell script that finds potrun and its arguments as `"$0" "$@"`.
    pub(crate) fn script<S: AsRef<std::ffi::OsStr>>(&self, script: &str, args: &[S]) -> Command {
        let mut command = Command::new(&self.busybox);
        command.args(["sh", "-c", script]).arg(&self.potrun).arg("--root").arg(self.root());
        command.arg("--store").arg(self.store()).args(args).stdin(Stdio::null());
        self.caller(&mut command);
        command
    }

    /// Runs a command to its end. Its output goes to files, since the processes of a container keep it open.
    pub(crate) fn call(&self, mut command: Command) -> Outcome {
        let n = self.calls.replace(self.calls.get() + 1);
        let (out, err) = (self.dir.join(format!("out/{n}.out")), self.dir.join(format!("out/{n}.err")));
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let mut child = command.spawn().unwrap();
        let pidfd = sys::pidfd_open(child.id() as i32).unwrap();
        let ended = readable(pidfd.as_fd(), Instant::now() + DEADLINE);
        if !ended {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        let outcome = Outcome { code: status.code(), signal: status.signal(), stdout: text(&out), stderr: text(&err) };
        assert!(ended, "hangs: {command:?}\n{outcome:?}");
        outcome
    }

    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Outcome {
        self.call(self.command(args))
    }

    /// Runs what must succeed; its stdout.
    #[track_caller]
    pub(crate) fn ok<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(&self, args: &[S]) -> String {
        let outcome = self.run(args);
        assert_eq!(outcome.code, Some(0), "{args:?}: {outcome:?}");
        outcome.stdout
    }

    /// Runs what must fail with `code`; its stderr.
    #[track_caller]
    pub(crate) fn fails<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(&self, code: i32, args: &[S]) -> String {
        let outcome = self.run(args);
        assert_eq!(outcome.code, Some(code), "{args:?}: {outcome:?}");
        assert!(!outcome.stderr.contains("panicked"), "{args:?}: {outcome:?}");
        assert!(outcome.stderr.starts_with("potrun: "), "{args:?}: {outcome:?}");
        outcome.stderr
    }

    /// A bundle whose program is the shell script; `edit` changes the rest. Returns its directory.
    pub(crate) fn bundle(&self, script: &str, edit: impl FnOnce(&mut Value)) -> String {
        let n = self.bundles.replace(self.bundles.get() + 1);
        let dir = self.dir.join(format!("bundle{n}"));
        fs::create_dir(&dir).unwrap();
        self.rootfs(&dir.join("rootfs"));
        let mut config = config(script, &self.dir.join("shared"), &self.token);
        edit(&mut config);
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
        dir.to_str().unwrap().into()
    }

    /// A root file system of busybox.
    pub(crate) fn rootfs(&self, path: &Path) {
        for below in ["", "bin", "etc", "tmp", "proc", "sys", "dev", "mnt", "shared"] {
            fs::create_dir(path.join(below)).unwrap();
        }
        fs::hard_link(self.dir.join("busybox"), path.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", path.join("bin").join(applet)).unwrap();
        }
        fs::write(path.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
            .unwrap();
    }

    /// Imports a base with busybox and a file `/etc/base`.
    pub(crate) fn base(&self, name: &str) {
        let tree = self.dir.join(format!("tree-{name}"));
        self.rootfs(&tree);
        fs::write(tree.join("etc/base"), "of the base\n").unwrap();
        let tar = self.dir.join(format!("{name}.tar"));
        let mut command = Command::new(&self.busybox);
        command.args(["tar", "cf"]).arg(&tar).arg("-C").arg(&tree).arg(".");
        assert_eq!(self.call(command).code, Some(0));
        self.ok(&["base", "import", name, tar.to_str().unwrap()]);
    }

    /// Runs a container to its end; what its program wrote.
    #[track_caller]
    pub(crate) fn output(&self, script: &str, edit: impl FnOnce(&mut Value)) -> String {
        let bundle = self.bundle(script, edit);
        let id = self.id(&format!("output{}", self.bundles.get()));
        self.ok(&["run", "-b", &bundle, &id])
    }

    /// Creates and starts a container that lives until it is killed, and waits until its script has begun.
    #[track_caller]
    pub(crate) fn running(&self, name: &str, edit: impl FnOnce(&mut Value)) -> String {
        let id = self.id(name);
        let fifo = self.fifo(&format!("{name}-begun"));
        let script = format!("echo begun > /shared/{name}-begun; exec sleep 100000");
        let bundle = self.bundle(&script, edit);
        self.ok(&["create", "-b", &bundle, &id]);
        self.ok(&["start", &id]);
        assert_eq!(fifo.line(), "begun");
        id
    }

    /// A fifo that containers find in `/shared`.
    pub(crate) fn fifo(&self, name: &str) -> Fifo {
        Fifo::new(&self.shared(name))
    }

    pub(crate) fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).unwrap()
    }

    pub(crate) fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().unwrap().into()
    }

    pub(crate) fn pid(&self, id: &str) -> i32 {
        i32::try_from(self.state(id)["pid"].as_i64().unwrap()).unwrap()
    }

    /// Waits until everything is as it was `before`: for what ends by itself.
    #[track_caller]
    pub(crate) fn settles(&self, before: &Snapshot) {
        let end = Instant::now() + DEADLINE;
        while self.snapshot() != *before {
            assert!(Instant::now() < end, "{:?}\nis not\n{before:?}", self.snapshot());
            std::thread::yield_now();
        }
    }

    /// Everything that is there now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let token = self.token.as_str();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut groups = Vec::new();
        directories(&self.cgroup2, 4, &mut groups);
        groups.retain(|path| path.to_string_lossy().contains(token));
        let (mut state, mut store) = (Vec::new(), Vec::new());
        everything(&self.root(), 3, &mut state);
        everything(&self.store(), 3, &mut store);
        Snapshot {
            mounts: mounts.lines().filter(|line| line.contains(token)).map(Into::into).collect(),
            groups,
            processes: processes(token),
            state,
            store,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // After a failed test: whatever is left, so that it does not disturb others. Failing again would hide why.
        for pid in processes(&self.token) {
            _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        drop(self.command(&["gc"]).stdout(Stdio::null()).stderr(Stdio::null()).status());
        for item in fs::read_dir(self.root()).into_iter().flatten().flatten() {
            let mut command = self.command(&["delete", "--force"]);
            drop(command.arg(item.file_name()).stdout(Stdio::null()).stderr(Stdio::null()).status());
        }
        let mut groups = Vec::new();
        directories(&self.cgroup2, 4, &mut groups);
        groups.retain(|path| path.to_string_lossy().contains(&self.token));
        groups.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        groups.iter().for_each(|path| drop(fs::remove_dir(path)));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if !mounts.contains(&self.token) && std::env::var_os("POTRUN_KEEP").is_none() {
            drop(fs::remove_dir_all(&self.dir));
        }
    }
}

/// A named pipe that the test reads.
pub(crate) struct Fifo(File);

impl Fifo {
    pub(crate) fn new(path: &Path) -> Self {
        drop(fs::remove_file(path));
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap(); // whatever our umask is
        // For writing too: so it never ends, and opening it never waits.
        let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
        Self(OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).unwrap())
    }

    /// The next line.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        let end = Instant::now() + DEADLINE;
        let mut line = Vec::new();
        loop {
            assert!(readable(self.0.as_fd(), end), "nothing came through the fifo");
            let mut byte = [0];
            (&self.0).read_exact(&mut byte).unwrap();
            if byte == *b"\n" {
                return String::from_utf8(line).unwrap();
            }
            line.extend(byte);
        }
    }
}

/// Waits until `fd` is readable (or has ended). `false`: the deadline came first.
pub(crate) fn readable(fd: std::os::fd::BorrowedFd<'_>, deadline: Instant) -> bool {
    loop {
        let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap();
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return true,
            Err(e) => panic!("poll: {e}"),
        }
    }
}

/// Waits until process `pid` has ended.
#[track_caller]
pub(crate) fn wait_for_end(pid: i32) {
    match sys::pidfd_open(pid) {
        Ok(fd) => assert!(readable(fd.as_fd(), Instant::now() + DEADLINE), "process {pid} does not end"),
        Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ESRCH), "{e}"),
    }
}

/// config.json of a small container.
fn config(script: &str, shared: &Path, token: &str) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin", format!("WORLD={token}")],
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {
                "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666"],
            },
            {"destination": "/shared", "type": "bind", "source": shared, "options": ["rbind", "rprivate"]},
        ],
        "linux": {
            "namespaces": [
                {"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"},
            ],
        },
    })
}

/// Where cgroup2 is mounted.
fn cgroup2() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = text.lines().find(|line| line.split(" - ").nth(1).is_some_and(|after| after.starts_with("cgroup2 ")))?;
    line.split(' ').nth(4).map(Into::into)
}

/// A program without an interpreter runs in an empty root file system: PT_INTERP (3) is the type of no segment.
fn is_static(path: &Path) -> bool {
    let bytes = fs::read(path).unwrap();
    let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]) as usize;
    let start = u64::from_le_bytes(bytes[32..40].try_into().unwrap()) as usize;
    let (size, count) = (half(54), half(56));
    bytes[..5] == *b"\x7fELF\x02" && (0..count).all(|n| bytes[start + n * size] != 3)
}

fn directories(path: &Path, depth: u32, all: &mut Vec<PathBuf>) {
    for item in fs::read_dir(path).into_iter().flatten().flatten() {
        if item.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.push(item.path());
            if depth > 0 {
                directories(&item.path(), depth - 1, all);
            }
        }
    }
    all.sort();
}

fn everything(path: &Path, depth: u32, all: &mut Vec<PathBuf>) {
    for item in fs::read_dir(path).into_iter().flatten().flatten() {
        all.push(item.path());
        if depth > 0 && item.file_name() != "tree" && item.file_type().is_ok_and(|kind| kind.is_dir()) {
            everything(&item.path(), depth - 1, all);
        }
    }
    all.sort();
}

/// Living processes that have to do with `token`: by what they were called with, by their environment or group.
fn processes(token: &str) -> Vec<i32> {
    let mut all = Vec::new();
    for item in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = item.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let read = |name: &str| {
            let bytes = fs::read(item.path().join(name)).unwrap_or_default(); // gone meanwhile
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let state = read("stat").rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        let ours = ["cmdline", "cgroup", "environ"].iter().any(|name| read(name).contains(token));
        if ours && !matches!(state, None | Some('Z' | 'X')) {
            all.push(pid);
        }
    }
    all
}
