//! `copy-in` and `copy-out`: files between the host and a container, which may run.
//!
//! Where a copy goes is said as for docker cp and podman cp: into a directory that is there, under the name of the
//! source, and otherwise under the name that is given; `SRC/.` is what is in SRC.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::base::{Skipped, Source, UnpackOptions, copy, extract, pack};
use crate::cli::{self, Context};
use crate::error::{Error, Result};
use crate::files::{self, Found, Tree};
use crate::host::this::files::Root;
use crate::state::Status;
use crate::store::{Lock, Store};

/// Arguments of `copy-in`.
#[derive(Debug, Args)]
pub struct CopyIn {
    #[command(flatten)]
    limits: Limits,
    /// The container
    id: String,
    /// File or directory of the host; `-`: a tar stream on stdin
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// Where it goes in the container
    #[arg(value_name = "DST")]
    target: PathBuf,
}

/// Arguments of `copy-out`.
#[derive(Debug, Args)]
pub struct CopyOut {
    #[command(flatten)]
    limits: Limits,
    /// Let files keep setuid, setgid and capabilities: with them a container would give rights on the host
    #[arg(long)]
    setuid: bool,
    /// The container
    id: String,
    /// File or directory of the container
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// Where it goes on the host; `-`: a tar stream on stdout
    #[arg(value_name = "DST")]
    target: PathBuf,
}

/// How much is copied.
#[derive(Debug, Args)]
struct Limits {
    /// Most bytes that are copied, holes included
    #[arg(long, value_name = "BYTES", default_value_t = UnpackOptions::default().max_bytes)]
    max_bytes: u64,
    /// Most files, directories and links that are copied
    #[arg(long, value_name = "COUNT", default_value_t = UnpackOptions::default().max_entries)]
    max_entries: u64,
}

impl Limits {
    fn options(&self, setuid: bool) -> UnpackOptions {
        let Self { max_bytes, max_entries } = *self;
        UnpackOptions { max_bytes, max_entries, setuid, ..UnpackOptions::default() }
    }
}

impl cli::Run for CopyIn {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let (root, _lock) = root(context, &self.id)?;
        let inside = Path::new("/").join(&self.target);
        let options = self.limits.options(true);
        let failed = |e: crate::base::UnpackError| Error::operator(format!("copy to {}", shown(&inside))).because(e);
        if self.source.as_os_str() == "-" {
            let Found::Directory(to) = end(&root, &inside, true)? else {
                return Err(Error::caller(format!(
                    "{} is no directory: a stream is unpacked into one",
                    shown(&inside)
                )));
            };
            return told(extract(io::stdin().lock(), to.as_fd(), &options).map_err(failed)?.skipped);
        }
        let from = begin(&files::Host, &self.source)?;
        let to = place(&from, end(&root, &inside, true)?, &inside)?;
        told(copy(to.source(&from), to.dir.as_fd(), &options).map_err(failed)?.skipped)
    }
}

impl cli::Run for CopyOut {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let (root, _lock) = root(context, &self.id)?;
        let inside = Path::new("/").join(&self.source);
        let from = begin(&root, &inside)?;
        let failed = |e: crate::base::UnpackError| Error::operator(format!("copy {}", shown(&inside))).because(e);
        if self.target.as_os_str() == "-" {
            let source = Source { dir: from.dir.as_fd(), name: from.name.as_bytes(), to: from.called.as_bytes() };
            return told(pack(source, io::stdout().lock()).map_err(failed)?.skipped);
        }
        let to = place(&from, end(&files::Host, &self.target, true)?, &self.target)?;
        let options = self.limits.options(self.setuid);
        told(copy(to.source(&from), to.dir.as_fd(), &options).map_err(failed)?.skipped)
    }
}

/// The root of a container. While it is stopped nobody else changes it.
fn root(context: &Context, id: &str) -> Result<(Root, Option<Lock>)> {
    let id = super::id(id)?;
    let store = Store::at(&context.root);
    let (entry, _, status) = super::find_made(&store, &id)?;
    let lock = if status == Status::Stopped { Some(entry.lock()?) } else { None };
    // As it is now that nobody changes it.
    let (_, record, status) = super::find_made(&store, &id)?;
    let root = Root::of(&record, status)
        .map_err(|e| Error::operator(format!("reach the files of a {status} container")).because_of(&*e))?;
    Ok((root, lock))
}

/// What is copied.
struct Begin {
    dir: File,
    /// Its name in `dir`.
    name: OsString,
    /// What it is called where it goes into a directory; `.`: what is in it.
    called: OsString,
    is_directory: bool,
}

/// Finds what is copied: a link at the end is copied as one, unless a `/` behind it says that a directory is meant.
fn begin(tree: &impl Tree, path: &Path) -> Result<Begin> {
    let bytes = path.as_os_str().as_bytes();
    let contents = bytes.ends_with(b"/.") || matches!(bytes, b"." | b"/");
    let found = files::find(tree, path, bytes.ends_with(b"/"));
    let found = found.map_err(|e| Error::caller(format!("look for {}", shown(path))).because(e))?;
    match found {
        Found::Directory(dir) => {
            let called = path.file_name().filter(|_| !contents).unwrap_or(".".as_ref()).to_owned();
            Ok(Begin { dir, name: ".".into(), called, is_directory: true })
        }
        Found::Other(..) if bytes.ends_with(b"/") => Err(Error::caller(format!("{} is no directory", shown(path)))),
        Found::Other(dir, name) => {
            // Asked for by a link, it is called like that.
            let called = path.file_name().unwrap_or(&name).to_owned();
            Ok(Begin { dir, name, called, is_directory: false })
        }
        Found::Missing(..) => Err(Error::caller(format!("{} does not exist", shown(path)))),
    }
}

fn end(tree: &impl Tree, path: &Path, follow: bool) -> Result<Found> {
    files::find(tree, path, follow).map_err(|e| Error::caller(format!("look for {}", shown(path))).because(e))
}

/// Where it goes: a directory, and its name there.
struct End {
    dir: File,
    name: OsString,
}

impl End {
    fn source<'a>(&'a self, from: &'a Begin) -> Source<'a> {
        Source { dir: from.dir.as_fd(), name: from.name.as_bytes(), to: self.name.as_bytes() }
    }
}

/// The rules of docker cp. `path`: what the caller said.
fn place(from: &Begin, to: Found, path: &Path) -> Result<End> {
    let must_be_directory = path.as_os_str().as_bytes().ends_with(b"/");
    match to {
        Found::Directory(dir) => Ok(End { dir, name: from.called.clone() }),
        Found::Other(..) if from.is_directory => {
            Err(Error::caller(format!("{} is no directory, and what is copied is one", shown(path))))
        }
        Found::Other(..) if must_be_directory => Err(Error::caller(format!("{} is no directory", shown(path)))),
        Found::Missing(..) if must_be_directory && !from.is_directory => {
            Err(Error::caller(format!("{} does not exist", shown(path))))
        }
        Found::Other(dir, name) | Found::Missing(dir, name) => Ok(End { dir, name }),
    }
}

fn told(skipped: Skipped) -> Result<u8> {
    for line in skipped.notices() {
        eprintln!("potrun: {line}");
    }
    Ok(0)
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}
