//! The Linux host: carries out ops with the kernel's own interface, no programs.

mod beneath;
mod bpf;
mod bus;
mod cgroup;
mod changes;
mod copy;
pub mod exe;
pub mod facts;
pub mod files;
mod filters;
mod inside;
mod into;
mod labels;
mod layer;
mod layers;
mod listener;
mod netlink;
mod network;
pub mod process;
mod program;
mod quota;
mod resctrl;
mod spawn;
mod sys;
mod systemd;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::UnixAddr;

use crate::host::child::Child;
use crate::host::first::{Io, run_hook};
use crate::host::{Host, Trouble, zfs};
use crate::id::ContainerId;
use crate::lease;
use crate::names;
use crate::op::{Hook, Op};
use crate::state::State;

pub use process::Watch;

/// The operating system.
pub const OS: Option<crate::facts::Os> = Some(crate::facts::Os::Linux);

/// Linux.
#[derive(Debug)]
pub struct LinuxHost {
    io: Option<Io>,
    child: Option<Child>,
    /// What keeps the scope until the first process is in it.
    placeholder: Option<systemd::Placeholder>,
}

impl LinuxHost {
    /// A host that can take back, and carry out everything that needs no process.
    #[must_use]
    pub fn new() -> Self {
        Self { io: None, child: None, placeholder: None }
    }

