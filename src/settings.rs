//! The settings of a host: `pot.default.conf` and `pot.conf` of an installed pot on FreeBSD, `potrun.conf` in the same
//! form on Linux. They are shell files, but read as data and never run. What only a shell could answer (`$(...)`, a
//! variable of another file) is said to be left out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::facts::Network;
use crate::plan::lease::Subnet;
use crate::ranges::Point;

/// Where pot keeps its settings (hier(7): what is installed from ports), in the order in which it reads them.
pub const POT: [&str; 2] = ["/usr/local/etc/pot/pot.default.conf", "/usr/local/etc/pot/pot.conf"];

/// Where potrun looks for its own on Linux.
pub const LINUX: [&str; 1] = ["/etc/potrun.conf"];

/// What keeps bases, volumes and the roots of pots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Datasets.
    Zfs,
    /// Directories and overlayfs.
    Overlay,
}

/// What potrun takes from them. The defaults are pot's (etc/pot/pot.default.conf).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `POT_ZFS_ROOT`.
    pub dataset: String,
    /// Whether somebody has said that.
    pub says_dataset: bool,
    /// `POT_STORE`, potrun's own: which driver keeps bases and pots; absent where it is to be found out.
    pub driver: Option<Driver>,
    /// `POT_FS_ROOT`.
    pub path: PathBuf,
    /// `POT_EXTIF`; absent where nobody has said it: then it is the interface of the default route.
    pub interface: Option<String>,
    /// `POT_NETWORK`.
    pub network: String,
    /// `POT_NETMASK`; absent where nobody has said it.
    pub netmask: Option<IpAddr>,
    /// `POT_GATEWAY`.
    pub gateway: IpAddr,
    /// `POT_NETWORK6`, potrun's own: the network of the public bridge for IPv6.
    pub network6: String,
    /// `POT_GATEWAY6`, potrun's own; absent: the first address of that network.
    pub gateway6: Option<IpAddr>,
    /// `POT_PORTS`, potrun's own: first and last port that is leased.
    pub ports: (u16, u16),
    /// `POT_DNS_IP`.
    pub dns: Option<IpAddr>,
    /// `POT_ISOLATE_VNET_POTS`.
    pub isolate: bool,
    /// `POT_NETWORK_STACK`.
    pub stack: String,
    /// What was understood and is not carried out, or not understood.
    pub notes: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let v4 = |last| IpAddr::V4(std::net::Ipv4Addr::new(10, 192, 0, last));
        let network = Network::default();
        Self {
            dataset: "zroot/pot".into(),
            says_dataset: false,
            driver: None,
            path: "/opt/pot".into(),
            interface: None,
            network: "10.192.0.0/10".into(),
            netmask: None,
            gateway: v4(1),
            network6: network.subnet6,
            gateway6: None,
            ports: network.ports,
            dns: Some(v4(2)),
            isolate: false,
            stack: "ipv4".into(),
            notes: Vec::new(),
        }
    }
}

impl Settings {
    /// Those of `files`, as far as they are there, or pot's own defaults.
    #[must_use]
    pub fn installed(files: &[&str]) -> Self {
        Self::read(&files.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect::<Vec<_>>())
    }

    /// Reads the files in their order: a later assignment counts.
    #[must_use]
    pub fn read(files: &[String]) -> Self {
        let mut notes = Vec::new();
        let mut all = BTreeMap::new();
        for text in files {
            all.extend(assignments(text, &mut notes));
        }
        let mut settings = Self { notes, ..Self::default() };
        for (name, value) in all {
            settings.take(&name, value);
        }
        settings
    }

