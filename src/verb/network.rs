//! `network`: the pot networks, without a pot.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::apply::{apply, take_back};
use crate::bridges::Networks;
use crate::bundle::pot::is_name;
use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::facts::Bridge;
use crate::host::{This, this};
use crate::journal::Journal;
use crate::lease::{self, Lease, Port};
use crate::plan::bridge;
use crate::plan::lease::{Subnet, full, lowest, refused};
use crate::plan::network::{End, bridge_of};
use crate::ranges::Point;

use super::list::Form;

/// Arguments of `network`.
#[derive(Debug, Args)]
pub struct Network {
    #[command(subcommand)]
    verb: Verb,
}

/// The verbs of networks.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Note a private bridge; it comes up with its first pot
    Create {
        /// Its name
        name: String,
        /// How many hosts it must have room for, the host itself among them: the lowest free part of the public network
        #[arg(long, value_name = "N", default_value_t = 254, conflicts_with = "subnet")]
        size: u32,
        /// Its network, ADDRESS/PREFIX; the host gets the first address
        #[arg(long, value_name = "CIDR")]
        subnet: Option<String>,
    },
    /// Forget a private bridge that no pot is on
    Rm {
        /// Its name
        name: String,
    },
    /// Show the private bridges
    Ls,
    /// Show networks, what is taken in them, and who has it
    Show {
        /// The private bridge; all, and the public one, where absent
        name: Option<String>,
        /// Form of the answer
        #[arg(short, long, value_enum, default_value_t)]
        format: Form,
    },
    /// Bring a bridge up and keep it up, whether pots are on it or not
    Up {
        /// The private bridge; the public one where absent
        name: Option<String>,
        /// Families of the public bridge; those of POT_NETWORK_STACK where absent
        #[arg(long, value_enum)]
        stack: Option<Stack>,
    },
    /// Take a bridge down that is kept up
    Down {
        /// The private bridge; the public one where absent
        name: Option<String>,
    },
    /// Show the next address that a pot would get
    Next {
        /// The private bridge; the public one where absent
        name: Option<String>,
        /// Families of the public bridge; those of POT_NETWORK_STACK where absent
        #[arg(long, value_enum)]
        stack: Option<Stack>,
    },
    /// Check whether pots can get addresses (ADDRESS), or bridges networks (ADDRESS/PREFIX); or the settings
    Validate {
        /// What is checked
        what: Vec<String>,
        /// The private bridge of the addresses; the public one where absent
        #[arg(short, long, value_name = "NAME")]
        bridge: Option<String>,
    },
}

/// `network.stack` of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stack {
    /// IPv4 only
    Ipv4,
    /// IPv6 only
    Ipv6,
    /// Both
    Dual,
}

impl cli::Run for Network {
    fn run(&self, context: &Context) -> Result<u8> {
        let look = || this::facts::networks(&context.store);
        // Who changes something looks, and does it, while nobody else does.
        let changes = matches!(self.verb, Verb::Create { .. } | Verb::Rm { .. } | Verb::Up { .. } | Verb::Down { .. });
        let _lock = if changes { Some(super::networks(&this::facts::ledger())?) } else { None };
        let mut all = look()?;
        if changes && !super::sweep_leases(&all.network.ledger)?.is_empty() {
            all = look()?;
        }
        match &self.verb {
            Verb::Create { name, size, subnet } => create(&all, name, *size, subnet.as_deref())?,
            Verb::Rm { name } => remove(&all, name)?,
            Verb::Ls => {
                let names = all
                    .network
                    .bridges
                    .iter()
                    .map(|(name, one)| [name.clone(), one.subnet.clone(), one.gateway.to_string()]);
                let head = ["NAME", "NETWORK", "GATEWAY"].map(String::from);
                super::print(&super::table(&[head].into_iter().chain(names).collect::<Vec<_>>()))?;
            }
            Verb::Show { name, format } => super::print(&show(&all, name.as_deref(), *format)?)?,
            Verb::Up { name, stack } => up(&all, name.as_deref(), *stack)?,
            Verb::Down { name } => down(&all, name.as_deref())?,
            Verb::Next { name, stack } => {
                for end in ends(&all, name.as_deref(), *stack)? {
                    let free = lowest(&all.network, end.subnet, end.gateway);
                    let free = free.ok_or_else(|| Error::operator(full(end.subnet)))?;
                    super::print(&format!("{free}\n"))?;
                }
            }
            Verb::Validate { what, bridge } => validate(&all, what, bridge.as_deref())?,
        }
        Ok(0)
    }
}

