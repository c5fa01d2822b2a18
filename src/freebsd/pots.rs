//! What pot's own files say of its pots.

use std::net::IpAddr;

/// `KEY=value` lines of a pot.conf: plain words, which no shell reads.
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

/// A port that a pot exports: `[tcp:|udp:]port[:hostport]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The pot's port.
    pub port: u16,
    /// The host's; absent where pot chooses one at each start.
    pub host: Option<u16>,
}

impl Export {
    /// Reads one word of `pot.export.ports`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (protocol, rest) = match text.split_once(':') {
            Some(("tcp", rest)) => ("tcp", rest),
            Some(("udp", rest)) => ("udp", rest),
            _ => ("tcp", text),
        };
        let mut numbers = rest.split(':').map(str::parse::<u16>);
        let port = numbers.next()?.ok()?;
        let host = numbers.next().transpose().ok()?;
        numbers.next().is_none().then_some(Self { protocol, port, host })
    }
}

/// The words of `pot.export.ports`.
pub fn exports<'a>(members: &[(&'a str, &'a str)]) -> impl Iterator<Item = &'a str> {
    let all = members.iter().filter(|(key, _)| *key == "pot.export.ports").map(|(_, value)| *value);
    all.flat_map(str::split_whitespace).collect::<Vec<_>>().into_iter()
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
    fn ports_are_pots_own_spelling() {
        let one = |protocol, port, host| Some(Export { protocol, port, host });
        assert_eq!(Export::parse("udp:53:5353"), one("udp", 53, Some(5353)));
        assert_eq!(Export::parse("80"), one("tcp", 80, None));
        for bad in ["", "tcp:", "80:81:82", "sctp:80", "70000", "80:x"] {
            assert_eq!(Export::parse(bad), None, "{bad}");
        }
        let all: Vec<&str> = exports(&members("pot.export.ports=80:8080 udp:53\npot.cmd=80\n")).collect();
        assert_eq!(all, ["80:8080", "udp:53"]);
    }
}