    fn take(&mut self, name: &str, value: String) {
        if value.is_empty() {
            if name == "POT_DNS_IP" {
                self.dns = None;
            }
            return;
        }
        let mut address = || {
            let address = value.parse::<IpAddr>().ok();
            if address.is_none() {
                self.notes.push(format!("{name}={value} is not an address"));
            }
            address
        };
        match name {
            "POT_ZFS_ROOT" => (self.dataset, self.says_dataset) = (value, true),
            "POT_STORE" => match value.as_str() {
                "zfs" => self.driver = Some(Driver::Zfs),
                "overlay" => self.driver = Some(Driver::Overlay),
                _ => self.notes.push(format!("{name}={value} is neither zfs nor overlay")),
            },
            "POT_FS_ROOT" => self.path = value.into(),
            "POT_EXTIF" => self.interface = Some(value),
            "POT_NETWORK" => self.network = value,
            "POT_NETMASK" => self.netmask = address(),
            "POT_GATEWAY" => self.gateway = address().unwrap_or(self.gateway),
            "POT_NETWORK6" => self.network6 = value,
            "POT_GATEWAY6" => self.gateway6 = address(),
            "POT_DNS_IP" => self.dns = address().or(self.dns),
            "POT_PORTS" => match value.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?))) {
                Some((first, last)) if 0 < first && first <= last => self.ports = (first, last),
                _ => self.notes.push(format!("{name}={value} is not a range of ports: FIRST-LAST")),
            },
            "POT_ISOLATE_VNET_POTS" => self.isolate = matches!(value.as_str(), "true" | "TRUE" | "yes" | "YES"),
            "POT_NETWORK_STACK" => self.stack = value,
            "POT_EXTRA_EXTIF" | "POT_EXTIF_ADDR" | "POT_EXPORT_PORTS_PF_RULES_HOOK" | "POT_VPN_EXTIF" => {
                self.notes.push(format!("{name} is a setting of pot's that potrun does not carry out"));
            }
            _ => {}
        }
    }
}

impl Settings {
    /// The pot network that they make. The name server's address is reserved where it is in the network, as potnet has
    /// it.
    #[must_use]
    pub fn network(&self, ledger: PathBuf) -> Network {
        let first = || Subnet::parse(&self.network6).and_then(|subnet| subnet.network.next());
        let default = Network::default();
        let subnet = Subnet::parse(&self.network);
        Network {
            interface: self.interface.clone().unwrap_or_default(),
            subnet: self.network.clone(),
            gateway: self.gateway,
            subnet6: self.network6.clone(),
            gateway6: self.gateway6.or_else(first).unwrap_or(default.gateway6),
            dns: self.dns.filter(|dns| subnet.is_some_and(|net| net.contains(*dns))),
            ports: self.ports,
            isolate: self.isolate,
            ledger,
            ..default
        }
    }

    /// What is wrong with them: what `network validate` says, as `potnet config-check` does.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut all = self.notes.clone();
        let network = self.network(PathBuf::new());
        let pairs = [
            ("POT_NETWORK", &network.subnet, "POT_GATEWAY", network.gateway, true),
            ("POT_NETWORK6", &network.subnet6, "POT_GATEWAY6", network.gateway6, false),
        ];
        for (name, text, gateway_name, gateway, v4) in pairs {
            match Subnet::parse(text).filter(|subnet| subnet.network.is_ipv4() == v4 && subnet.is_network()) {
                None => all.push(format!("{name}={text} is not a network: ADDRESS/PREFIX")),
                Some(subnet) if !subnet.usable(gateway) => {
                    all.push(format!("{gateway_name}={gateway} is not a host address of {subnet}"));
                }
                Some(_) => {}
            }
        }
        let mask = |subnet: Subnet| match subnet.network {
            IpAddr::V4(_) => Some(IpAddr::V4(std::net::Ipv4Addr::from_bits(
                u32::MAX.checked_shl(32 - u32::from(subnet.prefix)).unwrap_or(0),
            ))),
            IpAddr::V6(_) => None,
        };
        let is = Subnet::parse(&self.network).and_then(mask);
        if let (Some(netmask), Some(is)) = (self.netmask, is)
            && netmask != is
        {
            all.push(format!("POT_NETMASK={netmask} is not that of {}: {is}", self.network));
        }
        all
    }
}

/// `NAME=value` lines. The value is a word, in single or double quotes or none, as sh(1) reads it without expansions.
#[must_use]
pub fn assignments(text: &str, notes: &mut Vec<String>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, rest)) = line.split_once('=') else { continue };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        match word(rest) {
            Some(value) => all.push((name.to_string(), value)),
            None => notes.push(format!("{name} has a value that only a shell could tell: {}", rest.trim())),
        }
    }
    all
}

