/*! Cases of `fds` that only Linux can have. */

use std::fs::File;

use serde_json::json;

use crate::case::Result;
use crate::ctx::Ctx;
use crate::{group, same};

group! { "fds":
    the_callers_null_device_is_left_alone: "runc exec.bats: a null device as stdin is not given to the user",
}

/// The device is one of the case's own, so a runtime that is wrong does not change the machine's.
fn the_callers_null_device_is_left_alone(ctx: &Ctx) -> Result {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod, stat};
    let null = ctx.dir.join("null");
    mknod(&null, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3))?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})).args(&["/probe", "exit", "0"]);
    ctx.run_verb(&bundle)?.stdin(File::open(&null)?).go()?.ok()?;
    let stat = stat(&null)?;
    same!((stat.st_uid, stat.st_gid), (0, 0), "owner of the caller's null device");
    Ok(())
}
