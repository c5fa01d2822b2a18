//! The nftables table `potrun` in types: what its chains say, and what a pot adds to its sets.
//!
//! The chains are the same for all pots and look everything up: so a packet costs the same however many pots there are,
//! and a pot comes and goes as elements of sets, in one transaction. Every element carries the pot's name as its comment.
//! The text is that of nft(8); what the kernel gets is made from the same values.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::bundle::pot::Protocol;
use crate::op::Family;
use crate::plan::network::BRIDGES;

/// The table.
pub const TABLE: &str = "potrun";

/// A set or a map of the table.
#[allow(missing_docs)] // a variant's line says what is in it
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// Exported ports at any address of the host: where they lead.
    Ports4,
    Ports6,
    /// Exported ports at one address of the host.
    Ports4At,
    Ports6At,
    /// Addresses of pots.
    Pots4,
    Pots6,
    /// Addresses of pots that do not reach each other.
    Isolated4,
    Isolated6,
    /// Each bridge with itself.
    Bridges,
}

/// All sets, in the order in which they are made.
pub const SETS: &[Set] = &[
    Set::Ports4,
    Set::Ports6,
    Set::Ports4At,
    Set::Ports6At,
    Set::Pots4,
    Set::Pots6,
    Set::Isolated4,
    Set::Isolated6,
    Set::Bridges,
];

impl Set {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ports4 => "ports4",
            Self::Ports6 => "ports6",
            Self::Ports4At => "ports4at",
            Self::Ports6At => "ports6at",
            Self::Pots4 => "pots4",
            Self::Pots6 => "pots6",
            Self::Isolated4 => "isolated4",
            Self::Isolated6 => "isolated6",
            Self::Bridges => "bridges",
        }
    }

    /// The types of its key.
    #[must_use]
    pub fn key(self) -> &'static [Type] {
        match self {
            Self::Ports4 | Self::Ports6 => &[Type::Protocol, Type::Port],
            Self::Ports4At => &[Type::Ipv4, Type::Protocol, Type::Port],
            Self::Ports6At => &[Type::Ipv6, Type::Protocol, Type::Port],
            Self::Pots4 | Self::Isolated4 => &[Type::Ipv4],
            Self::Pots6 | Self::Isolated6 => &[Type::Ipv6],
            Self::Bridges => &[Type::Interface, Type::Interface],
        }
    }

    /// The types of its value, if it is a map.
    #[must_use]
    pub fn value(self) -> &'static [Type] {
        match self {
            Self::Ports4 | Self::Ports4At => &[Type::Ipv4, Type::Port],
            Self::Ports6 | Self::Ports6At => &[Type::Ipv6, Type::Port],
            _ => &[],
        }
    }
}

/// A type of nftables (nft(8), "Data types").
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Ipv4,
    Ipv6,
    Protocol,
    Port,
    Interface,
}

impl Type {
    fn word(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4_addr",
            Self::Ipv6 => "ipv6_addr",
            Self::Protocol => "inet_proto",
            Self::Port => "inet_service",
            Self::Interface => "ifname",
        }
    }
}

/// A value of such a type.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Address(IpAddr),
    Protocol(Protocol),
    Port(u16),
    Interface(String),
}

/// What is in a set because of one pot, or of one bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Element {
    /// A pot has this address.
    Pot {
        /// The address.
        address: IpAddr,
    },
    /// A pot does not reach others that are isolated.
    Isolated {
        /// Its address.
        address: IpAddr,
    },
    /// An exported port.
    Port {
        /// The protocol: `tcp` or `udp`.
        protocol: Protocol,
        /// The address of the host; all of this family where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<IpAddr>,
        /// The port of the host.
        host_port: u16,
        /// The address of the pot.
        address: IpAddr,
        /// The port of the pot.
        port: u16,
    },
    /// A bridge: who is on it reaches who else is.
    Bridge {
        /// Its name.
        name: String,
    },
}

