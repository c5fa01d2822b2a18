//! What the host's network looks like.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use crate::freebsd::wire::interface as wire;

use super::super::sys;

/// The addresses of the stack that this process is in, by interface.
pub(in super::super) fn addresses() -> io::Result<BTreeMap<String, Vec<IpAddr>>> {
    let mut all: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for one in getifaddrs()? {
        let list = all.entry(one.interface_name).or_default();
        let Some(address) = one.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            list.push(v4.ip().into());
        }
        if let Some(v6) = address.as_sockaddr_in6().filter(|v6| !v6.ip().is_unicast_link_local()) {
            list.push(v6.ip().into());
        }
    }
    Ok(all)
}

/// The interfaces of the stack that this process is in.
pub(super) fn interfaces() -> io::Result<Vec<String>> {
    Ok(addresses()?.into_keys().collect())
}

/// The interface that the default route leaves by: IPv4's, else IPv6's.
pub(in super::super) fn default_interface() -> Option<String> {
    [libc::AF_INET, libc::AF_INET6].into_iter().find_map(|family| {
        let routes = sys::sysctl(&[libc::CTL_NET, libc::PF_ROUTE, 0, family, libc::NET_RT_DUMP, 0]).ok()?;
        sys::interface_name(wire::default_route_of(&routes)?)
    })
}

/// The ports of this host that somebody has a socket on, of both protocols and families.
pub(in super::super) fn ports() -> io::Result<Vec<u16>> {
    let mut all = Vec::new();
    for (name, tcp) in [(c"net.inet.tcp.pcblist", true), (c"net.inet.udp.pcblist", false)] {
        all.extend(wire::local_ports(&sys::sysctl_named(name)?, tcp));
    }
    Ok(all)
}
