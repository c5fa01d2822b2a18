//! Reads a tar stream member by member: v7, ustar, GNU (long names, sparse) and pax headers.
//!
//! This is not the `tar` crate, for three reasons that matter to a base release: that crate splits pax records at
//! newlines, so that a file capability or an access list with a byte 0x0a in it is lost; it keeps long-name and pax
//! headers of any size in memory, so that a kilobyte of gzip can take gigabytes; and it takes an archive that stops
//! between two members for a whole one. Here nothing is trusted and nothing is larger than its limit.
//!
//! Formats: tar(5) of FreeBSD, pax in POSIX.1-2017, and "Storing Sparse Files" in the GNU tar manual.

use std::fs::File;
use std::io::{self, BufRead};

const BLOCK: usize = 512;

/// The largest pax or long-name header, in bytes: room for the 64 KiB of extended attributes that Linux allows a name,
/// several times over.
const MAX_HEADER: u64 = 1 << 20;

/// The largest path or link target, in bytes: `PATH_MAX` of Linux, four times FreeBSD's.
const MAX_PATH: usize = 4096;

/// The most runs of data in one sparse file.
const MAX_RUNS: usize = 1 << 20;

/// Why a tar stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The compressed file could not be read or decompressed.
    #[error("read the archive at byte {at} of its contents")]
    Read {
        /// Bytes of tar stream read so far.
        at: u64,
        /// What the kernel or the decompressor says.
        source: io::Error,
    },
    /// A file that is copied could not be read.
    #[error("read {path}")]
    Source {
        /// The file.
        path: String,
        /// The kernel's words.
        source: io::Error,
    },
    /// The stream stops too early.
    #[error("the archive is cut off: it ends in {0}")]
    Truncated(&'static str),
    /// The first header is none.
    #[error("this is not a tar archive")]
    NotTar,
    /// A compression that is known and not supported.
    #[error("{0} compression is not supported: recompress the archive with xz or gzip")]
    Compression(&'static str),
    /// A later header is none.
    #[error("the header at byte {at} of the archive is damaged: wrong checksum")]
    Checksum {
        /// Where the header begins in the tar stream, in bytes.
        at: u64,
    },
    /// A header has a field that makes no sense.
    #[error("{member}: {what}")]
    Header {
        /// Name of the member, as far as it is known.
        member: String,
        /// What is wrong with it.
        what: String,
    },
    /// The limit on the size of the stream.
    #[error("the archive unpacks to more than the limit of {0} bytes")]
    TooBig(u64),
}

type Result<T> = std::result::Result<T, ArchiveError>;

/// What a member is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    /// Character device with its major and minor number.
    Char(u32, u32),
    /// Block device with its major and minor number.
    Block(u32, u32),
}

/// A run of data in a sparse file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// One member of the archive; its contents follow in the stream.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// The name as the archive has it: not yet checked for `..` and the like.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Target of a symbolic or hard link.
    pub(super) link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since the epoch and nanoseconds.
    pub(super) mtime: (i64, u32),
    /// Size of the file once unpacked, in bytes.
    pub(super) size: u64,
    /// Where the data of a sparse file goes; what lies between is a hole.
    pub(super) runs: Option<Vec<Run>>,
    /// Extended attributes with the names Linux gives them.
    pub(super) attributes: Vec<(String, Vec<u8>)>,
    /// FreeBSD file flags as strtofflags(3) reads them.
    pub(super) flags: Option<String>,
    /// An access list in text form (`SCHILY.acl.*`) is there.
    pub(super) text_acl: bool,
}

impl Member {
    /// The name for a message.
    pub(super) fn shown(&self) -> String {
        shown(&self.path)
    }
}

/// A name of the archive for a message: it may hold anything, so control characters are escaped.
pub(super) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().to_string()
}

/// What extension headers say about the member that follows them.
#[derive(Default)]
struct Extra {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    attributes: Vec<(String, Vec<u8>)>,
    flags: Option<String>,
    text_acl: bool,
    sparse: Sparse,
}

