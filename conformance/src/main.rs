/*! `conformance --runtime PATH`: judges an OCI runtime from the outside.

The suite works in a mount namespace of its own, in a tmpfs that goes away with it, and is the reaper of every process
the runtime leaves to its caller, as conmon and containerd's shim are. It is proven on runc and crun; where these do not
follow the specification, `known.rs` says so. */

mod bundle;
mod case;
mod cases;
mod ctx;
mod format;
mod known;
mod reaper;
mod runtime;
mod sys;
mod world;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::case::{Case, Fail};
use crate::ctx::Ctx;
use crate::format::{Format, Judgement, Verdict};
use crate::runtime::Runtime;
use crate::world::World;

/// Judges an OCI runtime from the outside.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The runtime to judge
    #[arg(long, value_name = "PATH")]
    runtime: Option<PathBuf>,
    /// An argument that goes before every verb
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    runtime_arg: Vec<String>,
    /// Judge several runtimes and print a table
    #[arg(long, value_name = "NAME=PATH")]
    matrix: Vec<String>,
    /// Only cases whose name contains this; may be repeated
    #[arg(long, value_name = "SUBSTR")]
    filter: Vec<String>,
    /// How results are told
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Also write the table to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Which control groups the runtime is to see
    #[arg(long, value_enum, default_value = "host")]
    cgroups: View,
    /// Count known deviations of runc and crun as failures
    #[arg(long)]
    strict: bool,
    /// Print the cases and the clause each is about
    #[arg(long)]
    list: bool,
}

/// The control groups of the suite's mount namespace.
#[derive(Clone, Copy, ValueEnum)]
enum View {
    /// As the host has them
    Host,
    /// Without cgroup2
    V1,
    /// Only cgroup2
    V2,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match judge_all(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("conformance: {err}");
            ExitCode::from(2)
        }
    }
}

fn judge_all(args: &Args) -> io::Result<bool> {
    let wanted = |case: &Case| args.filter.is_empty() || args.filter.iter().any(|part| case.name().contains(part));
    let cases: Vec<Case> = cases::all().filter(wanted).collect();
    if args.list {
        for case in &cases {
            println!("{:<55} {}", case.name(), case.clause);
        }
        return Ok(true);
    }
    let runtimes = runtimes(args)?;
    if !nix::unistd::geteuid().is_root() {
        return Err(io::Error::other("containers of all kinds are made, so it must run as root"));
    }
    let workshop = Workshop::open(args.cgroups)?;
    let mut tables = Vec::new();
    for (number, runtime) in runtimes.iter().enumerate() {
        let mut judgements = Vec::new();
        args.format.begin(runtime, cases.len());
        for (place, case) in cases.iter().enumerate() {
            if workshop.interrupted()? {
                break;
            }
            let judgement =
                workshop.judge(case, runtime, &format!("cf{}r{number}c{place}", std::process::id()), args.strict)?;
            args.format.tell(place + 1, &judgement);
            judgements.push(judgement);
        }
        args.format.end(runtime, &judgements);
        tables.push((runtime.clone(), judgements));
    }
    if let Some(file) = &args.results {
        fs::write(file, format::markdown(&tables))?;
    }
    if tables.len() > 1 {
        print!("{}", format::table(&tables));
    }
    args.format.close(tables.iter().flat_map(|(_, judgements)| judgements));
    Ok(tables.iter().flat_map(|(_, judgements)| judgements).all(|j| !matches!(j.verdict, Verdict::Failed(_))))
}

fn runtimes(args: &Args) -> io::Result<Vec<Runtime>> {
    let single = args.runtime.iter().map(|path| Runtime::new(None, path, &args.runtime_arg));
    let named = args.matrix.iter().map(|entry| match entry.split_once('=') {
        Some((name, path)) => Runtime::new(Some(name), Path::new(path), &args.runtime_arg),
        None => Err(io::Error::other(format!("--matrix {entry}: should be NAME=PATH"))),
    });
    let all = single.chain(named).collect::<io::Result<Vec<_>>>()?;
    if all.is_empty() {
        return Err(io::Error::other("nothing to judge: give --runtime PATH or --matrix NAME=PATH"));
    }
    Ok(all)
}

/// The place where containers are made: a tmpfs in a mount namespace of the suite's own.
struct Workshop {
    dir: PathBuf,
    probe: PathBuf,
    interrupt: SignalFd,
}

impl Workshop {
    fn open(view: View) -> io::Result<Self> {
        let probe = std::env::current_exe()?.with_file_name("conformance-probe");
        let mut stop = SigSet::empty();
        stop.add(Signal::SIGINT);
        stop.add(Signal::SIGTERM);
        stop.thread_block()?;
        reaper::open()?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        show_cgroups(view)?;
        let dir = std::env::temp_dir().join(format!("conformance-{}", std::process::id()));
        fs::create_dir(&dir)?;
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
        let home = Self {
            probe: dir.join("probe"),
            dir,
            interrupt: SignalFd::with_flags(&stop, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?,
        };
        fs::copy(&probe, &home.probe).map_err(|err| io::Error::other(format!("{}: {err}", probe.display())))?;
        Ok(home)
    }

    fn interrupted(&self) -> io::Result<bool> {
        Ok(self.interrupt.read_signal()?.is_some())
    }

    fn judge(&self, case: &Case, runtime: &Runtime, id: &str, strict: bool) -> io::Result<Judgement> {
        let begun = Instant::now();
        let before = World::now()?;
        let ctx = Ctx::new(runtime, &self.probe, self.dir.join(id), id.to_owned())?;
        let result = (case.run)(&ctx);
        reaper::collect().ok();
        let mut wrongs: Vec<String> = ctx.clean_up();
        match before.leaks(id, &ctx.root) {
            Ok(leaks) => wrongs.extend(leaks.iter().map(|leak| format!("leak: {leak}"))),
            Err(Fail::Failed(why) | Fail::Skipped(why)) => wrongs.push(why),
        }
        if !wrongs.is_empty()
            && let Err(Fail::Failed(why) | Fail::Skipped(why)) = before.scrub(id)
        {
            wrongs.push(why);
        }
        reaper::forget().ok();
        fs::remove_dir_all(&ctx.dir)?;
        let verdict = match (result, wrongs.is_empty()) {
            (Ok(()), true) => Verdict::Passed,
            (Err(Fail::Skipped(why)), true) => Verdict::Skipped(why),
            (Err(Fail::Failed(why)), true) => Verdict::Failed(why),
            (Err(Fail::Failed(why)), false) => Verdict::Failed(format!("{why}; then {}", wrongs.join("; "))),
            (_, false) => Verdict::Failed(wrongs.join("; ")),
        };
        let verdict = if strict { verdict } else { known::excuse(case, runtime, verdict) };
        Ok(Judgement { case: *case, verdict, time: begun.elapsed() })
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        umount2(&self.dir, MntFlags::MNT_DETACH).ok();
        fs::remove_dir(&self.dir).ok();
    }
}

/// Nothing of this is seen outside of the suite's mount namespace.
fn show_cgroups(view: View) -> io::Result<()> {
    match view {
        View::Host => {}
        View::V1 => {
            if Path::new("/sys/fs/cgroup/unified").exists() {
                umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH)?;
            }
        }
        // Mounted once more, it would lose options of the host's mount, which has the same superblock (nsdelegate).
        View::V2 if statfs("/sys/fs/cgroup")?.filesystem_type() == CGROUP2_SUPER_MAGIC => {}
        View::V2 => {
            umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH)?;
            mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), None::<&str>)?;
        }
    }
    File::open("/sys/fs/cgroup").map(drop)
}
