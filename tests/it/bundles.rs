//! The examples of bundles/: each is read, planned on both systems and compared with its golden plan; each of refused/
//! gets exactly the refusal beside it; all are judged by the schema of runtime-spec/, too.
//!
//! `POTRUN_BLESS=1` writes `plan.<os>`, `facts.<os>.json` and `message` anew; without it, one that is not there is a
//! failure. Read the difference before it is committed: what is blessed is what users see.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, which to clippy their helpers are not

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::{Registry, Validator};
use potrun::bundle::{ANNOTATION, Bundle, Problem, Refusal};
use potrun::facts::{Facts, Os, Store};
use potrun::id::ContainerId;
use potrun::plan::plan;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The bundles of refused/ that JSON Schema cannot find fault with, and why.
const BEYOND_SCHEMA: &[(&str, &str)] = &[
    ("member-twice", "a schema sees the last of two members of one name only"),
    ("annotation-empty", COUNTS_AS_TEXT),
    ("annotation-not-an-object", COUNTS_AS_TEXT),
    ("annotation-not-carried-out", COUNTS_AS_TEXT),
    ("annotation-not-json", COUNTS_AS_TEXT),
    ("annotation-wrong", COUNTS_AS_TEXT),
    ("address-twice", COMPARES),
    ("destination-twice", COMPARES),
    ("host-port-twice", COMPARES),
    ("namespace-twice", COMPARES),
    ("rlimit-soft-above-hard", COMPARES),
    ("rlimit-twice", COMPARES),
    ("swap-without-memory", COMPARES),
    ("cpuset-malformed", "3-0 has the form of a range: which end is lower is arithmetic"),
    ("memory-fraction", "to a schema 1048576.0 is a whole number"),
    ("memory-too-much", "a text has no upper bound"),
    ("nul-in-mount", OF_OCI),
    ("sysctl-of-host", OF_OCI),
    ("propagation-word", OF_OCI),
    ("unified-path", OF_OCI),
    ("cgroup-above", OF_OCI),
    ("hostname-too-long", OF_OS),
    ("hostname-without-uts", OF_OS),
    ("mount-incomplete", OF_OS),
    ("mount-of-freebsd", OF_OS),
    ("mount-on-root", OF_OS),
    ("namespace-mount-missing", OF_OS),
    ("namespace-path-relative", OF_OS),
    ("section-of-windows", OF_OS),
    ("bridge-joins-network", OF_OS),
    ("inherit-with-new-network", OF_OS),
    ("not-carried-out", OF_OS),
    ("base-not-imported", OF_MACHINE),
    ("base-of-another-digest", OF_MACHINE),
    ("fscomp-missing", OF_MACHINE),
];
const COUNTS_AS_TEXT: &str = "to the schema of config.json an annotation is a text; contentSchema is not asserted";
const COMPARES: &str = "compares members with each other";
const OF_OCI: &str = "a rule for a member that this schema leaves to the schemas of the OCI";
const OF_OS: &str = "depends on the operating system that carries it out";
const OF_MACHINE: &str = "depends on the machine";

const SYSTEMS: [Os; 2] = [Os::Linux, Os::Freebsd];

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bundles")
}

/// The folders in `dir` that hold a config.json, by name.
fn folders(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut all: Vec<(String, PathBuf)> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() && !path.ends_with("refused"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), path))
        .collect();
    all.sort();
    assert!(!all.is_empty(), "{} holds no bundle", dir.display());
    all
}

fn examples() -> Vec<(String, Vec<u8>)> {
    folders(&home()).into_iter().map(|(name, path)| (name, config(&path))).collect()
}

