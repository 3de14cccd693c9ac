use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use longshore_linux::Mount;

use crate::diff::{Change, DiffOptions, Diffed, changes, diff_layer};
use crate::{Error, ErrorKind, Kind, Labels, Result, Snapshotter};

/// Writes what changed in a snapshot, active or committed, against its parent, as [`diff_layer`] does; gives `out` back.
///
/// Looks at the parent through a view that is removed again; what a crash leaves of it is a view whose key begins with `diff-`. The work is done on a thread
/// where blocking is allowed, and goes on when the future is dropped. Must be called in a tokio runtime.
///
/// # Errors
/// [`NotFound`](crate::ErrorKind::NotFound) for the key, and those of [`diff_layer`].
///
/// # Example
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use longshore_snapshot::{DiffOptions, Labels, diff_snapshot};
///
/// # let root = tempfile::tempdir()?;
/// let snapshotter = longshore_snapshot::detect(root.path()).await?;
/// let mounts = snapshotter.prepare("container", None, Labels::new()).await?;
/// std::fs::write(mounts[0].source.join("file"), "new")?;
/// let (made, layer) = diff_snapshot(&*snapshotter, "container", Vec::new(), &DiffOptions::default()).await?;
/// assert_eq!(made.size, layer.len() as u64);
/// # Ok(())
/// # }
/// ```
pub async fn diff_snapshot<W: Write + Send + 'static>(
    snapshotter: &dyn Snapshotter,
    key: &str,
    out: W,
    options: &DiffOptions,
) -> Result<(Diffed, W)> {
    let options = options.clone();
    with_sides(snapshotter, key, move |parent, mounts| {
        let mut out = out;
        let made = diff_layer(parent, mounts, &mut out, &options)?;
        Ok((made, out))
    })
    .await
}

/// What changed in a snapshot against its parent, as [`changes`] tells it.
///
/// # Errors
/// As [`diff_snapshot`].
pub async fn snapshot_changes(snapshotter: &dyn Snapshotter, key: &str) -> Result<Vec<Change>> {
    with_sides(snapshotter, key, changes).await
}

/// Calls with the mounts of the parent and of the snapshot.
async fn with_sides<T: Send + 'static>(
    snapshotter: &dyn Snapshotter,
    key: &str,
    work: impl FnOnce(&[Mount], &[Mount]) -> Result<T> + Send + 'static,
) -> Result<T> {
    let info = snapshotter.stat(key).await?;
    let mut views = Vec::new();
    let mounts = match info.kind {
        Kind::Committed => view(snapshotter, key, &mut views).await,
        Kind::Active | Kind::View => snapshotter.mounts(key).await,
    };
    let outcome = match (mounts, &info.parent) {
        (Ok(mounts), Some(parent)) if !says_itself(&mounts) => {
            let parent = view(snapshotter, parent, &mut views).await;
            match parent {
                Ok(parent) => blocking(move || work(&parent, &mounts)).await,
                Err(error) => Err(error),
            }
        }
        (Ok(mounts), _) => blocking(move || work(&[], &mounts)).await,
        (Err(error), _) => Err(error),
    };
    for view in views {
        if let Err(error) = snapshotter.remove(&view).await
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(view, %error, "the view that a comparison used could not be removed");
        }
    }
    outcome
}

fn says_itself(mounts: &[Mount]) -> bool {
    mounts.iter().any(|mount| mount.value_of("upperdir").is_some())
}

async fn view(snapshotter: &dyn Snapshotter, key: &str, views: &mut Vec<String>) -> Result<Vec<Mount>> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("diff-{}.{number}-{key}", std::process::id());
    let mounts = snapshotter.view(&name, Some(key), Labels::new()).await?;
    views.push(name);
    Ok(mounts)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(error) => Err(Error::Backend(Box::new(error))),
        },
    }
}
