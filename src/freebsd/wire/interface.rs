//! What interfaces and routes are asked with: arguments of ioctl(2) (net/if.h, netinet/in_var.h, netinet6/in6_var.h,
//! net/if_bridgevar.h) and messages of route(4), as FreeBSD 13 to 15 have them on 64-bit machines.

use std::net::IpAddr;

use crate::plan::lease::Subnet;

/// `IFNAMSIZ`: a name and its NUL.
pub const NAME: usize = 16;

/// Size of `struct ifreq`; its union begins behind the name.
pub const REQUEST: usize = 32;

/// A name that fits.
fn name(text: &str) -> Option<[u8; NAME]> {
    let mut bytes = [0; NAME];
    (!text.is_empty() && text.len() < NAME).then(|| bytes[..text.len()].copy_from_slice(text.as_bytes()))?;
    Some(bytes)
}

/// `struct ifreq`: a name, and what its union begins with.
#[must_use]
pub fn request(interface: &str, union: &[u8]) -> Option<[u8; REQUEST]> {
    let mut all = [0; REQUEST];
    all[..NAME].copy_from_slice(&name(interface)?);
    all[NAME..].get_mut(..union.len())?.copy_from_slice(union);
    Some(all)
}

/// The name in a `struct ifreq` that the kernel has written.
#[must_use]
pub fn named(request: &[u8; REQUEST]) -> String {
    let end = request[..NAME].iter().position(|byte| *byte == 0).unwrap_or(NAME);
    String::from_utf8_lossy(&request[..end]).into_owned()
}

const AF_INET: u8 = 2;
const AF_LINK: u8 = 18;
const AF_INET6: u8 = 28;

/// A `struct sockaddr` with a link-level address: for `SIOCSIFLLADDR`, whose length is the address's alone.
#[must_use]
pub fn link_address(mac: &str) -> Option<[u8; 16]> {
    let octets: Vec<u8> = mac
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16).ok())
        .collect::<Option<_>>()
        .filter(|o: &Vec<u8>| o.len() == 6)?;
    let mut all = [0; 16];
    (all[0], all[1]) = (6, AF_LINK);
    all[2..8].copy_from_slice(&octets);
    Some(all)
}

/// `struct sockaddr_in` (16 bytes) or `struct sockaddr_in6` (28).
#[must_use]
pub fn socket_address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => [&[16, AF_INET, 0, 0][..], &v4.octets(), &[0; 8]].concat(),
        IpAddr::V6(v6) => [&[28, AF_INET6][..], &[0; 6], &v6.octets(), &[0; 4]].concat(),
    }
}

/// `struct in_aliasreq` or `struct in6_aliasreq`: an address with its prefix. An IPv6 address is usable at once:
/// potrun's lease says that nobody else has it, so that detecting that takes no second (`IN6_IFF_NODAD`).
#[must_use]
pub fn alias(interface: &str, address: IpAddr, prefix: u8) -> Option<Vec<u8>> {
    let (name, mask) = (name(interface)?, mask(address, prefix));
    let own = socket_address(address);
    Some(match address {
        IpAddr::V4(_) => {
            let last = broadcast(address, prefix).map_or_else(|| vec![0; 16], socket_address);
            [&name[..], &own, &last, &socket_address(mask), &[0; 4]].concat()
        }
        IpAddr::V6(_) => {
            let flags = 0x20_u32.to_le_bytes(); // IN6_IFF_NODAD
            let forever = u32::MAX.to_le_bytes(); // ND6_INFINITE_LIFETIME
            let lifetime = [&[0; 16][..], &forever, &forever].concat();
            [&name[..], &own, &[0; 28], &socket_address(mask), &flags, &lifetime, &[0; 8]].concat()
        }
    })
}