/// The `GNU.sparse.*` records.
#[derive(Default)]
struct Sparse {
    /// Version 1.0: the map is at the head of the contents.
    map_in_body: bool,
    real_size: Option<u64>,
    runs: Vec<Run>,
    /// An offset of version 0.0 that still waits for its length.
    offset: Option<u64>,
    given: bool,
}

/// The contents of a member, piece by piece.
pub(super) trait Contents {
    /// The next piece; empty behind the last one.
    fn contents(&mut self) -> Result<&[u8]>;

    /// So many bytes of [`Self::contents`] were used.
    fn consume(&mut self, count: usize) -> Result<()>;

    /// Lets the kernel move at most `count` bytes of the contents to where `to` stands, if they are in a file; says how
    /// many it did, which may be none.
    fn splice(&mut self, _to: &File, _count: u64) -> Result<u64> {
        Ok(0)
    }
}

impl<R: BufRead> Contents for Members<R> {
    fn contents(&mut self) -> Result<&[u8]> {
        if self.body == 0 {
            return Ok(&[]);
        }
        let left = self.body;
        let piece = self.fill("the contents of a member")?;
        let count = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        Ok(&piece[..count])
    }

    fn consume(&mut self, count: usize) -> Result<()> {
        self.body -= count as u64;
        self.advance(count)
    }
}

/// The members of a tar stream, in order.
pub(super) struct Members<R> {
    input: R,
    /// Bytes of stream read so far, where this one began, and how many may be.
    at: u64,
    start: u64,
    limit: u64,
    /// Whether there may be no member at all.
    empty: bool,
    /// What is left of the contents of the current member, and of the padding behind them.
    body: u64,
    padding: u64,
    /// Where the header of the current member began.
    header_at: u64,
}

impl<R: BufRead> Members<R> {
    /// Reads members from `input`, of which at most `limit` bytes are read.
    pub(super) fn new(input: R, limit: u64) -> Self {
        Self { input, at: 0, start: 0, limit, empty: false, body: 0, padding: 0, header_at: 0 }
    }

    /// The same for one of several streams with one limit: of the others `start` bytes were read. It may be without a
    /// member, as the layers of images are.
    pub(super) fn behind(input: R, start: u64, limit: u64) -> Self {
        Self { at: start, start, empty: true, ..Self::new(input, limit) }
    }

    /// Bytes read so far, those of streams before this one included.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next member, or `None` behind the end mark, when the rest of the stream was read too: only then has the
    /// decompressor seen its own checksum.
    pub(super) fn next(&mut self) -> Result<Option<Member>> {
        let mut extra = Extra::default();
        loop {
            let rest = self.body + self.padding;
            self.skip(rest, "a member")?;
            (self.body, self.padding) = (0, 0);
            let Some(header) = self.header()? else {
                self.drain()?;
                return Ok(None);
            };
            match header[156] {
                b'x' | b'X' => extra.pax(&self.extension(&header)?)?,
                b'g' => check_global(&self.extension(&header)?)?,
                b'L' => extra.path = Some(until_nul(&self.extension(&header)?).to_vec()),
                b'K' => extra.link = Some(until_nul(&self.extension(&header)?).to_vec()),
                // The label of a volume: a name and nothing else.
                b'V' => {}
                _ => return self.member(&header, extra).map(Some),
            }
        }
    }

    fn advance(&mut self, count: usize) -> Result<()> {
        self.input.consume(count);
        self.at += count as u64;
        if self.at > self.limit { Err(ArchiveError::TooBig(self.limit)) } else { Ok(()) }
    }

    /// The bytes that are buffered, at least one.
    fn fill(&mut self, place: &'static str) -> Result<&[u8]> {
        let at = self.at;
        match self.input.fill_buf() {
            Ok([]) => Err(ArchiveError::Truncated(place)),
            // A decompressor whose input ends too soon says so by this kind.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ArchiveError::Truncated(place)),
            Ok(bytes) => Ok(bytes),
            Err(source) => Err(ArchiveError::Read { at, source }),
        }
    }

