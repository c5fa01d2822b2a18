//! systemd's manager of units, of the host or of a user, on its bus (org.freedesktop.systemd1(5)).

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::wait::waitpid;
use nix::unistd::{Pid, geteuid};
use zbus::wire::StructureBuilder;
use zbus::{Array, ObjectPath, OwnedObjectPath, OwnedVariant, Signature, Variant};

use crate::host::{Trouble, link};
use crate::linux::systemd::{Property, Unit, Value};

use super::bus::{Bus, Method, Refused};
use super::{cgroup, sys};

const SERVICE: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// A process that keeps a scope from ending before the container's first process is in it: systemd takes a scope away
/// when it is empty.
#[derive(Debug)]
pub(super) struct Placeholder {
    pid: i32,
    link: Option<OwnedFd>,
}

impl Placeholder {
    fn start() -> Result<Self, Trouble> {
        let (ours, theirs) = link::pair()?;
        let Some(pid) = sys::clone3(&sys::Clone { flags: 0, cgroup: None })? else {
            drop(ours);
            // Until the other end is closed, if only because potrun has died.
            drop(link::hear(theirs.as_fd()));
            crate::host::sys::exit(0)
        };
        Ok(Self { pid, link: Some(ours) })
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        self.link = None;
        // It may have been killed with its group.
        waitpid(Pid::from_raw(self.pid), None).ok();
    }
}

/// The path in the first address of a socket that has one (D-Bus Specification, "Server Addresses").
fn socket(addresses: &str) -> Option<PathBuf> {
    let path = addresses
        .split(';')
        .find_map(|one| one.strip_prefix("unix:")?.split(',').find_map(|pair| pair.strip_prefix("path=")))?;
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            other => bytes.push(other),
        }
    }
    Some(PathBuf::from(String::from_utf8(bytes).ok()?))
}

/// Connects to the manager: by the bus, or where there is none by the manager's own socket.
fn connect(user: bool) -> Result<Bus, Trouble> {
    let said = std::env::var(if user { "DBUS_SESSION_BUS_ADDRESS" } else { "DBUS_SYSTEM_BUS_ADDRESS" }).ok();
    let runtime = if user {
        let set = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        set.unwrap_or_else(|| format!("/run/user/{}", geteuid()).into())
    } else {
        "/run".into()
    };
    let by_default = runtime.join(if user { "bus" } else { "dbus/system_bus_socket" });
    let bus = said.as_deref().and_then(socket).unwrap_or(by_default);
    Bus::connect(&bus, true)
        .or_else(|e| Bus::connect(&runtime.join("systemd/private"), false).map_err(|_| e))
        .map_err(|e| format!("connect to systemd by {}: {e}", bus.display()).into())
}

fn manager(member: &'static str) -> Method {
    Method { service: SERVICE, path: OBJECT.into(), interface: MANAGER, member }
}

fn property(bus: &mut Bus, path: &str, interface: &str, name: &str) -> Result<String, Trouble> {
    let get =
        Method { service: SERVICE, path: path.into(), interface: "org.freedesktop.DBus.Properties", member: "Get" };
    let (value,) = bus.call(&get, &(interface, name))?.body::<(OwnedVariant,)>()?;
    Ok(String::try_from(value)?)
}

/// The group that all units of the manager are in, below the hierarchy.
pub(super) fn group(user: bool) -> Result<String, Trouble> {
    property(&mut connect(user)?, OBJECT, MANAGER, "ControlGroup")
}

fn is(trouble: &Trouble, names: &[&str]) -> bool {
    trouble.downcast_ref::<Refused>().is_some_and(|refused| names.iter().any(|name| refused.name.ends_with(name)))
}

/// The jobs that end are told from here on.
fn subscribe(bus: &mut Bus) -> Result<(), Trouble> {
    let (service, interface) = ("org.freedesktop.DBus", "org.freedesktop.DBus");
    let add = Method { service, path: "/org/freedesktop/DBus".into(), interface, member: "AddMatch" };
    let rule = format!("type='signal',sender='{SERVICE}',interface='{MANAGER}',member='JobRemoved'");
    match bus.call(&add, &(rule,)) {
        // The manager's own socket is no bus, and tells all.
        Err(e) if !e.is::<Refused>() => return Err(e),
        _ => {}
    }
    match bus.call(&manager("Subscribe"), &()) {
        Err(e) if !is(&e, &["AlreadySubscribed"]) => Err(e),
        _ => Ok(()),
    }
}

/// Waits until a job has ended.
fn finished(bus: &mut Bus, job: &str) -> Result<(), Trouble> {
    let result = bus.signal("JobRemoved", |signal| {
        let (_, ended, _, result) = signal.body::<(u32, OwnedObjectPath, String, String)>()?;
        Ok((ended.as_str() == job).then_some(result))
    })?;
    match result.as_str() {
        "done" | "skipped" => Ok(()),
        other => Err(format!("systemd's job ended with {other:?}").into()),
    }
}

fn variant(value: &Value) -> Result<Variant<'_>, Trouble> {
    Ok(match value {
        Value::Boolean(yes) => Variant::from(*yes),
        Value::Byte(number) => Variant::from(*number),
        Value::Int16(number) => Variant::from(*number),
        Value::Uint16(number) => Variant::from(*number),
        Value::Int32(number) => Variant::from(*number),
        Value::Uint32(number) => Variant::from(*number),
        Value::Int64(number) => Variant::from(*number),
        Value::Number(number) => Variant::from(*number),
        Value::Double(bits) => Variant::from(f64::from_bits(*bits)),
        Value::Text(text) => Variant::from(text.as_str()),
        Value::Path(path) => Variant::from(ObjectPath::try_from(path.as_str())?),
        Value::Variant(inner) => Variant::Variant(Box::new(variant(inner)?)),
        Value::Mask(bytes) => Variant::from(bytes.as_slice()),
        Value::List(of, values) => {
            let mut array = Array::new(&Signature::try_from(of.as_str()).map_err(|e| format!("{of}: {e}"))?);
            for one in values {
                array.append(variant(one)?)?;
            }
            Variant::Array(array)
        }
        Value::Tuple(values) => {
            let mut tuple = StructureBuilder::new();
            for one in values {
                tuple.push_value(variant(one)?);
            }
            Variant::Structure(tuple.build()?)
        }
    })
}

