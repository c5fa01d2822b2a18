//! What the host's network looks like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, bind, setsockopt, socket, sockopt,
};

use crate::id::hash;
use crate::plan::network::mac;

use super::super::netlink::{Message, Socket, attribute, number};
use super::super::read_text;
use super::{address, find, octets};

pub(in super::super) use super::lend::look;

/// Index and address of a message behind `struct ifaddrmsg`. IFA_LOCAL is the own one where the link has two ends.
fn entry(body: &[u8]) -> Option<(u32, IpAddr)> {
    let rest = body.get(8..)?;
    let own = attribute(rest, libc::IFA_LOCAL).or_else(|| attribute(rest, libc::IFA_ADDRESS))?;
    Some((number(&body[4..]), address(own)?))
}

/// All addresses.
fn all(socket: &mut Socket) -> io::Result<Vec<(u32, IpAddr)>> {
    let found = socket.list(Message::new(libc::RTM_GETADDR, 0, &[0; 8]))?;
    Ok(found.iter().filter_map(|answer| entry(&answer.body)).collect())
}

/// The addresses of the host by interface, but for those of a link only.
pub(in super::super) fn addresses() -> io::Result<BTreeMap<String, Vec<IpAddr>>> {
    named(all(&mut Socket::route(0)?)?)
}

fn named(all: Vec<(u32, IpAddr)>) -> io::Result<BTreeMap<String, Vec<IpAddr>>> {
    let mut named: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for (index, address) in all {
        if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
            continue;
        }
        let name = nix::net::if_::if_indextoname(index)?;
        named.entry(name.to_string_lossy().into_owned()).or_default().push(address);
    }
    Ok(named)
}

/// The addresses of these families by which the host is reached now, by interface. In the table of the host's own addresses
/// there are none of interfaces that are down; but [`addresses`] has the kernel look at each interface, of which a host has
/// as many as pots.
pub(in super::super) fn reached(v4: bool, v6: bool) -> io::Result<BTreeMap<String, Vec<IpAddr>>> {
    let mut socket = Socket::route(0)?;
    socket.filter_strictly()?;
    let mut all = Vec::new();
    for (family, length, _) in [(libc::AF_INET, 32, v4), (libc::AF_INET6, 128, v6)].into_iter().filter(|one| one.2) {
        // struct rtmsg: family, length of the destination, of the source, tos, table, protocol, scope, type, flags
        let header = [family as u8, 0, 0, 0, libc::RT_TABLE_LOCAL, 0, 0, libc::RTN_LOCAL, 0, 0, 0, 0];
        let found = match socket.list(Message::new(libc::RTM_GETROUTE, 0, &header)) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Vec::new(), // no table yet: no address
            other => other?,
        };
        all.extend(found.iter().filter_map(|answer| {
            let own = answer.body.get(1) == Some(&length) && answer.body.get(7) == Some(&libc::RTN_LOCAL);
            let rest = answer.body.get(12..).filter(|_| own)?;
            Some((number(attribute(rest, libc::RTA_OIF)?), attribute(rest, libc::RTA_DST).and_then(address)?))
        }));
    }
    named(all)
}

/// The addresses of one interface.
pub(super) fn of_interface(socket: &mut Socket, index: u32) -> io::Result<Vec<IpAddr>> {
    Ok(all(socket)?.into_iter().filter(|(at, _)| *at == index).map(|(_, address)| address).collect())
}

/// Addresses of neighbours on a bridge that potrun did not give them: somebody else's machines. Pots are known by their
/// link-level address, which derives from the address; they are in the ledger, or gone.
pub(in super::super) fn neighbours(bridge: &str) -> io::Result<Vec<IpAddr>> {
    let mut socket = Socket::route(0)?;
    let Some(link) = find(&mut socket, bridge)? else { return Ok(Vec::new()) };
    // struct ndmsg: family, 3 bytes of padding, index, state, flags, type
    let wanted = Message::new(libc::RTM_GETNEIGH, 0, &[0; 12]).number(libc::NDA_IFINDEX, link.index);
    let dead = libc::NUD_FAILED | libc::NUD_INCOMPLETE;
    let one = |body: &[u8]| {
        let state = u16::from_ne_bytes(body.get(8..10)?.try_into().ok()?);
        let rest = body.get(12..)?;
        let who = attribute(rest, libc::NDA_DST).and_then(address)?;
        let own = octets(&mac(hash(&who.to_string()), 1)).ok()?;
        let of_pot = attribute(rest, libc::NDA_LLADDR) == Some(&own);
        (number(&body[4..]) == link.index && state & dead == 0 && !of_pot).then_some(who)
    };
    Ok(socket.list(wanted)?.iter().filter_map(|answer| one(&answer.body)).collect())
}

