/*! What a case is, what it may return, and the words in which it says why. */

use crate::ctx::Ctx;

/// One thing that every runtime must do.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// The file it is in.
    pub(crate) group: &'static str,
    /// The name of its function.
    pub(crate) what: &'static str,
    /// The sentence of a specification, the habit of runc or the attack that it is about.
    pub(crate) clause: &'static str,
    /// The test.
    pub(crate) run: fn(&Ctx) -> Result,
}

impl Case {
    /// `group/what-it-is`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.group, self.what.replace('_', "-"))
    }
}

/// Why a case did not pass.
#[derive(Debug)]
pub(crate) enum Fail {
    /// The runtime is wrong.
    Failed(String),
    /// It cannot be tried with this runtime or on this machine.
    Skipped(String),
}

impl<E: std::error::Error> From<E> for Fail {
    fn from(err: E) -> Self {
        Self::Failed(err.to_string())
    }
}

/// Of a case, or a step of one.
pub(crate) type Result<T = ()> = std::result::Result<T, Fail>;

/// Fails the case unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err($crate::case::Fail::Failed(format!($($why)+)));
        }
    };
}

/// Fails the case unless both are equal.
#[macro_export]
macro_rules! same {
    ($actual:expr, $expected:expr, $($what:tt)+) => {{
        match (&$actual, &$expected) {
            (actual, expected) if *actual != *expected => {
                let what = format!($($what)+);
                return Err($crate::case::Fail::Failed(format!("{what}: expected {expected:?}, got {actual:?}")));
            }
            _ => {}
        }
    }};
}

/// Ends the case as not applicable.
#[macro_export]
macro_rules! skip {
    ($($why:tt)+) => { return Err($crate::case::Fail::Skipped(format!($($why)+))) };
}

/// The table of a group: functions of this file, and the clause each is about.
#[macro_export]
macro_rules! group {
    ($group:literal: $($what:ident: $clause:literal,)+) => {
        /// The cases of this file.
        pub(crate) const CASES: &[$crate::case::Case] = &[
            $($crate::case::Case { group: $group, what: stringify!($what), clause: $clause, run: $what },)+
        ];
    };
}
