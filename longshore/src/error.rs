use std::path::PathBuf;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call on an [`Engine`](crate::Engine) failed: what was being done, and the part that failed as its
/// [`source`](std::error::Error::source). Branch on [`kind`](Self::kind).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A registry, or what it sent.
    #[error("{doing}")]
    Distribution {
        /// What was being done, on what.
        doing: String,
        /// The part's error.
        source: longshore_distribution::Error,
    },
    /// The content store.
    #[error("{doing}")]
    Content {
        /// What was being done, on what.
        doing: String,
        /// The part's error.
        source: longshore_content::Error,
    },
    /// The snapshotter.
    #[error("{doing}")]
    Snapshot {
        /// What was being done, on what.
        doing: String,
        /// The part's error.
        source: longshore_snapshot::Error,
    },
    /// The metadata store.
    #[error("{doing}")]
    Metadata {
        /// What was being done, on what.
        doing: String,
        /// The part's error.
        source: longshore_metadata::Error,
    },
    /// Unpacking, or building the runtime spec.
    #[error("{doing}")]
    Bundle {
        /// What was being done, on what.
        doing: String,
        /// The part's error.
        source: longshore_bundle::Error,
    },
    /// The executor.
    #[error("{doing}")]
    Runtime {
        /// What was being done, on what.
        doing: String,
        /// The part's error.
        source: longshore_runtime::Error,
    },
    /// No such image here.
    #[error("image '{0}' is not here; pull it first")]
    NoSuchImage(String),
    /// No such container here.
    #[error("container '{0}' does not exist")]
    NoSuchContainer(String),
    /// The container's id is taken.
    #[error("container '{0}' exists already; delete it first or choose another id")]
    ContainerExists(String),
    /// The caller left out something that the call needs.
    #[error("{what}: {reason}")]
    Invalid {
        /// What was being asked for.
        what: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A container, or another one that it needs, is not as the call needs it.
    #[error("{what}: {reason}")]
    Unmet {
        /// What was being asked for.
        what: String,
        /// What is not as it has to be, and what to do.
        reason: String,
    },
    /// The operating system refused.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// The kinds of [`Error`] that callers tell apart, whatever part failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for is not there.
    NotFound,
    /// It is there already.
    AlreadyExists,
    /// Something is not in the state that the call needs.
    FailedPrecondition,
    /// The input is not valid.
    Invalid,
    /// This machine, this build or this image can't.
    Unsupported,
    /// Other credentials are needed.
    Unauthorized,
    /// The other side can't be reached or failed; later it may work.
    Unavailable,
    /// Bytes are not what they were promised to be.
    Verification,
    /// Policy refused it.
    Refused,
    /// No space, or quota exceeded.
    StorageFull,
    /// The system refused access.
    PermissionDenied,
    /// Someone else holds it; later it may work.
    Locked,
    /// A store is damaged.
    Corrupt,
    /// A step of a container's start failed inside the container.
    Start,
    /// Anything else.
    Io,
}

impl Error {
    /// The kind of this error, for callers to branch on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Distribution { source, .. } => of_distribution(source),
            Self::Content { source, .. } => of_content(source.kind()),
            Self::Snapshot { source, .. } => of_snapshot(source.kind()),
            Self::Metadata { source, .. } => of_metadata(source.kind()),
            Self::Bundle { source, .. } => of_bundle(source.kind()),
            Self::Runtime { source, .. } => of_runtime(source.kind()),
            Self::NoSuchImage(_) | Self::NoSuchContainer(_) => ErrorKind::NotFound,
            Self::ContainerExists(_) => ErrorKind::AlreadyExists,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Unmet { .. } => ErrorKind::FailedPrecondition,
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::StorageFull,
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                    ErrorKind::PermissionDenied
                }
                _ => ErrorKind::Io,
            },
        }
    }
}

