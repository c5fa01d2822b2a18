//! A pot's own layer of an overlay, and the note that its base is in use.
//!
//! ```text
//! <store>/pots/<id>/      root:root 0700: a setuid file of a pot is out of reach of the host's users
//!     owner               link to the state directory of the container that this belongs to: the mark
//!     kept                link to the base, where the pot is persistent, or the layer was made for a container that is
//!                         still to come, by a clone or an import; such a layer outlives its containers
//!     lower               names of the layers that it shares with other pots, between it and its base (layers.rs)
//!     upper  work  root
//! <store>/partial/         layers that are being made for later; each locked while its maker lives
//! <store>/bases/<name>/users/<id>
//! ```

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::base::{self, Partial, UnpackOptions, sweep_partial};
use crate::host::Trouble;
use crate::id::ContainerId;

use super::layers::{self, PARTIAL};
use super::{copy, quota};

pub(super) use super::layers::below;

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
pub(super) fn create(path: &Path, owner: &Path, disk: Option<u64>, keep: Option<&Path>) -> io::Result<()> {
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
        rooms(path)?;
        limit(path, disk)?;
        keep.map_or(Ok(()), |base| symlink(base, path.join("kept")))
    });
    if made.is_err() {
        remove(path, owner)?;
    }
    made
}

/// Makes the directories of a layer.
pub(super) fn rooms(path: &Path) -> io::Result<()> {
    let mut inner = DirBuilder::new();
    inner.mode(0o755);
    ["upper", "work", "root"].iter().try_for_each(|name| {
        inner.create(path.join(name))?;
        // Whatever the caller's umask is: upper is what the pot sees as its root.
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o755))
    })
}

/// Limits a layer in which nothing is yet.
pub(super) fn limit(path: &Path, disk: Option<u64>) -> io::Result<()> {
    let Some(bytes) = disk else { return Ok(()) };
    let lock = fs::File::open(path.parent().unwrap_or(path))?;
    lock.lock()?; // whoever else looks for a free project
    // A file that overlayfs makes in one and moves to the other must be of the same project (rename(2), EXDEV).
    quota::limit(&[&path.join("upper"), &path.join("work")], bytes)
}

/// The name of the base below the layer that was left for a container.
pub(super) fn kept(store: &Path, id: &ContainerId) -> io::Result<Option<String>> {
    match fs::read_link(store.join("pots").join(id.as_str()).join("kept")) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        other => Ok(other?.file_name().map(|name| name.to_string_lossy().into_owned())),
    }
}

/// Makes a layer that was left the one of `owner`, unless another container has it.
pub(super) fn take_up(path: &Path, owner: &Path, disk: Option<u64>, lies_on: &[PathBuf]) -> io::Result<()> {
    let dir = fs::File::open(path)?;
    dir.lock()?; // whoever else takes it up at this moment
    fs::symlink_metadata(path.join("kept"))?;
    let whose = fs::read_link(path.join("owner"))?;
    if whose != owner && whose.exists() {
        return Err(io::Error::other(format!("it is in use by the container noted in {}", whose.display())));
    }
    if below(path)? != lies_on {
        return Err(io::Error::other("it lies on other layers than a moment ago"));
    }
    match disk {
        Some(bytes) => quota::change(&path.join("upper"), layers::rest(bytes, lies_on)?)?,
        None => quota::release(&path.join("upper"))?,
    }
    let part = path.join("owner.part");
    gone(fs::remove_file(&part))?;
    symlink(owner, &part)?;
    fs::rename(part, path.join("owner"))
}

/// A layer that is left for a container that is still to come.
pub(super) struct New<'a> {
    pub(super) store: &'a Path,
    pub(super) id: &'a ContainerId,
    pub(super) owner: &'a Path,
    pub(super) base: &'a Path,
    /// The layers of others that it lies on, the topmost first.
    pub(super) layers: &'a [PathBuf],
    pub(super) disk: Option<u64>,
}

