//! What pot does to the machine and what potrun plans, side by side.
//!
//! The left side is what pot 0.16.0 was seen to run for one pot of each network type (`jail -c`, `ifconfig`, `pfctl`,
//! `rctl`; made-up names and numbers of interfaces left out). The right side is the plan of the bundle that says the
//! same. Where the two differ, [`INTENDED`] says so and why; a difference that is not there fails the test, and so does
//! an entry that nothing needs any more.

#![allow(clippy::unwrap_used)] // in a test a panic is the report

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use potrun::bundle::Bundle;
use potrun::facts::{Bridge, Facts, Os};
use potrun::id::ContainerId;
use potrun::op::Op;
use potrun::plan::{Plan, plan};

/// Parameters that pot hands to jail(8) for every pot of the traces.
const COMMON: &str = "allow.set_hostname=false allow.raw_sockets allow.socket_af allow.chflags exec.clean mount.devfs \
    enforce_statfs=2 sysvshm=new sysvsem=new sysvmsg=new children.max=0 devfs_ruleset=4 stop.timeout=10 \
    osrelease=14.1-RELEASE";

/// One pot of the traces.
struct Trace {
    id: &'static str,
    /// Parameters of `jail -c` besides [`COMMON`].
    jail: &'static str,
    /// Everything else that it did before the program ran.
    steps: &'static [&'static str],
    /// The `pot` section of the same pot.
    pot: &'static str,
    /// What `freebsd.jail` has to say besides what all say.
    extra: &'static str,
}

const TRACES: &[Trace] = &[
    Trace {
        id: "inh",
        jail: "persist ip4=inherit ip6=inherit",
        steps: &["mount tmpfs /tmp", "cpuset 0,1", "rctl memoryuse:deny=536870912", "sleep 1234"],
        pot: r#""network": {"type": "inherit", "stack": "dual"}, "limits": {"memory": "512M", "cpuset": "0,1"}"#,
        extra: "",
    },
    Trace {
        id: "ali",
        jail: "persist ip4.addr=em0|192.168.1.50,em1|10.9.9.9 ip6.addr=em0|fd00::5",
        steps: &[
            "mount tmpfs /tmp",
            "address em0 192.168.1.50",
            "address em1 10.9.9.9",
            "address em0 fd00::5",
            "sleep 1234",
        ],
        pot: r#""network": {"type": "alias", "stack": "dual",
                "addresses": ["192.168.1.50", "em1|10.9.9.9", "em0|fd00::5"]}"#,
        extra: "",
    },
    Trace {
        id: "pri",
        jail: "persist vnet",
        steps: &[
            "mount tmpfs /tmp",
            "pair",
            "bridge 10.192.0.9",
            "member",
            "second addm",
            "move",
            "sysrc ifconfig_epair3b inet 10.192.0.10/29",
            "sysrc defaultrouter 10.192.0.9",
            "rdr pass on em0 proto tcp from any to (em0) port 30080 -> 10.192.0.10 port 80",
            "sleep 1234",
        ],
        pot: r#""network": {"type": "private-bridge", "bridge": "priv1"},
                "exportedPorts": [{"port": 80, "hostPort": 30080}]"#,
        extra: "",
    },
    Trace {
        id: "dua",
        jail: "persist vnet",
        steps: &[
            "mount tmpfs /tmp",
            "pair",
            "bridge 10.192.0.1",
            "member",
            "move",
            "sysrc ifconfig_epair3b inet 10.192.0.20/10",
            "sysrc defaultrouter 10.192.0.1",
            "pair for inet6",
            "bridge of em0 for inet6",
            "inside accept_rtadv",
            "sleep 1234",
        ],
        pot: r#""network": {"type": "public-bridge", "stack": "dual", "addresses": ["10.192.0.20"]}"#,
        extra: "",
    },
    Trace {
        id: "all",
        jail: "enforce_statfs=1 allow.mount mount.fdescfs allow.mount.linprocfs allow.mount.nullfs mount.procfs \
            allow.mount.tmpfs allow.mount.zfs children.max=5 allow.mlock nopersist ip4=inherit",
        steps: &["mount tmpfs /tmp", "mount fdescfs /dev/fd", "mount procfs /proc", "sleep 1234"],
        pot: r#""network": {"type": "inherit"}, "attributes": {"childrenMax": 5}"#,
        extra: r#", "enforceStatfs": 1"#,
    },
    Trace {
        id: "web_down",
        jail: "nopersist vnet",
        steps: &[
            "mount tmpfs /tmp",
            "pair",
            "forwarding",
            "bridge 10.192.0.1",
            "nat on em0 from 10.192.0.0/10 to any -> (em0:0)",
            "member",
            "rdr pass on em0 proto tcp from any to (em0) port 1025 -> 10.192.0.7 port 80",
            "rdr pass on em0 proto udp from any to (em0) port 5353 -> 10.192.0.7 port 53",
            "move",
            "inside 10.192.0.7/10",
            "route 10.192.0.1",
            "lo0 127.0.0.1",
            "sleep 1234",
        ],
        pot: r#""network": {"type": "public-bridge", "addresses": ["10.192.0.7"]},
                "exportedPorts": [{"port": 80}, {"port": 53, "protocol": "udp", "hostPort": 5353}]"#,
        extra: "",
    },
];

