//! The FreeBSD host: carries out ops with the kernel's own interface; programs only where the kernel's is not stable:
//! zfs(8) and pfctl(8).

mod beneath;
pub mod exe;
pub mod facts;
pub mod files;
mod jail;
mod limits;
mod mount;
mod network;
mod pf;
pub mod process;
mod spawn;
mod sys;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use nix::sys::signal::{SigSet, Signal};

use crate::facts::Os;
use crate::host::child::Child;
use crate::host::first::{Io, run_hook};
use crate::host::{Host, Trouble, zfs};
use crate::lease;
use crate::names;
use crate::op::{Hook, Op};
use crate::state::State;

pub use process::Watch;

/// The operating system.
pub const OS: Option<Os> = Some(Os::Freebsd);

/// FreeBSD.
#[derive(Debug, Default)]
pub struct FreebsdHost {
    io: Option<Io>,
    child: Option<Child>,
}

impl FreebsdHost {
    /// A host that can take back, and carry out everything that needs no process.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A host that can start a process, too.
    #[must_use]
    pub fn with(io: Io) -> Self {
        Self { io: Some(io), child: None }
    }

    /// The pid of the process that was started.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(Child::pid)
    }

    /// Tells the first process that it is on record now: it no longer ends with this potrun.
    ///
    /// # Errors
    /// It is gone.
    pub fn commit(&mut self) -> Result<(), Trouble> {
        self.child.as_mut().map_or(Ok(()), Child::commit)
    }

    /// Gives up the descriptors that only the first process needs.
    pub fn release(&mut self) {
        self.io = None;
    }

    /// Waits until the process that was started runs its program.
    ///
    /// # Errors
    /// What kept it from doing so.
    pub fn started(&mut self) -> Result<(), Trouble> {
        self.child.as_mut().map_or(Ok(()), Child::started)
    }

    fn hook(&self, hook: &Hook) -> Result<(), Trouble> {
        let state = self.io.as_ref().map(|io| io.state.clone()).ok_or("no container to run a hook for")?;
        Ok(run_hook(hook, State { pid: self.pid().unwrap_or(0), ..state })?)
    }
}

impl Host for FreebsdHost {
    fn run(&mut self, op: &Op) -> Result<(), Trouble> {
        match op {
            Op::CreateDataset { dataset, properties } => zfs::create(dataset, properties),
            Op::CloneDataset { snapshot, dataset, properties } => zfs::clone(snapshot, dataset, properties),
            Op::LimitDataset { dataset, bytes } => zfs::limit(dataset, *bytes),
            Op::DestroyDataset { dataset, id, mountpoint, .. } => zfs::destroy(dataset, id, mountpoint.as_deref()),
            Op::WriteFile { root, path, text, mode } => mount::write(root, path, text, *mode),
            Op::HostTarget { root, mount } => mount::target(root, mount),
            Op::HostMount { root, mount, .. } => mount::mount(root, mount),
            Op::HostUnmount { root, mount, before } => mount::unmount(root, mount, before),
            Op::WriteLink { root, path, to } => mount::link(root, path, to),
            Op::Lease { .. } | Op::EndLease { .. } => Ok(lease::run(op)?),
            Op::PublishNames { .. } | Op::WithdrawNames { .. } => Ok(names::run(op)?),
            Op::CreatePair { host, pot, description, macs, .. } => network::create_pair(host, pot, description, macs),
            Op::DestroyInterface { name, description } => network::destroy(name, description),
            Op::EnsureBridge { name, description, addresses } => network::ensure_bridge(name, description, addresses),
            Op::ReleaseBridge { name, description } => network::release_bridge(name, description),
            Op::AddMember { bridge, member, isolated } => network::add_member(bridge, member, *isolated),
            Op::EnableForwarding { family, .. } => network::enable_forwarding(*family),
            Op::AddAddress { interface, address } => network::add_address(interface, address),
            Op::RemoveAddress { interface, address } => network::remove_address(interface, address),
            Op::MoveInterface { interface, pot } => network::move_into(interface, pot),
            Op::LendInterface { interface, pot } => network::lend(interface, pot),
            Op::ReclaimInterface { interface, pot } => network::reclaim(interface, pot),
            Op::ConfigureInterface { pot, interface, addresses } => network::configure(pot, interface, addresses),
            Op::AddRoute { pot, gateway } => network::add_route(pot, *gateway),
            Op::LoadAnchor { anchor, rules } => pf::load(anchor, rules),
            Op::FlushAnchor { anchor, addresses } => pf::flush(anchor, addresses),
            Op::EnsureAnchor { anchor, rules } => pf::ensure(anchor, rules),
            Op::ReleaseAnchor { anchor } => pf::release(anchor),
            Op::AddRctl { rule } => limits::add_rule(rule),
            Op::RemoveRctl { filter } => limits::remove_rules(filter),
            Op::SetCpuset { jail, cpus } => limits::set_cpuset(jail, cpus),
            Op::CreateJail { name, parameters, .. } => jail::create(name, parameters),
            Op::RemoveJail { name, root, before } => jail::remove(name, root.as_deref(), before),
            Op::Spawn(spawn) => {
                let io = self.io.as_mut().ok_or("no container to start a process for")?;
                self.child = Some(spawn::spawn(spawn, io)?);
                Ok(())
            }
            Op::Resume => self.child.as_mut().map_or(Ok(()), Child::resume),
            // Ends the first process, if it was ours; what is in the jail ends with that.
            Op::KillAll { .. } => {
                self.child = None;
                Ok(())
            }
            Op::Hook(hook) => self.hook(hook),
            other => Err(self.cannot(other).unwrap_or_default().into()),
        }
    }

