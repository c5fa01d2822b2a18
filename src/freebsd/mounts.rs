//! The mounts of a jail, in the words of FreeBSD. All are made by the host, below the root, before there is a process.

use std::path::{Path, PathBuf};

use crate::bundle::pot::Pot;
use crate::bundle::read::pointer;
use crate::op::Mount;
use crate::plan::{Draft, files};

use super::jail;

/// What hides the devices of the host: `devfsrules_jail` of /etc/defaults/devfs.rules. A devfs(5) that is mounted
/// without a ruleset shows all of them.
pub const RULESET: u16 = 4;

/// Where a pot has the names of its bridge: a directory, since nullfs(5) takes no single file before FreeBSD 14.0, and
/// nothing that rc(8) of the pot would clean.
pub const NAMES: &str = "/etc/potrun";

/// Words of nmount(2) for every file system (sys/kern/vfs_mount.c), and those that take them back.
const WORDS: &[(&str, &[&str])] = &[
    ("ro", &["rw"]),
    ("nosuid", &["suid"]),
    ("noexec", &["exec"]),
    ("noatime", &["atime", "relatime", "strictatime"]),
    ("nosymfollow", &["symfollow"]),
    ("sync", &[]),
    ("async", &[]),
    ("union", &[]),
    ("nocover", &[]),
    ("emptydir", &[]),
];

/// Words of Linux that say nothing here: a mount has no propagation, devices are devfs's only, access times are kept
/// in one way.
const NOTHING: &[&str] = &[
    "bind",
    "defaults",
    "dev",
    "diratime",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "nodev",
    "nodiratime",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "notmpcopyup",
    "private",
    "rprivate",
    "rshared",
    "rslave",
    "runbindable",
    "shared",
    "silent",
    "slave",
    "unbindable",
    "dirsync",
];

/// The file systems that a jail can have, and the options of their own that they take (their manual pages). nullfs
/// would take any word without a sound.
const TYPES: &[(&str, &[&str])] = &[
    ("nullfs", &["nocache"]),
    ("tmpfs", &["size", "inodes", "maxfilesize", "uid", "gid", "mode", "nonc", "nomtime"]),
    ("devfs", &["ruleset", "rule"]),
    ("fdescfs", &["linrdlnk", "nodup"]),
    ("procfs", &[]),
    ("linprocfs", &[]),
    ("linsysfs", &[]),
];

/// All option words that a mount may have here: those that do something, those that say nothing.
pub fn words() -> impl Iterator<Item = &'static str> {
    let both = WORDS.iter().flat_map(|(on, off)| std::iter::once(*on).chain(off.iter().copied()));
    both.chain(NOTHING.iter().copied()).chain(["rbind"])
}

const LINUX: &[&str] =
    &["proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts", "overlay", "securityfs", "debugfs", "bpf"];

/// All mounts in their order: devfs for a pot whose bundle does not mention it, what the bundle lists, a pot's own.
/// In a pot, whatever the order of the sections, no parent covers its child.
pub fn all(draft: &mut Draft<'_>, pot: Option<&Pot>) -> Vec<Mount> {
    let listed = draft.bundle.spec.mounts().clone().unwrap_or_default();
    let mut all = Vec::new();
    let dev = Path::new("/dev");
    if pot.is_some() && !listed.iter().any(|one| Path::new("/").join(one.destination()) == dev) {
        all.push(Mount { fstype: "devfs".into(), source: "devfs".into(), target: dev.into(), ..Mount::default() });
    }
    for (n, one) in listed.iter().enumerate() {
        all.extend(translate(draft, &format!("/mounts/{n}"), one));
    }
    all.extend(own(draft, pot));
    if pot.is_some() {
        all.sort_by_key(|mount| mount.target.components().count());
    }
    devices(draft, &mut all);
    for mount in all.iter_mut().filter(|mount| mount.fstype == "devfs") {
        hide(mount, pot);
    }
    all
}

/// The ruleset of the jail itself, which a devfs mounted from inside gets: that of its `/dev`.
#[must_use]
pub fn ruleset(mounts: &[Mount], pot: Option<&Pot>) -> String {
    let dev = mounts.iter().rfind(|mount| mount.fstype == "devfs" && mount.target == Path::new("/dev"));
    let given = dev.and_then(|mount| mount.data.iter().find_map(|word| word.strip_prefix("ruleset=")));
    given.map_or_else(|| default_ruleset(pot).to_string(), String::from)
}

fn default_ruleset(pot: Option<&Pot>) -> u16 {
    pot.and_then(|pot| pot.attributes.devfs_ruleset).unwrap_or(RULESET)
}

/// A devfs always has a ruleset, and has it first: rules are for what it hides.
fn hide(mount: &mut Mount, pot: Option<&Pot>) {
    if !mount.data.iter().any(|word| word.starts_with("ruleset=")) {
        mount.data.insert(0, format!("ruleset={}", default_ruleset(pot)));
    }
    mount.data.sort_by_key(|word| !word.starts_with("ruleset="));
}

