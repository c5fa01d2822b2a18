/*! A runtime, seen as a program: starting one of its verbs, awaiting its end, and reading what it said. */

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::case::{Fail, Result};
use crate::reaper::{self, ready};
use crate::{check, sys, system};

/// How long anything may take before it counts as hanging. Nothing ever waits this long in a test that passes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The program to be judged.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    /// What it is called in reports.
    pub(crate) name: String,
    /// The program.
    pub(crate) path: PathBuf,
    /// What goes before every verb.
    pub(crate) args: Vec<String>,
    /// First line of `--version`.
    pub(crate) version: String,
}

impl Runtime {
    /// Looks the program up, and asks for its version.
    pub(crate) fn new(name: Option<&str>, path: &Path, args: &[String]) -> io::Result<Self> {
        let path = find(path)?;
        let out = Command::new(&path).args(args).arg("--version").output()?;
        let version = String::from_utf8_lossy(&out.stdout).lines().next().unwrap_or_default().to_owned();
        let name = name.map_or_else(|| version.replace(" version", ""), str::to_owned);
        Ok(Self { name, path, args: args.to_vec(), version })
    }
}

fn find(path: &Path) -> io::Result<PathBuf> {
    if path.components().count() > 1 {
        return std::path::absolute(path);
    }
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&dirs).map(|dir| dir.join(path)).find(|file| file.is_file());
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no {} in PATH", path.display())))
}

/// One call of a runtime, being prepared.
#[must_use = "nothing is started before `go` or `spawn`"]
pub(crate) struct Verb {
    program: PathBuf,
    globals: Vec<OsString>,
    words: Vec<OsString>,
    env: Vec<(String, String)>,
    fds: Vec<(OwnedFd, RawFd)>,
    stdin: Stdio,
    output: Option<(Stdio, Stdio)>,
    cwd: Option<PathBuf>,
    session: bool,
}

impl Verb {
    /// A call of this runtime, with its state below `root`.
    pub(crate) fn new(runtime: &Runtime, root: &Path, stdin: File, words: &[&str]) -> Self {
        let mut globals: Vec<OsString> = runtime.args.iter().map(Into::into).collect();
        globals.extend(["--root".into(), root.into()]);
        Self {
            program: runtime.path.clone(),
            globals,
            words: words.iter().map(Into::into).collect(),
            env: Vec::new(),
            fds: Vec::new(),
            stdin: stdin.into(),
            output: None,
            cwd: None,
            session: false,
        }
    }

    /// Flags before the verb.
    pub(crate) fn globals(mut self, words: &[&str]) -> Self {
        self.globals.extend(words.iter().map(Into::into));
        self
    }

    /// Exactly these words before the verb, and so no `--root`.
    pub(crate) fn only_globals(mut self, words: &[&str]) -> Self {
        self.globals = words.iter().map(Into::into).collect();
        self
    }

    /// One more word.
    pub(crate) fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.words.push(word.as_ref().to_owned());
        self
    }

    /// More words.
    pub(crate) fn args(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(Into::into));
        self
    }

    /// A variable of the runtime's own environment, which otherwise has PATH only.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets the runtime inherit a descriptor at this number.
    pub(crate) fn fd(mut self, fd: &impl AsFd, at: RawFd) -> io::Result<Self> {
        let fd = sys::high(&fd.as_fd().try_clone_to_owned()?)?;
        self.fds.push((fd, at));
        Ok(self)
    }

    /// Its standard input, which otherwise is an empty file.
    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// All three standard streams on one terminal, which becomes the controlling one.
    pub(crate) fn terminal(mut self, tty: &OwnedFd) -> io::Result<Self> {
        self.stdin = tty.try_clone()?.into();
        self.output = Some((tty.try_clone()?.into(), tty.try_clone()?.into()));
        self.session = true;
        Ok(self)
    }

    /// Its working directory.
    pub(crate) fn cwd(mut self, dir: &Path) -> Self {
        self.cwd = Some(dir.to_owned());
        self
    }

    /// Another program than the runtime's own path: a copy that may be attacked.
    pub(crate) fn program(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// Starts it, and awaits its end.
    pub(crate) fn go(self) -> Result<Outcome> {
        self.spawn()?.finish()
    }

    /// Starts it.
    pub(crate) fn spawn(self) -> Result<Running> {
        let what: Vec<_> = self.words.iter().map(|w| w.to_string_lossy().into_owned()).collect();
        let (out, out_end) = io::pipe()?;
        let (err, err_end) = io::pipe()?;
        let mut command = Command::new(&self.program);
        command.args(self.globals).args(self.words).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(self.env);
        let (stdout, stderr) = self.output.unwrap_or((out_end.into(), err_end.into()));
        command.stdin(self.stdin).stdout(stdout).stderr(stderr);
        if let Some(dir) = self.cwd {
            command.current_dir(dir);
        }
        if self.session {
            sys::own_session(&mut command);
        }
        if !self.fds.is_empty() {
            sys::hand_over(&mut command, self.fds);
        }
        let child = command.spawn()?;
        drop(command); // the parent's copies of the ends that are written to
        let pid = child.id().cast_signed();
        let end = system::watch(pid)?;
        Ok(Running { what: what.join(" "), pid, end, out: Stream::new(out.into())?, err: Stream::new(err.into())? })
    }
}

/// A call under way.
pub(crate) struct Running {
    what: String,
    /// Its process id.
    pub(crate) pid: i32,
    end: OwnedFd,
    /// What it (or the container) says.
    pub(crate) out: Stream,
    err: Stream,
}

