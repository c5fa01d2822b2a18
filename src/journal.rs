//! What must be taken back, written before it is done.
//!
//! One line `+N {op}` with the inverse of an op is written before the op is carried out, one line `-N` after it failed
//! cleanly or was taken back. The file needs no fsync: a killed process loses nothing that it wrote, and after a power
//! cut the kernel's objects are gone, while what is left on disk carries our mark.
//!
//! The file is locked while it is open, and programs and children of ours that change the machine share that lock: one
//! that outlives its potrun (a `zfs destroy` that is under way when potrun is killed) is waited for before anybody looks
//! at what is left. Hooks of the bundle and the container's own process do not share it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::op::Op;

/// The journal of one container.
#[derive(Debug)]
pub struct Journal {
    file: File,
    /// Length of all whole lines.
    whole: u64,
    pending: Vec<(u32, Op)>,
    next: u32,
}

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the journal is damaged")]
pub struct Damaged {
    line: usize,
    source: serde_json::Error,
}

impl Journal {
    /// The journal at `path`, made if it is not there, with what is pending in it. Waits for whoever still works on it.
    ///
    /// # Errors
    /// The file cannot be opened or read, or is damaged ([`io::ErrorKind::InvalidData`]).
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        file.lock()?;
        let mut text = Vec::with_capacity(4 << 10);
        file.read_to_end(&mut text)?;
        // A half line says nothing: half of `-12` must not be read as `-1`, now or by the next potrun.
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if end < text.len() {
            file.set_len(end as u64)?;
            text.truncate(end);
        }
        let (pending, next) = parse(&text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        Ok(Self { file, whole: end as u64, pending, next })
    }

    /// Notes that `undo` will be needed.
    ///
    /// # Errors
    /// The line cannot be written; then nothing may be done.
    pub fn note(&mut self, undo: Op) -> io::Result<()> {
        let json = serde_json::to_string(&undo)?;
        let n = self.next;
        self.line(&format!("+{n} {json}\n"))?;
        self.next += 1;
        self.pending.push((n, undo));
        Ok(())
    }

    /// What must be taken back, the latest last.
    #[must_use]
    pub fn pending(&self) -> Vec<(u32, Op)> {
        self.pending.clone()
    }

    /// Notes that entry `n` was taken back, or never came to be.
    ///
    /// # Errors
    /// The line cannot be written; taking it back once more will do no harm.
    pub fn strike(&mut self, n: u32) -> io::Result<()> {
        self.pending.retain(|(number, _)| *number != n);
        self.line(&format!("-{n}\n"))
    }

    /// Writes a line, or nothing of it: on a full disk half of it would swallow the next one.
    fn line(&mut self, text: &str) -> io::Result<()> {
        let written = self.file.write_all(text.as_bytes());
        match written {
            Ok(()) => self.whole += text.len() as u64,
            Err(_) => self.file.set_len(self.whole)?,
        }
        written
    }

    /// Lets programs that are started from now on share the lock, or not.
    ///
    /// # Errors
    /// fcntl(2)'s.
    pub(crate) fn share(&self, shared: bool) -> io::Result<()> {
        let flags = if shared { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
        fcntl(&self.file, FcntlArg::F_SETFD(flags))?;
        Ok(())
    }

    /// The number of the latest note.
    #[must_use]
    pub fn latest(&self) -> Option<u32> {
        self.pending.last().map(|(n, _)| *n)
    }
}

/// A half-written line means that its step was not taken yet: the line is written first.
fn parse(text: &[u8]) -> Result<(Vec<(u32, Op)>, u32), Damaged> {
    let mut pending: Vec<(u32, Op)> = Vec::new();
    let mut next = 0;
    let lines: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
    for (index, line) in lines.iter().enumerate() {
        let number = |digits: &[u8]| std::str::from_utf8(digits).ok().and_then(|d| d.parse::<u32>().ok());
        match line.split_first() {
            Some((b'+', rest)) => {
                let Some(space) = rest.iter().position(|b| *b == b' ') else { continue };
                let Some(n) = number(&rest[..space]) else { continue };
                match serde_json::from_slice(&rest[space + 1..]) {
                    Ok(op) => pending.push((n, op)),
                    // Cut off by a kill: the file ended here then, and may go on with the next potrun's lines.
                    Err(e) if e.is_eof() => {}
                    Err(source) => return Err(Damaged { line: index + 1, source }),
                }
                next = next.max(n + 1);
            }
            Some((b'-', rest)) => {
                let Some(n) = number(rest) else { continue };
                pending.retain(|(number, _)| *number != n);
            }
            _ => {}
        }
    }
    Ok((pending, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(name: &str) -> Op {
        Op::RemoveCgroup { path: name.into() }
    }

    fn temp() -> std::path::PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        static N: AtomicU32 = AtomicU32::new(0);
        let n = N.fetch_add(1, Ordering::Relaxed);
        std::env::temp_dir().join(format!("potrun-journal-{}-{n}", std::process::id()))
    }

    #[test]
    fn what_was_noted_is_pending_until_struck() {
        let path = temp();
        let mut journal = Journal::open(&path).unwrap();
        journal.note(op("a")).unwrap();
        journal.note(op("b")).unwrap();
        journal.strike(0).unwrap();
        drop(journal);
        let mut again = Journal::open(&path).unwrap();
        assert_eq!(again.pending(), [(1, op("b"))]);
        again.note(op("c")).unwrap();
        assert_eq!(again.latest(), Some(2));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_cut_anywhere_is_read() {
        let whole = format!(
            "+0 {}\n+1 {}\n-1\n",
            serde_json::to_string(&op("a")).unwrap(),
            serde_json::to_string(&op("b")).unwrap()
        );
        for end in 0..=whole.len() {
            let (pending, _) = parse(&whole.as_bytes()[..end]).unwrap();
            let first = end >= whole.find('\n').unwrap();
            assert_eq!(pending.iter().any(|(n, _)| *n == 0), first, "cut at {end}");
        }
    }

    #[test]
    fn a_line_after_a_half_one_counts() {
        let path = temp();
        std::fs::write(&path, "+0 {\"op\":\"remo").unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert!(journal.pending().is_empty());
        journal.note(op("b")).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().pending().len(), 1);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn garbage_is_not_taken_for_nothing() {
        assert!(parse(b"+0 {\"op\":\"noSuchOp\"}\n").is_err());
    }
}
