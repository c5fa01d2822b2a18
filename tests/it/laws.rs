//! Laws that hold for every input, over random ones.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use potrun::apply::{apply, take_back};
use potrun::bundle::Bundle;
use potrun::bundle::pot::Protocol;
use potrun::facts::{Facts, Os};
use potrun::host::Host;
use potrun::host::fake::{Fake, Fault, Machine};
use potrun::id::{ContainerId, MAX_LEN};
use potrun::journal::Journal;
use potrun::lease::{self, Lease, Port};
use potrun::op::{Op, Root, Spawn};
use potrun::plan::lease::Subnet;
use potrun::plan::{Plan, plan};
use potrun::ranges::Ranges;

use crate::faults::{Paper, case, cases, id, planned};

/// Ids of every length, and many that differ in one place.
fn any_id() -> impl Strategy<Value = ContainerId> {
    let long = prop::collection::vec(select(vec!['a', 'b']), MAX_LEN - 2..=MAX_LEN);
    let long = long.prop_map(|all| all.into_iter().collect::<String>());
    prop_oneof!["[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,20}", "[a-c+._]{1,4}", long]
        .prop_filter_map("not an id", |text| ContainerId::new(&text).ok())
}

/// Bundles of pots, most of them sensible.
fn any_bundle() -> impl Strategy<Value = Bundle> {
    let network = prop_oneof![
        Just(json!({"type": "inherit"})),
        Just(json!({"type": "alias", "stack": "dual", "addresses": ["192.0.2.9", "em1|2001:db8::9"]})),
        select(vec!["ipv4", "ipv6", "dual"]).prop_map(|stack| json!({"type": "public-bridge", "stack": stack})),
        "[a-z]{1,9}".prop_map(|name| json!({"type": "private-bridge", "bridge": name})),
    ];
    let place = "/[a-d]{1,2}(/[a-d]{1,2}){0,2}";
    let volumes = prop::collection::btree_map(place, (any::<bool>(), any::<bool>()), 0..6);
    let limits = (prop::option::of(1u64..1 << 40), prop::option::of(1u32..64), prop::option::of(1u32..9999));
    let words = prop::collection::vec("\\PC{0,12}", 0..4);
    let port = prop::option::of((1u16..9999, prop::option::of(1u16..9999)));
    (network, volumes, limits, words, any::<bool>(), port).prop_filter_map("refused", |all| {
        let (network, volumes, (memory, cpus, pids), words, readonly, port) = all;
        let bridged = network["type"].as_str().is_some_and(|kind| kind.ends_with("bridge"));
        let (mut fscomps, mut directories) = (Vec::new(), Vec::new());
        for (n, (destination, (kept, readonly))) in volumes.into_iter().enumerate() {
            let source = if kept { "name" } else { "source" };
            let name = if kept { format!("v{n}") } else { format!("/srv/{n}") };
            let volume = json!({source: name, "destination": destination, "readonly": readonly});
            if kept { &mut fscomps } else { &mut directories }.push(volume);
        }
        let mut limits = serde_json::Map::new();
        limits.extend(memory.map(|n| ("memory".to_string(), json!(n))));
        limits.extend(cpus.map(|n| ("cpus".to_string(), json!(n))));
        limits.extend(pids.map(|n| ("pids".to_string(), json!(n))));
        let port = port.filter(|_| bridged).map(|(port, host)| match host {
            Some(host) => json!({"port": port, "hostPort": host}),
            None => json!({"port": port}),
        });
        let args: Vec<String> = ["/bin/x".to_string()].into_iter().chain(words).collect();
        let config = json!({
            "ociVersion": "1.3.0",
            "root": {"path": "", "readonly": readonly},
            "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": args},
            "pot": {"base": {"release": "r"}, "network": network, "fscomps": fscomps, "directories": directories,
                    "limits": limits, "exportedPorts": port.into_iter().collect::<Vec<_>>()},
        });
        Bundle::parse("/bundle".into(), config.to_string().into_bytes()).ok()
    })
}

