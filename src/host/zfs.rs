//! Datasets, by zfs(8): what /dev/zfs is asked with changes from release to release. It is the same tool on both systems.

mod bases;
mod fscomps;
pub mod pots;
pub mod snapshots;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::facts::{Base, Quota};
use crate::files::{Change, Changed};
use crate::host::Trouble;
use crate::host::tool::{self, Output, Tool, ToolError};
use crate::id::ContainerId;
use crate::op::{KEEP, MARK, STATE};
use crate::zfs::{changes, component};

/// A store of datasets, laid out as pot does.
#[derive(Clone, Debug)]
pub struct Datasets {
    /// `POT_ZFS_ROOT`.
    pub store: String,
    /// `POT_FS_ROOT`, where it is mounted.
    pub path: PathBuf,
}

/// Where zfs(8) is: on FreeBSD and Debian, on others, and where it was built by hand.
const ZFS: [&str; 3] = ["/sbin/zfs", "/usr/sbin/zfs", "/usr/local/sbin/zfs"];

/// The file of zfs(8), there or not.
#[must_use]
pub fn file() -> &'static Path {
    let there = ZFS.into_iter().map(Path::new).find(|path| path.exists());
    there.unwrap_or(Path::new(ZFS[0]))
}

/// Runs zfs(8).
fn zfs(args: &[String]) -> Result<String, ToolError> {
    let args: Vec<String> = std::iter::once("zfs".to_string()).chain(args.iter().cloned()).collect();
    let tool = Tool { path: file(), args: &args, env: &[], input: &[], timeout: None, output: Output::Keep };
    tool::run(&tool).map(|output| String::from_utf8_lossy(&output).into_owned())
}

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

/// Whether zfs(8) has failed because there is no such thing.
fn missing(error: &ToolError) -> bool {
    error.to_string().contains("does not exist") || error.to_string().contains("no such pool")
}

fn with(verb: &str, properties: &BTreeMap<String, String>, rest: &[&str]) -> Vec<String> {
    let mut args = vec![verb.to_string()];
    for (name, value) in properties {
        args.extend(["-o".to_string(), format!("{name}={value}")]);
    }
    args.extend(words(rest));
    args
}

impl Datasets {
    /// What has changed in the root of a pot since it was cloned from its base, create's own work included.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn changes(&self, id: &ContainerId) -> Result<Vec<Changed>, Trouble> {
        let dataset = format!("{}/jails/{}/m", self.store, component(id));
        let columns = format!("origin,mountpoint,{}", pots::LIES_ON);
        let found = zfs(&words(&["get", "-H", "-o", "value", &columns, &dataset]))?;
        let [origin, top, lies_on] = found.lines().collect::<Vec<_>>()[..] else {
            return Err("zfs(8) says nothing of its root".into());
        };
        let origin = if lies_on == "-" { origin } else { lies_on };
        let told = zfs(&words(&["diff", "-H", "-t", origin, &dataset]))?;
        let mut all: BTreeMap<PathBuf, Changed> = BTreeMap::new();
        for line in told.lines() {
            for one in changes::read(line, top).ok_or_else(|| format!("zfs diff says {line:?}"))? {
                // What is another thing under the same name is told as gone and as new.
                let kind = if all.contains_key(&one.path) { Change::Changed } else { one.kind };
                let at = all.get(&one.path).map_or(one.at, |other| other.at.max(one.at));
                all.insert(one.path.clone(), Changed { kind, at, ..one });
            }
        }
        all.remove(Path::new("/"));
        Ok(all.into_values().collect())
    }
}

/// Creates a dataset, mounted, with its mark from its first moment on.
pub(crate) fn create(dataset: &str, properties: &BTreeMap<String, String>) -> Result<(), Trouble> {
    made(dataset, properties, zfs(&with("create", properties, &[dataset])))
}

/// Clones a snapshot.
pub(crate) fn clone(snapshot: &str, dataset: &str, properties: &BTreeMap<String, String>) -> Result<(), Trouble> {
    made(dataset, properties, zfs(&with("clone", properties, &[snapshot, dataset])))
}

/// Says how many bytes a dataset may show.
pub(crate) fn limit(dataset: &str, bytes: Option<u64>) -> Result<(), Trouble> {
    let bytes = bytes.map_or("none".into(), |bytes| bytes.to_string());
    Ok(zfs(&words(&["set", &format!("refquota={bytes}"), dataset])).map(drop)?)
}

