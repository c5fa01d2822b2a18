//! The files of a container, for verbs of the host: as its processes see them. They are mounted from create to delete.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::files::Tree;
use crate::host::Trouble;
use crate::state::{Record, Status};

use super::beneath::{self, Missing};

/// The root of a container, which its links do not lead out of.
#[derive(Debug)]
pub struct Root(PathBuf);

impl Root {
    /// Of a container in any state.
    ///
    /// # Errors
    /// None.
    pub fn of(record: &Record, _: Status) -> Result<Self, Trouble> {
        Ok(Self(record.rootfs.clone()))
    }
}

impl Tree for Root {
    fn directory(&self, path: &Path) -> io::Result<File> {
        let place = beneath::directory(&self.0, path, Missing::Error)?;
        place.dir().try_clone_to_owned().map(File::from)
    }
}
