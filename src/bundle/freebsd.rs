//! The `freebsd` section of the OCI runtime specification 1.3 (config-freebsd.md), which oci-spec does not have.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::read::{Cursor, flag, text};

/// `freebsd`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FreeBsd {
    /// Devices shown inside.
    pub devices: Vec<Device>,
    /// Parameters of the jail.
    pub jail: Jail,
}

/// An element of `freebsd.devices`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Path below `/dev`, as devfs(8) matches it.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// `freebsd.jail`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Jail {
    /// Name of the jail that this one is made in.
    pub parent: Option<String>,
    /// Host name and ids.
    pub host: Option<Share>,
    /// IPv4.
    pub ip4: Option<Share>,
    /// IPv4 addresses.
    pub ip4_addr: Vec<Ipv4Addr>,
    /// IPv6.
    pub ip6: Option<Share>,
    /// IPv6 addresses.
    pub ip6_addr: Vec<Ipv6Addr>,
    /// A network stack of its own.
    pub vnet: Option<Share>,
    /// Interface that the addresses are added to.
    pub interface: Option<String>,
    /// Interfaces moved into the jail.
    pub vnet_interfaces: Vec<String>,
    /// System V messages.
    pub sysvmsg: Option<Share>,
    /// System V semaphores.
    pub sysvsem: Option<Share>,
    /// System V shared memory.
    pub sysvshm: Option<Share>,
    /// Which mounts are visible inside: 0 all, 1 below the root, 2 the root only.
    pub enforce_statfs: Option<u8>,
    /// What the jail's root may do.
    pub allow: Allow,
}

/// How a jail has something: `disable`, `new`, `inherit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Not at all.
    Disable,
    /// Its own.
    New,
    /// Its parent's.
    Inherit,
}

impl Share {
    /// The word of jail(8).
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::New => "new",
            Self::Inherit => "inherit",
        }
    }
}

/// `freebsd.jail.allow`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allow {
    /// Change the host name.
    pub set_hostname: Option<bool>,
    /// Use raw sockets.
    pub raw_sockets: Option<bool>,
    /// Change system file flags.
    pub chflags: Option<bool>,
    /// Mount these file system types.
    pub mount: Vec<String>,
    /// Change quotas.
    pub quotas: Option<bool>,
    /// Use socket families other than local, IP and route.
    pub socket_af: Option<bool>,
    /// Lock memory.
    pub mlock: Option<bool>,
    /// Bind ports below 1024.
    pub reserved_ports: Option<bool>,
    /// Have a privileged root at all.
    pub suser: Option<bool>,
}

impl FreeBsd {
    /// Reads the section; members that the specification does not know are ignored, as it demands.
    pub fn read(c: &mut Cursor<'_>) -> Self {
        c.ignore_unknown();
        if !c.is_object() {
            return Self::default();
        }
        Self { devices: c.list("devices", Device::read), jail: c.member("jail", Jail::read).unwrap_or_default() }
    }
}

impl Device {
    fn read(c: &mut Cursor<'_>) -> Option<Self> {
        c.ignore_unknown();
        if !c.is_object() {
            return None;
        }
        #[allow(clippy::cast_possible_truncation)] // within 0o7777
        let mode = c.member("mode", |c| c.number(0..=0o7777)).map(|mode| mode as u32);
        Some(Self { path: c.required("path", text)?.into(), mode })
    }
}

const DISABLE_NEW_INHERIT: &[(&str, Share)] =
    &[("disable", Share::Disable), ("new", Share::New), ("inherit", Share::Inherit)];
const NEW_INHERIT: &[(&str, Share)] = &[("new", Share::New), ("inherit", Share::Inherit)];

impl Jail {
    fn read(c: &mut Cursor<'_>) -> Option<Self> {
        c.ignore_unknown();
        if !c.is_object() {
            return None;
        }
        let three = |c: &mut Cursor<'_>| c.choice(DISABLE_NEW_INHERIT);
        #[allow(clippy::cast_possible_truncation)] // within 0..=2
        let statfs = c.member("enforceStatfs", |c| c.number(0..=2)).map(|n| n as u8);
        Some(Self {
            parent: c.member("parent", text),
            host: c.member("host", |c| c.choice(NEW_INHERIT)),
            ip4: c.member("ip4", three),
            ip4_addr: c.list("ip4Addr", |c| parsed(c, "an IPv4 address")),
            ip6: c.member("ip6", three),
            ip6_addr: c.list("ip6Addr", |c| parsed(c, "an IPv6 address")),
            vnet: c.member("vnet", |c| c.choice(NEW_INHERIT)),
            interface: c.member("interface", text),
            vnet_interfaces: c.list("vnetInterfaces", text),
            sysvmsg: c.member("sysvmsg", three),
            sysvsem: c.member("sysvsem", three),
            sysvshm: c.member("sysvshm", three),
            enforce_statfs: statfs,
            allow: c.member("allow", Allow::read).unwrap_or_default(),
        })
    }
}

fn parsed<T: std::str::FromStr>(c: &mut Cursor<'_>, what: &str) -> Option<T> {
    match c.text()?.parse() {
        Ok(value) => Some(value),
        Err(_) => c.expected(what),
    }
}

impl Allow {
    fn read(c: &mut Cursor<'_>) -> Option<Self> {
        c.ignore_unknown();
        if !c.is_object() {
            return None;
        }
        Some(Self {
            set_hostname: c.member("setHostname", flag),
            raw_sockets: c.member("rawSockets", flag),
            chflags: c.member("chflags", flag),
            mount: c.list("mount", text),
            quotas: c.member("quotas", flag),
            socket_af: c.member("socketAf", flag),
            mlock: c.member("mlock", flag),
            reserved_ports: c.member("reservedPorts", flag),
            suser: c.member("suser", flag),
        })
    }
}
