//! Snapshots of filesystems, and applying image layers to them.

#![forbid(unsafe_code)]

mod error;
mod snapshotter;

pub use error::{Error, ErrorKind, Result};
pub use snapshotter::{Info, Kind, Labels, Snapshotter, Usage};
