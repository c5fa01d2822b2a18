//! Whole plans, and whole refusals.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::facts::{Facts, Os, Quota, Store};
use crate::id::{ContainerId, MAX_LEN};
use crate::op::Op;
use crate::plan::{Plan, plan};

/// The plan of a bundle on FreeBSD; `more` is put over a bundle that runs `sleep 1` in `/b/root`.
fn try_plan(id: &str, more: Value, change: impl Fn(&mut Facts)) -> Result<Plan, Vec<String>> {
    let mut config = json!({
        "ociVersion": "1.3.0",
        "root": {"path": "root"},
        "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["sleep", "1"]},
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let bundle = Bundle::parse(PathBuf::from("/b"), config.to_string().into_bytes()).unwrap();
    let mut facts = Facts::assumed(Os::Freebsd, &bundle);
    change(&mut facts);
    plan(&bundle, &facts, &ContainerId::new(id).unwrap())
        .map_err(|refusal| refusal.0.iter().map(|one| format!("{}: {}", one.at, one.what)).collect())
}

fn planned(more: Value) -> Plan {
    try_plan("web1", more, |_| {}).unwrap()
}

fn refused(more: Value) -> Vec<String> {
    try_plan("web1", more, |_| {}).unwrap_err()
}

fn parameters(plan: &Plan) -> String {
    let jail = plan.ops.iter().find(|op| matches!(op, Op::CreateJail { .. }));
    jail.unwrap().to_string()
}

fn mounts(plan: &Plan) -> Vec<String> {
    plan.ops
        .iter()
        .filter_map(|op| match op {
            Op::HostMount { mount, .. } => Some(mount.to_string()),
            _ => None,
        })
        .collect()
}

fn public() -> Value {
    json!({
        "hostname": "web1.example.org",
        "hooks": {
            "createRuntime": [{"path": "/h/runtime"}],
            "createContainer": [{"path": "/h/container"}],
            "startContainer": [{"path": "/h/start"}],
        },
        "mounts": [{"destination": "/tmp", "type": "tmpfs", "options": ["nosuid", "nodev", "size=64m", "mode=1777"]}],
        "process": {
            "user": {"uid": 80, "gid": 80}, "cwd": "/srv", "args": ["nginx"], "noNewPrivileges": true,
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 2048}],
        },
        "pot": {
            "base": {"release": "14.3-RELEASE"},
            "fscomps": [{"name": "data", "destination": "/srv/data"}],
            "directories": [{"source": "/etc/ssl", "destination": "/srv", "readonly": true}],
            "network": {"type": "public-bridge", "stack": "dual"},
            "exportedPorts": [{"port": 80, "hostPort": 30080}, {"port": 443}],
            "dns": {"nameservers": ["192.0.2.1"]},
            "limits": {"memory": "512m", "cpus": 1.5, "pids": 64, "cpuset": "0-1", "disk": "1g"},
        },
    })
}

