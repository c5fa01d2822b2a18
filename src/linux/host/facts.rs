//! Looking at the machine, once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, getegid, geteuid};
use oci_spec::runtime::Process;

use crate::bridges::{Bridges, Networks};
use crate::bundle::Bundle;
use crate::bundle::pot::{Dns, NetworkKind, Pot, Protocol};
use crate::error::{Doing, Error, Result};
use crate::facts::{Base, Cgroup, Facts, Interface, Labels, Leased, Manager, Network, Os, Resctrl, Store};
use crate::host::Trouble;
use crate::host::storage::{self, Storage};
use crate::host::zfs::{self, Datasets};
use crate::id::ContainerId;
use crate::settings::{self, Driver, Settings};
use crate::{lease, plan};

use super::layer;
use super::network::facts as network;

/// Looks at what `bundle` needs. Changes nothing.
///
/// # Errors
/// Something that must be readable is not.
pub fn gather(bundle: &Bundle, id: &ContainerId, state: &Path, store: &Path) -> Result<Facts> {
    let pot = bundle.pot.as_ref();
    let storage = storage(store);
    let base = match pot.and_then(|pot| pot.base.as_ref()) {
        Some(base) => read_base(&storage, &base.release)?,
        None => None,
    };
    let kept = match (storage.datasets(), pot) {
        (Some(datasets), Some(pot)) if pot.base.is_some() => datasets.kept(id).map_err(looking("what it left"))?,
        (None, Some(pot)) if pot.base.is_some() => {
            layer::kept(&storage.directory, id).doing(|| "look for what was left")?
        }
        _ => None,
    };
    let (layers, kept_quota) = match (&kept, storage.datasets()) {
        (Some(origin), Some(datasets)) => {
            (Vec::new(), Some(datasets.kept_quota(id, origin).map_err(looking("what it left"))?))
        }
        (Some(_), None) => {
            let below = layer::below(&storage.directory.join("pots").join(id.as_str()));
            (below.doing(|| "look for what was left")?, None)
        }
        (None, _) => (Vec::new(), None),
    };
    let limited = pot.is_some_and(|pot| pot.limits.disk.is_some()) && storage.datasets().is_none();
    let quota = limited && super::files::can_limit(&storage.directory);
    let mut fscomps = BTreeMap::new();
    for fscomp in pot.iter().flat_map(|pot| &pot.fscomps) {
        let path = storage.fscomp(&fscomp.name);
        if path.is_dir() {
            fscomps.insert(fscomp.name.clone(), path);
        }
    }
    let datasets: Vec<String> = pot.iter().flat_map(|pot| &pot.datasets).map(|one| one.dataset.clone()).collect();
    let datasets = zfs::mountpoints(&datasets).map_err(looking("its datasets"))?;
    let network = match pot {
        Some(pot) if pot.network.kind != NetworkKind::Inherit => {
            self::network(pot, &storage.directory).doing(|| "look at the network")?
        }
        _ => Network { ledger: ledger(), ..Network::default() },
    };
    let wants_dns = pot.is_some_and(|pot| matches!(pot.dns, Some(Dns::Inherit) | None));
    Ok(Facts {
        os: Os::Linux,
        euid: geteuid().as_raw(),
        egid: getegid().as_raw(),
        state: state.into(),
        store: storage.store,
        base,
        kept,
        layers,
        kept_quota,
        quota,
        fscomps,
        datasets,
        mounts: Vec::new(),
        labels: labels(bundle, None),
        interfaces: interfaces(bundle).doing(|| "look at the interfaces")?,
        resctrl: resctrl(bundle, id).doing(|| "look at resctrl")?,
        cgroup: cgroup().doing(|| "read /proc/self/mountinfo")?,
        resolv_conf: if wants_dns { fs::read_to_string("/etc/resolv.conf").ok() } else { None },
        network,
    })
}

/// The security modules that are switched on, if the bundle, or a process beside its own, names a label of one.
#[must_use]
pub fn labels(bundle: &Bundle, process: Option<&Process>) -> Labels {
    if crate::linux::labels::asked(&bundle.spec, process) { super::labels::there() } else { Labels::default() }
}

