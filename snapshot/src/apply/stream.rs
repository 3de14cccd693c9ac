use std::io::Read;

use oci_spec::image::Digest;

use crate::apply::hash::Hash;
use crate::apply::source::Source;
use crate::apply::{ApplyOptions, Compression};
use crate::{Error, Result};

/// The buffer in its ordinary size. Content is written to files straight from it.
const BUFFER: usize = 256 * 1024;
/// The buffer at its largest: what the headers of one entry may take, sparse maps among them.
const BUFFER_MAX: usize = 8 * 1024 * 1024;

/// The uncompressed bytes of a layer in a buffer, hashed as they come.
pub(super) struct Stream<'a> {
    source: Source<'a>,
    hash: Hash,
    buf: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes that came from the source.
    total: u64,
    limit: Option<u64>,
}

impl<'a> Stream<'a> {
    pub(super) fn open(layer: impl Read + 'a, options: &ApplyOptions) -> Result<Self> {
        let compression: Option<Compression> = options.compression;
        Ok(Self {
            source: Source::open(layer, compression)?,
            hash: Hash::new(options.diff_id.as_ref()),
            buf: vec![0; BUFFER],
            start: 0,
            end: 0,
            total: 0,
            limit: options.limits.size,
        })
    }

    /// The bytes that are there already.
    pub(super) fn peek(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// How many bytes were taken so far.
    pub(super) fn offset(&self) -> u64 {
        self.total - (self.end - self.start) as u64
    }

    /// Takes `len` bytes that [`peek`](Self::peek) showed.
    pub(super) fn consume(&mut self, len: usize) {
        debug_assert!(len <= self.end - self.start);
        self.start += len;
    }

    /// Reads until `want` bytes are there or the end is reached, and says how many are there.
    pub(super) fn fill(&mut self, want: usize) -> Result<usize> {
        if want > BUFFER_MAX {
            return Err(Error::InvalidLayer {
                entry: format!("(the one at byte {})", self.offset()),
                reason: format!("its headers take more than {BUFFER_MAX} bytes"),
            });
        }
        if self.buf.len() - self.start < want {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.buf.len() < want {
                self.buf.resize(want.next_multiple_of(BUFFER).min(BUFFER_MAX), 0);
            }
        }
        while self.end - self.start < want {
            if self.pull()? == 0 {
                break;
            }
        }
        Ok(self.end - self.start)
    }

    /// The next bytes, at most `max`, at least one.
    pub(super) fn chunk(&mut self, max: u64) -> Result<&[u8]> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            // A decompressor may give little at a time; whole buffers make fewer writes.
            while self.end < self.buf.len() && (self.end as u64) < max {
                if self.pull()? == 0 {
                    break;
                }
            }
            if self.start == self.end {
                return Err(Error::DamagedLayer {
                    offset: self.offset(),
                    reason: "it ends in the middle of a file".into(),
                });
            }
        }
        let len = ((self.end - self.start) as u64).min(max) as usize;
        Ok(&self.buf[self.start..self.start + len])
    }

    /// Passes over `len` bytes.
    pub(super) fn skip(&mut self, mut len: u64) -> Result<()> {
        while len > 0 {
            let got = self.chunk(len)?.len();
            self.consume(got);
            len -= got as u64;
        }
        Ok(())
    }

    /// Reads to the end of the source, so that the hash covers every byte, and gives the hash and the size.
    pub(super) fn finish(mut self) -> Result<(Digest, u64)> {
        loop {
            self.start = 0;
            self.end = 0;
            if self.pull()? == 0 {
                return Ok((self.hash.finish(), self.total));
            }
        }
    }

    fn pull(&mut self) -> Result<usize> {
        let len = self.source.read(&mut self.buf[self.end..], self.total)?;
        self.hash.update(&self.buf[self.end..self.end + len]);
        self.end += len;
        self.total += len as u64;
        match self.limit {
            Some(limit) if self.total > limit => Err(Error::InvalidLayer {
                entry: format!("(the one at byte {})", self.offset()),
                reason: format!("the layer unpacks to more than the limit of {limit} bytes"),
            }),
            _ => Ok(len),
        }
    }
}