#[test]
fn golden_plan_of_a_public_bridge() {
    let golden = "\
create dataset zroot/pot/jails/web1 (mountpoint=/opt/pot/jails/web1,potrun:id=web1,potrun:state=/var/run/potrun/web1)
clone dataset zroot/pot/bases/14.3-RELEASE@potrun to zroot/pot/jails/web1/m (mountpoint=/opt/pot/jails/web1/m,potrun:id=web1,refquota=1073741824)
write /etc/resolv.conf below /opt/pot/jails/web1/m, mode 0644: nameserver 192.0.2.1
publish names, seen in /var/run/potrun.hosts/pb-public/all/hosts: 10.192.0.3 web1 web1.example.org; fd70:6f74::2 web1 web1.example.org
link /etc/hosts below /opt/pot/jails/web1/m to /etc/potrun/hosts
mount devfs devfs on /dev (ruleset=4) below /opt/pot/jails/web1/m
mount tmpfs tmpfs on /tmp (nosuid,size=64m,mode=1777) below /opt/pot/jails/web1/m
mount nullfs /etc/ssl on /srv (ro) below /opt/pot/jails/web1/m
mount nullfs /opt/pot/fscomp/data on /srv/data below /opt/pot/jails/web1/m
mount nullfs /var/run/potrun.hosts/pb-public/all on /etc/potrun (ro) below /opt/pot/jails/web1/m
add resource rule jail:web1:memoryuse:deny=536870912
add resource rule jail:web1:pcpu:deny=150
add resource rule jail:web1:maxproc:deny=64
create jail web1: path=/opt/pot/jails/web1/m persist osrelease=14.3-RELEASE devfs_ruleset=4 enforce_statfs=2 children.max=0 host=new host.hostname=web1.example.org sysvmsg=new sysvsem=new sysvshm=new vnet=new
confine jail web1 to processors 0-1
lease 10.192.0.3,fd70:6f74::2, ports tcp/1024,tcp/30080
ensure bridge pb-public, potrun public bridge, 10.192.0.1/10,fd70:6f74::1/64
enable forwarding of ipv4
enable forwarding of ipv6
ensure anchor pot-nat: nat on em0 inet from 10.192.0.0/10 to any tag potrun -> (em0:0); nat on em0 inet6 from fd70:6f74::/64 to any tag potrun -> (em0:0)
";
    let text = planned(public()).to_string();
    assert!(text.starts_with(golden), "{text}");
    let golden = "\
bring up lo0 in web1, 127.0.0.1/8
";
    assert!(text.contains(golden), "{text}");
    let golden = "\
add default route in web1 by 10.192.0.1
add default route in web1 by fd70:6f74::1
load anchor pot-rdr/web1: rdr pass on em0 inet proto tcp from any to (em0) port 30080 -> 10.192.0.3 port 80; rdr pass on em0 inet6 proto tcp from any to (em0) port 30080 -> fd70:6f74::2 port 80; rdr pass on em0 inet proto tcp from any to (em0) port 1024 -> 10.192.0.3 port 443; rdr pass on em0 inet6 proto tcp from any to (em0) port 1024 -> fd70:6f74::2 port 443
spawn the first process
    wait for the runtime
    run createContainer hook /h/container
    wait for start
    attach to jail web1
    create directory /srv
    run startContainer hook /h/start
    set RLIMIT_NOFILE to 1024:2048
    set no new privileges
    change to directory /srv
    set user 80 group 80 groups []
    exec [\"nginx\"], 0 environment variables
run createRuntime hook /h/runtime
resume the first process
left out: port 30080/tcp for the host itself: it reaches 10.192.0.3:80 over the bridge
";
    assert!(text.contains(golden), "{text}");
}

#[test]
fn the_pair_is_wired_after_the_jail_and_before_the_process() {
    let plan = planned(public());
    let short = |prefix: &str| ContainerId::new("web1").unwrap().short(prefix);
    let (host, inner) = (short("pta"), short("ptb"));
    let text: Vec<String> = plan.ops.iter().map(Op::to_string).filter(|line| line.contains(&host[3..])).collect();
    assert_eq!(text.len(), 4, "{text:?}");
    assert!(text[0].starts_with(&format!("create interface pair {host} (")) && text[0].ends_with(" for web1"));
    assert_eq!(text[1], format!("add {host} to bridge pb-public"));
    assert_eq!(text[2], format!("move interface {inner} into web1"));
    assert_eq!(text[3], format!("bring up {inner} in web1, 10.192.0.3/10,fd70:6f74::2/64"));
}

#[test]
fn everything_that_stays_is_taken_back_in_reverse() {
    let plan = planned(public());
    let back: Vec<String> = plan.ops.iter().rev().filter_map(Op::undo).map(|op| op.to_string()).collect();
    let pair = ContainerId::new("web1").unwrap().short("pta");
    let root = "/opt/pot/jails/web1/m";
    let expected = [
        "kill the container's processes".to_string(),
        "flush anchor pot-rdr/web1".into(),
        format!("destroy interface {pair} of web1"),
        "release anchor pot-nat".into(),
        "release bridge pb-public, potrun public bridge".into(),
        "end lease of web1".into(),
        "remove jail web1".into(),
        "remove resource rules jail:web1".into(),
        "remove resource rules jail:web1".into(),
        "remove resource rules jail:web1".into(),
        format!("unmount /etc/potrun below {root}"),
        format!("unmount /srv/data below {root}"),
        format!("unmount /srv below {root}"),
        format!("unmount /tmp below {root}"),
        format!("unmount /dev below {root}"),
        "withdraw names: 10.192.0.3 web1 web1.example.org; fd70:6f74::2 web1 web1.example.org".into(),
        "destroy dataset zroot/pot/jails/web1 of web1".into(),
    ];
    assert_eq!(back, expected);
    let anchor = plan.ops.iter().find(|op| matches!(op, Op::LoadAnchor { .. })).and_then(Op::undo);
    let addresses = vec!["10.192.0.3".parse().unwrap(), "fd70:6f74::2".parse().unwrap()];
    assert_eq!(anchor, Some(Op::FlushAnchor { anchor: "pot-rdr/web1".into(), addresses }));
}

#[test]
fn a_plan_is_the_same_every_time() {
    let annotated = json!({
        "annotations": {"org.freebsd.jail.allow.mlock": "true", "org.freebsd.jail.allow.quotas": "true", "a": "b"}
    });
    for more in [public(), annotated] {
        let first = planned(more.clone());
        for _ in 0..20 {
            let again = planned(more.clone());
            assert_eq!(serde_json::to_string(&again).unwrap(), serde_json::to_string(&first).unwrap());
        }
    }
}

#[test]
fn names_of_different_containers_differ_everywhere() {
    let long = "x".repeat(200);
    let ids = ["web1", "web.1", "web+1", "2024", "2024+", "_web1", &format!("{long}a"), &format!("{long}b")];
    let mut seen = BTreeSet::new();
    for id in ids {
        let plan = try_plan(id, public(), |_| {}).unwrap();
        for op in &plan.ops {
            let names = match op {
                Op::CreateDataset { dataset, .. } | Op::CloneDataset { dataset, .. } => vec![format!("zfs {dataset}")],
                Op::CreateJail { name, .. } => vec![format!("jail {name}")],
                Op::CreatePair { host, pot, macs, .. } => vec![host.clone(), pot.clone(), macs.join(" ")],
                Op::LoadAnchor { anchor, .. } => {
                    assert!(anchor.len() <= 63, "{anchor}");
                    vec![format!("anchor {anchor}")]
                }
                _ => continue,
            };
            for name in names {
                assert!(seen.insert(name.clone()), "{name} of {id} is another's");
            }
        }
    }
    assert_eq!(seen.len(), ids.len() * 7);
}

#[test]
fn a_name_that_no_dataset_or_jail_can_have_is_refused() {
    let refusal = try_plan(&"x".repeat(MAX_LEN), public(), |_| {}).unwrap_err();
    assert!(refusal.len() == 1 && refusal[0].starts_with(": the container id is too long: the dataset"), "{refusal:?}");
    let refusal = try_plan(&".".repeat(MAX_LEN - 1), json!({}), |_| {}).unwrap_err();
    assert!(refusal[0].starts_with(": the container id is too long: the jail"), "{refusal:?}");
    let parent = json!({"freebsd": {"jail": {"parent": "a b"}}});
    assert_eq!(refused(parent), ["/freebsd/jail/parent: \"a b\" is not the name of a jail"]);
}

#[test]
fn a_plain_bundle_is_taken_as_it_is() {
    let text = planned(json!({})).to_string();
    assert_eq!(
        text,
        "create jail web1: path=/b/root persist devfs_ruleset=4 enforce_statfs=2 children.max=0 host=inherit \
         sysvmsg=new sysvsem=new sysvshm=new ip4=inherit ip6=inherit\n\
         spawn the first process\n    wait for start\n    attach to jail web1\n    change to directory /\n    \
         set user 0 group 0 groups []\n    exec [\"sleep\", \"1\"], 0 environment variables\n"
    );
}

#[test]
fn a_read_only_root_gets_its_mount_points_first() {
    let more = json!({
        "root": {"path": "root", "readonly": true},
        "mounts": [
            {"destination": "/dev", "type": "devfs"},
            {"destination": "/dev/fd", "type": "fdescfs"},
            {"destination": "/mnt", "type": "bind", "source": "data", "options": ["rbind", "rro"]},
        ],
        "pot": {"dns": "off", "hosts": [{"name": "db", "address": "10.192.0.9"}]},
    });
    let plan = planned(more);
    let text: Vec<String> = plan.ops.iter().take(7).map(Op::to_string).collect();
    let expected = [
        "write /etc/hosts below /b/root, mode 0644: 127.0.0.1 localhost; ::1 localhost; 10.192.0.9 db",
        "make mount point /dev below /b/root",
        "make mount point /mnt below /b/root",
        "mount nullfs /b/root on /var/run/potrun/web1/root (ro) below /",
        "mount devfs devfs on /dev (ruleset=4) below /var/run/potrun/web1/root",
        "mount nullfs /b/data on /mnt (ro) below /var/run/potrun/web1/root",
        "mount fdescfs fdescfs on /dev/fd below /var/run/potrun/web1/root",
    ];
    assert_eq!(text, expected);
    assert_eq!(plan.rootfs, PathBuf::from("/var/run/potrun/web1/root"));
    assert!(parameters(&plan).contains(" path=/var/run/potrun/web1/root "));
}

#[test]
fn jail_parameters_are_those_of_the_section() {
    let jail = json!({"freebsd": {"jail": {
        "parent": "outer", "host": "new", "ip4": "new", "ip4Addr": ["192.0.2.1", "192.0.2.2"], "interface": "em0",
        "sysvmsg": "inherit", "sysvsem": "disable", "enforceStatfs": 1,
        "allow": {"setHostname": false, "rawSockets": true, "chflags": false, "reservedPorts": false, "suser": true,
            "mount": ["tmpfs"]},
    }}});
    let plan = try_plan("web1", jail, |facts| {
        facts.network.host_addresses.insert("em0".into(), vec!["192.0.2.1".parse().unwrap()]);
    });
    let text: Vec<String> = plan.unwrap().ops.iter().take(2).map(Op::to_string).collect();
    assert_eq!(text[0], "add address 192.0.2.2/32 to em0");
    assert_eq!(
        text[1],
        "create jail outer.web1: path=/b/root persist devfs_ruleset=4 enforce_statfs=1 children.max=0 host=new \
         sysvmsg=inherit sysvsem=disable sysvshm=new allow.noset_hostname allow.raw_sockets allow.nochflags \
         allow.noreserved_ports allow.suser allow.mount allow.mount.tmpfs ip4.addr=192.0.2.1,192.0.2.2 ip6=disable"
    );
}

#[test]
fn a_stack_of_its_own_has_no_word_about_addresses() {
    let vnet = |more: Value| {
        let mut jail = json!({"vnet": "new"});
        jail.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"freebsd": {"jail": jail}})
    };
    let plan = planned(vnet(json!({"ip4": "new", "vnetInterfaces": ["em1"]})));
    let text = plan.to_string();
    assert!(parameters(&plan).ends_with("sysvshm=new vnet=new"), "{text}");
    assert!(text.contains("lend interface em1 to web1\nbring up lo0 in web1, 127.0.0.1/8\nspawn"), "{text}");
    let lent = Op::LendInterface { interface: "em1".into(), pot: "web1".into() };
    assert_eq!(lent.undo(), Some(Op::ReclaimInterface { interface: "em1".into(), pot: "web1".into() }));
    for member in [json!({"ip4": "inherit"}), json!({"ip6": "disable"}), json!({"ip4Addr": ["192.0.2.1"]})] {
        assert_eq!(refused(vnet(member.clone())).len(), 1, "{member}");
    }
    let inherit = planned(json!({"freebsd": {"jail": {"vnet": "inherit", "ip4": "inherit"}}}));
    assert!(parameters(&inherit).ends_with("ip4=inherit ip6=disable") && !parameters(&inherit).contains("vnet"));
}

