//! Control groups (Documentation/admin-guide/cgroup-v2.rst).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::LinuxDeviceCgroup;

use crate::linux::bpf::Hook;

/// Makes the group, and the groups above it.
pub(super) fn create(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::create_dir(path)
        }
        // An engine may have made it for us (podman's --cgroup-parent): ours if nobody is in it.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && !populated(path)? => Ok(()),
        other => other,
    }
}

/// Writes one file of the group.
pub(super) fn set(path: &Path, file: &str, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path.join(file))?.write_all(value.as_bytes())
}

/// Opens the group, to start a process in it.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    use nix::fcntl::{OFlag, open};
    Ok(open(path, OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?)
}

/// Attaches the device filter.
pub(super) fn filter_devices(path: &Path, rules: &[LinuxDeviceCgroup]) -> Result<(), crate::host::Trouble> {
    let program = crate::linux::devices::program(rules)?;
    Ok(super::bpf::attach(open(path)?.as_fd(), Hook::Device, &program)?)
}

/// Holds the sockets of the group to these addresses.
pub(super) fn confine(path: &Path, addresses: &[IpAddr]) -> Result<(), crate::host::Trouble> {
    let group = open(path)?;
    for (hook, program) in crate::linux::addresses::programs(addresses) {
        super::bpf::attach(group.as_fd(), hook, &program).map_err(|e| format!("{hook:?}: {e}"))?;
    }
    Ok(())
}

/// Kills everything in the group and below, and waits until it is gone. No group, nothing to kill: systemd removes its own
/// when they are empty, at any moment, and a file of one that is gone fails with ENODEV.
pub(super) fn kill(path: &Path) -> io::Result<()> {
    match kill_all(path) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
        other => other,
    }
}

fn kill_all(path: &Path) -> io::Result<()> {
    let mut events = File::open(path.join("cgroup.events"))?;
    if !is_populated(&mut events)? {
        return Ok(());
    }
    set(path, "cgroup.kill", "1")?;
    while is_populated(&mut events)? {
        // The kernel raises POLLPRI when the file's content changes; reading it above armed that.
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Kills what is in the group and removes it with all groups below. No group, nothing to remove.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(()) => return Ok(()),
        Err(_) => {}
    }
    kill(path)?;
    remove_tree(path)
}

/// Removes a group after the groups below it. A task that has just been killed may hold its group for a moment longer
/// than `populated` says; then the group is asked again when its next event comes, or at once.
fn remove_tree(path: &Path) -> io::Result<()> {
    for item in fs::read_dir(path)? {
        let item = item?;
        if item.file_type()?.is_dir() {
            remove_tree(&item.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether any process is in the group or below.
pub(super) fn populated(path: &Path) -> io::Result<bool> {
    is_populated(&mut File::open(path.join("cgroup.events"))?)
}

fn is_populated(events: &mut File) -> io::Result<bool> {
    let mut text = String::new();
    events.rewind()?;
    events.read_to_string(&mut text)?;
    Ok(text.lines().any(|line| line == "populated 1"))
}

/// The processes of the group and of all groups below.
pub(super) fn processes(path: &Path) -> io::Result<Vec<i32>> {
    let mut all: Vec<i32> = match fs::read_to_string(path.join("cgroup.procs")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?.lines().filter_map(|line| line.parse().ok()).collect(),
    };
    for item in fs::read_dir(path)? {
        let item = item?;
        if item.file_type()?.is_dir() {
            all.extend(processes(&item.path())?);
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// Freezes or thaws the group and waits until the kernel says that it is so.
pub(super) fn freeze(path: &Path, frozen: bool) -> io::Result<()> {
    set(path, "cgroup.freeze", if frozen { "1" } else { "0" })?;
    let mut events = File::open(path.join("cgroup.events"))?;
    let wanted = format!("frozen {}", u8::from(frozen));
    loop {
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if text.lines().any(|line| line == wanted) {
            return Ok(());
        }
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Whether the group is frozen.
pub(super) fn frozen(path: &Path) -> bool {
    fs::read_to_string(path.join("cgroup.events")).is_ok_and(|text| text.lines().any(|line| line == "frozen 1"))
}
