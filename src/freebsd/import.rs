//! A bundle for a pot that pot made: its `pot.conf` and `fscomp.conf`, said in the words of config.json. Pure: nothing
//! is looked at but what is handed in, and the pot stays as it is.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::state::OCI_VERSION;

use super::pots::{self, Export, members};
use crate::settings::Settings;

/// The files of a pot: `<POT_FS_ROOT>/jails/POT/conf`.
#[derive(Debug)]
pub struct Pot<'a> {
    /// Its name.
    pub name: &'a str,
    /// `pot.conf`.
    pub conf: &'a str,
    /// `fscomp.conf`; a pot of one dataset may have none.
    pub fscomps: &'a str,
    /// `resolv.conf`, which a pot with a DNS of its own has.
    pub resolv: &'a str,
    /// The hooks that are there, by their paths: `prestart.sh`, `poststart.sh`, `prestop.sh`, `poststop.sh`.
    pub hooks: &'a [PathBuf],
}

/// What a pot is as a bundle.
#[derive(Debug)]
pub struct Imported {
    /// config.json.
    pub config: Value,
    /// What potrun does otherwise, or what could not be said.
    pub notes: Vec<String>,
}

/// The bundle of a pot.
///
/// # Errors
/// What pot itself would refuse to start: no network type, a network in the words of its past.
pub fn bundle(pot: &Pot<'_>, settings: &Settings) -> Result<Imported, String> {
    let conf = Conf(members(pot.conf));
    for old in ["pot.export.static.ports", "ip4"] {
        if conf.value(old).is_some() {
            return Err(format!("{old} is a word of an older pot: pot update-config -p {}", pot.name));
        }
    }
    let mut import = Import { pot, conf, settings, notes: Vec::new() };
    let mut config = json!({"ociVersion": OCI_VERSION, "process": import.process()});
    let mut section = Map::new();
    let (root, mounted) = import.storage();
    section.extend(mounted);
    section.extend(import.network()?);
    section.extend(import.lookup());
    section.extend(import.behaviour());
    let mut mounts = Vec::new();
    if !import.conf.is("pot.attr.no-tmpfs") {
        mounts.push(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}));
    }
    for (attribute, fstype, at) in [("fdescfs", "fdescfs", "/dev/fd"), ("procfs", "procfs", "/proc")] {
        if import.conf.is(&format!("pot.attr.{attribute}")) {
            mounts.push(json!({"destination": at, "type": fstype, "source": fstype}));
        }
    }
    let freebsd = json!({"jail": import.jail()});
    let hooks = import.hooks();
    let all = [
        ("root", root),
        ("hostname", import.conf.value("host.hostname").map_or(Value::Null, Into::into)),
        ("mounts", mounts.into()),
        ("hooks", hooks),
        ("freebsd", freebsd),
        ("pot", section.into()),
    ];
    for (key, value) in all {
        if !value.is_null() {
            config[key] = value;
        }
    }
    Ok(Imported { config, notes: import.notes })
}

/// Members of a pot.conf.
struct Conf<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Conf<'a> {
    /// All values of a key that are not empty.
    fn all(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, value)| *name == key && !value.is_empty()).map(|(_, value)| *value)
    }

    /// The last one: pot rewrites a key by appending it.
    fn value(&self, key: &str) -> Option<&'a str> {
        self.all(key).last()
    }

    fn is(&self, key: &str) -> bool {
        self.value(key) == Some("YES")
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.value(key)?.parse().ok()
    }
}

struct Import<'a> {
    pot: &'a Pot<'a>,
    conf: Conf<'a>,
    settings: &'a Settings,
    notes: Vec<String>,
}

type Section = Vec<(String, Value)>;

