//! `potrun base`: imports, fetches, lists and removes base releases.

use crate::base::{BaseError, Bases, Digest, FetchOptions, ImageOptions, Imported, Platform, Progress, UnpackOptions};
use crate::cli::{self, Context};
use crate::error::{Error, Result};
use crate::host::this;
use indicatif::{ProgressBar, ProgressStyle};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Arguments of `base`.
#[derive(Debug, clap::Args)]
pub struct Base {
    #[command(subcommand)]
    verb: BaseCommand,
}

impl cli::Run for Base {
    fn run(&self, context: &Context) -> Result<u8> {
        run(&self.verb, &context.store).map(|()| 0).map_err(|e| Error::operator(e.to_string()).because_of(&e))
    }
}

/// What to do with base releases.
#[derive(Debug, clap::Subcommand)]
enum BaseCommand {
    /// Unpack an archive (tar, tar.gz, tar.xz, tar.zst) or an OCI image as a base
    Import {
        /// Name of the new base
        name: String,
        /// The archive
        #[arg(required_unless_present = "oci", conflicts_with = "oci")]
        file: Option<PathBuf>,
        /// Directory of an OCI image layout, and the name of the image in it if there are several
        #[arg(long, value_name = "DIR[:TAG]")]
        oci: Option<OsString>,
        /// Which image of several; default: that of this machine
        #[arg(long, requires = "oci", value_name = "OS/ARCH[/VARIANT]")]
        platform: Option<Platform>,
        /// Digest that the archive, or the image's manifest, must have
        #[arg(long, value_name = "HEX")]
        sha256: Option<Digest>,
        /// How it is unpacked
        #[command(flatten)]
        unpack: Unpack,
    },
    /// Download an archive, check it, and unpack it as a base
    Fetch {
        /// Name of the new base; without --url that of a FreeBSD release, such as 14.3-RELEASE
        name: String,
        /// Where the archive is (http or https)
        #[arg(long)]
        url: Option<String>,
        /// Digest that the archive must have
        #[arg(long, value_name = "HEX")]
        sha256: Option<Digest>,
        /// Manifest of the release with the digest
        #[arg(long, value_name = "FILE-or-URL")]
        manifest: Option<String>,
        /// Directory with FreeBSD's releases
        #[arg(long, value_name = "URL", default_value_t = FetchOptions::default().mirror)]
        mirror: String,
        /// Machine of the release, as uname -m says it
        #[arg(long, default_value_t = FetchOptions::default().machine)]
        machine: String,
        /// Processor of the release, as uname -p says it
        #[arg(long, default_value_t = FetchOptions::default().arch)]
        arch: String,
        /// How it is unpacked
        #[command(flatten)]
        unpack: Unpack,
    },
    /// List the bases
    Ls {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a base that no container uses
    Rm {
        /// Name of the base
        name: String,
    },
}

/// How an archive is unpacked.
#[derive(Debug, clap::Args)]
struct Unpack {
    /// Most bytes that an archive may unpack to
    #[arg(long, value_name = "BYTES", default_value_t = UnpackOptions::default().max_bytes)]
    max_bytes: u64,
    /// Most files, directories and links that an archive may hold
    #[arg(long, value_name = "COUNT", default_value_t = UnpackOptions::default().max_entries)]
    max_entries: u64,
    /// Make the device nodes of the archive too
    #[arg(long)]
    allow_devices: bool,
    /// Do not wait for the disk: after a power cut the base may be damaged
    #[arg(long)]
    no_sync: bool,
}

impl Unpack {
    fn options(&self) -> UnpackOptions {
        UnpackOptions {
            max_bytes: self.max_bytes,
            max_entries: self.max_entries,
            allow_devices: self.allow_devices,
            setuid: true,
            sync: !self.no_sync,
        }
    }
}

/// Carries out `command` on the bases of `store`: results go to stdout, progress and notices to stderr.
///
/// # Errors
/// Those of [`Bases`], and [`BaseError::Io`] when stdout cannot be written.
fn run(command: &BaseCommand, store: &Path) -> std::result::Result<(), BaseError> {
    let bases = this::facts::bases(store);
    let text = match command {
        BaseCommand::Import { name, file, oci, platform, sha256, unpack } => {
            let mut bar = Bar::default();
            let imported = match (oci, file) {
                (Some(oci), _) => {
                    let (dir, tag) = layout(oci);
                    let what = ImageOptions { tag, platform: platform.clone(), sha256: *sha256 };
                    bases.import_image(name, &dir, &what, &unpack.options(), &mut bar)
                }
                // The command line has one of both.
                (None, file) => {
                    bases.import(name, file.as_deref().unwrap_or("".as_ref()), *sha256, &unpack.options(), &mut bar)
                }
            };
            bar.clear();
            told(&imported?, &mut bar)
        }
        BaseCommand::Fetch { name, url, sha256, manifest, mirror, machine, arch, unpack } => {
            let what = FetchOptions {
                url: url.clone(),
                sha256: *sha256,
                manifest: manifest.clone(),
                mirror: mirror.clone(),
                machine: machine.clone(),
                arch: arch.clone(),
            };
            let mut bar = Bar::default();
            let imported = bases.fetch(name, &what, &unpack.options(), &mut bar);
            bar.clear();
            told(&imported?, &mut bar)
        }
        BaseCommand::Ls { json } => list(&bases, *json)?,
        BaseCommand::Rm { name } => {
            bases.remove(name)?;
            format!("removed base {name}\n")
        }
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever read the list has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|source| BaseError::Io { step: "write", path: "stdout".into(), source }),
    }
}

