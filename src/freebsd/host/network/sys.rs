//! The ioctls of interfaces (sys/sockio.h) and the routing socket.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::freebsd::wire::interface as wire;

use super::super::sys::cvt;

const SIOCSIFFLAGS: libc::c_ulong = 0x8020_6910;
const SIOCGIFFLAGS: libc::c_ulong = 0xc020_6911;
const SIOCDIFADDR: libc::c_ulong = 0x8020_6919;
const SIOCDIFADDR_IN6: libc::c_ulong = 0x8120_6919;
const SIOCSIFNAME: libc::c_ulong = 0x8020_6928;
const SIOCSIFDESCR: libc::c_ulong = 0x8020_6929;
const SIOCGIFDESCR: libc::c_ulong = 0xc020_692a;
const SIOCAIFADDR: libc::c_ulong = 0x8044_692b;
const SIOCAIFADDR_IN6: libc::c_ulong = 0x8088_691b;
const SIOCSIFLLADDR: libc::c_ulong = 0x8020_693c;
const SIOCSIFINFO_FLAGS: libc::c_ulong = 0xc048_6957;
const SIOCSIFVNET: libc::c_ulong = 0xc020_695a;
const SIOCSIFRVNET: libc::c_ulong = 0xc020_695b;
const SIOCGIFINFO_IN6: libc::c_ulong = 0xc048_696c;
const SIOCIFDESTROY: libc::c_ulong = 0x8020_6979;
const SIOCSDRVSPEC: libc::c_ulong = 0x8028_697b;
const SIOCGDRVSPEC: libc::c_ulong = 0xc028_697b;
const SIOCIFCREATE2: libc::c_ulong = 0xc020_697c;

/// Commands of a bridge(4) (net/if_bridgevar.h).
const BRDGADD: libc::c_ulong = 0;
const BRDGGIFFLGS: libc::c_ulong = 2;
const BRDGSIFFLGS: libc::c_ulong = 3;
const BRDGGIFS: libc::c_ulong = 6;
const IFBIF_PRIVATE: u32 = 0x800;

/// `struct ifdrv`.
#[repr(C)]
struct Drive {
    name: [u8; wire::NAME],
    command: libc::c_ulong,
    length: usize,
    data: *mut u8,
}
const _: () = assert!(size_of::<Drive>() == 40);

/// A name does not fit: as the kernel has no interface of that name, its word for that.
fn unnamed() -> io::Error {
    io::Error::from_raw_os_error(libc::ENXIO)
}

/// A socket to ask about interfaces of the stack that this process is in.
pub(super) struct Socket {
    v4: OwnedFd,
    v6: OwnedFd,
}

impl Socket {
    pub(super) fn new() -> io::Result<Self> {
        let open = |family| {
            // SAFETY: the kernel makes a descriptor for us, which nobody else owns.
            Ok::<_, io::Error>(unsafe {
                OwnedFd::from_raw_fd(cvt(libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?)
            })
        };
        Ok(Self { v4: open(libc::AF_INET)?, v6: open(libc::AF_INET6)? })
    }

    /// An ioctl whose argument has the bytes of its request's size, all of them ours.
    fn ask(&self, v4: bool, request: libc::c_ulong, argument: &mut [u8]) -> io::Result<()> {
        let size = (request >> 16) as usize & 0x1fff; // IOCPARM_LEN (sys/ioccom.h)
        if argument.len() != size {
            return Err(unnamed());
        }
        let socket = if v4 { &self.v4 } else { &self.v6 };
        // SAFETY: the argument has the length that the request says and lives until the call returns; pointers in it
        // are the caller's matter.
        cvt(unsafe { libc::ioctl(socket.as_raw_fd(), request, argument.as_mut_ptr()) }).map(drop)
    }

    /// An ioctl with a `struct ifreq`.
    fn simple(&self, request: libc::c_ulong, name: &str, union: &[u8]) -> io::Result<[u8; wire::REQUEST]> {
        let mut argument = wire::request(name, union).ok_or_else(unnamed)?;
        self.ask(true, request, &mut argument)?;
        Ok(argument)
    }

    /// Makes an interface of this kind and unit: `bridge7`, `epair7`, whose ends are then `epair7a` and `epair7b`.
    pub(super) fn create(&self, name: &str) -> io::Result<()> {
        self.simple(SIOCIFCREATE2, name, &[]).map(drop)
    }

    /// That it is gone already is as good.
    pub(super) fn destroy(&self, name: &str) -> io::Result<()> {
        match self.simple(SIOCIFDESTROY, name, &[]) {
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => Ok(()),
            other => other.map(drop),
        }
    }

    pub(super) fn rename(&self, name: &str, to: &str) -> io::Result<()> {
        let to = CString::new(to)?;
        self.simple(SIOCSIFNAME, name, &(to.as_ptr() as usize).to_ne_bytes()).map(drop)
    }

    pub(super) fn describe(&self, name: &str, text: &str) -> io::Result<()> {
        let text = CString::new(text)?;
        let length = text.as_bytes_with_nul().len();
        let buffer = [length.to_ne_bytes(), (text.as_ptr() as usize).to_ne_bytes()].concat();
        self.simple(SIOCSIFDESCR, name, &buffer).map(drop)
    }

    /// What is written to an interface, nothing if that is nothing; `None`: there is no such interface.
    pub(super) fn description(&self, name: &str) -> io::Result<Option<String>> {
        let mut text = [0u8; 1024]; // net.ifdescr_maxlen
        let buffer = [text.len().to_ne_bytes(), (text.as_mut_ptr() as usize).to_ne_bytes()].concat();
        match self.simple(SIOCGIFDESCR, name, &buffer) {
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => return Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::ENOMSG) => return Ok(Some(String::new())),
            other => drop(other?),
        }
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        Ok(Some(String::from_utf8_lossy(&text[..end]).into_owned()))
    }

