#![expect(clippy::disallowed_methods, reason = "the bench starts runtimes and removes its own scratch folder")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, thread};

use serde_json::{Value, json};

use crate::view::{View, wait_for};

pub(crate) type Res<T> = Result<T, Box<dyn std::error::Error>>;

const ID: &str = "life";
const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");
const TMP: &str = env!("CARGO_TARGET_TMPDIR");

struct Runtime {
    name: String,
    program: PathBuf,
    /// Global options.
    options: Vec<String>,
    version: String,
    /// Given on the command line, so it must work.
    required: bool,
}

struct Bundle {
    name: String,
    /// The same bundle twice: with `sleep` for create, with `true` for run.
    sleep: PathBuf,
    run: PathBuf,
}

/// One command.
#[derive(Clone, Copy)]
struct Sample {
    wall_ms: f64,
    cpu_ms: f64,
    rss_kib: f64,
}

/// create, start, delete, run of one runtime in one round.
type Turn = [Sample; 4];

#[derive(Default)]
struct Options {
    rounds: usize,
    json: Option<PathBuf>,
    potrun: Option<PathBuf>,
    runtimes: Vec<(String, PathBuf)>,
    bundles: Vec<(String, PathBuf)>,
    pot_bundle: Option<PathBuf>,
    neighbours: usize,
}

impl Options {
    fn parse() -> Res<Self> {
        let mut options = Self { rounds: 60, neighbours: 1, ..Self::default() };
        let mut args = env::args().skip(1);
        while let Some(arg) = args.next() {
            if arg == "--bench" {
                continue; // cargo says it
            }
            let value = args.next().ok_or_else(|| format!("{arg}: needs a value, or is unknown"))?;
            match arg.as_str() {
                "-n" => options.rounds = value.parse()?,
                "--json" => options.json = Some(value.into()),
                "--potrun" => options.potrun = Some(value.into()),
                "--runtime" => options.runtimes.push(named(&value)?),
                "--bundle" => options.bundles.push(named(&value)?),
                "--neighbours" => options.neighbours = value.parse()?,
                "--pot-bundle" => options.pot_bundle = Some(value.into()),
                _ => return Err(format!("{arg}: no such option").into()),
            }
        }
        if options.rounds == 0 {
            return Err("-n: needs at least one round".into());
        }
        Ok(options)
    }
}

fn named(value: &str) -> Res<(String, PathBuf)> {
    let (name, path) = value.split_once('=').ok_or_else(|| format!("{value}: NAME=PATH is expected"))?;
    Ok((name.to_owned(), path.into()))
}

struct Bench {
    scratch: PathBuf,
    bound: PathBuf,
    view: View,
}

