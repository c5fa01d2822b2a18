//! Rules of pf(4), by pfctl(8): the ioctls of /dev/pf change from release to release.

use std::net::IpAddr;

use crate::host::Trouble;

/// Loads rules into an anchor, replacing what it held.
pub(super) fn load(_anchor: &str, _rules: &str) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Empties an anchor, and ends the states of `addresses`.
pub(super) fn flush(_anchor: &str, _addresses: &[IpAddr]) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Adds rules to an anchor as far as it lacks them.
pub(super) fn ensure(_anchor: &str, _rules: &str) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Takes the rules with our mark out of an anchor that no bridge of pots needs any more.
pub(super) fn release(_anchor: &str) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}
