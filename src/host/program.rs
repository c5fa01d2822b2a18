//! The last step of a first process, whatever the system: finding the program and becoming it.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;

use crate::op::Ids;

use super::{Trouble, sys};

/// A process of another user must be able to open /dev/stdout again: its pipes become its own, as in runc. Never the
/// host's /dev/null or another device, and failing is no failure: a read-only or foreign file stays as it is.
pub(crate) fn own_stdio(ids: &Ids) {
    for stdio in [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()] {
        let Ok(stat) = nix::sys::stat::fstat(stdio) else { continue };
        let kind = stat.st_mode & libc::S_IFMT;
        if stat.st_uid != ids.uid && matches!(kind, libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFREG) {
            _ = nix::unistd::fchown(stdio, Some(ids.uid.into()), None);
        }
    }
}

/// The value of a variable; the last one counts, as for execve's receivers.
fn variable<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().rev().find_map(|one| one.strip_prefix(name)?.strip_prefix('='))
}

/// Finds the program as execvp(3) does, with runc's words, which engines turn into exit codes 126 and 127.
pub(crate) fn find(args: &[String], env: &[String], cwd: &Path) -> Result<PathBuf, Trouble> {
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
        // What docker and newer runcs say, and what execve(2) says, which podman knows.
        (Some(libc::EISDIR), _) => "is a directory: permission denied".into(),
        (Some(libc::ENOEXEC), _) => "exec format error".into(),
        _ => error.to_string(),
    }
}

/// A field of the user in the container's own passwd file (passwd(5)), which is read as text of bounded size: nothing of
/// the image is loaded or run for it.
fn passwd(uid: u32, field: usize) -> Option<String> {
    let uid = uid.to_string();
    let mut text = String::new();
    // O_NONBLOCK: the image may have put a fifo there.
    let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC;
    if let Ok(file) = nix::fcntl::open("/etc/passwd", flags, Mode::empty()) {
        // A file that is no text has no users.
        drop(fs::File::from(file).take(1 << 20).read_to_string(&mut text));
    }
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mine = fields.into_iter().find(|fields| fields.len() > 5 && fields[2] == uid);
    mine.map(|fields| fields[field].to_string()).filter(|text| !text.is_empty())
}

/// The home directory of the user we are.
fn home() -> String {
    passwd(nix::unistd::getuid().as_raw(), 5).unwrap_or_else(|| "/".into())
}

/// A variable that becomes the number of the process that is to have the sockets (sd_listen_fds(3)).
pub(crate) const LISTEN_PID: &str = "LISTEN_PID=";

/// Becomes the program. Returns why it could not.
pub(crate) fn exec(args: &[String], env: &[String]) -> Trouble {
    let path = match find(args, env, Path::new("")) {
        Ok(path) => path,
        Err(trouble) => return trouble,
    };
    let mut env = env.to_vec();
    for own in env.iter_mut().filter(|one| *one == LISTEN_PID) {
        *own = format!("{LISTEN_PID}{}", std::process::id());
    }
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
