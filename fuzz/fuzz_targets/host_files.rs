//! What the kernel says of cgroup hierarchies, as a container might have made it look: mount points and groups have any name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_runtime::cgroup::Host;

fuzz_target!(|files: (&[u8], &[u8], &str)| {
    let (mountinfo, cgroup, controllers) = files;
    let host = Host::parse(mountinfo, cgroup, controllers);
    assert!(!format!("{host:?}").is_empty());
});
