//! Limits of directories by the project quotas of their file system (ext4 and XFS, mounted with `prjquota`).
//!
//! A directory with a limit is a project of its own, of which all is that is made in it. Which one, the directory itself
//! says, so nothing has to be noted elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::sys;

/// Whether directories below `path`, or the one above it that is there, can have a limit.
#[must_use]
pub(super) fn offered(path: &Path) -> bool {
    let there = path.ancestors().find_map(|path| File::open(path).ok());
    there.is_some_and(|dir| sys::limits_projects(dir.as_fd()))
}

/// Makes empty directories one project, which may have so many bytes; none at all would be no limit. The caller holds a lock
/// on what they are in.
pub(super) fn limit(dirs: &[&Path], bytes: u64) -> io::Result<()> {
    let dirs: Vec<File> = dirs.iter().map(File::open).collect::<io::Result<_>>()?;
    let Some(first) = dirs.first() else { return Ok(()) };
    // Inode numbers are unique, but do not fit on a large XFS; then the next one that nobody has.
    let mut project = (first.metadata()?.ino() & 0x7fff_ffff) as u32;
    loop {
        project = project.wrapping_add(1).max(1);
        if sys::quota(first.as_fd(), project)? == (0, 0) {
            break;
        }
    }
    // The directories first: from then on a release finds the limit.
    dirs.iter().try_for_each(|dir| sys::set_project(dir.as_fd(), project))?;
    sys::set_quota(first.as_fd(), project, bytes.max(1))
}

/// Sets another limit for a directory that has one.
pub(super) fn change(dir: &Path, bytes: u64) -> io::Result<()> {
    let dir = File::open(dir)?;
    match sys::project(dir.as_fd())? {
        0 => Err(io::Error::other("it was made without a limit, and its files are counted nowhere")),
        project => sys::set_quota(dir.as_fd(), project, bytes.max(1)),
    }
}

/// How many bytes a directory has that has, or had, a limit.
pub(super) fn used(dir: &Path) -> io::Result<u64> {
    let dir = File::open(dir)?;
    match sys::project(dir.as_fd())? {
        0 => Err(io::Error::other("it lies on what was made without a limit, and is counted nowhere")),
        project => Ok(sys::quota(dir.as_fd(), project)?.1),
    }
}

/// How many bytes more a directory may have, if it has a limit.
pub(super) fn left(dir: &Path) -> io::Result<Option<u64>> {
    let dir = File::open(dir)?;
    let Some(project) = limited(&dir) else { return Ok(None) };
    let (limit, used) = sys::quota(dir.as_fd(), project)?;
    Ok((limit > 0).then(|| limit.saturating_sub(used)))
}

/// Takes the limit of a directory away, if it has one.
pub(super) fn release(dir: &Path) -> io::Result<()> {
    let dir = match File::open(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    limited(&dir).map_or(Ok(()), |project| sys::set_quota(dir.as_fd(), project, 0))
}

/// The project of a directory that may have a limit. A file system without projects, or one whose quotas are off, has none.
fn limited(dir: &File) -> Option<u32> {
    sys::project(dir.as_fd()).ok().filter(|project| *project != 0 && sys::limits_projects(dir.as_fd()))
}
