//! What a registry sends: manifests, indexes, configs with their platforms.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_distribution::{format_platform, parse_platform};
use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(platform) = parse_platform(text) {
            let form = format_platform(&platform);
            let again = parse_platform(&form).unwrap_or_else(|e| panic!("{form}: {e}"));
            assert_eq!(format_platform(&again), form);
        }
    }
    let _ = serde_json::from_slice::<ImageIndex>(bytes);
    let _ = serde_json::from_slice::<ImageManifest>(bytes);
    let _ = serde_json::from_slice::<ImageConfiguration>(bytes);
});
