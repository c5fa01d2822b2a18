//! The container's first process on FreeBSD, both sides of the fork.
//!
//! It waits outside of the jail, where nothing inside can see, trace or signal it, and is killed with this potrun
//! (`PROC_PDEATHSIG_CTL`) until the container is on record: a create that dies leaves no process. At `start` it enters
//! the jail, untraceable until its exec (CVE-2016-9962), with no directory open, which would be a way out.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat, umask};

use crate::host::child::Child;
use crate::host::first::{Io, close_all_but, run_hook};
use crate::host::link::{self, Message};
use crate::host::{Trouble, program, sys as posix, terminal};
use crate::op::{Ids, Op, Spawn};

use super::{jail, process, sys};

/// Starts the process and waits until it is ready, or awaits the runtime.
pub(super) fn spawn(spawn: &Spawn, io: &mut Io) -> Result<Child, Trouble> {
    let (ours, theirs) = link::pair()?;
    let parent = std::process::id() as i32;
    match sys::fork()? {
        None => Inside { spawn, io, link: theirs, parent }.main(),
        Some(pid) => {
            drop(theirs);
            let mut child = Child::new(pid, ours);
            child.wait()?;
            Ok(child)
        }
    }
}

/// Why the child cannot carry out an op, if so.
pub(super) fn cannot(op: &Op) -> Option<String> {
    match op {
        Op::AwaitRuntime
        | Op::Hook(_)
        | Op::AttachJail { .. }
        | Op::SetRlimit { .. }
        | Op::SetIds(_)
        | Op::NoNewPrivileges
        | Op::CreateCwd { .. }
        | Op::ChangeDir { .. }
        | Op::Exec { .. } => None,
        other => Some(format!("{other}: is not carried out by a first process on freebsd")),
    }
}

/// The child. It is a fork of a process with one thread, so it may allocate; but it never returns into potrun.
struct Inside<'a> {
    spawn: &'a Spawn,
    io: &'a mut Io,
    link: OwnedFd,
    parent: i32,
}

impl Inside<'_> {
    /// Does everything; never returns.
    fn main(mut self) -> ! {
        let told = match self.create() {
            Ok(()) => self.wait_and_start(),
            Err(trouble) => link::tell(self.link.as_fd(), &Message::Failed(crate::error::chain(&*trouble))),
        };
        // Whom we could not tell is gone.
        posix::exit(if told.is_ok() { 1 } else { 2 })
    }

    fn create(&mut self) -> Result<(), Trouble> {
        sys::die_with_parent(libc::SIGKILL)?;
        if process::parent() != self.parent {
            return Err("potrun is gone".into()); // it ended before that took effect
        }
        self.close_descriptors()?;
        nix::unistd::setsid()?;
        umask(Mode::from_bits_truncate(0o022)); // login.conf(5)'s; SetIds says what the bundle wants
        if self.spawn.terminal {
            self.open_terminal()?;
        }
        for op in &self.spawn.create {
            self.run(op).map_err(|cause| format!("{op}: {}", crate::error::chain(&*cause)))?;
        }
        link::tell(self.link.as_fd(), &Message::Ready)?;
        self.await_go()?; // it is on record now, and no longer ends with potrun
        sys::die_with_parent(0)?;
        Ok(link::tell(self.link.as_fd(), &Message::Ready)?)
    }

    /// Waits for `start`, does its steps, and becomes the program. Returns only if that failed, having said so.
    fn wait_and_start(&mut self) -> io::Result<()> {
        let waiting = self.io.listen.as_ref().map(|listen| posix::accept(listen.as_fd())).transpose()?;
        self.io.listen = None; // a second `start` is refused by the kernel
        let result = self.spawn.start.iter().try_for_each(|op| {
            self.run(op).map_err(|cause| match op {
                Op::Exec { .. } => cause.to_string(),
                _ => format!("{op}: {}", crate::error::chain(&*cause)),
            })
        });
        match result {
            Ok(()) => Ok(()),
            Err(text) => link::tell(waiting.as_ref().unwrap_or(&self.link).as_fd(), &Message::Failed(text)),
        }
    }

    fn await_go(&self) -> Result<(), Trouble> {
        match link::hear(self.link.as_fd())? {
            Some(Message::Go) => Ok(()),
            _ => Err("potrun is gone".into()),
        }
    }

    /// Closes what is not for the container. A directory cannot come along: jail_attach(2) refuses it, and should.
    fn close_descriptors(&self) -> Result<(), Trouble> {
        let mut keep: Vec<&OwnedFd> = vec![&self.link];
        keep.extend(&self.io.listen);
        keep.extend(&self.io.console);
        let waiting = self.io.waiting.as_ref().map(|file| file.as_fd().try_clone_to_owned()).transpose()?;
        keep.extend(&waiting);
        close_all_but(self.io.preserve, &keep)?;
        // The copy shares the lock; it must stay open until exec closes it.
        std::mem::forget(waiting);
        for fd in 0..self.io.preserve.saturating_add(3) {
            if sys::is_directory(fd as i32) {
                return Err(format!("descriptor {fd} is a directory, which cannot be taken into a jail").into());
            }
        }
        Ok(())
    }

    /// A terminal of the host, opened before the jail is entered: inside it is known as the controlling one only.
    fn open_terminal(&self) -> Result<(), Trouble> {
        let (master, slave, name) = sys::open_terminal()?;
        if let Some(uid) = self.spawn.start.iter().find_map(user) {
            nix::unistd::fchown(&slave, Some(uid.into()), None)?;
        }
        if let Some((rows, columns)) = self.spawn.console_size {
            posix::set_terminal_size(slave.as_fd(), rows, columns)?;
        }
        let console = self.io.console.as_ref().ok_or("a terminal needs --console-socket")?;
        link::send_fd(console.as_fd(), &name, &master)?;
        Ok(terminal::become_terminal(&slave)?)
    }

    fn run(&self, op: &Op) -> Result<(), Trouble> {
        match op {
            Op::AwaitRuntime => {
                link::tell(self.link.as_fd(), &Message::AwaitsRuntime)?;
                self.await_go()?;
            }
            Op::Hook(hook) => {
                let state = crate::state::State { pid: std::process::id() as i32, ..self.io.state.clone() };
                run_hook(hook, state)?;
            }
            Op::AttachJail { name } => {
                let id = jail::id(name)?.ok_or_else(|| format!("jail {name} does not exist"))?;
                sys::untraceable()?;
                sys::jail_attach(id)?;
            }
            Op::SetRlimit { kind, soft, hard } => {
                let number = resource(kind).ok_or_else(|| format!("{kind} is not a limit of freebsd"))?;
                sys::setrlimit(number, *soft, *hard)?;
            }
            Op::SetIds(ids) => set_ids(ids)?,
            Op::NoNewPrivileges => sys::no_new_privileges()?,
            Op::CreateCwd { path } => {
                // A read-only root has it, or the process will be told that it has not. No link leads out of a jail.
                match DirBuilder::new().recursive(true).mode(0o755).create(path) {
                    Err(e) if matches!(e.raw_os_error(), Some(libc::EROFS)) => {}
                    other => other?,
                }
            }
            Op::ChangeDir { path } => change_dir(path)?,
            Op::Exec { args, env } => return Err(program::exec(args, env)),
            other => return Err(cannot(other).unwrap_or_default().into()),
        }
        Ok(())
    }
}

