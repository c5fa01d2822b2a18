/*! The machine that the suite runs on, seen from outside of the containers: what the two systems do in different ways.

| | Linux | FreeBSD |
|---|---|---|
| the workshop | a tmpfs in a mount namespace of its own | a tmpfs |
| the end of a process | a pidfd | a kqueue |
| what a container is in | control groups | a jail |
| the root file system | the probe, which is static | the probe, and the libraries that it needs |
*/

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "freebsd")]
pub(crate) use freebsd::*;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;
