use std::path::PathBuf;

use crate::Status;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an executor's call failed. Branch on [`kind`](Self::kind).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a container id.
    #[error("invalid container id '{id}': {reason}")]
    InvalidId {
        /// What was given.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No such container (or no such exec in it).
    #[error("container '{0}' does not exist")]
    NotFound(String),
    /// The id is taken.
    #[error("container '{0}' exists already; delete it first or choose another id")]
    AlreadyExists(String),
    /// The container is in another state than the call needs.
    #[error("cannot {action} container '{id}': it is {status}")]
    WrongStatus {
        /// The container.
        id: String,
        /// What was asked for.
        action: &'static str,
        /// What the container is.
        status: Status,
    },
    /// The runtime spec says something that is not valid.
    #[error("{field}: {reason}")]
    InvalidSpec {
        /// The field, as a path into `config.json` (`linux.resources.memory.limit`).
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The runtime spec asks for something that this executor, this build or this machine can't do.
    #[error("{field}: not supported: {reason}")]
    Unsupported {
        /// The field, as a path into `config.json`.
        field: String,
        /// Why, and what to do.
        reason: String,
    },
    /// `config.json` can't be read as a runtime spec.
    #[error("{path}: {reason}")]
    InvalidBundle {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the field or the line.
        reason: String,
    },
    /// A step of the start failed in the container's init process.
    #[error("{field}: {step}")]
    Step {
        /// The spec field that asked for it, as a path into `config.json`.
        field: String,
        /// What was being done, with its arguments.
        step: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A hook failed.
    #[error("{field}: {reason}")]
    Hook {
        /// Which one (`hooks.createRuntime[0]`).
        field: String,
        /// Exit status or time-out, with what it wrote to stderr.
        reason: String,
    },
    /// The cgroup could not be made, entered or limited.
    #[error("cgroup {path}: {action}")]
    Cgroup {
        /// The group or file.
        path: PathBuf,
        /// What was being done.
        action: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The state directory says something impossible.
    #[error("{path}: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A checkpoint could not be made or restored.
    #[error("{reason}")]
    Criu {
        /// What CRIU says, and where its log is.
        reason: String,
    },
    /// The operating system refused something outside the container.
    #[error("{action}")]
    Io {
        /// What was being done, and on what.
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
    /// The container is not in the state that the call needs.
    FailedPrecondition,
    /// The input is not valid.
    Invalid,
    /// This machine or this build can't.
    Unsupported,
    /// A step of the start failed inside the container.
    Start,
    /// The state on disk is damaged.
    Corrupt,
    /// The system refused access.
    PermissionDenied,
    /// Anything else from the system.
    Io,
}

impl Error {
    /// The kind of this error, for callers to branch on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidId { .. } | Self::InvalidSpec { .. } | Self::InvalidBundle { .. } => ErrorKind::Invalid,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::AlreadyExists(_) => ErrorKind::AlreadyExists,
            Self::WrongStatus { .. } => ErrorKind::FailedPrecondition,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Step { .. } | Self::Hook { .. } => ErrorKind::Start,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Criu { .. } => ErrorKind::Io,
            Self::Cgroup { source, .. } | Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                    ErrorKind::PermissionDenied
                }
                _ => ErrorKind::Io,
            },
        }
    }
}
