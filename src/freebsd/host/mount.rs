//! Mounts of the host below the root of a jail, and files in it, without ever following a link of the image out of it.
//!
//! nmount(2) takes only a path. So a child changes into the directory that was found, mounts at `.`, and looks at what
//! it stands on then: it must be the new file system, at a place below the root. A file, on which nobody can stand, is looked
//! for among all that is mounted. Whatever is taken away is named by its file system's id, which no link and no rename
//! changes.

mod sys;

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fchmod, fstat, fstatat};
use nix::unistd::fchdir;

use crate::base;
use crate::freebsd::mounts::COPY_UP;
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
        match place.name() {
            Some(name) => mount_file(&place, name, mount, &real)?,
            None => mount_directory(&place, mount, &real)?,
        }
        Ok(Vec::new())
    })
    .map(drop)
}

fn mount_directory(place: &Place, mount: &Mount, root: &Path) -> Result<(), Trouble> {
    fchdir(place.dir())?;
    let (rules, data): (Vec<String>, Vec<String>) =
        mount.data.iter().cloned().partition(|word| word.starts_with("rule="));
    let copied = mount.options.iter().any(|word| word == COPY_UP);
    let (mut options, source) = (mount.options.clone(), mount.source.to_string_lossy());
    // Read-only only when all is copied.
    options.retain(|word| word != COPY_UP && !(copied && word == "ro"));
    let here = |options: &[String]| {
        let mut pairs = wire::mount(&mount.fstype, &source, options, &data);
        pairs.push((wire::text("fspath"), Some(wire::text("."))));
        pairs
    };
    nmount(&here(&options))?;
    // The kernel has moved us onto what is mounted now (sys/kern/vfs_mount.c, `mountcheckdirs`).
    let top = Path::new(".");
    let mounted = sys::mounted(top)?;
    let result = check(&mounted, mount, root).and_then(|()| {
        if copied {
            copy_up(place)?;
        }
        if copied && mount.options.iter().any(|word| word == "ro") {
            nmount(&here(&["update".into(), "ro".into()]))?;
        }
        rules.iter().try_for_each(|rule| {
            let rule = wire::devfs_rule(rule.trim_start_matches("rule=")).ok_or("not a rule of devfs")?;
            Ok(sys::apply_rule(top, &rule)?)
        })
    });
    if result.is_err() {
        sys::unmount(&mounted.id)?;
    }
    result
}

/// Copies what the directory has below what is mounted on it now, where we stand. It is named by its descriptor alone: `.`
/// there would be what is mounted.
fn copy_up(below: &Place) -> Result<(), Trouble> {
    let top = nix::fcntl::open(".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let options = base::UnpackOptions { sync: false, ..base::UnpackOptions::default() };
    let mut listing = Dir::from_fd(below.dir().try_clone_to_owned()?)?;
    for item in listing.iter() {
        let item = item?;
        let name = item.file_name().to_bytes();
        if name != b"." && name != b".." {
            base::copy(base::Source { dir: below.dir(), name, to: name }, top.as_fd(), &options)?;
        }
    }
    let stat = fstat(below.dir())?;
    nix::unistd::fchown(&top, Some(stat.st_uid.into()), Some(stat.st_gid.into()))?;
    Ok(fchmod(&top, Mode::from_bits_truncate(stat.st_mode & 0o7777))?)
}

/// Nobody can stand on a file, so nmount(2) looks its name up, and follows what has become a link since it was looked at.
/// Where it came to is what the kernel says of what is new, and if that is outside, it is taken away at once.
///
/// (In a process whose root is the directory, no link would lead out of it; but then the kernel takes down a name that is
/// wrong for everybody else: sys/kern/vfs_cache.c, `vn_path_to_global_path_hardlink`.)
fn mount_file(place: &Place, name: &OsStr, mount: &Mount, root: &Path) -> Result<(), Trouble> {
    fchdir(place.dir())?;
    let stat = fstatat(place.dir(), name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(format!("{} is no file any more", name.display()).into());
    }
    let before = sys::all()?;
    let mut pairs = wire::mount(&mount.fstype, &mount.source.to_string_lossy(), &mount.options, &mount.data);
    pairs.push((wire::text("fspath"), Some(wire::text(&name.to_string_lossy()))));
    nmount(&pairs)?;
    let new = |one: &&Mounted| {
        one.fstype == mount.fstype && one.from == mount.source && before.iter().all(|old| old.id != one.id)
    };
    let after = sys::all()?;
    // Of several that came meanwhile, those of others are where theirs are to be.
    let (inside, outside): (Vec<_>, Vec<_>) = after.iter().filter(new).partition(|one| one.on.starts_with(root));
    if !inside.is_empty() {
        return Ok(());
    }
    match outside.as_slice() {
        [one] => {
            sys::unmount(&one.id)?;
            check(one, mount, root)
        }
        several => {
            let places: Vec<_> = several.iter().map(|one| one.on.display().to_string()).collect();
            Err(format!("{} was mounted outside of the root, on one of {places:?}", mount.source.display()).into())
        }
    }
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
