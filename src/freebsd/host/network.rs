//! Interfaces, addresses and routes of the host and of jails with a network stack of their own: ioctl(2) on sockets of
//! the stack, and the routing socket (route(4)). What is done in a jail's stack is done by a child that enters it: nothing
//! of the image is needed or run, and no program of the host that only newer releases have (`ifconfig -j`, 13.3).

pub(super) mod facts;
mod sys;

use std::net::IpAddr;

use crate::freebsd::wire::interface as wire;
use crate::host::Trouble;
use crate::op::Family;
use crate::plan::network::PAIRS;

use super::jail;
use sys::Socket;

/// Units of cloned interfaces that the kernel does not choose by itself, because it takes the lowest free one, up to
/// IF_MAXUNIT, 32767 (net/if_clone.c). A new interface has one of these names until it has its own: so one that a
/// crash left without its mark is known.
const UNITS: std::ops::Range<u32> = 16384..32767;

/// How many of them are tried: two containers' names may lead to the same.
const TRIES: u64 = 8;

/// The names that an interface may have before its own.
fn temporary<'a>(kind: &'a str, name: &str) -> impl Iterator<Item = String> + 'a {
    let (hash, count) = (crate::id::hash(name), u64::from(UNITS.end - UNITS.start));
    (0..TRIES).map(move |n| format!("{kind}{}", u64::from(UNITS.start) + hash.wrapping_add(n) % count))
}

/// Makes an interface and gives it its mark, then its name: in this order, so that what has the name is marked.
/// `ends`: the last letters of what one call makes, and the name of each.
fn clone(socket: &Socket, kind: &str, description: &str, ends: &[(&str, &str)]) -> Result<(), Trouble> {
    let mut busy = None;
    for unit in temporary(kind, ends[0].1) {
        match socket.create(&unit) {
            Ok(()) => {
                let done = ends.iter().try_for_each(|(end, name)| {
                    let made = format!("{unit}{end}");
                    socket.describe(&made, description)?;
                    socket.rename(&made, name)
                });
                return done.map_err(|e| {
                    // Either end takes the other with it; the first may have its name already.
                    let left = [format!("{unit}{}", ends[0].0), ends[0].1.to_string()];
                    let gone = left.iter().any(|name| socket.destroy(name).is_ok());
                    if gone { e.into() } else { format!("{e}; {unit} is left").into() }
                });
            }
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => busy = Some(e),
            Err(e) => return Err(e.into()),
        }
    }
    Err(busy.map_or_else(|| "no unit to try".into(), |e| format!("no unit for a new {kind}: {e}")).into())
}

/// Destroys the interface that [`clone`] made: by its name and mark, or by a temporary name.
fn unclone(kind: &str, end: &str, name: &str, description: &str) -> Result<(), Trouble> {
    let socket = Socket::new()?;
    if socket.description(name)?.as_deref() == Some(description) {
        socket.destroy(name)?;
    }
    for unit in temporary(kind, name) {
        let made = format!("{unit}{end}");
        if let Some(mark) = socket.description(&made)?
            && (mark.is_empty() || mark == description)
        {
            socket.destroy(&made)?;
        }
    }
    Ok(())
}

/// Makes an epair(4).
pub(super) fn create_pair(host: &str, pot: &str, description: &str, macs: &[String; 2]) -> Result<(), Trouble> {
    let socket = Socket::new()?;
    clone(&socket, "epair", description, &[("a", host), ("b", pot)])?;
    let done = [host, pot].into_iter().zip(macs).try_for_each(|(name, mac)| -> Result<(), Trouble> {
        let address = wire::link_address(mac).ok_or_else(|| format!("{mac:?} is not a link-level address"))?;
        Ok(socket.set_link_address(name, &address)?)
    });
    done.inspect_err(|_| _ = socket.destroy(host))
}

/// Destroys an interface of the host that carries `description`.
pub(super) fn destroy(name: &str, description: &str) -> Result<(), Trouble> {
    unclone("epair", "a", name, description)
}

/// Makes a bridge with its addresses, as far as it lacks them.
pub(super) fn ensure_bridge(name: &str, description: &str, addresses: &[String]) -> Result<(), Trouble> {
    let socket = Socket::new()?;
    let made = socket.description(name)?.is_none();
    if made {
        clone(&socket, "bridge", description, &[("", name)])?;
    }
    let has = facts::addresses()?.remove(name).unwrap_or_default();
    let done = addresses.iter().try_for_each(|text| {
        let (address, _) = parse(text)?;
        if has.contains(&address) { Ok(()) } else { assign(&socket, name, text) }
    });
    let done = done.and_then(|()| Ok(socket.up(name)?));
    done.inspect_err(|_| {
        if made {
            _ = socket.destroy(name);
        }
    })
}

/// Destroys a bridge that carries `description` and has no member.
pub(super) fn release_bridge(name: &str, description: &str) -> Result<(), Trouble> {
    let socket = Socket::new()?;
    if socket.description(name)?.as_deref() == Some(description) && socket.members(name)? > 0 {
        return Ok(());
    }
    unclone("bridge", "", name, description)
}

/// Attaches an interface to a bridge. An `isolated` member cannot reach another one.
pub(super) fn add_member(bridge: &str, member: &str, isolated: bool) -> Result<(), Trouble> {
    let socket = Socket::new()?;
    match socket.add_member(bridge, member) {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
        other => other?,
    }
    if isolated {
        socket.isolate_member(bridge, member)?;
    }
    Ok(socket.up(member)?)
}

