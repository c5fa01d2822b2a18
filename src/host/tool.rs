//! The one place that starts programs: hooks of the bundle, and the few tools whose kernel interface is not stable.
//!
//! An absolute path, an environment of exactly what is given, stderr kept for the error.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A program to be run.
#[derive(Debug)]
pub struct Tool<'a> {
    /// Absolute path.
    pub path: &'a Path,
    /// The whole argv; the path where empty.
    pub args: &'a [String],
    /// The whole environment, `NAME=value`.
    pub env: &'a [String],
    /// What it reads from its stdin.
    pub input: &'a [u8],
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// Where its stdout goes.
    pub output: Output,
}

/// Where a program's stdout goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// To potrun's own.
    Inherit,
    /// To the caller.
    Keep,
}

/// Why a program did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It cannot be started.
    #[error("start {}", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// The kernel's words.
        source: io::Error,
    },
    /// It cannot be waited for or talked to.
    #[error("talk to {}", path.display())]
    Talk {
        /// The program.
        path: PathBuf,
        /// The kernel's words.
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error("{} took more than {} s and was killed", path.display(), timeout.as_secs())]
    Timeout {
        /// The program.
        path: PathBuf,
        /// What it had.
        timeout: Duration,
    },
    /// It ended with a failure.
    #[error("{} {}: {}", path.display(), ending(*status), words(stderr))]
    Failed {
        /// The program.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The first 4 KiB of what it said.
        stderr: Vec<u8>,
    },
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

fn words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let text = text.trim();
    if text.is_empty() { "it said nothing".into() } else { text.replace('\n', "; ") }
}

/// How much of a program's stderr is kept for the error.
const KEEP: usize = 4096;

/// Runs `tool` to its end and returns what it wrote to stdout, if that is kept.
///
/// # Errors
/// It cannot be started, takes too long, or fails.
pub fn run(tool: &Tool<'_>) -> Result<Vec<u8>, ToolError> {
    work(tool, Stdio::piped())
}

/// The same with potrun's own stdin.
///
/// # Errors
/// It cannot be started, takes too long, or fails.
pub fn filter(tool: &Tool<'_>) -> Result<Vec<u8>, ToolError> {
    work(tool, Stdio::inherit())
}

/// The same with a file, from where that stands, as its stdin.
///
/// # Errors
/// It cannot be started, takes too long, or fails.
pub fn from_file(tool: &Tool<'_>, file: &File) -> Result<Vec<u8>, ToolError> {
    let file = file.try_clone().map_err(|source| ToolError::Start { path: tool.path.to_path_buf(), source })?;
    work(tool, file.into())
}

/// Runs `tool` to its end; what it writes to stdout goes to `to`.
///
/// # Errors
/// It cannot be started, takes too long, or fails; or `to` does.
pub fn to_writer(tool: &Tool<'_>, to: &mut impl Write) -> Result<(), ToolError> {
    attend(tool, Stdio::null(), to)
}

fn work(tool: &Tool<'_>, stdin: Stdio) -> Result<Vec<u8>, ToolError> {
    let mut stdout = Vec::new();
    attend(tool, stdin, &mut stdout).map(|()| stdout)
}

fn attend(tool: &Tool<'_>, stdin: Stdio, stdout: &mut impl Write) -> Result<(), ToolError> {
    let path = || tool.path.to_path_buf();
    let mut child = start(tool, stdin).map_err(|source| ToolError::Start { path: path(), source })?;
    let deadline = tool.timeout.map(|timeout| Instant::now() + timeout);
    let talked = talk(&mut child, tool.input, deadline, stdout);
    match talked {
        Ok(Some(stderr)) => {
            let status = child.wait().map_err(|source| ToolError::Talk { path: path(), source })?;
            if status.success() { Ok(()) } else { Err(ToolError::Failed { path: path(), status, stderr }) }
        }
        Ok(None) => {
            end(&mut child);
            Err(ToolError::Timeout { path: path(), timeout: tool.timeout.unwrap_or_default() })
        }
        Err(source) => {
            end(&mut child);
            Err(ToolError::Talk { path: path(), source })
        }
    }
}

fn start(tool: &Tool<'_>, stdin: Stdio) -> io::Result<Child> {
    #[allow(clippy::disallowed_methods)] // this is the place
    let mut command = Command::new(tool.path);
    if let Some((name, rest)) = tool.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear().envs(tool.env.iter().filter_map(|variable| variable.split_once('=')));
    command.stdin(stdin).stderr(Stdio::piped());
    command.stdout(match tool.output {
        Output::Inherit => Stdio::inherit(),
        Output::Keep => Stdio::piped(),
    });
    // A group of its own, so that a timeout ends its children too.
    command.process_group(0);
    command.spawn()
}

/// Kills the program's process group and reaps the program.
fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // Both can only fail if it is gone already.
        _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        _ = child.wait();
    }
}

/// Feeds stdin, passes stdout on and collects stderr until the program ends. `None` when the deadline passes.
///
/// The end is that of the process, not of its pipes: a hook may leave a child behind that keeps them.
fn talk(
    child: &mut Child,
    input: &[u8],
    deadline: Option<Instant>,
    out: &mut impl Write,
) -> io::Result<Option<Vec<u8>>> {
    let mut stdin = child.stdin.take();
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let mut err = Vec::new();
    let mut rest = input;
    let watch = crate::host::this::Watch::process(child.id())?;
    loop {
        let wait = match deadline.map(|at| at.checked_duration_since(Instant::now())) {
            None => PollTimeout::NONE,
            Some(None) => return Ok(None),
            Some(Some(left)) => PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX),
        };
        let ended = {
            let mut fds = vec![PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
            fds.extend(stdin.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)));
            fds.extend(stdout.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            fds.extend(stderr.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, wait) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            fds[0].any().unwrap_or(false)
        };
        feed(&mut stdin, &mut rest)?;
        drain(&mut stdout, |bytes| out.write_all(bytes))?;
        drain(&mut stderr, |bytes| {
            err.extend_from_slice(&bytes[..bytes.len().min(KEEP.saturating_sub(err.len()))]);
            Ok(())
        })?;
        if ended {
            return Ok(Some(err));
        }
    }
}

/// Writes as much as the pipe takes now; a program need not read its input (EPIPE).
fn feed(stdin: &mut Option<std::process::ChildStdin>, rest: &mut &[u8]) -> io::Result<()> {
    while let Some(pipe) = stdin {
        if rest.is_empty() {
            *stdin = None;
            break;
        }
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut fds, PollTimeout::ZERO)? == 0 {
            break;
        }
        let some = &rest[..rest.len().min(4096)]; // PIPE_BUF: what poll promises to take without blocking
        match pipe.write(some) {
            Ok(n) => *rest = &rest[n..],
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => *rest = &[],
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Takes what is in a pipe now; forgets the pipe at its end.
fn drain(pipe: &mut Option<impl Read + AsFd>, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = [0; 65536]; // as much as a pipe holds (pipe(7))
    while let Some(open) = pipe {
        let mut fds = [PollFd::new(open.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO)? == 0 {
            break;
        }
        match open.read(&mut buffer)? {
            0 => *pipe = None,
            n => take(&buffer[..n])?,
        }
    }
    Ok(())
}
