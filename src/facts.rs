//! What a plan may depend on besides the bundle: the machine, looked at once.
//!
//! Facts go in and out as JSON, so that a bug report is `config.json` and `facts.json`, and so that a plan for another
//! machine, or another operating system, can be made anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bundle::pot::Protocol;
use crate::id::ContainerId;
use crate::lease::Port;
use crate::ranges::Ranges;

/// An operating system that potrun translates for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Os {
    /// FreeBSD: jails.
    Freebsd,
    /// Linux: namespaces.
    Linux,
}

impl std::fmt::Display for Os {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Freebsd => "freebsd",
            Self::Linux => "linux",
        })
    }
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Facts {
    /// Which planner.
    pub os: Os,
    /// Effective user of potrun.
    pub euid: u32,
    /// Effective group of potrun.
    pub egid: u32,
    /// Where containers are noted: `--root`.
    pub state: PathBuf,
    /// Where bases, fscomps and layers are kept.
    pub store: Store,
    /// The base that the bundle names, if it is there.
    pub base: Option<Base>,
    /// What the root lies on that an earlier container of this id has left, or a clone or an import for it: the snapshot of
    /// a base (ZFS), the name of a base (overlay).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// The layers between that and its base which it shares with other pots, the topmost first (overlay).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<PathBuf>,
    /// What the root that is kept may show, and what it shows of its base (ZFS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_quota: Option<Quota>,
    /// Whether directories of the store can have a limit, if the bundle has one (overlay).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quota: bool,
    /// The fscomps that the bundle names, as far as they are there: name to directory.
    pub fscomps: BTreeMap<String, PathBuf>,
    /// The datasets that the bundle names, as far as they are there: name to where they are mounted, if they are.
    #[serde(default)]
    pub datasets: BTreeMap<String, Option<PathBuf>>,
    /// What is mounted beneath the bundle's root already, by its id (FreeBSD).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<String>,
    /// The cgroup2 hierarchy, if there is one.
    pub cgroup: Option<Cgroup>,
    /// The security modules that are switched on, if the bundle names a label of one (Linux).
    #[serde(default, skip_serializing_if = "Labels::is_none")]
    pub labels: Labels,
    /// The interfaces that the bundle asks for, as far as they are there (Linux).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub interfaces: BTreeMap<String, Interface>,
    /// The resctrl file system, if the bundle asks for it and it is mounted (Linux).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<Resctrl>,
    /// The host's resolv.conf, if there is one.
    pub resolv_conf: Option<String>,
    /// Settings and use of the pot network.
    pub network: Network,
}

/// How much a root that was left for a container may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quota {
    /// Bytes, those of its base included, if there is a limit.
    pub limit: Option<u64>,
    /// Bytes of its base.
    pub shared: u64,
}

/// Security modules of Linux that confine programs by labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Labels {
    /// Profiles (apparmor(7)).
    pub apparmor: bool,
    /// Contexts (selinux(8)).
    pub selinux: bool,
}

impl Labels {
    /// Neither.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How an interface of the host is before it is lent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Interface {
    /// Its description (`ip link set alias`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub alias: String,
    /// Its addresses, but for those of its link only and those that end by themselves: `address/prefix`.
    pub addresses: Vec<String>,
    /// Whether it is up.
    pub up: bool,
    /// Whether it is made of software: then it ends with the network that it is in.
    pub software: bool,
}

/// The resctrl file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resctrl {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// What the group that the bundle asks for gets already, if it is there.
    pub schemata: Option<String>,
}

/// Where bases, fscomps and layers are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "driver", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Store {
    /// Directories and overlayfs.
    Overlay {
        /// The directory: `/var/lib/potrun`.
        path: PathBuf,
    },
    /// Datasets and clones, laid out as pot does.
    Zfs {
        /// `POT_ZFS_ROOT`.
        dataset: String,
        /// `POT_FS_ROOT`, its mountpoint.
        path: PathBuf,
    },
}

impl Store {
    /// Datasets where pot has them by default.
    #[must_use]
    pub fn of_pot() -> Self {
        Self::Zfs { dataset: "zroot/pot".into(), path: "/opt/pot".into() }
    }
}

/// An imported base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Base {
    /// sha256 that it was imported with, if that is known.
    pub digest: Option<String>,
    /// The snapshot that is cloned (ZFS).
    pub snapshot: Option<String>,
    /// What it says its release is (`freebsd-version`).
    pub osrelease: Option<String>,
    /// How many bytes the snapshot shows (ZFS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referenced: Option<u64>,
}

