//! Reads a tree as the members of an archive: into another tree, or as a tar stream.
//!
//! The tree may belong to a container that runs and means harm. So everything is opened by one name at a time from the
//! descriptor of its directory, never through a link; what is read is a regular file by its own descriptor, so that no
//! fifo or device is ever opened; and what a file is said to hold is what is delivered, whatever becomes of it meanwhile.
//! File systems that are the kernel's own words, as /proc, are left out.
//!
//! Streams are written in the pax format (POSIX.1-2017) by the `tar` crate, whose reader alone has the faults that the
//! prologue of archive.rs tells.

use super::archive::{ArchiveError, Contents, Kind, Member, Run, shown};
use super::unpack::sys;
use super::unpack::{
    At, Layers, MAX_DEPTH, Skipped, UnpackError, UnpackOptions, Unpacked, Unpacker, WHITEOUT, kind_of, open_directory,
};
use super::{BUFFER, decompress};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, copy_file_range, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};
use nix::unistd::{Uid, Whence, lseek};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use xattr::FileExt;

type Result<T> = std::result::Result<T, UnpackError>;

/// A tree, or one file, that is to be copied.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The directory that it is in.
    pub dir: BorrowedFd<'a>,
    /// Its name there; `.` is the directory itself.
    pub name: &'a [u8],
    /// What it is called in the copy; `.` is the top of the copy.
    pub to: &'a [u8],
}

/// Copies `source` into the directory `to`, where more may be already: a file replaces a file, a directory is filled up.
/// Owners (as root), modes, times of modification, extended attributes, hard links and holes are kept.
///
/// # Errors
/// [`UnpackError`]; what was copied so far is left.
pub fn copy(source: Source<'_>, to: BorrowedFd<'_>, options: &UnpackOptions) -> Result<Unpacked> {
    let mut sink = Unpacker::into_files(to, options)?;
    let skipped = Walk::new(&mut sink, true).start(source)?;
    Ok(with(sink.finish()?, skipped))
}

/// Unpacks a tar stream, which may be compressed, into the directory `to`, where more may be already.
///
/// # Errors
/// [`UnpackError`]; what was unpacked so far is left.
pub fn extract(stream: impl Read, to: BorrowedFd<'_>, options: &UnpackOptions) -> Result<Unpacked> {
    let mut sink = Unpacker::into_files(to, options)?;
    sink.archive(decompress(stream)?)?;
    sink.finish()
}

/// Writes `source` to `stream` as a tar stream.
///
/// # Errors
/// [`UnpackError`].
pub fn pack(source: Source<'_>, stream: impl Write) -> Result<Unpacked> {
    let mut sink = Packer { builder: tar::Builder::new(stream), done: Unpacked::default() };
    let skipped = Walk::new(&mut sink, false).start(source)?;
    sink.builder.finish().and_then(|()| sink.builder.get_mut().flush()).at("write", b"the stream")?;
    Ok(with(sink.done, skipped))
}

/// Copies what directories of an overlay, the topmost first, hold over its base to an empty one, which becomes an upper one.
///
/// # Errors
/// [`UnpackError`]; what was copied so far is left.
pub fn copy_upper(from: &[File], to: BorrowedFd<'_>, options: &UnpackOptions) -> Result<Unpacked> {
    let mut sink = Unpacker::upper(to, options)?;
    let skipped = Walk { upper: true, ..Walk::new(&mut sink, true) }.over_base(from)?;
    Ok(with(sink.finish()?, skipped))
}

/// Writes what directories of an overlay, the topmost first, hold over its base to `stream` as a layer of an OCI image: what
/// they hide of it as whiteouts.
///
/// # Errors
/// [`UnpackError`].
pub fn pack_upper(from: &[File], stream: impl Write) -> Result<Unpacked> {
    let mut sink = Packer { builder: tar::Builder::new(stream), done: Unpacked::default() };
    let skipped = Walk { upper: true, ..Walk::new(&mut sink, false) }.over_base(from)?;
    sink.builder.finish().and_then(|()| sink.builder.get_mut().flush()).at("write", b"the stream")?;
    Ok(with(sink.done, skipped))
}

