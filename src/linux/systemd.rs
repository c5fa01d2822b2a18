//! Containers as scopes of systemd: names of units, and limits as their properties.
//!
//! The form of `cgroupsPath` and the properties are those of runc (docs/systemd.md of runc; systemd.resource-control(5)).

mod text;

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

/// The value of a property of a unit, by its type on the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Value {
    /// `b`.
    Boolean(bool),
    /// `y`.
    Byte(u8),
    /// `n`.
    Int16(i16),
    /// `q`.
    Uint16(u16),
    /// `i`.
    Int32(i32),
    /// `u`.
    Uint32(u32),
    /// `x`.
    Int64(i64),
    /// `t`: the largest is "infinity".
    Number(u64),
    /// `d`, as its bits.
    Double(u64),
    /// `s`.
    Text(String),
    /// `o`.
    Path(String),
    /// `v`.
    Variant(Box<Self>),
    /// `ay`: bytes, or a mask of processors or nodes, the lowest first.
    Mask(Vec<u8>),
    /// An array of what has this type.
    List(String, Vec<Self>),
    /// A tuple.
    Tuple(Vec<Self>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |f: &mut fmt::Formatter<'_>, values: &[Self]| {
            values.iter().enumerate().try_for_each(|(n, value)| write!(f, "{}{value}", if n > 0 { " " } else { "" }))
        };
        match self {
            Self::Boolean(yes) => yes.fmt(f),
            Self::Byte(number) => number.fmt(f),
            Self::Int16(number) => number.fmt(f),
            Self::Uint16(number) => number.fmt(f),
            Self::Int32(number) => number.fmt(f),
            Self::Uint32(number) => number.fmt(f),
            Self::Int64(number) => number.fmt(f),
            Self::Number(u64::MAX) => f.write_str("infinity"),
            Self::Number(number) => number.fmt(f),
            Self::Double(bits) => f64::from_bits(*bits).fmt(f),
            Self::Text(text) | Self::Path(text) => text.escape_debug().fmt(f),
            Self::Variant(value) => value.fmt(f),
            Self::Mask(bytes) => {
                f.write_str("0x")?;
                bytes.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::List(_, values) => all(f, values),
            Self::Tuple(values) => {
                f.write_str("(")?;
                all(f, values)?;
                f.write_str(")")
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

/// What annotations that give a property begin with, as runc's and crun's do.
pub const ANNOTATION: &str = "org.systemd.property.";

/// What potrun itself says of a unit: where it is, whose, and that its group is the container's.
const OURS: &[&str] = &["Delegate", "Description", "PIDs", "Slice"];

/// The property that an annotation gives: `name` is what its key has behind [`ANNOTATION`], and `value` is in GVariant's
/// text format. A time that is said in seconds, as systemd's manual pages name them, is one in microseconds on the bus.
///
/// # Errors
/// What is wrong with it.
pub fn annotated(name: &str, value: &str) -> Result<Property, String> {
    if name.len() < 3 || !name.chars().all(|c| c.is_ascii_alphabetic()) {
        return Err(format!("{name:?} is not the name of a property of systemd"));
    }
    if OURS.contains(&name) {
        return Err(format!("{name} of a unit is what potrun says it is"));
    }
    let value = text::parse(value).map_err(|what| format!("{value:?} is not a value of D-Bus: {what}"))?;
    let seconds = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
    match seconds {
        Some(stem) => Ok((format!("{stem}USec"), Value::Number(microseconds(&value)?))),
        None => Ok((name.into(), value)),
    }
}

fn microseconds(seconds: &Value) -> Result<u64, String> {
    let whole = match seconds {
        Value::Byte(number) => Some(u64::from(*number)),
        Value::Uint16(number) => Some(u64::from(*number)),
        Value::Uint32(number) => Some(u64::from(*number)),
        Value::Number(number) => Some(*number),
        Value::Int16(number) => u64::try_from(*number).ok(),
        Value::Int32(number) => u64::try_from(*number).ok(),
        Value::Int64(number) => u64::try_from(*number).ok(),
        Value::Double(bits) => {
            let number = f64::from_bits(*bits) * 1e6;
            // Of what is less than this a u64 holds all but the fraction.
            return if (0.0..1e19).contains(&number) { Ok(number as u64) } else { Err(no_time(seconds)) };
        }
        _ => None,
    };
    whole.and_then(|number| number.checked_mul(1_000_000)).ok_or_else(|| no_time(seconds))
}

fn no_time(seconds: &Value) -> String {
    format!("{seconds} is not a number of seconds")
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

    #[test]
    fn properties_are_annotated_as_runc_reads_them() {
        let same = |name: &str, text: &str, as_name: &str, value: Value| {
            assert_eq!(annotated(name, text), Ok((as_name.to_string(), value)), "{name} {text}");
        };
        same("TimeoutStopUSec", "uint64 123456789", "TimeoutStopUSec", Value::Number(123_456_789));
        same("TimeoutStopSec", "2", "TimeoutStopUSec", Value::Number(2_000_000));
        same("TimeoutStopSec", "1.5", "TimeoutStopUSec", Value::Number(1_500_000));
        same("RuntimeMaxSec", "byte 3", "RuntimeMaxUSec", Value::Number(3_000_000));
        same("CollectMode", "'inactive'", "CollectMode", Value::Text("inactive".into()));
        same("After", "['a.service']", "After", Value::List("s".into(), vec![Value::Text("a.service".into())]));
        same("KillSignal", "15", "KillSignal", Value::Int32(15));
        // No lower-case letter before it: not a time.
        same("XSec", "2", "XSec", Value::Int32(2));
        for (name, text) in [
            ("", "1"),
            ("Ab", "1"),
            ("Memory.Max", "1"),
            ("Memory Max", "1"),
            ("Description", "'mine'"),
            ("Slice", "'a.slice'"),
            ("CollectMode", "inactive"),
            ("TimeoutStopSec", "'2'"),
            ("TimeoutStopSec", "-1"),
            ("TimeoutStopSec", "-0.5"),
            ("TimeoutStopSec", "1e14"),
            ("TimeoutStopSec", "uint64 18446744073709551615"),
        ] {
            assert!(annotated(name, text).is_err(), "{name} {text}: {:?}", annotated(name, text));
        }
    }
}
