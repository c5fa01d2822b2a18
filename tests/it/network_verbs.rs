//! The verb `network`: as callers see it, with a `/run`, an `/etc` and a network of the test's own; and what it does to a
//! machine, on the fake one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use potrun::apply::{apply, take_back};
use potrun::bundle::Bundle;
use potrun::facts::{Facts, Os};
use potrun::host::fake::{Fake, Fault, LinkKind, Machine, Net, until_death};
use potrun::id::ContainerId;
use potrun::lease::{self, Lease};
use potrun::op::Op;
use potrun::plan::{bridge, plan};

use crate::cli::Shown;
use crate::faults::Paper;
use crate::network::Net as Host;
use crate::util::World;

/// Lets the world's potrun see `run` and `etc` of the world as the machine's, and no network but its own.
fn alone(world: &mut World) -> Option<PathBuf> {
    let script = world.dir.join("alone");
    let dir = world.dir.display().to_string();
    for below in ["run", "etc"] {
        fs::create_dir(world.dir.join(below)).unwrap();
    }
    let mounts = format!("mount --bind {dir}/run /run && mount --bind {dir}/etc /etc");
    let text = format!(
        "#!/bin/sh\nexec unshare --mount --net sh -c '{mounts} && exec \"$0\" \"$@\"' {} \"$@\"\n",
        world.potrun.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    world.potrun = script;
    let outcome = world.run(&["features"]);
    if outcome.code != Some(0) {
        println!("skipped: {}: no namespaces of its own: {}", world.token, outcome.stderr);
        return None;
    }
    Some(world.dir.join("run/potrun.leases"))
}

#[test]
fn networks() {
    let Some(mut world) = World::new("networks") else { return };
    let Some(ledger) = alone(&mut world) else { return };
    let one = |id: &str, address: &str, port: &str| Lease {
        id: ContainerId::new(id).unwrap(),
        owner: world.root().join(id),
        addresses: vec![address.parse().unwrap()],
        ports: port.split_whitespace().map(|port| port.parse().unwrap()).collect(),
    };
    fs::create_dir(world.root().join("web1")).unwrap();
    fs::create_dir(world.root().join("db1")).unwrap();
    lease::take(&ledger, &one("web1", "10.192.0.3", "tcp/8080 udp/192.0.2.1:53")).unwrap();
    let mut shown = Shown::new(&world);
    let show = |shown: &mut Shown<'_>, calls: &[&str]| {
        for call in calls {
            let args: Vec<&str> = ["network"].into_iter().chain(call.split_whitespace()).collect();
            shown.show(&args);
        }
    };
    show(&mut shown, &["ls", "next", "next --stack dual", "create lab --size 5", "create lab", "create big"]);
    show(
        &mut shown,
        &["create ../x", "create x --size 4194303", "create x --subnet 10.192.0.0/28", "create x --subnet y"],
    );
    show(&mut shown, &["create six --subnet fd00:1::/64", "create x --size 9 --subnet 10.9.0.0/24", "ls"]);
    show(&mut shown, &["next lab", "next six", "next nosuch", "validate", "validate 10.192.0.4 10.192.0.3"]);
    show(&mut shown, &["validate 10.192.0.1 10.192.0.2 10.192.0.9 10.192.0.0 192.0.2.1 fd70:6f74::5 x"]);
    show(&mut shown, &["validate --bridge lab 10.192.0.10 10.192.0.4 fd00::1", "validate 10.9.0.0/24 10.192.0.8/30"]);
    // A lease on the private bridge, and one whose owner is gone.
    lease::take(&ledger, &one("db1", "10.192.0.10", "")).unwrap();
    lease::take(&ledger, &one("gone", "fd00:1::2", "")).unwrap();
    show(&mut shown, &["rm lab", "down lab", "down", "show", "show lab --format json", "rm six", "rm six", "rm big"]);
    lease::end(&ledger, &ContainerId::new("db1").unwrap(), &world.root().join("db1")).unwrap();
    show(&mut shown, &["rm lab", "ls", "down"]);
    // Other settings.
    let conf = "POT_NETWORK=10.9.0.0/29\nPOT_GATEWAY=10.9.0.1\nPOT_NETWORK6=fd00:9::/64\nPOT_NETWORK_STACK=dual\n";
    fs::write(world.dir.join("etc/potrun.conf"), conf).unwrap();
    lease::take(&ledger, &one("db1", "10.9.0.2", "")).unwrap();
    show(&mut shown, &["validate", "next", "create x --size 5", "show"]);
    fs::write(world.dir.join("etc/potrun.conf"), format!("{conf}POT_GATEWAY=10.8.0.1\nPOT_EXTIF=$IF\n")).unwrap();
    show(&mut shown, &["validate", "next"]);
    shown.compare("networks");
}

#[test]
fn gc_ends_leases_of_what_is_gone() {
    let Some(mut world) = World::new("gc_leases") else { return };
    let Some(ledger) = alone(&mut world) else { return };
    let id = ContainerId::new("gone").unwrap();
    let owner = world.root().join("gone");
    lease::take(&ledger, &Lease { id, owner, addresses: vec!["10.192.0.3".parse().unwrap()], ports: vec![] }).unwrap();
    assert_eq!(world.run(&["network", "next"]).stdout, "10.192.0.4\n", "until somebody needs it");
    let outcome = world.run(&["gc"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), "lease of gone\n"), "{}", outcome.stderr);
    assert_eq!(lease::all(&ledger).unwrap(), []);
    assert_eq!(world.run(&["network", "next"]).stdout, "10.192.0.3\n");
}

