//! The settings of an installed pot, `pot.default.conf` and `pot.conf`, read as data: they are shell files, but never
//! run. What only a shell could answer (`$(...)`, a variable of another file) is said to be left out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Where pot keeps its settings (hier(7): what is installed from ports), in the order in which it reads them.
const FILES: [&str; 2] = ["/usr/local/etc/pot/pot.default.conf", "/usr/local/etc/pot/pot.conf"];

/// What potrun takes from them. The defaults are pot's (etc/pot/pot.default.conf).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `POT_ZFS_ROOT`.
    pub dataset: String,
    /// `POT_FS_ROOT`.
    pub path: PathBuf,
    /// `POT_EXTIF`; absent where nobody has said it: then it is the interface of the default route.
    pub interface: Option<String>,
    /// `POT_NETWORK`.
    pub network: String,
    /// `POT_GATEWAY`.
    pub gateway: IpAddr,
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
        Self {
            dataset: "zroot/pot".into(),
            path: "/opt/pot".into(),
            interface: None,
            network: "10.192.0.0/10".into(),
            gateway: v4(1),
            dns: Some(v4(2)),
            isolate: false,
            stack: "ipv4".into(),
            notes: Vec::new(),
        }
    }
}

impl Settings {
    /// Those of an installed pot, or pot's own defaults.
    #[must_use]
    pub fn installed() -> Self {
        Self::read(&FILES.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect::<Vec<_>>())
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
        let address = value.parse::<IpAddr>();
        match name {
            "POT_ZFS_ROOT" => self.dataset = value,
            "POT_FS_ROOT" => self.path = value.into(),
            "POT_EXTIF" => self.interface = Some(value),
            "POT_NETWORK" => self.network = value,
            "POT_GATEWAY" => match address {
                Ok(address) => self.gateway = address,
                Err(_) => self.notes.push(format!("{name}={value} is not an address")),
            },
            "POT_DNS_IP" => match address {
                Ok(address) => self.dns = Some(address),
                Err(_) => self.notes.push(format!("{name}={value} is not an address")),
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
    fn what_is_not_carried_out_is_said() {
        assert_eq!(read("POT_EXTRA_EXTIF=em2").notes.len(), 1);
        assert_eq!(read("POT_GATEWAY=gw").notes.len(), 1);
        assert_eq!(read("POT_EXTRA_EXTIF=").notes.len(), 0);
    }
}
