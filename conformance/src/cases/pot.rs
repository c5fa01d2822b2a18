/*! The `pot` section of runtime-spec/config-pot.md, with runtimes whose `features` know it. */

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::bundle::Bundle;
use crate::case::{Fail, Result};
use crate::ctx::{Ctx, Tried};
use crate::runtime::{Outcome, Verb};
use crate::{check, group, same, skip};

group! { "pot":
    is_a_clone_of_its_base: "config-pot.md#configPotBase",
    what_it_writes_ends_with_it: "config-pot.md#configPotBase",
    pots_of_one_base_do_not_mix: "config-pot.md#configPotBase",
    a_base_in_use_is_kept: "config-pot.md#configPotBase: base rm",
    a_missing_base_is_refused: "config-pot.md#configPotBase: a base of that name MUST exist",
    the_annotation_says_the_same: "config-pot.md#configPotPlace: annotations[org.bsdpot.pot]",
    both_places_are_refused: "config-pot.md#configPotPlace: MUST NOT have both",
    unknown_members_are_refused: "config-pot.md#configPotErrors: a member is unknown, at any depth",
    all_problems_are_told_at_once: "config-pot.md#configPotErrors: in the order of their places, by JSON pointers",
    directories: "config-pot.md#configPotFilesystems: source, destination, readonly",
    fscomps_outlive_pots: "config-pot.md#configPotFilesystems: name",
    a_missing_fscomp_is_refused: "config-pot.md#configPotFilesystems: it MUST exist",
    one_destination_twice_is_refused: "config-pot.md#configPotFilesystems: no two objects may have the same one",
    the_network_of_the_host_is_the_default: "config-pot.md#configPotNetwork: type defaults to inherit",
    ports_without_a_network_of_its_own_are_refused: "config-pot.md#configPotPorts: network.type MUST be a bridge",
    names_are_those_of_the_section: "config-pot.md#configPotDns: nameservers, search, hosts",
    a_plan_takes_no_step: "config-pot.md#configPotErrors: before it touches the machine",
    a_killed_create_leaves_nothing_after_delete: "runtime.md#delete after a killed create",
}

/// A store with one base, for the time of one case.
struct Store<'c> {
    ctx: &'c Ctx,
    /// What goes before every verb, beside `--root`.
    globals: Vec<String>,
    base: String,
    fscomps: Vec<String>,
}

impl<'c> Store<'c> {
    /// Skips the case unless pots can be had here.
    fn new(ctx: &'c Ctx) -> Result<Self> {
        let features = ctx.call(&["features"])?;
        if features.code() != 0 || !features.out.contains("org.bsdpot.pot") {
            skip!("the runtime knows no pots");
        }
        // On FreeBSD it is the pool of the machine's pots, where this base has a name of its own.
        let own = format!("--store={}", ctx.dir.join("store").display());
        let globals = if cfg!(target_os = "freebsd") { Vec::new() } else { vec![own] };
        let store = Self { ctx, globals, base: format!("{}.base", ctx.id), fscomps: Vec::new() };
        if cfg!(target_os = "freebsd") {
            // What the first pot of a machine makes for all that follow would be taken for a leak.
            let info = store.call(&["info"])?.ok()?.out;
            let path = info.lines().find_map(|line| line.strip_prefix("store path")).unwrap_or_default().trim();
            let bases = format!("{path}/bases");
            if !conformance::kernel::mounts()?.iter().any(|mount| mount.point == bases) {
                skip!("the machine's store of pots has never been used (potrun base import)");
            }
        }
        let (tree, archive) = (ctx.dir.join("tree"), ctx.dir.join("base.tar"));
        ctx.probe.install(&tree)?;
        for dir in ["dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(tree.join(dir))?;
        }
        fs::write(tree.join("etc/of-the-base"), "base")?;
        let tar = Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(&archive).arg(".").output()?;
        check!(tar.status.success(), "tar: {}", String::from_utf8_lossy(&tar.stderr));
        store.verb(&["base", "import", &store.base])?.arg(&archive).go()?.ok()?;
        Ok(store)
    }

