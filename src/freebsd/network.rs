//! The network of a jail: which stack it has, and how a pot's own is wired.

use std::net::IpAddr;

use crate::bundle::freebsd::{Jail, Share};
use crate::bundle::pot::{NetworkKind, Pot};
use crate::facts::Network;
use crate::op::{Family, Op};
use crate::plan::Draft;
use crate::plan::lease::Subnet;
use crate::plan::network as common;
use crate::plan::network::{Bridge, End, Forward};

use super::pf;

/// The network stack of a jail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stack {
    /// Its own (vnet(9)).
    Own,
    /// That of the host or of its parent, as far as it goes.
    Shared {
        /// IPv4.
        ip4: Ip,
        /// IPv6.
        ip6: Ip,
    },
}

/// What a jail has of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ip {
    /// All, nothing, or nothing yet.
    Share(Share),
    /// These addresses.
    Addresses(Vec<String>),
}

/// The stack of the jail, and the steps before it is made.
pub fn stack(draft: &mut Draft<'_>, jail: &Jail, pot: Option<&Pot>) -> (Stack, Vec<Op>) {
    let said = says(jail);
    let Some(pot) = pot.filter(|pot| pot.network.given || said.is_empty()) else {
        return of_jail(draft, jail);
    };
    for member in said {
        let what = "says something about the network, as /pot/network does: one of both";
        draft.refuse(format!("/freebsd/jail/{member}"), what);
    }
    of_pot(draft, pot)
}

/// Which members of `freebsd.jail` are about the network.
fn says(jail: &Jail) -> Vec<&'static str> {
    let members = [
        ("vnet", jail.vnet.is_some()),
        ("ip4", jail.ip4.is_some()),
        ("ip6", jail.ip6.is_some()),
        ("ip4Addr", !jail.ip4_addr.is_empty()),
        ("ip6Addr", !jail.ip6_addr.is_empty()),
        ("interface", jail.interface.is_some()),
        ("vnetInterfaces", !jail.vnet_interfaces.is_empty()),
    ];
    members.into_iter().filter_map(|(name, given)| given.then_some(name)).collect()
}

fn of_pot(draft: &Draft<'_>, pot: &Pot) -> (Stack, Vec<Op>) {
    let wanted = pot.network.stack;
    match pot.network.kind {
        NetworkKind::Inherit => {
            let ip = |has: bool| Ip::Share(if has { Share::Inherit } else { Share::Disable });
            (Stack::Shared { ip4: ip(wanted.v4()), ip6: ip(wanted.v6()) }, Vec::new())
        }
        NetworkKind::Alias => {
            let all = common::aliases(draft, pot);
            let ip = |v4: bool| addresses(all.iter().map(|(_, address)| *address).filter(|a| a.is_ipv4() == v4));
            (Stack::Shared { ip4: ip(true), ip6: ip(false) }, common::add_addresses(draft, &all))
        }
        NetworkKind::PublicBridge | NetworkKind::PrivateBridge => (Stack::Own, Vec::new()),
    }
}

/// jail_set(2) takes addresses; the interface that jail(8) writes before them is in the `AddAddress` step.
fn addresses(all: impl Iterator<Item = IpAddr>) -> Ip {
    let texts: Vec<String> = all.map(|address| address.to_string()).collect();
    if texts.is_empty() { Ip::Share(Share::Disable) } else { Ip::Addresses(texts) }
}

/// The network of `freebsd.jail` and its annotations. Where they say nothing, the jail has what the host has, as
/// ocijail does it and podman expects of `--network host`.
fn of_jail(draft: &mut Draft<'_>, jail: &Jail) -> (Stack, Vec<Op>) {
    match jail.vnet {
        Some(Share::New) => {
            own_stack(draft, jail);
            return (Stack::Own, Vec::new());
        }
        Some(Share::Disable) => {
            draft.refuse("/freebsd/jail/vnet", "jail_set(2) knows new and inherit: say ip4 and ip6 disable instead");
        }
        Some(Share::Inherit) | None => {}
    }
    for n in 0..jail.vnet_interfaces.len() {
        draft.refuse(format!("/freebsd/jail/vnetInterfaces/{n}"), "needs vnet new");
    }
    let v4: Vec<IpAddr> = jail.ip4_addr.iter().copied().map(IpAddr::V4).collect();
    let v6: Vec<IpAddr> = jail.ip6_addr.iter().copied().map(IpAddr::V6).collect();
    let silent = jail.ip4.is_none() && jail.ip6.is_none() && v4.is_empty() && v6.is_empty();
    let mut one = |member: &str, share: Option<Share>, all: &[IpAddr]| match share {
        Some(share @ (Share::Disable | Share::Inherit)) if !all.is_empty() => {
            let what = format!("{} has no addresses of its own, but {member}Addr lists some", share.word());
            draft.refuse(format!("/freebsd/jail/{member}"), what);
            Ip::Share(share)
        }
        _ if !all.is_empty() => addresses(all.iter().copied()),
        Some(share) => Ip::Share(share),
        None => Ip::Share(if silent { Share::Inherit } else { Share::Disable }),
    };
    let shared = Stack::Shared { ip4: one("ip4", jail.ip4, &v4), ip6: one("ip6", jail.ip6, &v6) };
    let wanted: Vec<(String, IpAddr)> = match &jail.interface {
        Some(interface) => v4.into_iter().chain(v6).map(|address| (interface.clone(), address)).collect(),
        None => Vec::new(),
    };
    (shared, common::add_addresses(draft, &wanted))
}

