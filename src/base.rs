//! Base releases: the file systems that pots begin with, each imported once under a name and then only read.
//!
//! ```text
//! <store>/                 0711
//!   bases/                 0700: setuid files of a base are out of reach for the users of the host
//!     NAME/                one base; what is there is whole
//!       base.json          [`Base`]
//!       tree/              the file system
//!       users/             one empty file for each container that uses it, named like it
//!     .NAME.partial-*/     an import that is not done; locked while its process lives
//!     .NAME.gone-*/        a removal that is not done; locked while its process lives
//!   cache/                 0700
//!     DIGEST.part          a download that is not done; locked while its process lives
//!     DIGEST.part.json     where it comes from
//! ```
//!
//! A base appears by one rename(2) and disappears by one, so a process may die anywhere. To use a base, create the file
//! `users/ID`; `ENOENT` means that the base is gone or about to go. [`Bases::remove`] begins by removing `users/`,
//! which the kernel refuses as long as a file is in it: so there is no moment in which a base is both used and removed.
//! Nobody but an import may make `users/`.

mod archive;
mod digest;
mod directories;
mod error;
mod fetch;
mod oci;
mod pack;
mod partial;
mod parts;
mod progress;
mod tree;
mod unpack;
mod zstd;

pub use archive::ArchiveError;
pub(crate) use digest::Hasher;
pub use digest::{Digest, NoDigest};
pub use directories::Directories;
pub use error::BaseError;
pub use fetch::{FetchError, FetchOptions};
pub use oci::{Image, ImageError, ImageIds, ImageOptions, NoPlatform, Platform};
pub use pack::{Source, copy, copy_upper, extract, extract_over, extract_upper, pack, pack_over, pack_upper};
pub use partial::{Partial, sweep as sweep_partial, sweep_with as sweep_partial_with};
pub(crate) use parts::{Stored, parts};
pub use progress::{Progress, Quiet};
pub(crate) use tree::remove as remove_tree;
pub use unpack::{Skipped, UnpackError, UnpackOptions, Unpacked, unpack};

use digest::Hashing;
use error::At;
use nix::errno::Errno;
use std::fs::{DirBuilder, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Large enough that reading and decompressing in pieces costs nothing, small enough for the caches of a CPU.
const BUFFER: usize = 128 << 10;

/// Most memory an xz stream may ask for, in KiB: eight times what `xz -9` needs.
const XZ_MEMORY: u32 = 512 << 10;

/// What is known about a base: the contents of its `base.json`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Base {
    /// Its name.
    pub name: String,
    /// SHA-256 of the archive, or of the manifest of the image.
    pub sha256: Digest,
    /// Path or URL of the archive; `oci:DIR[:TAG]`.
    pub source: String,
    /// When it was imported: RFC 3339, UTC.
    pub created: String,
    /// Bytes of file contents.
    pub bytes: u64,
    /// Files, directories, links and the like.
    pub entries: u64,
    /// What the image says about how it is run, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
}

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Imported {
    /// The base is new; what its archive had and the tree has not is counted.
    New(Base, Skipped),
    /// There was one with this name and digest, and nothing was done.
    Already(Base),
}

impl Imported {
    /// The base that is there now.
    #[must_use]
    pub fn base(&self) -> &Base {
        match self {
            Self::New(base, _) | Self::Already(base) => base,
        }
    }
}

/// Where bases are kept: directories, as at the top of this file, or datasets.
pub trait Keep: std::fmt::Debug {
    /// The base with this name, if there is one.
    ///
    /// # Errors
    /// [`BaseError::Io`] and [`BaseError::Record`].
    fn find(&self, name: &str) -> Result<Option<Base>, BaseError>;

    /// Every base, by name.
    ///
    /// # Errors
    /// [`BaseError::Io`] and [`BaseError::Record`].
    fn list(&self) -> Result<Vec<Base>, BaseError>;

    /// Makes room for a new base.
    ///
    /// # Errors
    /// [`BaseError::Io`].
    fn begin(&self, name: &str) -> Result<Box<dyn Room>, BaseError>;

    /// The ids of the containers that use a base, in order.
    ///
    /// # Errors
    /// [`BaseError::Io`].
    fn users(&self, name: &str) -> Result<Vec<String>, BaseError>;