    fn taken(&self, op: &Op) -> Option<String> {
        match op {
            Op::CreateJail { name, .. } => jail::taken(name),
            Op::AddAddress { interface, address } => network::taken(interface, address),
            _ => None,
        }
    }

    fn cannot(&self, op: &Op) -> Option<String> {
        match op {
            Op::CreateDataset { .. }
            | Op::CloneDataset { .. }
            | Op::LimitDataset { .. }
            | Op::DestroyDataset { .. }
            | Op::WriteFile { .. }
            | Op::WriteLink { .. }
            | Op::HostTarget { .. }
            | Op::HostMount { .. }
            | Op::HostUnmount { .. }
            | Op::Lease { .. }
            | Op::EndLease { .. }
            | Op::PublishNames { .. }
            | Op::WithdrawNames { .. }
            | Op::CreatePair { .. }
            | Op::DestroyInterface { .. }
            | Op::EnsureBridge { .. }
            | Op::ReleaseBridge { .. }
            | Op::AddMember { .. }
            | Op::EnableForwarding { .. }
            | Op::AddAddress { .. }
            | Op::RemoveAddress { .. }
            | Op::MoveInterface { .. }
            | Op::LendInterface { .. }
            | Op::ReclaimInterface { .. }
            | Op::ConfigureInterface { .. }
            | Op::AddRoute { .. }
            | Op::LoadAnchor { .. }
            | Op::FlushAnchor { .. }
            | Op::EnsureAnchor { .. }
            | Op::ReleaseAnchor { .. }
            | Op::AddRctl { .. }
            | Op::RemoveRctl { .. }
            | Op::SetCpuset { .. }
            | Op::CreateJail { .. }
            | Op::RemoveJail { .. }
            | Op::Resume
            | Op::KillAll { .. }
            | Op::Hook(_) => None,
            Op::Spawn(spawn) => spawn.create.iter().chain(&spawn.start).find_map(spawn::cannot),
            other => Some(format!("{other}: is not carried out on freebsd")),
        }
    }
}

/// bind(2) at a path of any length.
pub(crate) fn bind(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    sys::bind(socket, path)
}

/// connect(2) to a path of any length.
pub(crate) fn connect(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    sys::connect(socket, path)
}

/// Closes the descriptors from `first` to `last`.
pub(crate) fn close_range(first: u32, last: u32) -> io::Result<()> {
    sys::close_range(first, last, 0)
}

/// Signals as they come, on a descriptor.
#[derive(Debug)]
pub(crate) struct Signals(Kqueue);

impl Signals {
    /// Takes these signals, which the caller has blocked: kevent(2) tells of them all the same.
    pub(crate) fn new(which: &SigSet) -> io::Result<Self> {
        let queue = Kqueue::new()?;
        let none = FilterFlag::empty();
        let event = |one: Signal| KEvent::new(one as usize, EventFilter::EVFILT_SIGNAL, EvFlags::EV_ADD, none, 0, 0);
        let all: Vec<KEvent> = which.iter().map(event).collect();
        queue.kevent(&all, &mut [], None)?;
        Ok(Self(queue))
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> io::Result<Option<i32>> {
        let none = FilterFlag::empty();
        let mut events = [KEvent::new(0, EventFilter::EVFILT_SIGNAL, EvFlags::empty(), none, 0, 0)];
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let came = self.0.kevent(&[], &mut events, Some(now))?;
        Ok((came > 0).then(|| events[0].ident() as i32))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Destroys the datasets in `store` of containers of `root` that are no more.
///
/// # Errors
/// zfs(8)'s words.
pub fn sweep(store: &Path, root: &Path) -> Result<Vec<PathBuf>, Trouble> {
    facts::storage(store).datasets().map_or(Ok(Vec::new()), |datasets| datasets.sweep(root))
}
