//! What the pot networks of both systems have in common: names, addresses, ports, before anyone says how.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::bundle::pot::{NetworkKind, Pot, Protocol};
use crate::facts::Os;
use crate::id::ContainerId;
use crate::lease::{Lease, Port};
use crate::op::{Family, Op};

use super::Draft;
use super::lease::{self, Subnet};

/// What all bridges of ours begin with; no computed name of a private one is the public one's, because those go on
/// with twelve characters.
pub const BRIDGES: &str = "pb-";

/// What the host's end of every pair begins with.
pub const PAIRS: &str = "pta";

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The interface, at most 15 bytes (`IFNAMSIZ` of both systems).
    pub name: String,
    /// The mark: `ifconfig(8)`'s description, `ip-link(8)`'s alias.
    pub description: String,
}

/// One end of a pot on its bridge: an address and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The pot's address.
    pub address: IpAddr,
    /// Its network.
    pub subnet: Subnet,
    /// The host's address in it.
    pub gateway: IpAddr,
}

impl End {
    /// `address/prefix` of the pot.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}/{}", self.address, self.subnet.prefix)
    }

    /// `address/prefix` of the host.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{}/{}", self.gateway, self.subnet.prefix)
    }

    /// `network/prefix`.
    #[must_use]
    pub fn network(&self) -> String {
        self.subnet.to_string()
    }
}

/// One exported port and family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Its place in `pot.exportedPorts`.
    pub n: usize,
    /// Protocol.
    pub protocol: Protocol,
    /// Address of the host; all of this family where absent.
    pub host: Option<IpAddr>,
    /// Port of the host.
    pub host_port: u16,
    /// Address of the pot.
    pub address: IpAddr,
    /// Port of the pot.
    pub port: u16,
}

impl Forward {
    /// The port of the host.
    #[must_use]
    pub fn of_host(&self) -> Port {
        Port { protocol: self.protocol, port: self.host_port, host: self.host }
    }
}

/// The family of an address.
#[must_use]
pub fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
}

/// Whether the pot has a bridge.
#[must_use]
pub fn bridged(pot: &Pot) -> bool {
    matches!(pot.network.kind, NetworkKind::PublicBridge | NetworkKind::PrivateBridge)
}

/// The bridge of the pot.
#[must_use]
pub fn bridge(pot: &Pot) -> Bridge {
    bridge_of(pot.network.bridge.as_deref())
}

/// A private bridge by its name, or the public one, by its computed name.
#[must_use]
pub fn bridge_of(private: Option<&str>) -> Bridge {
    match private.and_then(|name| ContainerId::new(name).ok()) {
        Some(name) => Bridge { name: name.short(BRIDGES), description: format!("potrun private bridge {name}") },
        None => Bridge { name: format!("{BRIDGES}public"), description: "potrun public bridge".into() },
    }
}

/// The pair of interfaces of a pot: the host's end, the pot's end. One pair carries both families.
#[must_use]
pub fn pair(id: &ContainerId) -> (String, String) {
    (id.short(PAIRS), id.short("ptb"))
}

/// The step that makes the pair. epair(4) derives addresses from the host's id, so that cloned machines on one
/// Ethernet would share them: these derive from the container's.
#[must_use]
pub fn create_pair(id: &ContainerId) -> Op {
    let (host, pot) = pair(id);
    let macs = [mac(id.hash(), 0), mac(id.hash(), 1)];
    Op::CreatePair { host, pot, description: id.to_string(), macs, into: None }
}

/// A link-level address of 46 bits of `hash`: locally administered and of one station (IEEE 802, bits 1 and 0 of the
/// first octet); the last bit tells the ends of a pair apart.
#[must_use]
pub fn mac(hash: u64, end: u8) -> String {
    let mut octets = hash.to_be_bytes();
    octets[2] = (octets[2] & 0xfc) | 0x02;
    octets[7] = (octets[7] & 0xfe) | end;
    octets[2..].iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
}

