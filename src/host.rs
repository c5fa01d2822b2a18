//! The seam between steps and a machine.
//!
//! A [`Host`] carries out ops. There are three: the operating system that potrun was built for, [`This`]; and
//! [`fake`], a small machine with state for the tests.

pub(crate) mod child;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod first;
pub(crate) mod link;
pub(crate) mod program;
pub mod storage;
pub(crate) mod sys;
pub mod terminal;
pub mod tool;
pub mod zfs;

use std::error::Error as StdError;

use crate::op::Op;

#[cfg(target_os = "linux")]
pub use crate::linux::host::{self as this, LinuxHost as This};

#[cfg(target_os = "freebsd")]
pub use crate::freebsd::host::{self as this, FreebsdHost as This};

/// Why an op could not be carried out: the kernel's or a tool's own words.
pub type Trouble = Box<dyn StdError + Send + Sync>;

/// A machine that ops are carried out on.
pub trait Host {
    /// Carries out `op`, all or nothing: with `Err` the machine is as it was. Taking away what is already gone, or what
    /// does not carry our mark, is `Ok`.
    ///
    /// # Errors
    /// The kernel's or the tool's words.
    fn run(&mut self, op: &Op) -> Result<(), Trouble>;

    /// Why `op` must not even be noted, if so: what it would make is there already, is not ours, and can carry no mark,
    /// so that its inverse would take it away. Asked of each op that has an inverse, before that is written down.
    fn taken(&self, _op: &Op) -> Option<String> {
        None
    }

    /// Why this host cannot carry out `op` at all, if so: asked of every op before the first is carried out.
    fn cannot(&self, op: &Op) -> Option<String>;
}
