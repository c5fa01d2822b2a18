/*! The program that runs inside the containers (and as their hooks): it reports what it sees, tries what it is asked
to try, and judges nothing.

    report                     one line of JSON: see `Report`
    do OP...                   one line of JSON: the answer to each OP, which is a line of words (see `attempt`)
    exit N                     ends with that status
    echo TEXT                  writes TEXT to stdout and `TEXT!` to stderr
    cat                        copies stdin to stdout
    flood N                    writes N bytes to stdout
    wait                       says `ready`, then `signal N` for each signal, and ends with the first SIGTERM
    wait-family                the same, with a child that has said `child PID` and ignores SIGTERM
    linger                     says `ready`, keeps the default action of every signal, and never ends
    hook FILE NAME [THEN]      appends what a hook sees to FILE; THEN is `fail`, or `hang` once `FILE` is written
    hunt                       opens the binary of every process that comes along, and then tries to write to it
    exchange A B               swaps two names, says `ready`, and swaps them for ever
*/
#![no_main]

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "linux")]
mod linux;
mod sys;

#[cfg(target_os = "freebsd")]
use freebsd as system;
#[cfg(target_os = "linux")]
use linux as system;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use conformance::{Answer, Node, Report, kernel};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::Mode;
use nix::unistd::{getgroups, getpgrp, getsid};
use serde_json::{Value, json};

fn run() -> i32 {
    let args = sys::args();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match dispatch(&words) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("probe {}: {err}", words.join(" "));
            99
        }
    }
}