/// The pot's name in rules of a firewall: 1 to 55 bytes, so that `pot-rdr/` and it are an anchor that pfctl(8) takes
/// (63 bytes for the whole path), and a comment that nft(8) takes (128 bytes).
///
/// The id itself where that fits. What is longer, or begins with the `_` that pf keeps for its own anchors, ends in
/// the id's hash, after a `:` that no id contains: it is nobody else's name, and pot's way of cutting to the last 55
/// bytes would let two pots share one anchor.
#[must_use]
pub fn rule_name(id: &ContainerId) -> String {
    const MAX: usize = 55;
    let text = id.as_str();
    if text.len() <= MAX && !text.starts_with('_') {
        return text.into();
    }
    let hash = id.short(":");
    let readable = text.trim_start_matches('_');
    format!("{}{hash}", &readable[..readable.len().min(MAX - hash.len())])
}

/// The addresses of the pot on its bridge, one a family, IPv4 first. What is wrong is refused.
pub fn ends(draft: &mut Draft<'_>, pot: &Pot) -> Vec<End> {
    let networks = networks(draft, pot);
    let mut asked: Vec<(usize, IpAddr)> =
        pot.network.addresses.iter().enumerate().map(|(n, given)| (n, given.address)).collect();
    let mut all = Vec::new();
    for (subnet, gateway) in networks {
        let of_family = |(_, address): &(usize, IpAddr)| address.is_ipv4() == subnet.network.is_ipv4();
        let first = asked.iter().position(of_family).map(|place| asked.remove(place));
        let address = lease::address(draft, subnet, first, gateway);
        all.extend(address.map(|address| End { address, subnet, gateway }));
    }
    for (n, address) in asked {
        let what = format!("{address}: a pot has one address of each family that its bridge has");
        draft.refuse(format!("/pot/network/addresses/{n}"), what);
    }
    all
}

/// The networks of the pot's bridge that its stack wants, with the host's address in each.
fn networks(draft: &mut Draft<'_>, pot: &Pot) -> Vec<(Subnet, IpAddr)> {
    let facts = &draft.facts.network;
    let stack = pot.network.stack;
    let mut named: Vec<(String, IpAddr)> = Vec::new();
    match &pot.network.bridge {
        None => {
            named.extend(stack.v4().then(|| (facts.subnet.clone(), facts.gateway)));
            named.extend(stack.v6().then(|| (facts.subnet6.clone(), facts.gateway6)));
        }
        Some(name) => match facts.bridges.get(name) {
            Some(bridge) => named.push((bridge.subnet.clone(), bridge.gateway)),
            None => draft.refuse("/pot/network/bridge", format!("private bridge {name} does not exist")),
        },
    }
    let mut all = Vec::new();
    for (text, gateway) in named {
        match Subnet::parse(&text) {
            Some(subnet) if subnet.usable(gateway) => all.push((subnet, gateway)),
            _ => draft.refuse("/pot/network", format!("{gateway} is not a host address of the network {text}")),
        }
    }
    if pot.network.bridge.is_some() && !all.is_empty() {
        one_family(draft, pot, &mut all);
    }
    all
}

/// A private bridge has one family, and the pot's stack may want another, or more.
fn one_family(draft: &mut Draft<'_>, pot: &Pot, all: &mut Vec<(Subnet, IpAddr)>) {
    let stack = pot.network.stack;
    let has = |v4: bool| all.iter().any(|(subnet, _)| subnet.network.is_ipv4() == v4);
    let name = pot.network.bridge.clone().unwrap_or_default();
    let missing: Vec<Family> = [(stack.v4(), true, Family::Ipv4), (stack.v6(), false, Family::Ipv6)]
        .into_iter()
        .filter_map(|(wanted, v4, family)| (wanted && !has(v4)).then_some(family))
        .collect();
    all.retain(|(subnet, _)| if subnet.network.is_ipv4() { stack.v4() } else { stack.v6() });
    for family in missing {
        if all.is_empty() {
            draft.refuse("/pot/network/stack", format!("private bridge {name} has no {family}"));
        } else {
            draft.note(format!("{family}: private bridge {name} has none"));
        }
    }
}