/// zfs(8) also fails after it has made the dataset, if that cannot be mounted.
fn made(dataset: &str, properties: &BTreeMap<String, String>, done: Result<String, ToolError>) -> Result<(), Trouble> {
    done.map(drop).map_err(|error| {
        if let Some(id) = properties.get(MARK).and_then(|id| ContainerId::new(id).ok())
            && !error.to_string().contains("dataset already exists")
            && let Err(e) = destroy(dataset, &id, properties.get("mountpoint").map(Path::new))
        {
            return format!("{error}; {dataset} is left: {e}").into();
        }
        error.into()
    })
}

/// Destroys a dataset, with all that lies below it, if its mark names `id`, and removes the directory that it was mounted
/// on, which zfs(8) leaves where the mountpoint is not inherited. It is unmounted by force: the jail is dead, whoever
/// else looks into its root must not keep it.
pub(crate) fn destroy(dataset: &str, id: &ContainerId, mountpoint: Option<&Path>) -> Result<(), Trouble> {
    match zfs(&words(&["get", "-H", "-o", "value", MARK, dataset])) {
        Err(e) if missing(&e) => {}
        Err(e) => return Err(e.into()),
        Ok(mark) if mark.trim() != id.as_str() => return Ok(()),
        Ok(_) => {
            let destroy = || zfs(&words(&["destroy", "-r", "-f", dataset]));
            let destroyed = match destroy() {
                Err(e) if e.to_string().contains("dependent clones") => {
                    pots::release_clones(dataset)?;
                    destroy()
                }
                other => other,
            };
            match destroyed {
                Err(e) if missing(&e) => {}
                other => drop(other?),
            }
        }
    }
    match mountpoint.map(std::fs::remove_dir) {
        Some(Err(e)) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => Err(e.into()),
        _ => Ok(()),
    }
}

/// Whether a dataset is one that a container of this id left.
fn is_kept(dataset: &str, id: &ContainerId) -> Result<bool, Trouble> {
    match zfs(&words(&["get", "-H", "-o", "value", &format!("{MARK},{KEEP}"), dataset])) {
        Err(e) if missing(&e) => Ok(false),
        other => Ok(other?.lines().eq([id.as_str(), "on"])),
    }
}

impl Datasets {
    /// The store at a dataset, mounted where it says, or else at `path` when it is made.
    #[must_use]
    pub fn at(store: &str, path: PathBuf) -> Self {
        let said = zfs(&words(&["get", "-H", "-o", "value", "mountpoint", store])).ok();
        let path = said.map(|at| PathBuf::from(at.trim_end())).filter(|at| at.is_absolute()).unwrap_or(path);
        Self { store: store.into(), path }
    }

    /// The snapshot of the base that the root lies on which an earlier container of this id left, or a clone or an import
    /// for it.
    ///
    /// # Errors
    /// It is not mounted, or zfs(8)'s words.
    pub fn kept(&self, id: &ContainerId) -> Result<Option<String>, Trouble> {
        // Its mountpoint is made with it, and goes with it: most have none, and zfs(8) need not be asked.
        if !self.path.join("jails").join(component(id)).exists() {
            return Ok(None);
        }
        let dataset = self.pot(id);
        if !is_kept(&dataset, id)? {
            return Ok(None);
        }
        let root = format!("{dataset}/m");
        let columns = format!("mounted,origin,{}", pots::LIES_ON);
        let found = zfs(&words(&["get", "-H", "-o", "value", &columns, &root]))?;
        match found.lines().collect::<Vec<_>>()[..] {
            ["yes", origin, "-"] => Ok(Some(origin.into())),
            ["yes", _, lies_on] => Ok(Some(lies_on.into())),
            _ => Err(format!("{root} is kept for {id} and is not mounted: zfs mount {root}").into()),
        }
    }

