//! The `pot` section of config.json: runtime-spec/config-pot.md in types.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::read::{Cursor, flag, text};
use crate::id::ContainerId;

/// What makes a container a pot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pot {
    /// The base release that the root file system is cloned from.
    pub base: Option<BaseRef>,
    /// Volumes that potrun keeps.
    pub fscomps: Vec<Fscomp>,
    /// Existing ZFS datasets.
    pub datasets: Vec<Dataset>,
    /// Existing directories or files of the host.
    pub directories: Vec<Directory>,
    /// The network.
    pub network: Network,
    /// Ports of the pot that the host offers.
    pub exported_ports: Vec<ExportedPort>,
    /// Where names are asked for; `None` where the section does not say.
    pub dns: Option<Dns>,
    /// Lines for `/etc/hosts`.
    pub hosts: Vec<Host>,
    /// Limits of the whole pot.
    pub limits: Limits,
    /// How it ends gracefully.
    pub stop: Stop,
    /// Whether its data outlives the container.
    pub persistent: bool,
    /// Whether it starts with the host.
    pub start_at_boot: bool,
    /// Pots that must run first.
    pub depends_on: Vec<String>,
    /// Jail knobs that the OCI `freebsd.jail` has no member for.
    pub attributes: Attributes,
}

/// `base`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseRef {
    /// Name of the imported base: `14.3-RELEASE`.
    pub release: String,
    /// sha256 that it must have been imported with, 64 lower-case hexadecimal digits.
    pub digest: Option<String>,
}

/// An element of `fscomps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fscomp {
    /// Name of the volume.
    pub name: String,
    /// Where it appears.
    pub destination: PathBuf,
    /// Whether it can be written to.
    pub readonly: bool,
}

/// An element of `datasets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Name of the dataset.
    pub dataset: String,
    /// Where it appears.
    pub destination: PathBuf,
    /// Whether it can be written to.
    pub readonly: bool,
}

/// An element of `directories`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The directory or file of the host.
    pub source: PathBuf,
    /// Where it appears.
    pub destination: PathBuf,
    /// Whether it can be written to.
    pub readonly: bool,
}

/// `network`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// One of the four types.
    pub kind: NetworkKind,
    /// Addresses as the bundle wrote them; `auto` is an empty list.
    pub addresses: Vec<Address>,
    /// Name of the private bridge.
    pub bridge: Option<String>,
    /// Families.
    pub stack: Stack,
    /// Whether the section said anything about the network.
    pub given: bool,
}

/// `network.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkKind {
    /// The host's own.
    #[default]
    Inherit,
    /// Addresses on an interface of the host.
    Alias,
    /// An address on the bridge that all share.
    PublicBridge,
    /// An address on a bridge of a group of pots.
    PrivateBridge,
}

impl NetworkKind {
    /// The word of config.json.
    #[must_use]
    pub fn word(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }
}

const KINDS: &[(&str, NetworkKind)] = &[
    ("inherit", NetworkKind::Inherit),
    ("alias", NetworkKind::Alias),
    ("public-bridge", NetworkKind::PublicBridge),
    ("private-bridge", NetworkKind::PrivateBridge),
];

/// `network.stack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stack {
    /// IPv4 only.
    #[default]
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// Both.
    Dual,
}

impl Stack {
    /// Whether it has IPv4.
    #[must_use]
    pub fn v4(self) -> bool {
        self != Self::Ipv6
    }

    /// Whether it has IPv6.
    #[must_use]
    pub fn v6(self) -> bool {
        self != Self::Ipv4
    }
}

/// An element of `network.addresses`: `[interface|]address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface of the host; its outer one where absent.
    pub interface: Option<String>,
    /// The address.
    pub address: IpAddr,
}

/// An element of `exportedPorts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportedPort {
    /// Port of the pot.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the host; leased where absent.
    pub host_port: Option<u16>,
    /// Address of the host; all where absent.
    pub host_address: Option<IpAddr>,
}

/// `exportedPorts[].protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The word of config.json, of pf and of nftables.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// `dns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dns {
    /// The host's resolv.conf.
    Inherit,
    /// Leave the image's alone.
    Off,
    /// A resolv.conf of its own.
    Servers {
        /// Addresses of name servers.
        nameservers: Vec<IpAddr>,
        /// Domains to search.
        search: Vec<String>,
    },
}

