//! Limits as files of a cgroup v2 (Documentation/admin-guide/cgroup-v2.rst).

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use crate::bundle::pot::Limits;
use crate::bundle::read::pointer;
use crate::facts::{Cgroup, Manager};
use crate::op::Op;
use crate::plan::Draft;

use super::systemd::{self, Property, Unit};

/// One file to write: the controller that must be there, the file, the value, and who asked for it.
struct Write {
    controller: &'static str,
    file: String,
    value: String,
    at: String,
}

impl Write {
    /// Whether it asks for what a group has that no controller holds back.
    fn is_no_limit(&self) -> bool {
        let all = self.value.split(' ').next() == Some("max");
        // ctr(8) gives every container the shares that every group has by itself.
        all || self.at == "/linux/resources/cpu/shares" && self.value == weight(1024).to_string()
    }
}

/// The period of `cpu.max` in microseconds: the kernel's default.
const PERIOD: u64 = 100_000;

/// The container's group, or `None` where there is no cgroup2 to make it in.
#[must_use]
pub fn path(draft: &mut Draft<'_>) -> Option<PathBuf> {
    let asked = draft.bundle.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    let Some(cgroup) = draft.facts.cgroup.clone() else {
        draft.note("a cgroup: no cgroup2 hierarchy that this caller can write to");
        return None;
    };
    if cgroup.systemd.is_some() {
        let unit = unit(draft)?;
        // What is no slice was refused with the unit.
        return Some(cgroup.parent.join(systemd::below(&unit.slice).ok()?).join(unit.name));
    }
    let Some(asked) = asked.filter(|path| !path.as_os_str().is_empty()) else {
        return Some(cgroup.parent.join(format!("potrun-{}", draft.id)));
    };
    let text = asked.to_string_lossy();
    if text.split(':').count() == 3 && !text.contains('/') {
        draft.refuse("/linux/cgroupsPath", format!("{text:?} is systemd's form: give --systemd-cgroup"));
        return None;
    }
    let plain = |part: std::path::Component<'_>| !matches!(part, std::path::Component::ParentDir);
    if !asked.components().all(plain) || asked.file_name().is_none() {
        draft.refuse("/linux/cgroupsPath", "must name a group, without ..");
        return None;
    }
    Some(match asked.strip_prefix("/") {
        Ok(below) => cgroup.mount.join(below),
        Err(_) => cgroup.parent.join(&asked),
    })
}

/// The unit of the container, where systemd makes the groups.
fn unit(draft: &mut Draft<'_>) -> Option<Unit> {
    let manager = draft.facts.cgroup.as_ref()?.systemd?;
    let asked = draft.bundle.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone()).unwrap_or_default();
    let found = systemd::unit(&asked.to_string_lossy(), draft.id.as_str(), manager == Manager::User);
    found.map_err(|what| draft.refuse("/linux/cgroupsPath", what)).ok()
}

/// The properties that annotations give the unit, by their names.
fn annotated(draft: &mut Draft<'_>) -> Vec<Property> {
    let mut said: Vec<(&String, &String)> = draft.bundle.spec.annotations().iter().flatten().collect();
    said.sort_unstable();
    let mut all: Vec<Property> = Vec::new();
    for (key, value) in said {
        let Some(name) = key.strip_prefix(systemd::ANNOTATION) else { continue };
        match systemd::annotated(name, value) {
            Ok((name, _)) if all.iter().any(|(one, _)| *one == name) => {
                draft.refuse(pointer("/annotations", key), format!("says {name} once more"));
            }
            Ok(property) => all.push(property),
            Err(what) => draft.refuse(pointer("/annotations", key), what),
        }
    }
    all
}

/// The limits among the steps, as properties of a unit that has these already. The later one of a name wins.
fn properties(mut all: Vec<Property>, limits: &[Op]) -> Vec<Property> {
    for op in limits {
        let Op::SetCgroup { file, value, .. } = op else { continue };
        for (name, value) in systemd::properties(file, value) {
            all.retain(|(one, _)| *one != name);
            all.push((name, value));
        }
    }
    all
}

