//! What the kernel is handed, byte by byte: parameters of jail_set(2), options of nmount(2), rules of devfs(5). Pure, so that it is tested
//! on every operating system; numbers are those of little-endian machines, which all of FreeBSD's first tier are.

pub mod interface;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A name and its value, as a pair of iovecs: the name with its NUL; no value is a parameter that is there or not.
pub type Pair = (Vec<u8>, Option<Vec<u8>>);

/// Parameters whose value is an `int` (sys/kern/kern_jail.c).
const INTEGERS: &[&str] = &["children.max", "devfs_ruleset", "enforce_statfs", "osreldate", "securelevel"];

/// Parameters whose value is `JAIL_SYS_*` (sys/jail.h), and jail(8)'s words for it.
const SHARES: &[&str] = &["host", "vnet", "ip4", "ip6", "sysvmsg", "sysvsem", "sysvshm"];
const WORDS: &[(&str, i32)] = &[("disable", 0), ("new", 1), ("inherit", 2)];

/// Why a parameter cannot be encoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("jail parameter {name}: {value:?} is not {wanted}")]
pub struct Unfit {
    name: String,
    value: String,
    wanted: &'static str,
}

/// A text with its NUL.
#[must_use]
pub fn text(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// The parameters of a jail, its name first.
///
/// # Errors
/// A value that its parameter cannot have.
pub fn jail(name: &str, parameters: &[(String, String)]) -> Result<Vec<Pair>, Unfit> {
    let mut all = vec![(text("name"), Some(text(name)))];
    for (key, value) in parameters {
        all.push((text(key), self::value(key, value)?));
    }
    Ok(all)
}

/// The value of one parameter. A flag has none, whatever it is set to: the kernel looks at its name alone.
fn value(key: &str, value: &str) -> Result<Option<Vec<u8>>, Unfit> {
    let unfit = |wanted| Unfit { name: key.into(), value: value.into(), wanted };
    if value.is_empty() {
        return Ok(None);
    }
    let bytes = if INTEGERS.contains(&key) {
        value.parse::<i32>().map_err(|_| unfit("a number"))?.to_le_bytes().to_vec()
    } else if SHARES.contains(&key) {
        let number = WORDS.iter().find(|(word, _)| *word == value).map(|(_, number)| *number);
        number.ok_or_else(|| unfit("disable, new or inherit"))?.to_le_bytes().to_vec()
    } else {
        match key {
            "ip4.addr" => {
                addresses::<std::net::Ipv4Addr, 4>(value, |a| a.octets()).ok_or_else(|| unfit("addresses"))?
            }
            "ip6.addr" => {
                addresses::<std::net::Ipv6Addr, 16>(value, |a| a.octets()).ok_or_else(|| unfit("addresses"))?
            }
            _ if value.contains('\0') => return Err(unfit("a text without NUL")),
            _ => text(value),
        }
    };
    Ok(Some(bytes))
}

/// `struct in_addr` or `struct in6_addr`, one after the other.
fn addresses<A: std::str::FromStr, const N: usize>(list: &str, octets: impl Fn(A) -> [u8; N]) -> Option<Vec<u8>> {
    list.split(',').map(|one| one.parse().ok().map(&octets)).collect::<Option<Vec<_>>>().map(|all| all.concat())
}

/// The options of a mount at `.`, the directory of the process that mounts.
#[must_use]
pub fn mount(fstype: &str, source: &str, options: &[String], data: &[String]) -> Vec<Pair> {
    let mut all = vec![(text("fstype"), Some(text(fstype)))];
    // nullfs(5)'s own name for what it shows; the others show the word itself in mount(8)'s list.
    all.push((text(if fstype == "nullfs" { "target" } else { "from" }), Some(text(source))));
    for option in options.iter().chain(data) {
        all.push(match option.split_once('=') {
            Some((name, value)) => (text(name), Some(text(value))),
            None => (text(option), None),
        });
    }
    all
}

/// Size of `struct devfs_rule` (fs/devfs/devfs.h).
pub const RULE_BYTES: usize = 236;

/// Where its members are.
const MAGIC: usize = 0;
const ID: usize = 4;
const CONDITIONS: usize = 8;
const PATTERN: usize = 16;
const PATTERN_BYTES: usize = 200;
const ACTIONS: usize = 216;
const SWITCH: usize = 220;
const USER: usize = 224;
const GROUP: usize = 228;
const MODE: usize = 232;
const INCLUDED: usize = 234;

fn put(rule: &mut [u8; RULE_BYTES], at: usize, number: u32) {
    rule[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

fn get(rule: &[u8; RULE_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([rule[at], rule[at + 1], rule[at + 2], rule[at + 3]])
}

fn blank() -> [u8; RULE_BYTES] {
    let mut rule = [0; RULE_BYTES];
    put(&mut rule, MAGIC, 0xdb0a_087a);
    rule
}

/// A rule as devfs(8) writes it, `path P [hide|unhide] [mode M] [user N] [group N]`, as the kernel takes it.
#[must_use]
pub fn devfs_rule(text: &str) -> Option<[u8; RULE_BYTES]> {
    let mut rule = blank();
    let mut words = text.split_ascii_whitespace();
    let (Some("path"), Some(pattern)) = (words.next(), words.next()) else { return None };
    if pattern.len() >= PATTERN_BYTES {
        return None;
    }
    put(&mut rule, CONDITIONS, 2); // DRC_PATHPTRN
    rule[PATTERN..PATTERN + pattern.len()].copy_from_slice(pattern.as_bytes());
    let mut actions = 0;
    while let Some(word) = words.next() {
        match word {
            "hide" | "unhide" => {
                actions |= 1; // DRA_BACTS
                put(&mut rule, SWITCH, if word == "hide" { 1 } else { 2 });
            }
            "mode" => {
                actions |= 8; // DRA_MODE
                let mode = u16::from_str_radix(words.next()?, 8).ok()?;
                rule[MODE..MODE + 2].copy_from_slice(&mode.to_le_bytes());
            }
            "user" | "group" => {
                actions |= if word == "user" { 2 } else { 4 }; // DRA_UID, DRA_GID
                put(&mut rule, if word == "user" { USER } else { GROUP }, words.next()?.parse().ok()?);
            }
            _ => return None,
        }
    }
    put(&mut rule, ACTIONS, actions);
    (actions != 0).then_some(rule)
}

/// What matters of a rule that the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevfsRule {
    /// Its number in its set.
    pub number: u16,
    /// Whether it hides everything.
    pub hides_all: bool,
    /// The set whose rules stand in its place.
    pub includes: Option<u16>,
}

impl DevfsRule {
    /// The question for the rule after number `after` of a set.
    #[must_use]
    pub fn asked(ruleset: u16, after: u16) -> [u8; RULE_BYTES] {
        let mut rule = blank();
        put(&mut rule, ID, u32::from(ruleset) << 16 | u32::from(after));
        rule
    }

    /// The answer.
    #[must_use]
    pub fn read(rule: &[u8; RULE_BYTES]) -> Self {
        let actions = get(rule, ACTIONS);
        let hides = actions & 1 != 0 && get(rule, SWITCH) & 1 != 0;
        Self {
            number: u16::from_le_bytes([rule[ID], rule[ID + 1]]),
            hides_all: hides && get(rule, CONDITIONS) == 0,
            includes: (actions & 16 != 0).then(|| u16::from_le_bytes([rule[INCLUDED], rule[INCLUDED + 1]])),
        }
    }
}

/// The names of POSIX shared memory in what sysctl(3) `kern.ipc.posix_shm_list` tells: records of struct kinfo_file
/// (sys/user.h), each of which begins with its length.
#[must_use]
pub fn shared_memory(list: &[u8]) -> Vec<PathBuf> {
    const PATH: usize = 368; // offsetof(struct kinfo_file, kf_path)
    let mut all = Vec::new();
    let mut rest = list;
    while let Some(length) = rest.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize) {
        let Some((record, next)) = rest.split_at_checked(length).filter(|_| length > 0) else { break };
        let path = record.get(PATH..).and_then(|path| path.split(|byte| *byte == 0).next()).unwrap_or_default();
        all.push(PathBuf::from(OsStr::from_bytes(path)));
        rest = next;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &str) -> Result<Vec<Pair>, Unfit> {
        jail("j", &[(key.into(), value.into())])
    }

    #[test]
    fn each_kind_of_parameter_has_its_bytes() {
        for (key, value, bytes) in [
            ("path", "/opt/pot/jails/web1/m", Some(b"/opt/pot/jails/web1/m\0".to_vec())),
            ("persist", "", None),
            ("allow.noset_hostname", "", None),
            ("enforce_statfs", "2", Some(vec![2, 0, 0, 0])),
            ("securelevel", "-1", Some(vec![255; 4])),
            ("vnet", "new", Some(vec![1, 0, 0, 0])),
            ("ip4", "inherit", Some(vec![2, 0, 0, 0])),
            ("ip6", "disable", Some(vec![0; 4])),
            ("ip4.addr", "192.0.2.1,192.0.2.2", Some(vec![192, 0, 2, 1, 192, 0, 2, 2])),
            ("ip6.addr", "::1", Some([vec![0; 15], vec![1]].concat())),
            ("host.hostname", "2", Some(b"2\0".to_vec())),
        ] {
            let pairs = one(key, value).unwrap();
            assert_eq!(pairs, [(text("name"), Some(text("j"))), (text(key), bytes)], "{key}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (key, value) in [("vnet", "yes"), ("ip4.addr", "::1"), ("ip4.addr", "1.2.3"), ("securelevel", "x")] {
            let words = one(key, value).unwrap_err().to_string();
            assert!(words.starts_with(&format!("jail parameter {key}: {value:?} is not ")), "{words}");
        }
    }

    #[test]
    fn a_mount_is_pairs_of_words() {
        let strings = |all: &[&str]| all.iter().map(|s| (*s).to_string()).collect::<Vec<_>>();
        let pairs = mount("tmpfs", "tmpfs", &strings(&["nosuid"]), &strings(&["size=64k"]));
        let flat: Vec<String> = pairs
            .iter()
            .map(|(k, v)| [k.as_slice(), v.as_deref().unwrap_or(b"-")].concat())
            .map(|bytes| String::from_utf8(bytes).unwrap().replace('\0', " "))
            .collect();
        assert_eq!(flat, ["fstype tmpfs ", "from tmpfs ", "nosuid -", "size 64k "]);
        assert_eq!(mount("nullfs", "/data", &[], &[])[1].0, text("target"));
    }

    #[test]
    fn a_rule_of_devfs_is_its_struct() {
        let rule = devfs_rule("path pts/* unhide mode 0620 user 1000 group 4").unwrap();
        assert_eq!(&rule[..4], [0x7a, 0x08, 0x0a, 0xdb]);
        assert_eq!(&rule[PATTERN..PATTERN + 6], b"pts/*\0");
        assert_eq!((get(&rule, CONDITIONS), get(&rule, ACTIONS), get(&rule, SWITCH)), (2, 15, 2));
        assert_eq!((get(&rule, USER), get(&rule, GROUP), rule[MODE], rule[MODE + 1]), (1000, 4, 0o220, 1));
        for bad in ["", "path", "path null", "path null shown", "name null hide", "path null mode 9"] {
            assert_eq!(devfs_rule(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_of_shared_memory_are_read_from_a_list() {
        let record = |path: &[u8]| {
            let length = 368 + path.len() + 8;
            let mut all = (length as u32).to_le_bytes().to_vec();
            all.resize(368, 0);
            all.extend(path);
            all.resize(length, 0);
            all
        };
        let list = [record(b"/opt/pot/jails/a/m/x"), record(b"/y")].concat();
        assert_eq!(shared_memory(&list), [PathBuf::from("/opt/pot/jails/a/m/x"), PathBuf::from("/y")]);
        assert!(shared_memory(&list[..300]).is_empty() && shared_memory(&[0; 8]).is_empty());
    }

    #[test]
    fn what_hides_everything_is_known() {
        let mut hide_all = DevfsRule::asked(1, 100);
        put(&mut hide_all, ACTIONS, 1);
        put(&mut hide_all, SWITCH, 1);
        assert_eq!(DevfsRule::read(&hide_all), DevfsRule { number: 100, hides_all: true, includes: None });
        assert!(!DevfsRule::read(&devfs_rule("path mem hide").unwrap()).hides_all);
        let mut includes = DevfsRule::asked(4, 200);
        put(&mut includes, ACTIONS, 16);
        includes[INCLUDED] = 1;
        assert_eq!(DevfsRule::read(&includes).includes, Some(1));
    }
}
