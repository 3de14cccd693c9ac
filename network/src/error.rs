/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. Branch on [`kind`](Self::kind).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No link of that name in the namespace.
    #[error("there is no link '{0}' in the network namespace")]
    NoSuchLink(String),
    /// A path that is not a network namespace.
    #[error("{path} is not a network namespace; give a path such as /proc/PID/ns/net")]
    NotANamespace {
        /// The path.
        path: std::path::PathBuf,
    },
    /// The kernel refused a request about links, addresses or routes.
    #[error("{action}")]
    Netlink {
        /// What was being done, on what.
        action: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// The operating system refused.
    #[error("{action}")]
    Io {
        /// What was being done, on what.
        action: String,
        /// The system's answer.
        source: std::io::Error,
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
    /// The input is not valid.
    Invalid,
    /// The system refused access.
    PermissionDenied,
    /// Anything else from the system.
    Io,
}

impl Error {
    /// The kind of this error, for callers to branch on.
    pub fn kind(&self) -> ErrorKind {
        let of_system = |error: &std::io::Error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            std::io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        match self {
            Self::NoSuchLink(_) => ErrorKind::NotFound,
            Self::NotANamespace { .. } => ErrorKind::Invalid,
            Self::Netlink {
                source: rtnetlink::Error::NetlinkError(message),
                ..
            } => of_system(&message.to_io()),
            Self::Netlink { .. } => ErrorKind::Io,
            Self::Io { source, .. } => of_system(source),
        }
    }
}
