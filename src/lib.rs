//! potrun: the OCI runtime for FreeBSD pots, which runs the same pot on Linux.
//!
//! Data flows one way: argv -> [`verb`] -> [`bundle`] -> [`facts`] -> [`plan`] -> [`apply`] -> [`host`].
//!
//! # Tenets
//!
//! 1. *Plan is pure.* [`plan::plan`] does no IO, reads no clock, knows no `cfg`: the same input gives the same bytes
//!    on every operating system.
//! 2. *One vocabulary.* Everything potrun can do to a machine is a variant of [`op::Op`]. Auditing potrun is reading
//!    op.rs.
//! 3. *The inverse is an op.* There is no second teardown path: rollback of a failed create, `delete`, and recovery
//!    after a crash are the same few lines of [`apply`] that walk the journal backwards.
//! 4. *An op is all or nothing.* `Err` means that the machine is as before. Taking away what is already gone, or what
//!    is not ours, is `Ok`.
//! 5. *Names are computed, not discovered.* They derive from the container id; the machine is looked at once, as
//!    [`facts::Facts`], before planning.
//! 6. *Platform code, `unsafe` and starting programs each have one address.* `target_os` appears where the host is
//!    chosen; `unsafe` lives in files named `sys.rs`; [`host::tool`] starts programs.
//! 7. *Single-threaded, synchronous, no global state.* So fork is safe, and order in the file is order in time.

pub mod apply;
pub mod base;
pub mod bridges;
pub mod bundle;
pub mod cli;
pub mod error;
pub mod exit;
pub mod facts;
pub mod files;
pub mod freebsd;
pub mod host;
pub mod id;
pub mod journal;
pub mod lease;
pub mod linux;
pub mod log;
pub mod names;
pub mod op;
pub mod plan;
pub mod ranges;
pub mod settings;
pub mod state;
pub mod stats;
pub mod store;
pub mod verb;
pub mod zfs;
