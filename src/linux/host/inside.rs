//! The child's side: what the container's first process does between clone and exec.
//!
//! It is a fork of a process with one thread, so it may allocate; but it never returns into potrun: it becomes the
//! program, or ends.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use caps::{CapSet, Capability};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknodat, umask};

use crate::host::first::{Io, close_all_but, run_hook};
use crate::host::link::{self, Message};
use crate::host::{Trouble, sys as posix, terminal};
use crate::linux::mount::{ATTR_RDONLY, Options};
use crate::op::{Mount, Node, Op, Root, Spawn};

use super::beneath::{self, Links};
use super::spawn::{Prepared, namespace_flag};
use super::{copy, fd, labels, name_of, network, open_path, program, sys};

/// What the child knows while it works.
pub(super) struct Inside<'a> {
    pub(super) io: &'a mut Io,
    pub(super) prepared: &'a Prepared,
    /// Whether it is root of a user namespace only.
    pub(super) user_namespace: bool,
    /// Whether it gets a terminal, and of which size.
    pub(super) spawn: &'a Spawn,
    /// Our pid as potrun knows it.
    pub(super) pid: i32,
    root: Option<OwnedFd>,
}

/// Does everything; never returns.
pub(super) fn main(spawn: &Spawn, prepared: Prepared, io: &mut Io) -> ! {
    let mut inside = Inside {
        io,
        prepared: &prepared,
        user_namespace: new_user(spawn) || spawn.join.iter().any(|(name, _)| name == "user"),
        spawn,
        // The host's /proc still, whose pids are potrun's.
        pid: std::fs::read_link("/proc/self").ok().and_then(|link| link.to_str()?.parse().ok()).unwrap_or(0),
        root: None,
    };
    let told = match inside.create() {
        Ok(()) => inside.wait_and_start(),
        Err(trouble) => link::tell(fd(&prepared.link), &Message::Failed(crate::error::chain(&*trouble))),
    };
    // Whom we could not tell is gone.
    posix::exit(if told.is_ok() { 1 } else { 2 })
}

/// Why the child cannot carry out an op, if so.
pub(super) fn cannot(op: &Op) -> Option<String> {
    match op {
        Op::Propagate { .. }
        | Op::MountRoot(_)
        | Op::Mount(_)
        | Op::Relabel { .. }
        | Op::NewKeyring { .. }
        | Op::CreateNode(_)
        | Op::Link { .. }
        | Op::BindConsole
        | Op::WriteFile { .. }
        | Op::LoopbackUp
        | Op::PresetIpv6 { .. }
        | Op::CallRuntime
        | Op::AwaitRuntime
        | Op::Hook(_)
        | Op::SetHostname { .. }
        | Op::SetDomainname { .. }
        | Op::Sysctl { .. }
        | Op::Mask { .. }
        | Op::MakeReadonly { .. }
        | Op::CreateCwd { .. }
        | Op::EnterRoot { .. }
        | Op::FindProgram { .. }
        | Op::SetOomScore { .. }
        | Op::SetRlimit { .. }
        | Op::Tune(_)
        | Op::Confine { .. }
        | Op::SetIds(_)
        | Op::SetCapabilities(_)
        | Op::NoNewPrivileges
        | Op::Seccomp { .. }
        | Op::ChangeDir { .. }
        | Op::Exec { .. } => None,
        other => Some(format!("{other}: is not carried out inside a container on linux")),
    }
}

