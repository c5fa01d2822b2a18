//! `create`: bundle -> facts -> plan -> apply, and the container is on record.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;

use crate::apply::{apply, take_back};
use crate::bundle::{Bundle, Refusal};
use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result, Who};
use crate::host::program::LISTEN_PID;
use crate::host::{Host, This, first, link, terminal, this};
use crate::id::ContainerId;
use crate::journal::Journal;
use crate::op::{Moment, Op};
use crate::plan::{self, Plan};
use crate::state::{Identity, OCI_VERSION, Record, State, Status, Storage};
use crate::store::{Entry, Lock, Store};

use super::{refused, report};

/// Arguments of `create`.
#[derive(Debug, Args)]
pub struct Create {
    /// Directory of the bundle
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub bundle: PathBuf,
    /// Socket that the terminal's master is sent to
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// File that the pid of the first process is written to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Socket that a descriptor of the first process is sent to
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// How many descriptors from 3 on the container keeps
    #[arg(long, default_value_t, value_name = "N")]
    pub preserve_fds: u32,
    /// Accepted as runc's callers give it: potrun always enters the root by pivot_root
    #[arg(long, hide = true)]
    pub no_pivot: bool,
    /// Leave the container the session keyring of the caller
    #[arg(long)]
    pub no_new_keyring: bool,
    /// The container
    pub id: String,
}

/// A container that this process has just created.
pub(super) struct Created {
    pub(super) entry: Entry,
    pub(super) record: Record,
    /// Held until the caller lets others at the container.
    pub(super) lock: Lock,
}

impl cli::Run for Create {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let bundle = Bundle::read(&self.bundle).map_err(refused)?;
        let console = console(&bundle, self.console_socket.as_deref(), true)?;
        self.create(context, &bundle, console, None).map(|_| 0)
    }
}

impl Create {
    /// Creates the container. `supervisor`: the potrun that will delete it.
    pub(super) fn create(
        &self,
        context: &Context,
        bundle: &Bundle,
        console: Option<OwnedFd>,
        supervisor: Option<Identity>,
    ) -> Result<Created> {
        let id = super::id(&self.id)?;
        this::exe::close_on_exec(preserved(self.preserve_fds)).doing(|| "close what the caller left open")?;
        let passed = (sockets() > 0).then(|| {
            let mut bundle = bundle.clone();
            if let Some(process) = bundle.spec.process_mut() {
                pass_sockets(process);
            }
            bundle
        });
        let bundle = passed.as_ref().unwrap_or(bundle);
        // From looking at a network that pots share to having a place in it, nobody else changes it.
        let bridged = bundle.pot.as_ref().is_some_and(plan::network::bridged);
        let _networks = if bridged { Some(super::networks(&this::facts::ledger())?) } else { None };
        if bundle.spec.process().is_none() {
            return Err(Error::new(Who::Author, "config.json refused: /process: is required to create a container"));
        }
        let planned = || {
            let mut facts = this::facts::gather(bundle, &id, &context.root, &context.store)?;
            super::groups(context, &mut facts)?;
            Ok(plan::plan(bundle, &facts, &id))
        };
        let mut plan = planned()?;
        // What it lacks may be on lease to containers that are gone.
        if plan.is_err() && bridged && !super::sweep_leases(&this::facts::ledger())?.is_empty() {
            plan = planned()?;
        }
        let mut plan = plan.map_err(|e| refused(e.into()))?;
        if self.no_new_keyring {
            plan.keep_keyring();
        }
        for note in &plan.notes {
            tracing::info!("left out: {note}");
        }

        let store = Store::at(&context.root);
        for (n, name) in bundle.pot.iter().flat_map(|pot| &pot.depends_on).enumerate() {
            let runs = super::id(name)
                .and_then(|other| super::find(&store, &other))
                .is_ok_and(|found| found.2 == Status::Running);
            if !runs {
                let at = format!("{}/dependsOn/{n}", bundle.pot_at());
                return Err(
                    Error::caller(format!("{at}: {name} does not run")).hint(format!("first: potrun start {name}"))
                );
            }
        }
        let (entry, lock) = store.create(&id)?;
        let mut making = Making { bundle, plan: &plan, id: &id, entry, filters: store.filters(), supervisor };
        let mut journal = match making.entry.journal() {
            Ok(journal) => journal,
            Err(error) => {
                return Err(match making.entry.remove() {
                    Ok(()) => error,
                    Err(e) => error.hint(format!("left: {}", e.chain())),
                });
            }
        };
        match making.make(&mut journal, console, self) {
            Ok((_, record)) => Ok(Created { entry: making.entry, record, lock }),
            Err((error, mut host)) => Err(making.unmake(&mut host, &mut journal, error)),
        }
    }
}

