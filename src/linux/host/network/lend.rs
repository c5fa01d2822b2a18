//! Interfaces of the host that a container has for itself (config-linux.md, "Network Devices").
//!
//! What is lent carries a mark in its alias: the kernel gives a network card back by itself when the container's network
//! ends, under the name that it had there, and without its addresses. What is made of software ends with that network.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::facts::Interface;
use crate::host::Trouble;
use crate::op::Device;

use super::super::netlink::{Message, Socket, attribute, number};
use super::{Link, address, assign, find, index, inside, link_message, parse};

/// How long the end of a network may take, after which the kernel gives a card back.
const PATIENCE: Duration = Duration::from_secs(5);

/// How an interface of the host is now.
pub(in super::super) fn look(name: &str) -> io::Result<Option<Interface>> {
    let mut socket = Socket::route(0)?;
    let message = link_message(libc::RTM_GETLINK, 0, 0, false).text(libc::IFLA_IFNAME, name);
    let Some(answer) = socket.get(message)? else { return Ok(None) };
    let link = Link::read(&answer.body);
    let addresses = socket.list(Message::new(libc::RTM_GETADDR, 0, &[0; 8]))?;
    let addresses = addresses.iter().filter_map(|answer| global(&answer.body, link.index)).collect();
    Ok(Some(Interface { alias: link.alias, addresses, up: link.up, software: !link.kind.is_empty() }))
}

/// An address of an interface that is not of this link only and does not end by itself, `address/prefix`, in what is
/// behind `struct ifaddrmsg`: family, prefix length, flags, scope, index.
fn global(body: &[u8], index: u32) -> Option<String> {
    let (prefix, flags, scope) = (*body.get(1)?, *body.get(2)?, *body.get(3)?);
    let kept = u32::from(flags) & libc::IFA_F_PERMANENT != 0 && scope == libc::RT_SCOPE_UNIVERSE;
    let rest = body.get(8..).filter(|_| kept && number(&body[4..]) == index)?;
    let own = attribute(rest, libc::IFA_LOCAL).or_else(|| attribute(rest, libc::IFA_ADDRESS))?;
    Some(format!("{}/{prefix}", address(own)?))
}

/// The interface with a mark in the network of a socket.
fn marked(socket: &mut Socket, mark: &str) -> io::Result<Option<u32>> {
    let all = socket.list(link_message(libc::RTM_GETLINK, 0, 0, false))?;
    Ok(all.iter().map(|answer| Link::read(&answer.body)).find(|link| link.alias == mark).map(|link| link.index))
}

/// Sets the alias of an interface that is known by its index, whatever its name is by now.
fn described(index: u32, text: &str) -> Message {
    link_message(libc::RTM_SETLINK, 0, index, false).text(libc::IFLA_IFALIAS, text)
}

/// Addresses, and whether it is up.
fn arrange(socket: &mut Socket, index: u32, addresses: &[String], up: bool) -> Result<(), Trouble> {
    for text in addresses {
        let (address, prefix) = parse(text)?;
        match assign(socket, index, address, prefix) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
            other => other.map_err(|e| format!("{text}: {e}"))?,
        }
    }
    if up {
        socket.ask(link_message(libc::RTM_SETLINK, 0, index, true))?;
    }
    Ok(())
}

/// Moves an interface into the network of process `pid`, where it has its new name, its addresses, and is up.
pub(in super::super) fn lend(pid: i32, device: &Device) -> Result<(), Trouble> {
    let mut socket = Socket::route(0)?;
    let at = index(&mut socket, &device.name)?;
    socket.ask(described(at, &device.mark))?;
    let moved = link_message(libc::RTM_SETLINK, 0, at, false)
        .number(libc::IFLA_NET_NS_PID, pid.cast_unsigned())
        .text(libc::IFLA_IFNAME, &device.inside);
    let arranged = socket.ask(moved).map_err(Trouble::from).and_then(|()| {
        let mut there = inside(pid, || Ok(Socket::route(0)?))?;
        let at = index(&mut there, &device.inside)?;
        arrange(&mut there, at, &device.was.addresses, true)
    });
    arranged.map_err(|e| match reclaim(Some(pid), device) {
        Ok(()) => e,
        Err(left) => format!("{e}; and it is not back: {left}").into(),
    })
}

/// Puts an interface back as it was: it is here already, or still with process `pid`, or on its way. One of software is
/// gone with the network that it was in.
pub(in super::super) fn reclaim(pid: Option<i32>, device: &Device) -> Result<(), Trouble> {
    let mut news = Socket::route(libc::RTMGRP_LINK as u32)?;
    let mut socket = Socket::route(0)?;
    let deadline = Instant::now() + PATIENCE;
    let mut found = marked(&mut socket, &device.mark)?;
    if found.is_none() && pid.is_some_and(|pid| fetch(pid, device).is_ok_and(|fetched| fetched)) {
        found = marked(&mut socket, &device.mark)?;
    }
    while found.is_none() && !device.was.software {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(news.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(0) => return Err(format!("{} did not come back", device.name).into()),
            other => {
                other?;
                // Too much news for the buffer is news.
                drop(news.receive());
            }
        }
        found = marked(&mut socket, &device.mark)?;
    }
    let Some(at) = found else { return Ok(()) };
    if find(&mut socket, &device.name)?.is_none_or(|link| link.index != at) {
        // A name can be changed only while it is down.
        let mut down = super::interface(libc::AF_UNSPEC, at, true);
        down[8..12].fill(0);
        socket.ask(Message::new(libc::RTM_SETLINK, 0, &down).text(libc::IFLA_IFNAME, &device.name))?;
    }
    arrange(&mut socket, at, &device.was.addresses, device.was.up)?;
    Ok(socket.ask(described(at, &device.was.alias))?)
}

/// Moves an interface from the network of process `pid` to ours, under its own name. Whether it was there.
fn fetch(pid: i32, device: &Device) -> Result<bool, Trouble> {
    let own = File::open("/proc/self/ns/net")?;
    let mut there = inside(pid, || Ok(Socket::route(0)?))?;
    let Some(at) = marked(&mut there, &device.mark)? else { return Ok(false) };
    let fd = u32::try_from(own.as_raw_fd())?;
    let back = link_message(libc::RTM_SETLINK, 0, at, false).number(libc::IFLA_NET_NS_FD, fd);
    there.ask(back.text(libc::IFLA_IFNAME, &device.name))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_link_or_for_a_time_stay() {
        let entry = |flags: u8, scope: u8| {
            let mut body = vec![2, 24, flags, scope, 7, 0, 0, 0];
            body.extend([8, 0, 1, 0, 192, 0, 2, 1]); // IFA_ADDRESS
            body
        };
        assert_eq!(global(&entry(0x80, 0), 7), Some("192.0.2.1/24".into()));
        assert_eq!(global(&entry(0x80, 0), 8), None);
        assert_eq!(global(&entry(0, 0), 7), None);
        assert_eq!(global(&entry(0x80, 253), 7), None);
    }
}
