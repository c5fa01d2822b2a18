//! Every step of every bundle fails, or potrun dies before it, after it, or while it writes the journal; then the
//! machine is compared with how it was.
//!
//! Plans are carried out on [`Fake`], for both systems, by the very loops of `apply.rs` and with a real journal file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use potrun::apply::{apply, take_back};
use potrun::bundle::Bundle;
use potrun::facts::{Facts, Manager, Os, Store};
use potrun::host::fake::{Cgroup, Dataset, Fake, Fault, Jail, Link, LinkKind, Machine, Net, until_death};
use potrun::host::storage::Left;
use potrun::id::ContainerId;
use potrun::journal::Journal;
use potrun::op::{Op, Spawn};
use potrun::plan::clone::{Layer, MAX_LAYERS, clone};
use potrun::plan::{Plan, plan};

/// One bundle on one system.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bundle: Bundle,
    pub(crate) facts: Facts,
    pub(crate) plan: Plan,
    /// The machine before anything was done.
    pub(crate) before: Machine,
}

const PROCESS: &str = r#""process": {"user": {"uid": 1000, "gid": 1000, "additionalGids": [7]}, "cwd": "/srv",
    "args": ["/bin/serve", "-f"], "env": ["PATH=/bin"], "noNewPrivileges": true,
    "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}]}"#;

/// Bundles beside those of `bundles/`: name and members of config.json besides version and process.
const BUNDLES: &[(&str, &str)] = &[
    (
        "plain-linux",
        r#""root": {"path": "rootfs", "readonly": true}, "hostname": "web", "domainname": "example.org",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                   {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                   {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"]},
                   {"destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind", "ro"]}],
        "hooks": {"prestart": [{"path": "/h/p"}], "createRuntime": [{"path": "/h/r"}],
                  "createContainer": [{"path": "/h/c"}], "startContainer": [{"path": "/h/s"}],
                  "poststart": [{"path": "/h/ps"}], "poststop": [{"path": "/h/pp"}]},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network"}, {"type": "uts"},
                                 {"type": "ipc"}, {"type": "cgroup"}],
                  "cgroupsPath": "/engine/web1",
                  "resources": {"memory": {"limit": 67108864}, "pids": {"limit": 32}, "unified": {"cpu.weight": "50"}},
                  "sysctl": {"net.ipv4.ip_forward": "1"}, "personality": {"domain": "LINUX"},
                  "maskedPaths": ["/proc/kcore"],
                  "readonlyPaths": ["/proc/sys"],
                  "seccomp": {"defaultAction": "SCMP_ACT_ERRNO",
                              "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"}]}}"#,
    ),
    (
        "plain-freebsd",
        r#""root": {"path": "rootfs"}, "hostname": "web",
        "mounts": [{"destination": "/dev", "type": "devfs", "source": "devfs"},
                   {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]},
                   {"destination": "/data", "type": "nullfs", "source": "/srv/data", "options": ["ro"]}],
        "hooks": {"prestart": [{"path": "/h/p"}], "createRuntime": [{"path": "/h/r"}],
                  "createContainer": [{"path": "/h/c"}], "startContainer": [{"path": "/h/s"}]},
        "freebsd": {"jail": {"vnet": "new", "vnetInterfaces": ["em1"]}}"#,
    ),
    (
        "confined-linux",
        r#""process": {"user": {"uid": 1000, "gid": 1000}, "cwd": "/", "args": ["/bin/serve"], "noNewPrivileges": true,
                    "apparmorProfile": "engine-default", "selinuxLabel": "u:r:pot_t"},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"}],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "network"}], "mountLabel": "u:r:file_t",
                  "maskedPaths": ["/sys/firmware"], "netDevices": {"ib0": {}, "ib1": {"name": "lan0"}},
                  "intelRdt": {"l3CacheSchema": "L3:0=f", "enableMonitoring": true}}"#,
    ),
    (
        "scope-linux",
        r#""root": {"path": "rootfs"},
        "linux": {"namespaces": [{"type": "mount"}], "cgroupsPath": "machine.slice:engine:web1",
                  "resources": {"memory": {"limit": 67108864}, "pids": {"limit": 32}}}"#,
    ),
    ("base", r#""pot": {"base": {"release": "14.3-RELEASE"}}"#),
    (
        "volumes",
        r#""root": {"path": "", "readonly": true}, "hostname": "db",
        "pot": {"base": {"release": "14.3-RELEASE"}, "dns": {"nameservers": ["192.0.2.1"]},
                "hosts": [{"name": "peer", "address": "192.0.2.7"}],
                "fscomps": [{"name": "data", "destination": "/var/db"}, {"name": "www", "destination": "/www"},
                            {"name": "log", "destination": "/var/log"}, {"name": "etc", "destination": "/usr/etc"},
                            {"name": "more", "destination": "/www/more", "readonly": true}],
                "directories": [{"source": "/srv/one", "destination": "/one"},
                                {"source": "/srv/two", "destination": "/two", "readonly": true},
                                {"source": "/srv/three", "destination": "/three"}]}"#,
    ),
    (
        "datasets",
        r#""pot": {"base": {"release": "14.3-RELEASE"},
                "datasets": [{"dataset": "tank/mail", "destination": "/mail"}]}"#,
    ),
    ("inherit", r#""root": {"path": "rootfs"}, "pot": {"network": {"type": "inherit"}, "dns": "inherit"}"#),
    (
        "alias",
        r#""pot": {"base": {"release": "14.3-RELEASE"},
                "network": {"type": "alias", "stack": "dual", "addresses": ["192.0.2.9", "em1|2001:db8::9"]}}"#,
    ),
    (
        "public",
        r#""pot": {"base": {"release": "14.3-RELEASE"}, "network": {"type": "public-bridge", "stack": "dual"},
                "exportedPorts": [{"port": 80, "hostPort": 8080}, {"port": 53, "protocol": "udp"}]},
        "hooks": {"createRuntime": [{"path": "/h/r"}]}"#,
    ),
    (
        "private",
        r#""pot": {"base": {"release": "14.3-RELEASE"}, "network": {"type": "private-bridge", "bridge": "backend"},
                "limits": {"memory": "512m", "cpus": 1.5, "cpuset": "0-1", "pids": 100}}"#,
    ),
];

