//! The FreeBSD host: carries out ops with the kernel's own interface; programs only where the kernel's is not stable:
//! zfs(8) and pfctl(8).

mod jail;
mod limits;
mod mount;
mod network;
mod pf;
mod sys;
mod zfs;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};

use crate::bundle::Bundle;
use crate::error::Result;
use crate::facts::{Facts, Os};
use crate::host::tool::ToolError;
use crate::host::{Host, Trouble};
use crate::op::{Hook, Op};
use crate::state::State;

/// The operating system.
pub const OS: Option<Os> = Some(Os::Freebsd);

const NOT_YET: &str = "is not carried out on this operating system yet";

/// What a first process would be given.
#[derive(Debug)]
pub struct Io {
    /// Where it listens for `start`.
    pub listen: Option<OwnedFd>,
    /// The descriptor whose lock says that it still waits.
    pub waiting: Option<File>,
    /// Where the master of its terminal is sent.
    pub console: Option<OwnedFd>,
    /// How many descriptors from 3 on it keeps.
    pub preserve: u32,
    /// What hooks read from their stdin.
    pub state: State,
}

/// FreeBSD.
#[derive(Debug, Default)]
pub struct FreebsdHost;

impl FreebsdHost {
    /// The host.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    /// The host; it starts no process.
    #[must_use]
    pub fn with(_: Io) -> Self {
        Self
    }

    /// No process was started.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        None
    }

    /// Nothing waits.
    ///
    /// # Errors
    /// Always.
    pub fn commit(&mut self) -> std::result::Result<(), Trouble> {
        Err(NOT_YET.into())
    }

    /// Nothing is held.
    pub fn release(&mut self) {}

    /// Nothing starts.
    ///
    /// # Errors
    /// Always.
    pub fn started(&mut self) -> std::result::Result<(), Trouble> {
        Err(NOT_YET.into())
    }
}