/// Refuses what the kernel refuses beside `vnet=new`.
fn own_stack(draft: &mut Draft<'_>, jail: &Jail) {
    let what = "a jail with a network stack of its own has no restriction of addresses";
    for (member, given) in [
        ("ip4", jail.ip4.is_some_and(|share| share != Share::New)),
        ("ip6", jail.ip6.is_some_and(|share| share != Share::New)),
        ("ip4Addr", !jail.ip4_addr.is_empty()),
        ("ip6Addr", !jail.ip6_addr.is_empty()),
        ("interface", jail.interface.is_some()),
    ] {
        if given {
            draft.refuse(format!("/freebsd/jail/{member}"), what);
        }
    }
    for (n, name) in jail.vnet_interfaces.iter().enumerate() {
        // IFNAMSIZ is 16 with the NUL (sys/net/if.h).
        if !(1..16).contains(&name.len()) || name.contains(['/', ' ', ':']) {
            draft.refuse(
                format!("/freebsd/jail/vnetInterfaces/{n}"),
                format!("{name:?} is not the name of an interface"),
            );
        }
    }
}

/// The steps after the jail is made: all that its own stack needs. Taken back, the pair goes before the jail does, as
/// epair(4) of 13.1 and older needs it.
pub fn wire(draft: &mut Draft<'_>, jail: &Jail, name: &str, stack: &Stack, pot: Option<&Pot>) -> Vec<Op> {
    if *stack != Stack::Own {
        return Vec::new();
    }
    let mut ops = Vec::new();
    let pot = pot.filter(|pot| common::bridged(pot));
    if let Some(pot) = pot {
        ops.extend(bridged(draft, name, pot));
    }
    let lent = jail.vnet_interfaces.iter().filter(|_| pot.is_none());
    ops.extend(lent.map(|one| Op::LendInterface { interface: one.clone(), pot: name.into() }));
    // A new stack has a loopback interface that is down and has no IPv4 address (sys/net/if_loop.c); ::1 comes with
    // the interface.
    let addresses = vec![format!("{}/8", common::loopback(Family::Ipv4))];
    let lo0 = Op::ConfigureInterface { pot: name.into(), interface: "lo0".into(), addresses };
    let first = ops.iter().position(|op| matches!(op, Op::ConfigureInterface { .. })).unwrap_or(ops.len());
    ops.insert(first, lo0);
    ops
}

fn bridged(draft: &mut Draft<'_>, jail: &str, pot: &Pot) -> Vec<Op> {
    let ends = common::ends(draft, pot);
    let forwards = common::forwards(draft, pot, &ends);
    let bridge = bridge(&draft.facts.network, common::bridge(pot), &ends);
    let (host, inner) = common::pair(draft.id);
    referred(draft, &forwards);
    let networks = translated(&draft.facts.network);
    let mut rules = String::new();
    for end in &ends {
        match networks.iter().find(|net| **net == end.subnet || net.holds(&end.subnet)) {
            Some(whole) if *whole != end.subnet => rules += &pf::keep_apart(&bridge.name, whole, &end.subnet),
            Some(_) => {}
            None => {
                let what = format!("its network {} is not part of the pot network", end.network());
                draft.refuse("/pot/network/bridge", what);
            }
        }
    }
    if draft.facts.network.filters == Some(false) {
        draft.note(format!("pots of other bridges reach it: pf(4)'s ruleset lacks  anchor \"{}\"", pf::RDR));
    }
    let mut ops = vec![common::lease(draft, &ends, &forwards)];
    ops.extend(shared(&draft.facts.network, &bridge, &ends));
    let bridge = bridge.name;
    ops.push(common::create_pair(draft.id));
    ops.push(Op::AddMember { bridge, member: host, isolated: draft.facts.network.isolate });
    ops.push(Op::MoveInterface { interface: inner.clone(), pot: jail.into() });
    ops.extend(common::inside(jail, &inner, &ends));
    rules.insert_str(0, &exported(draft, &forwards));
    if !rules.is_empty() {
        ops.push(Op::LoadAnchor { anchor: pf::rdr_anchor(&common::rule_name(draft.id)), rules });
    }
    ops
}