#[test]
fn a_bridge_is_kept_up_on_the_kernel() {
    let Some(net) = Host::new("kept") else { return };
    let before = net.before();
    let network = |args: &str| {
        let args: Vec<&str> = ["network"].into_iter().chain(args.split_whitespace()).collect();
        net.world.run(&args)
    };
    let bridge = || net.sh("ip -j addr show pb-public 2>/dev/null || true");
    for call in ["up", "up", "up --stack dual"] {
        let outcome = network(call);
        assert_eq!(outcome.code, Some(0), "{call}: {outcome:?}");
        assert!(bridge().contains("10.192.0.1"), "{}", bridge());
    }
    assert!(bridge().contains("fd70:6f74::1"), "{}", bridge());
    let (id, _) = net.pot("web", json!({"network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80}]}));
    let state: Value = serde_json::from_str(&net.world.run(&["state", &id]).stdout).unwrap();
    let told =
        |name: &str| state["annotations"][format!("org.bsdpot.pot.{name}")].as_str().unwrap_or_default().to_string();
    assert_eq!((told("addresses").as_str(), told("ports").as_str()), ("10.192.0.3", "tcp/1024:80"));
    assert!(net.sh(&format!("ip -j link show {}", told("hostInterface"))).contains("pb-public"));
    let refused = network("down");
    assert!(refused.code == Some(1) && refused.stderr.contains(&format!("is used by {id}")), "{refused:?}");
    let shown = network("show").stdout;
    assert!(shown.starts_with("public bridge: pb-public, up, kept\n") && shown.contains(&id), "{shown}");
    net.world.ok(&["delete", "--force", &id]);
    assert!(bridge().contains("10.192.0.1"), "it outlives its last pot");
    for _ in 0..2 {
        let outcome = network("down");
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    }
    net.same(&before, "after down");
}

/// A machine, and a pot with a bridge on it.
fn machine(os: Os, private: Option<&str>) -> (Facts, Machine, Vec<Op>) {
    let network = match private {
        Some(name) => format!(r#"{{"type": "private-bridge", "bridge": "{name}"}}"#),
        None => r#"{"type": "public-bridge"}"#.into(),
    };
    let config = format!(
        r#"{{"ociVersion": "1.3.0", "process": {{"user": {{"uid": 0, "gid": 0}}, "cwd": "/", "args": ["x"]}},
            "pot": {{"base": {{"release": "r"}}, "network": {network}}}}}"#
    );
    let bundle = Bundle::parse("/b".into(), config.into_bytes()).unwrap();
    let facts = Facts::assumed(os, &bundle);
    let ops = plan(&bundle, &facts, &ContainerId::new("web1").unwrap()).unwrap().ops;
    let machine = Machine::of(&facts, &bundle);
    (facts, machine, ops)
}

fn bridges(machine: &Machine) -> Vec<String> {
    let all = machine.links.iter().filter(|((net, _), link)| *net == Net::Host && link.kind == LinkKind::Bridge);
    all.map(|((_, name), _)| name.clone()).collect()
}

#[test]
fn a_bridge_that_is_kept_outlives_its_pots() {
    for (os, private) in [Os::Linux, Os::Freebsd].into_iter().flat_map(|os| [(os, None), (os, Some("lab"))]) {
        let (facts, before, pot) = machine(os, private);
        let ends: Vec<_> = bridge::ends(&facts.network, private).unwrap();
        let up = bridge::up(os, &facts.network, private, &ends).unwrap();
        // Whether the pot came first or the bridge.
        for pot_first in [false, true] {
            let (mut host, kept, life) = (Fake::new(before.clone()), Paper::new(), Paper::new());
            let (mut kept, mut life) = (kept.open(), life.open());
            if pot_first {
                apply(&mut host, &mut life, &pot).unwrap();
                apply(&mut host, &mut kept, &up).unwrap();
            } else {
                apply(&mut host, &mut kept, &up).unwrap();
                apply(&mut host, &mut life, &pot).unwrap();
            }
            assert!(take_back(&mut host, &mut life).is_empty());
            assert_eq!(bridges(&host.machine).len(), 1, "{os}");
            let anchors = host.machine.anchors.len();
            assert_eq!(anchors, usize::from(os == Os::Freebsd));
            assert!(take_back(&mut host, &mut kept).is_empty());
            assert_eq!(host.machine.without_what_stays(), before.without_what_stays(), "{os}");
        }
    }
}

#[test]
fn an_up_that_dies_is_taken_back() {
    for os in [Os::Linux, Os::Freebsd] {
        let (facts, before, _) = machine(os, None);
        let ends = bridge::ends(&facts.network, None).unwrap();
        let up = bridge::up(os, &facts.network, None, &ends).unwrap();
        for n in 0..up.len() {
            for fault in [Fault::DieBefore(n), Fault::DieAfter(n), Fault::Fail(n)] {
                let (mut host, paper) = (Fake::new(before.clone()), Paper::new());
                host.set(vec![fault.clone()]);
                let ended = until_death(|| apply(&mut host, &mut paper.open(), &up).is_ok());
                assert_ne!(ended, Some(true), "{fault:?}");
                host.set(Vec::new());
                assert!(take_back(&mut host, &mut paper.open()).is_empty());
                assert_eq!(host.machine.without_what_stays(), before.without_what_stays(), "{os} {fault:?}");
            }
        }
    }
}
