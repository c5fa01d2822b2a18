//! Looking at the machine, once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, getegid, geteuid};

use crate::bundle::Bundle;
use crate::bundle::pot::{Dns, NetworkKind};
use crate::error::{Doing, Result};
use crate::facts::{Base, Cgroup, Facts, Network, Os, Store};
use crate::id::ContainerId;

/// Looks at what `bundle` needs. Changes nothing.
///
/// # Errors
/// Something that must be readable is not.
pub fn gather(bundle: &Bundle, _: &ContainerId, state: &Path, store: &Path) -> Result<Facts> {
    let pot = bundle.pot.as_ref();
    let base = match pot.and_then(|pot| pot.base.as_ref()) {
        Some(base) => read_base(store, &base.release)?,
        None => None,
    };
    let mut fscomps = BTreeMap::new();
    for fscomp in pot.iter().flat_map(|pot| &pot.fscomps) {
        let path = store.join("fscomps").join(&fscomp.name);
        if path.is_dir() {
            fscomps.insert(fscomp.name.clone(), path);
        }
    }
    let mut network = Network { ledger: ledger(), ..Network::default() };
    if pot.is_some_and(|pot| pot.network.kind != NetworkKind::Inherit) {
        network.interface = outer_interface().unwrap_or_else(|| "eth0".into());
    }
    let wants_dns = pot.is_some_and(|pot| matches!(pot.dns, Some(Dns::Inherit) | None));
    Ok(Facts {
        os: Os::Linux,
        euid: geteuid().as_raw(),
        egid: getegid().as_raw(),
        state: state.into(),
        store: Store::Overlay { path: store.into() },
        base,
        kept: None,
        fscomps,
        datasets: BTreeMap::new(),
        mounts: Vec::new(),
        cgroup: cgroup().doing(|| "read /proc/self/mountinfo")?,
        resolv_conf: if wants_dns { fs::read_to_string("/etc/resolv.conf").ok() } else { None },
        network,
    })
}

/// What is known of an imported base.
fn read_base(store: &Path, name: &str) -> Result<Option<Base>> {
    let found = bases(store).find(name).doing(|| format!("look at base {name}"))?;
    Ok(found.map(|base| Base { digest: Some(base.sha256.to_string()), snapshot: None, osrelease: None }))
}

/// The bases of a store.
#[must_use]
pub fn bases(store: &Path) -> crate::base::Bases {
    crate::base::Bases::at(store)
}

/// The cgroup2 hierarchy, wherever it is mounted (proc_pid_mountinfo(5)), if groups can be made in it.
fn cgroup() -> io::Result<Option<Cgroup>> {
    let text = super::read_text("/proc/self/mountinfo")?;
    let mounted = text.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4).map(unescape)).flatten()
    });
    let Some(mount) = mounted.map(PathBuf::from) else { return Ok(None) };
    let parent = if geteuid().is_root() { mount.clone() } else { own_group(&mount)? };
    let writable =
        access(&parent, AccessFlags::W_OK).is_ok() && access(&parent.join("cgroup.procs"), AccessFlags::W_OK).is_ok();
    if !writable {
        return Ok(None);
    }
    let controllers = super::read_text(parent.join("cgroup.controllers"))?;
    let controllers = controllers.split_whitespace().map(Into::into).collect();
    Ok(Some(Cgroup { mount, parent, controllers }))
}

/// The caller's own group (cgroups(7)).
fn own_group(mount: &Path) -> io::Result<PathBuf> {
    let text = super::read_text("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Ok(mount.join(path))
}

/// Undoes mountinfo's octal escapes of blank, tab, newline and backslash.
pub(super) fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_string(), |t, (a, b)| t.replace(a, b))
}

/// The interface of the default route (proc_net_route: destination and mask 0).
fn outer_interface() -> Option<String> {
    let text = super::read_text("/proc/net/route").ok()?;
    text.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000")).then(|| fields[0].to_string())
    })
}

/// The ledger of leases.
#[must_use]
pub fn ledger() -> PathBuf {
    "/run/potrun.leases".into()
}

/// Nothing outlives its container here.
///
/// # Errors
/// None.
pub fn forget(_: &ContainerId) -> Result<bool> {
    Ok(false)
}

/// Where containers are noted unless `--root` says it.
#[must_use]
pub fn default_root() -> PathBuf {
    if geteuid().is_root() {
        return "/run/potrun".into();
    }
    // As runc does: what ends with the session, or else what nobody else can guess.
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => Path::new(&dir).join("potrun"),
        _ => format!("/tmp/potrun-{}", geteuid()).into(),
    }
}

/// Where bases, fscomps and layers are kept unless `--store` says it.
#[must_use]
pub fn default_store() -> PathBuf {
    if geteuid().is_root() {
        return "/var/lib/potrun".into();
    }
    let data = std::env::var_os("XDG_DATA_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    data.or_else(home).unwrap_or_else(|| format!("/tmp/potrun-{}-data", geteuid()).into()).join("potrun")
}

#[cfg(test)]
mod tests {
    #[test]
    fn mountinfo_escapes_are_undone() {
        assert_eq!(super::unescape("/a\\040b\\134c"), "/a b\\c");
    }
}