impl Inside<'_> {
    fn create(&mut self) -> Result<(), Trouble> {
        sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0)?;
        self.close_descriptors()?;
        nix::unistd::setsid()?;
        umask(Mode::empty());
        if new_user(self.spawn) {
            self.await_go()?; // the maps are written
        }
        if self.user_namespace {
            sys::set_ids(None, 0, 0)?;
            sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0)?; // set_ids cleared it (prctl(2))
        }
        let mut rest = self.spawn.create.as_slice();
        // Written while /proc is still the host's and we are still its reader.
        while let Some((op @ Op::SetOomScore { .. }, after)) = rest.split_first() {
            self.run(op).map_err(|cause| format!("{op}: {cause}"))?;
            rest = after;
        }
        // Nobody inside may look into a process that still holds descriptors of the host (CVE-2016-9962).
        sys::prctl(libc::PR_SET_DUMPABLE, 0, 0)?;
        self.join_namespaces()?;
        if self.spawn.terminal && self.spawn.like.is_some() {
            self.open_terminal(None)?;
        }
        for op in rest {
            self.run(op).map_err(|cause| match op {
                Op::FindProgram { .. } => cause.to_string(),
                _ => format!("{op}: {}", crate::error::chain(&*cause)),
            })?;
        }
        link::tell(fd(&self.prepared.link), &Message::Ready)?;
        self.await_go()?; // it is on record now, and no longer ends with potrun
        sys::prctl(libc::PR_SET_PDEATHSIG, 0, 0)?;
        Ok(link::tell(fd(&self.prepared.link), &Message::Ready)?)
    }

    /// Waits for `start`, does its steps, and becomes the program. Returns only if that failed, having said so.
    fn wait_and_start(&mut self) -> io::Result<()> {
        let waiting = match &self.io.listen {
            Some(listen) => Some(posix::accept(listen.as_fd())?),
            None => None,
        };
        self.io.listen = None; // a second `start` is refused by the kernel
        let to = waiting.as_ref().unwrap_or(&self.prepared.link);
        let result = self.spawn.start.iter().try_for_each(|op| {
            self.run(op).map_err(|cause| match op {
                Op::Exec { .. } => cause.to_string(),
                _ => format!("{op}: {}", crate::error::chain(&*cause)),
            })
        });
        match result {
            Ok(()) => Ok(()),
            Err(text) => link::tell(fd(to), &Message::Failed(text)),
        }
    }

    fn await_go(&self) -> Result<(), Trouble> {
        match link::hear(fd(&self.prepared.link))? {
            Some(Message::Go) => Ok(()),
            _ => Err("potrun is gone".into()),
        }
    }

    fn close_descriptors(&self) -> io::Result<()> {
        let Prepared { link, join, like, agent, mounts, .. } = self.prepared;
        let mut keep: Vec<&OwnedFd> = vec![link];
        keep.extend(join.iter().map(|(fd, _)| fd));
        keep.extend(like);
        keep.extend(mounts.iter().map(|(_, tree)| tree));
        keep.extend(agent.as_ref().map(|(socket, _)| socket));
        keep.extend(&self.io.listen);
        keep.extend(&self.io.console);
        let waiting = self.io.waiting.as_ref().map(|file| file.as_fd().try_clone_to_owned()).transpose()?;
        keep.extend(&waiting);
        let result = close_all_but(self.io.preserve, &keep);
        // The copy shares the lock; it must stay open until exec closes it.
        std::mem::forget(waiting);
        result
    }

    fn join_namespaces(&self) -> Result<(), Trouble> {
        if let Some(like) = &self.prepared.like {
            // Joining a user namespace first gives the right to join the others (setns(2), one call does all); but not
            // those that are the host's, which need no joining.
            let kinds = [
                ("mnt", libc::CLONE_NEWNS),
                ("net", libc::CLONE_NEWNET),
                ("ipc", libc::CLONE_NEWIPC),
                ("uts", libc::CLONE_NEWUTS),
                ("cgroup", libc::CLONE_NEWCGROUP),
                ("time", libc::CLONE_NEWTIME),
                ("user", libc::CLONE_NEWUSER),
            ];
            let mut others = 0;
            for (name, flag) in kinds {
                others |= if program::same_namespace(self.spawn.like, name)? { 0 } else { flag };
            }
            if others != 0 {
                sys::setns(like.as_fd(), others).map_err(|e| format!("join the container's namespaces: {e}"))?;
            }
            if others & libc::CLONE_NEWUSER != 0 {
                sys::set_ids(None, 0, 0)?;
            }
        }
        for (file, kind) in &self.prepared.join {
            sys::setns(file.as_fd(), *kind).map_err(|e| format!("join namespace: {e}"))?;
        }
        if self.spawn.namespaces.iter().any(|name| namespace_flag(name) == libc::CLONE_NEWCGROUP) {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP)?;
        }
        Ok(())
    }

    fn root(&self) -> io::Result<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or_else(|| io::Error::other("no root file system yet"))
    }

    fn run(&mut self, op: &Op) -> Result<(), Trouble> {
        match op {
            Op::Propagate { propagation } => propagate("/".as_ref(), propagation)?,
            Op::MountRoot(root) => {
                let shared = |op: &Op| matches!(op, Op::Propagate { propagation } if propagation == "rshared");
                if self.spawn.create.iter().any(shared) {
                    make_parent_private(match root {
                        Root::Bind { source } => source,
                        Root::Overlay { layer, .. } => layer,
                    })?;
                }
                self.root = Some(mount_root(root, self.user_namespace)?);
            }
            Op::Mount(mount) => self.mount(mount)?,
            Op::Relabel { path, label } => {
                labels::relabel(beneath::find(self.root()?, path, Links::None)?.as_fd(), label)?;
            }
            Op::CreateNode(node) => self.create_node(node)?,
            Op::Link { path, to } => {
                let (parent, name) = beneath::parent(self.root()?, path)?;
                match nix::unistd::symlinkat(to.as_path(), &parent, name.as_path()) {
                    Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            Op::BindConsole => self.open_terminal(self.root.as_ref().map(AsFd::as_fd))?,
            Op::WriteFile { path, text, mode, .. } => beneath::write(self.root()?, path, text.as_bytes(), *mode)?,
            Op::LoopbackUp => loopback_up()?,
            Op::PresetIpv6 { off } => {
                let own = beneath::find(self.root()?, "proc".as_ref(), Links::None).ok();
                network::preset_ipv6(own.as_ref().map(AsFd::as_fd), *off)?;
            }
            Op::CallRuntime => link::tell(fd(&self.prepared.link), &Message::CallsRuntime)?,
            Op::AwaitRuntime => {
                link::tell(fd(&self.prepared.link), &Message::AwaitsRuntime)?;
                self.await_go()?;
            }
            Op::Hook(hook) => {
                let state = crate::state::State { pid: std::process::id() as i32, ..self.io.state.clone() };
                run_hook(hook, state)?;
            }
            Op::SetHostname { name } => nix::unistd::sethostname(name)?,
            Op::SetDomainname { name } => sys::setdomainname(name)?,
            Op::Sysctl { key, value } => program::write_proc(&Path::new("sys").join(key), value)?,
            Op::Mask { path, label } => self.mask(path, label.as_deref())?,
            Op::MakeReadonly { path } => self.make_readonly(path)?,
            Op::CreateCwd { path } => {
                // A read-only image has it, or the process will be told that it has not.
                match beneath::directory(self.root()?, path, Links::Inside) {
                    Err(e) if e.raw_os_error() == Some(libc::EROFS) => {}
                    other => drop(other?),
                }
            }
            Op::EnterRoot { readonly, propagation } => self.enter_root(*readonly, propagation.as_deref())?,
            other => program::run(self, other)?,
        }
        Ok(())
    }

    fn mount(&self, what: &Mount) -> Result<(), Trouble> {
        let options = Options::of(&what.options);
        if options.bind {
            let prepared = self.prepared.mounts.iter().find(|(target, _)| *target == what.target);
            let prepared = prepared.map(|(_, tree)| tree.try_clone()).transpose()?;
            return bind(self.root()?, what, &options, prepared);
        }
        let root = self.root()?;
        // /proc and /sys of an image that are links lead the labels and masks that follow astray (CVE-2019-19921,
        // CVE-2023-27561, CVE-2025-54867).
        let links = if matches!(what.fstype.as_str(), "proc" | "sysfs") { Links::None } else { Links::Inside };
        let target = beneath::directory(root, &what.target, links)?;
        not_in_proc(target.as_fd(), what, what.fstype == "proc")?;
        let data = what.data.join(",");
        let data = (!data.is_empty()).then_some(data.as_str());
        let mut flags = MsFlags::from_bits_retain(options.flags);
        // Read-only only when all is copied. ZFS mounts a dataset for all read-only, or for none: so only this mount of it
        // becomes read-only.
        let later = (options.copy_up || what.fstype == "zfs") && flags.contains(MsFlags::MS_RDONLY);
        flags.set(MsFlags::MS_RDONLY, flags.contains(MsFlags::MS_RDONLY) && !later);
        let name = name_of(target.as_fd());
        mount(Some(&what.source), name.as_str(), Some(what.fstype.as_str()), flags, data)?;
        if options.copy_up || later {
            let mounted = beneath::find(root, &what.target, links)?;
            if options.copy_up {
                copy::tree(target.as_fd(), mounted.as_fd())?;
            }
            if later {
                sys::mount_setattr(mounted.as_fd(), false, ATTR_RDONLY, 0, 0)?;
            }
        }
        if options.propagation != 0 {
            let mounted = beneath::find(root, &what.target, links)?;
            mount(
                None::<&str>,
                name_of(mounted.as_fd()).as_str(),
                None::<&str>,
                MsFlags::from_bits_retain(options.propagation),
                None::<&str>,
            )?;
        }
        Ok(())
    }

    fn create_node(&self, node: &Node) -> Result<(), Trouble> {
        let root = self.root()?;
        if node.bind {
            let source = sys::clone_tree(open_path(&node.path)?.as_raw_fd(), c"", false)?;
            return Ok(sys::attach(source.as_fd(), beneath::file(root, &node.path)?.as_fd())?);
        }
        let (parent, name) = beneath::parent(root, &node.path)?;
        let kind = match node.kind {
            'b' => SFlag::S_IFBLK,
            'p' => SFlag::S_IFIFO,
            _ => SFlag::S_IFCHR,
        };
        let device = libc::makedev(node.major, node.minor);
        match mknodat(&parent, name.as_path(), kind, Mode::from_bits_truncate(node.mode), device) {
            Ok(()) => {}
            // The image may bring the same node; anything else under that name is not what was asked for.
            Err(nix::errno::Errno::EEXIST) => {
                let stat = nix::sys::stat::fstatat(&parent, name.as_path(), nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)?;
                let same = stat.st_mode & libc::S_IFMT == kind.bits() && (stat.st_rdev == device || node.kind == 'p');
                if !same {
                    return Err(nix::errno::Errno::EEXIST.into());
                }
            }
            Err(e) => return Err(e.into()),
        }
        if (node.uid, node.gid) != (0, 0) {
            let (uid, gid) = (Some(node.uid.into()), Some(node.gid.into()));
            nix::unistd::fchownat(&parent, name.as_path(), uid, gid, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Opens a terminal in the container's own devpts, hands over its master, and makes it ours.
    fn open_terminal(&self, root: Option<BorrowedFd<'_>>) -> Result<(), Trouble> {
        let here; // for exec, the container's root is ours already
        let root = match root {
            Some(root) => root,
            None => {
                here = open_path("/".as_ref())?;
                here.as_fd()
            }
        };
        let master = beneath::open(root, "/dev/pts/ptmx".as_ref(), libc::O_RDWR | libc::O_NOCTTY, Links::Inside)?;
        if sys::filesystem(master.as_fd())? != 0x1cd1 {
            return Err("/dev/pts/ptmx is not in a devpts".into()); // DEVPTS_SUPER_MAGIC; CVE-2025-52565
        }
        let slave = sys::terminal_peer(master.as_fd())?;
        if let Some(uid) = self.spawn.start.iter().find_map(user) {
            nix::unistd::fchown(&slave, Some(uid.into()), None)?;
        }
        if let Some((rows, columns)) = self.spawn.console_size {
            posix::set_terminal_size(slave.as_fd(), rows, columns)?;
        }
        if self.root.is_some() {
            let tree = sys::clone_tree(slave.as_raw_fd(), c"", false)?;
            sys::attach(tree.as_fd(), beneath::file(root, "/dev/console".as_ref())?.as_fd())?;
        }
        let console = self.io.console.as_ref().ok_or("a terminal needs --console-socket")?;
        link::send_fd(console.as_fd(), "/dev/ptmx", &master)?;
        terminal::become_terminal(&slave)?;
        Ok(())
    }

    fn mask(&self, path: &Path, label: Option<&str>) -> Result<(), Trouble> {
        let target = match beneath::find(self.root()?, path, Links::Inside) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
            other => other?,
        };
        if beneath::is_directory(target.as_fd())? {
            let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            let context = label.map(|label| format!(",{}", crate::linux::labels::context(label))).unwrap_or_default();
            let data = format!("nr_inodes=2{context}");
            mount(Some("tmpfs"), name_of(target.as_fd()).as_str(), Some("tmpfs"), flags, Some(data.as_str()))?;
        } else {
            let null = open_path("/dev/null".as_ref())?;
            let stat = nix::sys::stat::fstat(&null)?;
            // The host's, not the image's, and really it (CVE-2025-31133).
            if (libc::major(stat.st_rdev), libc::minor(stat.st_rdev)) != (1, 3) {
                return Err("/dev/null of the host is not the null device".into());
            }
            let tree = sys::clone_tree(null.as_raw_fd(), c"", false)?;
            sys::attach(tree.as_fd(), target.as_fd())?;
        }
        Ok(())
    }

    fn make_readonly(&self, path: &Path) -> Result<(), Trouble> {
        let target = match beneath::find(self.root()?, path, Links::Inside) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
            other => other?,
        };
        let tree = sys::clone_tree(target.as_raw_fd(), c"", true)?;
        sys::mount_setattr(tree.as_fd(), true, ATTR_RDONLY, 0, 0)?;
        Ok(sys::attach(tree.as_fd(), target.as_fd())?)
    }

    /// pivot_root(2) onto itself: the old root is stacked on the new one, and let go.
    fn enter_root(&mut self, readonly: bool, propagation: Option<&str>) -> Result<(), Trouble> {
        let root = self.root.take().ok_or("no root file system yet")?;
        if readonly {
            sys::mount_setattr(root.as_fd(), false, ATTR_RDONLY, 0, 0)?;
        }
        nix::unistd::fchdir(&root)?;
        nix::unistd::pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        nix::unistd::chdir("/")?;
        if let Some(word) = propagation {
            propagate("/".as_ref(), word)?;
        }
        Ok(())
    }
}

/// Makes the root file system and returns a descriptor of its root.
pub(super) fn mount_root(root: &Root, user_namespace: bool) -> Result<OwnedFd, Trouble> {
    match root {
        Root::Bind { source } => {
            let target = open_path(source)?;
            if !beneath::is_directory(target.as_fd())? {
                return Err(io::Error::from_raw_os_error(libc::ENOTDIR).into());
            }
            let tree = sys::clone_tree(target.as_raw_fd(), c"", true)?;
            sys::attach(tree.as_fd(), target.as_fd())?;
            Ok(tree)
        }
        Root::Overlay { lower, layers, layer } => {
            let escape = |path: &Path| {
                let text = path.to_string_lossy();
                text.chars().fold(String::new(), |mut all, c| {
                    if matches!(c, ',' | ':' | '\\') {
                        all.push('\\');
                    }
                    all.push(c);
                    all
                })
            };
            let (upper, work) = (layer.join("upper"), layer.join("work"));
            // By their descriptors: options have room for a page (mount(2)).
            let shared: Vec<OwnedFd> =
                layers.iter().map(|layer| open_path(&layer.join("upper"))).collect::<io::Result<_>>()?;
            let below: String = shared.iter().map(|layer| name_of(layer.as_fd()) + ":").collect();
            let (lower, upper, work) = (escape(lower), escape(&upper), escape(&work));
            let mut data = format!("lowerdir={below}{lower},upperdir={upper},workdir={work}");
            if user_namespace {
                data.push_str(",userxattr"); // overlayfs.rst: trusted.* is out of reach here
            }
            let target = layer.join("root");
            // overlayfs writes as who mounted it: with this capability ext4 would keep no quota (dquot_alloc_space()).
            let above = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE)?;
            if above {
                caps::drop(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE)?;
            }
            let mounted = mount(Some("overlay"), &target, Some("overlay"), MsFlags::empty(), Some(data.as_str()));
            if above {
                caps::raise(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE)?;
            }
            mounted?;
            let root = open_path(&target)?;
            // Where the kernel cannot make its work directory, it mounts read-only and says nothing.
            if nix::sys::statvfs::fstatvfs(&root)?.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY) {
                return Err(format!("{} cannot be written to: is the disk full?", layer.display()).into());
            }
            Ok(root)
        }
    }
}

