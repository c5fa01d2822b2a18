//! What a container's life costs: create, start, delete --force, and run, of potrun and its peers, on Linux.
//!
//!     bench/peers.sh && cargo bench --bench life -- [OPTION...]
//!
//!     -n ROUNDS               rounds to measure (60)
//!     --json FILE             also write every sample there
//!     --potrun PATH           this potrun instead of the one built
//!     --runtime NAME=PATH     one more runtime
//!     --bundle NAME=DIR       one more bundle, for all runtimes but the bound
//!     --neighbours N          how many pots are on the bridge in the last of the tables for it (1)
//!     --pot-bundle DIR        one more bundle, for potrun only: a pot with a base (imported before)
//!
//! A bundle given by DIR must have /bin/sleep and /bin/true; where it has no rootfs it gets the plain one.
//!
//! The rules: runtimes take turns within every round, and who begins changes from round to round. A command that fails,
//! or a container of which something is left after delete, ends the bench: what did not work has no time. `bound.c`
//! measures wall time, CPU time and memory of each command, and is itself the lowest row: what the kernel must be asked
//! to do.

#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod view;

#[cfg(target_os = "linux")]
fn main() -> measure::Res<()> {
    measure::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: life measures Linux runtimes");
}
