/*! A bundle: a root file system with the probe and no more than that needs, and a config.json that is edited as JSON. */

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::system;

/// The program in the containers, and what it needs to run.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// The program.
    pub(crate) path: PathBuf,
    /// A directory with its libraries, by the paths that they have in a root file system.
    dir: PathBuf,
    libraries: Vec<PathBuf>,
}

impl Probe {
    /// Copies the one beside this program into the workshop.
    pub(crate) fn new(workshop: &Path) -> io::Result<Self> {
        let beside = std::env::current_exe()?.with_file_name("conformance-probe");
        let dir = workshop.join("probe");
        fs::create_dir(&dir)?;
        let path = dir.join("probe");
        fs::copy(&beside, &path).map_err(|err| io::Error::other(format!("{}: {err}", beside.display())))?;
        Ok(Self { libraries: system::libraries(&path, &dir)?, path, dir })
    }

    /// Puts it into a root file system.
    pub(crate) fn install(&self, rootfs: &Path) -> io::Result<()> {
        for file in self.libraries.iter().map(PathBuf::as_path).chain([Path::new("probe")]) {
            let to = rootfs.join(file);
            fs::create_dir_all(to.parent().unwrap_or(rootfs))?;
            fs::hard_link(self.dir.join(file), to)?;
        }
        Ok(())
    }
}

/// A bundle directory, and the configuration it will have.
pub(crate) struct Bundle {
    /// The directory.
    pub(crate) dir: PathBuf,
    /// The configuration, written by `write`.
    pub(crate) config: Value,
}

impl Bundle {
    /// A bundle whose process is `probe wait`.
    pub(crate) fn new(dir: PathBuf, probe: &Probe, id: &str) -> io::Result<Self> {
        probe.install(&dir.join("rootfs"))?;
        Ok(Self { dir, config: system::config(id) })
    }

    /// The root file system, from the host.
    pub(crate) fn rootfs(&self, path: &str) -> PathBuf {
        self.dir.join("rootfs").join(path.trim_start_matches('/'))
    }

    /// What the container runs.
    pub(crate) fn args(&mut self, args: &[&str]) -> &mut Self {
        self.set("/process/args", json!(args))
    }

    /// Sets the member at a JSON pointer, and makes the objects on the way there.
    pub(crate) fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        *slot(&mut self.config, pointer) = value;
        self
    }

    /// Appends to the array at a JSON pointer.
    pub(crate) fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        match slot(&mut self.config, pointer) {
            Value::Array(array) => array.push(value),
            other => *other = json!([value]),
        }
        self
    }

    /// Takes the member at a JSON pointer away.
    pub(crate) fn remove(&mut self, pointer: &str) -> &mut Self {
        let (parent, name) = pointer.rsplit_once('/').unwrap_or_default();
        if let Value::Object(members) = slot(&mut self.config, parent) {
            members.remove(name);
        }
        self
    }

    /// One more mount.
    pub(crate) fn mount(
        &mut self,
        fstype: &str,
        source: impl AsRef<Path>,
        destination: &str,
        options: &[&str],
    ) -> &mut Self {
        let source = source.as_ref().display().to_string();
        self.push("/mounts", json!({"destination": destination, "type": fstype, "source": source, "options": options}))
    }

    /// Drops the namespace of this kind, or all of them.
    pub(crate) fn without_namespace(&mut self, kind: &str) -> &mut Self {
        if let Some(Value::Array(all)) = self.config.pointer_mut("/linux/namespaces") {
            all.retain(|ns| ns["type"] != kind);
        }
        self
    }

    /// Makes it what a runtime will read.
    pub(crate) fn write(&self) -> io::Result<()> {
        fs::write(self.dir.join("config.json"), serde_json::to_vec_pretty(&self.config)?)
    }
}

fn slot<'a>(value: &'a mut Value, pointer: &str) -> &'a mut Value {
    pointer.split('/').skip(1).fold(value, |value, name| match value {
        Value::Array(array) => &mut array[name.parse::<usize>().unwrap_or_default()],
        other => {
            if !other.is_object() {
                *other = Value::Object(Map::new());
            }
            &mut other[name]
        }
    })
}