/// An element of `hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Name.
    pub name: String,
    /// Address.
    pub address: IpAddr,
}

/// `limits`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processors' worth of time, in thousandths.
    pub millicpus: Option<u64>,
    /// Processors that it may run on: `0-3,8`.
    pub cpuset: Option<String>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Bytes of disk of its own layer.
    pub disk: Option<u64>,
}

/// `stop`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    /// Program that ends it, run inside.
    pub command: Vec<String>,
    /// Seconds until it is killed.
    pub timeout: Option<u64>,
}

/// `attributes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// devfs ruleset.
    pub devfs_ruleset: Option<u16>,
    /// How many jails it may make.
    pub children_max: Option<u32>,
    /// securelevel(7).
    pub securelevel: Option<i32>,
    /// What `uname -r` says inside.
    pub osrelease: Option<String>,
}

/// A name of ours that becomes a path component, a dataset component and a rule.
fn name(c: &mut Cursor<'_>) -> Option<String> {
    c.text_where("use letters, digits and _ . - only, beginning with a letter or digit, 64 at most", is_name)
}

/// Whether `text` is a name of a base, an fscomp, a bridge or a pot.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// A container id: what a pot that must run first is called.
fn container(c: &mut Cursor<'_>) -> Option<String> {
    let rule = "is not a container id: use letters, digits and _ + . - only, not beginning with -";
    c.text_where(rule, |text| ContainerId::new(text).is_ok())
}

fn absolute(c: &mut Cursor<'_>) -> Option<PathBuf> {
    let clean =
        |text: &str| text.starts_with('/') && !Path::new(text).components().any(|part| part == Component::ParentDir);
    c.text_where("must be an absolute path without ..", clean).map(PathBuf::from)
}

/// An address of the host: absent, and not the unspecified one, is how all of them are meant.
fn host_address(c: &mut Cursor<'_>) -> Option<IpAddr> {
    let address = address(c)?;
    if address.is_unspecified() {
        c.problem(format!("{address} is no address of the host: leave the member out to mean all of them"));
        return None;
    }
    Some(address)
}

/// Where something appears: an absolute path that is not the root itself.
fn destination(c: &mut Cursor<'_>) -> Option<PathBuf> {
    let path = absolute(c)?;
    if path.components().count() < 2 {
        return c.expected("a path below /");
    }
    Some(path)
}

fn address(c: &mut Cursor<'_>) -> Option<IpAddr> {
    match c.text()?.parse() {
        Ok(address) => Some(address),
        Err(_) => c.expected("an IPv4 or IPv6 address"),
    }
}

/// Bytes, as pot writes them: a number, or one with one of b k m g.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|ch: char| ch.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" => Some(10),
        "m" => Some(20),
        "g" => Some(30),
        _ => None,
    };
    let plain = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
    plain.zip(shift).and_then(|(n, shift)| n.checked_mul(1 << shift)).filter(|n| *n > 0)
}

/// The same, or a number.
fn bytes(c: &mut Cursor<'_>) -> Option<u64> {
    let size = c.value().as_str().map_or_else(|| c.value().as_u64(), size);
    match size {
        Some(n) if n > 0 => Some(n),
        _ => c.expected("a whole number of bytes from 1 to 2^64-1, such as 1048576 or \"512m\""),
    }
}

fn millicpus(c: &mut Cursor<'_>) -> Option<u64> {
    match c.value().as_f64() {
        // 0.01 is the least that both systems take: the quota of cgroup v2 is 1 ms of the 100 ms at least
        // (Documentation/scheduler/sched-bwc.rst), pcpu of rctl(8) is whole percents. 65535 is above any machine.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Some(n) if (0.01..=65535.0).contains(&n) => Some((n * 1000.0).round() as u64),
        _ => c.expected("a number of processors from 0.01 to 65535, such as 0.5 or 2"),
    }
}

/// `0-3,8`.
fn cpu_list(text: &str) -> bool {
    text.split(',').all(|part| {
        // str::parse would take a sign.
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
        let mut ends = part.splitn(2, '-').map(number);
        match (ends.next(), ends.next()) {
            (Some(Some(_)), None) => true,
            (Some(Some(low)), Some(Some(high))) => low <= high,
            _ => false,
        }
    })
}

