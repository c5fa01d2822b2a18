//! The ledger of addresses and host ports: one file a host, whatever `--root` its callers give, so that no two pots get
//! the same.
//!
//! ```text
//! potrun leases 1 0000000110 0000000178           where the first leases begin, and where the log does
//! = 10.192.0.3-10.192.0.4 tcp 1024 udp - bound -  what the first leases have, as runs
//! + web1 10.192.0.3 tcp/1024 /run/potrun/web1     the first leases: id, addresses, ports, owner
//! + web2 10.192.0.4 - /run/potrun/web2
//! - web1 10.192.0.3 tcp/1024 /run/potrun/web1     the log: what ended and what came since
//! ```
//!
//! Who wants to know what is free reads the runs and the log, and the log is never long: after [`LOG`] bytes the file is
//! written anew, with all leases before an empty log, and takes its place by rename(2). In between a line is added or
//! not: one that was cut by a kill lacks its end, and does not count. Who has something is looked for among the leases,
//! which takes longer; that is asked only to say it, and to end a lease.
//!
//! Whoever changes a network that pots share (a bridge, an anchor, the ledger) holds the lock of the file beside it, from
//! looking at the machine until it has done so. A lease whose owner, a state directory, is gone is one of the
//! [`orphans`]: `gc` ends it, and a create that finds no room.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::bundle::pot::{Pot, Protocol};
use crate::facts::Leased;
use crate::id::ContainerId;
use crate::op::Op;
use crate::ranges::Ranges;

/// How many bytes the log grows to: some sixty lines. Reading them takes no longer than a few system calls, and writing
/// the file anew is shared by as many takes and ends (`cargo bench --bench ledger`).
const LOG: u64 = 4 << 10;

/// A port of the host: `tcp/80` of all its addresses, or `udp/192.0.2.1:53`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
    /// Address of the host; all where absent.
    pub host: Option<IpAddr>,
}

impl Port {
    /// Whether two pots cannot have both.
    #[must_use]
    pub fn collides(&self, other: &Self) -> bool {
        let hosts = self.host.is_none() || other.host.is_none() || self.host == other.host;
        self.protocol == other.protocol && self.port == other.port && hosts
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            None => write!(f, "{}/{}", self.protocol.word(), self.port),
            Some(host) => write!(f, "{}/{}", self.protocol.word(), SocketAddr::new(host, self.port)),
        }
    }
}

/// Text that is not a [`Port`].
#[derive(Debug, thiserror::Error)]
#[error("not a port of a host: PROTOCOL/[ADDRESS:]PORT")]
pub struct NotAPort;

impl FromStr for Port {
    type Err = NotAPort;

    fn from_str(text: &str) -> Result<Self, NotAPort> {
        let (word, rest) = text.split_once('/').ok_or(NotAPort)?;
        let known = [Protocol::Tcp, Protocol::Udp];
        let protocol = known.into_iter().find(|one| one.word() == word).ok_or(NotAPort)?;
        match (rest.parse(), rest.parse::<SocketAddr>()) {
            (Ok(port), _) => Ok(Self { protocol, port, host: None }),
            (_, Ok(at)) => Ok(Self { protocol, port: at.port(), host: Some(at.ip()) }),
            _ => Err(NotAPort),
        }
    }
}

impl Serialize for Port {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What one pot has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The container.
    pub id: ContainerId,
    /// Its state directory: the mark.
    pub owner: PathBuf,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its ports of the host.
    pub ports: Vec<Port>,
}

impl Lease {
    fn line(&self, sign: char) -> io::Result<String> {
        let owner = self.owner.to_str().filter(|owner| !owner.contains('\n'));
        let owner = owner.ok_or_else(|| {
            let what = format!("{}: a ledger keeps only paths that are text of one line", self.owner.display());
            io::Error::new(io::ErrorKind::InvalidInput, what)
        })?;
        let (addresses, ports) = (words(&self.addresses), words(&self.ports));
        Ok(format!("{sign} {} {addresses} {ports} {owner}\n", self.id))
    }

    fn read(rest: &str) -> Option<Self> {
        let mut fields = rest.splitn(4, ' ');
        let mut field = || fields.next();
        let (id, addresses, ports, owner) = (field()?, field()?, field()?, field()?);
        let id = ContainerId::new(id).ok()?;
        Some(Self { id, addresses: all_of(addresses)?, ports: all_of(ports)?, owner: owner.into() })
    }