#[test]
fn annotations_are_honoured_like_the_section() {
    let plan = planned(json!({"annotations": {
        "org.freebsd.parentJail": "outer", "org.freebsd.jail.ip4.addr": "192.0.2.1,192.0.2.2",
        "org.freebsd.jail.allow.raw_sockets": "true", "org.freebsd.jail.sysvshm": "inherit",
        "org.freebsd.jail.allow.mount.tmpfs": "true", "org.freebsd.jail.later": "x",
    }}));
    let text = parameters(&plan);
    assert!(text.starts_with("create jail outer.web1:") && text.contains(" sysvshm=inherit allow.raw_sockets "));
    assert!(text.ends_with(" allow.mount allow.mount.tmpfs ip4.addr=192.0.2.1,192.0.2.2 ip6=disable"), "{text}");
    assert_eq!(plan.notes, ["/annotations/org.freebsd.jail.later: not an annotation that potrun knows"]);
    let both = json!({"annotations": {"org.freebsd.jail.vnet": "new"}, "freebsd": {"jail": {"vnet": "inherit"}}});
    assert_eq!(refused(both), ["/annotations/org.freebsd.jail.vnet: says something else than /freebsd/jail"]);
    let wrong = json!({"annotations": {"org.freebsd.jail.ip4": "maybe"}});
    assert_eq!(refused(wrong).len(), 1);
}

