//! The text of pf(4) rules, in the grammar of pf.conf(5). Both anchors are pot's, so that pot.conf's two lines,
//! `nat-anchor pot-nat` and `rdr-anchor "pot-rdr/*"`, serve both; pfctl(8) loads it from its standard input. A third,
//! `anchor "pot-rdr/*"`, lets potrun keep bridges apart, which pot does not.

use std::net::IpAddr;

use crate::plan::lease::Subnet;
use crate::plan::network::Forward;
use crate::ranges::Point;

/// The anchor that all bridges share.
pub const NAT: &str = "pot-nat";

/// The anchors of pots' redirections, as a ruleset refers to them.
pub const RDR: &str = "pot-rdr/*";

/// The anchor of one pot's exported ports: `*` of pf.conf's line stands for direct children only.
#[must_use]
pub fn rdr_anchor(name: &str) -> String {
    format!("pot-rdr/{name}")
}

/// Translation of what leaves a pot network by `interface`. `tag` is how potrun knows its own rule again: a
/// translation rule takes no label. `:0` leaves out the interface's aliases.
#[must_use]
pub fn nat(interface: &str, networks: &[Subnet]) -> String {
    let rule = |net: &Subnet| {
        let (family, Subnet { network, prefix }) = (word(net.network.is_ipv4()), net);
        format!("nat on {interface} {family} from {network}/{prefix} to any tag potrun -> ({interface}:0)\n")
    };
    networks.iter().map(rule).collect()
}

/// Redirection of exported ports. `pass`: the host's filter rules need not know them. Parentheses: the addresses that
/// the interface has when a packet comes, not when the rules are loaded.
///
/// `interface_of` says where an address of the host is.
#[must_use]
pub fn rdr(interface: &str, forwards: &[Forward], interface_of: impl Fn(IpAddr) -> String) -> String {
    let rule = |one: &Forward| {
        let Forward { protocol, host, host_port, address, port, .. } = one;
        let (on, to) = match host {
            Some(host) => (interface_of(*host), host.to_string()),
            None => (interface.to_string(), format!("({interface})")),
        };
        let (family, protocol) = (word(address.is_ipv4()), protocol.word());
        format!(
            "rdr pass on {on} {family} proto {protocol} from any to {to} port {host_port} -> {address} port {port}\n"
        )
    };
    forwards.iter().map(rule).collect()
}

/// What keeps pots of other bridges from a private one, and its pots from them: packets between `own` and the rest of
/// `whole`, which is all of the pot network, neither come in by the bridge nor leave by it. Exported ports are reached: by
/// then the packet's addresses are others.
#[must_use]
pub fn keep_apart(bridge: &str, whole: &Subnet, own: &Subnet) -> String {
    // Not a table: the kernel keeps one, and the anchor with it, for seconds after its rules are gone.
    let family = word(own.network.is_ipv4());
    let ((first, last), (begin, end)) = (whole.run(), own.run());
    let before = begin.previous().filter(|_| begin > first).map(|before| (first, before));
    let behind = end.next().filter(|_| end < last).map(|behind| (behind, last));
    let rules = |(from, to): (IpAddr, IpAddr)| {
        format!(
            "block drop in quick on {bridge} {family} from any to {from} - {to}\n\
             block drop out quick on {bridge} {family} from {from} - {to} to any\n"
        )
    };
    before.into_iter().chain(behind).map(rules).collect()
}

/// Whether a main ruleset, as `pfctl -s rules` prints it, looks at filter rules in the anchors of pots.
#[must_use]
pub fn filters(printed: &str) -> bool {
    printed.lines().any(|line| line.starts_with(&format!("anchor \"{RDR}\"")))
}

/// What every rule of ours in a shared anchor holds.
const TAG: &str = " tag potrun ";

/// The anchors that a main ruleset, as `pfctl -s nat` prints it, refers to.
#[must_use]
pub fn references(printed: &str) -> Vec<String> {
    let one = |line: &str| {
        let rest = ["nat-anchor \"", "rdr-anchor \""].iter().find_map(|word| line.strip_prefix(word))?;
        Some(rest.split('"').next()?.to_string())
    };
    printed.lines().filter_map(one).collect()
}

