//! The last steps of the child: limits, ids, capabilities, filter, exec.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use caps::{CapSet, Capability};
use nix::sys::stat::{Mode, umask};

use crate::host::Trouble;
use crate::op::{Capabilities, Ids, Op};

use super::beneath::{self, Links};
use super::inside::Inside;
use super::{open_path, sys};

/// Carries out one of the ops of a process.
pub(super) fn run(inside: &Inside<'_>, op: &Op) -> Result<(), Trouble> {
    match op {
        Op::FindProgram { args, env, cwd } => find(args, env, cwd).map(drop)?,
        Op::SetOomScore { score } => write_proc("self/oom_score_adj".as_ref(), &score.to_string())?,
        Op::SetRlimit { kind, soft, hard } => {
            let number = resource(kind).ok_or_else(|| format!("{kind} is not a limit of linux"))?;
            sys::setrlimit(number, *soft, *hard)?;
        }
        Op::SetIds(ids) => set_ids(ids)?,
        Op::SetCapabilities(sets) => set_capabilities(sets)?,
        Op::NoNewPrivileges => drop(sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?),
        Op::Seccomp { .. } => {
            let filter = inside.prepared.filter.as_ref().ok_or("no filter was compiled")?;
            super::bpf::seccomp_install(filter)?;
        }
        Op::ChangeDir { path } => change_dir(path)?,
        Op::Exec { args, env } => return Err(exec(args, env)),
        other => return Err(format!("{other}: is not carried out inside a container").into()),
    }
    Ok(())
}

/// Writes a file of the host's procfs, making sure that it is one.
pub(super) fn write_proc(path: &Path, value: &str) -> Result<(), Trouble> {
    let proc = open_path("/proc".as_ref())?;
    beneath::must_be_proc(proc.as_fd())?;
    let file = beneath::open(proc.as_fd(), path, libc::O_WRONLY, Links::Inside)?;
    beneath::must_be_proc(file.as_fd())?;
    Ok(io::Write::write_all(&mut fs::File::from(file), value.as_bytes())?)
}

/// Whether process `pid` is in our namespace of a kind, by the kind's name in /proc/PID/ns.
pub(super) fn same_namespace(pid: Option<i32>, kind: &str) -> io::Result<bool> {
    let Some(pid) = pid else { return Ok(true) };
    Ok(fs::read_link(format!("/proc/{pid}/ns/{kind}"))? == fs::read_link(format!("/proc/self/ns/{kind}"))?)
}

/// Numbers of include/uapi/asm-generic/resource.h; the same on all architectures that Rust's Linux targets have but
/// mips and sparc.
fn resource(kind: &str) -> Option<u32> {
    const KINDS: &[(&str, u32)] = &[
        ("RLIMIT_CPU", libc::RLIMIT_CPU),
        ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
        ("RLIMIT_DATA", libc::RLIMIT_DATA),
        ("RLIMIT_STACK", libc::RLIMIT_STACK),
        ("RLIMIT_CORE", libc::RLIMIT_CORE),
        ("RLIMIT_RSS", libc::RLIMIT_RSS),
        ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
        ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
        ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
        ("RLIMIT_AS", libc::RLIMIT_AS),
        ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
        ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
        ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
        ("RLIMIT_NICE", libc::RLIMIT_NICE),
        ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
        ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
    ];
    KINDS.iter().find(|(name, _)| *name == kind).map(|(_, number)| *number)
}

fn set_ids(ids: &Ids) -> Result<(), Trouble> {
    own_stdio(ids);
    sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0)?; // cleared by exec; SetCapabilities says what stays
    sys::set_ids(ids.set_groups.then_some(&ids.groups), ids.gid, ids.uid)?;
    // config.md: unspecified is unchanged; ours was set to 0 for the nodes, and 022 is what runc and login(1) give.
    umask(Mode::from_bits_truncate(ids.umask.unwrap_or(0o022)));
    Ok(())
}

/// A process of another user must be able to open /dev/stdout again: its pipes become its own, as in runc. Never the
/// host's /dev/null or another device, and failing is no failure: a read-only or foreign file stays as it is.
fn own_stdio(ids: &Ids) {
    for stdio in [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()] {
        let Ok(stat) = nix::sys::stat::fstat(stdio) else { continue };
        let kind = stat.st_mode & libc::S_IFMT;
        if stat.st_uid != ids.uid && matches!(kind, libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFREG) {
            _ = nix::unistd::fchown(stdio, Some(ids.uid.into()), None);
        }
    }
}

/// The last capability that this kernel has, at most 63.
fn known() -> impl Iterator<Item = Capability> {
    caps::all().into_iter()
}

