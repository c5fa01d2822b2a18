//! What `zfs diff -H -t` says, read (zfs-diff(8)): a line is a time, a letter and one or two paths, between tabs.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::files::{Change, Changed};

/// The changes of one line, their paths below `top`, where the dataset is mounted. `None`: it is not understood.
#[must_use]
pub fn read(line: &str, top: &str) -> Option<Vec<Changed>> {
    let mut fields = line.split('\t');
    let (time, letter, path) = (fields.next()?, fields.next()?, fields.next()?);
    let (seconds, nanoseconds) = time.trim().split_once('.')?;
    let at = SystemTime::UNIX_EPOCH + Duration::new(seconds.parse().ok()?, nanoseconds.parse().ok()?);
    let one = |kind, path: &str| Some(Changed { kind, path: below(path, top)?, at });
    Some(match letter {
        "M" => vec![one(Change::Changed, path)?],
        "+" => vec![one(Change::Added, path)?],
        "-" => vec![one(Change::Deleted, path)?],
        "R" => vec![one(Change::Deleted, path)?, one(Change::Added, fields.next()?)?],
        _ => return None,
    })
}

fn below(path: &str, top: &str) -> Option<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(plain(path)?));
    Some(Path::new("/").join(path.strip_prefix(top).ok()?))
}

/// Undoes escapes: a backslash and four octal digits for what is no plain character (lib/libzfs/libzfs_diff.c,
/// `stream_bytes`).
fn plain(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'\\' {
            let digits = std::str::from_utf8(after.get(..4)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 8).ok()?);
            rest = &after[4..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_zfs_diff() {
        let read = |line: &str| {
            let all = read(line, "/opt/pot/jails/a/m")?;
            Some(all.iter().map(|one| format!("{} {}", one.kind.letter(), one.path.display())).collect::<Vec<_>>())
        };
        let some = |all: &[&str]| Some(all.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(read("1700000000.000000005\tM\t/opt/pot/jails/a/m/"), some(&["C /"]));
        assert_eq!(read(" 170000000.000000005\t+\t/opt/pot/jails/a/m/a\\0040b\\0134"), some(&["A /a b\\"]));
        assert_eq!(read("1700000000.000000005\t-\t/opt/pot/jails/a/m/x"), some(&["D /x"]));
        assert_eq!(read("1.0\tR\t/opt/pot/jails/a/m/x\t/opt/pot/jails/a/m/y"), some(&["D /x", "A /y"]));
        assert_eq!(read("1.0\tM\t/opt/pot/jails/a/m/x\t(+1)"), some(&["C /x"]));
        for bad in [
            "",
            "1.0\tM",
            "1.0\tX\t/opt/pot/jails/a/m/x",
            "1.0\tM\t/elsewhere",
            "x\tM\t/opt/pot/jails/a/m/x",
            "1.0\tM\t/opt/pot/jails/a/m/\\09",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
