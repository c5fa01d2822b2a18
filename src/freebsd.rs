//! FreeBSD: jails, ZFS, VNET, pf. What is here is pure and compiled on every operating system.

pub mod annotations;
pub mod jail;
pub mod limits;
pub mod mounts;
pub mod network;
pub mod pf;
pub mod plan;
pub mod root;

#[cfg(test)]
mod tests;
