//! Downloads the archive of a base by HTTP or HTTPS, and imports it only when it has the digest it should have.
//!
//! The digest is known before the first byte is asked for: given by the caller, or taken from the MANIFEST beside a
//! FreeBSD release. So a download is named after its digest, may be cut off and taken up again as often as it likes
//! (RFC 9110, section 14: ranges; 13.1.5: `If-Range`), even from another server, and can never be mistaken for another.
//!
//! Trust: the certificates of the system, as curl(1) and fetch(1) use them, not a list compiled in, which would age in
//! a static binary and not know the certificate of a company's proxy. `SSL_CERT_FILE` and `SSL_CERT_DIR` name others;
//! `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are heeded. What began with https never goes on in the
//! clear.

use super::digest::{Digest, Hasher};
use super::error::{At, BaseError};
use super::progress::Progress;
use super::unpack::UnpackOptions;
use super::{BUFFER, Bases, Imported, check_name, make_directory};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::{Response, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

/// The largest MANIFEST, in bytes: FreeBSD's has about ten lines.
const MAX_MANIFEST: u64 = 1 << 20;

/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often in a row a connection may break without a new byte.
const FRUITLESS: u32 = 3;

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL has another scheme.
    #[error("only http and https URLs can be fetched")]
    Scheme,
    /// The server's answer is an error.
    #[error("the server answers with status {0}")]
    Status(u16),
    /// The answer does not belong to what was asked for.
    #[error("the server's answer makes no sense: {0}")]
    Answer(String),
    /// No connection, no name, a bad certificate.
    #[error("talk to the server")]
    Http(#[source] ureq::Error),
    /// The connection broke, again and again.
    #[error("the connection broke after {got} bytes; the next attempt goes on from there")]
    Broken {
        /// Bytes that are kept.
        got: u64,
        /// Why, if anything but the end of the stream is known.
        source: Option<io::Error>,
    },
    /// The system trusts nobody.
    #[error("the system has no trusted certificates: install ca-certificates (Linux) or run certctl rehash (FreeBSD)")]
    NoRoots,
}

/// What is downloaded.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// URL of the archive; without it the name of the base is that of a FreeBSD release on `mirror`.
    pub url: Option<String>,
    /// Digest of the archive.
    pub sha256: Option<Digest>,
    /// Path or URL of the MANIFEST that has the digest.
    pub manifest: Option<String>,
    /// URL of the directory with FreeBSD's releases.
    pub mirror: String,
    /// What `uname -m` says on FreeBSD.
    pub machine: String,
    /// What `uname -p` says on FreeBSD.
    pub arch: String,
}

impl Default for FetchOptions {
    fn default() -> Self {
        let (machine, arch) = freebsd_arch(std::env::consts::ARCH);
        Self {
            url: None,
            sha256: None,
            manifest: None,
            mirror: "https://download.freebsd.org/ftp/releases".to_owned(),
            machine: machine.to_owned(),
            arch: arch.to_owned(),
        }
    }
}

