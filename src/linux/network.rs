//! The pot networks on Linux: veth, bridge, nftables. Planned; carried out by nobody yet.
//!
//! All rules are a pot's own, those of translation and of isolation too, in chains of the table `potrun`: so they come
//! and go with the pot, and no pot has to know which is the last. Each carries the pot's name as its comment.

use std::path::Path;

use crate::bundle::pot::{NetworkKind, Pot};
use crate::op::{Family, Op};
use crate::plan::Draft;
use crate::plan::network as common;
use crate::plan::network::{BRIDGES, Bridge, End, Forward};

/// The table and its chains, which may be there: `add` takes that (nft(8)). The priorities are the names
/// `raw`, `dstnat`, `filter` and `srcnat` of nft(8) in numbers, which every version takes in every hook.
const TABLE: &str = "\
add table inet potrun
add chain inet potrun guard { type filter hook prerouting priority -300; }
add chain inet potrun prerouting { type nat hook prerouting priority -100; }
add chain inet potrun output { type nat hook output priority -100; }
add chain inet potrun forward { type filter hook forward priority 0; }
add chain inet potrun postrouting { type nat hook postrouting priority 100; }
";

/// Steps before the first process: the bridge, the pair, forwarding, translation; or the addresses of an alias.
pub fn before(draft: &mut Draft<'_>, pot: &Pot, cgroup: Option<&Path>) -> Vec<Op> {
    if pot.network.kind != NetworkKind::Inherit && draft.facts.euid != 0 {
        draft.refuse("/pot/network/type", format!("{} needs root", pot.network.kind.word()));
    }
    match pot.network.kind {
        NetworkKind::Inherit => Vec::new(),
        NetworkKind::Alias => alias(draft, pot, cgroup),
        NetworkKind::PublicBridge | NetworkKind::PrivateBridge => bridged(draft, pot),
    }
}

