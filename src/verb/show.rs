//! `state`: what the specification wants to be told of a container.

use clap::Args;

use crate::cli::{self, Context};
use crate::error::{Doing, Result};
use crate::state::{OCI_VERSION, State, Status};
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
