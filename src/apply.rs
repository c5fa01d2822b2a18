//! Carrying out ops, and taking them back: the only two loops over steps that change a machine.
//!
//! As much as possible is decided in [`plan`](crate::plan); as little as possible lives here.

use std::error::Error as StdError;

use crate::host::{Host, Trouble};
use crate::journal::Journal;
use crate::op::Op;

/// An op failed. What was done before it has been taken back, but for what is left.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failed {
    /// The op, or nothing where the cause names its own step.
    pub what: String,
    /// Why.
    pub source: Box<dyn StdError + Send + Sync>,
}

/// Something that could not be taken back; it stays in the journal.
#[derive(Debug, thiserror::Error)]
#[error("{op}")]
pub struct Left {
    /// The op that failed.
    pub op: Op,
    /// Why.
    pub source: Box<dyn StdError + Send + Sync>,
}

/// Carries out `ops` in order, noting each inverse before it is needed.
///
/// # Errors
/// The first op that fails. It has changed nothing, and what came before it is still in the journal: the caller calls
/// [`take_back`].
pub fn apply(host: &mut dyn Host, journal: &mut Journal, ops: &[Op]) -> Result<(), Failed> {
    for op in ops {
        tracing::debug!("{op}");
        let failed = |source: Box<dyn StdError + Send + Sync>| Failed { what: op.to_string(), source };
        let undo = op.undo();
        let noted = undo.is_some();
        if let Some(undo) = undo {
            // Killed between the note and the op, we would take back what somebody else has made.
            if let Some(what) = host.taken(op) {
                return Err(failed(what.into()));
            }
            journal.note(undo).map_err(|e| failed(Box::new(e)))?;
        }
        if let Err(cause) = run(host, journal, op) {
            if noted {
                // Err means that the machine is as before. Should this line not get written, taking back what is not
                // there does no harm.
                if let Some(Err(e)) = journal.latest().map(|n| journal.strike(n)) {
                    tracing::warn!("journal: {e}");
                }
            }
            return Err(failed(cause));
        }
    }
    Ok(())
}

/// Carries out one op. What is started for it works under the lock of the journal, even when we are gone; but the
/// bundle's own programs, which may stay for ever, do not.
fn run(host: &mut dyn Host, journal: &Journal, op: &Op) -> Result<(), Trouble> {
    journal.share(!matches!(op, Op::Spawn(_) | Op::Resume | Op::Hook(_)))?;
    let done = host.run(op);
    journal.share(false)?;
    done
}

/// Takes back everything that is pending, the latest first. What fails stays pending and is returned; the rest goes on,
/// because one thing that is stuck is no reason to leave the others. Only what is shared waits for it.
pub fn take_back(host: &mut dyn Host, journal: &mut Journal) -> Vec<Left> {
    let mut left = Vec::new();
    for (n, op) in journal.pending().into_iter().rev() {
        // Whether a shared thing is still used is asked when nothing of ours uses it any more: otherwise it would be
        // struck as somebody else's, and stay.
        if op.releases_shared() && !left.is_empty() {
            left.push(Left { op, source: "what is left may need it".into() });
            continue;
        }
        tracing::debug!("{op}");
        match run(host, journal, &op) {
            Ok(()) => {
                if let Err(e) = journal.strike(n) {
                    tracing::warn!("journal: {e}");
                }
            }
            Err(source) => left.push(Left { op, source }),
        }
    }
    left
}
