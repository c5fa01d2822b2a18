/*! Cases of `security` that only Linux can have. */

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::security::{Outside, reaches_nothing};
use crate::case::Result;
use crate::ctx::{Ctx, Tried};
use crate::{check, group, same, skip};

group! { "security":
    proc_as_a_symlink: "CVE-2019-19921, CVE-2023-27561, CVE-2025-54867: rootfs/proc is a symlink",
    sys_as_a_symlink: "CVE-2023-28642: rootfs/sys is a symlink",
    dev_as_a_symlink: "CVE-2026-41579, CVE-2026-47766: rootfs/dev is a symlink to the host",
    device_below_a_symlink: "CVE-2026-41579: a device whose directory points out of the root file system",
    masked_with_a_false_null: "CVE-2025-31133: the image's /dev/null is a symlink",
    masked_path_as_a_symlink: "CVE-2025-31133: what is masked stays in the root file system",
    console_as_a_symlink: "CVE-2025-52565: the image's /dev/console is a symlink",
    cwd_through_a_descriptor: "CVE-2024-21626: cwd is /proc/self/fd/N",
    exec_cwd_through_a_descriptor: "CVE-2024-21626: exec --cwd /proc/self/fd/N",
    the_binary_as_entry_point: "CVE-2019-5736: #!/proc/self/exe",
    the_binary_seen_from_inside: "CVE-2019-5736: /proc/PID/exe of a runtime that joins",
    exec_has_nothing_inheritable: "CVE-2022-29162, CVE-2025-27612",
    volume_over_proc: "CVE-2019-16884: a mount over /proc",
    volume_over_proc_self_attr: "CVE-2019-16884, CVE-2025-52881: a mount inside /proc",
    sysctl_goes_to_the_real_proc: "CVE-2025-52881: sysctl values are written to procfs",
    sysctl_injection: "CVE-2022-0811: a value or name with more than one setting",
    no_way_to_the_hosts_processes: "CVE-2019-5736: the container's /proc has no process of the host",
}

/// One that stays in the image: the files that protect the host would be found elsewhere than where they are mounted.
fn confined_symlink_is_refused(ctx: &Ctx, name: &str) -> Result {
    let bundle = ctx.bundle()?;
    fs::create_dir(bundle.rootfs("evil"))?;
    symlink("/evil", bundle.rootfs(name))?;
    ctx.will_not_run(&bundle).map(drop)
}

fn proc_as_a_symlink(ctx: &Ctx) -> Result {
    confined_symlink_is_refused(ctx, "proc")
}

fn sys_as_a_symlink(ctx: &Ctx) -> Result {
    confined_symlink_is_refused(ctx, "sys")
}

/// There is no mount at /dev here, so that nodes and links are made in the root file system itself.
fn dev_as_a_symlink(ctx: &Ctx) -> Result {
    let (mut bundle, outside) = (ctx.bundle()?, Outside::new(ctx)?);
    symlink(&outside.dir, bundle.rootfs("dev"))?;
    bundle
        .set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}]))
        .args(&["/probe", "exit", "0"]);
    reaches_nothing(ctx, &bundle, &outside)
}

