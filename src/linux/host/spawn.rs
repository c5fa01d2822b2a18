//! The parent's side of the container's first process.
//!
//! One fork. The child lives in its namespaces and its cgroup from its first instruction, and is killed with this
//! potrun (`PR_SET_PDEATHSIG`) until the container is on record: a create that dies leaves no process.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::host::child::Child;
use crate::host::first::Io;
use crate::host::link::{self, Message};
use crate::host::{Trouble, terminal};
use crate::linux::mount::Options;
use crate::linux::seccomp::Filter;
use crate::op::{IdMap, Mount, Op, Spawn};

use super::{cgroup, filters, inside, labels, sys};

/// What the child needs, made before it is: descriptors of the host, and the compiled filter.
pub(super) struct Prepared {
    pub(super) link: OwnedFd,
    pub(super) join: Vec<(OwnedFd, i32)>,
    pub(super) like: Option<OwnedFd>,
    /// Idmapped mounts by their targets: only who is root of the file system's own user namespace can make them.
    pub(super) mounts: Vec<(PathBuf, OwnedFd)>,
    pub(super) filter: Option<Filter>,
    /// The agent that answers for the filter, and what it is told besides (config-linux.md, `listenerPath`).
    pub(super) agent: Option<(OwnedFd, String)>,
}

/// The clone(2) flag of a namespace, by its OCI name.
pub(super) fn namespace_flag(name: &str) -> i32 {
    match name {
        "cgroup" => libc::CLONE_NEWCGROUP,
        "ipc" => libc::CLONE_NEWIPC,
        "mount" => libc::CLONE_NEWNS,
        "network" => libc::CLONE_NEWNET,
        "time" => libc::CLONE_NEWTIME,
        "pid" => libc::CLONE_NEWPID,
        "user" => libc::CLONE_NEWUSER,
        "uts" => libc::CLONE_NEWUTS,
        _ => 0,
    }
}

/// Starts the process, and waits until it is ready or awaits the runtime, unless it will call.
pub(super) fn spawn(spawn: &Spawn, io: &mut Io) -> Result<Child, Trouble> {
    // Who starts at once hears at once of a profile that is not there.
    if io.listen.is_some() {
        labels::try_out(&spawn.start)?;
    }
    let (ours, theirs) = link::pair()?;
    let mut prepared = prepare(spawn, theirs, &io.filters)?;
    let cgroup = spawn.cgroup.as_deref().map(cgroup::open).transpose()?;
    // The cgroup namespace is made in the child: its root is the group that its maker is in, and clone3 makes
    // namespaces before it enters the group.
    let flags = spawn.namespaces.iter().map(|name| namespace_flag(name)).fold(0, |all, flag| all | flag);
    let flags = (flags & !(libc::CLONE_NEWCGROUP | libc::CLONE_NEWTIME)) as u64;
    let cgroup = cgroup.as_ref().map(AsFd::as_fd);

    let pid = if needs_go_between(spawn) {
        by_go_between(spawn, prepared, io, flags, cgroup)?
    } else {
        let pid_namespace = enter_pid_namespace(&mut prepared, spawn.like)?;
        let cloned = sys::clone3(&sys::Clone { flags, cgroup });
        if let Ok(None) = cloned {
            inside::main(spawn, prepared, io);
        }
        if let Some(own) = pid_namespace {
            sys::setns(own.as_fd(), libc::CLONE_NEWPID)?;
        }
        cloned.map_err(explain)?.ok_or("clone3 returned twice")?
    };
    let mut child = Child::new(pid, ours);
    if spawn.namespaces.iter().any(|name| name == "user") {
        map_ids(&child, spawn)?;
    }
    if !spawn.create.contains(&Op::CallRuntime) {
        child.wait()?;
    }
    Ok(child)
}

/// Whether the process cannot be started from here: it is born in a user namespace that others made, in a time namespace
/// of its own, or beside a user namespace in namespaces that only root outside may join. Who goes in there does not come
/// back.
fn needs_go_between(spawn: &Spawn) -> bool {
    let new = |kind: &str| spawn.namespaces.iter().any(|name| name == kind);
    new("time") || spawn.join.iter().any(|(name, _)| name == "user") || (new("user") && !spawn.join.is_empty())
}

