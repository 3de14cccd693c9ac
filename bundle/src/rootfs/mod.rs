//! Reading single files of a root filesystem that nobody has mounted, and that nobody trusts.

mod merged;
mod view;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

pub use view::MountsView;

/// Files of a container's root filesystem, as they will be once it is mounted: what the spec builder reads
/// `/etc/passwd` and `/etc/group` from.
///
/// Calls may block on disk. An implementation must treat the tree as hostile: no path leaves it, whatever its
/// symbolic links say; nothing but a regular file is opened; no more than `limit` bytes are read.
pub trait RootFiles: Debug + Send + Sync {
    /// The bytes of a regular file, by absolute path; `None` when there is none at that path.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when it is longer than `limit` bytes or something else than a file, or
    /// its links lead in a circle.
    fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>>;
}

/// A root filesystem of which nothing is known: only numeric users can be resolved.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFiles;

impl RootFiles for NoFiles {
    fn read(&self, _path: &Path, _limit: u64) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// Files in memory, by absolute path.
impl RootFiles for BTreeMap<PathBuf, Vec<u8>> {
    fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        match self.get(path) {
            Some(bytes) if bytes.len() as u64 > limit => Err(too_long(path, limit)),
            found => Ok(found.cloned()),
        }
    }
}

fn too_long(path: &Path, limit: u64) -> Error {
    refuse(path, format!("it is longer than {limit} bytes"))
}

fn refuse(path: &Path, reason: impl Into<String>) -> Error {
    Error::RootFile {
        path: path.to_owned(),
        reason: reason.into(),
    }
}