/// Whether pf(4) is on, in what `pfctl -s info` prints.
#[must_use]
pub fn is_enabled(printed: &str) -> bool {
    printed.lines().any(|line| line.starts_with("Status: Enabled"))
}

/// The ports of the host in redirections, as `pfctl -P -s nat` prints them.
#[must_use]
pub fn ports(printed: &str) -> Vec<u16> {
    let one = |line: &str| line.split(" ->").next()?.rsplit_once(" port = ")?.1.trim().parse().ok();
    printed.lines().filter(|line| line.starts_with("rdr ")).filter_map(one).collect()
}

/// The ids, as `pfctl -k id` takes them, of the states that are about one of `addresses`, in what `pfctl -vv -s states`
/// prints: a line of the ends, and indented ones that tell more.
#[must_use]
pub fn states(printed: &str, addresses: &[IpAddr]) -> Vec<String> {
    let address = |word: &str| -> Option<IpAddr> {
        let word = word.trim_matches(['(', ')']);
        // 10.192.0.3:80, fd70:6f74::2[80]
        let bare = word.split('[').next().unwrap_or(word);
        bare.parse().ok().or_else(|| bare.rsplit_once(':')?.0.parse().ok())
    };
    let mut ours = false;
    let mut all = Vec::new();
    for line in printed.lines() {
        if !line.starts_with(' ') {
            ours = line.split_whitespace().filter_map(address).any(|one| addresses.contains(&one));
        } else if let (true, Some(rest)) = (ours, line.trim_start().strip_prefix("id: ")) {
            let words: Vec<&str> = rest.split_whitespace().collect();
            if let [id, "creatorid:", creator, ..] = words[..] {
                all.push(format!("{id}/{creator}"));
            }
        }
    }
    all
}

/// What an anchor must hold so that it has `rules`, if it lacks one: what is there, as pfctl(8) prints it, and ours.
#[must_use]
pub fn with(there: &str, rules: &str) -> Option<String> {
    // The kernel's way of writing what stands behind the arrow is its own.
    let before = |line: &str| line.split(" ->").next().unwrap_or_default().trim().to_string();
    let has: Vec<String> = there.lines().filter(|line| line.contains(TAG)).map(before).collect();
    let missing: Vec<&str> = rules.lines().filter(|line| !has.contains(&before(line))).collect();
    if missing.is_empty() {
        return None;
    }
    let all = there.lines().filter(|line| !line.is_empty()).chain(missing);
    Some(all.map(|line| format!("{line}\n")).collect())
}

/// What an anchor must hold so that it has no rule of ours, if it has one.
#[must_use]
pub fn without(there: &str) -> Option<String> {
    let ours = |line: &&str| line.contains(TAG);
    there
        .lines()
        .any(|line| ours(&line))
        .then(|| there.lines().filter(|line| !ours(line)).map(|line| format!("{line}\n")).collect())
}

