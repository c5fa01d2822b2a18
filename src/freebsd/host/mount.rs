//! Mounts of the host below the root of a jail, and files in it, without ever following a link of the image out of it.
//!
//! nmount(2) takes only a path. So a child changes into the directory that was found, mounts at `.`, and looks at what
//! it stands on then: it must be the new file system, at a place below the root. Whatever is taken away is named by its
//! file system's id, which no link and no rename changes.

mod sys;

use std::path::{Path, PathBuf};

use nix::unistd::fchdir;

use crate::freebsd::wire;
use crate::host::Trouble;
use crate::op::Mount;

use super::beneath::{self, Missing, Place};
use super::sys::{forked, nmount};

use sys::Mounted;

/// Writes a whole file beneath `root`, replacing what has its name.
pub(super) fn write(root: &Path, path: &Path, text: &str, mode: u32) -> Result<(), Trouble> {
    Ok(beneath::write(root, path, text.as_bytes(), mode)?)
}

/// Makes a link beneath `root`, replacing what has its name.
pub(super) fn link(root: &Path, path: &Path, to: &Path) -> Result<(), Trouble> {
    Ok(beneath::link(root, path, to)?)
}

/// Makes the mount point that `mount` needs beneath `root`, if nothing has that name.
pub(super) fn target(root: &Path, mount: &Mount) -> Result<(), Trouble> {
    place(root, mount).map(drop)
}

/// `kern.osreldate` of the first kernel that is trusted to mount on a file. FreeBSD 13.2 takes the length of its path
/// from a variable that was never set, and panics (sys/kern/vfs_cache.c, `vn_path_to_global_path_hardlink`).
pub(super) const MOUNTS_FILES: i32 = 1_400_000;

fn place(root: &Path, mount: &Mount) -> Result<Place, Trouble> {
    let of_file = mount.fstype == "nullfs"
        && std::fs::metadata(&mount.source).map_err(|e| format!("{}: {e}", mount.source.display()))?.is_file();
    Ok(if of_file {
        if super::sys::release_date()? < MOUNTS_FILES {
            let why = "this kernel may panic when a file is mounted: it takes FreeBSD 14";
            return Err(format!("{}: {why}", mount.source.display()).into());
        }
        beneath::file(root, &mount.target)?
    } else {
        beneath::directory(root, &mount.target, Missing::Made)?
    })
}

/// Mounts beneath `root`.
pub(super) fn mount(root: &Path, mount: &Mount) -> Result<(), Trouble> {
    let ruleset = mount.data.iter().find_map(|word| word.strip_prefix("ruleset="));
    let ruleset = ruleset.and_then(|number| number.parse::<u16>().ok()).unwrap_or(0);
    if mount.fstype == "devfs" && ruleset != 0 {
        must_hide(ruleset)?;
    }
    let real = root.canonicalize()?;
    forked(|| {
        let place = place(root, mount)?;
        fchdir(place.dir())?;
        let at = place.name().map_or(Path::new("."), Path::new);
        let (rules, data): (Vec<String>, Vec<String>) =
            mount.data.iter().cloned().partition(|word| word.starts_with("rule="));
        let source = mount.source.to_string_lossy();
        let mut pairs = wire::mount(&mount.fstype, &source, &mount.options, &data);
        pairs.push((wire::text("fspath"), Some(wire::text(&at.to_string_lossy()))));
        nmount(&pairs)?;
        // For a directory, the kernel has moved us onto what is mounted now (sys/kern/vfs_mount.c, `mountcheckdirs`).
        let mounted = sys::mounted(at)?;
        let result = check(&mounted, mount, &real).and_then(|()| {
            rules.iter().try_for_each(|rule| {
                let rule = wire::devfs_rule(rule.trim_start_matches("rule=")).ok_or("not a rule of devfs")?;
                Ok(sys::apply_rule(at, &rule)?)
            })
        });
        if result.is_err() {
            sys::unmount(&mounted.id)?;
        }
        result.map(|()| Vec::new())
    })
    .map(drop)
}

/// Whether what we stand on is what was to be mounted, below the root.
fn check(mounted: &Mounted, mount: &Mount, root: &Path) -> Result<(), Trouble> {
    if mounted.fstype == mount.fstype && mounted.on.starts_with(root) {
        return Ok(());
    }
    Err(format!("{} was mounted on {}, outside of the root", mounted.fstype, mounted.on.display()).into())
}

/// Takes away what [`mount`] made: the latest mount beneath `root` of this type and source that was not there before.
pub(super) fn unmount(root: &Path, mount: &Mount, before: &[String]) -> Result<(), Trouble> {
    let Ok(root) = root.canonicalize() else { return Ok(()) }; // gone, and nothing can be mounted beneath it
    let source = if mount.fstype == "nullfs" { mount.source.as_path() } else { Path::new(&mount.fstype) };
    let ours = |one: &&Mounted| {
        one.fstype == mount.fstype && one.from == source && one.on.starts_with(&root) && !before.contains(&one.id)
    };
    let all = sys::all()?;
    let exact: PathBuf = root.join(mount.target.strip_prefix("/").unwrap_or(&mount.target));
    let found = all.iter().rfind(|one| ours(one) && one.on == exact).or_else(|| all.iter().rfind(ours));
    let Some(found) = found else { return Ok(()) };
    Ok(sys::unmount(&found.id)?)
}

/// Unmounts all beneath `root` that was not there `before`, the latest first.
pub(super) fn unmount_all(root: &Path, before: &[String]) -> Result<(), Trouble> {
    let Ok(root) = root.canonicalize() else { return Ok(()) };
    for one in sys::all()?.iter().rev() {
        if one.on != root && one.on.starts_with(&root) && !before.contains(&one.id) {
            sys::unmount(&one.id).map_err(|e| format!("unmount {}: {e}", one.on.display()))?;
        }
    }
    Ok(())
}

/// The ids of what is mounted beneath `root`.
pub(super) fn beneath(root: &Path) -> std::io::Result<Vec<String>> {
    let Ok(root) = root.canonicalize() else { return Ok(Vec::new()) };
    Ok(sys::all()?.into_iter().filter(|one| one.on != root && one.on.starts_with(&root)).map(|one| one.id).collect())
}

/// Where nullfs(5) shows a directory.
pub(super) fn from(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let Ok(path) = path.canonicalize() else { return Ok(Vec::new()) };
    Ok(sys::all()?.into_iter().filter(|one| one.fstype == "nullfs" && one.from == path).map(|one| one.on).collect())
}

/// Fails unless a ruleset hides what it does not name. One that does not exist hides nothing: devfs(5) makes it, empty,
/// and shows every device of the host.
fn must_hide(ruleset: u16) -> Result<(), Trouble> {
    if hides(ruleset, 8)? {
        return Ok(());
    }
    Err(format!(
        "devfs ruleset {ruleset} hides nothing on this host, and would show all of its devices: service devfs start"
    )
    .into())
}

/// Whether a ruleset, or one that it includes, has a rule that hides everything. `depth`: sets may include each other.
fn hides(ruleset: u16, depth: u8) -> Result<bool, Trouble> {
    let mut after = 0;
    while let Some(rule) = sys::rule_after(ruleset, after)? {
        if rule.hides_all {
            return Ok(true);
        }
        if let (Some(included), true) = (rule.includes, depth > 0)
            && hides(included, depth - 1)?
        {
            return Ok(true);
        }
        after = rule.number;
    }
    Ok(false)
}
