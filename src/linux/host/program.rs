//! The last steps of the child: limits, ids, capabilities, filter, exec.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::str::FromStr;

use caps::{CapSet, Capability};
use nix::sys::stat::{Mode, umask};

use crate::host::{Trouble, program};
use crate::op::{Capabilities, Ids, Op, Tuning};
use crate::state::{State, Status};

use super::beneath::{self, Links};
use super::inside::Inside;
use super::{labels, listener, open_path, sys};

/// Carries out one of the ops of a process.
pub(super) fn run(inside: &Inside<'_>, op: &Op) -> Result<(), Trouble> {
    match op {
        Op::FindProgram { args, env, cwd } => program::find(args, env, cwd).map(drop)?,
        Op::SetOomScore { score } => write_proc("self/oom_score_adj".as_ref(), &score.to_string())?,
        Op::SetRlimit { kind, soft, hard } => {
            let number = resource(kind).ok_or_else(|| format!("{kind} is not a limit of linux"))?;
            sys::setrlimit(number, *soft, *hard)?;
        }
        Op::Tune(tuning) => tune(tuning)?,
        Op::NewKeyring { label } => labels::new_keyring(label.as_deref())?,
        Op::Confine { module, label } => labels::confine(*module, label)?,
        Op::SetIds(ids) => set_ids(ids)?,
        Op::SetCapabilities(sets) => set_capabilities(sets)?,
        Op::NoNewPrivileges => drop(sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?),
        Op::Seccomp { .. } => {
            let filter = inside.prepared.filter.as_ref().ok_or("no filter was compiled")?;
            match &inside.prepared.agent {
                Some((socket, metadata)) => {
                    let state = State { pid: inside.pid, status: Status::Created, ..inside.io.state.clone() };
                    listener::install(filter, socket.as_fd(), metadata, &state)?;
                }
                None => drop(super::bpf::seccomp_install(filter)?),
            }
        }
        Op::ChangeDir { path } => change_dir(path)?,
        Op::Exec { args, env } => return Err(program::exec(args, env)),
        other => return Err(format!("{other}: is not carried out inside a container").into()),
    }
    Ok(())
}

/// Writes a file of the host's procfs, making sure that it is one.
pub(super) fn write_proc(path: &Path, value: &str) -> Result<(), Trouble> {
    let proc = open_path("/proc".as_ref())?;
    beneath::must_be_proc(proc.as_fd())?;
    let file = beneath::open(proc.as_fd(), path, libc::O_WRONLY, Links::Inside)?;
    beneath::must_be_proc(file.as_fd())?;
    Ok(io::Write::write_all(&mut fs::File::from(file), value.as_bytes())?)
}

/// Whether process `pid` is in our namespace of a kind, by the kind's name in /proc/PID/ns.
pub(super) fn same_namespace(pid: Option<i32>, kind: &str) -> io::Result<bool> {
    let Some(pid) = pid else { return Ok(true) };
    let link = |who: &str| match fs::read_link(format!("/proc/{who}/ns/{kind}")) {
        // A kernel without this kind.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Path::new("").into()),
        other => other,
    };
    Ok(link(&pid.to_string())? == link("self")?)
}

/// Numbers of include/uapi/asm-generic/resource.h; the same on all architectures that Rust's Linux targets have but
/// mips and sparc.
fn resource(kind: &str) -> Option<u32> {
    const KINDS: &[(&str, u32)] = &[
        ("RLIMIT_CPU", libc::RLIMIT_CPU),
        ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
        ("RLIMIT_DATA", libc::RLIMIT_DATA),
        ("RLIMIT_STACK", libc::RLIMIT_STACK),
        ("RLIMIT_CORE", libc::RLIMIT_CORE),
        ("RLIMIT_RSS", libc::RLIMIT_RSS),
        ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
        ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
        ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
        ("RLIMIT_AS", libc::RLIMIT_AS),
        ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
        ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
        ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
        ("RLIMIT_NICE", libc::RLIMIT_NICE),
        ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
        ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
    ];
    KINDS.iter().find(|(name, _)| *name == kind).map(|(_, number)| *number)
}