/// What is exported, each port once for every family of the pot that its `hostAddress` allows.
pub fn forwards(draft: &mut Draft<'_>, pot: &Pot, ends: &[End]) -> Vec<Forward> {
    let ports = lease::ports(draft);
    let mut all = Vec::new();
    for (n, (one, host_port)) in pot.exported_ports.iter().zip(ports).enumerate() {
        let before = all.len();
        for end in ends {
            let host = one.host_address.filter(|host| !host.is_unspecified());
            if one.host_address.is_some_and(|host| host.is_ipv4() != end.address.is_ipv4()) {
                continue;
            }
            let (protocol, address, port) = (one.protocol, end.address, one.port);
            all.push(Forward { n, protocol, host, host_port, address, port });
        }
        if all.len() == before && !ends.is_empty() {
            let what = "is of a family that the pot does not have";
            draft.refuse(format!("/pot/exportedPorts/{n}/hostAddress"), what);
        }
    }
    all
}

/// What a pot has of the network, for those who ask for its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attached {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The private bridge that it is on, or `public`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Interfaces: of the bridge, the host's end of the pair, the pot's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<[String; 3]>,
    /// Exported ports: the host's, and the pot's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<(Port, u16)>,
}

impl Attached {
    /// The same as annotations of the container.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let all = |texts: Vec<String>| (!texts.is_empty()).then(|| texts.join(","));
        let port = |(host, port): &(Port, u16)| format!("{host}:{port}");
        let interface = |n: usize| self.interfaces.as_ref().map(|names| names[n].clone());
        let members = [
            ("addresses", all(self.addresses.iter().map(ToString::to_string).collect())),
            ("bridge", self.bridge.clone()),
            ("bridgeInterface", interface(0)),
            ("hostInterface", interface(1)),
            ("potInterface", interface(2)),
            ("ports", all(self.ports.iter().map(port).collect())),
        ];
        let given = members.into_iter().filter_map(|(name, value)| Some((name, value?)));
        given.map(|(name, value)| (format!("{}.{name}", crate::bundle::ANNOTATION), value)).collect()
    }
}

/// What the pot has of the network when its plan is carried out; nothing with the host's own.
#[must_use]
pub fn attached(draft: &mut Draft<'_>) -> Option<Attached> {
    let pot = draft.bundle.pot.clone()?;
    if pot.network.kind == NetworkKind::Alias {
        let addresses = aliases(draft, &pot).into_iter().map(|(_, address)| address).collect();
        return Some(Attached { addresses, ..Attached::default() });
    }
    if !bridged(&pot) {
        return None;
    }
    let ends = ends(draft, &pot);
    let forwards = forwards(draft, &pot, &ends);
    let ours = bridge(&pot);
    let bridge = match draft.facts.os {
        Os::Linux => ours,
        Os::Freebsd => crate::freebsd::network::bridge(&draft.facts.network, ours, &ends),
    };
    let (host, inner) = pair(draft.id);
    let mut ports: Vec<(Port, u16)> = forwards.iter().map(|one| (one.of_host(), one.port)).collect();
    ports.dedup(); // of a pot with two families
    Some(Attached {
        addresses: ends.iter().map(|end| end.address).collect(),
        bridge: Some(pot.network.bridge.unwrap_or_else(|| "public".into())),
        interfaces: Some([bridge.name, host, inner]),
        ports,
    })
}

