//! Files that potrun writes into a pot: where names are asked for, and which are known.

use std::path::Path;

use crate::bundle::pot::{Dns, Pot};
use crate::op::Op;

use super::Draft;

/// The steps that write resolv.conf and hosts of a pot below `root`.
pub fn names(draft: &mut Draft<'_>, pot: &Pot, root: &Path) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut write = |path: &str, text: String| {
        ops.push(Op::WriteFile { root: root.into(), path: path.into(), text, mode: 0o644 });
    };
    match &pot.dns {
        Some(Dns::Inherit) | None => match &draft.facts.resolv_conf {
            Some(text) => write("/etc/resolv.conf", text.clone()),
            None => draft.note("/etc/resolv.conf: the host has none"),
        },
        Some(Dns::Servers { nameservers, search }) => write("/etc/resolv.conf", resolv_conf(nameservers, search)),
        Some(Dns::Off) => {}
    }
    if !pot.hosts.is_empty() {
        let name = draft.bundle.spec.hostname().clone().unwrap_or_default();
        let mut text = format!("127.0.0.1 localhost {name}\n::1 localhost {name}\n").replace(" \n", "\n");
        for host in &pot.hosts {
            text.push_str(&format!("{} {}\n", host.address, host.name));
        }
        write("/etc/hosts", text);
    }
    ops
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