impl Running {
    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result {
        Ok(kill(Pid::from_raw(self.pid), signal)?)
    }

    /// Waits for its end or for something to read: whether it is the latter.
    pub(crate) fn or_readable(&self, stream: &Stream) -> Result<bool> {
        Ok(ready(&[self.end.as_fd(), stream.fd.as_fd()], Instant::now() + DEADLINE)?[1])
    }

    /// Ends it the hard way, as a crash would.
    pub(crate) fn crash(self) -> Result {
        match kill(Pid::from_raw(self.pid), Signal::SIGKILL) {
            // It was done before the moment came, and was reaped while we waited.
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(e) => return Err(e.into()),
        }
        check!(ready(&[self.end.as_fd()], Instant::now() + DEADLINE)? == [true], "SIGKILL did not end `{}`", self.what);
        reaper::status(self.pid).map(drop)
    }

    /// Awaits its end. The other ends of the pipes may live on in a container, so nobody waits for end of file.
    pub(crate) fn finish(mut self) -> Result<Outcome> {
        let until = Instant::now() + DEADLINE;
        loop {
            let streams = [&self.out, &self.err].into_iter().filter(|s| !s.ended).map(|s| s.fd.as_fd());
            let fds: Vec<_> = [self.end.as_fd()].into_iter().chain(streams).collect();
            let ready = ready(&fds, until)?;
            self.out.fill()?;
            self.err.fill()?;
            if ready[0] {
                let (code, killed) = reaper::status(self.pid)?;
                let (out, err) = (self.out.text(), self.err.text());
                return Ok(Outcome { what: self.what, code, killed, out, err, stream: self.out });
            }
            if Instant::now() > until {
                let why =
                    format!("`{}` did not end within {DEADLINE:?}; stderr: {}", self.what, self.err.text().trim());
                self.crash()?;
                return Err(Fail::Failed(why));
            }
        }
    }
}

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Outcome {
    what: String,
    code: i32,
    killed: bool,
    /// All of stdout, so far.
    pub(crate) out: String,
    /// All of stderr, so far.
    pub(crate) err: String,
    /// Stdout, to which a container may still write.
    pub(crate) stream: Stream,
}

impl Outcome {
    /// As a shell counts it.
    pub(crate) fn code(&self) -> i32 {
        self.code
    }

    /// It must have ended with this status.
    pub(crate) fn code_is(self, code: i32) -> Result<Self> {
        check!(
            self.code() == code,
            "`{}` ended with {}, not {code}; stderr: {}",
            self.what,
            self.code(),
            self.err.trim()
        );
        Ok(self)
    }

    /// It must have worked.
    pub(crate) fn ok(self) -> Result<Self> {
        self.code_is(0)
    }

    /// It must have failed by its own decision, and said why.
    pub(crate) fn fails(self) -> Result<Self> {
        check!(self.code() != 0, "`{}` succeeded, and should have failed", self.what);
        check!(!self.killed, "`{}` was killed by signal {}", self.what, self.code - 128);
        check!(!self.err.contains("panicked at"), "`{}` panicked: {}", self.what, self.err);
        Ok(self)
    }

    /// Stderr must have one of these, in any case.
    pub(crate) fn says(self, texts: &[&str]) -> Result<Self> {
        let err = self.err.to_lowercase();
        let found = texts.iter().any(|text| err.contains(&text.to_lowercase()));
        check!(found, "`{}` should say one of {texts:?}, and says: {}", self.what, self.err.trim());
        Ok(self)
    }

    /// Stdout, as one JSON document.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out)
            .map_err(|err| Fail::Failed(format!("`{}` should print JSON ({err}): {}", self.what, self.out)))
    }
}

/// The end of a pipe or terminal that is read from.
#[derive(Debug)]
pub(crate) struct Stream {
    fd: File,
    got: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl Stream {
    /// Reads from this without blocking.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self> {
        nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        Ok(Self { fd: fd.into(), got: Vec::new(), taken: 0, ended: false })
    }

    /// Takes what is there. A terminal whose other side is closed says EIO, which is its end of file.
    fn fill(&mut self) -> io::Result<()> {
        match self.fd.read_to_end(&mut self.got) {
            Ok(_) => self.ended = true,
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            Err(err) if err.raw_os_error() == Some(libc::EIO) => self.ended = true,
            Err(err) => return Err(err),
        }
        Ok(())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.got).into_owned()
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> Result<String> {
        let until = Instant::now() + DEADLINE;
        loop {
            self.fill()?;
            let rest = self.got.get(self.taken..).unwrap_or_default();
            if let Some(end) = rest.iter().position(|&b| b == b'\n') {
                let line = String::from_utf8_lossy(&rest[..end]).trim_end_matches('\r').to_owned();
                self.taken += end + 1;
                return Ok(line);
            }
            check!(!self.ended, "output ended without the line that was awaited, after: {}", self.text());
            let more = ready(&[self.fd.as_fd()], until)? == [true];
            check!(more, "no line of output within {DEADLINE:?}, after: {}", self.text());
        }
    }

    /// Whether the other side is closed by everybody, in time.
    pub(crate) fn ends(&mut self) -> Result<bool> {
        let until = Instant::now() + DEADLINE;
        while !self.ended && Instant::now() < until {
            ready(&[self.fd.as_fd()], until)?;
            self.fill()?;
        }
        Ok(self.ended)
    }

    /// Writes to the other side: for terminals.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self.fd, bytes)
    }

    /// The descriptor itself.
    pub(crate) fn file(&self) -> &File {
        &self.fd
    }
}
