//! A tar stream, read once from its beginning to its end.

use std::io::{self, Read};

use tar_core::parse::{Limits, ParseError, ParseEvent, Parser};

use super::{broken, protocol};
use crate::Result;

/// How much is read at once.
const CHUNK: usize = 64 << 10;
/// Archives pad each entry to a multiple of this.
const BLOCK: u64 = 512;

/// One entry, its content still in the stream.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) kind: Kind,
}

/// What an entry is.
#[derive(Debug)]
pub(super) enum Kind {
    /// A regular file of so many bytes.
    File(u64),
    /// A link to this path, as the archive has it.
    Symlink(String),
    /// A second name of this path.
    HardLink(String),
    Other,
}

pub(super) struct TarReader<R> {
    source: R,
    parser: Parser,
    /// Bytes that were read and not used, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// Content of the present entry that was not read.
    left: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(source: R) -> Self {
        let mut parser = Parser::new(Limits {
            max_path_len: Some(4096),
            ..Limits::default()
        });
        parser.set_ignore_pax_errors(true);
        Self {
            source,
            parser,
            buffer: Vec::new(),
            start: 0,
            left: 0,
            padding: 0,
        }
    }

    /// The next entry; what was not read of the last one is passed over.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        let mut scrap = [0; 8192];
        while self.left > 0 {
            self.read(&mut scrap)?;
        }
        self.skip_padding()?;
        loop {
            let (consumed, entry) = match self
                .parser
                .parse(&self.buffer[self.start..])
                .map_err(|error| malformed(&error))?
            {
                ParseEvent::NeedData { min_bytes } => {
                    if self.fill(min_bytes)? < min_bytes {
                        return self.ended();
                    }
                    continue;
                }
                ParseEvent::End { .. } => return Ok(None),
                ParseEvent::GlobalExtensions { consumed, .. } => (consumed, None),
                ParseEvent::SparseEntry { entry, .. } => {
                    return Err(protocol(
                        &entry.path_lossy(),
                        "it is a sparse file, which archives of images have none of",
                    ));
                }
                ParseEvent::Entry { consumed, entry } => {
                    let target = || entry.link_target_lossy().unwrap_or_default().into_owned();
                    let kind = match () {
                        () if entry.is_file() => Kind::File(entry.size),
                        () if entry.is_symlink() => Kind::Symlink(target()),
                        () if entry.is_hard_link() => Kind::HardLink(target()),
                        () => Kind::Other,
                    };
                    let path = entry.path_lossy().into_owned();
                    (consumed, Some(Entry { path, kind }))
                }
            };
            self.start += consumed;
            let Some(entry) = entry else { continue };
            if let Kind::File(size) = entry.kind {
                self.left = size;
                self.padding = (BLOCK - size % BLOCK) % BLOCK;
            }
            return Ok(Some(entry));
        }
    }

    /// Content of the present entry; 0 at its end.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        if wanted == 0 {
            return Ok(0);
        }
        let there = (self.buffer.len() - self.start).min(wanted);
        let count = if there > 0 {
            into[..there].copy_from_slice(&self.buffer[self.start..self.start + there]);
            self.start += there;
            there
        } else {
            read(&mut self.source, &mut into[..wanted])?
        };
        if count == 0 {
            return Err(broken("reading", io::ErrorKind::UnexpectedEof.into()));
        }
        self.left -= count as u64;
        Ok(count)
    }

    /// The whole content of the present entry, which is small.
    pub(super) fn small(&mut self, path: &str, limit: u64) -> Result<Vec<u8>> {
        if self.left > limit {
            return Err(crate::Error::TooLarge {
                what: path.to_owned(),
                size: self.left,
                limit,
            });
        }
        let mut bytes = vec![0; usize::try_from(self.left).expect("it is small")];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += self.read(&mut bytes[filled..])?;
        }
        Ok(bytes)
    }

    fn skip_padding(&mut self) -> Result<()> {
        let padding = usize::try_from(std::mem::take(&mut self.padding)).expect("less than a block");
        // Some writers leave the padding of the last entry out.
        let there = self.fill(padding)?.min(padding);
        self.start += there;
        Ok(())
    }

    /// Reads until so many bytes are at hand, or all that there are.
    fn fill(&mut self, wanted: usize) -> Result<usize> {
        self.buffer.drain(..self.start);
        self.start = 0;
        while self.buffer.len() < wanted {
            let before = self.buffer.len();
            self.buffer.resize(before.max(wanted - 1) + CHUNK, 0);
            let count = read(&mut self.source, &mut self.buffer[before..])?;
            self.buffer.truncate(before + count);
            if count == 0 {
                break;
            }
        }
        Ok(self.buffer.len())
    }

    /// The end of the bytes, where a header would begin: some writers leave the end marker out.
    fn ended(&self) -> Result<Option<Entry>> {
        match self.buffer[self.start..].iter().all(|byte| *byte == 0) {
            true => Ok(None),
            false => Err(broken("reading", io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

fn read(source: &mut impl Read, into: &mut [u8]) -> Result<usize> {
    loop {
        match source.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome.map_err(|error| broken("reading", error)),
        }
    }
}

fn malformed(error: &ParseError) -> crate::Error {
    protocol(
        "a tar header",
        format!("{error}; is it compressed? Then decompress it first"),
    )
}
