use std::io::{self, BufReader, Read};

use crate::apply::Compression;
use crate::apply::source::{READ, detect};

/// Reads what is compressed by gzip or zstd, or not at all, whichever its first bytes tell. As for layers: several members, and zstd's skippable frames, are one stream.
///
/// Nothing is read before the first byte is asked for. How much comes out of a few bytes is for the reader to bound.
///
/// ```
/// use std::io::Read;
/// use longshore_snapshot::Decompressor;
///
/// let mut text = String::new();
/// Decompressor::new(&b"plain"[..]).read_to_string(&mut text)?;
/// assert_eq!(text, "plain");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Decompressor<'a>(State<'a>);

enum State<'a> {
    New(Box<dyn Read + Send + 'a>),
    Open(Box<dyn Read + Send + 'a>),
    Failed,
}

impl std::fmt::Debug for Decompressor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

impl<'a> Decompressor<'a> {
    /// Over what `inner` reads.
    pub fn new(inner: impl Read + Send + 'a) -> Self {
        Self(State::New(Box::new(inner)))
    }
}

impl Read for Decompressor<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut open = match std::mem::replace(&mut self.0, State::Failed) {
            State::New(inner) => open(inner)?,
            State::Open(open) => open,
            State::Failed => return Err(io::Error::other("reading it failed before")),
        };
        match open.read(buf) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            outcome => {
                self.0 = State::Open(open);
                outcome
            }
        }
    }
}

fn open<'a>(inner: Box<dyn Read + Send + 'a>) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut inner = BufReader::with_capacity(READ, inner);
    let compression = detect(&mut inner).map_err(io::Error::other)?;
    Ok(match compression {
        Compression::None => Box::new(inner),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(inner)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(inner)?),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{Compression, Compressor};

    #[test]
    fn what_was_compressed_comes_back_and_damage_is_told() {
        let bytes: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut compressor = Compressor::new(compression, Vec::new()).unwrap();
            compressor.write_all(&bytes).unwrap();
            let mut packed = compressor.finish().unwrap();
            let mut found = Vec::new();
            Decompressor::new(packed.as_slice()).read_to_end(&mut found).unwrap();
            assert_eq!(found, bytes, "{compression:?}");
            if compression != Compression::None {
                packed.truncate(packed.len() / 2);
                let mut cut = Decompressor::new(packed.as_slice());
                assert!(cut.read_to_end(&mut Vec::new()).is_err(), "{compression:?}");
                assert!(cut.read(&mut [0]).is_err(), "{compression:?}: it failed before");
            }
        }
    }
}