impl Bench {
    /// Runs one verb under `bound time`.
    fn verb(&self, runtime: &Runtime, args: &[&str]) -> Res<Sample> {
        let stderr = self.scratch.join("stderr");
        let child = Command::new(&self.bound)
            .arg("time")
            .arg(&runtime.program)
            .args(["--root".as_ref(), self.state(runtime).as_os_str()])
            .args(&runtime.options)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr)?)
            .spawn()?;
        let timed = wait_for(child.id())?;
        let mut said = String::new();
        child.stdout.ok_or("no pipe")?.read_to_string(&mut said)?;
        let numbers = said.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        match numbers[..] {
            [wall, cpu, rss_kib, 0.0] if timed => Ok(Sample { wall_ms: wall / 1e6, cpu_ms: cpu / 1e3, rss_kib }),
            _ => {
                let stderr = fs::read_to_string(&stderr)?;
                Err(format!(
                    "{} {} failed: {} (times and wait status: {})",
                    runtime.name,
                    args.join(" "),
                    stderr.trim(),
                    said.trim()
                )
                .into())
            }
        }
    }

    fn state(&self, runtime: &Runtime) -> PathBuf {
        self.scratch.join("state").join(&runtime.name)
    }

    fn turn(&self, runtime: &Runtime, bundle: &Bundle) -> Res<Turn> {
        let sleep = bundle.sleep.to_string_lossy();
        let run = bundle.run.to_string_lossy();
        fs::create_dir_all(self.state(runtime))?;
        let create = self.verb(runtime, &["create", "--bundle", &sleep, ID])?;
        let start = self.verb(runtime, &["start", ID])?;
        // Else the checks below would check nothing.
        if fs::read_to_string(self.view.cgroup().join(ID).join("cgroup.procs")).unwrap_or_default().is_empty() {
            return Err(format!("{}: nothing runs in the container's cgroup", runtime.name).into());
        }
        let delete = self.verb(runtime, &["delete", "--force", ID])?;
        self.nothing_left(runtime)?;
        let run = self.verb(runtime, &["run", "--bundle", &run, ID])?;
        self.nothing_left(runtime)?;
        Ok([create, start, delete, run])
    }

    /// Pots that have the bridge already, and keep it: the first one of a host and the last one pay for more.
    fn neighbours(&self, potrun: &[&Runtime], rootfs: &Path, which: Range<usize>) -> Res<()> {
        let mut config = pot_config(&json!({"network": {"type": "public-bridge"}}));
        config["process"]["args"] = json!(["/bin/sleep", "100000"]);
        config["root"]["path"] = json!(rootfs);
        let dir = self.scratch.join("bundles/neighbour");
        fs::create_dir_all(&dir)?;
        for runtime in potrun {
            fs::create_dir_all(self.state(runtime))?;
            for n in which.clone() {
                let name = format!("neighbour{n}");
                config["linux"]["cgroupsPath"] = json!(format!("/{}/{name}", self.view.name));
                fs::write(dir.join("config.json"), config.to_string())?;
                self.verb(runtime, &["create", "--bundle", &dir.to_string_lossy(), &name])?;
            }
        }
        Ok(())
    }

    fn nothing_left(&self, runtime: &Runtime) -> Res<()> {
        for path in [self.view.cgroup().join(ID), self.state(runtime).join(ID)] {
            if path.try_exists()? {
                return Err(format!("{}: left {}", runtime.name, path.display()).into());
            }
        }
        Ok(())
    }

    /// The runtimes that can run the bundle, each with its turns.
    fn table<'a>(
        &self,
        bundle: &Bundle,
        runtimes: &[&'a Runtime],
        rounds: usize,
    ) -> Res<Vec<(&'a Runtime, Vec<Turn>)>> {
        let mut rows = Vec::new();
        for &runtime in runtimes {
            match self.turn(runtime, bundle) {
                Ok(_) => rows.push((runtime, Vec::new())),
                Err(error) if runtime.required => return Err(error),
                Err(error) => {
                    eprintln!("SKIPPED: {}: {error}", bundle.name);
                    self.view.clear()?;
                }
            }
        }
        let count = rows.len();
        for round in 0..rounds {
            for turn in 0..count {
                let (runtime, turns) = &mut rows[(round + turn) % count];
                turns.push(self.turn(runtime, bundle)?);
            }
        }
        Ok(rows)
    }
}

/// The configuration that `runc spec` writes, with a cgroup namespace.
fn plain_config() -> Value {
    let caps = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities":
                {"bounding": caps, "effective": caps, "permitted": caps, "inheritable": caps, "ambient": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"readonly": true},
        "hostname": "life",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "cgroup"}],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// What a network costs is the difference to the first of these, by how many pots are on the bridge already.
