//! Names of datasets, what zfs(8) prints, and what bases say of themselves.

pub mod changes;

use crate::id::ContainerId;

/// A base's dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseDataset {
    /// What it was imported with.
    pub digest: Option<String>,
    /// What is cloned.
    pub snapshot: Option<String>,
    /// Where it is mounted.
    pub mountpoint: String,
    /// How many bytes the snapshot shows.
    pub referenced: Option<u64>,
}

/// The snapshot that potrun makes of a base.
pub const SNAPSHOT: &str = "potrun";

/// The base in what `zfs list -Hp -d 1 -t filesystem,snapshot -o name,potrun:sha256,mountpoint,referenced DATASET`
/// prints. Of pot's snapshots, whose names are seconds since 1970, the latest counts, as for pot.
#[must_use]
pub fn base(listed: &str, dataset: &str) -> Option<BaseDataset> {
    let mut found = None;
    let mut latest: Option<(u64, (String, Option<u64>))> = None;
    let mut ours = None;
    for line in listed.lines() {
        let mut fields = line.split('\t');
        let (Some(name), Some(digest), Some(mountpoint)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let referenced = fields.next().and_then(|bytes| bytes.parse().ok());
        match name.strip_prefix(dataset).map(|rest| rest.strip_prefix('@')) {
            Some(None) if name == dataset => {
                let digest = (digest != "-").then(|| digest.to_string());
                found = Some(BaseDataset { digest, snapshot: None, mountpoint: mountpoint.into(), referenced: None });
            }
            Some(Some(SNAPSHOT)) => ours = Some((name.to_string(), referenced)),
            Some(Some(seconds)) => {
                if let Ok(seconds) = seconds.parse()
                    && latest.as_ref().is_none_or(|(before, _)| *before < seconds)
                {
                    latest = Some((seconds, (name.to_string(), referenced)));
                }
            }
            _ => {}
        }
    }
    let (snapshot, referenced) = ours.or(latest.map(|(_, which)| which)).unzip();
    found.map(|base| BaseDataset { snapshot, referenced: referenced.flatten(), ..base })
}

/// `USERLAND_VERSION` of freebsd-version(1).
#[must_use]
pub fn release(script: &str) -> Option<String> {
    let line = script.lines().find_map(|line| line.strip_prefix("USERLAND_VERSION="))?;
    let text = line.trim_matches('"');
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    // OSRELEASELEN is 32 with the NUL (sys/jail.h).
    (!text.is_empty() && text.len() < 32 && text.chars().all(plain)).then(|| text.to_string())
}

/// The id as a component of a dataset's name, which cannot hold `+` (zfs(8), "ZFS File System Hierarchy") and can hold
/// `:`, which no id has: so no two ids share a dataset.
#[must_use]
pub fn component(id: &ContainerId) -> String {
    id.as_str().replace('+', ":2b")
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

    #[test]
    fn the_snapshot_of_ours_comes_first_then_pots_latest() {
        let line = |name: &str| format!("{name}\t-\t/opt/pot/bases/13.2\t{}\n", name.len());
        let dataset = "zroot/pot/bases/13.2";
        let all = [dataset, "zroot/pot/bases/13.2@999", "zroot/pot/bases/13.2@1700000000", "zroot/pot/bases/13.2@x"];
        let listed: String = all.iter().map(|name| line(name)).collect();
        let found = base(&listed, dataset).unwrap();
        assert_eq!(found.snapshot.as_deref(), Some("zroot/pot/bases/13.2@1700000000"));
        assert_eq!((found.digest, found.mountpoint.as_str()), (None, "/opt/pot/bases/13.2"));
        assert_eq!(found.referenced, Some("zroot/pot/bases/13.2@1700000000".len() as u64));
        let listed = listed + &line("zroot/pot/bases/13.2@potrun");
        assert_eq!(base(&listed, dataset).unwrap().snapshot.as_deref(), Some("zroot/pot/bases/13.2@potrun"));
        assert_eq!(base(&line("zroot/pot/bases/13.20"), dataset), None);
    }

    #[test]
    fn a_release_is_a_word() {
        assert_eq!(release("#!/bin/sh\nUSERLAND_VERSION=\"13.2-RELEASE-p1\"\n").as_deref(), Some("13.2-RELEASE-p1"));
        assert_eq!(release("USERLAND_VERSION=\"$(id)\"\n"), None);
        assert_eq!(release("nothing"), None);
    }
}
