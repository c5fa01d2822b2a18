//! `info`: what potrun is here: versions, places, drivers and why they are these, and what the kernel offers.

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cli::{self, Context};
use crate::error::{Doing, Result};
use crate::facts::Store;
use crate::host::{this, zfs};
use crate::state::OCI_VERSION;

use super::list::Form;

/// Arguments of `info`.
#[derive(Debug, Args)]
pub struct Info {
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    format: Form,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    version: &'static str,
    spec: &'static str,
    os: String,
    kernel: String,
    machine: String,
    root: String,
    store: Map<String, Value>,
    /// Version of zfs(8); absent where there is none.
    zfs: Option<String>,
    /// Absent where there is no hierarchy that this caller can use.
    cgroup: Option<Value>,
    offers: Map<String, Value>,
}

impl cli::Run for Info {
    fn run(&self, context: &Context) -> Result<u8> {
        let answer = Answer::of(context)?;
        let text = match self.format {
            Form::Json => serde_json::to_string_pretty(&answer).doing(|| "write JSON")? + "\n",
            Form::Table => answer.text(),
        };
        super::print(&text)?;
        Ok(0)
    }
}

impl Answer {
    fn of(context: &Context) -> Result<Self> {
        let storage = this::facts::storage(&context.store);
        let mut store = match &storage.store {
            Store::Zfs { dataset, path } => json!({"driver": "zfs", "dataset": dataset, "path": path}),
            Store::Overlay { path } => json!({"driver": "overlay", "path": path}),
        };
        store["directory"] = json!(storage.directory);
        store["why"] = json!(storage.why);
        let cgroup = this::facts::cgroup().doing(|| "look at control groups")?.map(|group| {
            json!({"version": 2, "driver": "cgroupfs", "mount": group.mount, "parent": group.parent,
                "controllers": group.controllers})
        });
        let name = nix::sys::utsname::uname().doing(|| "look at the kernel")?;
        let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            spec: OCI_VERSION,
            os: this::OS.map(|os| os.to_string()).unwrap_or_default(),
            kernel: text(name.release()),
            machine: text(name.machine()),
            root: context.root.display().to_string(),
            store: store.as_object().cloned().unwrap_or_default(),
            zfs: zfs::version(),
            cgroup,
            offers: this::facts::offers().into_iter().map(|(name, value)| (name.to_string(), value)).collect(),
        })
    }

    fn text(&self) -> String {
        let word = |value: &Value| match value {
            Value::Array(all) => all.iter().map(|one| one.as_str().unwrap_or_default()).collect::<Vec<_>>().join(" "),
            Value::String(text) => text.clone(),
            Value::Bool(true) => "yes".into(),
            Value::Bool(false) => "no".into(),
            other => other.to_string(),
        };
        let mut rows = vec![
            ["potrun".into(), format!("{}, specification {}", self.version, self.spec)],
            ["system".into(), format!("{} {}, {}", self.os, self.kernel, self.machine)],
            ["root".into(), self.root.clone()],
        ];
        rows.extend(self.store.iter().map(|(name, value)| [format!("store {name}"), word(value)]));
        rows.push(["zfs".into(), self.zfs.clone().unwrap_or_else(|| "none".into())]);
        match self.cgroup.as_ref().and_then(Value::as_object) {
            Some(group) => rows.extend(group.iter().map(|(name, value)| [format!("cgroup {name}"), word(value)])),
            None => rows.push(["cgroup".into(), "none that can be used".into()]),
        }
        rows.extend(self.offers.iter().map(|(name, value)| [name.clone(), word(value)]));
        super::table(&rows)
    }
}