/// A name of a ZFS dataset (zfs(8), "ZFS File System Hierarchy"): components of `[A-Za-z0-9_.:-]`, no snapshot.
fn is_dataset(text: &str) -> bool {
    let component = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "_.:-".contains(c))
    };
    text.len() < 256 && text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.split('/').all(component)
}

impl Pot {
    /// Reads the section.
    pub fn read(c: &mut Cursor<'_>) -> Self {
        if !c.is_object() {
            return Self::default();
        }
        let pot = Self {
            base: c.member("base", BaseRef::read),
            fscomps: c.list("fscomps", Fscomp::read),
            datasets: c.list("datasets", Dataset::read),
            directories: c.list("directories", Directory::read),
            network: c.member("network", Network::read).unwrap_or_default(),
            exported_ports: c.list("exportedPorts", ExportedPort::read),
            dns: c.member("dns", Dns::read),
            hosts: c.list("hosts", Host::read),
            limits: c.member("limits", Limits::read).unwrap_or_default(),
            stop: c.member("stop", Stop::read).unwrap_or_default(),
            persistent: c.member("persistent", flag).unwrap_or_default(),
            start_at_boot: c.member("startAtBoot", flag).unwrap_or_default(),
            depends_on: c.list("dependsOn", container),
            attributes: c.member("attributes", Attributes::read).unwrap_or_default(),
        };
        pot.check(c);
        pot
    }

    /// What no member can see alone, as far as each was read: a wrong type of network must not make its addresses
    /// wrong as well.
    fn check(&self, c: &mut Cursor<'_>) {
        let network = c.sound("network");
        if network {
            self.check_network(c);
        }
        if c.sound("exportedPorts") {
            self.check_ports(c, network);
        }
        self.check_destinations(c);
    }

    fn check_network(&self, c: &mut Cursor<'_>) {
        use NetworkKind::{Alias, Inherit, PrivateBridge};
        let network = &self.network;
        let kind = network.kind;
        match kind {
            Inherit if !network.addresses.is_empty() => {
                c.problem_at("network/addresses", "have no meaning with network type inherit");
            }
            Alias if network.addresses.is_empty() => {
                c.problem_at("network/addresses", "network type alias needs at least one address, and auto is none");
            }
            _ => {}
        }
        if kind == PrivateBridge && network.bridge.is_none() {
            c.problem_at("network/bridge", "is required with network type private-bridge");
        }
        if kind != PrivateBridge && network.bridge.is_some() {
            c.problem_at("network/bridge", format!("has no meaning with network type {}", kind.word()));
        }
        for (n, given) in network.addresses.iter().enumerate() {
            let at = format!("network/addresses/{n}");
            if given.interface.is_some() && kind != Alias && kind != Inherit {
                c.problem_at(&at, "an interface can be named with network type alias only");
            }
            if kind != Inherit && given.address.is_ipv6() && !network.stack.v6() {
                c.problem_at(&at, format!("{} is IPv6, but the stack is ipv4: say ipv6 or dual", given.address));
            }
            if kind != Inherit && given.address.is_ipv4() && !network.stack.v4() {
                c.problem_at(&at, format!("{} is IPv4, but the stack is ipv6: say ipv4 or dual", given.address));
            }
            if network.addresses[..n].iter().any(|other| other.address == given.address) {
                c.problem_at(&at, format!("{} is given twice", given.address));
            }
        }
    }

    fn check_ports(&self, c: &mut Cursor<'_>, network: bool) {
        let kind = self.network.kind;
        let bridge = matches!(kind, NetworkKind::PublicBridge | NetworkKind::PrivateBridge);
        if network && !bridge && !self.exported_ports.is_empty() {
            c.problem_at("exportedPorts", format!("network type {} exports no ports: use a bridge", kind.word()));
        }
        for (n, one) in self.exported_ports.iter().enumerate() {
            let stack = self.network.stack;
            let other = |address: &IpAddr| if address.is_ipv6() { !stack.v6() } else { !stack.v4() };
            if let Some(address) = one.host_address.filter(|address| network && bridge && other(address)) {
                let what = format!("{address} is of a family that the stack of the network leaves out");
                c.problem_at(&format!("exportedPorts/{n}/hostAddress"), what);
            }
            let same = |other: &&ExportedPort| {
                other.host_port.is_some()
                    && other.host_port == one.host_port
                    && other.protocol == one.protocol
                    && (other.host_address == one.host_address
                        || other.host_address.is_none()
                        || one.host_address.is_none())
            };
            if self.exported_ports[..n].iter().any(|other| same(&other)) {
                let port = one.host_port.unwrap_or_default();
                let what = format!("port {port}/{} of the host is given twice", one.protocol.word());
                c.problem_at(&format!("exportedPorts/{n}/hostPort"), what);
            }
        }
    }

