//! The container's first process: the ops of a `Spawn`, in a state of its own that ends with it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::facts::Os;
use crate::op::{Moment, Op, Root, Spawn};

use super::machine::{Answer, Link, LinkKind, Machine, Net};

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It does its steps.
    Works,
    /// It waits for [`Op::Resume`].
    AwaitsRuntime,
    /// It has done all of `create`.
    Ready,
    /// It has done all of `start`.
    Runs,
}

/// A process that potrun has started.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// How far it is.
    pub stage: Stage,
    /// The control group that it is in.
    pub cgroup: Option<PathBuf>,
    /// The jail that it is in.
    pub jail: Option<String>,
    /// Whether it outlives the potrun that started it.
    pub committed: bool,
    spawn: Spawn,
    /// How many of its steps, over `create` and `start`, it has done.
    done: usize,
    propagated: bool,
    root: Option<Root>,
    pub(super) mounts: Vec<PathBuf>,
    entered: bool,
    resumed: bool,
    hostname: BTreeSet<String>,
    no_new_privileges: bool,
    ids: bool,
    capabilities: bool,
    seccomp: bool,
    program: bool,
}

impl Process {
    /// Whether it has a namespace of this kind of its own.
    #[must_use]
    pub fn owns(&self, kind: &str) -> bool {
        self.spawn.namespaces.iter().any(|name| name == kind)
    }

    fn has(&self, kind: &str) -> bool {
        self.owns(kind) || self.spawn.like.is_some() || self.spawn.join.iter().any(|(name, _)| name == kind)
    }

    /// Whether its root file system is made of what is below `path`.
    pub(super) fn stands_on(&self, path: &Path) -> bool {
        match &self.root {
            Some(Root::Overlay { lower, layers, layer }) => {
                lower.starts_with(path) || layer.starts_with(path) || layers.iter().any(|one| one.starts_with(path))
            }
            Some(Root::Bind { source }) => source.starts_with(path),
            None => false,
        }
    }
}

fn need(there: bool, what: &str) -> Answer {
    if there { Ok(()) } else { Err(what.into()) }
}

impl Machine {
    /// Starts a process and lets it work until it waits.
    pub(super) fn spawn(&mut self, spawn: &Spawn, fails_at: Option<usize>) -> Result<i32, String> {
        if let Some(path) = &spawn.cgroup {
            let group = self.cgroups.get(path).ok_or_else(|| format!("there is no cgroup {}", path.display()))?;
            need(!group.files.contains_key("cgroup.subtree_control"), "the cgroup has controllers enabled")?;
        }
        if let Some(pid) = spawn.like {
            need(self.processes.contains_key(&pid), "there is no process whose namespaces could be joined")?;
        }
        let user = spawn.namespaces.iter().any(|name| name == "user");
        need(user || (spawn.uid_map.is_empty() && spawn.gid_map.is_empty()), "id maps need a user namespace")?;
        let pid = self.processes.keys().next_back().map_or(100, |last| last + 1);
        let process = Process {
            stage: Stage::Works,
            cgroup: spawn.cgroup.clone(),
            jail: None,
            committed: false,
            spawn: spawn.clone(),
            done: 0,
            propagated: false,
            root: None,
            mounts: Vec::new(),
            entered: false,
            resumed: false,
            hostname: BTreeSet::new(),
            no_new_privileges: false,
            ids: false,
            capabilities: false,
            seccomp: false,
            program: false,
        };
        if process.owns("network") {
            self.links.insert((Net::Process(pid), "lo".into()), Link::new(LinkKind::Loopback, ""));
        }
        self.processes.insert(pid, process);
        self.work(pid, fails_at)?;
        Ok(pid)
    }

    /// The process goes on from where it awaits the runtime.
    pub(super) fn resume(&mut self, pid: i32, fails_at: Option<usize>) -> Answer {
        let process = self.process(pid)?;
        need(process.stage == Stage::AwaitsRuntime, "the first process does not wait for the runtime")?;
        process.stage = Stage::Works;
        process.resumed = true;
        self.work(pid, fails_at)
    }

