//! `plan`: every step of a bundle's translation, without taking any.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use crate::bundle::Bundle;
use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::facts::{Facts, Os};
use crate::host::this;
use crate::id::ContainerId;
use crate::plan;

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// Operating system to translate for, if not this one
    #[arg(long, value_enum)]
    os: Option<Os>,
    /// The machine to translate for, if not this one: what --show-facts printed there
    #[arg(long, value_name = "FILE")]
    facts: Option<PathBuf>,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
    /// Print the facts that the plan would be made from, and no plan
    #[arg(long)]
    show_facts: bool,
    /// The container
    #[arg(long, default_value = "example")]
    id: String,
    /// Directory of the bundle
    #[arg(default_value = ".")]
    bundle: PathBuf,
}

impl cli::Run for Plan {
    fn run(&self, context: &Context) -> Result<u8> {
        let id = super::id(&self.id)?;
        let bundle = Bundle::read(&self.bundle).map_err(super::refused)?;
        let facts = self.facts(context, &bundle, &id)?;
        let text = if self.show_facts {
            serde_json::to_string_pretty(&facts).map(|json| json + "\n").doing(|| "write JSON")?
        } else {
            let plan = plan::plan(&bundle, &facts, &id).map_err(|e| super::refused(e.into()))?;
            let json = || serde_json::to_string_pretty(&plan).map(|json| json + "\n").doing(|| "write JSON");
            if self.json { json()? } else { plan.to_string() }
        };
        super::print(&text)?;
        Ok(0)
    }
}

impl Plan {
    /// The facts that were given, those of this machine, or for another operating system those of a machine that has
    /// everything.
    fn facts(&self, context: &Context, bundle: &Bundle, id: &ContainerId) -> Result<Facts> {
        if let Some(path) = &self.facts {
            let json = fs::read(path).doing(|| format!("read {}", path.display()))?;
            let facts: Facts = serde_json::from_slice(&json).doing(|| format!("read {}", path.display()))?;
            return match self.os {
                Some(os) if os != facts.os => Err(Error::caller(format!("the facts are of {}, not of {os}", facts.os))),
                _ => Ok(facts),
            };
        }
        match self.os {
            Some(os) if Some(os) != this::OS => Ok(Facts::assumed(os, bundle)),
            _ => {
                let mut facts = this::facts::gather(bundle, id, &context.root, &context.store)?;
                super::groups(context, &mut facts)?;
                Ok(facts)
            }
        }
    }
}