fn variants(properties: &[Property]) -> Result<Vec<(&str, Variant<'_>)>, Trouble> {
    properties.iter().map(|(name, value)| Ok((name.as_str(), variant(value)?))).collect()
}

/// Starts a scope; it stays as long as what is returned, or another process in it.
pub(super) fn start(unit: &Unit, path: &Path, properties: &[Property]) -> Result<Placeholder, Trouble> {
    let mut bus = connect(unit.user)?;
    subscribe(&mut bus)?;
    ask_for(&mut bus, unit, properties).and_then(|(placeholder, job)| match finished(&mut bus, &job) {
        Ok(()) if path.is_dir() => Ok(placeholder),
        other => {
            drop(placeholder);
            let failed = other.err().unwrap_or_else(|| format!("systemd has no group {}", path.display()).into());
            match end(&mut bus, unit, path) {
                Ok(()) => Err(failed),
                Err(left) => Err(format!("{failed}; and the unit is left: {left}").into()),
            }
        }
    })
}

/// Asks for a scope; the job that makes it.
fn ask_for(bus: &mut Bus, unit: &Unit, properties: &[Property]) -> Result<(Placeholder, String), Trouble> {
    let placeholder = Placeholder::start()?;
    let mut all: Vec<(&str, Variant<'_>)> = vec![
        ("Description", Variant::from(unit.description.as_str())),
        ("Slice", Variant::from(unit.slice.as_str())),
        ("PIDs", Variant::from(vec![placeholder.pid.cast_unsigned()])),
        ("Delegate", Variant::from(true)),
        ("DefaultDependencies", Variant::from(false)),
        // A scope that failed goes as one that ended does.
        ("CollectMode", Variant::from("inactive-or-failed")),
    ];
    // What is counted is told by `events`, whether there is a limit or not.
    all.extend(
        ["CPUAccounting", "IOAccounting", "MemoryAccounting", "TasksAccounting"].map(|n| (n, Variant::from(true))),
    );
    // Last, since systemd keeps what it hears last.
    all.extend(variants(properties)?);
    let none: Vec<(String, Vec<(String, Variant<'_>)>)> = Vec::new();
    let arguments = (unit.name.as_str(), "replace", all, none);
    let start = manager("StartTransientUnit");
    let answer = match bus.call(&start, &arguments) {
        // One that has failed is still known by its name.
        Err(e) if is(&e, &["UnitExists"]) => {
            bus.call(&manager("ResetFailedUnit"), &(unit.name.as_str(),)).map_err(|_| e)?;
            bus.call(&start, &arguments)?
        }
        other => other?,
    };
    let (job,) = answer.body::<(OwnedObjectPath,)>()?;
    Ok((placeholder, job.as_str().to_string()))
}

/// Stops the scope, if it is ours, and waits until its group is gone.
pub(super) fn stop(unit: &Unit, path: &Path) -> Result<(), Trouble> {
    let mut bus = match connect(unit.user) {
        // Without its group it is none.
        Err(_) if !path.exists() => return Ok(()),
        other => other?,
    };
    subscribe(&mut bus)?;
    end(&mut bus, unit, path)
}

fn end(bus: &mut Bus, unit: &Unit, path: &Path) -> Result<(), Trouble> {
    let name = (unit.name.as_str(),);
    let object = match bus.call(&manager("GetUnit"), &name) {
        Err(e) if is(&e, &["NoSuchUnit"]) => return Ok(()),
        other => other?.body::<(OwnedObjectPath,)>()?.0,
    };
    match property(bus, object.as_str(), "org.freedesktop.systemd1.Unit", "Description") {
        Ok(description) if description != unit.description => return Ok(()),
        Err(e) if !is(&e, &["UnknownObject", "NoSuchUnit"]) => return Err(e),
        _ => {}
    }
    cgroup::kill(path)?;
    match bus.call(&manager("StopUnit"), &(unit.name.as_str(), "replace")) {
        Err(e) if is(&e, &["NoSuchUnit"]) => {}
        other => finished(bus, other?.body::<(OwnedObjectPath,)>()?.0.as_str())?,
    }
    match bus.call(&manager("ResetFailedUnit"), &name) {
        Err(e) if !is(&e, &["NoSuchUnit"]) => return Err(e),
        _ => {}
    }
    Ok(cgroup::remove(path)?)
}

/// Changes properties of a scope, until the next boot as all of it.
pub(super) fn set(unit: &Unit, properties: &[Property]) -> Result<(), Trouble> {
    let all = variants(properties)?;
    connect(unit.user)?.call(&manager("SetUnitProperties"), &(unit.name.as_str(), true, all)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::socket;

    #[test]
    fn addresses_of_sockets_are_found() {
        assert_eq!(socket("unix:path=/run/bus"), Some("/run/bus".into()));
        assert_eq!(socket("tcp:host=x;unix:guid=1,path=/a%20b"), Some("/a b".into()));
        assert_eq!(socket("unix:abstract=x"), None);
    }
}