pub(crate) fn id(text: &str) -> ContainerId {
    ContainerId::new(text).unwrap()
}

fn text_of(members: &str) -> String {
    let process = if members.contains(r#""process":"#) { String::new() } else { format!("{PROCESS}, ") };
    format!(r#"{{"ociVersion": "1.3.0", {process}{members}}}"#)
}

/// All bundles: those of the project, and those above.
pub(crate) fn bundles() -> Vec<(String, Bundle)> {
    let mut all = Vec::new();
    let listing = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("bundles"));
    let mut dirs: Vec<PathBuf> = listing.into_iter().flatten().map(|item| item.unwrap().path()).collect();
    dirs.sort();
    for dir in dirs.iter().filter(|dir| dir.join("config.json").exists()) {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        all.push((name, Bundle::read(dir).unwrap()));
    }
    for (name, members) in BUNDLES {
        let bundle = Bundle::parse("/bundle".into(), text_of(members).into_bytes());
        all.push(((*name).to_string(), bundle.unwrap_or_else(|e| panic!("{name}: {e}"))));
    }
    all
}

/// Every bundle on every system that takes it.
pub(crate) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (name, bundle) in bundles() {
        let mut refusals = String::new();
        for os in [Os::Linux, Os::Freebsd] {
            match case(&name, &bundle, os, &id("web1")) {
                Ok(case) => all.push(case),
                Err(refusal) => refusals.push_str(&format!("\n{os}: {refusal}")),
            }
        }
        if bundle.pot.as_ref().is_some_and(|pot| pot.base.is_some()) {
            let facts = Facts::assumed(Os::Linux, &bundle).kept_in(Store::of_pot(), &bundle);
            let case = planned(format!("{name} on datasets of linux"), &bundle, facts, &id("web1"));
            all.push(case.unwrap_or_else(|refusal| panic!("{name} on datasets of linux: {refusal}")));
        }
        assert!(all.iter().any(|case: &Case| case.bundle.config == bundle.config), "{name} is for nobody: {refusals}");
    }
    all
}

