/*! What the probe sees and tries on FreeBSD alone. */

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::TcpListener;

use conformance::{Report, kernel};
use nix::mount::{MntFlags, Nmount};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use serde_json::{Value, json};

use crate::sys;

/// What a report has beside.
pub(crate) fn complete(report: &mut Report) {
    report.no_new_privs = kernel::no_new_privileges().into();
    report.domainname = kernel::domainname();
    report.fds = descriptors();
}

/// No limit of these tests is higher.
const DESCRIPTORS: i32 = 1024;

fn descriptors() -> BTreeMap<i32, String> {
    let open = (0..DESCRIPTORS).filter(|&fd| {
        // SAFETY: F_GETFD takes no pointer, and says whether the number is an open descriptor.
        unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
    });
    open.map(|fd| (fd, kernel::terminal(fd).unwrap_or_else(|| "no terminal".into()))).collect()
}

/// Major and minor number of a device.
pub(crate) fn device(number: u64) -> (u64, u64) {
    (libc::major(number).cast_unsigned().into(), libc::minor(number).cast_unsigned().into())
}

/// There are none.
pub(crate) fn namespaces() -> BTreeMap<String, u64> {
    BTreeMap::new()
}

/// What a process may try.
pub(crate) fn attempt(words: &[&str]) -> io::Result<Value> {
    match words {
        ["sysctl", name] => Ok(json!(kernel::number(name, None)?)),
        ["sysctl-write", name, value] => {
            let value = value.parse().map_err(io::Error::other)?;
            Ok(json!(kernel::number(name, Some(value))?))
        }
        ["socket", "raw"] => {
            Ok(socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), None).map(|_| Value::Null)?)
        }
        ["socket", "route"] => {
            Ok(socket(AddressFamily::Route, SockType::Raw, SockFlag::empty(), None).map(|_| Value::Null)?)
        }
        ["bind", address] => TcpListener::bind((*address, 0)).map(|_| Value::Null),
        ["shmget"] => sys::shared_memory().map(|()| Value::Null),
        ["mount-tmpfs", path] => {
            let mut options = Nmount::new();
            options.str_opt_owned("fstype", "tmpfs").str_opt_owned("fspath", *path);
            Ok(options.nmount(MntFlags::empty()).map(|()| Value::Null).map_err(|err| err.error())?)
        }
        _ => Err(io::Error::from_raw_os_error(libc::ENOTSUP)),
    }
}

/// Swaps two names, one after the other.
pub(crate) fn exchange(a: &str, b: &str) -> io::Result<()> {
    let between = format!("{a}.away");
    fs::rename(a, &between)?;
    fs::rename(b, a)?;
    fs::rename(between, b)
}
