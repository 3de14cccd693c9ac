use std::path::PathBuf;
use std::sync::Arc;

use crate::{ErrorKind, NativeSnapshotter, OverlaySnapshotter, Result, Snapshotter};

/// Opens the best snapshotter that works here: overlay at `<root>/overlay`, else native at `<root>/native`. Why overlay does not work is
/// logged with `tracing`.
///
/// # Errors
/// Those of [`OverlaySnapshotter::open`] but [`Unsupported`](ErrorKind::Unsupported), then those of [`NativeSnapshotter::open`].
///
/// # Example
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use longshore_snapshot::{Labels, detect};
///
/// # let root = tempfile::tempdir().unwrap();
/// let snapshotter = detect(root.path()).await?;
/// let mounts = snapshotter.prepare("unpacking", None, Labels::new()).await?;
/// // ... apply a layer to the mounts ...
/// snapshotter.commit("unpacking", "layer-1", Labels::new()).await?;
/// let mounts = snapshotter.prepare("container", Some("layer-1"), Labels::new()).await?;
/// assert_eq!(mounts.len(), 1);
/// # Ok::<_, longshore_snapshot::Error>(())
/// # }).unwrap();
/// ```
pub async fn detect(root: impl Into<PathBuf>) -> Result<Arc<dyn Snapshotter>> {
    let root = root.into();
    match OverlaySnapshotter::open(root.join("overlay")).await {
        Ok(overlay) => return Ok(Arc::new(overlay)),
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            tracing::info!(reason = %error, "overlay can't be used, each snapshot will be a copy");
        }
        Err(error) => return Err(error),
    }
    Ok(Arc::new(NativeSnapshotter::open(root.join("native")).await?))
}
