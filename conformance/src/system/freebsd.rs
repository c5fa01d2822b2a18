//! By jails, kqueue(2) and procctl(2).

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;

use clap::ValueEnum;
use nix::mount::{MntFlags, Nmount};
use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use nix::sys::signal::{SigSet, Signal};
use serde_json::{Value, json};

/// There is nothing to choose.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum View {
    /// As it is
    Host,
}

/// The place where containers are made.
pub(crate) struct Workshop {
    /// A tmpfs.
    pub(crate) dir: PathBuf,
}

impl Workshop {
    /// Makes it.
    pub(crate) fn open(View::Host: View) -> io::Result<Self> {
        // What is a link here has another name in the table of mounts.
        let dir = std::env::temp_dir().canonicalize()?.join(format!("conformance-{}", std::process::id()));
        fs::create_dir(&dir)?;
        let mut options = Nmount::new();
        options.str_opt_owned("fstype", "tmpfs").str_opt_owned("fspath", dir.as_path()).str_opt_owned("mode", "755");
        match options.nmount(MntFlags::empty()) {
            Ok(()) => Ok(Self { dir }),
            Err(err) => {
                fs::remove_dir(&dir)?;
                Err(io::Error::other(format!("mount a tmpfs on {}: {err}", dir.display())))
            }
        }
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        nix::mount::unmount(&self.dir, MntFlags::MNT_FORCE).ok();
        fs::remove_dir(&self.dir).ok();
    }
}

/// Copies what the probe needs beside itself into `to`, and returns where it is there: the dynamic linker, and the
/// libraries that ldd(1) names.
pub(crate) fn libraries(probe: &Path, to: &Path) -> io::Result<Vec<PathBuf>> {
    let out = Command::new("ldd").args(["-f", "%p\n"]).arg(probe).output()?;
    if !out.status.success() {
        return Err(io::Error::other(format!("ldd: {}", String::from_utf8_lossy(&out.stderr))));
    }
    let text = String::from_utf8_lossy(&out.stdout);
    // "[vdso]" is no file.
    let named = text.lines().filter(|line| line.starts_with('/')).chain(["/libexec/ld-elf.so.1"]);
    let mut all: Vec<PathBuf> = named.map(|path| path.trim_start_matches('/').into()).collect();
    all.sort();
    all.dedup();
    for path in &all {
        let copy = to.join(path);
        fs::create_dir_all(copy.parent().unwrap_or(to))?;
        fs::copy(Path::new("/").join(path), &copy)?;
    }
    Ok(all)
}

/// What the root directory of a running container has in it.
pub(crate) const ROOT: &[&str] = &["dev", "lib", "libexec", "probe"];

/// A jail with a network of its own that has nothing in it.
pub(crate) fn config(_: &str) -> Value {
    json!({
        "ociVersion": "1.3.0",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["/probe", "wait"],
            "env": ["PATH=/bin:/"],
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "conformance",
        // 4 is what devfs.rules(5) has for jails.
        "mounts": [{"destination": "/dev", "type": "devfs", "source": "devfs", "options": ["ruleset=4"]}],
    })
}