    fn read(&mut self, buffer: &mut [u8], place: &'static str) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let piece = self.fill(place)?;
            let count = piece.len().min(buffer.len() - done);
            buffer[done..done + count].copy_from_slice(&piece[..count]);
            done += count;
            self.advance(count)?;
        }
        Ok(())
    }

    fn skip(&mut self, mut count: u64, place: &'static str) -> Result<()> {
        while count > 0 {
            let piece = self.fill(place)?.len();
            let step = piece.min(usize::try_from(count).unwrap_or(usize::MAX));
            self.advance(step)?;
            count -= step as u64;
        }
        Ok(())
    }

    /// Reads to the end of the stream.
    fn drain(&mut self) -> Result<()> {
        loop {
            let at = self.at;
            let count = match self.input.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(bytes) => bytes.len(),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(ArchiveError::Truncated("the checksum of the compression"));
                }
                Err(source) => return Err(ArchiveError::Read { at, source }),
            };
            self.advance(count)?;
        }
    }

    /// The next header block with a right checksum, or `None` at the end mark.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        self.header_at = self.at;
        let mut block = [0; BLOCK];
        self.read(&mut block, "the place of a header or of the end mark")?;
        if block.iter().all(|byte| *byte == 0) {
            return if self.header_at == self.start && !self.empty { Err(ArchiveError::NotTar) } else { Ok(None) };
        }
        // The checksum counts its own field as blanks; old archivers summed signed bytes.
        let field = 148..156;
        let bytes = block.iter().enumerate().map(|(i, byte)| if field.contains(&i) { b' ' } else { *byte });
        let unsigned: i64 = bytes.clone().map(i64::from).sum();
        let signed: i64 = bytes.map(|byte| i64::from(byte.cast_signed())).sum();
        let stored = number(&block[148..156]);
        if stored != Some(unsigned) && stored != Some(signed) {
            return Err(match self.header_at - self.start {
                0 => ArchiveError::NotTar,
                at => ArchiveError::Checksum { at },
            });
        }
        Ok(Some(block))
    }

    /// The contents of an extension header.
    fn extension(&mut self, header: &[u8; BLOCK]) -> Result<Vec<u8>> {
        let size = size_field(&header[124..136]).filter(|size| *size <= MAX_HEADER);
        let Some(size) = size else {
            return Err(ArchiveError::Header {
                member: format!("the extension header at byte {}", self.header_at),
                what: format!("it has no size, or is larger than {MAX_HEADER} bytes"),
            });
        };
        let mut contents = vec![0; usize::try_from(size).unwrap_or_default()];
        self.read(&mut contents, "an extension header")?;
        self.skip(padding(size), "an extension header")?;
        Ok(contents)
    }

    fn member(&mut self, header: &[u8; BLOCK], extra: Extra) -> Result<Member> {
        let path = extra.path.unwrap_or_else(|| header_path(header));
        let wrong = |what: &str| ArchiveError::Header { member: shown(&path), what: what.to_owned() };
        let field = |range: std::ops::Range<usize>, name: &str| {
            size_field(&header[range]).ok_or_else(|| wrong(&format!("its {name} is not a number")))
        };
        let id = |given: Option<u64>, range, name: &str| {
            let value = given.map_or_else(|| field(range, name), Ok)?;
            u32::try_from(value).map_err(|_| wrong(&format!("its {name} {value} does not fit 32 bits")))
        };
        let device = |range, name| id(None, range, name);
        let link = extra.link.unwrap_or_else(|| until_nul(&header[157..257]).to_vec());
        if path.len() > MAX_PATH || link.len() > MAX_PATH {
            return Err(wrong(&format!("a name or link target is longer than {MAX_PATH} bytes")));
        }
        let type_flag = header[156];
        let kind = match type_flag {
            // Before ustar a directory was a file whose name ends in a slash.
            0 | b'0' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char(device(329..337, "major number")?, device(337..345, "minor number")?),
            b'4' => Kind::Block(device(329..337, "major number")?, device(337..345, "minor number")?),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(wrong(&format!("it is of the unknown type {:?}", other as char))),
        };
        // Only files have contents: some archivers give links and directories a size all the same.
        let stored = if kind == Kind::File { extra.size.map_or_else(|| field(124..136, "size"), Ok)? } else { 0 };
        let mtime = match extra.mtime {
            Some(time) => time,
            None => (number(&header[136..148]).ok_or_else(|| wrong("its time is not a number"))?, 0),
        };
        let member = Member {
            kind,
            link,
            mode: (field(100..108, "mode")? & 0o7777) as u32,
            uid: id(extra.uid, 108..116, "user id")?,
            gid: id(extra.gid, 116..124, "group id")?,
            mtime,
            size: stored,
            runs: None,
            attributes: extra.attributes,
            flags: extra.flags,
            text_acl: extra.text_acl,
            path,
        };
        (self.body, self.padding) = (stored, padding(stored));
        let sparse = if type_flag == b'S' { self.old_sparse(header)? } else { extra.sparse };
        if kind == Kind::File && (sparse.given || type_flag == b'S') {
            return self.sparse(member, sparse);
        }
        Ok(member)
    }

    /// The map of an old GNU sparse member: in the header and in blocks that follow it.
    fn old_sparse(&mut self, header: &[u8; BLOCK]) -> Result<Sparse> {
        let mut sparse = Sparse { real_size: size_field(&header[483..495]), ..Sparse::default() };
        let broken = || ArchiveError::Header {
            member: shown(&header_path(header)),
            what: "the map of the sparse file makes no sense".to_owned(),
        };
        let mut add = |entries: &[u8]| {
            for entry in entries.chunks_exact(24).take_while(|entry| entry[0] != 0) {
                let run = size_field(&entry[..12]).zip(size_field(&entry[12..]));
                let (offset, length) = run.ok_or_else(broken)?;
                sparse.runs.push(Run { offset, length });
            }
            if sparse.runs.len() > MAX_RUNS { Err(broken()) } else { Ok(()) }
        };
        add(&header[386..482])?;
        let mut more = header[482] != 0;
        while more {
            let mut block = [0; BLOCK];
            self.read(&mut block, "the map of a sparse file")?;
            add(&block[..504])?;
            more = block[504] != 0;
        }
        Ok(sparse)
    }

    /// Completes a sparse member: its map must be in order, within the file, and have the size of what is stored.
    fn sparse(&mut self, mut member: Member, mut sparse: Sparse) -> Result<Member> {
        if sparse.map_in_body {
            sparse.runs = self.map_in_body(&member)?;
        }
        let mut end = 0;
        let mut stored = 0;
        let in_order = sparse.runs.iter().all(|run| {
            let starts_late_enough = run.offset >= end;
            end = run.offset.saturating_add(run.length);
            stored += u128::from(run.length);
            starts_late_enough
        });
        match sparse.real_size {
            Some(size) if in_order && end <= size && stored == u128::from(self.body) => {
                member.size = size;
                member.runs = Some(sparse.runs);
                Ok(member)
            }
            _ => Err(ArchiveError::Header {
                member: member.shown(),
                what: "the map of the sparse file makes no sense".to_owned(),
            }),
        }
    }

    /// The map of pax sparse format 1.0: decimal lines at the head of the contents, padded to a block.
    fn map_in_body(&mut self, member: &Member) -> Result<Vec<Run>> {
        let broken = |what: &str| ArchiveError::Header { member: member.shown(), what: what.to_owned() };
        let mut taken = 0_u64;
        let mut line = |members: &mut Self| {
            let mut value = 0_u64;
            loop {
                let byte =
                    *members.contents()?.first().ok_or_else(|| broken("the map of the sparse file is cut off"))?;
                members.consume(1)?;
                taken += 1;
                match byte {
                    b'\n' => return Ok(value),
                    b'0'..=b'9' => {
                        let digit = u64::from(byte - b'0');
                        value = value
                            .checked_mul(10)
                            .and_then(|tens| tens.checked_add(digit))
                            .ok_or_else(|| broken("a number in the map of the sparse file is too large"))?;
                    }
                    _ => return Err(broken("the map of the sparse file is not made of numbers")),
                }
            }
        };
        let count = usize::try_from(line(self)?).ok().filter(|count| *count <= MAX_RUNS);
        let count = count.ok_or_else(|| broken("the map of the sparse file is too long"))?;
        let mut runs = Vec::new();
        for _ in 0..count {
            runs.push(Run { offset: line(self)?, length: line(self)? });
        }
        let rest = padding(taken);
        self.body = self.body.checked_sub(rest).ok_or_else(|| broken("the map of the sparse file is cut off"))?;
        self.skip(rest, "the map of a sparse file")?;
        Ok(runs)
    }
}

