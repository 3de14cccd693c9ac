//! The exclusive right to an ingest's directory, against other processes and other stores of this process.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::error::IoContext;
use crate::{Error, Result};

/// Holds the directory of one ingest by flock(2) on it. The kernel lets go of it when the process dies.
#[derive(Debug)]
#[must_use = "the claim ends when this is dropped"]
pub(crate) struct Claim {
    path: PathBuf,
    directory: File,
}

impl Claim {
    /// Claims the directory of `reference`, making it if it is missing.
    pub(crate) fn take(path: &Path, reference: &str) -> Result<Self> {
        loop {
            match fs::DirBuilder::new().mode(0o755).create(path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error).during("creating", path);
                }
                _ => {}
            }
            if let Some(claim) = Self::take_existing(path, reference)? {
                return Ok(claim);
            }
            // Its former holder removed it between our two steps.
        }
    }

    /// Claims the directory if it is there.
    pub(crate) fn take_existing(path: &Path, reference: &str) -> Result<Option<Self>> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let opened = File::options()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path);
        let directory = match opened {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.during("opening", path)?,
        };
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::InUse(reference.into())),
            locked => locked.during("locking", path)?,
        }
        // What we locked may have been removed, and even made anew, since we opened it.
        let ours = directory.metadata().during("reading", path)?;
        let same = fs::symlink_metadata(path).is_ok_and(|now| now.dev() == ours.dev() && now.ino() == ours.ino());
        Ok(same.then(|| Self {
            path: path.into(),
            directory,
        }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the names in the directory durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.directory.sync_all().during("syncing", &self.path)
    }

    /// Removes the directory, and all that is in it, and lets go.
    pub(crate) fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.path).during("removing", &self.path)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Closing is not enough while a child that was just forked still has a copy of the descriptor.
        let _ = flock(&self.directory, FlockOperation::Unlock);
    }
}
