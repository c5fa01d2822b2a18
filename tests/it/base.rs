//! Base releases: archives that mean harm, archives that are damaged, processes that die, servers that misbehave.
//! The witnesses are the kernel's own answers (lstat, xattrs) and GNU tar, which makes some of the archives.
#![expect(clippy::disallowed_methods, reason = "tests start tools, servers and processes to kill")]
#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

use potrun::base::{BaseError, Bases, Digest, Directories, FetchOptions, Imported, Quiet, UnpackOptions};
use sha2::Digest as _;
use std::error::Error as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

// ---- the scene --------------------------------------------------------------------------------------------------

/// A directory of the test's own, with a store and something outside of it that must stay as it is.
pub(crate) struct Scene(pub(crate) PathBuf);

impl Scene {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("potrun-base-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let scene = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(scene.0.join("outside")).unwrap();
        fs::write(scene.outside("secret"), "secret").unwrap();
        scene
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    fn directories(&self) -> Directories {
        Directories::at(&self.store())
    }

    pub(crate) fn bases(&self) -> Bases {
        Bases::at(&self.store())
    }

    pub(crate) fn tree(&self, path: &str) -> PathBuf {
        self.directories().tree("b").join(path)
    }

    pub(crate) fn outside(&self, path: &str) -> PathBuf {
        self.0.join("outside").join(path)
    }

    fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, contents).unwrap();
        path
    }

    fn import(&self, archive: &[u8]) -> Result<Imported, BaseError> {
        self.import_with(archive, &options())
    }

    fn import_with(&self, archive: &[u8], options: &UnpackOptions) -> Result<Imported, BaseError> {
        self.bases().import("b", &self.file("archive", archive), None, options, &mut Quiet)
    }

    /// The import fails with a message that has `words` in it, and leaves nothing, inside or outside.
    #[track_caller]
    fn refuses(&self, archive: &[u8], words: &str) {
        self.refuses_with(archive, &options(), words);
    }

    #[track_caller]
    fn refuses_with(&self, archive: &[u8], options: &UnpackOptions, words: &str) {
        let message = chain(&self.import_with(archive, options).unwrap_err());
        assert!(message.contains(words), "{message:?} does not say {words:?}");
        self.nothing_is_left();
    }

    #[track_caller]
    pub(crate) fn nothing_is_left(&self) {
        assert_eq!(names(&self.store().join("bases")), Vec::<String>::new());
        assert_eq!(names(&self.store().join("cache")), Vec::<String>::new());
        self.outside_is_untouched();
    }

    #[track_caller]
    pub(crate) fn outside_is_untouched(&self) {
        assert_eq!(names(&self.outside("")), ["secret"]);
        assert_eq!(fs::read_to_string(self.outside("secret")).unwrap(), "secret");
        assert_eq!(fs::metadata(self.outside("secret")).unwrap().nlink(), 1, "linked to from the tree");
    }

    /// The program, with nothing from the environment of the test.
    pub(crate) fn potrun(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_potrun"));
        command.env_clear().arg("--store").arg(self.store()).arg("base").args(arguments);
        command
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

pub(crate) fn options() -> UnpackOptions {
    UnpackOptions { sync: false, ..UnpackOptions::default() }
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// An error with its causes, and the rule of the house that none repeats the next.
pub(crate) fn chain(error: &BaseError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        assert!(!text.ends_with(&error.to_string()), "{text:?} says its source {error:?} already");
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

pub(crate) fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let hex: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    hex.parse().unwrap()
}

// ---- archives ---------------------------------------------------------------------------------------------------

/// An archive made header by header: no library writes the ones these tests are about.
#[derive(Clone, Default)]
pub(crate) struct Archive(Vec<u8>);

impl Archive {
    pub(crate) fn add(mut self, kind: u8, name: &str, link: &str, mode: u32, contents: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(mode);
        header.set_uid(nix::unistd::geteuid().as_raw().into());
        header.set_gid(nix::unistd::getegid().as_raw().into());
        header.set_mtime(1_000_000_000);
        header.set_size(contents.len() as u64);
        if matches!(kind, b'3' | b'4') {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.data(contents)
    }

    fn data(mut self, contents: &[u8]) -> Self {
        self.0.extend(contents);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, contents: &str) -> Self {
        self.add(b'0', name, "", 0o644, contents.as_bytes())
    }

    pub(crate) fn directory(self, name: &str, mode: u32) -> Self {
        self.add(b'5', name, "", mode, b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.add(b'2', name, target, 0o777, b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.add(b'1', name, target, 0o644, b"")
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|length| rest + length.to_string().len() == *length).unwrap();
            text.extend(format!("{length} {key}=").bytes().chain(value.iter().copied()).chain([b'\n']));
        }
        self.add(b'x', "pax", "", 0o644, &text)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What a tool makes of `input`; `None` when it is not installed.
fn filter(program: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new(program);
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success());
    Some(output.stdout)
}

fn xz(bytes: &[u8]) -> Option<Vec<u8>> {
    filter("xz", &["-c", "-T1", "--block-size=65536"], bytes)
}

pub(crate) fn zstd(bytes: &[u8]) -> Option<Vec<u8>> {
    filter("zstd", &["-qc", "--check"], bytes)
}

/// Contents that no compression makes small.
pub(crate) fn noise(length: usize) -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (state >> 33) as u8 % 90)
    };
    (0..length).map(|_| next()).collect()
}

fn plain() -> Archive {
    Archive::default()
        .directory("./", 0o755)
        .directory("./etc/", 0o755)
        .file("./etc/motd", "hello\n")
        .symlink("./bin", "usr/bin")
        .file("usr/bin/sh", &noise(200_000))
        .hard_link("./usr/bin/dash", "./usr/bin/sh")
}

// ---- what is kept -----------------------------------------------------------------------------------------------

#[test]
fn the_same_tree_comes_from_tar_gz_xz_and_zstd() {
    let archive = plain().end();
    let mut forms = vec![archive.clone(), gzip(&archive), [gzip(&archive[..512]), gzip(&archive[512..])].concat()];
    match xz(&archive) {
        Some(xz) => forms.push(xz),
        None => println!("skipped: xz is not installed"),
    }
    match zstd(&archive).zip(zstd(&archive[..512])).zip(zstd(&archive[512..])) {
        Some(((whole, first), rest)) => {
            // Two frames, and some that are to be skipped (RFC 8878, 3.1.2), as zstd:chunked has them.
            let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc".as_slice();
            forms.extend([whole, [&first, skippable, &rest, skippable].concat()]);
        }
        None => println!("skipped: zstd is not installed"),
    }
    for form in forms {
        let scene = Scene::new();
        let Imported::New(base, skipped) = scene.import(&form).unwrap() else { panic!("there was one") };
        assert_eq!(fs::read_to_string(scene.tree("etc/motd")).unwrap(), "hello\n");
        assert_eq!(fs::read_to_string(scene.tree("bin/dash")).unwrap(), noise(200_000));
        assert_eq!(
            fs::metadata(scene.tree("usr/bin/sh")).unwrap().ino(),
            fs::metadata(scene.tree("usr/bin/dash")).unwrap().ino()
        );
        assert_eq!(fs::read_link(scene.tree("bin")).unwrap(), Path::new("usr/bin"));
        // The seven members, and usr and usr/bin on the way.
        assert_eq!((base.entries, base.bytes, base.sha256), (8, 200_006, sha256(&form)));
        assert_eq!(skipped, potrun::base::Skipped::default());
        assert_eq!(scene.bases().find("b").unwrap(), Some(base.clone()));
        assert_eq!(scene.bases().list().unwrap(), [base]);
        assert_eq!(fs::metadata(scene.store().join("bases")).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(fs::metadata(scene.store().join("bases/b")).unwrap().mode() & 0o7777, 0o700);
    }
}

#[test]
fn modes_times_fifos_and_owners_are_kept() {
    let own =
        |archive: Archive, uid: u32| archive.pax(&[("uid", uid.to_string().as_bytes()), ("mtime", b"1234567890.5")]);
    let uid = if is_root() { 4321 } else { nix::unistd::geteuid().as_raw() };
    let mut archive = Archive::default().directory("d", 0o1777).add(b'0', "d/su", "", 0o6755, b"x");
    archive = own(archive, uid).add(b'0', "owned", "", 0o640, b"x");
    archive = own(archive, uid).symlink("link", "nowhere");
    archive = archive.add(b'6', "fifo", "", 0o620, b"").file("e/one", "1").file("d/late", "2").directory("e/", 0o750);
    // Back into a directory that the walk has left.
    archive = archive.file("e/two", "2");
    let scene = Scene::new();
    scene.import(&archive.end()).unwrap();
    let look = |path: &str| fs::symlink_metadata(scene.tree(path)).unwrap();
    let mode = |path: &str| look(path).mode() & 0o7777;
    assert_eq!((mode("d"), mode("owned"), mode("fifo"), mode("e")), (0o1777, 0o640, 0o620, 0o750));
    assert_eq!(mode("d/su"), if is_root() { 0o6755 } else { 0o755 });
    assert!(look("fifo").file_type().is_fifo());
    for path in ["owned", "link"] {
        assert_eq!((look(path).mtime(), look(path).mtime_nsec(), look(path).uid()), (1_234_567_890, 500_000_000, uid));
    }
    for path in ["d", "d/su", "e", "fifo", "e/two"] {
        assert_eq!(look(path).mtime(), 1_000_000_000, "{path}");
    }
    if !is_root() {
        println!("skipped: without root owners and setuid bits are not kept");
    }
}

#[test]
fn long_names_of_gnu_and_pax_are_kept() {
    let part = "n".repeat(100);
    let long = format!("{part}/{part}/{part}");
    let target = "t".repeat(300);
    let zero = |text: &str| [text.as_bytes(), b"\0"].concat();
    let archive = Archive::default()
        .add(b'L', "././@LongLink", "", 0, &zero(&format!("gnu/{long}")))
        .file("cut", "gnu")
        .add(b'K', "././@LongLink", "", 0, &zero(&target))
        .symlink("gnu/link", "cut")
        .pax(&[("path", format!("pax/{long}").as_bytes())])
        .file("cut", "pax")
        .pax(&[("linkpath", target.as_bytes())])
        .symlink("pax/link", "cut");
    let scene = Scene::new();
    scene.import(&archive.end()).unwrap();
    for kind in ["gnu", "pax"] {
        assert_eq!(fs::read_to_string(scene.tree(&format!("{kind}/{long}"))).unwrap(), kind);
        assert_eq!(fs::read_link(scene.tree(&format!("{kind}/link"))).unwrap(), Path::new(&target));
    }
}

#[test]
fn extended_attributes_and_file_capabilities_are_kept() {
    // cap_net_raw=ep, revision 2: what setcap(8) writes. The attribute of the user has a newline in it, which a reader
    // that splits pax records at newlines loses.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let scene = Scene::new();
    let probe = scene.file("probe", b"");
    if let Err(error) = xattr::set(&probe, "user.probe", b"x") {
        println!("skipped: no extended attributes here: {error}");
        return;
    }
    let archive = Archive::default()
        .pax(&[("SCHILY.xattr.user.note", b"a\nb\0c"), ("SCHILY.xattr.security.capability", &capability)])
        .add(b'0', "ping", "", 0o755, b"ping")
        .pax(&[("SCHILY.xattr.user.on", b"directory")])
        .directory("d", 0o755)
        .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y"), ("SCHILY.xattr.user.overlay.opaque", b"y")])
        .directory("steers", 0o755);
    let Imported::New(_, skipped) = scene.import(&archive.end()).unwrap() else { panic!("there was one") };
    let get = |path: &str, name: &str| xattr::get(scene.tree(path), name).unwrap();
    assert_eq!(get("ping", "user.note").as_deref(), Some(b"a\nb\0c".as_slice()));
    assert_eq!(get("d", "user.on").as_deref(), Some(b"directory".as_slice()));
    assert_eq!(get("steers", "user.overlay.opaque"), None);
    if is_root() {
        assert_eq!(get("ping", "security.capability").as_deref(), Some(capability.as_slice()));
        assert_eq!(get("steers", "trusted.overlay.opaque"), None);
        assert_eq!(skipped.attributes, 2);
    } else {
        println!("skipped: without root there are no file capabilities");
    }
}

#[test]
fn default_access_lists_are_not_inherited_by_what_is_below() {
    // user::rwx, user:1:rwx, group::r-x, mask::rwx, other::r-x, as acl(5) stores it.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, perm, id) in [(1_u16, 7_u16, u32::MAX), (2, 7, 1), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 5, u32::MAX)]
    {
        acl.extend([tag.to_le_bytes(), perm.to_le_bytes()].concat());
        acl.extend(id.to_le_bytes());
    }
    let scene = Scene::new();
    if let Err(error) = xattr::set(scene.outside(""), "system.posix_acl_default", &acl) {
        println!("skipped: no access lists here: {error}");
        return;
    }
    xattr::remove(scene.outside(""), "system.posix_acl_default").unwrap();
    let archive = Archive::default()
        .pax(&[("SCHILY.xattr.system.posix_acl_default", &acl)])
        .directory("d", 0o755)
        .file("d/f", "x");
    scene.import(&archive.end()).unwrap();
    assert_eq!(xattr::get(scene.tree("d"), "system.posix_acl_default").unwrap(), Some(acl));
    assert_eq!(xattr::get(scene.tree("d/f"), "system.posix_acl_access").unwrap(), None);
}

#[test]
fn what_gnu_tar_writes_is_what_gnu_tar_had() {
    let scene = Scene::new();
    let from = scene.0.join("from");
    fs::create_dir_all(from.join("usr/bin")).unwrap();
    fs::write(from.join("usr/bin/tool"), noise(3_000)).unwrap();
    fs::hard_link(from.join("usr/bin/tool"), from.join("usr/bin/other")).unwrap();
    fs::set_permissions(from.join("usr/bin/tool"), fs::Permissions::from_mode(0o4711)).unwrap();
    symlink("usr/bin", from.join("bin")).unwrap();
    fs::hard_link(from.join("bin"), from.join("bin2")).unwrap();
    fs::write(from.join("n".repeat(200)), "long").unwrap();
    let sparse = File::create(from.join("sparse")).unwrap();
    let data = noise(10_000);
    for at in [0, 1_000_000, 5_000_000] {
        std::os::unix::fs::FileExt::write_all_at(&sparse, data.as_bytes(), at).unwrap();
    }
    sparse.set_len(9_000_000).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=posix"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=0.0"],
    ] {
        let arguments = [&["-c", "-S", "-C", from.to_str().unwrap()], format, &["."]].concat();
        let Ok(Output { status, stdout, .. }) = Command::new("tar").args(arguments).stderr(Stdio::null()).output()
        else {
            println!("skipped: tar is not installed");
            return;
        };
        if !status.success() {
            println!("skipped: this tar does not know {format:?}");
            continue;
        }
        let scene = Scene::new();
        scene.import(&stdout).unwrap();
        for path in ["usr/bin/tool", "usr/bin/other", "sparse", "bin/tool", &"n".repeat(200)] {
            assert!(fs::read(from.join(path)).unwrap() == fs::read(scene.tree(path)).unwrap(), "{path} {format:?}");
        }
        assert!(fs::metadata(scene.tree("sparse")).unwrap().blocks() * 512 < 1_000_000, "holes were filled");
        assert_eq!(fs::read_link(scene.tree("bin2")).unwrap(), Path::new("usr/bin"));
        assert_eq!(fs::metadata(scene.tree("usr/bin/tool")).unwrap().nlink(), 2);
        assert_eq!(fs::metadata(scene.tree("usr")).unwrap().mtime(), fs::metadata(from.join("usr")).unwrap().mtime());
        let mode = if is_root() { 0o4711 } else { 0o711 };
        assert_eq!(fs::metadata(scene.tree("usr/bin/tool")).unwrap().mode() & 0o7777, mode);
    }
}

