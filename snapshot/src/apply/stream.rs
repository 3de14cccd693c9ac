use std::mem;

use oci_spec::image::Digest;

use crate::apply::ApplyOptions;
use crate::apply::ahead::Ahead;
use crate::apply::hash::Hash;
use crate::{Error, Result};

/// What the headers of one entry may take, sparse maps among them.
const HEADERS_MAX: usize = 8 * 1024 * 1024;

/// The uncompressed bytes of a layer, hashed as they come.
pub(super) struct Stream {
    ahead: Ahead,
    hash: Hash,
    now: Piece,
    /// The one after, of which the beginning may have been taken already: it was put behind the end of `now`, for what lies across the two to be in one piece.
    next: Piece,
    /// Bytes that came from the source.
    total: u64,
    limit: Option<u64>,
}

/// Some bytes, of which those before `start` were taken.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    start: usize,
}

impl Piece {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl Stream {
    pub(super) fn new(ahead: Ahead, options: &ApplyOptions) -> Self {
        Self {
            ahead,
            hash: Hash::new(options.diff_id.as_ref()),
            now: Piece::default(),
            next: Piece::default(),
            total: 0,
            limit: options.limits.size,
        }
    }

    /// The bytes that are there already.
    pub(super) fn peek(&self) -> &[u8] {
        self.now.rest()
    }

    /// How many bytes were taken so far.
    pub(super) fn offset(&self) -> u64 {
        self.total - (self.now.rest().len() + self.next.rest().len()) as u64
    }

    /// Takes `len` bytes that [`peek`](Self::peek) showed.
    pub(super) fn consume(&mut self, len: usize) {
        debug_assert!(len <= self.now.rest().len());
        self.now.start += len;
    }

    /// Reads until `want` bytes are there or the end is reached, and says how many are there.
    pub(super) fn fill(&mut self, want: usize) -> Result<usize> {
        if want > HEADERS_MAX {
            return Err(Error::InvalidLayer {
                entry: format!("(the one at byte {})", self.offset()),
                reason: format!("its headers take more than {HEADERS_MAX} bytes"),
            });
        }
        loop {
            let have = self.now.rest().len();
            if have >= want {
                return Ok(have);
            }
            let more = match have {
                0 => self.advance()?,
                _ => self.receive()?,
            };
            if !more {
                return Ok(have);
            }
            if have > 0 {
                self.join(want - have);
            }
        }
    }

    /// The next bytes, at most `max`, at least one.
    pub(super) fn chunk(&mut self, max: u64) -> Result<&[u8]> {
        if self.now.rest().is_empty() && !self.advance()? {
            return Err(Error::DamagedLayer {
                offset: self.offset(),
                reason: "it ends in the middle of a file".into(),
            });
        }
        let rest = self.now.rest();
        Ok(&rest[..rest.len().min(usize::try_from(max).unwrap_or(usize::MAX))])
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
        while self.receive()? {
            self.next.start = self.next.bytes.len();
        }
        Ok((self.hash.finish(), self.total))
    }

    /// Goes on to the next piece when all of this one was taken; false at the end.
    fn advance(&mut self) -> Result<bool> {
        let more = self.receive()?;
        mem::swap(&mut self.now, &mut self.next);
        // All taken, and as long as it was: the bytes of one that is used again need not be cleared.
        self.next.start = self.next.bytes.len();
        Ok(more)
    }

    /// Puts some bytes of the next piece, `wanted` if it has as many, behind those that are left of this one. As many as there are at least: who asks for a little more
    /// each time, and looks at all of it again, gets twice as much.
    fn join(&mut self, wanted: usize) {
        let (now, next) = (&mut self.now, &mut self.next);
        now.bytes.drain(..now.start);
        now.start = 0;
        let len = next.rest().len().min(wanted.max(now.bytes.len()));
        now.bytes.extend_from_slice(&next.rest()[..len]);
        next.start += len;
    }

    /// Sees to it that there are bytes in the next piece; false at the end.
    fn receive(&mut self) -> Result<bool> {
        if !self.next.rest().is_empty() {
            return Ok(true);
        }
        let used = mem::take(&mut self.next).bytes;
        let Some(bytes) = self.ahead.next(used)? else {
            return Ok(false);
        };
        self.hash.update(&bytes);
        self.total += bytes.len() as u64;
        self.next.bytes = bytes;
        match self.limit {
            Some(limit) if self.total > limit => Err(Error::InvalidLayer {
                entry: format!("(the one at byte {})", self.offset()),
                reason: format!("the layer unpacks to more than the limit of {limit} bytes"),
            }),
            _ => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::thread;

    use super::*;
    use crate::apply::Compression;
    use crate::apply::ahead::PIECE;

    #[test]
    fn what_lies_across_pieces_is_in_one() {
        let bytes: Vec<u8> = (0..6 * PIECE + 700).map(|number| (number % 251) as u8).collect();
        thread::scope(|scope| {
            let ahead = Ahead::start(scope, bytes.as_slice(), Some(Compression::None)).unwrap();
            let mut stream = Stream::new(ahead, &ApplyOptions::default());
            let mut at = 0;
            for want in [1000, PIECE - 1500, 512, 600, 2 * PIECE, 1, PIECE] {
                assert!(stream.fill(want).unwrap() >= want);
                assert!(stream.peek()[..want] == bytes[at..at + want], "at {at}");
                stream.consume(want);
                at += want;
                assert_eq!(stream.offset(), at as u64);
            }
            let chunk = stream.chunk(100).unwrap();
            assert_eq!(chunk, &bytes[at..at + chunk.len()]);
            stream.skip((bytes.len() - at - 300) as u64).unwrap();
            assert_eq!(stream.fill(301).unwrap(), 300, "the end");
            assert_eq!(stream.peek(), &bytes[bytes.len() - 300..]);
            let (digest, size) = stream.finish().unwrap();
            let mut hash = Hash::new(None);
            hash.update(&bytes);
            assert_eq!((digest, size), (hash.finish(), bytes.len() as u64));
        });
    }

    #[test]
    fn who_stops_early_ends_the_reading() {
        thread::scope(|scope| {
            let ahead = Ahead::start(scope, io::repeat(7), Some(Compression::None)).unwrap();
            let mut stream = Stream::new(ahead, &ApplyOptions::default());
            assert_eq!(stream.chunk(5).unwrap(), [7; 5]);
        });
    }
}
