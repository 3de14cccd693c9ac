//! zstd frames, skippable ones among them, of any content: the same comes out however few bytes go in at a time, and what is compressed comes back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_snapshot::Compression;

#[path = "inflate/mod.rs"]
mod inflate;

fuzz_target!(|bytes: &[u8]| {
    for magic in [[0x28, 0xb5, 0x2f, 0xfd], [0x50, 0x2a, 0x4d, 0x18]] {
        // One may fail that the other does not: libzstd sees that a frame whose last block is empty is shorter than it says only when it decodes it at once.
        inflate::in_pieces_as_at_once(&[&magic, bytes].concat());
    }
    inflate::there_and_back(Compression::Zstd, bytes);
});