#[test]
fn device_nodes_are_left_out_and_counted_unless_asked_for() {
    let archive =
        Archive::default().add(b'3', "dev/null", "", 0o666, b"").add(b'4', "dev/sda", "", 0o660, b"").file("f", "x");
    let archive = archive.end();
    let scene = Scene::new();
    let Imported::New(base, skipped) = scene.import(&archive).unwrap() else { panic!("there was one") };
    assert_eq!((skipped.devices, base.entries, names(&scene.tree("dev"))), (2, 1, vec![]));
    assert_eq!(skipped.notices(), ["2 device nodes left out: a container gets its own /dev"]);

    let scene = Scene::new();
    if let Err(error) = nix::sys::stat::mknod(
        &scene.outside("probe"),
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::empty(),
        libc::makedev(1, 3),
    ) {
        println!("skipped: no device nodes can be made here: {error}");
        return;
    }
    scene.import_with(&archive, &UnpackOptions { allow_devices: true, ..options() }).unwrap();
    let null = fs::symlink_metadata(scene.tree("dev/null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!((null.rdev(), null.mode() & 0o7777), (libc::makedev(1, 3), 0o666));
}

#[test]
fn file_flags_are_counted_where_there_are_none() {
    if cfg!(target_os = "freebsd") {
        println!("skipped: this system has file flags");
        return;
    }
    let archive = Archive::default()
        .pax(&[("SCHILY.fflags", b"schg,uarch")])
        .file("init", "x")
        .pax(&[("SCHILY.fflags", b"uarch")])
        .file("other", "x");
    let Imported::New(_, skipped) = Scene::new().import(&archive.end()).unwrap() else { panic!("there was one") };
    assert_eq!(skipped.flags, 1);
}

#[test]
fn without_root_everything_belongs_to_the_caller_and_that_is_said_in_one_line() {
    if !is_root() {
        println!("skipped: only root can run a part of the test as somebody else");
        return;
    }
    let scene = Scene::new();
    fs::create_dir(scene.store()).unwrap();
    std::os::unix::fs::chown(scene.store(), Some(65534), Some(65534)).unwrap();
    let archive = Archive::default()
        .directory("closed", 0o555)
        .file("closed/a", "a")
        .add(b'0', "su", "", 0o4755, b"x")
        .directory("dark", 0o000)
        .file("closed/b", "b")
        .file("dark/c", "c");
    let file = scene.file("archive", &archive.end());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let potrun = |arguments: &[&str]| scene.potrun(arguments).uid(65534).gid(65534).output().unwrap();
    let output = potrun(&["import", "b", file.to_str().unwrap()]);
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "potrun: not root: 6 members belong to the caller now\n\
         potrun: 1 files lost setuid, setgid or capabilities\n"
    );
    assert!(output.status.success());
    let look = |path: &str| fs::metadata(scene.tree(path)).unwrap();
    assert_eq!(
        (look("su").mode() & 0o7777, look("closed").mode() & 0o7777, look("dark").mode() & 0o7777),
        (0o755, 0o555, 0)
    );
    assert_eq!((look("su").uid(), look("dark/c").uid(), look("closed").mtime()), (65534, 65534, 1_000_000_000));
    let output = potrun(&["rm", "b"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    scene.nothing_is_left();
}

// ---- archives that mean harm ------------------------------------------------------------------------------------

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../x", "a/../../x", "..", "a/.."] {
        Scene::new().refuses(&Archive::default().file("ok", "x").file(name, "evil").end(), "upwards with ..");
        Scene::new().refuses(&Archive::default().hard_link("h", name).end(), "upwards with ..");
    }
    let scene = Scene::new();
    scene.refuses(&Archive::default().pax(&[("path", b"../x")]).file("ok", "evil").end(), "upwards with ..");
    scene.refuses(&Archive::default().pax(&[("path", b"a\0b")]).file("ok", "evil").end(), "path cannot be");
    scene.refuses(&Archive::default().file(".", "evil").end(), "replace the tree itself");
    scene.refuses(&Archive::default().symlink("./", "x").end(), "replace the tree itself");
}

#[test]
fn absolute_names_land_in_the_tree() {
    let scene = Scene::new();
    let target = scene.outside("secret");
    scene
        .import(&Archive::default().pax(&[("path", target.to_str().unwrap().as_bytes())]).file("x", "evil").end())
        .unwrap();
    scene.outside_is_untouched();
    assert_eq!(fs::read_to_string(scene.tree(target.to_str().unwrap().trim_start_matches('/'))).unwrap(), "evil");
}

#[test]
fn no_member_is_written_through_a_link() {
    let scene = Scene::new();
    let outside = scene.outside("").to_str().unwrap().trim_end_matches('/').to_owned();
    let link = |target: &str| Archive::default().pax(&[("linkpath", target.as_bytes())]).symlink("out", "cut");
    scene.refuses(&link(&outside).file("out/evil", "evil").end(), "its parent out is a link");
    scene.refuses(&link(&outside).directory("out/evil", 0o777).end(), "its parent out is a link");
    scene.refuses(&link(&outside).symlink("out/evil", "x").end(), "its parent out is a link");
    scene.refuses(&link(&outside).file("ok", "x").hard_link("out/evil", "ok").end(), "its parent out is a link");
    scene.refuses(&link(&outside).add(b'6', "out/evil", "", 0o666, b"").end(), "its parent out is a link");
    scene.refuses(&link(".").file("out/out/evil", "evil").end(), "its parent out is a link");
    scene.refuses(&Archive::default().file("f", "x").file("f/evil", "evil").end(), "its parent f is a link or a file");

    // The last component: the link itself is replaced.
    let secret = format!("{outside}/secret");
    let scene = Scene::new();
    scene.import(&link(&secret).file("out", "replaced").end()).unwrap();
    assert_eq!(fs::read_to_string(scene.tree("out")).unwrap(), "replaced");
    let scene = Scene::new();
    scene.import(&link(&outside).directory("out", 0o700).file("out/inside", "x").end()).unwrap();
    assert_eq!(names(&scene.tree("out")), ["inside"]);
    // A descriptor that was opened before the directory was replaced.
    let scene = Scene::new();
    let archive = Archive::default().directory("out", 0o755).directory("out/d", 0o755).directory("x", 0o755);
    let archive = archive.pax(&[("linkpath", outside.as_bytes())]).symlink("out/d", "cut").file("out/d/evil", "evil");
    scene.refuses(&archive.end(), "its parent d is a link");
}

#[test]
fn no_hard_link_leads_out() {
    let scene = Scene::new();
    let outside = scene.outside("").to_str().unwrap().trim_end_matches('/').to_owned();
    let secret = format!("{outside}/secret");
    let hard =
        |archive: Archive, target: &str| archive.pax(&[("linkpath", target.as_bytes())]).hard_link("h", "cut").end();
    scene.refuses(&hard(Archive::default(), &secret), "no earlier member");
    let link = Archive::default().pax(&[("linkpath", outside.as_bytes())]).symlink("out", "cut");
    scene.refuses(&hard(link, "out/secret"), "behind a link");
    scene.refuses(&hard(Archive::default().directory("d", 0o755), "d"), "is a directory");
    scene.refuses(&hard(Archive::default(), "h"), "no earlier member");
    scene.refuses(&hard(Archive::default(), "/"), "the tree itself");

    // A second name of a link is a link; what replaces that name does not go through it either.
    let scene = Scene::new();
    let link = Archive::default().pax(&[("linkpath", secret.as_bytes())]).symlink("out", "cut").hard_link("h", "out");
    scene.import(&link.clone().end()).unwrap();
    assert_eq!(fs::read_link(scene.tree("h")).unwrap(), Path::new(&secret));
    scene.outside_is_untouched();
    let scene = Scene::new();
    scene.import(&link.file("h", "replaced").end()).unwrap();
    assert_eq!(fs::read_to_string(scene.tree("h")).unwrap(), "replaced");
    assert_eq!(fs::read_link(scene.tree("out")).unwrap(), Path::new(&secret));
}

#[test]
fn a_later_member_replaces_an_earlier_one() {
    let scene = Scene::new();
    let archive = Archive::default()
        .file("f", "first")
        .hard_link("h", "f")
        .file("f", "second")
        .directory("d", 0o700)
        .file("d/kept", "x")
        .directory("d", 0o751)
        .directory("was-directory", 0o755)
        .file("was-directory", "file")
        .file("was-file", "x")
        .directory("was-file", 0o755)
        .hard_link("h", "h");
    scene.import(&archive.end()).unwrap();
    assert_eq!(fs::read_to_string(scene.tree("f")).unwrap(), "second");
    assert_eq!(fs::read_to_string(scene.tree("h")).unwrap(), "first", "written into, not replaced");
    assert_eq!(names(&scene.tree("d")), ["kept"]);
    assert_eq!(fs::metadata(scene.tree("d")).unwrap().mode() & 0o7777, 0o751);
    assert!(scene.tree("was-directory").is_file() && scene.tree("was-file").is_dir());
    Scene::new().refuses(&Archive::default().file("d/x", "x").file("d", "x").end(), "a directory with contents");
}

#[test]
fn bombs_are_stopped() {
    let limit = UnpackOptions { max_bytes: 1 << 20, max_entries: 10, ..options() };
    let scene = Scene::new();
    let zeros = "\0".repeat(2 << 20);
    scene.refuses_with(
        &gzip(&Archive::default().file("zeros", &zeros).end()),
        &limit,
        "more than the limit of 1048576 bytes",
    );
    // What is behind the end mark is not unpacked, but costs time.
    let tail = [Archive::default().file("f", "x").end(), zeros.into_bytes()].concat();
    scene.refuses_with(&gzip(&tail), &limit, "more than the limit of 1048576 bytes");
    let holes = [("GNU.sparse.map", b"0,1".as_slice()), ("GNU.sparse.size", b"1099511627776")];
    scene.refuses_with(
        &Archive::default().pax(&holes).file("holes", "x").end(),
        &limit,
        "more than the limit of 1048576 bytes",
    );
    let many = |count: u32| (0..count).fold(Archive::default(), |archive, i| archive.file(&format!("f{i}"), "x")).end();
    scene.refuses_with(&many(11), &limit, "more than the limit of 10 entries");
    scene.refuses_with(&Archive::default().file("1/2/3/4/5/6/7/8/9/10/11", "x").end(), &limit, "limit of 10 entries");
    scene.import_with(&many(10), &limit).unwrap();
    // A name or a pax header that would fill the memory.
    let scene = Scene::new();
    let huge = vec![b'x'; (1 << 20) + 1];
    scene
        .refuses(&Archive::default().add(b'L', "long", "", 0, &huge).file("x", "x").end(), "larger than 1048576 bytes");
    scene
        .refuses(&Archive::default().add(b'x', "long", "", 0, &huge).file("x", "x").end(), "larger than 1048576 bytes");
    let deep = "d/".repeat(300);
    scene.refuses(
        &Archive::default().pax(&[("path", format!("{deep}f").as_bytes())]).file("x", "x").end(),
        "deeper than 256",
    );
    let long = "d/".repeat(3000);
    scene.refuses(
        &Archive::default().pax(&[("path", format!("{long}f").as_bytes())]).file("x", "x").end(),
        "longer than 4096",
    );
}

#[test]
fn what_is_not_understood_is_refused() {
    let scene = Scene::new();
    scene.refuses(&Archive::default().add(b'M', "continued", "", 0o644, b"").end(), "unknown type 'M'");
    scene.refuses(
        &Archive::default().add(b'g', "global", "", 0o644, b"10 path=x\n").file("f", "x").end(),
        "path for all members",
    );
    scene.refuses(
        &Archive::default().add(b'x', "pax", "", 0o644, b"99 path=x\n").file("f", "x").end(),
        "a record is damaged",
    );
    scene.refuses(&Archive::default().pax(&[("uid", b"4294967296")]).file("f", "x").end(), "does not fit 32 bits");
    scene.refuses(&Archive::default().symlink("s", "").end(), "a symbolic link to nothing");
    let sparse = |map: &[u8]| {
        Archive::default().pax(&[("GNU.sparse.map", map), ("GNU.sparse.size", b"10")]).file("s", "xxx").end()
    };
    for map in [&b"0,2"[..], b"0,4", b"2,2,0,1", b"9,3", b"0,18446744073709551615"] {
        scene.refuses(&sparse(map), "the map of the sparse file makes no sense");
    }
    let comment = Archive::default().add(b'g', "global", "", 0o644, b"13 comment=x\n").file("f", "x").end();
    scene.import(&comment).unwrap();
}

// ---- archives that are damaged ----------------------------------------------------------------------------------

#[test]
fn an_archive_that_is_cut_off_is_refused_wherever_it_is_cut() {
    let archive =
        Archive::default().directory("d", 0o755).file("d/f", &noise(2_000)).pax(&[("path", b"x")]).file("y", "z").end();
    let end_mark = archive.len() - 1024;
    for cut in (1..=end_mark + 511).step_by(97).chain((512..=end_mark).step_by(512)) {
        Scene::new().refuses(&archive[..cut], "the archive is cut off");
    }
    let gz = gzip(&archive);
    for cut in (20..gz.len()).step_by(101).chain([gz.len() - 1, gz.len() - 8]) {
        Scene::new().refuses(&gz[..cut], "the archive is cut off");
    }
    let Some(xz) = xz(&archive) else {
        println!("skipped: xz is not installed");
        return;
    };
    for cut in (20..xz.len()).step_by(101).chain([xz.len() - 1]) {
        Scene::new().refuses(&xz[..cut], "unpack");
    }
    let Some(zst) = zstd(&archive) else {
        println!("skipped: zstd is not installed");
        return;
    };
    for cut in (5..zst.len()).step_by(101).chain([zst.len() - 1]) {
        Scene::new().refuses(&zst[..cut], "unpack");
    }
}

#[test]
fn an_archive_that_is_damaged_is_refused() {
    let scene = Scene::new();
    for garbage in [&b""[..], b"x", &[0; 10_240], noise(100_000).as_bytes()] {
        let message = chain(&scene.import(garbage).unwrap_err());
        assert!(message.ends_with("this is not a tar archive") || message.contains("cut off"), "{message}");
        scene.nothing_is_left();
    }
    scene.refuses(b"BZh9 and so on", "bzip2 compression is not supported");
    let mut archive = Archive::default().file("f", "x").file("g", "y").end();
    archive[1024] ^= 1;
    scene.refuses(&archive, "the header at byte 1024 of the archive is damaged");
    // A wrong checksum of the compression shows only at its end, behind the end mark of the tar.
    let mut gz = gzip(&plain().end());
    let crc = gz.len() - 6;
    gz[crc] ^= 1;
    scene.refuses(&gz, "read the archive");
    if let Some(mut xz) = xz(&plain().end()) {
        let middle = xz.len() / 2;
        xz[middle] ^= 1;
        scene.refuses(&xz, "read the archive");
    }
    if let Some(mut zst) = zstd(&plain().end()) {
        let checksum = zst.len() - 1;
        zst[checksum] ^= 1;
        scene.refuses(&zst, "read the archive");
    }
    // A window of 2^41 bytes, which would have to be in memory (RFC 8878, 3.1.1.1.2).
    scene.refuses(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0xf8, 1, 0, 0], "read the archive");
}

