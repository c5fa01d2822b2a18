//! The parameters of the jail, in the words of jail(8): what `CreateJail` hands to jail_set(2). An empty value is a
//! parameter that is there or not; its negation is another name (`allow.noset_hostname`), because the kernel looks at
//! no value of such a parameter.

use std::path::Path;

use crate::bundle::freebsd::{Allow, Jail, Share};
use crate::bundle::pot::Attributes;
use crate::plan::Draft;

use super::mounts;
use super::network::{Ip, Stack};

/// The longest name of a jail with those of its parents, of a host and of a domain (sys/param.h, `MAXHOSTNAMELEN`,
/// without the NUL).
const MAX_NAME: usize = 255;

/// The name of the jail: the container's id, for podman and buildah look for the jail of that name.
///
/// Two kinds of ids are no names to the kernel (sys/kern/kern_jail.c): `.` parts a jail from its parent, and digits
/// alone are a number. They are escaped so that no two ids have one name: `.` and the escape itself as `+2e` and `+2b`,
/// digits alone with a `+` behind (in front strtoul(9) takes it for a sign).
pub fn name(draft: &mut Draft<'_>, parent: Option<&str>) -> String {
    let mut name = escaped(draft.id.as_str());
    if let Some(parent) = parent {
        if parent.split('.').any(|part| !is_jail(part)) {
            draft.refuse("/freebsd/jail/parent", format!("{parent:?} is not the name of a jail"));
        }
        name = format!("{parent}.{name}");
    }
    if name.len() > MAX_NAME {
        draft.refuse("", format!("the container id is too long: the jail's name has more than {MAX_NAME} bytes"));
    }
    name
}

fn escaped(id: &str) -> String {
    if id.bytes().all(|b| b.is_ascii_digit()) {
        return format!("{id}+");
    }
    id.replace('+', "+2b").replace('.', "+2e")
}

/// One component of a jail's name, as far as rctl(8) and jail(8) get along with it.
fn is_jail(part: &str) -> bool {
    !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_+-".contains(c))
}

/// A word of lower-case letters and digits.
#[must_use]
pub fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

type Parameters = Vec<(String, String)>;

/// All parameters but the name, in the order in which they are printed.
pub fn parameters(
    draft: &mut Draft<'_>,
    jail: &Jail,
    stack: &Stack,
    path: &Path,
    ruleset: String,
    attributes: &Attributes,
) -> Parameters {
    let mut all = Parameters::new();
    let mut add = |key: &str, value: &str| all.push((key.into(), value.into()));
    add("path", &path.display().to_string());
    add("persist", ""); // the first process enters only at start: jail_set(2) wants this or a process
    let osrelease = attributes.osrelease.clone();
    let base = draft.facts.base.as_ref().and_then(|base| base.osrelease.clone());
    if let Some(release) = osrelease.or(base) {
        add("osrelease", &release);
    }
    // The kernel's default for these two is what the caller has, which for a ruleset is none at all.
    add("devfs_ruleset", &ruleset);
    if let Some(level) = attributes.securelevel {
        add("securelevel", &level.to_string());
    }
    add("enforce_statfs", &jail.enforce_statfs.unwrap_or(2).to_string());
    add("children.max", &attributes.children_max.unwrap_or(0).to_string());
    all.extend(host(draft, jail));
    all.extend(sysv(jail));
    all.extend(allow(draft, &jail.allow));
    all.extend(network(stack));
    all
}

