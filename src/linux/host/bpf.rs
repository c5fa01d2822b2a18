//! Hands BPF programs to the kernel: the seccomp filter of the calling thread, the device filter of a cgroup.

mod sys;
#[cfg(test)]
mod tests;

pub(super) use sys::{device_filter_attach, seccomp_install};
