//! The words of mount options (mount(8), config.md "Mounts") and what they mean to the kernel.

use std::path::PathBuf;

use crate::op::Mount;

/// What an option word does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Sets bits of mount(2).
    Set(u64),
    /// Clears bits of mount(2).
    Clear(u64),
    /// Sets the propagation, with `MS_REC` or without.
    Propagation(u64),
    /// Binds, with `MS_REC` or without.
    Bind(u64),
    /// Sets attributes of mount_setattr(2) on the whole tree.
    SetTree(u64),
    /// Clears attributes of mount_setattr(2) on the whole tree.
    ClearTree(u64),
    /// Maps the owners of files, on the whole tree or on its top.
    IdMap(bool),
    /// Whether what the mount would cover is copied into it (runc's and crun's own).
    CopyUp(bool),
    /// Says nothing.
    Nothing,
}

// include/uapi/linux/mount.h; part of the kernel's ABI, so the same everywhere.
const MS_RDONLY: u64 = 1;
const MS_NOSUID: u64 = 1 << 1;
const MS_NODEV: u64 = 1 << 2;
const MS_NOEXEC: u64 = 1 << 3;
const MS_SYNCHRONOUS: u64 = 1 << 4;
const MS_MANDLOCK: u64 = 1 << 6;
const MS_DIRSYNC: u64 = 1 << 7;
const MS_NOSYMFOLLOW: u64 = 1 << 8;
const MS_NOATIME: u64 = 1 << 10;
const MS_NODIRATIME: u64 = 1 << 11;
const MS_BIND: u64 = 1 << 12;
const MS_REC: u64 = 1 << 14;
const MS_SILENT: u64 = 1 << 15;
const MS_UNBINDABLE: u64 = 1 << 17;
const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;
const MS_RELATIME: u64 = 1 << 21;
const MS_I_VERSION: u64 = 1 << 23;
const MS_STRICTATIME: u64 = 1 << 24;
const MS_LAZYTIME: u64 = 1 << 25;

/// Attributes of mount_setattr(2).
pub const ATTR_RDONLY: u64 = 0x1;
const ATTR_NOSUID: u64 = 0x2;
const ATTR_NODEV: u64 = 0x4;
const ATTR_NOEXEC: u64 = 0x8;
/// All bits that say how access times are kept.
pub const ATTR_ATIME: u64 = 0x70;
const ATTR_NOATIME: u64 = 0x10;
const ATTR_STRICTATIME: u64 = 0x20;
const ATTR_NODIRATIME: u64 = 0x80;
const ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

const WORDS: &[(&str, Word)] = &[
    ("async", Word::Clear(MS_SYNCHRONOUS)),
    ("atime", Word::Clear(MS_NOATIME)),
    ("bind", Word::Bind(MS_BIND)),
    ("defaults", Word::Nothing),
    ("dev", Word::Clear(MS_NODEV)),
    ("diratime", Word::Clear(MS_NODIRATIME)),
    ("dirsync", Word::Set(MS_DIRSYNC)),
    ("exec", Word::Clear(MS_NOEXEC)),
    ("idmap", Word::IdMap(false)),
    ("iversion", Word::Set(MS_I_VERSION)),
    ("lazytime", Word::Set(MS_LAZYTIME)),
    ("loud", Word::Clear(MS_SILENT)),
    ("mand", Word::Set(MS_MANDLOCK)),
    ("noatime", Word::Set(MS_NOATIME)),
    ("nodev", Word::Set(MS_NODEV)),
    ("nodiratime", Word::Set(MS_NODIRATIME)),
    ("noexec", Word::Set(MS_NOEXEC)),
    ("noiversion", Word::Clear(MS_I_VERSION)),
    ("nolazytime", Word::Clear(MS_LAZYTIME)),
    ("nomand", Word::Clear(MS_MANDLOCK)),
    ("norelatime", Word::Clear(MS_RELATIME)),
    ("nostrictatime", Word::Clear(MS_STRICTATIME)),
    ("nosuid", Word::Set(MS_NOSUID)),
    ("nosymfollow", Word::Set(MS_NOSYMFOLLOW)),
    ("notmpcopyup", Word::CopyUp(false)),
    ("private", Word::Propagation(MS_PRIVATE)),
    ("rbind", Word::Bind(MS_BIND | MS_REC)),
    ("relatime", Word::Set(MS_RELATIME)),
    ("ro", Word::Set(MS_RDONLY)),
    ("rprivate", Word::Propagation(MS_PRIVATE | MS_REC)),
    ("rshared", Word::Propagation(MS_SHARED | MS_REC)),
    ("rslave", Word::Propagation(MS_SLAVE | MS_REC)),
    ("runbindable", Word::Propagation(MS_UNBINDABLE | MS_REC)),
    ("rw", Word::Clear(MS_RDONLY)),
    ("shared", Word::Propagation(MS_SHARED)),
    ("silent", Word::Set(MS_SILENT)),
    ("slave", Word::Propagation(MS_SLAVE)),
    ("strictatime", Word::Set(MS_STRICTATIME)),
    ("suid", Word::Clear(MS_NOSUID)),
    ("symfollow", Word::Clear(MS_NOSYMFOLLOW)),
    ("sync", Word::Set(MS_SYNCHRONOUS)),
    ("tmpcopyup", Word::CopyUp(true)),
    ("unbindable", Word::Propagation(MS_UNBINDABLE)),
    // The recursive attributes of config.md, "Linux mount options".
    ("rdev", Word::ClearTree(ATTR_NODEV)),
    ("ridmap", Word::IdMap(true)),
    ("rdiratime", Word::ClearTree(ATTR_NODIRATIME)),
    ("rexec", Word::ClearTree(ATTR_NOEXEC)),
    ("rnoatime", Word::SetTree(ATTR_NOATIME)),
    ("rnodev", Word::SetTree(ATTR_NODEV)),
    ("rnodiratime", Word::SetTree(ATTR_NODIRATIME)),
    ("rnoexec", Word::SetTree(ATTR_NOEXEC)),
    ("rnosuid", Word::SetTree(ATTR_NOSUID)),
    ("rnosymfollow", Word::SetTree(ATTR_NOSYMFOLLOW)),
    ("rrelatime", Word::ClearTree(ATTR_ATIME)),
    ("rro", Word::SetTree(ATTR_RDONLY)),
    ("rrw", Word::ClearTree(ATTR_RDONLY)),
    ("rstrictatime", Word::SetTree(ATTR_STRICTATIME)),
    ("rsuid", Word::ClearTree(ATTR_NOSUID)),
    ("rsymfollow", Word::ClearTree(ATTR_NOSYMFOLLOW)),
];

