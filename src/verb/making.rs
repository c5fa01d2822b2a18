//! What is made outside of the store, bundles and exported files: whatever ends potrun, nothing of it stays half done.
//!
//! It grows under a name of its own, and a note in the store says where. Whoever finds a note whose maker is dead takes
//! away what had grown, or finishes it where that alone was missing. Steps that were taken for it are in a journal, and are
//! taken back.
//!
//! ```text
//! <store>/making/.NAME.partial-*/   locked while its maker lives
//!     to      link to what is made: a file, or the directory of a bundle
//!     for     link to the id of a container for which data is left in the store before the bundle gets its name
//!     root    link to the name of the root in the bundle
//!     part    link to what grows: beside `to`, or in it where that is a directory that was there before
//!     journal what must be taken back unless `part` has become `to`
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::apply::{apply, take_back};
use crate::base::{Partial, remove_tree, sweep_partial_with};
use crate::error::{Doing, Error, Result};
use crate::host::This;
use crate::host::storage::Storage;
use crate::id::ContainerId;
use crate::journal::Journal;
use crate::op::Op;
use crate::store::Lock;

const CONFIG: &str = "config.json";
const JOURNAL: &str = "journal";

/// Something in the making, of which nothing is left unless it is finished.
pub(super) struct Making {
    note: Partial,
    part: PathBuf,
    to: PathBuf,
    done: bool,
}

impl Making {
    /// Notes that `to` is made; `into`: that it is filled, for it is there.
    fn begin(storage: &Storage, to: &Path, into: bool) -> Result<Self> {
        let doing = || format!("make {}", to.display());
        sweep(storage)?;
        let notes = notes(storage);
        DirBuilder::new().mode(0o700).recursive(true).create(&notes).doing(doing)?;
        let to = std::path::absolute(to).doing(doing)?;
        let note = Partial::make(&notes, "made").doing(doing)?;
        let dir = if into { Some(to.as_path()) } else { to.parent() };
        let (Some(dir), Some(name)) = (dir, note.path().file_name()) else {
            return Err(Error::caller(format!("{} is no name of something new", to.display())));
        };
        let part = dir.join(name);
        symlink(&to, note.path().join("to")).and_then(|()| symlink(&part, note.path().join("part"))).doing(doing)?;
        Ok(Self { note, part, to, done: false })
    }

    fn say(&self, name: &str, what: impl AsRef<Path>) -> Result<()> {
        symlink(what, self.note.path().join(name)).doing(|| format!("make {}", self.to.display()))
    }