fn any_os() -> impl Strategy<Value = Os> {
    select(vec![Os::Linux, Os::Freebsd])
}

/// Everything that a plan makes and names after its container, by kind.
fn names(plan: &Plan) -> BTreeSet<(&'static str, String)> {
    let mut all = BTreeSet::new();
    let mut add = |kind, name: &str| all.extend([(kind, name.to_string())]);
    for op in &plan.ops {
        match op {
            Op::CreateLayer { path, .. } => add("path", &path.to_string_lossy()),
            Op::CreateDataset { dataset, .. } | Op::CloneDataset { dataset, .. } => add("dataset", dataset),
            Op::CreatePair { host, pot, macs, .. } => {
                add("interface", host);
                add("interface", pot);
                add("mac", &macs[0]);
                add("mac", &macs[1]);
            }
            Op::LoadAnchor { anchor, .. } => add("anchor", anchor),
            Op::LoadNft { name, .. } => add("rules", name),
            Op::CreateCgroup { path } => add("cgroup", &path.to_string_lossy()),
            Op::CreateJail { name, .. } => add("jail", name),
            Op::HostMount { root, mount, .. } if *root == *"/" => add("path", &mount.target.to_string_lossy()),
            _ => {}
        }
    }
    all
}

/// Whether a name is one that its kernel or tool takes.
fn fits(kind: &str, name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or_default();
    match kind {
        "interface" => name.len() < 16 && name.bytes().all(|b| b.is_ascii_alphanumeric()),
        "mac" => name.len() == 17 && u8::from_str_radix(&name[..2], 16).is_ok_and(|octet| octet & 3 == 2),
        "anchor" => name.len() < 64 && !last.starts_with('_'),
        "rules" => name.len() < 128 && !name.contains('"'),
        "jail" => name.len() < 256 && !name.contains('.') && !name.bytes().all(|b| b.is_ascii_digit()),
        "dataset" => name.len() < 256 && !name.contains('+'),
        _ => last.len() < 256 && !matches!(last, "" | "." | ".."),
    }
}

const BRIDGED: &str = r#"{"ociVersion": "1.3.0", "root": {"path": "", "readonly": true},
    "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/x"]},
    "pot": {"base": {"release": "r"}, "network": {"type": "public-bridge"}, "exportedPorts": [{"port": 80}]}}"#;

fn names_of(os: Os, id: &ContainerId) -> Option<BTreeSet<(&'static str, String)>> {
    let bundle = Bundle::parse("/bundle".into(), BRIDGED.into()).unwrap();
    match plan(&bundle, &Facts::assumed(os, &bundle), id) {
        Ok(plan) => Some(names(&plan)),
        Err(refusal) => {
            // The one thing that an id can be refused for.
            assert!(id.as_str().len() > 200 && refusal.to_string().contains("too long"), "{id}: {refusal}");
            None
        }
    }
}

