//! Messages and sockets of netlink(7), synchronous: what rtnetlink(7), nf_tables and the connection tracker have in
//! common.
//!
//! An encoder of our own, because what is asked of the four families is a dozen messages of one form, and no crate
//! has them all: netlink-packet-route knows rtnetlink only, those for nf_tables need C libraries or start nft(8).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

use super::sys;

/// A message: its header, the header of its family, attributes.
#[derive(Debug)]
pub(super) struct Message(Vec<u8>);

/// Length of `struct nlmsghdr`, and of `struct nlattr` (linux/netlink.h).
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;

impl Message {
    /// A request of type `kind`; `family` is the header that the family wants behind netlink's.
    pub(super) fn new(kind: u16, flags: i32, family: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        let flags = (flags | libc::NLM_F_REQUEST) as u16;
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(family);
        Self(bytes)
    }

    /// Adds an attribute.
    pub(super) fn put(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (ATTRIBUTE + value.len()) as u16; // all values of ours are short
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0); // NLMSG_ALIGNTO
        self
    }

    /// Adds a text that ends in NUL.
    pub(super) fn text(self, kind: u16, text: &str) -> Self {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.put(kind, &value)
    }

    /// Adds a number in the order of this machine: rtnetlink.
    pub(super) fn number(self, kind: u16, number: u32) -> Self {
        self.put(kind, &number.to_ne_bytes())
    }

    /// Adds a number in the order of the network: netfilter.
    pub(super) fn big(self, kind: u16, number: u32) -> Self {
        self.put(kind, &number.to_be_bytes())
    }

    /// Adds what `inner` adds as one attribute.
    pub(super) fn nest(mut self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        let kind = kind | libc::NLA_F_NESTED as u16;
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        let mut whole = inner(self);
        let length = (whole.0.len() - start) as u16;
        whole.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        whole
    }

    /// Adds the header of an interface that is nested (`struct ifinfomsg` of a pair's other end).
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The bytes, numbered.
    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// The attributes in `bytes`: type, without the flags, and value.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & libc::NLA_TYPE_MASK as u16;
        let value = rest.get(ATTRIBUTE..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The attribute of type `kind` in `bytes`.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// A number in the order of this machine.
pub(super) fn number(bytes: &[u8]) -> u32 {
    bytes.get(..4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// A text without its NUL.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_string()
}

/// A message that came.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its type.
    pub(super) kind: u16,
    sequence: u32,
    /// What is behind netlink's header.
    pub(super) body: Vec<u8>,
}

/// A netlink socket.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    /// What comes next is read into.
    buffer: Vec<u8>,
}

/// As much as a datagram of a dump has at most (`netlink_recvmsg`, net/netlink/af_netlink.c).
const BUFFER: usize = 32 << 10;

