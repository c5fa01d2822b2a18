//! Compiled seccomp filters, kept beside the containers by the profiles that they were compiled from: the same profile
//! comes with nearly every container of an engine, and with every `exec` and health check.
//!
//! A file holds the profile and what compiled it, then the program, and serves only who comes with the same: its name, a
//! hash, merely finds it. The directory is potrun's own, as private as the records beside it, and [`MOST`] files large at
//! most. That it cannot be read or written is no failure.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use oci_spec::runtime::LinuxSeccomp;

use crate::host::Trouble;
use crate::id::{hash, hash_bytes};
use crate::linux::seccomp::{self, Filter};

/// Engines have a profile or two, and build tools one for each of their kinds of step.
const MOST: usize = 64;

/// The longest file that is read: a program has 4096 instructions at most, a profile thousands of names at most.
const LONGEST: u64 = 1 << 20;

/// The compiler: one that has changed finds nothing of its predecessor's.
const COMPILER: u64 = hash_bytes(include_bytes!("../seccomp.rs"))
    ^ hash_bytes(include_bytes!("../seccomp/code.rs")).rotate_left(1)
    ^ hash_bytes(include_bytes!("../seccomp/table.rs")).rotate_left(2);

/// The filter of a profile: compiled before, or now.
pub(super) fn of(profile: &LinuxSeccomp, kept: &Path) -> Result<Filter, Trouble> {
    let arch = std::env::consts::ARCH;
    let native = seccomp::arch_named(arch).ok_or("no system call table for this architecture")?;
    let version = env!("CARGO_PKG_VERSION");
    let key = format!("potrun {version} {COMPILER:x} {arch}\n{}\n", serde_json::to_string(profile)?);
    let path = kept.join(format!("{:016x}", hash(&key)));
    match read(&path, key.as_bytes()) {
        Ok(Some(filter)) => return Ok(filter),
        Ok(None) => {}
        Err(e) => tracing::debug!("seccomp: {}: {e}", path.display()),
    }
    let compiled = seccomp::compile(profile, native)?;
    // Names that no architecture knows are skipped, as the specification allows.
    if !compiled.ignored.is_empty() {
        tracing::debug!("seccomp: unknown system calls: {}", compiled.ignored.join(" "));
    }
    if let Err(e) = write(kept, &path, key.as_bytes(), &compiled.filter) {
        tracing::debug!("seccomp: keep {}: {e}", path.display());
    }
    Ok(compiled.filter)
}

/// The filter in a file, if it is of this key and nobody else can have written it.
fn read(path: &Path, key: &[u8]) -> io::Result<Option<Filter>> {
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let about = file.metadata()?;
    let ours = about.is_file() && about.uid() == nix::unistd::geteuid().as_raw() && about.mode() & 0o022 == 0;
    if !ours {
        return Err(io::Error::other("is not potrun's own"));
    }
    let mut bytes = Vec::with_capacity(about.len().min(LONGEST) as usize + 1);
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes.strip_prefix(key).and_then(Filter::from_bytes))
}

/// Puts a whole file there, or none.
fn write(kept: &Path, path: &Path, key: &[u8], filter: &Filter) -> io::Result<()> {
    let part = kept.join(format!("part-{}", std::process::id()));
    let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
    let mut file = match create() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().mode(0o700).create(kept)?;
            create()
        }
        // Of one that had our pid and was killed.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&part)?;
            create()
        }
        other => other,
    }?;
    let done = file.write_all(key).and_then(|()| file.write_all(&filter.to_bytes())).and_then(|()| {
        make_room(kept)?;
        fs::rename(&part, path)
    });
    done.inspect_err(|_| drop(fs::remove_file(&part)))
}

