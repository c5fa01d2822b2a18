//! `export`: a pot as one file, which `import` takes on any host with its base.
//!
//! The file is a tar archive (pax):
//!
//! ```text
//! manifest.json    [`Manifest`]: what this is, and size and sha256 of what follows
//! config.json      the bundle's
//! layer.tar        what the pot has over its base, as a layer of an OCI image; or
//! root.zfs         all of its root, as a stream of zfs-send(8); or
//! rootfs.tar       the root of a bundle without a base
//! ```

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::base::{Digest, Hasher, Source, UnpackError, pack};
use crate::bundle::Bundle;
use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::facts::Os;
use crate::host::this;

use super::making::Making;

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// Write its root as a stream of ZFS, which import takes where the store is ZFS as well
    #[arg(long)]
    zfs: bool,
    /// The container, which must not run at this moment; or the directory of a bundle, by a path with a `/`
    #[arg(value_name = "ID|BUNDLE")]
    what: String,
    /// The new file
    file: PathBuf,
}

/// The name of the manifest.
pub(super) const MANIFEST: &str = "manifest.json";
/// The name of the configuration.
pub(super) const CONFIG: &str = "config.json";
/// The name of what a pot has over its base.
pub(super) const LAYER: &str = "layer.tar";
/// The name of the stream of a pot's root.
pub(super) const STREAM: &str = "root.zfs";
/// The name of a root file system.
pub(super) const ROOTFS: &str = "rootfs.tar";

/// The version of the form of these files.
pub(super) const VERSION: u32 = 1;

/// What an exported pot is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Manifest {
    /// [`VERSION`].
    pub(super) potrun_export: u32,
    /// The container that it was, or the name of the bundle's directory.
    pub(super) name: String,
    /// Where it was exported.
    pub(super) os: Os,
    /// When: RFC 3339, UTC.
    pub(super) created: String,
    /// The base that it lies on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) base: Option<OfBase>,
    /// What follows in the file, in its order.
    pub(super) parts: Vec<Part>,
}

/// The base of an exported pot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OfBase {
    /// Its name.
    pub(super) name: String,
    /// Its digest.
    pub(super) sha256: Digest,
}

/// A part of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Part {
    /// Its name.
    pub(super) name: String,
    /// Bytes.
    pub(super) size: u64,
    /// Digest.
    pub(super) sha256: Digest,
}

impl cli::Run for Export {
    fn subject(&self) -> Option<&str> {
        Some(&self.what)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        if self.file.symlink_metadata().is_ok() {
            return Err(Error::caller(format!("{} exists; it is left alone", self.file.display())));
        }
        let (bundle, name, made, _lock) = if self.what.contains('/') {
            let bundle = Bundle::read(Path::new(&self.what)).map_err(super::refused)?;
            let name = bundle.dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            (bundle, name, None, None)
        } else {
            let (entry, record, lock) = super::clone::still(context, &self.what)?;
            let bundle = super::saved(&entry, &record)?;
            (bundle, self.what.clone(), Some(record), Some(lock))
        };
        let storage = this::facts::storage(&context.store);
        let stream = self.zfs.then(|| storage.needs_datasets("a stream")).transpose()?;
        let base = match bundle.pot.as_ref().and_then(|pot| pot.base.as_ref()) {
            Some(base) => {
                let found = storage.bases().find(&base.release);
                let found = found.doing(|| format!("look at base {}", base.release))?;
                let found = found.ok_or_else(|| Error::caller(format!("base {} is not imported", base.release)))?;
                Some(OfBase { name: found.name, sha256: found.sha256 })
            }
            None => None,
        };
        let manifest = Manifest {
            potrun_export: VERSION,
            name,
            os: this::OS.unwrap_or(Os::Linux),
            created: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            base,
            parts: Vec::new(),
        };
        let (making, file) = Making::file(&storage, &self.file)?;
        let mut out = Out::begin(file, manifest).doing(|| format!("create {}", self.file.display()))?;
        let failed = |e: UnpackError| Error::operator(format!("export to {}", self.file.display())).because(e);
        let told = || format!("write {}", self.file.display());
        out.part(CONFIG, |to| to.write_all(&bundle.config).map_err(UnpackError::from)).map_err(failed)?;
        let done = match (made, out.manifest.base.as_ref().map(|base| base.name.clone()), stream) {
            (Some(record), Some(_), Some(datasets)) => {
                let sent = out.part(STREAM, |to| datasets.send_pot(&record.id, to));
                sent.map_err(|e| Error::operator(format!("export to {}", self.file.display())).because(e))?;
                None
            }
            (_, _, Some(_)) => {
                return Err(Error::caller("--zfs is for a container on a base: nothing else is a dataset"));
            }
            (Some(record), Some(base), None) => {
                let packed = out.part(LAYER, |to| storage.pack_pot(&record, &base, to));
                Some(packed.map_err(|e| Error::operator(format!("export to {}", self.file.display())).because(e))?)
            }
            (None, Some(_), None) => None,
            (_, None, None) => {
                let (_, root) = super::clone::rootfs(&bundle)?;
                let root = File::open(&root).doing(|| format!("open {}", root.display()))?;
                let source = Source { dir: root.as_fd(), name: b".", to: b"." };
                Some(out.part(ROOTFS, |to| pack(source, to)).map_err(failed)?)
            }
        };
        out.finish().doing(told)?;
        making.finish()?;
        for line in done.iter().flat_map(|done| done.skipped.notices()) {
            eprintln!("potrun: {line}");
        }
        Ok(0)
    }
}

