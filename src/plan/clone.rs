//! A clone of a pot's layer, where the store is directories: the steps that leave it for a container that is still to
//! come.
//!
//! Nothing is copied as long as the pot's own layer can be frozen: then it becomes one that both lie on, and each has an
//! empty one of its own above it. The kernel forbids that for a layer that is mounted (kernel documentation, "Overlay
//! Filesystem", "Changes to underlying filesystems"), so what a pot that is not stopped has is copied.

use std::path::{Path, PathBuf};

use crate::host::storage::Left;
use crate::op::Op;

/// The most layers that a pot shares with others. The kernel takes 500 (fs/overlayfs/params.h, `OVL_MAX_STACK`), and
/// options of no more than a page (mount(2)); but a name that is nowhere is looked for in each of them, and who compares
/// trees has a directory open as often as there are layers that have it.
pub const MAX_LAYERS: usize = 32;

/// The layer of a pot that is cloned, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Where it is.
    pub path: PathBuf,
    /// The layers that it shares already, the topmost first.
    pub layers: Vec<PathBuf>,
    /// What nothing else on its file system has while it is there: the number of its inode.
    pub number: u64,
    /// Whether the pot has nothing of its own.
    pub empty: bool,
    /// Whether it can be frozen: nobody has it mounted, and its file system can exchange two directories.
    pub still: bool,
}

/// The steps that leave a clone of `from` in the store.
#[must_use]
pub fn clone(store: &Path, from: &Layer, left: &Left<'_>) -> Vec<Op> {
    let (mut ops, mut layers, mut copy) = (Vec::new(), from.layers.clone(), Vec::new());
    if !from.empty && from.still && layers.len() < MAX_LAYERS {
        let frozen = store.join("layers").join(from.number.to_string());
        ops.push(Op::FreezeLayer { path: from.path.clone(), layer: frozen.clone() });
        layers.insert(0, frozen);
    } else if !from.empty {
        copy.push(from.path.clone());
        if from.still {
            // As many as there may be: all of it becomes one.
            copy.append(&mut layers);
        }
    }
    ops.push(Op::LeaveLayer {
        path: store.join("pots").join(left.id.as_str()),
        owner: left.owner.into(),
        base: store.join("bases").join(left.base),
        of: from.path.clone(),
        layers,
        copy,
        disk: left.disk,
    });
    ops
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ContainerId;

    fn steps(empty: bool, still: bool, layers: usize, disk: Option<u64>) -> String {
        let id = ContainerId::new("web2").unwrap();
        let left = Left { id: &id, owner: Path::new("/run/potrun/web2"), base: "small", disk };
        let layers: Vec<PathBuf> = (0..layers).rev().map(|n| format!("/s/layers/{n}").into()).collect();
        let from = Layer { path: "/s/pots/web1".into(), layers, number: 77, empty, still };
        clone(Path::new("/s"), &from, &left).iter().map(|op| format!("{op}\n")).collect()
    }

    #[test]
    fn what_is_still_is_frozen_and_shared() {
        assert_eq!(
            steps(false, true, 1, Some(4096)),
            "freeze layer /s/pots/web1 as /s/layers/77\n\
             leave layer /s/pots/web2 on /s/layers/77 on /s/layers/0 on /s/bases/small, like /s/pots/web1, \
             at most 4096 bytes\n"
        );
    }

    #[test]
    fn what_is_empty_is_shared_already() {
        for still in [false, true] {
            assert_eq!(
                steps(true, still, 2, None),
                "leave layer /s/pots/web2 on /s/layers/1 on /s/layers/0 on /s/bases/small, like /s/pots/web1\n"
            );
        }
    }

    #[test]
    fn what_is_mounted_is_copied() {
        assert_eq!(
            steps(false, false, 1, None),
            "leave layer /s/pots/web2 on /s/layers/0 on /s/bases/small, with a copy of /s/pots/web1\n"
        );
    }

    #[test]
    fn too_many_layers_become_one() {
        let one_less = steps(false, true, MAX_LAYERS - 1, None);
        assert!(
            one_less.starts_with("freeze ") && one_less.matches("/layers/").count() == MAX_LAYERS + 1,
            "{one_less}"
        );
        let all = steps(false, true, MAX_LAYERS, None);
        let begin = "leave layer /s/pots/web2 on /s/bases/small, with a copy of /s/pots/web1 on /s/layers/31 on ";
        assert!(all.starts_with(begin) && all.ends_with(" on /s/layers/0\n"), "{all}");
    }
}
