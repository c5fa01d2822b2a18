//! Terminals: the container's, and the relay between it and the caller's own.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::sys;
use super::this::{self, Signals};

/// Makes `slave` the controlling terminal and stdio of this process, which leads its session.
pub(crate) fn become_terminal(slave: &OwnedFd) -> io::Result<()> {
    sys::set_controlling_terminal(slave.as_fd())?;
    nix::unistd::dup2_stdin(slave)?;
    nix::unistd::dup2_stdout(slave)?;
    Ok(nix::unistd::dup2_stderr(slave)?)
}

/// Connects to the socket at `path` that the terminal's master will be sent to.
///
/// # Errors
/// connect(2)'s; a path that does not fit a socket address.
pub fn connect_to(path: &std::path::Path) -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    this::connect(fd.as_fd(), path)?;
    Ok(fd)
}

/// A pair of sockets to hand a terminal's master through.
///
/// # Errors
/// socketpair(2)'s.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    super::link::pair()
}

/// What `run` and `exec` do while their process runs: pass on bytes and signals, wait for its end.
#[derive(Debug)]
pub struct Foreground {
    signals: Signals,
    terminal: Option<Relay>,
}

#[derive(Debug)]
struct Relay {
    master: std::fs::File,
    before: Option<Termios>,
}

/// Signals that are not passed on: they are about us, or about our own terminal.
const OURS: &[Signal] =
    &[Signal::SIGCHLD, Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGPIPE, Signal::SIGURG, Signal::SIGWINCH];

impl Foreground {
    /// Takes all signals from now on; to be called before the process is started, so that its end cannot be missed.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn new() -> io::Result<Self> {
        let all = SigSet::all();
        all.thread_block()?;
        Ok(Self { signals: Signals::new(&all)?, terminal: None })
    }

    /// Relays the caller's terminal to the master that comes through `socket`.
    ///
    /// # Errors
    /// No master came, or the caller's terminal cannot be set.
    pub fn attach(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let master = sys::receive_fd(socket)?;
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        }
        let relay = Relay { master: master.into(), before };
        relay.resize();
        self.terminal = Some(relay);
        Ok(())
    }

    /// Waits for the end of `pid`, a child of ours, passing on what comes meanwhile. Returns its wait status.
    ///
    /// # Errors
    /// The kernel's words.
    pub fn wait(&mut self, pid: i32) -> io::Result<i32> {
        let (mut input_open, mut output_open) = (true, true);
        loop {
            let (signal, input, output) = {
                let stdin = io::stdin();
                let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
                // Always at the same place; what has ended is asked for nothing but its errors, so it is left out by
                // asking the signals twice.
                if let Some(relay) = &self.terminal {
                    let master = if output_open { relay.master.as_fd() } else { self.signals.as_fd() };
                    fds.push(PollFd::new(master, PollFlags::POLLIN));
                    let input = if input_open { stdin.as_fd() } else { self.signals.as_fd() };
                    fds.push(PollFd::new(input, PollFlags::POLLIN));
                }
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(e) => return Err(e.into()),
                }
                let ready = |n: usize| fds.get(n).is_some_and(|fd| fd.any().unwrap_or(false));
                (ready(0), ready(2), ready(1))
            };
            if let Some(relay) = &mut self.terminal {
                if output && output_open {
                    output_open = relay.output()?;
                }
                if input && input_open {
                    input_open = relay.input()?;
                }
            }
            if signal && let Some(status) = self.signal(pid)? {
                if let Some(relay) = &mut self.terminal {
                    relay.rest()?;
                }
                return Ok(status);
            }
        }
    }

    fn signal(&mut self, pid: i32) -> io::Result<Option<i32>> {
        let Some(number) = self.signals.next()? else { return Ok(None) };
        match Signal::try_from(number) {
            Ok(Signal::SIGCHLD) => return reaped(pid),
            Ok(Signal::SIGWINCH) => self.terminal.iter().for_each(Relay::resize),
            Ok(other) if !OURS.contains(&other) => match nix::sys::signal::kill(Pid::from_raw(pid), other) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(e) => return Err(e.into()),
            },
            _ => {}
        }
        Ok(None)
    }
}

/// The wait status of `pid` if it has ended.
fn reaped(pid: i32) -> io::Result<Option<i32>> {
    match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG))? {
        WaitStatus::Exited(_, code) => Ok(Some(code << 8)),
        WaitStatus::Signaled(_, signal, _) => Ok(Some(signal as i32)),
        _ => Ok(None),
    }
}

impl Relay {
    fn output(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        match self.master.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(n) => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&buffer[..n])?;
                stdout.flush()?;
                Ok(true)
            }
            // The other side has no terminal open any more (tty_ioctl(4) has no better word): its end comes by SIGCHLD.
            Err(e) if e.raw_os_error() == Some(libc::EIO) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn input(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        // Not through Stdin's buffer: what it has read ahead would not wake poll.
        let n = nix::unistd::read(io::stdin(), &mut buffer)?;
        match n {
            0 => Ok(false),
            n => self.master.write_all(&buffer[..n]).map(|()| true),
        }
    }

    /// What was written before the end.
    fn rest(&mut self) -> io::Result<()> {
        loop {
            let ready = poll(&mut [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO)?;
            if ready == 0 || !self.output()? {
                return Ok(());
            }
        }
    }

    fn resize(&self) {
        // A caller without a terminal has no size, and a terminal that nobody looks at has none either.
        if let Ok((rows @ 1.., columns)) = sys::terminal_size(io::stdin().as_fd()) {
            drop(sys::set_terminal_size(self.master.as_fd(), rows, columns));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // The caller's terminal may be gone by now.
            _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}