impl Bases {
    /// Downloads an archive and imports it as base `name`. Without a URL the name is that of a FreeBSD release. When
    /// the base is there with the digest, nothing is downloaded.
    ///
    /// A download that broke is kept and taken up by the next call; one that has the wrong digest is removed.
    ///
    /// # Errors
    /// Those of [`Bases::import`], [`BaseError::NoDigest`], [`BaseError::NotARelease`], [`BaseError::Manifest`],
    /// [`BaseError::ManifestDigest`], [`BaseError::Fetch`] and [`BaseError::Busy`].
    pub fn fetch(
        &self,
        name: &str,
        what: &FetchOptions,
        options: &UnpackOptions,
        progress: &mut dyn Progress,
    ) -> Result<Imported, BaseError> {
        check_name(name)?;
        let url = match &what.url {
            Some(url) => url.clone(),
            None if is_release(name) => {
                format!("{}/{}/{}/{name}/base.txz", what.mirror.trim_end_matches('/'), what.machine, what.arch)
            }
            None => return Err(BaseError::NotARelease(name.to_owned())),
        };
        let wanted = match (&what.sha256, &what.manifest) {
            (Some(digest), _) => *digest,
            (None, Some(manifest)) => digest_in(manifest, &url, progress)?,
            (None, None) if what.url.is_none() => digest_in(&sibling(&url, "MANIFEST"), &url, progress)?,
            (None, None) => return Err(BaseError::NoDigest(url)),
        };
        if let Some(base) = self.find(name)? {
            return super::already(base, wanted);
        }
        make_directory(&self.cache)?;
        let mut download = Download::open(&self.cache, wanted, &url)?;
        if let Err(error) = download.finish(progress) {
            if download.length()? == 0 {
                download.remove()?;
            }
            return Err(error);
        }
        let imported = self.import_from(name, &download.path, &url, Some(wanted), options, progress)?;
        download.remove()?;
        Ok(imported)
    }

    /// Removes downloads that are not done and that no process works on. Returns the paths.
    ///
    /// # Errors
    /// [`BaseError::Io`].
    pub fn sweep_cache(&self) -> Result<Vec<PathBuf>, BaseError> {
        let entries = match fs::read_dir(&self.cache) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.at("list", &self.cache)?,
        };
        let mut swept = Vec::new();
        for entry in entries {
            let path = entry.at("list", &self.cache)?.path();
            if path.extension().is_some_and(|extension| extension == "part") {
                match Download::lock(&path) {
                    Err(BaseError::Busy(_)) => {}
                    other => {
                        Download { file: other?, url: String::new(), digest: None, path: path.clone() }.remove()?;
                        swept.push(path);
                    }
                }
            }
        }
        Ok(swept)
    }
}

/// Where a partial download comes from: the contents of its `.part.json`.
#[derive(serde::Serialize, serde::Deserialize)]
struct Origin {
    url: String,
    /// The strong ETag or the date of what the server had then.
    validator: Option<String>,
}

/// A download, done or not.
struct Download {
    file: Flock<File>,
    path: PathBuf,
    url: String,
    /// None only for one that is about to be removed.
    digest: Option<Digest>,
}

impl Download {
    fn open(cache: &Path, digest: Digest, url: &str) -> Result<Self, BaseError> {
        let path = cache.join(format!("{digest}.part"));
        Ok(Self { file: Self::lock(&path)?, path, url: url.to_owned(), digest: Some(digest) })
    }

