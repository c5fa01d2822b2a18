//! Where containers are noted: one directory each below `--root`.
//!
//! ```text
//! <root>/<id>/            its flock is the container's lock
//!     config.json         what the bundle said at create, whatever happens to the bundle later
//!     journal             what must be taken back
//!     state.json          who it is; there from the moment the container is created, put there by rename
//!     unmaking.json       the same, from the moment that its delete has begun
//!     start.sock          the waiting first process listens here
//!     started             when it was started
//!     exit.json           how its first process ended, if that was seen
//! <root>/:seccomp/        compiled filters, by their profiles (Linux)
//! ```
//!
//! While the first process waits it holds a lock on `config.json`, through a descriptor that exec closes: whether that
//! lock is held is the difference between *created* and *running*, and no file must be kept right for it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Doing, Error, Result};
use crate::exit::Exit;
use crate::id::ContainerId;
use crate::journal::Journal;
use crate::state::Record;

/// Name of the directory below a container's own at which a read-only root is shown (FreeBSD).
pub const ROOT: &str = "root";

/// The directory of all containers.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// The directory of one container.
#[derive(Debug)]
pub struct Entry {
    dir: PathBuf,
    id: ContainerId,
}

/// The container's lock: while it is held, no other potrun changes the container.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] File);

impl Store {
    /// The store at `root`, which need not exist yet.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where compiled filters are kept: under a name that is no id.
    #[must_use]
    pub fn filters(&self) -> PathBuf {
        self.root.join(":seccomp")
    }

    /// Makes the entry of a new container and takes its lock.
    ///
    /// # Errors
    /// The id is taken, or the kernel's words.
    pub fn create(&self, id: &ContainerId) -> Result<(Entry, Lock)> {
        let entry = self.entry(id);
        let mut private = DirBuilder::new();
        private.mode(0o700);
        loop {
            let mut made = private.create(&entry.dir);
            if made.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                private.recursive(true).create(&self.root).doing(|| format!("create {}", self.root.display()))?;
                made = private.recursive(false).create(&entry.dir);
            }
            match made {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(taken(&entry)),
                other => other.doing(|| format!("create {}", entry.dir.display()))?,
            }
            match entry.lock() {
                Ok(lock) => return Ok((entry, lock)),
                // Between mkdir and flock a gc has removed the empty entry.
                Err(_) if !entry.dir.exists() => {}
                Err(_) => return Err(taken(&entry)),
            }
        }
    }

    /// The entry of an existing container.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, id: &ContainerId) -> Result<Entry> {
        let entry = self.entry(id);
        match fs::metadata(&entry.dir) {
            Ok(_) => Ok(entry),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(missing()),
            Err(e) => Err(e).doing(|| format!("look at {}", entry.dir.display())),
        }
    }

    /// All entries, by id.
    ///
    /// # Errors
    /// The directory cannot be read; that it is not there means that it is empty.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let doing = || format!("read {}", self.root.display());
        let listing = match fs::read_dir(&self.root) {
            Ok(listing) => listing,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).doing(doing),
        };
        let mut entries = Vec::new();
        for item in listing {
            let name = item.doing(doing)?.file_name();
            // What is not an id is not ours.
            if let Some(id) = name.to_str().and_then(|name| ContainerId::new(name).ok()) {
                entries.push(self.entry(&id));
            }
        }
        entries.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(entries)
    }

    fn entry(&self, id: &ContainerId) -> Entry {
        Entry { dir: self.root.join(id.as_str()), id: id.clone() }
    }
}

/// runc's words, which containerd and podman look for.
#[must_use]
pub fn missing() -> Error {
    Error::caller("container does not exist")
}

fn taken(entry: &Entry) -> Error {
    let error = Error::caller("container with given ID already exists");
    match entry.record() {
        Ok(None) => error.hint(format!("its create is under way, or died: potrun delete --force {}", entry.id)),
        _ => error,
    }
}

