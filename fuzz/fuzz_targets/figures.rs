//! Files of cgroups and of /proc, answers of CRIU and messages of systemd's bus, of any content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_runtime::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    fuzzing::criu_answer(bytes);
    // A bus message's signature comes before its values.
    let (signature, values) = bytes.split_at(bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len()));
    if let Ok(signature) = std::str::from_utf8(signature) {
        fuzzing::bus_values(values.get(1..).unwrap_or_default(), signature);
    }
    fuzzing::kernel_files(&String::from_utf8_lossy(bytes));
});