    /// The process does the steps of `start`.
    pub(super) fn start(&mut self, pid: i32, fails_at: Option<usize>) -> Answer {
        let process = self.process(pid)?;
        need(process.stage == Stage::Ready, "the first process does not wait for start")?;
        let (first, steps) = (process.spawn.create.len(), process.spawn.start.clone());
        for (n, op) in steps.iter().enumerate() {
            need(fails_at != Some(first + n), "fault")?;
            self.step(pid, op, true).map_err(|what| format!("{op}: {what}"))?;
        }
        self.process(pid)?.stage = Stage::Runs;
        Ok(())
    }

    fn work(&mut self, pid: i32, fails_at: Option<usize>) -> Answer {
        let process = self.process(pid)?;
        let (done, steps) = (process.done, process.spawn.create.clone());
        for (n, op) in steps.iter().enumerate().skip(done) {
            need(fails_at != Some(n), "fault")?;
            self.step(pid, op, false).map_err(|what| format!("{op}: {what}"))?;
            let process = self.process(pid)?;
            process.done = n + 1;
            // Who calls the runtime goes on beside it. Here, where one thing happens after the other, it goes on when the
            // runtime has done its part: the two touch nothing in common.
            if matches!(op, Op::CallRuntime | Op::AwaitRuntime) && !process.resumed {
                process.stage = Stage::AwaitsRuntime;
                return Ok(());
            }
        }
        self.process(pid)?.stage = Stage::Ready;
        Ok(())
    }

    fn process(&mut self, pid: i32) -> Result<&mut Process, String> {
        self.processes.get_mut(&pid).ok_or_else(|| "the first process is gone".into())
    }

