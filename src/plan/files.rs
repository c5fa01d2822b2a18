//! Files that potrun writes into a pot: where names are asked for, and which are known.

use std::path::{Path, PathBuf};

use crate::bundle::pot::{Dns, Pot, is_host_name};
use crate::names;
use crate::op::Op;

use super::Draft;
use super::network::{self, End};

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where a pot looks names up (hosts(5)).
pub const HOSTS: &str = "/etc/hosts";

/// The steps that write resolv.conf and hosts of a pot below `root`. A pot that sees the names of its bridge has no hosts
/// of its own.
pub fn names(draft: &mut Draft<'_>, pot: &Pot, root: &Path) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut write = |path: &str, text: String| {
        ops.push(Op::WriteFile { root: root.into(), path: path.into(), text, mode: 0o644 });
    };
    // Engines bring files of their own, which are not ours to replace.
    let mounted = |draft: &Draft<'_>, path: &str| {
        let mounts = draft.bundle.spec.mounts().as_deref().unwrap_or_default();
        mounts.iter().position(|one| one.destination() == Path::new(path))
    };
    match (&pot.dns, mounted(draft, RESOLV_CONF)) {
        (Some(Dns::Off), _) => {}
        (Some(Dns::Inherit) | None, Some(n)) => draft.note(format!("{RESOLV_CONF}: /mounts/{n} brings it")),
        (Some(Dns::Servers { .. }), Some(n)) => draft.refuse("/pot/dns", format!("/mounts/{n} brings {RESOLV_CONF}")),
        (Some(Dns::Inherit) | None, None) => match &draft.facts.resolv_conf {
            Some(text) => write(RESOLV_CONF, text.clone()),
            None => draft.note(format!("{RESOLV_CONF}: the host has none")),
        },
        (Some(Dns::Servers { nameservers, search }), None) => write(RESOLV_CONF, resolv_conf(nameservers, search)),
    }
    if let (false, Some(n)) = (pot.hosts.is_empty(), mounted(draft, HOSTS)) {
        draft.refuse("/pot/hosts", format!("/mounts/{n} brings {HOSTS}"));
    } else if !pot.hosts.is_empty() && !sees_neighbours(draft, pot) {
        let name = draft.bundle.spec.hostname().clone().unwrap_or_default();
        let text = names::LOCALHOST.replace('\n', &format!(" {name}\n")).replace(" \n", "\n");
        write(HOSTS, text + &lines(pot));
    }
    ops
}

/// The bundle's lines of hosts(5).
fn lines(pot: &Pot) -> String {
    pot.hosts.iter().map(|host| format!("{} {}\n", host.address, host.name)).collect()
}

/// Whether the pot's neighbours know it by name: where members of a bridge are kept apart, they have no business with
/// each other.
fn is_known(draft: &Draft<'_>, pot: &Pot) -> bool {
    network::bridged(pot) && !draft.facts.network.isolate
}

/// Whether the pot knows its neighbours by name, too: not where its bundle mounts something of its own there.
fn sees_neighbours(draft: &Draft<'_>, pot: &Pot) -> bool {
    let listed = draft.bundle.spec.mounts().iter().flatten().map(|one| Path::new("/").join(one.destination()));
    let own = pot.fscomps.iter().map(|one| &one.destination);
    let own = own.chain(pot.datasets.iter().map(|one| &one.destination));
    let own = own.chain(pot.directories.iter().map(|one| &one.destination)).cloned();
    is_known(draft, pot)
        && !listed.chain(own).any(|target| target != Path::new("/") && Path::new(HOSTS).starts_with(target))
}

/// The file of the host that is the pot's hosts(5), if it sees its neighbours.
#[must_use]
pub fn hosts(draft: &mut Draft<'_>, pot: &Pot) -> Option<PathBuf> {
    if !sees_neighbours(draft, pot) {
        return None;
    }
    let ends = network::ends(draft, pot);
    of_bridge(draft, pot, &ends)
}

/// The file of the bridge that is for the pot.
fn of_bridge(draft: &Draft<'_>, pot: &Pot, ends: &[End]) -> Option<PathBuf> {
    let own = !pot.hosts.is_empty() && sees_neighbours(draft, pot);
    let who = if own { ends.first()?.address.to_string() } else { names::SHARED.into() };
    let directory = draft.facts.network.ledger.with_extension("hosts");
    Some(directory.join(network::bridge(pot).name).join(who).join(names::FILE))
}

/// The step that makes the pot's names known on its bridge: its id, and the host name that its bundle gives it.
#[must_use]
pub fn publish(draft: &Draft<'_>, pot: &Pot, ends: &[End]) -> Option<Op> {
    let hosts = of_bridge(draft, pot, ends).filter(|_| is_known(draft, pot))?;
    let given = draft.bundle.spec.hostname().clone().filter(|name| is_host_name(name));
    let mut all = vec![draft.id.to_string()];
    all.extend(given.filter(|name| *name != all[0]));
    // Nobody else is that, whatever he is called (RFC 6761, section 6.3).
    all.retain(|name| !name.to_ascii_lowercase().ends_with("localhost"));
    let line = |end: &End| [vec![end.address.to_string()], all.clone()].concat().join(" ");
    let lines = ends.iter().map(line).collect();
    Some(Op::PublishNames { hosts, head: format!("{}{}", names::LOCALHOST, self::lines(pot)), lines })
}

/// resolv.conf(5) of name servers and search domains.
#[must_use]
pub fn resolv_conf(nameservers: &[std::net::IpAddr], search: &[String]) -> String {
    let mut text = String::new();
    if !search.is_empty() {
        text = format!("search {}\n", search.join(" "));
    }
    for server in nameservers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text
}
