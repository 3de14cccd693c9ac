//! What containers say, kept in files: written in the forms that other tools read, rotated, and read back.

mod clock;
#[cfg(feature = "journald")]
mod journald;
mod lines;
mod read;
mod record;
mod rotate;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

#[cfg(feature = "journald")]
pub use journald::JournalLog;
pub(crate) use lines::{Lines, Pieces};
pub use read::{LogReader, LogRecord};
pub(crate) use record::LogWriter;
pub(crate) use rotate::Rotating;

/// One of the two streams of output. A terminal's output counts as [`Stdout`](Self::Stdout).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "a process has two")]
pub enum OutputStream {
    /// What it says.
    Stdout,
    /// What it complains of.
    Stderr,
}

impl OutputStream {
    /// `stdout` or `stderr`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl fmt::Display for OutputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a log is written. A reader tells them apart by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// Docker's `json-file`: `{"log":"hello\n","stream":"stdout","time":"2026-01-01T00:00:00.000000000Z"}`. Bytes that are not UTF-8 are replaced.
    #[default]
    Json,
    /// The form of Kubernetes' container runtime interface, which podman calls `k8s-file`: `2026-01-01T00:00:00.000000000Z stdout F hello`, with `P` for a part of a line.
    /// Bytes are kept as they are.
    Cri,
}

/// Where a container's log is, in which form, and how large it may grow.
///
/// When the next record would make the file larger than it may be, it becomes `<path>.1`, what was that becomes `<path>.2`, and so on; the oldest is
/// removed. A program that is killed in the middle of that loses nothing: what is left is read in the right order, and the next rotation goes on from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    path: PathBuf,
    #[serde(default)]
    format: LogFormat,
    #[serde(default)]
    limit: Option<u64>,
    #[serde(default = "one")]
    files: u32,
}

fn one() -> u32 {
    1
}

impl LogFile {
    /// A log in Docker's form that grows without an end.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: LogFormat::default(),
            limit: None,
            files: 1,
        }
    }

    /// The same in another form.
    #[must_use]
    pub fn format(mut self, format: LogFormat) -> Self {
        self.format = format;
        self
    }

    /// The same of at most so many files, the one that is written included, of at most so many bytes each (a single record may be longer). With one file, what is in it is
    /// thrown away when it is full. Zeros count as ones.
    #[must_use]
    pub fn rotate(mut self, bytes: u64, files: u32) -> Self {
        self.limit = Some(bytes.max(1));
        self.files = files.max(1);
        self
    }

    /// The file that is written now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its form.
    pub fn form(&self) -> LogFormat {
        self.format
    }

    /// Removes all of its files. That there are none is no error.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn remove(&self) -> crate::Result<()> {
        for file in rotate::files(&self.path).into_iter().chain([self.path.clone()]) {
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).map_err(crate::host::io_error(format!("remove the log {}", file.display())));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