fn config(folder: &Path) -> Vec<u8> {
    let path = folder.join("config.json");
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A bundle as it is read on every machine: goldens must not depend on where the tests run.
fn parse(name: &str, config: Vec<u8>) -> Result<Bundle, Refusal> {
    Bundle::parse(Path::new("/bundles").join(name), config)
}

fn example(name: &str, config: Vec<u8>) -> Bundle {
    parse(name, config).unwrap_or_else(|refusal| panic!("bundles/{name}: {refusal}"))
}

/// Compares `text` with the golden file, or writes it when blessing. What differs is added to `differences`.
fn golden(path: &Path, text: &str, differences: &mut Vec<String>) {
    if std::env::var_os("POTRUN_BLESS").is_some_and(|bless| bless == "1") {
        return fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    match fs::read_to_string(path) {
        Ok(there) if there == text => {}
        Ok(there) => differences.push(format!("{}:\n--- golden\n{there}+++ now\n{text}", path.display())),
        Err(error) => differences.push(format!("{}: {error} (POTRUN_BLESS=1 writes it)", path.display())),
    }
}

fn settle(differences: &[String]) {
    assert!(differences.is_empty(), "{} of them\n{}", differences.len(), differences.join("\n"));
}

/// The facts beside a bundle, as they stand there.
fn facts(folder: &Path, os: Os) -> Option<Facts> {
    let text = fs::read(folder.join(format!("facts.{os}.json"))).ok()?;
    Some(serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: facts.{os}.json: {e}", folder.display())))
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

#[test]
fn facts_of_examples_are_golden() {
    let mut differences = Vec::new();
    for (name, folder) in folders(&home()) {
        let bundle = example(&name, config(&folder));
        for os in SYSTEMS {
            let path = folder.join(format!("facts.{os}.json"));
            golden(&path, &pretty(&Facts::assumed(os, &bundle)), &mut differences);
        }
    }
    settle(&differences);
}

#[test]
fn plans_of_examples_are_golden() {
    let mut differences = Vec::new();
    for (name, folder) in folders(&home()) {
        let bundle = example(&name, config(&folder));
        let id = ContainerId::new(&name).unwrap();
        for os in SYSTEMS {
            let facts = Facts::assumed(os, &bundle);
            let plan = plan(&bundle, &facts, &id);
            // A bundle with a `linux` section is for that system; on the other one its refusal is as golden.
            let foreign = os != Os::Linux && bundle.spec.linux().is_some();
            let text = match plan {
                Ok(plan) => plan.to_string(),
                Err(refusal) if foreign => format!("{refusal}\n"),
                Err(refusal) => panic!("bundles/{name} on {os}: {refusal}"),
            };
            golden(&folder.join(format!("plan.{os}")), &text, &mut differences);
        }
    }
    settle(&differences);
}

#[test]
fn plans_on_datasets_of_linux_are_golden() {
    let mut differences = Vec::new();
    for (name, folder) in folders(&home()) {
        let bundle = example(&name, config(&folder));
        let path = folder.join("facts.linux-zfs.json");
        if !path.exists() {
            continue;
        }
        let facts = Facts::assumed(Os::Linux, &bundle).kept_in(Store::of_pot(), &bundle);
        golden(&path, &pretty(&facts), &mut differences);
        let plan = plan(&bundle, &facts, &ContainerId::new(&name).unwrap()).unwrap();
        golden(&folder.join("plan.linux-zfs"), &plan.to_string(), &mut differences);
    }
    settle(&differences);
}

#[test]
fn plans_of_clones_are_golden() {
    let mut differences = Vec::new();
    for (name, folder) in folders(&home()) {
        let path = folder.join("facts.linux-clone.json");
        if !path.exists() {
            continue;
        }
        let bundle = example(&name, config(&folder));
        let kept = bundle.pot.as_ref().and_then(|pot| pot.base.as_ref()).map(|base| base.release.clone());
        let layers = ["42", "17"].map(|layer| Path::new("/var/lib/potrun/layers").join(layer)).into();
        let facts = Facts { kept, layers, ..Facts::assumed(Os::Linux, &bundle) };
        golden(&path, &pretty(&facts), &mut differences);
        let plan = plan(&bundle, &facts, &ContainerId::new(&name).unwrap()).unwrap();
        golden(&folder.join("plan.linux-clone"), &plan.to_string(), &mut differences);
    }
    settle(&differences);
}

#[test]
fn plans_are_the_same_from_facts_as_json() {
    for (name, config) in examples() {
        let bundle = example(&name, config);
        for os in SYSTEMS {
            let assumed = Facts::assumed(os, &bundle);
            let read: Facts = serde_json::from_str(&pretty(&assumed)).unwrap();
            let id = ContainerId::new(&name).unwrap();
            assert_eq!(plan(&bundle, &read, &id), plan(&bundle, &assumed, &id), "bundles/{name} on {os}");
        }
    }
}

/// What is said about a bundle: when it is read, or when it is planned on Linux, with the facts beside it or with
/// assumed ones.
fn refusal(name: &str, folder: &Path) -> Refusal {
    let bundle = match parse(name, config(folder)) {
        Ok(bundle) => bundle,
        Err(refusal) => return refusal,
    };
    let facts = facts(folder, Os::Linux).unwrap_or_else(|| Facts::assumed(Os::Linux, &bundle));
    match plan(&bundle, &facts, &ContainerId::new(name).unwrap()) {
        Ok(_) => panic!("bundles/refused/{name} is read and planned"),
        Err(refusal) => refusal,
    }
}

#[test]
fn refused_bundles_get_their_message() {
    let mut differences = Vec::new();
    for (name, folder) in folders(&home().join("refused")) {
        let message = refusal(&name, &folder).to_string();
        assert!(!message.contains(char::is_control), "bundles/refused/{name}: more than one line: {message:?}");
        golden(&folder.join("message"), &format!("{message}\n"), &mut differences);
    }
    settle(&differences);
}

#[test]
fn refusals_name_places_in_order() {
    for (name, folder) in folders(&home().join("refused")) {
        let Refusal(problems) = refusal(&name, &folder);
        assert!(problems.is_sorted(), "bundles/refused/{name}: {problems:?}");
        let Ok(document) = serde_json::from_slice::<Value>(&config(&folder)) else { continue };
        for problem in problems {
            let place = place(&document, &problem.at);
            // A plan may miss a member of a section that is missing as a whole: /root/path without /root.
            assert!(place != Place::Nowhere, "bundles/refused/{name}: {} is nowhere in it", problem.at);
        }
    }
}

/// Where a JSON pointer leads.
#[derive(Debug, PartialEq)]
enum Place {
    /// To a value.
    There,
    /// To a member that an object does not have.
    Missing,
    /// To a member of an object that is missing itself.
    BelowMissing,
    /// Nowhere: through a text or a number, or out of an array.
    Nowhere,
}

/// Follows `pointer`; below the annotation, through the JSON that its text is.
fn place(document: &Value, pointer: &str) -> Place {
    let mut here = document.clone();
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Place::Nowhere;
    }
    let tokens: Vec<String> = pointer.split('/').skip(1).map(|t| t.replace("~1", "/").replace("~0", "~")).collect();
    for (n, token) in tokens.iter().enumerate() {
        if n == 2 && tokens[..2] == ["annotations", ANNOTATION] {
            let Some(inner) = here.as_str().and_then(|text| serde_json::from_str(text).ok()) else {
                return Place::Nowhere;
            };
            here = inner;
        }
        let next = match &here {
            Value::Object(members) => match members.get(token) {
                None if n + 1 == tokens.len() => return Place::Missing,
                None => return Place::BelowMissing,
                Some(value) => value.clone(),
            },
            Value::Array(items) => match token.parse::<usize>().ok().and_then(|n| items.get(n)) {
                None => return Place::Nowhere,
                Some(item) => item.clone(),
            },
            _ => return Place::Nowhere,
        };
        here = next;
    }
    Place::There
}

#[test]
fn pointers_are_followed_as_rfc_6901_says() {
    let document = json!({"a/b": [{"m~n": 1}], "annotations": {ANNOTATION: "{\"network\": {}}"}});
    let inner = format!("/annotations/{ANNOTATION}/network");
    for (pointer, expected) in [
        ("", Place::There),
        ("/a~1b/0/m~0n", Place::There),
        ("/a~1b/1", Place::Nowhere),
        ("/a~1b/0/other", Place::Missing),
        ("/a~1b/0/m~0n/x", Place::Nowhere),
        ("/other/x", Place::BelowMissing),
        ("a", Place::Nowhere),
        (inner.as_str(), Place::There),
    ] {
        assert_eq!(place(&document, pointer), expected, "{pointer:?}");
    }
}

#[test]
fn the_annotation_says_the_same_as_the_section() {
    let mut pots = 0;
    for (name, config) in examples() {
        let section = example(&name, config.clone());
        let mut document: Value = serde_json::from_slice(&config).unwrap();
        let Some(pot) = document.as_object_mut().unwrap().remove("pot") else { continue };
        document["annotations"] = json!({ANNOTATION: pot.to_string()});
        let annotation = example(&name, document.to_string().into_bytes());
        assert_eq!(section.pot, annotation.pot, "bundles/{name}");
        pots += usize::from(section.pot.is_some());
    }
    assert!(pots > 0, "no example has a pot section");
}

/// The schema of config.json, with those that it refers to. Nothing is fetched.
fn schema() -> Validator {
    let read = |name: &str| -> Value {
        let path = home().join("../runtime-spec/schema").join(name);
        let text = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let mut registry = Registry::new();
    for name in ["config-pot.json", "config-freebsd.json"] {
        assert!(jsonschema::meta::is_valid(&read(name)), "{name} is not a schema");
        registry = registry.add(format!("potrun:/{name}"), read(name)).unwrap();
    }
    let registry = registry.prepare().unwrap();
    jsonschema::options()
        .offline()
        .with_base_uri("potrun:/config.json")
        .with_registry(&registry)
        .should_validate_formats(true)
        .build(&read("config.json"))
        .unwrap()
}

#[test]
fn examples_are_valid_by_the_schema() {
    let schema = schema();
    for (name, config) in examples() {
        let document = serde_json::from_slice(&config).unwrap();
        let wrong: Vec<String> = schema.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(wrong.is_empty(), "bundles/{name}: {}", wrong.join("; "));
    }
}

#[test]
fn refused_bundles_are_invalid_by_the_schema() {
    let schema = schema();
    let mut valid = BTreeSet::new();
    for (name, folder) in folders(&home().join("refused")) {
        // What is no JSON never comes to a schema.
        let Ok(document) = serde_json::from_slice::<Value>(&config(&folder)) else { continue };
        let places: Vec<String> = schema.iter_errors(&document).map(|e| e.instance_path().to_string()).collect();
        if places.is_empty() {
            valid.insert(name);
            continue;
        }
        // For the same reason: at a place that the refusal names, in it, or at what holds it.
        let Refusal(problems) = refusal(&name, &folder);
        let same = problems
            .iter()
            .any(|Problem { at, .. }| places.iter().any(|place| at.starts_with(place) || place.starts_with(at)));
        assert!(same, "bundles/refused/{name}: the schema finds fault with {places:?}, the refusal with {problems:?}");
    }
    let expected: BTreeSet<String> = BEYOND_SCHEMA.iter().map(|(name, _)| (*name).to_string()).collect();
    let (new, stale): (Vec<_>, Vec<_>) = (valid.difference(&expected).collect(), expected.difference(&valid).collect());
    assert!(new.is_empty(), "valid by the schema, and BEYOND_SCHEMA does not say why: {new:?}");
    assert!(stale.is_empty(), "BEYOND_SCHEMA lists what the schema does find, or what is not there: {stale:?}");
}

/// A bundle whose pot section has every member, all of them right. It has a root of its own as well, so that it can
/// lose its base.
fn everything() -> Value {
    json!({
        "ociVersion": "1.3.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "pot": {
            "base": {"release": "14.3-RELEASE", "digest": "0".repeat(64)},
            "fscomps": [{"name": "data", "destination": "/srv", "readonly": false}],
            "datasets": [{"dataset": "tank/data", "destination": "/srv/data", "readonly": true}],
            "directories": [{"source": "/usr/share", "destination": "/srv/share", "readonly": true}],
            "network": {
                "type": "private-bridge",
                "bridge": "backend",
                "stack": "dual",
                "addresses": ["10.192.0.10", "2001:db8::1"]
            },
            "exportedPorts": [
                {"port": 80, "protocol": "tcp", "hostPort": 8080, "hostAddress": "192.0.2.1"},
                {"port": 80, "protocol": "tcp", "hostPort": 8081, "hostAddress": "192.0.2.1"}
            ],
            "dns": {"nameservers": ["192.0.2.53"], "search": ["example.org"]},
            "hosts": [{"name": "db", "address": "10.192.0.11"}],
            "limits": {"memory": "512m", "cpus": 0.5, "cpuset": "0-3,8", "pids": 64, "disk": 1_073_741_824},
            "stop": {"command": ["/bin/sh", "/etc/rc.shutdown"], "timeout": 30},
            "persistent": true,
            "startAtBoot": true,
            "dependsOn": ["db"],
            "attributes": {"devfsRuleset": 4, "childrenMax": 0, "securelevel": -1, "osrelease": "14.3-RELEASE"}
        }
    })
}

#[test]
fn everything_is_read() {
    let pot = example("everything", everything().to_string().into_bytes()).pot.unwrap();
    assert_eq!((pot.limits.memory, pot.limits.millicpus), (Some(512 << 20), Some(500)));
    assert!(schema().is_valid(&everything()));
}

#[test]
fn everything_is_in_the_code_the_schema_and_the_prose() {
    // The refusal of an unknown member lists those that the reader asks for: they must be those of `everything`, which
    // is valid by a schema that takes no others, and each must be described.
    let prose = prose();
    let mut places = Vec::new();
    pointers("/pot", &everything()["pot"], &mut places);
    places.retain(|at| everything().pointer(at).unwrap().is_object());
    assert!(places.len() > 10, "{places:?}");
    for at in places {
        let mut document = everything();
        let object = document.pointer_mut(&at).unwrap().as_object_mut().unwrap();
        let here: BTreeSet<String> = object.keys().cloned().collect();
        object.insert("?".into(), Value::Null);
        let Refusal(problems) = parse("everything", document.to_string().into_bytes()).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].at, format!("{at}/?"));
        let (_, known) = problems[0].what.split_once("here it knows ").unwrap();
        assert_eq!(known.split(", ").map(String::from).collect::<BTreeSet<_>>(), here, "{at}");
        for name in here {
            assert!(prose.contains(&format!("**`{name}`**")), "config-pot.md does not describe {at}/{name}");
        }
    }
}

fn prose() -> String {
    fs::read_to_string(home().join("../runtime-spec/config-pot.md")).unwrap()
}

#[test]
fn examples_of_the_prose_are_right() {
    let schema = schema();
    let blocks: Vec<String> =
        prose().split("```json\n").skip(1).map(|rest| rest.split_once("```").unwrap().0.trim().to_string()).collect();
    assert!(blocks.len() > 8, "{} examples", blocks.len());
    for block in blocks {
        let mut document = everything();
        // A whole file, an annotation, or members of the section.
        if block.starts_with('{') {
            document = serde_json::from_str(&block).unwrap_or_else(|e| panic!("{e}: {block}"));
        } else {
            let members: Value =
                serde_json::from_str(&format!("{{{block}}}")).unwrap_or_else(|e| panic!("{e}: {block}"));
            if members.get("annotations").is_some() {
                document["annotations"] = members["annotations"].clone();
                document.as_object_mut().unwrap().remove("pot");
            } else {
                document["pot"] = members;
                if document["pot"].get("exportedPorts").is_some() {
                    document["pot"]["network"] = json!({"type": "public-bridge"});
                }
            }
        }
        assert!(schema.is_valid(&document), "{block}");
        assert!(example("prose", document.to_string().into_bytes()).pot.is_some(), "{block}");
    }
}

/// The pointers of all values below `at`, itself included.
fn pointers(at: &str, value: &Value, all: &mut Vec<String>) {
    all.push(at.to_string());
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, member)| pointers(&format!("{at}/{name}"), member, all));
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(n, item)| pointers(&format!("{at}/{n}"), item, all)),
        _ => {}
    }
}