impl Socket {
    /// A socket of rtnetlink(7) that hears of `groups`.
    pub(super) fn route(groups: u32) -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute, groups)
    }

    /// A socket of netfilter.
    pub(super) fn netfilter() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter, 0)
    }

    fn open(protocol: SockProtocol, groups: u32) -> io::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Has the kernel take the headers of requests for filters (Linux 4.20): before it, lists are of everything.
    pub(super) fn filter_strictly(&mut self) -> io::Result<()> {
        match sys::netlink_strict(self.fd.as_fd()) {
            Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
            other => other,
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty())?;
        Ok(())
    }

    /// Waits for the next datagram.
    pub(super) fn receive(&mut self) -> io::Result<Vec<Answer>> {
        let length = loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        let mut rest = &self.buffer[..length];
        let mut all = Vec::new();
        while let Some(header) = rest.get(..HEADER) {
            let length = (number(header) as usize).clamp(HEADER, rest.len());
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            all.push(Answer { kind, sequence: number(&header[8..]), body: rest[HEADER..length].to_vec() });
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(all)
    }

    /// Asks for one thing to be done.
    pub(super) fn ask(&mut self, message: Message) -> io::Result<()> {
        self.talk(message, libc::NLM_F_ACK).map(drop)
    }

    /// Asks for one thing; none where there is no such thing.
    pub(super) fn get(&mut self, message: Message) -> io::Result<Option<Answer>> {
        match self.talk(message, libc::NLM_F_ACK) {
            Ok(all) => Ok(all.into_iter().next()),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Asks for all of a kind.
    pub(super) fn list(&mut self, message: Message) -> io::Result<Vec<Answer>> {
        self.talk(message, libc::NLM_F_DUMP)
    }

    /// Whether there is any of a kind. The kernel makes a list as it is read: this one is not, and ends with its socket.
    pub(super) fn has_any(mut self, message: Message) -> io::Result<bool> {
        let sequence = self.request(message, libc::NLM_F_DUMP)?;
        let first = self.receive()?.into_iter().find(|one| one.sequence == sequence);
        match first.as_ref().map(|one| (i32::from(one.kind), one)) {
            Some((libc::NLMSG_ERROR, answer)) => verdict(answer).map(|()| false),
            Some((libc::NLMSG_DONE, _)) | None => Ok(false),
            Some(_) => Ok(true),
        }
    }

    /// Sends a request; its number.
    fn request(&mut self, mut message: Message, flags: i32) -> io::Result<u32> {
        let all = u16::from_ne_bytes([message.0[6], message.0[7]]) | flags as u16;
        message.0[6..8].copy_from_slice(&all.to_ne_bytes());
        self.sequence += 1;
        self.send(&message.finish(self.sequence))?;
        Ok(self.sequence)
    }

    /// Sends a request and collects what comes until the kernel says that this was all.
    fn talk(&mut self, message: Message, flags: i32) -> io::Result<Vec<Answer>> {
        let sequence = self.request(message, flags)?;
        let mut found = Vec::new();
        loop {
            for answer in self.receive()?.into_iter().filter(|one| one.sequence == sequence) {
                match i32::from(answer.kind) {
                    libc::NLMSG_ERROR => return verdict(&answer).map(|()| found),
                    libc::NLMSG_DONE => return Ok(found),
                    _ => found.push(answer),
                }
            }
        }
    }

    /// Sends messages of nf_tables as one transaction: all of them are done, or none (linux/netfilter/nfnetlink.h,
    /// `NFNL_MSG_BATCH_BEGIN`).
    pub(super) fn transact(&mut self, messages: Vec<Message>) -> io::Result<()> {
        let edge = |kind: i32| {
            let subsystem = (libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes();
            Message::new(kind as u16, 0, &[libc::AF_UNSPEC as u8, libc::NFNETLINK_V0 as u8, subsystem[0], subsystem[1]])
        };
        let mut bytes = Vec::new();
        let first = self.sequence + 1;
        // The last one alone answers where all is well; what fails always answers.
        let count = messages.len();
        let acknowledged = messages.into_iter().enumerate().map(|(n, mut message)| {
            if n + 1 == count {
                message.0[6] |= libc::NLM_F_ACK as u8;
            }
            message
        });
        let begin = std::iter::once(edge(libc::NFNL_MSG_BATCH_BEGIN));
        for message in begin.chain(acknowledged).chain([edge(libc::NFNL_MSG_BATCH_END)]) {
            self.sequence += 1;
            bytes.extend(message.finish(self.sequence));
        }
        let last = self.sequence - 1;
        self.send(&bytes)?;
        let mut failed = None;
        loop {
            for answer in self.receive()?.into_iter().filter(|one| one.sequence >= first) {
                if i32::from(answer.kind) != libc::NLMSG_ERROR {
                    continue;
                }
                let result = verdict(&answer);
                let end = answer.sequence >= last || answer.sequence == first;
                failed = failed.or(result.err());
                if end || failed.is_some() {
                    return failed.map_or(Ok(()), Err);
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What an error message says: 0 is success (netlink(7)).
fn verdict(answer: &Answer) -> io::Result<()> {
    match number(&answer.body).cast_signed() {
        0 => Ok(()),
        minus => Err(io::Error::from_raw_os_error(-minus)),
    }
}