impl Import<'_> {
    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// The program. pot hands the words of `pot.cmd` to jexec(8).
    fn process(&mut self) -> Value {
        let command = self.conf.value("pot.cmd").unwrap_or("sh /etc/rc");
        let mut env = vec![
            "PATH=/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin".to_string(),
            "HOME=/root".into(),
            format!("_POT_NAME={}", self.pot.name),
        ];
        let own: Vec<String> = self.conf.all("pot.env").map(|one| one.replace("\\\"", "\"")).collect();
        if own.iter().any(|one| one.contains(['$', '`', '\\'])) {
            self.note("pot.env: pot lets a shell of the pot expand $, ` and \\; potrun hands them on as they are");
        }
        env.extend(own);
        if command.contains("/etc/rc") {
            self.note(format!(
                "pot.cmd={command}: the container ends when its first program does; a boot of rc(8) that returns ends it"
            ));
        }
        let args: Vec<&str> = command.split_whitespace().collect();
        json!({"args": args, "cwd": "/", "env": env, "user": {"uid": 0, "gid": 0}})
    }

    fn dataset(&self) -> &str {
        &self.settings.dataset
    }

    /// Where a dataset of pot's is mounted.
    fn path_of(&self, dataset: &str) -> Option<PathBuf> {
        let below = dataset.strip_prefix(self.dataset())?.strip_prefix('/')?;
        Some(self.settings.path.join(below))
    }

    /// The root, and what is mounted in it.
    fn storage(&mut self) -> (Value, Section) {
        let single = self.conf.value("pot.type") == Some("single");
        let own = self.settings.path.join("jails").join(self.pot.name).join("m");
        let mut root = single.then(|| json!({"path": own}));
        let (mut fscomps, mut datasets, mut directories) = (Vec::new(), Vec::new(), Vec::new());
        for line in self.pot.fscomps.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [source, target, options @ ..] = &words[..] else { continue };
            // Older files name the place on the host.
            let below = Path::new(target).strip_prefix(&own).map(|path| Path::new("/").join(path));
            let target = below.unwrap_or_else(|_| Path::new("/").join(target));
            let option = options.first().copied().unwrap_or_default();
            let readonly = option == "ro";
            match option {
                "" | "rw" | "ro" => {}
                "zfs-remount" => self.note(format!(
                    "{source}: is shown at {} by nullfs and keeps its own mount point",
                    target.display()
                )),
                other => self.note(format!("{source}: mount option {other} is left out")),
            }
            if target == Path::new("/") {
                match self.path_of(source) {
                    Some(path) => root = Some(json!({"path": path, "readonly": readonly})),
                    None => self.note(format!("{source}: is not below {} and cannot be the root", self.dataset())),
                }
                continue;
            }
            let fscomp = source.strip_prefix(self.dataset()).and_then(|below| below.strip_prefix("/fscomp/"));
            let mut one = json!({"destination": target});
            if readonly {
                one["readonly"] = true.into();
            }
            if source.starts_with('/') {
                one["source"] = (*source).into();
                directories.push(one);
            } else if let Some(name) = fscomp.filter(|name| crate::bundle::pot::is_name(name)) {
                one["name"] = name.into();
                fscomps.push(one);
            } else {
                one["dataset"] = (*source).into();
                datasets.push(one);
            }
        }
        let all = [("fscomps", fscomps), ("datasets", datasets), ("directories", directories)];
        let all = all.into_iter().filter(|(_, list)| !list.is_empty());
        (root.unwrap_or(Value::Null), all.map(|(key, list)| (key.into(), list.into())).collect())
    }

    fn network(&mut self) -> Result<Section, String> {
        let kind = self.conf.value("network_type").ok_or("pot.conf has no network_type")?;
        let mut network = json!({"type": kind});
        let stack = self.conf.value("pot.stack").unwrap_or(&self.settings.stack);
        if stack != "ipv4" {
            network["stack"] = stack.into();
        }
        let addresses: Vec<&str> =
            self.conf.all("ip").flat_map(str::split_whitespace).filter(|one| *one != "auto").collect();
        if !addresses.is_empty() && kind != "inherit" {
            network["addresses"] = addresses.into();
        }
        if let (Some(bridge), "private-bridge") = (self.conf.value("bridge"), kind) {
            network["bridge"] = bridge.into();
        }
        let mut all = vec![("network".into(), network)];
        let mut ports = Vec::new();
        for text in pots::exports(&self.conf.0) {
            let one = Export::parse(text).ok_or_else(|| format!("pot.export.ports: {text} is not a port"))?;
            let mut port = json!({"port": one.port});
            if one.protocol != "tcp" {
                port["protocol"] = one.protocol.into();
            }
            if let Some(host) = one.host {
                port["hostPort"] = host.into();
            }
            ports.push(port);
        }
        match (ports.is_empty(), kind.ends_with("-bridge")) {
            (true, _) => {}
            (false, true) => all.push(("exportedPorts".into(), ports.into())),
            (false, false) => self.note(format!("pot.export.ports: a pot of type {kind} exports none")),
        }
        if self.conf.is("pot.attr.localhost-tunnel") {
            self.note("pot.attr.localhost-tunnel: a forwarder on 127.0.0.1 is not made");
        }
        Ok(all)
    }

    /// resolv.conf and hosts.
    fn lookup(&mut self) -> Section {
        let mut all = Section::new();
        let multi = self.conf.value("pot.type") != Some("single");
        match self.conf.value("pot.dns") {
            _ if multi => {
                // Its /etc lies on a dataset that is mounted over the base: before that it would be the base's.
                self.note("pot.dns: /etc/resolv.conf of a pot of several datasets stays as pot left it");
                all.push(("dns".into(), "off".into()));
            }
            Some("off") => all.push(("dns".into(), "off".into())),
            Some("custom") => {
                let words = |key: &str| -> Vec<&str> {
                    let lines = self.pot.resolv.lines().filter_map(|line| line.strip_prefix(key));
                    lines.flat_map(str::split_whitespace).collect()
                };
                all.push(("dns".into(), json!({"nameservers": words("nameserver "), "search": words("search ")})));
            }
            Some("pot") => match self.settings.dns {
                Some(address) => all.push(("dns".into(), json!({"nameservers": [address]}))),
                None => self.note("pot.dns=pot: POT_DNS_IP is not set"),
            },
            _ => {}
        }
        let host = |line: &str| {
            let (address, name) = line.split_once(' ')?;
            Some(json!({"name": name.trim(), "address": address}))
        };
        let hosts: Vec<Value> = self.conf.all("pot.hosts").filter_map(host).collect();
        if !hosts.is_empty() && !multi {
            all.push(("hosts".into(), hosts.into()));
        }
        all
    }

    /// Limits, how it stops, what it needs.
    fn behaviour(&mut self) -> Section {
        let mut all = Section::new();
        let mut limits = Map::new();
        limits.extend(self.conf.value("pot.rss.memory").map(|size| ("memory".into(), bytes(size))));
        limits.extend(self.conf.number("pot.rss.cpus").map(|count| ("cpus".into(), count.into())));
        if !limits.is_empty() {
            all.push(("limits".into(), limits.into()));
        }
        let mut stop = Map::new();
        let command = self.conf.value("pot.attr.exec_stop");
        stop.extend(command.map(|line| ("command".into(), line.split_whitespace().collect::<Vec<_>>().into())));
        stop.extend(self.conf.number("pot.attr.stop_timeout").map(|seconds| ("timeout".into(), seconds.into())));
        if !stop.is_empty() {
            all.push(("stop".into(), stop.into()));
        }
        if self.conf.is("pot.attr.start-at-boot") {
            all.push(("startAtBoot".into(), true.into()));
        }
        let needs: Vec<&str> = self.conf.all("pot.depend").collect();
        if !needs.is_empty() {
            all.push(("dependsOn".into(), needs.into()));
        }
        let mut attributes = Map::new();
        let ruleset = self.conf.number("pot.attr.devfs_ruleset").filter(|number| *number != 4);
        attributes.extend(ruleset.map(|number| ("devfsRuleset".into(), number.into())));
        let children = self.conf.number("pot.attr.children").filter(|number| *number > 0);
        attributes.extend(children.map(|number| ("childrenMax".into(), number.into())));
        attributes.extend(self.conf.value("osrelease").map(|release| ("osrelease".into(), release.into())));
        if !attributes.is_empty() {
            all.push(("attributes".into(), attributes.into()));
        }
        all
    }

    /// What pot hands to jail(8), its fixed words among them.
    fn jail(&mut self) -> Value {
        let mut jail = json!({"enforceStatfs": self.conf.number("pot.attr.enforce_statfs").unwrap_or(2)});
        for name in ["sysvmsg", "sysvsem", "sysvshm"] {
            jail[name] = self.conf.value(&format!("pot.attr.{name}")).unwrap_or("new").into();
        }
        let mut allow = json!({"setHostname": false, "rawSockets": true, "socketAf": true, "chflags": true});
        if self.conf.is("pot.attr.mlock") {
            allow["mlock"] = true.into();
        }
        let mounts: Vec<&str> = ["linprocfs", "nullfs", "tmpfs", "zfs"]
            .into_iter()
            .filter(|name| self.conf.is(&format!("pot.attr.{name}")))
            .collect();
        if !mounts.is_empty() {
            allow["mount"] = mounts.into();
        } else if self.conf.is("pot.attr.mount") {
            self.note("pot.attr.mount: allows no file system by itself, and is left out");
        }
        jail["allow"] = allow;
        jail
    }

    /// pot's scripts of the host.
    fn hooks(&mut self) -> Value {
        let mut all = Map::new();
        for path in self.pot.hooks {
            let moment = match path.file_name().and_then(|name| name.to_str()) {
                Some("prestart.sh") => "createRuntime",
                Some("poststart.sh") => "poststart",
                Some("poststop.sh") => "poststop",
                _ => {
                    self.note(format!("{}: OCI has no such moment", path.display()));
                    continue;
                }
            };
            let env =
                [format!("_POT_NAME={}", self.pot.name), "PATH=/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/bin".into()];
            all.insert(moment.into(), json!([{"path": path, "args": [path], "env": env}]));
        }
        if all.is_empty() {
            return Value::Null;
        }
        self.note("hooks: of pot's variables they get _POT_NAME only, and that they fail is an error");
        all.into()
    }
}