impl Extra {
    /// Takes over the records of a pax header.
    fn pax(&mut self, records: &[u8]) -> Result<()> {
        for_each_record(records, |key, value| self.record(key, value))
    }

    fn record(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let wrong = || ArchiveError::Header {
            member: "pax header".to_owned(),
            what: format!("{} cannot be {:?}", key.escape_debug(), shown(value)),
        };
        let text = || std::str::from_utf8(value).map_err(|_| wrong());
        let integer = || text()?.parse::<u64>().map_err(|_| wrong());
        match key {
            "path" | "GNU.sparse.name" if value.contains(&0) => return Err(wrong()),
            // The name of a sparse member is the one in its own record; `path` is for readers that do not know it.
            "path" if self.sparse.given && self.path.is_some() => {}
            "path" => self.path = Some(value.to_vec()),
            "linkpath" if value.contains(&0) => return Err(wrong()),
            "linkpath" => self.link = Some(value.to_vec()),
            "size" => self.size = Some(integer()?),
            "uid" => self.uid = Some(integer()?),
            "gid" => self.gid = Some(integer()?),
            "mtime" => self.mtime = Some(time(text()?).ok_or_else(wrong)?),
            "SCHILY.fflags" => self.flags = Some(text()?.to_owned()),
            "GNU.sparse.name" => {
                self.path = Some(value.to_vec());
                self.sparse.given = true;
            }
            "GNU.sparse.major"
            | "GNU.sparse.minor"
            | "GNU.sparse.size"
            | "GNU.sparse.realsize"
            | "GNU.sparse.map"
            | "GNU.sparse.offset"
            | "GNU.sparse.numbytes"
            | "GNU.sparse.numblocks" => {
                self.sparse.given = true;
                match &key["GNU.sparse.".len()..] {
                    "major" => self.sparse.map_in_body = integer()? == 1,
                    "size" | "realsize" => self.sparse.real_size = Some(integer()?),
                    "map" => self.sparse.runs = map(text()?).ok_or_else(wrong)?,
                    "offset" => self.sparse.offset = Some(integer()?),
                    "numbytes" => {
                        let offset = self.sparse.offset.take().ok_or_else(wrong)?;
                        self.sparse.runs.push(Run { offset, length: integer()? });
                    }
                    _ => {}
                }
            }
            _ => match key.strip_prefix("SCHILY.xattr.") {
                Some(name) if name.contains('\0') => return Err(wrong()),
                Some(name) => self.attributes.push((name.to_owned(), value.to_vec())),
                None => self.text_acl |= key.starts_with("SCHILY.acl."),
            },
        }
        Ok(())
    }
}