impl Element {
    /// The set that it belongs to.
    #[must_use]
    pub fn set(&self) -> Set {
        match self {
            Self::Pot { address } if address.is_ipv4() => Set::Pots4,
            Self::Pot { .. } => Set::Pots6,
            Self::Isolated { address } if address.is_ipv4() => Set::Isolated4,
            Self::Isolated { .. } => Set::Isolated6,
            Self::Port { address, host: None, .. } if address.is_ipv4() => Set::Ports4,
            Self::Port { host: None, .. } => Set::Ports6,
            Self::Port { address, .. } if address.is_ipv4() => Set::Ports4At,
            Self::Port { .. } => Set::Ports6At,
            Self::Bridge { .. } => Set::Bridges,
        }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> Vec<Value> {
        match self {
            Self::Pot { address } | Self::Isolated { address } => vec![Value::Address(*address)],
            Self::Port { protocol, host, host_port, .. } => {
                let mut all: Vec<Value> = host.map(Value::Address).into_iter().collect();
                all.extend([Value::Protocol(*protocol), Value::Port(*host_port)]);
                all
            }
            Self::Bridge { name } => vec![Value::Interface(name.clone()), Value::Interface(name.clone())],
        }
    }

    /// Its value, in a map.
    #[must_use]
    pub fn value(&self) -> Vec<Value> {
        match self {
            Self::Port { address, port, .. } => vec![Value::Address(*address), Value::Port(*port)],
            _ => Vec::new(),
        }
    }
}

/// A chain that hangs on a hook.
#[derive(Debug)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// The hook, and its number for the family inet (`enum nf_inet_hooks`, linux/netfilter.h).
    pub hook: (&'static str, u32),
    /// The priority: the names `raw`, `dstnat`, `filter` and `srcnat` of nft(8) in numbers, which every version takes
    /// in every hook.
    pub priority: i32,
    /// Its rules.
    pub rules: &'static [&'static [Word]],
}

/// Which end of a packet.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    From,
    To,
}

/// A part of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It comes from, or goes to, a bridge of ours; or (false) does not.
    Bridge(End, bool),
    /// Both interfaces are not one bridge.
    OtherBridge,
    /// It is of a family.
    Of(Family),
    /// An end is in 127.0.0.0/8, or (false) is not.
    Loopback(End, bool),
    /// It does not go to ::1.
    NotLoopback6,
    /// It goes to an address that is the host's own.
    Local,
    /// An end is in the set.
    Among(End, Set),
    /// The destination of its connection was translated, or (false) was not.
    Translated(bool),
    /// It goes where the map says.
    Dnat(Set),
    /// It gets the address of the interface that it leaves by.
    Masquerade,
    /// It goes nowhere.
    Drop,
}

use Word::{Among, Bridge, Dnat, Drop, Local, Loopback, Masquerade, NotLoopback6, Of, OtherBridge, Translated};

/// The chains of the table.
pub const CHAINS: &[Chain] = &[
    Chain {
        name: "guard",
        kind: "filter",
        hook: ("prerouting", 0),
        priority: -300,
        // With route_localnet a pot could reach what listens at the host's 127.0.0.1 (CVE-2020-8558).
        rules: &[&[Bridge(End::From, true), Loopback(End::To, true), Drop]],
    },
    Chain {
        name: "prerouting",
        kind: "nat",
        hook: ("prerouting", 0),
        priority: -100,
        // A neighbour that writes 127.0.0.1 on its packets would get at what is exported there (moby/moby#45610): the
        // kernel drops such packets, but only behind this hook.
        rules: &[
            &[Loopback(End::To, false), Dnat(Set::Ports4At)],
            &[Loopback(End::To, false), Local, Dnat(Set::Ports4)],
            &[Dnat(Set::Ports6At)],
            &[Of(Family::Ipv6), Local, Dnat(Set::Ports6)],
        ],
    },
    Chain {
        name: "output",
        kind: "nat",
        hook: ("output", 3),
        priority: -100,
        // What the host itself asks for never passes prerouting. ::1 never leaves the host (RFC 4291, section 2.5.3),
        // and no sysctl says otherwise.
        rules: &[
            &[Dnat(Set::Ports4At)],
            &[Of(Family::Ipv4), Local, Dnat(Set::Ports4)],
            &[NotLoopback6, Dnat(Set::Ports6At)],
            &[NotLoopback6, Local, Dnat(Set::Ports6)],
        ],
    },
    Chain {
        name: "forward",
        kind: "filter",
        hook: ("forward", 2),
        priority: 0,
        // Bridges are kept apart, and isolated pots; a port that is exported is for all who reach the host.
        rules: &[
            &[Bridge(End::From, true), Bridge(End::To, true), OtherBridge, Translated(false), Drop],
            &[Among(End::From, Set::Isolated4), Among(End::To, Set::Isolated4), Translated(false), Drop],
            &[Among(End::From, Set::Isolated6), Among(End::To, Set::Isolated6), Translated(false), Drop],
        ],
    },
    Chain {
        name: "postrouting",
        kind: "nat",
        hook: ("postrouting", 4),
        priority: 100,
        // A pot that comes to a port by the host's address may be a neighbour of the one that has it, or that one
        // itself: the answer must come back this way.
        rules: &[
            &[Among(End::From, Set::Pots4), Bridge(End::To, false), Masquerade],
            &[Among(End::From, Set::Pots4), Translated(true), Masquerade],
            &[Loopback(End::From, true), Bridge(End::To, true), Masquerade],
            &[Among(End::From, Set::Pots6), Bridge(End::To, false), Masquerade],
            &[Among(End::From, Set::Pots6), Translated(true), Masquerade],
        ],
    },
];

