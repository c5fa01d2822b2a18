//! Looking at the machine, once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{getegid, geteuid};
use oci_spec::runtime::Process;

use crate::bridges::{Bridges, Networks};
use crate::bundle::Bundle;
use crate::bundle::pot::{Dns, NetworkKind, Pot};
use crate::error::{Doing, Error, Result};
use crate::facts::{Base, Cgroup, Facts, Labels, Network, Os};
use crate::freebsd::pf::rdr_anchor;
use crate::freebsd::pots::{self, Export};
use crate::host::Trouble;
use crate::host::storage::{self, Storage};
use crate::host::zfs::{self, Datasets};
use crate::id::ContainerId;
use crate::lease;
use crate::settings::{self, Settings};

use super::{jail, mount, network, pf};

/// Looks at what `bundle` needs. Changes nothing.
///
/// # Errors
/// Something that must be readable is not.
pub fn gather(bundle: &Bundle, id: &ContainerId, state: &Path, store: &Path) -> Result<Facts> {
    let settings = Settings::installed(&settings::POT);
    let storage = storage(store);
    let store = storage.datasets();
    let pot = bundle.pot.as_ref();
    let base = match (&store, pot.and_then(|pot| pot.base.as_ref())) {
        (Some(store), Some(base)) => store.base(&base.release).map_err(looking(&base.release))?,
        _ => None,
    };
    let base = base.map(|(base, at)| Base { osrelease: release(&at), ..base });
    let kept = match (&store, pot) {
        (Some(store), Some(pot)) if pot.base.is_some() => store.kept(id).map_err(looking("what it left"))?,
        _ => None,
    };
    let kept_quota = match (&store, &kept) {
        (Some(store), Some(origin)) => Some(store.kept_quota(id, origin).map_err(looking("what it left"))?),
        _ => None,
    };
    let mut fscomps = BTreeMap::new();
    for fscomp in pot.iter().flat_map(|pot| &pot.fscomps) {
        let path = storage.fscomp(&fscomp.name);
        if path.is_dir() {
            fscomps.insert(fscomp.name.clone(), path);
        }
    }
    let datasets: Vec<String> = pot.iter().flat_map(|pot| &pot.datasets).map(|one| one.dataset.clone()).collect();
    let datasets = zfs::mountpoints(&datasets).map_err(looking("its datasets"))?;
    let mounts = match (pot.and_then(|pot| pot.base.as_ref()), bundle.root()) {
        (None, Some(root)) => mount::beneath(&root).doing(|| "list mounts")?,
        _ => Vec::new(),
    };
    let network = match pot {
        Some(pot) if pot.network.kind != NetworkKind::Inherit => {
            self::network(&settings, pot, bundle).map_err(looking("the network"))?
        }
        _ => Network { ledger: ledger(), ..Network::default() },
    };
    let wants_dns = pot.is_some_and(|pot| matches!(pot.dns, Some(Dns::Inherit) | None));
    Ok(Facts {
        os: Os::Freebsd,
        euid: geteuid().as_raw(),
        egid: getegid().as_raw(),
        state: state.into(),
        store: storage.store,
        base,
        kept,
        layers: Vec::new(),
        kept_quota,
        quota: false,
        fscomps,
        datasets,
        mounts,
        labels: Labels::default(),
        interfaces: BTreeMap::new(),
        resctrl: None,
        cgroup: None,
        resolv_conf: if wants_dns { fs::read_to_string("/etc/resolv.conf").ok() } else { None },
        network,
    })
}

/// Destroys what outlived the container `id`. Whether there was something.
///
/// # Errors
/// zfs(8)'s words.
pub fn forget(store: &Path, id: &ContainerId) -> Result<bool> {
    storage(store).forget(id)
}

/// Where bases, volumes and pots are kept: `--store` is a dataset, `zfs:NAME`, or the directory of what is none.
#[must_use]
pub fn storage(store: &Path) -> Storage {
    let settings = Settings::installed(&settings::POT);
    if let Some(dataset) = storage::dataset(store) {
        return Storage::zfs(Datasets::at(dataset, settings.path), default_store(), "--store says so");
    }
    let why =
        if settings.says_dataset { "POT_ZFS_ROOT of pot.conf" } else { "pot's default: nobody sets POT_ZFS_ROOT" };
    let datasets = Datasets { store: settings.dataset, path: settings.path };
    Storage::zfs(datasets, store.into(), why)
}

/// What a base says its release is: the variable of its freebsd-version(1), which is a script. It is read as text, of
/// bounded size, beneath the base.
fn release(root: &Path) -> Option<String> {
    use std::io::Read;
    let file = super::beneath::open_file(root, Path::new("/bin/freebsd-version")).ok()?;
    let mut text = String::new();
    file.take(64 << 10).read_to_string(&mut text).ok()?;
    crate::zfs::release(&text)
}

fn looking(at: &str) -> impl FnOnce(Trouble) -> Error {
    let at = format!("look at {at}");
    move |trouble| Error::operator(at).because(trouble)
}