/// A global header may hold a comment, as those of git archive(1) do; what it would say about every member is refused
/// rather than forgotten.
fn check_global(records: &[u8]) -> Result<()> {
    for_each_record(records, |key, _| match key {
        "path" | "linkpath" | "size" | "uid" | "gid" => Err(ArchiveError::Header {
            member: "global pax header".to_owned(),
            what: format!("{key} for all members is not supported"),
        }),
        _ => Ok(()),
    })
}

/// Calls `take` for each `length key=value\n` record. Values may hold any byte, newlines too: only the length counts.
fn for_each_record(mut records: &[u8], mut take: impl FnMut(&str, &[u8]) -> Result<()>) -> Result<()> {
    let broken = || ArchiveError::Header { member: "pax header".to_owned(), what: "a record is damaged".to_owned() };
    // Some writers pad with NULs what the header's size should have excluded.
    while records.first().is_some_and(|byte| *byte != 0) {
        let blank = records.iter().take(20).position(|byte| *byte == b' ').ok_or_else(broken)?;
        let length = std::str::from_utf8(&records[..blank]).ok().and_then(|text| text.parse::<usize>().ok());
        let length = length.filter(|length| (blank + 2..=records.len()).contains(length)).ok_or_else(broken)?;
        let (record, rest) = records.split_at(length);
        let record = record[blank + 1..].strip_suffix(b"\n").ok_or_else(broken)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
        let key = std::str::from_utf8(&record[..equals]).map_err(|_| broken())?;
        let value = &record[equals + 1..];
        // An empty value takes back an earlier record, which only makes sense after a global header.
        if !value.is_empty() || key.starts_with("SCHILY.xattr.") {
            take(key, value)?;
        }
        records = rest;
    }
    Ok(())
}