impl Host for FreebsdHost {
    fn run(&mut self, op: &Op) -> std::result::Result<(), Trouble> {
        match op {
            Op::CreateDataset { dataset, properties } => zfs::create(dataset, properties),
            Op::CloneDataset { snapshot, dataset, properties } => zfs::clone(snapshot, dataset, properties),
            Op::DestroyDataset { dataset, id } => zfs::destroy(dataset, id),
            Op::WriteFile { root, path, text, mode } => mount::write(root, path, text, *mode),
            Op::HostTarget { root, mount } => mount::target(root, mount),
            Op::HostMount { root, mount } => mount::mount(root, mount),
            Op::HostUnmount { root, target } => mount::unmount(root, target),
            Op::CreatePair { host, pot, description, macs } => network::create_pair(host, pot, description, macs),
            Op::DestroyInterface { name, description } => network::destroy(name, description),
            Op::EnsureBridge { name, description, addresses } => network::ensure_bridge(name, description, addresses),
            Op::ReleaseBridge { name, description } => network::release_bridge(name, description),
            Op::AddMember { bridge, member, isolated } => network::add_member(bridge, member, *isolated),
            Op::EnableForwarding { family } => network::enable_forwarding(*family),
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
            Op::CreateJail { name, parameters } => jail::create(name, parameters),
            Op::RemoveJail { name } => jail::remove(name),
            other => Err(format!("{other}: {NOT_YET}").into()),
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
        Some(format!("{op}: {NOT_YET}"))
    }
}

/// A descriptor that becomes readable when a process ends.
#[derive(Debug)]
pub struct Watch(Kqueue);

impl Watch {
    /// Watches `pid`.
    ///
    /// # Errors
    /// kevent(2)'s.
    pub fn process(pid: u32) -> io::Result<Self> {
        let queue = Kqueue::new()?;
        let flags = (EvFlags::EV_ADD | EvFlags::EV_ONESHOT, FilterFlag::NOTE_EXIT);
        let event = KEvent::new(pid as usize, EventFilter::EVFILT_PROC, flags.0, flags.1, 0, 0);
        queue.kevent(&[event], &mut [], None)?;
        Ok(Self(queue))
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Runs a hook with the state that it must see.
///
/// # Errors
/// It cannot be started, fails, or takes too long.
pub fn run_hook(hook: &Hook, _: State) -> std::result::Result<(), ToolError> {
    Err(ToolError::Start { path: hook.path.clone(), source: io::Error::other(NOT_YET) })
}

/// Nobody will connect.
///
/// # Errors
/// Always.
pub fn listen(_: &Path) -> io::Result<OwnedFd> {
    Err(io::Error::other(NOT_YET))
}

/// Nobody listens.
///
/// # Errors
/// Always.
pub fn start(_: &Path) -> std::result::Result<(), Trouble> {
    Err(NOT_YET.into())
}

/// There are no layers.
///
/// # Errors
/// None.
pub fn sweep(_: &Path, _: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(Vec::new())
}

/// Protecting potrun's own file.
pub mod exe {
    /// There is no way to it from inside: no magic link leads there.
    ///
    /// # Errors
    /// None.
    pub fn protect() -> std::io::Result<()> {
        Ok(())
    }

    /// Marks what the caller left open as not for the container.
    ///
    /// # Errors
    /// close_range(2)'s.
    pub fn close_on_exec(_: u32) -> std::io::Result<()> {
        Err(std::io::Error::other(super::NOT_YET))
    }
}

/// Looking at the machine.
pub mod facts {
    use super::{BTreeMap, Bundle, Facts, Os, Path, PathBuf, Result};
    use crate::facts::Store;

    /// A machine without anything: nothing is looked at yet.
    ///
    /// # Errors
    /// None.
    pub fn gather(bundle: &Bundle, state: &Path, _: &Path) -> Result<Facts> {
        let store = Store::Zfs { dataset: "zroot/pot".into(), path: "/opt/pot".into() };
        let nothing = Facts { base: None, fscomps: BTreeMap::new(), ..Facts::assumed(Os::Freebsd, bundle) };
        Ok(Facts { state: state.into(), store, euid: nix::unistd::geteuid().as_raw(), ..nothing })
    }

    /// Where containers are noted unless `--root` says it.
    #[must_use]
    pub fn default_root() -> PathBuf {
        "/var/run/potrun".into()
    }

    /// Where bases are kept unless `--store` says it.
    #[must_use]
    pub fn default_store() -> PathBuf {
        "/var/db/potrun".into()
    }
}

/// Processes.
pub mod process {
    use super::{NOT_YET, Path, io};
    use crate::state::Identity;

    /// Who a process is.
    ///
    /// # Errors
    /// Always.
    pub fn identity(_: i32) -> io::Result<Identity> {
        Err(io::Error::other(NOT_YET))
    }

    /// Whether it lives.
    ///
    /// # Errors
    /// Always.
    pub fn alive(_: &Identity) -> io::Result<bool> {
        Err(io::Error::other(NOT_YET))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Always.
    pub fn signal(_: &Identity, _: i32) -> io::Result<bool> {
        Err(io::Error::other(NOT_YET))
    }

    /// Kills it.
    ///
    /// # Errors
    /// Always.
    pub fn kill(_: &Identity) -> io::Result<()> {
        Err(io::Error::other(NOT_YET))
    }

    /// Sends a signal to all.
    ///
    /// # Errors
    /// Always.
    pub fn signal_group(_: &Path, _: i32) -> io::Result<()> {
        Err(io::Error::other(NOT_YET))
    }

    /// All processes.
    ///
    /// # Errors
    /// Always.
    pub fn group(_: &Path) -> io::Result<Vec<i32>> {
        Err(io::Error::other(NOT_YET))
    }

    /// Freezes all.
    ///
    /// # Errors
    /// Always.
    pub fn freeze(_: &Path, _: bool) -> io::Result<()> {
        Err(io::Error::other(NOT_YET))
    }

    /// Whether all are frozen.
    #[must_use]
    pub fn frozen(_: &Path) -> bool {
        false
    }
}

/// Terminals.
pub mod console {
    use super::{BorrowedFd, NOT_YET, OwnedFd, Path, io};

    /// Connects to a console socket.
    ///
    /// # Errors
    /// Always.
    pub fn connect_to(_: &Path) -> io::Result<OwnedFd> {
        Err(io::Error::other(NOT_YET))
    }

    /// A pair of sockets.
    ///
    /// # Errors
    /// Always.
    pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
        Err(io::Error::other(NOT_YET))
    }

    /// What `run` and `exec` do while their process runs.
    #[derive(Debug)]
    pub struct Foreground(());

    impl Foreground {
        /// Takes all signals.
        ///
        /// # Errors
        /// Always.
        pub fn new() -> io::Result<Self> {
            Err(io::Error::other(NOT_YET))
        }

        /// Relays a terminal.
        ///
        /// # Errors
        /// Always.
        pub fn attach(&mut self, _: BorrowedFd<'_>) -> io::Result<()> {
            Err(io::Error::other(NOT_YET))
        }

        /// Waits for a process.
        ///
        /// # Errors
        /// Always.
        pub fn wait(&mut self, _: i32) -> io::Result<i32> {
            Err(io::Error::other(NOT_YET))
        }
    }
}
