//! A pot's root file system as a clone of its base, where the store is datasets: the same on both systems.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::bundle::pot::{Limits, Pot};
use crate::facts::Store;
use crate::op::{KEEP, MARK, Op, STATE};
use crate::zfs::component;

use super::Draft;

/// The longest name of a dataset (sys/fs/zfs.h, `ZFS_MAX_DATASET_NAME_LEN`, without the NUL).
const MAX_DATASET: usize = 255;

/// pot's layout: a dataset of the pot, and its root file system `m` below, a clone of the base's snapshot. The
/// snapshot keeps the base from being destroyed (zfs-destroy(8)), so nothing else has to. Both are mounted as they are
/// made (`canmount` is on where nobody says otherwise), at mountpoints that are said and not inherited, so that they
/// are where the plan says.
///
/// What an earlier container of its id has left, or a clone or an import for it, is taken up.
pub fn clone(draft: &mut Draft<'_>, pot: &Pot) -> (Vec<Op>, PathBuf) {
    let Store::Zfs { dataset, path } = draft.facts.store.clone() else {
        draft.refuse("/pot/base", "needs a ZFS store");
        return (Vec::new(), PathBuf::new());
    };
    quota(draft, &pot.limits);
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
            draft.note(format!("root: {root} is taken up as it was left for {}", draft.id));
            if let Some(quota) = draft.facts.kept_quota {
                let bytes = limit(pot, quota.shared);
                if bytes != quota.limit {
                    return (vec![Op::LimitDataset { dataset: root, bytes }], rootfs);
                }
            }
        } else {
            let id = draft.id;
            let what = format!("{root} is kept, over {origin}: first potrun delete --data {id}, or name its base");
            draft.refuse("/pot/base/release", what);
        }
        return (Vec::new(), rootfs);
    }
    let keep = pot.persistent.then(|| (KEEP.to_string(), "on".to_string()));
    let properties = |mountpoint: &Path| {
        BTreeMap::from([
            (MARK.to_string(), draft.id.to_string()),
            ("mountpoint".to_string(), mountpoint.display().to_string()),
        ])
    };
    let mut of_root = properties(&rootfs);
    let shared = base.and_then(|base| base.referenced).unwrap_or(0);
    of_root.extend(limit(pot, shared).map(|bytes| ("refquota".to_string(), bytes.to_string())));
    let state = draft.facts.state.join(draft.id.as_str());
    let mut of_pot = properties(&path);
    of_pot.insert(STATE.into(), state.display().to_string());
    of_pot.extend(keep);
    let ops = vec![
        Op::CreateDataset { properties: of_pot, dataset },
        Op::CloneDataset { snapshot, dataset: root, properties: of_root },
    ];
    (ops, rootfs)
}

/// How many bytes the root of a pot may show: refquota counts what it shares with its base, too (zfsprops(7)).
fn limit(pot: &Pot, shared: u64) -> Option<u64> {
    pot.limits.disk.map(|bytes| shared.saturating_add(bytes))
}

/// Refuses a quota of what is no dataset of the pot's own.
pub fn quota(draft: &mut Draft<'_>, limits: &Limits) {
    if limits.disk.is_some() && draft.bundle.pot.as_ref().is_none_or(|pot| pot.base.is_none()) {
        draft.refuse("/pot/limits/disk", "needs a base: only what is cloned from one is a dataset of its own");
    }
}