/// The layer of a pot, as `clone` finds it.
fn layer(machine: &Machine, path: &Path, still: bool) -> Layer {
    let layers = machine.lies_on.get(path).cloned().unwrap_or_default();
    let empty = !machine.files.keys().any(|file| file.starts_with(path));
    Layer { path: path.into(), number: machine.shared.len() as u64 + 7, layers, empty, still }
}

/// The steps of a clone of the layer of `from` for `new`.
fn cloning(case: &Case, machine: &Machine, from: &str, still: bool, new: &str) -> Vec<Op> {
    let (new, base) = (id(new), &case.bundle.pot.as_ref().unwrap().base.as_ref().unwrap().release);
    let owner = case.facts.state.join(new.as_str());
    let left = Left { id: &new, owner: &owner, base, disk: None };
    clone(Path::new(STORE), &layer(machine, &pot_of(from), still), &left)
}

/// The store of a Linux that is assumed.
const STORE: &str = "/var/lib/potrun";

fn pot_of(id: &str) -> PathBuf {
    Path::new(STORE).join("pots").join(id)
}

/// Clones of pots that were created and have ended: of one with changes that is still, of one that is mounted, of one that
/// has nothing of its own any more, of one with as many layers below it as there may be; and a container for a clone.
pub(crate) fn clones() -> Vec<Case> {
    let mut all = Vec::new();
    // Their steps are the same, whatever else a pot has.
    for case in cases().into_iter().filter(|case| ["base on linux", "public on linux"].contains(&case.name.as_str())) {
        let paper = Paper::new();
        let mut written = ended(&case, &case.before, &paper);
        written.files.insert(pot_of("web1").join("upper/own"), "1".into());
        let of = |what: &str, before: &Machine, still: bool, new: &str| Case {
            name: format!("a clone of {}, {what}", case.name),
            bundle: case.bundle.clone(),
            facts: case.facts.clone(),
            plan: Plan { ops: cloning(&case, before, "web1", still, new), ..case.plan.clone() },
            before: before.clone(),
        };
        all.push(of("mounted", &written, false, "web2"));
        let still = of("still", &written, true, "web2");
        let cloned = ended(&still, &written, &Paper::new());
        all.push(still);
        all.push(of("empty", &cloned, true, "web3"));
        let mut on_many = cloned.clone();
        let many: Vec<PathBuf> = (0..MAX_LAYERS).map(|n| Path::new(STORE).join("layers").join(n.to_string())).collect();
        on_many.shared.extend(many.iter().cloned());
        on_many.lies_on.insert(pot_of("web1"), many);
        on_many.files.insert(pot_of("web1").join("upper/own"), "2".into());
        all.push(of("on many", &on_many, true, "web3"));
        // When the first is gone a container takes the clone up: not for the first time, so what create writes is there.
        let base = case.bundle.pot.as_ref().unwrap().base.as_ref().unwrap().release.clone();
        let facts = Facts { kept: Some(base), layers: cloned.lies_on[&pot_of("web2")].clone(), ..case.facts.clone() };
        let mut container = planned(format!("the clone of {}", case.name), &case.bundle, facts, &id("web2")).unwrap();
        let mut host = Fake::new(cloned);
        assert!(take_back(&mut host, &mut paper.open()).is_empty());
        let once = Paper::new();
        let mut host = Fake::new(ended(&container, &host.machine, &once));
        assert!(take_back(&mut host, &mut once.open()).is_empty());
        container.before = host.machine;
        all.push(container);
    }
    assert_eq!(all.len(), 10);
    all
}

/// Everything that is carried out.
fn everything() -> Vec<Case> {
    cases().into_iter().chain(clones()).collect()
}

pub(crate) fn case(name: &str, bundle: &Bundle, os: Os, id: &ContainerId) -> Result<Case, potrun::bundle::Refusal> {
    let mut facts = Facts::assumed(os, bundle);
    if let Some(cgroup) = facts.cgroup.as_mut().filter(|_| name == "scope-linux") {
        cgroup.systemd = Some(Manager::System);
    }
    planned(format!("{name} on {os}"), bundle, facts, id)
}

