//! Unpacks a tar stream beneath a directory, and nowhere else.
//!
//! Every name is walked one component at a time from the descriptor of the directory, with `O_NOFOLLOW`; the kernel
//! never resolves a path of the archive. So no `..`, absolute name, symbolic link or hard link in an archive reaches
//! out of the tree, whatever the order of its members (the class of CVE-2019-14271, CVE-2024-12718 and many before).
//!
//! What becomes of a member:
//! - leading `/` and `./` are taken off its name; a name with `..` is refused;
//! - missing parents are made as root's, 0755; a parent that is a symbolic link is refused. Archives of real trees
//!   never need it: where `bin` is a link to `usr/bin`, as in every merged-/usr distribution, the files are members
//!   below `usr/bin`, since an archiver does not follow links either;
//! - a later member of the same name replaces an earlier one, which is unlinked and never written into; a directory is
//!   kept and gets the later owner and mode, and is replaced by something else only while it is empty;
//! - a symbolic link is kept as it is, wherever it points: nothing here follows it;
//! - the target of a hard link is a name of the archive and walked like one; a hard link to a symbolic link links that;
//! - device nodes are left out unless asked for, since a container gets a /dev of its own;
//! - owners are the numbers of the archive: its names are those of its own passwd file;
//! - modification times of directories are set when the walk leaves them, and restored when it comes back later.
//!
//! Memory does not grow with the archive: there is no table of what was unpacked.
//!
//! A layer of an image is unpacked over the layers before it, by the rules of the OCI image specification ("Image Layer
//! Filesystem Changeset"), which differ:
//! - `.wh.NAME` removes NAME, `.wh..wh..opq` all that is in its directory, wherever it stands in the archive, as far as
//!   it comes from an earlier layer; other names that begin with `.wh..wh.` are AUFS's own and left out;
//! - a parent that is a symbolic link is followed as if the tree were the root, since images do need it; it is walked
//!   like any other path, so that it leads nowhere else;
//! - what takes the place of a directory removes all that is in it.
//!
//! What is copied into the files of a pot, or out of them, meets what is there already, and perhaps somebody who changes
//! it meanwhile. Then directories are filled up, files replaced, and neither takes the place of the other.
//!
//! To tell what comes from the layer itself, eight bytes are remembered for each of its members.

pub(super) mod sys;

use super::archive::{ArchiveError, Contents, Kind, Member, Members, shown};
use super::pack::Sink;
use super::tree;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, fstatat, futimens, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, mkfifoat, symlinkat, unlinkat};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::CString;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use xattr::FileExt;

/// What the names of whiteouts begin with.
pub(super) const WHITEOUT: &[u8] = b".wh.";

/// What follows in the name of the one that hides all of its directory.
const OPAQUE: &[u8] = b".wh..opq";

/// As many links on a way as Linux follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// The deepest directory. Each level of the walk is an open descriptor, and 1024 of those is the usual limit.
pub(super) const MAX_DEPTH: usize = 256;

/// The most members with file flags, which are remembered until the end.
const MAX_FLAGGED: usize = 1 << 16;

/// How an archive is unpacked.
#[derive(Clone, Debug)]
pub struct UnpackOptions {
    /// Most bytes of tar stream, headers and the holes of sparse files included.
    pub max_bytes: u64,
    /// Most files, directories, links and the like, parents that are made on the way included.
    pub max_entries: u64,
    /// Whether device nodes are made.
    pub allow_devices: bool,
    /// Whether files keep setuid, setgid and capabilities.
    pub setuid: bool,
    /// Whether everything is forced to the disk before the base gets its name, so that a power cut cannot leave a base
    /// with empty files.
    pub sync: bool,
}

impl Default for UnpackOptions {
    fn default() -> Self {
        Self { max_bytes: 64 << 30, max_entries: 4_000_000, allow_devices: false, setuid: true, sync: true }
    }
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of file contents, holes included.
    pub bytes: u64,
    /// Files, directories, links and the like.
    pub entries: u64,
    /// What could not be kept.
    pub skipped: Skipped,
}

/// How many members lost something on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Device nodes left out.
    pub devices: u64,
    /// Members of another owner, unpacked without root.
    pub owners: u64,
    /// Files that lost setuid, setgid or capabilities, because they would be the caller's or were not to be kept.
    pub setid: u64,
    /// Extended attributes and access lists that are not kept: of other namespaces, on links or special files, in text
    /// form, or because the file system has none.
    pub attributes: u64,
    /// Members with FreeBSD file flags, on another system.
    pub flags: u64,
    /// Sockets: only who listens at one can make it.
    pub sockets: u64,
    /// Directories and files of file systems that are the kernel's own words.
    pub kernel: u64,
    /// Files that became shorter while they were read, and were filled up with zeros.
    pub changed: u64,
}

