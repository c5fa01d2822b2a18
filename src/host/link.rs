//! Packets between potrun and the process that it started, and between `start` and the process that waits.
//!
//! One packet is one message: a tag, then text. Sockets are SOCK_SEQPACKET, so that packets keep their bounds and the
//! end of either side is seen. What comes from the container's side is bounded and only ever shown (CVE-2021-43784).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, listen as nix_listen, recv, send, socket, socketpair,
};

use super::{Trouble, this};

/// The longest packet.
const LONGEST: usize = 16 << 10;

/// What one side tells the other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The process: I am at [`CallRuntime`](crate::op::Op::CallRuntime), and go on.
    CallsRuntime,
    /// The process: I am at [`AwaitRuntime`](crate::op::Op::AwaitRuntime).
    AwaitsRuntime,
    /// The process: I have done all of `create`.
    Ready,
    /// The process: I failed.
    Failed(String),
    /// A go-between: the process that I have started for you.
    Started(i32),
    /// potrun: go on.
    Go,
}

impl Message {
    fn tag(&self) -> u8 {
        match self {
            Self::CallsRuntime => b'C',
            Self::AwaitsRuntime => b'W',
            Self::Ready => b'R',
            Self::Failed(_) => b'E',
            Self::Started(_) => b'S',
            Self::Go => b'G',
        }
    }
}

/// A pair of connected ends.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends a message; the other side's end is `BrokenPipe`, never a signal.
pub(crate) fn tell(to: BorrowedFd<'_>, message: &Message) -> io::Result<()> {
    let mut packet = vec![message.tag()];
    if let Message::Started(pid) = message {
        packet.extend_from_slice(pid.to_string().as_bytes());
    }
    if let Message::Failed(text) = message {
        let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at < LONGEST - 8).last().unwrap_or(0);
        packet.extend_from_slice(if text.len() < LONGEST - 8 { text } else { &text[..end] }.as_bytes());
    }
    loop {
        match send(to.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop).map_err(Into::into),
        }
    }
}

/// The next message; `None` when the other side has ended.
pub(crate) fn hear(from: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut packet = vec![0; LONGEST];
    let n = loop {
        match recv(from.as_raw_fd(), &mut packet, MsgFlags::empty()) {
            // The other side ended with something of ours unread, which is told once; what it had said before is still there.
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            other => break other?,
        }
    };
    let text = || String::from_utf8_lossy(&packet[1..n]).into_owned();
    Ok(Some(match packet[..n].first() {
        None => return Ok(None),
        Some(b'C') => Message::CallsRuntime,
        Some(b'W') => Message::AwaitsRuntime,
        Some(b'R') => Message::Ready,
        Some(b'E') => Message::Failed(text()),
        Some(b'S') => Message::Started(text().parse().map_err(io::Error::other)?),
        Some(b'G') => Message::Go,
        Some(other) => return Err(io::Error::other(format!("unexpected message {other:#x}"))),
    }))
}

/// Sends a descriptor, with a text that says what it is.
pub(crate) fn send_fd(to: BorrowedFd<'_>, text: &str, fd: &OwnedFd) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, sendmsg};
    let fds = [fd.as_fd().as_raw_fd()];
    let bytes = [std::io::IoSlice::new(text.as_bytes())];
    sendmsg::<()>(to.as_raw_fd(), &bytes, &[ControlMessage::ScmRights(&fds)], MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// A socket at `path` that one `start` will connect to.
pub(crate) fn listen(path: &Path) -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    this::bind(fd.as_fd(), path)?;
    nix_listen(&fd, Backlog::new(1)?)?;
    Ok(fd)
}

/// Connects to the process that waits at `path`, which then goes on. The connection closes by its exec.
pub(crate) fn start(path: &Path) -> Result<(), Trouble> {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    this::connect(fd.as_fd(), path).map_err(|e| format!("the first process does not wait: {e}"))?;
    match hear(fd.as_fd())? {
        None => Ok(()),
        Some(Message::Failed(text)) => Err(text.into()),
        Some(other) => Err(format!("unexpected {other:?} of the first process").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who fails while there is something that it has not read has told why all the same.
    #[test]
    fn the_last_words_of_one_that_did_not_listen_are_heard() {
        let (ours, theirs) = pair().unwrap();
        tell(ours.as_fd(), &Message::Go).unwrap();
        tell(theirs.as_fd(), &Message::Failed("why".into())).unwrap();
        drop(theirs);
        assert_eq!(hear(ours.as_fd()).unwrap(), Some(Message::Failed("why".into())));
        assert_eq!(hear(ours.as_fd()).unwrap(), None);
        assert_eq!(tell(ours.as_fd(), &Message::Go).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
