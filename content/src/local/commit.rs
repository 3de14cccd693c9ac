//! From a complete ingest to a blob: proved, then durable, then visible, then its name durable.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::ingest::Existing;
use super::layout::{make_directory, sync_directory};
use super::record::Checkpoint;
use super::writer::Writer;
use crate::blob::Source;
use crate::error::IoContext;
use crate::expect::{check_digests, check_sizes};
use crate::flight::Outcome;
use crate::hash::Hasher;
use crate::{Error, ErrorKind, Expected, Info, IngestStatus, Result};

impl Writer {
    /// Commits. Afterwards followers know the outcome, and what can't be resumed is removed.
    pub(crate) fn commit(&mut self, expected: &Expected, existing: Existing) -> Result<Info> {
        let hasher = self.rest();
        if let Some(failure) = self.air.shared.failure() {
            return Err(failure);
        }
        let committed = self
            .prove(&hasher, expected)
            .and_then(|digest| self.publish(digest, existing));
        self.landed(&committed);
        committed
    }

    /// Tells followers the outcome, and removes what is of no more use.
    pub(crate) fn landed(&mut self, committed: &Result<Info>) {
        self.air.land(match committed {
            Ok(_) | Err(Error::AlreadyExists(_)) => Outcome::Committed,
            Err(_) => Outcome::Abandoned,
        });
        self.throw_away(committed);
    }

    /// Size and digest are what both the request and the commit promised.
    pub(crate) fn prove(&self, hasher: &Hasher, expected: &Expected) -> Result<Digest> {
        // Not the handle's offset: what counts is what was written.
        let status = IngestStatus {
            offset: self.written,
            ..self.air.shared.status()
        };
        check_sizes(&status, expected)?;
        check_digests(&status, expected, hasher, |other| self.hash_again(other))
    }

    fn hash_again(&self, hasher: &mut Hasher) -> Result<()> {
        let mut buffer = vec![0; 256 << 10];
        let mut offset = 0;
        while offset < self.written {
            let count = self.data.read(offset, &mut buffer)?;
            hasher.update(&buffer[..count]);
            offset += count as u64;
        }
        Ok(())
    }

    fn publish(&self, digest: Digest, existing: Existing) -> Result<Info> {
        let layout = &self.air.store.layout;
        let blob = layout.blob(&digest)?;
        let directory = self.directory(&digest)?;
        if existing == Existing::Keep && fs::symlink_metadata(&blob).is_ok() {
            // Whoever was faster may not have made the name durable yet, and our caller takes this for success.
            sync_directory(&directory)?;
            return Err(Error::AlreadyExists(digest));
        }
        self.data.sync()?;
        let info = self.info(digest)?;
        let data = self.air.shared.path.join("data");
        let named = match existing {
            Existing::Keep => rename_to_new(&data, &blob),
            Existing::Replace => fs::rename(&data, &blob),
        };
        match named {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                sync_directory(&directory)?;
                return Err(Error::AlreadyExists(info.digest));
            }
            named => named.during("renaming an ingest to", &blob)?,
        }
        if let Err(error) = sync_directory(&directory) {
            // Visible, but perhaps not for long: better gone than believed.
            let _ = fs::remove_file(&blob);
            return Err(error);
        }
        Ok(info)
    }

    /// The directory that the blob goes to; made, and durable, if it is the first of its algorithm.
    pub(crate) fn directory(&self, digest: &Digest) -> Result<PathBuf> {
        let layout = &self.air.store.layout;
        let directory = layout.blobs(digest);
        if !directory.exists() {
            make_directory(&directory)?;
            sync_directory(&layout.root().join("blobs"))?;
        }
        Ok(directory)
    }

    /// What the blob will be: a new name does not change when a file was written.
    pub(crate) fn info(&self, digest: Digest) -> Result<Info> {
        let created = self.data.file().metadata().and_then(|metadata| metadata.modified());
        Ok(Info {
            digest,
            size: self.written,
            created: created.during("reading", &self.air.shared.path)?,
        })
    }

    /// Removes what is left of the ingest, unless the same bytes can be committed by a later try.
    pub(crate) fn throw_away(&mut self, committed: &Result<Info>) {
        let Some(claim) = self.claim.take() else { return };
        let kept = match committed {
            Ok(_) | Err(Error::AlreadyExists(_)) => false,
            Err(error) => error.kind() != ErrorKind::Verification,
        };
        let done = if kept {
            // The disk refused them, so nobody knows which of the bytes it has.
            Checkpoint::forget(&claim)
        } else {
            claim.remove()
        };
        if let Err(error) = done {
            tracing::debug!(%error, "left-overs of an ingest; the next open of the store removes them");
        }
    }
}

/// Renames to a name that must not exist.
pub(crate) fn rename_to_new(from: &Path, to: &Path) -> std::io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A filesystem that can't (NFS, some FUSE): a link refuses an existing name as well.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        renamed => Ok(renamed?),
    }
}