impl Skipped {
    /// One line per reason, for the operator; empty when everything was kept.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.devices > 0 {
            lines.push(format!("{} device nodes left out: a container gets its own /dev", self.devices));
        }
        if self.owners > 0 {
            lines.push(format!("not root: {} members belong to the caller now", self.owners));
        }
        if self.setid > 0 {
            lines.push(format!("{} files lost setuid, setgid or capabilities", self.setid));
        }
        if self.sockets > 0 {
            lines.push(format!("{} sockets left out", self.sockets));
        }
        if self.kernel > 0 {
            lines.push(format!("{} file systems of the kernel left out", self.kernel));
        }
        if self.changed > 0 {
            lines.push(format!("{} files became shorter while they were read: zeros stand there now", self.changed));
        }
        if self.attributes > 0 {
            lines.push(format!("{} extended attributes or access lists not kept", self.attributes));
        }
        if self.flags > 0 {
            lines.push(format!("{} members have file flags, which only FreeBSD keeps", self.flags));
        }
        lines
    }
}

/// Why an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The stream itself.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A member that would leave the tree, or makes no sense in it.
    #[error("refused member {member}: {why}")]
    Refused {
        /// Its name.
        member: String,
        /// What is wrong with it.
        why: String,
    },
    /// The limit on the number of entries.
    #[error("the archive holds more than the limit of {0} entries")]
    TooMany(u64),
    /// The kernel refused a step.
    #[error("{step} {member}")]
    Io {
        /// What was done.
        step: &'static str,
        /// The member, or the directory of it.
        member: String,
        /// The kernel's words.
        source: io::Error,
    },
}

impl From<io::Error> for UnpackError {
    fn from(source: io::Error) -> Self {
        Self::Io { step: "write", member: "the file".into(), source }
    }
}

type Result<T> = std::result::Result<T, UnpackError>;

/// Unpacks the tar stream `archive` beneath `tree`, an empty directory that nobody else writes to, and reads the stream
/// to its end. After an error the tree holds what was unpacked so far.
///
/// # Errors
/// [`UnpackError`] when the archive is damaged, hostile or over a limit of `options`, or a system call fails.
pub fn unpack(archive: impl BufRead, tree: BorrowedFd<'_>, options: &UnpackOptions) -> Result<Unpacked> {
    let mut unpacker = Unpacker::new(tree, options)?;
    unpacker.archive(archive)?;
    unpacker.finish()
}

impl Sink for Unpacker<'_> {
    fn take(&mut self, member: &Member, contents: &mut impl Contents) -> Result<()> {
        self.member(member, contents)
    }
}

/// Unpacks the layers of an image, one over the other. The limits hold for all of them together.
pub(super) struct Layers<'o> {
    unpacker: Unpacker<'o>,
    /// Bytes of tar stream of the layers so far.
    read: u64,
}

impl<'o> Layers<'o> {
    /// Into `tree`, an empty directory that nobody else writes to.
    pub(super) fn new(tree: BorrowedFd<'_>, options: &'o UnpackOptions) -> Result<Self> {
        Ok(Self { unpacker: Unpacker::new(tree, options)?, read: 0 })
    }

    /// Into `tree`, which has the layers below, and an owner and a mode of its own.
    pub(super) fn over(tree: BorrowedFd<'_>, options: &'o UnpackOptions) -> Result<Self> {
        Ok(Self { unpacker: Unpacker::into_files(tree, options)?, read: 0 })
    }

    /// Unpacks one more layer, and reads the stream to its end.
    pub(super) fn add(&mut self, archive: impl BufRead) -> Result<()> {
        self.unpacker.upon = Upon::Layers(Layer::default());
        let mut members = Members::behind(archive, self.read, self.unpacker.options.max_bytes);
        while let Some(member) = members.next()? {
            self.unpacker.member(&member, &mut members)?;
        }
        self.read = members.at();
        self.unpacker.leave(1)?;
        Ok(())
    }

    /// After the last layer.
    pub(super) fn finish(self) -> Result<Unpacked> {
        self.unpacker.finish()
    }
}

/// What the tree holds already.
enum Upon {
    /// What this archive has put there.
    Nothing,
    /// Other layers of an image.
    Layers(Layer),
    /// Files of a pot or of the host.
    Files,
    /// Nothing; it becomes the upper directory of an overlay, in which whiteouts are what overlayfs takes for them.
    Upper,
}

/// What a layer has put into the tree: keyed hashes of its paths, so that nobody can make two that are alike.
#[derive(Default)]
struct Layer {
    keys: RandomState,
    seen: HashSet<u64>,
}

impl Layer {
    fn hash(&self, parent: u64, name: &[u8]) -> u64 {
        self.keys.hash_one((parent, name))
    }
}

/// Adds the step and the member to an error of the kernel.
pub(super) trait At<T> {
    fn at(self, step: &'static str, member: &[u8]) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, step: &'static str, member: &[u8]) -> Result<T> {
        self.map_err(|error| UnpackError::Io { step, member: shown(member), source: error.into() })
    }
}