/// `512M`, as pot has it: rctl(8) takes `b` for bytes, too.
fn bytes(size: &str) -> Value {
    let size = size.to_ascii_lowercase();
    match size.trim_end_matches('b').parse::<u64>() {
        Ok(number) => number.into(),
        Err(_) => size.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Bundle;

    /// As pot 0.16 writes it (`pot create`, `pot set-*`).
    const CONF: &str = r#"pot.level=0
pot.type=single
pot.base=14.1
pot.potbase=
pot.dns=custom
pot.cmd=/usr/local/bin/nginx -g daemon
host.hostname="web.example.org"
osrelease="14.1-RELEASE"
pot.attr.no-rc-script=YES
pot.attr.persistent=NO
pot.attr.start-at-boot=YES
pot.attr.no-tmpfs=NO
pot.attr.enforce_statfs=2
pot.attr.fdescfs=YES
pot.attr.nullfs=YES
pot.attr.sysvshm=inherit
pot.attr.children=2
pot.attr.devfs_ruleset=4
pot.attr.exec_stop=
pot.attr.stop_timeout=10
pot.stack=dual
network_type=public-bridge
vnet=true
ip=10.192.0.7
bridge=
pot.rss.memory=512M
pot.rss.cpus=2
pot.env="GREETING=say \"hi\""
pot.hosts=192.0.2.7 db
pot.export.ports=80:8080 udp:53
pot.depend=db
"#;

    fn pot<'a>(conf: &'a str, fscomps: &'a str, hooks: &'a [PathBuf]) -> Pot<'a> {
        Pot { name: "web", conf, fscomps, resolv: "search example.org\nnameserver 192.0.2.53\n", hooks }
    }

    #[test]
    fn a_pot_of_one_dataset() {
        let fscomps =
            "zroot/pot/fscomp/data /opt/pot/jails/web/m/srv/data ro\n/etc/ssl /etc/ssl\ntank/x /x zfs-remount\n";
        let hooks = [PathBuf::from("/opt/pot/jails/web/conf/prestart.sh"), "/opt/pot/jails/web/conf/prestop.sh".into()];
        let Imported { config, notes } = bundle(&pot(CONF, fscomps, &hooks), &Settings::default()).unwrap();
        let expected = json!({
            "ociVersion": OCI_VERSION,
            "root": {"path": "/opt/pot/jails/web/m"},
            "hostname": "web.example.org",
            "process": {
                "args": ["/usr/local/bin/nginx", "-g", "daemon"], "cwd": "/", "user": {"uid": 0, "gid": 0},
                "env": ["PATH=/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin", "HOME=/root",
                        "_POT_NAME=web", "GREETING=say \"hi\""],
            },
            "mounts": [
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/dev/fd", "type": "fdescfs", "source": "fdescfs"},
            ],
            "hooks": {"createRuntime": [{
                "path": "/opt/pot/jails/web/conf/prestart.sh", "args": ["/opt/pot/jails/web/conf/prestart.sh"],
                "env": ["_POT_NAME=web", "PATH=/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/bin"],
            }]},
            "freebsd": {"jail": {
                "enforceStatfs": 2, "sysvmsg": "new", "sysvsem": "new", "sysvshm": "inherit",
                "allow": {"setHostname": false, "rawSockets": true, "socketAf": true, "chflags": true, "mount": ["nullfs"]},
            }},
            "pot": {
                "fscomps": [{"name": "data", "destination": "/srv/data", "readonly": true}],
                "datasets": [{"dataset": "tank/x", "destination": "/x"}],
                "directories": [{"source": "/etc/ssl", "destination": "/etc/ssl"}],
                "network": {"type": "public-bridge", "stack": "dual", "addresses": ["10.192.0.7"]},
                "exportedPorts": [{"port": 80, "hostPort": 8080}, {"port": 53, "protocol": "udp"}],
                "dns": {"nameservers": ["192.0.2.53"], "search": ["example.org"]},
                "hosts": [{"name": "db", "address": "192.0.2.7"}],
                "limits": {"memory": "512m", "cpus": 2},
                "stop": {"timeout": 10},
                "startAtBoot": true,
                "dependsOn": ["db"],
                "attributes": {"childrenMax": 2, "osrelease": "14.1-RELEASE"},
            },
        });
        assert_eq!(config, expected);
        assert!(notes.iter().any(|note| note.contains("prestop.sh")), "{notes:?}");
        Bundle::parse("/b".into(), config.to_string().into_bytes()).unwrap();
    }

    #[test]
    fn a_pot_of_several_datasets_keeps_its_layers() {
        let conf = "pot.level=1\npot.type=multi\npot.base=14.1\npot.dns=inherit\nnetwork_type=inherit\nip=\n";
        let fscomps = "zroot/pot/bases/14.1 / ro\nzroot/pot/jails/web/usr.local /usr/local zfs-remount\n\
            zroot/pot/jails/web/custom /opt/custom zfs-remount\n";
        let Imported { config, notes } = bundle(&pot(conf, fscomps, &[]), &Settings::default()).unwrap();
        assert_eq!(config["root"], json!({"path": "/opt/pot/bases/14.1", "readonly": true}));
        assert_eq!(config["process"]["args"], json!(["sh", "/etc/rc"]));
        assert_eq!(config["pot"]["dns"], "off");
        let datasets = ["zroot/pot/jails/web/usr.local", "zroot/pot/jails/web/custom"];
        let found: Vec<&Value> =
            config["pot"]["datasets"].as_array().unwrap().iter().map(|one| &one["dataset"]).collect();
        assert_eq!(found, datasets);
        assert!(notes.iter().any(|note| note.contains("rc(8)")), "{notes:?}");
        Bundle::parse("/b".into(), config.to_string().into_bytes()).unwrap();
    }

    #[test]
    fn aliases_keep_their_interfaces() {
        let conf = "pot.type=single\nnetwork_type=alias\nip=em0|192.0.2.5 2001:db8::5\npot.stack=dual\n";
        let config = bundle(&pot(conf, "", &[]), &Settings::default()).unwrap().config;
        assert_eq!(config["pot"]["network"]["addresses"], json!(["em0|192.0.2.5", "2001:db8::5"]));
    }

    #[test]
    fn what_pot_would_not_start_is_refused() {
        for bad in ["", "network_type=public-bridge\npot.export.ports=http\n", "network_type=inherit\nip4=10.0.0.1\n"] {
            assert!(bundle(&pot(bad, "", &[]), &Settings::default()).is_err(), "{bad}");
        }
    }
}
