//! Mounts of the host below the root of a jail, and files in it, without ever following a link of the image out of it.
//!
//! nmount(2) takes only a path. So a child changes into the directory that was found, mounts at `.`, and looks at what
//! it stands on then: it must be the new file system, at a place below the root. For a file, on which nobody can stand, the
//! child gives a path on which the kernel follows no link of the image. Whatever is taken away is named by its file
//! system's id, which no link and no rename changes.

mod sys;

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, fchmod, fstat, fstatat, stat};
use nix::unistd::{fchdir, mkdir, symlinkat};

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
    let before = sys::mounted(place.dir())?;
    nmount(&here(&options))?;
    // The kernel has moved us onto what is mounted now (sys/kern/vfs_mount.c, `mountcheckdirs`).
    let top = open(".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mounted = sys::mounted(top.as_fd())?;
    if mounted.id == before.id {
        return Err(format!("{} was mounted and has gone again", mount.fstype).into()); // and this must not follow it
    }
    let result = check(&mounted, mount, root).and_then(|()| {
        if copied {
            copy_up(place, &top)?;
        }
        if copied && mount.options.iter().any(|word| word == "ro") {
            nmount(&here(&["update".into(), "ro".into()]))?;
        }
        rules.iter().try_for_each(|rule| {
            let rule = wire::devfs_rule(rule.trim_start_matches("rule=")).ok_or("not a rule of devfs")?;
            Ok(sys::apply_rule(top.as_fd(), &rule)?)
        })
    });
    if result.is_err() {
        sys::unmount(&mounted.id)?;
    }
    result
}

/// Copies what the directory has below what is mounted on it now, where we stand. It is named by its descriptor alone: `.`
/// there would be what is mounted.
fn copy_up(below: &Place, top: &OwnedFd) -> Result<(), Trouble> {
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
    nix::unistd::fchown(top, Some(stat.st_uid.into()), Some(stat.st_gid.into()))?;
    Ok(fchmod(top, Mode::from_bits_truncate(stat.st_mode & 0o7777))?)
}

/// Nobody can stand on a file, so nmount(2) looks its path up, and would follow what has become a link meanwhile. But a
/// lookup follows only so many links, whoever made them, and this one has done so when it begins at `/`: see
/// [`no_more_links`]. From there it can take real directories only, downwards, and a real file. Whoever renames some of
/// them meanwhile leads it to another file beneath the root, which is noticed and taken back.
///
/// (In a process whose root is the directory, no link would lead out of it; but then the kernel takes down a name that is
/// wrong for everybody else: sys/kern/vfs_cache.c, `vn_path_to_global_path_hardlink`.)
fn mount_file(place: &Place, name: &OsStr, mount: &Mount, root: &Path) -> Result<(), Trouble> {
    fchdir(place.dir())?;
    let on = std::env::current_dir()?.join(name);
    if !on.starts_with(root) {
        return Err(format!("{} is outside of the root", on.display()).into());
    }
    let (links, mut path) = no_more_links()?;
    path.extend_from_slice(on.as_os_str().as_bytes());
    path.push(0);
    let mut pairs = wire::mount(&mount.fstype, &mount.source.to_string_lossy(), &mount.options, &mount.data);
    pairs.push((wire::text("fspath"), Some(path)));
    let before = sys::all()?;
    fchdir(&links)?;
    nmount(&pairs).map_err(|refused| match why(place, name, refused.errno) {
        Some(why) => Trouble::from(format!("{refused}: {why}")),
        None => refused.into(),
    })?;
    let ours = |one: &Mounted| {
        one.fstype == mount.fstype
            && one.from == mount.source
            && one.on.starts_with(root)
            && before.iter().all(|old| old.id != one.id)
    };
    let there = openat(place.dir(), name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
    if there.is_ok_and(|file| sys::mounted(file.as_fd()).is_ok_and(|one| ours(&one) && one.on == on)) {
        return Ok(());
    }
    let strayed = sys::all()?.into_iter().rfind(|one| ours(one) && one.on.file_name() == Some(name));
    if let Some(one) = &strayed {
        sys::unmount(&one.id)?;
    }
    let to = strayed.map_or_else(String::new, |one| format!(", and it was mounted on {}", one.on.display()));
    Err(format!("{} was moved away meanwhile{to}", on.display()).into())
}

/// Why the kernel does not mount on a file, where its own word does not tell (sys/kern/vfs_mount.c, `vfs_domount` and
/// `vfs_domount_first`).
fn why(place: &Place, name: &OsStr, errno: i32) -> Option<String> {
    match Errno::from_raw(errno) {
        Errno::EINVAL => {
            let stat = fstatat(place.dir(), name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
            let names = stat.st_nlink;
            (names > 1).then(|| format!("the file there has {names} names (hard links), and may have but one"))
        }
        Errno::EBUSY => Some("something is mounted on the file there already".into()),
        Errno::ELOOP => Some("a link took the place of the file, or of a directory above it".into()),
        _ => None,
    }
}

/// Has two links of potrun's own: `l` leads to this directory itself, `r` to `/`. They stay, as the ledger beside them
/// does, for they are the same for everybody.
const LINKS: &str = "/var/run/potrun.links";

/// A directory, and a path from there to `/`, after which the kernel follows no link: the path has as many as a lookup
/// may have (sys/param.h, `MAXSYMLINKS`), and one more is `ELOOP`. Whether that is so is tried out first.
fn no_more_links() -> Result<(OwnedFd, Vec<u8>), Trouble> {
    let trouble = |e: Errno| format!("{LINKS}: {e}");
    match mkdir(LINKS, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => return Err(trouble(e).into()),
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let dir = open(LINKS, flags, Mode::empty()).map_err(trouble)?;
    let found = fstat(&dir).map_err(trouble)?;
    if found.st_uid != 0 || found.st_mode & 0o022 != 0 {
        return Err(format!("{LINKS}: others than root can write there").into());
    }
    for (name, to) in [("l", "."), ("r", "/")] {
        match symlinkat(to, &dir, name) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(trouble(e).into()),
        }
    }
    let path = "l/".repeat(beneath::LINKS - 1) + "r";
    let (top, end) = (stat("/")?, fstatat(&dir, path.as_str(), AtFlags::empty()).map_err(trouble)?);
    let one_more = fstatat(&dir, format!("l/{path}").as_str(), AtFlags::empty());
    if (end.st_dev, end.st_ino) != (top.st_dev, top.st_ino) || one_more.err() != Some(Errno::ELOOP) {
        return Err(format!("{LINKS}: a lookup does not follow {} links and no more", beneath::LINKS).into());
    }
    Ok((dir, path.into_bytes()))
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
