//! Where a pot's root file system comes from, and how it is shown.

use std::path::{Path, PathBuf};

use crate::bundle::pot::Pot;
use crate::op::{Mount, Op};
use crate::plan::{Draft, dataset};

/// What makes the root file system, and where it is then. A base is cloned; without one the bundle's own directory is
/// taken as it is.
pub fn storage(draft: &mut Draft<'_>, pot: Option<&Pot>) -> (Vec<Op>, PathBuf) {
    if let Some(pot) = pot {
        if pot.base.is_some() {
            return dataset::clone(draft, pot);
        }
        dataset::quota(draft, &pot.limits);
    }
    let Some(path) = draft.bundle.root() else {
        draft.refuse("/root/path", "is required where no base is named in /pot/base");
        return (Vec::new(), PathBuf::new());
    };
    (Vec::new(), path)
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
