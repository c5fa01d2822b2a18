//! Snapshots of volumes and of pots, and streams of volumes.
//!
//! Of a pot, its root file system is what is kept: one dataset, so that each step is one of ZFS's own, done or not.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::host::Trouble;
use crate::host::tool::{self, Output, Tool};
use crate::id::ContainerId;
use crate::op::MARK;

use super::bases::IMPORT;
use super::{Datasets, file, missing, words, zfs};

/// What snapshots are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// The root file system of a pot that potrun has made.
    Pot(ContainerId),
    /// A volume.
    Fscomp(String),
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pot(id) => write!(f, "{id}"),
            Self::Fscomp(name) => write!(f, "fscomp {name}"),
        }
    }
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name, behind the `@`.
    pub name: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Bytes that only it keeps.
    pub used: u64,
    /// Bytes that it shows.
    pub referenced: u64,
}

/// Whether a text can be the name of a snapshot.
#[must_use]
pub fn is_snapshot(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.:-".contains(c))
}

impl Datasets {
    /// The dataset, if it is there and ours.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn dataset_of(&self, of: &Of) -> Result<Option<String>, Trouble> {
        let (dataset, owner) = match of {
            Of::Pot(id) => (format!("{}/m", self.pot(id)), id.as_str()),
            Of::Fscomp(name) => (self.fscomp(name), "-"),
        };
        match zfs(&words(&["get", "-H", "-o", "value", MARK, &dataset])) {
            Err(e) if missing(&e) => Ok(None),
            other => Ok((other?.trim_end() == owner).then_some(dataset)),
        }
    }

    /// All snapshots of a dataset, the oldest first, but for those that hold clones of pots.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn snapshots(dataset: &str) -> Result<Vec<Snapshot>, Trouble> {
        let columns = format!("{IMPORT},name,creation,used,referenced");
        let args = ["list", "-H", "-p", "-d", "1", "-t", "snapshot", "-s", "createtxg", "-o", &columns, dataset];
        let listed = zfs(&words(&args))?;
        let one = |line: &str| {
            let mut fields = line.strip_prefix("-\t")?.split('\t');
            let name = fields.next()?.split_once('@')?.1.to_string();
            let mut number = || fields.next()?.parse().ok();
            Some(Snapshot { name, created: number()?, used: number()?, referenced: number()? })
        };
        Ok(listed.lines().filter_map(one).collect())
    }

    /// Makes a snapshot. Without a name it is called by the second, as pot does it, or the next one that is free.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn snapshot(dataset: &str, name: Option<&str>) -> Result<String, Trouble> {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut second = now();
        loop {
            let chosen = name.map_or_else(|| second.to_string(), String::from);
            match zfs(&words(&["snapshot", &format!("{dataset}@{chosen}")])) {
                Err(e) if name.is_none() && e.to_string().contains("already exists") => second += 1,
                other => return Ok(other.map(|_| chosen)?),
            }
        }
    }

    /// Puts a dataset back to a snapshot, the latest where none is named. `newer`: those after it are destroyed, which is
    /// refused otherwise.
    ///
    /// # Errors
    /// There is none, or zfs(8)'s words.
    pub fn roll_back(dataset: &str, name: Option<&str>, newer: bool) -> Result<String, Trouble> {
        let latest = || Self::snapshots(dataset).map(|all| all.into_iter().next_back().map(|one| one.name));
        let name = name.map_or_else(latest, |name| Ok(Some(name.into())))?.ok_or("there is no snapshot")?;
        let snapshot = format!("{dataset}@{name}");
        let args: &[&str] = if newer { &["rollback", "-r", &snapshot] } else { &["rollback", &snapshot] };
        zfs(&words(args))?;
        Ok(name)
    }

    /// Destroys a snapshot that nothing is a clone of.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn remove_snapshot(dataset: &str, name: &str) -> Result<(), Trouble> {
        Ok(zfs(&words(&["destroy", &format!("{dataset}@{name}")])).map(drop)?)
    }

    /// Makes a volume of a snapshot of another one.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn clone_fscomp(&self, dataset: &str, snapshot: &str, new: &str) -> Result<(), Trouble> {
        Ok(zfs(&words(&["clone", &format!("{dataset}@{snapshot}"), &self.fscomp(new)])).map(drop)?)
    }

    /// Writes a snapshot to stdout as a stream, or what has changed since an earlier one.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn send(dataset: &str, snapshot: &str, from: Option<&str>) -> Result<(), Trouble> {
        let mut args = vec!["zfs".to_string(), "send".into()];
        args.extend(from.into_iter().flat_map(|from| ["-i".to_string(), format!("@{from}")]));
        args.push(format!("{dataset}@{snapshot}"));
        let tool = Tool { path: file(), args: &args, env: &[], input: &[], timeout: None, output: Output::Inherit };
        Ok(tool::run(&tool).map(drop)?)
    }

    /// Makes a volume of the stream on stdin, or brings one up to what has changed. The kernel does all of it or nothing
    /// (zfs-receive(8)). Where it is mounted is not the stream's to say.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn receive(&self, name: &str) -> Result<(), Trouble> {
        self.lay_out()?;
        let dataset = self.fscomp(name);
        let args = ["zfs", "receive", "-u", "-x", "mountpoint", "-x", "canmount", "-x", MARK, &dataset];
        let tool =
            Tool { path: file(), args: &words(&args), env: &[], input: &[], timeout: None, output: Output::Keep };
        tool::filter(&tool)?;
        let mounted = zfs(&words(&["get", "-H", "-o", "value", "mounted", &dataset]))?;
        if mounted.trim_end() != "yes" {
            zfs(&words(&["mount", &dataset]))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::is_snapshot;

    #[test]
    fn names_of_snapshots() {
        for name in ["a", "1700000000", "before:14.3-p1", "A_b"] {
            assert!(is_snapshot(name), "{name}");
        }
        for name in ["", "-r", "a@b", "a/b", "a b", "%x", "é", ".", &"x".repeat(65)] {
            assert!(!is_snapshot(name), "{name}");
        }
    }
}
