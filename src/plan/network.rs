//! What the pot networks of both systems have in common: names, addresses, ports, before anyone says how.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bundle::pot::{NetworkKind, Pot, Protocol};
use crate::id::ContainerId;
use crate::lease::Port;
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

/// The step that makes addresses and ports the pot's own. It comes before all that uses them.
#[must_use]
pub fn lease(draft: &Draft<'_>, ends: &[End], forwards: &[Forward]) -> Op {
    let port = |one: &Forward| Port { protocol: one.protocol, port: one.host_port, host: one.host };
    let mut ports: Vec<Port> = forwards.iter().map(port).collect();
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
