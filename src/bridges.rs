//! Private bridges, each a small file of pot's own form, so that pot and potrun see each other's:
//!
//! ```text
//! name=lab
//! net=10.192.0.8/29
//! gateway=10.192.0.9
//! ```
//!
//! A file appears whole (rename(2)) or not at all. Whoever makes or removes one holds the lock of the host's pot networks.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::bundle::pot::is_name;
use crate::facts::{Bridge, Network, Os};
use crate::settings::Settings;

/// The directory of a host's private bridges.
#[derive(Clone, Debug)]
pub struct Bridges(PathBuf);

/// The pot networks of a host as they are now.
#[derive(Clone, Debug)]
pub struct Networks {
    /// The operating system.
    pub os: Os,
    /// What the operator has said.
    pub settings: Settings,
    /// What is there.
    pub network: Network,
    /// Where private bridges are kept.
    pub bridges: Bridges,
    /// Addresses of pots that are not potrun's, with their names.
    pub others: BTreeMap<IpAddr, String>,
}

/// A private bridge of a file: `KEY=value` lines, plain words, which no shell reads.
#[must_use]
pub fn parse(text: &str) -> Option<Bridge> {
    let value = |name: &str| {
        let line = text.lines().filter_map(|line| line.trim().split_once('=')).find(|(key, _)| key.trim() == name);
        line.map(|(_, value)| value.trim().trim_matches('"'))
    };
    Some(Bridge { subnet: value("net")?.into(), gateway: value("gateway")?.parse().ok()? })
}

impl Bridges {
    /// Those of `dir`, which need not exist yet.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        Self(dir.into())
    }

    /// All, by name.
    ///
    /// # Errors
    /// The kernel's words, or one is damaged.
    pub fn all(&self) -> io::Result<BTreeMap<String, Bridge>> {
        let listing = match fs::read_dir(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            other => other?,
        };
        let mut all = BTreeMap::new();
        for item in listing {
            let item = item?;
            // What is not a name is not ours: `.lab.part`.
            let Some(name) = item.file_name().to_str().filter(|name| is_name(name)).map(String::from) else { continue };
            let path = item.path();
            let text = match fs::read_to_string(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue, // removed meanwhile
                other => other.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?,
            };
            let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged", path.display()));
            all.insert(name, parse(&text).ok_or_else(damaged)?);
        }
        Ok(all)
    }

    /// Makes one.
    ///
    /// # Errors
    /// There is one of that name, or the kernel's words.
    pub fn create(&self, name: &str, bridge: &Bridge) -> io::Result<()> {
        let path = self.0.join(name);
        if path.try_exists()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::create_dir_all(&self.0)?;
        let part = self.0.join(format!(".{name}.part"));
        fs::write(&part, format!("name={name}\nnet={}\ngateway={}\n", bridge.subnet, bridge.gateway))?;
        fs::rename(&part, &path)
    }

    /// Removes one.
    ///
    /// # Errors
    /// There is none of that name, or the kernel's words.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pot_writes_is_read() {
        let found = parse("net=10.192.0.8/29\ngateway=10.192.0.9\nname=lab\n").unwrap();
        assert_eq!((found.subnet.as_str(), found.gateway.to_string().as_str()), ("10.192.0.8/29", "10.192.0.9"));
        assert_eq!(parse("name=lab\n"), None);
    }

    #[test]
    fn a_bridge_is_there_until_it_is_removed() {
        let dir = std::env::temp_dir().join(format!("potrun-bridges-{}", std::process::id()));
        let bridges = Bridges::at(&dir);
        assert!(bridges.all().unwrap().is_empty());
        let lab = Bridge { subnet: "10.192.0.8/29".into(), gateway: "10.192.0.9".parse().unwrap() };
        bridges.create("lab", &lab).unwrap();
        assert_eq!(bridges.create("lab", &lab).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::write(dir.join(".other.part"), "net=").unwrap(); // killed while it was written
        assert_eq!(bridges.all().unwrap(), BTreeMap::from([("lab".into(), lab)]));
        fs::write(dir.join("other"), "net=").unwrap();
        assert!(bridges.all().unwrap_err().to_string().ends_with("other is damaged"));
        bridges.remove("lab").unwrap();
        assert_eq!(bridges.remove("lab").unwrap_err().kind(), io::ErrorKind::NotFound);
        for name in [".other.part", "other"] {
            fs::remove_file(dir.join(name)).unwrap();
        }
        fs::remove_dir(&dir).unwrap();
    }
}
