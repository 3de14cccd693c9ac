//! zstd frames, skippable ones among them, of any content: the same comes out however few bytes go in at a time, and what is compressed comes back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_snapshot::Compression;

#[path = "inflate/mod.rs"]
mod inflate;

fuzz_target!(|bytes: &[u8]| {
    inflate::in_pieces_as_at_once(&[&[0x28, 0xb5, 0x2f, 0xfd], bytes].concat());
    inflate::in_pieces_as_at_once(&[&[0x50, 0x2a, 0x4d, 0x18], bytes].concat());
    inflate::there_and_back(Compression::Zstd, bytes);
});