proptest! {
    #[test]
    fn names_fit_and_do_not_collide(os in any_os(), one in any_id(), two in any_id()) {
        let (Some(of_one), Some(of_two)) = (names_of(os, &one), names_of(os, &two)) else { return Ok(()) };
        prop_assert!(of_one.len() >= 6, "{of_one:?}");
        for (kind, name) in &of_one {
            prop_assert!(fits(kind, name), "{kind} {name}");
        }
        if one != two {
            // On Linux link-level addresses derive from the pot's address, which the ledger gives to one pot only.
            let apart = |(kind, _): &&(&str, String)| os == Os::Freebsd || *kind != "mac";
            let both: Vec<_> = of_one.intersection(&of_two).filter(apart).collect();
            prop_assert!(both.is_empty(), "{one} and {two}: {both:?}");
        }
    }

    #[test]
    fn the_same_input_gives_the_same_plan(os in any_os(), bundle in any_bundle(), id in any_id()) {
        let facts = Facts::assumed(os, &bundle);
        let Ok(first) = plan(&bundle, &facts, &id) else { return Ok(()) };
        // From the start: the bundle and the facts, too, are read once more.
        let again = Bundle::parse(bundle.dir.clone(), bundle.config.clone()).unwrap();
        let facts: Facts = serde_json::from_str(&serde_json::to_string(&facts).unwrap()).unwrap();
        let second = plan(&again, &facts, &id).unwrap();
        let json = serde_json::to_string(&first).unwrap();
        prop_assert_eq!(&json, &serde_json::to_string(&second).unwrap());
        let back: Plan = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&back, &first);
        prop_assert_eq!(serde_json::to_string(&back).unwrap(), json);
        prop_assert_eq!(back.to_string(), first.to_string());
    }

    #[test]
    fn what_is_planned_is_carried_out_and_taken_back(
        os in any_os(), bundle in any_bundle(), id in any_id(), at in any::<Index>(),
    ) {
        let Ok(case) = case("random", &bundle, os, &id) else { return Ok(()) };
        let before = case.before.without_what_stays();
        for fault in [None, Some(Fault::Fail(at.index(case.plan.ops.len())))] {
            let (paper, mut host) = (Paper::new(), Fake::new(case.before.clone()));
            host.set(fault.clone().into_iter().collect());
            let done = apply(&mut host, &mut paper.open(), &case.plan.ops);
            prop_assert_eq!(done.is_err(), fault.is_some(), "{:?}", done.map_err(|e| format!("{e}: {}", e.source)));
            host.set(Vec::new());
            prop_assert!(take_back(&mut host, &mut paper.open()).is_empty());
            prop_assert_eq!(host.machine.without_what_stays(), before.clone());
        }
    }
}

