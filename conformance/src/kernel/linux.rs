//! By proc(5).

use std::fs;
use std::io;

use crate::Mount;

/// What is mounted, as this process sees it.
///
/// # Errors
/// Without /proc.
pub fn mounts() -> io::Result<Vec<Mount>> {
    Ok(fs::read_to_string("/proc/self/mountinfo")?.lines().filter_map(mount).collect())
}

fn mount(line: &str) -> Option<Mount> {
    let words = |text: &str, by: char| text.split(by).map(str::to_owned).collect::<Vec<_>>();
    let (left, right) = line.split_once(" - ")?;
    let left = words(left, ' ');
    let right = words(right, ' ');
    Some(Mount {
        root: left.get(3)?.clone(),
        point: left.get(4)?.clone(),
        options: words(left.get(5)?, ','),
        propagation: left.get(6..)?.to_vec(),
        fstype: right.first()?.clone(),
        source: right.get(1)?.clone(),
        super_options: words(right.get(2)?, ','),
    })
}

/// Names of the network interfaces that this process sees.
///
/// # Errors
/// Without /proc.
pub fn links() -> io::Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/net/dev")?;
    Ok(text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect())
}

/// Processes that this process sees.
#[must_use]
pub fn pids() -> Vec<i32> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<i32> = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// A line of /proc/self/status, and nothing if there is none.
#[must_use]
pub fn status(name: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// The same, which is a mask in hexadecimal digits.
#[must_use]
pub fn mask(name: &str) -> u64 {
    u64::from_str_radix(&status(name), 16).unwrap_or(u64::MAX)
}

/// Signals that this process ignores: bit N - 1 for signal N.
#[must_use]
pub fn ignored() -> u64 {
    mask("SigIgn")
}

/// Signals that are blocked, in the same way.
#[must_use]
pub fn blocked() -> u64 {
    mask("SigBlk")
}

/// What a process was started as: words that end with NUL. Nothing, if it is gone.
#[must_use]
pub fn command_line(pid: i32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).into_owned()
}
