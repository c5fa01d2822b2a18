//! Where a pot's root file system comes from, and how it is shown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::bundle::pot::Pot;
use crate::facts::Store;
use crate::id::ContainerId;
use crate::op::{KEEP, MARK, Mount, Op};
use crate::plan::Draft;

use super::limits;

/// The longest name of a dataset (sys/fs/zfs.h, `ZFS_MAX_DATASET_NAME_LEN`, without the NUL).
const MAX_DATASET: usize = 255;

/// What makes the root file system, and where it is then. A base is cloned; without one the bundle's own directory is
/// taken as it is.
pub fn storage(draft: &mut Draft<'_>, pot: Option<&Pot>) -> (Vec<Op>, PathBuf) {
    let quota = pot.and_then(|pot| limits::quota(draft, &pot.limits));
    if pot.is_some_and(|pot| pot.base.is_some()) {
        return clone(draft, quota, pot.is_some_and(|pot| pot.persistent));
    }
    let Some(path) = draft.bundle.root() else {
        draft.refuse("/root/path", "is required where no base is named in /pot/base");
        return (Vec::new(), PathBuf::new());
    };
    (Vec::new(), path)
}

/// pot's layout: a dataset of the pot, and its root file system `m` below, a clone of the base's snapshot. The
/// snapshot keeps the base from being destroyed (zfs-destroy(8)), so nothing else has to. Both are mounted as they are
/// made (`canmount` is on where nobody says otherwise), at mountpoints that are said and not inherited, so that they
/// are where the plan says.
///
/// A persistent pot takes up what an earlier container of its id left.
fn clone(draft: &mut Draft<'_>, quota: Option<(String, String)>, persistent: bool) -> (Vec<Op>, PathBuf) {
    let Store::Zfs { dataset, path } = draft.facts.store.clone() else {
        draft.refuse("/pot/base", "needs a ZFS store on freebsd");
        return (Vec::new(), PathBuf::new());
    };
    let base = draft.facts.base.clone();
    let Some(snapshot) = base.as_ref().and_then(|base| base.snapshot.clone()) else {
        if base.is_some() {
            draft.refuse("/pot/base/release", "the base has no snapshot to clone");
        }
        return (Vec::new(), PathBuf::new());
    };
    let own = component(draft.id);
    let (dataset, path) = (format!("{dataset}/jails/{own}"), path.join("jails").join(own));
    let (root, rootfs) = (format!("{dataset}/m"), path.join("m"));
    if root.len() > MAX_DATASET {
        draft.refuse("", format!("the container id is too long: the dataset {root} has more than {MAX_DATASET} bytes"));
    }
    if let Some(origin) = draft.facts.kept.clone() {
        let of = |snapshot: &str| snapshot.split('@').next().map(String::from);
        if of(&origin) == of(&snapshot) {
            draft.note(format!("root: {root} is taken up as an earlier {} left it", draft.id));
        } else {
            let id = draft.id;
            let what =
                format!("{root} is kept, a clone of {origin}: first potrun delete --data {id}, or name its base");
            draft.refuse("/pot/base/release", what);
        }
        return (Vec::new(), rootfs);
    }
    let keep = persistent.then(|| (KEEP.to_string(), "on".to_string()));
    let properties = |mountpoint: &Path| {
        BTreeMap::from([
            (MARK.to_string(), draft.id.to_string()),
            ("mountpoint".to_string(), mountpoint.display().to_string()),
        ])
    };
    let mut of_root = properties(&rootfs);
    of_root.extend(quota);
    let ops = vec![
        Op::CreateDataset { properties: properties(&path).into_iter().chain(keep).collect(), dataset },
        Op::CloneDataset { snapshot, dataset: root, properties: of_root },
    ];
    (ops, rootfs)
}

/// The id as a component of a dataset's name, which cannot hold `+` (zfs(8), "ZFS File System Hierarchy") and can hold
/// `:`, which no id has: so no two ids share a dataset.
#[must_use]
pub fn component(id: &ContainerId) -> String {
    id.as_str().replace('+', ":2b")
}

/// Shows the root file system read-only at a directory of the container's state: nullfs(5) cannot change its mind
/// later, and does not show what is mounted below, so mount points and files come first, and mounts after.
#[must_use]
pub fn readonly(draft: &Draft<'_>, root: &Path, mounts: &[Mount]) -> (Vec<Op>, PathBuf) {
    let covered = |mount: &&Mount| {
        !mounts.iter().any(|other| other.target != mount.target && mount.target.starts_with(&other.target))
    };
    let mut ops: Vec<Op> =
        mounts.iter().filter(covered).map(|mount| Op::HostTarget { root: root.into(), mount: mount.clone() }).collect();
    let target = draft.facts.state.join(draft.id.as_str()).join(crate::store::ROOT);
    let mount = Mount {
        fstype: "nullfs".into(),
        source: root.into(),
        target: target.clone(),
        options: vec!["ro".into()],
        ..Mount::default()
    };
    ops.push(Op::HostMount { root: "/".into(), mount, before: Vec::new() });
    (ops, target)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_ids_share_a_dataset() {
        let ids = ["a+b", "a2bb", "a.b", "a-b", "a++b", "+a", "a+2b"];
        let all: BTreeSet<String> = ids.map(|text| component(&ContainerId::new(text).unwrap())).into();
        assert_eq!(all.len(), ids.len());
        assert!(all.iter().all(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || "_.:-".contains(c))));
        assert_eq!(component(&ContainerId::new("web1").unwrap()), "web1");
    }
}