/// Makes the suite the reaper of all that is left by what it starts.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    // SAFETY: this request has no argument.
    done(unsafe { libc::procctl(libc::P_PID, 0, libc::PROC_REAP_ACQUIRE, ptr::null_mut()) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Signals that come as something to read.
pub(crate) struct Signals(Kqueue);

impl Signals {
    /// Takes these from now on: a kqueue tells of blocked ones, too.
    pub(crate) fn of(signals: &[Signal]) -> io::Result<Self> {
        let set: SigSet = signals.iter().copied().collect();
        set.thread_block()?;
        let event = |&signal: &Signal| {
            let flags = EvFlags::EV_ADD | EvFlags::EV_CLEAR;
            KEvent::new(signal as usize, EventFilter::EVFILT_SIGNAL, flags, FilterFlag::empty(), 0, 0)
        };
        let queue = Kqueue::new()?;
        queue.kevent(&signals.iter().map(event).collect::<Vec<_>>(), &mut [], None)?;
        Ok(Self(queue))
    }

    /// Whether any came since the last time.
    pub(crate) fn came(&self) -> io::Result<bool> {
        let empty = KEvent::new(0, EventFilter::EVFILT_SIGNAL, EvFlags::empty(), FilterFlag::empty(), 0, 0);
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(self.0.kevent(&[], &mut [empty; 8], Some(now))? > 0)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A descriptor that becomes readable when the process ends. ESRCH if it has been reaped.
pub(crate) fn watch(pid: i32) -> io::Result<OwnedFd> {
    let queue = Kqueue::new()?;
    let ident = usize::try_from(pid).map_err(io::Error::other)?;
    let flags = EvFlags::EV_ADD;
    let event = KEvent::new(ident, EventFilter::EVFILT_PROC, flags, FilterFlag::NOTE_EXIT, 0, 0);
    queue.kevent(&[event], &mut [], None)?;
    Ok(queue.into())
}

/// `struct procctl_reaper_pidinfo` of <sys/procctl.h>.
#[repr(C)]
#[derive(Clone, Copy)]
struct ReaperPid {
    pid: libc::pid_t,
    subtree: libc::pid_t,
    flags: libc::c_uint,
    pad: [libc::c_uint; 15],
}

/// `struct procctl_reaper_pids` of <sys/procctl.h>.
#[repr(C)]
struct ReaperPids {
    count: libc::c_uint,
    pad: [libc::c_uint; 15],
    pids: *mut ReaperPid,
}

const VALID: libc::c_uint = 0x1; // REAPER_PIDINFO_VALID
const CHILD: libc::c_uint = 0x2; // REAPER_PIDINFO_CHILD
const ZOMBIE: libc::c_uint = 0x8; // REAPER_PIDINFO_ZOMBIE

/// The suite's living children, which are all that containers have left, too.
pub(crate) fn children() -> io::Result<Vec<i32>> {
    const ROOM: usize = 1024;
    let mut all = vec![ReaperPid { pid: 0, subtree: 0, flags: 0, pad: [0; 15] }; ROOM];
    let mut asked = ReaperPids { count: ROOM as libc::c_uint, pad: [0; 15], pids: all.as_mut_ptr() };
    // SAFETY: the request reads `asked` and writes up to `count` entries to the buffer; both live across the call.
    done(unsafe { libc::procctl(libc::P_PID, 0, libc::PROC_REAP_GETPIDS, (&raw mut asked).cast()) })?;
    let alive = |one: &&ReaperPid| one.flags & (VALID | CHILD | ZOMBIE) == VALID | CHILD;
    Ok(all.iter().filter(alive).map(|one| one.pid).collect())
}

/// Takes a mount away, whoever uses it. Nothing if it is gone.
pub(crate) fn unmount(point: &str) -> io::Result<()> {
    match nix::mount::unmount(point, MntFlags::MNT_FORCE) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

/// What the kernel keeps for containers of this id, in words.
pub(crate) fn traces(id: &str) -> io::Result<Vec<String>> {
    Ok(jails()?.into_iter().filter(|jail| jail.is_of(id)).map(|jail| format!("jail {}", jail.name)).collect())
}

/// Takes it away.
pub(crate) fn remove_traces(id: &str) -> io::Result<()> {
    for jail in jails()?.into_iter().filter(|jail| jail.is_of(id)) {
        // SAFETY: the call takes an integer.
        done(unsafe { libc::jail_remove(jail.jid) })?;
    }
    Ok(())
}

struct Jail {
    jid: libc::c_int,
    name: String,
    path: String,
}

impl Jail {
    /// A runtime may name its jails as it likes, but not put their roots elsewhere.
    fn is_of(&self, id: &str) -> bool {
        self.name.contains(id) || self.path.contains(id)
    }
}

/// All jails that live: one that is dying has no process and no name.
fn jails() -> io::Result<Vec<Jail>> {
    let mut found = Vec::new();
    let mut last: libc::c_int = 0;
    loop {
        let mut name = [0u8; 256]; // MAXHOSTNAMELEN
        let mut path = [0u8; 1024]; // MAXPATHLEN
        let part = |bytes: &mut [u8]| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut words = (*b"lastjid\0", *b"name\0", *b"path\0");
        let mut number = last.to_ne_bytes();
        let mut parts = [
            part(&mut words.0),
            part(&mut number),
            part(&mut words.1),
            part(&mut name),
            part(&mut words.2),
            part(&mut path),
        ];
        // SAFETY: six parts, of live buffers with the lengths that are passed.
        let jid = unsafe { libc::jail_get(parts.as_mut_ptr(), 6, 0) };
        if jid < 0 {
            let err = io::Error::last_os_error();
            return if err.raw_os_error() == Some(libc::ENOENT) { Ok(found) } else { Err(err) };
        }
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
        };
        found.push(Jail { jid, name: text(&name), path: text(&path) });
        last = jid;
    }
}

/// Whether the kernel says that the process is stopped.
pub(crate) fn is_paused(_: &str, pid: i32) -> io::Result<bool> {
    let out = Command::new("ps").args(["-o", "state=", "-p", &pid.to_string()]).output()?;
    Ok(out.stdout.starts_with(b"T"))
}
