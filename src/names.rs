//! The names of the pots on a bridge: a file of hosts(5) that its pots see as their `/etc/hosts`, and that changes while
//! they run.
//!
//! ```text
//! <ledger's directory>/potrun.hosts/
//!     pb-public/all/hosts             seen by every pot that asks for nothing else, read-only
//!     pb-public/10.192.0.7/hosts      seen by the pot at that address, whose bundle has lines of its own
//! ```
//!
//! A pot that comes or goes changes two lines in `all/hosts`, however many pots see it, and in the few files beside it. A
//! file is what is mounted in the pots, so it cannot be replaced by another one: it is changed where it is, and in such a
//! way that who reads it meanwhile finds whole lines. A line that is not wanted any more becomes a comment, by its first
//! byte; a new line is written as a comment first, at the end or over one that is long enough, and then loses the `#`.
//!
//! The caller holds the lock of the host's pot networks.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use crate::op::Op;

/// The file that all pots see which have none of their own.
pub const SHARED: &str = "all";

/// What such a file is called in its directory.
pub const FILE: &str = "hosts";

/// What every such file begins with: hosts(5) of a host that knows only itself.
pub const LOCALHOST: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// What a line that does not count begins with.
const DEAD: u8 = b'#';

/// Carries out an op of names.
///
/// # Errors
/// The kernel's words; then nothing has changed.
pub fn run(op: &Op) -> io::Result<()> {
    match op {
        Op::PublishNames { hosts, head, lines } => {
            publish(hosts, head, lines).inspect_err(|_| drop(withdraw(hosts, lines)))
        }
        Op::WithdrawNames { hosts, lines } => withdraw(hosts, lines),
        other => Err(io::Error::other(format!("{other}: is not of names"))),
    }
}

/// Adds lines to all files of the bridge whose file `hosts` is, which begins with `head` if it is not there yet.
fn publish(hosts: &Path, head: &str, lines: &[String]) -> io::Result<()> {
    let bridge = bridge(hosts)?;
    let shared = bridge.join(SHARED).join(FILE);
    if !shared.exists() {
        begin(&shared, LOCALHOST)?;
    }
    if hosts != shared {
        let others: String = Hosts::open(&shared)?.alive().map(|line| format!("{line}\n")).collect();
        begin(hosts, &format!("{head}{}", others.strip_prefix(LOCALHOST).unwrap_or(&others)))?;
    }
    files(&bridge)?.iter().try_for_each(|path| Hosts::open(path)?.add(lines))
}

/// Takes lines out of all files of the bridge, and `hosts` away if one pot alone saw it; with the last name, all goes.
fn withdraw(hosts: &Path, lines: &[String]) -> io::Result<()> {
    let bridge = bridge(hosts)?;
    let shared = bridge.join(SHARED).join(FILE);
    if hosts != shared {
        hosts.parent().map_or(Ok(()), remove)?;
    }
    for path in files(&bridge)? {
        Hosts::open(&path)?.remove(|line| lines.iter().any(|one| one == line))?;
    }
    tidy(&bridge)
}

/// Takes the lines of addresses out of the files of all bridges: their pot is gone and has not been deleted.
///
/// # Errors
/// The kernel's words.
pub fn forget(directory: &Path, addresses: &[std::net::IpAddr]) -> io::Result<()> {
    let words: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let of_them = |line: &str| line.split(' ').next().is_some_and(|first| words.iter().any(|word| word == first));
    for bridge in entries(directory)? {
        for word in &words {
            remove(&bridge.join(word))?;
        }
        for path in files(&bridge)? {
            Hosts::open(&path)?.remove(of_them)?;
        }
        tidy(&bridge)?;
    }
    Ok(())
}

/// `.../pb-public` of `.../pb-public/all/hosts`.
fn bridge(hosts: &Path) -> io::Result<PathBuf> {
    let above = hosts.parent().and_then(Path::parent);
    above.map(Path::to_path_buf).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Makes a file with its directories. Pots read it, whoever they are.
fn begin(path: &Path, text: &str) -> io::Result<()> {
    if let Some(above) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(above)?;
    }
    let part = part(path);
    fs::write(&part, text)?;
    fs::rename(part, path)
}

