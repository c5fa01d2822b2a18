//! The kernel's table of tracked connections (linux/netfilter/nfnetlink_conntrack.h).

use std::io;
use std::net::IpAddr;

use super::super::netlink::{Message, Socket, attribute};
use super::super::read_text;

const GET: i32 = 1; // IPCTNL_MSG_CT_GET
const DELETE: i32 = 2; // IPCTNL_MSG_CT_DELETE
const ORIGINAL: u16 = 1; // CTA_TUPLE_ORIG
const REPLY: u16 = 2; // CTA_TUPLE_REPLY
const ID: u16 = 12; // CTA_ID
const ZONE: u16 = 18; // CTA_ZONE
const FILTER: u16 = 25; // CTA_FILTER
const IP: u16 = 1; // CTA_TUPLE_IP
const SOURCE4: u16 = 1; // CTA_IP_V4_SRC
const SOURCE6: u16 = 3; // CTA_IP_V6_SRC

/// `CTA_FILTER_F_CTA_IP_SRC`: only the source is compared (net/netfilter/nf_conntrack_netlink.c, Linux 5.8).
const BY_SOURCE: u32 = 1 << 0;

fn message(kind: i32, address: IpAddr) -> Message {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = (libc::NFNL_SUBSYS_CTNETLINK << 8 | kind) as u16;
    Message::new(kind, 0, &[family as u8, libc::NFNETLINK_V0 as u8, 0, 0])
}

/// Ends the tracked connections from and to an address: without its entry a flow of UDP no longer goes where a pot was.
pub(super) fn end(address: IpAddr) -> io::Result<()> {
    // Looking through the table takes a walk over all of its buckets.
    let count = read_text("/proc/sys/net/netfilter/nf_conntrack_count");
    if count.is_ok_and(|count| count.trim() == "0") {
        return Ok(());
    }
    let mut socket = Socket::netfilter()?;
    let (kind, octets) = match address {
        IpAddr::V4(v4) => (SOURCE4, v4.octets().to_vec()),
        IpAddr::V6(v6) => (SOURCE6, v6.octets().to_vec()),
    };
    // What it began comes from it; what was begun by others comes back from it.
    let by_source = |direction: u16| {
        let wanted = message(GET, address).nest(direction, |tuple| tuple.nest(IP, |ip| ip.put(kind, &octets)));
        // CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS
        let flags = |of: u16| if of == direction { BY_SOURCE } else { 0 };
        wanted.nest(FILTER, |one| one.number(1, flags(ORIGINAL)).number(2, flags(REPLY)))
    };
    let wanted = match address {
        IpAddr::V4(_) => vec![by_source(ORIGINAL), by_source(REPLY)],
        // The kernel's filter leaves out just those whose IPv6 address is the one (seen with Linux 6.18: it takes
        // the 0 of ipv6_addr_cmp for a difference).
        IpAddr::V6(_) => vec![message(GET, address)],
    };
    for request in wanted {
        for found in socket.list(request)? {
            // Behind `struct nfgenmsg`. An older kernel knows no filter and tells all.
            let body = found.body.get(4..).unwrap_or_default();
            let comes_from = |direction: u16| {
                let ip = attribute(body, direction).and_then(|tuple| attribute(tuple, IP));
                ip.and_then(|ip| attribute(ip, kind)) == Some(&octets)
            };
            if !comes_from(ORIGINAL) && !comes_from(REPLY) {
                continue;
            }
            let mut request = message(DELETE, address);
            for (one, nested) in [(ORIGINAL, true), (ID, false), (ZONE, false)] {
                if let Some(value) = attribute(body, one) {
                    let one = if nested { one | libc::NLA_F_NESTED as u16 } else { one };
                    request = request.put(one, value);
                }
            }
            match socket.ask(request) {
                Err(e) if e.raw_os_error() != Some(libc::ENOENT) => return Err(e),
                _ => {}
            }
        }
    }
    Ok(())
}