/// Steps while the first process waits with its namespaces made.
pub fn meanwhile(draft: &mut Draft<'_>, pot: &Pot) -> Vec<Op> {
    if !common::bridged(pot) {
        return Vec::new();
    }
    let ends = common::ends(draft, pot);
    let (_, inner) = common::pair(draft.id);
    common::inside(draft.id.as_str(), &inner, &ends)
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

fn bridged(draft: &mut Draft<'_>, pot: &Pot) -> Vec<Op> {
    let ends = common::ends(draft, pot);
    let forwards = common::forwards(draft, pot, &ends);
    let Bridge { name: bridge, description } = common::bridge(pot);
    let (host, _) = common::pair(draft.id);
    let addresses = ends.iter().map(End::host).collect();
    let mut ops =
        vec![common::lease(draft, &ends, &forwards), Op::EnsureBridge { name: bridge.clone(), description, addresses }];
    ops.extend(ends.iter().map(|end| Op::EnableForwarding { family: common::family(end.address) }));
    if forwards.iter().any(by_loopback) {
        ops.push(Op::RouteLoopback { interface: bridge.clone() });
    }
    ops.push(common::create_pair(draft.id));
    ops.push(Op::AddMember { bridge: bridge.clone(), member: host, isolated: draft.facts.network.isolate });
    let name = common::rule_name(draft.id);
    ops.push(Op::LoadNft { rules: rules(&name, &bridge, &ends, &forwards), name });
    ops
}

/// Whether the host may ask for this port at 127.0.0.1. (::1 never leaves the host: RFC 4291, section 2.5.3, and no
/// sysctl says otherwise.)
fn by_loopback(one: &Forward) -> bool {
    one.address.is_ipv4() && one.host.is_none_or(|host| host.is_loopback())
}

/// The rules of one pot.
#[must_use]
pub fn rules(name: &str, bridge: &str, ends: &[End], forwards: &[Forward]) -> String {
    let mut text = TABLE.to_string();
    let mut add = |chain: &str, rule: &str| {
        text.push_str(&format!("add rule inet potrun {chain} {rule} comment \"{name}\"\n"));
    };
    if forwards.iter().any(by_loopback) {
        // With route_localnet a pot could reach what listens at the host's 127.0.0.1 (CVE-2020-8558).
        add("guard", &format!("iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop"));
    }
    for one in forwards {
        let rule = redirect(one);
        add("prerouting", &rule);
        // What the host itself asks for never passes prerouting.
        add("output", &rule);
    }
    for end in ends {
        let (ip, address, network) = (word(end), end.address, end.network());
        add("postrouting", &format!("{ip} saddr {address} oifname != \"{bridge}\" masquerade"));
        if forwards.iter().any(|one| one.address == address) {
            // A neighbour, or the pot itself, that comes by the host's address: the answer must come back this way.
            add("postrouting", &format!("{ip} saddr {network} {ip} daddr {address} ct status dnat masquerade"));
        }
        if forwards.iter().any(|one| one.address == address && by_loopback(one)) {
            add("postrouting", &format!("ip saddr 127.0.0.0/8 ip daddr {address} masquerade"));
        }
        // Bridges are kept apart; a port that is exported is for all who reach the host.
        let others = format!("iifname \"{BRIDGES}*\" iifname != \"{bridge}\" oifname \"{bridge}\"");
        add("forward", &format!("{others} {ip} daddr {address} ct status & dnat != dnat drop"));
    }
    text
}

/// One exported port: packets to any address that is the host's own, or to the one that the bundle names.
fn redirect(one: &Forward) -> String {
    let Forward { protocol, host_port, address, port, .. } = one;
    let ip = if address.is_ipv4() { "ip" } else { "ip6" };
    let to = match (one.host, common::family(*address)) {
        (Some(host), _) => format!("{ip} daddr {host}"),
        (None, Family::Ipv4) => "meta nfproto ipv4 fib daddr type local".into(),
        (None, Family::Ipv6) => "ip6 daddr != ::1 fib daddr type local".into(),
    };
    let pot = std::net::SocketAddr::new(*address, *port);
    format!("{to} {} dport {host_port} dnat {ip} to {pot}", protocol.word())
}

fn word(end: &End) -> &'static str {
    if end.address.is_ipv4() { "ip" } else { "ip6" }
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

    fn dual() -> String {
        let ends =
            [end("10.192.0.3", "10.192.0.0/10", "10.192.0.1"), end("fd70:6f74::2", "fd70:6f74::/64", "fd70:6f74::1")];
        let tcp =
            Forward { n: 0, protocol: Protocol::Tcp, host: None, host_port: 30080, address: ends[0].address, port: 80 };
        let udp = Forward { protocol: Protocol::Udp, address: ends[1].address, port: 53, host_port: 53, ..tcp };
        let one = Forward { host: "192.0.2.10".parse().ok(), host_port: 8080, ..tcp };
        rules("web1", "pb-public", &ends, &[tcp, udp, one])
    }

    #[test]
    fn golden_rules_of_a_dual_pot() {
        let golden = r#"add rule inet potrun guard iifname "pb-public" ip daddr 127.0.0.0/8 drop comment "web1"
add rule inet potrun prerouting meta nfproto ipv4 fib daddr type local tcp dport 30080 dnat ip to 10.192.0.3:80 comment "web1"
add rule inet potrun output meta nfproto ipv4 fib daddr type local tcp dport 30080 dnat ip to 10.192.0.3:80 comment "web1"
add rule inet potrun prerouting ip6 daddr != ::1 fib daddr type local udp dport 53 dnat ip6 to [fd70:6f74::2]:53 comment "web1"
add rule inet potrun output ip6 daddr != ::1 fib daddr type local udp dport 53 dnat ip6 to [fd70:6f74::2]:53 comment "web1"
add rule inet potrun prerouting ip daddr 192.0.2.10 tcp dport 8080 dnat ip to 10.192.0.3:80 comment "web1"
add rule inet potrun output ip daddr 192.0.2.10 tcp dport 8080 dnat ip to 10.192.0.3:80 comment "web1"
add rule inet potrun postrouting ip saddr 10.192.0.3 oifname != "pb-public" masquerade comment "web1"
add rule inet potrun postrouting ip saddr 10.192.0.0/10 ip daddr 10.192.0.3 ct status dnat masquerade comment "web1"
add rule inet potrun postrouting ip saddr 127.0.0.0/8 ip daddr 10.192.0.3 masquerade comment "web1"
add rule inet potrun forward iifname "pb-*" iifname != "pb-public" oifname "pb-public" ip daddr 10.192.0.3 ct status & dnat != dnat drop comment "web1"
add rule inet potrun postrouting ip6 saddr fd70:6f74::2 oifname != "pb-public" masquerade comment "web1"
add rule inet potrun postrouting ip6 saddr fd70:6f74::/64 ip6 daddr fd70:6f74::2 ct status dnat masquerade comment "web1"
add rule inet potrun forward iifname "pb-*" iifname != "pb-public" oifname "pb-public" ip6 daddr fd70:6f74::2 ct status & dnat != dnat drop comment "web1"
"#;
        assert_eq!(dual(), format!("{TABLE}{golden}"));
    }

    #[test]
    fn without_exported_ports_nothing_reaches_loopback() {
        let text = rules("web1", "pb-x", &[end("10.0.0.2", "10.0.0.0/24", "10.0.0.1")], &[]);
        assert!(!text.contains("127.0.0.0") && !text.contains("dnat ip to"));
        assert_eq!(text.lines().filter(|line| line.contains("comment")).count(), 2);
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
                "lease 10.192.0.3,fd70:6f74::2, ports 1024",
                "ensure bridge pb-public, potrun public bridge, 10.192.0.1/10,fd70:6f74::1/64",
                "enable forwarding of ipv4",
                "enable forwarding of ipv6",
                "route the loopback address by pb-public",
                "create interface pair PTA",
                "add PTA to bridge pb-public",
                "load nftables rules of web1",
                "move interface PTB into web1",
                "bring up PTB in web1, 10.192.0.3/10,fd70:6f74::2/64",
                "add default route in web1 by 10.192.0.1",
                "add default route in web1 by fd70:6f74::1",
                "resume the first process",
            ]
        );
        let private = steps(r#""network": {"type": "private-bridge", "bridge": "b"}"#);
        assert!(private[1].ends_with(", potrun private bridge b, 10.192.0.9/29"), "{private:?}");
        assert!(!private.iter().any(|line| line.contains("loopback")), "{private:?}");
    }

    #[test]
    fn what_stays_on_the_host_is_taken_back() {
        let plan = planned(r#""network": {"type": "public-bridge"}"#, 0).unwrap();
        let pair = crate::id::ContainerId::new("web1").unwrap().short("pta");
        let back: Vec<String> = plan.ops.iter().rev().filter_map(Op::undo).map(|op| op.to_string()).collect();
        let expected = [
            "flush nftables rules of web1".to_string(),
            format!("destroy interface {pair} of web1"),
            "release bridge pb-public, potrun public bridge".into(),
        ];
        assert_eq!(back[1..4], expected, "{back:?}");
    }

    #[test]
    fn who_is_not_root_changes_no_network_of_the_host() {
        for kind in [r#""alias", "addresses": ["192.0.2.9"]"#, r#""public-bridge""#] {
            let refusal = planned(&format!(r#""network": {{"type": {kind}}}"#), 1000).unwrap_err();
            assert!(refusal.0.iter().any(|one| one.at == "/pot/network/type"), "{refusal}");
        }
    }
}
