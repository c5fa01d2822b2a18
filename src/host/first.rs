//! What a container's first process is given, whatever the system.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use crate::op::{Hook, Moment};
use crate::state::{State, Status};

use super::this;
use super::tool::{self, Output, Tool};

/// What the container's first process is given besides its ops.
#[derive(Debug)]
pub struct Io {
    /// Where it listens for `start`. None: it starts at once (`exec`).
    pub listen: Option<OwnedFd>,
    /// The descriptor whose lock says that it still waits.
    pub waiting: Option<File>,
    /// Where the master of its terminal is sent.
    pub console: Option<OwnedFd>,
    /// How many descriptors from 3 on it keeps (`--preserve-fds`).
    pub preserve: u32,
    /// Where compiled seccomp filters are kept (Linux).
    pub filters: PathBuf,
    /// What hooks read from their stdin, but for pid and status.
    pub state: State,
}

/// Runs a hook with the state that it must see.
///
/// # Errors
/// It cannot be started, fails, or takes too long.
pub fn run_hook(hook: &Hook, mut state: State) -> Result<(), tool::ToolError> {
    state.status = match hook.moment {
        Moment::Prestart | Moment::CreateRuntime | Moment::CreateContainer => Status::Creating,
        Moment::StartContainer => Status::Created,
        Moment::Poststart => Status::Running,
        Moment::Poststop => Status::Stopped,
    };
    let input = serde_json::to_vec(&state).unwrap_or_default(); // a State holds texts and numbers only
    let timeout = hook.timeout.map(Duration::from_secs);
    let tool =
        Tool { path: &hook.path, args: &hook.args, env: &hook.env, input: &input, timeout, output: Output::Inherit };
    tool::run(&tool).map(drop)
}

/// More descriptors than a process that starts containers has open by then.
const DESCRIPTORS: u32 = 1024;

/// Closes every descriptor from 3 on that is not in `keep`: what another program left open in us must not come into
/// the container (CVE-2024-21626).
pub(crate) fn close_all_but(preserve: u32, keep: &[&OwnedFd]) -> io::Result<()> {
    let mut kept: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    kept.sort_unstable();
    let mut first = preserve.saturating_add(3);
    // Where the caller has opened fewer than it says, potrun's own are among the numbers to keep: the container's
    // lock would be held by its first process.
    for fd in (3..first).take_while(|fd| *fd < DESCRIPTORS) {
        if !kept.contains(&fd) && super::sys::is_close_on_exec(fd) {
            this::close_range(fd, fd)?;
        }
    }
    for fd in kept {
        if fd > first {
            this::close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    this::close_range(first, u32::MAX)
}