/// A container in the making.
struct Making<'a> {
    bundle: &'a Bundle,
    plan: &'a Plan,
    id: &'a ContainerId,
    entry: Entry,
    filters: PathBuf,
    supervisor: Option<Identity>,
}

impl Making<'_> {
    /// On failure the host comes back with the error, because what it started must end with it.
    fn make(
        &mut self,
        journal: &mut Journal,
        console: Option<OwnedFd>,
        args: &Create,
    ) -> std::result::Result<(This, Record), (Error, Box<This>)> {
        let mut host = match self.host(console, args) {
            Ok(host) => host,
            Err(e) => return Err((e, Box::new(This::new()))),
        };
        let done = self.carry_out(&mut host, journal, args);
        match done {
            Ok(record) => Ok((host, record)),
            Err(e) => Err((e, Box::new(host))),
        }
    }

    fn carry_out(&mut self, host: &mut This, journal: &mut Journal, args: &Create) -> Result<Record> {
        carried_out(host, &self.plan.ops)?;
        apply(host, journal, &self.plan.ops).map_err(failed)?;
        let record = self.record(host)?;
        self.entry.prepare(&record)?;
        if let Some(path) = &args.pid_file {
            write_pid(path, record.process.pid)?;
        }
        if let Some(path) = &args.pidfd_socket {
            send_descriptor(path, record.process.pid)?;
        }
        host.commit().doing(|| "let the first process wait")?;
        // Last of all: the container is created, with a first process that waits, or it is not.
        self.entry.keep().inspect_err(|_| {
            if let Err(e) = this::process::kill(&record.process) {
                tracing::warn!("kill process {}: {e}", record.process.pid);
            }
        })?;
        host.release();
        Ok(record)
    }

    fn host(&self, console: Option<OwnedFd>, args: &Create) -> Result<This> {
        let state = State {
            oci_version: OCI_VERSION.into(),
            id: self.id.to_string(),
            pid: 0,
            status: Status::Creating,
            bundle: self.bundle.dir.clone(),
            rootfs: self.plan.rootfs.clone(),
            created: String::new(),
            annotations: self.annotations(),
            owner: String::new(),
        };
        let waiting = self.entry.keep_config(&self.bundle.config)?;
        let listen = link::listen(&self.entry.socket()).doing(|| "listen for start")?;
        Ok(This::with(first::Io {
            listen: Some(listen),
            waiting: Some(waiting),
            console,
            preserve: preserved(args.preserve_fds),
            filters: self.filters.clone(),
            state,
        }))
    }

    /// The bundle's annotations, sorted, and potrun's own about the network.
    fn annotations(&self) -> BTreeMap<String, String> {
        let said = self.bundle.spec.annotations().iter().flatten().map(|(key, value)| (key.clone(), value.clone()));
        said.chain(self.plan.network.iter().flat_map(plan::network::Attached::annotations)).collect()
    }

    fn record(&mut self, host: &This) -> Result<Record> {
        let pid = host.pid().ok_or_else(|| Error::operator("the plan started no process"))?;
        let process = this::process::identity(pid).doing(|| format!("look at process {pid}"))?;
        let mut hooks = plan::hooks(self.bundle, Moment::Poststart);
        hooks.extend(plan::hooks(self.bundle, Moment::Poststop));
        Ok(Record {
            id: self.id.clone(),
            process,
            bundle: self.bundle.dir.clone(),
            rootfs: self.plan.rootfs.clone(),
            group: self.plan.group.clone(),
            euid: nix::unistd::geteuid().as_raw(),
            created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
            os: self.plan.os,
            annotations: self.annotations(),
            hooks,
            storage: Storage::of(&self.plan.ops),
            unit: self.plan.unit().cloned(),
            supervisor: self.supervisor.take(),
        })
    }

    /// Puts the machine back and says what is left of it.
    fn unmake(&self, host: &mut This, journal: &mut Journal, error: Error) -> Error {
        let undone = journal.pending().len();
        let left = take_back(host, journal);
        tracing::debug!("took back {} of {undone} steps", undone - left.len());
        if !left.is_empty() {
            let error = report(error, &left);
            return error.hint(format!("try again with: potrun delete --force {}", self.id));
        }
        match self.entry.remove() {
            Ok(()) => error,
            Err(e) => error.hint(format!("left: {}", e.chain())),
        }
    }
}

