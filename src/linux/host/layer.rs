//! A pot's own layer of an overlay, and the note that its base is in use.
//!
//! ```text
//! <store>/pots/<id>/      root:root 0700: a setuid file of a pot is out of reach of the host's users
//!     owner               link to the state directory of the container that this belongs to: the mark
//!     upper  work  root
//! <store>/bases/<name>/users/<id>
//! ```

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::id::ContainerId;

/// Notes that the pot uses the base.
pub(super) fn use_base(base: &Path, id: &ContainerId) -> io::Result<()> {
    let path = base.join("users").join(id.as_str());
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

/// Takes the note back.
pub(super) fn release_base(base: &Path, id: &ContainerId) -> io::Result<()> {
    gone(fs::remove_file(base.join("users").join(id.as_str())))
}

/// Makes the layer. The mark comes first: a layer without one is nobody's, and is never removed.
pub(super) fn create(path: &Path, owner: &Path) -> io::Result<()> {
    let mut private = DirBuilder::new();
    private.mode(0o700);
    match private.create(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), |above| private.recursive(true).create(above))?;
            private.recursive(false).create(path)?;
        }
        other => other?,
    }
    let made = symlink(owner, path.join("owner")).and_then(|()| {
        let mut inner = DirBuilder::new();
        inner.mode(0o755);
        ["upper", "work", "root"].iter().try_for_each(|name| {
            inner.create(path.join(name))?;
            // Whatever the caller's umask is: upper is what the pot sees as its root.
            fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o755))
        })
    });
    if made.is_err() {
        remove(path, owner)?;
    }
    made
}

/// Removes the layer if it is marked as `owner`'s.
pub(super) fn remove(path: &Path, owner: &Path) -> io::Result<()> {
    match fs::read_link(path.join("owner")) {
        Ok(whose) if whose == owner => {}
        Ok(_) => return Ok(()), // somebody else's
        // Killed between mkdir and symlink: empty, or not ours.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return gone(fs::remove_dir(path)).or(Ok(())),
        Err(e) => return Err(e),
    }
    let dir = Dir::open(path, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let device = nix::sys::stat::fstat(&dir)?.st_dev;
    // The mark goes last.
    empty(dir, device, Some("owner"))?;
    gone(fs::remove_file(path.join("owner")))?;
    gone(fs::remove_dir(path))
}

/// Removes the layers whose container is no more, and then the notes of bases of pots that have no layer. Only what is
/// marked as of `root` is touched.
pub(super) fn sweep(store: &Path, root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut swept = Vec::new();
    let pots = store.join("pots");
    for path in listing(&pots)? {
        let Ok(owner) = fs::read_link(path.join("owner")) else { continue };
        if owner.parent() == Some(root) && !owner.exists() {
            remove(&path, &owner)?;
            swept.push(path);
        }
    }
    for base in listing(&store.join("bases"))? {
        for note in listing(&base.join("users"))? {
            let Some(id) = note.file_name() else { continue };
            // A container in the making has its entry before its note.
            if !pots.join(id).exists() && !root.join(id).exists() {
                gone(fs::remove_file(&note))?;
                swept.push(note);
            }
        }
    }
    Ok(swept)
}

fn listing(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        other => other?.map(|item| item.map(|item| item.path())).collect(),
    }
}

/// Removes everything in `dir` but `keep`, by descriptor, without following a link and without crossing to another
/// file system: what is mounted there is not ours to empty.
fn empty(mut dir: Dir, device: u64, keep: Option<&str>) -> io::Result<()> {
    let names: Vec<_> = dir.iter().collect::<Result<_, _>>()?;
    for entry in names {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") || keep.is_some_and(|keep| keep.as_bytes() == name.to_bytes()) {
            continue;
        }
        match unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => continue,
            Err(Errno::EISDIR | Errno::EPERM) => {}
            Err(e) => return Err(e.into()),
        }
        let stat = fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if stat.st_dev != device {
            let what = format!("{} is another file system", name.to_string_lossy());
            return Err(io::Error::other(what));
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let below = match Dir::openat(&dir, name, flags, Mode::empty()) {
            // overlayfs leaves work/work with mode 0, and a caller without root cannot read what it made unreadable.
            Err(Errno::EACCES) => {
                let all = Mode::S_IRWXU;
                nix::sys::stat::fchmodat(&dir, name, all, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
                Dir::openat(&dir, name, flags, Mode::empty())?
            }
            other => other?,
        };
        empty(below, device, None)?;
        match unlinkat(&dir, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