/// The interfaces that the bundle asks for.
fn interfaces(bundle: &Bundle) -> io::Result<BTreeMap<String, Interface>> {
    let look = |name: &String| network::look(name).map(|found| found.map(|found| (name.clone(), found))).transpose();
    crate::linux::network::asked(&bundle.spec).filter_map(look).collect()
}

/// The resctrl file system, with what is there of the bundle's group.
pub(super) fn resctrl(bundle: &Bundle, id: &ContainerId) -> io::Result<Option<Resctrl>> {
    let Some(rdt) = bundle.spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref()) else { return Ok(None) };
    super::resctrl::look(|mount| crate::linux::rdt::group(mount, rdt, id.as_str()))
}

/// The pot network as it is now.
fn network(pot: &Pot, store: &Path) -> io::Result<Network> {
    let stack = pot.network.stack;
    let alias = pot.network.kind == NetworkKind::Alias;
    let has = if alias { network::addresses()? } else { network::reached(stack.v4(), stack.v6())? };
    let mut network = shared(&Settings::installed(&settings::LINUX), store, has)?;
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

/// What pots have in common, whoever of them asks; `has`: addresses of the host.
fn shared(settings: &Settings, store: &Path, has: BTreeMap<String, Vec<IpAddr>>) -> io::Result<Network> {
    let mut network = settings.network(ledger());
    if network.interface.is_empty() {
        network.interface = network::default_interface().unwrap_or_else(|| "eth0".into());
    }
    network.host_addresses = has;
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
    let store = storage(store).directory;
    let has = network::addresses();
    let mut network = has.and_then(|has| shared(&settings, &store, has)).doing(|| "look at the network")?;
    network.leased = lease::leased(&network.ledger, &[], &[]).doing(|| "read the ledger")?;
    Ok(Networks { os: Os::Linux, settings, network, bridges: bridges(&store), others: BTreeMap::new() })
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
fn read_base(storage: &Storage, name: &str) -> Result<Option<Base>> {
    if let Some(datasets) = storage.datasets() {
        let found = datasets.base(name).map_err(looking(name))?;
        return Ok(found.map(|(base, _)| base));
    }
    let found = storage.bases().find(name).doing(|| format!("look at base {name}"))?;
    Ok(found.map(|base| Base {
        digest: Some(base.sha256.to_string()),
        snapshot: None,
        osrelease: None,
        referenced: None,
    }))
}

/// The bases of a store.
#[must_use]
pub fn bases(store: &Path) -> crate::base::Bases {
    storage(store).bases()
}

/// Where bases, volumes and pots are kept: what `--store` says, a directory or `zfs:DATASET`; else what the settings
/// say; else the datasets of `POT_ZFS_ROOT`, if they are there; else directories.
#[must_use]
pub fn storage(store: &Path) -> Storage {
    if let Some(dataset) = storage::dataset(store) {
        let path = Settings::installed(&settings::LINUX).path;
        return Storage::zfs(Datasets::at(dataset, path), default_store(), "--store says so");
    }
    if store != default_store() {
        return Storage::overlay(store.into(), "--store says so");
    }
    let file = settings::LINUX[0];
    let settings = Settings::installed(&settings::LINUX);
    let Settings { dataset, path, says_dataset, driver, .. } = settings;
    match driver {
        Some(Driver::Overlay) => return Storage::overlay(store.into(), format!("POT_STORE of {file}")),
        Some(Driver::Zfs) => {
            let path = zfs_mount(&dataset).unwrap_or(path);
            let datasets = Datasets { store: dataset, path };
            return Storage::zfs(datasets, store.into(), format!("POT_STORE of {file}"));
        }
        None if !says_dataset => return Storage::overlay(store.into(), format!("{file} has no POT_ZFS_ROOT")),
        None => {}
    }
    if !geteuid().is_root() {
        return Storage::overlay(store.into(), format!("POT_ZFS_ROOT of {file} is root's"));
    }
    let there = match zfs_mount(&dataset) {
        Some(path) => Some(Datasets { store: dataset.clone(), path }),
        None => zfs::exists(&dataset).then(|| Datasets::at(&dataset, path)),
    };
    match there {
        Some(datasets) => Storage::zfs(datasets, store.into(), format!("POT_ZFS_ROOT of {file} is there")),
        None => {
            let why = format!("POT_ZFS_ROOT of {file}, {dataset}, is not there (POT_STORE=zfs makes it)");
            Storage::overlay(store.into(), why)
        }
    }
}

/// Where a dataset is mounted, by itself or by the part of the store below it, as far as the kernel's list of mounts says.
fn zfs_mount(dataset: &str) -> Option<PathBuf> {
    mounted(&super::read_text("/proc/self/mounts").ok()?, dataset)
}

fn mounted(mounts: &str, dataset: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (from, at, "zfs") = (fields.next()?, fields.next()?, fields.next()?) else { return None };
        let at = PathBuf::from(unescape(at));
        match unescape(from).strip_prefix(dataset)? {
            "" => Some(at),
            "/bases" => at.parent().map(Path::to_path_buf),
            _ => None,
        }
    })
}

