//! `ps`: the processes of a container.

use std::path::Path;

use clap::Args;

use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::host::this;
use crate::host::tool::{self, Output, Tool};
use crate::store::Store;

use super::list::Form;

/// All processes of the host, in the words of its ps(1).
const ALL: &str = if cfg!(target_os = "freebsd") { "-auxww" } else { "-ef" };

/// Arguments of `ps`.
#[derive(Debug, Args)]
pub struct Ps {
    /// Form of the list
    #[arg(short, long, value_enum, default_value_t)]
    format: Form,
    /// The container
    pub id: String,
    /// Arguments of ps(1); its output must have a column PID
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, default_value = ALL)]
    ps_args: Vec<String>,
}

impl cli::Run for Ps {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let (_, record, _) = super::find_made(&Store::at(&context.root), &super::id(&self.id)?)?;
        let pids = match &record.group {
            Some(group) => this::process::group(group).doing(|| format!("look at {group}"))?,
            None => vec![record.process.pid],
        };
        let text = match self.format {
            Form::Json => serde_json::to_string(&pids).map(|json| format!("{json}\n")).doing(|| "write JSON")?,
            Form::Table => self.table(&pids)?,
        };
        super::print(&text)?;
        Ok(0)
    }
}

impl Ps {
    /// The lines of ps(1) that are about `pids`.
    fn table(&self, pids: &[i32]) -> Result<String> {
        let path = ["/bin/ps", "/usr/bin/ps"].map(Path::new).into_iter().find(|path| path.exists());
        let path = path.ok_or_else(|| Error::operator("no ps(1) on this host; use --format json"))?;
        let args: Vec<String> = std::iter::once("ps".into()).chain(self.ps_args.iter().cloned()).collect();
        let tool = Tool { path, args: &args, env: &[], input: &[], timeout: None, output: Output::Keep };
        let output = tool::run(&tool).map_err(|e| Error::operator(e.to_string()))?;
        let output = String::from_utf8_lossy(&output);
        let mut lines = output.lines();
        let head = lines.next().unwrap_or_default();
        let column = head.split_whitespace().position(|name| name == "PID");
        let column = column.ok_or_else(|| Error::caller("the output of ps has no column PID"))?;
        let about = |line: &&str| {
            let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
            pid.is_some_and(|pid| pids.contains(&pid))
        };
        Ok(std::iter::once(head).chain(lines.filter(about)).map(|line| format!("{line}\n")).collect())
    }
}
