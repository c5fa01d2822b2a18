/*! What a case works with: a directory, an id, a runtime, and containers that are awaited by their events. */

use std::cell::RefCell;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use conformance::{Answer, Report};
use nix::cmsg_space;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::bundle::{Bundle, Probe};
use crate::case::{Fail, Result};
use crate::reaper::{self, ready};
use crate::runtime::{DEADLINE, Outcome, Running, Runtime, Stream, Verb};
use crate::{check, skip, sys, system, world};

/// The surroundings of one case.
pub(crate) struct Ctx {
    /// The runtime that is judged.
    pub(crate) runtime: Runtime,
    /// A directory of the case's own.
    pub(crate) dir: PathBuf,
    /// What the runtime gets as `--root`.
    pub(crate) root: PathBuf,
    /// Id of the case's container, and part of all its other ids.
    pub(crate) id: String,
    /// The program in the containers.
    pub(crate) probe: Probe,
    ids: RefCell<Vec<String>>,
}

impl Ctx {
    /// Makes the directory.
    pub(crate) fn new(runtime: &Runtime, probe: &Probe, dir: PathBuf, id: String) -> io::Result<Self> {
        fs::create_dir(&dir)?;
        File::create(dir.join("empty"))?;
        let (root, ids) = (dir.join("root"), RefCell::new(vec![id.clone()]));
        Ok(Self { runtime: runtime.clone(), root, dir, id, probe: probe.clone(), ids })
    }

    /// Another id of this case.
    pub(crate) fn other(&self, suffix: &str) -> String {
        let id = format!("{}{suffix}", self.id);
        self.ids.borrow_mut().push(id.clone());
        id
    }

    /// Force deletes every container of the case; what cannot be deleted is told.
    pub(crate) fn clean_up(&self) -> Vec<String> {
        let delete = |id: &String| match self.verb(&["delete", "--force", id]).and_then(Verb::go).and_then(Outcome::ok)
        {
            Ok(_) => None,
            Err(Fail::Failed(why) | Fail::Skipped(why)) => Some(why),
        };
        self.ids.borrow().iter().rev().filter_map(delete).collect()
    }

    /// A call of the runtime.
    pub(crate) fn verb(&self, words: &[&str]) -> Result<Verb> {
        Ok(Verb::new(&self.runtime, &self.root, File::open(self.dir.join("empty"))?, words))
    }

    /// The same, from start to end.
    pub(crate) fn call(&self, words: &[&str]) -> Result<Outcome> {
        self.verb(words)?.go()
    }

    /// Skips the case if the runtime has no such verb.
    pub(crate) fn needs_verb(&self, verb: &str) -> Result {
        if self.call(&[verb, "--help"])?.code() != 0 {
            skip!("the runtime has no `{verb}`");
        }
        Ok(())
    }

    /// Skips the case if the verb has no such flag.
    pub(crate) fn needs_flag(&self, verb: &str, flag: &str) -> Result {
        let help = self.call(&[verb, "--help"])?;
        if !help.out.contains(flag) && !help.err.contains(flag) {
            skip!("`{verb}` has no {flag}");
        }
        Ok(())
    }

    /// The bundle of the case.
    pub(crate) fn bundle(&self) -> Result<Bundle> {
        self.bundle_at("bundle", &self.id)
    }

    /// Another bundle.
    pub(crate) fn bundle_at(&self, name: &str, id: &str) -> Result<Bundle> {
        Ok(Bundle::new(self.dir.join(name), &self.probe, id)?)
    }

    /// `create`, ready to be started.
    pub(crate) fn create_verb(&self, bundle: &Bundle, id: &str) -> Result<Verb> {
        self.create_with(bundle, &[], id)
    }

    /// `create` with more flags, ready to be started.
    pub(crate) fn create_with(&self, bundle: &Bundle, flags: &[&str], id: &str) -> Result<Verb> {
        bundle.write()?;
        let pid_file = self.dir.join(format!("{id}.pid"));
        let verb = self.verb(&["create", "--bundle"])?.arg(&bundle.dir).arg("--pid-file").arg(pid_file);
        Ok(verb.args(flags).arg(id))
    }