/// Lets the host forward packets.
pub(super) fn enable_forwarding(family: Family) -> Result<(), Trouble> {
    let name = match family {
        Family::Ipv4 => c"net.inet.ip.forwarding",
        Family::Ipv6 => c"net.inet6.ip6.forwarding",
    };
    Ok(super::sys::sysctl_set(name, &1_i32.to_ne_bytes())?)
}

/// Why an address must not be added, if so: taking it back would take somebody else's.
pub(super) fn taken(_interface: &str, address: &str) -> Option<String> {
    let (address, _) = parse(address).ok()?;
    let has = facts::addresses().ok()?.into_iter().find(|(_, all)| all.contains(&address));
    has.map(|(name, _)| format!("{name} has it already"))
}

/// Adds an address to an interface of the host.
pub(super) fn add_address(interface: &str, address: &str) -> Result<(), Trouble> {
    assign(&Socket::new()?, interface, address)
}

/// Takes an address from an interface of the host.
pub(super) fn remove_address(interface: &str, address: &str) -> Result<(), Trouble> {
    let (address, _) = parse(address)?;
    let request = wire::no_alias(interface, address).ok_or("not the name of an interface")?;
    match Socket::new()?.remove_address(address.is_ipv4(), request) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENXIO)) => Ok(()),
        other => Ok(other?),
    }
}

/// `address/prefix`.
fn parse(text: &str) -> Result<(IpAddr, u8), Trouble> {
    let parsed = text.split_once('/').and_then(|(a, p)| Some((a.parse().ok()?, p.parse().ok()?)));
    parsed.ok_or_else(|| format!("{text:?} is not an address with a prefix").into())
}

fn assign(socket: &Socket, interface: &str, text: &str) -> Result<(), Trouble> {
    let (address, prefix) = parse(text)?;
    if address.is_ipv6() {
        socket.enable_ipv6(interface)?;
    }
    let request = wire::alias(interface, address, prefix).ok_or("not the name of an interface")?;
    Ok(socket.add_address(address.is_ipv4(), request).map_err(|e| format!("{text}: {e}"))?)
}

fn jail_id(name: &str) -> Result<i32, Trouble> {
    jail::id(name)?.ok_or_else(|| format!("jail {name} does not exist").into())
}

/// Moves an interface of our own into a jail. It goes with the jail, or with its other end.
pub(super) fn move_into(interface: &str, jail: &str) -> Result<(), Trouble> {
    Ok(Socket::new()?.move_into(interface, jail_id(jail)?)?)
}

/// What is written to an interface of the host that has no description of its own, so that it is known again when
/// somebody inside has renamed it.
fn lent(interface: &str) -> String {
    format!("potrun lent {interface}")
}

/// Moves an interface of the host into a jail.
pub(super) fn lend(interface: &str, jail: &str) -> Result<(), Trouble> {
    let (socket, id) = (Socket::new()?, jail_id(jail)?);
    if socket.description(interface)?.is_some_and(|text| text.is_empty()) {
        socket.describe(interface, &lent(interface))?;
    }
    let moved = socket.move_into(interface, id);
    Ok(moved.inspect_err(|_| _ = socket.forget(interface, &lent(interface)))?)
}

/// Takes an interface of the host back out of a jail, under its own name.
pub(super) fn reclaim(interface: &str, jail: &str) -> Result<(), Trouble> {
    let Some(id) = jail::id(jail)? else {
        // The jail's stack gives back what it was lent when it ends (sys/net/if.c, `vnet_if_return`).
        return Ok(Socket::new()?.forget(interface, &lent(interface))?);
    };
    let found = jail::inside(jail, || {
        let socket = Socket::new()?;
        let marked = |name: &String| matches!(socket.description(name), Ok(Some(text)) if text == lent(interface));
        let all = facts::interfaces()?;
        let name = all.iter().find(|name| marked(name)).or_else(|| all.iter().find(|name| *name == interface));
        Ok(name.cloned().unwrap_or_default().into_bytes())
    })?;
    let name = String::from_utf8(found)?;
    let socket = Socket::new()?;
    if !name.is_empty() {
        socket.reclaim(&name, id)?;
        if name != interface {
            socket.rename(&name, interface)?;
        }
    }
    Ok(socket.forget(interface, &lent(interface))?)
}

/// Brings up an interface inside a jail.
pub(super) fn configure(jail: &str, interface: &str, addresses: &[String]) -> Result<(), Trouble> {
    jail::inside(jail, || {
        let socket = Socket::new()?;
        addresses.iter().try_for_each(|text| assign(&socket, interface, text))?;
        socket.up(interface)?;
        Ok(Vec::new())
    })
    .map(drop)
}

/// Adds a default route inside a jail.
pub(super) fn add_route(jail: &str, gateway: IpAddr) -> Result<(), Trouble> {
    jail::inside(jail, || {
        sys::route(&wire::default_route(gateway))?;
        Ok(Vec::new())
    })
    .map(drop)
}

/// Whether any pot of potrun's has an end of its pair on this host.
pub(super) fn used() -> Result<bool, Trouble> {
    Ok(facts::interfaces()?.iter().any(|name| name.starts_with(PAIRS)))
}
