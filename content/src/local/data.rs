//! The file that holds the bytes of an ingest, and later of the blob: the same open file, renamed.

use std::fs::File;
use std::io::IoSlice;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev};

use crate::blob::Source;
use crate::error::IoContext;
use crate::{Error, Result};

/// Pieces that one pwritev(2) takes (IOV_MAX).
const PIECES: usize = 1024;

/// An open file, with its path for messages.
#[derive(Debug)]
pub(crate) struct DataFile {
    file: File,
    path: PathBuf,
}

impl DataFile {
    /// Opens for reading. The file's length is returned too.
    pub(crate) fn open(path: PathBuf) -> std::io::Result<(Self, std::fs::Metadata)> {
        let file = File::options()
            .read(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)?;
        let metadata = file.metadata()?;
        Ok((Self { file, path }, metadata))
    }

    /// Opens or creates for appending behind `offset`; what is there after it is cut off.
    pub(crate) fn open_to_append(path: &Path, offset: u64) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .during("opening", path)?;
        file.set_len(offset).during("truncating", path)?;
        Ok(Self {
            file,
            path: path.into(),
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Writes all the pieces at an offset.
    pub(crate) fn write_at(&self, pieces: &[Bytes], mut offset: u64) -> Result<()> {
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            let count = left.len().min(PIECES);
            match pwritev(&self.file, &left[..count], offset) {
                Err(Errno::INTR) => {}
                Ok(0) => return Err(std::io::Error::from(std::io::ErrorKind::WriteZero)).during("writing", &self.path),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(error) => return Err(error).during("writing", &self.path),
            }
        }
        Ok(())
    }

    /// Hands all bytes to the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().during("syncing", &self.path)
    }

    fn answer(&self, count: usize) -> Result<usize> {
        if count == 0 {
            // Callers ask only for bytes that the file once had.
            return Err(Error::Corrupt {
                path: self.path.clone(),
                reason: "the file is shorter than it was".into(),
            });
        }
        Ok(count)
    }
}

impl Source for DataFile {
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            match rustix::io::pread(&self.file, &mut *buf, offset) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).during("reading", &self.path),
                Ok(count) => return self.answer(count),
            }
        }
    }

    fn read_now(&self, offset: u64, buf: &mut [u8]) -> Option<Result<usize>> {
        let mut slices = [std::io::IoSliceMut::new(buf)];
        // Answers from the page cache, or not at all. Any refusal is left to the blocking read to explain.
        match preadv2(&self.file, &mut slices, offset, ReadWriteFlags::NOWAIT) {
            Ok(count) if count > 0 => Some(Ok(count)),
            _ => None,
        }
    }
}