    /// Opens the file, or makes it, and locks it.
    fn lock(path: &Path) -> Result<Flock<File>, BaseError> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)
                .at("open", path)?;
            let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
                Errno::EWOULDBLOCK => BaseError::Busy(path.display().to_string()),
                errno => BaseError::Io { step: "lock", path: path.to_owned(), source: errno.into() },
            })?;
            // Who had the lock before may have removed the file in between: then another one is made.
            if file.metadata().at("read", path)?.nlink() > 0 {
                return Ok(file);
            }
        }
    }

    /// Removes the file and what is known about it.
    fn remove(self) -> Result<(), BaseError> {
        for path in [self.origin_path(), self.path] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.at("remove", path)?,
            }
        }
        Ok(())
    }

    fn origin_path(&self) -> PathBuf {
        self.path.with_extension("part.json")
    }

    /// Downloads what is missing and checks the digest; a file with the wrong one is emptied, and once more begun from
    /// the start if it was pieced together, for the server may have changed it in between.
    fn finish(&mut self, progress: &mut dyn Progress) -> Result<(), BaseError> {
        loop {
            let had = self.length()?;
            progress.start(&format!("fetch {}", self.url), None);
            let pieced = self.complete(progress)? || had > 0;
            let found = self.hash()?;
            let Some(wanted) = self.digest.filter(|wanted| *wanted != found) else { return Ok(()) };
            self.truncate()?;
            if !pieced {
                return Err(BaseError::Digest { file: self.url.clone(), found, wanted });
            }
            progress.notice("what was downloaded in pieces has the wrong digest: downloading it from the start");
        }
    }

    /// Asks for the rest until the server says that it was all; `Ok(true)` when that took more than one answer.
    fn complete(&mut self, progress: &mut dyn Progress) -> Result<bool, BaseError> {
        let agent = agent(&self.url)?;
        let mut fruitless = 0;
        let mut answers = 0;
        loop {
            let before = self.length()?;
            let outcome = self.ask(&agent, before, progress);
            answers += 1;
            let source = match outcome {
                Ok(true) => return Ok(answers > 1),
                Ok(false) => None,
                Err(Stop::Network(source)) => Some(source),
                Err(Stop::Final(source)) => return Err(BaseError::Fetch { url: self.url.clone(), source }),
                Err(Stop::Local(error)) => return Err(error),
            };
            let got = self.length()?;
            fruitless = if got > before { 0 } else { fruitless + 1 };
            if fruitless >= FRUITLESS {
                return Err(BaseError::Fetch { url: self.url.clone(), source: FetchError::Broken { got, source } });
            }
        }
    }

    /// Asks once for what comes behind the first `have` bytes, and appends it; `Ok(true)` when that was all.
    fn ask(&mut self, agent: &Agent, have: u64, progress: &mut dyn Progress) -> Result<bool, Stop> {
        let mut request = agent.get(&self.url);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
            if let Some(validator) = self.validator() {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        let response = request.call().map_err(|error| match error {
            // With a part in hand a server that went away is like a connection that broke; a bad certificate
            // (InvalidData) is not.
            ureq::Error::Io(error) if have > 0 && error.kind() != io::ErrorKind::InvalidData => Stop::Network(error),
            other => Stop::Final(FetchError::Http(other)),
        })?;
        let (total, from) = match response.status().as_u16() {
            // The whole file: the server does not know ranges, or has another file than it had.
            200 => (length_of(&response), 0),
            206 => match content_range(&response) {
                Some((from, total)) if from == have => (total, have),
                _ => return Err(answer(format!("asked for bytes from {have}, got {}", shown_range(&response)))),
            },
            // Nothing lies behind what is there. With a total that is the end of the file; without one the digest
            // tells.
            416 => match unsatisfied_range(&response) {
                Some(total) if total != have => {
                    self.truncate()?;
                    return Ok(false);
                }
                _ => return Ok(true),
            },
            status => return Err(Stop::Final(FetchError::Status(status))),
        };
        if from == 0 {
            self.truncate()?;
            self.remember(&response)?;
        }
        progress.start(&format!("fetch {}", self.url), total);
        progress.advance(from);
        self.append(response.into_body(), from, total, progress)
    }

    /// Appends the body of an answer; `Ok(true)` when the file has all of its `total` bytes then.
    fn append(&mut self, body: Body, from: u64, total: Option<u64>, progress: &mut dyn Progress) -> Result<bool, Stop> {
        self.file.seek(SeekFrom::Start(from)).at("write", &self.path)?;
        let mut body = body.into_reader();
        let mut buffer = vec![0; BUFFER];
        let mut at = from;
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => return Ok(total.is_none_or(|total| total == at)),
                Ok(count) => count,
                Err(error) => return Err(Stop::Network(error)),
            };
            self.file.write_all(&buffer[..count]).at("write", &self.path)?;
            at += count as u64;
            progress.advance(count as u64);
        }
    }

    fn length(&self) -> Result<u64, BaseError> {
        Ok(self.file.metadata().at("read", &self.path)?.len())
    }

    fn truncate(&mut self) -> Result<(), BaseError> {
        self.file.set_len(0).at("write", &self.path)
    }

    fn hash(&mut self) -> Result<Digest, BaseError> {
        self.file.rewind().at("read", &self.path)?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.file.read(&mut buffer).at("read", &self.path)? {
                0 => return Ok(hasher.digest()),
                count => hasher.update(&buffer[..count]),
            }
        }
    }

    /// What the server called the file when it was begun, if it was this server.
    fn validator(&self) -> Option<String> {
        let origin: Origin = serde_json::from_slice(&fs::read(self.origin_path()).ok()?).ok()?;
        origin.validator.filter(|_| origin.url == self.url)
    }

    fn remember(&self, response: &Response<Body>) -> Result<(), BaseError> {
        let value = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        // A weak ETag says that two files mean the same, not that they are the same (RFC 9110, section 8.8.1).
        let strong = value(header::ETAG).filter(|tag| !tag.starts_with("W/"));
        let origin = Origin { url: self.url.clone(), validator: strong.or_else(|| value(header::LAST_MODIFIED)) };
        let path = self.origin_path();
        let text = serde_json::to_vec(&origin).map_err(|source| BaseError::Record { path: path.clone(), source })?;
        fs::write(&path, text).at("write", path)
    }
}

