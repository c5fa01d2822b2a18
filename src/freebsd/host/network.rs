//! Interfaces, addresses and routes of the host and of jails with a network stack of their own: ioctl(2) on sockets of
//! the stack, and the routing socket (route(4)).

use std::net::IpAddr;

use crate::host::Trouble;
use crate::op::Family;

/// Makes an epair(4).
pub(super) fn create_pair(_host: &str, _pot: &str, _description: &str, _macs: &[String; 2]) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Destroys an interface of the host that carries `description`.
pub(super) fn destroy(_name: &str, _description: &str) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Makes a bridge with its addresses, as far as it lacks them.
pub(super) fn ensure_bridge(_name: &str, _description: &str, _addresses: &[String]) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Destroys a bridge that carries `description` and has no member.
pub(super) fn release_bridge(_name: &str, _description: &str) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Attaches an interface to a bridge.
pub(super) fn add_member(_bridge: &str, _member: &str, _isolated: bool) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Lets the host forward packets.
pub(super) fn enable_forwarding(_family: Family) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Why an address must not be added, if so.
pub(super) fn taken(_interface: &str, _address: &str) -> Option<String> {
    None
}

/// Adds an address to an interface of the host.
pub(super) fn add_address(_interface: &str, _address: &str) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Takes an address from an interface of the host.
pub(super) fn remove_address(_interface: &str, _address: &str) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Moves an interface of our own into a jail.
pub(super) fn move_into(_interface: &str, _jail: &str) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Moves an interface of the host into a jail.
pub(super) fn lend(_interface: &str, _jail: &str) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Takes an interface of the host back out of a jail.
pub(super) fn reclaim(_interface: &str, _jail: &str) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Brings up an interface inside a jail.
pub(super) fn configure(_jail: &str, _interface: &str, _addresses: &[String]) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}

/// Adds a default route inside a jail.
pub(super) fn add_route(_jail: &str, _gateway: IpAddr) -> Result<(), Trouble> {
    Err("is not carried out on freebsd yet".into())
}
