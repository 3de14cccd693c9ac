use std::path::PathBuf;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call on a [`Snapshotter`](crate::Snapshotter), or applying a layer, failed. Branch on [`kind`](Self::kind).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such snapshot.
    #[error("snapshot '{0}' does not exist")]
    NotFound(String),
    /// The key or name is taken.
    #[error("snapshot '{0}' exists already")]
    AlreadyExists(String),
    /// The snapshot is of another kind than the call needs.
    #[error("snapshot '{key}' is {actual}, but {needed} is needed")]
    WrongKind {
        /// The snapshot.
        key: String,
        /// What it is.
        actual: crate::Kind,
        /// What the call needs.
        needed: &'static str,
    },
    /// Others are made from it.
    #[error("snapshot '{key}' is the parent of '{child}'; remove that first")]
    HasChildren {
        /// The snapshot.
        key: String,
        /// One of its children.
        child: String,
    },
    /// The machine can't do what this snapshotter needs.
    #[error("the {snapshotter} snapshotter can't be used at {path}: {reason}")]
    Unsupported {
        /// The snapshotter.
        snapshotter: &'static str,
        /// Its root.
        path: PathBuf,
        /// What is missing, and what to do.
        reason: String,
    },
    /// Another process, or this one, has the snapshotter's root open.
    #[error("the snapshots at {path} are in use by process {holder}; only one at a time can open them")]
    InUse {
        /// The root.
        path: PathBuf,
        /// Process id of who has it.
        holder: String,
    },
    /// The mounts of a snapshot are not such that a layer can be applied to them.
    #[error("a layer can't be applied to these mounts: {reason}")]
    Mounts {
        /// What is wrong with them.
        reason: String,
    },
    /// The mounts of two snapshots are not such that they can be compared.
    #[error("a layer can't be made out of these mounts: {reason}")]
    Undiffable {
        /// What is wrong with them.
        reason: String,
    },
    /// A file of a snapshot that no layer can hold.
    #[error("'{path}' can't be put into a layer: {reason}")]
    Unrepresentable {
        /// Its path in the snapshot (lossy).
        path: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A layer that is not a valid archive, or that tries what a layer must not.
    #[error("layer entry '{entry}': {reason}")]
    InvalidLayer {
        /// The entry's path as the layer gives it (lossy).
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The archive or its compression is damaged.
    #[error("the layer is damaged after {offset} uncompressed bytes: {reason}")]
    DamagedLayer {
        /// How far it could be read.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The uncompressed layer is not the one that the image's config names.
    #[error(
        "the layer unpacks to {actual}, but the image's config says {expected}: image and layer do not belong together"
    )]
    DiffIdMismatch {
        /// The diffID in the image's config.
        expected: String,
        /// What the layer's bytes hash to.
        actual: String,
    },
    /// The snapshotter's own files say something impossible.
    #[error("snapshotter at {path}: {reason}")]
    Corrupt {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The source of a layer failed.
    #[error("reading the layer")]
    Source(#[source] std::io::Error),
    /// Where a layer was written to failed.
    #[error("writing the layer")]
    Sink(#[source] std::io::Error),
    /// The operating system refused.
    #[error("{action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A snapshotter that is not ours failed in its own way.
    #[error("snapshotter backend: {0}")]
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
    /// The snapshot is not in the state that the call needs.
    FailedPrecondition,
    /// Somebody else has it open.
    InUse,
    /// This machine can't.
    Unsupported,
    /// The layer is not acceptable.
    InvalidLayer,
    /// The layer is not the expected one.
    Verification,
    /// No space, or quota exceeded.
    StorageFull,
    /// The system refused access.
    PermissionDenied,
    /// The snapshotter's files are damaged.
    Corrupt,
    /// Anything else from the system, a source or a backend.
    Io,
}

impl Error {
    /// The kind of this error, for callers to branch on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::AlreadyExists(_) => ErrorKind::AlreadyExists,
            Self::WrongKind { .. } | Self::HasChildren { .. } => ErrorKind::FailedPrecondition,
            Self::InUse { .. } => ErrorKind::InUse,
            Self::Unsupported { .. } | Self::Mounts { .. } | Self::Undiffable { .. } | Self::Unrepresentable { .. } => {
                ErrorKind::Unsupported
            }
            Self::InvalidLayer { .. } | Self::DamagedLayer { .. } => ErrorKind::InvalidLayer,
            Self::DiffIdMismatch { .. } => ErrorKind::Verification,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Source(source) | Self::Sink(source) | Self::Io { source, .. } => match source.kind() {
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