// ---- digests and names ------------------------------------------------------------------------------------------

#[test]
fn a_wrong_digest_leaves_nothing() {
    let scene = Scene::new();
    for archive in [plain().end(), gzip(&plain().end()), b"an error page of a server".to_vec()] {
        let file = scene.file("archive", &archive);
        let error = scene.bases().import("b", &file, Some(sha256(b"")), &options(), &mut Quiet).unwrap_err();
        let BaseError::Digest { found, wanted, .. } = error else { panic!("{error}") };
        assert_eq!((found, wanted), (sha256(&archive), sha256(b"")));
        scene.nothing_is_left();
    }
    let archive = plain().end();
    let file = scene.file("archive", &archive);
    scene.bases().import("b", &file, Some(sha256(&archive)), &options(), &mut Quiet).unwrap();
}

#[test]
fn a_name_that_is_taken() {
    let scene = Scene::new();
    let first = scene.import(&plain().end()).unwrap();
    assert_eq!(scene.import(&plain().end()).unwrap(), Imported::Already(first.base().clone()));
    let error = scene.import(&Archive::default().file("f", "x").end()).unwrap_err();
    assert!(matches!(&error, BaseError::Taken { name, has } if name == "b" && *has == first.base().sha256), "{error}");
    assert_eq!(scene.bases().find("b").unwrap().as_ref(), Some(first.base()));
    for name in ["", ".b", "a/b", "..", "ü"] {
        let error = scene.bases().import(name, &scene.0.join("archive"), None, &options(), &mut Quiet).unwrap_err();
        assert!(matches!(error, BaseError::Name(_)), "{error}");
    }
    assert_eq!(names(&scene.store().join("bases")), ["b"]);
}