/// Types or values of a concatenation.
fn joined<T>(all: &[T], text: impl Fn(&T) -> String) -> String {
    all.iter().map(text).collect::<Vec<_>>().join(" . ")
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Protocol(protocol) => f.write_str(protocol.word()),
            Self::Port(port) => port.fmt(f),
            Self::Interface(name) => write!(f, "\"{name}\""),
        }
    }
}

impl Element {
    /// `ports4 { tcp . 80 comment "web1" : 10.192.0.3 . 80 }`.
    #[must_use]
    pub fn text(&self, comment: &str) -> String {
        let comment = if comment.is_empty() { String::new() } else { format!(" comment \"{comment}\"") };
        let value = self.value();
        let value = if value.is_empty() { String::new() } else { format!(" : {}", joined(&value, Value::to_string)) };
        format!("{} {{ {}{comment}{value} }}", self.set().name(), joined(&self.key(), Value::to_string))
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = |yes: &bool| if *yes { "" } else { "!= " };
        let end = |end: &End| if *end == End::From { "saddr" } else { "daddr" };
        match self {
            Self::Bridge(side, yes) => {
                let way = if *side == End::From { "iifname" } else { "oifname" };
                write!(f, "{way} {}\"{BRIDGES}*\"", not(yes))
            }
            Self::OtherBridge => write!(f, "iifname . oifname != @{}", Set::Bridges.name()),
            Self::Of(family) => write!(f, "meta nfproto {family}"),
            Self::Loopback(side, yes) => write!(f, "ip {} {}127.0.0.0/8", end(side), not(yes)),
            Self::NotLoopback6 => f.write_str("ip6 daddr != ::1"),
            Self::Local => f.write_str("fib daddr type local"),
            Self::Among(side, set) => write!(f, "{} {} @{}", family(*set), end(side), set.name()),
            Self::Translated(true) => f.write_str("ct status dnat"),
            Self::Translated(false) => f.write_str("ct status & dnat != dnat"),
            Self::Dnat(set) => {
                let ip = family(*set);
                let at = if set.key().len() == 3 { format!("{ip} daddr . ") } else { String::new() };
                write!(f, "dnat {ip} to {at}meta l4proto . th dport map @{}", set.name())
            }
            Self::Masquerade => f.write_str("masquerade"),
            Self::Drop => f.write_str("drop"),
        }
    }
}

/// `ip` or `ip6`: the family of a set's addresses.
fn family(set: Set) -> &'static str {
    let v6 = set.key().contains(&Type::Ipv6) || set.value().contains(&Type::Ipv6);
    if v6 { "ip6" } else { "ip" }
}

