//! What goes to stderr and to `--log`.
//!
//! podman reads the log as one JSON object, containerd takes the last line with level `error`: so a failure writes
//! exactly one line, and nothing else is written unless it is asked for (`--debug`, `--log-level`).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `time="..." level=error msg="..."`
    #[default]
    Text,
    /// `{"level":"error","msg":"...","time":"..."}`
    Json,
}

/// Where log lines go, and in which form.
#[derive(Debug)]
pub struct Log {
    file: Option<Mutex<File>>,
    format: Format,
    level: Level,
}

impl Log {
    /// A log to `path`, or to stderr where there is none.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: Option<&Path>, format: Format, level: Level) -> std::io::Result<Self> {
        let open = |path| OpenOptions::new().create(true).append(true).mode(0o644).open(path).map(Mutex::new);
        Ok(Self { file: path.map(open).transpose()?, format, level })
    }

    /// The one line of a failure. It goes to the log only: stderr gets the same for people.
    pub fn error(&self, message: &str) {
        if self.file.is_some() {
            self.write("error", message);
        }
    }

    fn write(&self, level: &str, message: &str) {
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let line = match self.format {
            Format::Json => serde_json::json!({"level": level, "msg": message, "time": time}).to_string(),
            Format::Text => format!("time={time:?} level={level} msg={message:?}"),
        };
        // A log that cannot be written must not fail the container.
        match self.file.as_ref().map(Mutex::lock) {
            Some(Ok(mut file)) => drop(writeln!(file, "{line}")),
            _ => drop(writeln!(std::io::stderr(), "{line}")),
        }
    }
}

/// The message of an event.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        self.write(&event.metadata().level().as_str().to_lowercase(), &message.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1) // potrun opens no spans
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