pub(crate) fn planned(
    name: String,
    bundle: &Bundle,
    facts: Facts,
    id: &ContainerId,
) -> Result<Case, potrun::bundle::Refusal> {
    let plan = plan(bundle, &facts, id)?;
    let before = Machine::of(&facts, bundle);
    Ok(Case { name, bundle: bundle.clone(), facts, plan, before })
}

/// A journal file that goes with its test.
pub(crate) struct Paper(PathBuf);

impl Paper {
    pub(crate) fn new() -> Self {
        static N: AtomicU32 = AtomicU32::new(0);
        let n = N.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("potrun-faults-{}-{n}", std::process::id())))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn open(&self) -> Journal {
        Journal::open(&self.0).unwrap()
    }

    pub(crate) fn read(&self) -> Vec<u8> {
        fs::read(&self.0).unwrap()
    }

    pub(crate) fn write(&self, text: &[u8]) {
        fs::write(&self.0, text).unwrap();
    }
}

impl Drop for Paper {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

/// How many faults a test has tried, told at its end (`--nocapture`).
#[derive(Default)]
struct Tried(BTreeMap<String, usize>);

impl Tried {
    fn one(&mut self, case: &str) {
        *self.0.entry(case.into()).or_default() += 1;
    }

    /// Every case must have had one at least: a test that tried nothing has shown nothing.
    fn tell(&self, what: &str, least: usize) {
        let all: usize = self.0.values().sum();
        println!("{what}: {all} in {} plans", self.0.len());
        assert!(all >= least, "{what}: only {all} tried");
    }
}

/// Carries the plan out until it ends or potrun dies. The host it was, and whether it was done.
fn attempt(case: &Case, on: &Machine, paper: &Paper, faults: Vec<Fault>) -> (Fake, Option<bool>) {
    let mut host = Fake::new(on.clone());
    host.set(faults);
    let done = until_death(|| apply(&mut host, &mut paper.open(), &case.plan.ops).is_ok());
    (host, done)
}

/// A container that was created, started, and has ended; or what was done without one.
fn ended(case: &Case, on: &Machine, paper: &Paper) -> Machine {
    let mut host = Fake::new(on.clone());
    apply(&mut host, &mut paper.open(), &case.plan.ops).unwrap_or_else(|e| panic!("{}: {e}: {}", case.name, e.source));
    if !case.plan.ops.iter().any(|op| matches!(op, Op::Spawn(_))) {
        return host.machine;
    }
    host.commit();
    host.start().unwrap_or_else(|e| panic!("{}: start: {e}", case.name));
    let pids: BTreeSet<i32> = on.processes.keys().copied().collect();
    let new: Vec<i32> = host.machine.processes.keys().copied().filter(|pid| !pids.contains(pid)).collect();
    assert!(!new.is_empty() && host.child().is_some(), "{}: nothing runs", case.name);
    new.into_iter().for_each(|pid| host.machine.kill(pid));
    host.machine
}

/// A new potrun takes back what the journal says, twice; then the machine is as it was.
fn recovers(machine: Machine, paper: &Paper, before: &Machine, what: &str) {
    let mut host = Fake::new(machine);
    for _ in 0..2 {
        let left = take_back(&mut host, &mut paper.open());
        assert!(left.is_empty(), "{what}: left {} because {}", left[0], left[0].source);
        same(&host.machine, before, what);
        assert!(paper.open().pending().is_empty(), "{what}: the journal still has {:?}", paper.open().pending());
    }
}

/// That two machines are the same, but for what is known to stay.
fn same(now: &Machine, before: &Machine, what: &str) {
    let (now, before) = (now.without_what_stays(), before.without_what_stays());
    if now != before {
        let (now, before) = (format!("{now:#?}"), format!("{before:#?}"));
        let new: Vec<&str> = now.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
        let gone: Vec<&str> = before.lines().filter(|line| !now.lines().any(|new| new == *line)).collect();
        panic!("{what}: the machine is not as it was: new {new:#?}, gone {gone:#?}");
    }
}

/// Where the first process is spawned, and what it does.
fn spawn(plan: &Plan) -> &Spawn {
    plan.ops.iter().find_map(|op| if let Op::Spawn(spawn) = op { Some(&**spawn) } else { None }).unwrap()
}

#[test]
fn what_was_done_is_taken_back_whole() {
    for case in everything() {
        let paper = Paper::new();
        let machine = ended(&case, &case.before, &paper);
        recovers(machine, &paper, &case.before, &case.name);
    }
}

#[test]
fn every_op_fails() {
    let mut tried = Tried::default();
    for case in everything() {
        for n in 0..case.plan.ops.len() {
            let what = format!("{}: {n}: {} fails", case.name, case.plan.ops[n]);
            let paper = Paper::new();
            let (mut host, done) = attempt(&case, &case.before, &paper, vec![Fault::Fail(n)]);
            assert_eq!((done, host.ran()), (Some(false), n + 1), "{what}: goes on");
            host.set(Vec::new());
            // The same potrun rolls back, as create does.
            let left = take_back(&mut host, &mut paper.open());
            assert!(left.is_empty(), "{what}: left {}", left[0]);
            same(&host.machine, &case.before, &what);
            recovers(host.machine, &paper, &case.before, &what);
            tried.one(&case.name);
        }
    }
    tried.tell("ops that failed", 100);
}

#[test]
fn potrun_dies_before_and_after_every_op() {
    let mut tried = Tried::default();
    for case in everything() {
        for n in 0..case.plan.ops.len() {
            for fault in [Fault::DieBefore(n), Fault::DieAfter(n)] {
                let what = format!("{}: {fault:?}: {}", case.name, case.plan.ops[n]);
                let paper = Paper::new();
                let (host, done) = attempt(&case, &case.before, &paper, vec![fault]);
                assert_eq!(done, None, "{what}: lives");
                recovers(host.machine, &paper, &case.before, &what);
                tried.one(&case.name);
            }
        }
    }
    tried.tell("deaths at an op", 200);
}

/// All cuts of the last line of a text, the whole text included.
fn cuts(text: &[u8]) -> std::ops::RangeInclusive<usize> {
    let before = text.len().saturating_sub(1);
    text[..before].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)..=text.len()
}

