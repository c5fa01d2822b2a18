//! Hands BPF programs to the kernel: the seccomp filter of the calling thread, those of a cgroup's hooks.

mod sys;
#[cfg(test)]
mod tests;

pub(super) use sys::{attach, seccomp_install};
