//! OCI image layouts as bases: a directory with `oci-layout`, `index.json` and `blobs`, as podman, buildah and skopeo
//! write it ("Image Layout", "Image Index" and "Image Manifest" of the OCI image specification).
//!
//! Nothing of a layout is believed: every blob must have the size and the SHA-256 of the descriptor that names it, from
//! index.json on down, and the contents of a layer the digest that the image's configuration names. A layer is read
//! once for all of that, while it is unpacked.

use super::digest::{Digest, Hasher, Hashing};
use super::error::{At, BaseError};
use super::progress::Progress;
use super::unpack::{self, Layers, UnpackOptions};
use super::{Base, Bases, Imported, already, check_name, decompress, now};
use nix::fcntl::OFlag;
use oci_spec::image::{
    Descriptor, DigestAlgorithm, ImageConfiguration, ImageIndex, ImageManifest, MediaType, OciLayout,
};
use serde::de::DeserializeOwned;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The largest index, manifest or configuration, in bytes: what registries must take of a manifest (OCI distribution
/// specification, "Pushing Manifests").
const MAX_JSON: u64 = 4 << 20;

/// How deep indexes may be nested: those of real images are once.
const MAX_INDEXES: u8 = 4;

/// The largest passwd or group file, in bytes, that is read for the user of an image.
const MAX_USERS: u64 = 1 << 20;

/// The annotation with the name of an image ("Pre-Defined Annotation Keys").
const NAME: &str = "org.opencontainers.image.ref.name";

/// Why an image cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no directory of an image layout.
    #[error("it is not the directory of an OCI image layout")]
    NotALayout,
    /// A layout of another version.
    #[error("version {0} of the OCI image layout is not known")]
    Version(String),
    /// Something is missing, larger than it may be, or no JSON.
    #[error("{what}: {why}")]
    Damaged {
        /// Which file.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A blob is not what its descriptor says.
    #[error("blob {digest} has {has}, not {wanted}")]
    Blob {
        /// The digest that names it.
        digest: String,
        /// What it has.
        has: String,
        /// What it should have.
        wanted: String,
    },
    /// Several images, and none is named; or no such name.
    #[error("{why}: there {}", listed(.names))]
    Choose {
        /// What was looked for.
        why: String,
        /// Names or platforms.
        names: Vec<String>,
    },
    /// Something that is known and not supported.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A layer could not be unpacked.
    #[error("unpack layer {digest}")]
    Layer {
        /// Digest of its blob.
        digest: String,
        /// Why.
        source: super::UnpackError,
    },
    /// The kernel refused a step.
    #[error("{step} {}", path.display())]
    Io {
        /// What was done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's words.
        source: io::Error,
    },
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "is none".into(),
        [one] => format!("is {one}"),
        all => format!("are {}", all.join(", ")),
    }
}

type Result<T> = std::result::Result<T, ImageError>;

/// What an image is for: operating system, processor and its variant, in the words of Go.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Platform {
    /// `GOOS`.
    pub os: String,
    /// `GOARCH`.
    pub architecture: String,
    /// `v7` and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// What was given as a platform is none.
#[derive(Debug, thiserror::Error)]
#[error("a platform is OS/ARCHITECTURE[/VARIANT], such as linux/amd64")]
pub struct NoPlatform;

impl FromStr for Platform {
    type Err = NoPlatform;

    fn from_str(text: &str) -> std::result::Result<Self, NoPlatform> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(NoPlatform),
        };
        if parts.contains(&"") {
            return Err(NoPlatform);
        }
        Ok(Self { os: os.into(), architecture: architecture.into(), variant: variant.map(Into::into) })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl Platform {
    /// That of this machine.
    #[must_use]
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: std::env::consts::OS.into(), architecture: architecture.into(), variant: None }
    }

    /// Whether an image for `other` is one for this. Where no variant is asked for, any will do.
    fn takes(&self, other: &Self) -> bool {
        (&self.os, &self.architecture) == (&other.os, &other.architecture)
            && (self.variant.is_none() || self.variant == other.variant)
    }
}

/// Which image of a layout.
#[derive(Clone, Debug, Default)]
pub struct ImageOptions {
    /// Its name, as `org.opencontainers.image.ref.name` has it; none is needed where there is one image.
    pub tag: Option<String>,
    /// Which of an index; without it, that of this machine, or the only one that there is.
    pub platform: Option<Platform>,
    /// The digest that its manifest must have.
    pub sha256: Option<Digest>,
}