// ---- processes that die or meet ---------------------------------------------------------------------------------

/// An import that reads from a fifo: it is as far as the test has written.
struct Slow {
    child: Child,
    fifo: File,
}

/// More than a fifo holds, so that the importer has unpacked a part of it once it is written.
const HALF: usize = 1 << 20;

fn slow_archive(salt: &str) -> Vec<u8> {
    Archive::default().file("salt", salt).file("one", &noise(HALF)).file("two", &noise(HALF)).end()
}

impl Slow {
    /// Begins to import `archive`, and returns when about half of it is unpacked.
    fn start(scene: &Scene, name: &str, archive: &[u8]) -> Self {
        let path = scene.0.join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut command = scene.potrun(&["import", "b", path.to_str().unwrap()]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut fifo = File::options().write(true).open(&path).unwrap();
        fifo.write_all(&archive[..HALF]).unwrap();
        Self { child, fifo }
    }

    fn finish(mut self, archive: &[u8]) -> Output {
        self.fifo.write_all(&archive[HALF..]).unwrap();
        drop(self.fifo);
        self.child.wait_with_output().unwrap()
    }
}

pub(crate) fn text(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_a_killed_import_left_goes_with_the_next_one() {
    let scene = Scene::new();
    let archive = slow_archive("");
    for way in ["import", "sweep"] {
        let mut slow = Slow::start(&scene, way, &archive);
        slow.child.kill().unwrap();
        assert_eq!(slow.child.wait().unwrap().signal(), Some(9));
        let left = names(&scene.store().join("bases"));
        assert!(left.len() == 1 && left[0].starts_with(".b.partial-"), "{left:?}");
        assert!(fs::metadata(scene.store().join("bases").join(&left[0]).join("tree/one")).unwrap().len() > 0);
        assert_eq!((scene.bases().list().unwrap(), scene.bases().find("b").unwrap()), (vec![], None));
        if way == "sweep" {
            assert_eq!(scene.bases().sweep().unwrap(), [scene.store().join("bases").join(&left[0])]);
            scene.nothing_is_left();
        } else {
            scene.import(&plain().end()).unwrap();
            assert_eq!(names(&scene.store().join("bases")), ["b"]);
            scene.bases().remove("b").unwrap();
        }
    }
}

#[test]
fn two_imports_of_one_name_make_one_base() {
    let scene = Scene::new();
    let archive = slow_archive("");
    let first = Slow::start(&scene, "first", &archive);
    let second = Slow::start(&scene, "second", &archive);
    let third = Slow::start(&scene, "third", &slow_archive("other"));
    assert_eq!(names(&scene.store().join("bases")).len(), 3);
    assert_eq!(scene.bases().sweep().unwrap(), Vec::<PathBuf>::new(), "swept from under a living import");
    assert!(text(&first.finish(&archive)).0.starts_with("imported base b: "));
    assert!(text(&second.finish(&archive)).0.starts_with("base b is there already: "));
    let third = third.finish(&slow_archive("other"));
    assert_eq!(text(&third).1, format!("potrun: base b exists with another digest: {}\n", sha256(&archive)));
    assert_eq!((third.status.code(), names(&scene.store().join("bases"))), (Some(1), vec!["b".to_owned()]));
    assert_eq!(fs::read_to_string(scene.tree("salt")).unwrap(), "");
}

// ---- rm and ls --------------------------------------------------------------------------------------------------

#[test]
fn a_base_in_use_is_not_removed() {
    let scene = Scene::new();
    scene.import(&plain().end()).unwrap();
    let users = scene.directories().users_directory("b");
    for id in ["web2", "web1"] {
        fs::write(users.join(id), "").unwrap();
    }
    let output = scene.potrun(&["rm", "b"]).output().unwrap();
    assert_eq!(text(&output), (String::new(), "potrun: base b is in use by web1, web2\n".to_owned()));
    assert_eq!(fs::read_to_string(scene.tree("etc/motd")).unwrap(), "hello\n");
    for id in ["web2", "web1"] {
        fs::remove_file(users.join(id)).unwrap();
    }
    assert_eq!(text(&scene.potrun(&["rm", "b"]).output().unwrap()), ("removed base b\n".to_owned(), String::new()));
    scene.nothing_is_left();
    assert_eq!(text(&scene.potrun(&["rm", "b"]).output().unwrap()).1, "potrun: there is no base b\n");
}

#[test]
fn removal_does_not_follow_links() {
    let scene = Scene::new();
    let outside = scene.outside("").to_str().unwrap().trim_end_matches('/').to_owned();
    let archive =
        Archive::default().pax(&[("linkpath", outside.as_bytes())]).symlink("out", "cut").directory("d", 0o000);
    scene.import(&archive.end()).unwrap();
    symlink(&outside, scene.tree("d/out")).unwrap();
    scene.bases().remove("b").unwrap();
    scene.nothing_is_left();
}

#[test]
fn a_removal_that_was_cut_off_is_finished_by_the_sweep() {
    let scene = Scene::new();
    scene.import(&plain().end()).unwrap();
    let bases = scene.store().join("bases");
    // Died after the first step, then after the second.
    fs::remove_dir(scene.directories().users_directory("b")).unwrap();
    assert_eq!(scene.bases().sweep().unwrap(), [bases.join("b")]);
    scene.import(&plain().end()).unwrap();
    fs::rename(bases.join("b"), bases.join(".b.gone-1-1")).unwrap();
    assert_eq!(scene.bases().list().unwrap(), []);
    assert_eq!(scene.bases().sweep().unwrap(), [bases.join(".b.gone-1-1")]);
    scene.nothing_is_left();
}

#[test]
fn ls_prints_a_table_and_json() {
    let scene = Scene::new();
    let header = "NAME  SHA256               BYTES   ENTRIES  CREATED               USERS\n";
    assert_eq!(text(&scene.potrun(&["ls"]).output().unwrap()), (header.to_owned(), String::new()));
    let base = scene.import(&plain().end()).unwrap().base().clone();
    fs::write(scene.directories().users_directory("b").join("web1"), "").unwrap();
    let line = format!("b     {}        200006         8  {}  1\n", &base.sha256.to_string()[..12], base.created);
    assert_eq!(text(&scene.potrun(&["ls"]).output().unwrap()).0, format!("{header}{line}"));
    let json: serde_json::Value =
        serde_json::from_slice(&scene.potrun(&["ls", "--json"]).output().unwrap().stdout).unwrap();
    let expected = serde_json::json!([{
        "name": "b", "sha256": base.sha256.to_string(), "source": base.source, "created": base.created,
        "bytes": 200_006, "entries": 8, "users": ["web1"],
    }]);
    assert_eq!(json, expected);
    let age = std::time::SystemTime::now().duration_since(humantime::parse_rfc3339(&base.created).unwrap()).unwrap();
    assert!(age.as_secs() < 600, "created {} is not now", base.created);
}

// ---- servers ----------------------------------------------------------------------------------------------------

/// A server that answers one connection after the other as it is told, and remembers the questions.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

type Answer = Box<dyn Fn(&str) -> Vec<u8> + Send>;

impl Server {
    fn new(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let thread = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let question = read_head(&mut stream);
                // A client that hangs up early has its reasons.
                stream.write_all(&answer(&question)).ok();
                log.lock().unwrap().push(question);
            }
        });
        Self { url, asked, thread: Some(thread) }
    }

    /// Waits until every answer was given, and returns the questions.
    fn asked(mut self) -> Vec<String> {
        self.thread.take().unwrap().join().unwrap();
        self.asked.lock().unwrap().clone()
    }
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