/// The step that makes addresses and ports the pot's own. It comes before all that uses them.
#[must_use]
pub fn lease(draft: &Draft<'_>, ends: &[End], forwards: &[Forward]) -> Op {
    let mut ports: Vec<Port> = forwards.iter().map(Forward::of_host).collect();
    ports.sort_unstable();
    ports.dedup();
    Op::Lease {
        ledger: draft.facts.network.ledger.clone(),
        id: draft.id.clone(),
        owner: draft.facts.state.join(draft.id.as_str()),
        addresses: ends.iter().map(|end| end.address).collect(),
        ports,
    }
}

/// What takes away that a pot had of the host's network, beside its lease, when nothing else is known of it. `named`: not
/// what goes by its id, because another container of that id is there.
#[must_use]
pub fn remains(os: Os, lease: &Lease, named: bool) -> Vec<Op> {
    let (id, name) = (&lease.id, rule_name(&lease.id));
    let addresses = lease.addresses.clone();
    let mut ops = match os {
        Os::Linux => vec![Op::FlushNft { elements: crate::linux::network::of_lease(lease), name }],
        Os::Freebsd if named => Vec::new(),
        Os::Freebsd => vec![Op::FlushAnchor { anchor: crate::freebsd::pf::rdr_anchor(&name), addresses }],
    };
    if !named {
        ops.insert(0, Op::DestroyInterface { name: pair(id).0, description: id.to_string() });
    }
    ops
}

/// The addresses of a pot of type alias and the interfaces that get them, in the order of the bundle.
#[must_use]
pub fn aliases(draft: &Draft<'_>, pot: &Pot) -> Vec<(String, IpAddr)> {
    let outer = &draft.facts.network.interface;
    let one =
        |given: &crate::bundle::pot::Address| (given.interface.clone().unwrap_or_else(|| outer.clone()), given.address);
    pot.network.addresses.iter().map(one).collect()
}

/// Steps that add addresses to interfaces of the host, but for those that it has already: they are not ours to take
/// away, and pot's habit of removing them at stop cut hosts off. Each is a host's alone, as jail(8) adds them.
#[must_use]
pub fn add_addresses(draft: &Draft<'_>, wanted: &[(String, IpAddr)]) -> Vec<Op> {
    let has = |address: &IpAddr| draft.facts.network.host_addresses.values().any(|all| all.contains(address));
    let add = |(interface, address): &(String, IpAddr)| Op::AddAddress {
        interface: interface.clone(),
        address: format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }),
    };
    wanted.iter().filter(|(_, address)| !has(address)).map(add).collect()
}

/// The steps that make the pot's interface work inside: loopback apart, which not every system leaves to us.
#[must_use]
pub fn inside(pot: &str, interface: &str, ends: &[End]) -> Vec<Op> {
    let mut ops = vec![Op::ConfigureInterface {
        pot: pot.into(),
        interface: interface.into(),
        addresses: ends.iter().map(End::text).collect(),
    }];
    ops.extend(ends.iter().map(|end| Op::AddRoute { pot: pot.into(), gateway: end.gateway }));
    ops
}

