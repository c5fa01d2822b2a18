//! The command line: runc's verbs and flags, and potrun's own.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Command, CommandFactory, Parser, Subcommand};
use tracing::Level;

use crate::error::{Error, Result};
use crate::host::{storage, this};
use crate::log::{Format, Log};
use crate::verb;

/// `potrun version 0.1.0`, as podman and dockerd read it.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

/// The OCI runtime for FreeBSD pots
#[derive(Debug, Parser)]
#[command(name = "potrun", version = VERSION, disable_version_flag = true, after_help = verbs(), arg_required_else_help = true)]
#[command(override_usage = "potrun [OPTIONS] VERB [ARGUMENTS]\n       potrun VERB --help")]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: External,
}

/// A verb and its arguments, not looked at yet: building the grammar of every verb costs more than most verbs.
#[derive(Debug, Subcommand)]
enum External {
    #[command(external_subcommand)]
    Verb(Vec<OsString>),
}

/// What every verb knows.
#[derive(Debug, Args)]
pub struct Global {
    /// Directory that containers are noted in
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Directory that bases, fscomps and layers are kept in
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// File that log lines go to
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Form of log lines
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: Format,
    /// Log every step
    #[arg(long)]
    debug: bool,
    /// Log from this level on
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<Level>,
    /// Accepted as runc's callers give it; true without root, whatever is said
    #[arg(long, value_name = "BOOL", hide = true)]
    rootless: Option<String>,
    /// Let systemd make the control groups: linux.cgroupsPath is SLICE:PREFIX:NAME
    #[arg(long)]
    systemd_cgroup: bool,
    /// Who makes control groups: cgroupfs, systemd, or disabled for nobody
    #[arg(long, value_name = "DRIVER", hide = true, value_parser = ["cgroupfs", "systemd", "disabled"])]
    cgroup_manager: Option<String>,
    /// Print version
    #[arg(short, long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// What verbs work with.
#[derive(Debug)]
pub struct Context {
    /// Where containers are noted.
    pub root: PathBuf,
    /// Where bases, fscomps and layers are kept.
    pub store: PathBuf,
    /// Whether control groups are made by systemd (Linux).
    pub systemd: bool,
    /// Whether containers get control groups (Linux).
    pub cgroups: bool,
}

/// A verb's arguments, and what it does.
pub trait Run: Args {
    /// The container that it is about.
    fn subject(&self) -> Option<&str> {
        None
    }

