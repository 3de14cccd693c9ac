use std::path::PathBuf;

use oci_spec::image::Digest;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an image could not be unpacked, or a bundle not be made or read. Branch on [`kind`](Self::kind).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Manifest and config disagree about the number of layers.
    #[error("the manifest has {layers} layers, but the config has {diff_ids} diffIDs: they do not belong together")]
    LayerCount {
        /// Layers of the manifest.
        layers: usize,
        /// DiffIDs of the config.
        diff_ids: usize,
    },
    /// A diffID that is no digest, or of an algorithm that layers are not hashed with.
    #[error("diffID {index} of the image's config is {value:?}: {reason}")]
    InvalidDiffId {
        /// Its place, from 0.
        index: usize,
        /// What the config says.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer in a form that can't be unpacked.
    #[error("layer {index} ({digest}) has media type '{media_type}', which is not a tar archive, plain, gzip or zstd")]
    UnsupportedLayer {
        /// Its place, from 0.
        index: usize,
        /// The blob.
        digest: Digest,
        /// What the manifest says.
        media_type: String,
    },
    /// The stored blob is not as long as the manifest says.
    #[error("layer {index} ({digest}) has {actual} bytes, the manifest says {expected}")]
    LayerSize {
        /// Its place, from 0.
        index: usize,
        /// The blob.
        digest: Digest,
        /// The manifest's number.
        expected: u64,
        /// The blob's.
        actual: u64,
    },
    /// A layer's bytes could not be had.
    #[error("reading layer {index} ({digest})")]
    Content {
        /// Its place, from 0.
        index: usize,
        /// The blob.
        digest: Digest,
        /// The content store's answer.
        source: Box<longshore_content::Error>,
    },
    /// A layer could not be applied.
    #[error("unpacking layer {index} ({digest})")]
    Apply {
        /// Its place, from 0.
        index: usize,
        /// The blob.
        digest: Digest,
        /// What failed.
        source: Box<longshore_snapshot::Error>,
    },
    /// The layer is not the one that the image's config names.
    #[error(
        "layer {index} ({digest}) unpacks to {actual}, the image's config says {expected}: they do not belong together"
    )]
    DiffIdMismatch {
        /// Its place, from 0.
        index: usize,
        /// The blob.
        digest: Digest,
        /// The config's diffID.
        expected: String,
        /// What the unpacked bytes hash to.
        actual: String,
    },
    /// The snapshotter refused.
    #[error("{action} snapshot '{key}'")]
    Snapshot {
        /// What was being done.
        action: &'static str,
        /// On which snapshot.
        key: String,
        /// The snapshotter's answer.
        source: Box<longshore_snapshot::Error>,
    },
    /// The unpacking was given up before it ended.
    #[error("unpacking layer {index} ({digest}) was given up")]
    Cancelled {
        /// Its place, from 0.
        index: usize,
        /// The blob.
        digest: Digest,
    },
    /// Neither image nor caller says what to run.
    #[error("nothing to run: the image has no Entrypoint and no Cmd; give a command")]
    NoCommand,
    /// A user that the root filesystem does not know.
    #[error("user '{0}' is not in /etc/passwd of the root filesystem; use a name that is, or a number")]
    UnknownUser(String),
    /// A group that the root filesystem does not know.
    #[error("group '{0}' is not in /etc/group of the root filesystem; use a name that is, or a number")]
    UnknownGroup(String),
    /// An id that the user namespace has no mapping for.
    #[error("{what} {id} has no mapping in the container's user namespace; map it, or choose another user")]
    UnmappedId {
        /// `user` or `group`.
        what: &'static str,
        /// The id inside the container.
        id: u32,
    },
    /// An option, or a field of the image's config, with a value that makes no sense.
    #[error("{option} {value:?}: {reason}")]
    InvalidOption {
        /// The option or field.
        option: &'static str,
        /// Its value.
        value: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A device that no CDI specification of this machine gives.
    #[error("CDI device '{name}' can't be had: {reason}")]
    CdiDevice {
        /// Its whole name.
        name: String,
        /// Why, and what there is.
        reason: String,
    },
    /// An option that an unprivileged user can't have.
    #[error("{option} can't be had without privileges: {reason}")]
    NeedsPrivilege {
        /// The option.
        option: &'static str,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// A file of the root filesystem is not fit to be read.
    #[error("file {path} of the root filesystem: {reason}")]
    RootFile {
        /// The path inside the root filesystem.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A mount that files can't be looked up in without performing it.
    #[error("files can't be looked up in a mount of type '{fs_type}': {reason}")]
    UnsupportedMount {
        /// Its filesystem type.
        fs_type: String,
        /// What is missing, and what to do.
        reason: &'static str,
    },
    /// A `config.json` that is not a runtime spec.
    #[error("{path}:{line}:{column}: {field}: {reason}")]
    InvalidConfig {
        /// The file.
        path: PathBuf,
        /// The field, as `linux.seccomp.defaultAction`.
        field: String,
        /// Line of the file, from 1.
        line: usize,
        /// Column of the line, from 1.
        column: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A `config.json` that is too long to be one, or no regular file.
    #[error("{path}: {reason}")]
    NotAConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A spec that can't be written as JSON.
    #[error("writing the spec as JSON")]
    Serialize(#[source] serde_json::Error),
    /// The operating system refused.
    #[error("{action} {path}")]
    Io {
        /// What was being done ("writing", "opening").
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// The kinds of [`Error`] that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for is not there: a blob, a user, a file.
    NotFound,
    /// An option, an image or a `config.json` that makes no sense.
    Invalid,
    /// Something that this crate, or this machine, can't.
    Unsupported,
    /// Bytes are not what they were promised to be.
    Verification,
    /// The work was given up, by its caller or by the one who fetches.
    Cancelled,
    /// No space, or quota exceeded.
    StorageFull,
    /// The system refused access.
    PermissionDenied,
    /// Anything else from the system, a store or a snapshotter.
    Io,
}

impl Error {
    /// The kind of this error, for callers to branch on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownUser(_) | Self::UnknownGroup(_) | Self::CdiDevice { .. } => ErrorKind::NotFound,
            Self::LayerCount { .. }
            | Self::InvalidDiffId { .. }
            | Self::NoCommand
            | Self::UnmappedId { .. }
            | Self::InvalidOption { .. }
            | Self::RootFile { .. }
            | Self::InvalidConfig { .. }
            | Self::NotAConfig { .. }
            | Self::Serialize(_) => ErrorKind::Invalid,
            Self::UnsupportedLayer { .. } | Self::UnsupportedMount { .. } => ErrorKind::Unsupported,
            Self::LayerSize { .. } | Self::DiffIdMismatch { .. } => ErrorKind::Verification,
            Self::Cancelled { .. } => ErrorKind::Cancelled,
            Self::NeedsPrivilege { .. } => ErrorKind::PermissionDenied,
            Self::Content { source, .. } => of_content(source),
            Self::Apply { source, .. } | Self::Snapshot { source, .. } => of_snapshot(source),
            Self::Io { source, .. } => of_io(source),
        }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn option(option: &'static str, value: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidOption {
            option,
            value: value.into(),
            reason: reason.into(),
        }
    }
}

fn of_content(error: &longshore_content::Error) -> ErrorKind {
    use longshore_content::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound => ErrorKind::NotFound,
        Kind::Verification | Kind::Corrupt => ErrorKind::Verification,
        Kind::Abandoned => ErrorKind::Cancelled,
        Kind::Unsupported => ErrorKind::Unsupported,
        Kind::StorageFull => ErrorKind::StorageFull,
        Kind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Io,
    }
}

fn of_snapshot(error: &longshore_snapshot::Error) -> ErrorKind {
    use longshore_snapshot::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound => ErrorKind::NotFound,
        Kind::InvalidLayer => ErrorKind::Invalid,
        Kind::Verification => ErrorKind::Verification,
        Kind::Unsupported => ErrorKind::Unsupported,
        Kind::StorageFull => ErrorKind::StorageFull,
        Kind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Io,
    }
}

fn of_io(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound => ErrorKind::NotFound,
        Kind::StorageFull | Kind::QuotaExceeded => ErrorKind::StorageFull,
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        _ => ErrorKind::Io,
    }
}