/// What is meant to differ: `-` pot does it, `+` potrun does it; and why.
const INTENDED: &[(&str, &str)] = &[
    ("+names", "pots know each other by name without a name server"),
    ("+mount nullfs /etc/potrun", "their names, as they come and go"),
    ("+link /etc/hosts", "leads there"),
    ("-jail exec.clean", "jail(8)'s; the program's environment is process.env, whole"),
    ("-jail mount.devfs", "jail(8)'s; a mount of the plan, with its ruleset said"),
    ("+mount devfs /dev", "the same"),
    ("-jail mount.fdescfs", "jail(8)'s; listed in mounts"),
    ("-jail mount.procfs", "jail(8)'s; listed in mounts"),
    ("-jail stop.timeout=10", "jail(8)'s; pot.stop, read by kill and delete"),
    ("-jail nopersist", "a jail waits without a process until start, and delete removes it"),
    ("+jail persist", "the same"),
    ("-jail ip4.addr=em0|192.168.1.50,em1|10.9.9.9", "jail(8)'s spelling; interfaces are in steps of their own"),
    ("+jail ip4.addr=192.168.1.50,10.9.9.9", "the same"),
    ("-jail ip6.addr=em0|fd00::5", "jail(8)'s spelling; interfaces are in steps of their own"),
    ("+jail ip6.addr=fd00::5", "the same"),
    ("+jail ip6=disable", "said, where pot trusts the default"),
    ("+jail host=new", "said, where pot trusts that a name implies it"),
    ("-mount tmpfs /tmp", "has no size, and hides what the image has there: a bundle that wants it lists it"),
    ("-sleep 1234", "keeps a jail alive until jexec comes; the jail persists, and images need no sleep"),
    ("-second addm", "a slip of pot's: the bridge has the member already"),
    (
        "-sysrc ifconfig_epair3b inet 10.192.0.10/29",
        "the plan configures the interface; no file of the image is edited",
    ),
    ("-sysrc ifconfig_epair3b inet 10.192.0.20/10", "the same"),
    ("-sysrc defaultrouter 10.192.0.9", "the same"),
    ("-sysrc defaultrouter 10.192.0.1", "the same"),
    ("+inside 10.192.0.10/29", "the same"),
    ("+inside 10.192.0.20/10", "the same"),
    ("+route 10.192.0.9", "the same"),
    ("+route 10.192.0.1", "the same"),
    ("+lease", "an address and a host port belong to one pot from its plan on; pot looks which are in use, unlocked"),
    ("-pair for inet6", "one pair carries both families"),
    ("-bridge of em0 for inet6", "the host's Ethernet is not the pot's: a network of its own, translated"),
    ("-inside accept_rtadv", "the address is the plan's, not the router's"),
    ("+inside fd70:6f74::2/64", "the same"),
    ("+bridge fd70:6f74::1", "the same"),
    ("+route fd70:6f74::1", "the same"),
    ("+forwarding inet6", "the same"),
    ("+forwarding", "said for each pot; pot does it once, in vnet-start"),
    ("-nat on em0 from 10.192.0.0/10 to any -> (em0:0)", "the same, with its family and potrun's mark"),
    ("+nat on em0 inet from 10.192.0.0/10 to any tag potrun -> (em0:0)", "said for each pot; kept where there is one"),
    ("+nat on em0 inet6 from fd70:6f74::/64 to any tag potrun -> (em0:0)", "the second family's"),
    (
        "+block drop in quick on pb-jnhtv9l6x4xp from any to 10.192.0.0 - 10.192.0.7",
        "pots of other bridges do not reach a private one, nor its pots them",
    ),
    ("+block drop out quick on pb-jnhtv9l6x4xp from 10.192.0.0 - 10.192.0.7 to any", "the same"),
    ("+block drop in quick on pb-jnhtv9l6x4xp from any to 10.192.0.16 - 10.255.255.255", "the same"),
    ("+block drop out quick on pb-jnhtv9l6x4xp from 10.192.0.16 - 10.255.255.255 to any", "the same"),
    ("+lo0 127.0.0.1", "pot leaves it to rc(8) where there is one"),
];

