//! Blobs as `std::io` readers and as streams.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};

use crate::{Blob, Error, ErrorKind, Result};

/// What a stream yields at once, in bytes.
const PIECE: usize = 256 << 10;

/// A blob as a blocking reader, for a thread that may block: it waits for bytes that are still on the way.
///
/// It has no buffer: each `read` is one system call, so read 256 KiB or more at once, or wrap it in a
/// [`BufReader`](io::BufReader) of that size. Errors are [`io::Error`]s around this crate's [`Error`]
/// (see [`io::Error::get_ref`]).
#[derive(Clone, Debug)]
pub struct BlobReader {
    blob: Arc<dyn Blob>,
    position: u64,
}

impl BlobReader {
    /// Reads from the beginning.
    pub fn new(blob: Arc<dyn Blob>) -> Self {
        Self { blob, position: 0 }
    }

    /// The offset of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The blob that is read.
    pub fn blob(&self) -> &Arc<dyn Blob> {
        &self.blob
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.blob.read_at_blocking(self.position, buf)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for BlobReader {
    /// Seeking from the end needs a blob of known length, which one in flight may not be.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => {
                let size = self.blob.size().ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::Unsupported,
                        "the length of a blob in flight is not known yet",
                    )
                })?;
                size.checked_add_signed(by)
            }
        };
        self.position =
            target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek to before the first byte"))?;
        Ok(self.position)
    }
}

/// The bytes of a range of a blob, in pieces of up to 256 KiB; it ends early at the blob's end.
///
/// Use `0..u64::MAX` for all of it. After an error the stream ends.
pub fn stream(blob: Arc<dyn Blob>, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
    stream::unfold(Some((blob, range, BytesMut::new())), |state| async {
        let (blob, mut range, mut buffer) = state?;
        let length = usize::try_from(range.end.saturating_sub(range.start)).map_or(PIECE, |left| left.min(PIECE));
        if length == 0 {
            return None;
        }
        buffer.resize(length, 0);
        match blob.read_at(range.start, &mut buffer).await {
            Ok(0) => None,
            Ok(count) => {
                range.start += count as u64;
                let piece = buffer.split_to(count).freeze();
                Some((Ok(piece), Some((blob, range, buffer))))
            }
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

/// What `Arc<dyn Blob>` can do besides.
pub trait BlobExt {
    /// A blocking reader from the beginning.
    fn reader(&self) -> BlobReader;

    /// All bytes as a stream; see [`stream()`].
    fn stream(&self) -> BoxStream<'static, Result<Bytes>>;

    /// The bytes of a range as a stream; see [`stream()`].
    fn stream_range(&self, range: Range<u64>) -> BoxStream<'static, Result<Bytes>>;
}

impl BlobExt for Arc<dyn Blob> {
    fn reader(&self) -> BlobReader {
        BlobReader::new(self.clone())
    }

    fn stream(&self) -> BoxStream<'static, Result<Bytes>> {
        stream(self.clone(), 0..u64::MAX)
    }

    fn stream_range(&self, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
        stream(self.clone(), range)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::AlreadyExists => io::ErrorKind::AlreadyExists,
            ErrorKind::InUse => io::ErrorKind::ResourceBusy,
            ErrorKind::Verification | ErrorKind::Corrupt => io::ErrorKind::InvalidData,
            ErrorKind::TooLarge => io::ErrorKind::FileTooLarge,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::StorageFull => io::ErrorKind::StorageFull,
            ErrorKind::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
            // Not Interrupted: `read_to_end` and its kin would try again for ever.
            ErrorKind::Abandoned => io::ErrorKind::BrokenPipe,
            ErrorKind::Io => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
