/*! All cases, by group. */

use crate::case::Case;

mod cli;
mod console;
mod crash;
mod exec;
mod fds;
#[cfg(target_os = "freebsd")]
mod freebsd;
mod hooks;
mod kill;
mod lifecycle;
#[cfg(target_os = "linux")]
mod linux;
mod logs;
mod mounts;
mod pause;
mod pot;
mod process;
mod ps;
mod root;
mod run;
mod security;
mod state;

const EVERYWHERE: &[&[Case]] = &[
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
    hooks::CASES,
    logs::CASES,
    security::CASES,
    crash::CASES,
    pot::CASES,
];

/// In the order in which they run: what everything else rests on comes first.
pub(crate) fn all() -> impl Iterator<Item = Case> {
    #[cfg(target_os = "linux")]
    let here = linux::CASES;
    #[cfg(target_os = "freebsd")]
    let here = freebsd::CASES;
    EVERYWHERE.iter().chain(here).copied().flatten().copied()
}
