//! What the example programs share.
#![forbid(unsafe_code)]

pub mod exporter;
pub mod host_image;
pub mod quickstart;
