//! `state`: what the specification wants to be told of a container; `show`: all that is known of it.

use std::fs;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::bundle::ANNOTATION;
use crate::cli::{self, Context};
use crate::error::{Doing, Result};
use crate::host::this;
use crate::state::{OCI_VERSION, State, Status};
use crate::stats;
use crate::store::{Entry, Store};

/// Arguments of `state`.
#[derive(Debug, Args)]
pub struct Show {
    /// The container
    pub id: String,
}

impl cli::Run for Show {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let entry = Store::at(&context.root).find(&super::id(&self.id)?)?;
        let state = state(&entry)?;
        let json = serde_json::to_string_pretty(&state).doing(|| "write JSON")?;
        super::print(&format!("{json}\n"))?;
        Ok(0)
    }
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct All {
    /// As JSON, which is the only form there is
    #[arg(long)]
    pub json: bool,
    /// The container
    pub id: String,
}

impl cli::Run for All {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let entry = Store::at(&context.root).find(&super::id(&self.id)?)?;
        let mut all = serde_json::to_value(state(&entry)?).doing(|| "write JSON")?;
        if let Some(record) = entry.record()? {
            let status = super::status(&entry, Some(&record))?;
            let group = record.group.as_ref();
            let lives = !matches!(status, Status::Stopped | Status::Creating);
            // Nothing is waited for: one that has ended already is on record, or has left its status, or neither.
            all["exit"] = match lives {
                true => Value::Null,
                false => json!(super::wait::ended(&entry, &record, Some(Duration::ZERO), || Ok(()))?),
            };
            all["started"] = json!(entry.started());
            all["group"] = json!(group);
            all["processes"] = match group {
                Some(group) => json!(this::process::group(group).doing(|| format!("look at {group}"))?),
                None => json!(lives.then_some(record.process.pid).into_iter().collect::<Vec<_>>()),
            };
            // Where nothing is counted, nothing is shown.
            all["stats"] =
                json!(group.and_then(|group| this::process::usage(group).ok()).map(|files| stats::data(&files)));
            all["layers"] = json!(this::files::shared_layers(&record).doing(|| "look at its layers")?);
            all["pot"] = pot(&fs::read(entry.config()).doing(|| "read config.json")?);
        }
        super::print(&format!("{}\n", serde_json::to_string_pretty(&all).doing(|| "write JSON")?))?;
        Ok(0)
    }
}

/// The pot section of a configuration, wherever it stands.
fn pot(config: &[u8]) -> Value {
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    let annotation = || serde_json::from_str(config["annotations"][ANNOTATION].as_str()?).ok();
    config.get("pot").cloned().or_else(annotation).unwrap_or_default()
}

/// The state of a container.
pub(super) fn state(entry: &Entry) -> Result<State> {
    let record = entry.record()?;
    let status = super::status(entry, record.as_ref())?;
    Ok(match record {
        Some(record) => State::of(&record, status),
        None => unmade(entry, status),
    })
}

/// A container whose `create` is under way, or died: all that is known is its name.
fn unmade(entry: &Entry, status: Status) -> State {
    State {
        oci_version: OCI_VERSION.into(),
        id: entry.id().to_string(),
        pid: 0,
        status,
        bundle: std::path::PathBuf::new(),
        rootfs: std::path::PathBuf::new(),
        created: String::new(),
        annotations: std::collections::BTreeMap::new(),
        owner: String::new(),
    }
}
