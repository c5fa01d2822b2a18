//! `fscomp`: volumes that potrun keeps, by name.

use std::io::ErrorKind;

use clap::{Args, Subcommand};

use crate::bundle::pot::{self, is_name};
use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::host::this;

use super::snapshot;

/// Arguments of `fscomp`.
#[derive(Debug, Args)]
pub struct Fscomp {
    #[command(subcommand)]
    verb: Verb,
}

/// The verbs of fscomps.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Make an empty volume
    Create {
        /// Bytes that it may have; pot's units b, k, m, g
        #[arg(long, value_name = "SIZE", value_parser = size)]
        quota: Option<u64>,
        /// Its name
        name: String,
    },
    /// Say how much a volume may have that was made with a quota, or any volume where the store is ZFS
    Quota {
        /// Its name
        name: String,
        /// Bytes; pot's units b, k, m, g
        #[arg(value_name = "SIZE", value_parser = size)]
        size: u64,
    },
    /// Show all volumes
    Ls,
    /// Remove an empty volume
    Rm {
        /// Its name
        name: String,
    },
    /// Make a snapshot, and say its name (ZFS)
    Snapshot {
        /// The volume; the snapshot is called by the seconds since 1970 where nothing is said
        #[arg(value_name = "NAME[@SNAPSHOT]")]
        name: String,
    },
    /// Put a volume that no pot uses back to a snapshot, the latest where none is named (ZFS)
    Rollback {
        /// The volume, and the snapshot
        #[arg(value_name = "NAME[@SNAPSHOT]")]
        name: String,
        /// Destroy the snapshots that are later
        #[arg(long)]
        newer: bool,
    },
    /// Make a volume that begins as a snapshot of another one; it takes no room (ZFS)
    Clone {
        /// The volume, and the snapshot; one is made where none is named
        #[arg(value_name = "NAME[@SNAPSHOT]")]
        name: String,
        /// The new volume
        new: String,
    },
    /// Write a snapshot to stdout, the latest where none is named (ZFS)
    Send {
        /// The volume, and the snapshot
        #[arg(value_name = "NAME[@SNAPSHOT]")]
        name: String,
        /// Only what has changed since this snapshot
        #[arg(long, value_name = "SNAPSHOT")]
        from: Option<String>,
    },
    /// Make a volume of what a send has written, on stdin, or bring one up to date with what has changed (ZFS)
    Receive {
        /// The volume
        name: String,
        /// Give up what was changed in it since its latest snapshot; it is refused otherwise
        #[arg(long)]
        discard: bool,
    },
}

impl cli::Run for Fscomp {
    fn run(&self, context: &Context) -> Result<u8> {
        let storage = this::facts::storage(&context.store);
        let split = snapshot::split;
        match &self.verb {
            Verb::Create { name, quota } => {
                storage.create_fscomp(checked(name)?, *quota).map_err(|e| match e.kind() {
                    ErrorKind::AlreadyExists => Error::caller(format!("fscomp {name} already exists")),
                    ErrorKind::Unsupported => Error::caller(format!("--quota {e}")),
                    _ => Error::operator(format!("create fscomp {name}")).because(e),
                })?;
            }
            Verb::Quota { name, size } => {
                storage.limit_fscomp(checked(name)?, *size).map_err(|e| match e.kind() {
                    ErrorKind::NotFound => Error::caller(format!("fscomp {name} does not exist")),
                    _ => Error::operator(format!("limit fscomp {name}")).because(e),
                })?;
            }
            Verb::Ls => {
                let mut names = storage.fscomps().doing(|| "list fscomps")?;
                names.sort();
                super::print(&names.iter().map(|name| format!("{name}\n")).collect::<String>())?;
            }
            Verb::Rm { name } => {
                snapshot::unused(&storage, checked(name)?)?;
                storage.remove_fscomp(name).map_err(|e| match e.kind() {
                    ErrorKind::NotFound => Error::caller(format!("fscomp {name} does not exist")),
                    ErrorKind::DirectoryNotEmpty => Error::caller(format!("fscomp {name} is not empty")),
                    _ => Error::operator(format!("remove fscomp {name}")).because(e),
                })?;
            }
            Verb::Snapshot { name } => return split(name).and_then(|(of, at)| snapshot::take(context, &of, at)),
            Verb::Rollback { name, newer } => {
                return split(name).and_then(|(of, at)| snapshot::revert(context, &of, at, *newer));
            }
            Verb::Clone { name, new } => {
                let new = checked(new)?;
                return split(name).and_then(|(of, at)| snapshot::clone(context, &of, at, new));
            }
            Verb::Send { name, from } => {
                return split(name).and_then(|(of, at)| snapshot::send(context, &of, at, from.as_deref()));
            }
            Verb::Receive { name, discard } => return snapshot::receive(context, checked(name)?, *discard),
        }
        Ok(0)
    }
}

fn size(text: &str) -> std::result::Result<u64, String> {
    pot::size(text).ok_or_else(|| "not a whole number of bytes from 1 on, such as 1048576 or 512m".into())
}

fn checked(name: &str) -> Result<&str> {
    if is_name(name) { Ok(name) } else { Err(Error::caller(format!("{name:?} is not a name of an fscomp"))) }
}
