//! The same input to us and to the real tools from Debian's packages, the outcome compared.

/// Trees that can be compared, and layers that say whatever a test tells them.
#[path = "../../../snapshot/tests/common/mod.rs"]
mod common;
mod images;
mod layout;
mod makes;
mod suite;
mod tools;
mod transfer;
