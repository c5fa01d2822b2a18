//! What can go wrong with a base.

use super::digest::{Digest, NoDigest};
use super::fetch::FetchError;
use super::oci::ImageError;
use super::unpack::UnpackError;
use std::io;
use std::path::PathBuf;

/// Why nothing was done: after an error neither a base nor a part of one is left.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// Not the name of a base.
    #[error(
        "{0:?} cannot name a base: a name is a letter or digit, then at most 63 letters, digits, dots, underscores and \
         dashes"
    )]
    Name(String),
    /// Another base has the name.
    #[error("base {name} exists with another digest: {has}")]
    Taken {
        /// The name.
        name: String,
        /// What it was imported with.
        has: Digest,
    },
    /// There is no such base.
    #[error("there is no base {0}")]
    Missing(String),
    /// Containers use it.
    #[error("base {name} is in use by {}", users.join(", "))]
    InUse {
        /// The name.
        name: String,
        /// The ids of the containers.
        users: Vec<String>,
    },
    /// The file is not the one that was asked for.
    #[error("{file} has sha256 {found}, not {wanted}")]
    Digest {
        /// Path or URL.
        file: String,
        /// What it has.
        found: Digest,
        /// What it should have.
        wanted: Digest,
    },
    /// The archive could not be unpacked.
    #[error("unpack {}", archive.display())]
    Unpack {
        /// Its path.
        archive: PathBuf,
        /// Why.
        source: UnpackError,
    },
    /// The image could not be imported.
    #[error("import {}", layout.display())]
    Image {
        /// The directory of its layout.
        layout: PathBuf,
        /// Why.
        source: ImageError,
    },
    /// The download failed.
    #[error("fetch {url}")]
    Fetch {
        /// From where.
        url: String,
        /// Why.
        source: FetchError,
    },
    /// Nothing says what the download must be.
    #[error("the digest of {0} is not known: give --sha256 or --manifest")]
    NoDigest(String),
    /// Nothing says where to download from.
    #[error("{0} is not the name of a FreeBSD release such as 14.3-RELEASE: give --url")]
    NotARelease(String),
    /// The MANIFEST of a release does not have the file.
    #[error("{manifest} has no line for {file}")]
    Manifest {
        /// Its path or URL.
        manifest: String,
        /// The file that was looked for.
        file: String,
    },
    /// The MANIFEST of a release is damaged.
    #[error("{manifest} is not a manifest of a release")]
    ManifestDigest {
        /// Its path or URL.
        manifest: String,
        /// What stands where a digest should.
        source: NoDigest,
    },
    /// Another process downloads the same file.
    #[error("{0} is being downloaded by another process")]
    Busy(String),
    /// The record of a base is damaged.
    #[error("read {}", path.display())]
    Record {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The kernel refused a step.
    #[error("{step} {}", path.display())]
    Io {
        /// What was done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's words.
        source: io::Error,
    },
}

/// Adds the step and the path to an error of the kernel.
pub(super) trait At<T> {
    fn at(self, step: &'static str, path: impl Into<PathBuf>) -> Result<T, BaseError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: &'static str, path: impl Into<PathBuf>) -> Result<T, BaseError> {
        self.map_err(|error| BaseError::Io { step, path: path.into(), source: error.into() })
    }
}