/// The file in the making.
struct Out {
    file: File,
    manifest: Manifest,
    /// Bytes that are kept for the manifest, which is known last and stands first.
    room: u64,
}

/// A block of a tar archive.
const BLOCK: u64 = 512;

impl Out {
    fn begin(file: File, manifest: Manifest) -> io::Result<Self> {
        let mut out = Self { file, manifest, room: 0 };
        // As large as it can become with the parts that there are.
        let longest = |name: &str| Part { name: name.into(), size: u64::MAX, sha256: Hasher::default().digest() };
        let full = Manifest { parts: vec![longest(CONFIG), longest(ROOTFS)], ..out.manifest.clone() };
        out.room = (serde_json::to_vec_pretty(&full)?.len() as u64).next_multiple_of(BLOCK);
        out.header(MANIFEST, out.room)?;
        out.file.seek(SeekFrom::Current(out.room.cast_signed()))?;
        Ok(out)
    }

    fn header(&mut self, name: &str, size: u64) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_mode(0o600);
        header.set_size(size);
        header.set_cksum();
        self.file.write_all(header.as_bytes())
    }

    /// Writes one part, whose size is known at its end.
    fn part<T, E: From<io::Error>>(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut Counted<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let at = self.file.stream_position()?;
        self.header(name, 0)?;
        let mut to = Counted { file: &mut self.file, hasher: Hasher::default(), size: 0 };
        let done = write(&mut to)?;
        let Counted { hasher, size, .. } = to;
        self.file.seek(SeekFrom::Start(at))?;
        self.header(name, size)?;
        let end = self.file.seek(SeekFrom::End(0))?;
        self.file.set_len(end.next_multiple_of(BLOCK))?;
        self.file.seek(SeekFrom::End(0))?;
        self.manifest.parts.push(Part { name: name.into(), size, sha256: hasher.digest() });
        Ok(done)
    }

    fn finish(mut self) -> io::Result<()> {
        // The end mark: two blocks of zeros.
        let end = self.file.stream_position()?;
        self.file.set_len(end + 2 * BLOCK)?;
        let mut text = serde_json::to_vec_pretty(&self.manifest)?;
        text.resize(usize::try_from(self.room).map_err(io::Error::other)?, b' ');
        self.file.seek(SeekFrom::Start(BLOCK))?;
        self.file.write_all(&text)?;
        self.file.sync_all()
    }
}

/// Counts and hashes what is written.
struct Counted<'f> {
    file: &'f mut File,
    hasher: Hasher,
    size: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