#[test]
fn potrun_dies_while_it_writes_a_note() {
    let mut tried = Tried::default();
    for case in everything() {
        for (n, op) in case.plan.ops.iter().enumerate().filter(|(_, op)| op.undo().is_some()) {
            let paper = Paper::new();
            let (host, _) = attempt(&case, &case.before, &paper, vec![Fault::DieBefore(n)]);
            let text = paper.read();
            for end in cuts(&text) {
                paper.write(&text[..end]);
                let what = format!("{}: {op}: journal cut at {end} of {}", case.name, text.len());
                recovers(host.machine.clone(), &paper, &case.before, &what);
                tried.one(&case.name);
            }
        }
    }
    tried.tell("cut notes", 1000);
}

#[test]
fn potrun_dies_while_it_takes_back() {
    let mut tried = Tried::default();
    for case in everything() {
        let paper = Paper::new();
        let machine = ended(&case, &case.before, &paper);
        let text = paper.read();
        // Its lock would be held as long as the loop goes on.
        let pending = paper.open().pending();
        for n in 0..pending.len() {
            for fault in [Fault::DieBefore(n), Fault::DieAfter(n)] {
                paper.write(&text);
                let what = format!("{}: {fault:?} while taking back", case.name);
                let mut host = Fake::new(machine.clone());
                host.set(vec![fault]);
                let done = until_death(|| take_back(&mut host, &mut paper.open()).len());
                assert_eq!(done, None, "{what}: lives");
                // The line that says that the op before was taken back may be there in part only.
                let after = paper.read();
                let whole = after.len();
                for end in if whole > text.len() { cuts(&after) } else { whole..=whole } {
                    paper.write(&after[..end]);
                    let what = format!("{what}, journal cut at {end} of {whole}");
                    recovers(host.machine.clone(), &paper, &case.before, &what);
                    tried.one(&case.name);
                }
            }
        }
    }
    tried.tell("deaths while taking back", 200);
}

