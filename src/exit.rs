//! How a container's first process ended.
//!
//! potrun has no process that stays, so nobody is sure to see the end: the first process is the child of `potrun run`, or
//! of whoever called `create` (conmon, a shim, init). Who sees it writes it down, once, in `exit.json` of the container:
//! `run`, and any `wait`, `stop` or `show` that watches, or finds the process before its parent has asked for its status.
//! Where nobody did, the end is known and its code is not, and this says so.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// The record of an end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// As a shell has it: 128 and the signal's number for a killed one. `null`: nobody saw the end.
    pub exit_code: Option<u8>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Whether the kernel killed a process of it for want of memory. `null`: nothing counts that here.
    pub oom_killed: Option<bool>,
    /// When it was created, RFC 3339.
    pub created: String,
    /// When its program was started. `null`: never.
    pub started: Option<String>,
    /// When it ended. `null`: it was not watched then.
    pub ended: Option<String>,
}

/// What is known of a process that was watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It lives: the time given was not enough.
    Lives,
    /// It has ended just now, with this wait status if the kernel tells (wait(2)).
    Seen(Option<i32>),
    /// It had ended before, with this wait status if its parent has not asked for it yet.
    Past(Option<i32>),
}

/// Exit code and signal of a wait status.
#[must_use]
pub fn code(status: i32) -> (Option<u8>, Option<i32>) {
    let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
    let code = match signal {
        Some(signal) => u8::try_from(128 + signal).ok(),
        None => u8::try_from(libc::WEXITSTATUS(status)).ok(),
    };
    (code, signal)
}

/// Now, as records have it.
#[must_use]
pub fn now() -> String {
    humantime::format_rfc3339_nanos(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::code;

    #[test]
    fn a_wait_status_has_a_code_or_a_signal() {
        assert_eq!(code(0), (Some(0), None));
        assert_eq!(code(7 << 8), (Some(7), None));
        assert_eq!(code(libc::SIGKILL), (Some(137), Some(libc::SIGKILL)));
        assert_eq!(code(libc::SIGSEGV | 0x80), (Some(139), Some(libc::SIGSEGV)), "with a core dump");
    }
}
