//! The pot networks on Linux: veth, bridge, nftables.
//!
//! What pots share (forwarding, the table [`nft`], the bridge) comes with the first that needs it and goes with the last.
//! What is a pot's own are its lease, its pair of interfaces, and elements in the sets of the table.

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use crate::bundle::pot::{NetworkKind, Pot};
use crate::facts::Network;
use crate::id::hash;
use crate::lease::{Lease, Port};
use crate::op::{Device, Op};
use crate::plan::network as common;
use crate::plan::network::{Bridge, End, Forward};
use crate::plan::{Draft, files};

use super::nft::Element;

/// The steps before the first process is started: what is the pot's alone until it is deleted, and what the process shows;
/// and those beside it, which work on what the kernel has one lock for, or that process's network: they take as long as
/// what the process does meanwhile.
pub fn steps(draft: &mut Draft<'_>, pot: &Pot, cgroup: Option<&Path>) -> [Vec<Op>; 2] {
    if pot.network.kind != NetworkKind::Inherit && draft.facts.euid != 0 {
        draft.refuse("/pot/network/type", format!("{} needs root", pot.network.kind.word()));
    }
    match pot.network.kind {
        NetworkKind::Inherit => [Vec::new(), Vec::new()],
        NetworkKind::Alias => [alias(draft, pot, cgroup), Vec::new()],
        NetworkKind::PublicBridge | NetworkKind::PrivateBridge => bridged(draft, pot),
    }
}

/// The step of the first process before its end of the pair comes. A pot without IPv6 has none of it: no address of the
/// link, by which its neighbours and it would reach each other past the plan, and no reports to groups (RFC 3810), which
/// a bridge would bring to each of its members.
pub fn preset(draft: &mut Draft<'_>, pot: &Pot) -> Option<Op> {
    let off = |ends: Vec<End>| ends.iter().all(|end| end.address.is_ipv4());
    common::bridged(pot).then(|| Op::PresetIpv6 { off: off(common::ends(draft, pot)) })
}

/// The interfaces of the host that a bundle asks for, by name.
pub fn asked(spec: &oci_spec::runtime::Spec) -> impl Iterator<Item = &String> {
    let mut all: Vec<&String> =
        spec.linux().iter().filter_map(|linux| linux.net_devices().as_ref()).flat_map(|all| all.keys()).collect();
    all.sort();
    all.into_iter()
}

/// Whether the kernel takes it for the name of an interface (net/core/dev.c, `dev_valid_name`).
fn is_name(name: &str) -> bool {
    let plain = |c: char| !(c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '%'));
    (1..16).contains(&name.len()) && !matches!(name, "." | "..") && name.chars().all(plain)
}

/// Interfaces of the host go into the container's network. `own`: it has one.
pub fn lend(draft: &mut Draft<'_>, own: bool) -> Vec<Op> {
    let devices = draft.bundle.spec.linux().as_ref().and_then(|linux| linux.net_devices().clone()).unwrap_or_default();
    let names: Vec<String> = asked(&draft.bundle.spec).cloned().collect();
    let mut ops: Vec<Op> = Vec::new();
    for name in names {
        let at = format!("/linux/netDevices/{}", name.replace('~', "~0").replace('/', "~1"));
        let given = devices.get(&name).and_then(|device| device.name().clone()).filter(|given| !given.is_empty());
        let inside = given.unwrap_or_else(|| name.clone());
        let twice = |op: &Op| matches!(op, Op::LendDevice { device } if device.inside == inside);
        if !own {
            draft.refuse(at, "needs a network namespace");
        } else if draft.facts.euid != 0 {
            draft.refuse(at, "needs root");
        } else if !is_name(&name) || name == "lo" {
            draft.refuse(at, "is not the name of an interface that could be moved");
        } else if !is_name(&inside) || inside == "lo" {
            draft.refuse(format!("{at}/name"), format!("{inside:?} is not the name of an interface"));
        } else if ops.iter().any(twice) {
            draft.refuse(format!("{at}/name"), format!("{inside} is given twice"));
        } else if let Some(was) = draft.facts.interfaces.get(&name).cloned() {
            let mark = format!("potrun {} {name}", draft.id);
            ops.push(Op::LendDevice { device: Device { name, inside, mark, was } });
        } else {
            draft.refuse(at, "the host has no such interface");
        }
    }
    ops
}

