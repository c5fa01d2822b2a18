//! What an import of a large archive costs, beside tar(1) on the same disk.
//!
//!     cargo bench --bench import -- [-n ROUNDS] [--potrun PATH] [--megabytes N] [--dir DIR]
//!
//! The archive (200 MB of tar.gz where nothing is said, of files between 1 KiB and 1 MiB that compress to half) is read
//! before the first round, so that it comes from memory for both. The two take turns within every round, and who begins
//! changes from round to round. tar is given both ways: as it is, which does not wait for the disk, against an import that
//! does not either; and with a sync(1) of the file system, which a base always gets.

#![expect(clippy::disallowed_methods, reason = "the bench starts programs and removes its own directory")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

type Res<T> = Result<T, Box<dyn std::error::Error>>;

struct Options {
    rounds: usize,
    potrun: PathBuf,
    megabytes: u64,
    dir: PathBuf,
}

fn options() -> Res<Options> {
    let mut options = Options {
        rounds: 5,
        potrun: env!("CARGO_BIN_EXE_potrun").into(),
        megabytes: 200,
        dir: env!("CARGO_TARGET_TMPDIR").into(),
    };
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "-n" => options.rounds = value.parse()?,
            "--potrun" => options.potrun = value.into(),
            "--megabytes" => options.megabytes = value.parse()?,
            "--dir" => options.dir = value.into(),
            _ => return Err(format!("no option {name}").into()),
        }
    }
    Ok(options)
}

/// The next number of a row that is the same every time (xorshift, Marsaglia 2003).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Writes the archive: its bytes are letters, which gzip makes half as many of.
fn archive(path: &Path, megabytes: u64) -> Res<()> {
    let mut gzip = Command::new("gzip").arg("-1").stdin(Stdio::piped()).stdout(File::create(path)?).spawn()?;
    let mut builder = tar::Builder::new(gzip.stdin.take().ok_or("gzip has no stdin")?);
    let mut state = 88_172_645_463_325_252;
    let (mut left, mut n) = (megabytes * 1_000_000 * 2, 0_u64);
    while left > 0 {
        let size = (1024 << (next(&mut state) % 11)).min(left);
        let mut text = Vec::with_capacity(usize::try_from(size)?);
        while (text.len() as u64) < size {
            text.extend(next(&mut state).to_le_bytes().iter().map(|byte| b'a' + byte % 16));
        }
        text.truncate(usize::try_from(size)?);
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("d{}/f{n}", n % 100), text.as_slice())?;
        (left, n) = (left - size, n + 1);
    }
    builder.into_inner()?.flush()?;
    if !gzip.wait()?.success() {
        return Err("gzip has failed".into());
    }
    println!("{n} files, {} MB of tar.gz", fs::metadata(path)?.len() / 1_000_000);
    Ok(())
}

/// Seconds that a command takes.
fn timed(command: &mut Command) -> Res<f64> {
    let start = Instant::now();
    let done = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    let seconds = start.elapsed().as_secs_f64();
    if !done.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr)).into());
    }
    Ok(seconds)
}

fn measure(options: &Options, dir: &Path) -> Res<()> {
    let file = dir.join("a.tar.gz");
    archive(&file, options.megabytes)?;
    Command::new("sync").status()?;
    File::open(&file)?.read_to_end(&mut Vec::new())?;
    let (store, tree) = (dir.join("store"), dir.join("tree"));
    let import = |sync: bool| -> Res<f64> {
        let potrun = || {
            let mut command = Command::new(&options.potrun);
            command.arg("--root").arg(dir.join("root")).arg("--store").arg(&store).arg("base");
            command
        };
        let mut command = potrun();
        command.args(["import", "big"]).arg(&file).args((!sync).then_some("--no-sync"));
        let seconds = timed(&mut command)?;
        timed(potrun().args(["rm", "big"]))?;
        Ok(seconds)
    };
    let tar = |sync: bool| -> Res<f64> {
        fs::create_dir(&tree)?;
        let script = if sync { "tar -xzf \"$1\" && sync -f ." } else { "tar -xzf \"$1\"" };
        let seconds = timed(Command::new("sh").args(["-c", script, "sh"]).arg(&file).current_dir(&tree))?;
        fs::remove_dir_all(&tree)?;
        Ok(seconds)
    };
    println!("{:>20} {:>12} {:>12} {:>22}", "", "tar [s]", "import [s]", "ratio median (all)");
    for sync in [false, true] {
        let (mut tars, mut imports, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=options.rounds {
            Command::new("sync").status()?;
            let (a, b) = if round % 2 == 0 {
                let a = tar(sync)?;
                Command::new("sync").status()?;
                (a, import(sync)?)
            } else {
                let b = import(sync)?;
                Command::new("sync").status()?;
                (tar(sync)?, b)
            };
            // The first round warms up.
            if round > 0 {
                tars.push(a);
                imports.push(b);
                ratios.push(b / a);
            }
        }
        for all in [&mut tars, &mut imports, &mut ratios] {
            all.sort_by(f64::total_cmp);
        }
        let middle = options.rounds / 2;
        let (a, b, ratio) = (tars[middle], imports[middle], ratios[middle]);
        let all: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let name = if sync { "with sync" } else { "without sync" };
        println!("{name:>20} {a:>12.2} {b:>12.2} {ratio:>22.2} ({})", all.join(" "));
    }
    Ok(())
}

fn main() -> Res<()> {
    let options = options()?;
    if options.rounds == 0 {
        return Err("no rounds".into());
    }
    let dir = options.dir.join(format!("import-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let done = measure(&options, &dir);
    fs::remove_dir_all(&dir)?;
    done
}
