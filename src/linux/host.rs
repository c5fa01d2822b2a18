//! The Linux host: carries out ops with the kernel's own interface, no programs.

mod beneath;
mod bpf;
mod cgroup;
pub mod console;
pub mod exe;
pub mod facts;
mod inside;
mod layer;
mod link;
pub mod process;
mod program;
mod spawn;
mod sys;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use crate::host::tool::{self, Output, Tool};
use crate::host::{Host, Trouble};
use crate::op::{Hook, Moment, Op};
use crate::state::{State, Status};

pub use process::Watch;

/// The operating system.
pub const OS: Option<crate::facts::Os> = Some(crate::facts::Os::Linux);

/// What the container's first process is given besides its ops.
#[derive(Debug)]
pub struct Io {
    /// Where it listens for `start`. None: it starts at once (`exec`).
    pub listen: Option<OwnedFd>,
    /// The descriptor whose lock says that it still waits.
    pub waiting: Option<File>,
    /// Where the master of its terminal is sent.
    pub console: Option<OwnedFd>,
    /// How many descriptors from 3 on it keeps (`--preserve-fds`).
    pub preserve: u32,
    /// What hooks read from their stdin, but for pid and status.
    pub state: State,
}

/// Linux.
#[derive(Debug)]
pub struct LinuxHost {
    io: Option<Io>,
    child: Option<spawn::Child>,
}

impl LinuxHost {
    /// A host that can take back, and carry out everything that needs no process.
    #[must_use]
    pub fn new() -> Self {
        Self { io: None, child: None }
    }

    /// A host that can start a process, too.
    #[must_use]
    pub fn with(io: Io) -> Self {
        Self { io: Some(io), child: None }
    }

    /// The pid of the process that was started.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(|child| child.pid)
    }

    /// Tells the first process that it is on record now: it no longer ends with this potrun.
    ///
    /// # Errors
    /// It is gone.
    pub fn commit(&mut self) -> Result<(), Trouble> {
        self.child.as_mut().map_or(Ok(()), spawn::Child::commit)
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
        self.child.as_mut().map_or(Ok(()), spawn::Child::started)
    }

    fn hook(&self, hook: &Hook) -> Result<(), Trouble> {
        let state = self.io.as_ref().map(|io| io.state.clone()).ok_or("no container to run a hook for")?;
        Ok(run_hook(hook, State { pid: self.pid().unwrap_or(0), ..state })?)
    }
}

impl Default for LinuxHost {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs a hook with the state that it must see.
///
/// # Errors
/// It cannot be started, fails, or takes too long.
pub fn run_hook(hook: &Hook, mut state: State) -> Result<(), tool::ToolError> {
    state.status = match hook.moment {
        Moment::Prestart | Moment::CreateRuntime | Moment::CreateContainer => Status::Creating,
        Moment::StartContainer => Status::Created,
        Moment::Poststart => Status::Running,
        Moment::Poststop => Status::Stopped,
    };
    let input = serde_json::to_vec(&state).unwrap_or_default(); // a State holds texts and numbers only
    let timeout = hook.timeout.map(Duration::from_secs);
    let tool =
        Tool { path: &hook.path, args: &hook.args, env: &hook.env, input: &input, timeout, output: Output::Inherit };
    tool::run(&tool).map(drop)
}

impl Host for LinuxHost {
    fn run(&mut self, op: &Op) -> Result<(), Trouble> {
        match op {
            Op::UseBase { base, id } => layer::use_base(base, id)?,
            Op::ReleaseBase { base, id } => layer::release_base(base, id)?,
            Op::CreateLayer { path, owner } => layer::create(path, owner)?,
            Op::RemoveLayer { path, owner } => layer::remove(path, owner)?,
            Op::CreateCgroup { path } => cgroup::create(path)?,
            Op::RemoveCgroup { path } => cgroup::remove(path)?,
            Op::SetCgroup { path, file, value } => cgroup::set(path, file, value)?,
            Op::FilterDevices { path, rules } => cgroup::filter_devices(path, rules)?,
            Op::Spawn(spawn) => {
                let io = self.io.as_mut().ok_or("no container to start a process for")?;
                self.child = Some(spawn::Child::spawn(spawn, io)?);
            }
            Op::Resume => self.child.as_mut().map_or(Ok(()), spawn::Child::resume)?,
            Op::KillAll { cgroup } => {
                self.child = None; // ends it, if it was ours
                if let Some(path) = cgroup {
                    cgroup::kill(path)?;
                }
            }
            Op::Hook(hook) => self.hook(hook)?,
            other => return Err(self.cannot(other).unwrap_or_default().into()),
        }
        Ok(())
    }

    fn taken(&self, op: &Op) -> Option<String> {
        match op {
            Op::CreateCgroup { path } if cgroup::populated(path).is_ok_and(|populated| populated) => {
                Some("it has processes of somebody else".into())
            }
            _ => None,
        }
    }

    fn cannot(&self, op: &Op) -> Option<String> {
        match op {
            Op::UseBase { .. }
            | Op::ReleaseBase { .. }
            | Op::CreateLayer { .. }
            | Op::RemoveLayer { .. }
            | Op::CreateCgroup { .. }
            | Op::RemoveCgroup { .. }
            | Op::SetCgroup { .. }
            | Op::FilterDevices { .. }
            | Op::Resume
            | Op::KillAll { .. }
            | Op::Hook(_) => None,
            Op::Spawn(spawn) => spawn.create.iter().chain(&spawn.start).find_map(inside::cannot),
            other => Some(format!("{other}: is not carried out on linux yet")),
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

/// Listens at `path` for `start`.
///
/// # Errors
/// The kernel's words.
pub fn listen(path: &Path) -> std::io::Result<OwnedFd> {
    link::listen(path)
}

/// Tells the first process that listens at `path` to become the program, and waits until it has.
///
/// # Errors
/// What kept it from doing so.
pub fn start(path: &Path) -> Result<(), Trouble> {
    link::start(path)
}

/// Removes the layers and notes in `store` of containers of `root` that are no more.
///
/// # Errors
/// The kernel's words.
pub fn sweep(store: &Path, root: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
    layer::sweep(store, root)
}
