//! What a machine is made of, and what an op of the host does to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::bundle::Bundle;
use crate::facts::{Facts, Os, Store};
use crate::lease::Port;
use crate::linux::nft::Element;
use crate::op::{Family, MARK, Mount, Op};

use super::inside::{Process, Stage};

/// What an op answers: nothing, or why not.
pub(super) type Answer = Result<(), String>;

/// Everything that ops can change, and what they need to be there.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Whose ops it takes.
    pub os: Os,
    /// Directories of others: all below them is there, and is theirs.
    pub trees: BTreeSet<PathBuf>,
    /// Bases (Linux), each with who uses it.
    pub bases: BTreeMap<PathBuf, BTreeSet<String>>,
    /// Layers, each with its owner.
    pub layers: BTreeMap<PathBuf, PathBuf>,
    /// Those of them that lie on others, each with these, the topmost first.
    pub lies_on: BTreeMap<PathBuf, Vec<PathBuf>>,
    /// Layers that pots share.
    pub shared: BTreeSet<PathBuf>,
    /// Datasets by name.
    pub datasets: BTreeMap<String, Dataset>,
    /// Snapshots by name.
    pub snapshots: BTreeSet<String>,
    /// Files and mount points that were made in a layer or a dataset, and go with it.
    pub files: BTreeMap<PathBuf, String>,
    /// Mounts of the host, in the order in which they were made.
    pub mounts: Vec<Mounted>,
    /// Interfaces, by where they are and by name.
    pub links: BTreeMap<(Net, String), Link>,
    /// Default routes.
    pub routes: BTreeSet<(Net, IpAddr)>,
    /// Families that the host forwards.
    pub forwarding: BTreeSet<String>,
    /// pf anchors, each with its rules.
    pub anchors: BTreeMap<String, Vec<String>>,
    /// Elements of the sets of the nftables table `potrun`, if that is there.
    pub nft: Option<BTreeSet<String>>,
    /// Rules of rctl(8).
    pub rctl: BTreeSet<String>,
    /// Leases of addresses and ports, by their owner.
    pub leases: BTreeMap<PathBuf, (Vec<IpAddr>, Vec<Port>)>,
    /// Names of pots, as lines of hosts(5), by the directory of their bridge.
    pub names: BTreeMap<PathBuf, BTreeSet<String>>,
    /// Control groups.
    pub cgroups: BTreeMap<PathBuf, Cgroup>,
    /// Groups of resctrl.
    pub resctrl: BTreeSet<PathBuf>,
    /// Jails by name.
    pub jails: BTreeMap<String, Jail>,
    /// Processes that some potrun has started.
    pub processes: BTreeMap<i32, Process>,
}

/// A dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dataset {
    /// Its own properties.
    pub properties: BTreeMap<String, String>,
    /// The snapshot that it is a clone of.
    pub origin: Option<String>,
}

/// A mount of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Where.
    pub at: PathBuf,
    /// What.
    pub mount: Mount,
}

/// Where an interface is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Net {
    /// On the host.
    Host,
    /// In a jail with a network stack of its own.
    Jail(String),
    /// In the network namespace of a process.
    Process(i32),
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it is.
    pub kind: LinkKind,
    /// Its description, or alias.
    pub description: String,
    /// `address/prefix`, or an address.
    pub addresses: BTreeSet<String>,
    /// The bridge that it is a member of.
    pub bridge: Option<String>,
    /// Whether it is up.
    pub up: bool,
    /// `route_localnet`.
    pub loopback: bool,
}

/// What an interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A real one.
    Nic,
    /// `lo`, `lo0`.
    Loopback,
    /// A bridge.
    Bridge,
    /// One end of a pair: the other one's name.
    End(String),
}

/// A control group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cgroup {
    /// What was written to its files.
    pub files: BTreeMap<String, String>,
    /// The device filter, in words.
    pub filter: Option<String>,
    /// The addresses that its sockets are held to.
    pub addresses: Vec<IpAddr>,
    /// Whether it was made only because a group below it was.
    pub above: bool,
}

/// A jail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jail {
    /// Its parameters.
    pub parameters: Vec<(String, String)>,
    /// The processors that it is confined to.
    pub cpus: Option<String>,
}

