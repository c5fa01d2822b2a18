/*! Cases of `hooks` that only Linux can have. */

use std::fs;

use serde_json::{Value, json};

use super::super::hooks::{entry, whole_life, with_all};
use crate::case::Result;
use crate::ctx::Ctx;
use crate::{group, same};

group! { "hooks":
    outer_ones_run_in_the_callers_namespace: "config.md#hooks: runtime namespace",
    create_container_runs_in_the_containers_namespace: "config.md#createcontainer-hooks",
}

fn own_mount_namespace() -> Result<Value> {
    use std::os::unix::fs::MetadataExt;
    Ok(json!(fs::metadata("/proc/self/ns/mnt")?.ino()))
}

fn outer_ones_run_in_the_callers_namespace(ctx: &Ctx) -> Result {
    let bundle = with_all(ctx)?;
    whole_life(ctx, &bundle)?;
    for moment in ["prestart", "createRuntime", "poststart", "poststop"] {
        same!(entry(&bundle, moment)?["ns"]["mnt"], own_mount_namespace()?, "mount namespace of {moment}");
    }
    Ok(())
}

fn create_container_runs_in_the_containers_namespace(ctx: &Ctx) -> Result {
    use std::os::unix::fs::MetadataExt;
    let bundle = with_all(ctx)?;
    let container = ctx.create(&bundle)?;
    let inode = fs::metadata(format!("/proc/{}/ns/mnt", container.pid))?.ino();
    same!(entry(&bundle, "createContainer")?["ns"]["mnt"], json!(inode), "mount namespace of createContainer");
    Ok(())
}
