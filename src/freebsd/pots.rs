//! What pot's own files say: its pots, its private bridges.

use std::net::IpAddr;

use crate::facts::Bridge;

/// `KEY=value` lines of a pot.conf or a bridge's file: plain words, which no shell reads.
#[must_use]
pub fn members(text: &str) -> Vec<(&str, &str)> {
    let lines = text.lines().filter_map(|line| line.trim().split_once('='));
    lines.map(|(key, value)| (key.trim(), unquoted(value.trim()))).collect()
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

/// The addresses that a pot of pot's has on a bridge: `ip=10.192.0.3`, or `nic|address` of an alias, several parted by
/// blanks.
#[must_use]
pub fn addresses(text: &str) -> Vec<IpAddr> {
    let ip = members(text).into_iter().filter(|(key, _)| *key == "ip").flat_map(|(_, value)| value.split_whitespace());
    ip.filter_map(|one| one.rsplit('|').next()?.parse().ok()).collect()
}

/// A private bridge: `name=`, `net=10.192.0.8/29`, `gateway=10.192.0.9`.
#[must_use]
pub fn bridge(text: &str) -> Option<Bridge> {
    let all = members(text);
    let value = |name: &str| all.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    Some(Bridge { subnet: value("net")?.into(), gateway: value("gateway")?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_type_are_found() {
        let text = "pot.type=single\nip=10.192.0.3\nnetwork_type=public-bridge\nbridge=\n";
        assert_eq!(addresses(text), ["10.192.0.3".parse::<IpAddr>().unwrap()]);
        let alias = addresses("ip=em0|192.0.2.5 2001:db8::5");
        assert_eq!(alias.len(), 2);
        assert!(addresses("ip=\n").is_empty());
    }

    #[test]
    fn a_private_bridge_is_read() {
        let found = bridge("name=lab\nnet=10.192.0.8/29\ngateway=10.192.0.9\n").unwrap();
        assert_eq!((found.subnet.as_str(), found.gateway.to_string().as_str()), ("10.192.0.8/29", "10.192.0.9"));
        assert_eq!(bridge("name=lab\n"), None);
    }
}