/// What `SIOCDIFADDR` and `SIOCDIFADDR_IN6` take: `struct ifreq`, `struct in6_ifreq`.
#[must_use]
pub fn no_alias(interface: &str, address: IpAddr) -> Option<Vec<u8>> {
    let mut all = [&name(interface)?[..], &socket_address(address)].concat();
    all.resize(if address.is_ipv4() { REQUEST } else { 288 }, 0);
    Some(all)
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(_) => {
            let ones = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4(ones.into())
        }
        IpAddr::V6(_) => {
            let ones = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6(ones.into())
        }
    }
}

/// The last address of an IPv4 network; one of a single host has none.
fn broadcast(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    let IpAddr::V4(v4) = address else { return None };
    let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    (prefix < 32).then(|| IpAddr::V4((u32::from(v4) | hosts).into()))
}

/// `struct ifbreq`: a member of a bridge and its flags.
#[must_use]
pub fn member(interface: &str, flags: u32) -> Option<Vec<u8>> {
    let mut all = [&name(interface)?[..], &flags.to_le_bytes()].concat();
    all.resize(80, 0);
    Some(all)
}

/// Size of `struct in6_ndireq`, and where its flags are.
pub const ND: usize = 72;
const ND_FLAGS: usize = 36;

/// `struct in6_ndireq`, asking about an interface.
#[must_use]
pub fn nd(interface: &str) -> Option<[u8; ND]> {
    let mut all = [0; ND];
    all[..NAME].copy_from_slice(&name(interface)?);
    Some(all)
}

/// Lets the interface have IPv6, which it has not until somebody says so (`ND6_IFF_IFDISABLED`).
pub fn enable_nd(request: &mut [u8; ND]) {
    request[ND_FLAGS] &= !8;
}

/// `RTM_ADD` of the default route: `struct rt_msghdr`, then the destination, the gateway and the mask, each rounded up
/// to eight bytes.
#[must_use]
pub fn default_route(gateway: IpAddr) -> Vec<u8> {
    let any: IpAddr = Subnet::any(gateway.is_ipv4());
    let mut body = Vec::new();
    for address in [any, gateway, any] {
        let mut one = socket_address(address);
        one.resize(one.len().next_multiple_of(8), 0);
        body.extend(one);
    }
    let mut all = vec![0; 152];
    let length = (all.len() + body.len()) as u16;
    all[..2].copy_from_slice(&length.to_le_bytes());
    (all[2], all[3]) = (5, 1); // RTM_VERSION, RTM_ADD
    all[8..12].copy_from_slice(&0x803_u32.to_le_bytes()); // RTF_UP, RTF_GATEWAY, RTF_STATIC
    all[12..16].copy_from_slice(&7_u32.to_le_bytes()); // RTA_DST, RTA_GATEWAY, RTA_NETMASK
    all[20..24].copy_from_slice(&1_u32.to_le_bytes()); // sequence number
    all.extend(body);
    all
}

/// The index of the interface of the default route, in what sysctl(3) dumps of a family's routes: messages as in
/// [`default_route`], whose destination and mask are all zeroes.
#[must_use]
pub fn default_route_of(routes: &[u8]) -> Option<u32> {
    let mut rest = routes;
    while rest.len() >= 152 {
        let length = usize::from(u16::from_le_bytes([rest[0], rest[1]]));
        let message = rest.get(..length).filter(|_| length >= 152)?;
        rest = &rest[length..];
        let number = |at: usize| u32::from_le_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]]);
        let (flags, has) = (number(8), number(12));
        let destination = &message[152..];
        // RTF_UP and RTF_GATEWAY; a destination and a mask. The length of an address that is zero may be, too.
        if flags & 3 != 3 || has & 5 != 5 {
            continue;
        }
        let long = usize::from(*destination.first()?);
        let address = destination.get(..long)?;
        if address.iter().skip(2).all(|byte| *byte == 0) {
            return Some(u32::from(u16::from_le_bytes([message[4], message[5]])));
        }
    }
    None
}