impl Entry {
    /// The container.
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The saved config.json.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    /// Where the first process listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("start.sock")
    }

    /// Takes the lock, waiting for whoever holds it.
    ///
    /// # Errors
    /// The container is gone, or the kernel's words.
    pub fn lock(&self) -> Result<Lock> {
        let dir = self.open()?;
        dir.lock().doing(|| format!("lock {}", self.dir.display()))?;
        self.same(dir)
    }

    /// Takes the lock if nobody holds it.
    ///
    /// # Errors
    /// The container is gone, or the kernel's words.
    pub fn try_lock(&self) -> Result<Option<Lock>> {
        let dir = self.open()?;
        match dir.try_lock() {
            Ok(()) => self.same(dir).map(Some),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e).doing(|| format!("lock {}", self.dir.display())),
        }
    }

    fn open(&self) -> Result<File> {
        match File::open(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(missing()),
            other => other.doing(|| format!("open {}", self.dir.display())),
        }
    }

    /// Whoever held the lock before may have removed the directory, and another may have made it anew.
    fn same(&self, locked: File) -> Result<Lock> {
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        match (locked.metadata().map(place), fs::metadata(&self.dir).map(place)) {
            (Ok(locked_at), Ok(there)) if locked_at == there => Ok(Lock(locked)),
            _ => Err(missing()),
        }
    }

    /// Keeps the configuration. The descriptor that is returned holds a lock: see the top of this file.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn keep_config(&self, config: &[u8]) -> Result<File> {
        let path = self.config();
        let doing = || format!("write {}", path.display());
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).doing(doing)?;
        file.write_all(config).doing(doing)?;
        file.lock().doing(doing)?;
        Ok(file)
    }

    /// Whether the first process still waits.
    #[must_use]
    pub fn waits(&self) -> bool {
        let Ok(file) = File::open(self.config()) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Whether there is a journal.
    #[must_use]
    pub fn has_journal(&self) -> bool {
        self.dir.join("journal").exists()
    }

    /// The journal.
    ///
    /// # Errors
    /// It cannot be opened, or is damaged.
    pub fn journal(&self) -> Result<Journal> {
        let path = self.dir.join("journal");
        Journal::open(&path).doing(|| format!("open {}", path.display()))
    }

    /// Writes the record down where only [`unfinished`](Self::unfinished) finds it.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn prepare(&self, record: &Record) -> Result<()> {
        let part = self.dir.join("state.json.part");
        let json = serde_json::to_vec(record).doing(|| "write state.json")?;
        fs::write(&part, json).doing(|| format!("write {}", part.display()))
    }

    /// Keeps the record that was prepared; from now on the container is created.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn keep(&self) -> Result<()> {
        let (path, part) = (self.dir.join("state.json"), self.dir.join("state.json.part"));
        fs::rename(&part, &path).doing(|| format!("write {}", path.display()))
    }

    /// The record of a container whose create died at its last step: its first process may live. One that cannot be
    /// read was being written, when that process still ended with its potrun.
    #[must_use]
    pub fn unfinished(&self) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.dir.join("state.json.part")).ok()?).ok()
    }

    /// The record, if the container got that far.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn record(&self) -> Result<Option<Record>> {
        for name in ["state.json", "unmaking.json"] {
            let path = self.dir.join(name);
            let doing = || format!("read {}", path.display());
            match fs::read(&path) {
                Ok(json) => return serde_json::from_slice(&json).map(Some).doing(doing),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).doing(doing),
            }
        }
        Ok(None)
    }

    /// Notes when the program was started: for who asks, since nothing depends on it.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn note_start(&self, when: &str) -> Result<()> {
        let path = self.dir.join("started");
        fs::write(&path, when).doing(|| format!("write {}", path.display()))
    }

    /// When the program was started, if it was.
    #[must_use]
    pub fn started(&self) -> Option<String> {
        fs::read_to_string(self.dir.join("started")).ok().filter(|text| !text.is_empty())
    }

    /// Keeps how the first process ended. The caller holds the lock.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn keep_exit(&self, exit: &Exit) -> Result<()> {
        let (path, part) = (self.dir.join("exit.json"), self.dir.join("exit.json.part"));
        let json = serde_json::to_vec(exit).doing(|| "write exit.json")?;
        fs::write(&part, json).and_then(|()| fs::rename(&part, &path)).doing(|| format!("write {}", path.display()))
    }

    /// How the first process ended, if that was seen.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn exit(&self) -> Result<Option<Exit>> {
        let path = self.dir.join("exit.json");
        let doing = || format!("read {}", path.display());
        match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map(Some).doing(doing),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).doing(doing),
        }
    }

    /// Notes that the container is being unmade: whoever finds it so finishes that.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn unmake(&self) -> Result<()> {
        let (from, to) = (self.dir.join("state.json"), self.dir.join("unmaking.json"));
        match fs::rename(&from, &to) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.doing(|| format!("rename {}", from.display())),
        }
    }

    /// Whether the container is whole: made, and not being unmade.
    #[must_use]
    pub fn whole(&self) -> bool {
        self.dir.join("state.json").exists()
    }

    /// Removes the entry: the files of known names, then the directory. What is already gone is no error.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn remove(&self) -> Result<()> {
        let gone = |result: io::Result<()>| match result {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        // The record goes first: without it the container is known as one whose making or unmaking must be finished.
        const NAMES: &[&str] = &[
            "state.json",
            "state.json.part",
            "unmaking.json",
            "exit.json",
            "exit.json.part",
            "started",
            "start.sock",
            "config.json",
            "journal",
        ];
        for name in NAMES {
            let path = self.dir.join(name);
            gone(fs::remove_file(&path)).doing(|| format!("remove {}", path.display()))?;
        }
        let result = match fs::remove_dir(&self.dir) {
            // The mount point of a read-only root: as long as something is mounted there, it cannot be removed.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {
                gone(fs::remove_dir(self.dir.join(ROOT))).and_then(|()| fs::remove_dir(&self.dir))
            }
            other => other,
        };
        gone(result).doing(|| format!("remove {}", self.dir.display()))
    }
}
