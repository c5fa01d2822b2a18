//! Bases in datasets, laid out as pot does: `<store>/bases/NAME`, whose snapshot pots are clones of.
//!
//! A base is there when its snapshot is. The lock of the directory `bases` is held from making a dataset to its snapshot,
//! so what has none, and the mark of an import, is what a crash left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};

use crate::base::{Base, BaseError, Keep, Room};
use crate::host::tool::ToolError;
use crate::zfs::SNAPSHOT;

use super::pots::LIES_ON;
use super::{DIGEST, Datasets, missing, words, zfs};

/// The user property that says what is known of a base, as JSON.
const RECORD: &str = "potrun:base";
/// The user property of what is not done: a base, a snapshot on its way to be a pot.
pub(super) const IMPORT: &str = "potrun:import";

fn failed(step: &'static str, dataset: &str) -> impl FnOnce(ToolError) -> BaseError {
    let path = dataset.into();
    move |error| BaseError::Io { step, path, source: io::Error::other(error) }
}

/// Locks a directory. A zfs(8) that outlives potrun keeps the lock: what it works on is not looked at before it has
/// ended.
pub(super) fn shared(dir: File, how: FlockArg) -> io::Result<Flock<File>> {
    let lock = Flock::lock(dir, how).map_err(|(_, e)| e)?;
    fcntl(&*lock, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(lock)
}

impl Datasets {
    fn dataset(&self, name: &str) -> String {
        format!("{}/bases/{name}", self.store)
    }

    /// What potrun knows of the bases at or below a dataset.
    fn records(&self, dataset: &str, depth: &str) -> Result<Vec<Base>, BaseError> {
        let snapshot = format!("@{SNAPSHOT}");
        let columns = format!("name,{RECORD}");
        let args = ["list", "-H", "-d", depth, "-t", "snapshot", "-o", &columns, dataset];
        let listed = match zfs(&words(&args)) {
            Err(e) if missing(&e) => return Ok(Vec::new()),
            other => other.map_err(failed("list", dataset))?,
        };
        let mut all = Vec::new();
        for line in listed.lines() {
            let Some((name, record)) = line.split_once('\t') else { continue };
            if name.ends_with(&snapshot) && record != "-" {
                let base = serde_json::from_str(record);
                all.push(base.map_err(|source| BaseError::Record { path: name.into(), source })?);
            }
        }
        Ok(all)
    }

    /// Makes pot's layout, as `pot init` does, where it is not there.
    pub(crate) fn lay_out(&self) -> Result<(), BaseError> {
        let there = zfs(&words(&["list", "-H", "-o", "name", &self.store]));
        if let Err(e) = there {
            if !missing(&e) {
                return Err(failed("look at", &self.store)(e));
            }
            let mountpoint = format!("mountpoint={}", self.path.display());
            let set = ["-o", &mountpoint, "-o", "canmount=off", "-o", "compression=lz4", "-o", "atime=off"];
            let args = [&["create", "-p"][..], &set, &[&self.store]].concat();
            zfs(&words(&args)).map_err(failed("create", &self.store))?;
        }
        for part in ["bases", "jails", "fscomp"] {
            let dataset = format!("{}/{part}", self.store);
            if !self.path.join(part).is_dir() {
                zfs(&words(&["create", &dataset])).map_err(failed("create", &dataset))?;
                // Setuid files of pots and bases are out of reach for the users of the host.
                let path = self.path.join(part);
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(|source| BaseError::Io {
                    step: "protect",
                    path,
                    source,
                })?;
            }
        }
        Ok(())
    }
}

impl Keep for Datasets {
    fn find(&self, name: &str) -> Result<Option<Base>, BaseError> {
        Ok(self.records(&self.dataset(name), "1")?.pop())
    }

    fn list(&self) -> Result<Vec<Base>, BaseError> {
        self.records(&format!("{}/bases", self.store), "2")
    }

    fn begin(&self, name: &str) -> Result<Box<dyn Room>, BaseError> {
        self.lay_out()?;
        let bases = self.path.join("bases");
        let lock = File::open(&bases)
            .and_then(|dir| shared(dir, FlockArg::LockExclusive))
            .map_err(|source| BaseError::Io { step: "lock", path: bases, source })?;
        let dataset = self.dataset(name);
        let marked = zfs(&words(&["get", "-H", "-o", "value", IMPORT, &dataset]));
        if marked.is_ok_and(|mark| mark.trim() == name) {
            zfs(&words(&["destroy", "-r", &dataset])).map_err(failed("destroy", &dataset))?;
        }
        let mark = format!("{IMPORT}={name}");
        zfs(&words(&["create", "-o", &mark, &dataset])).map_err(failed("create", &dataset))?;
        let path = self.path.join("bases").join(name);
        let tree = File::open(&path).map_err(|source| BaseError::Io { step: "open", path, source })?;
        Ok(Box::new(New { tree, made: Made { dataset, done: false }, _lock: lock }))
    }

    fn users(&self, name: &str) -> Result<Vec<String>, BaseError> {
        let snapshot = format!("{}@{SNAPSHOT}", self.dataset(name));
        let listed = zfs(&words(&["get", "-H", "-o", "value", "clones", &snapshot]));
        let listed = listed.map_err(failed("look at", &snapshot))?;
        let jails = format!("{}/jails/", self.store);
        let id = |clone: &str| {
            clone.strip_prefix(&jails).and_then(|rest| rest.strip_suffix("/m")).unwrap_or(clone).replace(":2b", "+")
        };
        let clones = listed.trim().split(',').filter(|clone| !matches!(*clone, "" | "-"));
        let mut all: BTreeSet<String> = clones.map(id).collect();
        // Those that lie on it by way of another pot, or not at all as ZFS sees it.
        let columns = format!("name,{LIES_ON}");
        let args = ["list", "-H", "-d", "2", "-t", "filesystem", "-o", &columns, jails.trim_end_matches('/')];
        let listed = zfs(&words(&args)).map_err(failed("list", &jails))?;
        let lie_on = |line: &str| line.strip_suffix(&snapshot)?.strip_suffix('\t').map(id);
        all.extend(listed.lines().filter_map(lie_on));
        Ok(all.into_iter().collect())
    }

    fn remove(&self, name: &str) -> Result<(), BaseError> {
        let users = self.users(name)?;
        if !users.is_empty() {
            return Err(BaseError::InUse { name: name.into(), users });
        }
        let dataset = self.dataset(name);
        zfs(&words(&["destroy", "-r", &dataset])).map(drop).map_err(failed("destroy", &dataset))
    }

    fn sweep(&self) -> Result<Vec<PathBuf>, BaseError> {
        let bases = format!("{}/bases", self.store);
        let Ok(dir) = File::open(self.path.join("bases")) else { return Ok(Vec::new()) };
        // Somebody imports: what is not done is theirs.
        let Ok(_lock) = Flock::lock(dir, FlockArg::LockExclusiveNonblock) else { return Ok(Vec::new()) };
        let columns = format!("name,{IMPORT}");
        let listed = match zfs(&words(&["list", "-H", "-d", "1", "-t", "filesystem", "-o", &columns, &bases])) {
            Err(e) if missing(&e) => return Ok(Vec::new()),
            other => other.map_err(failed("list", &bases))?,
        };
        let mut swept = Vec::new();
        for (dataset, mark) in listed.lines().filter_map(|line| line.split_once('\t')) {
            let name = dataset.rsplit('/').next().unwrap_or_default();
            if mark == name && self.find(name)?.is_none() {
                zfs(&words(&["destroy", "-r", dataset])).map_err(failed("destroy", dataset))?;
                swept.push(dataset.into());
            }
        }
        Ok(swept)
    }
}

/// A dataset that becomes a base. In this order they end: Linux destroys nothing that somebody has open.
struct New {
    tree: File,
    made: Made,
    _lock: Flock<File>,
}

/// A dataset that goes with this value, unless it has become a base.
struct Made {
    dataset: String,
    done: bool,
}

impl Room for New {
    fn tree(&self) -> &File {
        &self.tree
    }

    fn publish(mut self: Box<Self>, base: &Base, _sync: bool) -> Result<bool, BaseError> {
        let dataset = &self.made.dataset;
        let record =
            serde_json::to_string(base).map_err(|source| BaseError::Record { path: dataset.clone().into(), source })?;
        let set = BTreeMap::from([(RECORD, record), (DIGEST, base.sha256.to_string())]);
        let mut args = words(&["set"]);
        args.extend(set.into_iter().map(|(name, value)| format!("{name}={value}")));
        args.push(dataset.clone());
        zfs(&args).map_err(failed("describe", dataset))?;
        // A snapshot is on disk when zfs(8) says that it is made (zfs-snapshot(8)), with all that it holds.
        let snapshot = format!("{dataset}@{SNAPSHOT}");
        zfs(&words(&["snapshot", &snapshot])).map_err(failed("snapshot", dataset))?;
        // With its snapshot it is a base, mark or no mark.
        _ = zfs(&words(&["inherit", IMPORT, dataset]));
        self.made.done = true;
        Ok(true)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if !self.done {
            // What cannot be destroyed now has the mark, and the next import of the name destroys it.
            _ = zfs(&words(&["destroy", "-r", "-f", &self.dataset]));
        }
    }
}