/// The table as nft(8) takes it, one statement a line.
#[must_use]
pub fn text() -> String {
    let mut lines = vec![format!("add table inet {TABLE}")];
    for set in SETS {
        let types = |all: &[Type]| joined(all, |one| one.word().into());
        let (word, value) = match set.value() {
            [] => ("set", String::new()),
            value => ("map", format!(" : {}", types(value))),
        };
        lines.push(format!("add {word} inet {TABLE} {} {{ type {}{value}; }}", set.name(), types(set.key())));
    }
    for chain in CHAINS {
        let Chain { name, kind, hook: (hook, _), priority, rules } = chain;
        lines.push(format!("add chain inet {TABLE} {name} {{ type {kind} hook {hook} priority {priority}; }}"));
        for rule in *rules {
            let words: Vec<String> = rule.iter().map(Word::to_string).collect();
            lines.push(format!("add rule inet {TABLE} {name} {}", words.join(" ")));
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_table() {
        let golden = r#"add table inet potrun
add map inet potrun ports4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
add map inet potrun ports6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
add map inet potrun ports4at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
add map inet potrun ports6at { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
add set inet potrun pots4 { type ipv4_addr; }
add set inet potrun pots6 { type ipv6_addr; }
add set inet potrun isolated4 { type ipv4_addr; }
add set inet potrun isolated6 { type ipv6_addr; }
add set inet potrun bridges { type ifname . ifname; }
add chain inet potrun guard { type filter hook prerouting priority -300; }
add rule inet potrun guard iifname "pb-*" ip daddr 127.0.0.0/8 drop
add chain inet potrun prerouting { type nat hook prerouting priority -100; }
add rule inet potrun prerouting ip daddr != 127.0.0.0/8 dnat ip to ip daddr . meta l4proto . th dport map @ports4at
add rule inet potrun prerouting ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to meta l4proto . th dport map @ports4
add rule inet potrun prerouting dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6at
add rule inet potrun prerouting meta nfproto ipv6 fib daddr type local dnat ip6 to meta l4proto . th dport map @ports6
add chain inet potrun output { type nat hook output priority -100; }
add rule inet potrun output dnat ip to ip daddr . meta l4proto . th dport map @ports4at
add rule inet potrun output meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @ports4
add rule inet potrun output ip6 daddr != ::1 dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6at
add rule inet potrun output ip6 daddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport map @ports6
add chain inet potrun forward { type filter hook forward priority 0; }
add rule inet potrun forward iifname "pb-*" oifname "pb-*" iifname . oifname != @bridges ct status & dnat != dnat drop
add rule inet potrun forward ip saddr @isolated4 ip daddr @isolated4 ct status & dnat != dnat drop
add rule inet potrun forward ip6 saddr @isolated6 ip6 daddr @isolated6 ct status & dnat != dnat drop
add chain inet potrun postrouting { type nat hook postrouting priority 100; }
add rule inet potrun postrouting ip saddr @pots4 oifname != "pb-*" masquerade
add rule inet potrun postrouting ip saddr @pots4 ct status dnat masquerade
add rule inet potrun postrouting ip saddr 127.0.0.0/8 oifname "pb-*" masquerade
add rule inet potrun postrouting ip6 saddr @pots6 oifname != "pb-*" masquerade
add rule inet potrun postrouting ip6 saddr @pots6 ct status dnat masquerade
"#;
        assert_eq!(text(), golden);
    }

    #[test]
    fn values_are_of_the_types_of_their_set() {
        let ports = |host: Option<&str>, address: &str| Element::Port {
            protocol: Protocol::Tcp,
            host: host.map(|host| host.parse().unwrap()),
            host_port: 8080,
            address: address.parse().unwrap(),
            port: 80,
        };
        let address = |text: &str| text.parse().unwrap();
        let all = [
            Element::Pot { address: address("10.0.0.2") },
            Element::Pot { address: address("fd00::2") },
            Element::Isolated { address: address("10.0.0.2") },
            Element::Isolated { address: address("fd00::2") },
            ports(None, "10.0.0.2"),
            ports(None, "fd00::2"),
            ports(Some("192.0.2.1"), "10.0.0.2"),
            ports(Some("2001:db8::1"), "fd00::2"),
            Element::Bridge { name: "pb-x".into() },
        ];
        let kind = |value: &Value| match value {
            Value::Address(IpAddr::V4(_)) => Type::Ipv4,
            Value::Address(IpAddr::V6(_)) => Type::Ipv6,
            Value::Protocol(_) => Type::Protocol,
            Value::Port(_) => Type::Port,
            Value::Interface(_) => Type::Interface,
        };
        for element in &all {
            assert_eq!(element.key().iter().map(kind).collect::<Vec<_>>(), element.set().key(), "{element:?}");
            assert_eq!(element.value().iter().map(kind).collect::<Vec<_>>(), element.set().value(), "{element:?}");
        }
        assert_eq!(all[6].text("web1"), r#"ports4at { 192.0.2.1 . tcp . 8080 comment "web1" : 10.0.0.2 . 80 }"#);
    }
}
