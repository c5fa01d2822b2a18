//! The ledger of addresses and host ports: one file a host, whatever `--root` its callers give, so that no two pots get
//! the same.
//!
//! One line of JSON a lease. The file is replaced by rename(2), so a crash leaves the old one or the new one. Whoever
//! changes a network that pots share (a bridge, an anchor, the ledger) holds the lock of the file beside it, from looking
//! at the machine until it has done so. A lease whose owner, a state directory, is gone is nobody's.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::id::ContainerId;
use crate::op::Op;

/// What one pot has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The container.
    pub id: ContainerId,
    /// Its state directory: the mark.
    pub owner: PathBuf,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its ports of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
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
    let mut path = ledger.as_os_str().to_owned();
    path.push(".lock");
    if let Some(above) = ledger.parent() {
        fs::create_dir_all(above)?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(PathBuf::from(path))?;
    loop {
        match Flock::lock(file.try_clone()?, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(Networks { _lock: lock }),
            Err((_, nix::errno::Errno::EINTR)) => {}
            Err((_, e)) => return Err(e.into()),
        }
    }
}

/// The leases whose owners are there.
///
/// # Errors
/// The file cannot be read, or a line is not a lease.
pub fn read(ledger: &Path) -> io::Result<Vec<Lease>> {
    let text = match fs::read_to_string(ledger) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut all = Vec::new();
    for line in text.lines() {
        let lease: Lease = serde_json::from_str(line)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged: {e}", ledger.display())))?;
        if lease.owner.is_dir() {
            all.push(lease);
        }
    }
    Ok(all)
}

fn write(ledger: &Path, all: &[Lease]) -> io::Result<()> {
    let mut text = String::new();
    for lease in all {
        text += &serde_json::to_string(lease)?;
        text.push('\n');
    }
    let mut part = ledger.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    fs::write(&part, text)?;
    fs::rename(&part, ledger)
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
    let mut all = read(ledger)?;
    let same = |other: &Lease| other.id == lease.id && other.owner == lease.owner;
    let taken = |other: &&Lease| {
        !same(other)
            && (other.addresses.iter().any(|a| lease.addresses.contains(a))
                || other.ports.iter().any(|p| lease.ports.contains(p)))
    };
    if let Some(other) = all.iter().find(taken) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} has it already", other.id)));
    }
    all.retain(|other| !same(other));
    all.push(lease.clone());
    write(ledger, &all)
}

/// Ends a lease; that there is none is as good. The caller holds the lock.
///
/// # Errors
/// The kernel's words.
pub fn end(ledger: &Path, id: &ContainerId, owner: &Path) -> io::Result<()> {
    let mut all = read(ledger)?;
    let before = all.len();
    all.retain(|lease| lease.id != *id || lease.owner != owner);
    if all.len() == before { Ok(()) } else { write(ledger, &all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            for name in ["a", "b"] {
                _ = fs::remove_dir(self.0.join(name));
            }
            for name in ["ledger", "ledger.lock", "ledger.part"] {
                _ = fs::remove_file(self.0.join(name));
            }
            _ = fs::remove_dir(&self.0);
        }
    }

    fn dir() -> Dir {
        use std::sync::atomic::{AtomicU32, Ordering};
        static N: AtomicU32 = AtomicU32::new(0);
        let n = N.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("potrun-lease-{}-{n}", std::process::id()));
        for name in ["a", "b"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        Dir(dir)
    }

    fn lease(dir: &Dir, id: &str, address: &str, ports: &[u16]) -> Lease {
        let addresses = vec![address.parse().unwrap()];
        Lease { id: ContainerId::new(id).unwrap(), owner: dir.0.join(id), addresses, ports: ports.to_vec() }
    }

    #[test]
    fn what_is_taken_is_taken_until_it_ends() {
        let dir = dir();
        let ledger = dir.0.join("ledger");
        let _lock = lock(&ledger).unwrap();
        let a = lease(&dir, "a", "10.0.0.3", &[1024]);
        take(&ledger, &a).unwrap();
        take(&ledger, &a).unwrap(); // once more is the same
        assert_eq!(read(&ledger).unwrap(), std::slice::from_ref(&a));
        for other in [lease(&dir, "b", "10.0.0.3", &[]), lease(&dir, "b", "10.0.0.4", &[1024])] {
            assert_eq!(take(&ledger, &other).unwrap_err().to_string(), "a has it already");
        }
        end(&ledger, &a.id, &a.owner).unwrap();
        end(&ledger, &a.id, &a.owner).unwrap();
        take(&ledger, &lease(&dir, "b", "10.0.0.3", &[1024])).unwrap();
    }

    #[test]
    fn a_lease_without_an_owner_is_nobodys() {
        let dir = dir();
        let ledger = dir.0.join("ledger");
        take(&ledger, &lease(&dir, "a", "10.0.0.3", &[])).unwrap();
        fs::remove_dir(dir.0.join("a")).unwrap();
        assert_eq!(read(&ledger).unwrap(), []);
        take(&ledger, &lease(&dir, "b", "10.0.0.3", &[])).unwrap();
    }

    #[test]
    fn a_damaged_ledger_is_not_taken_for_an_empty_one() {
        let dir = dir();
        let ledger = dir.0.join("ledger");
        fs::write(&ledger, "{\n").unwrap();
        assert!(read(&ledger).unwrap_err().to_string().contains("is damaged"));
    }
}
