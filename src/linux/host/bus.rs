//! A client of a message bus that asks, and waits for the answer: what one service of a host, systemd, needs
//! (D-Bus Specification 0.43). The crate `zbus` knows the types on the wire; its own connections are asynchronous.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{self, BE, LE, NATIVE_ENDIAN};
use zbus::{DynamicType, ObjectPath, Signature, Type, Variant};

use crate::host::Trouble;

/// Longer than systemd takes to start or stop a scope, by far.
const PATIENCE: Duration = Duration::from_secs(30);
/// What systemd says is short; the specification allows 128 MiB.
const MOST: usize = 4 << 20;

// Types of messages and codes of header fields ("Message Format").
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A connection.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Signals that came while an answer was waited for.
    signals: Vec<Message>,
}

/// A message that came.
#[derive(Debug)]
pub(super) struct Message {
    kind: u8,
    answers: Option<u32>,
    member: String,
    error: String,
    body: Vec<u8>,
    context: Context,
}

impl Message {
    /// Its body.
    pub(super) fn body<T: DeserializeOwned + Type>(&self) -> Result<T, Trouble> {
        Ok(Data::new(&self.body, self.context).deserialize()?.0)
    }
}

/// An error that a service answers with.
#[derive(Debug, thiserror::Error)]
#[error("{text} ({name})")]
pub(super) struct Refused {
    /// `org.freedesktop.systemd1.NoSuchUnit`.
    pub(super) name: String,
    text: String,
}

/// What is asked of whom.
pub(super) struct Method {
    pub(super) service: &'static str,
    pub(super) path: String,
    pub(super) interface: &'static str,
    pub(super) member: &'static str,
}

/// The value of a header field. The signature of a body is that of a structure without its parentheses, which no
/// [`Variant`] is.
enum Field<'a> {
    Value(Variant<'a>),
    Signature(&'a str),
}

impl Type for Field<'_> {
    const SIGNATURE: &'static Signature = &Signature::Variant;
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::Signature(text) => {
                let mut variant = serializer.serialize_struct("Variant", 2)?;
                variant.serialize_field("signature", &Signature::Signature)?;
                variant.serialize_field("value", text)?;
                variant.end()
            }
        }
    }
}

impl Bus {
    /// Connects to the socket at `path`. `daemon`: it is a bus, which wants to be greeted, and not the service itself.
    pub(super) fn connect(path: &Path, daemon: bool) -> Result<Self, Trouble> {
        let stream = UnixStream::connect(path)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut bus = Self { stream, serial: 0, signals: Vec::new() };
        bus.authenticate()?;
        if daemon {
            let (service, interface) = ("org.freedesktop.DBus", "org.freedesktop.DBus");
            bus.call(&Method { service, path: "/org/freedesktop/DBus".into(), interface, member: "Hello" }, &())?;
        }
        Ok(bus)
    }

    /// Who we are the kernel tells the other side ("Authentication Protocol", EXTERNAL): we do not, since in a user
    /// namespace we have another number than outside.
    fn authenticate(&mut self) -> Result<(), Trouble> {
        self.stream.write_all(b"\0AUTH EXTERNAL\r\n")?;
        self.told("DATA")?;
        self.stream.write_all(b"DATA\r\n")?;
        self.told("OK ")?;
        Ok(self.stream.write_all(b"BEGIN\r\n")?)
    }

    /// Reads a line that begins so.
    fn told(&mut self, begin: &str) -> Result<(), Trouble> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < 1024 {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.extend(byte);
        }
        if line.starts_with(begin.as_bytes()) {
            return Ok(());
        }
        Err(format!("the bus does not let us in: {}", String::from_utf8_lossy(&line).trim_end()).into())
    }

    /// Asks for something and waits for the answer.
    pub(super) fn call<B: Serialize + DynamicType>(&mut self, method: &Method, body: &B) -> Result<Message, Trouble> {
        self.serial += 1;
        let context = Context::new(NATIVE_ENDIAN, 0);
        let signature = body.signature().to_string_no_parens();
        let body = if signature.is_empty() { Vec::new() } else { wire::to_bytes(context, body)?.bytes().to_vec() };
        let mut fields = vec![
            (PATH, Field::Value(Variant::from(ObjectPath::try_from(method.path.as_str())?))),
            (INTERFACE, Field::Value(Variant::from(method.interface))),
            (MEMBER, Field::Value(Variant::from(method.member))),
            (DESTINATION, Field::Value(Variant::from(method.service))),
        ];
        if !signature.is_empty() {
            fields.push((SIGNATURE, Field::Signature(&signature)));
        }
        let endian = if NATIVE_ENDIAN == LE { b'l' } else { b'B' };
        let header = (endian, CALL, 0_u8, 1_u8, u32::try_from(body.len())?, self.serial, fields);
        let mut bytes = wire::to_bytes(context, &header)?.bytes().to_vec();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(body);
        self.stream.write_all(&bytes)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.receive(deadline)?;
            match message.kind {
                SIGNAL => self.signals.push(message),
                RETURN if message.answers == Some(self.serial) => return Ok(message),
                ERROR if message.answers == Some(self.serial) => {
                    let text = message.body::<(String,)>().map(|(text,)| text).unwrap_or_default();
                    return Err(Refused { name: message.error, text }.into());
                }
                _ => {}
            }
        }
    }

    /// Waits for a signal that `wanted` takes something from.
    pub(super) fn signal<T>(
        &mut self,
        member: &str,
        mut wanted: impl FnMut(&Message) -> Result<Option<T>, Trouble>,
    ) -> Result<T, Trouble> {
        let deadline = Instant::now() + PATIENCE;
        let mut came = std::mem::take(&mut self.signals).into_iter();
        loop {
            let message = came.next().map_or_else(|| self.receive(deadline), Ok)?;
            if message.kind == SIGNAL
                && message.member == member
                && let Some(found) = wanted(&message)?
            {
                return Ok(found);
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message, Trouble> {
        let mut bytes = vec![0; 16];
        self.read(&mut bytes, deadline)?;
        let context = Context::new(if bytes[0] == b'l' { LE } else { BE }, 0);
        let number = |at: usize| -> Result<usize, Trouble> {
            let word = Data::new(&bytes[at..at + 4], context).deserialize::<u32>()?.0;
            Ok(usize::try_from(word)?)
        };
        let (body, fields) = (number(4)?, number(12)?);
        if body > MOST || fields > MOST {
            return Err("a message of the bus is too long".into());
        }
        let begin = (16 + fields).next_multiple_of(8);
        bytes.resize(begin + body, 0);
        self.read(&mut bytes[16..], deadline)?;
        let body = bytes.split_off(begin);
        type Header<'a> = (u8, u8, u8, u8, u32, u32, Vec<(u8, Variant<'a>)>);
        let data = Data::new(&bytes, context);
        let ((_, kind, _, _, _, _, fields), _): (Header<'_>, _) = data.deserialize()?;
        let text = |code: u8| {
            let field = fields.iter().find(|(one, _)| *one == code);
            field.and_then(|(_, value)| <&str>::try_from(value).ok()).unwrap_or_default().to_string()
        };
        let answers = fields.iter().find(|(code, _)| *code == REPLY_SERIAL);
        let answers = answers.and_then(|(_, value)| u32::try_from(value).ok());
        let (member, error) = (text(MEMBER), text(ERROR_NAME));
        Ok(Message { kind, answers, member, error, body, context })
    }

    fn read(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        match self.stream.read_exact(buffer) {
            // SO_RCVTIMEO (socket(7)).
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
            other => other,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.member)
    }
}