    /// Whether its owner is known to be gone.
    fn orphan(&self) -> bool {
        let gone = |e: &io::Error| matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        fs::metadata(&self.owner).is_err_and(|e| gone(&e))
    }
}

/// Words in a line, none of which has a blank or a comma.
fn words<T: fmt::Display>(all: &[T]) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    if all.is_empty() { "-".into() } else { all.join(",") }
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|word| *word != "-")
}

fn all_of<T: FromStr>(text: &str) -> Option<Vec<T>> {
    split(text).map(|word| word.parse().ok()).collect()
}

impl Leased {
    fn add(&mut self, lease: &Lease) {
        lease.addresses.iter().for_each(|one| self.addresses.insert(*one, *one));
        for port in &lease.ports {
            match (port.host, port.protocol) {
                (Some(_), _) => drop(self.bound.insert(*port)),
                (None, Protocol::Tcp) => self.tcp.insert(port.port, port.port),
                (None, Protocol::Udp) => self.udp.insert(port.port, port.port),
            }
        }
    }

    fn end(&mut self, lease: &Lease) {
        lease.addresses.iter().for_each(|one| self.addresses.remove(*one));
        for port in &lease.ports {
            match (port.host, port.protocol) {
                (Some(_), _) => drop(self.bound.remove(port)),
                (None, Protocol::Tcp) => self.tcp.remove(port.port),
                (None, Protocol::Udp) => self.udp.remove(port.port),
            }
        }
    }

    fn line(&self) -> String {
        let runs = |all: Vec<String>| words(&all);
        let (tcp, udp) = (runs(self.tcp.words().collect()), runs(self.udp.words().collect()));
        let bound: Vec<Port> = self.bound.iter().copied().collect();
        let addresses = runs(self.addresses.words().collect());
        format!("= {addresses} tcp {tcp} udp {udp} bound {}\n", words(&bound))
    }

    fn read(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(' ').collect();
        let ["=", addresses, "tcp", tcp, "udp", udp, "bound", bound] = fields[..] else { return None };
        Some(Self {
            addresses: Ranges::parse(split(addresses))?,
            tcp: Ranges::parse(split(tcp))?,
            udp: Ranges::parse(split(udp))?,
            bound: all_of(bound)?.into_iter().collect(),
            holders: BTreeMap::new(),
        })
    }
}

/// The lock of a host's pot networks; it ends with this value.
#[derive(Debug)]
pub struct Networks {
    _lock: Flock<File>,
}