/// What a directory gets when the walk leaves it.
#[derive(Default)]
struct Seal {
    mode: Option<Mode>,
    mtime: Option<TimeSpec>,
    /// Only now, for a default access list would be inherited by what is made below.
    attributes: Vec<(String, Vec<u8>)>,
}

/// A directory on the way to the current member.
struct Level {
    name: Vec<u8>,
    dir: File,
    seal: Seal,
    /// Whether the current layer has something in it.
    seen: bool,
}

impl Level {
    fn new(name: &[u8], dir: File, seal: Seal) -> Self {
        Self { name: name.to_vec(), dir, seal, seen: false }
    }
}

pub(super) struct Unpacker<'o> {
    options: &'o UnpackOptions,
    upon: Upon,
    /// Whether owners, setuid bits and file capabilities can be kept.
    root: bool,
    /// From the tree itself, which is never left, down to the directory of the current member.
    levels: Vec<Level>,
    /// Set at the end: an immutable file cannot be linked to, nor can an immutable directory be filled.
    flagged: HashMap<Vec<Vec<u8>>, u32>,
    done: Unpacked,
}

impl<'o> Unpacker<'o> {
    fn new(tree: BorrowedFd<'_>, options: &'o UnpackOptions) -> Result<Self> {
        let dir = File::from(tree.try_clone_to_owned().at("open", b".")?);
        // What an archive without a member for its top directory gets.
        let seal = Seal { mode: Some(permissions(0o755)), ..Seal::default() };
        Ok(Self {
            options,
            upon: Upon::Nothing,
            root: Uid::effective().is_root(),
            levels: vec![Level::new(b".", dir, seal)],
            flagged: HashMap::new(),
            done: Unpacked::default(),
        })
    }

    /// The same for a directory that has files already, and an owner and a mode of its own.
    pub(super) fn into_files(tree: BorrowedFd<'_>, options: &'o UnpackOptions) -> Result<Self> {
        let mut unpacker = Self { upon: Upon::Files, ..Self::new(tree, options)? };
        unpacker.levels[0].seal = Seal::default();
        Ok(unpacker)
    }

    /// The same for an empty directory that becomes the upper one of an overlay.
    pub(super) fn upper(tree: BorrowedFd<'_>, options: &'o UnpackOptions) -> Result<Self> {
        Ok(Self { upon: Upon::Upper, ..Self::new(tree, options)? })
    }

    /// Unpacks a tar stream, and reads it to its end.
    pub(super) fn archive(&mut self, archive: impl BufRead) -> Result<()> {
        let mut members = Members::new(archive, self.options.max_bytes);
        while let Some(member) = members.next()? {
            self.member(&member, &mut members)?;
        }
        Ok(())
    }

    fn member(&mut self, member: &Member, members: &mut impl Contents) -> Result<()> {
        if matches!(member.kind, Kind::Char(..) | Kind::Block(..)) && !self.options.allow_devices {
            self.done.skipped.devices += 1;
            return Ok(());
        }
        self.count()?;
        let path = components(&member.path).map_err(|why| refused(member, why))?;
        let Some((name, parents)) = path.split_last() else {
            if member.kind != Kind::Directory {
                return Err(refused(member, "it would replace the tree itself"));
            }
            self.leave(1)?;
            return self.fill_in(member);
        };
        if path.iter().any(|name| name.starts_with(WHITEOUT)) {
            match self.upon {
                Upon::Layers(_) => return self.whiteout(name, parents, member),
                Upon::Upper => return self.upper_whiteout(name, parents, member),
                Upon::Nothing | Upon::Files => {}
            }
        }
        self.enter(parents, member, true)?;
        match member.kind {
            Kind::Directory => self.directory(name, member)?,
            Kind::File => self.file(name, member, members)?,
            Kind::HardLink => self.hard_link(name, member)?,
            Kind::Symlink if member.link.is_empty() => return Err(refused(member, "a symbolic link to nothing")),
            Kind::Symlink => self.special(name, member, |dir| symlinkat(member.link.as_slice(), dir, *name))?,
            Kind::Fifo => self.special(name, member, |dir| mkfifoat(dir, *name, Mode::S_IRUSR))?,
            Kind::Char(major, minor) => {
                let number = libc::makedev(major, minor);
                self.special(name, member, |dir| mknodat(dir, *name, SFlag::S_IFCHR, Mode::S_IRUSR, number))?;
            }
            Kind::Block(major, minor) => {
                let number = libc::makedev(major, minor);
                self.special(name, member, |dir| mknodat(dir, *name, SFlag::S_IFBLK, Mode::S_IRUSR, number))?;
            }
        }
        self.remember(name, member)
    }

