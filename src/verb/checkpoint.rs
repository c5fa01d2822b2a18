//! `checkpoint` and `restore`: not offered, and said so, also to who asks for their help to see whether they are.

use clap::Args;

use crate::cli::{self, Context};
use crate::error::{Error, Result};

/// Arguments of `checkpoint` and `restore`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Checkpoint {
    /// Whatever runc would take
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _arguments: Vec<std::ffi::OsString>,
}

impl cli::Run for Checkpoint {
    fn run(&self, _: &Context) -> Result<u8> {
        Err(Error::caller("checkpoint and restore are not offered: potrun does not save the memory of processes"))
    }
}
