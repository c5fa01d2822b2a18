//! Resource rules of jails (rctl(4)) and their processors (cpuset(2)).

use std::io;

use crate::host::Trouble;

use super::jail;

mod sys;

/// Adds a rule.
pub(super) fn add_rule(rule: &str) -> Result<(), Trouble> {
    sys::add_rule(rule).map_err(explain)
}

/// Removes all rules that fit `filter`; that there are none is as good.
pub(super) fn remove_rules(filter: &str) -> Result<(), Trouble> {
    match sys::remove_rules(filter) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::ENOSYS)) => Ok(()),
        other => Ok(other?),
    }
}

/// The rules that fit `filter`.
pub(super) fn rules(filter: &str) -> io::Result<Vec<String>> {
    let text = sys::rules(filter)?;
    Ok(text.split(',').filter(|rule| !rule.is_empty()).map(String::from).collect())
}

/// What racct(9) counts for a jail.
pub(super) fn usage(jail: &str) -> io::Result<String> {
    sys::usage(&format!("jail:{jail}:"))
}

/// What the errnos of rctl(4) mean.
fn explain(error: io::Error) -> Trouble {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            format!("{error}: resource limits are off; set kern.racct.enable=1 in /boot/loader.conf and reboot").into()
        }
        _ => error.into(),
    }
}

/// Confines a jail to processors, in the words of cpuset(1): `0-3,8`.
pub(super) fn set_cpuset(jail: &str, cpus: &str) -> Result<(), Trouble> {
    let id = jail::id(jail)?.ok_or_else(|| format!("jail {jail} does not exist"))?;
    let mut mask = [0u64; sys::PROCESSORS / 64];
    for range in cpus.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|n| *n < sys::PROCESSORS);
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(format!("{range:?} is not a range of processors").into());
        };
        for cpu in first..=last {
            mask[cpu / 64] |= 1 << (cpu % 64);
        }
    }
    match sys::set_jail_affinity(id, &mask) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Err(format!("{e}: this machine lacks one of them").into()),
        other => Ok(other?),
    }
}
