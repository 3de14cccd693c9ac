//! A runtime spec of any content: it is compiled or refused, and a program can be read.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use longshore_runtime::{HostFacts, PlanOptions, plan};
use oci_spec::runtime::Spec;

static FACTS: LazyLock<HostFacts> = LazyLock::new(|| HostFacts::gather().expect("this machine's facts"));

fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<Spec>(bytes) else {
        return;
    };
    match plan(&spec, &FACTS, &PlanOptions::new("/bundle")) {
        Ok(program) => assert!(!program.to_string().is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