/// A pot's fscomps, datasets and directories. A dataset is mounted where it says already, so it is shown from there.
fn own(draft: &mut Draft<'_>, pot: Option<&Pot>) -> Vec<Mount> {
    let Some(pot) = pot else { return Vec::new() };
    let mut wanted: Vec<(PathBuf, PathBuf, bool)> = Vec::new();
    for one in &pot.fscomps {
        let source = draft.facts.fscomps.get(&one.name).cloned();
        wanted.extend(source.map(|source| (source, one.destination.clone(), one.readonly)));
    }
    for (n, one) in pot.datasets.iter().enumerate() {
        match draft.facts.datasets.get(&one.dataset).cloned().flatten() {
            Some(source) => wanted.push((source, one.destination.clone(), one.readonly)),
            None => draft.refuse(
                format!("/pot/datasets/{n}/dataset"),
                format!("dataset {} does not exist or is not mounted", one.dataset),
            ),
        }
    }
    wanted.extend(pot.directories.iter().map(|one| (one.source.clone(), one.destination.clone(), one.readonly)));
    let hosts = files::hosts(draft, pot);
    wanted.extend(hosts.as_deref().and_then(Path::parent).map(|names| (names.into(), NAMES.into(), true)));
    wanted.into_iter().map(|(source, target, readonly)| of_host(source, target, readonly)).collect()
}

/// A directory or file of the host.
#[must_use]
pub fn of_host(source: PathBuf, target: PathBuf, readonly: bool) -> Mount {
    let options = if readonly { vec!["ro".into()] } else { Vec::new() };
    Mount { fstype: "nullfs".into(), source, target, options, ..Mount::default() }
}

/// One mount of the bundle.
fn translate(draft: &mut Draft<'_>, at: &str, one: &oci_spec::runtime::Mount) -> Option<Mount> {
    for (name, maps) in [("uidMappings", one.uid_mappings()), ("gidMappings", one.gid_mappings())] {
        if maps.as_ref().is_some_and(|maps| !maps.is_empty()) {
            draft.refuse(format!("{at}/{name}"), "freebsd maps no ids");
        }
    }
    // A relative destination is taken from the root, as on Linux (config.md, "Mounts").
    let target = Path::new("/").join(one.destination());
    if target == Path::new("/") {
        draft.refuse(format!("{at}/destination"), "must be below /");
    }
    let words = one.options().clone().unwrap_or_default();
    let fstype = fstype(draft, at, one.typ().as_deref().unwrap_or_default(), &words)?;
    let given = one.source().clone().unwrap_or_default();
    let source = match fstype {
        "nullfs" if given.as_os_str().is_empty() => {
            draft.refuse(format!("{at}/source"), "is required for a bind mount");
            given
        }
        "nullfs" => draft.bundle.dir.join(given),
        _ => fstype.into(),
    };
    let mut mount = Mount { fstype: fstype.into(), source, target, ..Mount::default() };
    for (n, text) in words.iter().enumerate() {
        option(draft, &format!("{at}/options/{n}"), text, &mut mount);
    }
    Some(mount)
}