/// An answer with a body that may be shorter than it promises.
fn answer(status: &str, headers: &str, promised: usize, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {promised}\r\nConnection: close\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn whole(body: &[u8]) -> Answer {
    let body = body.to_vec();
    Box::new(move |_| answer("200 OK", "ETag: \"one\"\r\n", body.len(), &body))
}

/// Promises everything and hangs up in the middle.
fn cut(body: &[u8], at: usize) -> Answer {
    let body = body.to_vec();
    Box::new(move |_| answer("200 OK", "ETag: \"one\"\r\n", body.len(), &body[..at]))
}

/// The rest, as the question asks for it.
fn rest(body: &[u8]) -> Answer {
    let body = body.to_vec();
    Box::new(move |question| {
        let from = question.split("range: bytes=").nth(1).and_then(|rest| rest.split('-').next()).unwrap();
        let from: usize = from.parse().unwrap();
        let range = format!("Content-Range: bytes {from}-{}/{}\r\n", body.len() - 1, body.len());
        answer("206 Partial Content", &range, body.len() - from, &body[from..])
    })
}

fn status(line: &'static str) -> Answer {
    Box::new(move |_| answer(line, "", 4, b"page"))
}

fn fetch(scene: &Scene, server: &Server, digest: Digest) -> Result<Imported, BaseError> {
    let what =
        FetchOptions { url: Some(format!("{}/base.txz", server.url)), sha256: Some(digest), ..FetchOptions::default() };
    scene.bases().fetch("b", &what, &options(), &mut Quiet)
}

#[track_caller]
fn fetched(scene: &Scene, archive: &[u8]) {
    assert_eq!(scene.bases().find("b").unwrap().unwrap().sha256, sha256(archive));
    assert_eq!(fs::read_to_string(scene.tree("etc/motd")).unwrap(), "hello\n");
    assert_eq!(names(&scene.store().join("cache")), Vec::<String>::new());
}

#[test]
fn a_base_is_fetched_whole_and_once() {
    let archive = gzip(&plain().end());
    let scene = Scene::new();
    let server = Server::new(vec![whole(&archive)]);
    let Imported::New(base, _) = fetch(&scene, &server, sha256(&archive)).unwrap() else { panic!("there was one") };
    assert_eq!(base.source, format!("{}/base.txz", server.url));
    fetched(&scene, &archive);
    // The server does not answer any more: nobody asks it.
    assert!(matches!(fetch(&scene, &server, sha256(&archive)).unwrap(), Imported::Already(_)));
    assert!(matches!(fetch(&scene, &server, sha256(b"")), Err(BaseError::Taken { .. })));
    let asked = server.asked();
    assert!(asked[0].starts_with("get /base.txz http/1.1") && !asked[0].contains("range:"), "{}", asked[0]);
    assert!(asked[0].contains("accept-encoding: identity"), "{}", asked[0]);
}

#[test]
fn a_broken_download_is_taken_up_where_it_broke() {
    let archive = gzip(&plain().end());
    let scene = Scene::new();
    let server = Server::new(vec![cut(&archive, 50_000), rest(&archive)]);
    fetch(&scene, &server, sha256(&archive)).unwrap();
    fetched(&scene, &archive);
    let asked = server.asked();
    assert!(asked[1].contains("range: bytes=50000-") && asked[1].contains("if-range: \"one\""), "{}", asked[1]);
}

#[test]
fn a_download_is_taken_up_by_the_next_process() {
    let archive = gzip(&plain().end());
    let scene = Scene::new();
    let hang_up = || -> Answer { Box::new(|_| Vec::new()) };
    let server = Server::new(vec![cut(&archive, 50_000), hang_up(), hang_up(), hang_up(), rest(&archive)]);
    let message = chain(&fetch(&scene, &server, sha256(&archive)).unwrap_err());
    assert!(message.contains("the connection broke after 50000 bytes"), "{message}");
    assert_eq!(names(&scene.store().join("cache")).len(), 2);
    fetch(&scene, &server, sha256(&archive)).unwrap();
    fetched(&scene, &archive);
    assert!(server.asked()[4].contains("range: bytes=50000-"));
}

#[test]
fn a_download_that_is_alive_is_neither_swept_nor_shared() {
    let archive = gzip(&plain().end());
    let digest = sha256(&archive);
    let scene = Arc::new(Scene::new());
    // The server answers when the test has looked.
    let (looked, wait) = std::sync::mpsc::channel::<()>();
    let (asking, asked) = std::sync::mpsc::channel::<()>();
    let body = archive.clone();
    let answers: Vec<Answer> = vec![Box::new(move |_| {
        asking.send(()).unwrap();
        wait.recv().unwrap();
        answer("200 OK", "", body.len(), &body[..100])
    })];
    let server = Server::new(answers);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| fetch(&scene, &server, digest));
        asked.recv().unwrap();
        assert_eq!(scene.bases().sweep_cache().unwrap(), Vec::<PathBuf>::new());
        let second = fetch(&scene, &server, digest).unwrap_err();
        assert!(matches!(second, BaseError::Busy(_)), "{second}");
        looked.send(()).unwrap();
        // The server is gone then: a hundred bytes stay.
        first.join().unwrap().unwrap_err();
    });
    let part = scene.store().join(format!("cache/{digest}.part"));
    assert_eq!(fs::metadata(&part).unwrap().len(), 100);
    assert_eq!(scene.bases().sweep_cache().unwrap(), [part]);
    scene.nothing_is_left();
}

