//! Mounts in the mount namespace of a container that runs.
//!
//! A child joins the namespace and nothing else: it is invisible to the container, and holds what it needs from before:
//! the detached copy of what is mounted, the container's root, by which the target is resolved, and its own descriptors'
//! names, since `/proc` is the container's there.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::fstat;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, fchdir, pipe2};

use crate::host::{Trouble, sys as posix};
use crate::linux::mount::Options;
use crate::op::Mount;
use crate::state::Identity;

use super::beneath::{self, Links};
use super::{inside, open_path, process, sys};

/// Mounts a directory or file of the host.
pub(super) fn mount(who: &Identity, what: &Mount) -> Result<(), Trouble> {
    let options = Options::of(&what.options);
    let tree = inside::detached(what, &options, None)?;
    let (pidfd, root) = reach(who)?.ok_or("its first process has ended")?;
    forked(|| {
        sys::setns(pidfd.as_fd(), libc::CLONE_NEWNS)?;
        inside::place(root.as_fd(), what, &options, tree.as_fd())
    })
}

/// Takes away what [`mount`] has made, if it is still there.
pub(super) fn unmount(who: &Identity, what: &Mount) -> Result<(), Trouble> {
    let Some((pidfd, root)) = reach(who)? else { return Ok(()) };
    let source = match open_path(&what.source).and_then(|source| Ok(fstat(&source)?)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        other => Some(other?),
    };
    forked(|| {
        let own = open_path("/proc/self/fd".as_ref())?;
        sys::setns(pidfd.as_fd(), libc::CLONE_NEWNS)?;
        let target = match beneath::find(root.as_fd(), &what.target, Links::Inside) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
            other => other?,
        };
        let there = fstat(&target)?;
        // Something else by now, or nothing: not what we have mounted.
        if source.is_some_and(|source| (source.st_dev, source.st_ino) != (there.st_dev, there.st_ino)) {
            return Ok(());
        }
        fchdir(&own)?;
        match umount2(target.as_raw_fd().to_string().as_str(), MntFlags::MNT_DETACH) {
            // It is no mount.
            Err(Errno::EINVAL) => Ok(()),
            other => Ok(other?),
        }
    })
}

/// A process and its root. `None`: it has ended.
fn reach(who: &Identity) -> Result<Option<(OwnedFd, OwnedFd)>, Trouble> {
    let Some(pidfd) = process::open(who)? else { return Ok(None) };
    let root = match open_path(Path::new(&format!("/proc/{}/root", who.pid))) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    // Asked after its root was opened: so it is its own.
    Ok(process::alive(who)?.then_some((pidfd, root)))
}

/// Does something in a child.
pub(super) fn forked(work: impl FnOnce() -> Result<(), Trouble>) -> Result<(), Trouble> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    let Some(pid) = sys::clone3(&sys::Clone { flags: 0, cgroup: None })? else {
        let told = match work() {
            Ok(()) => Ok(()),
            Err(trouble) => File::from(theirs).write_all(crate::error::chain(&*trouble).as_bytes()),
        };
        posix::exit(if told.is_ok() { 0 } else { 1 });
    };
    drop(theirs);
    let mut text = String::new();
    File::from(ours).read_to_string(&mut text)?;
    let status = waitpid(Pid::from_raw(pid), None)?;
    match text.is_empty() && status == nix::sys::wait::WaitStatus::Exited(Pid::from_raw(pid), 0) {
        true => Ok(()),
        false if text.is_empty() => Err("the process that was to do it died".into()),
        false => Err(text.into()),
    }
}
