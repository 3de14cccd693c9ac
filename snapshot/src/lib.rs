//! Snapshots of filesystems, and applying image layers to them.

#![forbid(unsafe_code)]

mod apply;
mod at;
#[cfg(feature = "conformance")]
pub mod conformance;
mod copy;
mod detect;
mod error;
mod local;
mod native;
mod overlay;
mod probe;
mod remove;
mod snapshotter;
mod store;
mod usage;

pub use apply::{Applied, ApplyOptions, Compression, Limits, Ownership, Skipped, apply_layer};
pub use detect::detect;
pub use error::{Error, ErrorKind, Result};
pub use native::NativeSnapshotter;
pub use overlay::OverlaySnapshotter;
pub use snapshotter::{Info, Kind, Labels, Snapshotter, Usage};