#[test]
fn a_server_that_ignores_ranges_is_asked_for_the_whole() {
    let archive = gzip(&plain().end());
    let scene = Scene::new();
    let server = Server::new(vec![cut(&archive, 50_000), whole(&archive)]);
    fetch(&scene, &server, sha256(&archive)).unwrap();
    fetched(&scene, &archive);
    assert!(server.asked()[1].contains("range: bytes=50000-"));
}

#[test]
fn pieces_that_do_not_fit_are_thrown_away() {
    let archive = gzip(&plain().end());
    let scene = Scene::new();
    let mut other = archive.clone();
    other[10] ^= 1;
    let server = Server::new(vec![cut(&other, 50_000), rest(&archive), whole(&archive)]);
    fetch(&scene, &server, sha256(&archive)).unwrap();
    fetched(&scene, &archive);
    assert!(!server.asked()[2].contains("range:"));
}

#[test]
fn a_complete_part_is_not_downloaded_again() {
    let archive = gzip(&plain().end());
    let scene = Scene::new();
    fs::create_dir_all(scene.store().join("cache")).unwrap();
    fs::write(scene.store().join(format!("cache/{}.part", sha256(&archive))), &archive).unwrap();
    let total = archive.len();
    let server = Server::new(vec![Box::new(move |_| {
        answer("416 Range Not Satisfiable", &format!("Content-Range: bytes */{total}\r\n"), 0, b"")
    })]);
    fetch(&scene, &server, sha256(&archive)).unwrap();
    fetched(&scene, &archive);
}

