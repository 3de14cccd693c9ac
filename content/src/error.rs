use std::path::PathBuf;

use oci_spec::image::Digest;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call on a [`ContentStore`](crate::ContentStore) failed. Branch on [`kind`](Self::kind).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such blob, and no ingest of it in flight.
    #[error("blob {0} is not in the content store; pull the image that needs it")]
    NotFound(Digest),
    /// No such ingest.
    #[error("no ingest '{0}' is in flight")]
    NoSuchIngest(String),
    /// Another writer holds the ingest.
    #[error("ingest '{0}' is being written by someone else; wait for it, or follow it")]
    InUse(String),
    /// The blob is there already: commit of a digest that exists, or an ingest begun for one.
    #[error("blob {0} is in the content store already")]
    AlreadyExists(Digest),
    /// The bytes hash to something else.
    #[error(
        "ingest '{reference}' has digest {actual}, expected {expected}: the bytes were changed on the way, nothing was stored"
    )]
    DigestMismatch {
        /// The ingest.
        reference: String,
        /// What was promised.
        expected: Digest,
        /// What arrived.
        actual: Digest,
    },
    /// More or fewer bytes than promised.
    #[error(
        "ingest '{reference}' has {actual} bytes, expected {expected}: the transfer was cut or padded, nothing was stored"
    )]
    SizeMismatch {
        /// The ingest.
        reference: String,
        /// What was promised, in bytes.
        expected: u64,
        /// What arrived, in bytes.
        actual: u64,
    },
    /// A blob is larger than the caller is willing to hold in memory.
    #[error("blob {digest} has {size} bytes, more than the {limit} allowed here: it is not what it is said to be")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// The caller's limit in bytes.
        limit: u64,
    },
    /// A committed blob no longer hashes to its address.
    #[error("blob {digest} in the content store is damaged (its bytes hash to {actual}); remove it and pull it again")]
    Damaged {
        /// The blob.
        digest: Digest,
        /// What its bytes hash to now.
        actual: Digest,
    },
    /// A reader followed an ingest that was abandoned or failed verification.
    #[error("the blob being followed ({0}) was never committed: its writer failed or gave up")]
    Abandoned(String),
    /// The blob is in a store that is only read.
    #[error("blob {0} is in a shared content store that is only read here; remove it there")]
    ReadOnly(Digest),
    /// A digest algorithm that this crate can't compute.
    #[error("digest algorithm '{0}' is not supported (sha256, sha384 and sha512 are)")]
    UnsupportedAlgorithm(String),
    /// The store's own files say something impossible.
    #[error("content store at {path}: {reason}")]
    Corrupt {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused.
    #[error("{action} {path} failed")]
    Io {
        /// What was being done ("writing", "opening").
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A store that is not ours failed in its own way.
    #[error("content store backend: {0}")]
    Backend(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The kinds of [`Error`] that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for is not there.
    NotFound,
    /// It is there already.
    AlreadyExists,
    /// Someone else holds it; trying later can succeed.
    InUse,
    /// Bytes are not what they were promised to be.
    Verification,
    /// A blob exceeds the limit the caller gave.
    TooLarge,
    /// The ingest that was followed came to nothing.
    Abandoned,
    /// The request can't be served by this implementation.
    Unsupported,
    /// What was asked for is in a store that is only read.
    ReadOnly,
    /// No space, or quota exceeded.
    StorageFull,
    /// The system refused access.
    PermissionDenied,
    /// The store itself is damaged.
    Corrupt,
    /// Anything else from the system or a backend.
    Io,
}

impl Error {
    /// The kind of this error, for callers to branch on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) | Self::NoSuchIngest(_) => ErrorKind::NotFound,
            Self::InUse(_) => ErrorKind::InUse,
            Self::AlreadyExists(_) => ErrorKind::AlreadyExists,
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => ErrorKind::Verification,
            Self::Abandoned(_) => ErrorKind::Abandoned,
            Self::ReadOnly(_) => ErrorKind::ReadOnly,
            Self::UnsupportedAlgorithm(_) => ErrorKind::Unsupported,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Corrupt { .. } | Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::StorageFull,
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                    ErrorKind::PermissionDenied
                }
                _ => ErrorKind::Io,
            },
            Self::Backend(_) => ErrorKind::Io,
        }
    }
}

/// Turns the system's answer into an [`Error::Io`] that says what was being done, on what.
pub(crate) trait IoContext<T> {
    /// Adds the action ("writing", "opening") and the path.
    fn during(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn during(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| Error::Io {
            action,
            path: path.into(),
            source: source.into(),
        })
    }
}
