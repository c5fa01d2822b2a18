/*! The jail of config-freebsd.md. */

use serde_json::{Value, json};

use crate::case::Result;
use crate::ctx::{Ctx, Tried};
use crate::system::traces;
use crate::{check, group, same};

group! { "freebsd":
    the_process_is_in_a_jail: "config-freebsd.md: a jail is the container",
    the_jail_ends_with_the_container: "runtime.md#delete: MUST delete the resources of the create step",
    sees_its_own_processes_only: "jail(8): processes of the host are not seen",
    hostname: "config.md#hostname",
    domainname: "config.md#domainname",
    host_inherit: "config-freebsd.md#jail: host",
    set_hostname: "config-freebsd.md#jail: allow.setHostname",
    raw_sockets_are_not_allowed: "config-freebsd.md#jail: allow.rawSockets is false by default",
    raw_sockets: "config-freebsd.md#jail: allow.rawSockets",
    other_families_are_not_allowed: "config-freebsd.md#jail: allow.socketAf is false by default",
    vnet_is_a_network_of_its_own: "config-freebsd.md#jail: vnet new",
    ip4_inherit: "config-freebsd.md#jail: ip4 inherit",
    ip4_disable: "config-freebsd.md#jail: ip4 disable",
    ip4_addresses: "config-freebsd.md#jail: ip4Addr",
    sysvshm_disable: "config-freebsd.md#jail: sysvshm disable",
    sysvshm_new: "config-freebsd.md#jail: sysvshm is new by default",
    enforce_statfs_by_default: "config-freebsd.md#jail: enforceStatfs is 2 by default",
    enforce_statfs_1: "config-freebsd.md#jail: enforceStatfs",
    mounting_is_not_allowed: "config-freebsd.md#jail: allow.mount is empty by default",
    parent: "config-freebsd.md#jail: parent",
    a_missing_parent_is_refused: "config-freebsd.md#jail: parent",
    an_unknown_word_is_refused: "config.md#valid-values: MUST generate an error",
    contradictions_are_refused: "config-freebsd.md#jail: a network of its own has no inherited addresses",
    the_linux_section_is_for_linux: "config.md#platform-specific-configuration",
    exec_is_in_the_jail: "runc CLI: exec",
    securelevel_cannot_be_raised_for_the_host: "jail(8): the host's own settings cannot be written",
}

fn the_process_is_in_a_jail(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    same!(*ctx.ask(&mut bundle, &["sysctl security.jail.jailed"])?[0].worked()?, json!(1), "security.jail.jailed");
    Ok(())
}

fn the_jail_ends_with_the_container(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    same!(traces(&ctx.id)?.len(), 1, "jails of a running container");
    container.stop()?;
    container.delete()?;
    same!(traces(&ctx.id)?, Vec::<String>::new(), "jails after delete");
    Ok(())
}

fn sees_its_own_processes_only(ctx: &Ctx) -> Result {
    let report = ctx.report(&mut ctx.bundle()?)?;
    same!(report.pids, [report.pid], "processes that it sees");
    Ok(())
}

fn hostname(ctx: &Ctx) -> Result {
    let before = nix::unistd::gethostname()?;
    let mut bundle = ctx.bundle()?;
    same!(ctx.report(bundle.set("/hostname", json!("pot.example")))?.hostname, "pot.example", "hostname");
    same!(nix::unistd::gethostname()?, before, "hostname of the host");
    Ok(())
}

fn domainname(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    same!(ctx.report(bundle.set("/domainname", json!("example.org")))?.domainname, "example.org", "domainname");
    Ok(())
}

fn host_inherit(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.remove("/hostname").set("/freebsd/jail/host", json!("inherit"));
    let host = nix::unistd::gethostname()?;
    same!(ctx.report(&mut bundle)?.hostname, host.to_string_lossy(), "hostname");
    Ok(())
}

fn set_hostname(ctx: &Ctx) -> Result {
    let before = nix::unistd::gethostname()?;
    for allowed in [true, false] {
        let mut bundle = ctx.bundle_at(&format!("{allowed}"), &ctx.id)?;
        bundle.set("/freebsd/jail/allow/setHostname", json!(allowed));
        let answer = &ctx.ask(&mut bundle, &["sethostname other.example"])?[0];
        if allowed {
            answer.worked()?;
        } else {
            answer.failed_with(&[libc::EPERM])?;
        }
    }
    same!(nix::unistd::gethostname()?, before, "hostname of the host");
    Ok(())
}

/// The answer to one thing tried with this jail; of a case that does so twice, each is another thing.
fn with(ctx: &Ctx, jail: Value, op: &str) -> Result<conformance::Answer> {
    let mut bundle = ctx.bundle_at(&op.replace(' ', "-"), &ctx.id)?;
    bundle.set("/freebsd/jail", jail);
    Ok(ctx.ask(&mut bundle, &[op])?.remove(0))
}

fn raw_sockets_are_not_allowed(ctx: &Ctx) -> Result {
    with(ctx, json!({"ip4": "inherit"}), "socket raw")?.failed_with(&[libc::EPERM])
}

fn raw_sockets(ctx: &Ctx) -> Result {
    with(ctx, json!({"ip4": "inherit", "allow": {"rawSockets": true}}), "socket raw")?.worked().map(drop)
}

fn other_families_are_not_allowed(ctx: &Ctx) -> Result {
    with(ctx, json!({"ip4": "inherit"}), "socket route")?.worked()?;
    with(ctx, json!({"ip4": "disable", "ip6": "disable"}), "socket inet")?.failed_with(&[libc::EPROTONOSUPPORT])
}