#[test]
fn a_download_with_the_wrong_digest_leaves_nothing() {
    let archive = gzip(&plain().end());
    let scene = Scene::new();
    let server = Server::new(vec![whole(&archive)]);
    let error = fetch(&scene, &server, sha256(b"")).unwrap_err();
    assert!(matches!(&error, BaseError::Digest { found, .. } if *found == sha256(&archive)), "{error}");
    scene.nothing_is_left();
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn what_a_server_refuses_is_an_error_and_leaves_no_base() {
    let scene = Scene::new();
    let other_range: Answer = Box::new(|_| answer("206 Partial Content", "Content-Range: bytes 7-9/10\r\n", 3, b"xxx"));
    for (given, words) in [
        (status("404 Not Found"), "status 404"),
        (status("500 Internal Server Error"), "status 500"),
        (other_range, "makes no sense: asked for bytes from 0, got bytes 7-9/10"),
    ] {
        let server = Server::new(vec![given]);
        let message = chain(&fetch(&scene, &server, sha256(b"")).unwrap_err());
        assert!(
            message.starts_with(&format!("fetch {}/base.txz: ", server.url)) && message.contains(words),
            "{message}"
        );
        assert_eq!(scene.bases().list().unwrap(), []);
    }
    scene.nothing_is_left();
}

#[test]
fn without_a_digest_nothing_is_fetched() {
    let scene = Scene::new();
    let run = |arguments: &[&str]| text(&scene.potrun(&[&["fetch"], arguments].concat()).output().unwrap()).1;
    assert_eq!(
        run(&["b", "--url", "http://127.0.0.1:1/base.txz"]),
        "potrun: the digest of http://127.0.0.1:1/base.txz is not known: give --sha256 or --manifest\n"
    );
    assert_eq!(run(&["b"]), "potrun: b is not the name of a FreeBSD release such as 14.3-RELEASE: give --url\n");
    let zero = "0".repeat(64);
    assert_eq!(
        run(&["b", "--url", "ftp://127.0.0.1/base.txz", "--sha256", &zero]),
        "potrun: fetch ftp://127.0.0.1/base.txz: only http and https URLs can be fetched\n"
    );
    scene.nothing_is_left();
}

#[test]
fn a_release_is_found_by_its_name_and_checked_by_its_manifest() {
    let archive = gzip(&plain().end());
    let manifest = format!(
        "base-dbg.txz\t{}\t1\tbase_dbg\t\"x\"\toff\nbase.txz\t{}\t28\tbase\t\"y\"\ton\n",
        sha256(b""),
        sha256(&archive)
    );
    let scene = Scene::new();
    let server = Server::new(vec![whole(manifest.as_bytes()), whole(&archive)]);
    let arguments = ["fetch", "14.3-RELEASE", "--mirror", &server.url, "--machine", "arm64", "--arch", "aarch64"];
    let (out, err) = text(&scene.potrun(&arguments).output().unwrap());
    assert!(out.starts_with("imported base 14.3-RELEASE: sha256 "), "{out}{err}");
    assert_eq!(err, "potrun: the digest comes over http: it tells damage, not forgery\n");
    let asked = server.asked();
    assert!(asked[0].starts_with("get /arm64/aarch64/14.3-release/manifest "), "{}", asked[0]);
    assert!(asked[1].starts_with("get /arm64/aarch64/14.3-release/base.txz "), "{}", asked[1]);

    let server = Server::new(vec![whole(&archive)]);
    let manifest = scene.file("MANIFEST", manifest.as_bytes());
    let url = format!("{}/base.txz", server.url);
    let (out, _) =
        text(&scene.potrun(&["fetch", "b", "--url", &url, "--manifest", manifest.to_str().unwrap()]).output().unwrap());
    assert!(out.starts_with("imported base b: "), "{out}");
    fetched(&scene, &archive);
    let (_, err) = text(
        &scene
            .potrun(&["fetch", "c", "--url", "http://127.0.0.1:1/kernel.txz", "--manifest", manifest.to_str().unwrap()])
            .output()
            .unwrap(),
    );
    assert_eq!(err, format!("potrun: {} has no line for kernel.txz\n", manifest.display()));
}

#[test]
fn https_is_spoken_with_whom_the_system_trusts() {
    let scene = Scene::new();
    let archive = gzip(&plain().end());
    scene.file("base.txz", &archive);
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command
            .current_dir(&scene.0)
            .args(arguments.split(' '))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    scene.file("leaf.ext", b"subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    let made = openssl(&format!("req -x509 {key} -subj /CN=ca -keyout ca.key -out ca.pem"))
        && openssl(&format!("req {key} -subj /CN=leaf -keyout leaf.key -out leaf.csr"))
        && openssl("x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile leaf.ext -out leaf.pem");
    if !made {
        println!("skipped: openssl is not installed");
        return;
    }
    let mut command = Command::new("openssl");
    command.current_dir(&scene.0).args("s_server -WWW -accept 127.0.0.1:0 -cert leaf.pem -key leaf.key".split(' '));
    let mut server = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(server.stdout.take().unwrap())).map(Result::unwrap);
    let port = lines.find_map(|line| line.strip_prefix("ACCEPT ").map(|at| at.rsplit(':').next().unwrap().to_owned()));
    let url = format!("https://127.0.0.1:{}/base.txz", port.unwrap());
    let digest = sha256(&archive).to_string();
    let fetch = |roots: &str| {
        let mut command = scene.potrun(&["fetch", "b", "--url", &url, "--sha256", &digest]);
        text(&command.env("SSL_CERT_FILE", scene.0.join(roots)).output().unwrap())
    };
    let (untrusted, none, trusted) = (fetch("leaf.pem"), fetch("nothing.pem"), fetch("ca.pem"));
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(untrusted.1.contains("talk to the server") && untrusted.1.contains("certificate"), "{}", untrusted.1);
    assert!(none.1.contains("the system has no trusted certificates"), "{}", none.1);
    assert!(trusted.0.starts_with("imported base b: "), "{}", trusted.1);
}
