//! What people write: names of images, and `hosts.toml`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_distribution::{fuzzing, parse_reference};

fuzz_target!(|text: &str| {
    if let Ok(reference) = parse_reference(text) {
        let whole = reference.whole();
        assert_eq!(parse_reference(&whole).unwrap_or_else(|e| panic!("{e}")), reference, "{whole}");
        // Where the specification's crate reads it too, it is the same; only of hosts with capitals it makes something else.
        if let Ok(other) = whole.parse::<longshore_distribution::Reference>() {
            assert!(other == reference || reference.registry().bytes().any(|b| b.is_ascii_uppercase()), "{whole}");
        }
    }
    fuzzing::hosts_file(text);
});