/// Texts and numbers at and beyond the edges of what members take.
fn edge() -> impl Strategy<Value = Value> {
    let words = "auto inherit alias public-bridge private-bridge ipv4 ipv6 off tcp udp / /srv /srv/ /srv/../x srv data \
        a/b tank/data 10.192.0.10 2001:db8::1 em0|192.0.2.1 |192.0.2.1 0.0.0.0 :: 512m 0 1k 1.5g 0-3 3-0 +1 14.3";
    let mut known: Vec<&str> = words.split(' ').collect();
    known.extend(["", "tank/a b", "x\u{0}y", "ü", "line\nfeed"]);
    prop_oneof![
        proptest::sample::select(known).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-2i32..70_000).prop_map(Value::from),
        (-1.0..70_000.0).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ]
}

/// Any JSON, with names that members have and names that they do not have.
fn any_json() -> impl Strategy<Value = Value> {
    let names = ["type", "name", "destination", "addresses", "port", "base", "network", "a/b~c", "\u{1b}[2J", ""];
    edge().prop_recursive(3, 16, 4, move |inner| {
        let name = proptest::sample::select(names.to_vec()).prop_map(String::from);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(name, inner, 0..4).prop_map(|all| all.into_iter().collect()),
        ]
    })
}

/// [`everything`] with one to four places of its pot section changed: replaced, removed, doubled, or a member added.
fn damaged() -> impl Strategy<Value = Value> {
    let damage = (any::<proptest::sample::Index>(), 0..4, any_json());
    proptest::collection::vec(damage, 1..=4).prop_map(|all| {
        let mut document = everything();
        for (index, kind, value) in all {
            let mut places = Vec::new();
            pointers("/pot", &document["pot"], &mut places);
            let at = index.get(&places);
            if kind == 1 {
                let (parent, last) = at.rsplit_once('/').unwrap();
                match document.pointer_mut(parent) {
                    Some(Value::Object(members)) => drop(members.remove(last)),
                    Some(Value::Array(items)) => drop(items.remove(last.parse().unwrap())),
                    _ => {}
                }
                continue;
            }
            let Some(here) = document.pointer_mut(at) else { continue };
            match here {
                Value::Object(members) if kind == 2 => drop(members.insert("unknown/~".into(), value)),
                Value::Array(items) if kind == 2 => items.push(value),
                Value::Array(items) if kind == 3 => items.extend(items.first().cloned()),
                _ => *here = value,
            }
        }
        document
    })
}

