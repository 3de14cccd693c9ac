//! The log, in the two forms that runc's callers parse: logrus' text and logrus' JSON.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;

use crate::failure::path_error;

/// Where messages go and in which form.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
    form: Form,
    debug: bool,
}

/// The form of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Json,
}

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Debug,
    Warning,
    Error,
}

/// Whether messages for the maintainers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    Normal,
    Debug,
}

impl Log {
    /// A log on standard error.
    pub(crate) fn stderr(form: Form, verbosity: Verbosity) -> Self {
        Self {
            file: None,
            form,
            debug: verbosity == Verbosity::Debug,
        }
    }

    /// The same into a file, which it appends to.
    pub(crate) fn with_file(mut self, path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o644)
            .open(path)
            .map_err(|error| path_error("open", path, &error))
            .context("can't write the log")?;
        self.file = Some(file);
        Ok(self)
    }

    /// The same log, for another thread.
    pub(crate) fn try_clone(&self) -> anyhow::Result<Self> {
        let file = self
            .file
            .as_ref()
            .map(File::try_clone)
            .transpose()
            .context("duplicate the log's descriptor")?;
        Ok(Self {
            file,
            form: self.form,
            debug: self.debug,
        })
    }

    /// Whether messages for the maintainers are wanted.
    pub(crate) fn is_verbose(&self) -> bool {
        self.debug
    }

    /// A message for the maintainers.
    pub(crate) fn debug(&self, message: impl FnOnce() -> String) {
        if self.debug {
            self.write(Level::Debug, &message());
        }
    }

    /// A message about something that went on all the same.
    pub(crate) fn warn(&self, message: &str) {
        self.write(Level::Warning, message);
    }

    /// The reason for which the program ends: into the log, and in plain words on standard error when the log is elsewhere.
    pub(crate) fn fatal(&self, message: &str) {
        self.write(Level::Error, message);
        if self.file.is_some() {
            // Nobody is left to be told that this failed.
            let _ = writeln!(std::io::stderr(), "{message}");
        }
    }

    /// The same in plain words on standard error, wherever the log is.
    pub(crate) fn fatal_in_plain_words(&self, message: &str) {
        match self.file {
            Some(_) => self.fatal(message),
            // Nobody is left to be told that this failed.
            None => drop(writeln!(std::io::stderr(), "{message}")),
        }
    }

    fn write(&self, level: Level, message: &str) {
        let now = SystemTime::now();
        let line = match (self.form, &self.file) {
            (Form::Json, _) => json_line(level, message, now),
            (Form::Text, None) if std::io::stderr().is_terminal() => terminal_line(level, message),
            (Form::Text, _) => text_line(level, message, now),
        };
        // One write a line: several programs append to one log. A log that can't be written has nowhere to complain.
        let _ = match &self.file {
            Some(file) => (&mut &*file).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

fn text_line(level: Level, message: &str, now: SystemTime) -> String {
    format!(
        "time=\"{}\" level={} msg={}\n",
        rfc3339_seconds(now),
        level.name(),
        quote(message)
    )
}

fn json_line(level: Level, message: &str, now: SystemTime) -> String {
    let message = serde_json::Value::from(message);
    format!(
        "{{\"level\":\"{}\",\"msg\":{message},\"time\":\"{}\"}}\n",
        level.name(),
        rfc3339_seconds(now)
    )
}

fn terminal_line(level: Level, message: &str) -> String {
    let (colour, word) = match level {
        Level::Debug => (37, "DEBU"),
        Level::Warning => (33, "WARN"),
        Level::Error => (31, "ERRO"),
    };
    format!("\x1b[{colour}m{word}\x1b[0m[0000] {} \n", message.trim_end())
}

/// Quoted as Go's `%q`, where logrus quotes.
fn quote(message: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if message.chars().all(plain) {
        return message.to_owned();
    }
    let mut quoted = String::with_capacity(message.len() + 8);
    quoted.push('"');
    for c in message.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                // A String takes everything.
                let _ = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A moment in UTC, with seconds.
pub(crate) fn rfc3339_seconds(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A moment in UTC, with as many digits below the second as it has, as Go's `RFC3339Nano`.
pub(crate) fn rfc3339_nanos(at: SystemTime) -> String {
    let nanos = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let mut text = rfc3339_seconds(at);
    if nanos != 0 {
        text.pop();
        let digits = format!("{nanos:09}");
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
        text.push('Z');
    }
    text
}

/// Days since 1970 as a date of the Gregorian calendar, counted in years that begin in March, so that the leap day is the last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 1 March of the year 0
    let era = days / 146_097; // 400 years
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_written_as_go_writes_them() {
        let at = |seconds, nanos| UNIX_EPOCH + Duration::new(seconds, nanos);
        assert_eq!(rfc3339_nanos(at(0, 0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339_nanos(at(951_782_400, 500_000_000)), "2000-02-29T00:00:00.5Z");
        assert_eq!(rfc3339_seconds(at(951_868_799, 9)), "2000-02-29T23:59:59Z");
        assert_eq!(rfc3339_seconds(at(951_868_800, 0)), "2000-03-01T00:00:00Z");
        assert_eq!(rfc3339_nanos(at(4_102_444_800, 1)), "2100-01-01T00:00:00.000000001Z");
    }

    #[test]
    fn lines_have_the_form_that_tools_parse() {
        let line = text_line(Level::Error, "exec: \"x\": not\nfound", UNIX_EPOCH);
        assert_eq!(
            line,
            "time=\"1970-01-01T00:00:00Z\" level=error msg=\"exec: \\\"x\\\": not\\nfound\"\n"
        );
        assert_eq!(
            text_line(Level::Warning, "plain", UNIX_EPOCH).split("msg=").nth(1),
            Some("plain\n")
        );
        let line = json_line(Level::Error, "a \"b\"", UNIX_EPOCH);
        assert_eq!(
            line,
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\",\"time\":\"1970-01-01T00:00:00Z\"}\n"
        );
    }
}
