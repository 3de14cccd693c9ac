use std::net::SocketAddr;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the registry could not be started or filled. What clients get over HTTP is in the distribution specification.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address can't be listened on.
    #[error("listening on {address} failed; is something else listening there?")]
    Listen {
        /// The address as it was given.
        address: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// An address that others can reach, and nobody asked for that.
    #[error("{0} can be reached from other machines; call `allow_other_machines` if that is wanted")]
    NotLoopback(SocketAddr),
    /// The content store failed.
    #[error("the registry's content store failed")]
    Content(#[from] longshore_content::Error),
    /// A repository name or tag that the distribution specification does not allow.
    #[error("'{0}' is not a valid repository name or tag")]
    InvalidName(String),
    /// A manifest that is too large, is not JSON, or names something that the registry does not have.
    #[error("manifest of '{repository}' is refused: {reason}")]
    InvalidManifest {
        /// Where it was to go.
        repository: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tag was asked for a manifest that is not there.
    #[error("'{repository}' has no manifest {digest}")]
    NoSuchManifest {
        /// Where it was looked for.
        repository: String,
        /// Its digest.
        digest: oci_spec::image::Digest,
    },
}

/// The kinds of [`Error`] that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The address can't be had.
    Listen,
    /// The content store failed.
    Content,
    /// What was given is not valid.
    Invalid,
    /// What was named is not there.
    NotFound,
}

impl Error {
    /// The kind of this error, for callers to branch on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Listen { .. } | Self::NotLoopback(_) => ErrorKind::Listen,
            Self::Content(_) => ErrorKind::Content,
            Self::InvalidName(_) | Self::InvalidManifest { .. } => ErrorKind::Invalid,
            Self::NoSuchManifest { .. } => ErrorKind::NotFound,
        }
    }
}
