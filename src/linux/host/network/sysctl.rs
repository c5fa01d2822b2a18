//! Sysctls of the host's network, and the note of what they were.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::host::Trouble;
use crate::op::Family;

use super::super::beneath::{self, Links};
use super::super::{open_path, read_text};

/// What the host's sysctls were before potrun changed them: by family, each path below /proc/sys with its value, in the
/// order in which they are to be put back.
#[derive(Default, Serialize, Deserialize)]
struct Note(BTreeMap<String, Vec<(String, String)>>);

impl Note {
    fn read(path: &Path) -> Result<Self, Trouble> {
        match read_text(path) {
            Ok(text) => Ok(serde_json::from_str(&text).map_err(|e| format!("{} is damaged: {e}", path.display()))?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(format!("read {}: {e}", path.display()).into()),
        }
    }

    fn forget(path: &Path, family: Family) -> Result<(), Trouble> {
        let mut whole = Self::read(path)?;
        whole.0.remove(&family.to_string());
        whole.write(path)
    }

    /// Replaced by rename(2); nothing to say is no file.
    fn write(&self, path: &Path) -> Result<(), Trouble> {
        if self.0.is_empty() {
            return remove(path);
        }
        let part = part(path);
        fs::write(&part, serde_json::to_vec(self)?)?;
        Ok(fs::rename(&part, path)?)
    }
}

/// Where a note is written before it has its name.
fn part(note: &Path) -> PathBuf {
    let mut part = note.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

fn remove(path: &Path) -> Result<(), Trouble> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

fn get(path: &str) -> io::Result<String> {
    Ok(read_text(Path::new("/proc/sys").join(path))?.trim().to_string())
}

fn set(path: &str, value: &str) -> Result<(), Trouble> {
    Ok(fs::write(Path::new("/proc/sys").join(path), value).map_err(|e| format!("set {path} to {value}: {e}"))?)
}

/// Sets what is not there if the interface is gone.
fn set_if_there(path: &str, value: &str) -> Result<(), Trouble> {
    match OpenOptions::new().write(true).open(Path::new("/proc/sys").join(path)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        file => {
            Ok(file.and_then(|mut file| file.write_all(value.as_bytes())).map_err(|e| format!("set {path}: {e}"))?)
        }
    }
}

/// Sets what an interface of the host has of IPv6, if the kernel has that.
pub(super) fn set_of_ipv6(interface: &str, values: &[(&str, &str)]) -> Result<(), Trouble> {
    set_by(open_path("/proc".as_ref())?.as_fd(), interface, values).map(drop)
}

/// Sets what interfaces that are to come into the pot's network have of IPv6: nothing (`off`), or neither routes that a
/// neighbour tells of (CVE-2020-10749), nor a second of silence in which it is asked who else has the address.
///
/// By the pot's own procfs, if it has one: in the host's, the kernel would keep the name `net` for each network that was
/// asked for there, all in one bucket (`proc_sys_compare`, fs/proc/proc_sysctl.c), which the host then looks through.
pub(in super::super) fn preset_ipv6(own: Option<BorrowedFd<'_>>, off: bool) -> Result<(), Trouble> {
    let values: &[_] = if off { &[("disable_ipv6", "1")] } else { &[("accept_ra", "0"), ("accept_dad", "0")] };
    // Whatever a bundle has at /proc: what could not be set there is set by the host's.
    match own.map(|proc| set_by(proc, "default", values)) {
        Some(Ok(true)) => Ok(()),
        _ => set_of_ipv6("default", values),
    }
}

/// Sets in a procfs what an interface of the caller's network has of IPv6. Whether there is such a thing.
fn set_by(proc: BorrowedFd<'_>, interface: &str, values: &[(&str, &str)]) -> Result<bool, Trouble> {
    beneath::must_be_proc(proc)?;
    let directory = format!("sys/net/ipv6/conf/{interface}");
    let opened = match beneath::find(proc, directory.as_ref(), Links::Inside) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(|e| format!("open {directory}: {e}"))?,
    };
    for (name, value) in values {
        let file = openat(&opened, *name, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
        file.map_err(io::Error::from)
            .and_then(|file| File::from(file).write_all(value.as_bytes()))
            .map_err(|e| format!("set {directory}/{name} to {value}: {e}"))?;
    }
    Ok(true)
}

fn directory(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "net/ipv4/conf",
        Family::Ipv6 => "net/ipv6/conf",
    }
}

/// Lets the host forward packets of a family, and notes what that changes.
///
/// Forwarding for all is written to each interface, too (Documentation/networking/ip-sysctl.rst), so that putting back
/// needs what each had. A host that forwards IPv6 no longer listens to routers, and may have its own way out from one:
/// accept_ra 2 lets it.
pub(in super::super) fn enable_forwarding(family: Family, note: Option<&Path>) -> Result<(), Trouble> {
    let directory = directory(family);
    let all = format!("{directory}/all/forwarding");
    let before = get(&all).map_err(|e| format!("read {all}: {e}"))?;
    if before == "1" {
        return Ok(());
    }
    let mut changes = vec![(all.clone(), before)];
    let mut listen = Vec::new();
    for item in fs::read_dir(Path::new("/proc/sys").join(directory))? {
        let name = item?.file_name().to_string_lossy().into_owned();
        let path = |file: &str| format!("{directory}/{name}/{file}");
        if name != "all" && get(&path("forwarding")).is_ok_and(|value| value == "1") {
            changes.push((path("forwarding"), "1".into()));
        }
        if family == Family::Ipv6 && get(&path("accept_ra")).is_ok_and(|value| value == "1") {
            listen.push(path("accept_ra"));
        }
    }
    // Those of "all" and "default" are for interfaces to come: nobody listens by them now.
    listen.retain(|path| !path.contains("/all/") && !path.contains("/default/"));
    changes.extend(listen.iter().map(|path| (path.clone(), "1".to_string())));
    if let Some(note) = note {
        let mut whole = Note::read(note)?;
        whole.0.insert(family.to_string(), changes.clone());
        whole.write(note).map_err(|e| format!("write {}: {e}", note.display()))?;
    }
    let done = listen.iter().try_for_each(|path| set(path, "2")).and_then(|()| set(&all, "1"));
    done.inspect_err(|_| {
        if let Some(note) = note {
            // The other family, if it is noted, was there before, and stays.
            _ = changes.iter().try_for_each(|(path, value)| set_if_there(path, value));
            drop(Note::forget(note, family));
        }
    })
}

/// Puts back what [`enable_forwarding`] noted, for all families: the last pot need not be of the one that others wanted.
pub(super) fn release_forwarding(note: &Path) -> Result<(), Trouble> {
    remove(&part(note))?; // of a potrun that was killed
    for (path, value) in Note::read(note)?.0.values().flatten() {
        set_if_there(path, value)?;
    }
    remove(note)
}

/// Lets packets from 127.0.0.0/8 leave by an interface, and come back.
pub(in super::super) fn route_loopback(interface: &str) -> Result<(), Trouble> {
    set(&format!("net/ipv4/conf/{interface}/route_localnet"), "1")
}
