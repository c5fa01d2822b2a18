//! Layers that several pots lie on: what a pot had of its own when it was cloned.
//!
//! ```text
//! <store>/layers/             root:root 0700; its flock is held by whoever adds or takes away a layer
//!     <number>/               the layer of a pot as it was, under the number of its inode
//!         upper               what it holds, which nobody changes any more
//!         ..                  what else the layer of a pot has, and this one has no use for
//! <store>/pots/<id>/lower     link to the names of the layers between the pot's own and its base, the topmost first: `12:7`
//! ```
//!
//! Who uses a layer is what these links say, and nothing else. A pot's own layer is frozen by one renameat2(2), in which it
//! changes places with the one that is prepared to be the pot's next: before, that one is a layer that no link names, which
//! goes with the next `gc`; after, the pot lies on what it had.
//!
//! Only a pot that is on a layer already gives others to lie on it. So a layer that no link names is nobody's, and nobody's
//! to come.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use crate::base::{Partial, remove_tree};
use crate::plan::clone::Layer;

use super::layer::{gone, limit, listing, rooms};
use super::{copy, name_of, open_path, quota, sys};

/// The directory of what is in the making.
pub(super) const PARTIAL: &str = "partial";

/// The store that a layer is in.
pub(super) fn store(layer: &Path) -> &Path {
    layer.ancestors().nth(2).unwrap_or(layer)
}

/// The layers between a pot's own and its base, the topmost first.
pub(super) fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(names(path)?.iter().map(|name| store(path).join("layers").join(name)).collect())
}

/// Their names.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let text = match fs::read_link(path.join("lower")) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        other => other?,
    };
    let text = text.to_string_lossy();
    let names: Vec<String> = text.split(':').map(String::from).collect();
    if names.iter().any(|name| name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} names no layers", path.display())));
    }
    Ok(names)
}

/// Notes what a new layer lies on.
pub(super) fn lie_on(path: &Path, layers: &[PathBuf]) -> io::Result<()> {
    let names: Vec<_> = layers.iter().filter_map(|layer| Some(layer.file_name()?.to_string_lossy())).collect();
    if names.is_empty() { Ok(()) } else { symlink(names.join(":"), path.join("lower")) }
}

/// The names of the layers that pots lie on, but for this one.
fn used(store: &Path, except: Option<&Path>) -> io::Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for path in listing(&store.join("pots"))? {
        if except != Some(&path) {
            all.extend(names(&path)?);
        }
    }
    Ok(all)
}

fn lock(store: &Path) -> io::Result<File> {
    let layers = store.join("layers");
    DirBuilder::new().mode(0o700).recursive(true).create(&layers)?;
    let dir = File::open(layers)?;
    dir.lock()?;
    Ok(dir)
}

/// Looks at the layer of a pot that is to be cloned.
pub(super) fn look(path: &Path) -> io::Result<Layer> {
    let upper = path.join("upper");
    let empty = is_empty(&upper)?;
    Ok(Layer {
        layers: below(path)?,
        number: fs::metadata(path)?.ino(),
        still: !empty && still(store(path), &upper)?,
        path: path.into(),
        empty,
    })
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(dir)?.next().is_none())
}

/// Whether an upper directory can be frozen: no overlay has it, and its file system can exchange directories.
///
/// The kernel does not make an overlay with `index=on` over what another one has as its upper directory (kernel
/// documentation, "Overlay Filesystem", "Index feature"), whoever holds that one: a process, or a descriptor. Where it does
/// not keep to that (without root, or on a file system without handles of files), it does not for directories of our own
/// either.
fn still(store: &Path, upper: &Path) -> io::Result<bool> {
    let partials = store.join(PARTIAL);
    DirBuilder::new().mode(0o700).recursive(true).create(&partials)?;
    let partial = Partial::make(&partials, "probe").map_err(io::Error::other)?;
    let own = ["a", "b", "c", "d"].map(|name| partial.path().join(name));
    own.iter().try_for_each(fs::create_dir)?;
    let overlay = |lower: &Path, upper: &Path, work: &Path| -> io::Result<OwnedFd> {
        let [lower, upper, work] = [lower, upper, work].map(open_path);
        let (lower, upper, work) = (lower?, upper?, work?);
        let [lower, upper, work] = [&lower, &upper, &work].map(|fd| CString::new(name_of(fd.as_fd())));
        sys::exclusive_overlay(&lower?, &upper?, &work?)
    };
    let [a, b, c, d] = &own;
    let Ok(first) = overlay(upper, a, b) else { return Ok(false) };
    let told = overlay(a, c, d).is_err_and(|e| e.raw_os_error() == Some(libc::EBUSY));
    drop(first);
    Ok(told && exchange(c, d).is_ok())
}

fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    sys::exchange(&CString::new(one.as_os_str().as_bytes())?, &CString::new(other.as_os_str().as_bytes())?)
}

