//! `update`: other limits for a container that runs.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::host::this;
use crate::op::Op;
use crate::state::{Group, Status};
use crate::store::Store;

/// Arguments of `update`.
#[derive(Debug, Args)]
pub struct Update {
    /// File with the limits as config.json has them in /linux/resources, or - for the standard input
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Weight of block io, 10 to 1000
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u16>,
    /// Period of the CPU quota in microseconds
    #[arg(long, value_name = "N")]
    cpu_period: Option<u64>,
    /// CPU time in each period in microseconds, -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// CPU time that may be saved up, in microseconds
    #[arg(long, value_name = "N")]
    cpu_burst: Option<u64>,
    /// Weight of the CPU, 2 to 262144
    #[arg(long, value_name = "N")]
    cpu_share: Option<u64>,
    /// Period of real-time scheduling in microseconds
    #[arg(long, value_name = "N")]
    cpu_rt_period: Option<u64>,
    /// Real-time CPU time in each period in microseconds
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// 1: run only when nobody else wants to
    #[arg(long, value_name = "N")]
    cpu_idle: Option<i64>,
    /// Processors: 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// NUMA nodes: 0-1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory: bytes, or with k, m, g, t; -1 for no limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = size)]
    memory: Option<i64>,
    /// Memory that is not taken away lightly
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = size)]
    memory_reservation: Option<i64>,
    /// Memory and swap together
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = size)]
    memory_swap: Option<i64>,
    /// Processes and threads, -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// What it gets of the processors' caches (Intel RDT): L3:0=ffff0;1=ffff0
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// What it gets of the bandwidth to memory (Intel RDT): MB:0=20;1=20
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// The container
    pub id: String,
}

/// Bytes, or with a suffix as runc has them: powers of 1024.
fn size(text: &str) -> Result<i64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches("ib").trim_end_matches('b');
    let (number, unit) = match digits.char_indices().next_back() {
        Some((at, 'k')) => (&digits[..at], 1 << 10),
        Some((at, 'm')) => (&digits[..at], 1 << 20),
        Some((at, 'g')) => (&digits[..at], 1 << 30),
        Some((at, 't')) => (&digits[..at], 1_i64 << 40),
        _ => (digits, 1),
    };
    let bytes = number.parse::<i64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes >= -1).ok_or_else(|| "is not a number of bytes such as 512m".into())
}

impl cli::Run for Update {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let store = Store::at(&context.root);
        let id = super::id(&self.id)?;
        let entry = store.find(&id)?;
        let _lock = entry.lock()?;
        let (entry, record, status) = super::find_made(&store, &id)?;
        if matches!(status, Status::Stopped | Status::Creating) {
            return Err(Error::caller("container not running"));
        }
        let resources = self.resources()?;
        let Some(group) = &record.group else {
            return Err(Error::caller("the container has no control group whose limits could be changed"));
        };
        check_use(&resources, group)?;
        let bundle = super::saved(&entry, &record)?;
        let mut facts = this::facts::gather(&bundle, &id, &context.root, &context.store)?;
        if record.unit.is_some() {
            facts.cgroup = Some(this::facts::managed()?);
        }
        let schemata = crate::linux::rdt::lines(self.l3_cache_schema.as_deref(), self.mem_bw_schema.as_deref());
        let mut ops = Vec::new();
        if !schemata.is_empty() {
            ops.push(crate::linux::rdt::update(&bundle, &facts, &id, schemata).map_err(Error::caller)?);
        }
        let limits = crate::plan::update(&bundle, &facts, &id, resources, group, record.unit.as_ref())
            .map_err(|e| super::refused(e.into()))?;
        ops.extend(limits);
        all_or_none(&ops)?;
        Ok(0)
    }
}