/// Writes what `tree`, a clone of `below`, has over that to `stream` as a layer of an OCI image. What is mounted in the
/// tree is left out, as are sockets.
///
/// # Errors
/// [`UnpackError`].
pub fn pack_over(tree: BorrowedFd<'_>, below: BorrowedFd<'_>, stream: impl Write) -> Result<Unpacked> {
    let mut sink = Packer { builder: tar::Builder::new(stream), done: Unpacked::default() };
    let (here, there) = (fstat(tree).at("look at", b".")?, fstat(below).at("look at", b".")?);
    let mut walk = Walk { over: true, device: Some(here.st_dev), ..Walk::new(&mut sink, false) };
    let below = open_directory(below, b".").at("open directory", b".")?;
    walk.compare(tree, b".", b".".to_vec(), &below, !unchanged(&here, &there), 0)?;
    let skipped = walk.skipped;
    sink.builder.finish().and_then(|()| sink.builder.get_mut().flush()).at("write", b"the stream")?;
    Ok(with(sink.done, skipped))
}

/// Whether what has this status in a clone is what has that one in what it is a clone of: it keeps its number, and every
/// change sets `ctime`.
fn unchanged(here: &FileStat, there: &FileStat) -> bool {
    let what = |status: &FileStat| (status.st_ino, status.st_mode, status.st_ctime, status.st_ctime_nsec);
    what(here) == what(there)
}

/// Adds such a layer to a clone of the base that it lies on.
///
/// # Errors
/// [`UnpackError`]; what was unpacked so far is left.
pub fn extract_over(stream: impl Read, to: BorrowedFd<'_>, options: &UnpackOptions) -> Result<Unpacked> {
    let mut layers = Layers::over(to, options)?;
    layers.add(decompress(stream)?)?;
    layers.finish()
}

/// Unpacks such a layer into an empty directory that becomes the upper one of an overlay.
///
/// # Errors
/// [`UnpackError`]; what was unpacked so far is left.
pub fn extract_upper(stream: impl Read, to: BorrowedFd<'_>, options: &UnpackOptions) -> Result<Unpacked> {
    let mut sink = Unpacker::upper(to, options)?;
    sink.archive(decompress(stream)?)?;
    sink.finish()
}

fn with(done: Unpacked, more: Skipped) -> Unpacked {
    let skipped = Skipped { sockets: more.sockets, kernel: more.kernel, changed: more.changed, ..done.skipped };
    Unpacked { skipped, ..done }
}

/// Where members go.
pub(super) trait Sink {
    /// Takes one member with what is in it.
    fn take(&mut self, member: &Member, contents: &mut impl Contents) -> Result<()>;
}

/// A walk over a tree.
struct Walk<'s, S> {
    sink: &'s mut S,
    /// Whether the sink knows holes.
    sparse: bool,
    /// Whether it is what an overlay has over its base, of which the sink gets whiteouts.
    upper: bool,
    /// Whether only what lies over another tree is wanted, of which the sink gets whiteouts, too.
    over: bool,
    /// The device of the tree, where what is mounted in it is left out.
    device: Option<libc::dev_t>,
    root: bool,
    /// Files with several names, and the first of them that was met.
    links: HashMap<(libc::dev_t, libc::ino_t), Vec<u8>>,
    skipped: Skipped,
    buffer: Vec<u8>,
}

impl<'s, S: Sink> Walk<'s, S> {
    fn new(sink: &'s mut S, sparse: bool) -> Self {
        let root = Uid::effective().is_root();
        Self {
            sink,
            sparse,
            upper: false,
            over: false,
            device: None,
            root,
            links: HashMap::new(),
            skipped: Skipped::default(),
            buffer: vec![0; BUFFER],
        }
    }

    fn start(mut self, source: Source<'_>) -> Result<Skipped> {
        if sys::is_of_kernel(source.dir).at("look at", source.name)? {
            let why = "it is in a file system of the kernel's own words, which holds no files".to_owned();
            return Err(UnpackError::Refused { member: shown(source.name), why });
        }
        self.visit(source.dir, source.name, source.to.to_vec(), 0)?;
        Ok(self.skipped)
    }

