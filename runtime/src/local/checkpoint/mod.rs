//! Checkpoints of containers, and containers out of checkpoints.

mod dump;
mod outside;
mod places;
mod restore;

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

pub(super) use dump::dump;
pub(super) use restore::restore;

use crate::checkpoint::{CriuOptions, Kind, Response, Service};
use crate::host::io_error;
use crate::{Error, Result};

/// The oldest CRIU that can be asked for its version.
const OLDEST: u32 = 30_000;
/// Its options for all containers, unless an annotation names another file.
const CONFIG: &str = "/etc/criu/runc.conf";
const CONFIG_ANNOTATION: &str = "org.criu.config";
/// What a container's streams were, beside CRIU's images.
const DESCRIPTORS: &str = "descriptors.json";
/// How many errors of CRIU's log are told; the reason comes before what follows from it.
const LAST_ERRORS: usize = 3;
const CLONE_NEWNET: u32 = 0x4000_0000;

/// Makes sure that CRIU is there.
fn check_version(criu: &CriuOptions) -> Result<()> {
    let version = Service::answer(&criu.program, Kind::Version)?.version;
    if version < OLDEST {
        return Err(Error::Criu {
            reason: format!("CRIU version {version} must be {OLDEST} or higher"),
        });
    }
    Ok(())
}

/// CRIU saves a mount namespace with what is mounted in it, and looks for a container's mounts nowhere else.
fn check_mounts(spec: &Spec) -> Result<()> {
    if crate::plan::has_its_mounts_in_its_namespace(spec) {
        return Ok(());
    }
    Err(Error::Unsupported {
        field: "linux.namespaces".into(),
        reason: "CRIU can't save a container that shares its mount namespace".into(),
    })
}

/// The directories of a checkpoint, open.
#[derive(Debug)]
struct Directories {
    images: OwnedFd,
    work: Option<OwnedFd>,
    log: PathBuf,
}

impl Directories {
    fn open(criu: &CriuOptions, log: &str) -> Result<Self> {
        let work = criu.work.as_deref();
        Ok(Self {
            images: open(&criu.images)?,
            work: work.map(open).transpose()?,
            log: work.unwrap_or(&criu.images).join(log),
        })
    }

    /// An error of CRIU, with what its log says last of an error.
    fn explain(&self, error: Error) -> Error {
        let Error::Criu { reason } = error else { return error };
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let errors: Vec<_> = log.lines().filter(|line| line.contains("Error")).collect();
        let last = &errors[errors.len().saturating_sub(LAST_ERRORS)..];
        Error::Criu {
            reason: format!("{reason}; {} says: {}", self.log.display(), last.join(" | ")),
        }
    }
}

/// Makes a directory unless it is there, and opens it.
fn open(path: &Path) -> Result<OwnedFd> {
    let fail = || format!("open the directory {}", path.display());
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error).map_err(io_error(fail())),
        _ => {}
    }
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(io_error(fail()))
}

/// The configuration file that goes before the request: the container's own, which may be none, or the one that was asked for.
fn config(criu: &CriuOptions, spec: &Spec) -> Option<String> {
    let annotated = spec.annotations().as_ref().and_then(|all| all.get(CONFIG_ANNOTATION));
    match (annotated, &criu.config) {
        (Some(path), _) => Some(path.clone()).filter(|path| !path.is_empty()),
        (None, Some(path)) => Some(path.to_string_lossy().into_owned()),
        (None, None) => Some(CONFIG.to_owned()),
    }
}

/// The root filesystem, as the host has it.
fn rootfs(bundle: &Path, spec: &Spec) -> Result<PathBuf> {
    let path = bundle.join(spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default());
    fs::canonicalize(&path).map_err(io_error(format!("find the root filesystem {}", path.display())))
}

fn response_pid(response: &Response) -> Result<i32> {
    response.pid.ok_or_else(|| Error::Criu {
        reason: "criu does not say which process it has restored".into(),
    })
}