/// Why an answer is not followed by the next question.
enum Stop {
    /// The connection broke: the next question may bring the rest.
    Network(io::Error),
    /// Asking again brings nothing else.
    Final(FetchError),
    /// This machine's own trouble.
    Local(BaseError),
}

impl From<BaseError> for Stop {
    fn from(error: BaseError) -> Self {
        Self::Local(error)
    }
}

fn answer(what: String) -> Stop {
    Stop::Final(FetchError::Answer(what))
}

/// What talks to the server of `url`.
fn agent(url: &str) -> Result<Agent, BaseError> {
    let failed = |source| BaseError::Fetch { url: url.to_owned(), source };
    let https = url.starts_with("https://");
    if !https && !url.starts_with("http://") {
        return Err(failed(FetchError::Scheme));
    }
    let config = Agent::config_builder()
        .https_only(https)
        .http_status_as_error(false)
        .user_agent(concat!("potrun/", env!("CARGO_PKG_VERSION")))
        // The digest is that of the file and not of what a server makes of it on the way.
        .accept_encoding("identity")
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE));
    // Even an http URL may be answered by a redirection to https; only then does it matter that there are no roots.
    let found = rustls_native_certs::load_native_certs();
    let roots: Vec<_> = found.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    if https && roots.is_empty() {
        return Err(failed(FetchError::NoRoots));
    }
    let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots)).build();
    Ok(config.tls_config(tls).build().into())
}

/// The digest that a MANIFEST, a path or URL, has for the file that `url` ends with.
fn digest_in(manifest: &str, url: &str, progress: &mut dyn Progress) -> Result<Digest, BaseError> {
    let text = if manifest.contains("://") {
        if !manifest.starts_with("https://") {
            progress.notice("the digest comes over http: it tells damage, not forgery");
        }
        fetch_text(manifest)?
    } else {
        let file = File::open(manifest).at("open", manifest)?;
        let mut text = Vec::new();
        file.take(MAX_MANIFEST).read_to_end(&mut text).at("read", manifest)?;
        text
    };
    let file = url.rsplit('/').next().unwrap_or_default();
    let line = digest_of(&String::from_utf8_lossy(&text), file);
    let digest = line.ok_or_else(|| BaseError::Manifest { manifest: manifest.to_owned(), file: file.to_owned() })?;
    digest.parse().map_err(|source| BaseError::ManifestDigest { manifest: manifest.to_owned(), source })
}

/// What a MANIFEST says about `file`. Its lines are separated by tabs: file, digest, number of files, name of the set,
/// description, `on` or `off` (release/Makefile of FreeBSD).
fn digest_of(manifest: &str, file: &str) -> Option<String> {
    manifest.lines().find_map(|line| {
        let mut fields = line.split('\t');
        (fields.next() == Some(file)).then(|| fields.next().unwrap_or_default().trim().to_owned())
    })
}