fn laws(document: &Value, schema: &Validator) -> Result<(), TestCaseError> {
    match parse("law", document.to_string().into_bytes()) {
        Ok(_) => prop_assert!(schema.is_valid(document), "read, but invalid by the schema"),
        Err(refusal) => {
            prop_assert!(!refusal.to_string().contains(char::is_control), "{refusal:?}");
            let Refusal(problems) = refusal;
            prop_assert!(!problems.is_empty() && problems.is_sorted(), "{problems:?}");
            for Problem { at, .. } in &problems {
                let place = place(document, at);
                prop_assert!(matches!(place, Place::There | Place::Missing), "{at} is {place:?}: {problems:?}");
            }
        }
    }
    Ok(())
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn a_damaged_pot_is_refused_at_places_of_the_document_or_valid() {
    let schema = schema();
    proptest!(cases(2000), |(document in damaged())| laws(&document, &schema)?);
}

#[test]
fn any_json_as_pot_is_refused_at_places_of_the_document_or_valid() {
    let schema = schema();
    proptest!(cases(500), |(pot in any_json())| {
        let mut document = everything();
        document["pot"] = pot;
        laws(&document, &schema)?;
    });
}

#[test]
fn damage_of_places_apart_is_found_at_once() {
    // Types that no member takes, each at a leaf of its own: as many problems as places.
    let mut places = Vec::new();
    pointers("/pot", &everything()["pot"], &mut places);
    places.retain(|at| !everything().pointer(at).unwrap().is_object() && !everything().pointer(at).unwrap().is_array());
    proptest!(cases(200), |(chosen in proptest::sample::subsequence(places.clone(), 1..=places.len()))| {
        let mut document = everything();
        for at in &chosen {
            *document.pointer_mut(at).unwrap() = json!({"wrong": 1});
        }
        let Refusal(problems) = parse("law", document.to_string().into_bytes()).unwrap_err();
        let found: BTreeSet<&str> = problems.iter().map(|problem| problem.at.as_str()).collect();
        let expected: BTreeSet<&str> = chosen.iter().map(String::as_str).collect();
        prop_assert_eq!(found, expected, "{:?}", problems);
        prop_assert_eq!(problems.len(), chosen.len());
    });
}

#[test]
fn arbitrary_bytes_do_not_panic() {
    proptest!(cases(1000), |(bytes in proptest::collection::vec(any::<u8>(), 0..256))| {
        let shown = parse("law", bytes).err().map(|refusal| refusal.to_string());
        prop_assert!(shown.is_some_and(|text| !text.contains(char::is_control)));
    });
}

#[test]
fn examples_with_bytes_changed_do_not_panic() {
    let examples = examples();
    let change = (any::<proptest::sample::Index>(), 0usize..8, proptest::collection::vec(any::<u8>(), 0..4));
    let which = any::<proptest::sample::Index>();
    proptest!(cases(2000), |(which in which, (place, removed, inserted) in change)| {
        let (name, mut config) = which.get(&examples).clone();
        let start = place.index(config.len());
        let end = config.len().min(start + removed);
        config.splice(start..end, inserted);
        if let Err(refusal) = parse(&name, config) {
            prop_assert!(!refusal.0.is_empty());
            prop_assert!(!refusal.to_string().contains(char::is_control), "{refusal:?}");
        }
    });
}
