//! Which addresses and ports a pot gets: the lowest that nobody has, chosen from the facts.
//!
//! Two creates cannot choose the same: whoever creates a pot on a bridge holds the lock of the ledger
//! ([`crate::lease`]) from looking at the machine until the lease is entered.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bundle::pot::{ExportedPort, Protocol};
use crate::facts::Network;
use crate::lease::Port;
use crate::ranges::{Point, Ranges};

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

    /// Whether it is written as a network: no bit of a host is set.
    #[must_use]
    pub fn is_network(&self) -> bool {
        number(self.network) & self.mask() == 0
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// The lowest network of `prefix` bits inside of which nothing is taken.
    #[must_use]
    pub fn lowest_subnet(&self, prefix: u8, taken: &Ranges<IpAddr>) -> Option<Self> {
        let mut candidate = Self { network: self.network, prefix };
        while self.holds(&candidate) {
            let (first, last) = candidate.run();
            match taken.last_within(first, last) {
                None => return Some(candidate),
                // The next one that begins behind it.
                Some(end) => candidate.network = Self { network: end, prefix }.run().1.next()?,
            }
        }
        None
    }

    /// Whether `other` lies wholly inside and is smaller.
    #[must_use]
    pub fn holds(&self, other: &Self) -> bool {
        self.prefix < other.prefix && self.contains(other.network)
    }

    /// The lowest usable address that is in neither set: one search for each run of `others` before it, and as many in
    /// `leased`, however many addresses that has.
    #[must_use]
    pub fn lowest_free(&self, leased: &Ranges<IpAddr>, others: &Ranges<IpAddr>) -> Option<IpAddr> {
        let mut candidate = self.network.next()?;
        loop {
            let address = others.free_from(leased.free_from(candidate)?)?;
            if address == candidate {
                return self.usable(address).then_some(address);
            }
            candidate = address;
        }
    }

    /// First and last address.
    #[must_use]
    pub fn run(&self) -> (IpAddr, IpAddr) {
        let network = number(self.network);
        (self.address(network & !self.mask()), self.address(network | self.mask()))
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

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
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
    let facts = &draft.facts.network;
    match asked {
        None => {
            let free = lowest(facts, subnet, gateway);
            if free.is_none() {
                draft.refuse("/pot/network/addresses", full(subnet));
            }
            free
        }
        Some((n, address)) => match refused(facts, subnet, gateway, address) {
            None => Some(address),
            Some(what) => {
                draft.refuse(format!("/pot/network/addresses/{n}"), what);
                None
            }
        },
    }
}

/// That there is none.
#[must_use]
pub fn full(subnet: Subnet) -> String {
    format!("no address of {subnet} is free")
}

/// The private bridges inside of `subnet`, which keep their addresses: they are carved out of the public network, as pot
/// does it.
fn kept(facts: &Network, subnet: Subnet) -> impl Iterator<Item = Subnet> {
    let private = facts.bridges.values().filter_map(|bridge| Subnet::parse(&bridge.subnet));
    private.filter(move |private| subnet.holds(private))
}

/// The lowest address of `subnet` that can be given.
#[must_use]
pub fn lowest(facts: &Network, subnet: Subnet, gateway: IpAddr) -> Option<IpAddr> {
    let mut others: Ranges<IpAddr> = facts.taken_addresses.iter().copied().chain([gateway]).chain(facts.dns).collect();
    for (first, last) in kept(facts, subnet).map(|one| one.run()) {
        others.insert(first, last);
    }
    subnet.lowest_free(&facts.leased.addresses, &others)
}

/// Why an address of `subnet` cannot be given, if so.
#[must_use]
pub fn refused(facts: &Network, subnet: Subnet, gateway: IpAddr, address: IpAddr) -> Option<String> {
    if !subnet.usable(address) {
        return Some(format!("{address} is not a host address of {subnet}"));
    }
    if let Some(private) = kept(facts, subnet).find(|private| private.contains(address)) {
        return Some(format!("{address} belongs to the private bridge {private}"));
    }
    if let Some(holder) = facts.leased.holders.get(&address.to_string()) {
        return Some(format!("{address} is taken: container {holder} has it"));
    }
    if address == gateway {
        return Some(format!("{address} is reserved: the host's own on the bridge"));
    }
    if facts.dns == Some(address) {
        return Some(format!("{address} is reserved for the name server"));
    }
    if let Some((name, _)) = facts.host_addresses.iter().find(|(_, all)| all.contains(&address)) {
        return Some(format!("{address} is taken: the host's own on {name}"));
    }
    let taken = facts.taken_addresses.contains(&address) || facts.leased.addresses.contains(address);
    taken.then(|| format!("{address} is taken"))
}

/// The ports of the host for `pot.exportedPorts`, in their order: the ones asked for, or the lowest free ones.
pub fn ports(draft: &mut Draft<'_>) -> Vec<u16> {
    let exported = draft.bundle.pot.as_ref().map(|pot| pot.exported_ports.clone()).unwrap_or_default();
    let facts = &draft.facts.network;
    let sockets: Ranges<u16> = facts.taken_ports.iter().copied().collect();
    let fixed = |protocol: Protocol| {
        exported.iter().filter(move |one| one.protocol == protocol).filter_map(|one| one.host_port)
    };
    let mut own = BTreeMap::from([Protocol::Tcp, Protocol::Udp].map(|one| (one, fixed(one).collect::<Ranges<u16>>())));
    let (first, last) = facts.ports;
    let mut given = Vec::with_capacity(exported.len());
    for (n, one) in exported.iter().enumerate() {
        let at = format!("/pot/exportedPorts/{n}/hostPort");
        let port = match asked(one) {
            Some(port) => {
                if sockets.contains(port.port) || facts.leased.has(&port) {
                    let pot = facts.leased.holders.get(&port.to_string()).map(|id| format!("container {id}"));
                    let holder = pot.or_else(|| facts.port_holders.get(&port.port).cloned());
                    let holder = holder.map(|who| format!(": {who} has it")).unwrap_or_default();
                    draft.refuse(at, format!("port {} of the host is taken{holder}", port.port));
                }
                port.port
            }
            None => {
                let own = own.entry(one.protocol).or_default();
                let free = lowest_port(first, &[&sockets, own], |from| facts.leased.free_port(one.protocol, from));
                let port = free.filter(|port| *port <= last).unwrap_or_else(|| {
                    draft.refuse(at, format!("no port of the host from {first} to {last} is free"));
                    0
                });
                own.insert(port, port);
                port
            }
        };
        given.push(port);
    }
    given
}

/// The port of the host that an exported port names.
#[must_use]
pub fn asked(one: &ExportedPort) -> Option<Port> {
    let host = one.host_address.filter(|host| !host.is_unspecified());
    Some(Port { protocol: one.protocol, port: one.host_port?, host })
}

/// `from`, or the first port after it that is in none of the sets and that the ledger lets through.
fn lowest_port(from: u16, sets: &[&Ranges<u16>], leased: impl Fn(u16) -> Option<u16>) -> Option<u16> {
    let mut candidate = from;
    loop {
        let next = sets.iter().try_fold(leased(candidate)?, |port, set| set.free_from(port))?;
        if next == candidate {
            return Some(next);
        }
        candidate = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::parse(text).unwrap()
    }

    fn set(texts: &[&str]) -> Ranges<IpAddr> {
        Ranges::parse(texts.iter().copied()).unwrap()
    }

    fn free(net: &str, leased: &[&str], others: &[&str]) -> Option<String> {
        subnet(net).lowest_free(&set(leased), &set(others)).map(|address| address.to_string())
    }

    #[test]
    fn lowest_free_skips_what_is_taken() {
        let net = "10.192.0.0/10";
        assert_eq!(free(net, &[], &[]).unwrap(), "10.192.0.1");
        assert_eq!(free(net, &["10.192.0.4", "10.192.0.2"], &["10.192.0.1", "192.0.2.1"]).unwrap(), "10.192.0.3");
        assert_eq!(free(net, &["10.192.0.1", "10.192.0.3"], &["10.192.0.2", "10.192.0.4"]).unwrap(), "10.192.0.5");
    }

    #[test]
    fn private_bridges_keep_their_addresses() {
        let (net, private) = (subnet("10.192.0.0/10"), subnet("10.192.0.8/29"));
        assert!(net.holds(&private) && !private.holds(&net) && !net.holds(&net));
        let (first, last) = private.run();
        assert_eq!((first.to_string().as_str(), last.to_string().as_str()), ("10.192.0.8", "10.192.0.15"));
        let kept = "10.192.0.8-10.192.0.15";
        assert_eq!(free("10.192.0.0/10", &["10.192.0.1-10.192.0.7"], &[kept]).unwrap(), "10.192.0.16");
        assert_eq!(free("10.192.0.0/10", &["10.192.0.2-10.192.0.7"], &[kept]).unwrap(), "10.192.0.1");
    }

    #[test]
    fn a_full_subnet_has_none() {
        assert_eq!(free("10.0.0.0/30", &["10.0.0.1-10.0.0.2"], &[]), None);
        assert_eq!(free("10.0.0.0/30", &["10.0.0.1"], &[]).unwrap(), "10.0.0.2");
        assert_eq!(free("255.255.255.248/29", &["255.255.255.249-255.255.255.255"], &[]), None);
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