#[test]
fn the_four_networks() {
    let network = |text: Value| json!({"pot": {"network": text}});
    let ends = |more: Value, end: &str| {
        let text = parameters(&planned(more));
        assert!(text.ends_with(end), "{text}");
    };
    ends(network(json!({"type": "inherit"})), " ip4=inherit ip6=disable");
    ends(network(json!({"type": "inherit", "stack": "dual"})), " ip4=inherit ip6=inherit");
    ends(network(json!({"type": "inherit", "stack": "ipv6"})), " ip4=disable ip6=inherit");
    ends(network(json!({"type": "alias", "addresses": ["192.0.2.9"]})), " ip4.addr=192.0.2.9 ip6=disable");
    ends(network(json!({"type": "public-bridge"})), " vnet=new");
    ends(network(json!({"type": "private-bridge", "bridge": "b"})), " vnet=new");
    let private = planned(network(json!({"type": "private-bridge", "bridge": "b", "stack": "dual"})));
    assert_eq!(private.notes, ["ipv6: private bridge b has none"]);
    assert!(private.to_string().contains(", potrun private bridge b, 10.192.0.9/29\n"));
    assert!(private.to_string().contains("load anchor pot-rdr/web1: block drop in quick on"));
    let apart = |facts: &mut Facts| facts.network.filters = Some(false);
    let lone = try_plan("web1", network(json!({"type": "private-bridge", "bridge": "b"})), apart).unwrap();
    assert!(lone.notes.len() == 1 && lone.notes[0].ends_with("lacks  anchor \"pot-rdr/*\""), "{:?}", lone.notes);
    let six = network(json!({"type": "private-bridge", "bridge": "b", "stack": "ipv6"}));
    assert_eq!(refused(six), ["/pot/network/stack: private bridge b has no ipv6"]);
}