fn create(all: &Networks, name: &str, size: u32, subnet: Option<&str>) -> Result<()> {
    if !is_name(name) {
        return Err(Error::caller(format!("{name:?} is not a name of a bridge")));
    }
    let subnet = match subnet {
        None => bridge::carve(&all.network, size).map_err(Error::operator)?,
        Some(text) => network(all, text)?,
    };
    let gateway = subnet.network.next().unwrap_or(subnet.network);
    all.bridges.create(name, &Bridge { subnet: subnet.to_string(), gateway }).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => Error::caller(format!("private bridge {name} already exists")),
        _ => Error::operator(format!("create private bridge {name}")).because(e),
    })?;
    super::print(&format!("{subnet}\n"))
}

/// A network that a new private bridge can have.
fn network(all: &Networks, text: &str) -> Result<Subnet> {
    let subnet =
        Subnet::parse(text).ok_or_else(|| Error::caller(format!("{text:?} is not a network: ADDRESS/PREFIX")))?;
    let mut problems = bridge::problems(all.os, &all.network, subnet);
    let others = all.others.iter().filter(|(address, _)| subnet.contains(**address));
    problems.extend(others.map(|(address, name)| format!("{subnet} holds {address}, which {name} has")));
    let mut problems = problems.into_iter();
    match problems.next() {
        None => Ok(subnet),
        Some(first) => Err(problems.fold(Error::caller(first), Error::hint)),
    }
}

fn remove(all: &Networks, name: &str) -> Result<()> {
    let ends = ends(all, Some(name), None)?;
    unused(all, &ends, &format!("private bridge {name}"))?;
    if kept(all, Some(name)).exists() {
        let hint = format!("first: potrun network down {name}");
        return Err(Error::caller(format!("private bridge {name} is up")).hint(hint));
    }
    all.bridges.remove(name).doing(|| format!("remove private bridge {name}"))
}

/// The networks of a bridge, as far as `stack` wants them.
fn ends(all: &Networks, name: Option<&str>, stack: Option<Stack>) -> Result<Vec<End>> {
    let ends = bridge::ends(&all.network, name).map_err(Error::caller)?;
    if name.is_some() {
        return Ok(ends);
    }
    let said = Stack::from_str(&all.settings.stack, true).unwrap_or(Stack::Ipv4);
    let stack = stack.unwrap_or(said);
    let wanted = |end: &End| if end.address.is_ipv4() { stack != Stack::Ipv6 } else { stack != Stack::Ipv4 };
    Ok(ends.into_iter().filter(wanted).collect())
}

/// Who has addresses in the networks of a bridge: but not those of a private bridge, which are another's.
fn users(all: &Networks, ends: &[End]) -> Result<BTreeMap<IpAddr, (String, Vec<Port>)>> {
    let leases = lease::all(&all.network.ledger).doing(|| "read the ledger")?;
    let private: Vec<Subnet> = all.network.bridges.values().filter_map(|one| Subnet::parse(&one.subnet)).collect();
    let here = |address: &IpAddr| {
        ends.iter().any(|end| {
            let another = private.iter().any(|one| end.subnet.holds(one) && one.contains(*address));
            end.subnet.contains(*address) && !another
        })
    };
    let mut users = BTreeMap::new();
    for Lease { id, addresses, ports, .. } in leases {
        let here = addresses.into_iter().filter(here);
        users.extend(here.map(|address| (address, (id.to_string(), ports.clone()))));
    }
    let others = all.others.iter().filter(|(address, _)| here(address));
    users.extend(others.map(|(address, name)| (*address, (name.clone(), Vec::new()))));
    Ok(users)
}

/// Refuses what cannot be done while pots are there.
fn unused(all: &Networks, ends: &[End], what: &str) -> Result<()> {
    let mut names: Vec<String> = users(all, ends)?.into_values().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    if names.is_empty() { Ok(()) } else { Err(Error::caller(format!("{what} is used by {}", names.join(", ")))) }
}