    /// Removes a base that no container uses.
    ///
    /// # Errors
    /// [`BaseError::InUse`], [`BaseError::Io`].
    fn remove(&self, name: &str) -> Result<(), BaseError>;

    /// Removes what processes that died left behind: imports and removals that were not done. Says what.
    ///
    /// # Errors
    /// [`BaseError::Io`].
    fn sweep(&self) -> Result<Vec<PathBuf>, BaseError>;
}

/// Room for a base that is being imported. It goes with this value, unless it becomes one.
pub trait Room {
    /// The directory of its file system.
    fn tree(&self) -> &File;

    /// Makes it the base, all at once; `sync`: after all of it is on disk. `false`: another import of the name was
    /// faster.
    ///
    /// # Errors
    /// [`BaseError::Io`].
    fn publish(self: Box<Self>, base: &Base, sync: bool) -> Result<bool, BaseError>;
}

/// The bases of a store.
#[derive(Debug)]
pub struct Bases {
    keep: Box<dyn Keep>,
    cache: PathBuf,
}

impl Bases {
    /// The bases in the directory `store`, which need not be there yet.
    #[must_use]
    pub fn at(store: &Path) -> Self {
        Self::kept(Box::new(Directories::at(store)), store)
    }

    /// The bases in `keep`, with downloads in `store`.
    #[must_use]
    pub fn kept(keep: Box<dyn Keep>, store: &Path) -> Self {
        Self { keep, cache: store.join("cache") }
    }

    /// Unpacks the archive `file`, a tar as it is or compressed by gzip, xz or zstd, as base `name`. The digest `wanted` is
    /// that of the file as it is. When the name is taken, the file is only read for its digest.
    ///
    /// # Errors
    /// [`BaseError::Name`], [`BaseError::Taken`], [`BaseError::Digest`], [`BaseError::Unpack`], [`BaseError::Io`].
    pub fn import(
        &self,
        name: &str,
        file: &Path,
        wanted: Option<Digest>,
        options: &UnpackOptions,
        progress: &mut dyn Progress,
    ) -> Result<Imported, BaseError> {
        let source = file.canonicalize().at("open", file)?.display().to_string();
        self.import_from(name, file, &source, wanted, options, progress)
    }

    /// Imports `file`, which came from `source`.
    fn import_from(
        &self,
        name: &str,
        file: &Path,
        source: &str,
        wanted: Option<Digest>,
        options: &UnpackOptions,
        progress: &mut dyn Progress,
    ) -> Result<Imported, BaseError> {
        check_name(name)?;
        let input = File::open(file).at("open", file)?;
        let total = input.metadata().at("open", file)?.len();
        progress.start(&format!("import {name}"), (total > 0).then_some(total));
        let mut input = Hashing::new(input, progress);
        let check = |found: Digest| match wanted {
            Some(wanted) if wanted != found => Err(BaseError::Digest { file: source.to_owned(), found, wanted }),
            _ => Ok(found),
        };
        if let Some(base) = self.find(name)? {
            let found = check(input.finish().at("read", file)?)?;
            return already(base, found);
        }

        let room = self.keep.begin(name)?;
        let unpacked = decompress(&mut input).and_then(|input| unpack(input, room.tree().as_fd(), options));
        // A file that is not the wanted one may be damaged in any way: that it is another one is the better error.
        let found = check(input.finish().at("read", file)?)?;
        let unpacked = unpacked.map_err(|source| BaseError::Unpack { archive: file.to_owned(), source })?;

        let base = Base {
            name: name.to_owned(),
            sha256: found,
            source: source.to_owned(),
            created: now(),
            bytes: unpacked.bytes,
            entries: unpacked.entries,
            image: None,
        };
        self.publish(room, base, unpacked.skipped, options, progress)
    }

    /// Gives a base that is whole its name.
    fn publish(
        &self,
        room: Box<dyn Room>,
        base: Base,
        skipped: Skipped,
        options: &UnpackOptions,
        progress: &mut dyn Progress,
    ) -> Result<Imported, BaseError> {
        if options.sync {
            progress.start("write to disk", None);
        }
        if room.publish(&base, options.sync)? {
            return Ok(Imported::New(base, skipped));
        }
        // Another import of the name was faster.
        let there = self.find(&base.name)?.ok_or_else(|| BaseError::Missing(base.name.clone()))?;
        already(there, base.sha256)
    }