/// Waits for the lock of the host's pot networks.
///
/// # Errors
/// The kernel's words.
pub fn lock(ledger: &Path) -> io::Result<Networks> {
    let path = beside(ledger, ".lock");
    if let Some(above) = ledger.parent() {
        fs::create_dir_all(above)?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    loop {
        match Flock::lock(file.try_clone()?, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(Networks { _lock: lock }),
            Err((_, nix::errno::Errno::EINTR)) => {}
            Err((_, e)) => return Err(e.into()),
        }
    }
}

fn beside(ledger: &Path, end: &str) -> PathBuf {
    let mut path = ledger.as_os_str().to_owned();
    path.push(end);
    path.into()
}

/// The file, as far as it must be read to know what is free.
#[derive(Debug)]
struct Ledger {
    path: PathBuf,
    file: File,
    /// Where the first leases begin.
    leases_at: u64,
    /// Where the log begins.
    log_at: u64,
    /// Where its last whole line ends.
    whole: u64,
    leased: Leased,
}

const HEAD: &str = "potrun leases 1 ";

/// Bytes of the first line: two numbers of ten digits, a blank between, a line break behind.
const HEAD_LEN: usize = HEAD.len() + 10 + 1 + 10 + 1;

impl Ledger {
    /// Opens the file, if there is one.
    fn open(path: &Path, write: bool) -> io::Result<Option<Self>> {
        let mut file = match File::options().read(true).append(write).open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let damaged = |what: &str| damaged(path, what);
        let mut head = vec![0; HEAD_LEN];
        file.read_exact(&mut head).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it has no first line"),
            _ => e,
        })?;
        let numbers = std::str::from_utf8(&head).ok().and_then(|head| head.strip_prefix(HEAD));
        let numbers = numbers.and_then(|text| text.trim_end().split_once(' '));
        let numbers = numbers.and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?)));
        let (leases_at, log_at) = numbers.ok_or_else(|| damaged("its first line"))?;
        if leases_at < HEAD_LEN as u64 || log_at < leases_at {
            return Err(damaged("its first line"));
        }
        let mut index = String::new();
        (&mut file).take(leases_at - HEAD_LEN as u64).read_to_string(&mut index)?;
        let leased = index.strip_suffix('\n').and_then(Leased::read).ok_or_else(|| damaged("its runs"))?;
        file.seek(SeekFrom::Start(log_at))?;
        let mut log = Vec::new();
        file.read_to_end(&mut log)?;
        let whole = log.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut this = Self { path: path.into(), file, leases_at, log_at, whole: log_at, leased };
        for line in log[..whole].split_inclusive(|byte| *byte == b'\n') {
            let text = std::str::from_utf8(line).ok().and_then(|text| Line::read(text.trim_end_matches('\n')));
            match text.ok_or_else(|| damaged(&String::from_utf8_lossy(line)))? {
                Line::Take(lease) => this.leased.add(&lease),
                Line::End(lease) => this.leased.end(&lease),
            }
            this.whole += line.len() as u64;
        }
        Ok(Some(this))
    }

    /// The leases, and the log.
    fn text(&mut self) -> io::Result<String> {
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(self.leases_at))?;
        (&mut self.file).take(self.whole - self.leases_at).read_to_string(&mut text)?;
        Ok(text)
    }

    /// All that is leased, by owner.
    fn all(&mut self) -> io::Result<BTreeMap<PathBuf, Lease>> {
        let mut all = BTreeMap::new();
        for line in self.text()?.lines() {
            match Line::read(line).ok_or_else(|| damaged(&self.path, line))? {
                Line::Take(lease) => drop(all.insert(lease.owner.clone(), lease)),
                Line::End(lease) => drop(all.remove(&lease.owner)),
            }
        }
        Ok(all)
    }

    /// The lease of an owner: the last line that ends in its path is about it.
    fn of(&mut self, owner: &Path) -> io::Result<Option<Lease>> {
        let text = self.text()?;
        let end = format!(" {}\n", owner.display());
        let mut before = text.as_str();
        while let Some(at) = before.rfind(&end) {
            let start = before[..at].rfind('\n').map_or(0, |at| at + 1);
            let line = &before[start..at + end.len() - 1];
            match Line::read(line).ok_or_else(|| damaged(&self.path, line))? {
                Line::Take(lease) if lease.owner == owner => return Ok(Some(lease)),
                Line::End(lease) if lease.owner == owner => return Ok(None),
                // The path ends another one.
                _ => before = &before[..start],
            }
        }
        Ok(None)
    }

    /// Notes the ends of leases. With the last one the file goes.
    fn end(&mut self, leases: &[Lease]) -> io::Result<()> {
        leases.iter().for_each(|lease| self.leased.end(lease));
        if self.leased.is_empty() {
            return fs::remove_file(&self.path);
        }
        let lines: String = leases.iter().map(|lease| lease.line('-')).collect::<io::Result<_>>()?;
        self.log(&lines)
    }

    /// Adds lines to the log.
    fn log(&mut self, lines: &str) -> io::Result<()> {
        // What a kill or a full disk left of a line.
        self.file.set_len(self.whole)?;
        let written = self.file.write_all(lines.as_bytes());
        if written.is_err() {
            self.file.set_len(self.whole)?;
        }
        written?;
        self.whole += lines.len() as u64;
        if self.whole - self.log_at > LOG {
            // What is there already says the same.
            if let Err(e) = self.all().and_then(|all| write(&self.path, &all)) {
                tracing::warn!("write {} anew: {e}", self.path.display());
            }
        }
        Ok(())
    }
}

/// A line about a lease.
enum Line {
    Take(Lease),
    End(Lease),
}

impl Line {
    fn read(line: &str) -> Option<Self> {
        match line.split_at_checked(2)? {
            ("+ ", rest) => Lease::read(rest).map(Self::Take),
            ("- ", rest) => Lease::read(rest).map(Self::End),
            _ => None,
        }
    }
}

fn damaged(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged: {}", path.display(), what.trim_end()))
}

/// Writes the file anew, with an empty log.
fn write(path: &Path, all: &BTreeMap<PathBuf, Lease>) -> io::Result<()> {
    let mut leased = Leased::default();
    let mut leases = String::new();
    for lease in all.values() {
        leased.add(lease);
        leases += &lease.line('+')?;
    }
    let runs = leased.line();
    let leases_at = HEAD_LEN + runs.len();
    let text = format!("{HEAD}{leases_at:010} {:010}\n{runs}{leases}", leases_at + leases.len());
    let part = beside(path, ".part");
    fs::write(&part, text)?;
    fs::rename(&part, path)
}

