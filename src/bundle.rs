//! A bundle: the directory, its config.json, and what that says.
//!
//! The OCI part is read by oci-spec; unknown members there are ignored, as the specification demands (config.md,
//! "Extensibility"). The sections `pot` and `freebsd` are ours: see [`pot`] and [`freebsd`].

pub mod edit;
pub mod freebsd;
pub mod pot;
pub mod read;

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::Deserialize;
use serde_json::value::RawValue;

pub use freebsd::FreeBsd;
pub use pot::Pot;
use read::{Cursor, pointer};

/// The annotation that carries the pot section for callers which can only set annotations.
pub const ANNOTATION: &str = "org.bsdpot.pot";

/// The largest config.json that is read. podman's largest are below 200 KiB; a limit must be somewhere, because the
/// whole file is held in memory by a process that runs as root.
pub const MAX_CONFIG: u64 = 16 << 20;

/// A bundle that was read and understood.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Absolute path of the directory.
    pub dir: PathBuf,
    /// The OCI part of config.json.
    pub spec: Spec,
    /// The `freebsd` section.
    pub freebsd: FreeBsd,
    /// The pot section, of whichever of the two places.
    pub pot: Option<Pot>,
    /// config.json as it was read: what the container is, whatever happens to the file later.
    pub config: Vec<u8>,
}

/// What is wrong with one place of config.json.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// JSON pointer (RFC 6901); empty for the whole document.
    pub at: String,
    /// What is wrong there, and what would be right.
    pub what: String,
}

impl Problem {
    /// A problem at a JSON pointer.
    pub fn new(at: impl Into<String>, what: impl Into<String>) -> Self {
        Self { at: at.into(), what: what.into() }
    }
}

/// The bundle's author must act: all problems at once, each with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub Vec<Problem>);

impl std::error::Error for Refusal {}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("config.json refused: ")?;
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("; ")?;
            }
            if !problem.at.is_empty() {
                write!(f, "{}: ", OneLine(&problem.at))?;
            }
            write!(f, "{}", OneLine(&problem.what))?;
        }
        Ok(())
    }
}

/// Text of a bundle as it may go into a log: a name with a line feed or an escape sequence must not write lines of
/// its own.
struct OneLine<'a>(&'a str);

impl std::fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_debug())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

/// Why a bundle could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The directory or file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The kernel's words.
        source: io::Error,
    },
    /// config.json says something that cannot be.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// The parts of config.json that oci-spec does not keep.
#[derive(Deserialize)]
struct Ours<'a> {
    #[serde(borrow, default, deserialize_with = "given")]
    pot: Option<&'a RawValue>,
    #[serde(borrow)]
    freebsd: Option<&'a RawValue>,
}

/// A member that is there, `null` included: that is a wrong type, not an ordinary bundle without a pot.
fn given<'de, D: serde::Deserializer<'de>>(json: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(json).map(Some)
}

impl Bundle {
    /// Reads the bundle in `dir`.
    ///
    /// # Errors
    /// The directory or config.json cannot be read, or is refused.
    pub fn read(dir: &Path) -> Result<Self, BundleError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| BundleError::Read { path, source }
        };
        let dir = dir.canonicalize().map_err(failed(dir))?;
        let path = dir.join("config.json");
        let mut config = Vec::with_capacity(32 << 10); // most are smaller: one read
        File::open(&path).and_then(|file| file.take(MAX_CONFIG + 1).read_to_end(&mut config)).map_err(failed(&path))?;
        Self::parse(dir, config).map_err(Into::into)
    }

    /// Understands `config`, the bytes of the config.json of `dir`. Pure.
    ///
    /// # Errors
    /// All problems, each with its JSON pointer.
    pub fn parse(dir: PathBuf, config: Vec<u8>) -> Result<Self, Refusal> {
        let whole = |what: String| Refusal(vec![Problem::new("", what)]);
        if config.len() as u64 > MAX_CONFIG {
            return Err(whole(format!("the file is longer than {MAX_CONFIG} bytes")));
        }
        if dir.to_str().is_none() {
            return Err(whole(format!("the path of the bundle is not UTF-8: {}", dir.display())));
        }
        let text = std::str::from_utf8(&config)
            .map_err(|bad| whole(format!("the file is not UTF-8: byte {}", bad.valid_up_to())))?;
        let ours: Ours<'_> = match serde_json::from_str(text) {
            Err(error) if !error.is_data() => return Err(whole(format!("the file {}", json_problem(text, error)))),
            // Serde would take an array for a struct, too.
            _ if !text.trim_ascii_start().starts_with('{') => return Err(whole("the file must be an object".into())),
            ours => ours.map_err(|error| whole(error.to_string()))?,
        };
        let spec: Option<Spec> = serde_json::from_str(text).ok().or_else(|| with_known_capabilities(text));

        let mut problems = spec.as_ref().map_or_else(|| vec![oci_problem(text)], check);
        // JSON has no other way to say it.
        if text.contains("\\u0000") {
            problems.extend(spec.iter().flat_map(nul));
        }
        let freebsd = section(ours.freebsd.map(RawValue::get), "/freebsd", &mut problems, FreeBsd::read);
        let annotation = spec.as_ref().and_then(annotation);
        if ours.pot.is_some() && annotation.is_some() {
            problems.push(Problem::new(pointer("/annotations", ANNOTATION), "given both here and as /pot"));
        }
        let pot = match (ours.pot, annotation) {
            (Some(raw), _) => section(Some(raw.get()), "/pot", &mut problems, Pot::read),
            (None, text) => {
                section(text.map(String::as_str), &pointer("/annotations", ANNOTATION), &mut problems, Pot::read)
            }
        };
        match spec {
            Some(spec) if problems.is_empty() => {
                Ok(Self { dir, spec, freebsd: freebsd.unwrap_or_default(), pot, config })
            }
            _ => {
                problems.sort();
                Err(Refusal(problems))
            }
        }
    }

    /// Where the pot section stands: the JSON pointer of whichever of the two places.
    #[must_use]
    pub fn pot_at(&self) -> String {
        match annotation(&self.spec) {
            Some(_) => pointer("/annotations", ANNOTATION),
            None => "/pot".into(),
        }
    }

    /// Where the root file system is, when no base says it: `root.path`, absolute.
    #[must_use]
    pub fn root(&self) -> Option<PathBuf> {
        let path = self.spec.root().as_ref()?.path();
        (!path.as_os_str().is_empty()).then(|| self.dir.join(path))
    }
}