    /// Takes our own words from an interface.
    pub(super) fn forget(&self, name: &str, text: &str) -> io::Result<()> {
        if self.description(name)?.as_deref() == Some(text) {
            self.simple(SIOCSIFDESCR, name, &[0; 16])?;
        }
        Ok(())
    }

    pub(super) fn set_link_address(&self, name: &str, address: &[u8; 16]) -> io::Result<()> {
        self.simple(SIOCSIFLLADDR, name, address).map(drop)
    }

    pub(super) fn up(&self, name: &str) -> io::Result<()> {
        let mut argument = self.simple(SIOCGIFFLAGS, name, &[])?;
        argument[wire::NAME] |= libc::IFF_UP as u8;
        self.ask(true, SIOCSIFFLAGS, &mut argument)
    }

    pub(super) fn move_into(&self, name: &str, jail: i32) -> io::Result<()> {
        self.simple(SIOCSIFVNET, name, &jail.to_ne_bytes()).map(drop)
    }

    pub(super) fn reclaim(&self, name: &str, jail: i32) -> io::Result<()> {
        self.simple(SIOCSIFRVNET, name, &jail.to_ne_bytes()).map(drop)
    }

    pub(super) fn enable_ipv6(&self, name: &str) -> io::Result<()> {
        let mut argument = wire::nd(name).ok_or_else(unnamed)?;
        self.ask(false, SIOCGIFINFO_IN6, &mut argument)?;
        wire::enable_nd(&mut argument);
        self.ask(false, SIOCSIFINFO_FLAGS, &mut argument)
    }

    pub(super) fn add_address(&self, v4: bool, mut request: Vec<u8>) -> io::Result<()> {
        self.ask(v4, if v4 { SIOCAIFADDR } else { SIOCAIFADDR_IN6 }, &mut request)
    }

    pub(super) fn remove_address(&self, v4: bool, mut request: Vec<u8>) -> io::Result<()> {
        self.ask(v4, if v4 { SIOCDIFADDR } else { SIOCDIFADDR_IN6 }, &mut request)
    }

    /// A command of a bridge; `data` is read, and written where the command says so.
    fn drive(&self, request: libc::c_ulong, bridge: &str, command: libc::c_ulong, data: &mut [u8]) -> io::Result<()> {
        let name = wire::request(bridge, &[]).ok_or_else(unnamed)?;
        let mut drive = Drive { name: [0; wire::NAME], command, length: data.len(), data: data.as_mut_ptr() };
        drive.name.copy_from_slice(&name[..wire::NAME]);
        // SAFETY: the argument is an ifdrv, whose data has the length that it says; both live until the call returns.
        cvt(unsafe { libc::ioctl(self.v4.as_raw_fd(), request, &raw mut drive) }).map(drop)
    }

    pub(super) fn add_member(&self, bridge: &str, member: &str) -> io::Result<()> {
        let mut data = wire::member(member, 0).ok_or_else(unnamed)?;
        self.drive(SIOCSDRVSPEC, bridge, BRDGADD, &mut data)
    }

    pub(super) fn isolate_member(&self, bridge: &str, member: &str) -> io::Result<()> {
        let mut data = wire::member(member, 0).ok_or_else(unnamed)?;
        self.drive(SIOCGDRVSPEC, bridge, BRDGGIFFLGS, &mut data)?;
        let flags = u32::from_le_bytes([data[16], data[17], data[18], data[19]]) | IFBIF_PRIVATE;
        data[16..20].copy_from_slice(&flags.to_le_bytes());
        self.drive(SIOCSDRVSPEC, bridge, BRDGSIFFLGS, &mut data)
    }

    /// How many members a bridge has.
    pub(super) fn members(&self, bridge: &str) -> io::Result<usize> {
        // struct ifbifconf: with no room, the kernel says how much it needs (if_bridge.c, `bridge_ioctl_gifs`).
        let mut data = [0u8; 16];
        self.drive(SIOCGDRVSPEC, bridge, BRDGGIFS, &mut data)?;
        Ok(u32::from_le_bytes([data[0], data[1], data[2], data[3]]) as usize / 80)
    }
}

/// Sends one message to the routing socket of the stack that this process is in.
pub(super) fn route(message: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel makes a descriptor for us; the message lives until the call returns and has its length.
    unsafe {
        let socket = OwnedFd::from_raw_fd(cvt(libc::socket(libc::PF_ROUTE, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0))?);
        if libc::write(socket.as_raw_fd(), message.as_ptr().cast(), message.len()) == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