    /// Takes `name` in `dir`, and what is below it. `path`: what it is called in the copy.
    fn visit(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: Vec<u8>, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            let why = format!("it lies deeper than {MAX_DEPTH} directories");
            return Err(UnpackError::Refused { member: shown(&path), why });
        }
        let status = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            // Removed since the directory was read.
            Err(Errno::ENOENT) if depth > 0 => return Ok(()),
            other => other.at("look at", &path)?,
        };
        if self.device.is_some_and(|device| device != status.st_dev) {
            return Ok(());
        }
        let kind = kind_of(&status);
        let mut member = member(&status, path);
        if (self.upper || self.over) && name.starts_with(WHITEOUT) {
            return Err(like_a_whiteout(&member.path));
        }
        match kind {
            SFlag::S_IFDIR => return self.directory(dir, name, member, depth),
            SFlag::S_IFREG => return self.file(dir, name, member),
            SFlag::S_IFLNK => {
                member.kind = Kind::Symlink;
                member.link = readlinkat(dir, name).at("read", &member.path)?.into_vec();
            }
            SFlag::S_IFIFO => member.kind = Kind::Fifo,
            SFlag::S_IFSOCK => {
                self.skipped.sockets += 1;
                return Ok(());
            }
            _ => {
                let (major, minor) = (libc::major(status.st_rdev), libc::minor(status.st_rdev));
                #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)] // FreeBSD's are signed
                let numbers = (major as u32, minor as u32);
                let block = kind == SFlag::S_IFBLK;
                member.kind = if block { Kind::Block(numbers.0, numbers.1) } else { Kind::Char(numbers.0, numbers.1) };
            }
        }
        self.sink.take(&member, &mut Nothing)
    }

    fn directory(&mut self, parent: BorrowedFd<'_>, name: &[u8], mut member: Member, depth: usize) -> Result<()> {
        let dir = open_directory(parent, name).at("open directory", &member.path)?;
        // Of what was opened, whatever had the name before.
        let path = std::mem::take(&mut member.path);
        let mut member = self::member(&fstat(&dir).at("look at", &path)?, path);
        member.kind = Kind::Directory;
        let of_kernel = sys::is_of_kernel(dir.as_fd()).at("look at", &member.path)?;
        if !of_kernel {
            member.attributes = self.attributes(&dir, &member.path)?;
        }
        self.sink.take(&member, &mut Nothing)?;
        if of_kernel {
            self.skipped.kernel += 1;
            return Ok(());
        }
        for name in names(&dir, &member.path)? {
            self.visit(dir.as_fd(), &name, [member.path.as_slice(), b"/", &name].concat(), depth + 1)?;
        }
        Ok(())
    }

    /// Takes what directories of an overlay, the topmost first, hold over its base.
    fn over_base(mut self, parts: &[File]) -> Result<Skipped> {
        self.merge(parts, b".".to_vec(), false, false, 0)?;
        Ok(self.skipped)
    }

    /// Takes one directory of an overlay, which `parts` make up, and what is in it. `hides`: whether it hides what the base
    /// has there; `hidden`: whether a directory above has done so.
    fn merge(&mut self, parts: &[File], path: Vec<u8>, hides: bool, hidden: bool, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            let why = format!("it lies deeper than {MAX_DEPTH} directories");
            return Err(UnpackError::Refused { member: shown(&path), why });
        }
        let Some(top) = parts.first() else { return Ok(()) };
        let mut member = member(&fstat(top).at("look at", &path)?, path);
        member.kind = Kind::Directory;
        member.attributes = self.attributes(top, &member.path)?;
        self.sink.take(&member, &mut Nothing)?;
        if hides && !hidden {
            self.whiteout(&[member.path.as_slice(), b"/.wh..opq"].concat())?;
        }
        let hidden = hidden || hides;
        let mut all: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for (n, dir) in parts.iter().enumerate() {
            for name in names(dir, &member.path)? {
                all.entry(name).or_insert(n);
            }
        }
        for (name, n) in all {
            let path = [member.path.as_slice(), b"/", &name].concat();
            let status = match fstatat(&parts[n], name.as_slice(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                // Removed since the directory was read.
                Err(Errno::ENOENT) => continue,
                other => other.at("look at", &path)?,
            };
            match kind_of(&status) {
                SFlag::S_IFDIR if name.starts_with(WHITEOUT) => return Err(like_a_whiteout(&path)),
                SFlag::S_IFDIR => {
                    let (below, hides) = parts_of(&parts[n..], &name, &path)?;
                    self.merge(&below, path, hides, hidden, depth + 1)?;
                }
                // What is deleted; in a directory that hides all of the base, nothing of the base.
                SFlag::S_IFCHR if status.st_rdev == 0 => {
                    if !hidden {
                        self.whiteout(&path)?;
                    }
                }
                _ => self.visit(parts[n].as_fd(), &name, path, depth + 1)?,
            }
        }
        Ok(())
    }

    /// Takes what is other than `below` in the directory `name` of `parent`; itself, too, where `changed`.
    fn compare(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: Vec<u8>,
        below: &File,
        changed: bool,
        depth: usize,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            let why = format!("it lies deeper than {MAX_DEPTH} directories");
            return Err(UnpackError::Refused { member: shown(&path), why });
        }
        let dir = open_directory(parent, name).at("open directory", &path)?;
        if changed {
            let mut member = member(&fstat(&dir).at("look at", &path)?, path.clone());
            member.kind = Kind::Directory;
            member.attributes = self.attributes(&dir, &path)?;
            self.sink.take(&member, &mut Nothing)?;
        }
        let (here, there) = (names(&dir, &path)?, names(below, &path)?);
        for name in there.iter().filter(|name| here.binary_search(name).is_err()) {
            self.whiteout(&[path.as_slice(), b"/", name].concat())?;
        }
        for name in here {
            let path = [path.as_slice(), b"/", &name].concat();
            let status = fstatat(&dir, name.as_slice(), AtFlags::AT_SYMLINK_NOFOLLOW).at("look at", &path)?;
            let old = match fstatat(below, name.as_slice(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Err(Errno::ENOENT) => None,
                other => Some(other.at("look at", &path)?),
            };
            let changed = old.is_none_or(|old| !unchanged(&status, &old));
            match (kind_of(&status), old.as_ref().map(kind_of)) {
                _ if self.device != Some(status.st_dev) => {}
                (SFlag::S_IFDIR, Some(SFlag::S_IFDIR)) => {
                    let below = open_directory(below.as_fd(), &name).at("open directory", &path)?;
                    self.compare(dir.as_fd(), &name, path, &below, changed, depth + 1)?;
                }
                _ if changed => self.visit(dir.as_fd(), &name, path, depth + 1)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A whiteout of what is called `path`.
    fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        let (dir, name) = path.split_at(at);
        let path = [dir, WHITEOUT, name].concat();
        let kind = Kind::File;
        let member = Member { kind, path, mode: 0o644, ..Member::default() };
        self.sink.take(&member, &mut Nothing)
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &[u8], mut member: Member) -> Result<()> {
        let Some(file) = sys::open_regular(dir, name).at("open", &member.path)? else {
            let why = "it became something else while it was copied".to_owned();
            return Err(UnpackError::Refused { member: member.shown(), why });
        };
        let status = fstat(&file).at("look at", &member.path)?;
        let path = std::mem::take(&mut member.path);
        let mut member = self::member(&status, path);
        if status.st_nlink > 1 {
            match self.links.get(&(status.st_dev, status.st_ino)) {
                Some(first) => {
                    (member.kind, member.link) = (Kind::HardLink, first.clone());
                    return self.sink.take(&member, &mut Nothing);
                }
                None => drop(self.links.insert((status.st_dev, status.st_ino), member.path.clone())),
            }
        }
        if sys::is_of_kernel(file.as_fd()).at("look at", &member.path)? {
            self.skipped.kernel += 1;
            return Ok(());
        }
        if self.upper
            && file.get_xattr("trusted.overlay.metacopy").at("read an extended attribute of", &member.path)?.is_some()
        {
            let why = "its data is in the base (metacopy), which a layer cannot tell".to_owned();
            return Err(UnpackError::Refused { member: member.shown(), why });
        }
        member.attributes = self.attributes(&file, &member.path)?;
        #[allow(clippy::cast_sign_loss)] // sizes are not negative
        let (size, stored) = (status.st_size as u64, status.st_blocks as u64 * 512);
        member.size = size;
        if self.sparse && stored < size {
            member.runs = Some(runs(&file, size).at("look for holes in", &member.path)?);
        }
        let whole = [Run { offset: 0, length: size }];
        let runs = member.runs.as_deref().unwrap_or(&whole).iter().copied().filter(|run| run.length > 0).collect();
        let path = member.path.clone();
        let mut contents =
            FileContents { file, path, runs, buffer: &mut self.buffer, ready: 0..0, started: false, changed: false };
        self.sink.take(&member, &mut contents)?;
        self.skipped.changed += u64::from(contents.changed);
        Ok(())
    }

    /// The extended attributes that a copy may have.
    fn attributes(&self, file: &File, path: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
        let names = match file.list_xattr() {
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
            other => other.at("list the extended attributes of", path)?,
        };
        let mut all = Vec::new();
        for name in names {
            let Some(name) = name.to_str().filter(|name| sys::keeps_attribute(name, self.root)) else { continue };
            if let Some(value) = file.get_xattr(name).at("read an extended attribute of", path)? {
                all.push((name.to_owned(), value));
            }
        }
        Ok(all)
    }
}

/// What cannot be said in a layer.
fn like_a_whiteout(path: &[u8]) -> UnpackError {
    let why = "its name begins with .wh., which in a layer hides something".to_owned();
    UnpackError::Refused { member: shown(path), why }
}

/// The directories that make up the directory `name` of one that `parts` make up, the topmost first, and whether they hide
/// what the base has there. One that shows something from elsewhere cannot be said in a layer.
fn parts_of(parts: &[File], name: &[u8], path: &[u8]) -> Result<(Vec<File>, bool)> {
    let mut found = Vec::new();
    for dir in parts {
        match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => continue,
            Err(e) => return Err(e).at("look at", path),
            Ok(status) if kind_of(&status) != SFlag::S_IFDIR => return Ok((found, true)),
            Ok(_) => {}
        }
        let dir = open_directory(dir.as_fd(), name).at("open directory", path)?;
        let get = |name: &str| dir.get_xattr(name).at("read an extended attribute of", path);
        if get("trusted.overlay.redirect")?.is_some() {
            let why = "it was renamed in place (redirect_dir), which a layer cannot tell".to_owned();
            return Err(UnpackError::Refused { member: shown(path), why });
        }
        let opaque = get("trusted.overlay.opaque")?.as_deref() == Some(b"y");
        found.push(dir);
        if opaque {
            return Ok((found, true));
        }
    }
    Ok((found, false))
}