    /// Does it. The exit code is 0 but where a program's own is passed on.
    ///
    /// # Errors
    /// Why not, and who must act.
    fn run(&self, context: &Context) -> Result<u8>;
}

/// A row of the table of verbs.
struct Verb {
    name: &'static str,
    about: &'static str,
    /// Whether it enters a container, so that potrun's own file must be out of its reach.
    enters: bool,
    /// Exit code of a failure: 255 where a program's own code is passed on, as runc has it.
    failure: u8,
    run: fn(&Self, &[OsString], &Context) -> Result<u8>,
}

const fn verb(name: &'static str, about: &'static str, run: fn(&Verb, &[OsString], &Context) -> Result<u8>) -> Verb {
    Verb { name, about, enters: false, failure: 1, run }
}

const VERBS: &[Verb] = &[
    Verb {
        enters: true,
        ..verb("create", "Make a container; its program waits for start", go::<verb::create::Create>)
    },
    verb("start", "Start the program of a created container", go::<verb::start::Start>),
    Verb { enters: true, ..verb("run", "Create, start, wait and delete", go::<verb::run::Run>) },
    verb("state", "Show the state of a container as JSON", go::<verb::show::Show>),
    verb("kill", "Send a signal to a container's first process, or to all", go::<verb::kill::Kill>),
    verb("delete", "Take a container back; nothing is left of it", go::<verb::delete::Delete>),
    verb("list", "Show all containers", go::<verb::list::List>),
    Verb { enters: true, failure: 255, ..verb("exec", "Run one more process in a container", go::<verb::exec::Exec>) },
    verb("ps", "Show the processes of a container", go::<verb::ps::Ps>),
    verb("pause", "Freeze all processes of a container", go::<verb::pause::Pause>),
    verb("resume", "Thaw them", go::<verb::pause::Resume>),
    verb("clone", "Make a new bundle with the data of a container", go::<verb::clone::Clone>),
    verb("copy-in", "Copy files of the host into a container", go::<verb::copy::CopyIn>),
    verb("copy-out", "Copy files of a container to the host", go::<verb::copy::CopyOut>),
    verb("mount-in", "Mount a directory of the host in a container that runs", go::<verb::mount::MountIn>),
    verb("mount-out", "Take such a mount away", go::<verb::mount::MountOut>),
    verb("diff", "Show the paths of a pot that have changed since create", go::<verb::diff::Diff>),
    verb("export", "Write a pot to a file that import takes", go::<verb::export::Export>),
    verb("stop", "End a container gracefully, or after a while all the same", go::<verb::stop::Stop>),
    verb("wait", "Wait for the end of a container's first process, and show how it ended", go::<verb::wait::Wait>),
    verb("show", "Show all that is known of a container, as JSON", go::<verb::show::All>),
    verb("update", "Change the limits of a container that runs", go::<verb::update::Update>),
    verb("events", "Show what a container uses, as JSON", go::<verb::events::Events>),
    verb("checkpoint", "Not offered", go::<verb::checkpoint::Checkpoint>),
    verb("restore", "Not offered", go::<verb::checkpoint::Checkpoint>),
    verb("import", "Make a bundle of a pot that was exported, or that pot made", go::<verb::import::Import>),
    verb("spec", "Write a config.json to begin with", go::<verb::spec::Spec>),
    verb("features", "Show what potrun can do, as JSON", go::<verb::features::Features>),
    verb("plan", "Show every step of a bundle's translation, without taking any", go::<verb::plan::Plan>),
    verb("info", "Show versions, places, drivers and why they are these", go::<verb::info::Info>),
    verb("gc", "Finish what a killed potrun left behind", go::<verb::gc::Gc>),
    verb("base", "Base releases: import, fetch, ls, rm", go::<verb::base::Base>),
    verb(
        "fscomp",
        "Volumes: create, ls, rm; with ZFS snapshot, rollback, clone, send, receive",
        go::<verb::fscomp::Fscomp>,
    ),
    verb("snapshot", "Keep the root of a pot, or a volume, as it is now (ZFS)", go::<verb::snapshot::Snapshot>),
    verb("revert", "Put a stopped pot, or a volume, back to a snapshot (ZFS)", go::<verb::snapshot::Revert>),
    verb("snapshots", "Snapshots: ls, rm (ZFS)", go::<verb::snapshot::Snapshots>),
    verb("network", "Networks: create, rm, ls, show, up, down, next, validate", go::<verb::network::Network>),
];

/// Reads the arguments of a verb and does it.
fn go<T: Run>(verb: &Verb, arguments: &[OsString], context: &Context) -> Result<u8> {
    let command = Command::new(verb.name).bin_name(format!("potrun {}", verb.name));
    let read = T::augment_args(command)
        .about(verb.about)
        .try_get_matches_from(arguments)
        .and_then(|found| T::from_arg_matches(&found));
    let this = read.unwrap_or_else(|e| e.exit());
    this.run(context).map_err(|e| match this.subject() {
        Some(id) => e.during(format!("{} {}", verb.name, id.escape_debug())),
        None => e,
    })
}

/// The table for people.
fn verbs() -> String {
    VERBS.iter().fold(String::from("Verbs:\n"), |text, verb| text + &format!("  {:<12}{}\n", verb.name, verb.about))
}

/// The verb that is named on the command line: the first argument that is neither an option nor an option's value.
fn named() -> Option<&'static Verb> {
    const WITH_VALUE: &[&str] =
        &["--root", "--store", "--log", "--log-format", "--log-level", "--rootless", "--cgroup-manager"];
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        let text = argument.to_str()?;
        if WITH_VALUE.contains(&text) {
            arguments.next();
        } else if !text.starts_with('-') {
            return VERBS.iter().find(|verb| verb.name == text);
        }
    }
    None
}

/// argv -> verb -> exit code.
#[must_use]
pub fn main() -> ExitCode {
    // Before anything else: what this process has done by then is done again.
    if named().is_some_and(|verb| verb.enters)
        && let Err(e) = this::exe::protect()
    {
        say(&Error::operator("protect potrun's own file").because(e));
        return ExitCode::FAILURE;
    }
    let Cli { global, verb: External::Verb(arguments) } = Cli::parse();
    let name = arguments.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        let error = Cli::command().error(ErrorKind::InvalidSubcommand, format!("{name:?} is not a verb"));
        error.exit();
    };
    let log = match global.log() {
        Ok(log) => log,
        Err(e) => {
            let path = global.log.as_deref().unwrap_or("".as_ref());
            say(&Error::operator(format!("open the log {}", path.display())).because(e));
            return ExitCode::FAILURE;
        }
    };
    match global.run(verb, &arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log.error(&error.chain());
            say(&error);
            ExitCode::from(verb.failure)
        }
    }
}

/// The chain once, then the hints.
fn say(error: &Error) {
    let mut stderr = std::io::stderr().lock();
    // There is nobody to tell if this fails.
    drop(writeln!(stderr, "potrun: {}", error.chain()));
    for hint in error.hints() {
        drop(writeln!(stderr, "potrun: {hint}"));
    }
}

impl Global {
    fn run(&self, verb: &Verb, arguments: &[OsString]) -> Result<u8> {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let context = Context {
            root: self.root.as_ref().map_or_else(this::facts::default_root, absolute),
            store: match &self.store {
                Some(store) if storage::dataset(store).is_some() => store.clone(),
                other => other.as_ref().map_or_else(this::facts::default_store, absolute),
            },
            systemd: self.systemd_cgroup || self.cgroup_manager.as_deref() == Some("systemd"),
            cgroups: self.cgroup_manager.as_deref() != Some("disabled"),
        };
        (verb.run)(verb, arguments, &context)
    }

    /// Where errors go; where more is asked for, that too.
    fn log(&self) -> std::io::Result<Log> {
        let level = if self.debug { Some(Level::DEBUG) } else { self.log_level };
        let open = || Log::open(self.log.as_deref(), self.log_format, level.unwrap_or(Level::ERROR));
        if level.is_some() {
            // The only call of this process: it cannot be set already.
            drop(tracing::subscriber::set_global_default(open()?));
        }
        open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }
}