/// The cgroup2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cgroup {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The directory that groups of ours can be made in: the mount itself for root, the caller's own group otherwise.
    pub parent: PathBuf,
    /// Controllers that are there.
    pub controllers: Vec<String>,
    /// Whether groups are made by systemd, which has all of them in `parent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd: Option<Manager>,
}

/// A manager of systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Manager {
    /// The host's.
    System,
    /// The caller's own.
    User,
}

/// Settings and use of the pot network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// `POT_EXTIF`: the interface that leads outside.
    pub interface: String,
    /// `POT_NETWORK`: where addresses of the public bridge come from, `address/prefix`.
    pub subnet: String,
    /// `POT_GATEWAY`: the host's address on the public bridge.
    pub gateway: IpAddr,
    /// The same for IPv6.
    pub subnet6: String,
    /// The same for IPv6.
    pub gateway6: IpAddr,
    /// Private bridges: name to subnet and gateway.
    pub bridges: BTreeMap<String, Bridge>,
    /// `POT_DNS_IP`, where it is in the network: an address that is kept for the name server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<IpAddr>,
    /// Addresses that cannot be given, whatever the ledger says: of the host, of pot's own pots.
    pub taken_addresses: Vec<IpAddr>,
    /// Ports of the host that cannot be given, whatever the ledger says: somebody has a socket there, or (FreeBSD) a pot of
    /// pot's own has them.
    pub taken_ports: Vec<u16>,
    /// Who has those of them that the bundle asks for, as far as that is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub port_holders: BTreeMap<u16, String>,
    /// What the ledger says.
    #[serde(default, skip_serializing_if = "Leased::is_empty")]
    pub leased: Leased,
    /// First and last port that is leased.
    pub ports: (u16, u16),
    /// `POT_ISOLATE_VNET_POTS`: whether pots of one bridge cannot reach each other.
    #[serde(default)]
    pub isolate: bool,
    /// The ledger of leases.
    #[serde(default = "default_ledger")]
    pub ledger: PathBuf,
    /// Anchors that the host's own ruleset of pf(4) refers to; absent where there is none to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchors: Option<Vec<String>>,
    /// Whether that ruleset looks at filter rules in the anchors of pots; absent where nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<bool>,
    /// Whether pf(4) is on.
    #[serde(default = "default_on")]
    pub pf: bool,
    /// Addresses of the host's own interfaces.
    pub host_addresses: BTreeMap<String, Vec<IpAddr>>,
}

fn default_on() -> bool {
    true
}

fn default_ledger() -> PathBuf {
    "/var/run/potrun.leases".into()
}

/// What pots have on lease: runs, `first-last`, of which ten thousand pots make few.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Leased {
    /// Addresses.
    pub addresses: Ranges<IpAddr>,
    /// TCP ports of all addresses of the host.
    pub tcp: Ranges<u16>,
    /// UDP ports of all addresses of the host.
    pub udp: Ranges<u16>,
    /// Ports of one address of the host.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub bound: BTreeSet<Port>,
    /// Of what the bundle asks for by name: who has it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub holders: BTreeMap<String, ContainerId>,
}

impl Leased {
    /// Whether nothing is on lease.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.tcp.is_empty() && self.udp.is_empty() && self.bound.is_empty()
    }

    fn ports(&self, protocol: Protocol) -> &Ranges<u16> {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
        }
    }

    /// Whether a pot has this port, or one that collides with it.
    #[must_use]
    pub fn has(&self, port: &Port) -> bool {
        let one = |host| self.bound.contains(&Port { host: Some(host), ..*port });
        self.ports(port.protocol).contains(port.port)
            || port.host.map_or_else(|| self.bound_at(port.protocol, port.port), one)
    }

    fn bound_at(&self, protocol: Protocol, port: u16) -> bool {
        let first = Port { protocol, port, host: None };
        self.bound.range(first..).next().is_some_and(|one| one.collides(&first))
    }

    /// `from`, or the first port after it that no pot has on any address of the host.
    #[must_use]
    pub fn free_port(&self, protocol: Protocol, from: u16) -> Option<u16> {
        let mut port = self.ports(protocol).free_from(from)?;
        while self.bound_at(protocol, port) {
            port = self.ports(protocol).free_from(port.checked_add(1)?)?;
        }
        Some(port)
    }
}

/// A private bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bridge {
    /// `address/prefix`.
    pub subnet: String,
    /// The host's address on it.
    pub gateway: IpAddr,
}