/// config.json without the capabilities that nobody knows: config.md wants a warning for them, no error. Read so only
/// when reading it as it is has failed.
fn with_known_capabilities(text: &str) -> Option<Spec> {
    let mut config: serde_json::Value = serde_json::from_str(text).ok()?;
    understandable(config.pointer_mut("/process")?);
    serde_json::from_value(config).ok()
}

/// Removes from a process the names of capabilities that nobody knows, with a warning; and has a scheduler's flags as
/// oci-spec reads them, which lacks the specification's names for some (config.md, "scheduler").
pub fn understandable(process: &mut serde_json::Value) {
    let flags = process.pointer_mut("/scheduler/flags").and_then(serde_json::Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        if let Some((_, its)) = crate::linux::tuning::OTHER_WORDS.iter().find(|(theirs, _)| flag == theirs) {
            *flag = (*its).into();
        }
    }
    let sets = process.get_mut("capabilities").and_then(serde_json::Value::as_object_mut);
    for (set, names) in sets.into_iter().flatten() {
        let Some(names) = names.as_array_mut() else { continue };
        names.retain(|name| {
            let known = serde_json::from_value::<oci_spec::runtime::Capability>(name.clone()).is_ok();
            if !known && name.is_string() {
                tracing::warn!("/process/capabilities/{set}: {name} is not a capability, and is left out");
            }
            known || !name.is_string()
        });
    }
}