    /// Leaves every directory, and sets the file flags.
    pub(super) fn finish(mut self) -> Result<Unpacked> {
        self.leave(1)?;
        for (path, flags) in std::mem::take(&mut self.flagged) {
            if let Some((name, parents)) = path.split_last() {
                let dir = match self.walk(parents) {
                    // A later layer has removed it.
                    Err(Errno::ENOENT) if matches!(self.upon, Upon::Layers(_)) => continue,
                    other => other.at("open the directory of", name)?,
                };
                match sys::set_flags(dir.as_fd(), name, flags) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound && matches!(self.upon, Upon::Layers(_)) => {}
                    other => drop(other.at("set the file flags of", name)?),
                }
            }
        }
        self.leave(0)?;
        Ok(self.done)
    }

    /// One more entry.
    fn count(&mut self) -> Result<()> {
        self.done.entries += 1;
        if self.done.entries > self.options.max_entries {
            return Err(UnpackError::TooMany(self.options.max_entries));
        }
        Ok(())
    }

    /// The directory that members are made in now.
    fn here(&self) -> BorrowedFd<'_> {
        self.levels[self.levels.len() - 1].dir.as_fd()
    }

    /// Makes `parents` the current directory: what it has in common with the last one stays open. `false`: it is not
    /// there, and was not to be made.
    fn enter(&mut self, parents: &[impl AsRef<[u8]>], member: &Member, make: bool) -> Result<bool> {
        if parents.len() > MAX_DEPTH {
            return Err(refused(member, format!("it lies deeper than {MAX_DEPTH} directories")));
        }
        let open = self.levels[1..].iter().zip(parents);
        let common = open.take_while(|(level, name)| level.name == name.as_ref()).count();
        self.leave(1 + common)?;
        for name in parents[common..].iter().map(AsRef::as_ref) {
            let level = match self.open(name) {
                Err(Errno::ENOENT) if !make => return Ok(false),
                Err(Errno::ENOENT) => {
                    self.count()?;
                    self.make_directory(name)?
                }
                Err(errno) if is_no_directory(errno) && matches!(self.upon, Upon::Layers(_)) => {
                    let path: Vec<&[u8]> = parents.iter().map(AsRef::as_ref).collect();
                    let real =
                        resolve(self.levels[0].dir.as_fd(), &path).at("resolve the directory of", &member.path)?;
                    if real == path {
                        return Err(refused(member, format!("its parent {} is no directory", shown(name))));
                    }
                    return self.enter(&real, member, make);
                }
                Err(errno) if is_no_directory(errno) => {
                    let why = format!("its parent {} is a link or a file, not a directory", shown(name));
                    return Err(refused(member, why));
                }
                other => other.at("open directory", name)?,
            };
            self.levels.push(level);
        }
        Ok(true)
    }

    /// Leaves directories until `keep` are open.
    fn leave(&mut self, keep: usize) -> Result<()> {
        while self.levels.len() > keep
            && let Some(level) = self.levels.pop()
        {
            for (name, value) in &level.seal.attributes {
                self.attribute(&level.dir, name, value, &level.name)?;
            }
            if let Some(mode) = level.seal.mode {
                fchmod(&level.dir, mode).at("set the mode of directory", &level.name)?;
            }
            if let Some(mtime) = level.seal.mtime {
                futimens(&level.dir, &TimeSpec::UTIME_OMIT, &mtime).at("set the time of directory", &level.name)?;
            }
        }
        Ok(())
    }

    /// Opens a directory that is there; its time, and without root its mode, are restored when it is left again.
    fn open(&self, name: &[u8]) -> nix::Result<Level> {
        let mut seal = Seal::default();
        let dir = match open_directory(self.here(), name) {
            // Unpacked a moment ago, not for its owner to read: without root that counts.
            Err(Errno::EACCES) if !self.root => {
                let mode = mode_of(&fstatat(self.here(), name, AtFlags::AT_SYMLINK_NOFOLLOW)?);
                seal.mode = Some(mode);
                fchmodat(self.here(), name, mode | Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)?;
                open_directory(self.here(), name)?
            }
            other => other?,
        };
        let status = fstat(&dir)?;
        seal.mtime = Some(TimeSpec::new(status.st_mtime, status.st_mtime_nsec));
        let mode = mode_of(&status);
        if !self.root && !mode.contains(Mode::S_IRWXU) {
            seal.mode = Some(mode);
            fchmod(&dir, mode | Mode::S_IRWXU)?;
        }
        Ok(Level::new(name, dir, seal))
    }

    /// Makes a directory, which is like that of an archive without a member for it until [`Self::fill_in`].
    fn make_directory(&self, name: &[u8]) -> Result<Level> {
        mkdirat(self.here(), name, Mode::S_IRWXU).at("make directory", name)?;
        let dir = open_directory(self.here(), name).at("open directory", name)?;
        Ok(Level::new(name, dir, Seal { mode: Some(permissions(0o755)), ..Seal::default() }))
    }

    fn directory(&mut self, name: &[u8], member: &Member) -> Result<()> {
        let level = match self.open(name) {
            Err(Errno::ENOENT) => self.make_directory(name)?,
            Err(errno) if is_no_directory(errno) && matches!(self.upon, Upon::Files) => {
                return Err(refused(member, "it would replace what is no directory"));
            }
            Err(errno) if is_no_directory(errno) => {
                self.clear(name, member)?;
                self.make_directory(name)?
            }
            other => other.at("open directory", name)?,
        };
        self.levels.push(level);
        self.fill_in(member)
    }

    /// Gives the current directory the owner, mode and time of `member`, the latter two when it is left.
    fn fill_in(&mut self, member: &Member) -> Result<()> {
        let mode = self.mode(member);
        let attributes = self.attributes(member);
        if self.keeps_owner(member) {
            let (uid, gid) = owner(member);
            fchown(self.here(), uid, gid).at("set the owner of", &member.path)?;
        }
        if let Some(level) = self.levels.last_mut() {
            level.seal = Seal { mode: Some(mode), mtime: Some(mtime(member)), attributes };
        }
        Ok(())
    }

    fn file(&mut self, name: &[u8], member: &Member, members: &mut impl Contents) -> Result<()> {
        self.done.bytes = self.done.bytes.saturating_add(member.size);
        // The stream has the same limit; this one is for holes.
        if self.done.bytes > self.options.max_bytes {
            return Err(ArchiveError::TooBig(self.options.max_bytes).into());
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = self.make(name, member, |dir| openat(dir, name, flags, Mode::S_IRUSR | Mode::S_IWUSR))?;
        let mut file = File::from(file);
        match &member.runs {
            None => write(&mut file, member.size, member, members)?,
            Some(runs) => {
                for run in runs {
                    file.seek(SeekFrom::Start(run.offset)).at("write", &member.path)?;
                    write(&mut file, run.length, member, members)?;
                }
                file.set_len(member.size).at("write", &member.path)?;
            }
        }
        // The owner first, for a change of it takes setuid bits and file capabilities away.
        if self.keeps_owner(member) {
            let (uid, gid) = owner(member);
            fchown(&file, uid, gid).at("set the owner of", &member.path)?;
        }
        fchmod(&file, self.mode(member)).at("set the mode of", &member.path)?;
        for (attribute, value) in self.attributes(member) {
            self.attribute(&file, &attribute, &value, &member.path)?;
        }
        futimens(&file, &TimeSpec::UTIME_OMIT, &mtime(member)).at("set the time of", &member.path)
    }

    fn hard_link(&mut self, name: &[u8], member: &Member) -> Result<()> {
        let no = |why: &str| refused(member, format!("hard link to {}, {why}", shown(&member.link)));
        let target = components(&member.link).map_err(no)?;
        let (last, parents) = target.split_last().ok_or_else(|| no("which is the tree itself"))?;
        let mut from = self.walk(parents);
        if from.as_ref().is_err_and(|errno| is_no_directory(*errno)) && matches!(self.upon, Upon::Layers(_)) {
            from = resolve(self.levels[0].dir.as_fd(), parents).and_then(|real| self.walk(&real));
        }
        let from = match from {
            Err(errno) if is_no_directory(errno) => return Err(no("which lies behind a link or a file")),
            Err(Errno::ENOENT) => return Err(no("which is no earlier member")),
            other => other.at("open the directory of", &member.link)?,
        };
        let status = match fstatat(&from, *last, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Err(no("which is no earlier member")),
            other => other.at("look at", &member.link)?,
        };
        if kind_of(&status) == SFlag::S_IFDIR {
            return Err(no("which is a directory"));
        }
        // Without AT_SYMLINK_FOLLOW: a link to a symbolic link is one more name of that.
        let link = |here: BorrowedFd<'_>| linkat(&from, *last, here, name, AtFlags::empty());
        match link(self.here()) {
            Err(Errno::EEXIST) => {
                let there = fstatat(self.here(), name, AtFlags::AT_SYMLINK_NOFOLLOW).at("look at", &member.path)?;
                if (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino) {
                    return Ok(());
                }
                self.make(name, member, link)
            }
            other => other.at("link", &member.path),
        }
    }

    /// Makes what has no contents and is not opened: a symbolic link, a fifo, a device node.
    fn special(
        &mut self,
        name: &[u8],
        member: &Member,
        create: impl Fn(BorrowedFd<'_>) -> nix::Result<()>,
    ) -> Result<()> {
        self.make(name, member, create)?;
        if self.keeps_owner(member) {
            let (uid, gid) = owner(member);
            fchownat(self.here(), name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).at("set the owner of", &member.path)?;
        }
        if member.kind != Kind::Symlink {
            let mode = self.mode(member);
            fchmodat(self.here(), name, mode, FchmodatFlags::NoFollowSymlink).at("set the mode of", &member.path)?;
        }
        // There is no descriptor to set them on, and `user` attributes cannot be on such files anyway.
        self.done.skipped.attributes += member.attributes.len() as u64;
        utimensat(self.here(), name, &TimeSpec::UTIME_OMIT, &mtime(member), UtimensatFlags::NoFollowSymlink)
            .at("set the time of", &member.path)
    }

    /// Creates `name` in the current directory, in place of what has this name already.
    fn make<T>(
        &mut self,
        name: &[u8],
        member: &Member,
        create: impl Fn(BorrowedFd<'_>) -> nix::Result<T>,
    ) -> Result<T> {
        match create(self.here()) {
            Err(Errno::EEXIST) => {
                self.clear(name, member)?;
                create(self.here()).at("make", &member.path)
            }
            other => other.at("make", &member.path),
        }
    }

    /// Unlinks what an earlier member left at `name`.
    fn clear(&self, name: &[u8], member: &Member) -> Result<()> {
        let unlinked = match unlinkat(self.here(), name, UnlinkatFlags::NoRemoveDir) {
            // A directory, as Linux and as POSIX say it.
            Err(Errno::EISDIR | Errno::EPERM) if matches!(self.upon, Upon::Files) => {
                let there = fstatat(self.here(), name, AtFlags::AT_SYMLINK_NOFOLLOW).at("look at", &member.path)?;
                if kind_of(&there) == SFlag::S_IFDIR {
                    return Err(refused(member, "it would replace a directory"));
                }
                return Err(Errno::EPERM).at("replace", &member.path);
            }
            Err(Errno::EISDIR | Errno::EPERM) => unlinkat(self.here(), name, UnlinkatFlags::RemoveDir),
            other => other,
        };
        match unlinked {
            Err(Errno::ENOTEMPTY | Errno::EEXIST) if matches!(self.upon, Upon::Layers(_)) => {
                tree::remove(self.here(), &c_name(name)).at("replace", &member.path)
            }
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => Err(refused(member, "it would replace a directory with contents")),
            other => other.at("replace", &member.path),
        }
    }

    /// Opens a directory of the tree by its components, none of them a link.
    fn walk(&self, path: &[impl AsRef<[u8]>]) -> nix::Result<File> {
        let mut dir = open_directory(self.levels[0].dir.as_fd(), b".")?;
        for name in path {
            dir = open_directory(dir.as_fd(), name.as_ref())?;
        }
        Ok(dir)
    }

    /// Whether the owner is to be set; counts those that cannot be.
    fn keeps_owner(&mut self, member: &Member) -> bool {
        if !self.root && (Some(Uid::effective()), Some(Gid::effective())) != owner(member) {
            self.done.skipped.owners += 1;
        }
        self.root
    }

    /// The mode a member gets. A setuid file that belongs to the caller instead of its owner would hand out the
    /// caller's rights.
    fn mode(&mut self, member: &Member) -> Mode {
        let mode = permissions(member.mode);
        let setid = Mode::S_ISUID | Mode::S_ISGID;
        if self.root && (self.options.setuid || member.kind != Kind::File) {
            return mode;
        }
        if mode.intersects(setid) {
            self.done.skipped.setid += 1;
        }
        if self.root {
            return mode.difference(setid);
        }
        // FreeBSD lets only root make other files than directories sticky (chmod(2), EFTYPE).
        let sticky = if member.kind == Kind::Directory { Mode::empty() } else { Mode::S_ISVTX };
        mode.difference(setid | sticky)
    }

    /// The extended attributes that a member keeps; counts the others.
    fn attributes(&mut self, member: &Member) -> Vec<(String, Vec<u8>)> {
        let mut kept: Vec<_> =
            member.attributes.iter().filter(|(name, _)| sys::keeps_attribute(name, self.root)).cloned().collect();
        if !self.options.setuid {
            let before = kept.len();
            kept.retain(|(name, _)| name != "security.capability");
            self.done.skipped.setid += (before - kept.len()) as u64;
            self.done.skipped.attributes -= (before - kept.len()) as u64;
        }
        let lost = member.attributes.len() - kept.len() + usize::from(member.text_acl);
        self.done.skipped.attributes += lost as u64;
        kept
    }

    fn attribute(&mut self, file: &File, name: &str, value: &[u8], member: &[u8]) -> Result<()> {
        match file.set_xattr(name, value) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                self.done.skipped.attributes += 1;
                Ok(())
            }
            other => other.at("set an extended attribute of", member),
        }
    }

    /// Removes what a member of a layer hides. `name` or one of `parents` begins with `.wh.`.
    fn whiteout(&mut self, name: &[u8], parents: &[&[u8]], member: &Member) -> Result<()> {
        let Some(hidden) = name.strip_prefix(WHITEOUT) else { return Ok(()) };
        let opaque = hidden == OPAQUE;
        if parents.iter().any(|name| name.starts_with(WHITEOUT)) || (hidden.starts_with(WHITEOUT) && !opaque) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused(member, "a whiteout of no name"));
        }
        if !self.enter(parents, member, false)? {
            return Ok(());
        }
        let Upon::Layers(layer) = &self.upon else { return Ok(()) };
        let here = self.levels[1..].iter().fold(0, |hash, level| layer.hash(hash, &level.name));
        if opaque {
            return prune(self.here(), layer, here).at("remove what is hidden by", &member.path);
        }
        remove_older(self.here(), hidden, layer, layer.hash(here, hidden)).at("remove what is hidden by", &member.path)
    }

    /// Makes what hides something below in an overlay (kernel documentation, "Overlay Filesystem", "whiteouts and opaque
    /// directories").
    fn upper_whiteout(&mut self, name: &[u8], parents: &[&[u8]], member: &Member) -> Result<()> {
        let hidden = name.strip_prefix(WHITEOUT).filter(|name| !matches!(*name, b"" | b"." | b".."));
        let Some(hidden) = hidden.filter(|_| !parents.iter().any(|name| name.starts_with(WHITEOUT))) else {
            return Err(refused(member, "a whiteout of no name"));
        };
        self.enter(parents, member, true)?;
        if hidden == OPAQUE {
            let level = &self.levels[self.levels.len() - 1];
            return level
                .dir
                .set_xattr("trusted.overlay.opaque", b"y")
                .at("make opaque the directory of", &member.path);
        }
        self.make(hidden, member, |dir| mknodat(dir, hidden, SFlag::S_IFCHR, Mode::empty(), libc::makedev(0, 0)))
    }

    /// Notes that a member is of the current layer, and its file flags.
    fn remember(&mut self, name: &[u8], member: &Member) -> Result<()> {
        if let Upon::Layers(layer) = &mut self.upon {
            let mut hash = 0;
            for level in &mut self.levels[1..] {
                hash = layer.hash(hash, &level.name);
                if !level.seen {
                    layer.seen.insert(hash);
                    level.seen = true;
                }
            }
            layer.seen.insert(if member.kind == Kind::Directory { hash } else { layer.hash(hash, name) });
        }
        let mut path: Vec<&[u8]> = self.levels[1..].iter().map(|level| level.name.as_slice()).collect();
        path.extend((member.kind != Kind::Directory).then_some(name));
        let flags = member.flags.as_deref().map_or(0, flag_bits);
        if flags != 0 && !sys::HAS_FLAGS {
            self.done.skipped.flags += 1;
        } else if flags != 0 {
            if self.flagged.len() >= MAX_FLAGGED {
                return Err(refused(member, format!("more than {MAX_FLAGGED} members have file flags")));
            }
            let path = path.iter().map(|name| name.to_vec()).collect();
            self.flagged.insert(path, flags);
        } else if !self.flagged.is_empty() {
            let path: Vec<Vec<u8>> = path.iter().map(|name| name.to_vec()).collect();
            self.flagged.remove(&path);
        }
        Ok(())
    }
}

