//! `import`: a bundle of a pot that was exported to a file, or that pot made.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::base::{Stored, UnpackError, UnpackOptions, Unpacked, extract, parts};
use crate::bundle::Bundle;
use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::freebsd::import::{Pot, bundle};
use crate::host::storage::Left;
use crate::host::this;
use crate::settings::{self, Settings};

use super::clone::{free, rootfs};
use super::export::{CONFIG, LAYER, MANIFEST, Manifest, Part, ROOTFS, STREAM, VERSION};
use super::making::Making;

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// Directory that config.json is written to
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    bundle: PathBuf,
    /// Directory that holds its pot.conf; default: that of the pot below POT_FS_ROOT
    #[arg(long, value_name = "DIR")]
    conf: Option<PathBuf>,
    /// Container that an exported pot is for; default: what it was called
    #[arg(long, value_name = "ID", conflicts_with = "conf")]
    id: Option<String>,
    /// Name of a pot that pot made, or a file that export wrote
    #[arg(value_name = "POT|FILE")]
    pot: String,
}

/// pot's scripts of the host (pot's documentation, "hooks").
const HOOKS: [&str; 4] = ["prestart.sh", "poststart.sh", "prestop.sh", "poststop.sh"];

impl cli::Run for Import {
    fn subject(&self) -> Option<&str> {
        Some(&self.pot)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let file = Path::new(&self.pot);
        if self.conf.is_none() && (self.pot.contains('/') || file.is_file()) {
            return self.exported(context, file);
        }
        if let Some(id) = &self.id {
            return Err(Error::caller(format!("--id {id} is for exported pots, and {} is no file", self.pot)));
        }
        if !crate::bundle::pot::is_name(&self.pot) {
            return Err(Error::caller(format!("{:?} is not a name of a pot", self.pot)));
        }
        let settings = Settings::installed(&settings::POT);
        let dir = self.conf.clone().unwrap_or_else(|| settings.path.join("jails").join(&self.pot).join("conf"));
        let conf = match fs::read_to_string(dir.join("pot.conf")) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(Error::caller(format!("no such pot: {} is not there", dir.join("pot.conf").display())));
            }
            other => other.doing(|| format!("read {}", dir.join("pot.conf").display()))?,
        };
        let optional = |name: &str| match fs::read_to_string(dir.join(name)) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(String::new()),
            other => other.doing(|| format!("read {}", dir.join(name).display())),
        };
        let (fscomps, resolv) = (optional("fscomp.conf")?, optional("resolv.conf")?);
        let hooks: Vec<PathBuf> = HOOKS.iter().map(|name| dir.join(name)).filter(|path| path.exists()).collect();
        let pot = Pot { name: &self.pot, conf: &conf, fscomps: &fscomps, resolv: &resolv, hooks: &hooks };
        let imported = bundle(&pot, &settings).map_err(|why| Error::caller(format!("not imported: {why}")))?;
        super::spec::write(&self.bundle, &imported.config)?;
        for note in settings.notes.iter().chain(&imported.notes) {
            eprintln!("potrun: note: {note}");
        }
        Ok(0)
    }
}

/// The largest manifest or configuration, in bytes.
const MAX_JSON: u64 = 4 << 20;