    /// A host that can start a process, too.
    #[must_use]
    pub fn with(io: Io) -> Self {
        Self { io: Some(io), child: None, placeholder: None }
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

    /// The process whose network is the pot's, which is prepared for what comes into it.
    fn first(&mut self) -> Result<i32, Trouble> {
        let child = self.child.as_mut().ok_or("no process whose network that could be")?;
        child.meet().map_err(|why| format!("the first process failed: {why}"))?;
        Ok(child.pid())
    }

    fn hook(&self, hook: &Hook) -> Result<(), Trouble> {
        let state = self.io.as_ref().map(|io| io.state.clone()).ok_or("no container to run a hook for")?;
        Ok(run_hook(hook, State { pid: self.pid().unwrap_or(0), ..state })?)
    }

    fn carry_out(&mut self, op: &Op) -> Result<(), Trouble> {
        match op {
            Op::UseBase { base, id, .. } => layer::use_base(base, id)?,
            Op::ReleaseBase { base, id, .. } => layer::release_base(base, id)?,
            Op::CreateLayer { path, owner, disk, keep } => layer::create(path, owner, *disk, keep.as_deref())?,
            Op::TakeUpLayer { path, owner, disk, layers } => layer::take_up(path, owner, *disk, layers)?,
            Op::FreezeLayer { path, layer } => layers::freeze(path, layer)?,
            Op::ThawLayer { path, layer } => _ = layers::thaw(path, layer)?,
            Op::LeaveLayer { path, owner, base, of, layers, copy, disk } => {
                let id = ContainerId::new(&path.file_name().unwrap_or_default().to_string_lossy())?;
                let (store, disk) = (layers::store(path), *disk);
                layer::leave_like(&layer::New { store, id: &id, owner, base, layers, disk }, of, copy)?;
            }
            Op::ForgetLayer { path, owner } => layer::forget_new(path, owner)?,
            Op::RemoveLayer { path, owner, .. } => layer::remove(path, owner)?,
            Op::CreateDataset { dataset, properties } => zfs::create(dataset, properties)?,
            Op::CloneDataset { snapshot, dataset, properties } => zfs::clone(snapshot, dataset, properties)?,
            Op::LimitDataset { dataset, bytes } => zfs::limit(dataset, *bytes)?,
            Op::DestroyDataset { dataset, id, mountpoint, .. } => zfs::destroy(dataset, id, mountpoint.as_deref())?,
            Op::CreateCgroup { path } => cgroup::create(path)?,
            Op::RemoveCgroup { path } => cgroup::remove(path)?,
            Op::CreateUnit { unit, path, properties } => {
                self.placeholder = Some(systemd::start(unit, path, properties)?);
            }
            Op::RemoveUnit { unit, path } => systemd::stop(unit, path)?,
            Op::SetUnit { unit, properties } => systemd::set(unit, properties)?,
            Op::SetCgroup { path, file, value } => cgroup::set(path, file, value)?,
            Op::FilterDevices { path, rules } => cgroup::filter_devices(path, rules)?,
            Op::Lease { .. } | Op::EndLease { .. } => lease::run(op)?,
            Op::PublishNames { .. } | Op::WithdrawNames { .. } => names::run(op)?,
            Op::CreatePair { host, pot, description, macs, into } => {
                let pid = into.as_ref().map(|_| self.first()).transpose()?;
                network::create_pair(host, pot, description, macs, pid)?;
            }
            Op::DestroyInterface { name, description } => network::destroy(name, description)?,
            Op::EnsureBridge { name, description, addresses } => network::ensure_bridge(name, description, addresses)?,
            Op::ReleaseBridge { name, description } => network::release_bridge(name, description)?,
            Op::AddMember { bridge, member, isolated } => network::add_member(bridge, member, *isolated)?,
            Op::EnableForwarding { family, note } => network::enable_forwarding(*family, note.as_deref())?,
            Op::ReleaseForwarding { note, .. } => network::release_forwarding(note)?,
            Op::RouteLoopback { interface } => network::route_loopback(interface)?,
            Op::AddAddress { interface, address } => network::add_address(interface, address)?,
            Op::RemoveAddress { interface, address } => network::remove_address(interface, address)?,
            Op::ConfigureInterface { interface, addresses, .. } => {
                network::configure(self.first()?, interface, addresses)?;
            }
            Op::AddRoute { gateway, .. } => network::add_route(self.first()?, *gateway)?,
            Op::LendDevice { device } => network::lend(self.first()?, device)?,
            Op::ReclaimDevice { device } => network::reclaim(self.pid(), device)?,
            Op::CreateResctrl { path } => resctrl::create(path)?,
            Op::RemoveResctrl { path } => resctrl::remove(path)?,
            Op::SetSchemata { path, lines } => resctrl::set(path, lines)?,
            Op::JoinResctrl { path } => resctrl::join(path, self.first()?)?,
            Op::EnsureNft { bridge } => network::nft::ensure(bridge)?,
            Op::ReleaseNft { bridge } => network::release_nft(bridge)?,
            Op::LoadNft { name, elements } => network::nft::load(name, elements)?,
            Op::FlushNft { elements, .. } => network::flush_nft(elements)?,
            Op::ConfineAddresses { path, addresses } => cgroup::confine(path, addresses)?,
            Op::MountInto { process, mount } => into::mount(process, mount)?,
            Op::UnmountFrom { process, mount } => into::unmount(process, mount)?,
            Op::Spawn(spawn) => {
                let io = self.io.as_mut().ok_or("no container to start a process for")?;
                self.child = Some(spawn::spawn(spawn, io)?);
                self.placeholder = None;
            }
            Op::Resume => self.child.as_mut().map_or(Ok(()), Child::resume)?,
            Op::KillAll { cgroup } => {
                self.child = None; // ends it, if it was ours
                self.placeholder = None;
                if let Some(path) = cgroup {
                    cgroup::kill(path)?;
                }
            }
            Op::Hook(hook) => self.hook(hook)?,
            Op::Tune(tuning) => program::tune(tuning)?,
            other => return Err(self.cannot(other).unwrap_or_default().into()),
        }
        Ok(())
    }
}

impl Default for LinuxHost {
    fn default() -> Self {
        Self::new()
    }
}

impl Host for LinuxHost {
    fn run(&mut self, op: &Op) -> Result<(), Trouble> {
        self.carry_out(op).map_err(|error| match self.child.as_mut().and_then(Child::failure) {
            Some(why) => format!("the first process failed meanwhile: {why}").into(),
            None => error,
        })
    }

    fn taken(&self, op: &Op) -> Option<String> {
        match op {
            Op::CreateCgroup { path } if cgroup::populated(path).is_ok_and(|populated| populated) => {
                Some("it has processes of somebody else".into())
            }
            // Its mark is that of every clone for this container.
            Op::LeaveLayer { path, .. } if path.exists() => Some("there is a layer already".into()),
            Op::CreatePair { host, .. } => network::pair_taken(host),
            Op::AddAddress { address, .. } => network::address_taken(address),
            _ => None,
        }
    }

