//! Mounts of the host below the root of a jail, and files in it, without ever following a link of the image out of it.

use std::path::Path;

use crate::host::Trouble;
use crate::op::Mount;

/// Writes a whole file beneath `root`, replacing what has its name.
pub(super) fn write(_root: &Path, _path: &Path, _text: &str, _mode: u32) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Makes the mount point that `mount` needs beneath `root`, if nothing has that name.
pub(super) fn target(_root: &Path, _mount: &Mount) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Mounts beneath `root`.
pub(super) fn mount(_root: &Path, _mount: &Mount) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Takes a mount beneath `root` away.
pub(super) fn unmount(_root: &Path, _target: &Path) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}