    fn verb(&self, words: &[&str]) -> Result<Verb> {
        Ok(self.ctx.verb(words)?.globals(&self.globals.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    fn call(&self, words: &[&str]) -> Result<Outcome> {
        self.verb(words)?.go()
    }

    /// A bundle of a pot whose process is the probe, and that has no more than its base.
    fn bundle(&self, name: &str) -> Result<Bundle> {
        let mut bundle = self.ctx.bundle_at(name, &self.ctx.id)?;
        bundle.config = json!({
            "ociVersion": "1.3.0",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/probe", "wait"], "cwd": "/", "env": ["PATH=/"]},
            "pot": {"base": {"release": self.base}},
        });
        Ok(bundle)
    }

    fn run_verb(&self, bundle: &Bundle, id: &str) -> Result<Verb> {
        bundle.write()?;
        Ok(self.verb(&["run", "--bundle"])?.arg(&bundle.dir).arg(id))
    }

    /// What comes of trying these things in a pot.
    fn ask(&self, bundle: &mut Bundle, ops: &[&str]) -> Result<Vec<conformance::Answer>> {
        bundle.args(&[&["/probe", "do"], ops].concat());
        crate::ctx::parse(&self.run_verb(bundle, &self.ctx.id)?.go()?.ok()?.out)
    }

    /// `create` must fail, and say these.
    fn refuses(&self, bundle: &Bundle, texts: &[&str]) -> Result {
        bundle.write()?;
        let outcome = self.verb(&["create", "--bundle"])?.arg(&bundle.dir).arg(&self.ctx.id).go()?.fails()?;
        for text in texts {
            check!(outcome.err.contains(text), "the error should say {text:?}: {}", outcome.err.trim());
        }
        self.call(&["state", &self.ctx.id])?.fails().map(drop)
    }

    fn fscomp(&mut self) -> Result<String> {
        let name = format!("{}.fscomp", self.ctx.id);
        self.call(&["fscomp", "create", &name])?.ok()?;
        self.fscomps.push(name.clone());
        Ok(name)
    }

    /// Takes the store away, which can only be done when no pot uses it.
    fn end(self, result: Result) -> Result {
        let ended = self.call(&["delete", "--force", &self.ctx.id]).and_then(Outcome::ok);
        let ended = ended.and_then(|_| self.call(&["base", "rm", &self.base])?.ok());
        for name in &self.fscomps {
            let removed = self.call(&["fscomp", "rm", name]).and_then(Outcome::ok);
            result_of(&result, removed)?;
        }
        result_of(&result, ended)?;
        result
    }
}

/// The first thing that went wrong is the one to tell.
fn result_of(result: &Result, then: Result<Outcome>) -> Result {
    if result.is_ok() { then.map(drop) } else { Ok(()) }
}

/// A case with a store.
fn with_store(ctx: &Ctx, case: impl FnOnce(&mut Store) -> Result) -> Result {
    let mut store = Store::new(ctx)?;
    let result = case(&mut store);
    store.end(result)
}

fn is_a_clone_of_its_base(ctx: &Ctx) -> Result {
    with_store(ctx, |store| {
        let answers =
            store.ask(&mut store.bundle("pot")?, &["read /etc/of-the-base", "create /etc/of-the-base pot"])?;
        same!(*answers[0].worked()?, json!("base"), "a file of the base");
        answers[1].worked()?;
        let again = store.ask(&mut store.bundle("again")?, &["read /etc/of-the-base"])?;
        same!(*again[0].worked()?, json!("base"), "the file in the next pot");
        Ok(())
    })
}

fn what_it_writes_ends_with_it(ctx: &Ctx) -> Result {
    with_store(ctx, |store| {
        let answers = store.ask(&mut store.bundle("pot")?, &["create /new x", "unlink /etc/of-the-base"])?;
        answers[0].worked()?;
        answers[1].worked()?;
        let again = store.ask(&mut store.bundle("again")?, &["lstat /new", "read /etc/of-the-base"])?;
        again[0].failed_with(&[libc::ENOENT])?;
        again[1].worked().map(drop)
    })
}

fn pots_of_one_base_do_not_mix(ctx: &Ctx) -> Result {
    let other = ctx.other("b");
    with_store(ctx, |store| {
        let (one, two) = (store.bundle("one")?, store.bundle("two")?);
        let mut streams = Vec::new();
        for (bundle, id) in [(&one, &ctx.id), (&two, &other)] {
            bundle.write()?;
            streams.push(store.verb(&["create", "--bundle"])?.arg(&bundle.dir).arg(id).go()?.ok()?.stream);
            store.call(&["start", id])?.ok()?;
        }
        for stream in &mut streams {
            same!(stream.line()?, "ready", "the process says");
        }
        let exec = |id: &str, op: &str| -> Result<Vec<conformance::Answer>> {
            crate::ctx::parse(&store.call(&["exec", id, "/probe", "do", op])?.ok()?.out)
        };
        exec(&ctx.id, "create /mine x")?[0].worked()?;
        exec(&other, "lstat /mine")?[0].failed_with(&[libc::ENOENT])?;
        store.call(&["delete", "--force", &other])?.ok()?;
        exec(&ctx.id, "lstat /mine")?[0].worked().map(drop)
    })
}

fn a_base_in_use_is_kept(ctx: &Ctx) -> Result {
    with_store(ctx, |store| {
        let bundle = store.bundle("pot")?;
        bundle.write()?;
        store.verb(&["create", "--bundle"])?.arg(&bundle.dir).arg(&ctx.id).go()?.ok()?;
        store.call(&["base", "rm", &store.base])?.fails()?.says(&[&ctx.id])?;
        store.call(&["start", &ctx.id])?.ok().map(drop)
    })
}

fn a_missing_base_is_refused(ctx: &Ctx) -> Result {
    with_store(ctx, |store| {
        let mut bundle = store.bundle("pot")?;
        bundle.set("/pot/base/release", json!("no-such-base"));
        store.refuses(&bundle, &["no-such-base"])
    })
}

fn the_annotation_says_the_same(ctx: &Ctx) -> Result {
    with_store(ctx, |store| {
        let mut bundle = store.bundle("pot")?;
        let section = bundle.config["pot"].to_string();
        bundle.remove("/pot").set("/annotations", json!({"org.bsdpot.pot": section}));
        let answers = store.ask(&mut bundle, &["read /etc/of-the-base"])?;
        same!(*answers[0].worked()?, json!("base"), "a file of the base");
        Ok(())
    })
}

fn both_places_are_refused(ctx: &Ctx) -> Result {
    with_store(ctx, |store| {
        let mut bundle = store.bundle("pot")?;
        let section = bundle.config["pot"].to_string();
        bundle.set("/annotations", json!({"org.bsdpot.pot": section}));
        store.refuses(&bundle, &["org.bsdpot.pot"])
    })
}

fn unknown_members_are_refused(ctx: &Ctx) -> Result {
    with_store(ctx, |store| {
        for at in ["/pot/nonsense", "/pot/base/nonsense", "/pot/network/nonsense"] {
            let mut bundle = store.bundle(&at.replace('/', "-"))?;
            bundle.set(at, json!(1));
            store.refuses(&bundle, &[at])?;
        }
        Ok(())
    })
}

fn all_problems_are_told_at_once(ctx: &Ctx) -> Result {
    with_store(ctx, |store| {
        let mut bundle = store.bundle("pot")?;
        bundle.set("/pot/exportedPorts", json!([{"port": 0}])).set("/pot/network", json!({"type": "private"}));
        bundle.set("/pot/limits", json!({"cpus": "many"}));
        store.refuses(&bundle, &["/pot/exportedPorts/0/port", "/pot/limits/cpus", "/pot/network/type"])
    })
}

fn of_the_host(ctx: &Ctx) -> Result<PathBuf> {
    let dir = ctx.dir.join("of-the-host");
    fs::create_dir(&dir)?;
    fs::write(dir.join("file"), "host")?;
    Ok(dir)
}

fn directories(ctx: &Ctx) -> Result {
    let dir = of_the_host(ctx)?;
    with_store(ctx, |store| {
        let mut bundle = store.bundle("pot")?;
        let all = json!([
            {"source": dir, "destination": "/srv/both"},
            {"source": dir, "destination": "/srv/read", "readonly": true},
        ]);
        bundle.set("/pot/directories", all);
        let ops = ["read /srv/read/file", "create /srv/read/new x", "create /srv/both/new x"];
        let answers = store.ask(&mut bundle, &ops)?;
        same!(*answers[0].worked()?, json!("host"), "a file of the host");
        answers[1].failed_with(&[libc::EROFS])?;
        answers[2].worked()?;
        check!(dir.join("new").exists(), "what the pot wrote is not in the directory of the host");
        Ok(())
    })
}

fn fscomps_outlive_pots(ctx: &Ctx) -> Result {
    with_store(ctx, |store| {
        let name = store.fscomp()?;
        let volume = json!([{"name": name, "destination": "/data"}]);
        let mut bundle = store.bundle("pot")?;
        bundle.set("/pot/fscomps", volume.clone());
        store.ask(&mut bundle, &["create /data/file kept"])?[0].worked()?;
        let mut again = store.bundle("again")?;
        again.set("/pot/fscomps", volume);
        let answers = store.ask(&mut again, &["read /data/file", "unlink /data/file"])?;
        same!(*answers[0].worked()?, json!("kept"), "what the first pot wrote");
        answers[1].worked().map(drop)
    })
}

fn a_missing_fscomp_is_refused(ctx: &Ctx) -> Result {
    with_store(ctx, |store| {
        let mut bundle = store.bundle("pot")?;
        bundle.set("/pot/fscomps", json!([{"name": "no-such-fscomp", "destination": "/data"}]));
        store.refuses(&bundle, &["no-such-fscomp"])
    })
}

fn one_destination_twice_is_refused(ctx: &Ctx) -> Result {
    let dir = of_the_host(ctx)?;
    with_store(ctx, |store| {
        let mut bundle = store.bundle("pot")?;
        let all = json!([{"source": dir, "destination": "/srv"}, {"source": dir, "destination": "/srv/."}]);
        bundle.set("/pot/directories", all);
        store.refuses(&bundle, &["/pot/directories/1/destination"])
    })
}

fn the_network_of_the_host_is_the_default(ctx: &Ctx) -> Result {
    with_store(ctx, |store| {
        let mut bundle = store.bundle("pot")?;
        bundle.args(&["/probe", "report"]);
        let report: conformance::Report = crate::ctx::parse(&store.run_verb(&bundle, &ctx.id)?.go()?.ok()?.out)?;
        same!(report.links, conformance::kernel::links()?, "network interfaces");
        Ok(())
    })
}

fn ports_without_a_network_of_its_own_are_refused(ctx: &Ctx) -> Result {
    with_store(ctx, |store| {
        let mut bundle = store.bundle("pot")?;
        bundle.set("/pot/exportedPorts", json!([{"port": 80}]));
        store.refuses(&bundle, &["/pot/exportedPorts"])
    })
}

fn names_are_those_of_the_section(ctx: &Ctx) -> Result {
    with_store(ctx, |store| {
        let mut bundle = store.bundle("pot")?;
        bundle.set("/pot/dns", json!({"nameservers": ["192.0.2.53"], "search": ["example.org"]}));
        bundle.set("/pot/hosts", json!([{"name": "db.example.org", "address": "192.0.2.7"}]));
        let answers = store.ask(&mut bundle, &["read /etc/resolv.conf", "read /etc/hosts"])?;
        let text = |n: usize| Ok::<_, Fail>(answers[n].worked()?.as_str().unwrap_or_default().to_owned());
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let resolver = words(&text(0)?);
        let pairs: Vec<_> = resolver.windows(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
        for pair in [("nameserver", "192.0.2.53"), ("search", "example.org")] {
            check!(pairs.contains(&pair), "resolv.conf should have {pair:?}: {resolver:?}");
        }
        let hosts = text(1)?;
        let named = hosts.lines().any(|line| words(line) == ["192.0.2.7", "db.example.org"]);
        check!(named, "hosts should name 192.0.2.7: {hosts}");
        Ok(())
    })
}

fn a_plan_takes_no_step(ctx: &Ctx) -> Result {
    with_store(ctx, |store| {
        let before = crate::world::World::now()?;
        let bundle = store.bundle("pot")?;
        bundle.write()?;
        let plan = store.verb(&["plan", "--json"])?.arg(&bundle.dir).go()?.ok()?.json()?;
        check!(plan.as_object().is_some_and(|plan| !plan.is_empty()), "an empty plan: {plan}");
        ctx.nothing_left(&before)
    })
}

/// Again and again, a little later each time.
fn a_killed_create_leaves_nothing_after_delete(ctx: &Ctx) -> Result {
    with_store(ctx, |store| {
        let before = crate::world::World::now()?;
        let bundle = store.bundle("pot")?;
        bundle.write()?;
        for moment in 1..=8 {
            let running = store.verb(&["create", "--bundle"])?.arg(&bundle.dir).arg(&ctx.id).spawn()?;
            let pause = std::time::Duration::from_millis(moment * 5);
            crate::reaper::pass(std::time::Instant::now() + pause)?;
            running.crash()?;
            store.call(&["delete", "--force", &ctx.id])?.ok()?;
            ctx.nothing_left(&before)?;
        }
        Ok(())
    })
}