#[test]
fn what_is_on_the_host_already_is_shared_and_left() {
    let alias = json!({"pot": {"network": {"type": "alias", "addresses": ["192.0.2.9", "em1|192.0.2.10"]}}});
    let here = |facts: &mut Facts| {
        facts.network.host_addresses.insert("em0".into(), vec!["192.0.2.9".parse().unwrap()]);
        facts.network.host_addresses.insert("bridge0".into(), vec!["10.192.0.1".parse().unwrap()]);
    };
    let plan = try_plan("web1", alias, here).unwrap();
    let added: Vec<&Op> = plan.ops.iter().filter(|op| matches!(op, Op::AddAddress { .. })).collect();
    assert_eq!(added.len(), 1);
    assert_eq!(added[0].undo().unwrap().to_string(), "remove address 192.0.2.10/32 of em1");
    let text = try_plan("web1", public(), here).unwrap().to_string();
    assert!(text.contains("ensure bridge bridge0, potrun public bridge") && text.contains("to bridge bridge0\n"));
}

#[test]
fn exported_ports_name_the_address_and_its_interface() {
    let ports = |host: &str| {
        json!({"pot": {"network": {"type": "public-bridge"},
            "exportedPorts": [{"port": 80, "hostPort": 8080, "hostAddress": host}]}})
    };
    let here = |facts: &mut Facts| {
        facts.network.host_addresses.insert("em1".into(), vec!["198.51.100.7".parse().unwrap()]);
    };
    let rules = |host: &str| {
        let plan = try_plan("web1", ports(host), here).unwrap();
        plan.ops.iter().find(|op| matches!(op, Op::LoadAnchor { .. })).unwrap().to_string()
    };
    let expected = "rdr pass on em1 inet proto tcp from any to 198.51.100.7 port 8080 -> 10.192.0.3 port 80";
    assert_eq!(rules("198.51.100.7"), format!("load anchor pot-rdr/web1: {expected}"));
    let refusal = try_plan("web1", ports("127.0.0.1"), here).unwrap_err();
    assert!(refusal.len() == 1 && refusal[0].contains("pf(4) redirects nothing"), "{refusal:?}");
}