    fn check_destinations(&self, c: &mut Cursor<'_>) {
        let mut seen: Vec<&Path> = Vec::new();
        let all = (self.fscomps.iter().enumerate().map(|(n, f)| ("fscomps", n, &f.destination)))
            .chain(self.datasets.iter().enumerate().map(|(n, d)| ("datasets", n, &d.destination)))
            .chain(self.directories.iter().enumerate().map(|(n, d)| ("directories", n, &d.destination)));
        // Where an element could not be read, the others have lost their places.
        let sound = ["fscomps", "datasets", "directories"].map(|list| (list, c.sound(list)));
        for (list, n, destination) in all.filter(|(list, ..)| sound.contains(&(list, true))) {
            if seen.contains(&destination.as_path()) {
                let what = format!("{} is given twice", destination.display());
                c.problem_at(&format!("{list}/{n}/destination"), what);
            }
            seen.push(destination);
        }
    }
}

impl BaseRef {
    fn read(c: &mut Cursor<'_>) -> Option<Self> {
        if !c.is_object() {
            return None;
        }
        let hex =
            |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let rule = "must be the 64 lower-case hexadecimal digits of a sha256 and nothing else";
        let digest = c.member("digest", |c| c.text_where(rule, hex));
        Some(Self { release: c.required("release", name)?, digest })
    }
}

impl Fscomp {
    fn read(c: &mut Cursor<'_>) -> Option<Self> {
        if !c.is_object() {
            return None;
        }
        let (name, destination) = (c.required("name", name), c.required("destination", destination));
        let readonly = c.member("readonly", flag).unwrap_or_default();
        Some(Self { name: name?, destination: destination?, readonly })
    }
}

impl Dataset {
    fn read(c: &mut Cursor<'_>) -> Option<Self> {
        if !c.is_object() {
            return None;
        }
        let rule = "is not a ZFS dataset: pool/name, of letters, digits and _ . : -";
        let dataset = c.required("dataset", |c| c.text_where(rule, is_dataset));
        let destination = c.required("destination", destination);
        let readonly = c.member("readonly", flag).unwrap_or_default();
        Some(Self { dataset: dataset?, destination: destination?, readonly })
    }
}

impl Directory {
    fn read(c: &mut Cursor<'_>) -> Option<Self> {
        if !c.is_object() {
            return None;
        }
        let (source, destination) = (c.required("source", absolute), c.required("destination", destination));
        let readonly = c.member("readonly", flag).unwrap_or_default();
        Some(Self { source: source?, destination: destination?, readonly })
    }
}

impl Network {
    fn read(c: &mut Cursor<'_>) -> Option<Self> {
        if !c.is_object() {
            return None;
        }
        let stacks = [("ipv4", Stack::Ipv4), ("ipv6", Stack::Ipv6), ("dual", Stack::Dual)];
        let addresses = c.list("addresses", Address::read);
        if addresses.len() > 1 && addresses.contains(&None) {
            c.problem_at("addresses", "auto stands alone");
        }
        Some(Self {
            kind: c.member("type", |c| c.choice(KINDS)).unwrap_or_default(),
            addresses: addresses.into_iter().flatten().collect(),
            bridge: c.member("bridge", name),
            stack: c.member("stack", |c| c.choice(&stacks)).unwrap_or_default(),
            given: true,
        })
    }
}

