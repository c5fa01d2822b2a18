//! Looking at the machine, once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, getegid, geteuid};

use crate::bridges::{Bridges, Networks};
use crate::bundle::Bundle;
use crate::bundle::pot::{Dns, NetworkKind, Pot, Protocol};
use crate::error::{Doing, Result};
use crate::facts::{Base, Cgroup, Facts, Leased, Network, Os, Store};
use crate::id::ContainerId;
use crate::settings::{self, Settings};
use crate::{lease, plan};

use super::network::facts as network;

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
    let network = match pot {
        Some(pot) if pot.network.kind != NetworkKind::Inherit => {
            self::network(pot, store).doing(|| "look at the network")?
        }
        _ => Network { ledger: ledger(), ..Network::default() },
    };
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

/// The pot network as it is now.
fn network(pot: &Pot, store: &Path) -> io::Result<Network> {
    let mut network = shared(&Settings::installed(&settings::LINUX), store)?;
    if plan::network::bridged(pot) {
        network.taken_addresses.extend(network::neighbours(&plan::network::bridge(pot).name)?);
        network.taken_addresses.sort_unstable();
        network.taken_addresses.dedup();
    }
    network.leased = lease::leased_for(&network.ledger, pot)?;
    let taken_ports = taken_ports(pot, &network.leased, network.ports);
    // Who it is, is asked only where it will be told.
    let asked = pot.exported_ports.iter().filter_map(|one| one.host_port);
    let wanted: BTreeSet<u16> = asked.filter(|port| taken_ports.contains(port)).collect();
    if !wanted.is_empty() {
        network.port_holders = network::holders(&wanted);
    }
    network.taken_ports = taken_ports.into_iter().collect();
    Ok(network)
}

/// What pots have in common, whoever of them asks.
fn shared(settings: &Settings, store: &Path) -> io::Result<Network> {
    let mut network = settings.network(ledger());
    if network.interface.is_empty() {
        network.interface = network::default_interface().unwrap_or_else(|| "eth0".into());
    }
    network.host_addresses = network::addresses()?;
    network.taken_addresses.extend(network.host_addresses.values().flatten());
    network.taken_addresses.sort_unstable();
    network.taken_addresses.dedup();
    network.bridges = bridges(store).all()?;
    Ok(network)
}

/// The pot network, its settings and its private bridges: what the verb `network` needs.
///
/// # Errors
/// Something that must be readable is not.
pub fn networks(store: &Path) -> Result<Networks> {
    let settings = Settings::installed(&settings::LINUX);
    let mut network = shared(&settings, store).doing(|| "look at the network")?;
    network.leased = lease::leased(&network.ledger, &[], &[]).doing(|| "read the ledger")?;
    Ok(Networks { os: Os::Linux, settings, network, bridges: bridges(store), others: BTreeMap::new() })
}

fn bridges(store: &Path) -> Bridges {
    Bridges::at(&store.join("bridges"))
}

/// The ports that somebody of the host has, as far as the plan may choose them: the ones that are asked for, and the
/// lowest of those to lease until as many are free as are needed.
fn taken_ports(pot: &Pot, leased: &Leased, range: (u16, u16)) -> BTreeSet<u16> {
    let asked = pot.exported_ports.iter().filter_map(plan::lease::asked);
    let mut taken: BTreeSet<u16> =
        asked.filter(|port| !leased.has(port) && network::is_taken(port.port)).map(|port| port.port).collect();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let own = || pot.exported_ports.iter().filter(|one| one.protocol == protocol);
        let mut needed = own().filter(|one| one.host_port.is_none()).count();
        let mut next = Some(range.0);
        while needed > 0 {
            let free = next.and_then(|from| leased.free_port(protocol, from)).filter(|port| *port <= range.1);
            let Some(port) = free else { break };
            if network::is_taken(port) {
                taken.insert(port);
            } else if own().all(|one| one.host_port != Some(port)) {
                needed -= 1;
            }
            next = port.checked_add(1);
        }
    }
    taken
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