/// A bind mount: a detached copy gets all its attributes before anybody can see it, then its place. `prepared`: the copy,
/// where it had to be made elsewhere.
pub(super) fn bind(
    root: BorrowedFd<'_>,
    what: &Mount,
    options: &Options,
    prepared: Option<OwnedFd>,
) -> Result<(), Trouble> {
    let tree = detached(what, options, prepared)?;
    place(root, what, options, tree.as_fd())
}

/// The detached copy of a bind mount, with all its attributes.
pub(super) fn detached(what: &Mount, options: &Options, prepared: Option<OwnedFd>) -> Result<OwnedFd, Trouble> {
    let tree = match prepared {
        Some(tree) => tree,
        None => {
            let source = open_path(&what.source).map_err(|e| format!("open {}: {e}", what.source.display()))?;
            sys::clone_tree(source.as_raw_fd(), c"", options.recursive)?
        }
    };
    let (set, clear) = options.attributes();
    if set | clear != 0 {
        sys::mount_setattr(tree.as_fd(), false, set, clear, 0)?;
    }
    if options.tree != (0, 0) {
        sys::mount_setattr(tree.as_fd(), true, options.tree.0, options.tree.1, 0)?;
    }
    Ok(tree)
}

/// Puts a detached copy in its place.
pub(super) fn place(
    root: BorrowedFd<'_>,
    what: &Mount,
    options: &Options,
    tree: BorrowedFd<'_>,
) -> Result<(), Trouble> {
    let target = if beneath::is_directory(tree)? {
        beneath::directory(root, &what.target, Links::Inside)?
    } else {
        beneath::file(root, &what.target)?
    };
    not_in_proc(target.as_fd(), what, sys::filesystem(tree)? == libc::PROC_SUPER_MAGIC)?;
    sys::attach(tree, target.as_fd())?;
    if options.propagation != 0 {
        let recursive = options.propagation & MsFlags::MS_REC.bits() != 0;
        sys::mount_setattr(tree, recursive, 0, 0, options.propagation & !MsFlags::MS_REC.bits())?;
    }
    Ok(())
}