fn facts(bundle: &Bundle) -> Facts {
    let mut facts = Facts::assumed(Os::Freebsd, bundle);
    let private = Bridge { subnet: "10.192.0.8/29".into(), gateway: "10.192.0.9".parse().unwrap() };
    facts.network.bridges.insert("priv1".into(), private);
    facts.network.taken_ports = vec![1024]; // the trace's other0
    facts
}

fn planned(trace: &Trace) -> Plan {
    let Trace { id, pot, extra, .. } = trace;
    let mounts = if *id == "all" {
        r#""mounts": [{"destination": "/dev/fd", "type": "fdescfs"}, {"destination": "/proc", "type": "procfs"}],"#
    } else {
        ""
    };
    let allow = if *id == "all" { r#", "mlock": true, "mount": ["linprocfs", "nullfs", "tmpfs", "zfs"]"# } else { "" };
    let config = format!(
        r#"{{"ociVersion": "1.3.0", "hostname": "{id}.host", {mounts}
            "process": {{"user": {{"uid": 0, "gid": 0}}, "cwd": "/", "args": ["nginx", "-g", "daemon off;"]}},
            "freebsd": {{"jail": {{"allow": {{"setHostname": false, "rawSockets": true, "socketAf": true,
                "chflags": true {allow}}} {extra}}}}},
            "pot": {{"base": {{"release": "14.1-RELEASE"}}, {pot}}}}}"#
    );
    let bundle = Bundle::parse(PathBuf::from("/b"), config.into_bytes()).unwrap();
    plan(&bundle, &facts(&bundle), &ContainerId::new(id).unwrap()).unwrap()
}

/// What pot did, in the words of [`effects`].
fn of_pot(trace: &Trace) -> BTreeSet<String> {
    let Trace { id, jail, steps, .. } = trace;
    let mut parameters: BTreeMap<String, String> = BTreeMap::new();
    let named = format!("host.hostname={id}.host path=/opt/pot/jails/{id}/m");
    for word in COMMON.split_whitespace().chain(jail.split_whitespace()).chain(named.split_whitespace()) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        parameters.insert(key.into(), value.into()); // the later word wins
    }
    let parameter = |(key, value): (String, String)| match (key.as_str(), value.as_str()) {
        // Two spellings of one thing.
        ("allow.set_hostname", "false") => "jail allow.noset_hostname".to_string(),
        ("vnet", "") => "jail vnet=new".into(),
        (_, "") => format!("jail {key}"),
        _ => format!("jail {key}={value}"),
    };
    let mut all: BTreeSet<String> = parameters.into_iter().map(parameter).collect();
    all.extend(steps.iter().map(ToString::to_string));
    all.insert("write /etc/resolv.conf".into()); // start.sh copies the host's, by cp
    all
}