/// Sets how the kernel treats this process.
pub(super) fn tune(tuning: &Tuning) -> io::Result<()> {
    use crate::linux::tuning::{bits, mask, number};
    match tuning {
        Tuning::Personality { domain } => sys::personality(number(domain)),
        Tuning::MemoryPolicy { mode, flags, nodes } => {
            sys::set_mempolicy((number(mode) | bits(flags)) as i32, &mask(nodes).unwrap_or_default())
        }
        Tuning::Scheduler { policy, flags, nice, priority, runtime, deadline, period } => {
            sys::sched_setattr(&sys::Scheduling {
                policy: number(policy) as u32,
                flags: bits(flags),
                nice: *nice,
                priority: *priority,
                runtime: *runtime,
                deadline: *deadline,
                period: *period,
                ..sys::Scheduling::default()
            })
        }
        Tuning::IoPriority { class, level } => sys::ioprio_set(number(class) as i32, i32::from(*level)),
        Tuning::Affinity { cpus } => sys::sched_setaffinity(&mask(cpus).unwrap_or_default()),
    }
}

fn set_ids(ids: &Ids) -> Result<(), Trouble> {
    program::own_stdio(ids);
    sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0)?; // cleared by exec; SetCapabilities says what stays
    sys::set_ids(ids.set_groups.then_some(&ids.groups), ids.gid, ids.uid)?;
    // config.md: unspecified is unchanged; ours was set to 0 for the nodes, and 022 is what runc and login(1) give.
    umask(Mode::from_bits_truncate(ids.umask.unwrap_or(0o022)));
    Ok(())
}

/// The last capability that this kernel has, at most 63.
fn known() -> impl Iterator<Item = Capability> {
    caps::all().into_iter()
}

fn set_capabilities(sets: &Capabilities) -> Result<(), Trouble> {
    // What cannot be granted is left out (config.md, "capabilities": should not fail).
    let granted = caps::read(None, CapSet::Permitted)?;
    let set = |names: &[String], within: &HashSet<Capability>| -> HashSet<Capability> {
        names.iter().filter_map(|name| Capability::from_str(name).ok()).filter(|cap| within.contains(cap)).collect()
    };
    let mask = |set: &HashSet<Capability>| set.iter().fold(0, |all, cap| all | cap.bitmask());
    let everything: HashSet<Capability> = known().collect();
    // Leaving root cleared the effective set; dropping from the bounding set needs CAP_SETPCAP in it.
    sys::capset(mask(&granted), mask(&granted), 0)?;
    let bounding = set(&sets.bounding, &everything);
    for cap in known().filter(|cap| !bounding.contains(cap)) {
        match caps::has_cap(None, CapSet::Bounding, cap) {
            Ok(true) => caps::drop(None, CapSet::Bounding, cap)?,
            _ => continue, // not there, or not known to this kernel
        }
    }
    let permitted = set(&sets.permitted, &granted);
    let (effective, inheritable) = (set(&sets.effective, &permitted), set(&sets.inheritable, &permitted));
    sys::capset(mask(&effective), mask(&permitted), mask(&inheritable))?;
    caps::clear(None, CapSet::Ambient)?;
    for cap in set(&sets.ambient, &permitted).intersection(&inheritable) {
        caps::raise(None, CapSet::Ambient, *cap)?;
    }
    Ok(())
}

/// Changes the directory, and makes sure that it is inside: a descriptor of the host must not be a way out
/// (CVE-2024-21626: the kernel names what is outside "(unreachable)").
fn change_dir(path: &Path) -> Result<(), Trouble> {
    nix::unistd::chdir(path)?;
    let inside = nix::unistd::getcwd().is_ok_and(|cwd| cwd.is_absolute());
    if inside { Ok(()) } else { Err("the directory is outside of the container".into()) }
}