/// Sets the propagation of a mount by its OCI word.
pub(super) fn propagate(path: &Path, word: &str) -> io::Result<()> {
    let bits = Options::of(&[word.to_string()]).propagation;
    Ok(mount(None::<&str>, path, None::<&str>, MsFlags::from_bits_retain(bits), None::<&str>)?)
}

/// Whether it makes a user namespace of its own.
fn new_user(spawn: &Spawn) -> bool {
    spawn.namespaces.iter().any(|name| name == "user")
}

/// The user that the process will be.
fn user(op: &Op) -> Option<u32> {
    match op {
        Op::SetIds(ids) => Some(ids.uid),
        _ => None,
    }
}

/// Makes the mount that `path` is in private: pivot_root(2) refuses a root whose parent is shared, and what is mounted
/// on it would be seen by the host.
fn make_parent_private(path: &Path) -> io::Result<()> {
    let path = path.canonicalize()?;
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(super::facts::unescape);
    let parent = points.filter(|point| path.starts_with(point)).max_by_key(String::len);
    match parent {
        Some(parent) => propagate(parent.as_ref(), "private"),
        None => Ok(()),
    }
}

/// Nothing is mounted inside a procfs but what replaces a file of figures, and nothing on `/proc` but a procfs: a fake
/// /proc/self/attr would take our own writes (CVE-2019-16884). The exceptions are those of runc and lxcfs.
fn not_in_proc(target: BorrowedFd<'_>, what: &Mount, is_proc: bool) -> Result<(), Trouble> {
    const FIGURES: &[&str] = &[
        "/proc/cpuinfo",
        "/proc/diskstats",
        "/proc/loadavg",
        "/proc/meminfo",
        "/proc/net/dev",
        "/proc/slabinfo",
        "/proc/stat",
        "/proc/swaps",
        "/proc/sys/crypto/fips_enabled",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/uptime",
    ];
    if what.target == Path::new("/proc") {
        return if is_proc { Ok(()) } else { Err("only a procfs can be mounted there".into()) };
    }
    let figure = FIGURES.iter().any(|path| what.target == Path::new(path));
    if sys::filesystem(target)? == libc::PROC_SUPER_MAGIC && !figure && !is_proc {
        return Err("nothing can be mounted there: it is inside /proc".into());
    }
    Ok(())
}

fn loopback_up() -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    sys::link_up(any.as_fd(), c"lo")
}
