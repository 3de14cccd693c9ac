use std::path::PathBuf;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why talking to a registry, or pulling from it, failed. Branch on [`kind`](Self::kind). Never carries a credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a reference.
    #[error("'{reference}' is not an image reference: {reason}; a reference looks like registry.example/team/app:1.0")]
    InvalidReference {
        /// What was given.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry has no such thing.
    #[error("{what} was not found at {registry}; check the name and the tag")]
    NotFound {
        /// The reference or digest that was asked for.
        what: String,
        /// The registry's host.
        registry: String,
    },
    /// The registry wants other credentials.
    #[error(
        "{registry} denied {action} on {repository}: {reason}; log in (`docker login {registry}`, `podman login {registry}`), or check the credentials for it"
    )]
    Unauthorized {
        /// The registry's host.
        registry: String,
        /// `pull` or `push`.
        action: &'static str,
        /// The repository.
        repository: String,
        /// What the registry said.
        reason: String,
    },
    /// The registry answered what the specification does not allow, or what we do not believe.
    #[error("{registry} sent {what}: {reason}")]
    Protocol {
        /// The registry's host.
        registry: String,
        /// What was sent.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry answered with an error status.
    #[error("{registry} answered {status} to {request}: {reason}")]
    Status {
        /// The registry's host.
        registry: String,
        /// The HTTP status.
        status: u16,
        /// The request, without its query.
        request: String,
        /// What the registry said.
        reason: String,
    },
    /// Something is larger than what we are ready to take.
    #[error("{what} is {size} bytes; at most {limit} are accepted")]
    TooLarge {
        /// What it is.
        what: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The bytes are not the ones that the digest names.
    #[error(
        "{what} from {registry} has digest {actual}, expected {expected}: it was changed on the way or the registry is damaged; nothing was stored"
    )]
    DigestMismatch {
        /// What was fetched.
        what: String,
        /// The registry's host.
        registry: String,
        /// The digest asked for.
        expected: String,
        /// What came.
        actual: String,
    },
    /// The connection ended early or never came up; retries did not help.
    #[error("{request} at {registry} failed")]
    Transport {
        /// The registry's host.
        registry: String,
        /// The request, without its query.
        request: String,
        /// The client's answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The image has no variant for the platform that was asked for.
    #[error("{reference} has no image for {wanted}; it has {available}")]
    NoMatchingPlatform {
        /// The image.
        reference: String,
        /// The platform that was asked for.
        wanted: String,
        /// The platforms that there are.
        available: String,
    },
    /// A media type that is not an image we know.
    #[error("{what} has media type '{media_type}', which is not supported here")]
    UnsupportedMediaType {
        /// What it is.
        what: String,
        /// Its type.
        media_type: String,
    },
    /// An [`ImageVerifier`](crate::ImageVerifier) said no.
    #[error("image {reference} was refused: {reason}")]
    Refused {
        /// The image.
        reference: String,
        /// The verifier's reason.
        reason: String,
    },
    /// The content store failed.
    #[error("storing {what}")]
    Content {
        /// What was being stored or read.
        what: String,
        /// The store's error.
        source: longshore_content::Error,
    },
    /// The caller's [`Keeper`](crate::Keeper) could not protect what a pull needs from garbage collection.
    #[error("protecting {what} from garbage collection")]
    Keep {
        /// What was to be protected.
        what: String,
        /// The keeper's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An OCI image layout on disk could not be read or written.
    #[error("{action} {path}, part of an OCI image layout")]
    Layout {
        /// What was being done ("reading", "replacing").
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The stream of an archive failed.
    #[error("{doing} an archive of images")]
    Archive {
        /// `reading` or `writing`.
        doing: &'static str,
        /// The stream's answer.
        source: std::io::Error,
    },
    /// Not a platform.
    #[error("'{platform}' is not a platform: {reason}; a platform looks like linux/amd64 or linux/arm64/v8")]
    InvalidPlatform {
        /// What was given.
        platform: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The client could not be built from the settings that were given.
    #[error("setting up the registry client: {what}")]
    Setup {
        /// Which setting.
        what: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Not a host.
    #[error("'{host}' is not a host: {reason}; a host looks like https://mirror.example")]
    InvalidHost {
        /// What was given.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What is configured of a registry's hosts can't be used.
    #[error("{place}: {reason}")]
    HostsFile {
        /// The file, and the line if it is known.
        place: String,
        /// The key, and what is wrong with it.
        reason: String,
    },
    /// None of a registry's hosts may be asked.
    #[error("no host of {registry} may be asked to {capability}: give one that capability in its hosts.toml")]
    NoHost {
        /// The registry.
        registry: String,
        /// `pull`, `resolve` or `push`.
        capability: &'static str,
    },
    /// Every host of a registry failed. The last one's error, by which this one's [`kind`](Self::kind) goes, is the source.
    #[error("{registry} and its mirrors failed ({others})")]
    AllHosts {
        /// The registry.
        registry: String,
        /// The other hosts, with the reason of each.
        others: String,
        /// What the last one failed with.
        source: Box<Error>,
    },
    /// A credential source failed.
    #[error("credentials for {registry}: {reason}")]
    Credentials {
        /// The registry's host.
        registry: String,
        /// What went wrong.
        reason: String,
    },
}

/// The kinds of [`Error`] that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input is not valid.
    Invalid,
    /// The registry has no such thing.
    NotFound,
    /// Other credentials are needed.
    Unauthorized,
    /// The other side breaks the protocol.
    Protocol,
    /// Bytes are not what they were promised to be.
    Verification,
    /// The other side can't be reached or failed; later it may work.
    Unavailable,
    /// No variant for this platform, or an unknown media type.
    Unsupported,
    /// Policy refused it.
    Refused,
    /// The local store failed: see the source.
    Content,
}

impl Error {
    /// The kind of this error, for callers to branch on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidReference { .. } => ErrorKind::Invalid,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Unauthorized { .. } | Self::Credentials { .. } => ErrorKind::Unauthorized,
            Self::Protocol { .. } | Self::TooLarge { .. } => ErrorKind::Protocol,
            Self::DigestMismatch { .. } => ErrorKind::Verification,
            Self::Status { .. } | Self::Transport { .. } => ErrorKind::Unavailable,
            Self::NoMatchingPlatform { .. } | Self::UnsupportedMediaType { .. } => ErrorKind::Unsupported,
            Self::Refused { .. } => ErrorKind::Refused,
            Self::Content { source, .. } if source.kind() == longshore_content::ErrorKind::Verification => {
                ErrorKind::Verification
            }
            Self::Content { .. } | Self::Keep { .. } => ErrorKind::Content,
            Self::Layout { source, .. } if source.kind() == std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::Layout { .. } | Self::Archive { .. } => ErrorKind::Unavailable,
            Self::InvalidPlatform { .. } | Self::Setup { .. } => ErrorKind::Invalid,
            Self::InvalidHost { .. } | Self::HostsFile { .. } => ErrorKind::Invalid,
            Self::NoHost { .. } => ErrorKind::Unsupported,
            Self::AllHosts { source, .. } => source.kind(),
        }
    }
}
