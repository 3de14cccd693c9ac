use std::path::{Path, PathBuf};

/// Why a call on a [`Journal`](crate::Journal) or [`Replay`](crate::Replay) failed. Branch on [`kind`](Self::kind).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The operating system refused.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: std::io::Error,
    },
    /// The journal's thread is gone.
    #[error("the journal in {path} does not write any more; open it again")]
    Closed {
        /// The journal's directory.
        path: PathBuf,
    },
}

/// The kinds of [`JournalError`] that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JournalErrorKind {
    /// The system refused.
    Io,
    /// It does not write any more.
    Closed,
}

impl JournalError {
    /// The kind of this error, for callers to branch on.
    pub fn kind(&self) -> JournalErrorKind {
        match self {
            Self::Io { .. } => JournalErrorKind::Io,
            Self::Closed { .. } => JournalErrorKind::Closed,
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, JournalError>;

pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> JournalError {
    move |source| JournalError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}
