use std::io::{self, Read, Write};

use longshore_snapshot::{Compression, Compressor, Decompressor};

/// As much as is looked at of what comes out: a small stream may hold gigabytes.
const OUT_MAX: u64 = 4 << 20;

/// What comes out does not hang on how many bytes the reader below gives at once. Gives whether it ends well at once, and in pieces.
pub fn in_pieces_as_at_once(packed: &[u8]) -> (bool, bool) {
    let whole = read(packed);
    // The format is told by what the first read gives.
    let (start, rest) = packed.split_at(packed.len().min(4));
    let pieces = read(start.chain(Few(rest)));
    // How much comes before an error may differ.
    let same = whole.0.len().min(pieces.0.len());
    assert!(whole.0[..same] == pieces.0[..same], "other bytes come out");
    let well = (whole.1.is_ok(), pieces.1.is_ok());
    let lengths = (whole.0.len(), pieces.0.len());
    assert!(well != (true, true) || lengths.0 == lengths.1, "{lengths:?} bytes");
    well
}

/// What is compressed comes back.
pub fn there_and_back(compression: Compression, bytes: &[u8]) {
    let mut compressor = Compressor::new(compression, Vec::new()).expect("a compressor");
    compressor.write_all(bytes).expect("memory takes all");
    let packed = compressor.finish().expect("memory takes all");
    let (found, end) = read(packed.as_slice());
    end.expect("what we compressed is whole");
    assert!(found == bytes, "other bytes come back");
}

/// What comes out before the end or the first error.
fn read(packed: impl Read + Send) -> (Vec<u8>, io::Result<()>) {
    let mut found = Vec::new();
    let mut stream = Decompressor::new(packed).take(OUT_MAX);
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return (found, Ok(())),
            Ok(len) => found.extend_from_slice(&piece[..len]),
            Err(error) => return (found, Err(error)),
        }
    }
}

/// Gives one to seven bytes at a time.
struct Few<'a>(&'a [u8]);

impl Read for Few<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(1 + self.0.len() % 7);
        self.0.read(&mut buf[..len])
    }
}