/// Starts the process by a go-between, whose sibling it is (`CLONE_PARENT`): so it is our own child, and nothing stands
/// between it and us. Returns its pid.
fn by_go_between(
    spawn: &Spawn,
    mut prepared: Prepared,
    io: &mut Io,
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<i32, Trouble> {
    let (ours, theirs) = link::pair()?;
    let between = sys::clone3(&sys::Clone { flags: 0, cgroup }).map_err(explain)?;
    let Some(between) = between else {
        drop(ours);
        let born = go_in(spawn, &mut prepared)
            .and_then(|()| Ok(sys::clone3(&sys::Clone { flags: flags | libc::CLONE_PARENT as u64, cgroup: None })?));
        let told = match born {
            Ok(None) => {
                drop(theirs);
                inside::main(spawn, prepared, io)
            }
            Ok(Some(pid)) => link::tell(theirs.as_fd(), &Message::Started(pid)),
            Err(trouble) => link::tell(theirs.as_fd(), &Message::Failed(crate::error::chain(&*trouble))),
        };
        // Whom we could not tell is gone.
        crate::host::sys::exit(i32::from(told.is_err()))
    };
    drop((theirs, prepared));
    let said = link::hear(ours.as_fd());
    let ended = waitpid(Pid::from_raw(between), None);
    match said? {
        Some(Message::Started(pid)) => Ok(pid),
        Some(Message::Failed(text)) => Err(text.into()),
        _ => Err(format!("the go-between ended: {ended:?}").into()),
    }
}

/// The go-between's way: what root outside may join it joins before it gives that up, the rest after.
fn go_in(spawn: &Spawn, prepared: &mut Prepared) -> Result<(), Trouble> {
    let (user, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut prepared.join).into_iter().partition(|(_, kind)| *kind == libc::CLONE_NEWUSER);
    let mut left = Vec::new();
    for (file, kind) in others {
        match sys::setns(file.as_fd(), kind) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => left.push((file, kind)),
            Err(e) => return Err(format!("join namespace: {e}").into()),
        }
    }
    for (file, kind) in user.into_iter().chain(left) {
        match sys::setns(file.as_fd(), kind) {
            Ok(()) => {}
            // The process will make the user namespace that gives it the right to.
            Err(e)
                if e.raw_os_error() == Some(libc::EPERM) && kind & (libc::CLONE_NEWUSER | libc::CLONE_NEWPID) == 0 =>
            {
                prepared.join.push((file, kind));
            }
            Err(e) => return Err(format!("join namespace: {e}").into()),
        }
    }
    if spawn.namespaces.iter().any(|name| name == "time") {
        nix::sched::unshare(nix::sched::CloneFlags::from_bits_retain(libc::CLONE_NEWTIME))
            .map_err(|e| format!("make a time namespace: {e}"))?;
        let line = |(clock, seconds, nanoseconds): &(String, i64, u32)| format!("{clock} {seconds} {nanoseconds}\n");
        let lines: String = spawn.time_offsets.iter().map(line).collect();
        if !lines.is_empty() {
            super::program::write_proc("self/timens_offsets".as_ref(), &lines)
                .map_err(|e| format!("set the offsets of the time namespace: {e}"))?;
        }
    }
    Ok(())
}

/// Writes the maps of its user namespace and lets it go on. `setgroups` is denied where the kernel demands it
/// (user_namespaces(7)): when the group map is written without privilege.
fn map_ids(child: &Child, spawn: &Spawn) -> Result<(), Trouble> {
    if !nix::unistd::geteuid().is_root() {
        fs::write(format!("/proc/{}/setgroups", child.pid()), "deny").map_err(|e| format!("write setgroups: {e}"))?;
    }
    write_map(child.pid(), "uid_map", &spawn.uid_map)?;
    write_map(child.pid(), "gid_map", &spawn.gid_map)?;
    Ok(child.go()?)
}

