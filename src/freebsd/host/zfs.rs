//! Datasets, by zfs(8): what /dev/zfs is asked with changes from release to release.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::facts::Base;
use crate::freebsd::root::component;
use crate::host::Trouble;
use crate::host::tool::{self, Output, Tool, ToolError};
use crate::id::ContainerId;
use crate::op::{KEEP, MARK};

const ZFS: &str = "/sbin/zfs";

/// Runs zfs(8).
pub(super) fn zfs(args: &[String]) -> Result<String, ToolError> {
    let args: Vec<String> = std::iter::once("zfs".to_string()).chain(args.iter().cloned()).collect();
    let tool = Tool { path: Path::new(ZFS), args: &args, env: &[], input: &[], timeout: None, output: Output::Keep };
    tool::run(&tool).map(|output| String::from_utf8_lossy(&output).into_owned())
}

pub(super) fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

/// Whether zfs(8) has failed because there is no such thing.
pub(super) fn missing(error: &ToolError) -> bool {
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

/// Creates a dataset, mounted, with its mark from its first moment on.
pub(super) fn create(dataset: &str, properties: &BTreeMap<String, String>) -> Result<(), Trouble> {
    made(dataset, properties, zfs(&with("create", properties, &[dataset])))
}

/// Clones a snapshot.
pub(super) fn clone(snapshot: &str, dataset: &str, properties: &BTreeMap<String, String>) -> Result<(), Trouble> {
    made(dataset, properties, zfs(&with("clone", properties, &[snapshot, dataset])))
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
pub(super) fn destroy(dataset: &str, id: &ContainerId, mountpoint: Option<&Path>) -> Result<(), Trouble> {
    match zfs(&words(&["get", "-H", "-o", "value", MARK, dataset])) {
        Err(e) if missing(&e) => {}
        Err(e) => return Err(e.into()),
        Ok(mark) if mark.trim() != id.as_str() => return Ok(()),
        Ok(_) => match zfs(&words(&["destroy", "-r", "-f", dataset])) {
            Err(e) if missing(&e) => {}
            other => drop(other?),
        },
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

/// The snapshot that the root of a persistent pot was cloned from, if an earlier container of this id left one.
pub(super) fn kept(store: &str, id: &ContainerId) -> Result<Option<String>, Trouble> {
    let dataset = format!("{store}/jails/{}", component(id));
    if !is_kept(&dataset, id)? {
        return Ok(None);
    }
    let root = format!("{dataset}/m");
    let found = zfs(&words(&["get", "-H", "-o", "value", "mounted,origin", &root]))?;
    match found.trim_end().split_once('\n') {
        Some(("yes", origin)) => Ok(Some(origin.into())),
        _ => Err(format!("{root} is kept for {id} and is not mounted: zfs mount {root}").into()),
    }
}

/// Destroys what a persistent pot left. Whether there was something.
pub(super) fn forget(store: &str, path: &Path, id: &ContainerId) -> Result<bool, Trouble> {
    let own = component(id);
    let dataset = format!("{store}/jails/{own}");
    let there = is_kept(&dataset, id)?;
    if there {
        destroy(&dataset, id, Some(&path.join("jails").join(own)))?;
    }
    Ok(there)
}

/// What is known of a base: the dataset `bases/NAME` of the store, with the snapshot that potrun made, or pot's latest.
pub(super) fn base(store: &str, name: &str) -> Result<Option<Base>, Trouble> {
    let dataset = format!("{store}/bases/{name}");
    let columns = format!("name,{DIGEST},mountpoint");
    let args = ["list", "-H", "-p", "-d", "1", "-t", "filesystem,snapshot", "-o", &columns, &dataset];
    let listed = match zfs(&words(&args)) {
        Err(e) if missing(&e) => return Ok(None),
        other => other?,
    };
    let found = crate::freebsd::datasets::base(&listed, &dataset);
    Ok(found.map(|found| Base {
        digest: found.digest,
        snapshot: found.snapshot,
        osrelease: release(Path::new(&found.mountpoint)),
    }))
}

/// The user property that a base's digest is kept in.
pub(super) const DIGEST: &str = "potrun:sha256";

/// What a base says its release is: the variable of its freebsd-version(1), which is a script. It is read as text, of
/// bounded size, beneath the base.
fn release(root: &Path) -> Option<String> {
    use std::io::Read;
    let file = super::beneath::open_file(root, Path::new("/bin/freebsd-version")).ok()?;
    let mut text = String::new();
    file.take(64 << 10).read_to_string(&mut text).ok()?;
    crate::freebsd::datasets::release(&text)
}

/// Where datasets are mounted, by name; what is not mounted is left out.
pub(super) fn mountpoints(names: &[String]) -> Result<BTreeMap<String, PathBuf>, Trouble> {
    let mut all = BTreeMap::new();
    for name in names {
        let args = ["list", "-H", "-o", "mounted,mountpoint", "-t", "filesystem", name];
        let listed = match zfs(&words(&args)) {
            Err(e) if missing(&e) => continue,
            other => other?,
        };
        if let Some(("yes", at)) = listed.trim_end().split_once('\t') {
            all.insert(name.clone(), PathBuf::from(at));
        }
    }
    Ok(all)
}
