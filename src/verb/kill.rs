//! `kill`: a signal to the container's first process, or to all.

use clap::Args;
use nix::sys::signal::Signal;

use crate::cli::{self, Context};
use crate::error::{Doing, Error, Result};
use crate::host::this;
use crate::host::this::process::{REAL_TIME, SIGNALS};
use crate::state::Status;
use crate::store::Store;

/// Arguments of `kill`.
#[derive(Debug, Args)]
pub struct Kill {
    /// Signal all processes of the container
    #[arg(short, long)]
    all: bool,
    /// The container
    pub id: String,
    /// Name or number
    #[arg(default_value = "TERM")]
    signal: String,
}

impl cli::Run for Kill {
    fn subject(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn run(&self, context: &Context) -> Result<u8> {
        let signal = parse(&self.signal)?;
        let (_, record, status) = super::find_made(&Store::at(&context.root), &super::id(&self.id)?)?;
        let doing = || format!("send signal {signal}");
        if self.all {
            // containerd sends this after the end, to whatever may be left.
            match &record.group {
                Some(group) => this::process::signal_group(group, signal).doing(doing)?,
                None => drop(this::process::signal(&record.process, signal).doing(doing)?),
            }
            return Ok(0);
        }
        if status == Status::Stopped || !this::process::signal(&record.process, signal).doing(doing)? {
            return Err(Error::caller("container not running"));
        }
        Ok(0)
    }
}

/// A number, or a name with or without `SIG`, in any case; `RTMIN+n` and `RTMAX-n` too.
pub(super) fn parse(text: &str) -> Result<i32> {
    let unknown = || Error::caller(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=SIGNALS).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |offset: &str, sign| {
        let digits = offset.strip_prefix(sign).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        digits.and_then(|digits| digits.parse::<i32>().ok())
    };
    let (first, last) = (*REAL_TIME.start(), *REAL_TIME.end());
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let n = if offset.is_empty() { Some(0) } else { real_time(offset, '+') };
        return n.and_then(|n| first.checked_add(n)).filter(|n| *n <= last).ok_or_else(unknown);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        let n = if offset.is_empty() { Some(0) } else { real_time(offset, '-') };
        return n.map(|n| last - n).filter(|n| *n >= first).ok_or_else(unknown);
    }
    format!("SIG{name}").parse::<Signal>().map(|signal| signal as i32).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::{REAL_TIME, SIGNALS, parse};

    #[test]
    fn signals_have_many_names() {
        let (first, last) = (*REAL_TIME.start(), *REAL_TIME.end());
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("sigkill", 9),
            ("RTMIN+3", first + 3),
            ("RTMAX", last),
            ("RTMAX-1", last - 1),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        let above = (SIGNALS + 1).to_string();
        for text in ["", "BADSIG", "0", &above, "-9", "9x", "SIGSIGTERM", "RTMIN+99", "RTMIN-1", "RTMAX+1"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("RTMIN+2147483647").is_err());
    }
}