/// What a base keeps of the configuration of the image that it was: how a process is started in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Image {
    /// What it is for.
    pub platform: Option<Platform>,
    /// The environment.
    pub env: Vec<String>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// More arguments, or the program.
    pub cmd: Vec<String>,
    /// The directory that it starts in.
    pub working_dir: String,
    /// `USER[:GROUP]`, names or numbers.
    pub user: String,
    /// What those are in the image, if it has them.
    pub ids: Option<ImageIds>,
    /// Ports that it listens on: `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Directories with data that should outlive it.
    pub volumes: Vec<String>,
    /// The signal that ends it.
    pub stop_signal: String,
}

/// A user of an image, with the groups that its group file has it in.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIds {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Other groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
}

impl Bases {
    /// Unpacks the layers of an image of the OCI layout `dir`, one over the other, as base `name`. Its digest is that of
    /// the image's manifest.
    ///
    /// # Errors
    /// [`BaseError::Name`], [`BaseError::Taken`], [`BaseError::Digest`], [`BaseError::Image`], [`BaseError::Io`].
    pub fn import_image(
        &self,
        name: &str,
        dir: &Path,
        what: &ImageOptions,
        options: &UnpackOptions,
        progress: &mut dyn Progress,
    ) -> std::result::Result<Imported, BaseError> {
        check_name(name)?;
        let real = dir.canonicalize().at("open", dir)?;
        let source = match &what.tag {
            Some(tag) => format!("oci:{}:{tag}", real.display()),
            None => format!("oci:{}", real.display()),
        };
        let failed = |source: ImageError| BaseError::Image { layout: dir.to_owned(), source };
        let layout = Layout { dir: real };
        let (found, chosen) = layout.choose(what).map_err(failed)?;
        if let Some(wanted) = what.sha256.filter(|wanted| *wanted != found) {
            return Err(BaseError::Digest { file: source, found, wanted });
        }
        if let Some(base) = self.find(name)? {
            return already(base, found);
        }
        let plan = layout.plan(&chosen, what, progress).map_err(failed)?;

        let total = plan.layers.iter().map(|(layer, _)| layer.size()).sum();
        progress.start(&format!("import {name}"), Some(total));
        let room = self.keep.begin(name)?;
        let (unpacked, image) = layout.unpack(plan, room.tree().as_fd(), options, progress).map_err(failed)?;
        let base = Base {
            name: name.to_owned(),
            sha256: found,
            source,
            created: now(),
            bytes: unpacked.bytes,
            entries: unpacked.entries,
            image: Some(image),
        };
        self.publish(room, base, unpacked.skipped, options, progress)
    }
}

/// What is done with an image.
struct Plan {
    /// Each layer, and the digest of its contents.
    layers: Vec<(Descriptor, Digest)>,
    image: Image,
}