/// Linux has no jail that holds sockets to an address: programs at the control group do.
fn alias(draft: &mut Draft<'_>, pot: &Pot, cgroup: Option<&Path>) -> Vec<Op> {
    let wanted = common::aliases(draft, pot);
    let mut ops = common::add_addresses(draft, &wanted);
    match cgroup {
        Some(path) => {
            let addresses = wanted.into_iter().map(|(_, address)| address).collect();
            ops.push(Op::ConfineAddresses { path: path.into(), addresses });
        }
        None => draft.refuse("/pot/network/type", "alias needs a cgroup, which holds the pot to its addresses"),
    }
    ops
}

fn bridged(draft: &mut Draft<'_>, pot: &Pot) -> [Vec<Op>; 2] {
    let ends = common::ends(draft, pot);
    let forwards = common::forwards(draft, pot, &ends);
    for one in forwards.iter().filter(|one| one.host == Some(IpAddr::V6(Ipv6Addr::LOCALHOST))) {
        let what = "::1 cannot be exported: linux keeps what goes there on the host (use 127.0.0.1)";
        draft.refuse(format!("/pot/exportedPorts/{}/hostAddress", one.n), what);
    }
    let mut before = vec![common::lease(draft, &ends, &forwards)];
    before.extend(files::publish(draft, pot, &ends));
    let bridge = common::bridge(pot);
    let mut beside = shared(&draft.facts.network, &bridge, &ends);
    if forwards.iter().any(by_loopback) {
        beside.push(Op::RouteLoopback { interface: bridge.name.clone() });
    }
    let elements = elements(&ends, &forwards, draft.facts.network.isolate);
    beside.push(Op::LoadNft { name: common::rule_name(draft.id), elements });
    beside.extend(pair(draft, bridge.name, &ends));
    [before, beside]
}

/// The pair, its end in the pot made there, since moving it would cost more than making it (`synchronize_net` in
/// dev_change_net_namespace, net/core/dev.c).
fn pair(draft: &Draft<'_>, bridge: String, ends: &[End]) -> Vec<Op> {
    let id = draft.id.to_string();
    let (host, pot) = common::pair(draft.id);
    // Who has the address next gets this link-level address with it: caches of its neighbours stay right.
    let seed = ends.first().map_or(0, |end| hash(&end.address.to_string()));
    let macs = [common::mac(seed, 0), common::mac(seed, 1)];
    let mut ops = vec![
        Op::CreatePair { host: host.clone(), pot: pot.clone(), description: id.clone(), macs, into: Some(id.clone()) },
        Op::AddMember { bridge, member: host, isolated: draft.facts.network.isolate },
    ];
    ops.extend(common::inside(&id, &pot, ends));
    ops
}

/// What a bridge needs, whoever is on it.
#[must_use]
pub fn shared(facts: &Network, bridge: &Bridge, ends: &[End]) -> Vec<Op> {
    let Bridge { name, description } = bridge.clone();
    let note = Some(facts.ledger.with_extension("sysctls"));
    let forward = |end: &End| Op::EnableForwarding { family: common::family(end.address), note: note.clone() };
    let mut ops: Vec<Op> = ends.iter().map(forward).collect();
    ops.push(Op::EnsureNft { bridge: name.clone() });
    ops.push(Op::EnsureBridge { name, description, addresses: ends.iter().map(End::host).collect() });
    ops
}

/// Whether the host may ask for this port at 127.0.0.1.
fn by_loopback(one: &Forward) -> bool {
    one.address.is_ipv4() && one.host.is_none_or(|host| host.is_loopback())
}

/// What one pot adds to the sets of the table.
#[must_use]
pub fn elements(ends: &[End], forwards: &[Forward], isolate: bool) -> Vec<Element> {
    let mut all = Vec::new();
    for End { address, .. } in ends {
        all.push(Element::Pot { address: *address });
        if isolate {
            all.push(Element::Isolated { address: *address });
        }
    }
    all.extend(forwards.iter().map(|one| {
        let Forward { protocol, host, host_port, address, port, .. } = *one;
        Element::Port { protocol, host, host_port, address, port }
    }));
    all
}