fn of_distribution(error: &longshore_distribution::Error) -> ErrorKind {
    use longshore_distribution::{Error as E, ErrorKind as K};
    match error.kind() {
        K::Invalid => ErrorKind::Invalid,
        K::NotFound => ErrorKind::NotFound,
        K::Unauthorized => ErrorKind::Unauthorized,
        K::Verification => ErrorKind::Verification,
        K::Protocol | K::Unavailable => ErrorKind::Unavailable,
        K::Unsupported => ErrorKind::Unsupported,
        K::Refused => ErrorKind::Refused,
        _ => match error {
            E::Content { source, .. } => of_content(source.kind()),
            _ => ErrorKind::Io,
        },
    }
}

fn of_content(kind: longshore_content::ErrorKind) -> ErrorKind {
    use longshore_content::ErrorKind as K;
    match kind {
        K::NotFound => ErrorKind::NotFound,
        K::AlreadyExists => ErrorKind::AlreadyExists,
        K::InUse => ErrorKind::Locked,
        K::Verification => ErrorKind::Verification,
        K::Abandoned => ErrorKind::Unavailable,
        K::Unsupported => ErrorKind::Unsupported,
        K::StorageFull => ErrorKind::StorageFull,
        K::PermissionDenied | K::ReadOnly => ErrorKind::PermissionDenied,
        K::Corrupt => ErrorKind::Corrupt,
        _ => ErrorKind::Io,
    }
}

fn of_snapshot(kind: longshore_snapshot::ErrorKind) -> ErrorKind {
    use longshore_snapshot::ErrorKind as K;
    match kind {
        K::NotFound => ErrorKind::NotFound,
        K::AlreadyExists => ErrorKind::AlreadyExists,
        K::FailedPrecondition => ErrorKind::FailedPrecondition,
        K::Unsupported => ErrorKind::Unsupported,
        K::InvalidLayer | K::Verification => ErrorKind::Verification,
        K::StorageFull => ErrorKind::StorageFull,
        K::PermissionDenied => ErrorKind::PermissionDenied,
        K::Corrupt => ErrorKind::Corrupt,
        _ => ErrorKind::Io,
    }
}

fn of_metadata(kind: longshore_metadata::ErrorKind) -> ErrorKind {
    use longshore_metadata::ErrorKind as K;
    match kind {
        K::NotFound => ErrorKind::NotFound,
        K::AlreadyExists => ErrorKind::AlreadyExists,
        K::Conflict => ErrorKind::FailedPrecondition,
        K::Invalid => ErrorKind::Invalid,
        K::Locked => ErrorKind::Locked,
        K::Corrupt => ErrorKind::Corrupt,
        _ => ErrorKind::Io,
    }
}

fn of_runtime(kind: longshore_runtime::ErrorKind) -> ErrorKind {
    use longshore_runtime::ErrorKind as K;
    match kind {
        K::NotFound => ErrorKind::NotFound,
        K::AlreadyExists => ErrorKind::AlreadyExists,
        K::FailedPrecondition => ErrorKind::FailedPrecondition,
        K::Invalid => ErrorKind::Invalid,
        K::Unsupported => ErrorKind::Unsupported,
        K::Start => ErrorKind::Start,
        K::Corrupt => ErrorKind::Corrupt,
        K::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Io,
    }
}

fn of_bundle(kind: longshore_bundle::ErrorKind) -> ErrorKind {
    use longshore_bundle::ErrorKind as K;
    match kind {
        K::NotFound => ErrorKind::NotFound,
        K::Invalid => ErrorKind::Invalid,
        K::Unsupported => ErrorKind::Unsupported,
        K::Verification => ErrorKind::Verification,
        K::Cancelled => ErrorKind::Unavailable,
        K::StorageFull => ErrorKind::StorageFull,
        K::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Io,
    }
}

/// Says what was being done when a part failed.
pub(crate) trait At<T> {
    fn at(self, doing: impl Into<String>) -> Result<T>;
}

macro_rules! at {
    ($($variant:ident of $part:ident),*) => {$(
        impl<T> At<T> for Result<T, $part::Error> {
            fn at(self, doing: impl Into<String>) -> Result<T> {
                self.map_err(|source| Error::$variant { doing: doing.into(), source })
            }
        }
    )*};
}

at! {
    Distribution of longshore_distribution,
    Content of longshore_content,
    Snapshot of longshore_snapshot,
    Metadata of longshore_metadata,
    Bundle of longshore_bundle,
    Runtime of longshore_runtime
}