/// The steps that make the group and set its limits.
#[must_use]
pub fn steps(draft: &mut Draft<'_>, path: Option<&Path>) -> Vec<Op> {
    let limits = limits(draft, path);
    // First, because it makes the groups above, too; controllers appear in it as they are enabled there.
    let group = path.map(|path| match unit(draft) {
        Some(unit) => {
            let properties = properties(annotated(draft), &limits);
            Op::CreateUnit { unit, path: path.into(), properties }
        }
        None => Op::CreateCgroup { path: path.into() },
    });
    group.into_iter().chain(limits).collect()
}

/// The steps that set other limits of a group that is there. Its unit is told last: it is asked for nothing then that the
/// kernel has not taken.
#[must_use]
pub fn update(draft: &mut Draft<'_>, path: &Path, unit: Option<&Unit>) -> Vec<Op> {
    let mut ops = limits(draft, Some(path));
    let properties = properties(Vec::new(), &ops);
    ops.extend(unit.filter(|_| !properties.is_empty()).map(|unit| Op::SetUnit { unit: unit.clone(), properties }));
    ops
}

/// The steps that set the limits of a group.
fn limits(draft: &mut Draft<'_>, path: Option<&Path>) -> Vec<Op> {
    let mut writes = writes(draft);
    let controllers = draft.facts.cgroup.iter().flat_map(|cgroup| cgroup.controllers.clone()).collect::<Vec<_>>();
    let mut nothing = Vec::new();
    writes.retain(|write| {
        let needed = !write.is_no_limit() || controllers.iter().any(|name| name == write.controller);
        if !needed {
            nothing.push(format!("{}: no controller {}, so no limit, as is asked", write.at, write.controller));
        }
        needed
    });
    nothing.into_iter().for_each(|note| draft.note(note));
    let (Some(path), Some(cgroup)) = (path, draft.facts.cgroup.clone()) else {
        for write in writes {
            draft.refuse(write.at, "there is no cgroup2 hierarchy that could keep this limit");
        }
        return Vec::new();
    };
    for write in &writes {
        if !write.controller.is_empty() && !cgroup.controllers.iter().any(|name| name == write.controller) {
            let has = if cgroup.controllers.is_empty() { "none".into() } else { cgroup.controllers.join(" ") };
            draft.refuse(
                write.at.clone(),
                format!("needs the cgroup v2 controller {}; this host's cgroup2 has {has}", write.controller),
            );
        }
    }
    // systemd enables what a scope with Delegate= can have.
    let mut ops = if cgroup.systemd.is_some() { Vec::new() } else { enable(&cgroup, path, &writes) };
    for Write { file, value, .. } in writes {
        ops.push(Op::SetCgroup { path: path.into(), file, value });
    }
    ops
}

/// A controller works in a group only if all groups above enabled it for their children.
fn enable(cgroup: &Cgroup, path: &Path, writes: &[Write]) -> Vec<Op> {
    let mut names: Vec<&str> = writes.iter().map(|write| write.controller).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Vec::new();
    }
    let value: Vec<String> = names.iter().map(|name| format!("+{name}")).collect();
    let mut above: Vec<PathBuf> =
        path.ancestors().skip(1).take_while(|dir| dir.starts_with(&cgroup.mount)).map(Into::into).collect();
    above.reverse();
    let file = String::from("cgroup.subtree_control");
    above.into_iter().map(|path| Op::SetCgroup { path, file: file.clone(), value: value.join(" ") }).collect()
}

fn writes(draft: &mut Draft<'_>) -> Vec<Write> {
    let mut all = Vec::new();
    let resources = draft.bundle.spec.linux().as_ref().and_then(|linux| linux.resources().clone());
    if let Some(resources) = resources {
        of_linux(draft, &resources, &mut all);
    }
    if let Some(limits) = draft.bundle.pot.as_ref().map(|pot| pot.limits.clone()) {
        of_pot(&limits, &mut all);
    }
    all
}