/// The same, as far as a lease tells: the keys are all there, and nobody asks for the values of what is taken out.
#[must_use]
pub fn of_lease(lease: &Lease) -> Vec<Element> {
    let mut all = Vec::new();
    for &address in &lease.addresses {
        all.extend([Element::Pot { address }, Element::Isolated { address }]);
        let ports = lease.ports.iter().filter(|one| one.host.is_none_or(|host| host.is_ipv4() == address.is_ipv4()));
        all.extend(ports.map(|one| {
            let Port { protocol, port, host } = *one;
            Element::Port { protocol, host, host_port: port, address, port }
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::pot::Protocol;
    use crate::plan::lease::Subnet;

    fn end(address: &str, subnet: &str, gateway: &str) -> End {
        End {
            address: address.parse().unwrap(),
            subnet: Subnet::parse(subnet).unwrap(),
            gateway: gateway.parse().unwrap(),
        }
    }

    #[test]
    fn golden_elements_of_a_dual_pot() {
        let ends =
            [end("10.192.0.3", "10.192.0.0/10", "10.192.0.1"), end("fd70:6f74::2", "fd70:6f74::/64", "fd70:6f74::1")];
        let tcp =
            Forward { n: 0, protocol: Protocol::Tcp, host: None, host_port: 30080, address: ends[0].address, port: 80 };
        let udp = Forward { protocol: Protocol::Udp, address: ends[1].address, port: 53, host_port: 53, ..tcp };
        let one = Forward { host: "192.0.2.10".parse().ok(), host_port: 8080, ..tcp };
        let texts: Vec<String> =
            elements(&ends, &[tcp, udp, one], true).iter().map(|element| element.text("web1")).collect();
        let golden = [
            r#"pots4 { 10.192.0.3 comment "web1" }"#,
            r#"isolated4 { 10.192.0.3 comment "web1" }"#,
            r#"pots6 { fd70:6f74::2 comment "web1" }"#,
            r#"isolated6 { fd70:6f74::2 comment "web1" }"#,
            r#"ports4 { tcp . 30080 comment "web1" : 10.192.0.3 . 80 }"#,
            r#"ports6 { udp . 53 comment "web1" : fd70:6f74::2 . 53 }"#,
            r#"ports4at { 192.0.2.10 . tcp . 8080 comment "web1" : 10.192.0.3 . 80 }"#,
        ];
        assert_eq!(texts, golden);
    }

    fn planned(pot: &str, euid: u32) -> Result<crate::plan::Plan, crate::bundle::Refusal> {
        let config = format!(
            r#"{{"ociVersion": "1.3.0", "pot": {{"base": {{"release": "r"}}, {pot}}},
                "process": {{"user": {{"uid": 0, "gid": 0}}, "cwd": "/", "args": ["x"]}}}}"#
        );
        let bundle = crate::bundle::Bundle::parse("/b".into(), config.into_bytes()).unwrap();
        let mut facts = crate::facts::Facts::assumed(crate::facts::Os::Linux, &bundle);
        facts.euid = euid;
        crate::plan::plan(&bundle, &facts, &crate::id::ContainerId::new("web1").unwrap())
    }

    /// The steps of the network, in the order of the plan, with the computed names made plain.
    fn steps(pot: &str) -> Vec<String> {
        let id = crate::id::ContainerId::new("web1").unwrap();
        let others = ["base", "layer", "cgroup ", "devices", "spawn"];
        planned(pot, 0)
            .unwrap()
            .ops
            .iter()
            .map(|op| op.to_string().replace(&id.short("pta"), "PTA").replace(&id.short("ptb"), "PTB"))
            .filter(|line| line.starts_with("hold") || !others.iter().any(|word| line.contains(word)))
            .map(|line| line.split(": ").next().unwrap_or_default().split(" (").next().unwrap_or_default().into())
            .collect()
    }

    #[test]
    fn golden_steps_of_the_four_networks() {
        assert_eq!(steps(r#""network": {"type": "inherit"}"#), [""; 0]);
        assert_eq!(
            steps(r#""network": {"type": "alias", "addresses": ["192.0.2.9", "eth1|192.0.2.10"]}"#),
            [
                "add address 192.0.2.9/32 to eth0",
                "add address 192.0.2.10/32 to eth1",
                "hold sockets of cgroup /sys/fs/cgroup/potrun-web1 to 192.0.2.9,192.0.2.10",
            ]
        );
        assert_eq!(
            steps(r#""network": {"type": "public-bridge", "stack": "dual"}, "exportedPorts": [{"port": 80}]"#),
            [
                "lease 10.192.0.3,fd70:6f74::2, ports tcp/1024",
                "publish names, seen in /var/run/potrun.hosts/pb-public/all/hosts",
                "enable forwarding of ipv4",
                "enable forwarding of ipv6",
                "ensure nftables table potrun with bridge pb-public",
                "ensure bridge pb-public, potrun public bridge, 10.192.0.1/10,fd70:6f74::1/64",
                "route the loopback address by pb-public",
                "add to nftables table potrun",
                "create interface pair PTA",
                "add PTA to bridge pb-public",
                "bring up PTB in web1, 10.192.0.3/10,fd70:6f74::2/64",
                "add default route in web1 by 10.192.0.1",
                "add default route in web1 by fd70:6f74::1",
                "resume the first process",
            ]
        );
        let private = steps(r#""network": {"type": "private-bridge", "bridge": "b"}"#);
        assert!(private[4].ends_with(", potrun private bridge b, 10.192.0.9/29"), "{private:?}");
        assert!(!private.iter().any(|line| line.contains("loopback")), "{private:?}");
    }

    #[test]
    fn what_stays_on_the_host_is_taken_back() {
        let plan = planned(r#""network": {"type": "public-bridge"}"#, 0).unwrap();
        let pair = crate::id::ContainerId::new("web1").unwrap().short("pta");
        let back: Vec<String> = plan.ops.iter().rev().filter_map(Op::undo).map(|op| op.to_string()).collect();
        let expected = [
            format!("destroy interface {pair} of web1"),
            "take web1 out of nftables table potrun".into(),
            "release bridge pb-public, potrun public bridge".into(),
            "release nftables table potrun of bridge pb-public".into(),
            "release forwarding of ipv4".into(),
            "kill all in cgroup /sys/fs/cgroup/potrun-web1".into(),
            "withdraw names: 10.192.0.3 web1".into(),
            "end lease of web1".into(),
        ];
        assert_eq!(back[..8], expected, "{back:?}");
    }

    /// Hooks see the interfaces in a container whose root is not entered yet, and so do settings of interfaces: then the
    /// process waits there. Otherwise it calls, and goes on to the end.
    #[test]
    fn the_process_goes_on_beside_the_runtime_unless_something_comes_between() {
        let order = |more: &str| {
            let config = format!(
                r#"{{"ociVersion": "1.3.0", "pot": {{"base": {{"release": "r"}}, "network": {{"type": "public-bridge"}}}},
                    "process": {{"user": {{"uid": 0, "gid": 0}}, "cwd": "/", "args": ["x"]}}{more}}}"#
            );
            let bundle = crate::bundle::Bundle::parse("/b".into(), config.into_bytes()).unwrap();
            let facts = crate::facts::Facts::assumed(crate::facts::Os::Linux, &bundle);
            let plan = crate::plan::plan(&bundle, &facts, &crate::id::ContainerId::new("web1").unwrap()).unwrap();
            let spawn = plan.ops.iter().find_map(|op| match op {
                Op::Spawn(spawn) => Some(spawn.create.clone()),
                _ => None,
            });
            let word = |op: &Op| match op {
                Op::PresetIpv6 { .. } => Some("preset"),
                Op::CallRuntime => Some("call"),
                Op::AwaitRuntime => Some("await"),
                Op::Hook(_) => Some("hook"),
                Op::Sysctl { .. } => Some("sysctl"),
                Op::EnterRoot { .. } => Some("enter"),
                _ => None,
            };
            spawn.unwrap().iter().filter_map(word).collect::<Vec<_>>()
        };
        assert_eq!(order(""), ["preset", "call", "enter", "await"]);
        let linux = |sysctl: &str| {
            let namespaces = r#"[{"type": "mount"}, {"type": "ipc"}, {"type": "network"}]"#;
            order(&format!(r#", "linux": {{"namespaces": {namespaces}, "sysctl": {{{sysctl}}}}}"#))
        };
        for free in [r#""kernel.sem": "1""#, r#""net.ipv4.ping_group_range": "0 0""#] {
            assert_eq!(linux(free), ["preset", "call", "sysctl", "enter", "await"]);
        }
        for bound in [r#""net.ipv4.conf.all.rp_filter": "1""#, r#""net/ipv6/neigh/default/gc_stale_time": "9""#] {
            assert_eq!(linux(bound), ["preset", "await", "sysctl", "enter"]);
        }
        for moment in ["prestart", "createRuntime"] {
            assert_eq!(
                order(&format!(r#", "hooks": {{"{moment}": [{{"path": "/h"}}]}}"#)),
                ["preset", "await", "enter"]
            );
        }
        let own = order(r#", "hooks": {"createContainer": [{"path": "/h"}]}"#);
        assert_eq!(own, ["preset", "await", "hook", "enter"]);
    }

    #[test]
    fn who_is_not_root_changes_no_network_of_the_host() {
        for kind in [r#""alias", "addresses": ["192.0.2.9"]"#, r#""public-bridge""#] {
            let refusal = planned(&format!(r#""network": {{"type": {kind}}}"#), 1000).unwrap_err();
            assert!(refusal.0.iter().any(|one| one.at == "/pot/network/type"), "{refusal}");
        }
    }
}