/// What is in a directory, in order.
fn names(dir: &File, path: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut listing = Dir::from_fd(open_directory(dir.as_fd(), b".").at("open", path)?.into()).at("list", path)?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = entry.at("list", path)?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// What a status says of a member.
fn member(status: &FileStat, path: Vec<u8>) -> Member {
    #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)] // nanoseconds of a second
    let mtime = (status.st_mtime, status.st_mtime_nsec as u32);
    #[allow(clippy::useless_conversion)] // FreeBSD's have 16 bits
    let mode = u32::from(status.st_mode) & 0o7777;
    Member {
        path,
        kind: Kind::File,
        link: Vec::new(),
        mode,
        uid: status.st_uid,
        gid: status.st_gid,
        mtime,
        size: 0,
        runs: None,
        attributes: Vec::new(),
        flags: None,
        text_acl: false,
    }
}

/// Where a file has data (lseek(2), `SEEK_DATA`).
fn runs(file: &File, size: u64) -> nix::Result<Vec<Run>> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < size {
        let offset = match lseek(file, at.cast_signed(), Whence::SeekData) {
            // Nothing but a hole is left.
            Err(Errno::ENXIO) => break,
            // The file system knows of no holes.
            Err(Errno::EINVAL) => return Ok(vec![Run { offset: 0, length: size }]),
            other => other?.cast_unsigned().min(size),
        };
        let end = lseek(file, offset.cast_signed(), Whence::SeekHole)?.cast_unsigned().min(size);
        all.push(Run { offset, length: end - offset });
        at = end.max(offset + 1);
    }
    lseek(file, 0, Whence::SeekSet)?;
    Ok(all)
}

