//! Who may come in.

mod lists;
mod programs;

pub use lists::{AllowList, DigestPins};
pub use programs::VerifierPrograms;