fn device_below_a_symlink(ctx: &Ctx) -> Result {
    let (mut bundle, outside) = (ctx.bundle()?, Outside::new(ctx)?);
    symlink(&outside.dir, bundle.rootfs("nodes"))?;
    bundle
        .push("/linux/devices", json!({"path": "/nodes/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}));
    bundle
        .push("/linux/devices", json!({"path": "/nodes/file", "type": "c", "major": 1, "minor": 3, "fileMode": 0o777}));
    bundle.args(&["/probe", "exit", "0"]);
    reaches_nothing(ctx, &bundle, &outside)
}

/// /dev is the image's own, and its null is a symlink to a file that the container may write.
fn masked_with_a_false_null(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    fs::create_dir(bundle.rootfs("dev"))?;
    fs::write(bundle.rootfs("bait"), "bait")?;
    symlink("/bait", bundle.rootfs("dev/null"))?;
    bundle.set("/mounts", json!([{"destination": "/proc", "type": "proc", "source": "proc"}]));
    bundle.set("/linux/maskedPaths", json!(["/proc/version"]));
    bundle.args(&["/probe", "do", "read /proc/version", "stat /proc/version"]);
    let outcome = ctx.run(&bundle)?;
    if outcome.code() != 0 {
        return outcome.fails().map(drop);
    }
    check!(!outcome.out.is_empty(), "what the process said went to the image's file, as if that were /dev/null");
    let answers: Vec<conformance::Answer> = crate::ctx::parse(&outcome.out)?;
    same!(*answers[0].worked()?, json!(""), "content of a masked file");
    check!(answers[1].worked()?["size"] == 0, "the mask is the image's file: {answers:?}");
    Ok(())
}

fn masked_path_as_a_symlink(ctx: &Ctx) -> Result {
    let (mut bundle, outside) = (ctx.bundle()?, Outside::new(ctx)?);
    symlink(&outside.dir, bundle.rootfs("dir"))?;
    symlink(outside.dir.join("file"), bundle.rootfs("file"))?;
    bundle.set("/linux/maskedPaths", json!(["/dir", "/file"])).set("/linux/readonlyPaths", json!(["/dir"]));
    bundle.args(&["/probe", "exit", "0"]);
    reaches_nothing(ctx, &bundle, &outside)?;
    fs::write(outside.dir.join("file"), "of the host")?;
    Ok(())
}

fn console_as_a_symlink(ctx: &Ctx) -> Result {
    let (mut bundle, outside) = (ctx.bundle()?, Outside::new(ctx)?);
    fs::create_dir(bundle.rootfs("dev"))?;
    symlink(outside.dir.join("made"), bundle.rootfs("dev/console"))?;
    let mounts = json!([{"destination": "/proc", "type": "proc", "source": "proc"}, {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}]);
    bundle.set("/mounts", mounts).set("/process/terminal", json!(true));
    let console = ctx.console()?;
    let flags = ["--console-socket", &console.path.display().to_string()];
    ctx.create_with(&bundle, &flags, &ctx.id)?.go()?;
    outside.is_untouched()
}

/// What the suite is in is given away as a descriptor, and the runtime has some of its own. Each may be refused, or lead
/// to a directory of the container, but never to one of the host.
fn cwd_through_a_descriptor(ctx: &Ctx) -> Result {
    let host = fs::File::open("/")?;
    for number in 3..=12 {
        let mut bundle = ctx.bundle_at(&format!("b{number}"), &ctx.id)?;
        bundle.set("/process/cwd", json!(format!("/proc/self/fd/{number}"))).args(&[
            "/probe",
            "do",
            "ls .",
            "ls ../../../..",
        ]);
        let outcome = ctx.run_verb(&bundle)?.fd(&host, 3)?.fd(&host, 9)?.go()?;
        check!(
            outcome.code() != 0 || !shows_host(&outcome.out),
            "cwd /proc/self/fd/{number} leads out: {}",
            outcome.out
        );
    }
    Ok(())
}

fn exec_cwd_through_a_descriptor(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    let host = fs::File::open("/")?;
    for number in 3..=12 {
        let exec = container
            .exec(&["--cwd", &format!("/proc/self/fd/{number}")], &["/probe", "do", "ls .", "ls ../../../.."])?;
        let outcome = exec.fd(&host, 3)?.fd(&host, 9)?.go()?;
        check!(
            outcome.code() != 0 || !shows_host(&outcome.out),
            "cwd /proc/self/fd/{number} leads out: {}",
            outcome.out
        );
    }
    Ok(())
}

/// The host has /etc, and the containers here do not; its control groups have cgroup.procs.
fn shows_host(out: &str) -> bool {
    out.contains("\"etc\"") || out.contains("cgroup.procs") || out.contains("\"usr\"")
}

/// A copy of the runtime that may be attacked.
fn copy(ctx: &Ctx) -> Result<PathBuf> {
    let bytes = fs::read(&ctx.runtime.path)?;
    if !bytes.starts_with(b"\x7fELF") {
        skip!("the runtime is a script, of which there is no copy to attack");
    }
    let path = ctx.dir.join("runtime-copy");
    fs::write(&path, bytes)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn is_unchanged(ctx: &Ctx, copy: &Path) -> Result {
    check!(
        fs::read(&ctx.runtime.path)? == fs::read(copy)?,
        "the runtime's binary was overwritten from inside a container"
    );
    Ok(())
}

/// The entry point is the runtime itself, in the container: what it is there must be read-only or a copy.
fn the_binary_as_entry_point(ctx: &Ctx) -> Result {
    let copy = copy(ctx)?;
    let mut bundle = ctx.bundle()?;
    fs::write(bundle.rootfs("entry"), "#!/proc/self/exe\n")?;
    fs::set_permissions(bundle.rootfs("entry"), fs::Permissions::from_mode(0o755))?;
    let mut hunter = ctx.create(bundle.args(&["/probe", "hunt"]))?;
    hunter.start()?;
    hunter.expect("ready")?;
    for _ in 0..3 {
        hunter.exec(&[], &["/entry", "--version"])?.program(&copy).go()?;
    }
    finish_hunt(ctx, hunter, &copy)
}

fn finish_hunt(ctx: &Ctx, mut hunter: crate::ctx::Container, copy: &Path) -> Result {
    hunter.kill("TERM")?;
    let hunt: Value = crate::ctx::parse(&hunter.out.line()?)?;
    is_unchanged(ctx, copy)?;
    let hits = hunt["hits"].as_array().cloned().unwrap_or_default();
    let path = copy.display().to_string();
    check!(!hits.iter().any(|hit| hit.as_str().is_some_and(|hit| hit.contains(&path))), "it could be written: {hunt}");
    Ok(())
}

fn the_binary_seen_from_inside(ctx: &Ctx) -> Result {
    let copy = copy(ctx)?;
    let mut bundle = ctx.bundle()?;
    let mut hunter = ctx.create(bundle.args(&["/probe", "hunt"]))?;
    hunter.start()?;
    hunter.expect("ready")?;
    for _ in 0..10 {
        hunter.exec(&[], &["/probe", "exit", "0"])?.program(&copy).go()?;
    }
    finish_hunt(ctx, hunter, &copy)
}

fn exec_has_nothing_inheritable(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    for flags in [&[][..], &["--cap", "CAP_KILL"], &["--user", "1000"]] {
        let caps = container.exec_report(flags)?.caps;
        same!((caps["CapInh"], caps["CapAmb"]), (0, 0), "CapInh and CapAmb of exec {flags:?}");
    }
    Ok(())
}

fn volume(ctx: &Ctx) -> Result<PathBuf> {
    let dir = ctx.dir.join("volume");
    fs::create_dir_all(dir.join("self/attr"))?;
    fs::write(dir.join("self/attr/exec"), "")?;
    Ok(dir)
}

fn volume_over_proc(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.mount("bind", volume(ctx)?, "/proc", &["rbind"]).args(&["/probe", "exit", "0"]);
    ctx.will_not_run(&bundle).map(drop)
}

fn volume_over_proc_self_attr(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    bundle.mount("bind", volume(ctx)?.join("self/attr"), "/proc/self/attr", &["rbind"]).args(&["/probe", "exit", "0"]);
    ctx.will_not_run(&bundle).map(drop)
}

/// A tmpfs over /proc/sys would take the value and keep it from the kernel.
fn sysctl_goes_to_the_real_proc(ctx: &Ctx) -> Result {
    let mut bundle = ctx.bundle()?;
    fs::create_dir_all(ctx.dir.join("volume/net/ipv4"))?;
    fs::write(ctx.dir.join("volume/net/ipv4/ip_unprivileged_port_start"), "false")?;
    bundle.mount("bind", ctx.dir.join("volume"), "/proc/sys", &["rbind"]);
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "99"})).args(&["/probe", "exit", "0"]);
    let outcome = ctx.run(&bundle)?;
    let text = fs::read_to_string(ctx.dir.join("volume/net/ipv4/ip_unprivileged_port_start"))?;
    same!(text, "false", "the false setting");
    // Either it was refused, or the value went where it belongs, which the mount hides from the process.
    if outcome.code() == 0 { Ok(()) } else { outcome.fails().map(drop) }
}

fn sysctl_injection(ctx: &Ctx) -> Result {
    for name in [
        "net.ipv4.ip_forward+kernel.core_pattern",
        "net/../kernel/printk_ratelimit_burst",
        "net.ipv4/../../kernel/printk_ratelimit_burst",
    ] {
        let mut bundle = ctx.bundle_at(&name.replace(['.', '/'], "-"), &ctx.id)?;
        let value = fs::read_to_string("/proc/sys/kernel/printk_ratelimit_burst")?;
        ctx.refuses(bundle.set("/linux/sysctl", json!({name: value.trim()})))?;
    }
    Ok(())
}

fn no_way_to_the_hosts_processes(ctx: &Ctx) -> Result {
    let container = ctx.start(&ctx.bundle()?)?;
    let report = container.exec_report(&[])?;
    check!(report.pids.len() == 2 && report.pids[0] == 1, "processes in the container's /proc: {:?}", report.pids);
    Ok(())
}