fn looking(at: &str) -> impl FnOnce(Trouble) -> Error {
    let at = format!("look at {at}");
    move |trouble| Error::operator(at).because(trouble)
}

/// Where else a directory is mounted, in whatever namespace: what proc_pid_mountinfo(5) says of all processes.
///
/// # Errors
/// The kernel's words.
pub fn shown(path: &Path) -> io::Result<Vec<PathBuf>> {
    let Ok(path) = path.canonicalize() else { return Ok(Vec::new()) };
    let place = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        Some((
            fields.get(2)?.to_string(),
            PathBuf::from(unescape(fields.get(3)?)),
            PathBuf::from(unescape(fields.get(4)?)),
        ))
    };
    let own: Vec<_> = super::read_text("/proc/self/mountinfo")?.lines().filter_map(place).collect();
    // The latest of those that cover it most closely.
    let covering =
        own.iter().filter(|(_, _, at)| path.starts_with(at)).max_by_key(|(_, _, at)| at.components().count());
    let Some((device, root, at)) = covering else { return Ok(Vec::new()) };
    let root = path.strip_prefix(at).map_or_else(|_| root.clone(), |below| root.join(below));
    let root = root.components().collect::<PathBuf>();
    let mut all = BTreeSet::new();
    for item in fs::read_dir("/proc")? {
        let item = item?;
        if item.file_name().to_string_lossy().bytes().any(|byte| !byte.is_ascii_digit()) {
            continue;
        }
        // A process may end while it is looked at.
        let Ok(text) = super::read_text(item.path().join("mountinfo")) else { continue };
        let there =
            text.lines().filter_map(place).filter(|(dev, from, on)| dev == device && *from == root && *on != path);
        all.extend(there.map(|(_, _, on)| on));
    }
    Ok(all.into_iter().collect())
}

/// What the kernel offers, for `info`. A file system whose module is not loaded yet is not in its list.
#[must_use]
pub fn offers() -> Vec<(&'static str, serde_json::Value)> {
    let read = |path: &str| super::read_text(path).unwrap_or_default();
    let mut namespaces: Vec<String> = fs::read_dir("/proc/self/ns")
        .into_iter()
        .flatten()
        .filter_map(|item| item.ok()?.file_name().into_string().ok())
        .filter(|name| !name.ends_with("_for_children"))
        .collect();
    namespaces.sort();
    let filesystems = read("/proc/filesystems");
    let has = |name: &str| filesystems.split_whitespace().any(|word| word == name);
    let number = |path: &str| read(path).trim().parse::<u64>().unwrap_or(0);
    vec![
        ("namespaces", namespaces.into()),
        ("userNamespaces", (number("/proc/sys/user/max_user_namespaces") > 0).into()),
        ("overlay", has("overlay").into()),
        ("zfs", has("zfs").into()),
        ("seccomp", read("/proc/sys/kernel/seccomp/actions_avail").split_whitespace().collect::<Vec<_>>().into()),
    ]
}