/// Host and domain name. A jail that is told nothing has an empty name of its own, hence `inherit`.
fn host(draft: &mut Draft<'_>, jail: &Jail) -> Parameters {
    let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    let (hostname, domainname) = (given(draft.bundle.spec.hostname()), given(draft.bundle.spec.domainname()));
    for (at, name) in [("/hostname", &hostname), ("/domainname", &domainname)] {
        if let Some(length) = name.as_ref().map(String::len).filter(|length| *length > MAX_NAME) {
            draft.refuse(at, format!("{length} bytes, more than {MAX_NAME}"));
        }
    }
    let own = hostname.is_some() || domainname.is_some();
    if own && jail.host == Some(Share::Inherit) {
        draft.refuse("/freebsd/jail/host", "inherit has no name of its own, but the bundle names one");
    }
    if domainname.is_some() && hostname.is_none() {
        draft.refuse("/domainname", "needs a hostname, too: a jail has both names of its own, or none");
    }
    let share = if own { Share::New } else { jail.host.unwrap_or(Share::Inherit) };
    let mut all = vec![("host".into(), share.word().into())];
    all.extend(hostname.map(|name| ("host.hostname".into(), name)));
    all.extend(domainname.map(|name| ("host.domainname".into(), name)));
    all
}

/// System V IPC of its own unless said otherwise (config-freebsd.md); the kernel's own default is none.
fn sysv(jail: &Jail) -> Parameters {
    [("sysvmsg", jail.sysvmsg), ("sysvsem", jail.sysvsem), ("sysvshm", jail.sysvshm)]
        .into_iter()
        .map(|(key, share)| (key.into(), share.unwrap_or(Share::New).word().into()))
        .collect()
}

/// What the jail may do. What the bundle does not mention stays as the kernel has it: a host name can be set, ports
/// below 1024 bound, root is root; nothing else.
fn allow(draft: &mut Draft<'_>, allow: &Allow) -> Parameters {
    let flags = [
        ("set_hostname", allow.set_hostname),
        ("raw_sockets", allow.raw_sockets),
        ("chflags", allow.chflags),
        ("quotas", allow.quotas),
        ("socket_af", allow.socket_af),
        ("mlock", allow.mlock),
        ("reserved_ports", allow.reserved_ports),
        ("suser", allow.suser),
    ];
    let mut all: Parameters = flags
        .into_iter()
        .filter_map(|(name, flag)| Some((format!("allow.{}{name}", if flag? { "" } else { "no" }), String::new())))
        .collect();
    mounts::check_allowed(draft, &allow.mount);
    if !allow.mount.is_empty() {
        all.push(("allow.mount".into(), String::new()));
    }
    all.extend(allow.mount.iter().map(|name| (format!("allow.mount.{name}"), String::new())));
    all
}

/// The network stack. With one of its own the kernel takes no word about addresses, not even a true one
/// (sys/kern/kern_jail.c: "vnet jails cannot have IP address restrictions").
fn network(stack: &Stack) -> Parameters {
    let Stack::Shared { ip4, ip6 } = stack else { return vec![("vnet".into(), "new".into())] };
    let one = |key: &str, ip: &Ip| match ip {
        Ip::Share(share) => (key.into(), share.word().into()),
        Ip::Addresses(all) => (format!("{key}.addr"), all.join(",")),
    };
    vec![one("ip4", ip4), one("ip6", ip6)]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_jail_is_named_as_its_container() {
        for same in ["web1", "A_b-c", "_x", "2b", "0x12", &"f".repeat(64)] {
            assert_eq!(escaped(same), same);
        }
    }

    #[test]
    fn no_name_is_a_number_or_a_hierarchy_and_no_two_are_the_same() {
        let ids =
            ["2024", "2024+", "+2024", "a.b", "a+b", "a+2eb", "a+2bb", "a2eb", ".", "..", "0", "0+", "a-b", "a_b"];
        let all: BTreeSet<String> = ids.iter().map(|id| escaped(id)).collect();
        assert_eq!(all.len(), ids.len(), "{all:?}");
        for name in &all {
            assert!(!name.contains('.') && !name.bytes().all(|b| b.is_ascii_digit()) && is_jail(name), "{name}");
            assert!(name.trim_start_matches('+').bytes().any(|b| !b.is_ascii_digit()), "{name} is no signed number");
        }
    }
}
