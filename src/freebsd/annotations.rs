//! Annotations that podman and buildah send instead of the `freebsd` section, which they are older than. They are
//! honoured like it (ocijail's names and values); one that contradicts the section is refused.

use crate::bundle::freebsd::{Jail, Share};
use crate::bundle::read::pointer;
use crate::plan::Draft;

const PREFIX: &str = "org.freebsd.jail.";
const PARENT: &str = "org.freebsd.parentJail";

/// `freebsd.jail` of the bundle with what its annotations add.
pub fn merge(draft: &mut Draft<'_>) -> Jail {
    let mut jail = draft.bundle.freebsd.jail.clone();
    let all = draft.bundle.spec.annotations().iter().flatten();
    let mut ours: Vec<(String, String)> = all
        .filter(|(key, _)| key.starts_with(PREFIX) || *key == PARENT)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    ours.sort();
    for (key, value) in ours {
        let mut one = One { at: pointer("/annotations", &key), value, draft };
        match key.strip_prefix(PREFIX) {
            Some(name) => one.parameter(name, &mut jail),
            None => {
                let parent = Some(one.value.clone());
                one.set(&mut jail.parent, parent, "the name of a jail");
            }
        }
    }
    jail
}

/// One annotation.
struct One<'a, 'b> {
    at: String,
    value: String,
    draft: &'a mut Draft<'b>,
}

impl One<'_, '_> {
    fn parameter(&mut self, name: &str, jail: &mut Jail) {
        match name {
            "host" => self.share(&mut jail.host),
            "ip4" => self.share(&mut jail.ip4),
            "ip6" => self.share(&mut jail.ip6),
            "vnet" => self.share(&mut jail.vnet),
            "sysvmsg" => self.share(&mut jail.sysvmsg),
            "sysvsem" => self.share(&mut jail.sysvsem),
            "sysvshm" => self.share(&mut jail.sysvshm),
            "ip4.addr" => self.addresses(&mut jail.ip4_addr),
            // ocijail takes the second spelling, too.
            "ip6.addr" | "ip6.add" => self.addresses(&mut jail.ip6_addr),
            "enforce_statfs" => {
                let level = self.value.parse().ok().filter(|level| *level <= 2);
                self.set(&mut jail.enforce_statfs, level, "0, 1 or 2");
            }
            _ => self.allow(name, jail),
        }
    }

    fn allow(&mut self, name: &str, jail: &mut Jail) {
        let allow = &mut jail.allow;
        if let Some(fstype) = name.strip_prefix("allow.mount.") {
            let mut wanted = None;
            self.flag(&mut wanted);
            if wanted == Some(true) && !allow.mount.iter().any(|listed| listed == fstype) {
                allow.mount.push(fstype.into());
            }
            return;
        }
        match name {
            "allow.set_hostname" => self.flag(&mut allow.set_hostname),
            "allow.raw_sockets" => self.flag(&mut allow.raw_sockets),
            "allow.chflags" => self.flag(&mut allow.chflags),
            "allow.quotas" => self.flag(&mut allow.quotas),
            "allow.socket_af" => self.flag(&mut allow.socket_af),
            "allow.mlock" => self.flag(&mut allow.mlock),
            "allow.reserved_ports" => self.flag(&mut allow.reserved_ports),
            "allow.suser" => self.flag(&mut allow.suser),
            // An unknown annotation is no error (config.md, "Annotations").
            _ => self.draft.note(format!("{}: not an annotation that potrun knows", self.at)),
        }
    }

    fn share(&mut self, slot: &mut Option<Share>) {
        let words = [Share::Disable, Share::New, Share::Inherit];
        let share = words.into_iter().find(|share| share.word() == self.value);
        self.set(slot, share, "one of disable, new, inherit");
    }

    fn flag(&mut self, slot: &mut Option<bool>) {
        let flag = match self.value.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        };
        self.set(slot, flag, "true or false");
    }

    fn addresses<T: std::str::FromStr + PartialEq + Clone>(&mut self, list: &mut Vec<T>) {
        let all: Option<Vec<T>> = self.value.split(',').map(|text| text.trim().parse().ok()).collect();
        let mut slot = (!list.is_empty()).then(|| list.clone());
        self.set(&mut slot, all, "addresses, separated by commas");
        *list = slot.unwrap_or_default();
    }

    fn set<T: PartialEq>(&mut self, slot: &mut Option<T>, value: Option<T>, must: &str) {
        match (&slot, value) {
            (_, None) => self.draft.refuse(self.at.clone(), format!("must be {must}, not {:?}", self.value)),
            (Some(said), Some(value)) if *said != value => {
                self.draft.refuse(self.at.clone(), "says something else than /freebsd/jail");
            }
            (_, Some(value)) => *slot = Some(value),
        }
    }
}