fn set_capabilities(sets: &Capabilities) -> Result<(), Trouble> {
    // What cannot be granted is left out (config.md, "capabilities": should not fail).
    let granted = caps::read(None, CapSet::Permitted)?;
    let set = |names: &[String], within: &HashSet<Capability>| -> HashSet<Capability> {
        names.iter().filter_map(|name| Capability::from_str(name).ok()).filter(|cap| within.contains(cap)).collect()
    };
    let mask = |set: &HashSet<Capability>| set.iter().fold(0, |all, cap| all | cap.bitmask());
    let everything: HashSet<Capability> = known().collect();
    // Leaving root cleared the effective set; dropping from the bounding set needs CAP_SETPCAP in it.
    sys::capset(mask(&granted), mask(&granted), 0)?;
    let bounding = set(&sets.bounding, &everything);
    for cap in known().filter(|cap| !bounding.contains(cap)) {
        match caps::has_cap(None, CapSet::Bounding, cap) {
            Ok(true) => caps::drop(None, CapSet::Bounding, cap)?,
            _ => continue, // not there, or not known to this kernel
        }
    }
    let permitted = set(&sets.permitted, &granted);
    let (effective, inheritable) = (set(&sets.effective, &permitted), set(&sets.inheritable, &permitted));
    sys::capset(mask(&effective), mask(&permitted), mask(&inheritable))?;
    caps::clear(None, CapSet::Ambient)?;
    for cap in set(&sets.ambient, &permitted).intersection(&inheritable) {
        caps::raise(None, CapSet::Ambient, *cap)?;
    }
    Ok(())
}

/// Changes the directory, and makes sure that it is inside: a descriptor of the host must not be a way out
/// (CVE-2024-21626: the kernel names what is outside "(unreachable)").
fn change_dir(path: &Path) -> Result<(), Trouble> {
    nix::unistd::chdir(path)?;
    let inside = nix::unistd::getcwd().is_ok_and(|cwd| cwd.is_absolute());
    if inside { Ok(()) } else { Err("the directory is outside of the container".into()) }
}

/// The value of a variable; the last one counts, as for execve's receivers.
fn variable<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().rev().find_map(|one| one.strip_prefix(name)?.strip_prefix('='))
}

/// Finds the program as execvp(3) does, with runc's words, which engines turn into exit codes 126 and 127.
fn find(args: &[String], env: &[String], cwd: &Path) -> Result<PathBuf, Trouble> {
    let name = args.first().map_or("", String::as_str);
    if name.contains('/') {
        let path = cwd.join(name);
        return match check(&path) {
            Ok(()) => Ok(name.into()),
            Err(e) => Err(format!("exec: {name:?}: {}", refusal(&e, Some(name))).into()),
        };
    }
    let mut denied = None;
    for dir in variable(env, "PATH").unwrap_or_default().split(':') {
        let path = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        match check(&cwd.join(&path)) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => denied = Some(e),
            Err(_) => {}
        }
    }
    match denied {
        Some(e) => Err(format!("exec: {name:?}: {}", refusal(&e, None)).into()),
        None => Err(format!("exec: {name:?}: executable file not found in $PATH").into()),
    }
}

fn check(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(())
}

/// An errno in the words that engines look for, which are Go's.
fn refusal(error: &io::Error, stat: Option<&str>) -> String {
    match (error.raw_os_error(), stat) {
        (Some(libc::ENOENT), Some(name)) => format!("stat {name}: no such file or directory"),
        (Some(libc::ENOENT), None) => "no such file or directory".into(),
        (Some(libc::ENOTDIR), Some(name)) => format!("stat {name}: not a directory"),
        (Some(libc::EACCES), _) => "permission denied".into(),
        (Some(libc::EISDIR), _) => "is a directory".into(),
        (Some(libc::ENOEXEC), _) => "exec format error".into(),
        _ => error.to_string(),
    }
}

/// The home directory of the user in the container's own passwd file, which is read as text of bounded size: nothing
/// of the image is loaded or run for it.
fn home() -> String {
    let uid = nix::unistd::getuid().to_string();
    let mut text = String::new();
    // O_NONBLOCK: the image may have put a fifo there.
    let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC;
    if let Ok(file) = nix::fcntl::open("/etc/passwd", flags, Mode::empty()) {
        // A file that is no text has no users.
        drop(fs::File::from(file).take(1 << 20).read_to_string(&mut text));
    }
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mine = fields.into_iter().find(|fields| fields.len() > 5 && fields[2] == uid);
    mine.map(|fields| fields[5].to_string()).filter(|home| !home.is_empty()).unwrap_or_else(|| "/".into())
}

/// Becomes the program. Returns why it could not.
fn exec(args: &[String], env: &[String]) -> Trouble {
    let path = match find(args, env, Path::new("")) {
        Ok(path) => path,
        Err(trouble) => return trouble,
    };
    let mut env = env.to_vec();
    if variable(&env, "HOME").is_none() {
        env.push(format!("HOME={}", home()));
    }
    let texts = |all: &[String]| all.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>();
    let path_c = CString::new(path.as_os_str().as_bytes());
    let (Ok(args_c), Ok(env), Ok(path_c)) = (texts(args), texts(&env), path_c) else {
        return "an argument or variable contains a NUL byte".into();
    };
    sys::reset_signals();
    if let Err(e) = nix::sys::signal::SigSet::empty().thread_set_mask() {
        return e.into();
    }
    let error = sys::exec(&path_c, &args_c, &env);
    let name = args.first().map_or("", String::as_str);
    format!("exec: {name:?}: {}", refusal(&error, None)).into()
}