#[test]
fn every_step_of_the_first_process_fails() {
    let mut tried = Tried::default();
    for case in cases() {
        let Spawn { create, start, .. } = spawn(&case.plan);
        for step in 0..create.len() + start.len() {
            let what = format!("{}: step {step} inside fails", case.name);
            let paper = Paper::new();
            let (mut host, done) = attempt(&case, &case.before, &paper, vec![Fault::FailInside(step)]);
            assert_eq!(done, Some(step >= create.len()), "{what}: nobody notices");
            if step >= create.len() {
                host.commit();
                assert!(host.start().is_err(), "{what}: start does not notice");
            }
            assert!(host.child().is_none(), "{what}: the process lives");
            recovers(host.machine, &paper, &case.before, &what);
            tried.one(&case.name);
        }
    }
    tried.tell("steps inside that failed", 200);
}

#[test]
fn what_cannot_be_taken_back_stays_in_the_journal() {
    let mut tried = Tried::default();
    for case in everything() {
        let paper = Paper::new();
        let machine = ended(&case, &case.before, &paper);
        let text = paper.read();
        let pending = paper.open().pending();
        for (_, op) in pending {
            for times in [1, 3] {
                paper.write(&text);
                let what = format!("{}: {op} fails {times} times", case.name);
                // Equal ops are one: each of them fails in turn.
                let mut host = Fake::new(machine.clone());
                host.set(vec![Fault::Stuck { op: op.clone(), times }]);
                let mut tries = 0;
                while !paper.open().pending().is_empty() {
                    let pending = paper.open().pending();
                    let left = take_back(&mut host, &mut paper.open());
                    tries += 1;
                    assert!(tries <= times + 1, "{what}: never goes");
                    let stays: Vec<Op> = paper.open().pending().into_iter().map(|(_, op)| op).collect();
                    let said: Vec<Op> = left.into_iter().rev().map(|left| left.op).collect();
                    assert_eq!(stays, said, "{what}: what is left and what stays in the journal differ");
                    assert!(stays.is_empty() || stays.contains(&op), "{what}: {stays:?} is left instead");
                    assert!(stays.iter().all(|op| pending.iter().any(|(_, old)| old == op)));
                }
                assert!(tries > 1, "{what}: was not noticed");
                same(&host.machine, &case.before, &what);
                tried.one(&case.name);
            }
        }
    }
    tried.tell("ops that could not be taken back at once", 100);
}

#[test]
fn pots_of_others_survive() {
    let mut tried = Tried::default();
    for case in cases() {
        // The same pot once more, from a bundle of its own, running.
        let other = Bundle { dir: "/other".into(), ..case.bundle.clone() };
        let other = planned("other".into(), &other, case.facts.clone(), &id("other"));
        let Ok(other) = other else { panic!("{}: only with one id", case.name) };
        let mut host = Fake::new(case.before.clone());
        host.machine.trees.extend(other.before.trees.iter().cloned());
        let paper = Paper::new();
        apply(&mut host, &mut paper.open(), &other.plan.ops).unwrap();
        host.commit();
        host.start().unwrap();
        let before = host.machine;
        for n in 0..case.plan.ops.len() {
            for fault in [Fault::Fail(n), Fault::DieBefore(n), Fault::DieAfter(n)] {
                let what = format!("{} beside another: {fault:?}: {}", case.name, case.plan.ops[n]);
                let own = Paper::new();
                let (mut host, _) = attempt(&case, &before, &own, vec![fault]);
                host.end();
                recovers(host.machine, &own, &before, &what);
                tried.one(&case.name);
            }
        }
        let own = Paper::new();
        let (mut host, _) = attempt(&case, &before, &own, Vec::new());
        host.end();
        recovers(host.machine, &own, &before, &format!("{} beside another", case.name));
        // And the other one can still go.
        let mut machine = before.clone();
        machine.processes.keys().copied().collect::<Vec<_>>().into_iter().for_each(|pid| machine.kill(pid));
        let mut empty = case.before.clone();
        empty.trees.extend(other.before.trees.iter().cloned());
        recovers(machine, &paper, &empty, &format!("{}: the other", case.name));
    }
    tried.tell("faults beside another pot", 300);
}