    /// A created container.
    pub(crate) fn create(&self, bundle: &Bundle) -> Result<Container<'_>> {
        self.create_as(bundle, &self.id)
    }

    /// A created container of another id.
    pub(crate) fn create_as(&self, bundle: &Bundle, id: &str) -> Result<Container<'_>> {
        let outcome = self.create_verb(bundle, id)?.go()?.ok()?;
        self.created(id, outcome)
    }

    /// The container that a successful `create` has made.
    pub(crate) fn created(&self, id: &str, outcome: Outcome) -> Result<Container<'_>> {
        let text = fs::read_to_string(self.dir.join(format!("{id}.pid")))?;
        let pid = text.trim().parse().map_err(|_| Fail::Failed(format!("pid file holds {text:?}")))?;
        let end = system::watch(pid)?;
        Ok(Container { ctx: self, id: id.to_owned(), pid, end, out: outcome.stream })
    }

    /// A running container whose process has said `ready`.
    pub(crate) fn start(&self, bundle: &Bundle) -> Result<Container<'_>> {
        let mut container = self.create(bundle)?;
        container.start()?;
        container.expect("ready")?;
        Ok(container)
    }

    /// `run` in the foreground, ready to be started.
    pub(crate) fn run_verb(&self, bundle: &Bundle) -> Result<Verb> {
        bundle.write()?;
        Ok(self.verb(&["run", "--bundle"])?.arg(&bundle.dir).arg(&self.id))
    }

    /// `run` in the foreground.
    pub(crate) fn run(&self, bundle: &Bundle) -> Result<Outcome> {
        self.run_verb(bundle)?.go()
    }

    /// What the probe sees as the container's process.
    pub(crate) fn report(&self, bundle: &mut Bundle) -> Result<Report> {
        bundle.args(&["/probe", "report"]);
        parse(&self.run(bundle)?.ok()?.out)
    }

    /// What comes of trying these things as the container's process.
    pub(crate) fn ask(&self, bundle: &mut Bundle, ops: &[&str]) -> Result<Vec<Answer>> {
        bundle.args(&[&["/probe", "do"], ops].concat());
        parse(&self.run(bundle)?.ok()?.out)
    }

    /// `create` must fail, and leave nothing.
    pub(crate) fn refuses(&self, bundle: &Bundle) -> Result<Outcome> {
        let before = world::World::now()?;
        let outcome = self.create_verb(bundle, &self.id)?.go()?.fails()?;
        self.nothing_left(&before)?;
        Ok(outcome)
    }

    /// `run` must fail before the probe says anything, and leave nothing.
    pub(crate) fn will_not_run(&self, bundle: &Bundle) -> Result<Outcome> {
        let before = world::World::now()?;
        let outcome = self.run(bundle)?.fails()?;
        check!(outcome.out.is_empty(), "the process was started: {}", outcome.out);
        self.nothing_left(&before)?;
        Ok(outcome)
    }

    /// No container, and nothing that one has left.
    pub(crate) fn nothing_left(&self, before: &world::World) -> Result {
        self.call(&["state", &self.id])?.fails()?;
        let leaks = before.leaks(&self.id, &self.root)?;
        check!(leaks.is_empty(), "left behind: {}", leaks.join(", "));
        Ok(())
    }

    /// The probe as a program outside of any container.
    pub(crate) fn helper(&self, words: &[&str]) -> Result<Helper> {
        self.helper_in(&[], words)
    }

    /// The probe in new namespaces (flags of unshare(1)), once it has said `ready`.
    pub(crate) fn helper_in(&self, unshare: &[&str], words: &[&str]) -> Result<Helper> {
        let mut command = if unshare.is_empty() { Command::new(&self.probe.path) } else { Command::new("unshare") };
        if !unshare.is_empty() {
            command.args(unshare).arg(&self.probe.path);
        }
        let mut child =
            command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let Some(out) = child.stdout.take() else { skip!("no pipe to the helper") };
        Ok(Helper { out: Stream::new(out.into())?, child })
    }

    /// A socket on which a terminal will be received.
    pub(crate) fn console(&self) -> Result<Console> {
        let path = self.dir.join("console.sock");
        Ok(Console { socket: UnixListener::bind(&path)?, path })
    }
}

/// The one line of JSON that the probe has printed.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).map_err(|err| Fail::Failed(format!("the probe's report is not whole ({err}): {text:?}")))
}

/// What the probe could do.
pub(crate) trait Tried {
    /// It worked, with this result.
    fn worked(&self) -> Result<&Value>;
    /// It failed, with one of these.
    fn failed_with(&self, errnos: &[i32]) -> Result;
}

impl Tried for Answer {
    fn worked(&self) -> Result<&Value> {
        match self {
            Self::Ok(value) => Ok(value),
            Self::Errno(errno) => {
                Err(Fail::Failed(format!("should have worked: {}", nix::errno::Errno::from_raw(*errno))))
            }
        }
    }

    fn failed_with(&self, errnos: &[i32]) -> Result {
        let names: Vec<_> = errnos.iter().map(|&errno| nix::errno::Errno::from_raw(errno)).collect();
        match self {
            Self::Errno(errno) if errnos.contains(errno) => Ok(()),
            other => Err(Fail::Failed(format!("should have failed with one of {names:?}: {other:?}"))),
        }
    }
}

/// A container that `create` has made.
pub(crate) struct Container<'c> {
    ctx: &'c Ctx,
    /// Its id.
    pub(crate) id: String,
    /// Its first process, in our pid namespace.
    pub(crate) pid: i32,
    end: OwnedFd,
    /// What it says.
    pub(crate) out: Stream,
}