    /// Every base, by name.
    ///
    /// # Errors
    /// [`BaseError::Io`] and [`BaseError::Record`].
    pub fn list(&self) -> Result<Vec<Base>, BaseError> {
        self.keep.list()
    }

    /// The base with this name, if there is one.
    ///
    /// # Errors
    /// [`BaseError::Name`], [`BaseError::Io`] and [`BaseError::Record`].
    pub fn find(&self, name: &str) -> Result<Option<Base>, BaseError> {
        check_name(name)?;
        self.keep.find(name)
    }

    /// The ids of the containers that use a base, in order; none when it is about to be removed.
    ///
    /// # Errors
    /// [`BaseError::Io`].
    pub fn users(&self, name: &str) -> Result<Vec<String>, BaseError> {
        self.keep.users(name)
    }

    /// Removes a base that no container uses. A removal that was cut off can be asked for again.
    ///
    /// # Errors
    /// [`BaseError::Name`], [`BaseError::Missing`], [`BaseError::InUse`], [`BaseError::Io`].
    pub fn remove(&self, name: &str) -> Result<(), BaseError> {
        self.find(name)?.ok_or_else(|| BaseError::Missing(name.to_owned()))?;
        self.keep.remove(name)
    }

    /// Removes what processes that died left behind: imports and removals that were not done. Says what.
    ///
    /// # Errors
    /// [`BaseError::Io`].
    pub fn sweep(&self) -> Result<Vec<PathBuf>, BaseError> {
        self.keep.sweep()
    }
}

/// What an import of a name that is taken comes to.
fn already(base: Base, found: Digest) -> Result<Imported, BaseError> {
    if base.sha256 == found {
        Ok(Imported::Already(base))
    } else {
        Err(BaseError::Taken { name: base.name, has: base.sha256 })
    }
}

/// The time for a record.
fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

fn check_name(name: &str) -> Result<(), BaseError> {
    let fits = name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if fits { Ok(()) } else { Err(BaseError::Name(name.to_owned())) }
}

/// Makes a directory of the store that only its owner may enter, unless it is there.
fn make_directory(path: &Path) -> Result<(), BaseError> {
    if let Some(store) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o711).create(store).at("make directory", store)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.at("make directory", path),
    }
}

fn write_record(path: &Path, base: &Base) -> Result<(), BaseError> {
    let mut text =
        serde_json::to_vec_pretty(base).map_err(|source| BaseError::Record { path: path.to_owned(), source })?;
    text.push(b'\n');
    File::create_new(path).and_then(|mut file| file.write_all(&text)).at("write", path)
}

/// A stream that is compressed as its first bytes say, or not at all.
fn decompress<'a>(input: impl Read + 'a) -> Result<Box<dyn BufRead + 'a>, UnpackError> {
    let mut input = BufReader::with_capacity(BUFFER, input);
    let mut magic = [0; 6];
    let mut known = 0;
    while known < magic.len() {
        match input.read(&mut magic[known..]) {
            Ok(0) => break,
            Ok(count) => known += count,
            Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
            Err(source) => return Err(ArchiveError::Read { at: 0, source }.into()),
        }
    }
    let input = io::Cursor::new(magic).take(known as u64).chain(input);
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(buffered(flate2::bufread::MultiGzDecoder::new(input))),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            Box::new(buffered(lzma_rust2::XzReader::new_mem_limit(input, true, XZ_MEMORY)))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(buffered(zstd::Zstd::new(input))),
        [b'B', b'Z', b'h', ..] => return Err(ArchiveError::Compression("bzip2").into()),
        _ => Box::new(input),
    })
}

fn buffered(input: impl Read) -> impl BufRead {
    BufReader::with_capacity(BUFFER, input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_bases() {
        for name in ["a", "14.3-RELEASE", "A_b-c.d", &"x".repeat(64)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", ".a", "-a", "_a", "a/b", "a b", "é", "a\0", "..", &"x".repeat(65)] {
            assert!(matches!(check_name(name), Err(BaseError::Name(refused)) if refused == name), "{name}");
        }
    }
}