impl Jail {
    fn parameter(&self, key: &str) -> Option<&str> {
        self.parameters.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn path(&self) -> &Path {
        Path::new(self.parameter("path").unwrap_or("/"))
    }

    fn own_network(&self) -> bool {
        self.parameter("vnet") == Some("new")
    }
}

impl Link {
    /// An interface that nobody has named or configured.
    #[must_use]
    pub fn new(kind: LinkKind, description: &str) -> Self {
        let (addresses, bridge) = (BTreeSet::new(), None);
        Self { kind, description: description.into(), addresses, bridge, up: false, loopback: false }
    }
}

/// Controllers of cgroup v2: a file that begins with one is there only where the group above enabled it.
const CONTROLLERS: &[&str] = &["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"];

const SUBTREE: &str = "cgroup.subtree_control";

fn no(what: impl Into<String>) -> Answer {
    Err(what.into())
}

/// The directory of the bridge whose pots see `hosts`.
fn bridge_of(hosts: &Path) -> PathBuf {
    hosts.ancestors().nth(2).unwrap_or(hosts).into()
}

/// The name of the pot whose layer it is.
fn name_of(layer: &Path) -> String {
    layer.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn need(there: bool, what: impl FnOnce() -> String) -> Answer {
    if there { Ok(()) } else { Err(what()) }
}

impl Machine {
    /// A machine with nothing on it but its loopback interface.
    #[must_use]
    pub fn new(os: Os) -> Self {
        let lo = if os == Os::Linux { "lo" } else { "lo0" };
        Self {
            os,
            trees: ["/dev", "/proc", "/sys"].map(PathBuf::from).into(),
            bases: BTreeMap::new(),
            layers: BTreeMap::new(),
            lies_on: BTreeMap::new(),
            shared: BTreeSet::new(),
            datasets: BTreeMap::new(),
            snapshots: BTreeSet::new(),
            files: BTreeMap::new(),
            mounts: Vec::new(),
            links: BTreeMap::from([((Net::Host, lo.into()), Link::new(LinkKind::Loopback, ""))]),
            routes: BTreeSet::new(),
            forwarding: BTreeSet::new(),
            anchors: BTreeMap::new(),
            nft: None,
            rctl: BTreeSet::new(),
            leases: BTreeMap::new(),
            names: BTreeMap::new(),
            cgroups: BTreeMap::new(),
            resctrl: BTreeSet::new(),
            jails: BTreeMap::new(),
            processes: BTreeMap::new(),
        }
    }

    /// The machine of `facts`, with the directories of the host that `bundle` names.
    #[must_use]
    pub fn of(facts: &Facts, bundle: &Bundle) -> Self {
        let mut machine = Self::new(facts.os);
        let pot = bundle.pot.clone().unwrap_or_default();
        machine.trees.extend([facts.state.clone(), bundle.dir.clone()]);
        machine.trees.extend(bundle.root());
        machine.trees.extend(facts.fscomps.values().cloned());
        machine.trees.extend(pot.directories.iter().map(|one| one.source.clone()));
        let listed = bundle.spec.mounts().iter().flatten().filter_map(|one| one.source().clone());
        machine.trees.extend(listed.filter(|source| source.is_absolute()));
        match &facts.store {
            Store::Overlay { path } => {
                machine.trees.insert(path.clone());
                let base = pot.base.iter().map(|base| (path.join("bases").join(&base.release), BTreeSet::new()));
                machine.bases.extend(base);
            }
            Store::Zfs { dataset, path } => {
                machine.dataset(dataset, path);
                for below in ["bases", "jails", "fscomp"] {
                    machine.dataset(&format!("{dataset}/{below}"), &path.join(below));
                }
            }
        }
        machine.snapshots.extend(facts.base.iter().filter_map(|base| base.snapshot.clone()));
        for (name, path) in &facts.datasets {
            let Some(path) = path else { continue };
            machine.dataset(name, path);
            machine.trees.insert(path.clone());
        }
        let named = pot.network.addresses.iter().filter_map(|one| one.interface.clone());
        let lent = &bundle.freebsd.jail;
        let interface = lent.interface.iter().chain(&lent.vnet_interfaces).cloned();
        for name in named.chain(interface).chain([facts.network.interface.clone()]) {
            machine.links.insert((Net::Host, name), Link::new(LinkKind::Nic, ""));
        }
        for (name, interface) in &facts.interfaces {
            let mut link = Link::new(LinkKind::Nic, "");
            (link.addresses, link.up) = (interface.addresses.iter().cloned().collect(), interface.up);
            machine.links.insert((Net::Host, name.clone()), link);
        }
        if let Some(cgroup) = &facts.cgroup {
            for path in [&cgroup.mount, &cgroup.parent] {
                machine.cgroups.insert(path.clone(), Cgroup::default());
            }
        }
        machine
    }

    /// A dataset of somebody else.
    pub fn dataset(&mut self, name: &str, mountpoint: &Path) {
        let properties = BTreeMap::from([("mountpoint".to_string(), mountpoint.display().to_string())]);
        self.datasets.insert(name.into(), Dataset { properties, origin: None });
    }

    /// The machine without the few settings that ops make and none takes back, because they are the whole host's and
    /// others may have come to need them: forwarding, controllers enabled in groups above ours, and those groups.
    #[must_use]
    pub fn without_what_stays(&self) -> Self {
        let mut machine = self.clone();
        machine.forwarding.clear();
        machine.cgroups.retain(|_, group| !group.above);
        for group in machine.cgroups.values_mut() {
            group.files.remove(SUBTREE);
        }
        machine
    }

    // --- what is where ---------------------------------------------------------------------------------------------

    /// Whether there is something at `path`.
    pub(super) fn exists(&self, path: &Path) -> bool {
        path == Path::new("/")
            || self.trees.iter().any(|tree| path.starts_with(tree))
            || self.bases.keys().any(|base| path.starts_with(base))
            || self.names.keys().any(|bridge| path.starts_with(bridge))
            || self.mounts.iter().any(|mounted| path.starts_with(&mounted.at))
            || self.owner(path).is_some()
    }

    /// The layer or dataset of ours that `path` is stored in.
    fn owner(&self, path: &Path) -> Option<PathBuf> {
        let datasets = self.datasets.values().filter(|one| one.properties.contains_key(MARK));
        let layers = self.layers.keys().chain(&self.shared).map(PathBuf::as_path);
        let places = datasets.filter_map(mountpoint).chain(layers);
        places.filter(|place| path.starts_with(place)).max_by_key(|place| place.as_os_str().len()).map(Into::into)
    }

    /// The mount that is seen at `path`: the latest of those with the longest way in common.
    fn covering(&self, path: &Path) -> Option<&Mounted> {
        self.mounts.iter().filter(|one| path.starts_with(&one.at)).max_by_key(|one| one.at.components().count())
    }

    /// Where `path` is stored, through what is mounted over it; an error where that cannot be written.
    fn stored(&self, path: &Path, writing: bool) -> Result<PathBuf, String> {
        let Some(mounted) = self.covering(path) else { return Ok(path.into()) };
        if writing && mounted.mount.options.iter().any(|word| word == "ro") {
            return Err(format!("{}: Read-only file system", path.display()));
        }
        let below = path.strip_prefix(&mounted.at).unwrap_or(Path::new(""));
        Ok(mounted.mount.source.join(below))
    }

    fn forget_below(&mut self, place: &Path) {
        self.files.retain(|path, _| !path.starts_with(place));
    }

    /// Whether a process has its root file system or its jail in `path`.
    fn in_use(&self, path: &Path) -> bool {
        let jail = |process: &Process| Some(self.jails.get(process.jail.as_ref()?)?.path().to_path_buf());
        self.processes.values().any(|process| {
            process.stands_on(path)
                || jail(process).is_some_and(|root| root.starts_with(path) || path.starts_with(&root))
        })
    }

    // --- processes --------------------------------------------------------------------------------------------------

    /// A process ends: its mounts and its network end with it, and interfaces of the host come back.
    pub fn kill(&mut self, pid: i32) {
        if self.processes.remove(&pid).is_some() {
            self.end_network(&Net::Process(pid));
        }
    }

    fn kill_in(&mut self, group: &Path) {
        let within = |process: &Process| process.cgroup.as_ref().is_some_and(|path| path.starts_with(group));
        let all: Vec<i32> = self.processes.iter().filter(|(_, one)| within(one)).map(|(pid, _)| *pid).collect();
        all.into_iter().for_each(|pid| self.kill(pid));
    }

    /// Linux destroys the pairs of a namespace that ends; a vnet(9) that ends returns all interfaces.
    fn end_network(&mut self, net: &Net) {
        self.routes.retain(|(place, _)| place != net);
        let names: Vec<String> =
            self.links.keys().filter(|(place, _)| place == net).map(|(_, name)| name.clone()).collect();
        for name in names {
            let Some(mut link) = self.links.remove(&(net.clone(), name.clone())) else { continue };
            let pair = matches!(link.kind, LinkKind::End(_));
            if link.kind == LinkKind::Loopback {
                continue;
            }
            if pair && self.os == Os::Linux {
                self.remove_peer(&link);
                continue;
            }
            link.addresses.clear();
            link.up = false;
            self.links.insert((Net::Host, name), link);
        }
    }

    fn remove_peer(&mut self, link: &Link) {
        if let LinkKind::End(peer) = &link.kind {
            self.links.retain(|(_, name), _| name != peer);
        }
    }

    /// Where `pot` has its network: the jail of that name, or else the first process that potrun has started.
    fn net(&self, pot: &str, child: Option<i32>) -> Result<Net, String> {
        if self.os == Os::Freebsd {
            let jail = self.jails.get(pot).ok_or_else(|| format!("there is no jail {pot}"))?;
            need(jail.own_network(), || format!("jail {pot} has no network of its own"))?;
            return Ok(Net::Jail(pot.into()));
        }
        let pid = child.ok_or("there is no process whose network that could be")?;
        let process = self.processes.get(&pid).ok_or("the first process is gone")?;
        need(process.owns("network"), || "the first process has no network of its own".into())?;
        need(process.stage == Stage::AwaitsRuntime, || "the first process does not wait for the runtime".into())?;
        Ok(Net::Process(pid))
    }

    fn host_link(&mut self, name: &str) -> Result<&mut Link, String> {
        self.links.get_mut(&(Net::Host, name.into())).ok_or_else(|| format!("there is no interface {name}"))
    }

    /// Whether any bridge of pots is left.
    fn has_bridge(&self) -> bool {
        let ours = |link: &Link| link.kind == LinkKind::Bridge && link.description.starts_with("potrun ");
        self.links.values().any(ours)
    }

    fn has_member(&self, bridge: &str) -> bool {
        self.links.values().any(|link| link.bridge.as_deref() == Some(bridge))
    }

    /// What is in the way of `op` and can carry no mark.
    pub(super) fn taken(&self, op: &Op) -> Option<String> {
        let taken = match op {
            Op::AddAddress { interface, address } => {
                let link = self.links.get(&(Net::Host, interface.clone()));
                link.is_some_and(|link| link.addresses.contains(address))
            }
            Op::LeaveLayer { path, .. } => self.layers.contains_key(path),
            Op::CreateCgroup { path } | Op::CreateUnit { path, .. } => self.populated(path),
            Op::CreateJail { name, .. } => self.jails.contains_key(name),
            _ => false,
        };
        taken.then(|| "it is there already".into())
    }

    // --- ops --------------------------------------------------------------------------------------------------------

    /// Does what `op` says. After an error the machine is of no use: the caller works on a copy.
    #[allow(clippy::too_many_lines)] // one arm per variant, as in op.rs
    pub(super) fn carry_out(&mut self, op: &Op, child: &mut Option<i32>, fails_at: Option<usize>) -> Answer {
        match op {
            Op::UseBase { base, id, .. } => {
                let users = self.bases.get_mut(base).ok_or_else(|| format!("there is no base {}", base.display()))?;
                need(users.insert(id.to_string()), || format!("{id} uses the base already"))
            }
            Op::ReleaseBase { base, id, .. } => {
                let used = self.in_use(base);
                if let Some(users) = self.bases.get_mut(base) {
                    users.remove(id.as_str());
                    need(!users.is_empty() || !used, || "a process has its root on the base".into())?;
                }
                Ok(())
            }
            Op::CreateLayer { path, owner, .. } => {
                need(!self.layers.contains_key(path), || format!("layer {} is there", path.display()))?;
                self.layers.insert(path.clone(), owner.clone());
                Ok(())
            }
            Op::TakeUpLayer { path, owner, layers, .. } => {
                need(self.layers.contains_key(path), || format!("there is no layer {}", path.display()))?;
                need(self.below(path) == layers, || format!("{} lies on other layers", path.display()))?;
                self.layers.insert(path.clone(), owner.clone());
                Ok(())
            }
            Op::FreezeLayer { path, layer } => {
                need(self.layers.contains_key(path), || format!("there is no layer {}", path.display()))?;
                need(!self.in_use(path), || "a process has its root in the layer".into())?;
                need(self.shared.insert(layer.clone()), || format!("layer {} is there", layer.display()))?;
                self.lies_on.entry(path.clone()).or_default().insert(0, layer.clone());
                self.move_files(path, layer);
                Ok(())
            }
            Op::ThawLayer { path, layer } => {
                let own = self.files.keys().any(|file| file.starts_with(path)) || self.in_use(path);
                let others = self.lies_on.iter().any(|(pot, layers)| pot != path && layers.contains(layer));
                if self.below(path).first() == Some(layer) && !own && !others {
                    self.lie_on(path, self.below(path)[1..].to_vec());
                    self.shared.remove(layer);
                    self.move_files(layer, path);
                }
                Ok(())
            }
            Op::LeaveLayer { path, owner, base, of, layers, copy, .. } => {
                need(!self.layers.contains_key(path), || format!("layer {} is there", path.display()))?;
                need(self.layers.contains_key(of), || format!("there is no layer {}", of.display()))?;
                need(layers.iter().all(|layer| self.shared.contains(layer)), || "a layer below is not there".into())?;
                let users = self.bases.get_mut(base).ok_or_else(|| format!("there is no base {}", base.display()))?;
                users.insert(name_of(path));
                for from in copy.iter().rev() {
                    let copied: Vec<_> = self.files.iter().filter(|(file, _)| file.starts_with(from)).collect();
                    let to = |file: &Path| path.join(file.strip_prefix(from).unwrap_or(file));
                    let copied: Vec<_> = copied.into_iter().map(|(file, text)| (to(file), text.clone())).collect();
                    self.files.extend(copied);
                }
                self.layers.insert(path.clone(), owner.clone());
                self.lie_on(path, layers.clone());
                Ok(())
            }
            Op::ForgetLayer { path, owner } => {
                if self.layers.get(path) == Some(owner) {
                    self.remove_layer(path)?;
                    self.bases.values_mut().for_each(|users| _ = users.remove(&name_of(path)));
                }
                Ok(())
            }
            Op::RemoveLayer { path, owner, .. } => match self.layers.get(path) {
                Some(whose) if whose == owner => self.remove_layer(path),
                _ => Ok(()),
            },
            Op::CreateDataset { dataset, properties } => self.create_dataset(dataset, properties, None),
            Op::CloneDataset { snapshot, dataset, properties } => {
                need(self.snapshots.contains(snapshot), || format!("there is no snapshot {snapshot}"))?;
                self.create_dataset(dataset, properties, Some(snapshot.clone()))
            }
            Op::LimitDataset { dataset, bytes } => {
                let there = self.datasets.get_mut(dataset).ok_or_else(|| format!("there is no dataset {dataset}"))?;
                there.properties.remove("refquota");
                there.properties.extend(bytes.map(|bytes| ("refquota".into(), bytes.to_string())));
                Ok(())
            }
            Op::DestroyDataset { dataset, id, .. } => self.destroy_dataset(dataset, id.as_str()),
            Op::WriteFile { root, path, text, .. } => {
                need(self.exists(root), || format!("there is no directory {}", root.display()))?;
                let path = path.strip_prefix("/").unwrap_or(path);
                self.write(&root.join(path), text)
            }
            Op::WriteLink { root, path, to } => {
                need(self.exists(root), || format!("there is no directory {}", root.display()))?;
                self.write(&below(root, path), &format!("a link to {}", to.display()))
            }
            Op::HostTarget { root, mount } => {
                need(self.exists(root), || format!("there is no directory {}", root.display()))?;
                self.write(&below(root, &mount.target), "a mount point")
            }
            Op::HostMount { root, mount, .. } => self.host_mount(root, mount),
            Op::HostUnmount { root, mount, .. } => self.host_unmount(&below(root, &mount.target)),
            Op::MountInto { process, mount } => {
                let there = self.processes.get_mut(&process.pid);
                there.ok_or("there is no such process")?.mounts.push(mount.target.clone());
                Ok(())
            }
            Op::UnmountFrom { process, mount } => {
                if let Some(process) = self.processes.get_mut(&process.pid) {
                    process.mounts.retain(|at| *at != mount.target);
                }
                Ok(())
            }
            Op::Lease { owner, addresses, ports, .. } => {
                let taken = |(a, p): &(Vec<IpAddr>, Vec<Port>)| {
                    a.iter().any(|one| addresses.contains(one))
                        || p.iter().any(|one| ports.iter().any(|other| one.collides(other)))
                };
                need(!self.leases.values().any(taken), || "somebody has it already".into())?;
                self.leases.insert(owner.clone(), (addresses.clone(), ports.clone()));
                Ok(())
            }
            Op::EndLease { owner, .. } => {
                self.leases.remove(owner);
                Ok(())
            }
            Op::PublishNames { hosts, lines, .. } => {
                self.names.entry(bridge_of(hosts)).or_default().extend(lines.iter().cloned());
                Ok(())
            }
            Op::WithdrawNames { hosts, lines } => {
                let bridge = bridge_of(hosts);
                if let Some(all) = self.names.get_mut(&bridge) {
                    all.retain(|line| !lines.contains(line));
                    if all.is_empty() {
                        self.names.remove(&bridge);
                    }
                }
                Ok(())
            }
            Op::CreatePair { host, pot, description, macs, into } => {
                need(macs[0] != macs[1] && host != pot, || "the ends of a pair must differ".into())?;
                let inside = into.as_ref().map_or(Ok(Net::Host), |into| self.net(into, *child))?;
                for (name, peer, net) in [(host, pot, Net::Host), (pot, host, inside)] {
                    let key = (net, name.clone());
                    need(name.len() < 16 && !self.links.contains_key(&key), || format!("{name} is not free"))?;
                    self.links.insert(key, Link::new(LinkKind::End(peer.clone()), description));
                }
                Ok(())
            }
            Op::DestroyInterface { name, description } => {
                let key = (Net::Host, name.clone());
                if self.links.get(&key).is_some_and(|link| link.description == *description)
                    && let Some(link) = self.links.remove(&key)
                {
                    self.remove_peer(&link);
                }
                Ok(())
            }
            Op::EnsureBridge { name, description, addresses } => self.ensure_bridge(name, description, addresses),
            Op::ReleaseBridge { name, description } => {
                let key = (Net::Host, name.clone());
                if !self.has_member(name) && self.links.get(&key).is_some_and(|link| link.description == *description) {
                    self.links.remove(&key);
                }
                Ok(())
            }
            Op::AddMember { bridge, member, .. } => {
                need(self.host_link(bridge)?.kind == LinkKind::Bridge, || format!("{bridge} is no bridge"))?;
                let link = self.host_link(member)?;
                need(link.bridge.is_none(), || format!("{member} is a member already"))?;
                link.bridge = Some(bridge.clone());
                link.up = true;
                Ok(())
            }
            Op::EnableForwarding { family, .. } => {
                self.forwarding.insert(family.to_string());
                Ok(())
            }
            Op::ReleaseForwarding { .. } => {
                if !self.has_bridge() {
                    self.forwarding.clear();
                }
                Ok(())
            }
            Op::AddAddress { interface, address } => {
                let link = self.host_link(interface)?;
                need(link.addresses.insert(address.clone()), || format!("{interface} has {address} already"))
            }
            Op::RemoveAddress { interface, address } => {
                if let Ok(link) = self.host_link(interface) {
                    link.addresses.remove(address);
                }
                Ok(())
            }
            Op::MoveInterface { interface, pot } => {
                let ours = matches!(self.host_link(interface)?.kind, LinkKind::End(_));
                need(ours, || format!("{interface} is not ours to move"))?;
                self.move_link(interface, pot, *child)
            }
            Op::LendInterface { interface, pot } => {
                need(self.host_link(interface)?.kind == LinkKind::Nic, || format!("{interface} cannot be lent"))?;
                self.move_link(interface, pot, *child)
            }
            Op::ReclaimInterface { interface, pot } => {
                let key = (Net::Jail(pot.clone()), interface.clone());
                if let Some(mut link) = self.links.remove(&key) {
                    link.addresses.clear();
                    link.up = false;
                    self.links.insert((Net::Host, interface.clone()), link);
                }
                Ok(())
            }
            Op::LendDevice { device } => {
                let link = self.host_link(&device.name)?;
                need(link.kind == LinkKind::Nic, || format!("{} cannot be lent", device.name))?;
                let mut link = link.clone();
                link.description.clone_from(&device.mark);
                let net = self.net(&device.mark, *child)?;
                self.links.remove(&(Net::Host, device.name.clone()));
                self.links.insert((net, device.inside.clone()), link);
                Ok(())
            }
            Op::ReclaimDevice { device } => {
                // It may be back already, as the kernel gives it back, under the name that it had there.
                let place = self.links.iter().find(|(_, link)| link.description == device.mark);
                let place = place.map(|(place, _)| place.clone());
                if let Some(mut link) = place.and_then(|place| self.links.remove(&place)) {
                    link.addresses = device.was.addresses.iter().cloned().collect();
                    link.description.clone_from(&device.was.alias);
                    link.up = device.was.up;
                    self.links.insert((Net::Host, device.name.clone()), link);
                }
                Ok(())
            }
            Op::CreateResctrl { path } => {
                need(self.resctrl.insert(path.clone()), || format!("{} is there already", path.display()))
            }
            Op::RemoveResctrl { path } => {
                self.resctrl.remove(path);
                Ok(())
            }
            Op::SetSchemata { path, .. } | Op::JoinResctrl { path } => {
                need(self.resctrl.contains(path), || format!("there is no {}", path.display()))
            }
            Op::RouteLoopback { interface } => {
                self.host_link(interface)?.loopback = true;
                Ok(())
            }
            Op::ConfigureInterface { pot, interface, addresses } => {
                let key = (self.net(pot, *child)?, interface.clone());
                let link = self.links.get_mut(&key).ok_or_else(|| format!("there is no {interface} in {pot}"))?;
                link.up = true;
                link.addresses.extend(addresses.iter().cloned());
                Ok(())
            }
            Op::AddRoute { pot, gateway } => {
                let net = self.net(pot, *child)?;
                let near = |(key, link): (&(Net, String), &Link)| {
                    key.0 == net && link.up && link.addresses.iter().any(|own| same_net(own, *gateway))
                };
                need(self.links.iter().any(near), || format!("{gateway} cannot be reached from {pot}"))?;
                let second = self.routes.iter().any(|(place, old)| *place == net && old.is_ipv4() == gateway.is_ipv4());
                need(!second, || format!("{pot} has a default route"))?;
                self.routes.insert((net, *gateway));
                Ok(())
            }
            Op::LoadAnchor { anchor, rules } => {
                self.anchors.insert(anchor.clone(), rules.lines().map(String::from).collect());
                Ok(())
            }
            Op::FlushAnchor { anchor, .. } => {
                self.anchors.remove(anchor);
                Ok(())
            }
            Op::EnsureAnchor { anchor, rules } => {
                let held = self.anchors.entry(anchor.clone()).or_default();
                for rule in rules.lines() {
                    // pot's own rule is the same but for the tag.
                    if !held.iter().any(|old| *old == rule || *old == rule.replace(" tag potrun", "")) {
                        held.push(rule.into());
                    }
                }
                Ok(())
            }
            Op::ReleaseAnchor { anchor } => {
                let bridges: Vec<String> = self
                    .links
                    .iter()
                    .filter(|(_, link)| link.kind == LinkKind::Bridge)
                    .map(|((_, name), _)| name.clone())
                    .collect();
                if !bridges.iter().any(|name| self.has_member(name)) {
                    if let Some(held) = self.anchors.get_mut(anchor) {
                        held.retain(|rule| !rule.contains(" tag potrun"));
                    }
                    self.anchors.retain(|name, held| name != anchor || !held.is_empty());
                }
                Ok(())
            }
            Op::EnsureNft { bridge } => {
                self.nft.get_or_insert_default().insert(Element::Bridge { name: bridge.clone() }.text(""));
                Ok(())
            }
            Op::ReleaseNft { bridge } => {
                if !self.links.contains_key(&(Net::Host, bridge.clone()))
                    && let Some(table) = &mut self.nft
                {
                    table.remove(&Element::Bridge { name: bridge.clone() }.text(""));
                }
                if !self.has_bridge() {
                    self.nft = None;
                }
                Ok(())
            }
            Op::LoadNft { name, elements } => {
                let table = self.nft.as_mut().ok_or("there is no table")?;
                let new = |one: &Element| table.insert(one.text(name));
                need(elements.iter().all(new), || format!("there are elements of {name}"))
            }
            Op::FlushNft { name, elements } => {
                if let Some(table) = &mut self.nft {
                    table.retain(|one| !elements.iter().any(|gone| gone.text(name) == *one));
                }
                Ok(())
            }
            Op::AddRctl { rule } => {
                need(rule.split(':').count() == 4, || format!("{rule:?} is no rule"))?;
                self.rctl.insert(rule.clone());
                Ok(())
            }
            Op::RemoveRctl { filter } => {
                self.rctl.retain(|rule| rule != filter && !rule.starts_with(&format!("{filter}:")));
                Ok(())
            }
            Op::SetCpuset { jail, cpus } => {
                let jail = self.jails.get_mut(jail).ok_or_else(|| format!("there is no jail {jail}"))?;
                jail.cpus = Some(cpus.clone());
                Ok(())
            }
            Op::CreateCgroup { path } => self.create_cgroup(path),
            Op::CreateUnit { path, .. } => {
                self.create_cgroup(path)?;
                // systemd hands every controller down to what it delegates.
                let list = CONTROLLERS.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
                for (group, what) in &mut self.cgroups {
                    if path.starts_with(group) && group != path {
                        what.files.insert(SUBTREE.into(), list.clone());
                    }
                }
                Ok(())
            }
            Op::SetUnit { .. } => Ok(()),
            Op::RemoveCgroup { path } | Op::RemoveUnit { path, .. } => {
                self.kill_in(path);
                self.cgroups.retain(|group, _| !group.starts_with(path));
                Ok(())
            }
            Op::SetCgroup { path, file, value } => self.set_cgroup(path, file, value),
            Op::ConfineAddresses { path, addresses } => {
                self.cgroup(path)?.addresses.clone_from(addresses);
                Ok(())
            }
            Op::FilterDevices { path, .. } => {
                self.cgroup(path)?.filter = Some(op.to_string());
                Ok(())
            }
            Op::CreateJail { name, parameters, .. } => self.create_jail(name, parameters),
            Op::RemoveJail { name, .. } => {
                let within = |process: &Process| process.jail.as_deref() == Some(name);
                let all: Vec<i32> = self.processes.iter().filter(|(_, one)| within(one)).map(|(pid, _)| *pid).collect();
                all.into_iter().for_each(|pid| self.kill(pid));
                if self.jails.remove(name).is_some() {
                    self.end_network(&Net::Jail(name.clone()));
                }
                Ok(())
            }
            Op::Spawn(spawn) => {
                need(child.is_none(), || "there is a first process".into())?;
                *child = Some(self.spawn(spawn, fails_at)?);
                Ok(())
            }
            Op::KillAll { cgroup } => {
                if let Some(pid) = child.take() {
                    self.kill(pid);
                }
                cgroup.iter().for_each(|path| self.kill_in(path));
                Ok(())
            }
            Op::Resume => {
                let pid = child.ok_or("there is no first process")?;
                self.resume(pid, fails_at)
            }
            Op::Hook(hook) => {
                let process = child.and_then(|pid| self.processes.get(&pid)).ok_or("there is no first process")?;
                let ready = matches!(process.stage, Stage::AwaitsRuntime | Stage::Ready);
                need(ready, || format!("{hook}: the first process does not wait"))
            }
            Op::CallRuntime
            | Op::AwaitRuntime
            | Op::AttachJail { .. }
            | Op::NewKeyring { .. }
            | Op::Propagate { .. }
            | Op::MountRoot(_)
            | Op::Mount(_)
            | Op::Relabel { .. }
            | Op::CreateNode(_)
            | Op::Link { .. }
            | Op::BindConsole
            | Op::Mask { .. }
            | Op::MakeReadonly { .. }
            | Op::CreateCwd { .. }
            | Op::EnterRoot { .. }
            | Op::SetHostname { .. }
            | Op::SetDomainname { .. }
            | Op::Sysctl { .. }
            | Op::LoopbackUp
            | Op::PresetIpv6 { .. }
            | Op::FindProgram { .. }
            | Op::SetOomScore { .. }
            | Op::SetRlimit { .. }
            | Op::Tune(_)
            | Op::Confine { .. }
            | Op::SetIds(_)
            | Op::SetCapabilities(_)
            | Op::NoNewPrivileges
            | Op::Seccomp { .. }
            | Op::ChangeDir { .. }
            | Op::Exec { .. } => no(format!("{op}: is for the first process only")),
        }
    }

    // --- storage ----------------------------------------------------------------------------------------------------

    /// The layers that a pot's own lies on.
    fn below(&self, path: &Path) -> &[PathBuf] {
        self.lies_on.get(path).map_or(&[], Vec::as_slice)
    }

    fn lie_on(&mut self, path: &Path, layers: Vec<PathBuf>) {
        self.lies_on.remove(path);
        if !layers.is_empty() {
            self.lies_on.insert(path.into(), layers);
        }
    }

    fn move_files(&mut self, from: &Path, to: &Path) {
        let moved: Vec<PathBuf> = self.files.keys().filter(|file| file.starts_with(from)).cloned().collect();
        for file in moved {
            if let (Some(text), Ok(below)) = (self.files.remove(&file), file.strip_prefix(from)) {
                self.files.insert(to.join(below), text);
            }
        }
    }

    /// With the shared layers below it that nobody else lies on.
    fn remove_layer(&mut self, path: &Path) -> Answer {
        need(!self.in_use(path), || "a process has its root in the layer".into())?;
        self.layers.remove(path);
        self.forget_below(path);
        for layer in self.lies_on.remove(path).unwrap_or_default() {
            if !self.lies_on.values().any(|layers| layers.contains(&layer)) {
                need(!self.in_use(&layer), || "a process has its root on the layer".into())?;
                self.shared.remove(&layer);
                self.forget_below(&layer);
            }
        }
        Ok(())
    }

    fn create_dataset(&mut self, name: &str, properties: &BTreeMap<String, String>, origin: Option<String>) -> Answer {
        let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
        need(self.datasets.contains_key(parent), || format!("there is no dataset {parent}"))?;
        need(!self.datasets.contains_key(name), || format!("dataset {name} is there"))?;
        self.datasets.insert(name.into(), Dataset { properties: properties.clone(), origin });
        Ok(())
    }

    fn destroy_dataset(&mut self, name: &str, id: &str) -> Answer {
        let Some(dataset) = self.datasets.get(name) else { return Ok(()) };
        if dataset.properties.get(MARK).map(String::as_str) != Some(id) {
            return Ok(());
        }
        let below = format!("{name}/");
        let all: Vec<String> =
            self.datasets.keys().filter(|other| *other == name || other.starts_with(&below)).cloned().collect();
        all.iter().rev().try_for_each(|one| self.destroy_one(one))
    }

    fn destroy_one(&mut self, name: &str) -> Answer {
        let Some(dataset) = self.datasets.get(name) else { return Ok(()) };
        if let Some(place) = mountpoint(dataset).map(Path::to_path_buf) {
            let mounted =
                self.mounts.iter().any(|one| one.at.starts_with(&place) || one.mount.source.starts_with(&place));
            let jailed = self.jails.values().any(|jail| jail.path().starts_with(&place));
            need(!mounted && !jailed && !self.in_use(&place), || format!("{} is busy", place.display()))?;
            self.forget_below(&place);
        }
        self.datasets.remove(name);
        Ok(())
    }

    /// Writes a file. What is in no layer or dataset of ours is in a directory of the bundle's author, who gave it to
    /// the pot to write to; it is not compared.
    pub(super) fn write(&mut self, path: &Path, text: &str) -> Answer {
        let stored = self.stored(path, true)?;
        if self.owner(&stored).is_some() {
            self.files.insert(stored, text.into());
        }
        Ok(())
    }

    fn host_mount(&mut self, root: &Path, mount: &Mount) -> Answer {
        need(self.exists(root), || format!("there is no directory {}", root.display()))?;
        let at = below(root, &mount.target);
        if mount.fstype == "nullfs" {
            need(self.exists(&mount.source), || format!("there is no {}", mount.source.display()))?;
        }
        // Where nothing can be written, the mount point must be there.
        if self.stored(&at, true).is_err() {
            let point = self.stored(&at, false)?;
            need(self.owner(&point).is_none() || self.files.contains_key(&point), || {
                format!("there is no mount point {}", at.display())
            })?;
        }
        self.mounts.push(Mounted { at, mount: mount.clone() });
        Ok(())
    }

    fn host_unmount(&mut self, at: &Path) -> Answer {
        let Some(place) = self.mounts.iter().rposition(|one| one.at == at) else { return Ok(()) };
        let covered = self.mounts[place + 1..].iter().any(|one| one.at.starts_with(at) || at.starts_with(&one.at));
        let jailed = self.jails.values().any(|jail| jail.path().starts_with(at));
        need(!covered && !jailed && !self.in_use(at), || format!("{} is busy", at.display()))?;
        self.mounts.remove(place);
        Ok(())
    }

    // --- network ----------------------------------------------------------------------------------------------------

    fn ensure_bridge(&mut self, name: &str, description: &str, addresses: &[String]) -> Answer {
        let key = (Net::Host, name.to_string());
        let link = self.links.entry(key).or_insert_with(|| {
            let mut link = Link::new(LinkKind::Bridge, description);
            link.addresses = addresses.iter().cloned().collect();
            link.up = true;
            link
        });
        need(link.kind == LinkKind::Bridge, || format!("{name} is no bridge"))?;
        if link.description == description {
            link.addresses.extend(addresses.iter().cloned());
        }
        need(addresses.iter().all(|one| link.addresses.contains(one)), || format!("{name} is somebody else's"))
    }

    fn move_link(&mut self, name: &str, pot: &str, child: Option<i32>) -> Answer {
        let net = self.net(pot, child)?;
        let Some(mut link) = self.links.remove(&(Net::Host, name.into())) else {
            return no(format!("there is no interface {name}"));
        };
        need(link.bridge.is_none(), || format!("{name} is a member of a bridge"))?;
        link.addresses.clear(); // both systems take them away
        link.up = false;
        self.links.insert((net, name.into()), link);
        Ok(())
    }

    // --- limits -----------------------------------------------------------------------------------------------------

    fn cgroup(&mut self, path: &Path) -> Result<&mut Cgroup, String> {
        self.cgroups.get_mut(path).ok_or_else(|| format!("there is no cgroup {}", path.display()))
    }

    fn populated(&self, path: &Path) -> bool {
        self.processes.values().any(|one| one.cgroup.as_ref().is_some_and(|group| group.starts_with(path)))
    }

    fn create_cgroup(&mut self, path: &Path) -> Answer {
        if self.cgroups.contains_key(path) {
            return need(!self.populated(path), || format!("cgroup {} has processes", path.display()));
        }
        let known = self.cgroups.keys().any(|group| path.starts_with(group));
        need(known, || format!("{} is not below a cgroup2 mount", path.display()))?;
        for above in path.ancestors().skip(1) {
            if self.cgroups.contains_key(above) {
                break;
            }
            self.cgroups.insert(above.into(), Cgroup { above: true, ..Cgroup::default() });
        }
        self.cgroups.insert(path.into(), Cgroup::default());
        Ok(())
    }

    /// A group's controllers are those that the group above enabled; the topmost has all.
    fn enabled(&self, path: &Path, controller: &str) -> bool {
        match path.parent().and_then(|above| self.cgroups.get(above)) {
            None => true,
            Some(above) => above
                .files
                .get(SUBTREE)
                .is_some_and(|list| list.split(' ').any(|word| word.strip_prefix('+') == Some(controller))),
        }
    }

    fn set_cgroup(&mut self, path: &Path, file: &str, value: &str) -> Answer {
        self.cgroup(path)?;
        let mut needs: Vec<&str> =
            CONTROLLERS.iter().copied().filter(|name| file.split('.').next() == Some(name)).collect();
        if file == SUBTREE {
            needs.extend(value.split(' ').filter_map(|word| word.strip_prefix('+')));
            let top = path.parent().is_none_or(|above| !self.cgroups.contains_key(above));
            let own = self.processes.values().any(|one| one.cgroup.as_deref() == Some(path));
            need(top || !own, || format!("cgroup {} has processes of its own", path.display()))?;
        }
        for controller in needs {
            let what = || format!("{file}: {controller} is not enabled above {}", path.display());
            need(self.enabled(path, controller), what)?;
        }
        let files = &mut self.cgroup(path)?.files;
        match files.get_mut(file).filter(|_| file == SUBTREE) {
            Some(list) => {
                for word in value.split(' ') {
                    if !list.split(' ').any(|old| old == word) {
                        list.push_str(&format!(" {word}"));
                    }
                }
            }
            None => drop(files.insert(file.into(), value.into())),
        }
        Ok(())
    }

    // --- jails ------------------------------------------------------------------------------------------------------

    fn create_jail(&mut self, name: &str, parameters: &[(String, String)]) -> Answer {
        need(!self.jails.contains_key(name), || format!("jail {name} is there"))?;
        let keys: BTreeSet<&String> = parameters.iter().map(|(key, _)| key).collect();
        need(keys.len() == parameters.len(), || "a parameter is given twice".into())?;
        let jail = Jail { parameters: parameters.to_vec(), cpus: None };
        need(self.exists(jail.path()), || format!("there is no directory {}", jail.path().display()))?;
        need(keys.iter().any(|key| *key == "persist"), || "a jail without a process must persist".into())?;
        if let Some((parent, _)) = name.rsplit_once('.') {
            need(self.jails.contains_key(parent), || format!("there is no jail {parent}"))?;
        }
        if jail.own_network() {
            self.links.insert((Net::Jail(name.into()), "lo0".into()), Link::new(LinkKind::Loopback, ""));
        }
        self.jails.insert(name.into(), jail);
        Ok(())
    }
}

/// Where a dataset is mounted.
fn mountpoint(dataset: &Dataset) -> Option<&Path> {
    dataset.properties.get("mountpoint").map(Path::new).filter(|path| path.is_absolute())
}

/// `target`, an absolute path inside, as the host sees it.
fn below(root: &Path, target: &Path) -> PathBuf {
    root.join(target.strip_prefix("/").unwrap_or(target))
}

/// Whether `other` is in the network of `own`, an `address/prefix`.
fn same_net(own: &str, other: IpAddr) -> bool {
    let Some((address, prefix)) = own.split_once('/') else { return false };
    let (Ok(address), Ok(prefix)) = (address.parse::<IpAddr>(), prefix.parse::<u32>()) else { return false };
    let family = |address: IpAddr| if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
    let top = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits().checked_shr(32_u32.saturating_sub(prefix)).unwrap_or(0)),
        IpAddr::V6(v6) => v6.to_bits().checked_shr(128_u32.saturating_sub(prefix)).unwrap_or(0),
    };
    family(address) == family(other) && top(address) == top(other)
}