/// The local ports in what sysctl(3) lists of a protocol's sockets (netinet/in_pcb.h): a head, records that begin with
/// their length, a head again.
#[must_use]
pub fn local_ports(list: &[u8], tcp: bool) -> Vec<u16> {
    let port = |one: &[u8; ENDPOINTS]| u16::from_be_bytes([one[2], one[3]]);
    endpoints(list, tcp).iter().map(port).collect()
}

/// Bytes of a connection's addresses: two of struct sockaddr_storage.
pub const CONNECTION: usize = 2 * 128;

/// What sysctl(3) `net.inet.tcp.drop` wants to drop each connection in a list of sockets: the addresses of both ends,
/// the foreign one first (tcpdrop(8)).
#[must_use]
pub fn connections(list: &[u8]) -> Vec<Vec<u8>> {
    let one = |one: &[u8; ENDPOINTS]| {
        let (foreign, local) = (&one[4..20], &one[20..36]);
        // struct in_addr_4in6: an IPv4 address stands at the end of zeros.
        let v4 = foreign[..12] == [0; 12] && local[..12] == [0; 12];
        let end = |port: &[u8], address: &[u8]| {
            let head: &[u8] = if v4 { &[16, AF_INET] } else { &[28, AF_INET6] };
            let address = if v4 { address[12..].to_vec() } else { [&[0; 4], address].concat() };
            let zone = if v4 { &[0; 4] } else { &one[36..40] };
            let mut end = [head, port, &address, zone].concat();
            end.resize(CONNECTION / 2, 0);
            end
        };
        let connected = one[..2] != [0; 2];
        connected.then(|| [end(&one[..2], foreign), end(&one[2..4], local)].concat())
    };
    endpoints(list, true).iter().filter_map(one).collect()
}

/// Bytes of struct in_endpoints (netinet/in_pcb.h): ports at 0 and 2, addresses at 4 and 20, the zone of both at 36; of
/// each, the foreign one first.
const ENDPOINTS: usize = 40;

