//! Pushing a whole image: children before parents.

mod progress;

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use longshore_content::{Blob, ContentStore, ContentStoreExt};
use oci_spec::distribution::Reference;
use oci_spec::image::Descriptor;

use crate::manifest::{MAX_MANIFEST_SIZE, Origin, parse_any_manifest, parse_index};
use crate::{Error, Mounted, Pushed, Pusher, Result, Root, media};

use progress::Told;
pub use progress::{PushEvent, PushProgress};

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 8;

/// What a push may be told. Set what differs: `PushOptions { concurrency: 1, ..Default::default() }`.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// How many blobs are pushed at once. 0 counts as 1. Default: 3.
    pub concurrency: usize,
    /// A repository of the same registry that may have the blobs: what it has is taken over from there instead of being sent. Default: none.
    pub mount_from: Option<Reference>,
    /// Told of what happens. Default: none.
    pub progress: Option<Arc<dyn PushProgress>>,
}

impl PushOptions {
    fn tell(&self, event: PushEvent<'_>) {
        if let Some(progress) = &self.progress {
            progress.event(event);
        }
    }
}

impl Default for PushOptions {
    fn default() -> Self {
        Self {
            concurrency: 3,
            mount_from: None,
            progress: None,
        }
    }
}

/// Pushes an image from `content` to the repository of `reference`, as [`push_image_with`] does by its defaults.
///
/// # Errors
/// Those of [`push_image_with`].
pub async fn push_image(
    pusher: &dyn Pusher,
    content: &dyn ContentStore,
    reference: &Reference,
    target: &Descriptor,
) -> Result<()> {
    push_image_with(pusher, content, reference, target, &PushOptions::default()).await
}

/// Pushes an image, an index with its images, or another artifact from `content` to the repository of `reference`: configs and layers, several at once; then manifests,
/// then the indexes over them; the root, which comes last, gets the tag of `reference`. What the other side has is not sent again. Children of an index that
/// `content` does not have (other platforms) must be there already. A layer that must not be distributed, and is not in `content`, is left out.
///
/// When the future is dropped, blobs that were acknowledged stay; the tag does not move before all is there.
///
/// # Errors
/// Those of [`Pusher::push`]; [`Content`](crate::ErrorKind::Content) when a part is missing here.
pub async fn push_image_with(
    pusher: &dyn Pusher,
    content: &dyn ContentStore,
    reference: &Reference,
    target: &Descriptor,
    options: &PushOptions,
) -> Result<()> {
    let levels = levels(content, target).await?;
    // Parents were found before their children.
    let blobs: Vec<_> = levels.iter().rev().flatten().cloned().collect();
    options.tell(PushEvent::Planned { blobs: &blobs });
    for level in levels.into_iter().rev() {
        let pushes = level.into_iter().map(|blob| async move {
            let root = if blob.digest() == target.digest() {
                Root::Yes
            } else {
                Root::No
            };
            push_one(pusher, content, reference, &blob, root, options).await
        });
        let pushes = stream::iter(pushes).buffer_unordered(options.concurrency.max(1));
        pushes.try_collect::<()>().await?;
    }
    Ok(())
}

async fn push_one(
    pusher: &dyn Pusher,
    content: &dyn ContentStore,
    reference: &Reference,
    blob: &Descriptor,
    root: Root,
    options: &PushOptions,
) -> Result<()> {
    options.tell(PushEvent::Started { blob });
    let opened = content.open(blob.digest()).await.map_err(|source| Error::Content {
        what: format!("{} to push it to {reference}", blob.digest()),
        source,
    })?;
    if root == Root::No
        && let Some(from) = &options.mount_from
        && mounted(pusher, reference, blob, from).await
    {
        options.tell(PushEvent::Mounted { blob });
        return Ok(());
    }
    let opened: Arc<dyn Blob> = match &options.progress {
        Some(progress) => Arc::new(Told {
            inner: opened,
            descriptor: blob.clone(),
            progress: progress.clone(),
        }),
        None => opened,
    };
    options.tell(match pusher.push(reference, blob, opened, root).await? {
        Pushed::Sent => PushEvent::Sent { blob },
        Pushed::Present => PushEvent::Present { blob },
    });
    Ok(())
}

/// Whether a blob was taken over. A registry that does not let us is sent the blob.
async fn mounted(pusher: &dyn Pusher, reference: &Reference, blob: &Descriptor, from: &Reference) -> bool {
    match pusher.mount(reference, blob, from).await {
        Ok(mounted) => mounted == Mounted::Yes,
        Err(error) => {
            tracing::debug!(digest = %blob.digest(), %from, %error, "not mounted");
            false
        }
    }
}

/// Everything below the target, each blob once: indexes and manifests by their depth, and below all of them the blobs.
pub(crate) async fn levels(content: &dyn ContentStore, target: &Descriptor) -> Result<Vec<Vec<Descriptor>>> {
    let mut levels: Vec<Vec<Descriptor>> = Vec::new();
    let mut blobs = Vec::new();
    let mut here = vec![target.clone()];
    while !here.is_empty() {
        if levels.len() == MAX_DEPTH {
            return Err(ORIGIN.protocol(format!("its indexes are nested more than {MAX_DEPTH} deep")));
        }
        let mut below = Vec::new();
        for blob in &here {
            below.extend(children(content, blob).await?);
        }
        // One that is named a thousand times is looked into once.
        let mut named = HashSet::new();
        let (documents, leaves): (Vec<_>, Vec<_>) = below
            .into_iter()
            .filter(|child: &Descriptor| named.insert(child.digest().clone()))
            .partition(|child| media::is_index(child.media_type()) || media::is_manifest(child.media_type()));
        blobs.extend(leaves);
        levels.push(std::mem::replace(&mut here, documents));
    }
    levels.push(blobs);
    // What is needed twice is pushed where it is needed first: deepest.
    let mut seen = HashSet::new();
    for level in levels.iter_mut().rev() {
        level.retain(|blob| seen.insert(blob.digest().clone()));
    }
    Ok(levels)
}

const ORIGIN: Origin<'static> = Origin {
    registry: "the content store",
    what: "a manifest",
};

async fn children(content: &dyn ContentStore, blob: &Descriptor) -> Result<Vec<Descriptor>> {
    let (index, manifest) = (
        media::is_index(blob.media_type()),
        media::is_manifest(blob.media_type()),
    );
    if !index && !manifest {
        return Ok(Vec::new());
    }
    let storing = |source| Error::Content {
        what: format!("{} to push it", blob.digest()),
        source,
    };
    let bytes = content.read(blob.digest(), MAX_MANIFEST_SIZE).await.map_err(storing)?;
    let all = if manifest {
        let manifest = parse_any_manifest(&bytes, ORIGIN)?;
        std::iter::once(manifest.config())
            .chain(manifest.layers())
            .cloned()
            .collect()
    } else {
        parse_index(&bytes, ORIGIN)?.manifests().clone()
    };
    let mut here = Vec::new();
    for child in all {
        let may_be_missing = index || child.urls().as_ref().is_some_and(|urls| !urls.is_empty());
        if may_be_missing {
            match content.info(child.digest()).await {
                Err(error) if error.kind() == longshore_content::ErrorKind::NotFound => continue,
                outcome => drop(outcome.map_err(storing)?),
            }
        }
        here.push(child);
    }
    Ok(here)
}
