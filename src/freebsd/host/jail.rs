//! Jails: making, finding, entering, removing them.

use std::io;
use std::time::{Duration, Instant};

use crate::freebsd::wire;
use crate::host::Trouble;

use super::process::Watch;
use super::sys;

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
    Ok(sys::jail_create(&wire::jail(name, parameters)?).map(drop)?)
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

/// How long a jail may take to die after its last process has. What holds it then are connections in TIME_WAIT, for
/// twice the maximum segment lifetime of 30 s (tcp(4), `net.inet.tcp.msl`).
const DYING: Duration = Duration::from_secs(90);

/// Kills what is in a jail, removes it and waits until it is gone: until then its root, its addresses and its network
/// stack are in use.
pub(super) fn remove(name: &str) -> Result<(), Trouble> {
    let Some(id) = sys::jail_id(name, true)? else { return Ok(()) };
    let all = || sys::processes().map(|all| all.into_iter().filter(|one| one.jail == id && !one.zombie));
    match sys::jail_remove(id) {
        // It is gone, or on its way already (sys/kern/kern_jail.c, `kern_jail_remove`).
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
        other => other?,
    }
    // The kernel has sent SIGKILL to each; a process that was being born meanwhile is killed as it comes.
    loop {
        let (watch, there) = Watch::processes(all()?.map(|process| process.pid))?;
        if there == 0 {
            break;
        }
        watch.wait(None)?;
    }
    gone(id, Instant::now() + DYING)
}

/// Waits until there is nothing of the jail any more. FreeBSD 13 and 14 have no event for that: so this looks again,
/// ever less often.
fn gone(id: i32, deadline: Instant) -> Result<(), Trouble> {
    let nothing = Watch::processes([])?.0;
    let mut wait = Duration::from_micros(200);
    while sys::jail_there(id)? {
        if Instant::now() > deadline {
            return Err(format!("jail {id} is still dying: a connection, mount or open file holds it").into());
        }
        nothing.wait(Some(wait))?;
        wait = (wait * 2).min(Duration::from_millis(50));
    }
    Ok(())
}
