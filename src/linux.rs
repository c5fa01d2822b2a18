//! Linux: namespaces, overlayfs, cgroup v2. What is here is pure and compiled on every operating system, but for
//! [`host`].

pub mod addresses;
pub mod bpf;
pub mod devices;
#[cfg(target_os = "linux")]
pub mod host;
pub mod labels;
pub mod mount;
pub mod network;
pub mod nft;
pub mod plan;
pub mod rdt;
pub mod resources;
pub mod seccomp;
pub mod systemd;
pub mod tuning;
