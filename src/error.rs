//! Errors by who must act, printed once as a chain.
//!
//! `potrun: create web1: mount /data on /mnt: Operation not permitted (os error 1)`, then hints on lines of their own.
//! The `Display` of an error type never contains its source; [`Error::chain`] joins them.

use std::error::Error as StdError;
use std::fmt;

/// Who must act on an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The caller: usage, wrong state, no such container.
    Caller,
    /// The author of the bundle: it is refused.
    Author,
    /// The operator of the machine: an operation failed.
    Operator,
}

/// The error of a verb: what was being done, why it failed, and what to do about it.
#[derive(Debug)]
pub struct Error {
    who: Who,
    what: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    hints: Vec<String>,
}

/// What a verb returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without a deeper cause.
    pub fn new(who: Who, what: impl Into<String>) -> Self {
        Self { who, what: what.into(), source: None, hints: Vec::new() }
    }

    /// The caller must act.
    pub fn caller(what: impl Into<String>) -> Self {
        Self::new(Who::Caller, what)
    }

    /// The operator must act.
    pub fn operator(what: impl Into<String>) -> Self {
        Self::new(Who::Operator, what)
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what `error` says of its own cause.
    #[must_use]
    pub fn because_of(self, error: &(dyn StdError + 'static)) -> Self {
        match error.source() {
            Some(cause) => self.because(chain(cause)),
            None => self,
        }
    }

    /// Adds a line of advice, printed below the error.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Says what was being done when `self` happened; who must act and the hints stay.
    #[must_use]
    pub fn during(self, what: impl Into<String>) -> Self {
        Self { who: self.who, hints: self.hints.clone(), what: what.into(), source: Some(Box::new(self)) }
    }

    /// Who must act.
    #[must_use]
    pub fn who(&self) -> Who {
        self.who
    }

    /// Lines of advice.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// The whole chain on one line, outermost first.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// Joins `error` and its sources with `: `.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

/// Turns any error into an operator's [`Error`] that says what was being done.
pub trait Doing<T> {
    /// `what` names the step and the object: `read /etc/pot.conf`.
    ///
    /// # Errors
    /// The same error, named.
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Doing<T> for std::result::Result<T, E> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Error::operator(what()).because(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_is_printed_once_outermost_first() {
        let e = Err::<(), _>(std::io::Error::from_raw_os_error(1)).doing(|| "mount /data on /mnt").unwrap_err();
        let e = e.hint("is it root?").during("create web1");
        assert_eq!(e.chain(), "create web1: mount /data on /mnt: Operation not permitted (os error 1)");
        assert_eq!(e.hints(), ["is it root?"]);
        assert_eq!(e.who(), Who::Operator);
    }
}