/// The pot network as it is now.
fn network(settings: &Settings, pot: &Pot, bundle: &Bundle) -> std::result::Result<Network, Trouble> {
    let mut network = shared(settings)?;
    let others = pots_of_pot(settings, pot, bundle);
    network.taken_addresses.extend(others.iter().flat_map(|(_, text)| pots::addresses(text)));
    network.taken_addresses.sort_unstable();
    network.taken_addresses.dedup();
    if pot.network.kind != NetworkKind::Alias {
        network.pf = pf::enabled()?;
        let mut ports = network::facts::ports()?;
        for (name, text) in &others {
            let exports: Vec<Export> = pots::exports(&pots::members(text)).filter_map(Export::parse).collect();
            ports.extend(exports.iter().filter_map(|one| one.host));
            // Those that pot gives at start stand nowhere else.
            if network.pf && exports.iter().any(|one| one.host.is_none()) && jail::id(name)?.is_some() {
                ports.extend(pf::ports(&rdr_anchor(name))?);
            }
        }
        ports.sort_unstable();
        ports.dedup();
        network.taken_ports = ports;
        network.anchors = if network.pf { Some(pf::anchors()?) } else { None };
        let private = network.pf && pot.network.kind == NetworkKind::PrivateBridge;
        network.filters = if private { Some(pf::filters()?) } else { None };
    }
    network.leased = lease::leased_for(&network.ledger, pot)?;
    Ok(network)
}

/// What pots have in common, whoever of them asks.
fn shared(settings: &Settings) -> std::result::Result<Network, Trouble> {
    let mut network = settings.network(ledger());
    if network.interface.is_empty() {
        let found = network::facts::default_interface();
        network.interface = found.ok_or("no interface leads outside: set POT_EXTIF in pot.conf")?;
    }
    network.host_addresses = network::facts::addresses()?;
    network.taken_addresses.extend(network.host_addresses.values().flatten());
    network.bridges = Bridges::at(&settings.path.join("bridges")).all()?;
    Ok(network)
}

/// The pot network, its settings, its private bridges, and the pots that are not potrun's: what the verb `network`
/// needs.
///
/// # Errors
/// Something that must be readable is not.
pub fn networks(_: &Path) -> Result<Networks> {
    let settings = Settings::installed(&settings::POT);
    let mut network = shared(&settings).map_err(looking("the network"))?;
    network.leased = lease::leased(&network.ledger, &[], &[]).doing(|| "read the ledger")?;
    let texts = all_of_pot(&settings).into_iter().map(|(name, text)| (name, pots::addresses(&text)));
    let others = texts.flat_map(|(name, all)| all.into_iter().map(move |address| (address, name.clone())));
    let others: BTreeMap<_, _> = others.collect();
    network.taken_addresses.extend(others.keys());
    let bridges = Bridges::at(&settings.path.join("bridges"));
    Ok(Networks { os: Os::Freebsd, settings, network, bridges, others })
}

/// The pots that pot itself has made, running or not, with what they say: their addresses and ports are theirs, for it
/// gives them anew at each start. A pot that the bundle is made of has none but the bundle's.
fn pots_of_pot(settings: &Settings, pot: &Pot, bundle: &Bundle) -> Vec<(String, String)> {
    let jails = settings.path.join("jails");
    let root = bundle.root().and_then(|root| root.strip_prefix(&jails).map(Path::to_path_buf).ok());
    let datasets = format!("{}/jails/", settings.dataset);
    let parts = pot.datasets.iter().filter_map(|one| one.dataset.strip_prefix(&datasets).map(PathBuf::from));
    let first = |path: PathBuf| path.components().next().map(|name| name.as_os_str().to_owned());
    let own: Vec<_> = root.into_iter().chain(parts).filter_map(first).collect();
    all_of_pot(settings).into_iter().filter(|(name, _)| own.iter().all(|one| **one != **name)).collect()
}

fn all_of_pot(settings: &Settings) -> Vec<(String, String)> {
    let Ok(pots) = fs::read_dir(settings.path.join("jails")) else { return Vec::new() };
    let read = |pot: fs::DirEntry| {
        Some((pot.file_name().into_string().ok()?, fs::read_to_string(pot.path().join("conf/pot.conf")).ok()?))
    };
    pots.filter_map(std::result::Result::ok).filter_map(read).collect()
}

/// Where else a directory is mounted.
///
/// # Errors
/// The kernel's words.
pub fn shown(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    mount::from(path)
}

/// FreeBSD has no control groups: rctl(8) and cpuset(1) do what they do.
///
/// # Errors
/// None.
pub fn cgroup() -> std::io::Result<Option<Cgroup>> {
    Ok(None)
}

/// What the kernel offers, for `info`.
#[must_use]
pub fn offers() -> Vec<(&'static str, serde_json::Value)> {
    let on =
        |name: &std::ffi::CStr| super::sys::sysctl_named(name).is_ok_and(|value| value.iter().any(|byte| *byte != 0));
    vec![
        ("vnet", on(c"kern.features.vimage").into()),
        ("rctl", on(c"kern.racct.enable").into()),
        ("pf", pf::enabled().unwrap_or(false).into()),
        ("mountsOnFiles", super::sys::release_date().is_ok_and(|date| date >= mount::MOUNTS_FILES).into()),
    ]
}

/// The bases of pot's store.
#[must_use]
pub fn bases(store: &Path) -> crate::base::Bases {
    storage(store).bases()
}

/// The groups of systemd.
///
/// # Errors
/// There are none.
pub fn managed() -> Result<Cgroup> {
    Err(Error::caller("the systemd cgroup driver is of linux"))
}

/// Security modules that confine by labels: FreeBSD's are others.
#[must_use]
pub fn labels(_: &Bundle, _: Option<&Process>) -> Labels {
    Labels::default()
}

/// The ledger of leases.
#[must_use]
pub fn ledger() -> PathBuf {
    "/var/run/potrun.leases".into()
}

/// Where containers are noted unless `--root` says it.
#[must_use]
pub fn default_root() -> PathBuf {
    "/var/run/potrun".into()
}

/// Where what is no dataset is kept unless `--store` says it.
#[must_use]
pub fn default_store() -> PathBuf {
    "/var/db/potrun".into()
}