/// `DIR[:TAG]`: the directory ends at the first colon before which there is one, for tags have colons too.
fn layout(text: &OsStr) -> (PathBuf, Option<String>) {
    let bytes = text.as_bytes();
    let colons = bytes.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
    for at in colons {
        let dir = Path::new(OsStr::from_bytes(&bytes[..at]));
        if dir.is_dir() {
            return (dir.into(), Some(String::from_utf8_lossy(&bytes[at + 1..]).into_owned()));
        }
    }
    (text.into(), None)
}

/// The line for an import; what could not be kept is a notice.
fn told(imported: &Imported, progress: &mut dyn Progress) -> String {
    match imported {
        Imported::New(base, skipped) => {
            for line in skipped.notices() {
                progress.notice(&line);
            }
            format!(
                "imported base {}: sha256 {}, {} entries, {} bytes\n",
                base.name, base.sha256, base.entries, base.bytes
            )
        }
        Imported::Already(base) => format!("base {} is there already: sha256 {}\n", base.name, base.sha256),
    }
}

fn list(bases: &Bases, json: bool) -> Result<String, BaseError> {
    let mut rows = Vec::new();
    for base in bases.list()? {
        let users = bases.users(&base.name)?;
        rows.push((base, users));
    }
    if json {
        let values: Vec<_> = rows.iter().map(|(base, users)| Listed { base, users }).collect();
        let text = serde_json::to_string_pretty(&values);
        return text
            .map(|text| text + "\n")
            .map_err(|source| BaseError::Record { path: "the list of bases".into(), source });
    }
    let width = rows.iter().map(|(base, _)| base.name.len()).chain([4]).max().unwrap_or_default();
    let mut text =
        format!("{:width$}  {:12}  {:>12}  {:>8}  {:20}  USERS\n", "NAME", "SHA256", "BYTES", "ENTRIES", "CREATED");
    for (base, users) in rows {
        let digest = base.sha256.to_string();
        text += &format!(
            "{:width$}  {:12}  {:>12}  {:>8}  {:20}  {}\n",
            base.name,
            &digest[..12],
            base.bytes,
            base.entries,
            base.created,
            users.len()
        );
    }
    Ok(text)
}

/// A base with its users, for `--json`.
#[derive(serde::Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    base: &'a crate::base::Base,
    users: &'a [String],
}

/// A progress bar on stderr, which shows itself on a terminal only.
#[derive(Default)]
struct Bar(Option<ProgressBar>);

impl Bar {
    fn clear(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bar {
    fn start(&mut self, stage: &str, total: Option<u64>) {
        self.clear();
        let (bar, template) = match total {
            Some(total) => {
                (ProgressBar::new(total), "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left")
            }
            None => (ProgressBar::no_length(), "{msg} {bytes} {bytes_per_sec}"),
        };
        // A template that indicatif does not read would only cost the looks.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.0 = Some(bar.with_style(style).with_message(stage.to_owned()));
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(bytes);
        }
    }

    fn notice(&mut self, line: &str) {
        let print = || eprintln!("potrun: {line}");
        match &self.0 {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}
