//! Which addresses and ports a pot gets: the lowest that nobody has, chosen from the facts.
//!
//! Two creates cannot choose the same: whoever creates a pot on a bridge holds the lock of the ledger
//! ([`crate::lease`]) from looking at the machine until the lease is entered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Draft;

/// A subnet: `address/prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// First address.
    pub network: IpAddr,
    /// Bits of the network.
    pub prefix: u8,
}

impl Subnet {
    /// Reads `10.192.0.0/10`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (network, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        (prefix <= if network.is_ipv4() { 32 } else { 128 }).then_some(Self { network, prefix })
    }

    /// The address that stands for all of a family.
    #[must_use]
    pub fn any(v4: bool) -> IpAddr {
        if v4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) }
    }

    fn bits(&self) -> u8 {
        if self.network.is_ipv4() { 32 } else { 128 }
    }

    /// Whether `address` belongs to it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = u32::from(self.bits() - self.prefix);
        let top = |a: IpAddr| number(a).checked_shr(shift).unwrap_or(0);
        address.is_ipv4() == self.network.is_ipv4() && top(address) == top(self.network)
    }

    /// Whether `address` is one that a host can have: not the network's own, not IPv4's broadcast.
    #[must_use]
    pub fn usable(&self, address: IpAddr) -> bool {
        let last = number(self.network) | self.mask();
        let broadcast = self.network.is_ipv4() && number(address) == last;
        self.contains(address) && address != self.network && !broadcast
    }

    fn mask(&self) -> u128 {
        let shift = u32::from(self.bits() - self.prefix);
        1u128.checked_shl(shift).map_or(u128::MAX, |n| n - 1)
    }

    /// Whether `other` lies wholly inside and is smaller.
    #[must_use]
    pub fn holds(&self, other: &Self) -> bool {
        self.prefix < other.prefix && self.contains(other.network)
    }

    /// The lowest usable address that is neither `taken` nor of one of the `kept` subnets. What is used is sorted once;
    /// the walk ends at the first gap.
    #[must_use]
    pub fn lowest_free(&self, taken: &[IpAddr], kept: &[Self]) -> Option<IpAddr> {
        let one = |address: &IpAddr| (number(*address), number(*address));
        let mut used: Vec<(u128, u128)> = taken.iter().filter(|a| self.contains(**a)).map(one).collect();
        used.extend(kept.iter().map(|k| (number(k.network), number(k.network) | k.mask())));
        used.sort_unstable();
        let mut candidate = number(self.network) + 1;
        for (first, last) in used {
            if first > candidate {
                break;
            }
            candidate = candidate.max(last.saturating_add(1));
        }
        let address = self.address(candidate);
        self.usable(address).then_some(address)
    }

    #[allow(clippy::cast_possible_truncation)] // the number of an IPv4 address has 32 bits
    fn address(&self, number: u128) -> IpAddr {
        if self.network.is_ipv4() {
            IpAddr::V4(Ipv4Addr::from(number as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from(number))
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address of the pot in `subnet`: the one that the bundle asks for at `asked` (its place in
/// `pot.network.addresses`), or the lowest free one.
pub fn address(
    draft: &mut Draft<'_>,
    subnet: Subnet,
    asked: Option<(usize, IpAddr)>,
    gateway: IpAddr,
) -> Option<IpAddr> {
    let mut taken = draft.facts.network.taken_addresses.clone();
    taken.push(gateway);
    // Private bridges are carved out of the public network, as pot does it.
    let private = draft.facts.network.bridges.values().filter_map(|bridge| Subnet::parse(&bridge.subnet));
    let kept: Vec<Subnet> = private.filter(|private| subnet.holds(private)).collect();
    match asked {
        Some((n, address)) => {
            let at = format!("/pot/network/addresses/{n}");
            if !subnet.usable(address) {
                draft.refuse(at, format!("{address} is not a host address of {}/{}", subnet.network, subnet.prefix));
                return None;
            }
            if let Some(private) = kept.iter().find(|private| private.contains(address)) {
                let what = format!("{address} belongs to the private bridge {}/{}", private.network, private.prefix);
                draft.refuse(at, what);
                return None;
            }
            if taken.contains(&address) {
                draft.refuse(at, format!("{address} is taken"));
                return None;
            }
            Some(address)
        }
        None => {
            let free = subnet.lowest_free(&taken, &kept);
            if free.is_none() {
                let what = format!("no address of {}/{} is free", subnet.network, subnet.prefix);
                draft.refuse("/pot/network/addresses", what);
            }
            free
        }
    }
}

/// The ports of the host for `pot.exportedPorts`, in their order: the ones asked for, or the lowest free ones.
pub fn ports(draft: &mut Draft<'_>) -> Vec<u16> {
    let exported = draft.bundle.pot.as_ref().map(|pot| pot.exported_ports.clone()).unwrap_or_default();
    let mut taken = draft.facts.network.taken_ports.clone();
    taken.extend(exported.iter().filter_map(|one| one.host_port));
    let (first, last) = draft.facts.network.ports;
    let mut given = Vec::with_capacity(exported.len());
    for (n, one) in exported.iter().enumerate() {
        let port = match one.host_port {
            Some(port) if draft.facts.network.taken_ports.contains(&port) => {
                let holder = draft.facts.network.port_holders.get(&port).map(|who| format!(": {who} has it"));
                let what = format!("port {port} of the host is taken{}", holder.unwrap_or_default());
                draft.refuse(format!("/pot/exportedPorts/{n}/hostPort"), what);
                port
            }
            Some(port) => port,
            None => (first..=last).find(|port| !taken.contains(port)).unwrap_or_else(|| {
                let what = format!("no port of the host from {first} to {last} is free");
                draft.refuse(format!("/pot/exportedPorts/{n}/hostPort"), what);
                0
            }),
        };
        taken.push(port);
        given.push(port);
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::parse(text).unwrap()
    }

    fn all(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn lowest_free_skips_what_is_taken() {
        let net = subnet("10.192.0.0/10");
        assert_eq!(net.lowest_free(&[], &[]), Some("10.192.0.1".parse().unwrap()));
        let taken = all(&["10.192.0.4", "10.192.0.1", "10.192.0.2", "192.0.2.1"]);
        assert_eq!(net.lowest_free(&taken, &[]), Some("10.192.0.3".parse().unwrap()));
    }

    #[test]
    fn private_bridges_keep_their_addresses() {
        let (net, private) = (subnet("10.192.0.0/10"), subnet("10.192.0.8/29"));
        assert!(net.holds(&private) && !private.holds(&net) && !net.holds(&net));
        let taken: Vec<IpAddr> = (1..8).map(|n| IpAddr::V4(Ipv4Addr::new(10, 192, 0, n))).collect();
        assert_eq!(net.lowest_free(&taken, &[private]), Some("10.192.0.16".parse().unwrap()));
        assert_eq!(net.lowest_free(&taken[1..], &[private]), Some("10.192.0.1".parse().unwrap()));
        assert_eq!(net.lowest_free(&[], &[subnet("10.192.0.0/29")]), Some("10.192.0.8".parse().unwrap()));
    }

    #[test]
    fn a_full_subnet_has_none() {
        let net = subnet("10.0.0.0/30");
        assert_eq!(net.lowest_free(&all(&["10.0.0.1", "10.0.0.2"]), &[]), None);
        assert_eq!(net.lowest_free(&all(&["10.0.0.1"]), &[]), Some("10.0.0.2".parse().unwrap()));
    }

    #[test]
    fn network_and_broadcast_are_no_host_addresses() {
        let net = subnet("10.0.0.0/30");
        for (address, usable) in
            [("10.0.0.0", false), ("10.0.0.1", true), ("10.0.0.3", false), ("10.0.0.4", false), ("::1", false)]
        {
            assert_eq!(net.usable(address.parse().unwrap()), usable, "{address}");
        }
        assert!(subnet("fd00::/64").usable("fd00::ffff:ffff:ffff:ffff".parse().unwrap()));
    }
}
