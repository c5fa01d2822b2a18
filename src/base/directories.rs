//! Bases in directories, as the prologue of [`base`](super) draws them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, mkdirat};

use super::error::At;
use super::partial::{self, Partial};
use super::{Base, BaseError, Keep, Room, check_name, make_directory, unpack, write_record};

/// The bases of a store of directories.
#[derive(Clone, Debug)]
pub struct Directories {
    bases: PathBuf,
}

impl Directories {
    /// The bases in the directory `store`, which need not be there yet.
    #[must_use]
    pub fn at(store: &Path) -> Self {
        Self { bases: store.join("bases") }
    }

    /// The file system of a base, there or not.
    #[must_use]
    pub fn tree(&self, name: &str) -> PathBuf {
        self.bases.join(name).join("tree")
    }

    /// The directory with one file for each container that uses a base.
    #[must_use]
    pub fn users_directory(&self, name: &str) -> PathBuf {
        self.bases.join(name).join("users")
    }
}

impl Keep for Directories {
    fn find(&self, name: &str) -> Result<Option<Base>, BaseError> {
        let path = self.bases.join(name).join("base.json");
        match fs::read(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error).at("read", path),
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(base) => Ok(Some(base)),
                Err(source) => Err(BaseError::Record { path, source }),
            },
        }
    }

    fn list(&self) -> Result<Vec<Base>, BaseError> {
        let entries = match fs::read_dir(&self.bases) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.at("list", &self.bases)?,
        };
        let mut bases = Vec::new();
        for entry in entries {
            let name = entry.at("list", &self.bases)?.file_name();
            let Some(name) = name.to_str().filter(|name| check_name(name).is_ok()) else { continue };
            bases.extend(self.find(name)?);
        }
        bases.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(bases)
    }

    fn begin(&self, name: &str) -> Result<Box<dyn Room>, BaseError> {
        self.sweep()?;
        make_directory(&self.bases)?;
        let partial = Partial::make(&self.bases, name)?;
        let path = partial.path().join("tree");
        mkdirat(partial.fd(), "tree", Mode::S_IRWXU).at("make directory", &path)?;
        let tree = partial::open_directory(&path).at("open", &path)?;
        Ok(Box::new(New { partial, tree }))
    }

    fn users(&self, name: &str) -> Result<Vec<String>, BaseError> {
        let path = self.users_directory(name);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.at("list", &path)?,
        };
        let mut users = Vec::new();
        for entry in entries {
            users.push(entry.at("list", &path)?.file_name().to_string_lossy().into_owned());
        }
        users.sort();
        Ok(users)
    }

    fn remove(&self, name: &str) -> Result<(), BaseError> {
        let users = self.users_directory(name);
        match fs::remove_dir(&users) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                return Err(BaseError::InUse { name: name.to_owned(), users: self.users(name)? });
            }
            other => other.at("remove", &users)?,
        }
        partial::remove_base(&self.bases, name)
    }

    fn sweep(&self) -> Result<Vec<PathBuf>, BaseError> {
        let mut swept = Vec::new();
        for base in self.list()? {
            let users = self.users_directory(&base.name);
            let begun = fs::symlink_metadata(&users).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            if begun {
                partial::remove_base(&self.bases, &base.name)?;
                swept.push(self.bases.join(base.name));
            }
        }
        swept.extend(partial::sweep(&self.bases)?);
        Ok(swept)
    }
}

/// A directory that becomes a base.
struct New {
    partial: Partial,
    tree: File,
}

impl Room for New {
    fn tree(&self) -> &File {
        &self.tree
    }

    fn publish(self: Box<Self>, base: &Base, sync: bool) -> Result<bool, BaseError> {
        let inside = |what: &str| self.partial.path().join(what);
        write_record(&inside("base.json"), base)?;
        mkdirat(self.partial.fd(), "users", Mode::S_IRWXU).at("make directory", inside("users"))?;
        if sync {
            unpack::sys::sync(self.partial.fd()).at("write", self.partial.path())?;
        }
        self.partial.publish(&base.name, sync)
    }
}
