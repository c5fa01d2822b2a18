//! `gc`: finishes what a killed potrun left behind.

use clap::Args;

use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::host::this;
use crate::store::{Entry, Store};

/// Arguments of `gc`.
#[derive(Debug, Args)]
pub struct Gc {}

impl cli::Run for Gc {
    /// Containers whose create or delete died, containers of a `run` that died, leases, layers and notes of containers
    /// that are no more, and half-imported bases.
    fn run(&self, context: &Context) -> Result<u8> {
        let mut failed: Vec<Error> = Vec::new();
        for entry in Store::at(&context.root).entries()? {
            match collect(&entry) {
                Ok(true) => super::print(&format!("{}\n", entry.id()))?,
                Ok(false) => {}
                Err(e) => failed.push(e.during(entry.id().to_string())),
            }
        }
        let ledger = this::facts::ledger();
        // Only root can have leases.
        if nix::unistd::geteuid().is_root() && super::network::used(&ledger) {
            let _networks = super::networks(&ledger)?;
            let ended = super::sweep_leases(&ledger)?;
            for lease in ended {
                super::print(&format!("lease of {}\n", lease.id))?;
            }
            for bridge in super::network::sweep(&ledger)? {
                super::print(&format!("bridge {bridge}\n"))?;
            }
        }
        for path in super::making::sweep(&this::facts::storage(&context.store))? {
            super::print(&format!("{}\n", path.display()))?;
        }
        let swept = this::sweep(&context.store, &context.root).doing(|| "sweep the store")?;
        for path in swept {
            super::print(&format!("{}\n", path.display()))?;
        }
        for path in this::facts::bases(&context.store).sweep().doing(|| "sweep the bases")? {
            super::print(&format!("{}\n", path.display()))?;
        }
        match failed.len() {
            0 => Ok(0),
            n => Err(failed.iter().fold(Error::operator(format!("{n} could not be taken back")), |all, e| {
                e.hints().iter().fold(all.hint(e.chain()), |all, hint| all.hint(hint.clone()))
            })),
        }
    }
}

/// Takes the container back if nobody else will. Whether it was.
fn collect(entry: &Entry) -> Result<bool> {
    let _lock = match entry.try_lock() {
        Ok(Some(lock)) => lock,
        Ok(None) => return Ok(false), // somebody is at it
        Err(_) if !entry.dir().exists() => return Ok(false),
        Err(e) => return Err(e),
    };
    // A damaged record: the journal still says what to take back.
    let record = entry.record().unwrap_or_default();
    let orphan = match record.as_ref().and_then(|record| record.supervisor.as_ref()) {
        Some(supervisor) => {
            !this::process::alive(supervisor).doing(|| format!("look at process {}", supervisor.pid))?
        }
        None => false,
    };
    if entry.whole() && record.is_some() && !orphan {
        return Ok(false);
    }
    super::delete::delete(entry, record.as_ref())?;
    Ok(true)
}