    /// How much that root may show, and shows of the snapshot `origin`.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn kept_quota(&self, id: &ContainerId, origin: &str) -> Result<Quota, Trouble> {
        let root = format!("{}/m", self.pot(id));
        let columns = ["get", "-H", "-p", "-o", "name,property,value", "refquota,referenced", &root, origin];
        let found = zfs(&words(&columns))?;
        // In which order they are told is zfs(8)'s.
        let value = |name: &str, property: &str| {
            let begin = format!("{name}\t{property}\t");
            let told = found.lines().find_map(|line| line.strip_prefix(&begin)?.parse::<u64>().ok());
            told.ok_or_else(|| format!("zfs(8) does not say the {property} of {name}"))
        };
        let limit = Some(value(&root, "refquota")?).filter(|limit| *limit != 0);
        Ok(Quota { limit, shared: value(origin, "referenced")? })
    }

    /// Destroys what a persistent pot left. Whether there was something.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn forget(&self, id: &ContainerId) -> Result<bool, Trouble> {
        let dataset = self.pot(id);
        let there = is_kept(&dataset, id)?;
        if there {
            destroy(&dataset, id, Some(&self.path.join("jails").join(component(id))))?;
        }
        Ok(there)
    }

    /// Destroys the datasets of containers of `root` that are no more, as after a reboot; what a persistent pot has left
    /// stays. Says which.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn sweep(&self, root: &Path) -> Result<Vec<PathBuf>, Trouble> {
        let Ok(dir) = File::open(self.path.join("jails")) else { return Ok(Vec::new()) };
        // Somebody clones or imports: what is not done is theirs.
        let Ok(_lock) = Flock::lock(dir, FlockArg::LockExclusiveNonblock) else { return Ok(Vec::new()) };
        let jails = format!("{}/jails", self.store);
        let columns = format!("name,{MARK},{STATE},{KEEP}");
        let listed = match zfs(&words(&["list", "-H", "-d", "1", "-t", "filesystem", "-o", &columns, &jails])) {
            Err(e) if missing(&e) => return Ok(Vec::new()),
            other => other?,
        };
        let mut swept = Vec::new();
        for line in listed.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [name, id, state, "-"] = fields[..] else { continue };
            let (Ok(id), state) = (ContainerId::new(id), Path::new(state)) else { continue };
            // A container in the making has its entry before its dataset.
            if name == self.pot(&id) && state.parent() == Some(root) && !state.exists() {
                destroy(name, &id, Some(&self.path.join("jails").join(component(&id))))?;
                swept.push(name.into());
            }
        }
        swept.extend(self.sweep_snapshots()?);
        Ok(swept)
    }

    /// The dataset of a pot.
    fn pot(&self, id: &ContainerId) -> String {
        format!("{}/jails/{}", self.store, component(id))
    }

    /// What is known of a base: the dataset `bases/NAME` of the store, with the snapshot that potrun made, or pot's
    /// latest; and where it is mounted.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn base(&self, name: &str) -> Result<Option<(Base, PathBuf)>, Trouble> {
        let dataset = format!("{}/bases/{name}", self.store);
        let columns = format!("name,{DIGEST},mountpoint,referenced");
        let args = ["list", "-H", "-p", "-d", "1", "-t", "filesystem,snapshot", "-o", &columns, &dataset];
        let listed = match zfs(&words(&args)) {
            Err(e) if missing(&e) => return Ok(None),
            other => other?,
        };
        let found = crate::zfs::base(&listed, &dataset);
        Ok(found.map(|found| {
            let base =
                Base { digest: found.digest, snapshot: found.snapshot, osrelease: None, referenced: found.referenced };
            (base, found.mountpoint.into())
        }))
    }
}

/// The user property that a base's digest is kept in.
const DIGEST: &str = "potrun:sha256";

/// The version of the tool, `zfs-2.3.9`, where there is one.
#[must_use]
pub fn version() -> Option<String> {
    let said = file().exists().then(|| zfs(&words(&["version"])).ok()).flatten()?;
    said.lines().next().map(String::from)
}

/// Whether there is a dataset of this name, where there is a zfs(8) to ask.
#[must_use]
pub fn exists(dataset: &str) -> bool {
    file().exists() && zfs(&words(&["list", "-H", "-o", "name", "-t", "filesystem", dataset])).is_ok()
}

/// Where the datasets are mounted that are there, by name.
pub(crate) fn mountpoints(names: &[String]) -> Result<BTreeMap<String, Option<PathBuf>>, Trouble> {
    let mut all = BTreeMap::new();
    for name in names {
        let args = ["list", "-H", "-o", "mounted,mountpoint", "-t", "filesystem", name];
        let listed = match zfs(&words(&args)) {
            Err(e) if missing(&e) => continue,
            other => other?,
        };
        let mounted = listed.trim_end_matches('\n').strip_prefix("yes\t").map(PathBuf::from);
        all.insert(name.clone(), mounted);
    }
    Ok(all)
}