fn refused(member: &Member, why: impl Into<String>) -> UnpackError {
    UnpackError::Refused { member: member.shown(), why: why.into() }
}

/// Removes what is in `dir`, but what the layer itself has put there.
fn prune(dir: BorrowedFd<'_>, layer: &Layer, hash: u64) -> io::Result<()> {
    let mut listing = Dir::from_fd(open_directory(dir, b".")?.into())?;
    let names: Vec<_> = listing.iter().collect::<nix::Result<_>>()?;
    for entry in names {
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            remove_older(dir, name, layer, layer.hash(hash, name))?;
        }
    }
    Ok(())
}

/// Removes `name` in `dir`, but what the layer itself has put there. `hash`: of its path.
fn remove_older(dir: BorrowedFd<'_>, name: &[u8], layer: &Layer, hash: u64) -> io::Result<()> {
    if !layer.seen.contains(&hash) {
        return tree::remove(dir, &c_name(name));
    }
    match open_directory(dir, name) {
        Err(errno) if is_no_directory(errno) => Ok(()),
        other => prune(other?.as_fd(), layer, hash),
    }
}

/// Where `path` is beneath `root` when its links are followed as if that were `/`; what is missing is taken by its name.
/// It is for trees that nobody else writes to; the caller walks it all the same.
pub(super) fn resolve(root: BorrowedFd<'_>, path: &[&[u8]]) -> nix::Result<Vec<Vec<u8>>> {
    let mut left: VecDeque<Vec<u8>> = path.iter().map(|name| name.to_vec()).collect();
    let mut way: Vec<(Vec<u8>, Option<File>)> = Vec::new();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                way.pop();
                continue;
            }
            _ => {}
        }
        let here = match way.last() {
            None => root,
            Some((_, Some(dir))) => dir.as_fd(),
            // Behind what is missing or no directory there is nothing to look at.
            Some((_, None)) => {
                way.push((name, None));
                continue;
            }
        };
        match open_directory(here, &name) {
            Ok(dir) => way.push((name, Some(dir))),
            Err(Errno::ENOENT) => way.push((name, None)),
            Err(errno) if is_no_directory(errno) => match readlinkat(here, name.as_slice()) {
                Ok(to) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::ELOOP);
                    }
                    let to = to.into_vec();
                    if to.starts_with(b"/") {
                        way.clear();
                    }
                    for part in to.split(|byte| *byte == b'/').rev() {
                        left.push_front(part.to_vec());
                    }
                }
                Err(Errno::EINVAL) => way.push((name, None)), // no link: a file
                Err(errno) => return Err(errno),
            },
            Err(errno) => return Err(errno),
        }
    }
    Ok(way.into_iter().map(|(name, _)| name).collect())
}

