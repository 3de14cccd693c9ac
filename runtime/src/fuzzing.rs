//! What fuzz targets call and nobody else: readers of what the kernel, CRIU and systemd say.

/// Files of cgroups and of `/proc`, whatever they are.
pub fn kernel_files(text: &str) {
    crate::cgroup::read_all(text);
    let _ = crate::local::start_time(text);
    let _ = crate::local::devices(text);
}

/// An answer of CRIU.
pub fn criu_answer(bytes: &[u8]) {
    let _ = crate::checkpoint::Response::read(bytes);
}

/// The values of a message of systemd's bus.
#[cfg(feature = "systemd")]
pub fn bus_values(bytes: &[u8], signature: &str) {
    crate::cgroup::systemd::read_values(bytes, signature);
}
