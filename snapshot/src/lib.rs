//! Snapshots of filesystems, and applying image layers to them.

#![forbid(unsafe_code)]

mod apply;
mod at;
mod copy;
mod error;
mod remove;
mod snapshotter;

pub use apply::{Applied, ApplyOptions, Compression, Limits, Ownership, Skipped, apply_layer};
pub use error::{Error, ErrorKind, Result};
pub use snapshotter::{Info, Kind, Labels, Snapshotter, Usage};
