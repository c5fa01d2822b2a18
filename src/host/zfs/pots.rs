//! Pots that are left for a container that is still to come: clones of another one, and what an import brings.
//!
//! Until it is whole such a pot is a dataset with the mark of a container that is not there, which `gc` destroys; with
//! [`KEEP`] it is one that stays. The lock of the directory `jails` is held meanwhile, so `gc` knows that somebody works
//! on it, also while a zfs(8) outlives potrun.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::base::{self, UnpackError, Unpacked};
use crate::host::Trouble;
use crate::host::storage::Left;
use crate::host::tool::{self, Output, Tool};
use crate::id::ContainerId;
use crate::op::{KEEP, MARK, STATE};
use crate::zfs::{SNAPSHOT, component};

use super::bases::{IMPORT, shared};
use super::snapshots::Of;
use super::{Datasets, destroy, file, is_kept, missing, words, zfs};

/// The user property of a pot's root that names the snapshot of the base that it lies on, where ZFS itself does not: its
/// origin is another pot.
pub(super) const LIES_ON: &str = "potrun:origin";

/// A pot in the making, which goes with this value unless it is kept. In this order they end: others may look when all
/// is done.
struct New<'a> {
    dataset: String,
    mountpoint: PathBuf,
    id: &'a ContainerId,
    done: bool,
    _lock: Flock<File>,
}

impl Drop for New<'_> {
    fn drop(&mut self) {
        if !self.done {
            // An error is on its way already; what cannot be destroyed now, gc finds by its mark.
            _ = destroy(&self.dataset, self.id, Some(&self.mountpoint));
        }
    }
}

impl New<'_> {
    fn root(&self) -> (String, PathBuf) {
        (format!("{}/m", self.dataset), self.mountpoint.join("m"))
    }

    /// It is whole.
    fn keep(mut self) -> Result<(), Trouble> {
        zfs(&words(&["set", &format!("{KEEP}=on"), &self.dataset]))?;
        self.done = true;
        Ok(())
    }
}