/// Memory that is in use is not taken away where that was asked for (config-linux.md, `checkBeforeUpdate`): the kernel
/// would kill to get it.
fn check_use(resources: &LinuxResources, group: &Group) -> Result<()> {
    let Some(memory) = resources.memory().filter(|memory| memory.check_before_update() == Some(true)) else {
        return Ok(());
    };
    let files = this::process::usage(group).doing(|| format!("look at {group}"))?;
    let used = files.get("memory.current").and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(0);
    match memory.limit().filter(|limit| *limit >= 0 && *limit < used) {
        Some(limit) => Err(Error::caller(format!("the container uses {used} bytes of memory, more than {limit}"))),
        None => Ok(()),
    }
}

/// Writes the limits; one that the kernel refuses takes back those before it.
fn all_or_none(ops: &[Op]) -> Result<()> {
    use crate::host::{Host, This};
    let mut host = This::new();
    let mut before: Vec<Op> = Vec::new();
    for op in ops {
        // A controller that is enabled for the groups below stays so: it limits nothing.
        let old = match op {
            Op::RemoveRctl { filter } => {
                let rules = this::process::rules(filter).doing(|| format!("read the rules of {filter}"))?;
                rules.into_iter().map(|rule| Op::AddRctl { rule }).collect()
            }
            // Taken back before what it replaced comes back.
            Op::AddRctl { rule } => vec![Op::RemoveRctl { filter: rule.clone() }],
            Op::SetCgroup { path, file, .. } if file != "cgroup.subtree_control" => {
                let value = fs::read_to_string(path.join(file)).doing(|| format!("read {file} of the container"))?;
                vec![Op::SetCgroup { path: path.clone(), file: file.clone(), value: value.trim().into() }]
            }
            Op::SetSchemata { path, .. } => {
                let text = fs::read_to_string(path.join("schemata")).doing(|| "read schemata of the container")?;
                let lines = text.lines().map(|line| line.trim().to_string()).collect();
                vec![Op::SetSchemata { path: path.clone(), lines }]
            }
            _ => Vec::new(),
        };
        if let Err(trouble) = host.run(op) {
            let error = Error::operator(op.to_string()).because(crate::error::chain(&*trouble));
            return Err(before.iter().rev().fold(error, |error, old| match host.run(old) {
                Ok(()) => error,
                Err(e) => error.hint(format!("left: {old}: {}", crate::error::chain(&*e))),
            }));
        }
        before.extend(old);
    }
    Ok(())
}

impl Update {
    /// What is asked for: the file's, or the flags'.
    fn resources(&self) -> Result<LinuxResources> {
        if let Some(path) = &self.resources {
            let text = if path == Path::new("-") {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map(|_| text)
            } else {
                fs::read_to_string(path)
            };
            let text = text.doing(|| format!("read {}", path.display()))?;
            return serde_json::from_str(&text).doing(|| format!("read {}", path.display()));
        }
        let mut all = LinuxResources::default();
        let mut memory = LinuxMemory::default();
        memory.set_limit(self.memory).set_reservation(self.memory_reservation).set_swap(self.memory_swap);
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(self.cpu_share).set_quota(self.cpu_quota).set_period(self.cpu_period);
        cpu.set_burst(self.cpu_burst).set_idle(self.cpu_idle);
        cpu.set_realtime_period(self.cpu_rt_period).set_realtime_runtime(self.cpu_rt_runtime);
        cpu.set_cpus(self.cpuset_cpus.clone()).set_mems(self.cpuset_mems.clone());
        all.set_memory(Some(memory)).set_cpu(Some(cpu));
        if let Some(limit) = self.pids_limit {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            all.set_pids(Some(pids));
        }
        if self.blkio_weight.is_some() {
            let mut io = LinuxBlockIo::default();
            io.set_weight(self.blkio_weight);
            all.set_block_io(Some(io));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [("0", 0), ("-1", -1), ("10k", 10240), ("1M", 1 << 20), ("2gb", 2 << 30), ("1KiB", 1024)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "k", "1x", "-2", "9999999999999t", "1.5g"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