/// 127.0.0.1 or ::1.
#[must_use]
pub fn loopback(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn id(text: &str) -> ContainerId {
        ContainerId::new(text).unwrap()
    }

    #[test]
    fn names_of_rules_fit_and_differ() {
        let long = "x".repeat(55);
        let texts: Vec<String> = vec![
            "web1".into(),
            "_web1".into(),
            "__web1".into(),
            long.clone(),
            format!("{long}a"),
            format!("{long}b"),
            format!("a{long}"),
            format!("b{long}"),
            format!("_{long}"),
            "_".into(),
            "_".repeat(60),
        ];
        let names: BTreeSet<String> = texts.iter().map(|text| rule_name(&id(text))).collect();
        assert_eq!(names.len(), texts.len(), "{names:?}");
        for name in &names {
            assert!((1..=55).contains(&name.len()) && !name.starts_with('_'), "{name:?}");
        }
        assert_eq!(rule_name(&id("web1")), "web1");
        assert_eq!(rule_name(&id(&long)), long);
    }

    #[test]
    fn names_of_interfaces_fit_and_differ() {
        let mut seen = BTreeSet::new();
        for n in 0..2000 {
            let id = id(&format!("pot-{n}"));
            let Op::CreatePair { host, pot, description, macs, .. } = create_pair(&id) else { panic!() };
            assert_eq!(description, id.as_str());
            for name in [host, pot] {
                assert!(name.len() <= 15 && !name.starts_with(BRIDGES), "{name}");
                assert!(seen.insert(name));
            }
            for mac in macs {
                let first = u8::from_str_radix(&mac[..2], 16).unwrap();
                assert_eq!((mac.len(), first & 3), (17, 2), "{mac} is of one station and locally administered");
                assert!(seen.insert(mac));
            }
        }
    }

    /// The annotations of a pot that is called `web1`, a line each, with the computed names made plain.
    fn annotations(os: Os, pot: &str) -> Vec<String> {
        let config = format!(
            r#"{{"ociVersion": "1.3.0", "pot": {{"base": {{"release": "r"}}, {pot}}},
                "process": {{"user": {{"uid": 0, "gid": 0}}, "cwd": "/", "args": ["x"]}}}}"#
        );
        let bundle = crate::bundle::Bundle::parse("/b".into(), config.into_bytes()).unwrap();
        let mut facts = crate::facts::Facts::assumed(os, &bundle);
        facts.network.host_addresses.insert("bridge7".into(), vec!["10.192.0.1".parse().unwrap()]);
        let plan = crate::plan::plan(&bundle, &facts, &id("web1")).unwrap();
        let (host, inner) = pair(&id("web1"));
        let plain = |text: String| text.replace(&host, "PTA").replace(&inner, "PTB");
        let all = plan.network.iter().flat_map(Attached::annotations);
        all.map(|(key, value)| plain(format!("{} {value}", key.trim_start_matches("org.bsdpot.pot.")))).collect()
    }

    #[test]
    fn what_a_pot_has_is_told_as_annotations() {
        let public = r#""network": {"type": "public-bridge", "stack": "dual"},
            "exportedPorts": [{"port": 80}, {"port": 53, "protocol": "udp", "hostPort": 53, "hostAddress": "192.0.2.1"}]"#;
        for (os, bridge) in [(Os::Linux, "bridgeInterface pb-public"), (Os::Freebsd, "bridgeInterface bridge7")] {
            let golden = [
                "addresses 10.192.0.3,fd70:6f74::2",
                "bridge public",
                bridge,
                "hostInterface PTA",
                "ports tcp/1024:80,udp/192.0.2.1:53:53",
                "potInterface PTB",
            ];
            assert_eq!(annotations(os, public), golden, "{os}");
            let private = annotations(os, r#""network": {"type": "private-bridge", "bridge": "lab"}"#);
            assert_eq!(private[..2], ["addresses 10.192.0.10", "bridge lab"]);
            let alias = r#""network": {"type": "alias", "addresses": ["192.0.2.9", "eth1|192.0.2.10"]}"#;
            assert_eq!(annotations(os, alias), ["addresses 192.0.2.9,192.0.2.10"]);
            assert_eq!(annotations(os, r#""network": {"type": "inherit"}"#), [""; 0]);
        }
    }

    #[test]
    fn bridges_are_named_apart() {
        let named = |bridge: Option<&str>| {
            let mut pot = Pot::default();
            pot.network.bridge = bridge.map(String::from);
            super::bridge(&pot)
        };
        let long = "n".repeat(64);
        let all = [None, Some("public"), Some("a"), Some("b"), Some(long.as_str())].map(named);
        let names: BTreeSet<&str> = all.iter().map(|bridge| bridge.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.iter().all(|name| name.len() <= 15 && name.starts_with(BRIDGES)));
        assert_eq!(all[0].name, "pb-public");
    }
}