impl Address {
    /// `Some(None)` is `auto`.
    fn read(c: &mut Cursor<'_>) -> Option<Option<Self>> {
        let text = c.text()?;
        if text == "auto" {
            return Some(None);
        }
        let (interface, address) = match text.split_once('|') {
            Some((interface, address)) => (Some(interface.to_string()), address),
            None => (None, text.as_str()),
        };
        // IFNAMSIZ is 16 with the NUL, on both systems.
        let good = |name: &String| (1..16).contains(&name.len()) && !name.contains(['/', ' ', ':']);
        match address.parse() {
            Ok(address) if interface.as_ref().is_none_or(good) => Some(Some(Self { interface, address })),
            _ => c.expected("auto, an address without a prefix length, or interface|address"),
        }
    }
}

impl ExportedPort {
    fn read(c: &mut Cursor<'_>) -> Option<Self> {
        if !c.is_object() {
            return None;
        }
        #[allow(clippy::cast_possible_truncation)] // the range is that of u16
        let port = |c: &mut Cursor<'_>| c.number(1..=65535).map(|n| n as u16);
        let own = c.required("port", port);
        let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
        let protocol = c.member("protocol", |c| c.choice(&protocols)).unwrap_or_default();
        let (host_port, host_address) = (c.member("hostPort", port), c.member("hostAddress", host_address));
        Some(Self { port: own?, protocol, host_port, host_address })
    }
}

impl Dns {
    fn read(c: &mut Cursor<'_>) -> Option<Self> {
        match c.value().as_str() {
            Some("inherit") => return Some(Self::Inherit),
            Some("off") => return Some(Self::Off),
            _ if c.value().is_object() => {}
            _ => return c.expected("inherit, off, or an object with nameservers"),
        }
        let domain = |c: &mut Cursor<'_>| c.text_where(HOST_NAME, is_host_name);
        let nameservers = c.list("nameservers", address);
        if nameservers.is_empty() && c.sound("nameservers") {
            c.problem_at("nameservers", "must name at least one address");
        }
        Some(Self::Servers { nameservers, search: c.list("search", domain) })
    }
}

const HOST_NAME: &str = "use labels of 1 to 63 letters, digits and - _, with dots between, 253 at most";

/// A host name of RFC 1123, which is what a line of `/etc/hosts` can hold (hosts(5)).
pub(crate) fn is_host_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len()) && label.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        })
}

impl Host {
    fn read(c: &mut Cursor<'_>) -> Option<Self> {
        if !c.is_object() {
            return None;
        }
        let name = c.required("name", |c| c.text_where(HOST_NAME, is_host_name));
        let address = c.required("address", address);
        Some(Self { name: name?, address: address? })
    }
}

impl Limits {
    fn read(c: &mut Cursor<'_>) -> Option<Self> {
        if !c.is_object() {
            return None;
        }
        Some(Self {
            memory: c.member("memory", bytes),
            millicpus: c.member("cpus", millicpus),
            cpuset: c.member("cpuset", |c| c.text_where("is not a list of processors such as 0-3,8", cpu_list)),
            pids: c.member("pids", |c| c.number(1..=u64::from(u32::MAX))),
            disk: c.member("disk", bytes),
        })
    }
}

impl Stop {
    fn read(c: &mut Cursor<'_>) -> Option<Self> {
        if !c.is_object() {
            return None;
        }
        // A week is above any sensible wait.
        let timeout = c.member("timeout", |c| c.number(0..=604_800));
        Some(Self { command: c.list("command", text), timeout })
    }
}

impl Attributes {
    #[allow(clippy::cast_possible_truncation)] // the ranges are those of the types
    fn read(c: &mut Cursor<'_>) -> Option<Self> {
        if !c.is_object() {
            return None;
        }
        // OSRELEASELEN is 32 with the NUL (sys/jail.h).
        let release = |text: &str| (1..32).contains(&text.len()) && !text.contains(char::is_whitespace);
        Some(Self {
            devfs_ruleset: c.member("devfsRuleset", |c| c.number(0..=65535)).map(|n| n as u16),
            children_max: c.member("childrenMax", |c| c.number(0..=999_999)).map(|n| n as u32),
            securelevel: c.member("securelevel", Self::level),
            osrelease: c.member("osrelease", |c| c.text_where("must be 1 to 31 characters without spaces", release)),
        })
    }

    fn level(c: &mut Cursor<'_>) -> Option<i32> {
        match c.value().as_i64() {
            Some(level @ -1..=3) => i32::try_from(level).ok(),
            _ => c.expected("a whole number from -1 to 3"),
        }
    }
}
