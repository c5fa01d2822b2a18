//! Rules of pf(4), by pfctl(8): the ioctls of /dev/pf change from release to release. The host's own ruleset is read
//! and never loaded.

use std::net::IpAddr;
use std::path::Path;

use crate::freebsd::pf;
use crate::host::Trouble;
use crate::host::tool::{self, Output, Tool, ToolError};

use super::network;

/// Runs pfctl(8) with `input` on its stdin.
fn pfctl(args: &[&str], input: &str) -> Result<String, ToolError> {
    let args: Vec<String> = std::iter::once("pfctl").chain(args.iter().copied()).map(Into::into).collect();
    let path = Path::new("/sbin/pfctl");
    let tool = Tool { path, args: &args, env: &[], input: input.as_bytes(), timeout: None, output: Output::Keep };
    tool::run(&tool).map(|output| String::from_utf8_lossy(&output).into_owned())
}

/// Whether pf(4) is on.
pub(super) fn enabled() -> Result<bool, Trouble> {
    Ok(Path::new("/dev/pf").exists() && pf::is_enabled(&pfctl(&["-q", "-s", "info"], "")?))
}

/// The anchors that the host's own ruleset refers to: rules in others are never looked at.
pub(super) fn anchors() -> Result<Vec<String>, Trouble> {
    Ok(pf::references(&pfctl(&["-q", "-s", "nat"], "")?))
}

/// Whether the host's own ruleset looks at filter rules in the anchors of pots.
pub(super) fn filters() -> Result<bool, Trouble> {
    Ok(pf::filters(&pfctl(&["-q", "-s", "rules"], "")?))
}

/// The ports that the redirections of an anchor take.
pub(super) fn ports(anchor: &str) -> Result<Vec<u16>, Trouble> {
    Ok(pf::ports(&pfctl(&["-q", "-P", "-a", anchor, "-s", "nat"], "")?))
}

/// Loads rules into an anchor, replacing what it held.
pub(super) fn load(anchor: &str, rules: &str) -> Result<(), Trouble> {
    Ok(pfctl(&["-q", "-a", anchor, "-f", "-"], rules).map(drop)?)
}

/// Empties an anchor, and ends the states of `addresses`: they would go on translating.
pub(super) fn flush(anchor: &str, addresses: &[IpAddr]) -> Result<(), Trouble> {
    if !Path::new("/dev/pf").exists() {
        return Ok(());
    }
    load(anchor, "")?;
    // By address pfctl(8) finds only what is on the wire, which behind a redirection is the host's: hence one by one.
    for state in pf::states(&pfctl(&["-q", "-vv", "-s", "states"], "")?, addresses) {
        pfctl(&["-q", "-k", "id", "-k", &state], "")?;
    }
    Ok(())
}

/// Adds rules to an anchor as far as it lacks them.
pub(super) fn ensure(anchor: &str, rules: &str) -> Result<(), Trouble> {
    let there = pfctl(&["-q", "-a", anchor, "-s", "nat"], "")?;
    match pf::with(&there, rules) {
        Some(all) => load(anchor, &all),
        None => Ok(()),
    }
}

/// Takes the rules with our mark out of an anchor that no pot of ours needs any more.
pub(super) fn release(anchor: &str) -> Result<(), Trouble> {
    if !Path::new("/dev/pf").exists() || network::used()? {
        return Ok(());
    }
    let there = pfctl(&["-q", "-a", anchor, "-s", "nat"], "")?;
    match pf::without(&there) {
        Some(rest) => load(anchor, &rest),
        None => Ok(()),
    }
}