/// Makes the layer of a pot one that it lies on. The caller holds its container's lock, and knows that it can be frozen.
pub(super) fn freeze(path: &Path, layer: &Path) -> io::Result<()> {
    let store = store(path);
    let layers = lock(store)?;
    let Some(name) = layer.file_name().and_then(|name| name.to_str()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if fs::metadata(path)?.ino().to_string() != name {
        return Err(io::Error::other("it has become another one"));
    }
    let partial = Partial::make(&store.join(PARTIAL), "layer").map_err(io::Error::other)?;
    let next = partial.path().to_owned();
    for link in ["owner", "kept"] {
        match fs::read_link(path.join(link)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => symlink(other?, next.join(link))?,
        }
    }
    let mut lies_on = below(path)?;
    lies_on.insert(0, layer.into());
    lie_on(&next, &lies_on)?;
    rooms(&next)?;
    let upper = path.join("upper");
    copy::like(&File::open(&upper)?, &File::open(next.join("upper"))?)?;
    limit(&next, quota::left(&upper)?)?;
    if layer.exists() {
        // Of a freeze that died; but a store that was copied has other numbers.
        if used(store, None)?.contains(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is there already", layer.display())));
        }
        remove(&layers, layer)?;
    }
    if !partial.publish_in(&layers, name, false).map_err(io::Error::other)? {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    exchange(path, layer).inspect_err(|_| {
        if let Err(e) = remove(&layers, layer) {
            tracing::warn!("remove {}: {e}", layer.display());
        }
    })
}

/// Makes the topmost layer that a pot lies on its own again, if nobody else lies on it and the pot has nothing of its own.
/// Else it stays, which is as good. Whether it was done.
pub(super) fn thaw(path: &Path, layer: &Path) -> io::Result<bool> {
    let (store, upper) = (store(path), path.join("upper"));
    let layers = lock(store)?;
    if below(path)?.first().is_none_or(|first| first != layer) || !is_empty(&upper)? {
        return Ok(false);
    }
    let name = layer.file_name().unwrap_or_default().to_string_lossy();
    if used(store, Some(path))?.contains(name.as_ref()) {
        return Ok(false);
    }
    // No container may take it up now, and if there is one, it must not come to run.
    let container = fs::read_link(path.join("owner"))?;
    let mut held = Vec::new();
    for dir in [path, &container] {
        let dir = match File::open(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        match dir.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(e)) => return Err(e),
            Ok(()) => held.push(dir),
        }
    }
    if !still(store, &upper)? {
        return Ok(false);
    }
    exchange(path, layer)?;
    remove(&layers, layer).map(|()| true)
}

/// Takes the layers that only this pot lies on into its own directory, with which they go.
pub(super) fn let_go(path: &Path) -> io::Result<()> {
    if names(path)?.is_empty() {
        return Ok(());
    }
    let _lock = lock(store(path))?;
    let others = used(store(path), Some(path))?;
    for (name, layer) in names(path)?.iter().zip(below(path)?) {
        if !others.contains(name) {
            quota::release(&layer.join("upper"))?;
            gone(fs::rename(layer, path.join(name)))?;
        }
    }
    // From now on it lies on nothing, and who comes next may take what it shares with this one.
    gone(fs::remove_file(path.join("lower")))
}

/// Removes the layers that no pot lies on, and makes those their pot's own again that it alone lies on and has nothing over.
/// Says which are layers no more.
pub(super) fn sweep(store: &Path) -> io::Result<Vec<PathBuf>> {
    let mut swept = Vec::new();
    if listing(&store.join("layers"))?.is_empty() {
        return Ok(swept);
    }
    for path in listing(&store.join("pots"))? {
        let Some(top) = below(&path)?.into_iter().next() else { continue };
        match thaw(&path, &top) {
            Ok(true) => swept.push(top),
            Ok(false) => {}
            // The pot goes at this moment.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    let layers = lock(store)?;
    let used = used(store, None)?;
    for layer in listing(&store.join("layers"))? {
        if !used.contains(layer.file_name().unwrap_or_default().to_string_lossy().as_ref()) {
            remove(&layers, &layer)?;
            swept.push(layer);
        }
    }
    Ok(swept)
}

/// Removes a layer. The caller holds the lock of all.
fn remove(layers: &File, layer: &Path) -> io::Result<()> {
    quota::release(&layer.join("upper"))?;
    let name = layer.file_name().unwrap_or_default();
    remove_tree(layers.as_fd(), &CString::new(name.as_bytes())?)
}

/// How many of so many bytes, which a pot may have over its base, are left for its own layer.
pub(super) fn rest(bytes: u64, layers: &[PathBuf]) -> io::Result<u64> {
    layers.iter().try_fold(bytes, |rest, layer| Ok(rest.saturating_sub(quota::used(&layer.join("upper"))?)))
}
