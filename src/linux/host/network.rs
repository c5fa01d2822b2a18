//! Interfaces, addresses and routes of the host and of pots, by rtnetlink(7). No program is started.
//!
//! What is done in a pot's network is done with a socket that was opened there: this process goes there for that moment
//! and comes back. It has one thread.

mod conntrack;
pub(super) mod facts;
mod lend;
pub(super) mod nft;
mod sysctl;

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::host::Trouble;
use crate::host::first::close_all_but;
use crate::id::hash;
use crate::linux::nft::Element;
use crate::plan::network::{BRIDGES, mac};

use super::netlink::{Message, Socket, attribute, number, text};
use super::sys;

pub(super) use lend::{lend, reclaim};
pub(super) use sysctl::{enable_forwarding, preset_ipv6, route_loopback};

/// `VETH_INFO_PEER` (linux/veth.h).
const PEER: u16 = 1;
/// `IFLA_BR_MCAST_SNOOPING` (linux/if_link.h). Where nobody asks for members of groups, a bridge floods whether it snoops
/// or not; and one that snoops starts timers of all its ports anew whenever it gets another (`br_port_state_selection`,
/// net/bridge/br_stp.c).
const MULTICAST_SNOOPING: u16 = 23;
/// `IFLA_BRPORT_MODE`, hairpin mode (linux/if_link.h), in which libc has no attributes of bridges.
const PORT_HAIRPIN: u16 = 4;
/// `IFLA_BRPORT_ISOLATED`.
const PORT_ISOLATED: u16 = 33;
/// `RTEXT_FILTER_SKIP_STATS` (linux/rtnetlink.h): counters are most of an answer, and nobody reads them.
const SKIP_STATISTICS: u32 = 1 << 3;

/// An interface of the network that a socket is in.
#[derive(Debug)]
struct Link {
    index: u32,
    up: bool,
    kind: String,
    alias: String,
    mac: Vec<u8>,
}

impl Link {
    /// What is behind `struct ifinfomsg`, which has the index at 4, the flags at 8.
    fn read(body: &[u8]) -> Self {
        let rest = body.get(16..).unwrap_or_default();
        let word = |kind: u16| attribute(rest, kind).map(text).unwrap_or_default();
        let info = attribute(rest, libc::IFLA_LINKINFO).unwrap_or_default();
        Self {
            index: number(body.get(4..).unwrap_or_default()),
            up: number(body.get(8..).unwrap_or_default()) & libc::IFF_UP as u32 != 0,
            kind: attribute(info, libc::IFLA_INFO_KIND).map(text).unwrap_or_default(),
            alias: word(libc::IFLA_IFALIAS),
            mac: attribute(rest, libc::IFLA_ADDRESS).unwrap_or_default().to_vec(),
        }
    }
}

/// `struct ifinfomsg`.
fn interface(family: i32, index: u32, up: bool) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = family as u8;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    let flags = if up { libc::IFF_UP as u32 } else { 0 };
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&flags.to_ne_bytes()); // which flags change
    bytes
}

fn link_message(kind: u16, flags: i32, index: u32, up: bool) -> Message {
    Message::new(kind, flags, &interface(libc::AF_UNSPEC, index, up))
}

fn find(socket: &mut Socket, name: &str) -> io::Result<Option<Link>> {
    let message = link_message(libc::RTM_GETLINK, 0, 0, false).text(libc::IFLA_IFNAME, name);
    let found = socket.get(message.number(libc::IFLA_EXT_MASK, SKIP_STATISTICS))?;
    Ok(found.map(|answer| Link::read(&answer.body)))
}

fn index(socket: &mut Socket, name: &str) -> Result<u32, Trouble> {
    Ok(find(socket, name)?.ok_or_else(|| format!("there is no interface {name}"))?.index)
}

/// The bytes of `02:00:..`.
fn octets(mac: &str) -> Result<Vec<u8>, Trouble> {
    let parsed: Result<Vec<u8>, _> = mac.split(':').map(|octet| u8::from_str_radix(octet, 16)).collect();
    parsed.ok().filter(|all| all.len() == 6).ok_or_else(|| format!("{mac:?} is not a link-level address").into())
}

