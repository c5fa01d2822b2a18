//! The pot networks themselves: what a private bridge may have, and a bridge that is up without a pot.

use std::net::IpAddr;

use crate::facts::{Network, Os};
use crate::id::hash;
use crate::op::Op;
use crate::ranges::Ranges;
use crate::{freebsd, linux};

use super::lease::Subnet;
use super::network::{self as common, BRIDGES, End, PAIRS};

/// The networks of a private bridge, or of the public one, with the host's address in each: ends without a pot.
///
/// # Errors
/// There is no such bridge, or its network is none.
pub fn ends(facts: &Network, private: Option<&str>) -> Result<Vec<End>, String> {
    let named = match private {
        None => vec![(&facts.subnet, facts.gateway), (&facts.subnet6, facts.gateway6)],
        Some(name) => {
            let bridge = facts.bridges.get(name).ok_or_else(|| format!("private bridge {name} does not exist"))?;
            vec![(&bridge.subnet, bridge.gateway)]
        }
    };
    let end = |(text, gateway): (&String, IpAddr)| {
        let subnet = Subnet::parse(text).filter(|subnet| subnet.usable(gateway));
        let subnet = subnet.ok_or_else(|| format!("{gateway} is not a host address of the network {text}"))?;
        Ok(End { address: gateway, subnet, gateway })
    };
    named.into_iter().map(end).collect()
}

/// The lowest part of the public network that is free and holds `hosts` hosts, the host's own address among them:
/// `potnet new-net`.
///
/// # Errors
/// Why there is none.
pub fn carve(facts: &Network, hosts: u32) -> Result<Subnet, String> {
    let public = Subnet::parse(&facts.subnet).ok_or_else(|| format!("{} is not a network", facts.subnet))?;
    let bits: u32 = if public.network.is_ipv4() { 32 } else { 128 };
    // The network's own address and the broadcast address are no host's.
    let needed = (u64::from(hosts.max(2)) + 2).next_power_of_two().trailing_zeros();
    let none = || format!("no network of {hosts} hosts is free in {public}");
    let prefix = bits.checked_sub(needed).and_then(|prefix| u8::try_from(prefix).ok()).ok_or_else(none)?;
    let (first, last) = public.run();
    let mut taken: Ranges<IpAddr> = facts.leased.addresses.clone();
    let reserved = [first, last, facts.gateway];
    reserved
        .into_iter()
        .chain(facts.dns)
        .chain(facts.taken_addresses.iter().copied())
        .for_each(|one| taken.insert(one, one));
    for bridge in facts.bridges.values().filter_map(|bridge| Subnet::parse(&bridge.subnet)) {
        let (first, last) = bridge.run();
        taken.insert(first, last);
    }
    public.lowest_subnet(prefix, &taken).ok_or_else(none)
}

/// What is wrong with a network for a new private bridge.
#[must_use]
pub fn problems(os: Os, facts: &Network, subnet: Subnet) -> Vec<String> {
    let bits = if subnet.network.is_ipv4() { 32 } else { 128 };
    if !subnet.is_network() {
        return vec![format!("{subnet} has bits of a host: its network is {}", subnet.run().0)];
    }
    if subnet.prefix == 0 || bits - subnet.prefix < 2 {
        return vec![format!("{subnet} has no room for the host and a pot")];
    }
    let mut all = Vec::new();
    let public: Vec<Subnet> =
        [&facts.subnet, &facts.subnet6].into_iter().filter_map(|text| Subnet::parse(text)).collect();
    let part = public.iter().any(|public| public.holds(&subnet));
    if let Some(public) = public.iter().find(|public| !part && public.overlaps(&subnet)) {
        all.push(format!("{subnet} overlaps with the public network {public} and is not a part of it"));
    } else if os == Os::Freebsd && !part {
        // Only those are translated: see `freebsd::network`.
        all.push(format!("{subnet} is not a part of the public network"));
    }
    let bridges = facts.bridges.iter().filter_map(|(name, one)| Some((name, Subnet::parse(&one.subnet)?)));
    all.extend(
        bridges
            .filter(|(_, other)| other.overlaps(&subnet))
            .map(|(name, other)| format!("{subnet} overlaps with the private bridge {name}, {other}")),
    );
    for (name, address) in facts.host_addresses.iter().flat_map(|(name, all)| all.iter().map(move |one| (name, one))) {
        if subnet.contains(*address) {
            all.push(format!("{subnet} holds {address}, which the host has on {name}"));
        }
    }
    let hosts = |address: &IpAddr| facts.host_addresses.values().any(|all| all.contains(address));
    let gateways = [facts.gateway, facts.gateway6].map(|one| (one, "is the host's own on the public bridge"));
    let dns = facts.dns.map(|one| (one, "is reserved for the name server"));
    let taken = facts.taken_addresses.iter().map(|one| (*one, "is taken"));
    for (address, why) in gateways.into_iter().chain(dns).chain(taken) {
        if subnet.contains(address) && !hosts(&address) {
            all.push(format!("{subnet} holds {address}, which {why}"));
        }
    }
    let (first, last) = subnet.run();
    if let Some(address) = facts.leased.addresses.last_within(first, last) {
        all.push(format!("{subnet} holds {}, which a pot has", address.min(last)));
    }
    all
}

