//! `list`: all containers.

use clap::{Args, ValueEnum};

use crate::cli::{self, Context};
use crate::error::{Doing, Result};
use crate::state::State;
use crate::store::Store;

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct List {
    /// Form of the list
    #[arg(short, long, value_enum, default_value_t)]
    format: Form,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
}

/// Form of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Columns.
    #[default]
    Table,
    /// JSON.
    Json,
}

impl cli::Run for List {
    fn run(&self, context: &Context) -> Result<u8> {
        let (mut states, mut failed) = (Vec::new(), None);
        for entry in Store::at(&context.root).entries()? {
            match super::show::state(&entry) {
                Ok(state) => states.push(state),
                // Deleted since the directory was read.
                Err(_) if !entry.dir().exists() => {}
                // One that is damaged must not hide the others.
                Err(e) => failed = Some(e.during(entry.id().to_string())),
            }
        }
        super::print(&self.text(&states)?)?;
        failed.map_or(Ok(0), Err)
    }
}

impl List {
    fn text(&self, states: &[State]) -> Result<String> {
        if self.quiet {
            return Ok(states.iter().map(|state| format!("{}\n", state.id)).collect());
        }
        if self.format == Form::Json {
            return serde_json::to_string(states).map(|json| format!("{json}\n")).doing(|| "write JSON");
        }
        let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
        rows.extend(states.iter().map(|state| {
            let State { id, pid, status, bundle, created, owner, .. } = state;
            [
                id.clone(),
                pid.to_string(),
                status.to_string(),
                bundle.display().to_string(),
                created.clone(),
                owner.clone(),
            ]
        }));
        Ok(super::table(&rows))
    }
}