/// The directory of an image layout.
struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The manifest of the image that is asked for, and its digest.
    fn choose(&self, what: &ImageOptions) -> Result<(Digest, ImageManifest)> {
        let path = self.dir.join("oci-layout");
        if !path.is_file() {
            return Err(ImageError::NotALayout);
        }
        let layout: OciLayout = parse("oci-layout", &self.read("oci-layout")?)?;
        if !layout.image_layout_version().starts_with("1.") {
            return Err(ImageError::Version(layout.image_layout_version().clone()));
        }
        let index: ImageIndex = parse("index.json", &self.read("index.json")?)?;
        let mut all: Vec<Descriptor> = index.manifests().iter().filter(|one| is_image(one)).cloned().collect();
        if let Some(tag) = &what.tag {
            let names = names(&all);
            all.retain(|one| named(one) == Some(tag));
            if all.is_empty() {
                return Err(ImageError::Choose { why: format!("no image is named {tag}"), names });
            }
        }
        let mut called = names(&all);
        called.sort();
        called.dedup();
        if called.len() > 1 && all.iter().any(|one| one.digest() != all[0].digest()) {
            return Err(ImageError::Choose { why: "name one image, DIR:TAG".into(), names: called });
        }
        let mut chosen = pick(all, what)?;
        for _ in 0..MAX_INDEXES {
            let bytes = self.blob(&chosen, MAX_JSON)?;
            let digest = sha256(&chosen)?;
            if !is_index(chosen.media_type()) {
                return Ok((digest, parse(&format!("manifest {digest}"), &bytes)?));
            }
            let index: ImageIndex = parse(&format!("index {digest}"), &bytes)?;
            chosen = pick(index.manifests().iter().filter(|one| is_image(one)).cloned().collect(), what)?;
        }
        Err(ImageError::Unsupported(format!("an index nested more than {MAX_INDEXES} times")))
    }

    /// What a manifest says is to be done, if potrun can do it.
    fn plan(&self, manifest: &ImageManifest, what: &ImageOptions, progress: &mut dyn Progress) -> Result<Plan> {
        let media_type = manifest.config().media_type();
        if !matches!(media_type, MediaType::ImageConfig) && media_type.as_ref() != DOCKER_CONFIG {
            return Err(ImageError::Unsupported(format!("an artifact of the type {media_type}")));
        }
        let name = format!("configuration {}", manifest.config().digest());
        let config: ImageConfiguration = parse(&name, &self.blob(manifest.config(), MAX_JSON)?)?;
        let platform = Platform {
            os: config.os().to_string(),
            architecture: config.architecture().to_string(),
            variant: config.variant().clone(),
        };
        match &what.platform {
            Some(wanted) if !wanted.takes(&platform) => {
                let (why, names) = (format!("no image for {wanted}"), vec![format!("one for {platform}")]);
                return Err(ImageError::Choose { why, names });
            }
            None if !Platform::here().takes(&platform) => {
                progress.notice(&format!("the image is for {platform}, this machine is {}", Platform::here()));
            }
            _ => {}
        }
        let diffs = config.rootfs().diff_ids();
        if diffs.len() != manifest.layers().len() {
            let why = format!("it names {} layers, the manifest {}", diffs.len(), manifest.layers().len());
            return Err(ImageError::Damaged { what: name, why });
        }
        let mut layers = Vec::new();
        for (layer, diff) in manifest.layers().iter().zip(diffs) {
            check_layer(layer)?;
            let digest = diff.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
            let digest = digest.ok_or_else(|| ImageError::Unsupported(format!("the digest {diff} of a layer")))?;
            layers.push((layer.clone(), digest));
        }
        let config = config.config().clone().unwrap_or_default();
        let sorted = |list: &Option<Vec<String>>| {
            let mut list = list.clone().unwrap_or_default();
            list.sort();
            list
        };
        let image = Image {
            platform: Some(platform),
            env: config.env().clone().unwrap_or_default(),
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            cmd: config.cmd().clone().unwrap_or_default(),
            working_dir: config.working_dir().clone().unwrap_or_default(),
            user: config.user().clone().unwrap_or_default(),
            ids: None,
            exposed_ports: sorted(config.exposed_ports()),
            volumes: sorted(config.volumes()),
            stop_signal: config.stop_signal().clone().unwrap_or_default(),
        };
        Ok(Plan { layers, image })
    }

    /// Unpacks all layers into `tree`, and looks the user of the image up there.
    fn unpack(
        &self,
        plan: Plan,
        tree: BorrowedFd<'_>,
        options: &UnpackOptions,
        progress: &mut dyn Progress,
    ) -> Result<(super::Unpacked, Image)> {
        let Plan { layers, mut image } = plan;
        let of = |layer: &Descriptor| {
            let digest = layer.digest().to_string();
            move |source| ImageError::Layer { digest, source }
        };
        let mut unpacker = None;
        for (layer, diff) in &layers {
            let unpacker = match &mut unpacker {
                Some(unpacker) => unpacker,
                None => unpacker.insert(Layers::new(tree, options).map_err(of(layer))?),
            };
            let (file, path) = self.open(layer)?;
            let mut blob = Hashing::new(file.take(layer.size()), progress);
            let mut contents = decompress(&mut blob).map(Summed::new);
            let done = match &mut contents {
                Ok(contents) => unpacker.add(contents),
                Err(_) => Ok(()),
            };
            let found = contents.map(Summed::digest);
            let read = blob.finish().map_err(|source| ImageError::Io { step: "read", path, source })?;
            // A blob that is not the named one may be damaged in any way: that it is another one is the better error.
            same(layer, read, sha256(layer)?)?;
            done.map_err(of(layer))?;
            let found = found.map_err(of(layer))?;
            if found != *diff {
                let (has, wanted) = (format!("contents with sha256 {found}"), format!("those with {diff}"));
                return Err(ImageError::Blob { digest: layer.digest().to_string(), has, wanted });
            }
        }
        let unpacked = match (unpacker, layers.last()) {
            (Some(unpacker), Some((layer, _))) => unpacker.finish().map_err(of(layer))?,
            _ => super::Unpacked::default(),
        };
        image.ids = ids(tree, &image.user);
        Ok((unpacked, image))
    }

    /// The bytes of a file of the layout itself.
    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.dir.join(name);
        let mut bytes = Vec::new();
        regular(&path)
            .and_then(|file| file.take(MAX_JSON + 1).read_to_end(&mut bytes))
            .map_err(|source| ImageError::Io { step: "read", path, source })?;
        too_large(name, bytes.len() as u64, MAX_JSON)?;
        Ok(bytes)
    }

    /// The bytes of a small blob, which are those that its descriptor names.
    fn blob(&self, of: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        too_large(of.digest().as_ref(), of.size(), limit)?;
        let (file, path) = self.open(of)?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).map_err(|source| ImageError::Io { step: "read", path, source })?;
        let mut hasher = Hasher::default();
        hasher.update(&bytes);
        same(of, hasher.digest(), sha256(of)?)?;
        Ok(bytes)
    }

    /// Opens a blob, which has the size that its descriptor says.
    fn open(&self, of: &Descriptor) -> Result<(File, PathBuf)> {
        let path = self.dir.join("blobs/sha256").join(sha256(of)?.to_string());
        let file = match regular(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(ImageError::Damaged {
                    what: format!("blob {}", of.digest()),
                    why: "it is not there".into(),
                });
            }
            other => other.map_err(|source| ImageError::Io { step: "open", path: path.clone(), source })?,
        };
        let size = file.metadata().map_err(|source| ImageError::Io { step: "read", path: path.clone(), source })?.len();
        if size != of.size() {
            let (has, wanted) = (format!("{size} bytes"), of.size().to_string());
            return Err(ImageError::Blob { digest: of.digest().to_string(), has, wanted });
        }
        Ok((file, path))
    }
}

