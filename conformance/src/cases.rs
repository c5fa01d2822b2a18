/*! All cases, by group. */

use crate::case::Case;

mod cli;
mod console;
mod crash;
mod devices;
mod exec;
mod fds;
mod hooks;
mod kill;
mod lifecycle;
mod linux;
mod logs;
mod mounts;
mod pause;
mod process;
mod ps;
mod resources;
mod root;
mod run;
mod seccomp;
mod security;
mod state;

/// In the order in which they run: what everything else rests on comes first.
pub(crate) fn all() -> impl Iterator<Item = Case> {
    let groups = [
        cli::CASES,
        lifecycle::CASES,
        state::CASES,
        run::CASES,
        kill::CASES,
        exec::CASES,
        ps::CASES,
        pause::CASES,
        console::CASES,
        process::CASES,
        fds::CASES,
        root::CASES,
        mounts::CASES,
        devices::CASES,
        linux::CASES,
        resources::CASES,
        seccomp::CASES,
        hooks::CASES,
        logs::CASES,
        security::CASES,
        crash::CASES,
    ];
    groups.into_iter().flatten().copied()
}