/// The steps that bring a bridge up and keep it, whether pots are on it or not: a pair of interfaces whose one end is a
/// member. A bridge that has a member is not released with the last pot.
///
/// # Errors
/// Why it would be of no use.
pub fn up(os: Os, facts: &Network, private: Option<&str>, ends: &[End]) -> Result<Vec<Op>, String> {
    let ours = common::bridge_of(private);
    let (bridge, mut ops) = match os {
        Os::Linux => (ours.clone(), linux::network::shared(facts, &ours, ends)),
        Os::Freebsd => {
            freebsd::network::unheard(facts, freebsd::pf::NAT).map_or(Ok(()), Err)?;
            let bridge = freebsd::network::bridge(facts, ours.clone(), ends);
            let ops = freebsd::network::shared(facts, &bridge, ends);
            (bridge, ops)
        }
    };
    // At most 15 bytes, with a sign that no name of a pot's pair has.
    let unique: String = ours.name.trim_start_matches(BRIDGES).chars().take(11).collect();
    let (host, other) = (format!("{PAIRS}-{unique}"), format!("ptb-{unique}"));
    let seed = hash(&ours.name);
    let macs = [common::mac(seed, 0), common::mac(seed, 1)];
    let description = format!("potrun keeps {}", ours.name);
    ops.push(Op::CreatePair { host: host.clone(), pot: other, description, macs, into: None });
    ops.push(Op::AddMember { bridge: bridge.name, member: host, isolated: false });
    Ok(ops)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Bridge;

    fn facts() -> Network {
        let mut facts = Network::default();
        facts
            .bridges
            .insert("a".into(), Bridge { subnet: "10.192.0.8/29".into(), gateway: "10.192.0.9".parse().unwrap() });
        facts.host_addresses.insert("eth0".into(), vec!["192.0.2.10".parse().unwrap()]);
        facts.taken_addresses.push("192.0.2.10".parse().unwrap());
        facts
    }

    #[test]
    fn the_lowest_free_network_is_carved_out() {
        let mut facts = facts();
        let carve = |facts: &Network, hosts| super::carve(facts, hosts).unwrap().to_string();
        for (hosts, network) in [
            (1, "10.192.0.4/30"),
            (2, "10.192.0.4/30"),
            (3, "10.192.0.16/29"),
            (6, "10.192.0.16/29"),
            (7, "10.192.0.16/28"),
            (254, "10.192.1.0/24"),
            (255, "10.192.2.0/23"),
        ] {
            assert_eq!(carve(&facts, hosts), network, "{hosts}");
        }
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        facts.leased.addresses.insert(address("10.192.0.3"), address("10.192.0.40"));
        assert_eq!(carve(&facts, 3), "10.192.0.48/29");
        // The first and the last quarter have addresses of the host, and the broadcast address.
        assert_eq!(carve(&facts, (1 << 20) - 3), "10.208.0.0/12");
        for hosts in [(1 << 20) + 1, 1 << 22, u32::MAX] {
            assert!(super::carve(&facts, hosts).unwrap_err().ends_with("is free in 10.192.0.0/10"));
        }
    }

    #[test]
    fn what_a_new_network_overlaps_is_told() {
        let mut facts = facts();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        facts.leased.addresses.insert(address("10.200.0.3"), address("10.200.0.9"));
        let problems = |text: &str, os| super::problems(os, &facts, Subnet::parse(text).unwrap()).join("; ");
        for (text, what) in [
            ("10.192.0.16/28", ""),
            ("fd70:6f74::1:0/112", ""),
            ("10.192.0.17/28", "10.192.0.17/28 has bits of a host: its network is 10.192.0.16"),
            ("10.192.0.16/31", "10.192.0.16/31 has no room for the host and a pot"),
            ("0.0.0.0/0", "0.0.0.0/0 has no room for the host and a pot"),
            ("10.192.0.8/30", "10.192.0.8/30 overlaps with the private bridge a, 10.192.0.8/29"),
            (
                "10.192.0.0/30",
                "10.192.0.0/30 holds 10.192.0.1, which is the host's own on the public bridge; \
                 10.192.0.0/30 holds 10.192.0.2, which is reserved for the name server",
            ),
            ("192.0.2.0/24", "192.0.2.0/24 holds 192.0.2.10, which the host has on eth0"),
            ("10.200.0.0/29", "10.200.0.0/29 holds 10.200.0.7, which a pot has"),
        ] {
            assert_eq!(problems(text, Os::Linux), what, "{text}");
        }
        assert!(
            problems("10.0.0.0/8", Os::Linux).starts_with("10.0.0.0/8 overlaps with the public network 10.192.0.0/10")
        );
        assert_eq!(problems("172.16.0.0/24", Os::Linux), "");
        assert_eq!(problems("172.16.0.0/24", Os::Freebsd), "172.16.0.0/24 is not a part of the public network");
    }

    #[test]
    fn a_bridge_that_pf_would_not_serve_does_not_come_up() {
        let mut facts = facts();
        let ends = ends(&facts, None).unwrap();
        assert!(up(Os::Freebsd, &facts, None, &ends).is_ok());
        facts.anchors = Some(vec!["pot-rdr/*".into()]);
        assert!(up(Os::Freebsd, &facts, None, &ends).unwrap_err().contains("nat-anchor pot-nat"));
        facts.pf = false;
        assert!(up(Os::Freebsd, &facts, None, &ends).unwrap_err().contains("not enabled"));
        assert!(up(Os::Linux, &facts, None, &ends).is_ok());
    }
}
