/*! Mounts and devices that only FreeBSD has. */

use std::fs;

use serde_json::json;

use super::super::mounts::data;
use crate::case::Result;
use crate::ctx::{Ctx, Tried};
use crate::{check, group, same};

group! { "mounts":
    nullfs: "config.md#mounts: type as nmount(2) has it",
    nullfs_readonly: "mount(8): ro",
    devfs_has_the_devices_of_jails: "config-freebsd.md#devices, devfs.rules(5): ruleset 4",
    devfs_hides_the_others: "devfs.rules(5): ruleset 4",
    devices_of_the_config: "config-freebsd.md#devices: path, mode",
    devices_that_are_missing_are_refused: "config-freebsd.md#devices: path",
    fdescfs: "fdescfs(5): /dev/fd",
    nothing_is_mounted_on_the_host: "config.md#mounts: within the root file system",
    a_type_of_linux_is_refused: "config.md#mounts: type",
}

fn nullfs(ctx: &Ctx) -> Result {
    let (mut bundle, data) = (ctx.bundle()?, data(ctx)?);
    bundle.mount("nullfs", &data, "/data", &[]);
    let answers = ctx.ask(&mut bundle, &["read /data/file", "create /data/new new"])?;
    same!(*answers[0].worked()?, json!("data"), "content");
    answers[1].worked()?;
    same!(fs::read_to_string(data.join("new"))?, "new", "the new file, from outside");
    Ok(())
}

fn nullfs_readonly(ctx: &Ctx) -> Result {
    let (mut bundle, data) = (ctx.bundle()?, data(ctx)?);
    bundle.mount("nullfs", &data, "/data", &["ro"]);
    ctx.ask(&mut bundle, &["create /data/new new"])?[0].failed_with(&[libc::EROFS])
}

fn devfs_has_the_devices_of_jails(ctx: &Ctx) -> Result {
    let dev = ctx.report(&mut ctx.bundle()?)?.dev;
    for name in ["null", "zero", "random", "urandom", "fd", "stdin", "stdout", "stderr"] {
        check!(dev.contains_key(name), "no /dev/{name}: {:?}", dev.keys());
    }
    let answers = ctx.ask(&mut ctx.bundle_at("again", &ctx.id)?, &["write /dev/null x", "open-read /dev/zero"])?;
    answers[0].worked()?;
    answers[1].worked().map(drop)
}

fn devfs_hides_the_others(ctx: &Ctx) -> Result {
    let dev = ctx.report(&mut ctx.bundle()?)?.dev;
    for name in ["mem", "kmem", "pci", "io", "console", "pf", "bpf", "geom.ctl", "devctl"] {
        check!(!dev.contains_key(name), "/dev/{name} is seen");
    }
    Ok(())
}

fn devices_of_the_config(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/freebsd/devices", json!([{"path": "/dev/pf", "mode": 0o640}]));
    if !std::path::Path::new("/dev/pf").exists() {
        crate::skip!("the host has no /dev/pf");
    }
    let dev = ctx.report(&mut bundle)?.dev;
    same!(dev.get("pf").map(|node| (node.kind, node.mode)), Some(('c', 0o640)), "/dev/pf");
    check!(!dev.contains_key("mem"), "/dev/mem is seen, too");
    Ok(())
}

fn devices_that_are_missing_are_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.set("/freebsd/devices", json!([{"path": "/dev/../etc/passwd"}]));
    ctx.refuses(&bundle).map(drop)
}

fn fdescfs(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.mount("fdescfs", "fdescfs", "/dev/fd", &[]);
    let answers = ctx.ask(&mut bundle, &["ls /dev/fd"])?;
    let names = answers[0].worked()?.as_array().cloned().unwrap_or_default();
    check!(["0", "1", "2"].iter().all(|name| names.contains(&json!(name))), "names in /dev/fd: {names:?}");
    Ok(())
}

fn nothing_is_mounted_on_the_host(ctx: &Ctx) -> Result {
    let (mut bundle, data) = (ctx.bundle()?, data(ctx)?);
    bundle.mount("nullfs", &data, "/a/b", &[]);
    let before = conformance::kernel::mounts()?;
    let container = ctx.start(&bundle)?;
    let root = bundle.rootfs("").display().to_string();
    let strange: Vec<String> = conformance::kernel::mounts()?
        .into_iter()
        .filter(|mount| !before.contains(mount) && !mount.point.starts_with(root.trim_end_matches('/')))
        .map(|mount| mount.point)
        .collect();
    check!(strange.is_empty(), "mounts outside of the root: {strange:?}");
    container.stop()
}

fn a_type_of_linux_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.mount("sysfs", "sysfs", "/sys", &["ro"]);
    ctx.refuses(&bundle).map(drop)
}
