//! The container id: what the caller chose, checked once, and the names that derive from it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest id: with the prefix `potrun-` it is a file name of at most 255 bytes (`NAME_MAX`).
pub const MAX_LEN: usize = 248;

/// A container id: 1 to [`MAX_LEN`] bytes of `[A-Za-z0-9_+.-]`, not `.` or `..`, not beginning with `-`.
///
/// runc's alphabet, so that whatever podman and containerd send is taken. An id is one component of a path, of a
/// ZFS dataset's name and of a cgroup's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// Why a text is not a container id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The empty text.
    #[error("container id cannot be empty")]
    Empty,
    /// More than [`MAX_LEN`] bytes.
    #[error("invalid container ID format: {0} bytes, more than {MAX_LEN}")]
    TooLong(usize),
    /// A character that is not allowed, `.`, `..` or a leading `-`.
    #[error("invalid container ID format: {0:?}: use letters, digits and _ + . - only")]
    Characters(String),
}

impl ContainerId {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`InvalidId`], in runc's words so that callers recognise it.
    pub fn new(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty() {
            return Err(InvalidId::Empty);
        }
        if text.len() > MAX_LEN {
            return Err(InvalidId::TooLong(text.len()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+.-".contains(c);
        if !text.chars().all(allowed) || text.starts_with('-') || text == "." || text == ".." {
            return Err(InvalidId::Characters(text.into()));
        }
        Ok(Self(text.into()))
    }

    /// The id as the caller wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A short name of `prefix` and twelve base-36 digits of the id's FNV-1a hash, for the places of the kernel that
    /// have 15 bytes only (`IFNAMSIZ` of both systems). What is named so also carries the whole id in its
    /// description or alias.
    #[must_use]
    pub fn short(&self, prefix: &str) -> String {
        let mut hash = self.hash();
        let mut name = String::from(prefix);
        for _ in 0..12 {
            name.push(char::from_digit((hash % 36) as u32, 36).unwrap_or('0'));
            hash /= 36;
        }
        name
    }

    /// FNV-1a of the id: stable over versions, as names must be.
    #[must_use]
    pub fn hash(&self) -> u64 {
        hash(&self.0)
    }
}

/// FNV-1a of a text.
#[must_use]
pub const fn hash(text: &str) -> u64 {
    hash_bytes(text.as_bytes())
}

/// FNV-1a.
#[must_use]
pub const fn hash_bytes(bytes: &[u8]) -> u64 {
    let (mut hash, mut at) = (0xcbf2_9ce4_8422_2325, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ContainerId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::new(&text)
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_runc_takes() {
        for good in ["a", "web1", "A_b+c.d-e", "0", ".hidden", &"x".repeat(MAX_LEN)] {
            assert_eq!(ContainerId::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn refuses_what_is_not_one_component() {
        for bad in ["", ".", "..", "a/b", "../x", "a b", "-h", "a\n", "a\0", "ü", &"x".repeat(1025)] {
            assert!(ContainerId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn short_names_fit_an_interface() {
        let name = ContainerId::new(&"x".repeat(MAX_LEN)).unwrap().short("pot");
        assert_eq!(name.len(), 15);
        assert_ne!(name, ContainerId::new("x").unwrap().short("pot"));
    }
}