fn of_pot(limits: &Limits, all: &mut Vec<Write>) {
    let mut add = |controller, file: &str, value: String, member: &str| {
        all.push(Write { controller, file: file.into(), value, at: format!("/pot/limits/{member}") });
    };
    if let Some(bytes) = limits.memory {
        add("memory", "memory.max", bytes.to_string(), "memory");
    }
    if let Some(millicpus) = limits.millicpus {
        add("cpu", "cpu.max", format!("{} {PERIOD}", millicpus * PERIOD / 1000), "cpus");
    }
    if let Some(list) = &limits.cpuset {
        add("cpuset", "cpuset.cpus", list.clone(), "cpuset");
    }
    if let Some(pids) = limits.pids {
        add("pids", "pids.max", pids.to_string(), "pids");
    }
}

/// `max` for the OCI's -1.
fn or_max(n: i64) -> String {
    if n < 0 { "max".into() } else { n.to_string() }
}

/// cgroup v1's cpu.shares (2 to 262144, 1024 by default) as cgroup v2's cpu.weight (1 to 10000, 100 by default).
/// The conversion that runc and crun share since 2025 (opencontainers/cgroups `ConvertCPUSharesToCgroupV2Value`,
/// <https://github.com/containers/crun/pull/1767>) is quadratic in the logarithm; this one is the linear one of
/// KEP-2254 that was used before and that the OCI specification names.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn of_linux(draft: &mut Draft<'_>, resources: &LinuxResources, all: &mut Vec<Write>) {
    let mut add = |controller, file: &str, value: String, member: &str| {
        all.push(Write { controller, file: file.into(), value, at: format!("/linux/resources/{member}") });
    };
    if let Some(memory) = resources.memory() {
        if let Some(limit) = memory.limit() {
            add("memory", "memory.max", or_max(limit), "memory/limit");
        }
        if let Some(low) = memory.reservation() {
            add("memory", "memory.low", or_max(low), "memory/reservation");
        }
        if let Some(swap) = memory.swap() {
            // The OCI counts memory and swap together, cgroup v2 swap alone (config-linux.md, "Memory").
            let alone = match memory.limit() {
                _ if swap < 0 => -1,
                Some(limit) if limit >= 0 && swap >= limit => swap - limit,
                _ => {
                    draft.refuse("/linux/resources/memory/swap", "needs a memory limit that is not above it");
                    0
                }
            };
            add("memory", "memory.swap.max", or_max(alone), "memory/swap");
        }
        if memory.disable_oom_killer() == Some(true) {
            draft.refuse("/linux/resources/memory/disableOOMKiller", "cgroup v2 cannot do this");
        }
        for (name, given) in [("kernel", memory.kernel()), ("kernelTCP", memory.kernel_tcp())] {
            if given.is_some_and(|limit| limit > 0) {
                draft.refuse(format!("/linux/resources/memory/{name}"), "cgroup v2 cannot do this");
            }
        }
        if memory.swappiness().is_some() {
            draft.refuse("/linux/resources/memory/swappiness", "cgroup v2 cannot do this");
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
            add("cpu", "cpu.weight", weight(shares).to_string(), "cpu/shares");
        }
        if cpu.quota().is_some() || cpu.period().is_some() {
            let quota = cpu.quota().filter(|quota| *quota > 0).map_or_else(|| "max".into(), |n| n.to_string());
            add("cpu", "cpu.max", format!("{quota} {}", cpu.period().unwrap_or(PERIOD)), "cpu/quota");
        }
        if let Some(burst) = cpu.burst() {
            add("cpu", "cpu.max.burst", burst.to_string(), "cpu/burst");
        }
        if let Some(idle) = cpu.idle() {
            add("cpu", "cpu.idle", idle.to_string(), "cpu/idle");
        }
        if let Some(cpus) = cpu.cpus().as_ref().filter(|list| !list.is_empty()) {
            add("cpuset", "cpuset.cpus", cpus.clone(), "cpu/cpus");
        }
        if let Some(mems) = cpu.mems().as_ref().filter(|list| !list.is_empty()) {
            add("cpuset", "cpuset.mems", mems.clone(), "cpu/mems");
        }
        for (name, given) in
            [("realtimeRuntime", cpu.realtime_runtime().is_some()), ("realtimePeriod", cpu.realtime_period().is_some())]
        {
            if given {
                draft.refuse(format!("/linux/resources/cpu/{name}"), "cgroup v2 cannot do this");
            }
        }
    }
    if let Some(pids) = resources.pids() {
        let limit = if pids.limit() > 0 { pids.limit().to_string() } else { "max".into() };
        add("pids", "pids.max", limit, "pids/limit");
    }
    for (n, huge) in resources.hugepage_limits().iter().flatten().enumerate() {
        let file = format!("hugetlb.{}.max", huge.page_size());
        add("hugetlb", &file, or_max(huge.limit()), &format!("hugepageLimits/{n}"));
    }
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        let at = format!("/linux/resources/unified/{}", file.replace('/', "~1"));
        if file.contains('/') || !file.contains('.') {
            draft.refuse(at, "is not the name of a file of a cgroup");
            continue;
        }
        // `cgroup.freeze` and its like are there without a controller.
        let controller = ["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"]
            .into_iter()
            .find(|name| file.split('.').next() == Some(name))
            .unwrap_or("");
        all.push(Write { controller, file: file.clone(), value: value.clone(), at });
    }
    block_io(draft, resources, all);
    let network = resources.network().as_ref();
    if network.is_some_and(|net| net.class_id().is_some() || net.priorities().as_ref().is_some_and(|p| !p.is_empty())) {
        draft.refuse("/linux/resources/network", "cgroup v2 cannot do this");
    }
    let mut rdma: Vec<_> = resources.rdma().iter().flatten().collect();
    rdma.sort_by_key(|(device, _)| *device);
    for (device, limits) in rdma {
        let word = |name: &str, limit: Option<u32>| limit.map(|limit| format!(" {name}={limit}")).unwrap_or_default();
        let (handles, objects) = (word("hca_handle", limits.hca_handles()), word("hca_object", limits.hca_objects()));
        let at = format!("/linux/resources/rdma/{device}");
        all.push(Write {
            controller: "rdma",
            file: "rdma.max".into(),
            value: format!("{device}{handles}{objects}"),
            at,
        });
    }
}