/// Where a file system of a type is mounted.
pub(super) fn mounted_type(fstype: &str) -> io::Result<Option<PathBuf>> {
    let text = super::read_text("/proc/self/mountinfo")?;
    let mounted = text.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (after.split(' ').next() == Some(fstype)).then(|| before.split(' ').nth(4).map(unescape)).flatten()
    });
    Ok(mounted.map(PathBuf::from))
}

/// The cgroup2 hierarchy, wherever it is mounted (proc_pid_mountinfo(5)), if groups can be made in it.
///
/// # Errors
/// The kernel's words.
pub fn cgroup() -> io::Result<Option<Cgroup>> {
    let Some(mount) = mounted_type("cgroup2")? else { return Ok(None) };
    let parent = if geteuid().is_root() { mount.clone() } else { own_group(&mount)? };
    let writable =
        access(&parent, AccessFlags::W_OK).is_ok() && access(&parent.join("cgroup.procs"), AccessFlags::W_OK).is_ok();
    if !writable {
        return Ok(None);
    }
    let controllers = super::read_text(parent.join("cgroup.controllers"))?;
    let controllers = controllers.split_whitespace().map(Into::into).collect();
    Ok(Some(Cgroup { mount, parent, controllers, systemd: None }))
}

/// The same, where systemd makes the groups.
///
/// # Errors
/// There is no systemd, or its words.
pub fn managed() -> Result<Cgroup> {
    let what = || "look at the groups of systemd";
    let Some(mount) = mounted_type("cgroup2").doing(what)? else {
        return Err(Error::operator("there is no cgroup2 hierarchy"));
    };
    // Root of a user namespace is a user outside (podman without root calls us so).
    let whole = super::read_text("/proc/self/uid_map").doing(what)?;
    let outside = whole.split_whitespace().eq(["0", "0", "4294967295"]);
    let manager = if geteuid().is_root() && outside { Manager::System } else { Manager::User };
    let group = super::systemd::group(manager == Manager::User).map_err(|e| Error::operator(what()).because(e))?;
    let parent = mount.join(group.trim_start_matches('/'));
    let controllers = super::read_text(parent.join("cgroup.controllers")).doing(what)?;
    let controllers = controllers.split_whitespace().map(Into::into).collect();
    Ok(Cgroup { mount, parent, controllers, systemd: Some(manager) })
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

/// Removes what outlived the container `id`: its datasets, or the layer that was left for it. Whether there was something.
///
/// # Errors
/// A container uses it, or the kernel's or zfs(8)'s words.
pub fn forget(store: &Path, id: &ContainerId) -> Result<bool> {
    let storage = storage(store);
    match &storage.store {
        Store::Zfs { .. } => storage.forget(id),
        Store::Overlay { path } => layer::forget(path, id).doing(|| format!("remove what is kept for {id}")),
    }
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
    fn a_store_is_found_by_what_is_mounted_of_it() {
        let mounts = "tank/pot2/bases /wrong/bases zfs rw 0 0\ntank/pot/fscomp /else zfs rw 0 0\n\
                      tank/pot/bases /opt/my\\040pot/bases zfs rw 0 0\n";
        assert_eq!(super::mounted(mounts, "tank/pot"), Some("/opt/my pot".into()));
        assert_eq!(super::mounted(mounts, "tank"), None);
        assert_eq!(super::mounted("tank/pot /srv/pot zfs rw 0 0\n", "tank/pot"), Some("/srv/pot".into()));
        assert_eq!(super::mounted("tank/pot /srv/pot ext4 rw 0 0\n", "tank/pot"), None);
    }

    #[test]
    fn mountinfo_escapes_are_undone() {
        assert_eq!(super::unescape("/a\\040b\\134c"), "/a b\\c");
    }
}