    fn cannot(&self, op: &Op) -> Option<String> {
        match op {
            Op::UseBase { .. }
            | Op::ReleaseBase { .. }
            | Op::CreateLayer { .. }
            | Op::TakeUpLayer { .. }
            | Op::FreezeLayer { .. }
            | Op::ThawLayer { .. }
            | Op::LeaveLayer { .. }
            | Op::ForgetLayer { .. }
            | Op::RemoveLayer { .. }
            | Op::CreateDataset { .. }
            | Op::CloneDataset { .. }
            | Op::LimitDataset { .. }
            | Op::DestroyDataset { .. }
            | Op::CreateCgroup { .. }
            | Op::RemoveCgroup { .. }
            | Op::SetCgroup { .. }
            | Op::CreateUnit { .. }
            | Op::RemoveUnit { .. }
            | Op::SetUnit { .. }
            | Op::FilterDevices { .. }
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
            | Op::ReleaseForwarding { .. }
            | Op::RouteLoopback { .. }
            | Op::AddAddress { .. }
            | Op::RemoveAddress { .. }
            | Op::ConfigureInterface { .. }
            | Op::AddRoute { .. }
            | Op::LendDevice { .. }
            | Op::ReclaimDevice { .. }
            | Op::CreateResctrl { .. }
            | Op::RemoveResctrl { .. }
            | Op::SetSchemata { .. }
            | Op::JoinResctrl { .. }
            | Op::EnsureNft { .. }
            | Op::ReleaseNft { .. }
            | Op::LoadNft { .. }
            | Op::FlushNft { .. }
            | Op::ConfineAddresses { .. }
            | Op::MountInto { .. }
            | Op::UnmountFrom { .. }
            | Op::Resume
            | Op::KillAll { .. }
            | Op::Tune(_)
            | Op::Hook(_) => None,
            Op::Spawn(spawn) => spawn.create.iter().chain(&spawn.start).find_map(inside::cannot),
            other => Some(format!("{other}: is not carried out on linux")),
        }
    }
}

/// Opens a directory or file by its path without being able to do anything with it.
fn open_path(path: &Path) -> std::io::Result<OwnedFd> {
    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;
    Ok(open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Reads a file of the kernel, which does not say how long it is, with as few reads as it takes.
fn read_text(path: impl AsRef<Path>) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::with_capacity(8 << 10);
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// `/proc/self/fd/N`: the name of what a descriptor refers to, for calls that take only names.
fn name_of(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Borrows for calls that want `AsFd` of an owned descriptor behind a reference.
fn fd(owned: &OwnedFd) -> BorrowedFd<'_> {
    owned.as_fd()
}

/// A socket's address, through the descriptor of its directory: sun_path has 108 bytes, engines' state directories often
/// more (unix(7)).
fn address(path: &Path) -> io::Result<(OwnedFd, UnixAddr)> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = open_path(dir)?;
    let name = path.file_name().ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    let short = format!("{}/{}", name_of(dir.as_fd()), name.display());
    let address = UnixAddr::new(short.as_str())?;
    Ok((dir, address))
}

/// bind(2) at a path of any length.
pub(crate) fn bind(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let (_dir, address) = address(path)?;
    Ok(nix::sys::socket::bind(socket.as_raw_fd(), &address)?)
}

/// connect(2) to a path of any length.
pub(crate) fn connect(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let (_dir, address) = address(path)?;
    Ok(nix::sys::socket::connect(socket.as_raw_fd(), &address)?)
}

/// Closes the descriptors from `first` to `last`.
pub(crate) fn close_range(first: u32, last: u32) -> io::Result<()> {
    sys::close_range(first, last)
}

/// Signals as they come, on a descriptor.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Takes these signals, which the caller has blocked.
    pub(crate) fn new(which: &SigSet) -> io::Result<Self> {
        Ok(Self(SignalFd::with_flags(which, SfdFlags::SFD_CLOEXEC)?))
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> io::Result<Option<i32>> {
        Ok(self.0.read_signal()?.map(|info| info.ssi_signo as i32))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Removes the layers, notes and datasets in `store` of containers of `root` that are no more.
///
/// # Errors
/// The kernel's or zfs(8)'s words.
pub fn sweep(store: &Path, root: &Path) -> Result<Vec<std::path::PathBuf>, Trouble> {
    let storage = facts::storage(store);
    let mut swept = layer::sweep(&storage.directory, root)?;
    if let Some(datasets) = storage.datasets() {
        swept.extend(datasets.sweep(root)?);
    }
    Ok(swept)
}