/// The first word of a line; `None` where it needs a shell, or its quotes do not end.
fn word(text: &str) -> Option<String> {
    let mut value = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, ' ' | '\t' | '#' | ';') => break,
            (None | Some('"'), '$' | '`') => return None,
            (None | Some('"'), '\\') => value.push(chars.next()?),
            _ => value.push(c),
        }
    }
    quote.is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Settings {
        Settings::read(&[text.into()])
    }

    #[test]
    fn quotes_and_comments_are_sh() {
        let text = "# POT_EXTIF=no\nPOT_EXTIF=\"em1\" # mine\n  export POT_FS_ROOT='/a b'\nPOT_GATEWAY=10.0.0.1;\nPOT_DNS_IP=\n";
        let settings = read(text);
        assert_eq!(settings.interface.as_deref(), Some("em1"));
        assert_eq!(settings.path, PathBuf::from("/a b"));
        assert_eq!(settings.gateway.to_string(), "10.0.0.1");
        assert_eq!(settings.dns, None);
        assert_eq!(settings.notes, [""; 0]);
    }

    #[test]
    fn nothing_is_run() {
        let settings = read("POT_ZFS_ROOT=$(rm -rf /)\nPOT_EXTIF=`id`\nPOT_NETWORK=\"$NET\"\nPOT_FS_ROOT='$HOME'\n");
        assert_eq!(settings.dataset, "zroot/pot");
        assert_eq!(settings.interface, None);
        assert_eq!(settings.path, PathBuf::from("$HOME"));
        assert_eq!(settings.notes.len(), 3, "{:?}", settings.notes);
    }

    #[test]
    fn a_later_file_counts() {
        let settings =
            Settings::read(&["POT_ZFS_ROOT=zroot/pot\nPOT_EXTIF=em0".into(), "POT_ZFS_ROOT=tank/pot".into()]);
        assert_eq!((settings.dataset.as_str(), settings.interface.as_deref()), ("tank/pot", Some("em0")));
    }

    #[test]
    fn the_network_is_made_of_them() {
        let all = "POT_NETWORK=10.9.0.0/16\nPOT_GATEWAY=10.9.0.1\nPOT_NETMASK=255.255.0.0\nPOT_EXTIF=eth7\n\
                   POT_NETWORK6=fd00:9::/64\nPOT_PORTS=20000-20999\nPOT_ISOLATE_VNET_POTS=yes\n";
        let settings = read(all);
        assert_eq!(settings.problems(), [""; 0]);
        let network = settings.network("/l".into());
        assert_eq!((network.subnet.as_str(), network.gateway.to_string().as_str()), ("10.9.0.0/16", "10.9.0.1"));
        assert_eq!((network.subnet6.as_str(), network.gateway6.to_string().as_str()), ("fd00:9::/64", "fd00:9::1"));
        assert_eq!((network.interface.as_str(), network.ports, network.isolate), ("eth7", (20000, 20999), true));
        assert_eq!(network.dns, None, "the name server of pot's default is elsewhere");
        assert_eq!(read("").network("/l".into()).dns, "10.192.0.2".parse().ok());
    }

    #[test]
    fn what_does_not_fit_is_told() {
        for (text, what) in [
            ("POT_NETWORK=10.9.0.0/16", "POT_GATEWAY=10.192.0.1 is not a host address of 10.9.0.0/16"),
            ("POT_NETWORK=10.192.0.1/10", "POT_NETWORK=10.192.0.1/10 is not a network: ADDRESS/PREFIX"),
            ("POT_NETMASK=255.255.0.0", "POT_NETMASK=255.255.0.0 is not that of 10.192.0.0/10: 255.192.0.0"),
            ("POT_GATEWAY6=fd00::1", "POT_GATEWAY6=fd00::1 is not a host address of fd70:6f74::/64"),
            ("POT_PORTS=9-8", "POT_PORTS=9-8 is not a range of ports: FIRST-LAST"),
        ] {
            assert_eq!(read(text).problems(), [what], "{text}");
        }
    }

    #[test]
    fn the_driver_is_a_word() {
        assert_eq!((read("").driver, read("").says_dataset), (None, false));
        assert_eq!(read("POT_STORE=zfs").driver, Some(Driver::Zfs));
        assert_eq!(read("POT_STORE=overlay").driver, Some(Driver::Overlay));
        assert_eq!(read("POT_STORE=btrfs").problems(), ["POT_STORE=btrfs is neither zfs nor overlay"]);
        let settings = read("POT_ZFS_ROOT=tank/pot");
        assert_eq!((settings.dataset.as_str(), settings.says_dataset), ("tank/pot", true));
    }

    #[test]
    fn what_is_not_carried_out_is_said() {
        assert_eq!(read("POT_EXTRA_EXTIF=em2").notes.len(), 1);
        assert_eq!(read("POT_GATEWAY=gw").notes.len(), 1);
        assert_eq!(read("POT_EXTRA_EXTIF=").notes.len(), 0);
    }
}
