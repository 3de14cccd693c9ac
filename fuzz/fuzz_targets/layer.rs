//! A layer of any content, unpacked into a directory beside which nothing may change.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use longshore_linux::Mount;
use longshore_snapshot::{ApplyOptions, apply_layer};

fuzz_target!(|layer: &[u8]| {
    let place = tempfile::tempdir().expect("a directory");
    let (root, beside) = (place.path().join("root"), place.path().join("beside"));
    for dir in [&root, &beside] {
        fs::create_dir(dir).expect("a directory");
    }
    fs::write(beside.join("file"), "as it was").expect("a file");
    let _ = apply_layer(&[Mount::bind(&root)], layer, &ApplyOptions::default());
    let names = |dir| fs::read_dir(dir).expect("readable").count();
    assert_eq!(
        (names(place.path()), names(&beside)),
        (2, 1),
        "something new is outside"
    );
    assert_eq!(fs::read_to_string(beside.join("file")).expect("readable"), "as it was");
});