#[test]
fn short_names_of_many_ids_do_not_collide() {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for n in 0..200_000u32 {
        // What callers send: counters, and 64 hexadecimal digits.
        let text = if n % 2 == 0 { format!("web{n}") } else { format!("{:064x}", u128::from(n) << 64) };
        let name = id(&text).short("pta");
        assert!(name.len() == 15 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{name}");
        if let Some(other) = seen.insert(name, text.clone()) {
            panic!("{text} and {other} have one short name");
        }
    }
}

/// Machines in every state that a plan goes through, beside another pot or alone, each with the potrun that is at it
/// and the op that comes next.
fn states() -> Vec<(String, Fake, Op)> {
    let mut all = Vec::new();
    for one in cases() {
        for beside in [false, true] {
            let mut host = Fake::new(one.before.clone());
            if beside {
                let bundle = Bundle { dir: "/other".into(), ..one.bundle.clone() };
                let other = planned("other".into(), &bundle, one.facts.clone(), &id("other")).unwrap();
                host.machine.trees.extend(other.before.trees.iter().cloned());
                let mut first = Fake::new(host.machine);
                apply(&mut first, &mut Paper::new().open(), &other.plan.ops).unwrap();
                first.commit();
                host = Fake::new(first.machine);
            }
            for op in &one.plan.ops {
                all.push((one.name.clone(), host.clone(), op.clone()));
                if host.run(op).is_err() {
                    assert!(beside, "{}: {op}", one.name);
                    break;
                }
            }
        }
    }
    all
}

/// The machine without what goes with another op's object: the inverse of an rctl rule takes the other rules of its
/// jail along, and what the first process wrote to its root goes with that root.
fn alone(machine: &Machine) -> Machine {
    Machine { rctl: BTreeSet::new(), files: BTreeMap::new(), ..machine.without_what_stays() }
}

#[test]
fn undo_undoes() {
    let mut tried = BTreeSet::new();
    for (name, mut host, op) in states() {
        let Some(undo) = op.undo() else { continue };
        assert_eq!(undo.undo(), None, "{undo}: is no inverse if it has one");
        let before = alone(&host.machine);
        if host.run(&op).is_err() {
            assert_eq!(alone(&host.machine), before);
            continue;
        }
        let (after, doing) = (alone(&host.machine), host.clone());
        host.run(&undo).unwrap_or_else(|e| panic!("{name}: {undo}: {e}"));
        assert_eq!(alone(&host.machine), before, "{name}: {undo} does not take back {op}");
        // What is already gone: no harm.
        host.run(&undo).unwrap_or_else(|e| panic!("{name}: {undo} once more: {e}"));
        assert_eq!(alone(&host.machine), before, "{name}: {undo}, twice");
        if after != before {
            assert!(doing.machine != host.machine);
            tried.insert(serde_json::to_value(&op).unwrap()["op"].as_str().unwrap().to_string());
        }
    }
    assert!(tried.len() >= 13, "only {tried:?} did anything");
}

#[test]
fn an_error_leaves_the_machine_as_it_was() {
    let states = states();
    let ops: Vec<Op> = states.iter().map(|(_, _, op)| op.clone()).collect();
    let pool: Vec<Op> = ops.iter().cloned().chain(ops.iter().filter_map(Op::undo)).collect();
    let refused = Cell::new(0);
    proptest!(ProptestConfig::with_cases(2000), |(state in any::<Index>(), op in any::<Index>())| {
        let (name, host, _) = &states[state.index(states.len())];
        let (mut host, op) = (host.clone(), &pool[op.index(pool.len())]);
        let before = host.machine.clone();
        if host.run(op).is_err() {
            refused.set(refused.get() + 1);
            // A first process that fails when it goes on is gone; there is no way back from that.
            prop_assert!(host.machine == before || *op == Op::Resume, "{name}: {op}");
        }
    });
    assert!(refused.get() > 100, "only {} ops failed", refused.get());
}

/// What a journal was told.
#[derive(Clone, Debug)]
enum Told {
    Note(String),
    Strike(Index),
}

proptest! {
    #[test]
    fn a_journal_cut_anywhere_is_one_of_before(
        told in prop::collection::vec(
            prop_oneof![3 => "\\PC{0,9}".prop_map(Told::Note), 2 => any::<Index>().prop_map(Told::Strike)], 0..40),
        cut in any::<Index>(),
    ) {
        let paper = Paper::new();
        let mut journal = paper.open();
        // What is pending after each line, and where that line ends.
        let mut stages = vec![(0, Vec::new())];
        for one in told {
            match one {
                Told::Note(name) => journal.note(Op::RemoveJail { name, root: None, before: Vec::new() }).unwrap(),
                Told::Strike(which) => {
                    let pending = journal.pending();
                    if pending.is_empty() { continue }
                    journal.strike(which.get(&pending).0).unwrap();
                }
            }
            stages.push((paper.read().len(), journal.pending()));
        }
        drop(journal);
        let text = paper.read();
        // Anywhere, and everywhere in lines that strike: half of `-12` looks like another.
        let mut ends = vec![cut.index(text.len() + 1)];
        let strikes = stages.windows(2).filter(|two| text[two[0].0] == b'-');
        ends.extend(strikes.flat_map(|two| two[0].0..=two[1].0));
        for end in ends {
            paper.write(&text[..end]);
            let pending = paper.open().pending();
            // Of the line that is cut, all or nothing.
            let whole = stages.iter().rposition(|(at, _)| *at <= end).unwrap();
            let next = stages.get(whole + 1).filter(|(at, _)| *at == end + 1);
            let expected = [Some(&stages[whole]), next];
            prop_assert!(
                expected.into_iter().flatten().any(|(_, stage)| *stage == pending),
                "cut at {end} of {:?}: {pending:?}", String::from_utf8_lossy(&text)
            );
            // And it goes on from there.
            let mut journal = paper.open();
            journal.note(Op::RemoveJail { name: "after".into(), root: None, before: Vec::new() }).unwrap();
            let now = journal.pending();
            prop_assert_eq!(&now[..now.len() - 1], &pending[..]);
            drop(journal);
            prop_assert_eq!(paper.open().pending(), now);
        }
    }
}

/// Texts that a terminal or a reader of lines takes for more than text.
const HOSTILE: &[&str] =
    &["a\nb", "a\r", "\x1b[2J", "a\tb", "\u{7}", "\u{9b}31m", "a\u{2028}b", "\u{202e}gpj", "\u{85}"];

/// `value` with `text` in every text that is not a tag.
fn poisoned(value: &Value, text: &str) -> Value {
    match value {
        Value::String(_) => json!(text),
        Value::Array(all) => all.iter().map(|one| poisoned(one, text)).collect(),
        Value::Object(all) => {
            all.iter()
                .map(|(key, one)| match key.as_str() {
                    "op" | "kind" | "module" | "moment" | "family" | "id" | "gateway" | "ports" | "type" | "access"
                    | "address" | "protocol" => (key.clone(), one.clone()),
                    "defaultAction" | "action" | "architectures" => (key.clone(), one.clone()),
                    // An address is one, but lists of addresses are texts as often.
                    "addresses" if serde_json::from_value::<Vec<std::net::IpAddr>>(one.clone()).is_ok() => {
                        (key.clone(), one.clone())
                    }
                    "potrun:id" => (key.clone(), one.clone()),
                    _ => (key.clone(), poisoned(one, text)),
                })
                .collect::<serde_json::Map<_, _>>()
                .into()
        }
        other => other.clone(),
    }
}

/// Whether a terminal or a reader of lines takes a character for more than text (Unicode: Cc, Zl, Zp, and the
/// embeddings and overrides of UAX #9).
fn acts(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[test]
fn an_op_is_one_line_whatever_it_says() {
    let mut ops: Vec<Op> = Vec::new();
    for case in cases() {
        for op in &case.plan.ops {
            ops.extend(op.undo());
            ops.push(op.clone());
            if let Op::Spawn(spawn) = op {
                ops.extend(spawn.create.iter().chain(&spawn.start).cloned());
            }
        }
    }
    ops.push(Op::Spawn(Box::new(Spawn { join: vec![("network".into(), "/n".into())], ..Spawn::default() })));
    ops.push(Op::MountRoot(Root::Bind { source: "/x".into() }));
    let mut tried = BTreeSet::new();
    for op in &ops {
        for text in HOSTILE {
            let value = poisoned(&serde_json::to_value(op).unwrap(), text);
            let Ok(hostile) = serde_json::from_value::<Op>(value.clone()) else {
                panic!("{value} is no op");
            };
            let line = hostile.to_string();
            assert!(!line.is_empty() && !line.contains(acts), "{} with {text:?} is {line:?}", value["op"]);
            if hostile != *op {
                tried.insert(value["op"].to_string());
            }
        }
    }
    assert!(tried.len() > 40, "{tried:?}");
}

#[test]
fn the_journal_keeps_what_is_hostile() {
    for text in HOSTILE {
        let paper = Paper::new();
        let op = Op::RemoveCgroup { path: text.into() };
        paper.open().note(op.clone()).unwrap();
        assert_eq!(paper.open().pending(), [(0, op)]);
        let journal: Journal = paper.open();
        assert_eq!(journal.latest(), Some(0));
    }
}

/// Addresses of 10.192.0.0/26, most of them in a row.
fn any_addresses() -> impl Strategy<Value = BTreeSet<u8>> {
    (prop::collection::btree_set(0u8..64, 0..20), 0u8..64)
        .prop_map(|(some, row)| some.into_iter().chain(0..row).collect())
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 192, 0, last])
}