impl Container<'_> {
    /// `start`.
    pub(crate) fn start(&self) -> Result {
        self.ctx.call(&["start", &self.id])?.ok().map(drop)
    }

    /// `state`.
    pub(crate) fn state(&self) -> Result<Value> {
        self.ctx.call(&["state", &self.id])?.ok()?.json()
    }

    /// It must have this status.
    pub(crate) fn status_is(&self, status: &str) -> Result {
        let state = self.state()?;
        check!(state["status"] == status, "status should be {status:?}: {state}");
        Ok(())
    }

    /// `kill`.
    pub(crate) fn kill(&self, signal: &str) -> Result {
        self.ctx.call(&["kill", &self.id, signal])?.ok().map(drop)
    }

    /// Its process must say this.
    pub(crate) fn expect(&mut self, line: &str) -> Result {
        let got = self.out.line()?;
        check!(got == line, "the process should say {line:?}, and says {got:?}");
        Ok(())
    }

    /// Its process must say that it got this signal.
    pub(crate) fn expect_signal(&mut self, signal: i32) -> Result {
        self.expect(&format!("signal {signal}"))
    }

    /// Awaits the end of its process, whose reaper is the suite. As a shell counts it.
    pub(crate) fn wait(&self) -> Result<i32> {
        let ended = ready(&[self.end.as_fd()], Instant::now() + DEADLINE)? == [true];
        check!(ended, "process {} did not end within {DEADLINE:?}", self.pid);
        Ok(reaper::status(self.pid)?.0)
    }

    /// Whether its process lives.
    pub(crate) fn alive(&self) -> Result<bool> {
        Ok(ready(&[self.end.as_fd()], Instant::now())? == [false])
    }

    /// SIGKILL and the end of it.
    pub(crate) fn stop(&self) -> Result {
        self.kill("KILL")?;
        self.wait().map(drop)
    }

    /// `delete`.
    pub(crate) fn delete(&self) -> Result {
        self.ctx.call(&["delete", &self.id])?.ok().map(drop)
    }

    /// `exec`, ready to be started.
    pub(crate) fn exec(&self, flags: &[&str], words: &[&str]) -> Result<Verb> {
        Ok(self.ctx.verb(&["exec"])?.args(flags).arg(&self.id).args(words))
    }

    /// What the probe sees as a second process.
    pub(crate) fn exec_report(&self, flags: &[&str]) -> Result<Report> {
        parse(&self.exec(flags, &["/probe", "report"])?.go()?.ok()?.out)
    }

    /// What comes of trying these things as a second process.
    pub(crate) fn exec_ask(&self, flags: &[&str], ops: &[&str]) -> Result<Vec<Answer>> {
        parse(&self.exec(flags, &[&["/probe", "do"], ops].concat())?.go()?.ok()?.out)
    }
}

/// A process beside the containers, which ends with the case.
pub(crate) struct Helper {
    child: std::process::Child,
    /// What it says.
    pub(crate) out: Stream,
}

impl Helper {
    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if kill(Pid::from_raw(self.pid()), Signal::SIGKILL).is_ok() {
            world::ended(self.pid(), Instant::now() + DEADLINE).ok();
        }
    }
}

/// A console socket, as conmon or containerd's shim has one.
pub(crate) struct Console {
    socket: UnixListener,
    /// Where it is.
    pub(crate) path: PathBuf,
}

impl Console {
    /// The one terminal that comes with one message over one connection.
    pub(crate) fn receive(&self) -> Result<Stream> {
        let until = Instant::now() + DEADLINE;
        check!(ready(&[self.socket.as_fd()], until)? == [true], "nobody has connected to the console socket");
        let (peer, _) = self.socket.accept()?;
        check!(ready(&[peer.as_fd()], until)? == [true], "nothing was sent to the console socket");
        let mut fds = receive_fds(&peer)?.1;
        check!(fds.len() == 1, "one descriptor should come with the message, not {}", fds.len());
        let Some(fd) = fds.pop() else { return Err(Fail::Failed("no descriptor".into())) };
        Stream::new(fd)
    }
}

/// One message and the descriptors that came with it.
pub(crate) fn receive_fds(peer: &impl AsRawFd) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut payload = vec![0; 1 << 16];
    let mut space = cmsg_space!([std::os::fd::RawFd; 8]);
    let mut parts = [io::IoSliceMut::new(&mut payload)];
    let message = recvmsg::<()>(peer.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            fds.extend(sys::received(&raw));
        }
    }
    let bytes = message.bytes;
    payload.truncate(bytes);
    Ok((payload, fds))
}

/// Awaits the end of a detached process, and takes its status.
pub(crate) fn await_pid(pid: i32) -> Result<i32> {
    check!(world::ended(pid, Instant::now() + DEADLINE)?, "process {pid} did not end within {DEADLINE:?}");
    Ok(reaper::status(pid)?.0)
}

/// Awaits one more line from a call that is under way.
pub(crate) fn expect_line(running: &mut Running, line: &str) -> Result {
    let got = running.out.line()?;
    check!(got == line, "the process should say {line:?}, and says {got:?}");
    Ok(())
}