/// The comma-separated map of pax sparse format 0.1.
fn map(text: &str) -> Option<Vec<Run>> {
    let numbers: Vec<u64> = text.split(',').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let pairs = numbers.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| Run { offset: pair[0], length: pair[1] }).collect())
}

/// A pax time: decimal seconds with an optional fraction, possibly before the epoch.
fn time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    // -1.25 is a quarter second before -1: a timespec counts its nanoseconds forward.
    if whole.starts_with('-') && nanoseconds > 0 {
        Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds))
    } else {
        Some((seconds, nanoseconds))
    }
}

/// A number of a header: octal text, blank for zero, or GNU's base 256.
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        // Two's complement over the whole field, whose first bit only says that it is binary.
        let negative = field[0] & 0x40 != 0;
        let first = if negative { i128::from(field[0]) - 0x100 } else { i128::from(field[0] & 0x3f) };
        let value = field[1..].iter().fold(first, |value, byte| (value << 8) | i128::from(*byte));
        return i64::try_from(value).ok();
    }
    let text = std::str::from_utf8(until_nul(field)).ok()?.trim();
    if text.is_empty() { Some(0) } else { i64::from_str_radix(text, 8).ok() }
}

/// A number that cannot be negative.
fn size_field(field: &[u8]) -> Option<u64> {
    number(field).and_then(|value| u64::try_from(value).ok())
}

/// The name in a header, joined with the prefix field that only ustar proper has.
fn header_path(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&header[..100]);
    let prefix = until_nul(&header[345..500]);
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() { [prefix, b"/", name].concat() } else { name.to_vec() }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Bytes between contents of `size` bytes and the next block.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_headers() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None, "does not fit");
        assert_eq!(size_field(&[0xff; 12]), None);
    }

    #[test]
    fn times_before_and_after_the_epoch() {
        assert_eq!(time("12.5"), Some((12, 500_000_000)));
        assert_eq!(time("12.1234567899"), Some((12, 123_456_789)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("-0.25"), Some((-1, 750_000_000)));
        assert_eq!(time("-3"), Some((-3, 0)));
        assert_eq!((time("x"), time("1.x"), time("1.-5")), (None, None, None));
    }

    #[test]
    fn pax_records_go_by_length_and_not_by_line() {
        let mut seen = Vec::new();
        let take = |key: &str, value: &[u8]| {
            seen.push((key.to_owned(), value.to_vec()));
            Ok(())
        };
        for_each_record(b"16 SCHILY=\n1\n23\n11 path=ab\n", take).unwrap();
        assert_eq!(seen, [("SCHILY".into(), b"\n1\n23".to_vec()), ("path".into(), b"ab".to_vec())]);
        for broken in [&b"9 a=b\n"[..], b"5 a=b\n", b"x a=b\n", b"6 ab c\n", b"3 \n", b"99999999999999999999 a=b\n"] {
            assert!(for_each_record(broken, |_, _| Ok(())).is_err(), "{}", shown(broken));
        }
    }

    #[test]
    fn maps_of_sparse_files() {
        assert_eq!(map("0,5,10,2"), Some(vec![Run { offset: 0, length: 5 }, Run { offset: 10, length: 2 }]));
        assert_eq!((map("0,5,10"), map("0,-5")), (None, None));
    }
}