/// Opens the regular file `path` beneath `tree`, whose links are followed inside; `None` where there is none.
pub(super) fn open_file(tree: BorrowedFd<'_>, path: &[&[u8]]) -> nix::Result<Option<File>> {
    let mut way = resolve(tree, path)?;
    let Some(name) = way.pop() else { return Ok(None) };
    let mut dir = open_directory(tree, b".")?;
    for name in &way {
        dir = match open_directory(dir.as_fd(), name) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            other => other?,
        };
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = match openat(&dir, name.as_slice(), flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENXIO | Errno::ELOOP | Errno::EMLINK) => return Ok(None),
        other => other?,
    };
    let status = fstat(&file)?;
    Ok((kind_of(&status) == SFlag::S_IFREG).then(|| File::from(file)))
}

/// Names of directories hold no NUL.
fn c_name(name: &[u8]) -> CString {
    CString::new(name).unwrap_or_default()
}

/// Copies the next `count` bytes of the contents into `file`.
fn write(file: &mut File, mut count: u64, member: &Member, members: &mut impl Contents) -> Result<()> {
    while count > 0 {
        let moved = members.splice(file, count)?;
        if moved > 0 {
            count -= moved;
            continue;
        }
        let piece = members.contents()?;
        let step = piece.len().min(usize::try_from(count).unwrap_or(usize::MAX));
        file.write_all(&piece[..step]).at("write", &member.path)?;
        members.consume(step)?;
        count -= step as u64;
    }
    Ok(())
}

