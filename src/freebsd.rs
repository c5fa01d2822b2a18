//! FreeBSD: jails, ZFS, VNET, pf. What is here is pure and compiled on every operating system, but for [`host`].

pub mod annotations;
#[cfg(target_os = "freebsd")]
pub mod host;
pub mod import;
pub mod jail;
pub mod limits;
pub mod mounts;
pub mod network;
pub mod pf;
pub mod plan;
pub mod pots;
pub mod root;
pub mod wire;

#[cfg(test)]
mod tests;