    /// One step. The rules are those that the kernels enforce, or that the order of a plan relies on.
    #[allow(clippy::too_many_lines)] // one arm per variant, as in op.rs
    fn step(&mut self, pid: i32, op: &Op, starting: bool) -> Answer {
        let (freebsd, seen) = (self.os == Os::Freebsd, |machine: &Self, path: &Path| machine.exists(path));
        let process = self.process(pid)?;
        need(!process.program, "nothing comes after the program")?;
        let mounting = process.root.is_some() && !process.entered;
        match op {
            Op::CallRuntime => need(!starting && !process.resumed, "the runtime is called once, in create"),
            Op::AwaitRuntime => need(!starting, "the runtime is awaited in create"),
            Op::AttachJail { name } => {
                need(freebsd && process.jail.is_none(), "a jail is entered once, on freebsd")?;
                need(self.jails.contains_key(name), "there is no such jail")?;
                let process = self.process(pid)?;
                process.jail = Some(name.clone());
                process.entered = true;
                Ok(())
            }
            Op::Propagate { .. } => {
                need(process.owns("mount") && process.root.is_none(), "comes first, in a mount namespace")?;
                process.propagated = true;
                Ok(())
            }
            Op::MountRoot(root) => {
                let host_sees = !process.propagated && !process.has("mount");
                need(!host_sees && process.root.is_none(), "comes once, and nothing of it may reach the host")?;
                match root {
                    Root::Bind { source } => need(seen(self, source), "there is no such directory")?,
                    Root::Overlay { lower, layers, layer } => {
                        let there = layers.iter().all(|one| self.shared.contains(one));
                        let below = self.lies_on.get(layer).map_or(&[] as &[PathBuf], Vec::as_slice);
                        need(there && below == layers, "the layer does not lie on these")?;
                        need(self.bases.keys().any(|base| lower.starts_with(base)), "there is no such base")?;
                        need(self.layers.contains_key(layer), "there is no such layer")?;
                        let used = self.bases.iter().any(|(base, users)| lower.starts_with(base) && !users.is_empty());
                        need(used, "nobody has noted the use of the base")?;
                    }
                }
                self.process(pid)?.root = Some(root.clone());
                Ok(())
            }
            Op::Mount(mount) => {
                need(mounting, "there is no root to mount in")?;
                let bind = mount.fstype == "bind";
                let target = mount.target.clone();
                need(target.is_absolute() && target != Path::new("/"), "is no place in the root")?;
                need(!bind || seen(self, &mount.source), "there is no such source")?;
                self.process(pid)?.mounts.push(target);
                Ok(())
            }
            Op::BindConsole => {
                let pts = process.mounts.iter().any(|target| target == Path::new("/dev/pts"));
                need(mounting && pts && process.spawn.terminal, "needs a terminal and its file system")
            }
            Op::WriteFile { path, text, .. } => {
                need(mounting, "there is no root to write to")?;
                let place = match &process.root {
                    Some(Root::Overlay { layer, .. }) => layer.join("upper"),
                    Some(Root::Bind { source }) => source.clone(),
                    None => return Err("there is no root".into()),
                };
                self.write(&place.join(path.strip_prefix("/").unwrap_or(path)), text)
            }
            // In a jail the process itself makes it, before it gives up its rights.
            Op::CreateCwd { .. } if freebsd => need(process.jail.is_some(), "would be on the host"),
            Op::CreateNode(_) | Op::Link { .. } | Op::Mask { .. } | Op::MakeReadonly { .. } | Op::CreateCwd { .. } => {
                need(mounting, "there is no root yet, or no more")
            }
            Op::EnterRoot { .. } => {
                need(mounting && !starting, "needs a root, once")?;
                process.entered = true;
                Ok(())
            }
            Op::SetHostname { name } | Op::SetDomainname { name } => {
                need(process.has("uts"), "would rename the host")?;
                process.hostname.insert(name.clone());
                Ok(())
            }
            Op::Sysctl { .. } => need(
                !process.entered && process.has("network") | process.has("ipc") | process.has("uts"),
                "would be the host's",
            ),
            Op::LoopbackUp => {
                need(process.owns("network"), "would be the host's")?;
                let link =
                    self.links.get_mut(&(Net::Process(pid), "lo".into())).ok_or("there is no loopback interface")?;
                link.up = true;
                Ok(())
            }
            Op::PresetIpv6 { .. } => need(process.owns("network") && !process.entered, "would be the host's"),
            Op::Hook(hook) => match hook.moment {
                Moment::CreateContainer => need(!starting && !process.entered, "comes before the root is entered"),
                Moment::StartContainer => need(starting && process.entered, "comes inside, at start"),
                _ => Err("is not for the first process".into()),
            },
            Op::FindProgram { .. } => {
                need(!starting && (process.entered || process.spawn.like.is_some()), "comes when the root is entered")
            }
            Op::SetOomScore { .. } => need(!process.entered, "needs the host's /proc"),
            Op::NewKeyring { .. } => need(!starting && process.root.is_none(), "comes before there is a root"),
            Op::Relabel { .. } => need(mounting, "there is no root yet, or no more"),
            Op::Confine { .. } => need(
                starting && !process.seccomp && !process.ids,
                "needs the rights of root, and calls that the filter may forbid",
            ),
            Op::SetRlimit { .. } => need(starting && !process.ids, "needs the rights of root"),
            Op::Tune(_) => need(starting && !process.ids, "needs the rights of root"),
            Op::NoNewPrivileges => {
                process.no_new_privileges = true;
                need(starting, "is for start")
            }
            Op::Seccomp { .. } => {
                let may = process.no_new_privileges || !process.capabilities;
                need(starting && may && !process.seccomp, "needs CAP_SYS_ADMIN, or no new privileges")?;
                process.seccomp = true;
                Ok(())
            }
            Op::ChangeDir { .. } => {
                need(starting && (process.entered || process.spawn.like.is_some()), "would be a directory of the host")
            }
            Op::SetIds(_) => {
                need(starting && !process.ids && !process.capabilities, "needs the rights of root, once")?;
                process.ids = true;
                Ok(())
            }
            Op::SetCapabilities(_) => {
                need(starting && process.ids && !process.capabilities, "comes after the ids, once")?;
                process.capabilities = true;
                Ok(())
            }
            Op::Exec { .. } => {
                need(starting && process.ids, "comes last")?;
                need(process.entered || process.spawn.like.is_some(), "would run on the host")?;
                process.program = true;
                Ok(())
            }
            other => Err(format!("{other}: is not for the first process")),
        }
    }
}
