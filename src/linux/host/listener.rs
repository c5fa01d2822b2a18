//! Handing the descriptor on which SCMP_ACT_NOTIFY is answered to the agent that answers (seccomp_unotify(2)).
//!
//! The descriptor comes with the filter, and from then on any system call of ours may be one that waits for the agent. So
//! a helper hands it over: a process of its own without the filter, that shares our table of descriptors.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, dup};
use serde_json::json;

use crate::host::{Trouble, link, sys as posix};
use crate::linux::seccomp::Filter;
use crate::state::State;

use super::{bpf, sys};

/// Installs the filter and lets the agent at `socket` have its descriptor, with the state of the container
/// (config-linux.md, "The Container Process State").
pub(super) fn install(filter: &Filter, socket: BorrowedFd<'_>, metadata: &str, state: &State) -> Result<(), Trouble> {
    let text = json!({
        "ociVersion": state.oci_version, "fds": ["seccompFd"], "pid": state.pid, "metadata": metadata, "state": state,
    });
    let text = text.to_string();
    // The kernel gives the lowest number that is free: this one, as soon as it is free again.
    let next = dup(socket)?;
    let number = next.as_raw_fd();
    drop(next);
    let helper = sys::clone3(&sys::Clone { flags: libc::CLONE_FILES as u64, cgroup: None })?;
    let Some(helper) = helper else { posix::exit(i32::from(hand_over(number, socket, &text).is_err())) };
    let helper = Pid::from_raw(helper);
    let listener = match bpf::seccomp_install(filter) {
        Ok(listener) => listener,
        Err(e) => {
            nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGKILL)?;
            waitpid(helper, None)?;
            return Err(e.into());
        }
    };
    std::mem::forget(listener); // the helper closes it when it is sent: the table is one
    match waitpid(helper, None) {
        // A filter may even deny us to wait.
        Ok(WaitStatus::Exited(_, 0)) | Err(_) => Ok(()),
        Ok(status) => Err(format!("hand the listener to the agent: {status:?}").into()),
    }
}

/// The helper's work. That the filter is there is told by the descriptor alone: the process that has it must not make a
/// system call for us.
fn hand_over(number: i32, socket: BorrowedFd<'_>, text: &str) -> Result<(), Trouble> {
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0)?;
    while !posix::is_close_on_exec(number as u32) {
        nix::sched::sched_yield()?;
    }
    Ok(link::send_fd(socket, text, &sys::take(number))?)
}