/// Removes what is there for no pot any more.
fn tidy(bridge: &Path) -> io::Result<()> {
    let shared = bridge.join(SHARED).join(FILE);
    let used = match Hosts::open(&shared) {
        Ok(hosts) => hosts.alive().any(|line| !LOCALHOST.lines().any(|own| own == line)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(e),
    };
    if used {
        return Ok(());
    }
    entries(bridge)?.iter().try_for_each(|place| remove(place))?;
    gone(fs::remove_dir(bridge))?;
    let above = bridge.parent().map_or(Ok(()), fs::remove_dir);
    match above {
        // Another bridge has names.
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => gone(other),
    }
}

/// Removes a file with its directory.
fn remove(place: &Path) -> io::Result<()> {
    let file = place.join(FILE);
    gone(fs::remove_file(part(&file)))?;
    gone(fs::remove_file(file))?;
    gone(fs::remove_dir(place))
}

/// What a file is called until it is whole.
fn part(path: &Path) -> PathBuf {
    path.with_extension("part")
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(all) => all.map(|entry| Ok(entry?.path())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// The files of a bridge.
fn files(bridge: &Path) -> io::Result<Vec<PathBuf>> {
    let all = entries(bridge)?.into_iter().map(|place| place.join(FILE));
    // A kill may have come between a directory and its file.
    Ok(all.filter(|path| path.exists()).collect())
}

/// One file.
struct Hosts {
    file: File,
    text: String,
}

impl Hosts {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::options().read(true).write(true).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(Self { file, text })
    }

    /// Lines with the place where each begins, and without the blanks at its end.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut at = 0;
        self.text.split_inclusive('\n').map(move |line| {
            let begin = at;
            at += line.len();
            (begin, line)
        })
    }

    /// The lines that count.
    fn alive(&self) -> impl Iterator<Item = &str> {
        self.lines().map(|(_, line)| line.trim_end()).filter(|line| !line.starts_with('#') && !line.is_empty())
    }

    fn add(&mut self, lines: &[String]) -> io::Result<()> {
        let mut used: Vec<usize> = Vec::new();
        let mut end = self.text.len();
        for line in lines {
            let bytes = line.as_bytes();
            let Some((first, rest)) = bytes.split_first() else { continue };
            let slot = self.lines().find(|(at, old)| {
                old.as_bytes().first() == Some(&DEAD)
                    && old.ends_with('\n')
                    && old.len() > bytes.len()
                    && !used.contains(at)
            });
            let at = match slot.map(|(at, old)| (at, old.len())) {
                Some((at, length)) => {
                    let padded = format!("{:width$}", line, width = length - 1);
                    self.file.write_all_at(&padded.as_bytes()[1..], at as u64 + 1)?;
                    used.push(at);
                    at
                }
                None => {
                    // What a kill left of a line is a comment; the new one begins behind it.
                    let whole = if self.text.is_empty() || self.text.ends_with('\n') { "" } else { "\n" };
                    let mut new = whole.as_bytes().to_vec();
                    new.push(DEAD);
                    new.extend_from_slice(rest);
                    new.push(b'\n');
                    self.file.write_all_at(&new, end as u64)?;
                    let at = end + whole.len();
                    end += new.len();
                    self.text.push_str(whole);
                    at
                }
            };
            self.file.write_all_at(&[*first], at as u64)?;
        }
        Ok(())
    }

    fn remove(&self, which: impl Fn(&str) -> bool) -> io::Result<()> {
        for (at, _) in self.lines().filter(|(_, line)| which(line.trim_end())) {
            self.file.write_all_at(&[DEAD], at as u64)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The directory of all bridges; it goes with the last name.
    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("potrun-names-{}-{name}", std::process::id()))
    }

    fn seen(path: &Path) -> Vec<String> {
        Hosts::open(path).unwrap().alive().skip(2).map(String::from).collect()
    }

    fn lines(n: usize) -> Vec<String> {
        vec![format!("10.192.0.{n} web{n}"), format!("fd70:6f74::{n} web{n}")]
    }

    #[test]
    fn pots_come_and_go() {
        let top = scratch("come");
        let (all, own) = (top.join("b/all/hosts"), top.join("b/10.192.0.2/hosts"));
        publish(&all, LOCALHOST, &lines(1)).unwrap();
        publish(&own, &format!("{LOCALHOST}192.0.2.1 db\n"), &lines(2)).unwrap();
        assert_eq!(seen(&own), [vec!["192.0.2.1 db".to_string()], lines(1), lines(2)].concat());
        publish(&all, LOCALHOST, &lines(3)).unwrap();
        assert_eq!(seen(&all), [lines(1), lines(2), lines(3)].concat());
        let length = fs::metadata(&all).unwrap().len();
        withdraw(&all, &lines(1)).unwrap();
        assert_eq!(seen(&own), [vec!["192.0.2.1 db".to_string()], lines(2), lines(3)].concat());
        // Its lines are used again, by what is as long or shorter.
        publish(&all, LOCALHOST, &lines(4)).unwrap();
        assert_eq!(seen(&all), [lines(4), lines(2), lines(3)].concat());
        assert_eq!(fs::metadata(&all).unwrap().len(), length);
        withdraw(&own, &lines(2)).unwrap();
        assert!(!own.exists());
        withdraw(&all, &lines(2)).unwrap();
        withdraw(&all, &lines(3)).unwrap();
        assert_eq!(seen(&all), lines(4));
        forget(&top, &["10.192.0.4".parse().unwrap(), "fd70:6f74::4".parse().unwrap()]).unwrap();
        assert!(!top.exists());
        withdraw(&all, &lines(4)).unwrap();
    }

    /// Whatever a kill leaves, there is no name that nobody published.
    #[test]
    fn what_a_kill_leaves_is_a_comment() {
        let top = scratch("kill");
        let all = top.join("b/all/hosts");
        publish(&all, LOCALHOST, &lines(1)).unwrap();
        let text = fs::read_to_string(&all).unwrap();
        for left in ["#0.192.0.2 we", "#", "#0.192.0.2 web2\n"] {
            fs::write(&all, format!("{text}{left}")).unwrap();
            assert_eq!(seen(&all), lines(1));
            publish(&all, LOCALHOST, &lines(2)).unwrap();
            assert_eq!(seen(&all), [lines(1), lines(2)].concat(), "{left:?}");
        }
        withdraw(&all, &lines(2)).unwrap();
        withdraw(&all, &lines(1)).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn a_reader_finds_whole_lines() {
        let top = scratch("race");
        let all = top.join("b/all/hosts");
        publish(&all, LOCALHOST, &lines(1)).unwrap();
        let known: Vec<String> = LOCALHOST.lines().map(String::from).chain((1..40).flat_map(lines)).collect();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in (2..40).chain(2..40) {
                    publish(&all, LOCALHOST, &lines(n)).unwrap();
                    withdraw(&all, &lines(n)).unwrap();
                }
            });
            while !writer.is_finished() {
                for line in Hosts::open(&all).unwrap().alive() {
                    assert!(known.iter().any(|one| one == line), "{line:?}");
                }
            }
        });
        withdraw(&all, &lines(1)).unwrap();
    }
}