/// The components of a name of the archive; an error says why it is none.
fn components(path: &[u8]) -> std::result::Result<Vec<&[u8]>, &'static str> {
    let components: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    if components.contains(&b"..".as_slice()) {
        return Err("which leads upwards with ..");
    }
    if path.is_empty() || path.contains(&0) {
        return Err("which is no name");
    }
    Ok(components)
}

pub(super) fn open_directory(dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, name, flags, Mode::empty()).map(File::from)
}

/// What opening a link or a file as a directory fails with: ELOOP on Linux, EMLINK on FreeBSD, or ENOTDIR where
/// `O_DIRECTORY` is looked at first.
fn is_no_directory(errno: Errno) -> bool {
    matches!(errno, Errno::ENOTDIR | Errno::ELOOP | Errno::EMLINK)
}

fn permissions(mode: u32) -> Mode {
    // At most 0o7777, which every mode_t holds.
    Mode::from_bits_truncate((mode & 0o7777) as libc::mode_t)
}

fn mode_of(status: &FileStat) -> Mode {
    Mode::from_bits_truncate(status.st_mode)
}

pub(super) fn kind_of(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT
}

fn owner(member: &Member) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid)))
}

fn mtime(member: &Member) -> TimeSpec {
    TimeSpec::new(member.mtime.0, member.mtime.1.into())
}