fn fetch_text(url: &str) -> Result<Vec<u8>, BaseError> {
    let failed = |source| BaseError::Fetch { url: url.to_owned(), source };
    let response = agent(url)?.get(url).call().map_err(|error| failed(FetchError::Http(error)))?;
    match response.status().as_u16() {
        200 => {
            let body = response.into_body().into_with_config().limit(MAX_MANIFEST);
            body.read_to_vec().map_err(|error| failed(FetchError::Http(error)))
        }
        status => Err(failed(FetchError::Status(status))),
    }
}

/// The URL of another file in the same directory.
fn sibling(url: &str, file: &str) -> String {
    url.rsplit_once('/').map_or_else(|| file.to_owned(), |(directory, _)| format!("{directory}/{file}"))
}

/// Whether FreeBSD has releases with such names: `14.3-RELEASE`, `15.0-BETA2`, `15.0-RC1`.
fn is_release(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((version, kind)) = name.split_once('-') else { return false };
    let Some((major, minor)) = version.split_once('.') else { return false };
    let counted = ["ALPHA", "BETA", "RC"].iter().find_map(|kind_name| kind.strip_prefix(kind_name));
    number(major) && number(minor) && (kind == "RELEASE" || counted.is_some_and(number))
}

/// FreeBSD's names, machine and processor, for what rustc calls the architecture.
fn freebsd_arch(arch: &'static str) -> (&'static str, &'static str) {
    match arch {
        "x86_64" => ("amd64", "amd64"),
        "x86" => ("i386", "i386"),
        "aarch64" => ("arm64", "aarch64"),
        "arm" => ("arm", "armv7"),
        "riscv64" => ("riscv", "riscv64"),
        "powerpc64" => ("powerpc", "powerpc64"),
        other => (other, other),
    }
}

fn header_text(response: &Response<Body>, name: header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

fn length_of(response: &Response<Body>) -> Option<u64> {
    header_text(response, header::CONTENT_LENGTH)?.trim().parse().ok()
}

fn shown_range(response: &Response<Body>) -> String {
    header_text(response, header::CONTENT_RANGE).unwrap_or("no range").escape_debug().to_string()
}

/// First byte and size of the whole from `Content-Range: bytes 10-99/100`.
fn content_range(response: &Response<Body>) -> Option<(u64, Option<u64>)> {
    parse_range(header_text(response, header::CONTENT_RANGE)?)
}

fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((first.parse().ok()?, total))
}

/// Size of the whole from `Content-Range: bytes */100`.
fn unsatisfied_range(response: &Response<Body>) -> Option<u64> {
    header_text(response, header::CONTENT_RANGE)?.trim().strip_prefix("bytes */")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_releases() {
        for name in ["14.3-RELEASE", "15.0-RC2", "15.0-BETA1", "9.0-RELEASE"] {
            assert!(is_release(name), "{name}");
        }
        for name in ["14-RELEASE", "14.3", "14.3-RELEASE-p1", "14.3-RC", "x.y-RELEASE", "debian", "14.3-RELEASES"] {
            assert!(!is_release(name), "{name}");
        }
    }

    #[test]
    fn manifest_lines_go_by_the_whole_file_name() {
        let text = "base-dbg.txz\t11\t1\tbase_dbg\t\"Base system (Debugging)\"\toff\n\
                    base.txz\t22\t28\tbase\t\"Base system (MANDATORY)\"\ton\n";
        assert_eq!(digest_of(text, "base.txz").as_deref(), Some("22"));
        assert_eq!(digest_of(text, "kernel.txz"), None);
        assert_eq!(digest_of("base.txz", "base.txz").as_deref(), Some(""));
    }

    #[test]
    fn ranges_of_answers() {
        assert_eq!(parse_range("bytes 10-99/100"), Some((10, Some(100))));
        assert_eq!(parse_range("bytes 10-99/*"), Some((10, None)));
        assert_eq!((parse_range("bytes */100"), parse_range("10-99/100")), (None, None));
    }
}