/// Opens what must be a regular file: nothing else may keep us waiting.
fn regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

fn too_large(what: &str, size: u64, limit: u64) -> Result<()> {
    if size <= limit {
        return Ok(());
    }
    Err(ImageError::Damaged { what: what.to_owned(), why: format!("it is larger than {limit} bytes") })
}

fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| ImageError::Damaged { what: what.to_owned(), why: e.to_string() })
}

fn sha256(of: &Descriptor) -> Result<Digest> {
    let digest = of.digest();
    let hex = matches!(digest.algorithm(), DigestAlgorithm::Sha256).then(|| digest.digest().parse().ok()).flatten();
    hex.ok_or_else(|| ImageError::Unsupported(format!("the digest {digest}")))
}

fn same(of: &Descriptor, found: Digest, wanted: Digest) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(ImageError::Blob { digest: of.digest().to_string(), has: format!("sha256 {found}"), wanted: "that".into() })
}

/// The words of Docker's image manifest, version 2, schema 2, which podman and skopeo may put into a layout as well.
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

fn is_index(media_type: &MediaType) -> bool {
    matches!(media_type, MediaType::ImageIndex) || media_type.as_ref() == DOCKER_INDEX
}

/// Whether a descriptor leads to an image: others are signatures, attestations and whatever is kept beside it.
fn is_image(one: &Descriptor) -> bool {
    let about = one.annotations().as_ref().is_some_and(|all| all.contains_key("vnd.docker.reference.type"));
    let media_type = one.media_type();
    let image = matches!(media_type, MediaType::ImageManifest) || media_type.as_ref() == DOCKER_MANIFEST;
    (image || is_index(media_type)) && !about && one.artifact_type().is_none()
}

/// Refuses a layer that cannot be unpacked.
fn check_layer(layer: &Descriptor) -> Result<()> {
    match layer.media_type() {
        MediaType::ImageLayer
        | MediaType::ImageLayerGzip
        | MediaType::ImageLayerZstd
        | MediaType::ImageLayerNonDistributable
        | MediaType::ImageLayerNonDistributableGzip
        | MediaType::ImageLayerNonDistributableZstd => Ok(()),
        MediaType::Other(other) if other == DOCKER_LAYER => Ok(()),
        other => Err(ImageError::Unsupported(format!("a layer of the type {other}"))),
    }
}

fn named(one: &Descriptor) -> Option<&String> {
    one.annotations().as_ref()?.get(NAME)
}

fn names(all: &[Descriptor]) -> Vec<String> {
    all.iter().filter_map(named).map(|name| name.escape_debug().to_string()).collect()
}