fn user(op: &Op) -> Option<u32> {
    match op {
        Op::SetIds(ids) => Some(ids.uid),
        _ => None,
    }
}

/// The limits of setrlimit(2) by the specification's names.
fn resource(kind: &str) -> Option<i32> {
    const KINDS: &[(&str, i32)] = &[
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
    ];
    KINDS.iter().find(|(name, _)| *name == kind).map(|(_, number)| *number)
}

/// Groups, then group, then user: the other way round the first two would fail, or stay root's (see setuid(2)). The
/// name that getlogin(2) tells would be the host's: root's is everywhere the same, others are known by their number.
fn set_ids(ids: &Ids) -> Result<(), Trouble> {
    program::own_stdio(ids);
    own_terminal(ids.uid);
    sys::setlogin(&if ids.uid == 0 { "root".into() } else { ids.uid.to_string() })?;
    // Up to FreeBSD 14, and on newer kernels for a program that was linked for it, the first is the effective group and
    // no other (setgroups(2)).
    let mut groups = vec![ids.gid];
    groups.extend(ids.groups.iter().filter(|group| **group != ids.gid));
    sys::set_ids(&groups, ids.gid, ids.uid)?;
    if let Some(mask) = ids.umask {
        umask(Mode::from_bits_truncate(mask as libc::mode_t));
    }
    Ok(())
}

/// A devfs(5) keeps the owners of its devices to itself, so the terminal that was the user's on the host is not yet in the
/// jail. What has its name there and is another device, or none, stays as it is.
fn own_terminal(uid: u32) {
    let Ok(name) = nix::unistd::ttyname(std::io::stdin()) else { return };
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let Ok(terminal) = nix::fcntl::open(&name, flags, Mode::empty()) else { return };
    let device =
        |stat: nix::sys::stat::FileStat| (stat.st_mode & libc::S_IFMT == libc::S_IFCHR).then_some(stat.st_rdev);
    let same = match (fstat(&terminal), fstat(std::io::stdin())) {
        (Ok(one), Ok(other)) => device(one).is_some() && device(one) == device(other),
        _ => false,
    };
    if same {
        _ = nix::unistd::fchown(&terminal, Some(uid.into()), None);
    }
}

/// Changes the directory, as the jail's root if the user may not: config.md wants it, whoever can.
fn change_dir(path: &Path) -> Result<(), Trouble> {
    Ok(nix::unistd::chdir(path)?)
}