/// What has no contents.
struct Nothing;

impl Contents for Nothing {
    fn contents(&mut self) -> std::result::Result<&[u8], ArchiveError> {
        Ok(&[])
    }

    fn consume(&mut self, _: usize) -> std::result::Result<(), ArchiveError> {
        Ok(())
    }
}

/// The data of a file, run by run, as much as was announced: what is missing by now is zero.
struct FileContents<'b> {
    file: File,
    path: Vec<u8>,
    runs: VecDeque<Run>,
    buffer: &'b mut Vec<u8>,
    /// What of the buffer is not used yet.
    ready: std::ops::Range<usize>,
    /// Whether the file stands in the first of the runs.
    started: bool,
    changed: bool,
}

impl Contents for FileContents<'_> {
    fn contents(&mut self) -> std::result::Result<&[u8], ArchiveError> {
        if self.ready.is_empty()
            && let Some(run) = self.runs.front_mut()
        {
            let failed = |source| ArchiveError::Source { path: shown(&self.path), source };
            if !self.started {
                io::Seek::seek(&mut self.file, io::SeekFrom::Start(run.offset)).map_err(failed)?;
                self.started = true;
            }
            let want = self.buffer.len().min(usize::try_from(run.length).unwrap_or(usize::MAX));
            let got = loop {
                match self.file.read(&mut self.buffer[..want]) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    other => break other.map_err(failed)?,
                }
            };
            let count = if got > 0 { got } else { want };
            if got == 0 {
                self.buffer[..want].fill(0);
                self.changed = true;
            }
            run.length -= count as u64;
            if run.length == 0 {
                self.runs.pop_front();
                self.started = false;
            }
            self.ready = 0..count;
        }
        Ok(&self.buffer[self.ready.clone()])
    }

    fn consume(&mut self, count: usize) -> std::result::Result<(), ArchiveError> {
        self.ready.start += count;
        Ok(())
    }

    /// By copy_file_range(2), which shares the blocks where the file system can.
    fn splice(&mut self, to: &File, count: u64) -> std::result::Result<u64, ArchiveError> {
        let Some(run) = self.runs.front_mut().filter(|_| self.ready.is_empty()) else { return Ok(0) };
        if !self.started {
            let failed = |source| ArchiveError::Source { path: shown(&self.path), source };
            io::Seek::seek(&mut self.file, io::SeekFrom::Start(run.offset)).map_err(failed)?;
            self.started = true;
        }
        let want = usize::try_from(run.length.min(count)).unwrap_or(usize::MAX).min(1 << 30);
        // What it cannot do, reading and writing can; or tells why not.
        let moved = copy_file_range(&self.file, None, to, None, want).unwrap_or(0) as u64;
        run.length -= moved;
        if run.length == 0 {
            self.runs.pop_front();
            self.started = false;
        }
        Ok(moved)
    }
}

