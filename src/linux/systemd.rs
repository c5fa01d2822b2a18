//! Containers as scopes of systemd: names of units, and limits as their properties.
//!
//! The form of `cgroupsPath` and the properties are those of runc (docs/systemd.md of runc; systemd.resource-control(5)).

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::tuning;

/// A scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unit {
    /// Its name: `PREFIX-NAME.scope`.
    pub name: String,
    /// The slice that it is in.
    pub slice: String,
    /// Whether the manager is the user's own, and not the host's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub user: bool,
    /// What its description says: the mark.
    pub description: String,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}{}", self.name, self.slice, if self.user { " of the user" } else { "" })
    }
}

/// A property of a unit, in the types that those of ours have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Value {
    /// `t`: the largest is "infinity".
    Number(u64),
    /// `ay`: a mask of processors or nodes, the lowest first.
    Mask(Vec<u8>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(u64::MAX) => f.write_str("infinity"),
            Self::Number(number) => number.fmt(f),
            Self::Mask(bytes) => {
                f.write_str("0x")?;
                bytes.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// A property and its name.
pub type Property = (String, Value);

/// The unit that `cgroupsPath` asks for.
///
/// # Errors
/// What is wrong with it.
pub fn unit(asked: &str, id: &str, user: bool) -> Result<Unit, String> {
    let parts: Vec<&str> = asked.split(':').collect();
    // runc's defaults, with our name for its own.
    let escaped = id.replace('+', "\\x2b");
    let (slice, prefix, name) = match parts[..] {
        [""] => ("", "potrun", escaped.as_str()),
        [slice, prefix, name] if !name.is_empty() => (slice, prefix, name),
        _ => return Err(format!("{asked:?} is not of the form slice:prefix:name, as --systemd-cgroup wants it")),
    };
    let slice = match slice {
        "" if user => "user.slice",
        "" => "system.slice",
        other => other,
    };
    below(slice)?;
    if name.ends_with(".slice") {
        return Err(format!("{name} is a slice, and a container is a scope"));
    }
    let name = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
    // systemd.unit(5): the characters and the length of a name.
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\".contains(c);
    if !name.chars().all(plain) || name.len() > 255 {
        return Err(format!("{name:?} is not the name of a unit"));
    }
    Ok(Unit { name, slice: slice.into(), user, description: format!("potrun container {id}") })
}

/// The group of a slice, below that of its manager: `a-b.slice` is `a.slice/a-b.slice` (systemd.slice(5)).
///
/// # Errors
/// It is not the name of a slice.
pub fn below(slice: &str) -> Result<PathBuf, String> {
    let wrong = || format!("{slice:?} is not the name of a slice");
    let name = slice.strip_suffix(".slice").ok_or_else(wrong)?;
    if name == "-" {
        return Ok(PathBuf::new());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || ":_.\\".contains(c);
    let mut path = PathBuf::new();
    let mut so_far = String::new();
    for part in name.split('-') {
        if part.is_empty() || !part.chars().all(plain) {
            return Err(wrong());
        }
        so_far = if so_far.is_empty() { part.into() } else { format!("{so_far}-{part}") };
        path.push(format!("{so_far}.slice"));
    }
    Ok(path)
}

/// The limit that is written to a file of a group, as properties of its unit: so that systemd, which writes these files
/// itself when it is reloaded, writes the same. Files that no property stands for belong to who has `Delegate=`.
#[must_use]
pub fn properties(file: &str, value: &str) -> Vec<Property> {
    let number = |text: &str| if text == "max" { Some(u64::MAX) } else { text.parse().ok() };
    let one = |name: &str, value: Option<u64>| value.map(|value| (name.to_string(), Value::Number(value)));
    let mask = |name: &str| {
        let words = tuning::mask(value)?;
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        Some((name.to_string(), Value::Mask(bytes)))
    };
    match file {
        "memory.max" => one("MemoryMax", number(value)).into_iter().collect(),
        "memory.high" => one("MemoryHigh", number(value)).into_iter().collect(),
        "memory.low" => one("MemoryLow", number(value)).into_iter().collect(),
        "memory.min" => one("MemoryMin", number(value)).into_iter().collect(),
        "memory.swap.max" => one("MemorySwapMax", number(value)).into_iter().collect(),
        "pids.max" => one("TasksMax", number(value)).into_iter().collect(),
        "cpu.weight" => one("CPUWeight", number(value)).into_iter().collect(),
        "io.weight" => one("IOWeight", value.strip_prefix("default ").and_then(number)).into_iter().collect(),
        "cpu.max" => {
            let mut words = value.split(' ');
            let (quota, period) = (words.next().and_then(number), words.next().and_then(number).unwrap_or(100_000));
            let each_second = quota.map(|quota| match quota {
                u64::MAX => quota,
                // systemd counts whole percents; runc rounds up.
                _ => (quota.saturating_mul(1_000_000) / period.max(1)).next_multiple_of(10_000),
            });
            one("CPUQuotaPerSecUSec", each_second).into_iter().chain(one("CPUQuotaPeriodUSec", Some(period))).collect()
        }
        "cpuset.cpus" => mask("AllowedCPUs").into_iter().collect(),
        "cpuset.mems" => mask("AllowedMemoryNodes").into_iter().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_named_as_runc_names_them() {
        let named = |asked: &str| unit(asked, "web+1", false).map(|unit| (unit.slice, unit.name));
        let found = |slice: &str, name: &str| Ok((slice.to_string(), name.to_string()));
        assert_eq!(named("machine.slice:libpod:abc"), found("machine.slice", "libpod-abc.scope"));
        assert_eq!(named(":libpod:abc"), found("system.slice", "libpod-abc.scope"));
        assert_eq!(named("a-b.slice::abc"), found("a-b.slice", "abc.scope"));
        assert_eq!(named(""), found("system.slice", "potrun-web\\x2b1.scope"));
        assert_eq!(unit("", "a", true).unwrap().slice, "user.slice");
        for bad in
            ["/a/b", "a:b", "a:b:c:d", "a:b:c", "a.slice:b:", "../x.slice:b:c", "a.slice:b:../c", "a.slice:b:c.slice"]
        {
            assert!(named(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slice_lies_in_those_that_its_name_begins_with() {
        assert_eq!(below("a-b-c.slice"), Ok("a.slice/a-b.slice/a-b-c.slice".into()));
        assert_eq!(below("-.slice"), Ok(PathBuf::new()));
        for bad in ["a", "a--b.slice", "-a.slice", "a-.slice", ".slice", "a/b.slice"] {
            assert!(below(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_are_properties_too() {
        let number = |name: &str, value| (name.to_string(), Value::Number(value));
        assert_eq!(properties("memory.max", "67108864"), [number("MemoryMax", 67_108_864)]);
        assert_eq!(properties("pids.max", "max"), [number("TasksMax", u64::MAX)]);
        assert_eq!(
            properties("cpu.max", "50000 100000"),
            [number("CPUQuotaPerSecUSec", 500_000), number("CPUQuotaPeriodUSec", 100_000)]
        );
        assert_eq!(properties("cpu.max", "1 3000")[0], number("CPUQuotaPerSecUSec", 10_000));
        assert_eq!(properties("cpuset.cpus", "0-1,9"), [("AllowedCPUs".into(), Value::Mask(vec![3, 2]))]);
        assert_eq!(properties("hugetlb.2MB.max", "0"), []);
    }
}
