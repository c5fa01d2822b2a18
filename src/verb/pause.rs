//! `pause` and `resume`: all processes of a container at once, by its control group.

use clap::Args;

use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::host::this;
use crate::state::Status;
use crate::store::Store;

/// Arguments of `pause`.
#[derive(Debug, Args)]
pub struct Pause {
    /// The container
    pub id: String,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub struct Resume {
    /// The container
    pub id: String,
}

impl cli::Run for Pause {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        freeze(context, &self.id, true, |status| match status {
            Status::Created | Status::Running => Ok(()),
            Status::Paused => Err(Error::caller("container already paused")),
            Status::Creating | Status::Stopped => Err(Error::caller("container not running")),
        })
    }
}

impl cli::Run for Resume {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        freeze(context, &self.id, false, |status| match status {
            Status::Paused => Ok(()),
            _ => Err(Error::caller("container not paused")),
        })
    }
}

fn freeze(context: &Context, id: &str, frozen: bool, allowed: impl Fn(Status) -> Result<()>) -> Result<u8> {
    let (_, record, status) = super::find_made(&Store::at(&context.root), &super::id(id)?)?;
    allowed(status)?;
    let group = record.group.ok_or_else(|| Error::operator("the container has no control group to freeze"))?;
    this::process::freeze(&group, frozen).doing(|| format!("freeze {group}"))?;
    Ok(0)
}