/// Reads one of our sections from its text.
fn section<T>(
    text: Option<&str>,
    at: &str,
    problems: &mut Vec<Problem>,
    read: impl FnOnce(&mut Cursor<'_>) -> T,
) -> Option<T> {
    match serde_json::from_str(text?) {
        Ok(value) => Some(Cursor::read(at, &value, problems, read)),
        Err(error) => {
            let what = json_problem(text?, error);
            // Of a section, the line would be counted from its own beginning.
            let what = if at == "/pot" || at == "/freebsd" { without_line(&what) } else { &what };
            problems.push(Problem::new(at, what));
            None
        }
    }
}

/// What is wrong with a text that is not JSON, or not JSON that can be read.
fn json_problem(text: &str, error: serde_json::Error) -> String {
    if text.trim_ascii().is_empty() {
        return "is empty".into();
    }
    // Of a value that it only skips, serde says less than of one that it keeps.
    let error = serde_json::from_str::<serde_json::Value>(text).err().unwrap_or(error);
    if error.to_string().starts_with("recursion limit") {
        return "is nested more than 127 deep".into();
    }
    format!("is not JSON: {error}")
}

fn without_line(what: &str) -> &str {
    what.rfind(" at line ").map_or(what, |end| &what[..end])
}

fn annotation(spec: &Spec) -> Option<&String> {
    spec.annotations().as_ref()?.get(ANNOTATION)
}

/// The place and the words of an error that oci-spec found: parsed again, because tracking the place costs time that
/// a good bundle should not pay.
fn oci_problem(text: &str) -> Problem {
    let mut json = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize::<_, Spec>(&mut json) {
        Ok(_) => Problem::new("", json.end().err().map_or_else(String::new, |e| e.to_string())),
        Err(error) => {
            let place = error.path().iter().fold(String::new(), |at, segment| match segment {
                serde_path_to_error::Segment::Seq { index } => pointer(&at, &index.to_string()),
                serde_path_to_error::Segment::Map { key } => pointer(&at, key),
                serde_path_to_error::Segment::Enum { variant } => pointer(&at, variant),
                serde_path_to_error::Segment::Unknown => at,
            });
            in_our_words(place, &error.into_inner().to_string())
        }
    }
}

/// What serde says about Rust, said about JSON.
fn in_our_words(place: String, what: &str) -> Problem {
    let quoted = |text: &str, before: &str| Some(text.strip_prefix(before)?.split_once(['`', ' '])?.0.to_string());
    if let Some(name) = quoted(what, "missing field `") {
        return Problem::new(pointer(&place, &name), "is required");
    }
    if let Some(name) = quoted(what, "no variant for ") {
        return Problem::new(place, format!("{name:?} is not a capability"));
    }
    let numbers = [
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected i32", "expected a whole number from -2147483648 to 2147483647"),
        ("expected u64", "expected a whole number from 0 to 2^64-1"),
        ("expected i64", "expected a whole number from -2^63 to 2^63-1"),
    ];
    Problem::new(place, numbers.iter().fold(what.to_string(), |text, (rust, json)| text.replace(rust, json)))
}

/// What oci-spec lets through though the specification does not.
fn check(spec: &Spec) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut no = |at: &str, what: &str| problems.push(Problem::new(at, what));
    match spec.version().split('.').next() {
        Some("1") => {}
        _ if spec.version().is_empty() => no("/ociVersion", "is required"),
        _ => no("/ociVersion", &format!("{:?} is not a version of the specification 1.x", spec.version())),
    }
    if let Some(process) = spec.process() {
        if process.args().as_ref().is_none_or(Vec::is_empty) {
            no("/process/args", "must name a program");
        }
        if !process.cwd().is_absolute() {
            no("/process/cwd", "must be an absolute path");
        }
        for (n, variable) in process.env().iter().flatten().enumerate() {
            if !variable.contains('=') || variable.starts_with('=') {
                no(&format!("/process/env/{n}"), &format!("{variable:?} is not NAME=value"));
            }
        }
        let mut kinds = std::collections::BTreeSet::new();
        for (n, limit) in process.rlimits().iter().flatten().enumerate() {
            if !kinds.insert(limit.typ().to_string()) {
                no(&format!("/process/rlimits/{n}/type"), &format!("{} is given twice", limit.typ()));
            }
            if limit.soft() > limit.hard() {
                no(&format!("/process/rlimits/{n}/soft"), "is above the hard limit");
            }
        }
    }
    for (n, mount) in spec.mounts().iter().flatten().enumerate() {
        let at = format!("/mounts/{n}/destination");
        if mount.destination().components().any(|part| part == Component::ParentDir) {
            no(&at, "must not contain ..");
        }
    }
    if let Some(hooks) = spec.hooks() {
        let moments = [
            ("prestart", deprecated_prestart(hooks)),
            ("createRuntime", hooks.create_runtime()),
            ("createContainer", hooks.create_container()),
            ("startContainer", hooks.start_container()),
            ("poststart", hooks.poststart()),
            ("poststop", hooks.poststop()),
        ];
        for (name, list) in moments {
            for (n, hook) in list.iter().flatten().enumerate() {
                if !hook.path().is_absolute() {
                    no(&format!("/hooks/{name}/{n}/path"), "must be an absolute path");
                }
                for (v, variable) in hook.env().iter().flatten().enumerate() {
                    if !variable.contains('=') || variable.starts_with('=') {
                        no(&format!("/hooks/{name}/{n}/env/{v}"), &format!("{variable:?} is not NAME=value"));
                    }
                }
                if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                    no(&format!("/hooks/{name}/{n}/timeout"), "must be more than 0 seconds");
                }
            }
        }
    }
    problems
}

/// Texts that the kernel takes end at a NUL byte; JSON's can hold one.
fn nul(spec: &Spec) -> Vec<Problem> {
    // Serialised again, so that members which are ignored may hold what they like.
    let known = ["process", "root", "mounts", "hooks", "hostname", "domainname", "linux"];
    let Ok(serde_json::Value::Object(members)) = serde_json::to_value(spec) else { return Vec::new() };
    let mut problems = Vec::new();
    for (name, value) in members.iter().filter(|(name, _)| known.contains(&name.as_str())) {
        nul_below(&pointer("", name), value, &mut problems);
    }
    problems
}

fn nul_below(at: &str, value: &serde_json::Value, problems: &mut Vec<Problem>) {
    match value {
        serde_json::Value::String(text) if text.contains('\0') => {
            problems.push(Problem::new(at, "contains a NUL byte"));
        }
        serde_json::Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, item)| nul_below(&pointer(at, &n.to_string()), item, problems));
        }
        serde_json::Value::Object(members) => {
            members.iter().for_each(|(name, member)| nul_below(&pointer(at, name), member, problems));
        }
        _ => {}
    }
}

/// The hooks that the specification calls deprecated and that callers still send.
#[allow(deprecated)]
#[must_use]
pub fn deprecated_prestart(hooks: &oci_spec::runtime::Hooks) -> &Option<Vec<oci_spec::runtime::Hook>> {
    hooks.prestart()
}
