use std::path::PathBuf;

use crate::{Key, Resource};

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call on a [`MetadataStore`](crate::MetadataStore) failed. Branch on [`kind`](Self::kind).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such record.
    #[error("{0} does not exist")]
    NotFound(Key),
    /// A record of that key is there.
    #[error("{0} exists already; choose another name or remove it first")]
    AlreadyExists(Key),
    /// Somebody changed the record since it was read.
    #[error("{key} was changed by someone else (revision {actual}, expected {expected}); read it again and retry")]
    Conflict {
        /// The record.
        key: Key,
        /// The revision that the batch was made from.
        expected: u64,
        /// The revision that is stored.
        actual: u64,
    },
    /// Something was written since the state that the batch was made from.
    #[error("the store is at revision {actual} and no more at {expected}; read again and retry")]
    Moved {
        /// The revision that the batch was made from.
        expected: u64,
        /// The revision that is stored.
        actual: u64,
    },
    /// What the record refers to is being removed by a collection at this moment.
    #[error("{key} can't refer to {resource}: it is being collected; retry, and make it again if it is gone by then")]
    BeingCollected {
        /// The record.
        key: Key,
        /// What it would refer to.
        resource: Resource,
    },
    /// A namespace that something is in can't be removed.
    #[error("namespace '{namespace}' is not empty: it has {holds}; remove what is in it first")]
    NotEmpty {
        /// The namespace.
        namespace: String,
        /// One of the records in it.
        holds: Key,
    },
    /// The store was shut down by an earlier failure.
    #[error("metadata file {path} can't be written any more after an earlier failure; open it again")]
    Closed {
        /// The file.
        path: PathBuf,
    },
    /// A name, label or namespace that is not allowed.
    #[error("invalid {what} '{value}': {reason}")]
    Invalid {
        /// What it was meant to be.
        what: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process has the file open.
    #[error("metadata file {path} is open in another process{}; stop it or use another root", holder.as_ref().map(|h| format!(" ({h})")).unwrap_or_default())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Who holds it, as far as is known.
        holder: Option<String>,
    },
    /// The file is damaged, or of a version we do not know.
    #[error("metadata file {path}: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A store of resources that a collection works on failed.
    #[error("{action} {resource} for the collection")]
    Resource {
        /// What was being done.
        action: &'static str,
        /// On what.
        resource: String,
        /// The store's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The operating system or the database refused.
    #[error("{action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The kinds of [`Error`] that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for is not there.
    NotFound,
    /// It is there already.
    AlreadyExists,
    /// A precondition failed; read again and retry.
    Conflict,
    /// The input is not allowed.
    Invalid,
    /// Another process holds the store.
    Locked,
    /// The store is damaged.
    Corrupt,
    /// The system refused.
    Io,
}

impl Error {
    /// The kind of this error, for callers to branch on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::AlreadyExists(_) => ErrorKind::AlreadyExists,
            Self::Conflict { .. } | Self::Moved { .. } | Self::BeingCollected { .. } | Self::NotEmpty { .. } => {
                ErrorKind::Conflict
            }
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Locked { .. } => ErrorKind::Locked,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Io { .. } | Self::Closed { .. } | Self::Resource { .. } => ErrorKind::Io,
        }
    }
}
