//! `fscomp`: volumes that potrun keeps, by name.

use std::io::ErrorKind;

use clap::{Args, Subcommand};

use crate::bundle::pot::is_name;
use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::host::this;

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
        /// Its name
        name: String,
    },
    /// Show all volumes
    Ls,
    /// Remove an empty volume
    Rm {
        /// Its name
        name: String,
    },
}

impl cli::Run for Fscomp {
    fn run(&self, context: &Context) -> Result<u8> {
        let storage = this::facts::storage(&context.store);
        match &self.verb {
            Verb::Create { name } => {
                storage.create_fscomp(checked(name)?).map_err(|e| match e.kind() {
                    ErrorKind::AlreadyExists => Error::caller(format!("fscomp {name} already exists")),
                    _ => Error::operator(format!("create fscomp {name}")).because(e),
                })?;
            }
            Verb::Ls => {
                let mut names = storage.fscomps().doing(|| "list fscomps")?;
                names.sort();
                super::print(&names.iter().map(|name| format!("{name}\n")).collect::<String>())?;
            }
            Verb::Rm { name } => {
                storage.remove_fscomp(checked(name)?).map_err(|e| match e.kind() {
                    ErrorKind::NotFound => Error::caller(format!("fscomp {name} does not exist")),
                    ErrorKind::DirectoryNotEmpty => Error::caller(format!("fscomp {name} is not empty")),
                    _ => Error::operator(format!("remove fscomp {name}")).because(e),
                })?;
            }
        }
        Ok(0)
    }
}

fn checked(name: &str) -> Result<&str> {
    if is_name(name) { Ok(name) } else { Err(Error::caller(format!("{name:?} is not a name of an fscomp"))) }
}
