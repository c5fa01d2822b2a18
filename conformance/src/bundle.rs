/*! A bundle: a root file system with the probe as its only file, and a config.json that is edited as JSON. */

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::case::Result;

/// A bundle directory, and the configuration it will have.
pub(crate) struct Bundle {
    /// The directory.
    pub(crate) dir: PathBuf,
    /// The configuration, written by `write`.
    pub(crate) config: Value,
}

impl Bundle {
    /// A bundle whose process is `probe wait`, confined the way callers confine by default.
    pub(crate) fn new(dir: PathBuf, probe: &Path, id: &str) -> io::Result<Self> {
        fs::create_dir_all(dir.join("rootfs"))?;
        fs::hard_link(probe, dir.join("rootfs/probe"))?;
        let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": 0, "gid": 0},
                "args": ["/probe", "wait"],
                "env": ["PATH=/bin:/"],
                "cwd": "/",
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
                "noNewPrivileges": true,
            },
            "root": {"path": "rootfs", "readonly": false},
            "hostname": "conformance",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            ],
            "linux": {
                "cgroupsPath": format!("/{id}"),
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
                "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            },
        });
        Ok(Self { dir, config })
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
        if let Value::Array(all) = slot(&mut self.config, "/linux/namespaces") {
            all.retain(|ns| ns["type"] != kind);
        }
        self
    }

    /// Gives the process exactly these capabilities.
    pub(crate) fn caps(&mut self, names: &[&str]) -> &mut Self {
        let names = json!(names);
        self.set("/process/capabilities", json!({"bounding": names, "effective": names, "permitted": names}))
    }

    /// A user namespace that maps root to 100000, and a root file system that belongs to it.
    pub(crate) fn user_namespace(&mut self) -> Result {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        self.push("/linux/namespaces", json!({"type": "user"}));
        self.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        nix::unistd::chown(&self.rootfs(""), Some(100_000.into()), Some(100_000.into()))?;
        Ok(())
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