fn dispatch(words: &[&str]) -> io::Result<i32> {
    match words {
        ["report", ..] => say(&serde_json::to_string(&report())?)?,
        ["do", ops @ ..] => {
            let answers: Vec<Answer> = ops.iter().map(|op| answer(op)).collect();
            say(&serde_json::to_string(&answers)?)?;
        }
        ["exit", code] => return Ok(code.parse().unwrap_or(98)),
        ["echo", text] => {
            say(text)?;
            io::stderr().write_all(format!("{text}!\n").as_bytes())?;
        }
        ["cat"] => {
            io::copy(&mut io::stdin(), &mut io::stdout())?;
        }
        ["flood", n] => io::stdout().write_all(&vec![b'x'; n.parse().unwrap_or(0)])?,
        ["wait"] => wait(false)?,
        ["wait-family"] => wait(true)?,
        ["linger"] => {
            say("ready")?;
            loop {
                nix::unistd::pause();
            }
        }
        ["hook", file, name, rest @ ..] => return hook(file, name, rest),
        ["exchange", a, b] => {
            system::exchange(a, b)?;
            say("ready")?;
            loop {
                system::exchange(a, b)?;
            }
        }
        #[cfg(target_os = "linux")]
        ["hunt"] => linux::hunt()?,
        _ => return Ok(97),
    }
    Ok(0)
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

/// Takes every signal synchronously, so that none is lost between two of them, and pid 1 gets those too that the
/// kernel would otherwise drop.
fn wait(family: bool) -> io::Result<()> {
    let mut all = SigSet::all();
    all.remove(Signal::SIGCHLD);
    all.thread_block()?;
    let child = if family { Some(Command::new("/probe").arg("linger").stdout(Stdio::piped()).spawn()?) } else { None };
    if let Some(mut child) = child {
        let mut ready = String::new();
        if let Some(out) = child.stdout.take() {
            io::BufReader::new(out).read_line(&mut ready)?;
        }
        say(&format!("child {}", child.id()))?;
    }
    say("ready")?;
    loop {
        let signal = all.wait()?;
        say(&format!("signal {}", signal as i32))?;
        if signal == Signal::SIGTERM {
            return Ok(());
        }
    }
}

fn hook(file: &str, name: &str, then: &[&str]) -> io::Result<i32> {
    let mut stdin = String::new();
    io::stdin().read_to_string(&mut stdin)?;
    let seen = json!({
        "name": name,
        "args": sys::args(),
        "env": environment(),
        "state": serde_json::from_str::<Value>(&stdin).unwrap_or(Value::String(stdin)),
        "ns": system::namespaces(),
        "root": names("/"),
        "pid": std::process::id(),
    });
    OpenOptions::new().append(true).create(true).open(file)?.write_all(format!("{seen}\n").as_bytes())?;
    match then {
        ["fail", ..] => Ok(3),
        ["hang", ..] => loop {
            nix::unistd::pause();
        },
        _ => Ok(0),
    }
}

fn answer(op: &str) -> Answer {
    match attempt(op) {
        Ok(value) => Answer::Ok(value),
        Err(err) => Answer::Errno(err.raw_os_error().unwrap_or(-1)),
    }
}

/// One thing a process may try. Words are separated by one space.
fn attempt(op: &str) -> io::Result<Value> {
    let words: Vec<&str> = op.split(' ').collect();
    match words.as_slice() {
        ["read", path] => {
            let mut bytes = Vec::new();
            File::open(path)?.take(1 << 16).read_to_end(&mut bytes)?;
            Ok(json!(String::from_utf8_lossy(&bytes)))
        }
        ["write", path, text] => {
            OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes()).map(|()| Value::Null)
        }
        ["create", path, text] => {
            OpenOptions::new().write(true).create(true).truncate(true).open(path)?.write_all(text.as_bytes())?;
            Ok(Value::Null)
        }
        ["open-read", path] => File::open(path).map(|_| Value::Null),
        ["open-write", path] => OpenOptions::new().write(true).open(path).map(|_| Value::Null),
        ["unlink", path] => fs::remove_file(path).map(|()| Value::Null),
        ["mkdir", path] => fs::DirBuilder::new().mode(0o777).create(path).map(|()| Value::Null),
        ["ls", path] => fs::read_dir(path).map(|_| json!(names(path))),
        ["stat", path] => node(fs::metadata(path)?, Path::new(path)),
        ["lstat", path] => node(fs::symlink_metadata(path)?, Path::new(path)),
        ["sethostname", name] => Ok(nix::unistd::sethostname(name).map(|()| Value::Null)?),
        ["terminals"] => Ok(json!([is_tty(&io::stdin()), is_tty(&io::stdout()), is_tty(&io::stderr())])),
        ["terminal"] => {
            let path = nix::unistd::ttyname(io::stdin())?;
            OpenOptions::new().write(true).open(&path)?;
            node(fs::metadata(&path)?, &path)
        }
        ["pids"] => Ok(json!(pids())),
        ["size", path] => {
            let fs = nix::sys::statvfs::statvfs(*path)?;
            Ok(json!(fs.blocks() * fs.fragment_size()))
        }
        ["getpid"] => Ok(json!(std::process::id())),
        ["getppid"] => Ok(json!(nix::unistd::getppid().as_raw())),
        ["socket", "inet"] => open_socket(AddressFamily::Inet),
        ["loopback"] => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            TcpStream::connect(listener.local_addr()?).map(|_| Value::Null)
        }
        ["fd-read", fd] => {
            let mut text = String::new();
            sys::inherited(fd.parse().map_err(io::Error::other)?)?.read_to_string(&mut text)?;
            Ok(json!(text))
        }
        ["env", name] => Ok(json!(std::env::var(name).ok())),
        other => system::attempt(other),
    }
}

fn open_socket(family: AddressFamily) -> io::Result<Value> {
    Ok(socket(family, SockType::Datagram, SockFlag::empty(), None).map(|_| Value::Null)?)
}

fn node(meta: fs::Metadata, path: &Path) -> io::Result<Value> {
    Ok(serde_json::to_value(node_of(&meta, path))?)
}