/// The one descriptor that is meant.
fn pick(mut all: Vec<Descriptor>, what: &ImageOptions) -> Result<Descriptor> {
    let platform = |one: &Descriptor| {
        let platform = one.platform().as_ref()?;
        let (os, architecture) = (platform.os().to_string(), platform.architecture().to_string());
        Some(Platform { os, architecture, variant: platform.variant().clone() })
    };
    if all.len() > 1 {
        let wanted = what.platform.clone().unwrap_or_else(Platform::here);
        let fits: Vec<Descriptor> =
            all.iter().filter(|one| platform(one).is_some_and(|one| wanted.takes(&one))).cloned().collect();
        if fits.is_empty() && all.iter().any(|one| platform(one).is_some()) {
            let names = all.iter().filter_map(platform).map(|one| one.to_string()).collect();
            return Err(ImageError::Choose { why: format!("no image for {wanted}"), names });
        }
        if !fits.is_empty() {
            all = fits;
        }
    }
    let names = names(&all);
    match (all.pop(), all.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => Err(ImageError::Choose { why: "the layout has no image".into(), names }),
        // One image under several names is no question.
        (Some(one), false) if all.iter().all(|other| other.digest() == one.digest()) => Ok(one),
        (Some(_), false) => {
            Err(ImageError::Choose { why: "several images, and nothing tells them apart".into(), names })
        }
    }
}

/// Hashes what is used of a stream.
struct Summed<R> {
    input: R,
    hasher: Hasher,
}

impl<R: BufRead> Summed<R> {
    fn new(input: R) -> Self {
        Self { input, hasher: Hasher::default() }
    }

    fn digest(self) -> Digest {
        self.hasher.digest()
    }
}

impl<R: BufRead> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Summed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // What is consumed is in the buffer, so this reads nothing and does not fail.
        if let Ok(bytes) = self.input.fill_buf() {
            self.hasher.update(&bytes[..count.min(bytes.len())]);
        }
        self.input.consume(count);
    }
}

/// Who `USER[:GROUP]` is in the passwd and group files of a tree ("Conversion to OCI Runtime Configuration": names are
/// looked up there, and a user without a group has those of the files). `None`: it has no such user or group.
fn ids(tree: BorrowedFd<'_>, user: &str) -> Option<ImageIds> {
    let (user, group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    let (passwd, groups) = (lines(tree, "passwd"), lines(tree, "group"));
    let entry = |lines: &[Vec<String>], name: &str, id: usize| {
        lines.iter().find(|fields| fields[0] == name || (name.parse::<u32>().is_ok() && fields[id] == name)).cloned()
    };
    let user = if user.is_empty() { "0" } else { user };
    let known = entry(&passwd, user, 2);
    let number = |fields: &Vec<String>, at: usize| fields.get(at).and_then(|id| id.parse::<u32>().ok());
    let uid = known.as_ref().and_then(|fields| number(fields, 2)).or_else(|| user.parse().ok())?;
    if let Some(group) = group.filter(|group| !group.is_empty()) {
        let known = entry(&groups, group, 2);
        let gid = known.as_ref().and_then(|fields| number(fields, 2)).or_else(|| group.parse().ok())?;
        return Some(ImageIds { uid, gid, additional_gids: Vec::new() });
    }
    let gid = known.as_ref().and_then(|fields| number(fields, 3)).unwrap_or(0);
    let name = known.map(|fields| fields[0].clone());
    let member =
        |fields: &&Vec<String>| fields.get(3).is_some_and(|all| all.split(',').any(|one| Some(one) == name.as_deref()));
    let mut additional_gids: Vec<u32> =
        groups.iter().filter(member).filter_map(|fields| number(fields, 2)).filter(|one| *one != gid).collect();
    additional_gids.sort_unstable();
    additional_gids.dedup();
    Some(ImageIds { uid, gid, additional_gids })
}

/// The fields of the lines of a file of `/etc` in a tree, those with three or more; none where there is no such file.
fn lines(tree: BorrowedFd<'_>, name: &str) -> Vec<Vec<String>> {
    let Ok(Some(file)) = unpack::open_file(tree, &[b"etc", name.as_bytes()]) else { return Vec::new() };
    let mut bytes = Vec::new();
    if file.take(MAX_USERS).read_to_end(&mut bytes).is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let fields = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
    fields.filter(|fields| fields.len() >= 3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        let arm: Platform = "linux/arm/v7".parse().unwrap();
        assert_eq!(arm.to_string(), "linux/arm/v7");
        let any: Platform = "linux/arm".parse().unwrap();
        assert!(any.takes(&arm) && !arm.takes(&any) && arm.takes(&arm));
        for text in ["linux", "", "linux/", "/arm", "a/b/c/d"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