/// What a plan does to the machine, without the names that each computes in its own way. The family in a rule of
/// redirection is dropped: pf finds it in the addresses.
fn effects(plan: &Plan) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for op in &plan.ops {
        match op {
            Op::HostMount { mount, .. } => {
                all.insert(format!("mount {} {}", mount.fstype, mount.target.display()));
            }
            Op::CreateJail { parameters, .. } => all.extend(parameters.iter().map(|(key, value)| {
                if value.is_empty() { format!("jail {key}") } else { format!("jail {key}={value}") }
            })),
            Op::AddRctl { rule } => {
                all.insert(format!("rctl {}", rule.splitn(3, ':').nth(2).unwrap()));
            }
            Op::SetCpuset { cpus, .. } => {
                all.insert(format!("cpuset {cpus}"));
            }
            Op::AddAddress { interface, address } => {
                all.insert(format!("address {interface} {}", address.split('/').next().unwrap()));
            }
            Op::Lease { .. } => {
                all.insert("lease".into());
            }
            Op::CreatePair { .. } => {
                all.insert("pair".into());
            }
            Op::EnsureBridge { addresses, .. } => {
                all.extend(addresses.iter().map(|one| format!("bridge {}", one.split('/').next().unwrap())));
            }
            Op::AddMember { isolated, .. } => {
                all.insert(if *isolated { "isolated member" } else { "member" }.into());
            }
            Op::EnableForwarding { family, .. } => {
                all.insert(if family.to_string() == "ipv4" { "forwarding" } else { "forwarding inet6" }.into());
            }
            Op::MoveInterface { .. } => {
                all.insert("move".into());
            }
            Op::ConfigureInterface { interface, .. } if interface == "lo0" => {
                all.insert("lo0 127.0.0.1".into());
            }
            Op::ConfigureInterface { addresses, .. } => {
                all.extend(addresses.iter().map(|one| format!("inside {one}")));
            }
            Op::AddRoute { gateway, .. } => {
                all.insert(format!("route {gateway}"));
            }
            Op::EnsureAnchor { anchor, rules } => {
                assert_eq!(anchor, "pot-nat");
                all.extend(rules.lines().map(String::from));
            }
            Op::LoadAnchor { anchor, rules } => {
                assert_eq!(anchor, &format!("pot-rdr/{}", potname(plan)));
                all.extend(rules.lines().map(|rule| rule.replacen(" inet ", " ", 1)));
            }
            Op::PublishNames { .. } => {
                all.insert("names".into());
            }
            Op::WriteLink { path, .. } => {
                all.insert(format!("link {}", path.display()));
            }
            Op::WriteFile { path, .. } => {
                all.insert(format!("write {}", path.display()));
            }
            Op::CreateDataset { .. } | Op::CloneDataset { .. } | Op::Spawn(_) => {}
            other => panic!("nobody thought of: {other}"),
        }
    }
    all
}

fn potname(plan: &Plan) -> &str {
    let jail = |op: &'_ Op| matches!(op, Op::CreateJail { .. });
    match plan.ops.iter().find(|op| jail(op)) {
        Some(Op::CreateJail { name, .. }) => name,
        _ => panic!("no jail"),
    }
}

#[test]
fn potrun_does_what_pot_does_but_where_it_is_meant_not_to() {
    let mut used = BTreeSet::new();
    for trace in TRACES {
        let (pot, potrun) = (of_pot(trace), effects(&planned(trace)));
        let missing = pot.difference(&potrun).map(|text| format!("-{text}"));
        let more = potrun.difference(&pot).map(|text| format!("+{text}"));
        for difference in missing.chain(more) {
            let intended = INTENDED.iter().any(|(known, _)| *known == difference);
            assert!(intended, "{}: nobody said that this differs: {difference}", trace.id);
            used.insert(difference);
        }
    }
    for (known, why) in INTENDED {
        assert!(used.contains(*known), "differs no more: {known} ({why})");
    }
}

#[test]
fn what_a_pot_may_is_said_and_not_forced() {
    let config = br#"{"ociVersion": "1.3.0", "pot": {"base": {"release": "14.1-RELEASE"}}}"#;
    let bundle = Bundle::parse(PathBuf::from("/b"), config.to_vec()).unwrap();
    let plan = plan(&bundle, &facts(&bundle), &ContainerId::new("x").unwrap()).unwrap();
    let allowed: Vec<String> = effects(&plan).into_iter().filter(|text| text.starts_with("jail allow")).collect();
    assert_eq!(allowed, [""; 0], "pot forces raw_sockets, socket_af and chflags");
}