/// The interface that the default route leaves by: IPv4's, else IPv6's (proc_net(5); Documentation/networking/ has no
/// word on ipv6_route, whose columns are net/ipv6/route.c's: destination, its length, .., and the interface last).
pub(in super::super) fn default_interface() -> Option<String> {
    let v4 = read_text("/proc/net/route").ok().and_then(|text| {
        text.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000")).then(|| fields[0].to_string())
        })
    });
    v4.or_else(|| {
        let text = read_text("/proc/net/ipv6_route").ok()?;
        text.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let name = *fields.last()?;
            (fields.get(1) == Some(&"00") && name != "lo").then(|| name.to_string())
        })
    })
}

/// Whether somebody of the host has a port, by either family: asked with bind(2), since reading /proc/net/tcp takes the
/// kernel 10 ms (it walks all buckets of its table). The sockets of this question are gone at once.
pub(in super::super) fn is_taken(port: u16) -> bool {
    let free = |tcp: bool| {
        // One of IPv6 that also takes IPv4 (ipv6(7)) collides with both; where there is no IPv6, one of IPv4.
        match bind_to(
            tcp,
            AddressFamily::Inet6,
            &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0)),
        ) {
            Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => {
                bind_to(tcp, AddressFamily::Inet, &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))
            }
            other => other,
        }
    };
    [true, false].into_iter().any(|tcp| free(tcp) == Err(Errno::EADDRINUSE))
}

fn bind_to(tcp: bool, family: AddressFamily, address: &dyn SockaddrLike) -> nix::Result<()> {
    let kind = if tcp { SockType::Stream } else { SockType::Datagram };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if family == AddressFamily::Inet6 {
        setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    }
    if tcp {
        // So that what has ended and only waits for lost packets (TIME_WAIT) is in nobody's way; who listens still is.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    bind(fd.as_raw_fd(), address)
}

/// A socket of the host: its port, and its inode, by which its holder is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    port: u16,
    inode: u64,
}

/// A line of /proc/net/tcp (proc_net(5)). What only waits for lost packets (TIME_WAIT, 06) is nobody's.
fn held(line: &str) -> Option<Held> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let port = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
    (*fields.get(3)? != "06").then_some(())?;
    Some(Held { port, inode: fields.get(9)?.parse().ok()? })
}

/// Who has a socket on one of `ports`: `nginx (pid 123)`. A process of another pid namespace is not seen.
pub(in super::super) fn holders(ports: &BTreeSet<u16>) -> BTreeMap<u16, String> {
    let mut wanted: BTreeMap<String, u16> = BTreeMap::new();
    for file in ["tcp", "tcp6", "udp", "udp6"] {
        let text = read_text(format!("/proc/net/{file}")).unwrap_or_default(); // a family that is not there
        let all = text.lines().skip(1).filter_map(held).filter(|held| ports.contains(&held.port));
        wanted.extend(all.map(|held| (format!("socket:[{}]", held.inode), held.port)));
    }
    let mut found = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        for fd in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(fd.path()) else { continue };
            if let Some(port) = target.to_str().and_then(|target| wanted.get(target)) {
                let name = read_text(process.path().join("comm")).unwrap_or_default();
                found.entry(*port).or_insert_with(|| format!("{} (pid {pid})", name.trim()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_read() {
        let listens =
            "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1";
        assert_eq!(held(listens), Some(Held { port: 8080, inode: 4711 }));
        assert_eq!(held(&listens.replace(" 0A ", " 06 ")), None);
        let six = "  1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 \
                   00:00000000 00000000     0        0 12 1";
        assert_eq!(held(six).map(|held| held.port), Some(80));
    }
}
