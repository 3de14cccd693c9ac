//! gzip streams of any content: the same comes out however few bytes go in at a time, and what is compressed comes back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_snapshot::Compression;

#[path = "inflate/mod.rs"]
mod inflate;

fuzz_target!(|bytes: &[u8]| {
    let (at_once, in_pieces) = inflate::in_pieces_as_at_once(&[&[0x1f, 0x8b, 8], bytes].concat());
    assert_eq!(at_once, in_pieces, "one of the two ends well");
    inflate::there_and_back(Compression::Gzip, bytes);
});