impl Datasets {
    /// Whether there is a pot of this id, whoever made it.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn has_pot(&self, id: &ContainerId) -> Result<bool, Trouble> {
        match zfs(&words(&["list", "-H", "-o", "name", &self.pot(id)])) {
            Err(e) if missing(&e) => Ok(false),
            other => Ok(other.map(|_| true)?),
        }
    }

    /// Whether that is one that is whole and stays.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn keeps(&self, id: &ContainerId) -> Result<bool, Trouble> {
        is_kept(&self.pot(id), id)
    }

    /// The root of a pot of ours.
    fn root_of(&self, id: &ContainerId) -> Result<String, Trouble> {
        let root = self.dataset_of(&Of::Pot(id.clone()))?;
        Ok(root.ok_or_else(|| format!("{id} has no root of its own in {}", self.store))?)
    }

    fn begin_pot<'a>(&self, left: &Left<'a>) -> Result<New<'a>, Trouble> {
        let lock = shared(File::open(self.path.join("jails"))?, FlockArg::LockExclusive)?;
        let (dataset, mountpoint) = (self.pot(left.id), self.path.join("jails").join(component(left.id)));
        let properties = BTreeMap::from([
            (MARK.to_string(), left.id.to_string()),
            (STATE.to_string(), left.owner.display().to_string()),
            ("mountpoint".to_string(), mountpoint.display().to_string()),
        ]);
        super::create(&dataset, &properties)?;
        Ok(New { dataset, mountpoint, id: left.id, done: false, _lock: lock })
    }

    /// Makes a root for a container that is still to come of what another pot has now: at once, and sharing it all.
    ///
    /// The snapshot in between is destroyed by ZFS itself with the last that needs it (zfs-destroy(8), `-d`).
    ///
    /// # Errors
    /// zfs(8)'s words; then there is nothing new.
    pub fn clone_pot(&self, id: &ContainerId, left: &Left<'_>) -> Result<(), Trouble> {
        let from = self.root_of(id)?;
        let columns = format!("origin,{LIES_ON},refquota");
        let found = zfs(&words(&["get", "-H", "-p", "-o", "value", &columns, &from]))?;
        let [origin, lies_on, quota] = found.lines().collect::<Vec<_>>()[..] else {
            return Err(format!("zfs(8) says {found:?} of {from}").into());
        };
        let new = self.begin_pot(left)?;
        let snapshot = format!("{from}@for-{}", component(left.id));
        let mark = format!("{IMPORT}={}", left.id);
        zfs(&words(&["snapshot", "-o", &mark, &snapshot]))?;
        let (root, at) = new.root();
        let lies_on = if lies_on == "-" { origin } else { lies_on };
        let mut properties = root_properties(left.id, &at, lies_on);
        properties.extend((quota != "0").then(|| ("refquota".to_string(), quota.to_string())));
        let cloned = super::clone(&snapshot, &root, &properties);
        let released = zfs(&words(&["destroy", "-d", &snapshot]));
        cloned?;
        released?;
        new.keep()
    }

    /// Makes a root for a container that is still to come: a clone of its base, to which `fill` adds the rest.
    ///
    /// # Errors
    /// zfs(8)'s words, or those of `fill`; then there is nothing new.
    pub fn leave_pot(
        &self,
        left: &Left<'_>,
        fill: impl FnOnce(BorrowedFd<'_>) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        self.lay_out()?;
        let (snapshot, referenced) = self.lies_on(left.base)?;
        let new = self.begin_pot(left)?;
        let (root, at) = new.root();
        let mut properties = root_properties(left.id, &at, &snapshot);
        properties.extend(quota(left, referenced));
        super::clone(&snapshot, &root, &properties)?;
        let tree = File::open(&at)?;
        fill(tree.as_fd())?;
        // Linux destroys nothing that somebody has open.
        drop(tree);
        new.keep()
    }

    /// The same from a stream of [`Self::send_pot`], which brings all of it.
    ///
    /// # Errors
    /// zfs(8)'s words; then there is nothing new.
    pub fn receive_pot(&self, left: &Left<'_>, stream: &File) -> Result<(), Trouble> {
        self.lay_out()?;
        let (snapshot, referenced) = self.lies_on(left.base)?;
        let new = self.begin_pot(left)?;
        let (root, at) = new.root();
        let mut properties = root_properties(left.id, &at, &snapshot);
        properties.extend(quota(left, referenced));
        // Whoever made the stream could name any disk of this host.
        properties.insert("devices".into(), "off".into());
        let mut args = words(&["zfs", "receive"]);
        for (name, value) in &properties {
            args.extend(["-o".to_string(), format!("{name}={value}")]);
        }
        args.extend(words(&["-x", "canmount", &root]));
        let tool = Tool { path: file(), args: &args, env: &[], input: &[], timeout: None, output: Output::Keep };
        tool::from_file(&tool, stream)?;
        let listed = zfs(&words(&["list", "-H", "-o", "name", "-d", "1", "-t", "snapshot", &root]))?;
        for snapshot in listed.lines() {
            zfs(&words(&["destroy", snapshot]))?;
        }
        new.keep()
    }

    /// Writes the root of a pot as a stream.
    ///
    /// # Errors
    /// zfs(8)'s words.
    pub fn send_pot(&self, id: &ContainerId, to: &mut impl Write) -> Result<(), Trouble> {
        let root = self.root_of(id)?;
        // Against a gc in between.
        let _lock = shared(File::open(self.path.join("jails"))?, FlockArg::LockShared)?;
        let snapshot = format!("{root}@sent-{}", std::process::id());
        zfs(&words(&["snapshot", "-o", &format!("{IMPORT}={id}"), &snapshot]))?;
        let args = words(&["zfs", "send", &snapshot]);
        let tool = Tool { path: file(), args: &args, env: &[], input: &[], timeout: None, output: Output::Keep };
        let sent = tool::to_writer(&tool, to);
        let removed = zfs(&words(&["destroy", &snapshot]));
        sent?;
        removed?;
        Ok(())
    }

    /// Writes what a pot has over its base as a layer of an OCI image.
    ///
    /// # Errors
    /// The kernel's words, or zfs(8)'s.
    pub fn pack_pot(&self, id: &ContainerId, base: &str, to: impl Write) -> Result<Unpacked, UnpackError> {
        let open = |path: PathBuf| {
            File::open(&path).map_err(|source| UnpackError::Io {
                step: "open",
                member: path.display().to_string(),
                source,
            })
        };
        let tree = open(self.path.join("jails").join(component(id)).join("m"))?;
        let below = open(self.path.join("bases").join(base))?;
        base::pack_over(tree.as_fd(), below.as_fd(), to)
    }

    /// The snapshot of a base, and how many bytes it shows.
    fn lies_on(&self, base: &str) -> Result<(String, u64), Trouble> {
        let snapshot = format!("{}/bases/{base}@{SNAPSHOT}", self.store);
        let referenced = zfs(&words(&["get", "-H", "-p", "-o", "value", "referenced", &snapshot]))?;
        Ok((snapshot, referenced.trim_end().parse()?))
    }

    /// Destroys the snapshots of clones and exports that died. The caller holds the lock.
    pub(super) fn sweep_snapshots(&self) -> Result<Vec<PathBuf>, Trouble> {
        let jails = format!("{}/jails", self.store);
        let columns = format!("name,{IMPORT},defer_destroy");
        let listed = match zfs(&words(&["list", "-H", "-d", "3", "-t", "snapshot", "-o", &columns, &jails])) {
            Err(e) if missing(&e) => return Ok(Vec::new()),
            other => other?,
        };
        let mut swept = Vec::new();
        for line in listed.lines() {
            let [name, mark, "off"] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
            // At once, or with its clone.
            if mark != "-" {
                zfs(&words(&["destroy", "-d", name]))?;
                swept.push(name.into());
            }
        }
        Ok(swept)
    }
}

/// The limit of a root whose base has `referenced` bytes: refquota counts them, too (zfsprops(7)).
fn quota(left: &Left<'_>, referenced: u64) -> Option<(String, String)> {
    left.disk.map(|bytes| ("refquota".into(), referenced.saturating_add(bytes).to_string()))
}

fn root_properties(id: &ContainerId, at: &Path, lies_on: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (MARK.to_string(), id.to_string()),
        ("mountpoint".to_string(), at.display().to_string()),
        (LIES_ON.to_string(), lies_on.to_string()),
    ])
}

/// Makes clones of snapshots of `dataset` independent of it, so that it can be destroyed: what they share becomes theirs
/// (zfs-promote(8)).
pub(super) fn release_clones(dataset: &str) -> Result<(), Trouble> {
    let args = ["list", "-H", "-r", "-t", "snapshot", "-s", "createtxg", "-o", "name,clones", dataset];
    let listed = zfs(&words(&args))?;
    let mut clones = None;
    for line in listed.lines() {
        let Some((name, of)) = line.split_once('\t') else { continue };
        if matches!(of, "" | "-") {
            // It goes anyhow; the clone may have one of the same name.
            zfs(&words(&["destroy", name]))?;
        } else {
            clones = of.split(',').next();
        }
    }
    match clones {
        Some(clone) => Ok(zfs(&words(&["promote", clone])).map(drop)?),
        None => Ok(()),
    }
}
