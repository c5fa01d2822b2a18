//! OCI image layouts as bases: layers and whiteouts, digests, platforms, and what is refused.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use potrun::base::{BaseError, ImageOptions, Imported, Platform, Quiet, UnpackOptions};
use serde_json::{Value, json};

use crate::base::{Archive, Scene, chain, gzip, is_root, names, noise, options, sha256, text};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image layout in the making.
struct Layout {
    dir: PathBuf,
    manifests: Vec<Value>,
}

impl Layout {
    fn new(scene: &Scene) -> Self {
        let dir = scene.0.join("layout");
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string()).unwrap();
        let layout = Self { dir, manifests: Vec::new() };
        layout.write();
        layout
    }

    fn write(&self) {
        let index = json!({"schemaVersion": 2, "manifests": self.manifests});
        fs::write(self.dir.join("index.json"), index.to_string()).unwrap();
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = format!("sha256:{}", sha256(bytes));
        fs::write(self.path(&digest), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    fn json(&self, media_type: &str, value: &Value) -> Value {
        self.blob(media_type, value.to_string().as_bytes())
    }

    /// The descriptor of the manifest of an image of these layers, all compressed by gzip but the first.
    fn image(&self, layers: &[Vec<u8>], config: &Value, platform: &str) -> Value {
        let mut descriptors = Vec::new();
        for (n, layer) in layers.iter().enumerate() {
            descriptors.push(if n == 0 { self.blob(TAR, layer) } else { self.blob(GZIP, &gzip(layer)) });
        }
        self.image_of(descriptors, layers, config, platform)
    }

    fn image_of(&self, descriptors: Vec<Value>, layers: &[Vec<u8>], config: &Value, platform: &str) -> Value {
        let diffs: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
        let (os, architecture) = platform.split_once('/').unwrap();
        let config = json!({
            "architecture": architecture, "os": os, "config": config,
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        let config = self.json("application/vnd.oci.image.config.v1+json", &config);
        self.json(MANIFEST, &json!({"schemaVersion": 2, "config": config, "layers": descriptors}))
    }

    /// One more image, by a name.
    fn add(&mut self, mut descriptor: Value, tag: &str) {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        self.manifests.push(descriptor);
        self.write();
    }

    /// A layout with one image of these layers.
    fn of(scene: &Scene, layers: &[Archive]) -> Self {
        let layers: Vec<Vec<u8>> = layers.iter().map(|layer| layer.clone().end()).collect();
        let mut layout = Self::new(scene);
        layout.add(layout.image(&layers, &json!({}), &Platform::here().to_string()), "latest");
        layout
    }
}

fn import_with(scene: &Scene, what: &ImageOptions, unpack: &UnpackOptions) -> Result<Imported, BaseError> {
    scene.bases().import_image("b", &scene.0.join("layout"), what, unpack, &mut Quiet)
}

fn import(scene: &Scene) -> Result<Imported, BaseError> {
    import_with(scene, &ImageOptions::default(), &options())
}

fn tagged(tag: &str, platform: Option<&str>) -> ImageOptions {
    let platform = platform.map(|text| text.parse().unwrap());
    ImageOptions { tag: Some(tag.into()), platform, sha256: None }
}

#[track_caller]
fn refuses(scene: &Scene, what: &ImageOptions, words: &str) {
    let message = chain(&import_with(scene, what, &options()).unwrap_err());
    assert!(message.contains(words), "{message:?} does not say {words:?}");
    scene.nothing_is_left();
}

/// Every path below a directory, with what is in its files.
fn tree(top: &Path) -> BTreeMap<String, String> {
    fn walk(top: &Path, below: &Path, all: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(below).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
            if kind.is_dir() {
                all.insert(name + "/", String::new());
                walk(top, &path, all);
            } else if kind.is_symlink() {
                all.insert(name, format!("-> {}", fs::read_link(&path).unwrap().display()));
            } else {
                all.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(top, top, &mut all);
    all
}

#[track_caller]
fn holds(scene: &Scene, wanted: &[(&str, &str)]) {
    let wanted = wanted.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    assert_eq!(tree(&scene.tree("")), wanted);
    scene.outside_is_untouched();
}

#[test]
fn layers_lie_over_one_another() {
    let scene = Scene::new();
    let layers = [
        Archive::default().directory("etc/", 0o755).file("etc/a", "1").file("etc/b", "1").file("gone/x", "1"),
        Archive::default().directory("etc/", 0o700).file("etc/b", "2").file("new", "2"),
        Archive::default(),
    ];
    let layout = Layout::of(&scene, &layers);
    let Imported::New(base, skipped) = import(&scene).unwrap() else { panic!("there was one") };
    holds(&scene, &[("etc/", ""), ("etc/a", "1"), ("etc/b", "2"), ("gone/", ""), ("gone/x", "1"), ("new", "2")]);
    assert_eq!(fs::metadata(scene.tree("etc")).unwrap().permissions().mode() & 0o7777, 0o700);
    let digest = layout.manifests[0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    assert_eq!(base.sha256.to_string(), digest);
    assert_eq!(base.source, format!("oci:{}", layout.dir.canonicalize().unwrap().display()));
    assert_eq!(skipped, potrun::base::Skipped::default());
    assert_eq!(scene.bases().find("b").unwrap(), Some(base));
    assert!(matches!(import(&scene).unwrap(), Imported::Already(_)));
}

#[test]
fn whiteouts_hide_what_is_below() {
    let scene = Scene::new();
    let below = Archive::default()
        .file("etc/a", "1")
        .file("etc/b", "1")
        .file("dir/x/y", "1")
        .file("opaque/old/deep", "1")
        .file("opaque/both/old", "1")
        .file("opaque/same", "1")
        .symlink("link", "etc/b")
        .file("to-file/x", "1")
        .symlink("to-directory", "etc")
        .directory("bin", 0o755);
    let above = Archive::default()
        .file("etc/.wh.a", "")
        .file(".wh.dir", "")
        .file(".wh.link", "")
        .file("nowhere/.wh.x", "")
        .file("etc/.wh.nothing", "")
        .file("opaque/both/new", "2")
        .file("opaque/same", "2")
        // Behind what it does not hide: it is about lower layers, wherever it stands.
        .file("opaque/.wh..wh..opq", "")
        .file("to-file", "2")
        .file("to-directory/z", "2")
        .file("etc/.wh.z", "")
        .file(".wh..wh.plnk/1.2", "")
        .file(".wh..wh.aufs", "");
    Layout::of(&scene, &[below, above]);
    import(&scene).unwrap();
    holds(
        &scene,
        &[
            ("bin/", ""),
            ("etc/", ""),
            ("etc/b", "1"),
            // A link of a lower layer leads there, and the whiteout is not about this layer.
            ("etc/z", "2"),
            ("opaque/", ""),
            ("opaque/both/", ""),
            ("opaque/both/new", "2"),
            ("opaque/same", "2"),
            ("to-directory", "-> etc"),
            ("to-file", "2"),
        ],
    );
}

#[test]
fn hard_links_reach_across_layers() {
    let scene = Scene::new();
    let below = Archive::default().file("usr/lib/a", "1").symlink("lib", "usr/lib").symlink("abs", "/usr/lib");
    let above = Archive::default().hard_link("b", "usr/lib/a").hard_link("c", "lib/a").hard_link("abs/d", "abs/a");
    Layout::of(&scene, &[below, above]);
    import(&scene).unwrap();
    let inode = |path: &str| fs::metadata(scene.tree(path)).unwrap().ino();
    for name in ["b", "c", "usr/lib/d"] {
        assert_eq!(inode(name), inode("usr/lib/a"), "{name}");
    }
}

#[test]
fn no_link_of_a_layer_leads_out() {
    let outside = |scene: &Scene| scene.outside("").display().to_string();
    for depth in ["", "../", "../../../../../../../../../../../../"] {
        let scene = Scene::new();
        let target = if depth.is_empty() { outside(&scene) } else { format!("{depth}{}", outside(&scene)) };
        let below = Archive::default().symlink("out", &target).symlink("up", "../..").symlink("loop", "loop");
        let above = Archive::default()
            .file("out/new", "2")
            .file("out/secret", "2")
            .file("up/root-file", "2")
            .file("out/.wh.secret", "")
            .hard_link("stolen", "root-file");
        Layout::of(&scene, &[below.clone(), above.clone()]);
        import(&scene).unwrap();
        scene.outside_is_untouched();
        assert!(scene.tree("root-file").exists(), "{depth}");
        let inside = scene.tree(outside(&scene).trim_start_matches('/'));
        assert_eq!(names(&inside), ["new", "secret"], "{depth}");
    }
    // A whiteout removes a link itself, and nothing behind it.
    let scene = Scene::new();
    let below = Archive::default().symlink("out", &outside(&scene)).file("x", "1");
    Layout::of(&scene, &[below, Archive::default().file(".wh.out", "")]);
    import(&scene).unwrap();
    holds(&scene, &[("x", "1")]);

    for (layer, words) in [
        (Archive::default().hard_link("x", "out/secret"), "no earlier member"),
        (Archive::default().hard_link("x", "../outside/secret"), "leads upwards"),
        (Archive::default().file("../x", ""), "leads upwards"),
        (Archive::default().file("d/.wh...", ""), "whiteout of no name"),
        (Archive::default().file(".wh...", ""), "whiteout of no name"),
        (Archive::default().file(".wh..", ""), "whiteout of no name"),
        (Archive::default().file(".wh.", ""), "whiteout of no name"),
        (Archive::default().file("loop/x", ""), "symbolic links"),
        (Archive::default().file("file/x", ""), "no directory"),
        (Archive::default().file(".", ""), "replace the tree"),
    ] {
        let scene = Scene::new();
        let below = Archive::default().symlink("out", &outside(&scene)).symlink("loop", "loop").file("file", "1");
        Layout::of(&scene, &[below, layer]);
        refuses(&scene, &ImageOptions::default(), words);
    }
}

#[test]
fn limits_hold_for_all_layers_together() {
    let scene = Scene::new();
    let layers = [Archive::default().file("a", &noise(40_000)), Archive::default().file("b", &noise(40_000))];
    Layout::of(&scene, &layers);
    for (limits, words) in [
        (UnpackOptions { max_bytes: 60_000, ..options() }, "more than the limit of 60000 bytes"),
        (UnpackOptions { max_entries: 1, ..options() }, "more than the limit of 1 entries"),
    ] {
        let message = chain(&import_with(&scene, &ImageOptions::default(), &limits).unwrap_err());
        assert!(message.contains(words), "{message}");
        scene.nothing_is_left();
    }
    import_with(&scene, &ImageOptions::default(), &UnpackOptions { max_bytes: 90_000, max_entries: 2, ..options() })
        .unwrap();
}

#[test]
fn the_image_is_chosen_by_name_and_platform() {
    let scene = Scene::new();
    let mut layout = Layout::new(&scene);
    let image = |layout: &Layout, text: &str, platform: &str| {
        let mut one = layout.image(&[Archive::default().file("x", text).end()], &json!({}), platform);
        let parts: Vec<&str> = platform.split('/').collect();
        one["platform"] = json!({"os": parts[0], "architecture": parts[1]});
        one
    };
    let here = Platform::here().to_string();
    let all = [image(&layout, "other", "plan9/mips"), image(&layout, "here", &here)];
    // What is kept beside an image: an attestation, as BuildKit writes it.
    let mut beside = layout.image(&[Archive::default().end()], &json!({}), "unknown/unknown");
    beside["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let inner = layout.json(INDEX, &json!({"schemaVersion": 2, "manifests": [all[0], all[1], beside]}));
    let outer = layout.json(INDEX, &json!({"schemaVersion": 2, "manifests": [inner]}));
    layout.add(outer, "example.org/multi:latest");
    layout.add(image(&layout, "single", &here), "single");
    layout.add(image(&layout, "foreign", "plan9/mips"), "foreign");

    for (tag, platform, wanted) in [
        ("example.org/multi:latest", None, "here"),
        ("example.org/multi:latest", Some("plan9/mips"), "other"),
        ("single", None, "single"),
        ("foreign", None, "foreign"),
    ] {
        import_with(&scene, &tagged(tag, platform), &options()).unwrap();
        assert_eq!(fs::read_to_string(scene.tree("x")).unwrap(), wanted);
        scene.bases().remove("b").unwrap();
    }
    refuses(
        &scene,
        &tagged("example.org/multi:latest", Some("plan9/arm")),
        "no image for plan9/arm: there are plan9/mips",
    );
    refuses(&scene, &tagged("foreign", Some("linux/amd64")), "no image for linux/amd64: there is one for plan9/mips");
    refuses(
        &scene,
        &tagged("none", None),
        "no image is named none: there are example.org/multi:latest, single, foreign",
    );
    refuses(&scene, &ImageOptions::default(), "name one image");

    // The same by the command line: the directory ends at the colon before which there is one.
    let named = format!("{}:example.org/multi:latest", layout.dir.display());
    let output = scene.potrun(&["import", "b", "--oci", &named]).output().unwrap();
    assert!(output.status.success(), "{:?}", text(&output));
    assert_eq!(fs::read_to_string(scene.tree("x")).unwrap(), "here");
}

type Ruin = fn(&Layout);

#[test]
fn a_layout_that_is_not_what_it_says_is_refused() {
    let ruin: [(&str, Ruin, &str); 11] = [
        ("no oci-layout", |l| fs::remove_file(l.dir.join("oci-layout")).unwrap(), "not the directory of an OCI"),
        (
            "version",
            |l| fs::write(l.dir.join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap(),
            "version 2.0.0",
        ),
        ("index", |l| fs::write(l.dir.join("index.json"), "{").unwrap(), "index.json: EOF"),
        (
            "no image",
            |l| fs::write(l.dir.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap(),
            "no image",
        ),
        ("manifest", |l| flip(&manifest(l)), "has sha256"),
        ("config", |l| flip(&l.path(read(&manifest(l))["config"]["digest"].as_str().unwrap())), "has sha256"),
        ("layer", |l| flip(&layer(l)), "has sha256"),
        ("longer", |l| fs::write(layer(l), [fs::read(layer(l)).unwrap(), vec![0]].concat()).unwrap(), "bytes, not "),
        ("cut", |l| fs::write(layer(l), &fs::read(layer(l)).unwrap()[1..]).unwrap(), "bytes, not "),
        ("missing", |l| fs::remove_file(layer(l)).unwrap(), "it is not there"),
        (
            "no file",
            |l| {
                fs::remove_file(layer(l)).unwrap();
                nix::unistd::mkfifo(&layer(l), nix::sys::stat::Mode::S_IRWXU).unwrap();
            },
            "no regular file",
        ),
    ];
    for (name, ruin, words) in ruin {
        let scene = Scene::new();
        let layout =
            Layout::of(&scene, &[Archive::default().file("a", &noise(9000)), Archive::default().file("b", "2")]);
        ruin(&layout);
        let message = chain(&import(&scene).unwrap_err());
        assert!(message.contains(words), "{name}: {message:?} does not say {words:?}");
        scene.nothing_is_left();
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn manifest(layout: &Layout) -> PathBuf {
    layout.path(layout.manifests[0]["digest"].as_str().unwrap())
}

/// The blob of the second layer.
fn layer(layout: &Layout) -> PathBuf {
    layout.path(read(&manifest(layout))["layers"][1]["digest"].as_str().unwrap())
}

/// Changes one byte in the middle.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let here = Platform::here().to_string();
    let plain = Archive::default().file("a", "1").end();
    for (media_type, words) in [
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted is not supported"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign"),
    ] {
        let scene = Scene::new();
        let mut layout = Layout::new(&scene);
        let layer = layout.blob(media_type, &plain);
        layout.add(layout.image_of(vec![layer], std::slice::from_ref(&plain), &json!({}), &here), "x");
        refuses(&scene, &ImageOptions::default(), words);
    }
    let scene = Scene::new();
    let mut layout = Layout::new(&scene);
    if let Some(compressed) = crate::base::zstd(&plain) {
        let scene = Scene::new();
        let mut layout = Layout::new(&scene);
        let layer = layout.blob("application/vnd.oci.image.layer.v1.tar+zstd", &compressed);
        layout.add(layout.image_of(vec![layer], std::slice::from_ref(&plain), &json!({}), &here), "x");
        import_with(&scene, &ImageOptions::default(), &options()).unwrap();
        // The limit is that of the contents: a bomb is stopped on its way.
        let zeros = crate::base::zstd(&Archive::default().file("a", &"0".repeat(3 << 20)).end()).unwrap();
        assert!(zeros.len() < 10_000);
        let scene = Scene::new();
        let mut layout = Layout::new(&scene);
        let layer = layout.blob("application/vnd.oci.image.layer.v1.tar+zstd", &zeros);
        layout.add(layout.image_of(vec![layer], std::slice::from_ref(&plain), &json!({}), &here), "x");
        let small = UnpackOptions { max_bytes: 1 << 20, ..options() };
        let message = chain(&import_with(&scene, &ImageOptions::default(), &small).unwrap_err());
        assert!(message.contains("more than the limit of 1048576 bytes"), "{message}");
        scene.nothing_is_left();
    }
    // bzip2 under the name of gzip is found by its first bytes.
    let layer = layout.blob(GZIP, b"BZh9 and so on");
    layout.add(layout.image_of(vec![layer], std::slice::from_ref(&plain), &json!({}), &here), "x");
    refuses(&scene, &ImageOptions::default(), "bzip2 compression is not supported");
    // Contents that are not those of the configuration.
    let scene = Scene::new();
    let mut layout = Layout::new(&scene);
    let layer = layout.blob(TAR, &plain);
    layout.add(layout.image_of(vec![layer.clone()], &[b"other".to_vec()], &json!({}), &here), "x");
    refuses(&scene, &ImageOptions::default(), "has contents with sha256");
    let scene = Scene::new();
    let mut layout = Layout::new(&scene);
    let layer = layout.blob(TAR, &plain);
    layout.add(layout.image_of(vec![layer], &[], &json!({}), &here), "x");
    refuses(&scene, &ImageOptions::default(), "it names 0 layers, the manifest 1");
    let scene = Scene::new();
    let layout = Layout::of(&scene, &[Archive::default().file("a", "1")]);
    let wanted = ImageOptions { sha256: Some(sha256(b"x")), ..ImageOptions::default() };
    refuses(&scene, &wanted, "not ");
    drop(layout);
}

#[test]
fn spec_takes_the_process_of_the_image() {
    let scene = Scene::new();
    let mut layout = Layout::new(&scene);
    let tree = Archive::default()
        .file("usr/etc/passwd", "root:x:0:0::/:/bin/sh\nweb:x:33:44::/:/bin/sh\n")
        .file("usr/etc/group", "root:x:0:\nweb:x:44:\nlog:x:45:web,root\n")
        .symlink("etc", "/usr/etc");
    let config = json!({
        "User": "web", "Env": ["PATH=/opt/bin", "A=b c"], "Entrypoint": ["/init", "-x"], "Cmd": ["serve"],
        "WorkingDir": "/srv", "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "StopSignal": "SIGQUIT",
    });
    let here = Platform::here();
    layout.add(layout.image(&[tree.end()], &config, &here.to_string()), "web");
    let dir = layout.dir.display().to_string();
    let output = scene.potrun(&["import", "b", "--oci", &dir]).output().unwrap();
    assert!(output.status.success(), "{:?}", text(&output));

    let bundle = scene.0.join("bundle");
    fs::create_dir(&bundle).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_potrun"));
    command.env_clear().arg("--store").arg(scene.store()).args(["spec", "--base", "b", "--bundle"]).arg(&bundle);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{:?}", text(&output));
    assert!(text(&output).1.contains("80/tcp") && text(&output).1.contains("/data"), "{:?}", text(&output));
    let config = read(&bundle.join("config.json"));
    assert_eq!(
        config["process"],
        json!({
            "terminal": true, "cwd": "/srv", "args": ["/init", "-x", "serve"],
            "user": {"uid": 33, "gid": 44, "additionalGids": [45]},
            "env": ["TERM=xterm", "PATH=/opt/bin", "A=b c"],
        })
    );
    assert_eq!(
        config["annotations"],
        json!({
            "org.opencontainers.image.architecture": here.architecture, "org.opencontainers.image.os": here.os,
            "org.opencontainers.image.exposedPorts": "80/tcp", "org.opencontainers.image.stopSignal": "SIGQUIT",
        })
    );
    assert_eq!(config["pot"]["base"]["release"], "b");
    let listed = text(&scene.potrun(&["ls", "--json"]).output().unwrap()).0;
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap()[0]["image"]["workingDir"], "/srv");
}

#[test]
fn what_buildah_and_podman_write_is_taken() {
    let name = "what_buildah_and_podman_write_is_taken";
    if !is_root() {
        return println!("skipped: {name}: not root");
    }
    let scene = Scene::new();
    let dir = scene.0.join("tree");
    fs::create_dir_all(dir.join("etc")).unwrap();
    fs::write(dir.join("etc/a"), "1").unwrap();
    fs::write(dir.join("etc/b"), "1").unwrap();
    let storage = ["--root", "--runroot"].map(|flag| [flag.to_owned(), scene.0.join(flag).display().to_string()]);
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(storage.iter().flatten()).args(["--storage-driver", "vfs"]).args(args).current_dir(&scene.0);
        command.output().map(|output| (output.status.success(), text(&output)))
    };
    let ok = |program: &str, args: &[&str]| {
        let (done, (stdout, stderr)) = run(program, args).unwrap();
        assert!(done, "{program} {args:?}: {stderr}");
        stdout.trim().to_owned()
    };
    if run("buildah", &["--version"]).is_err() {
        return println!("skipped: {name}: buildah is not installed");
    }
    if !run("buildah", &["from", "--name", "probe", "scratch"]).unwrap().0 {
        return println!("skipped: {name}: buildah does not work here");
    }
    ok("buildah", &["copy", "probe", "tree", "/"]);
    ok("buildah", &["config", "--cmd", "/bin/sh", "--env", "A=b", "--workingdir", "/etc", "--user", "7:8", "probe"]);
    ok("buildah", &["commit", "probe", "one"]);
    // A second layer with a whiteout.
    fs::write(scene.0.join("Containerfile"), "FROM one\nCOPY tree/etc/a /c\n").unwrap();
    ok("buildah", &["from", "--name", "second", "one"]);
    let mounted = ok("buildah", &["mount", "second"]);
    fs::remove_file(Path::new(&mounted).join("etc/b")).unwrap();
    fs::write(Path::new(&mounted).join("new"), "2").unwrap();
    ok("buildah", &["umount", "second"]);
    ok("buildah", &["commit", "second", "two"]);
    ok("buildah", &["push", "two", "oci:layout:two"]);
    let check = |scene: &Scene| {
        let base = scene.bases().find("b").unwrap().unwrap();
        let image = base.image.unwrap();
        assert_eq!(
            (image.cmd, image.working_dir, image.user),
            (vec!["/bin/sh".to_owned()], "/etc".into(), "7:8".into())
        );
        let all = tree(&scene.tree(""));
        assert_eq!((all.get("etc/a").map(String::as_str), all.get("new").map(String::as_str)), (Some("1"), Some("2")));
        assert!(!all.contains_key("etc/b"), "{all:?}");
    };
    import_with(&scene, &tagged("two", None), &options()).unwrap();
    check(&scene);
    if run("podman", &["--version"]).is_err() {
        return println!("skipped: {name}, its second half: podman is not installed");
    }
    scene.bases().remove("b").unwrap();
    ok("podman", &["save", "--format", "oci-dir", "-o", "saved", "two"]);
    scene.bases().import_image("b", &scene.0.join("saved"), &ImageOptions::default(), &options(), &mut Quiet).unwrap();
    check(&scene);
}

#[cfg(target_os = "linux")]
#[test]
fn an_image_runs_as_a_pot() {
    use crate::util::World;
    let Some(world) = World::new("image") else { return };
    let scene = Scene::new();
    let mut layout = Layout::new(&scene);
    let busybox = fs::read(&world.busybox).unwrap();
    let tree = Archive::default()
        .add(b'0', "bin/busybox", "", 0o755, &busybox)
        .symlink("bin/sh", "busybox")
        .symlink("bin/id", "busybox")
        .file("etc/passwd", "web:x:33:44::/:/bin/sh\n")
        .file("etc/group", "web:x:44:\n")
        .file("srv/gone", "1");
    let above = Archive::default().file("srv/said", "of the image\n").file("srv/.wh.gone", "");
    let config = json!({
        "User": "web", "Env": ["PATH=/bin"], "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["pwd; id -u; /bin/busybox cat said; /bin/busybox ls"], "WorkingDir": "/srv",
    });
    let here = Platform::here().to_string();
    layout.add(layout.image(&[tree.end(), above.end()], &config, &here), "x");
    world.ok(&["base", "import", "image", "--oci", &layout.dir.display().to_string()]);
    let bundle = world.dir.join("bundle");
    fs::create_dir(&bundle).unwrap();
    world.ok(&["spec", "--base", "image", "--bundle", bundle.to_str().unwrap()]);
    let path = bundle.join("config.json");
    let mut config = read(&path);
    config["process"]["terminal"] = json!(false);
    fs::write(&path, config.to_string()).unwrap();
    let said = world.ok(&["run", "-b", bundle.to_str().unwrap(), &world.id("i")]);
    assert_eq!(said, "/srv\n33\nof the image\nsaid\n");
}
