/*! What only FreeBSD has. */

use crate::case::Case;

mod jail;
mod mounts;
mod security;

/// In the order in which they run.
pub(super) const CASES: &[&[Case]] = &[jail::CASES, mounts::CASES, security::CASES];