/// Opens and compiles what the child cannot, or should not have to. `kept`: where compiled filters are.
fn prepare(spawn: &Spawn, link: OwnedFd, kept: &Path) -> Result<Prepared, Trouble> {
    let mut join = Vec::new();
    for (name, path) in &spawn.join {
        let fd = fs::File::open(path).map_err(|e| format!("open {name} namespace {}: {e}", path.display()))?;
        join.push((fd.into(), namespace_flag(name)));
    }
    let like =
        spawn.like.map(sys::pidfd_open).transpose().map_err(|e| format!("open process of the container: {e}"))?;
    let seccomp = spawn.start.iter().find_map(|op| match op {
        Op::Seccomp { seccomp } => Some(seccomp),
        _ => None,
    });
    let filter = seccomp.map(|seccomp| filters::of(seccomp, kept)).transpose()?;
    let agent = match seccomp.and_then(|seccomp| seccomp.listener_path().as_ref().map(|path| (path, seccomp))) {
        Some((path, seccomp)) if filter.as_ref().is_some_and(Filter::has_listener) => {
            let socket = terminal::connect_to(path).map_err(|e| format!("connect to {}: {e}", path.display()))?;
            Some((socket, seccomp.listener_metadata().clone().unwrap_or_default()))
        }
        _ => None,
    };
    let mut mounts = Vec::new();
    for op in &spawn.create {
        if let Op::Mount(mount) = op
            && let Some(maps) = &mount.owners
        {
            mounts.push((mount.target.clone(), idmapped(mount, maps).map_err(|e| format!("{op}: {e}"))?));
        }
    }
    Ok(Prepared { link, join, like, mounts, filter, agent })
}

/// A detached copy of a mount's source in which the owners of files are mapped.
fn idmapped(mount: &Mount, maps: &[IdMap; 2]) -> Result<OwnedFd, Trouble> {
    let options = Options::of(&mount.options);
    let source = super::open_path(&mount.source).map_err(|e| format!("open {}: {e}", mount.source.display()))?;
    let tree = sys::clone_tree(source.as_raw_fd(), c"", options.recursive)?;
    sys::map_mount(tree.as_fd(), options.id_map == Some(true), user_namespace(maps)?.as_fd())?;
    Ok(tree)
}

/// A user namespace with these maps, which nobody is in.
fn user_namespace([users, groups]: &[IdMap; 2]) -> Result<OwnedFd, Trouble> {
    let (ours, theirs) = link::pair()?;
    let pid = sys::clone3(&sys::Clone { flags: libc::CLONE_NEWUSER as u64, cgroup: None })?;
    let Some(pid) = pid else {
        drop(ours);
        // Until the other end is closed, if only because potrun has died.
        drop(link::hear(theirs.as_fd()));
        crate::host::sys::exit(0)
    };
    drop(theirs);
    let made = write_map(pid, "uid_map", users)
        .and_then(|()| write_map(pid, "gid_map", groups))
        .and_then(|()| Ok(fs::File::open(format!("/proc/{pid}/ns/user"))?.into()));
    drop(ours);
    waitpid(Pid::from_raw(pid), None)?;
    made
}

fn write_map(pid: i32, file: &str, map: &[(u32, u32, u32)]) -> Result<(), Trouble> {
    let line = |(inside, outside, count): &(u32, u32, u32)| format!("{inside} {outside} {count}\n");
    let lines: String = map.iter().map(line).collect();
    fs::write(format!("/proc/{pid}/{file}"), lines).map_err(|e| format!("write {file}: {e}").into())
}

/// A pid namespace is entered by the children of who joins it: so it is joined here, and left again after the fork.
/// Returns the one to go back to.
///
/// Without root the right to do so comes from the container's user namespace, which is entered for good then: the way
/// back is closed to who is not root outside.
fn enter_pid_namespace(prepared: &mut Prepared, like: Option<i32>) -> Result<Option<OwnedFd>, Trouble> {
    if let (Some(fd), false) = (&prepared.like, nix::unistd::geteuid().is_root())
        && !super::program::same_namespace(like, "user")?
    {
        let both = libc::CLONE_NEWUSER | libc::CLONE_NEWPID;
        sys::setns(fd.as_fd(), both).map_err(|e| format!("join the container's user namespace: {e}"))?;
        return Ok(None);
    }
    let at = prepared.join.iter().position(|(_, kind)| *kind == libc::CLONE_NEWPID);
    let joined = at.map(|at| prepared.join.remove(at).0);
    let Some(fd) = joined.as_ref().or(prepared.like.as_ref()) else { return Ok(None) };
    let own = fs::File::open("/proc/self/ns/pid_for_children")?;
    sys::setns(fd.as_fd(), libc::CLONE_NEWPID).map_err(|e| format!("join pid namespace: {e}"))?;
    Ok(Some(own.into()))
}

/// What clone3's bare errno means here.
fn explain(error: io::Error) -> Trouble {
    match error.raw_os_error() {
        Some(libc::EBUSY) => "the cgroup has processes in groups below it, or controllers enabled".into(),
        Some(libc::ENOSPC) => format!("too many namespaces: {error}; see /proc/sys/user").into(),
        _ => error.into(),
    }
}
