//! Resource rules of jails (rctl(4)) and their processors (cpuset(2)).

use crate::host::Trouble;

/// Adds a rule.
pub(super) fn add_rule(_rule: &str) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Removes all rules that fit `filter`.
pub(super) fn remove_rules(_filter: &str) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Confines a jail to processors.
pub(super) fn set_cpuset(_jail: &str, _cpus: &str) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}