/// Leaves a layer; `fill` puts into its upper directory what it holds. All at once, or nothing.
pub(super) fn leave(new: &New<'_>, fill: impl FnOnce(BorrowedFd<'_>) -> Result<(), Trouble>) -> Result<(), Trouble> {
    let New { store, id, owner, base, layers, disk } = *new;
    let (pots, partials) = (store.join("pots"), store.join(PARTIAL));
    for dir in [&pots, &partials] {
        DirBuilder::new().mode(0o700).recursive(true).create(dir)?;
    }
    sweep_partial(&partials)?;
    let partial = Partial::make(&partials, "layer")?;
    let path = partial.path().to_owned();
    symlink(base, path.join("kept"))?;
    symlink(owner, path.join("owner"))?;
    layers::lie_on(&path, layers)?;
    rooms(&path)?;
    limit(&path, disk.map(|bytes| layers::rest(bytes, layers)).transpose()?)?;
    let upper = fs::File::open(path.join("upper"))?;
    fill(upper.as_fd())?;
    // Before and after, for in between gc may find a note without a layer.
    note(base, id)?;
    if !partial.publish_in(&fs::File::open(&pots)?, id.as_str(), true)? {
        return Err(format!("there is a layer of {id} already").into());
    }
    Ok(note(base, id)?)
}

/// Leaves a layer like that of another pot, with a copy of what `copied` hold together, the topmost first.
pub(super) fn leave_like(new: &New<'_>, of: &Path, copied: &[PathBuf]) -> Result<(), Trouble> {
    leave(new, |to| {
        let open = |layer: &PathBuf| fs::File::open(layer.join("upper"));
        if copied.is_empty() {
            return Ok(copy::like(&open(&of.into())?, &to.try_clone_to_owned()?.into())?);
        }
        let parts: Vec<fs::File> = copied.iter().map(open).collect::<io::Result<_>>()?;
        let options = UnpackOptions { allow_devices: true, ..UnpackOptions::default() };
        Ok(base::copy_upper(&parts, to, &options).map(drop)?)
    })
}

/// Notes that a base is used, if that is not noted yet.
fn note(base: &Path, id: &ContainerId) -> io::Result<()> {
    match use_base(base, id) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// The same for one that was left a moment ago, for this container; `Ok` if it has come meanwhile.
pub(super) fn forget_new(path: &Path, owner: &Path) -> Result<(), Trouble> {
    match fs::read_link(path.join("owner")) {
        Ok(whose) if whose == owner && !owner.exists() => {}
        _ => return Ok(()),
    }
    let id = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Ok(forget(layers::store(path), &ContainerId::new(id)?).map(drop)?)
}

/// Removes a layer that was left and that no container has.
pub(super) fn forget(store: &Path, id: &ContainerId) -> io::Result<bool> {
    let path = store.join("pots").join(id.as_str());
    let dir = match fs::File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    dir.lock()?; // whoever takes it up at this moment
    let base = match fs::read_link(path.join("kept")) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(false),
        other => other?,
    };
    let owner = fs::read_link(path.join("owner"))?;
    if owner.exists() {
        return Err(io::Error::other(format!("it is in use by the container noted in {}", owner.display())));
    }
    fs::remove_file(path.join("kept"))?;
    remove(&path, &owner)?;
    release_base(&base, id)?;
    Ok(true)
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
    quota::release(&path.join("upper"))?;
    layers::let_go(path)?;
    // The mark goes last.
    empty(dir, device, Some("owner"))?;
    gone(fs::remove_file(path.join("owner")))?;
    gone(fs::remove_dir(path))
}

/// Removes the layers whose container is no more, those that no pot lies on any more, and then the notes of bases of pots
/// that have no layer. Only what is marked as of `root` is touched.
pub(super) fn sweep(store: &Path, root: &Path) -> io::Result<Vec<PathBuf>> {
    let pots = store.join("pots");
    let mut swept = sweep_partial(&store.join(PARTIAL)).map_err(io::Error::other)?;
    for path in listing(&pots)? {
        let owner = match fs::read_link(path.join("owner")) {
            Ok(owner) => owner,
            // All but the directory itself is removed; a container in the making has its entry before that.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let making = path.file_name().is_some_and(|id| root.join(id).exists());
                if !making && fs::remove_dir(&path).is_ok() {
                    swept.push(path);
                }
                continue;
            }
            Err(_) => continue,
        };
        let kept = path.join("kept").is_symlink();
        if owner.parent() == Some(root) && !owner.exists() && !kept {
            remove(&path, &owner)?;
            swept.push(path);
        }
    }
    swept.extend(layers::sweep(store)?);
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

pub(super) fn listing(dir: &Path) -> io::Result<Vec<PathBuf>> {
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

pub(super) fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