/// Puts something of somebody else where `op` wants to put something; whether there is such a thing.
fn in_the_way(op: &Op, machine: &mut Machine) -> bool {
    match op {
        Op::CreateLayer { path, .. } | Op::LeaveLayer { path, .. } => {
            drop(machine.layers.insert(path.clone(), "/run/other/web1".into()));
        }
        Op::FreezeLayer { layer, .. } => drop(machine.shared.insert(layer.clone())),
        Op::CreateDataset { dataset, .. } | Op::CloneDataset { dataset, .. } => {
            // What others made there has parents.
            let mut parent = dataset.as_str();
            while let Some((above, _)) = parent.rsplit_once('/') {
                machine.datasets.entry(above.into()).or_default();
                parent = above;
            }
            drop(machine.datasets.insert(dataset.clone(), Dataset::default()));
        }
        Op::CreatePair { host, .. } => {
            drop(machine.links.insert((Net::Host, host.clone()), Link::new(LinkKind::Nic, "uplink")));
        }
        Op::EnsureBridge { name, .. } => {
            drop(machine.links.insert((Net::Host, name.clone()), Link::new(LinkKind::Bridge, "lab")));
        }
        Op::AddAddress { interface, address } => {
            let link = machine.links.get_mut(&(Net::Host, interface.clone())).unwrap();
            link.addresses.insert(address.clone());
        }
        Op::EnsureAnchor { anchor, rules } => {
            let own = rules.lines().map(|rule| rule.replace(" tag potrun", "")).chain(["nat on em9 all".into()]);
            drop(machine.anchors.insert(anchor.clone(), own.collect()));
        }
        Op::CreateCgroup { path } => {
            // Somebody's processes are in it.
            machine.cgroups.insert(path.clone(), Cgroup::default());
            let mut host = Fake::new(machine.clone());
            let spawn = Spawn { cgroup: Some(path.clone()), ..Spawn::default() };
            potrun::host::Host::run(&mut host, &Op::Spawn(Box::new(spawn))).unwrap();
            host.commit();
            *machine = host.machine;
        }
        Op::CreateJail { name, .. } => drop(machine.jails.insert(name.clone(), Jail::default())),
        _ => return false,
    }
    true
}

#[test]
fn what_is_in_the_way_and_not_ours_survives() {
    let mut tried = BTreeSet::new();
    for case in everything() {
        for (n, op) in case.plan.ops.iter().enumerate() {
            let mut before = case.before.clone();
            if !in_the_way(op, &mut before) {
                continue;
            }
            for fault in [None, Some(Fault::Fail(n)), Some(Fault::DieBefore(n)), Some(Fault::DieAfter(n))] {
                let what = format!("{}: {op} is in the way, {fault:?}", case.name);
                let paper = Paper::new();
                let (mut host, _) = attempt(&case, &before, &paper, fault.into_iter().collect());
                host.end();
                recovers(host.machine, &paper, &before, &what);
                tried.insert(variant(op));
            }
        }
    }
    assert!(tried.len() >= 8, "only {tried:?}");
}

/// What no plan contains and nothing takes back, and why.
const NEVER_PLANNED: &[(&str, &str)] = &[
    ("limitDataset", "only a root that was left has another limit to get, and keeps it"),
    ("mountInto", "the verb mount-in does it"),
    ("setOomScore", "no example asks for it, and the life tests do"),
    ("setUnit", "the verb update does it"),
    ("unmountFrom", "its inverse"),
];

/// The name of a variant.
fn variant(op: &Op) -> String {
    serde_json::to_value(op).unwrap()["op"].as_str().unwrap().to_string()
}