fn word(name: Option<&str>) -> String {
    name.map_or_else(|| "public bridge".into(), |name| format!("private bridge {name}"))
}

/// The journal of a bridge that is kept up: what takes it down again. While it is being brought up, or was when its
/// potrun died, the journal has another name.
fn kept(all: &Networks, name: Option<&str>) -> PathBuf {
    up_dir(&all.network.ledger).join(bridge_of(name).name)
}

/// The directory of those journals: beside the ledger, because they end with the boot as interfaces do.
fn up_dir(ledger: &Path) -> PathBuf {
    let mut dir = ledger.as_os_str().to_owned();
    dir.push(".up");
    dir.into()
}

fn up(all: &Networks, name: Option<&str>, stack: Option<Stack>) -> Result<()> {
    let ends = ends(all, name, stack)?;
    let (path, host) = (kept(all, name), &mut This::new());
    let ops = bridge::up(all.os, &all.network, name, &ends).map_err(Error::operator)?;
    let has = |end: &End| all.network.host_addresses.values().any(|has| has.contains(&end.gateway));
    if path.exists() && ends.iter().all(has) {
        return Ok(());
    }
    // What somebody else took down, or what has not all families yet.
    undo(host, &path)?;
    super::create::carried_out(host, &ops)?;
    let part = path.with_extension("part");
    undo(host, &part)?;
    let doing = || format!("write {}", part.display());
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).doing(doing)?;
    let mut journal = Journal::open(&part).doing(doing)?;
    let done = apply(host, &mut journal, &ops).map_err(|failed| Error::operator(failed.what).because(failed.source));
    let done = done.and_then(|()| fs::rename(&part, &path).doing(doing));
    done.map_err(|error| {
        let left = take_back(host, &mut journal);
        if left.is_empty() {
            drop(fs::remove_file(&part));
        }
        super::report(error, &left)
    })
}

fn down(all: &Networks, name: Option<&str>) -> Result<()> {
    let ends = bridge::ends(&all.network, name).map_err(Error::caller)?;
    unused(all, &ends, &word(name))?;
    let (path, host) = (kept(all, name), &mut This::new());
    undo(host, &path.with_extension("part"))?;
    undo(host, &path)
}

/// Whether there is anything that a sweep of networks could look at.
pub(super) fn used(ledger: &Path) -> bool {
    ledger.exists() || up_dir(ledger).exists()
}

