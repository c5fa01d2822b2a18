//! `exec`: one more process in a running container.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use oci_spec::runtime::{Capability, LinuxCapabilities, Process, User};

use crate::bundle::Bundle;
use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::exit;
use crate::host::{Host, This, first, terminal, this};
use crate::plan;
use crate::state::{Record, State, Status};
use crate::store::Store;

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// Socket that the terminal's master is sent to
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Directory that the process starts in
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Another variable of its environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// User and group of the process
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Another supplementary group
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// File with the process as config.json has it
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Return when the process has started
    #[arg(short, long)]
    detach: bool,
    /// File that its pid is written to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Give it no privileges that it does not begin with
    #[arg(long)]
    no_new_privs: bool,
    /// Another capability
    #[arg(short, long, value_name = "CAPABILITY")]
    cap: Vec<String>,
    /// How many descriptors from 3 on it keeps
    #[arg(long, default_value_t, value_name = "N")]
    preserve_fds: u32,
    /// Group below the container's own that it runs in
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// Socket that a descriptor of the process is sent to
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// Run it in a paused container; it runs when that is resumed
    #[arg(long)]
    ignore_paused: bool,
    /// The container
    pub id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl cli::Run for Exec {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    /// The exit code is the process's.
    fn run(&self, context: &Context) -> Result<u8> {
        let id = super::id(&self.id)?;
        let store = Store::at(&context.root);
        let (entry, record, status) = super::find_made(&store, &id)?;
        match status {
            Status::Created | Status::Running => {}
            Status::Paused if self.ignore_paused => {}
            Status::Paused => return Err(Error::caller("cannot exec in a paused container (use --ignore-paused)")),
            Status::Creating | Status::Stopped => return Err(Error::caller("cannot exec in a stopped container")),
        }
        let preserve = super::create::preserved(self.preserve_fds);
        this::exe::close_on_exec(preserve).doing(|| "close what the caller left open")?;
        let bundle = super::saved(&entry, &record)?;
        let mut process = self.process(&bundle)?;
        super::create::pass_sockets(&mut process);
        let labels = this::facts::labels(&bundle, Some(&process));
        let mut plan = plan::exec(&bundle, &record, &process, labels).map_err(|e| super::refused(e.into()))?;
        if let Some(path) = &self.cgroup {
            below(&mut plan, path)?;
        }
        self.go(&record, &process, &plan, preserve, store.filters())
    }
}

impl Exec {
    fn go(&self, record: &Record, process: &Process, plan: &plan::Plan, preserve: u32, filters: PathBuf) -> Result<u8> {
        let terminal = process.terminal() == Some(true);
        super::create::check_console(terminal, self.console_socket.as_deref(), self.detach)?;
        let connect = |path: &Path| terminal::connect_to(path).doing(|| format!("connect to {}", path.display()));
        let (mut console, mut relay) = (self.console_socket.as_deref().map(connect).transpose()?, None);
        if terminal && console.is_none() {
            let (ours, theirs) = terminal::pair().doing(|| "make a socket for the terminal")?;
            (console, relay) = (Some(theirs), Some(ours));
        }
        let state = State::of(record, Status::Running);
        let mut host = This::with(first::Io { listen: None, waiting: None, console, preserve, filters, state });
        for op in &plan.ops {
            tracing::debug!("{op}");
            host.run(op).map_err(failed)?;
        }
        host.release();
        let pid = host.pid().ok_or_else(|| Error::operator("the plan started no process"))?;
        if let Some(path) = &self.pid_file {
            super::create::write_pid(path, pid)?;
        }
        if let Some(path) = &self.pidfd_socket {
            super::create::send_descriptor(path, pid)?;
        }
        let mut foreground =
            if self.detach { None } else { Some(terminal::Foreground::new().doing(|| "take signals")?) };
        if let (Some(foreground), Some(socket)) = (&mut foreground, relay) {
            use std::os::fd::AsFd;
            foreground.attach(socket.as_fd()).doing(|| "attach to the terminal")?;
        }
        host.commit().and_then(|()| host.started()).map_err(failed)?;
        let Some(mut foreground) = foreground else { return Ok(0) };
        let status = foreground.wait(pid).doing(|| "wait for the process")?;
        exit::code(status).0.ok_or_else(|| Error::operator(format!("the process ended with status {status}")))
    }

