//! Jails: making, finding, entering, removing them.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::freebsd::wire::{self, interface};
use crate::host::Trouble;

use super::process::Watch;
use super::{mount, sys};

/// The id of the jail of this name, if there is one that is not dying.
pub(super) fn id(name: &str) -> io::Result<Option<i32>> {
    sys::jail_id(name, false)
}

/// Why a jail of this name must not be made, if so.
pub(super) fn taken(name: &str) -> Option<String> {
    matches!(id(name), Ok(Some(_))).then(|| "a jail of this name exists".into())
}

/// Makes a jail.
pub(super) fn create(name: &str, parameters: &[(String, String)]) -> Result<(), Trouble> {
    sys::jail_create(&wire::jail(name, parameters)?).map(drop).map_err(|e| match name.rsplit_once('.') {
        Some((parent, _)) if e.errno == libc::EPERM => {
            format!("{e}: a jail can have nothing that its parent {parent} has not (jail(8), \"Hierarchical Jails\")")
                .into()
        }
        _ => e.into(),
    })
}

/// Does `work` in the jail `name`: in a child that enters it, holds no descriptor of the host but stdio, runs nothing
/// of the jail's, and ends. What it returns comes back.
pub(super) fn inside(name: &str, work: impl FnOnce() -> Result<Vec<u8>, Trouble>) -> Result<Vec<u8>, Trouble> {
    let id = id(name)?.ok_or_else(|| format!("jail {name} does not exist"))?;
    sys::forked(|| {
        sys::untraceable()?;
        sys::jail_attach(id).map_err(|e| format!("enter jail {name}: {e}"))?;
        work()
    })
}

/// The processes of a jail, but for those that have ended and wait for their parent to notice.
pub(super) fn processes(name: &str) -> io::Result<Vec<sys::Process>> {
    let Some(id) = id(name)? else { return Ok(Vec::new()) };
    Ok(sys::processes()?.into_iter().filter(|process| process.jail == id && !process.zombie).collect())
}

/// How long is waited for a jail to be gone after its last process is.
///
/// What may hold it longer is not the jail's any more: a connection in TIME_WAIT that came after all were dropped, or a
/// pipe that leads out of it. A process that writes much to a pipe makes its buffer grow, for which it answers to the
/// kernel until both ends are closed (sys/kern/sys_pipe.c, `pipespace_new`; sys/vm/vm_map.c, `vm_map_insert`). The
/// caller of `run` closes its end when `run` has ended, so to wait for that would be to wait for ever.
const DYING: Duration = Duration::from_secs(1);

/// Kills what is in a jail, ends what else holds it, removes it and waits a moment until it is gone. What was mounted
/// beneath `root` `before` stays.
pub(super) fn remove(name: &str, root: Option<&Path>, before: &[String]) -> Result<(), Trouble> {
    // A jail that cannot be entered, because its root has gone, is removed all the same.
    if id(name)?.is_some() && signal(name, libc::SIGKILL).is_ok() {
        wait(|| processes(name))?;
        if let Err(trouble) = drop_connections(name) {
            tracing::debug!("end the connections of jail {name}: {trouble}");
        }
    }
    let Some(id) = sys::jail_id(name, true)? else { return Ok(()) };
    match sys::jail_remove(id) {
        // It is gone, or on its way already (sys/kern/kern_jail.c, `kern_jail_remove`).
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
        other => other?,
    }
    // A process that was being born meanwhile is killed by the kernel as it comes.
    wait(|| Ok(sys::processes()?.into_iter().filter(|one| one.jail == id && !one.zombie).collect()))?;
    if let Some(root) = root {
        mount::unmount_all(root, before)?;
        unlink_shared_memory(root)?;
    }
    if !gone(id, Instant::now() + DYING)? {
        tracing::debug!("jail {id} is still dying: a pipe or connection of its processes is not closed yet");
    }
    Ok(())
}

/// Waits until none of these processes is there.
fn wait(all: impl Fn() -> io::Result<Vec<sys::Process>>) -> Result<(), Trouble> {
    loop {
        let (watch, there) = Watch::processes(all()?.into_iter().map(|process| process.pid))?;
        if there == 0 {
            return Ok(());
        }
        watch.wait(None)?;
    }
}

/// Sends a signal to all processes of a jail: from inside, so that none is missed and none outside is meant. Nothing
/// of the jail's is run for it.
pub(super) fn signal(name: &str, signal: i32) -> Result<(), Trouble> {
    let sent = inside(name, || {
        match sys::kill(-1, signal) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
            other => other?,
        }
        Ok(Vec::new())
    });
    sent.map(drop)
}

/// Ends the connections of a jail without processes: one that lingers holds the jail for up to a minute.
///
/// Inside, only the jail's own are seen. A jail that shares the network stack of the host may not drop them: so the
/// host does.
fn drop_connections(name: &str) -> Result<(), Trouble> {
    let drop_all = |all: &[Vec<u8>]| -> io::Result<()> {
        all.iter().try_for_each(|one| match sys::sysctl_set(c"net.inet.tcp.drop", one) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()), // it has ended by itself
            other => other,
        })
    };
    let theirs = inside(name, || {
        let all = interface::connections(&sys::sysctl_named(c"net.inet.tcp.pcblist")?);
        match drop_all(&all) {
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => Ok(all.concat()),
            other => other.map(|()| Vec::new()).map_err(Into::into),
        }
    })?;
    let theirs: Vec<Vec<u8>> = theirs.chunks(interface::CONNECTION).map(<[u8]>::to_vec).collect();
    Ok(drop_all(&theirs)?)
}

/// Removes POSIX shared memory that was made inside: the kernel names it by the jail's root, and it holds the jail for
/// ever.
fn unlink_shared_memory(root: &Path) -> Result<(), Trouble> {
    for path in wire::shared_memory(&sys::sysctl_named(c"kern.ipc.posix_shm_list")?) {
        if path.starts_with(root) && path != root {
            match sys::shm_unlink(&path) {
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
                other => other.map_err(|e| format!("remove shared memory {}: {e}", path.display()))?,
            }
        }
    }
    Ok(())
}

/// Waits until there is nothing of the jail any more; whether that was in time. The kernel has no event for that, for
/// FreeBSD 15's `NOTE_JAIL_REMOVE` comes when a jail begins to die: so this looks again, ever less often.
fn gone(id: i32, deadline: Instant) -> Result<bool, Trouble> {
    let nothing = Watch::processes([])?.0;
    let mut wait = Duration::from_micros(200);
    while sys::jail_there(id)? {
        if Instant::now() > deadline {
            return Ok(false);
        }
        nothing.wait(Some(wait))?;
        wait = (wait * 2).min(Duration::from_millis(50));
    }
    Ok(true)
}
