//! What a container has used, in the JSON of runc's `events` (types/events.go of runc). A member whose controller is
//! absent has no figures: `null` or nothing, never a zero that was not counted.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The files of a container's group by their names, as far as they are there (cgroup-v2.rst).
pub type Files = BTreeMap<String, String>;

/// The files that [`data`] reads; those of hugetlb and their like are found by their endings.
pub const FILES: &[&str] = &[
    "cpu.stat",
    "cpu.pressure",
    "io.pressure",
    "io.stat",
    "memory.current",
    "memory.events",
    "memory.max",
    "memory.peak",
    "memory.pressure",
    "memory.stat",
    "memory.swap.current",
    "memory.swap.max",
    "pids.current",
    "pids.max",
];

/// `data` of an event of type `stats`.
#[must_use]
pub fn data(files: &Files) -> Value {
    some(json!({
        "cpu": cpu(files),
        "memory": memory(files),
        "pids": pids(files),
        "blkio": io(files),
        "hugetlb": hugetlb(files),
        "intel_rdt": {},
    }))
}

/// A file of one number; `max` is the largest there is, as in runc.
fn number(files: &Files, name: &str) -> Option<u64> {
    match files.get(name)?.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

/// A file of lines `name number`.
fn table(files: &Files, name: &str) -> BTreeMap<String, u64> {
    let lines = files.get(name).into_iter().flat_map(|text| text.lines());
    let row = |line: &str| {
        let (name, number) = line.split_once(' ')?;
        Some((name.to_string(), number.trim().parse().ok()?))
    };
    lines.filter_map(row).collect()
}

fn cpu(files: &Files) -> Value {
    let stat = table(files, "cpu.stat");
    // The kernel counts microseconds, runc tells nanoseconds.
    let time = |name: &str| stat.get(name).map(|microseconds| microseconds.saturating_mul(1000));
    let usage = json!({
        "total": time("usage_usec"), "kernel": time("system_usec"), "user": time("user_usec"),
    });
    let throttling = json!({
        "periods": stat.get("nr_periods"), "throttledPeriods": stat.get("nr_throttled"),
        "throttledTime": time("throttled_usec"),
    });
    some(json!({"usage": some(usage), "throttling": some(throttling), "psi": pressure(files, "cpu.pressure")}))
}

/// The object without the members that are `null`.
fn some(mut value: Value) -> Value {
    if let Some(all) = value.as_object_mut() {
        all.retain(|_, value| !value.is_null());
    }
    value
}

/// Pressure stall information (psi.rst): `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn pressure(files: &Files, name: &str) -> Value {
    let mut all = serde_json::Map::new();
    for line in files.get(name).into_iter().flat_map(|text| text.lines()) {
        let mut words = line.split_whitespace();
        let Some(kind) = words.next() else { continue };
        let mut figures = serde_json::Map::new();
        for (name, figure) in words.filter_map(|word| word.split_once('=')) {
            let value = match name {
                "total" => json!(figure.parse::<u64>().unwrap_or(0)),
                _ => json!(figure.parse::<f64>().unwrap_or(0.0)),
            };
            figures.insert(name.into(), value);
        }
        all.insert(kind.into(), figures.into());
    }
    if all.is_empty() { Value::Null } else { all.into() }
}

fn memory(files: &Files) -> Value {
    let entry = |current: &str, max: &str, peak: Option<u64>, failed: Option<u64>| {
        some(json!({
            "limit": number(files, max), "usage": number(files, current), "max": peak, "failcnt": failed,
        }))
    };
    let raw = table(files, "memory.stat");
    let events = table(files, "memory.events");
    some(json!({
        "cache": raw.get("file"),
        "usage": entry("memory.current", "memory.max", number(files, "memory.peak"), events.get("max").copied()),
        "swap": entry("memory.swap.current", "memory.swap.max", None, None),
        "raw": if raw.is_empty() { Value::Null } else { json!(raw) },
        "psi": pressure(files, "memory.pressure"),
    }))
}

fn pids(files: &Files) -> Value {
    let limit = number(files, "pids.max").map(|limit| if limit == u64::MAX { 0 } else { limit });
    some(json!({"current": number(files, "pids.current"), "limit": limit}))
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn io(files: &Files) -> Value {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in files.get("io.stat").into_iter().flat_map(|text| text.lines()) {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
        for (name, figure) in words.filter_map(|word| word.split_once('=')) {
            let (list, op) = match name {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "dbytes" => (&mut bytes, "Discard"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                "dios" => (&mut operations, "Discard"),
                _ => continue,
            };
            let whole = |text: &str| text.parse::<u64>().unwrap_or(0);
            list.push(json!({"major": whole(major), "minor": whole(minor), "op": op, "value": whole(figure)}));
        }
    }
    let list = |list: Vec<Value>| if list.is_empty() { Value::Null } else { list.into() };
    some(json!({
        "ioServiceBytesRecursive": list(bytes), "ioServicedRecursive": list(operations),
        "psi": pressure(files, "io.pressure"),
    }))
}

fn hugetlb(files: &Files) -> Value {
    let mut all = serde_json::Map::new();
    for name in files.keys() {
        let Some(size) = name.strip_prefix("hugetlb.").and_then(|name| name.strip_suffix(".current")) else { continue };
        if size.contains('.') {
            continue; // what is reserved, which runc does not tell
        }
        let failed = table(files, &format!("hugetlb.{size}.events")).get("max").copied();
        all.insert(size.into(), some(json!({"usage": number(files, name), "failcnt": failed.unwrap_or(0)})));
    }
    if all.is_empty() { Value::Null } else { all.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(all: &[(&str, &str)]) -> Files {
        all.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
    }

    #[test]
    fn figures_are_in_runcs_units_and_places() {
        let data = data(&files(&[
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 3\nthrottled_usec 2\n"),
            ("cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=12\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1\nfile 2\n"),
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
            ("hugetlb.2MB.current", "0\n"),
            ("hugetlb.2MB.rsvd.current", "0\n"),
            ("hugetlb.2MB.events", "max 7\n"),
        ]));
        assert_eq!(data["cpu"]["usage"], json!({"total": 1_500_000, "kernel": 500_000, "user": 1_000_000}));
        assert_eq!(data["cpu"]["throttling"], json!({"periods": 3, "throttledTime": 2000}));
        assert_eq!(data["cpu"]["psi"]["some"]["avg10"], json!(1.5));
        assert_eq!(data["memory"]["usage"], json!({"limit": u64::MAX, "usage": 4096}));
        assert_eq!(data["memory"]["cache"], json!(2));
        assert_eq!(data["pids"], json!({"current": 2, "limit": 0}));
        assert_eq!(
            data["blkio"]["ioServiceBytesRecursive"][1],
            json!({"major": 8, "minor": 0, "op": "Write", "value": 2})
        );
        assert_eq!(data["hugetlb"], json!({"2MB": {"usage": 0, "failcnt": 7}}));
    }

    #[test]
    fn what_was_not_counted_is_no_zero() {
        let data = data(&Files::new());
        assert_eq!(data["memory"]["usage"], json!({}));
        assert_eq!(data["pids"], json!({}));
        assert_eq!(data["cpu"]["throttling"], json!({}));
        assert_eq!(data["hugetlb"], Value::Null);
    }
}
