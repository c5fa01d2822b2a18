//! `spec`: a config.json to begin with.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::base::Image;
use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::facts::Os;
use crate::host::this;
use crate::state::OCI_VERSION;

/// Arguments of `spec`.
#[derive(Debug, Args)]
pub struct Spec {
    /// Directory that config.json is written to
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    bundle: PathBuf,
    /// For a caller without root: root inside is the caller outside
    #[arg(long)]
    rootless: bool,
    /// A pot that is cloned from this base; of an OCI image, with its program, environment, directory and user
    #[arg(long, value_name = "NAME")]
    base: Option<String>,
}

impl cli::Run for Spec {
    fn run(&self, context: &Context) -> Result<u8> {
        let config = match &self.base {
            Some(base) => {
                let mut config = pot(base);
                // A base need not be there yet, nor a store that could be read.
                let image = this::facts::bases(&context.store).find(base).ok().flatten().and_then(|base| base.image);
                if let Some(image) = image {
                    for note in convert(&mut config, base, &image)? {
                        eprintln!("potrun: note: {note}");
                    }
                }
                config
            }
            None if this::OS == Some(Os::Freebsd) => jail(),
            None => plain(self.rootless),
        };
        write(&self.bundle, &config)?;
        Ok(0)
    }
}

/// Fills in what an image says about its process, by the OCI image specification ("Conversion to OCI Runtime
/// Configuration"), and returns what it says that has no place there.
fn convert(config: &mut Value, base: &str, image: &Image) -> Result<Vec<String>> {
    let process = &mut config["process"];
    let args: Vec<&String> = image.entrypoint.iter().chain(&image.cmd).collect();
    if !args.is_empty() {
        process["args"] = json!(args);
    }
    if !image.env.is_empty() {
        let has = |name: &str| image.env.iter().any(|one| one.split('=').next() == Some(name));
        let own = process["env"].as_array().cloned().unwrap_or_default();
        let ours =
            own.into_iter().filter(|one| !has(one.as_str().unwrap_or_default().split('=').next().unwrap_or_default()));
        process["env"] = ours.chain(image.env.iter().map(|one| json!(one))).collect();
    }
    if !image.working_dir.is_empty() {
        process["cwd"] = json!(Path::new("/").join(&image.working_dir));
    }
    let Some(ids) = &image.ids else {
        return Err(Error::caller(format!("base {base} runs as {:?}, whom its /etc/passwd does not have", image.user)));
    };
    process["user"] = json!({"uid": ids.uid, "gid": ids.gid});
    if !ids.additional_gids.is_empty() {
        process["user"]["additionalGids"] = json!(ids.additional_gids);
    }
    let mut annotations = serde_json::Map::new();
    let mut annotate = |name: &str, text: String| {
        if !text.is_empty() {
            annotations.insert(format!("org.opencontainers.image.{name}"), text.into());
        }
    };
    if let Some(platform) = &image.platform {
        annotate("os", platform.os.clone());
        annotate("architecture", platform.architecture.clone());
        annotate("variant", platform.variant.clone().unwrap_or_default());
    }
    annotate("exposedPorts", image.exposed_ports.join(","));
    annotate("stopSignal", image.stop_signal.clone());
    if !annotations.is_empty() {
        config["annotations"] = annotations.into();
    }
    let mut notes = Vec::new();
    if !image.exposed_ports.is_empty() {
        notes.push(format!(
            "the image listens on {}: to export them, see exportedPorts",
            image.exposed_ports.join(", ")
        ));
    }
    if !image.volumes.is_empty() {
        notes.push(format!(
            "the image has data in {}: it ends with the pot, unless an fscomp is there",
            image.volumes.join(", ")
        ));
    }
    Ok(notes)
}

/// Writes a new config.json; one that exists is left alone.
pub(super) fn write(bundle: &Path, config: &Value) -> Result<()> {
    let path = bundle.join("config.json");
    let text = serde_json::to_string_pretty(config).doing(|| "write JSON")? + "\n";
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::caller(format!("{} exists; it is left alone", path.display())));
        }
        other => other.doing(|| format!("create {}", path.display()))?,
    };
    file.write_all(text.as_bytes()).doing(|| format!("write {}", path.display()))
}

fn process() -> Value {
    json!({
        "terminal": true,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        "cwd": "/",
    })
}

/// A pot for either operating system: what is not said is what pots have.
fn pot(base: &str) -> Value {
    json!({
        "ociVersion": OCI_VERSION,
        "process": process(),
        "hostname": "pot",
        "pot": {"base": {"release": base}, "network": {"type": "inherit"}},
    })
}

/// A jail with the network of the host and what podman mounts in one.
fn jail() -> Value {
    let mut process = process();
    process["args"] = json!(["/bin/sh"]);
    json!({
        "ociVersion": OCI_VERSION,
        "process": process,
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "potrun",
        "mounts": [
            {"destination": "/dev", "type": "devfs", "source": "devfs", "options": ["ruleset=4"]},
            {"destination": "/dev/fd", "type": "fdescfs", "source": "fdescfs"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777"]},
        ],
        "freebsd": {"jail": {"ip4": "inherit", "ip6": "inherit"}},
    })
}

/// runc's example configuration, so that what works there works here.
fn plain(rootless: bool) -> Value {
    let kept = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mut process = process();
    process["capabilities"] = json!({"bounding": kept, "effective": kept, "permitted": kept});
    process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}]);
    process["noNewPrivileges"] = json!(true);
    let mut namespaces = vec!["pid", "ipc", "uts", "mount", "cgroup"];
    let mut sysfs = json!({
        "destination": "/sys", "type": "sysfs", "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"],
    });
    let mut devpts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if rootless {
        namespaces.push("user");
        sysfs = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "rro"]});
    } else {
        namespaces.push("network");
        devpts.push("gid=5");
    }
    let mut linux = json!({
        "namespaces": namespaces.iter().map(|kind| json!({"type": kind})).collect::<Vec<_>>(),
        "maskedPaths": [
            "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
            "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
        ],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    });
    if rootless {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
        linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    } else {
        linux["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
    }
    json!({
        "ociVersion": OCI_VERSION,
        "process": process,
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "potrun",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": devpts},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            sysfs,
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
        ],
        "linux": linux,
    })
}