/// An error of [`apply`]. What the first process reports names its own step.
fn failed(failed: crate::apply::Failed) -> Error {
    if failed.what.starts_with("spawn ") || failed.what.starts_with("resume ") {
        return Error::operator(crate::error::chain(&*failed.source));
    }
    Error::operator(failed.what).because(failed.source)
}

/// Refuses, by name and all at once, what this host does not carry out: before anything is.
pub(super) fn carried_out(host: &This, ops: &[Op]) -> Result<()> {
    let problems: Vec<crate::bundle::Problem> =
        ops.iter().filter_map(|op| host.cannot(op)).map(|what| crate::bundle::Problem::new("", what)).collect();
    if problems.is_empty() { Ok(()) } else { Err(refused(Refusal(problems).into())) }
}

/// The connection to the console socket, if the bundle wants a terminal. `detached`: nobody stays to relay one.
pub(super) fn console(bundle: &Bundle, socket: Option<&Path>, detached: bool) -> Result<Option<OwnedFd>> {
    let terminal = bundle.spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal) == Some(true);
    check_console(terminal, socket, detached)?;
    socket.map(|path| terminal::connect_to(path).doing(|| format!("connect to {}", path.display()))).transpose()
}

/// Whether terminal and console socket fit together.
pub(super) fn check_console(terminal: bool, socket: Option<&Path>, detached: bool) -> Result<()> {
    match (terminal, socket) {
        (true, None) if detached => Err(Error::caller("a terminal of a detached process needs --console-socket")),
        (false, Some(_)) => Err(Error::caller("--console-socket without a terminal: /process/terminal is not true")),
        _ => Ok(()),
    }
}

/// Writes a pid file: no newline, since containerd's reader takes none; by rename, since conmon reads it at once.
pub(super) fn write_pid(path: &Path, pid: i32) -> Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    fs::write(&part, pid.to_string())
        .and_then(|()| fs::rename(&part, path))
        .doing(|| format!("write {}", path.display()))
}

/// Sends a descriptor of a process to the socket at `path`.
pub(super) fn send_descriptor(path: &Path, pid: i32) -> Result<()> {
    use std::os::fd::AsFd;
    let socket = terminal::connect_to(path).doing(|| format!("connect to {}", path.display()))?;
    this::process::descriptor(pid)
        .and_then(|fd| link::send_fd(socket.as_fd(), "pidfd", &fd))
        .doing(|| format!("send a descriptor of process {pid}"))
}

/// How many sockets the caller hands over for socket activation (sd_listen_fds(3)).
fn sockets() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// How many descriptors from 3 on are the container's: those of `--preserve-fds` come after the sockets, as in runc.
pub(super) fn preserved(asked: u32) -> u32 {
    asked.saturating_add(sockets())
}

/// Tells the process of the sockets that were handed over. Which process it is, it will say itself.
pub(super) fn pass_sockets(process: &mut oci_spec::runtime::Process) {
    let count = sockets();
    if count > 0 {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend([format!("LISTEN_FDS={count}"), LISTEN_PID.into()]);
        process.set_env(Some(env));
    }
}