    /// A new file, and its contents to be written.
    pub(super) fn file(storage: &Storage, to: &Path) -> Result<(Self, File)> {
        let making = Self::begin(storage, to, false)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&making.part);
        Ok((making, file.doing(|| format!("create {}", to.display()))?))
    }

    /// The new directory of a bundle.
    pub(super) fn bundle(storage: &Storage, to: &Path) -> Result<Self> {
        if to.symlink_metadata().is_ok() {
            let there: io::Result<Self> = Err(io::ErrorKind::AlreadyExists.into());
            return there.doing(|| format!("make directory {}", to.display()));
        }
        Self::begin(storage, to, false)?.with_directory()
    }

    /// The bundle in a directory that has no config.json.
    pub(super) fn bundle_in(storage: &Storage, to: &Path) -> Result<Self> {
        let config = to.join(CONFIG);
        if config.symlink_metadata().is_ok() {
            return Err(Error::caller(format!("{} exists; it is left alone", config.display())));
        }
        Self::begin(storage, to, true)?.with_directory()
    }

    fn with_directory(self) -> Result<Self> {
        let made = DirBuilder::new().mode(0o700).create(&self.part);
        made.doing(|| format!("make directory {}", self.to.display()))?;
        Ok(self)
    }

    /// Makes the directory of the bundle's root.
    pub(super) fn root(&self, name: &Path) -> Result<File> {
        let doing = || format!("make directory {}", self.to.join(name).display());
        if self.to.join(name).symlink_metadata().is_ok() {
            let there: io::Result<File> = Err(io::ErrorKind::AlreadyExists.into());
            return there.doing(doing);
        }
        let path = self.part.join(name);
        fs::create_dir(&path).doing(doing)?;
        self.say("root", name)?;
        File::open(&path).doing(doing)
    }

    /// Writes the bundle's config.json, after its root.
    pub(super) fn config(&self, text: &[u8]) -> Result<()> {
        let write = || {
            let mut file = File::create_new(self.part.join(CONFIG))?;
            file.write_all(text)?;
            file.sync_all()
        };
        write().doing(|| format!("write {}", self.to.join(CONFIG).display()))
    }

    /// Finishes it, after `leave` has left data for a container.
    pub(super) fn finish_with_data(
        self,
        storage: &Storage,
        id: &ContainerId,
        leave: impl FnOnce() -> std::result::Result<(), crate::host::Trouble>,
    ) -> Result<()> {
        self.say("for", id.as_str())?;
        leave().map_err(|e| Error::operator(format!("leave its data for {id}")).because(e))?;
        self.finish().map_err(|error| match storage.forget(id) {
            Ok(_) => error,
            Err(e) => error.hint(format!("left: {}", e.chain())),
        })
    }

    /// Finishes it, after steps that leave data for a container. `lock`: that of the container whose data it is, which
    /// taking them back may need.
    pub(super) fn finish_by(mut self, ops: &[Op], lock: Lock) -> Result<()> {
        let mut host = This::new();
        let mut journal = journal(self.note.path()).doing(|| format!("make {}", self.to.display()))?;
        let applied = apply(&mut host, &mut journal, ops);
        let applied = applied.map_err(|failed| Error::operator(failed.what).because(failed.source));
        let Err(error) = applied.and_then(|()| self.give_name()) else { return Ok(()) };
        drop(lock);
        let left = take_back(&mut host, &mut journal);
        if !left.is_empty() {
            self.note.leave_to_sweep();
            self.done = true; // by whoever sweeps
        }
        Err(super::report(error, &left))
    }

    /// Gives it its name.
    pub(super) fn finish(mut self) -> Result<()> {
        self.give_name()
    }

    fn give_name(&mut self) -> Result<()> {
        let root = fs::read_link(self.note.path().join("root")).ok();
        finish(&self.part, &self.to, root.as_deref()).doing(|| format!("write {}", self.to.display()))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.done {
            // An error is on its way already.
            remove(&self.part).unwrap_or_default();
        }
    }
}

fn journal(note: &Path) -> io::Result<Journal> {
    Journal::open(&note.join(JOURNAL))
}

fn notes(storage: &Storage) -> PathBuf {
    storage.directory.join("making")
}

/// Gives what has grown its name: all at once, or config.json last of all, for a directory without it is no bundle.
fn finish(part: &Path, to: &Path, root: Option<&Path>) -> io::Result<()> {
    if part.parent() != Some(to) {
        return fs::rename(part, to);
    }
    if let Some(root) = root.filter(|root| part.join(root).exists()) {
        fs::rename(part.join(root), to.join(root))?;
    }
    fs::rename(part.join(CONFIG), to.join(CONFIG))?;
    fs::remove_dir(part)
}

fn remove(part: &Path) -> io::Result<()> {
    let (Some(dir), Some(name)) = (part.parent(), part.file_name()) else { return Ok(()) };
    let dir = match File::open(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    remove_tree(dir.as_fd(), &std::ffi::CString::new(name.as_bytes())?)
}

/// Ends what dead processes were making, and says where.
///
/// # Errors
/// The kernel's words.
pub(super) fn sweep(storage: &Storage) -> Result<Vec<PathBuf>> {
    let end = |note: &Path| {
        let said = |name: &str| fs::read_link(note.join(name)).ok();
        let (Some(part), Some(to), root) = (said("part"), said("to"), said("root")) else { return Ok(()) };
        if part.file_name() != note.file_name() {
            return Ok(());
        }
        let whole = part.join(CONFIG).exists() && !to.join(CONFIG).exists();
        let data = said("for").and_then(|id| ContainerId::new(id.to_str()?).ok());
        let begun = match (data, &root) {
            (Some(id), _) => whole && storage.keeps(&id).map_err(io::Error::other)?,
            // In a directory that was there, the root gets its name first.
            (None, Some(root)) => whole && !part.join(root).exists(),
            (None, None) => false,
        };
        if begun {
            finish(&part, &to, root.as_deref())?;
        }
        if part.exists() && note.join(JOURNAL).exists() {
            let left = take_back(&mut This::new(), &mut journal(note)?);
            if let Some(one) = left.first() {
                return Err(io::Error::other(format!("{}: {}", one.op, crate::error::chain(&*one.source))));
            }
        }
        remove(&part)
    };
    sweep_partial_with(&notes(storage), end).doing(|| "end what was being made")
}
