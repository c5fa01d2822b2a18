//! A small machine for the tests: state that enforces order, and faults.
//!
//! [`Fake`] carries out the ops of either operating system on a [`Machine`], which is plain data: two of them are
//! compared with `==`. Nothing runs in it, and nothing of the real machine is touched: it is a tool of the tests, never
//! a back end.
//!
//! What a test can do to it is a [`Fault`]. Death is an unwinding that only [`until_death`] ends, so that what comes
//! after the fatal instant does not happen: no rollback, no line in the journal, just as after SIGKILL.

mod inside;
mod machine;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::facts::Os;
use crate::host::{Host, Trouble};
use crate::op::Op;

pub use inside::{Process, Stage};
pub use machine::{Cgroup, Dataset, Jail, Link, LinkKind, Machine, Mounted, Net};

/// What goes wrong. Ops are counted from 0, from the moment that the faults were set.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// This op fails, and the machine is as before.
    Fail(usize),
    /// potrun is killed before it carries out this op.
    DieBefore(usize),
    /// potrun is killed after it has carried out this op.
    DieAfter(usize),
    /// The first process fails in this of its steps, counted over `create` and `start`.
    FailInside(usize),
    /// This op fails the next `times` times.
    Stuck {
        /// The op.
        op: Op,
        /// How often.
        times: usize,
    },
}

/// One potrun on a machine.
#[derive(Clone, Debug)]
pub struct Fake {
    /// The machine; it outlives this potrun.
    pub machine: Machine,
    child: Option<i32>,
    faults: Vec<Fault>,
    ran: usize,
}

/// The payload of a death.
struct Died;

/// Carries out `work` until it ends, or until a [`Fault`] kills it: then `None`.
pub fn until_death<T>(work: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(value) => Some(value),
        Err(payload) if payload.is::<Died>() => None,
        Err(panic) => resume_unwind(panic),
    }
}

impl Fake {
    /// A new potrun on a machine: it knows nothing of processes that others have started.
    #[must_use]
    pub fn new(machine: Machine) -> Self {
        Self { machine, child: None, faults: Vec::new(), ran: 0 }
    }

    /// Replaces all faults, and counts ops from 0 again.
    pub fn set(&mut self, faults: Vec<Fault>) {
        self.faults = faults;
        self.ran = 0;
    }

    /// How many ops were asked for since the faults were set.
    #[must_use]
    pub fn ran(&self) -> usize {
        self.ran
    }

    /// The process that this potrun has started.
    #[must_use]
    pub fn child(&self) -> Option<&Process> {
        self.machine.processes.get(&self.child?)
    }

    /// The container is on record: its first process no longer ends with this potrun.
    pub fn commit(&mut self) {
        if let Some(process) = self.child.and_then(|pid| self.machine.processes.get_mut(&pid)) {
            process.committed = true;
        }
    }

    /// The first process does the steps of `start`.
    ///
    /// # Errors
    /// What kept it from becoming the program; then it has ended.
    pub fn start(&mut self) -> Result<(), Trouble> {
        let pid = self.child.ok_or("no process to start")?;
        let mut next = self.machine.clone();
        match next.start(pid, self.inside()) {
            Ok(()) => {
                self.machine = next;
                Ok(())
            }
            Err(what) => {
                self.machine.kill(pid);
                Err(what.into())
            }
        }
    }

    fn inside(&self) -> Option<usize> {
        self.faults.iter().find_map(|fault| if let Fault::FailInside(step) = fault { Some(*step) } else { None })
    }

    /// potrun ends, however it does: a process that is not on record yet ends with it (`PR_SET_PDEATHSIG`,
    /// `PROC_PDEATHSIG_CTL`).
    pub fn end(&mut self) {
        if let Some(pid) = self.child.filter(|_| self.child().is_some_and(|process| !process.committed)) {
            self.machine.kill(pid);
        }
        self.child = None;
    }

    fn die(&mut self) -> ! {
        self.end();
        resume_unwind(Box::new(Died))
    }

    fn stuck(&mut self, op: &Op) -> bool {
        self.faults.iter_mut().any(|fault| match fault {
            Fault::Stuck { op: one, times } if one == op && *times > 0 => {
                *times -= 1;
                true
            }
            _ => false,
        })
    }

    fn carry_out(&mut self, op: &Op) -> Result<(), String> {
        let (mut next, mut child) = (self.machine.clone(), self.child);
        match next.carry_out(op, &mut child, self.inside()) {
            Ok(()) => {
                (self.machine, self.child) = (next, child);
                Ok(())
            }
            Err(what) => {
                // The first process that fails has ended: there is no way back from that.
                if let (Op::Resume, Some(pid)) = (op, self.child) {
                    self.machine.kill(pid);
                }
                Err(what)
            }
        }
    }
}

impl Host for Fake {
    fn run(&mut self, op: &Op) -> Result<(), Trouble> {
        let n = self.ran;
        self.ran += 1;
        if self.faults.contains(&Fault::DieBefore(n)) {
            self.die();
        }
        if self.faults.contains(&Fault::Fail(n)) || self.stuck(op) {
            return Err("fault".into());
        }
        if let Some(what) = self.cannot(op) {
            return Err(what.into());
        }
        let result = self.carry_out(op);
        if self.faults.contains(&Fault::DieAfter(n)) {
            self.die();
        }
        Ok(result?)
    }

    fn taken(&self, op: &Op) -> Option<String> {
        self.machine.taken(op)
    }

    fn cannot(&self, op: &Op) -> Option<String> {
        let only = match op {
            Op::HostTarget { .. }
            | Op::HostMount { .. }
            | Op::HostUnmount { .. }
            | Op::LendInterface { .. }
            | Op::ReclaimInterface { .. }
            | Op::LoadAnchor { .. }
            | Op::FlushAnchor { .. }
            | Op::EnsureAnchor { .. }
            | Op::ReleaseAnchor { .. }
            | Op::AddRctl { .. }
            | Op::RemoveRctl { .. }
            | Op::SetCpuset { .. }
            | Op::CreateJail { .. }
            | Op::RemoveJail { .. } => Some(Os::Freebsd),
            Op::UseBase { .. }
            | Op::ReleaseBase { .. }
            | Op::CreateLayer { .. }
            | Op::TakeUpLayer { .. }
            | Op::FreezeLayer { .. }
            | Op::ThawLayer { .. }
            | Op::LeaveLayer { .. }
            | Op::ForgetLayer { .. }
            | Op::RemoveLayer { .. }
            | Op::RouteLoopback { .. }
            | Op::ReleaseForwarding { .. }
            | Op::EnsureNft { .. }
            | Op::ReleaseNft { .. }
            | Op::LoadNft { .. }
            | Op::FlushNft { .. }
            | Op::CreateCgroup { .. }
            | Op::RemoveCgroup { .. }
            | Op::SetCgroup { .. }
            | Op::LendDevice { .. }
            | Op::ReclaimDevice { .. }
            | Op::CreateResctrl { .. }
            | Op::RemoveResctrl { .. }
            | Op::SetSchemata { .. }
            | Op::JoinResctrl { .. }
            | Op::CreateUnit { .. }
            | Op::RemoveUnit { .. }
            | Op::SetUnit { .. }
            | Op::ConfineAddresses { .. }
            | Op::FilterDevices { .. } => Some(Os::Linux),
            _ => None,
        };
        let other = only.filter(|os| *os != self.machine.os)?;
        Some(format!("{op}: is of {other}"))
    }
}