/// Contents as a reader.
struct Reading<'c, C>(&'c mut C);

impl<C: Contents> Read for Reading<'_, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.0.contents().map_err(io::Error::other)?;
        let count = piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&piece[..count]);
        self.0.consume(count).map_err(io::Error::other)?;
        Ok(count)
    }
}

/// Writes members to a tar stream.
struct Packer<W: Write> {
    builder: tar::Builder<W>,
    done: Unpacked,
}

impl<W: Write> Sink for Packer<W> {
    fn take(&mut self, member: &Member, contents: &mut impl Contents) -> Result<()> {
        self.done.entries += 1;
        self.done.bytes += member.size;
        let mut path = member.path.clone();
        if member.kind == Kind::Directory {
            path.push(b'/');
        }
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(match member.kind {
            Kind::File => tar::EntryType::Regular,
            Kind::Directory => tar::EntryType::Directory,
            Kind::Symlink => tar::EntryType::Symlink,
            Kind::HardLink => tar::EntryType::Link,
            Kind::Fifo => tar::EntryType::Fifo,
            Kind::Char(..) => tar::EntryType::Char,
            Kind::Block(..) => tar::EntryType::Block,
        });
        if let Kind::Char(major, minor) | Kind::Block(major, minor) = member.kind {
            header.set_device_major(major).and_then(|()| header.set_device_minor(minor)).at("write", &member.path)?;
        }
        header.set_mode(member.mode);
        header.set_uid(member.uid.into());
        header.set_gid(member.gid.into());
        header.set_size(member.size);
        header.set_mtime(u64::try_from(member.mtime.0).unwrap_or(0));
        let old = header.as_old_mut();
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        let fields: [(&str, &mut [u8], &[u8]); 2] =
            [("path", &mut old.name, &path), ("linkpath", &mut old.linkname, &member.link)];
        for (key, field, value) in fields {
            let fits = value.len().min(field.len());
            field[..fits].copy_from_slice(&value[..fits]);
            if fits < value.len() {
                records.push((key.to_owned(), value.to_vec()));
            }
        }
        if member.mtime.1 != 0 || member.mtime.0 < 0 {
            records.push(("mtime".to_owned(), time(member.mtime).into_bytes()));
        }
        let named = |(name, value): &(String, Vec<u8>)| (format!("SCHILY.xattr.{name}"), value.clone());
        records.extend(member.attributes.iter().map(named));
        header.set_cksum();
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.builder.append_pax_extensions(records).at("write", &member.path)?;
        self.builder.append(&header, Reading(contents)).at("write", &member.path)
    }
}

/// A time as pax has it: decimal seconds, of which those before the epoch have a sign.
fn time((seconds, nanoseconds): (i64, u32)) -> String {
    if seconds < 0 && nanoseconds > 0 {
        return format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds);
    }
    format!("{seconds}.{nanoseconds:09}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_around_the_epoch() {
        assert_eq!(super::time((12, 500_000_000)), "12.500000000");
        assert_eq!(super::time((-2, 750_000_000)), "-1.250000000");
        assert_eq!(super::time((-1, 750_000_000)), "-0.250000000");
    }
}
