//! Snapshots of filesystems, and applying image layers to them.
//!
//! A [`Snapshotter`] hands out the mounts of a snapshot; it mounts nothing itself. [`OverlaySnapshotter`] stacks directories, [`NativeSnapshotter`] copies them;
//! [`detect`] chooses what the machine can do. [`apply_layer`] unpacks a layer straight into a snapshot's directory, and [`diff_layer`] makes a layer out of what
//! changed in one, both without a mount.
//!
//! # What it is not for
//! Fetching layers, and deciding which belong together: that is `longshore-distribution`'s and `longshore-bundle`'s.
//!
//! # Limitations
//! Overlay and native are all the snapshotters that there are. A layer's overlay attributes (`trusted.overlay.*`, `user.overlay.*`) are never taken from it, nor written
//! to one.
//!
//! # Example
//! ```
//! use longshore_snapshot::{ApplyOptions, Labels, NativeSnapshotter, Ownership, Snapshotter, apply_layer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let mut tar = tar::Builder::new(Vec::new());
//! # let mut header = tar::Header::new_gnu();
//! # header.set_size(6);
//! # header.set_mode(0o644);
//! # tar.append_data(&mut header, "hello", &b"world\n"[..])?;
//! # let layer = tar.into_inner()?;
//! let snapshotter = NativeSnapshotter::open(folder.path()).await?;
//! let mounts = snapshotter.prepare("unpacking", None, Labels::new()).await?;
//! let applied = apply_layer(&mounts, &layer[..], &ApplyOptions::default().ownership(Ownership::Caller))?;
//! snapshotter.commit("unpacking", applied.diff_id.as_ref(), Labels::new()).await?;
//!
//! let mounts = snapshotter.prepare("a-container", Some(applied.diff_id.as_ref()), Labels::new()).await?;
//! assert_eq!(std::fs::read_to_string(mounts[0].source.join("hello"))?, "world\n");
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod apply;
mod at;
#[cfg(feature = "conformance")]
pub mod conformance;
mod copy;
mod detect;
mod diff;
mod error;
mod local;
mod mounts;
mod native;
mod overlay;
mod probe;
mod remove;
mod snapshotter;
mod store;
mod usage;

pub use apply::{Applied, ApplyOptions, Compression, Decompressor, Limits, Ownership, Skipped, apply_layer};
pub use detect::detect;
pub use diff::{
    Change, ChangeKind, Compressor, DiffOptions, Diffed, LeftOut, changes, diff_layer, diff_snapshot, snapshot_changes,
};
pub use error::{Error, ErrorKind, Result};
pub use native::NativeSnapshotter;
pub use overlay::OverlaySnapshotter;
pub use snapshotter::{Info, Kind, Labels, Reach, Snapshotter, Usage};
