//! Jails: making, finding, entering, removing them.

use std::io;

use crate::host::Trouble;

use super::sys;

/// The id of the jail of this name, if there is one that is not dying.
pub(super) fn id(name: &str) -> io::Result<Option<i32>> {
    sys::jail_id(name)
}

/// Does `work` in the jail `name`: in a child that enters it, holds no descriptor of the host but stdio, runs nothing
/// of the jail's, and ends. What it returns comes back.
pub(super) fn inside(name: &str, work: impl FnOnce() -> Result<Vec<u8>, Trouble>) -> Result<Vec<u8>, Trouble> {
    let jid = id(name)?.ok_or_else(|| format!("jail {name} does not exist"))?;
    sys::forked(|| {
        sys::jail_attach(jid).map_err(|e| format!("enter jail {name}: {e}"))?;
        work()
    })
}

/// Why a jail of this name must not be made, if so.
pub(super) fn taken(_name: &str) -> Option<String> {
    None
}

/// Makes a jail.
pub(super) fn create(_name: &str, _parameters: &[(String, String)]) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Kills what is in a jail, removes it and waits until it is gone.
pub(super) fn remove(_name: &str) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}
