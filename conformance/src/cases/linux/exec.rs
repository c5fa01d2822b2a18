/*! Cases of `exec` that only Linux can have. */

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::super::exec::{by_process_file, running};
use crate::case::Result;
use crate::ctx::Ctx;
use crate::{group, same};

group! { "exec":
    joins_every_namespace: "runtime-linux.md, runc CLI: exec",
    is_in_the_control_group: "runc CLI: exec",
    has_the_rights_of_the_container: "runc CLI: exec has the config's capabilities and no_new_privs",
    process_file_decides_on_rights: "runc CLI: exec --process",
    cap_flag: "runc CLI: exec --cap; CVE-2022-29162: never inheritable",
    ends_with_the_container: "runc CLI: exec, pid namespace",
}

fn joins_every_namespace(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.push("/linux/namespaces", json!({"type": "cgroup"}));
    let container = ctx.start(&bundle)?;
    let report = container.exec_report(&[])?;
    for (name, inode) in &report.ns {
        let link = fs::read_link(format!("/proc/{}/ns/{name}", container.pid))?;
        same!(link, PathBuf::from(format!("{name}:[{inode}]")), "namespace {name}");
    }
    same!(report.ns.len(), 8, "namespaces seen");
    Ok(())
}

fn is_in_the_control_group(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    let first = fs::read_to_string(format!("/proc/{}/cgroup", container.pid))?;
    let report = container.exec_report(&[])?;
    same!(report.cgroup.trim(), first.trim(), "control groups");
    Ok(())
}

fn has_the_rights_of_the_container(ctx: &Ctx) -> Result {
    let report = running(ctx)?.exec_report(&[])?;
    let given = 1 << 29 | 1 << 5 | 1 << 10;
    for (set, mask) in [("CapInh", 0), ("CapPrm", given), ("CapEff", given), ("CapBnd", given), ("CapAmb", 0)] {
        same!(report.caps[set], mask, "{set}");
    }
    same!(report.no_new_privs, 1, "no_new_privs");
    Ok(())
}

fn process_file_decides_on_rights(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    let process = json!({
        "args": ["/probe", "report"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "noNewPrivileges": true,
        "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]},
    });
    let report = by_process_file(&container, ctx, &process)?;
    for (set, mask) in [("CapInh", 0), ("CapPrm", 1 << 5), ("CapEff", 1 << 5), ("CapBnd", 1 << 5), ("CapAmb", 0)] {
        same!(report.caps[set], mask, "{set}");
    }
    same!(report.no_new_privs, 1, "no_new_privs");
    Ok(())
}

fn cap_flag(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.caps(&["CAP_KILL"]);
    let container = ctx.start(&bundle)?;
    let report = container.exec_report(&["--cap", "CAP_NET_RAW"])?;
    let both = 1 << 13 | 1 << 5;
    for (set, mask) in [("CapInh", 0), ("CapPrm", both), ("CapEff", both), ("CapBnd", both), ("CapAmb", 0)] {
        same!(report.caps[set], mask, "{set}");
    }
    same!(container.exec_report(&[])?.caps["CapEff"], 1 << 5, "CapEff of the next exec");
    Ok(())
}

fn ends_with_the_container(ctx: &Ctx) -> Result {
    let container = running(ctx)?;
    let mut exec = container.exec(&[], &["/probe", "wait"])?.spawn()?;
    crate::ctx::expect_line(&mut exec, "ready")?;
    container.stop()?;
    exec.finish()?.code_is(137)?;
    container.delete()
}
