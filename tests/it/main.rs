//! One binary for all tests of the whole: linked once, run in parallel.

#![allow(clippy::disallowed_methods, reason = "tests start programs and threads, and remove their own directories")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[cfg(target_os = "linux")]
mod attack;
mod base;
mod bundles;
#[cfg(target_os = "linux")]
mod cli;
#[cfg(target_os = "linux")]
mod copy;
#[cfg(target_os = "linux")]
mod crash;
#[cfg(target_os = "linux")]
mod cve;
#[cfg(target_os = "linux")]
mod devices;
#[cfg(target_os = "linux")]
mod diff;
#[cfg(target_os = "linux")]
mod export;
mod faults;
mod laws;
#[cfg(target_os = "linux")]
mod layers;
#[cfg(target_os = "linux")]
mod life;
#[cfg(target_os = "linux")]
mod mounts;
#[cfg(target_os = "linux")]
mod network;
#[cfg(target_os = "linux")]
mod network_verbs;
mod oci;
mod parity;
#[cfg(target_os = "linux")]
mod properties;
#[cfg(target_os = "linux")]
mod storage;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod systemd;
#[cfg(target_os = "linux")]
mod util;
#[cfg(target_os = "linux")]
mod verbs;
