use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::Spec;

use crate::{ContainerId, Io, Reaper};

bitflags::bitflags! {
    /// What CRIU may or shall do on the way (criu(8)).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct CriuFlags: u32 {
        /// Keep established TCP connections (`--tcp-established`).
        const TCP_ESTABLISHED = 1;
        /// Leave connections out that are not accepted yet (`--skip-in-flight`); checkpoints only.
        const TCP_SKIP_IN_FLIGHT = 1 << 1;
        /// Give names to files that have none any more (`--link-remap`); checkpoints only.
        const LINK_REMAP = 1 << 2;
        /// Allow Unix sockets with an end outside (`--ext-unix-sk`).
        const EXTERNAL_UNIX_SOCKETS = 1 << 3;
        /// Allow a session or process group whose leader is outside (`--shell-job`).
        const SHELL_JOB = 1 << 4;
        /// Keep file locks (`--file-locks`).
        const FILE_LOCKS = 1 << 5;
        /// Drop pages of the parent checkpoint that this one has newer (`--auto-dedup`).
        const AUTO_DEDUP = 1 << 6;
        /// Move pages only when they are asked for (`--lazy-pages`).
        const LAZY_PAGES = 1 << 7;
    }
}

/// How CRIU treats cgroups (`--manage-cgroups`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CriuCgroups {
    /// CRIU's own choice, which is [`Soft`](Self::Soft).
    #[default]
    Default,
    /// Not at all: a restored container is where this executor puts it.
    Ignore,
    /// Make what is missing, and set the properties of what it made.
    Soft,
    /// Make all, and set all properties.
    Full,
    /// Make all; what is there already is an error.
    Strict,
}

/// What a checkpoint and a restore have in common.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CriuOptions {
    /// The program, by path or by name in `PATH`.
    pub program: PathBuf,
    /// Where the image files are. A checkpoint makes the directory, with mode 0700, below one that is there.
    pub images: PathBuf,
    /// Where the log is; the images' directory if there is none. Made likewise.
    pub work: Option<PathBuf>,
    /// See there.
    pub flags: CriuFlags,
    /// How it treats cgroups.
    pub cgroups: CriuCgroups,
    /// A configuration file that goes before all this. The annotation `org.criu.config` of the container names another one.
    pub config: Option<PathBuf>,
}

impl CriuOptions {
    /// The plain way, with images in a directory.
    pub fn new(images: impl Into<PathBuf>) -> Self {
        Self {
            program: "criu".into(),
            images: images.into(),
            work: None,
            flags: CriuFlags::default(),
            cgroups: CriuCgroups::default(),
            config: None,
        }
    }
}

/// What a checkpoint is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckpointKind {
    /// All of the container, which ends.
    #[default]
    Stop,
    /// All of it, and it goes on.
    LeaveRunning,
    /// Its memory only, as the parent of a later one; it goes on.
    PreDump,
}

/// Asks for a checkpoint of a container.
#[derive(Debug)]
#[non_exhaustive]
pub struct CheckpointRequest {
    /// For CRIU.
    pub criu: CriuOptions,
    /// What kind.
    pub kind: CheckpointKind,
    /// The images of an earlier one, relative to this one's directory: only what has changed since is saved.
    pub parent: Option<PathBuf>,
    /// A server that takes the pages, as address and port.
    pub page_server: Option<(String, u16)>,
    /// Where a zero byte is written when pages can be asked for.
    pub ready: Option<OwnedFd>,
}

impl CheckpointRequest {
    /// A whole checkpoint that ends the container.
    pub fn new(criu: CriuOptions) -> Self {
        Self {
            criu,
            kind: CheckpointKind::default(),
            parent: None,
            page_server: None,
            ready: None,
        }
    }
}

/// Asks for a container out of a checkpoint.
#[derive(Debug)]
#[non_exhaustive]
pub struct RestoreRequest {
    /// Its id.
    pub id: ContainerId,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The runtime spec, as that of the container that was saved: mounts, namespaces and cgroups are taken from it.
    pub spec: Spec,
    /// Where its streams go. Pipes that it had are replaced by these.
    pub io: Io,
    /// For CRIU.
    pub criu: CriuOptions,
    /// Another LSM profile for its processes, as `TYPE:NAME`.
    pub lsm_profile: Option<String>,
    /// Another SELinux context for its mounts.
    pub lsm_mount_context: Option<String>,
    /// Who learns how its first process ends.
    pub reaper: Reaper,
}

impl RestoreRequest {
    /// The container of a spec, out of the images that the options name.
    pub fn new(id: ContainerId, bundle: impl Into<PathBuf>, spec: Spec, io: Io, criu: CriuOptions) -> Self {
        Self {
            id,
            bundle: bundle.into(),
            spec,
            io,
            criu,
            lsm_profile: None,
            lsm_mount_context: None,
            reaper: Reaper::default(),
        }
    }

    /// The same, and who learns how its first process ends.
    #[must_use]
    pub fn reaper(mut self, reaper: Reaper) -> Self {
        self.reaper = reaper;
        self
    }
}