/// Makes a pair of interfaces, the second one in the network of process `pid` if there is one.
pub(super) fn create_pair(
    host: &str,
    pot: &str,
    description: &str,
    macs: &[String; 2],
    pid: Option<i32>,
) -> Result<(), Trouble> {
    let mut socket = Socket::route(0)?;
    let (ours, theirs) = (octets(&macs[0])?, octets(&macs[1])?);
    let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let message = link_message(libc::RTM_NEWLINK, create, 0, false)
        .text(libc::IFLA_IFNAME, host)
        .put(libc::IFLA_ADDRESS, &ours)
        .nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth").nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(PEER, |peer| {
                    let peer = peer
                        .raw(&interface(libc::AF_UNSPEC, 0, false))
                        .text(libc::IFLA_IFNAME, pot)
                        .put(libc::IFLA_ADDRESS, &theirs);
                    match pid {
                        Some(pid) => peer.number(libc::IFLA_NET_NS_PID, pid.cast_unsigned()),
                        None => peer,
                    }
                })
            })
        });
    socket.ask(message)?;
    // The kernel takes no alias when it makes an interface. Without one it is known by its name, which no other has.
    Ok(socket.ask(alias(host, description)).inspect_err(|_| drop(destroy(host, description)))?)
}

fn alias(name: &str, description: &str) -> Message {
    // IFALIASZ is 256 with the NUL; ids are shorter.
    let message = link_message(libc::RTM_SETLINK, 0, 0, false).text(libc::IFLA_IFNAME, name);
    message.text(libc::IFLA_IFALIAS, description)
}

/// Why a pair must not be made, if so: taking it back would take somebody else's.
pub(super) fn pair_taken(host: &str) -> Option<String> {
    let found = find(&mut Socket::route(0).ok()?, host).ok()?;
    found.map(|link| format!("there is an interface {host} {:?}", link.alias))
}

/// Destroys an interface of the host that carries `description`, and with it its other end.
pub(super) fn destroy(name: &str, description: &str) -> Result<(), Trouble> {
    let mut socket = Socket::route(0)?;
    let ours = |link: &Link| link.kind == "veth" && (link.alias == description || link.alias.is_empty());
    match find(&mut socket, name)?.filter(ours) {
        Some(link) => Ok(delete(link.index)?),
        None => Ok(()),
    }
}