fn node_of(meta: &fs::Metadata, path: &Path) -> Node {
    let kind = meta.file_type();
    let kind = match kind {
        k if k.is_dir() => 'd',
        k if k.is_symlink() => 'l',
        k if k.is_char_device() => 'c',
        k if k.is_block_device() => 'b',
        k if k.is_fifo() => 'p',
        k if k.is_socket() => 's',
        _ => 'f',
    };
    Node {
        kind,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        rdev: system::device(meta.rdev()),
        dev: meta.dev(),
        ino: meta.ino(),
        size: meta.size(),
        link: fs::read_link(path).ok().map(|link| link.display().to_string()),
    }
}

fn report() -> Report {
    let uts = nix::sys::utsname::uname().ok();
    let uts = |of: fn(&nix::sys::utsname::UtsName) -> &OsStr| {
        uts.as_ref().map(|u| of(u).to_string_lossy().into_owned()).unwrap_or_default()
    };
    let mut groups: Vec<u32> = getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()).collect();
    groups.sort_unstable();
    let umask = nix::sys::stat::umask(Mode::empty());
    nix::sys::stat::umask(umask);
    let mut report = Report {
        args: sys::args(),
        env: environment(),
        cwd: std::env::current_dir().map_or_else(|err| format!("error: {err}"), |dir| dir.display().to_string()),
        pid: std::process::id().cast_signed(),
        ppid: std::os::unix::process::parent_id().cast_signed(),
        sid: getsid(None).map_or(-1, nix::unistd::Pid::as_raw),
        pgid: getpgrp().as_raw(),
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
        groups,
        umask: libc::c_uint::from(umask.bits()),
        blocked: kernel::blocked(),
        ignored: kernel::ignored(),
        rlimits: rlimits(),
        hostname: uts(nix::sys::utsname::UtsName::nodename),
        machine: uts(nix::sys::utsname::UtsName::machine),
        mounts: kernel::mounts().unwrap_or_default(),
        dev: devices(),
        tty: vec![is_tty(&io::stdin()), is_tty(&io::stdout()), is_tty(&io::stderr())],
        winsize: sys::winsize(),
        links: kernel::links().unwrap_or_default(),
        pids: pids(),
        ..Report::default()
    };
    system::complete(&mut report);
    report
}

fn is_tty(stream: &impl io::IsTerminal) -> bool {
    stream.is_terminal()
}

fn environment() -> Vec<String> {
    std::env::vars_os().map(|(k, v)| format!("{}={}", k.to_string_lossy(), v.to_string_lossy())).collect()
}

fn names(dir: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Without those that belong to the kernel.
fn pids() -> Vec<i32> {
    kernel::pids().into_iter().filter(|&pid| pid > 0).collect()
}

fn devices() -> BTreeMap<String, Node> {
    let node = |name: String| {
        let path = Path::new("/dev").join(&name);
        Some((name, node_of(&fs::symlink_metadata(&path).ok()?, &path)))
    };
    names("/dev").into_iter().filter_map(node).collect()
}

fn rlimits() -> BTreeMap<String, (u64, u64)> {
    let all = [
        ("RLIMIT_CORE", Resource::RLIMIT_CORE),
        ("RLIMIT_CPU", Resource::RLIMIT_CPU),
        ("RLIMIT_DATA", Resource::RLIMIT_DATA),
        ("RLIMIT_FSIZE", Resource::RLIMIT_FSIZE),
        ("RLIMIT_NOFILE", Resource::RLIMIT_NOFILE),
        ("RLIMIT_STACK", Resource::RLIMIT_STACK),
        ("RLIMIT_NPROC", Resource::RLIMIT_NPROC),
        ("RLIMIT_MEMLOCK", Resource::RLIMIT_MEMLOCK),
    ];
    all.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), unsigned(getrlimit(limit).ok()?)))).collect()
}

#[cfg(target_os = "linux")]
fn unsigned(limits: (u64, u64)) -> (u64, u64) {
    limits
}

#[cfg(target_os = "freebsd")]
fn unsigned((soft, hard): (i64, i64)) -> (u64, u64) {
    (soft.cast_unsigned(), hard.cast_unsigned())
}
