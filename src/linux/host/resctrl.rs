//! Groups of processes that share a part of a cache (Documentation/filesystems/resctrl.rst).

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::facts::Resctrl;

/// What is known of the file system and of the group at `path` below it, if the host has it mounted.
pub(super) fn look(group: impl FnOnce(&Path) -> std::path::PathBuf) -> io::Result<Option<Resctrl>> {
    let Some(mount) = super::facts::mounted_type("resctrl")? else { return Ok(None) };
    let schemata = match fs::read_to_string(group(&mount).join("schemata")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        other => Some(other?),
    };
    Ok(Some(Resctrl { mount, schemata }))
}

/// Makes a group; the kernel makes the files in it.
pub(super) fn create(path: &Path) -> io::Result<()> {
    fs::create_dir(path)
}

/// Removes a group. The processes in it go to the one above.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Says what its processes get. The kernel takes all lines of a write, or none.
pub(super) fn set(path: &Path, lines: &[String]) -> io::Result<()> {
    write(path, "schemata", &(lines.join("\n") + "\n"))
}

/// Puts a process into the group, and those that it will start.
pub(super) fn join(path: &Path, pid: i32) -> io::Result<()> {
    write(path, "tasks", &pid.to_string())
}

fn write(path: &Path, file: &str, text: &str) -> io::Result<()> {
    let refused = |e: io::Error| {
        // What it did not like, in words.
        let mount = path.ancestors().find(|above| above.join("info/last_cmd_status").exists());
        let said = mount.and_then(|mount| fs::read_to_string(mount.join("info/last_cmd_status")).ok());
        match said.as_deref().map(str::trim) {
            Some(said) if !said.is_empty() && said != "ok" => io::Error::new(e.kind(), format!("{e}: {said}")),
            _ => e,
        }
    };
    OpenOptions::new().write(true).open(path.join(file))?.write_all(text.as_bytes()).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_made_written_to_and_removed() {
        let dir = std::env::temp_dir().join(format!("potrun-resctrl-{}", std::process::id()));
        let group = dir.join("web");
        fs::create_dir(&dir).unwrap();
        create(&group).unwrap();
        assert_eq!(create(&group).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        // The files are the kernel's.
        assert_eq!(join(&group, 7).unwrap_err().kind(), io::ErrorKind::NotFound);
        for file in ["schemata", "tasks"] {
            fs::write(group.join(file), "").unwrap();
        }
        set(&group, &["L3:0=f".into(), "MB:0=20".into()]).unwrap();
        join(&group, 7).unwrap();
        assert_eq!(fs::read_to_string(group.join("schemata")).unwrap(), "L3:0=f\nMB:0=20\n");
        assert_eq!(fs::read_to_string(group.join("tasks")).unwrap(), "7");
        for file in ["schemata", "tasks"] {
            fs::remove_file(group.join(file)).unwrap();
        }
        remove(&group).unwrap();
        remove(&group).unwrap();
        fs::remove_dir(&dir).unwrap();
    }
}
