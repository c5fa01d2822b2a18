/*! Cases of `console` that only Linux can have. */

use super::super::console::report;
use crate::case::Result;
use crate::ctx::Ctx;
use crate::{group, same};

group! { "console":
    is_dev_console: "config-linux.md#default-devices: the terminal is bind mounted to /dev/console",
}

fn is_dev_console(ctx: &Ctx) -> Result {
    let report = report(ctx, &mut ctx.bundle()?)?;
    let console = report.dev.get("console").map(|node| (node.kind, node.rdev.0));
    same!(console, Some(('c', 136)), "kind and major number of /dev/console");
    same!(report.mount("/dev/console").map(|m| m.fstype.as_str()), Some("devpts"), "what is mounted there");
    Ok(())
}