impl Default for Network {
    /// pot's defaults (etc/pot/pot.default.conf), without a private bridge, nothing taken.
    fn default() -> Self {
        let (v4, v6) = ("10.192.0.1", "fd70:6f74::1"); // fd70:6f74::/64: unique local (RFC 4193), "pot" in ASCII
        Self {
            interface: "em0".into(),
            subnet: "10.192.0.0/10".into(),
            gateway: v4.parse().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
            subnet6: "fd70:6f74::/64".into(),
            gateway6: v6.parse().unwrap_or(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)),
            bridges: BTreeMap::new(),
            dns: Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 192, 0, 2))),
            taken_addresses: Vec::new(),
            taken_ports: Vec::new(),
            port_holders: BTreeMap::new(),
            leased: Leased::default(),
            ports: (1024, 9999),
            isolate: false,
            ledger: default_ledger(),
            anchors: None,
            filters: None,
            pf: true,
            host_addresses: BTreeMap::new(),
        }
    }
}

impl Facts {
    /// A machine that has everything the bundle names: what a plan for another machine is made with when nobody
    /// gives its facts.
    #[must_use]
    pub fn assumed(os: Os, bundle: &crate::bundle::Bundle) -> Self {
        let pot = bundle.pot.clone().unwrap_or_default();
        let (state, store): (PathBuf, Store) = match os {
            Os::Freebsd => ("/var/run/potrun".into(), Store::of_pot()),
            Os::Linux => ("/run/potrun".into(), Store::Overlay { path: "/var/lib/potrun".into() }),
        };
        let base = pot.base.as_ref().map(|base| Base {
            digest: base.digest.clone(),
            snapshot: None,
            osrelease: (os == Os::Freebsd).then(|| base.release.clone()),
            referenced: None,
        });
        let mut network = Network::default();
        if os == Os::Linux {
            network.interface = "eth0".into();
        }
        if let Some(name) = &pot.network.bridge {
            let (subnet, gateway) = ("10.192.0.8/29".into(), IpAddr::V4(std::net::Ipv4Addr::new(10, 192, 0, 9)));
            network.bridges.insert(name.clone(), Bridge { subnet, gateway });
        }
        let labels = os == Os::Linux && crate::linux::labels::asked(&bundle.spec, None);
        let mount = PathBuf::from("/sys/fs/cgroup");
        let controllers = ["cpu", "cpuset", "io", "memory", "pids"].map(String::from).to_vec();
        let facts = Self {
            os,
            euid: 0,
            egid: 0,
            state,
            base,
            kept: None,
            layers: Vec::new(),
            kept_quota: None,
            quota: false,
            fscomps: BTreeMap::new(),
            datasets: pot.datasets.iter().map(|d| (d.dataset.clone(), Some(Path::new("/").join(&d.dataset)))).collect(),
            store: store.clone(),
            mounts: Vec::new(),
            cgroup: (os == Os::Linux).then(|| Cgroup { parent: mount.clone(), mount, controllers, systemd: None }),
            labels: Labels { apparmor: labels, selinux: labels },
            interfaces: crate::linux::network::asked(&bundle.spec)
                .map(|name| (name.clone(), Interface::default()))
                .collect(),
            resctrl: bundle.spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref()).map(|rdt| Resctrl {
                mount: "/sys/fs/resctrl".into(),
                // A class is made where the bundle says of what, and is there where it does not.
                schemata: crate::linux::rdt::schemata(rdt)
                    .is_empty()
                    .then(String::new)
                    .filter(|_| rdt.clos_id().is_some()),
            }),
            resolv_conf: Some("nameserver 192.0.2.53\n".into()), // TEST-NET-1 of RFC 5737
            network,
        };
        facts.kept_in(store, bundle)
    }

    /// The same machine with another store, which has everything that the bundle names.
    #[must_use]
    pub fn kept_in(self, store: Store, bundle: &crate::bundle::Bundle) -> Self {
        let pot = bundle.pot.clone().unwrap_or_default();
        let snapshot = pot.base.as_ref().and_then(|base| match &store {
            Store::Zfs { dataset, .. } => Some(format!("{dataset}/bases/{}@{}", base.release, crate::zfs::SNAPSHOT)),
            Store::Overlay { .. } => None,
        });
        let directory = |name: &String| match &store {
            Store::Overlay { path } => path.join("fscomps").join(name),
            Store::Zfs { path, .. } => path.join("fscomp").join(name),
        };
        let fscomps = pot.fscomps.iter().map(|f| (f.name.clone(), directory(&f.name))).collect();
        let base = self.base.clone().map(|base| Base { snapshot, ..base });
        Self { base, fscomps, store, ..self }
    }
}
