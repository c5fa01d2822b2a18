//! The parent's side of the container's first process.
//!
//! One fork. The child lives in its namespaces and its cgroup from its first instruction, and is killed with this
//! potrun (`PR_SET_PDEATHSIG`) until the container is on record: a create that dies leaves no process.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::LinuxSeccomp;

use crate::host::child::Child;
use crate::host::first::Io;
use crate::host::{Trouble, link};
use crate::linux::seccomp::{self, Filter};
use crate::op::{Op, Spawn};

use super::{cgroup, inside, sys};

/// What the child needs, made before it is: descriptors of the host, and the compiled filter.
pub(super) struct Prepared {
    pub(super) link: OwnedFd,
    pub(super) join: Vec<(OwnedFd, i32)>,
    pub(super) like: Option<OwnedFd>,
    pub(super) filter: Option<Filter>,
}

/// The clone(2) flag of a namespace, by its OCI name.
pub(super) fn namespace_flag(name: &str) -> i32 {
    match name {
        "cgroup" => libc::CLONE_NEWCGROUP,
        "ipc" => libc::CLONE_NEWIPC,
        "mount" => libc::CLONE_NEWNS,
        "network" => libc::CLONE_NEWNET,
        "pid" => libc::CLONE_NEWPID,
        "user" => libc::CLONE_NEWUSER,
        "uts" => libc::CLONE_NEWUTS,
        _ => 0,
    }
}

/// Starts the process and waits until it is ready, or awaits the runtime.
pub(super) fn spawn(spawn: &Spawn, io: &mut Io) -> Result<Child, Trouble> {
    let (ours, theirs) = link::pair()?;
    let mut prepared = prepare(spawn, theirs)?;
    let cgroup = spawn.cgroup.as_deref().map(cgroup::open).transpose()?;
    // The cgroup namespace is made in the child: its root is the group that its maker is in, and clone3 makes
    // namespaces before it enters the group.
    let flags = spawn.namespaces.iter().map(|name| namespace_flag(name)).fold(0, |all, flag| all | flag);
    let flags = flags & !libc::CLONE_NEWCGROUP;

    let pid_namespace = enter_pid_namespace(&mut prepared, spawn.like)?;
    let how = sys::Clone { flags: flags as u64, cgroup: cgroup.as_ref().map(AsFd::as_fd) };
    let cloned = sys::clone3(&how);
    if let Ok(None) = cloned {
        inside::main(spawn, prepared, io);
    }
    if let Some(own) = pid_namespace {
        sys::setns(own.as_fd(), libc::CLONE_NEWPID)?;
    }
    let pid = cloned.map_err(explain)?.ok_or("clone3 returned twice")?;
    drop(prepared);
    let mut child = Child::new(pid, ours);
    if spawn.namespaces.iter().any(|name| name == "user") {
        map_ids(&child, spawn)?;
    }
    child.wait()?;
    Ok(child)
}

/// Writes the maps of its user namespace and lets it go on. `setgroups` is denied where the kernel demands it
/// (user_namespaces(7)): when the group map is written without privilege.
fn map_ids(child: &Child, spawn: &Spawn) -> Result<(), Trouble> {
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/{}/{file}", child.pid()), text).map_err(|e| format!("write {file}: {e}"))
    };
    let lines = |map: &[(u32, u32, u32)]| {
        map.iter().map(|(inside, outside, count)| format!("{inside} {outside} {count}\n")).collect::<String>()
    };
    if !nix::unistd::geteuid().is_root() {
        write("setgroups", "deny".into())?;
    }
    write("uid_map", lines(&spawn.uid_map))?;
    write("gid_map", lines(&spawn.gid_map))?;
    Ok(child.go()?)
}

/// Opens and compiles what the child cannot, or should not have to.
fn prepare(spawn: &Spawn, link: OwnedFd) -> Result<Prepared, Trouble> {
    let mut join = Vec::new();
    for (name, path) in &spawn.join {
        let fd = fs::File::open(path).map_err(|e| format!("open {name} namespace {}: {e}", path.display()))?;
        join.push((fd.into(), namespace_flag(name)));
    }
    let like =
        spawn.like.map(sys::pidfd_open).transpose().map_err(|e| format!("open process of the container: {e}"))?;
    let filter = spawn.start.iter().find_map(|op| match op {
        Op::Seccomp { seccomp } => Some(compile(seccomp)),
        _ => None,
    });
    Ok(Prepared { link, join, like, filter: filter.transpose()? })
}

/// Compiles the filter; names that no architecture knows are skipped, as the specification allows.
fn compile(seccomp: &LinuxSeccomp) -> Result<Filter, Trouble> {
    let native = seccomp::arch_named(std::env::consts::ARCH).ok_or("no system call table for this architecture")?;
    let compiled = seccomp::compile(seccomp, native)?;
    if !compiled.ignored.is_empty() {
        tracing::debug!("seccomp: unknown system calls: {}", compiled.ignored.join(" "));
    }
    Ok(compiled.filter)
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