fn networks(neighbours: usize) -> Vec<(String, Value, usize)> {
    let inherit = json!({"network": {"type": "inherit"}});
    let bridge = json!({"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80, "hostPort": 8080}]});
    let mut all = vec![("network inherit".to_string(), inherit, 0)];
    for count in BTreeSet::from([0, 1, neighbours]) {
        all.push((format!("public-bridge, one exported port, beside {count}"), bridge.clone(), count));
    }
    all
}

/// The plain configuration as a pot whose network the pot section says.
fn pot_config(pot: &Value) -> Value {
    let mut config = plain_config();
    config["pot"] = pot.clone();
    let namespaces = config["linux"]["namespaces"].as_array_mut();
    namespaces.into_iter().for_each(|all| all.retain(|one| one["type"] != "network"));
    config
}

/// A root file system of one static program.
fn plain_rootfs(scratch: &Path) -> Res<PathBuf> {
    let rootfs = scratch.join("rootfs");
    for dir in ["bin", "dev", "proc", "sys"] {
        fs::create_dir_all(rootfs.join(dir))?;
    }
    let busybox = in_path("busybox").ok_or("no busybox (apt-get install busybox-static)")?;
    fs::copy(busybox, rootfs.join("bin/busybox"))?;
    for name in ["sh", "sleep", "true"] {
        symlink("busybox", rootfs.join("bin").join(name))?;
    }
    Ok(rootfs)
}

/// Writes the two bundles of a configuration. A pot with a base has no rootfs of its own.
fn bundle(scratch: &Path, name: &str, config: &Value, rootfs: Option<&Path>, view: &View) -> Res<Bundle> {
    let write = |kind: &str, args: &[&str]| -> Res<PathBuf> {
        let dir = scratch.join("bundles").join(name).join(kind);
        fs::create_dir_all(&dir)?;
        let mut config = config.clone();
        config["process"]["args"] = json!(args);
        config["process"]["terminal"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(format!("/{}/{ID}", view.name));
        if let Some(rootfs) = rootfs {
            // The path for runtimes, which want no link, and the link for the bound, which reads no configuration.
            config["root"]["path"] = json!(rootfs);
            symlink(rootfs, dir.join("rootfs"))?;
        }
        fs::write(dir.join("config.json"), config.to_string())?;
        Ok(dir)
    };
    Ok(Bundle {
        name: name.to_owned(),
        sleep: write("sleep", &["/bin/sleep", "1000"])?,
        run: write("run", &["/bin/true"])?,
    })
}

fn in_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn version(program: &Path) -> String {
    let first_line = |out: &[u8]| String::from_utf8_lossy(out).lines().next().map(str::to_owned);
    Command::new(program).arg("--version").output().ok().and_then(|o| first_line(&o.stdout)).unwrap_or_default()
}

fn runtimes(options: &Options, bound: &Path, view: &View) -> Vec<Runtime> {
    let new = |name: &str, program: PathBuf, required| {
        let version = version(&program);
        Runtime { name: name.to_owned(), program, options: Vec::new(), version, required }
    };
    let mut all = Vec::new();
    let built = option_env!("CARGO_BIN_EXE_potrun").map(PathBuf::from);
    match options.potrun.clone().or(built) {
        Some(program) => all.push(new("potrun", program, true)),
        None => eprintln!("SKIPPED: potrun: not built, and no --potrun"),
    }
    for name in ["crun", "runc"] {
        let fetched = PathBuf::from(format!("{PACKAGE}/target/bench-tools/{name}"));
        match fetched.is_file().then_some(fetched).or_else(|| in_path(name)) {
            Some(program) => all.push(new(name, program, false)),
            None => eprintln!("SKIPPED: {name}: neither fetched (bench/peers.sh) nor installed"),
        }
    }
    all.extend(options.runtimes.iter().map(|(name, program)| new(name, program.clone(), true)));
    let options = vec!["--cgroup".to_owned(), view.cgroup().to_string_lossy().into_owned()];
    let version = "what the kernel must be asked to do".to_owned();
    all.push(Runtime { name: "bound".to_owned(), program: bound.to_owned(), options, version, required: true });
    all
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

fn lifetime(turn: &Turn, of: impl Fn(&Sample) -> f64) -> f64 {
    turn[..3].iter().map(of).sum()
}

fn row(runtime: &Runtime, turns: &[Turn]) -> String {
    let cell = |of: &dyn Fn(&Turn) -> f64| {
        let min = turns.iter().map(of).fold(f64::INFINITY, f64::min);
        format!("{:.1}/{min:.1}", median(turns.iter().map(of)))
    };
    let wall = |verb: usize| cell(&move |turn| turn[verb].wall_ms);
    let rss = turns.iter().flat_map(|turn| &turn[..3]).map(|sample| sample.rss_kib).fold(0.0, f64::max);
    let cpu = median(turns.iter().map(|turn| lifetime(turn, |sample| sample.cpu_ms)));
    let total = cell(&|turn| lifetime(turn, |sample| sample.wall_ms));
    format!(
        "| {} | {} | {} | {} | **{total}** | {} | {rss} | {cpu:.1} |",
        runtime.name,
        wall(0),
        wall(1),
        wall(2),
        wall(3)
    )
}

fn machine() -> Res<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    Ok(format!(
        "Linux {} {}, {} cores, load {load}",
        kernel.trim(),
        env::consts::ARCH,
        thread::available_parallelism()?
    ))
}

pub(crate) fn main() -> Res<()> {
    let options = Options::parse()?;
    let machine = machine()?;
    let command = env::args().skip(1).filter(|arg| arg != "--bench").collect::<Vec<_>>().join(" ");

    let scratch = Path::new(TMP).join("life");
    if scratch.try_exists()? {
        fs::remove_dir_all(&scratch)?;
    }
    fs::create_dir_all(&scratch)?;
    let bound = scratch.join("bound");
    let cc = Command::new("cc")
        .args(["-O2", "-static", "-o"])
        .arg(&bound)
        .arg(format!("{PACKAGE}/bench/bound.c"))
        .status()?;
    if !cc.success() {
        return Err("bound.c does not compile".into());
    }

    let bench = Bench { view: View::enter(&scratch)?, scratch, bound };
    let runtimes = runtimes(&options, &bench.bound, &bench.view);
    let rootfs = plain_rootfs(&bench.scratch)?;

    let plain = bundle(&bench.scratch, "plain", &plain_config(), Some(&rootfs), &bench.view)?;
    let mut tables = vec![(plain, runtimes.iter().collect::<Vec<_>>(), 0)];
    for (name, dir) in &options.bundles {
        let config = serde_json::from_reader(File::open(dir.join("config.json"))?)?;
        let own = dir.join("rootfs").canonicalize().ok();
        let bundle = bundle(&bench.scratch, name, &config, Some(own.as_deref().unwrap_or(&rootfs)), &bench.view)?;
        tables.push((bundle, runtimes.iter().filter(|runtime| runtime.name != "bound").collect(), 0));
    }
    if let Some(dir) = &options.pot_bundle {
        let config = serde_json::from_reader(File::open(dir.join("config.json"))?)?;
        let bundle = bundle(&bench.scratch, "pot", &config, None, &bench.view)?;
        tables.push((bundle, runtimes.iter().filter(|runtime| runtime.name == "potrun").collect(), 0));
    }

    let potrun: Vec<&Runtime> = runtimes.iter().filter(|runtime| runtime.name == "potrun").collect();
    for (name, pot, neighbours) in networks(options.neighbours) {
        let bundle = bundle(&bench.scratch, &name, &pot_config(&pot), Some(&rootfs), &bench.view)?;
        tables.push((bundle, potrun.clone(), neighbours));
    }

    let mut report = Vec::new();
    let mut there = 0;
    println!(
        "`cargo bench --bench life -- {command}` on {machine}; milliseconds, median/minimum of {}\n",
        options.rounds
    );
    for (bundle, runtimes, neighbours) in &tables {
        bench.neighbours(&potrun, &rootfs, there..*neighbours)?;
        there = there.max(*neighbours);
        let rows = bench.table(bundle, runtimes, options.rounds)?;
        println!("Bundle: {}\n", bundle.name);
        println!(
            "| runtime | create | start | delete -f | TOTAL | run true | max RSS KiB (3 verbs) | CPU u+s (3 verbs) |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        for (runtime, turns) in &rows {
            println!("{}", row(runtime, turns));
            let samples = ["create", "start", "delete", "run"].iter().enumerate().map(|(verb, name)| {
                let column = |of: fn(&Sample) -> f64| turns.iter().map(|turn| of(&turn[verb])).collect::<Vec<_>>();
                let (wall, cpu, rss) = (column(|s| s.wall_ms), column(|s| s.cpu_ms), column(|s| s.rss_kib));
                ((*name).to_owned(), json!({"wall_ms": wall, "cpu_ms": cpu, "rss_kib": rss}))
            });
            report.push(json!({"bundle": bundle.name, "runtime": runtime.name, "version": runtime.version,
                "verbs": samples.collect::<serde_json::Map<_, _>>()}));
        }
        println!();
    }
    for runtime in &runtimes {
        println!("- {}: {}", runtime.name, runtime.version);
    }
    if let Some(path) = &options.json {
        let all = json!({"machine": machine, "command": command, "rounds": options.rounds, "results": report});
        writeln!(File::create(path)?, "{all:#}")?;
    }
    Ok(())
}