/// The bits of file flags in the words of strtofflags(3), of which `uarch` and `nodump` mean nothing to a base.
fn flag_bits(words: &str) -> u32 {
    words
        .split(',')
        .map(|word| match word {
            "uchg" | "uchange" | "uimmutable" => 0x2,
            "uappnd" | "uappend" => 0x4,
            "opaque" => 0x8,
            "uunlnk" | "uunlink" => 0x10,
            "schg" | "schange" | "simmutable" => 0x2_0000,
            "sappnd" | "sappend" => 0x4_0000,
            "sunlnk" | "sunlink" => 0x10_0000,
            _ => 0,
        })
        .fold(0, |bits, bit| bits | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_and_those_that_lead_out_refused() {
        assert_eq!(components(b"./usr//bin/.").unwrap(), [b"usr", b"bin"]);
        assert_eq!(components(b"/etc/passwd").unwrap(), [b"etc".as_slice(), b"passwd"]);
        assert!(components(b"./").unwrap().is_empty());
        assert_eq!(components(b"..a/b..").unwrap(), [b"..a", b"b.."]);
        for name in [&b"../x"[..], b"a/../../x", b"a/..", b"..", b"", b"a\0b"] {
            assert!(components(name).is_err(), "{}", shown(name));
        }
    }

    #[test]
    fn flags_of_a_base_release() {
        assert_eq!(flag_bits("schg,uarch"), 0x2_0000);
        assert_eq!(flag_bits("sunlnk,uchg"), 0x10_0002);
        assert_eq!(flag_bits("uarch,nodump,new"), 0);
    }
}