fn word(v4: bool) -> &'static str {
    if v4 { "inet" } else { "inet6" }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn states_of_an_address_are_found() {
        // Of FreeBSD 13.2; the second is made up after it.
        let printed = "\
all tcp 10.192.0.3:80 (198.51.100.1:18080) <- 198.51.100.2:11801       FIN_WAIT_2:FIN_WAIT_2
   [4172928770 + 3221291264] wscale 6  [3290372199 + 3204514048] wscale 6
   age 00:00:00, expires in 00:01:30, 4:4 pkts, 216:218 bytes
   id: 2db0056b00000000 creatorid: 48975804 gateway: 0.0.0.0
   origif: ext0
all tcp fd70:6f74::2[80] <- 2001:db8:77::2[4711]       ESTABLISHED:ESTABLISHED
   id: 2db0056b00000001 creatorid: 48975804 gateway: ::
";
        let of = |address: &str| states(printed, &[address.parse().unwrap()]);
        assert_eq!(of("10.192.0.3"), ["2db0056b00000000/48975804"]);
        assert_eq!(of("fd70:6f74::2"), ["2db0056b00000001/48975804"]);
        assert_eq!(of("10.192.0.30"), [""; 0]);
    }
    use crate::bundle::pot::Protocol;

    #[test]
    fn nat_names_its_family_and_carries_the_mark() {
        let networks = ["10.192.0.0/10", "fd70:6f74::/64"].map(|text| Subnet::parse(text).unwrap());
        assert_eq!(
            nat("em0", &networks),
            "nat on em0 inet from 10.192.0.0/10 to any tag potrun -> (em0:0)\n\
             nat on em0 inet6 from fd70:6f74::/64 to any tag potrun -> (em0:0)\n"
        );
    }

    #[test]
    fn rdr_is_pots_rule_with_its_family_said() {
        let address: IpAddr = "10.192.0.3".parse().unwrap();
        let one = Forward { n: 0, protocol: Protocol::Tcp, host: None, host_port: 30080, address, port: 80 };
        let v6 = "fd70:6f74::2".parse().unwrap();
        let two = Forward { protocol: Protocol::Udp, host_port: 53, address: v6, port: 53, ..one };
        let three = Forward { host: "192.0.2.10".parse().ok(), ..one };
        assert_eq!(
            rdr("em0", &[one, two, three], |_| "em1".into()),
            "rdr pass on em0 inet proto tcp from any to (em0) port 30080 -> 10.192.0.3 port 80\n\
             rdr pass on em0 inet6 proto udp from any to (em0) port 53 -> fd70:6f74::2 port 53\n\
             rdr pass on em1 inet proto tcp from any to 192.0.2.10 port 30080 -> 10.192.0.3 port 80\n"
        );
    }

    #[test]
    fn bridges_are_kept_apart_by_what_is_not_their_own() {
        let apart = |whole: &str, own: &str| {
            let [whole, own] = [whole, own].map(|text| Subnet::parse(text).unwrap());
            keep_apart("pb-x", &whole, &own)
        };
        let behind = "block drop in quick on pb-x inet from any to 10.192.0.16 - 10.255.255.255\n\
                      block drop out quick on pb-x inet from 10.192.0.16 - 10.255.255.255 to any\n";
        let before = behind.replace("10.192.0.16 - 10.255.255.255", "10.192.0.0 - 10.192.0.7");
        assert_eq!(apart("10.192.0.0/10", "10.192.0.8/29"), before + behind);
        assert_eq!(apart("10.192.0.0/10", "10.192.0.0/28"), behind);
        let six = apart("fd70:6f74::/64", "fd70:6f74::ffff:ffff:ffff:0/112");
        assert!(six.contains(" inet6 from any to fd70:6f74:: - fd70:6f74::ffff:ffff:fffe:ffff\n"), "{six}");
        assert_eq!(six.lines().count(), 2);
        assert!(filters("scrub in all fragment reassemble\nanchor \"pot-rdr/*\" all\n"));
        assert!(!filters("anchor \"mine\" all\n"));
    }

    #[test]
    fn references_are_read_from_the_main_ruleset() {
        let printed =
            "nat-anchor \"pot-nat\" all\nrdr-anchor \"pot-rdr/*\" all\nnat on em0 inet from any to any -> (em0)\n";
        assert_eq!(references(printed), ["pot-nat", "pot-rdr/*"]);
        assert_eq!(references(""), [""; 0]);
    }

    #[test]
    fn shared_rules_come_once_and_go_alone() {
        let pots = "nat on vtnet0 inet from 10.192.0.0/10 to any -> (vtnet0:0)\n";
        let ours = nat("vtnet0", &[Subnet::parse("10.192.0.0/10").unwrap()]);
        let both = with(pots, &ours).unwrap();
        assert_eq!(both, format!("{pots}{ours}"));
        assert_eq!(with(&both, &ours), None);
        // What the kernel prints of it, FreeBSD 13.2.
        let printed = "nat on vtnet0 inet from 10.192.0.0/10 to any tag potrun -> (vtnet0:0) round-robin\n";
        assert_eq!(with(printed, &ours), None);
        assert_eq!(without(&both).as_deref(), Some(pots));
        assert_eq!(without(pots), None);
    }
}
