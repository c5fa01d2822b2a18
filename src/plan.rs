//! Bundle + facts + id -> the list of steps, or everything that is wrong with the bundle at once.
//!
//! Pure: no IO, no clock, no random, no `cfg`. As much as possible is decided here, because here it can be printed and
//! tested on every operating system; a [`Host`](crate::host::Host) only carries out.

pub mod bridge;
pub mod clone;
pub mod dataset;
pub mod files;
pub mod lease;
pub mod network;
pub mod process;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::bundle::{Bundle, Problem, Refusal};
use crate::facts::{Facts, Os};
use crate::id::ContainerId;
use crate::op::{Hook, Moment, Op};
use crate::state::Group;
use crate::{freebsd, linux};

/// What will be done to the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The operating system that it is for.
    pub os: Os,
    /// `create`, in order; the steps of the first process are inside its `spawn`.
    pub ops: Vec<Op>,
    /// Where the root file system is, as state JSON tells it.
    pub rootfs: PathBuf,
    /// What holds the container's processes together.
    pub group: Option<Group>,
    /// What the pot has of the network, if not the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<network::Attached>,
    /// What was left out because this caller cannot have it: said, not hidden.
    pub notes: Vec<String>,
}

/// Translates `bundle` for the machine of `facts`.
///
/// # Errors
/// All that is wrong with the bundle, or that potrun does not carry out, each with its JSON pointer.
pub fn plan(bundle: &Bundle, facts: &Facts, id: &ContainerId) -> Result<Plan, Refusal> {
    let mut draft = Draft { bundle, facts, id, problems: Vec::new(), notes: Vec::new() };
    draft.check_base();
    draft.check_fscomps();
    let mut plan = match facts.os {
        Os::Linux => linux::plan::order(&mut draft),
        Os::Freebsd => freebsd::plan::order(&mut draft),
    };
    // What it says it has said already.
    let (notes, network) = (draft.notes.clone(), network::attached(&mut draft));
    let Draft { mut problems, .. } = draft;
    if !problems.is_empty() {
        // Planners say /pot, wherever the section stands.
        let at = bundle.pot_at();
        for problem in &mut problems {
            if let Some(below) = problem.at.strip_prefix("/pot").filter(|b| b.is_empty() || b.starts_with('/')) {
                problem.at = format!("{at}{below}");
            }
        }
        problems.sort();
        problems.dedup();
        return Err(Refusal(problems));
    }
    (plan.notes, plan.network) = (notes, network);
    Ok(plan)
}

impl Plan {
    /// The unit that systemd makes for the container.
    #[must_use]
    pub fn unit(&self) -> Option<&linux::systemd::Unit> {
        self.ops.iter().find_map(|op| match op {
            Op::CreateUnit { unit, .. } => Some(unit),
            _ => None,
        })
    }

    /// Leaves the first process the session keyring of potrun's caller.
    pub fn keep_keyring(&mut self) {
        for op in &mut self.ops {
            if let Op::Spawn(spawn) = op {
                spawn.create.retain(|op| !matches!(op, Op::NewKeyring { .. }));
            }
        }
    }
}

/// A plan in the making: what it is made from, and what is wrong so far.
pub struct Draft<'a> {
    /// The bundle.
    pub bundle: &'a Bundle,
    /// The machine.
    pub facts: &'a Facts,
    /// The container.
    pub id: &'a ContainerId,
    problems: Vec<Problem>,
    notes: Vec<String>,
}

impl Draft<'_> {
    /// Refuses the bundle for what stands at `at`.
    pub fn refuse(&mut self, at: impl Into<String>, what: impl Into<String>) {
        self.problems.push(Problem::new(at, what));
    }

    /// Refuses a member that is understood and not carried out.
    pub fn not_yet(&mut self, at: impl Into<String>) {
        let os = self.facts.os;
        self.refuse(at, format!("is not carried out on {os} yet"));
    }

    /// Says what is left out, once.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// The hooks of a moment, in their order.
    #[must_use]
    pub fn hooks(&self, moment: Moment) -> Vec<Hook> {
        hooks(self.bundle, moment)
    }

    fn check_base(&mut self) {
        let Some(wanted) = self.bundle.pot.as_ref().and_then(|pot| pot.base.as_ref()) else { return };
        match (&self.facts.base, &wanted.digest) {
            (None, _) => self.refuse("/pot/base/release", format!("base {} is not imported", wanted.release)),
            (Some(base), Some(digest)) if base.digest.as_ref() != Some(digest) => {
                let has = base.digest.as_deref().unwrap_or("an unknown digest").to_string();
                self.refuse("/pot/base/digest", format!("base {} was imported with {has}", wanted.release));
            }
            _ => {}
        }
    }

    fn check_fscomps(&mut self) {
        for (n, fscomp) in self.bundle.pot.iter().flat_map(|pot| &pot.fscomps).enumerate() {
            if !self.facts.fscomps.contains_key(&fscomp.name) {
                self.refuse(format!("/pot/fscomps/{n}/name"), format!("fscomp {} does not exist", fscomp.name));
            }
        }
    }
}