/// Deletes an interface, and comes back when it is gone.
///
/// The kernel answers a good while after that: when nobody can have a reference to it any more (`netdev_run_todo` waits
/// for RCU, 10 to 30 ms). So a child waits for the answer, and this process for the news that the interface is off all
/// lists, which the kernel tells before.
fn delete(index: u32) -> io::Result<()> {
    let mut news = Socket::route(libc::RTMGRP_LINK as u32)?;
    let beside = Beside::start(|tell| {
        let delete = |mut socket: Socket| socket.ask(link_message(libc::RTM_DELLINK, 0, index, false));
        tell(match Socket::route(0).and_then(delete) {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        });
    })?;
    loop {
        let mut fds = [news.as_fd(), beside.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        if fds[1].any() == Some(true) {
            return beside.told();
        }
        // Too much news for the buffer is none: then the child's answer tells.
        let Ok(all) = news.receive() else { continue };
        let gone = |kind: u16, body: &[u8]| {
            kind == libc::RTM_DELLINK
                && body.first() == Some(&(libc::AF_UNSPEC as u8)) // AF_BRIDGE: it left a bridge
                && number(body.get(4..).unwrap_or_default()) == index
        };
        if all.iter().any(|answer| gone(answer.kind, &answer.body)) {
            return Ok(());
        }
    }
}

/// A child that does something and stays on while the kernel is still at it, in which nobody is interested.
struct Beside(File);

impl Beside {
    /// Starts `work`, which tells how it went before it ends. The child holds nothing of its parent's: no lock, no pipe
    /// that somebody reads to its end.
    fn start(work: impl FnOnce(&mut dyn FnMut(io::Result<()>))) -> io::Result<Self> {
        let (result, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        if sys::clone3(&sys::Clone { flags: 0, cgroup: None })?.is_some() {
            return Ok(Self(result.into()));
        }
        let mut tell = |result: io::Result<()>| {
            let code = result.err().map_or(0, |e| e.raw_os_error().unwrap_or(libc::EIO));
            // Whom we could not tell is gone.
            _ = nix::unistd::write(&write, &code.to_ne_bytes());
        };
        match close_all_but(0, &[&write]).and_then(|()| super::close_range(0, 2)) {
            Ok(()) => work(&mut tell),
            Err(e) => tell(Err(e)),
        }
        crate::host::sys::exit(0)
    }

    /// What it told. An end without a word: it was killed.
    fn told(mut self) -> io::Result<()> {
        let mut code = [0; 4];
        self.0.read_exact(&mut code)?;
        match i32::from_ne_bytes(code) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }
}

impl AsFd for Beside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The link-level address of a bridge of that name: its own, so that it does not change with its members (the kernel
/// gives a bridge the lowest of theirs).
fn bridge_mac(name: &str) -> String {
    mac(hash(name), 0)
}

/// Whether it is a bridge that potrun made: until it has its alias, its link-level address tells.
fn is_ours(link: &Link, name: &str, marked: impl FnOnce(&str) -> bool) -> bool {
    let unmarked = || octets(&bridge_mac(name)).is_ok_and(|own| own == link.mac);
    link.kind == "bridge" && if link.alias.is_empty() { unmarked() } else { marked(&link.alias) }
}

/// Makes a bridge with its addresses, as far as it lacks them. One of somebody else's is taken as it is, if it has them.
pub(super) fn ensure_bridge(name: &str, description: &str, addresses: &[String]) -> Result<(), Trouble> {
    let mut socket = Socket::route(0)?;
    let found = find(&mut socket, name)?;
    let made = found.is_none();
    let link = match found {
        Some(link) => link,
        None => {
            let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
            let message = link_message(libc::RTM_NEWLINK, create, 0, false)
                .text(libc::IFLA_IFNAME, name)
                .put(libc::IFLA_ADDRESS, &octets(&bridge_mac(name))?)
                .nest(libc::IFLA_LINKINFO, |info| {
                    let info = info.text(libc::IFLA_INFO_KIND, "bridge");
                    info.nest(libc::IFLA_INFO_DATA, |data| data.put(MULTICAST_SNOOPING, &[0]))
                });
            socket.ask(message)?;
            find(&mut socket, name)?.ok_or("it is gone again")?
        }
    };
    let mut done = || -> Result<(), Trouble> {
        let addresses: Vec<_> = addresses.iter().map(|text| parse(text)).collect::<Result<_, _>>()?;
        if !is_ours(&link, name, |alias| alias == description) {
            let has = facts::of_interface(&mut socket, link.index)?;
            let lacks = addresses.iter().any(|(address, _)| !has.contains(address));
            return if lacks { Err("it is somebody else's".into()) } else { Ok(()) };
        }
        if link.alias.is_empty() {
            socket.ask(alias(name, description))?;
        }
        let mut added = Vec::new();
        for (address, prefix) in addresses {
            match assign(&mut socket, link.index, address, prefix) {
                Ok(()) => added.push((address, prefix)),
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
                Err(e) => {
                    for (address, prefix) in added {
                        drop(unassign(&mut socket, link.index, address, prefix));
                    }
                    return Err(format!("{address}/{prefix}: {e}").into());
                }
            }
        }
        if link.up {
            return Ok(());
        }
        // Without an address of the link, which would take a second to be asked for, the host finds no neighbour.
        sysctl::set_of_ipv6(name, &[("accept_dad", "0")])?;
        Ok(socket.ask(link_message(libc::RTM_SETLINK, 0, link.index, true))?)
    };
    done().inspect_err(|_| {
        if made {
            drop(delete(link.index));
        }
    })
}

/// Destroys a bridge that potrun made and that has no member.
pub(super) fn release_bridge(name: &str, description: &str) -> Result<(), Trouble> {
    let mut socket = Socket::route(0)?;
    let ours = |link: &Link| is_ours(link, name, |alias| alias == description);
    let Some(link) = find(&mut socket, name)?.filter(ours) else { return Ok(()) };
    if has_member(link.index)? { Ok(()) } else { Ok(delete(link.index)?) }
}

/// One is enough to know: for each interface whose other end is elsewhere, the kernel looks through all namespaces that it
/// knows (`peernet2id`, net/core/net_namespace.c).
fn has_member(bridge: u32) -> io::Result<bool> {
    let members = link_message(libc::RTM_GETLINK, 0, 0, false).number(libc::IFLA_MASTER, bridge);
    Socket::route(0)?.has_any(members.number(libc::IFLA_EXT_MASK, SKIP_STATISTICS))
}

/// The bridges of pots that are there: those that potrun made, and others of such a name that have a member.
fn bridges(socket: &mut Socket) -> io::Result<Vec<String>> {
    let message = link_message(libc::RTM_GETLINK, 0, 0, false)
        .nest(libc::IFLA_LINKINFO, |info| info.text(libc::IFLA_INFO_KIND, "bridge"))
        .number(libc::IFLA_EXT_MASK, SKIP_STATISTICS);
    let mut all = Vec::new();
    for answer in socket.list(message)? {
        let rest = answer.body.get(16..).unwrap_or_default();
        let name = attribute(rest, libc::IFLA_IFNAME).map(text).filter(|name| name.starts_with(BRIDGES));
        let (Some(name), link) = (name, Link::read(&answer.body)) else { continue };
        if is_ours(&link, &name, |alias| alias.starts_with("potrun ")) || has_member(link.index)? {
            all.push(name);
        }
    }
    Ok(all)
}

/// Takes a bridge that is gone out of the table, and the table away with the last one.
pub(super) fn release_nft(bridge: &str) -> Result<(), Trouble> {
    let left = bridges(&mut Socket::route(0)?)?;
    let (gone, last) = (!left.iter().any(|name| name == bridge), left.is_empty());
    Ok(Beside::start(|tell| nft::release(bridge, gone, last, tell))?.told()?)
}

/// Puts back what forwarding changed, unless a bridge of pots is left.
pub(super) fn release_forwarding(note: &Path) -> Result<(), Trouble> {
    let left = bridges(&mut Socket::route(0)?)?;
    if left.is_empty() { sysctl::release_forwarding(note) } else { Ok(()) }
}

/// Takes a pot out of the table, and ends the tracked connections of its addresses.
///
/// The latter go a moment later: to find them, the kernel looks through the whole table of connections (10 ms each time
/// where that has 262,144 buckets). What stayed, because somebody killed the child, would end by its timeout.
pub(super) fn flush_nft(elements: &[Element]) -> Result<(), Trouble> {
    let flush = |tell: &mut dyn FnMut(io::Result<()>)| {
        nft::flush(elements, tell);
        for element in elements {
            if let Element::Pot { address } = element {
                _ = conntrack::end(*address);
            }
        }
    };
    Ok(Beside::start(flush)?.told()?)
}

/// Attaches an interface to a bridge and brings it up. Of the host's end of a pair nobody wants IPv6: it would get an
/// address, and the host would have groups and routes for it that each change of an interface goes through.
pub(super) fn add_member(bridge: &str, name: &str, isolated: bool) -> Result<(), Trouble> {
    let mut socket = Socket::route(0)?;
    // Not asked by netlink: that would tell all of an interface, and look through the networks for its other end.
    let number = |name| if_nametoindex(name).map_err(|e| format!("{name}: {e}"));
    let (bridge, member) = (number(bridge)?, number(name)?);
    sysctl::set_of_ipv6(name, &[("disable_ipv6", "1")])?;
    socket.ask(link_message(libc::RTM_SETLINK, 0, member, true).number(libc::IFLA_MASTER, bridge))?;
    let port = Message::new(libc::RTM_SETLINK, 0, &interface(libc::AF_BRIDGE, member, false));
    let port =
        port.nest(libc::IFLA_PROTINFO, |info| info.put(PORT_HAIRPIN, &[1]).put(PORT_ISOLATED, &[u8::from(isolated)]));
    Ok(socket.ask(port)?)
}

/// `address/prefix`.
fn parse(text: &str) -> Result<(IpAddr, u8), Trouble> {
    let parsed = text.split_once('/').and_then(|(a, p)| Some((a.parse().ok()?, p.parse().ok()?)));
    parsed.ok_or_else(|| format!("{text:?} is not an address with a prefix").into())
}

/// A message about an address of an interface: behind `struct ifaddrmsg`.
fn address_message(kind: u16, flags: i32, index: u32, address: IpAddr, prefix: u8) -> Message {
    let (family, octets) = match address {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    let mut header = [family as u8, prefix, 0, libc::RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    Message::new(kind, flags, &header).put(libc::IFA_LOCAL, &octets).put(libc::IFA_ADDRESS, &octets)
}

/// Gives an interface an address. Nobody is asked whether it is taken (RFC 4862, section 5.4): the ledger knows, and the
/// pot would have no address for a second or two.
fn assign(socket: &mut Socket, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let message = address_message(libc::RTM_NEWADDR, create, index, address, prefix);
    socket.ask(message.number(libc::IFA_FLAGS, libc::IFA_F_NODAD))
}

fn unassign(socket: &mut Socket, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    match socket.ask(address_message(libc::RTM_DELADDR, 0, index, address, prefix)) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
        other => other,
    }
}

/// Why an address must not be added, if so: taking it back would take somebody else's.
pub(super) fn address_taken(address: &str) -> Option<String> {
    let (address, _) = parse(address).ok()?;
    let has = facts::addresses().ok()?.into_iter().find(|(_, all)| all.contains(&address));
    has.map(|(name, _)| format!("{name} has it already"))
}

/// Adds an address to an interface of the host.
pub(super) fn add_address(interface: &str, text: &str) -> Result<(), Trouble> {
    let mut socket = Socket::route(0)?;
    let (address, prefix) = parse(text)?;
    let index = index(&mut socket, interface)?;
    Ok(assign(&mut socket, index, address, prefix)?)
}

/// Takes an address from an interface of the host.
pub(super) fn remove_address(interface: &str, text: &str) -> Result<(), Trouble> {
    let mut socket = Socket::route(0)?;
    let (address, prefix) = parse(text)?;
    match find(&mut socket, interface)? {
        Some(link) => Ok(unassign(&mut socket, link.index, address, prefix)?),
        None => Ok(()),
    }
}

/// Does something in the network of process `pid`, which is known by its descriptor: a proc(5) that was mounted for another
/// pid namespace has somebody else by that number.
fn inside<T>(pid: i32, work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    let (own, theirs) = (File::open("/proc/self/ns/net")?, sys::pidfd_open(pid)?);
    sys::setns(theirs.as_fd(), libc::CLONE_NEWNET)?;
    let result = work();
    if sys::setns(own.as_fd(), libc::CLONE_NEWNET).is_err() {
        // All that follows would be done to the wrong host. What is in the journal is taken back by the next potrun.
        std::process::abort();
    }
    result
}

/// Brings up an interface in the network of process `pid`.
pub(super) fn configure(pid: i32, name: &str, addresses: &[String]) -> Result<(), Trouble> {
    let mut socket = inside(pid, || Ok(Socket::route(0)?))?;
    let index = index(&mut socket, name)?;
    for text in addresses {
        let (address, prefix) = parse(text)?;
        assign(&mut socket, index, address, prefix).map_err(|e| format!("{text}: {e}"))?;
    }
    Ok(socket.ask(link_message(libc::RTM_SETLINK, 0, index, true))?)
}

/// Adds a default route in the network of process `pid`.
pub(super) fn add_route(pid: i32, gateway: IpAddr) -> Result<(), Trouble> {
    let mut socket = inside(pid, || Ok(Socket::route(0)?))?;
    let (family, octets) = match gateway {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    // struct rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type, flags
    let (table, scope) = (libc::RT_TABLE_MAIN, libc::RT_SCOPE_UNIVERSE);
    let header = [family as u8, 0, 0, 0, table, libc::RTPROT_STATIC, scope, libc::RTN_UNICAST, 0, 0, 0, 0];
    let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    Ok(socket.ask(Message::new(libc::RTM_NEWROUTE, create, &header).put(libc::RTA_GATEWAY, &octets))?)
}

/// An address of four or sixteen bytes.
fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(|four| IpAddr::V4(Ipv4Addr::from(four))),
        _ => <[u8; 16]>::try_from(octets).ok().map(|all| IpAddr::V6(all.into())),
    }
}
