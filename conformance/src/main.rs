/*! `conformance --runtime PATH`: judges an OCI runtime from the outside.

The suite works in a directory that goes away with it, and is the reaper of every process the runtime leaves to its caller,
as conmon and containerd's shim are. It is proven on runc and crun; where these do not follow the specification, `known.rs`
says so. */

mod bundle;
mod case;
mod cases;
mod ctx;
mod format;
mod known;
mod reaper;
mod runtime;
mod sys;
mod system;
mod world;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use nix::sys::signal::Signal;

use crate::bundle::Probe;
use crate::case::{Case, Fail};
use crate::ctx::Ctx;
use crate::format::{Format, Judgement, Verdict};
use crate::runtime::Runtime;
use crate::system::{Signals, View, Workshop};
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
    let judge = Judge::new(args.cgroups)?;
    let mut tables = Vec::new();
    for (number, runtime) in runtimes.iter().enumerate() {
        let mut judgements = Vec::new();
        args.format.begin(runtime, cases.len());
        for (place, case) in cases.iter().enumerate() {
            if judge.interrupt.came()? {
                break;
            }
            let judgement =
                judge.judge(case, runtime, &format!("cf{}r{number}c{place}", std::process::id()), args.strict)?;
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

/// What all cases share.
struct Judge {
    workshop: Workshop,
    probe: Probe,
    interrupt: Signals,
}

impl Judge {
    fn new(view: View) -> io::Result<Self> {
        let interrupt = Signals::of(&[Signal::SIGINT, Signal::SIGTERM])?;
        reaper::open()?;
        let workshop = Workshop::open(view)?;
        let probe = Probe::new(&workshop.dir)?;
        Ok(Self { workshop, probe, interrupt })
    }

    fn judge(&self, case: &Case, runtime: &Runtime, id: &str, strict: bool) -> io::Result<Judgement> {
        let begun = Instant::now();
        let before = World::now()?;
        let ctx = Ctx::new(runtime, &self.probe, self.workshop.dir.join(id), id.to_owned())?;
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