#[test]
fn mounts_are_translated() {
    let plan = planned(json!({
        "mounts": [
            {"destination": "/dev", "type": "devfs", "options": ["rule=path shm unhide mode 1777", "ruleset=7"]},
            {"destination": "/a", "type": "none", "source": "/x", "options": ["bind", "ro", "rw", "nosuid", "private"]},
            {"destination": "b", "type": "bind", "source": "y", "options": ["ro", "nodev", "noatime"]},
            {"destination": "/dev/shm", "type": "tmpfs", "options": ["notmpcopyup", "nr_inodes=1k", "rnosuid"]},
        ],
        "freebsd": {"devices": [{"path": "/dev/dri/card0", "mode": 432}, {"path": "null"}]},
    }));
    let expected = [
        "mount devfs devfs on /dev (ruleset=7,rule=path shm unhide mode 1777,rule=path dri unhide,\
         rule=path dri/card0 unhide mode 0660,rule=path null unhide)",
        "mount nullfs /x on /a (nosuid)",
        "mount nullfs /b/y on /b (ro,noatime)",
        "mount tmpfs tmpfs on /dev/shm (nosuid,inodes=1k)",
    ];
    assert_eq!(mounts(&plan), expected);
    assert!(parameters(&plan).contains(" devfs_ruleset=7 "));
}

#[test]
fn a_plain_bundle_keeps_its_order_and_a_pot_mounts_parents_first() {
    let listed = json!([
        {"destination": "/a/b", "type": "tmpfs"}, {"destination": "/a", "type": "tmpfs"},
    ]);
    let targets = |more: Value| -> Vec<String> {
        let one = |text: &String| text.split(" on ").nth(1).unwrap().split(' ').next().unwrap().to_string();
        mounts(&planned(more)).iter().map(one).collect()
    };
    assert_eq!(targets(json!({"mounts": listed.clone()})), ["/a/b", "/a"]);
    assert_eq!(targets(json!({"mounts": listed, "pot": {}})), ["/dev", "/a", "/a/b"]);
}

#[test]
fn what_freebsd_does_not_have_is_refused_at_its_place() {
    let mount = |fstype: &str, options: Value| json!({"mounts": [{"destination": "/m", "type": fstype, "source": "/s", "options": options}]});
    for fstype in ["proc", "sysfs", "cgroup", "mqueue", "devpts", "overlay", "ext4", ""] {
        let refusal = refused(mount(fstype, json!([])));
        assert!(refusal.len() == 1 && refusal[0].starts_with("/mounts/0/type: "), "{refusal:?}");
    }
    for (fstype, option) in [
        ("tmpfs", "size=50%"),
        ("tmpfs", "mode=9"),
        ("nullfs", "typo"),
        ("devfs", "ruleset=x"),
        ("devfs", "rule=add path x unhide"),
        ("devfs", "rule=path x"),
        ("nullfs", "tmpcopyup"),
        ("nullfs", "idmap"),
        ("procfs", "hidepid=2"),
    ] {
        let refusal = refused(mount(fstype, json!(["ro", option])));
        assert!(refusal.len() == 1 && refusal[0].starts_with("/mounts/0/options/1: "), "{option}: {refusal:?}");
    }
    let all = refused(json!({
        "domainname": "d",
        "windows": {"layerFolders": []},
        "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["x"], "apparmorProfile": "p",
            "rlimits": [{"type": "RLIMIT_NICE", "soft": 1, "hard": 1}]},
        "freebsd": {"devices": [{"path": "../x"}], "jail": {"allow": {"mount": ["No/fs"]}}},
        "pot": {"limits": {"disk": "1g"}},
    }));
    let places: Vec<&str> = all.iter().filter_map(|text| text.split(": ").next()).collect();
    let expected = [
        "/domainname",
        "/freebsd/devices/0/path",
        "/freebsd/jail/allow/mount/0",
        "/pot/limits/disk",
        "/process/apparmorProfile",
        "/process/rlimits/0/type",
        "/windows",
    ];
    assert_eq!(places, expected);
    let devices = json!({"freebsd": {"devices": [{"path": "null"}]}});
    assert_eq!(refused(devices), ["/freebsd/devices: needs a mount of type devfs on /dev"]);
    let network = json!({"freebsd": {"jail": {"vnet": "new"}}, "pot": {"network": {"type": "inherit"}}});
    assert!(refused(network)[0].starts_with("/freebsd/jail/vnet: "));
    let store = try_plan("web1", public(), |facts| facts.store = Store::Overlay { path: "/x".into() });
    assert_eq!(store.unwrap_err(), ["/pot/base: needs a ZFS store"]);
}

