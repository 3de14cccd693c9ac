use std::io::{self, Write};

use flate2::write::GzEncoder;

use crate::Compression;

/// How hard zstd tries: its own default.
const ZSTD_LEVEL: i32 = 3;

/// Compresses a layer while it is written. The same bytes in give the same bytes out: no time and no name is in a header.
///
/// ```
/// use std::io::Write;
/// use longshore_snapshot::{Compression, Compressor};
///
/// # fn main() -> std::io::Result<()> {
/// let mut compressor = Compressor::new(Compression::Gzip, Vec::new())?;
/// compressor.write_all(b"a layer")?;
/// let bytes = compressor.finish()?;
/// assert_eq!(Compression::of_bytes(&bytes), Compression::Gzip);
/// # Ok(())
/// # }
/// ```
pub struct Compressor<W: Write>(Kind<W>);

enum Kind<W: Write> {
    Plain(W),
    Gzip(GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> std::fmt::Debug for Compressor<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl<W: Write> Compressor<W> {
    /// Compresses into `out`.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(compression: Compression, out: W) -> io::Result<Self> {
        Ok(Self(match compression {
            Compression::None => Kind::Plain(out),
            Compression::Gzip => Kind::Gzip(GzEncoder::new(out, flate2::Compression::default())),
            Compression::Zstd => Kind::Zstd(zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?),
        }))
    }

    /// Writes what is still held back, and gives the writer back.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Kind::Plain(out) => Ok(out),
            Kind::Gzip(out) => out.finish(),
            Kind::Zstd(out) => out.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(out) => out.write(buf),
            Kind::Gzip(out) => out.write(buf),
            Kind::Zstd(out) => out.write(buf),
        }
    }

    /// Nothing: a flush in the middle would only make the result larger. [`finish`](Compressor::finish) ends it.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
