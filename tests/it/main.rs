//! One binary for all tests of the whole: linked once, run in parallel.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod base;
mod bundles;
mod faults;
mod laws;
mod parity;
