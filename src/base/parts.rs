//! The files in a tar archive that is a file itself, each to be read at its place.

use super::archive::{Contents, Kind, Members};
use super::digest::{Digest, Hasher};
use super::unpack::UnpackError;
use super::{BUFFER, Hashing, Quiet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// A file in the archive.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Its name.
    pub(crate) name: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Digest of all of them.
    pub(crate) sha256: Digest,
    /// Where they begin.
    at: u64,
}

/// Reads the archive to its end. What is no plain file is refused.
///
/// # Errors
/// [`UnpackError`].
pub(crate) fn parts(file: &File) -> Result<Vec<Stored>, UnpackError> {
    let mut members = Members::new(BufReader::with_capacity(BUFFER, file), u64::MAX);
    let mut all = Vec::new();
    while let Some(member) = members.next()? {
        if member.kind != Kind::File || member.runs.is_some() {
            return Err(UnpackError::Refused { member: member.shown(), why: "it is no plain file".into() });
        }
        let at = members.at();
        let mut hasher = Hasher::default();
        loop {
            let piece = members.contents()?;
            let count = piece.len();
            if count == 0 {
                break;
            }
            hasher.update(piece);
            members.consume(count)?;
        }
        all.push(Stored { name: member.shown(), size: member.size, sha256: hasher.digest(), at });
    }
    Ok(all)
}

impl Stored {
    /// The archive, standing where this file begins: for whoever knows himself where it ends.
    ///
    /// # Errors
    /// The kernel's words.
    pub(crate) fn here(&self, file: &File) -> io::Result<File> {
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(self.at))?;
        Ok(file)
    }

    /// Lets `take` read it, and says whether it is still what it was.
    ///
    /// # Errors
    /// Those of `take`, or the kernel's words.
    pub(crate) fn read<T, E: From<io::Error>>(
        &self,
        file: &File,
        take: impl FnOnce(&mut dyn Read) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut input = file;
        input.seek(SeekFrom::Start(self.at))?;
        let mut quiet = Quiet;
        let mut input = Hashing::new(input.take(self.size), &mut quiet);
        let taken = take(&mut input)?;
        if input.finish()? != self.sha256 {
            return Err(io::Error::other(format!("{} has changed while it was read", self.name)).into());
        }
        Ok(taken)
    }
}