/// Refuses a pot whose rules would never be looked at.
fn referred(draft: &mut Draft<'_>, forwards: &[Forward]) {
    let facts = &draft.facts.network;
    let (translates, redirects) = (unheard(facts, pf::NAT), unheard(facts, pf::RDR));
    match (translates, redirects.filter(|_| !forwards.is_empty())) {
        (Some(what), _) => draft.refuse("/pot/network/type", what),
        (None, Some(what)) => draft.refuse("/pot/exportedPorts", what),
        (None, None) => {}
    }
}

/// Why rules in `anchor` would never be looked at, if so: pf(4) is off, or its ruleset does not refer to the anchor. The
/// host's ruleset is the host's: potrun says which two lines it lacks.
#[must_use]
pub fn unheard(facts: &Network, anchor: &str) -> Option<String> {
    if !facts.pf {
        return Some("pf(4) is not enabled, and nothing leaves the bridge: service pf start".into());
    }
    let lines = format!("nat-anchor {}\n  rdr-anchor \"{}\"", pf::NAT, pf::RDR);
    let what = format!("pf(4) does not look at pot's anchors: its ruleset needs, before its filter rules,\n  {lines}");
    facts.anchors.as_ref().filter(|all| !all.iter().any(|one| one == anchor)).map(|_| what)
}

/// What a bridge needs, whoever is on it.
#[must_use]
pub fn shared(facts: &Network, bridge: &Bridge, ends: &[End]) -> Vec<Op> {
    let Bridge { name, description } = bridge.clone();
    let mut ops = vec![Op::EnsureBridge { name, description, addresses: ends.iter().map(End::host).collect() }];
    ops.extend(ends.iter().map(|end| Op::EnableForwarding { family: common::family(end.address), note: None }));
    let rules = pf::nat(&facts.interface, &translated(facts));
    ops.push(Op::EnsureAnchor { anchor: pf::NAT.into(), rules });
    ops
}

/// The bridge: the interface that has the gateway's address already, whoever made it, for so pot finds its bridges, and
/// shares them; otherwise the one of our own name. The mark stays ours, so that what pot made is left.
#[must_use]
pub fn bridge(facts: &Network, ours: Bridge, ends: &[End]) -> Bridge {
    let has = |all: &[IpAddr]| ends.iter().any(|end| all.contains(&end.gateway));
    match facts.host_addresses.iter().find(|(_, all)| has(all)) {
        Some((name, _)) => Bridge { name: name.clone(), ..ours },
        None => ours,
    }
}

/// The networks whose translation the shared anchor holds: both of pot's, whatever this pot uses, for the first pot
/// fills it for all. A private bridge is a part of them.
fn translated(facts: &Network) -> Vec<Subnet> {
    [&facts.subnet, &facts.subnet6].into_iter().filter_map(|text| Subnet::parse(text)).collect()
}

/// The redirections. pf translates nothing that the host sends to itself: it sees such packets on lo0 alone, and the
/// answers not at all. So the host reaches the pot at the pot's own address, over the bridge.
fn exported(draft: &mut Draft<'_>, forwards: &[Forward]) -> String {
    for one in forwards {
        if one.host.is_some_and(|host| host.is_loopback()) {
            let what = "pf(4) redirects nothing that the host sends to itself: use the pot's own address";
            draft.refuse(format!("/pot/exportedPorts/{}/hostAddress", one.n), what);
        }
        let (port, pot) = (one.host_port, std::net::SocketAddr::new(one.address, one.port));
        draft
            .note(format!("port {port}/{} for the host itself: it reaches {pot} over the bridge", one.protocol.word()));
    }
    let facts = &draft.facts.network;
    let interface_of = |address: IpAddr| {
        let owner = facts.host_addresses.iter().find(|(_, all)| all.contains(&address));
        owner.map_or_else(|| facts.interface.clone(), |(name, _)| name.clone())
    };
    pf::rdr(&facts.interface, forwards, interface_of)
}