/// What `word` means, if it is a word of mounts and not an option of the file system.
#[must_use]
pub fn word(word: &str) -> Option<Word> {
    WORDS.iter().find(|(name, _)| *name == word).map(|(_, meaning)| *meaning)
}

/// The words potrun knows, for `features`.
pub fn words() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|(name, _)| *name)
}

/// The option words of one mount, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Bits for mount(2).
    pub flags: u64,
    /// Bits that were cleared by name.
    pub cleared: u64,
    /// Propagation bits, 0 for none.
    pub propagation: u64,
    /// Whether it is a bind mount.
    pub bind: bool,
    /// Whether it binds what is mounted below, too.
    pub recursive: bool,
    /// Attributes for the whole tree: set, cleared.
    pub tree: (u64, u64),
    /// Whether the owners of files are mapped, and if so on the whole tree.
    pub id_map: Option<bool>,
    /// Whether what it covers is copied into it.
    pub copy_up: bool,
}

impl Options {
    /// Sums up `words`; those of the file system must be gone.
    #[must_use]
    pub fn of(words: &[String]) -> Self {
        let mut all = Self::default();
        for meaning in words.iter().filter_map(|text| word(text)) {
            match meaning {
                Word::Set(bits) => {
                    all.flags |= bits;
                    all.cleared &= !bits;
                }
                Word::Clear(bits) => {
                    all.flags &= !bits;
                    all.cleared |= bits;
                }
                Word::Propagation(bits) => all.propagation = bits,
                Word::Bind(bits) => {
                    all.bind = true;
                    all.recursive |= bits & MS_REC != 0;
                }
                Word::SetTree(bits) => {
                    all.tree.0 |= bits;
                    if bits & ATTR_ATIME != 0 {
                        all.tree.1 |= ATTR_ATIME; // mount_setattr(2): the old mode must be cleared in the same call
                    }
                }
                Word::ClearTree(bits) => all.tree.1 |= bits,
                Word::IdMap(recursive) => all.id_map = Some(recursive),
                Word::CopyUp(wanted) => all.copy_up = wanted,
                Word::Nothing => {}
            }
        }
        all
    }

    /// The attributes of mount_setattr(2) that a bind mount gets on its top: set, cleared.
    #[must_use]
    pub fn attributes(&self) -> (u64, u64) {
        let pairs = [
            (MS_RDONLY, ATTR_RDONLY),
            (MS_NOSUID, ATTR_NOSUID),
            (MS_NODEV, ATTR_NODEV),
            (MS_NOEXEC, ATTR_NOEXEC),
            (MS_NODIRATIME, ATTR_NODIRATIME),
            (MS_NOSYMFOLLOW, ATTR_NOSYMFOLLOW),
        ];
        let attributes = |bits: u64| pairs.iter().filter(|(ms, _)| bits & ms != 0).fold(0, |all, (_, a)| all | a);
        let (mut set, mut clear) = (attributes(self.flags), attributes(self.cleared));
        let times = [(MS_NOATIME, ATTR_NOATIME), (MS_STRICTATIME, ATTR_STRICTATIME), (MS_RELATIME, 0)];
        if let Some((_, mode)) = times.iter().find(|(ms, _)| self.flags & ms != 0) {
            set |= mode;
            clear |= ATTR_ATIME;
        }
        (set, clear)
    }
}

/// A directory or file of the host, which no mount of the host follows into the pot.
#[must_use]
pub fn of_host(source: PathBuf, target: PathBuf, readonly: bool) -> Mount {
    let mut options = vec!["rbind".to_string(), "rprivate".to_string()];
    options.extend(if readonly { vec!["rro".to_string(), "ro".to_string()] } else { Vec::new() });
    Mount { fstype: "bind".into(), source, target, options, ..Mount::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Options {
        Options::of(&words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_later_word_wins() {
        assert_eq!(options(&["ro", "rw"]).flags, 0);
        assert_eq!(options(&["rw", "ro"]).flags, MS_RDONLY);
        assert_eq!(options(&["rw", "ro"]).cleared, 0);
    }

    #[test]
    fn bind_attributes_are_those_of_mount_setattr() {
        assert_eq!(options(&["rbind", "ro", "nosuid"]).attributes(), (ATTR_RDONLY | ATTR_NOSUID, 0));
        assert_eq!(options(&["bind", "noatime"]).attributes(), (ATTR_NOATIME, ATTR_ATIME));
        assert!(options(&["rbind"]).recursive && !options(&["bind"]).recursive);
    }

    #[test]
    fn propagation_is_apart() {
        assert_eq!(options(&["rbind", "rslave"]).propagation, MS_SLAVE | MS_REC);
        assert_eq!(word("size=1k"), None);
    }
}