/// The names of all variants: serde lists them when it is given one that is not there.
fn variants() -> BTreeSet<String> {
    let words = serde_json::from_str::<Op>(r#"{"op": "noSuchOp"}"#).unwrap_err().to_string();
    let listed = words.split_once("expected one of ").unwrap().1;
    listed.split('`').skip(1).step_by(2).map(String::from).collect()
}

#[test]
fn every_op_is_exercised() {
    let (mut seen, mut undone) = (BTreeSet::new(), BTreeSet::new());
    for case in everything() {
        let spawned = case.plan.ops.iter().filter_map(|op| if let Op::Spawn(spawn) = op { Some(spawn) } else { None });
        let inside = spawned.flat_map(|spawn| spawn.create.iter().chain(&spawn.start));
        for op in case.plan.ops.iter().chain(inside) {
            seen.insert(variant(op));
            seen.extend(op.undo().iter().map(variant));
            undone.extend(op.undo().is_some().then(|| variant(op)));
        }
    }
    let all = variants();
    assert!(all.len() > 60 && all.contains("spawn") && undone.len() > 10, "{all:?} {undone:?}");
    let excepted: BTreeSet<String> = NEVER_PLANNED.iter().map(|(name, _)| (*name).to_string()).collect();
    let never: Vec<&String> = all.difference(&seen).collect();
    assert_eq!(never, excepted.iter().collect::<Vec<_>>(), "never planned, and listed as such");
}

/// What a pot sees, by the name of the file: its own, then the layers below.
fn seen(machine: &Machine, pot: &str) -> BTreeMap<PathBuf, String> {
    let path = pot_of(pot);
    let mut all = BTreeMap::new();
    let below = machine.lies_on.get(&path).into_iter().flatten().rev();
    for layer in below.chain([&path]) {
        let files = machine.files.iter().filter_map(|(file, text)| Some((file.strip_prefix(layer).ok()?, text)));
        all.extend(files.map(|(file, text)| (file.to_path_buf(), text.clone())));
    }
    all
}

#[test]
fn clones_of_clones_stay_apart_and_go_in_any_order() {
    let all = cases();
    let case = all.iter().find(|case| case.name == "base on linux").unwrap();
    let paper = Paper::new();
    let mut host = Fake::new(ended(case, &case.before, &paper));
    let write = |host: &mut Fake, pot: &str, file: &str, text: &str| {
        drop(host.machine.files.insert(pot_of(pot).join("upper").join(file), text.into()));
    };
    let clone = |host: &mut Fake, from: &str, new: &str| {
        let ops = cloning(case, &host.machine, from, true, new);
        apply(host, &mut Paper::new().open(), &ops).unwrap();
        assert_eq!(seen(&host.machine, from), seen(&host.machine, new));
    };
    write(&mut host, "web1", "a", "first");
    clone(&mut host, "web1", "web2");
    clone(&mut host, "web1", "web3"); // it has nothing of its own now
    write(&mut host, "web1", "a", "second");
    write(&mut host, "web2", "b", "other");
    clone(&mut host, "web2", "web4");
    clone(&mut host, "web1", "web5");
    let text = |pot: &str, file: &str| seen(&host.machine, pot).get(&Path::new("upper").join(file)).cloned();
    for (pot, a, b) in [
        ("web1", "second", None),
        ("web2", "first", Some("other")),
        ("web3", "first", None),
        ("web4", "first", Some("other")),
        ("web5", "second", None),
    ] {
        assert_eq!((text(pot, "a").as_deref(), text(pot, "b").as_deref()), (Some(a), b), "{pot}");
    }
    assert_eq!(host.machine.shared.len(), 3);
    // In each order that begins with another one.
    let pots = ["web1", "web2", "web3", "web4", "web5"];
    let (made, journal) = (host.machine, paper.read());
    for turn in 0..pots.len() {
        for back in [false, true] {
            let mut order: Vec<&str> = pots.iter().cycle().skip(turn).take(pots.len()).copied().collect();
            if back {
                order.reverse();
            }
            let mut host = Fake::new(made.clone());
            for (n, pot) in order.iter().enumerate() {
                let before = host.machine.clone();
                if *pot == "web1" {
                    paper.write(&journal);
                    assert!(take_back(&mut host, &mut paper.open()).is_empty());
                } else {
                    let forget = Op::ForgetLayer { path: pot_of(pot), owner: case.facts.state.join(pot) };
                    potrun::host::Host::run(&mut host, &forget).unwrap();
                }
                for other in &order[n + 1..] {
                    assert_eq!(seen(&host.machine, other), seen(&before, other), "{other} after {pot}");
                }
            }
            same(&host.machine, &case.before, &format!("{order:?}"));
        }
    }
}
