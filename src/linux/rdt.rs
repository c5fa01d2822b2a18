//! Cache and memory bandwidth of processors (Documentation/filesystems/resctrl.rst; config-linux.md, "Intel RDT").

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;

use crate::bundle::Bundle;
use crate::facts::{Facts, Resctrl};
use crate::id::ContainerId;
use crate::op::Op;
use crate::plan::Draft;

const AT: &str = "/linux/intelRdt";

/// The group that a container is in: that of its class, or one of its own.
#[must_use]
pub fn group(mount: &Path, rdt: &LinuxIntelRdt, id: &str) -> PathBuf {
    match class(rdt) {
        Some("/") => mount.into(),
        class => mount.join(class.unwrap_or(id)),
    }
}

fn class(rdt: &LinuxIntelRdt) -> Option<&str> {
    rdt.clos_id().as_deref().filter(|class| !class.is_empty())
}

/// The lines that are to be written to `schemata`: all of `schemata`, or what its older twins say.
#[must_use]
pub fn schemata(rdt: &LinuxIntelRdt) -> Vec<String> {
    if let Some(lines) = rdt.schemata().as_ref().filter(|lines| !lines.is_empty()) {
        return lines.clone();
    }
    lines(rdt.l3_cache_schema().as_deref(), rdt.mem_bw_schema().as_deref())
}

/// Lines of both; those on bandwidth in the first give way to the second.
#[must_use]
pub fn lines(cache: Option<&str>, bandwidth: Option<&str>) -> Vec<String> {
    let given = |text: Option<&str>| {
        text.unwrap_or_default()
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let (mut all, bandwidth) = (given(cache), given(bandwidth));
    all.retain(|line| bandwidth.is_empty() || !line.starts_with("MB:"));
    all.extend(bandwidth);
    all
}

/// Whether a file of schemata has all these lines, whatever blanks are in it.
fn has(file: &str, lines: &[String]) -> bool {
    let plain = |line: &str| line.split_whitespace().collect::<String>();
    lines.iter().all(|wanted| file.lines().any(|line| plain(line) == plain(wanted)))
}

/// The steps before the first process is started, and those with it.
#[must_use]
pub fn steps(draft: &mut Draft<'_>) -> [Vec<Op>; 2] {
    let mut steps = [Vec::new(), Vec::new()];
    let Some(rdt) = draft.bundle.spec.linux().as_ref().and_then(|linux| linux.intel_rdt().clone()) else {
        return steps;
    };
    let Some(Resctrl { mount, schemata: there }) = draft.facts.resctrl.clone() else {
        draft.refuse(AT, "no resctrl file system is mounted on this host");
        return steps;
    };
    let named = class(&rdt);
    if named.is_some_and(|name| {
        name != "/" && (name.contains('/') || matches!(name, "." | ".." | "info" | "mon_data" | "mon_groups"))
    }) {
        draft.refuse(format!("{AT}/closID"), "is not the name of a class");
        return steps;
    }
    let path = group(&mount, &rdt, draft.id.as_str());
    let lines = schemata(&rdt);
    match &there {
        Some(_) if named.is_none() => {
            draft.refuse(AT, format!("{} is there already, and is not this container's", path.display()));
        }
        Some(there) if !has(there, &lines) => {
            draft.refuse(
                format!("{AT}/closID"),
                format!("the class is there already, with another schemata: {}", there.trim().replace('\n', "; ")),
            );
        }
        Some(_) => {}
        None if named.is_some() && lines.is_empty() => {
            draft.refuse(format!("{AT}/closID"), "there is no such class, and no schemata to make it with");
        }
        None => {
            steps[0].push(Op::CreateResctrl { path: path.clone() });
            if !lines.is_empty() {
                steps[0].push(Op::SetSchemata { path: path.clone(), lines });
            }
        }
    }
    steps[1].push(Op::JoinResctrl { path: path.clone() });
    if rdt.enable_monitoring() == &Some(true) {
        let path = path.join("mon_groups").join(draft.id.as_str());
        steps[0].push(Op::CreateResctrl { path: path.clone() });
        steps[1].push(Op::JoinResctrl { path });
    }
    steps
}

/// The step that changes what a container gets that has a group of its own, or of its class.
///
/// # Errors
/// It has none.
pub fn update(bundle: &Bundle, facts: &Facts, id: &ContainerId, lines: Vec<String>) -> Result<Op, String> {
    let rdt = bundle.spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref());
    let rdt = rdt.ok_or("the container has no part of the caches of its own: its bundle has no /linux/intelRdt")?;
    let resctrl = facts.resctrl.as_ref().ok_or("no resctrl file system is mounted on this host")?;
    Ok(Op::SetSchemata { path: group(&resctrl.mount, rdt, id.as_str()), lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidth_is_what_its_own_member_says() {
        assert_eq!(lines(Some("L3:0=f\nMB:0=10"), Some("MB:0=20")), ["L3:0=f", "MB:0=20"]);
        assert_eq!(lines(Some("L3:0=f\nMB:0=10\n"), None), ["L3:0=f", "MB:0=10"]);
        assert_eq!(lines(None, Some("MB:0=20")), ["MB:0=20"]);
    }

    #[test]
    fn a_class_is_the_same_whatever_blanks_the_kernel_writes() {
        assert!(has("    MB:0= 20\n    L3:0=fff\n", &["L3:0=fff".into(), "MB:0=20".into()]));
        assert!(!has("L3:0=fff\n", &["L3:0=ff".into()]));
    }
}