fn vnet_is_a_network_of_its_own(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/freebsd/jail", json!({"vnet": "new"}));
    let links = ctx.report(&mut bundle)?.links;
    check!(links.contains(&"lo0".into()), "no loopback interface: {links:?}");
    // Those that every network stack makes for itself.
    let strange: Vec<_> =
        links.iter().filter(|link| !["lo0", "pflog0", "enc0", "ipfw0"].contains(&link.as_str())).collect();
    check!(strange.is_empty(), "network interfaces: {strange:?}");
    Ok(())
}

fn ip4_inherit(ctx: &Ctx) -> Result {
    with(ctx, json!({"ip4": "inherit"}), "loopback")?.worked().map(drop)
}

fn ip4_disable(ctx: &Ctx) -> Result {
    with(ctx, json!({"ip4": "disable"}), "socket inet")?.failed_with(&[libc::EPROTONOSUPPORT])
}

/// A jail with one address has that for its loopback address, too.
fn ip4_addresses(ctx: &Ctx) -> Result {
    with(ctx, json!({"ip4": "new", "ip4Addr": ["127.0.0.1"]}), "loopback")?.worked()?;
    with(ctx, json!({"ip4": "new", "ip4Addr": ["127.0.0.1"]}), "bind 192.0.2.1")?.failed_with(&[libc::EADDRNOTAVAIL])
}

fn sysvshm_disable(ctx: &Ctx) -> Result {
    with(ctx, json!({"sysvshm": "disable"}), "shmget")?.failed_with(&[libc::ENOSYS])
}

fn sysvshm_new(ctx: &Ctx) -> Result {
    with(ctx, json!({}), "shmget")?.worked().map(drop)
}

fn enforce_statfs_by_default(ctx: &Ctx) -> Result {
    let report = ctx.report(&mut ctx.bundle()?)?;
    let points: Vec<&str> = report.mounts.iter().map(|mount| mount.point.as_str()).collect();
    same!(points, ["/"], "mount points that it sees");
    Ok(())
}

fn enforce_statfs_1(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/freebsd/jail/enforceStatfs", json!(1));
    let report = ctx.report(&mut bundle)?;
    check!(report.mount("/dev").is_some(), "it does not see its own /dev: {:?}", report.mounts);
    let outside = report.mounts.iter().find(|mount| mount.point.contains("conformance"));
    check!(outside.is_none(), "it sees a path of the host: {outside:?}");
    Ok(())
}

fn mounting_is_not_allowed(ctx: &Ctx) -> Result {
    with(ctx, json!({}), "mount-tmpfs /lib")?.failed_with(&[libc::EPERM])
}

fn parent(ctx: &Ctx) -> Result {
    let outer = ctx.other("outer");
    let mut bundle = ctx.bundle_at("outer", &outer)?;
    // The most children that it may have is no member of the section; potrun takes ocijail's annotation, too.
    bundle.set("/annotations", json!({"org.freebsd.jail.children.max": "4"}));
    let first = ctx.create_as(&bundle, &outer)?;
    let mut inner = ctx.bundle()?;
    inner.set("/freebsd/jail", json!({"parent": outer})).args(&["/probe", "report"]);
    let outcome = ctx.create_verb(&inner, &ctx.id)?.go()?;
    if outcome.code() != 0 {
        // A jail cannot have children unless it was made so, and not every runtime can make it so.
        outcome.fails()?.says(&["operation not permitted", "children"])?;
        return first.status_is("created");
    }
    check!(traces(&ctx.id)?.iter().any(|jail| jail.contains(&format!("{outer}."))), "it is no child of {outer}");
    ctx.call(&["delete", "--force", &ctx.id])?.ok()?;
    first.status_is("created")
}

fn a_missing_parent_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/freebsd/jail/parent", json!("no-such-jail"));
    ctx.refuses(&bundle).map(drop)
}

fn an_unknown_word_is_refused(ctx: &Ctx) -> Result {
    for (n, (member, value)) in
        [("ip4", json!("sometimes")), ("enforceStatfs", json!(3)), ("ip4Addr", json!(["no address"]))]
            .iter()
            .enumerate()
    {
        let mut bundle = ctx.bundle_at(&format!("b{n}"), &ctx.id)?;
        bundle.set(&format!("/freebsd/jail/{member}"), value.clone());
        ctx.refuses(&bundle)?;
    }
    Ok(())
}

fn contradictions_are_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/freebsd/jail", json!({"vnet": "new", "ip4": "new", "ip4Addr": ["127.0.0.1"]}));
    ctx.refuses(&bundle).map(drop)
}

fn the_linux_section_is_for_linux(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux", json!({"namespaces": [{"type": "pid"}], "maskedPaths": ["/probe"]}));
    bundle.args(&["/probe", "exit", "5"]);
    ctx.run(&bundle)?.code_is(5).map(drop)
}

fn exec_is_in_the_jail(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    let answers = container.exec_ask(&[], &["sysctl security.jail.jailed", "pids"])?;
    same!(*answers[0].worked()?, json!(1), "security.jail.jailed");
    let seen = answers[1].worked()?.as_array().cloned().unwrap_or_default();
    check!(seen.contains(&json!(container.pid)), "it does not see the first process: {seen:?}");
    Ok(())
}

fn securelevel_cannot_be_raised_for_the_host(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    ctx.ask(&mut bundle, &["sysctl-write kern.coredump 1"])?[0].failed_with(&[libc::EPERM])
}