/// What is leased, and who has what is `asked` for by name.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub fn leased(ledger: &Path, addresses: &[IpAddr], ports: &[Port]) -> io::Result<Leased> {
    let Some(mut ledger) = Ledger::open(ledger, false)? else { return Ok(Leased::default()) };
    let mut leased = std::mem::take(&mut ledger.leased);
    let addresses: Vec<IpAddr> = addresses.iter().copied().filter(|one| leased.addresses.contains(*one)).collect();
    let ports: Vec<Port> = ports.iter().copied().filter(|one| leased.has(one)).collect();
    if addresses.is_empty() && ports.is_empty() {
        return Ok(leased);
    }
    for lease in ledger.all()?.into_values() {
        let named = addresses.iter().filter(|one| lease.addresses.contains(one)).map(ToString::to_string);
        let held = ports.iter().filter(|one| lease.ports.iter().any(|other| other.collides(one)));
        let named = named.chain(held.map(ToString::to_string)).collect::<Vec<_>>();
        leased.holders.extend(named.into_iter().map(|what| (what, lease.id.clone())));
    }
    Ok(leased)
}

/// What is leased, and who has what a pot asks for by name.
///
/// # Errors
/// Those of [`leased`].
pub fn leased_for(ledger: &Path, pot: &Pot) -> io::Result<Leased> {
    let addresses: Vec<IpAddr> = pot.network.addresses.iter().map(|one| one.address).collect();
    let ports: Vec<Port> = pot.exported_ports.iter().filter_map(crate::plan::lease::asked).collect();
    leased(ledger, &addresses, &ports)
}

/// All leases, by owner.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub fn all(ledger: &Path) -> io::Result<Vec<Lease>> {
    let Some(mut ledger) = Ledger::open(ledger, false)? else { return Ok(Vec::new()) };
    Ok(ledger.all()?.into_values().collect())
}

/// Carries out an op of the ledger. The caller holds the lock.
///
/// # Errors
/// Those of [`take`] and [`end`].
pub fn run(op: &Op) -> io::Result<()> {
    match op {
        Op::Lease { ledger, id, owner, addresses, ports } => {
            let (addresses, ports) = (addresses.clone(), ports.clone());
            take(ledger, &Lease { id: id.clone(), owner: owner.clone(), addresses, ports })
        }
        Op::EndLease { ledger, id, owner } => end(ledger, id, owner),
        other => Err(io::Error::other(format!("{other}: is not of the ledger"))),
    }
}

/// Enters a lease. The caller holds the lock.
///
/// # Errors
/// Somebody has one of its addresses or ports, or the kernel's words.
pub fn take(ledger: &Path, lease: &Lease) -> io::Result<()> {
    let Some(mut ledger) = Ledger::open(ledger, true)? else {
        return write(ledger, &BTreeMap::from([(lease.owner.clone(), lease.clone())]));
    };
    let mut lines = String::new();
    if let Some(old) = ledger.of(&lease.owner)? {
        lines += &old.line('-')?;
        ledger.leased.end(&old);
    }
    let address = lease.addresses.iter().find(|one| ledger.leased.addresses.contains(**one)).copied();
    let port = lease.ports.iter().find(|one| ledger.leased.has(one)).copied();
    if address.is_some() || port.is_some() {
        let has = |other: &Lease| {
            other.owner != lease.owner
                && (address.is_some_and(|one| other.addresses.contains(&one))
                    || port.is_some_and(|one| other.ports.iter().any(|other| other.collides(&one))))
        };
        let holder = ledger.all()?.into_values().find(has).map_or_else(|| "somebody".into(), |one| one.id.to_string());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{holder} has it already")));
    }
    lines += &lease.line('+')?;
    ledger.log(&lines)
}

/// Ends a lease; that there is none is as good. The caller holds the lock.
///
/// # Errors
/// The kernel's words.
pub fn end(ledger: &Path, id: &ContainerId, owner: &Path) -> io::Result<()> {
    let Some(mut ledger) = Ledger::open(ledger, true)? else { return Ok(()) };
    match ledger.of(owner)?.filter(|lease| lease.id == *id) {
        Some(lease) => ledger.end(&[lease]),
        None => Ok(()),
    }
}

/// The leases whose owners are gone, and the others.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub fn orphans(ledger: &Path) -> io::Result<(Vec<Lease>, Vec<Lease>)> {
    Ok(all(ledger)?.into_iter().partition(Lease::orphan))
}

#[cfg(test)]
mod tests;