#[test]
fn what_is_of_linux_alone_is_left_out() {
    let plan = planned(json!({
        "linux": {"namespaces": [{"type": "pid"}], "maskedPaths": ["/proc/kcore"]},
        "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["x"], "oomScoreAdj": 5,
            "capabilities": {"bounding": ["CAP_KILL"]}},
    }));
    assert_eq!(
        plan.notes,
        ["/process/capabilities: freebsd has no such thing", "/process/oomScoreAdj: freebsd has no such thing"]
    );
}

#[test]
fn a_dataset_is_shown_from_where_it_is_mounted() {
    let pot = json!({"pot": {"datasets": [{"dataset": "tank/d", "destination": "/d", "readonly": true}]}});
    assert_eq!(mounts(&planned(pot.clone()))[1], "mount nullfs /tank/d on /d (ro)");
    let gone = try_plan("web1", pot, |facts| facts.datasets.clear()).unwrap_err();
    assert_eq!(gone, ["/pot/datasets/0/dataset: dataset tank/d does not exist or is not mounted"]);
}

#[test]
fn what_is_persistent_is_taken_up_by_the_next_container() {
    let pot = || json!({"pot": {"base": {"release": "14.3-RELEASE"}, "persistent": true}});
    let first = planned(pot());
    let back: Vec<Op> = first.ops.iter().filter_map(Op::undo).collect();
    let of_root: Vec<&Op> = back.iter().filter(|op| op.to_string().contains("dataset")).collect();
    assert!(matches!(of_root[..], [Op::DestroyDataset { keep: true, .. }]), "{of_root:?}");
    let kept = |origin: &str| try_plan("web1", pot(), |facts| facts.kept = Some(origin.into()));
    let second = kept("zroot/pot/bases/14.3-RELEASE@1700000000").unwrap();
    assert_eq!(second.rootfs, first.rootfs);
    assert!(!second.ops.iter().any(|op| op.to_string().contains("dataset")), "{second}");
    assert!(second.notes.iter().any(|note| note.contains("is taken up")), "{:?}", second.notes);
    // It gets the limit that its bundle has now, beside what it shares with its base.
    let limited = |limit: Option<u64>, disk: Option<&str>| {
        let mut pot = pot();
        if let Some(disk) = disk {
            pot["pot"]["limits"] = json!({ "disk": disk });
        }
        let plan = try_plan("web1", pot, |facts| {
            facts.kept = Some("zroot/pot/bases/14.3-RELEASE@potrun".into());
            facts.kept_quota = Some(Quota { limit, shared: 4096 });
        });
        let ops = plan.unwrap().ops.iter().map(ToString::to_string).collect::<Vec<_>>();
        ops.into_iter().filter(|op| op.contains("dataset")).collect::<Vec<_>>()
    };
    let root = "zroot/pot/jails/web1/m";
    assert_eq!(limited(None, Some("8k")), [format!("limit dataset {root} to 12288 bytes")]);
    assert_eq!(limited(Some(5000), Some("8k")), [format!("limit dataset {root} to 12288 bytes")]);
    assert_eq!(limited(Some(12288), None), [format!("take the limit of dataset {root} away")]);
    assert_eq!((limited(Some(12288), Some("8k")), limited(None, None)), (Vec::new(), Vec::new()));
    let other = kept("zroot/pot/bases/13.2-RELEASE@potrun").unwrap_err();
    assert!(other.len() == 1 && other[0].starts_with("/pot/base/release: "), "{other:?}");
}