    /// The process that was asked for: the file's, or the container's own with what the flags change.
    fn process(&self, bundle: &Bundle) -> Result<Process> {
        if let Some(path) = &self.process {
            let json = fs::read(path).doing(|| format!("read {}", path.display()))?;
            let mut json = serde_json::from_slice(&json).doing(|| format!("read {}", path.display()))?;
            crate::bundle::understandable(&mut json);
            let process: Process = serde_json::from_value(json).doing(|| format!("read {}", path.display()))?;
            return check(process);
        }
        let mut process =
            bundle.spec.process().clone().ok_or_else(|| Error::caller("the container has no process to take after"))?;
        if self.command.is_empty() {
            return Err(Error::caller("name a program, or give --process"));
        }
        process.set_args(Some(self.command.clone())).set_terminal(Some(self.tty)).set_console_size(None);
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.clone());
        }
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(self.env.iter().cloned());
        process.set_env(Some(env));
        if self.no_new_privs {
            process.set_no_new_privileges(Some(true));
        }
        if let Some(profile) = &self.apparmor {
            process.set_apparmor_profile(Some(profile.clone()));
        }
        if let Some(label) = &self.process_label {
            process.set_selinux_label(Some(label.clone()));
        }
        let mut user: User = process.user().clone();
        if let Some(text) = &self.user {
            let (uid, gid) = ids(text)?;
            user.set_uid(uid);
            if let Some(gid) = gid {
                user.set_gid(gid);
            }
        }
        if !self.additional_gids.is_empty() {
            let mut groups = user.additional_gids().clone().unwrap_or_default();
            groups.extend(&self.additional_gids);
            user.set_additional_gids(Some(groups));
        }
        process.set_user(user);
        if !self.cap.is_empty() {
            let sets = process.capabilities().clone().unwrap_or_default();
            process.set_capabilities(Some(with_capabilities(sets, &self.cap)?));
        }
        check(process)
    }
}

/// Moves the process into a group below the container's own: never out of it.
fn below(plan: &mut plan::Plan, path: &str) -> Result<()> {
    // runc's form for cgroup v1 names controllers first; v2 has all in one hierarchy.
    let path = path.split_once(':').map_or(path, |(_, path)| path).trim_start_matches('/');
    let plain = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
    if !Path::new(path).components().all(plain) {
        return Err(Error::caller(format!("--cgroup {path:?} is not a path below the container's group")));
    }
    for op in &mut plan.ops {
        let crate::op::Op::Spawn(spawn) = op else { continue };
        let group = spawn.cgroup.as_mut().ok_or_else(|| Error::caller("the container has no control group"))?;
        group.push(path);
        if !group.is_dir() {
            return Err(Error::caller(format!("there is no group {path} below the container's")));
        }
    }
    Ok(())
}

/// What the first process of `exec` reports names its own step.
fn failed(trouble: crate::host::Trouble) -> Error {
    Error::operator(crate::error::chain(&*trouble))
}

fn check(process: Process) -> Result<Process> {
    let problem = |what: &str| Err(Error::caller(format!("the process is refused: {what}")));
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return problem("args must name a program");
    }
    if !process.cwd().is_absolute() {
        return problem("cwd must be an absolute path");
    }
    if process.env().iter().flatten().any(|one| !one.contains('=')) {
        return problem("every variable of env must be NAME=value");
    }
    Ok(process)
}

/// `UID[:GID]`, whole numbers and nothing else (CVE-2026-30892: crun took what it could not read for root).
fn ids(text: &str) -> Result<(u32, Option<u32>)> {
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        // 2^32-1 is "unchanged" to the kernel (setresuid(2)).
        let number = plain.then(|| digits.parse::<u32>().ok()).flatten().filter(|n| *n != u32::MAX);
        number.ok_or_else(|| Error::caller(format!("--user {text:?} is not UID[:GID]").as_str()))
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}

/// Adds capabilities to the bounding, effective and permitted sets, and to the ambient one only where a capability is
/// inheritable already (CVE-2022-29162).
fn with_capabilities(mut sets: LinuxCapabilities, names: &[String]) -> Result<LinuxCapabilities> {
    for name in names {
        let short = name.to_ascii_uppercase();
        let short = short.strip_prefix("CAP_").unwrap_or(&short).to_string();
        let cap: Capability = short.parse().map_err(|_| {
            Error::caller(format!("unknown capability {name:?}")).because(io::Error::other("see capabilities(7)"))
        })?;
        let add = |set: &Option<oci_spec::runtime::Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(cap);
            Some(set)
        };
        let inheritable = sets.inheritable().as_ref().is_some_and(|set| set.contains(&cap));
        sets.set_bounding(add(sets.bounding()));
        sets.set_effective(add(sets.effective()));
        sets.set_permitted(add(sets.permitted()));
        if inheritable {
            sets.set_ambient(add(sets.ambient()));
        }
    }
    Ok(sets)
}

#[cfg(test)]
mod tests {
    use super::ids;

    #[test]
    fn users_are_numbers_and_nothing_else() {
        assert_eq!(ids("1000").unwrap(), (1000, None));
        assert_eq!(ids("1000:5").unwrap(), (1000, Some(5)));
        for bad in ["", "1000:", ":5", "abc", "4294967296", "4294967295", "-1", "1:2:3", " 1", "+1", "0x10"] {
            assert!(ids(bad).is_err(), "{bad:?}");
        }
    }
}