proptest! {
    #[test]
    fn the_lowest_free_address_is_the_lowest(leased in any_addresses(), others in any_addresses()) {
        let ranges = |all: &BTreeSet<u8>| all.iter().copied().map(address).collect::<Ranges<IpAddr>>();
        let subnet = Subnet::parse("10.192.0.0/26").unwrap();
        // 0 is the network's, 63 is the broadcast address.
        let lowest = (1..63).find(|last| !leased.contains(last) && !others.contains(last)).map(address);
        prop_assert_eq!(subnet.lowest_free(&ranges(&leased), &ranges(&others)), lowest);
    }

    #[test]
    fn runs_are_a_set(steps in prop::collection::vec((any::<bool>(), 0u16..40, 0u16..6), 0..40)) {
        let (mut runs, mut set) = (Ranges::<u16>::default(), BTreeSet::new());
        for (put, first, more) in steps {
            if put {
                runs.insert(first, first + more);
                set.extend(first..=first + more);
            } else {
                runs.remove(first);
                set.remove(&first);
            }
            let all: Vec<(u16, u16)> = runs.runs().collect();
            prop_assert!(all.windows(2).all(|two| two[0].1 + 1 < two[1].0), "{all:?}");
            prop_assert_eq!(all.iter().flat_map(|(first, last)| *first..=*last).collect::<BTreeSet<_>>(), set.clone());
            for from in 0..50 {
                prop_assert_eq!(runs.free_from(from), (from..).find(|one| !set.contains(one)));
                prop_assert_eq!(runs.contains(from), set.contains(&from));
            }
        }
        let words: Vec<String> = runs.words().collect();
        prop_assert_eq!(Ranges::parse(words.iter().map(String::as_str)), Some(runs));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Pots come and go in any order, killed now and then while they write; each gets the lowest that nobody has.
    #[test]
    fn no_two_leases_collide(steps in prop::collection::vec((0u8..12, any::<bool>(), 0usize..200), 1..60)) {
        let ledger = Paper::new();
        let path = ledger.path();
        let mut model: BTreeMap<u8, (IpAddr, u16)> = BTreeMap::new();
        let subnet = Subnet::parse("10.192.0.0/26").unwrap();
        for (pot, ends, cut) in steps {
            let (id, owner) = (id(&format!("p{pot}")), PathBuf::from(format!("/run/p{pot}")));
            let before = std::fs::read(path).unwrap_or_default();
            if ends {
                lease::end(path, &id, &owner).unwrap();
                model.remove(&pot);
            } else if !model.contains_key(&pot) {
                let leased = lease::leased(path, &[], &[]).unwrap();
                let address = subnet.lowest_free(&leased.addresses, &Ranges::default()).unwrap();
                let port = leased.free_port(Protocol::Tcp, 1024).unwrap();
                let lowest = |used: &dyn Fn(u8) -> bool| (0..64).find(|n| !used(*n)).unwrap();
                let has = |n: u8| model.values().any(|(one, _)| *one == self::address(n + 1));
                prop_assert_eq!(address, self::address(lowest(&has) + 1));
                let has = |n: u8| model.values().any(|(_, one)| *one == 1024 + u16::from(n));
                prop_assert_eq!(port, 1024 + u16::from(lowest(&has)));
                let ports = vec![Port { protocol: Protocol::Tcp, port, host: None }];
                let one = Lease { id, owner, addresses: vec![address], ports };
                lease::take(path, &one).unwrap();
                let other = Lease { id: self::id("other"), owner: "/run/other".into(), ..one };
                prop_assert!(lease::take(path, &other).is_err());
                // Killed while it wrote the line: as if it had not begun.
                let after = std::fs::read(path).unwrap();
                if cut % 4 == 0 && after.starts_with(&before) && !before.is_empty() {
                    let end = before.len() + cut % (after.len() - before.len());
                    std::fs::write(path, &after[..end]).unwrap();
                } else {
                    model.insert(pot, (address, port));
                }
            }
            let all = lease::all(path).unwrap();
            let found: BTreeSet<IpAddr> = all.iter().flat_map(|one| one.addresses.clone()).collect();
            prop_assert_eq!(found, model.values().map(|(address, _)| *address).collect::<BTreeSet<_>>());
            prop_assert_eq!(all.len(), model.len());
        }
    }
}