/// The hooks of a moment, in their order.
#[must_use]
pub fn hooks(bundle: &Bundle, moment: Moment) -> Vec<Hook> {
    let Some(all) = bundle.spec.hooks() else { return Vec::new() };
    let list = match moment {
        Moment::Prestart => crate::bundle::deprecated_prestart(all),
        Moment::CreateRuntime => all.create_runtime(),
        Moment::CreateContainer => all.create_container(),
        Moment::StartContainer => all.start_container(),
        Moment::Poststart => all.poststart(),
        Moment::Poststop => all.poststop(),
    };
    let hook = |hook: &oci_spec::runtime::Hook| Hook {
        moment,
        path: hook.path().clone(),
        args: hook.args().clone().unwrap_or_default(),
        env: hook.env().clone().unwrap_or_default(),
        timeout: hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()),
    };
    list.iter().flatten().map(hook).collect()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for op in &self.ops {
            writeln!(f, "{op}")?;
            let Op::Spawn(spawn) = op else { continue };
            for inner in &spawn.create {
                writeln!(f, "    {inner}")?;
            }
            writeln!(f, "    wait for start")?;
            for inner in &spawn.start {
                writeln!(f, "    {inner}")?;
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "left out: {note}"))
    }
}

/// Translates other limits for the group of a container that runs.
///
/// # Errors
/// All that is wrong with them, each with its JSON pointer.
pub fn update(
    bundle: &Bundle,
    facts: &Facts,
    id: &ContainerId,
    mut resources: oci_spec::runtime::LinuxResources,
    group: &Group,
    unit: Option<&linux::systemd::Unit>,
) -> Result<Vec<Op>, Refusal> {
    let mut bundle = bundle.clone();
    let mut linux = bundle.spec.linux().clone().unwrap_or_default();
    // Which devices it may open is settled at create, as in runc.
    resources.set_devices(None);
    linux.set_resources(Some(resources));
    bundle.spec.set_linux(Some(linux));
    bundle.pot = None;
    let mut draft = Draft { bundle: &bundle, facts, id, problems: Vec::new(), notes: Vec::new() };
    let ops = match group {
        Group::Cgroup(path) => linux::resources::update(&mut draft, path, unit),
        Group::Jail(jail) => {
            let asked = bundle.spec.linux().as_ref().and_then(|linux| linux.resources().clone());
            freebsd::limits::update(&mut draft, jail, &asked.unwrap_or_default())
        }
    };
    if draft.problems.is_empty() { Ok(ops) } else { Err(Refusal(draft.problems)) }
}

/// Translates one more process of a container that runs: `asked`, beside the process of `record`.
///
/// # Errors
/// All that is wrong with it, each with its JSON pointer within the process.
pub fn exec(
    bundle: &Bundle,
    record: &crate::state::Record,
    asked: &oci_spec::runtime::Process,
    labels: crate::facts::Labels,
) -> Result<Plan, Refusal> {
    let facts = Facts { euid: record.euid, labels, ..Facts::assumed(record.os, bundle) };
    let mut draft = Draft { bundle, facts: &facts, id: &record.id, problems: Vec::new(), notes: Vec::new() };
    let plan = match (record.os, &record.group) {
        (Os::Freebsd, Some(Group::Jail(jail))) => freebsd::plan::exec(&mut draft, asked, jail),
        (_, Some(Group::Cgroup(path))) => linux::plan::exec(&mut draft, asked, record.process.pid, Some(path.clone())),
        _ => linux::plan::exec(&mut draft, asked, record.process.pid, None),
    };
    if draft.problems.is_empty() { Ok(plan) } else { Err(Refusal(draft.problems)) }
}