/// Removes what was kept first, until one more has room.
fn make_room(kept: &Path) -> io::Result<()> {
    let mut all = Vec::new();
    for one in fs::read_dir(kept)? {
        let one = one?;
        all.push((one.metadata().and_then(|about| about.modified()).unwrap_or(SystemTime::UNIX_EPOCH), one.path()));
    }
    all.sort();
    let many = all.len().saturating_sub(MOST);
    for (_, path) in &all[..many] {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    fn profile(errno: u32) -> LinuxSeccomp {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
            [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno}]});
        serde_json::from_value(profile).unwrap()
    }

    fn compiled(profile: &LinuxSeccomp) -> Filter {
        seccomp::compile(profile, seccomp::arch_named(std::env::consts::ARCH).unwrap()).unwrap().filter
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|one| one.unwrap().path()).collect();
        all.sort();
        all
    }

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            for file in files(&self.0) {
                fs::remove_file(file).unwrap();
            }
            fs::remove_dir(&self.0).unwrap();
        }
    }

    fn dir(name: &str) -> Dir {
        Dir(std::env::temp_dir().join(format!("potrun-filters-{name}-{}", std::process::id())))
    }

    /// A program that was kept is what is loaded, whoever else would compile it: seen by one that nobody would compile.
    #[test]
    fn a_filter_is_compiled_once() {
        let Dir(dir) = &dir("once");
        let first = profile(1);
        assert_eq!(of(&first, dir).unwrap(), compiled(&first));
        let file = &files(dir)[0];
        let mut bytes = fs::read(file).unwrap();
        let changed = Filter { program: compiled(&first).program[1..].to_vec(), ..compiled(&first) };
        bytes.truncate(bytes.len() - compiled(&first).to_bytes().len());
        bytes.extend(changed.to_bytes());
        fs::write(file, &bytes).unwrap();
        assert_eq!(of(&first, dir).unwrap(), changed);
        // Another profile does not get it.
        assert_eq!(of(&profile(2), dir).unwrap(), compiled(&profile(2)));
    }

    /// What is under a profile's name and not of that profile, or cut, or open to others, or a link, does not count.
    #[test]
    fn nothing_but_the_same_profile_s_own_file_counts() {
        let Dir(dir) = &dir("own");
        let (good, evil) = (profile(1), profile(0));
        of(&evil, dir).unwrap();
        let wrong = fs::read(&files(dir)[0]).unwrap();
        fs::remove_file(&files(dir)[0]).unwrap();
        of(&good, dir).unwrap();
        let file = &files(dir)[0];
        let right = fs::read(file).unwrap();
        let is_compiled = |what: &str| assert_eq!(of(&good, dir).unwrap(), compiled(&good), "{what}");

        fs::write(file, &wrong).unwrap();
        is_compiled("another profile's");
        for end in [0, 1, right.len() / 2, right.len() - 1] {
            fs::write(file, &right[..end]).unwrap();
            is_compiled("cut");
        }
        // The right key before a program that lets everything through.
        let mut open = right[..right.len() - compiled(&good).to_bytes().len()].to_vec();
        open.extend(compiled(&evil).to_bytes());
        let plant = || {
            drop(fs::remove_file(file));
            fs::write(file, &open).unwrap();
        };
        plant();
        fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
        is_compiled("writable by others");
        plant();
        let elsewhere = dir.join("elsewhere");
        fs::rename(file, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, file).unwrap();
        is_compiled("a link");
    }

    #[test]
    fn no_more_are_kept_than_a_bound() {
        let Dir(dir) = &dir("bound");
        for errno in 0..MOST as u32 + 8 {
            of(&profile(errno), dir).unwrap();
        }
        assert_eq!(files(dir).len(), MOST);
        assert!(files(dir).iter().all(|path| !path.to_string_lossy().contains("part")));
    }

    #[test]
    fn where_none_can_be_kept_it_is_compiled() {
        let nowhere = Path::new("/proc/self/nothing/here");
        assert_eq!(of(&profile(1), nowhere).unwrap(), compiled(&profile(1)));
    }
}
