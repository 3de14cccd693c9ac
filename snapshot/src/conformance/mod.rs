//! The suite that every [`Snapshotter`] runs against itself.
//!
//! ```no_run
//! # async fn example() -> longshore_snapshot::Result<()> {
//! let root = std::env::temp_dir().join("snapshots");
//! let snapshotter = longshore_snapshot::OverlaySnapshotter::open(root).await?;
//! longshore_snapshot::conformance::run(&snapshotter).await;
//! # Ok(())
//! # }
//! ```
//!
//! # The cases of containerd's suite
//! `core/snapshots/testsuite` of containerd, and where each is here:
//!
//! | containerd | here |
//! |---|---|
//! | Basic | `basic`, `walk_is_ordered_and_whole` |
//! | StatActive, StatCommitted | `stat_tells_what_was_asked_for` |
//! | TransitivityTest | `basic` |
//! | PrepareViewFailingtest | `what_must_fail` |
//! | Update | none: this port has no call that changes labels; those given are in `stat_tells_what_was_asked_for` |
//! | Remove, RemoveIntermediateSnapshot | `remove_in_order` |
//! | Walk, StatInWalk | `walk_is_ordered_and_whole` |
//! | LayerFileupdate, RemoveDirectoryInLowerLayer, DeletedFilesInChildSnapshot | `changes_stay_in_their_layer` |
//! | MoveFileFromLowerLayer, Rename | `renames` |
//! | Chown | `owners` |
//! | DirectoryPermissionOnCommit, RootPermission | `permissions` |
//! | ViewReadonly | `views_are_read_only` |
//! | 128LayersMount | `many_layers` |
//! | CloseTwice | none: closing is dropping |

mod cases;
mod mounted;

pub use mounted::Mounted;

use crate::Snapshotter;

/// Runs all cases on an empty snapshotter, and leaves it empty.
///
/// Needs root if the snapshotter returns overlay mounts. It mounts nothing that others could see.
///
/// # Panics
/// When the snapshotter does not keep the contract.
pub async fn run(snapshotter: &dyn Snapshotter) {
    cases::basic(snapshotter).await;
    cases::stat_tells_what_was_asked_for(snapshotter).await;
    cases::what_must_fail(snapshotter).await;
    cases::one_of_two_wins(snapshotter).await;
    cases::remove_in_order(snapshotter).await;
    cases::walk_is_ordered_and_whole(snapshotter).await;
    cases::changes_stay_in_their_layer(snapshotter).await;
    cases::renames(snapshotter).await;
    cases::owners(snapshotter).await;
    cases::permissions(snapshotter).await;
    cases::views_are_read_only(snapshotter).await;
    cases::many_layers(snapshotter).await;
    cases::usage_is_its_own(snapshotter).await;
    cases::dropped_calls(snapshotter).await;
}
