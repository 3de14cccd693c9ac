//! What the tests of this workspace share: skipping with a reason, finding tools, proving that nothing is left behind.
//!
//! A test that needs root, a tool or a kernel feature that it lacks says so and returns:
//!
//! ```
//! # fn the_test() {
//! if let Err(why) = longshore_testing::require_root() {
//!     return longshore_testing::skip(&why);
//! }
//! # }
//! ```
#![forbid(unsafe_code)]

mod leftovers;
mod programs;

use std::io::Write;
use std::path::{Path, PathBuf};

pub use leftovers::Leftovers;
pub use programs::{copy_program, write_program};

/// Says on standard error, past the capture of the test harness, that the running test is skipped, and why. `.ci/run` counts these lines.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // A test that can't even say that it is skipped has nobody to tell.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// Whether the test runs as root.
///
/// # Errors
/// The reason to skip.
pub fn require_root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err("needs root".to_owned())
    }
}

/// The path of a program that the test runs beside ours.
///
/// # Errors
/// The reason to skip.
pub fn require_tool(name: &str) -> Result<PathBuf, String> {
    [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
    .iter()
    .map(|folder| Path::new(folder).join(name))
    .find(|path| path.is_file())
    .ok_or_else(|| format!("needs the program `{name}`"))
}
