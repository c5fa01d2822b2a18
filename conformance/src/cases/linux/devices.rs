/*! Device nodes, and who may use them. */

use conformance::{Node, Report};
use serde_json::json;

use crate::case::Result;
use crate::ctx::{Ctx, Tried};
use crate::{check, group, same};

group! { "devices":
    default_nodes: "config-linux.md#default-devices: null, zero, full, random, urandom, tty",
    default_nodes_work: "config-linux.md#default-devices",
    ptmx: "config-linux.md#default-devices: a bind mount or symlink of pts/ptmx",
    symlinks: "runtime-linux.md#dev-symbolic-links: fd, stdin, stdout, stderr",
    no_others: "config-linux.md#default-devices: nothing of the host's /dev",
    extra_nodes: "config-linux.md#devices: type, major, minor, fileMode, uid, gid",
    extra_nodes_below_a_directory: "config-linux.md#devices: path",
    fifos: "config-linux.md#devices: type p",
    are_denied_by_default: "config-linux.md#allowed-device-list: deny all",
    are_allowed_by_rule: "config-linux.md#allowed-device-list: allow",
    access_is_of_the_kind_allowed: "config-linux.md#allowed-device-list: access",
    a_node_made_inside_is_denied: "config-linux.md#allowed-device-list",
    are_denied_for_exec: "config-linux.md#allowed-device-list",
    of_an_unknown_type_are_refused: "config-linux.md#devices: type",
}

fn default_nodes(ctx: &Ctx) -> Result {
    let dev = ctx.report(&mut ctx.bundle()?)?.dev;
    for (name, rdev) in
        [("null", (1, 3)), ("zero", (1, 5)), ("full", (1, 7)), ("random", (1, 8)), ("urandom", (1, 9)), ("tty", (5, 0))]
    {
        let seen = dev.get(name).map(|node| (node.kind, node.rdev, node.mode, node.uid));
        same!(seen, Some(('c', rdev, 0o666, 0)), "/dev/{name}");
    }
    Ok(())
}

fn default_nodes_work(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let ops = [
        "write /dev/null x",
        "read /dev/null",
        "open-read /dev/zero",
        "write /dev/full x",
        "open-read /dev/random",
        "open-read /dev/urandom",
        "open-write /dev/tty",
    ];
    let answers = ctx.ask(&mut bundle, &ops)?;
    for place in [0, 1, 2, 4, 5] {
        answers[place].worked()?;
    }
    answers[3].failed_with(&[libc::ENOSPC])?;
    // There is no controlling terminal.
    answers[6].failed_with(&[libc::ENXIO])
}

fn ptmx(ctx: &Ctx) -> Result {
    let report = ctx.report(&mut ctx.bundle()?)?;
    let node = report.dev.get("ptmx");
    let link = node.and_then(|node| node.link.as_deref()).is_some_and(|to| ["pts/ptmx", "/dev/pts/ptmx"].contains(&to));
    check!(link || report.mount("/dev/ptmx").is_some(), "/dev/ptmx: {node:?}");
    Ok(())
}

fn symlinks(ctx: &Ctx) -> Result {
    let dev = ctx.report(&mut ctx.bundle()?)?.dev;
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        same!(dev.get(name).and_then(|node| node.link.as_deref()), Some(to), "/dev/{name}");
    }
    Ok(())
}

/// crun makes /dev/core too, as docker has always done.
fn no_others(ctx: &Ctx) -> Result {
    let usual = [
        "core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom",
        "zero", "console",
    ];
    let dev = ctx.report(&mut ctx.bundle()?)?.dev;
    let others: Vec<_> = dev.keys().filter(|name| !usual.contains(&name.as_str())).collect();
    check!(others.is_empty(), "in /dev: {others:?}");
    Ok(())
}

fn node<'a>(report: &'a Report, name: &str) -> Option<&'a Node> {
    report.dev.get(name)
}

fn extra_nodes(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.push(
        "/linux/devices",
        json!({"path": "/dev/one", "type": "c", "major": 1, "minor": 11, "fileMode": 0o640, "uid": 5, "gid": 6}),
    );
    bundle.push("/linux/devices", json!({"path": "/dev/two", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600}));
    let report = ctx.report(&mut bundle)?;
    let one = node(&report, "one").map(|n| (n.kind, n.rdev, n.mode, n.uid, n.gid));
    same!(one, Some(('c', (1, 11), 0o640, 5, 6)), "/dev/one");
    same!(node(&report, "two").map(|n| (n.kind, n.rdev, n.mode)), Some(('b', (7, 0), 0o600)), "/dev/two");
    Ok(())
}

fn extra_nodes_below_a_directory(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.push(
        "/linux/devices",
        json!({"path": "/dev/deep/er/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}),
    );
    bundle
        .push("/linux/resources/devices", json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}));
    ctx.ask(&mut bundle, &["write /dev/deep/er/null x"])?[0].worked().map(drop)
}

fn fifos(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.push("/linux/devices", json!({"path": "/dev/pipe", "type": "p", "fileMode": 0o600}));
    let report = ctx.report(&mut bundle)?;
    same!(node(&report, "pipe").map(|n| (n.kind, n.mode)), Some(('p', 0o600)), "/dev/pipe");
    Ok(())
}

/// /dev/kmsg: its node is there, and only the control group is in the way.
const KMSG: &str = "/dev/kmsg";

fn with_kmsg(ctx: &Ctx) -> Result<crate::bundle::Bundle> {
    let mut bundle = ctx.bundle()?;
    bundle.push("/linux/devices", json!({"path": KMSG, "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}));
    bundle.caps(&["CAP_SYSLOG", "CAP_MKNOD"]);
    Ok(bundle)
}

fn are_denied_by_default(ctx: &Ctx) -> Result {
    ctx.ask(&mut with_kmsg(ctx)?, &["open-write /dev/kmsg"])?[0].failed_with(&[libc::EPERM])
}

fn are_allowed_by_rule(ctx: &Ctx) -> Result {
    let mut bundle = with_kmsg(ctx)?;
    bundle.push(
        "/linux/resources/devices",
        json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"}),
    );
    ctx.ask(&mut bundle, &["open-write /dev/kmsg"])?[0].worked().map(drop)
}

fn access_is_of_the_kind_allowed(ctx: &Ctx) -> Result {
    let mut bundle = with_kmsg(ctx)?;
    bundle
        .push("/linux/resources/devices", json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "w"}));
    let answers = ctx.ask(&mut bundle, &["open-write /dev/kmsg", "open-read /dev/kmsg"])?;
    answers[0].worked()?;
    answers[1].failed_with(&[libc::EPERM])
}

fn a_node_made_inside_is_denied(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.caps(&["CAP_MKNOD", "CAP_SYSLOG"]);
    let answers =
        ctx.ask(&mut bundle, &["mknod /made 1 11", "open-write /made", "mknod /null 1 3", "open-write /null"])?;
    // Making it may be denied at once.
    if answers[0].worked().is_ok() {
        answers[1].failed_with(&[libc::EPERM])?;
    }
    answers[2].worked()?;
    answers[3].worked().map(drop)
}

fn are_denied_for_exec(ctx: &Ctx) -> Result {
    let container = ctx.start(&with_kmsg(ctx)?)?;
    container.exec_ask(&[], &["open-write /dev/kmsg"])?[0].failed_with(&[libc::EPERM])
}

fn of_an_unknown_type_are_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.push("/linux/devices", json!({"path": "/dev/x", "type": "z", "major": 1, "minor": 3}));
    ctx.refuses(&bundle).map(drop)
}
