//! `import`: a bundle of a pot that pot made.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use clap::Args;

use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::freebsd::import::{Pot, bundle};
use crate::settings::{self, Settings};

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// Directory that config.json is written to
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    bundle: PathBuf,
    /// Directory that holds its pot.conf; default: that of the pot below POT_FS_ROOT
    #[arg(long, value_name = "DIR")]
    conf: Option<PathBuf>,
    /// Name of the pot
    pot: String,
}

/// pot's scripts of the host (pot's documentation, "hooks").
const HOOKS: [&str; 4] = ["prestart.sh", "poststart.sh", "prestop.sh", "poststop.sh"];

impl cli::Run for Import {
    fn subject(&self) -> Option<&str> {
        Some(&self.pot)
    }

    fn run(&self, _: &Context) -> Result<u8> {
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
