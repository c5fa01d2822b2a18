//! `fscomp`: volumes that potrun keeps, by name.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;

use clap::{Args, Subcommand};

use crate::bundle::pot::is_name;
use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};

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
        let all = context.store.join("fscomps");
        let path = |name: &String| {
            if is_name(name) {
                Ok(all.join(name))
            } else {
                Err(Error::caller(format!("{name:?} is not a name of an fscomp")))
            }
        };
        match &self.verb {
            Verb::Create { name } => {
                let path = path(name)?;
                let mut private = DirBuilder::new();
                private.mode(0o700).recursive(true).create(&all).doing(|| format!("create {}", all.display()))?;
                match DirBuilder::new().mode(0o755).create(&path) {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                        return Err(Error::caller(format!("fscomp {name} already exists")));
                    }
                    other => other.doing(|| format!("create {}", path.display()))?,
                }
            }
            Verb::Ls => {
                let mut names = Vec::new();
                match fs::read_dir(&all) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    other => {
                        for item in other.doing(|| format!("read {}", all.display()))? {
                            names.push(item.doing(|| format!("read {}", all.display()))?.file_name());
                        }
                    }
                }
                names.sort();
                super::print(&names.iter().map(|name| format!("{}\n", name.display())).collect::<String>())?;
            }
            Verb::Rm { name } => {
                let path = path(name)?;
                match fs::remove_dir(&path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        return Err(Error::caller(format!("fscomp {name} does not exist")));
                    }
                    Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {
                        return Err(Error::caller(format!("fscomp {name} is not empty: {}", path.display())));
                    }
                    other => other.doing(|| format!("remove {}", path.display()))?,
                }
            }
        }
        Ok(0)
    }
}