/// Weights and rates of block devices.
fn block_io(draft: &mut Draft<'_>, resources: &LinuxResources, all: &mut Vec<Write>) {
    let Some(io) = resources.block_io() else { return };
    let at = |member: &str| format!("/linux/resources/blockIO/{member}");
    // 10 to 1000 there, 1 to 10000 here: runc's conversion (opencontainers/cgroups `ConvertBlkIOToIOWeightValue`).
    let weight = |weight: u16| 1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990;
    let mut add = |file: &str, value: String, at: String| {
        all.push(Write { controller: "io", file: file.into(), value, at });
    };
    if let Some(given) = io.weight().filter(|given| *given != 0) {
        add("io.weight", format!("default {}", weight(given)), at("weight"));
    }
    for (n, device) in io.weight_device().iter().flatten().enumerate() {
        if let Some(given) = device.weight() {
            let value = format!("{}:{} {}", device.major(), device.minor(), weight(given));
            add("io.weight", value, at(&format!("weightDevice/{n}")));
        }
    }
    for (member, word, devices) in [
        ("throttleReadBpsDevice", "rbps", io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", "wbps", io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", "riops", io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", "wiops", io.throttle_write_iops_device()),
    ] {
        for (n, device) in devices.iter().flatten().enumerate() {
            let value = format!("{}:{} {word}={}", device.major(), device.minor(), device.rate());
            add("io.max", value, at(&format!("{member}/{n}")));
        }
    }
    for (name, given) in [("leafWeight", io.leaf_weight().is_some_and(|given| given != 0))] {
        if given {
            draft.refuse(at(name), "cgroup v2 cannot do this");
        }
    }
}