/// The file system that `word` is here: bind is what nullfs is called on Linux, so that one bundle runs on both.
fn fstype(draft: &mut Draft<'_>, at: &str, word: &str, options: &[String]) -> Option<&'static str> {
    let bind = options.iter().any(|text| text == "bind" || text == "rbind");
    let word = if word == "bind" || (bind && matches!(word, "" | "none")) { "nullfs" } else { word };
    let known = TYPES.iter().map(|(name, _)| *name).find(|name| *name == word);
    if known.is_none() {
        let what = match word {
            "" => "is required where it is not a bind mount".to_string(),
            _ if LINUX.contains(&word) => format!("{word} is a file system of linux"),
            _ => format!("{word} is not a file system that potrun gives to a jail"),
        };
        draft.refuse(format!("{at}/type"), what);
    }
    known
}

/// The word with which a tmpfs begins with what it hides. It is potrun's work, and not the kernel's.
pub const COPY_UP: &str = "tmpcopyup";

/// One option word of the bundle.
fn option(draft: &mut Draft<'_>, at: &str, text: &str, mount: &mut Mount) {
    let plain = recursive(text);
    if let Some((on, _)) = WORDS.iter().find(|(on, _)| *on == plain) {
        mount.options.retain(|word| word != on);
        mount.options.push((*on).into());
        return;
    }
    if let Some((on, _)) = WORDS.iter().find(|(_, off)| off.contains(&plain)) {
        mount.options.retain(|word| word != on);
        return;
    }
    match text {
        "rbind" => draft.note(format!("{at}: nullfs shows one file system, not what is mounted below its source")),
        COPY_UP if mount.fstype == "tmpfs" => {
            if !mount.options.iter().any(|word| word == COPY_UP) {
                mount.options.push(COPY_UP.into());
            }
        }
        COPY_UP => draft.refuse(at, "is for tmpfs"),
        "idmap" | "ridmap" => draft.refuse(at, "freebsd maps no ids"),
        _ if NOTHING.contains(&plain) => {}
        _ => mount.data.extend(data(draft, at, text, &mount.fstype)),
    }
}

/// The recursive attributes of Linux (config.md, "Linux mount options") are the plain ones of a mount that has nothing
/// below it.
fn recursive(text: &str) -> &str {
    match text {
        "rro" => "ro",
        "rrw" => "rw",
        "rnosuid" | "rsuid" | "rnoexec" | "rexec" | "rnoatime" | "rrelatime" | "rstrictatime" | "rnosymfollow"
        | "rsymfollow" | "rnodev" | "rdev" | "rnodiratime" | "rdiratime" => &text[1..],
        _ => text,
    }
}

/// An option of the file system itself.
fn data(draft: &mut Draft<'_>, at: &str, text: &str, fstype: &str) -> Option<String> {
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    // What tmpfs(5) of Linux calls nr_inodes.
    let name = if fstype == "tmpfs" && name == "nr_inodes" { "inodes" } else { name };
    let takes = TYPES.iter().any(|(one, names)| *one == fstype && names.contains(&name));
    if !takes {
        draft.refuse(at, format!("{text:?} is not an option of {fstype} on freebsd"));
        return None;
    }
    let good = match (name, value) {
        ("size" | "inodes" | "maxfilesize", Some(value)) => number(value),
        ("mode", Some(value)) => u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777),
        ("uid" | "gid", Some(value)) => value.parse::<u32>().is_ok(),
        ("ruleset", Some(value)) => value.parse::<u16>().is_ok(),
        ("rule", Some(value)) => rule(value),
        (_, value) => value.is_none(),
    };
    if !good {
        draft.refuse(at, format!("{text:?} has no value that freebsd takes"));
        return None;
    }
    Some(value.map_or_else(|| name.into(), |value| format!("{name}={value}")))
}

/// A number as expand_number(3) reads it; tmpfs of Linux also takes a share of the memory, which is not one.
fn number(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    digits.parse::<u64>().is_ok()
        && (unit.is_empty() || "kmgtpe".contains(&unit.to_ascii_lowercase()) && unit.len() == 1)
}

/// A rule of devfs(8) as podman sends it for `--device`: one path, and what becomes of it.
fn rule(text: &str) -> bool {
    let mut words = text.split_ascii_whitespace();
    if words.next() != Some("path") || words.next().is_none() {
        return false;
    }
    let mut actions = 0;
    while let Some(action) = words.next() {
        let good = match action {
            "hide" | "unhide" => true,
            "mode" => words.next().is_some_and(|mode| u32::from_str_radix(mode, 8).is_ok_and(|mode| mode <= 0o7777)),
            // Names of users are not asked for here.
            "user" | "group" => words.next().is_some_and(|id| id.parse::<u32>().is_ok()),
            _ => false,
        };
        if !good {
            return false;
        }
        actions += 1;
    }
    actions > 0
}

/// `freebsd.devices` as rules of the devfs on `/dev`. The directories of a device must be shown with it.
fn devices(draft: &mut Draft<'_>, mounts: &mut [Mount]) {
    let listed = draft.bundle.freebsd.devices.clone();
    if listed.is_empty() {
        return;
    }
    let mut rules = Vec::new();
    for (n, device) in listed.iter().enumerate() {
        let text = device.path.to_string_lossy();
        let path = text.strip_prefix("/dev/").unwrap_or(&text);
        let parts: Vec<&str> = path.split('/').collect();
        if parts.iter().any(|part| matches!(*part, "" | "." | "..")) || path.contains(char::is_whitespace) {
            draft.refuse(
                pointer(&format!("/freebsd/devices/{n}"), "path"),
                format!("{text:?} is not a path below /dev"),
            );
            continue;
        }
        for above in 1..parts.len() {
            rules.push(format!("rule=path {} unhide", parts[..above].join("/")));
        }
        let mode = device.mode.map_or_else(String::new, |mode| format!(" mode {mode:04o}"));
        rules.push(format!("rule=path {path} unhide{mode}"));
    }
    let mut seen = std::collections::BTreeSet::new();
    rules.retain(|rule| seen.insert(rule.clone()));
    match mounts.iter_mut().rfind(|mount| mount.fstype == "devfs" && mount.target == Path::new("/dev")) {
        Some(dev) => dev.data.extend(rules),
        None => draft.refuse("/freebsd/devices", "needs a mount of type devfs on /dev"),
    }
}

/// Refuses mounts that a jail may make itself, if they are not names of file systems (`allow.mount.*` of jail(8)).
pub fn check_allowed(draft: &mut Draft<'_>, allowed: &[String]) {
    for (n, name) in allowed.iter().enumerate() {
        if !jail::is_word(name) {
            draft.refuse(format!("/freebsd/jail/allow/mount/{n}"), format!("{name:?} is not a file system"));
        }
    }
}