/// Takes back what an `up` that was killed has done, and tells the bridges. The caller holds the lock.
pub(super) fn sweep(ledger: &Path) -> Result<Vec<String>> {
    let dir = up_dir(ledger);
    let listing = match fs::read_dir(&dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(|| format!("read {}", dir.display()))?,
    };
    let mut swept = Vec::new();
    for item in listing {
        let path = item.doing(|| format!("read {}", dir.display()))?.path();
        if path.extension().is_some_and(|end| end == "part") {
            undo(&mut This::new(), &path)?;
            swept.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok(swept)
}

/// Takes back what a journal says, if there is one, and removes it.
fn undo(host: &mut This, path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let mut journal = Journal::open(path).doing(|| format!("open {}", path.display()))?;
    let left = take_back(host, &mut journal);
    if !left.is_empty() {
        return Err(super::report(Error::operator("not everything could be taken back"), &left));
    }
    fs::remove_file(path).doing(|| format!("remove {}", path.display()))?;
    // Others' journals may be there.
    drop(path.parent().map(fs::remove_dir));
    Ok(())
}

fn validate(all: &Networks, what: &[String], name: Option<&str>) -> Result<()> {
    let mut problems = if what.is_empty() { all.settings.problems() } else { Vec::new() };
    let bridge = if what.is_empty() { Ok(Vec::new()) } else { bridge::ends(&all.network, name) };
    let bridge = bridge.map_err(Error::caller)?;
    for text in what {
        if text.contains('/') {
            if let Err(error) = network(all, text) {
                problems.extend([error.chain()].into_iter().chain(error.hints().iter().cloned()));
            }
            continue;
        }
        let Ok(address) = text.parse::<IpAddr>() else {
            problems.push(format!("{text:?} is not an address"));
            continue;
        };
        let Some(end) = bridge.iter().find(|end| end.address.is_ipv4() == address.is_ipv4()) else {
            problems.push(format!("{address} is of a family that the {} does not have", word(name)));
            continue;
        };
        let mut facts = all.network.clone();
        facts.leased = lease::leased(&facts.ledger, &[address], &[]).doing(|| "read the ledger")?;
        let other = all.others.get(&address).map(|name| format!("{address} is taken by {name}"));
        problems.extend(other.or_else(|| refused(&facts, end.subnet, end.gateway, address)));
    }
    let mut problems = problems.into_iter();
    match problems.next() {
        None => Ok(()),
        Some(first) => Err(problems.fold(Error::caller(first), Error::hint)),
    }
}

/// A bridge as `show` tells it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    /// Absent: the public one.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The interface.
    interface: String,
    /// Whether it is there.
    up: bool,
    /// Whether it stays without a pot.
    kept: bool,
    networks: Vec<ShownNetwork>,
    addresses: Vec<ShownAddress>,
}

#[derive(Debug, Serialize)]
struct ShownNetwork {
    network: String,
    gateway: IpAddr,
}

/// An address that is taken.
#[derive(Debug, Serialize)]
struct ShownAddress {
    address: IpAddr,
    /// The pot that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pot: Option<String>,
    /// What it is kept for, if no pot has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved: Option<&'static str>,
    /// Its ports of the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<Port>,
}

fn shown(all: &Networks, name: Option<&str>) -> Result<Shown> {
    let ends = bridge::ends(&all.network, name).map_err(Error::caller)?;
    let mut users = users(all, &ends)?;
    let mut addresses: BTreeMap<IpAddr, &str> =
        all.network.taken_addresses.iter().chain(users.keys()).map(|one| (*one, "taken")).collect();
    addresses.extend(all.network.dns.map(|one| (one, "the name server")));
    addresses.extend(ends.iter().map(|end| (end.gateway, "the host")));
    addresses.retain(|address, _| ends.iter().any(|end| end.subnet.contains(*address)));
    let addresses = addresses.into_iter().map(|(address, what)| match users.remove(&address) {
        Some((pot, ports)) => ShownAddress { address, pot: Some(pot), reserved: None, ports },
        None => ShownAddress { address, pot: None, reserved: Some(what), ports: Vec::new() },
    });
    let interfaces = &all.network.host_addresses;
    let has = |all: &[IpAddr]| ends.iter().any(|end| all.contains(&end.gateway));
    let there = interfaces.iter().find(|(_, all)| has(all)).map(|(interface, _)| interface.clone());
    Ok(Shown {
        name: name.map(Into::into),
        up: there.is_some(),
        interface: there.unwrap_or_else(|| bridge_of(name).name),
        kept: kept(all, name).exists(),
        networks: ends.iter().map(|end| ShownNetwork { network: end.network(), gateway: end.gateway }).collect(),
        addresses: addresses.collect(),
    })
}

fn show(all: &Networks, name: Option<&str>, format: Form) -> Result<String> {
    let names: Vec<Option<&str>> = match name {
        Some(name) => vec![Some(name)],
        None => [None].into_iter().chain(all.network.bridges.keys().map(|name| Some(name.as_str()))).collect(),
    };
    let shown = names.into_iter().map(|name| shown(all, name)).collect::<Result<Vec<_>>>()?;
    if format == Form::Json {
        return serde_json::to_string_pretty(&shown).map(|json| json + "\n").doing(|| "write JSON");
    }
    let mut text = String::new();
    for one in &shown {
        let state = match (one.up, one.kept) {
            (false, _) => "down",
            (true, false) => "up",
            (true, true) => "up, kept",
        };
        text += &format!("{}: {}, {state}\n", word(one.name.as_deref()), one.interface);
        for ShownNetwork { network, gateway } in &one.networks {
            text += &format!("  network {network}, the host is {gateway}\n");
        }
        let rows: Vec<[String; 3]> = one
            .addresses
            .iter()
            .map(|ShownAddress { address, pot, reserved, ports }| {
                let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                let pot = pot.clone().unwrap_or_else(|| format!("({})", reserved.unwrap_or_default()));
                [format!("    {address}"), pot, ports.join(" ")]
            })
            .collect();
        text += &super::table(&rows);
    }
    Ok(text)
}
