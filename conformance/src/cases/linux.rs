/*! What only Linux has. */

use serde_json::json;

use crate::bundle::Bundle;
use crate::case::{Case, Result};

mod console;
mod devices;
mod exec;
mod fds;
mod hooks;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod root;
mod seccomp;
mod security;
mod state;

/// In the order in which they run.
pub(super) const CASES: &[&[Case]] = &[
    state::CASES,
    exec::CASES,
    console::CASES,
    process::CASES,
    fds::CASES,
    root::CASES,
    mounts::CASES,
    devices::CASES,
    namespaces::CASES,
    resources::CASES,
    seccomp::CASES,
    hooks::CASES,
    security::CASES,
];

impl Bundle {
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
}