fn endpoints(list: &[u8], tcp: bool) -> Vec<[u8; ENDPOINTS]> {
    // offsetof(struct xinpcb, inp_inc.inc_fport); an xtcpcb has it behind its own length.
    let at = 248 + 4 + if tcp { 8 } else { 0 };
    let length = |bytes: &[u8]| bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b) as usize);
    let mut all = Vec::new();
    let Some(head) = length(list) else { return all };
    let mut rest = list.get(head..).unwrap_or_default();
    while let Some(long) = length(rest).filter(|long| *long > head && *long <= rest.len()) {
        all.extend(rest.get(at..).and_then(|bytes| bytes.first_chunk::<ENDPOINTS>()));
        rest = &rest[long..];
    }
    all
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn requests_have_the_kernels_sizes() {
        assert_eq!(request("em0", &7_i32.to_le_bytes()).unwrap()[..20], *b"em0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0");
        assert_eq!(request("sixteen-letters-", &[]), None);
        assert_eq!(request("", &[]), None);
        assert_eq!(named(&request("epair0a", &[]).unwrap()), "epair0a");
        assert_eq!(alias("em0", ip("192.0.2.1"), 24).unwrap().len(), 0x44);
        assert_eq!(alias("em0", ip("fd00::1"), 64).unwrap().len(), 0x88);
        assert_eq!(no_alias("em0", ip("192.0.2.1")).unwrap().len(), 0x20);
        assert_eq!(no_alias("em0", ip("fd00::1")).unwrap().len(), 0x120);
        assert_eq!(member("em0", 0x800).unwrap().len(), 0x50);
    }

    #[test]
    fn an_alias_has_address_broadcast_and_mask() {
        let v4 = alias("em0", ip("10.192.0.3"), 10).unwrap();
        assert_eq!(v4[20..24], [10, 192, 0, 3]);
        assert_eq!(v4[36..40], [10, 255, 255, 255]);
        assert_eq!(v4[52..56], [255, 192, 0, 0]);
        let one = alias("em0", ip("192.0.2.50"), 32).unwrap();
        assert_eq!((&one[32..48], &one[52..56]), (&[0; 16][..], &[255; 4][..]));
        let v6 = alias("em0", ip("fd70:6f74::2"), 64).unwrap();
        assert_eq!(v6[24..40], [0xfd, 0x70, 0x6f, 0x74, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(v6[80..96], [255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((v6[0x64], &v6[0x68 + 16..0x68 + 24]), (0x20, &[255; 8][..]));
    }

    #[test]
    fn a_default_route_is_a_message() {
        let v4 = default_route(ip("10.192.0.1"));
        assert_eq!((v4.len(), u16::from_le_bytes([v4[0], v4[1]])), (200, 200));
        assert_eq!(v4[152..156], [16, 2, 0, 0]);
        assert_eq!(v4[168..176], [16, 2, 0, 0, 10, 192, 0, 1]);
        assert_eq!(default_route(ip("fd00::1")).len(), 152 + 3 * 32);
    }

    #[test]
    fn a_link_address_is_six_octets() {
        assert_eq!(link_address("02:00:5e:10:00:01").unwrap()[..8], [6, 18, 2, 0, 0x5e, 0x10, 0, 1]);
        assert_eq!(link_address("02:00:5e:10:00"), None);
        assert_eq!(link_address("02:00:5e:10:00:zz"), None);
    }

    #[test]
    fn the_default_route_is_found_in_a_dump() {
        let mut other = default_route(ip("10.0.0.1"));
        other[152 + 4] = 10; // to 10.0.0.0
        let mut ours = default_route(ip("10.0.0.1"));
        ours[4] = 7;
        assert_eq!(default_route_of(&[other.clone(), ours].concat()), Some(7));
        assert_eq!(default_route_of(&other), None);
        assert_eq!(default_route_of(&[]), None);
        assert_eq!(default_route_of(&[0; 200]), None);
    }

    #[test]
    fn local_ports_are_read_from_a_list() {
        let head = [&64_u64.to_le_bytes()[..], &[0; 56]].concat();
        let mut one = [&400_u64.to_le_bytes()[..], &[0; 392]].concat();
        one[254..256].copy_from_slice(&[0x1f, 0x90]);
        assert_eq!(local_ports(&[head.clone(), one.clone(), head.clone()].concat(), false), [8080]);
        let mut tcp = [&744_u64.to_le_bytes()[..], &[0; 736]].concat();
        tcp[262..264].copy_from_slice(&[0, 80]);
        assert_eq!(local_ports(&[head.clone(), tcp, head.clone()].concat(), true), [80]);
        assert!(local_ports(&[head.clone(), head].concat(), true).is_empty());
        assert!(local_ports(&[], true).is_empty());
    }

    #[test]
    fn connections_are_read_from_a_list() {
        let head = [&64_u64.to_le_bytes()[..], &[0; 56]].concat();
        let mut listener = [&744_u64.to_le_bytes()[..], &[0; 736]].concat();
        listener[262..264].copy_from_slice(&[0, 80]);
        let mut four = listener.clone();
        four[260..262].copy_from_slice(&[0x1f, 0x90]);
        four[276..280].copy_from_slice(&[192, 0, 2, 1]);
        four[292..296].copy_from_slice(&[10, 0, 0, 1]);
        let mut six = four.clone();
        six[264..280].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        let all = connections(&[head.clone(), listener, four, six, head].concat());
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].len(), &all[0][..8]), (256, &[16, 2, 0x1f, 0x90, 192, 0, 2, 1][..]));
        assert_eq!(all[0][128..136], [16, 2, 0, 80, 10, 0, 0, 1]);
        assert_eq!(all[1][..12], [28, 28, 0x1f, 0x90, 0, 0, 0, 0, 0x20, 0x01, 0x0d, 0xb8]);
    }
}