impl Import {
    /// A pot that was exported: nothing is changed before all of the file was read and is what its manifest says.
    fn exported(&self, context: &Context, path: &Path) -> Result<u8> {
        let file = File::open(path).doing(|| format!("open {}", path.display()))?;
        let stored = parts(&file).doing(|| format!("read {}", path.display()))?;
        let Some((manifest, stored)) = stored.split_first().filter(|(first, _)| first.name == MANIFEST) else {
            return Err(refused(path, format!("it does not begin with {MANIFEST}")));
        };
        let manifest: Manifest = {
            let text = text(&file, manifest)?;
            serde_json::from_slice(&text).map_err(|e| refused(path, format!("{MANIFEST}: {e}")))?
        };
        check(&manifest, stored).map_err(|why| refused(path, why))?;
        let find = |name: &str| stored.iter().find(|one| one.name == name);
        let config = text(&file, find(CONFIG).ok_or_else(|| refused(path, format!("it has no {CONFIG}")))?)?;
        let bundle = Bundle::parse(self.bundle.clone(), config).map_err(|e| super::refused(e.into()))?;

        let wanted = bundle.pot.as_ref().and_then(|pot| pot.base.as_ref()).map(|base| base.release.as_str());
        if wanted != manifest.base.as_ref().map(|base| base.name.as_str()) {
            return Err(refused(path, format!("{MANIFEST} and {CONFIG} name different bases")));
        }
        let storage = this::facts::storage(&context.store);
        if let Some(base) = &manifest.base {
            let found = storage.bases().find(&base.name);
            let found = found.doing(|| format!("look at base {}", base.name))?;
            if found.as_ref().map(|found| found.sha256) != Some(base.sha256) {
                let has = found.map_or("is not imported".into(), |found| format!("has sha256 {} here", found.sha256));
                let error = Error::caller(format!("it lies on base {}, which {has}", base.name));
                return Err(error.hint(format!("first import base {} with sha256 {}", base.name, base.sha256)));
            }
        }
        let made = Making::bundle_in(&storage, &self.bundle)?;
        let mut skipped = Unpacked::default().skipped;
        if let Some((base, data)) = manifest.base.as_ref().zip(find(LAYER).or(find(STREAM))) {
            let id = super::id(self.id.as_deref().unwrap_or(&manifest.name))?;
            free(context, &id)?;
            let owner = context.root.join(id.as_str());
            let disk = bundle.pot.as_ref().and_then(|pot| pot.limits.disk);
            let left = Left { id: &id, owner: &owner, base: &base.name, disk };
            made.config(&bundle.config)?;
            if data.name == STREAM {
                let datasets = storage.needs_datasets("a stream")?;
                let stream = data.here(&file).doing(|| format!("read {STREAM}"))?;
                made.finish_with_data(&storage, &id, || datasets.receive_pot(&left, &stream))?;
            } else {
                made.finish_with_data(&storage, &id, || {
                    skipped = storage.unpack_pot(&left, |unpack| data.read(&file, unpack))?.skipped;
                    Ok(())
                })?;
            }
        } else {
            if let Some(root) = find(ROOTFS) {
                let (name, _) = rootfs(&bundle)?;
                let to = made.root(&name)?;
                // No device nodes: whoever made the file could name any disk of this host.
                let options = UnpackOptions::default();
                let unpack = |input: &mut dyn Read| extract(input, to.as_fd(), &options);
                let done: std::result::Result<Unpacked, UnpackError> = root.read(&file, unpack);
                skipped = done.map_err(|e| Error::operator(format!("unpack {ROOTFS}")).because(e))?.skipped;
            }
            made.config(&bundle.config)?;
            made.finish()?;
        }
        for line in skipped.notices() {
            eprintln!("potrun: {line}");
        }
        Ok(0)
    }
}

fn refused(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::caller(format!("{} is no exported pot: {why}", path.display()))
}

/// A small part.
fn text(file: &File, part: &Stored) -> Result<Vec<u8>> {
    if part.size > MAX_JSON {
        return Err(Error::caller(format!("{} is larger than {MAX_JSON} bytes", part.name)));
    }
    let mut bytes = Vec::new();
    let read: io::Result<usize> = part.read(file, |input| input.read_to_end(&mut bytes));
    read.doing(|| format!("read {}", part.name))?;
    Ok(bytes)
}

/// Whether the file has what its manifest says, and nothing else.
fn check(manifest: &Manifest, stored: &[Stored]) -> std::result::Result<(), String> {
    if manifest.potrun_export != VERSION {
        return Err(format!("version {} is not known", manifest.potrun_export));
    }
    for (n, part) in manifest.parts.iter().enumerate() {
        if manifest.parts[..n].iter().any(|other| other.name == part.name) {
            return Err(format!("{MANIFEST} names {} twice", part.name));
        }
    }
    for (n, one) in stored.iter().enumerate() {
        if stored[..n].iter().any(|other| other.name == one.name) {
            return Err(format!("it has {} twice", one.name));
        }
        if !manifest.parts.iter().any(|part| part.name == one.name)
            || ![CONFIG, LAYER, STREAM, ROOTFS].contains(&one.name.as_str())
        {
            return Err(format!("it has the unknown member {}", one.name));
        }
    }
    for Part { name, size, sha256 } in &manifest.parts {
        let one = stored.iter().find(|one| one.name == *name).ok_or_else(|| format!("it has no {name}"))?;
        if one.size != *size || one.sha256 != *sha256 {
            return Err(format!("{name} has {} bytes and sha256 {}, not {size} and {sha256}", one.size, one.sha256));
        }
    }
    let has = |name: &str| stored.iter().any(|one| one.name == name);
    match &manifest.base {
        Some(_) if has(ROOTFS) => Err(format!("it has a base, and {ROOTFS}")),
        Some(_) if has(LAYER) && has(STREAM) => Err(format!("it has {LAYER} and {STREAM}")),
        None if has(LAYER) => Err(format!("it has no base, and {LAYER}")),
        None if has(STREAM) => Err(format!("it has no base, and {STREAM}")),
        None if !has(ROOTFS) => Err(format!("it has no base and no {ROOTFS}")),
        _ => Ok(()),
    }
}
