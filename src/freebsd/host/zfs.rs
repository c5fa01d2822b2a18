//! Datasets, by zfs(8).

use std::collections::BTreeMap;

use crate::host::Trouble;
use crate::id::ContainerId;

/// Creates a dataset.
pub(super) fn create(_dataset: &str, _properties: &BTreeMap<String, String>) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Clones a snapshot.
pub(super) fn clone(_snapshot: &str, _dataset: &str, _properties: &BTreeMap<String, String>) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Destroys a dataset if its mark names `id`.
pub(super) fn destroy(_dataset: &str, _id: &ContainerId) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}
