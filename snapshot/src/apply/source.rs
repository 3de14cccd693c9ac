use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use crate::apply::Compression;
use crate::{Error, Result};

/// How much is read from the layer at once.
pub(super) const READ: usize = 256 * 1024;

/// The uncompressed bytes of a layer.
pub(super) struct Source<'a> {
    reader: Box<dyn Read + 'a>,
    failure: Failure,
}

/// Where an error of the layer's own reader is kept, so that it can be told from damage that the decompressor found.
type Failure = Arc<Mutex<Option<io::Error>>>;

impl<'a> Source<'a> {
    pub(super) fn open(layer: impl Read + 'a, compression: Option<Compression>) -> Result<Self> {
        let failure = Failure::default();
        let mut layer = BufReader::with_capacity(
            READ,
            Watched {
                inner: layer,
                failure: Arc::clone(&failure),
            },
        );
        let compression = match compression {
            Some(compression) => compression,
            None => detect(&mut layer)?,
        };
        let reader: Box<dyn Read + 'a> = match compression {
            Compression::None => Box::new(layer),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(layer)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(layer).map_err(Error::Source)?),
        };
        Ok(Self { reader, failure })
    }

    /// Reads some bytes into `buf`; 0 is the end. `offset` is how many came before, for the error's text.
    pub(super) fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<usize> {
        loop {
            match self.reader.read(buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.explain(error, offset)),
                Ok(len) => return Ok(len),
            }
        }
    }

    fn explain(&self, error: io::Error, offset: u64) -> Error {
        let own = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        match own {
            Some(source) => Error::Source(source),
            None => Error::DamagedLayer {
                offset,
                reason: match error.kind() {
                    io::ErrorKind::UnexpectedEof => "it ends in the middle of the compressed data".into(),
                    _ => error.to_string(),
                },
            },
        }
    }
}

/// Looks at the first bytes without taking them. A reader may give few bytes at a time, but the buffer asks once only, so a
/// layer that begins with fewer than four bytes is taken as plain: no compressed format is that short.
pub(super) fn detect(layer: &mut BufReader<impl Read>) -> Result<Compression> {
    loop {
        match layer.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::Source(error)),
            Ok(start) => return Ok(Compression::of_bytes(start)),
        }
    }
}

/// Keeps the error of the layer's own reader.
struct Watched<R> {
    inner: R,
    failure: Failure,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buf) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let kind = error.kind();
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(kind.into())
            }
            answer => answer,
        }
    }
}
