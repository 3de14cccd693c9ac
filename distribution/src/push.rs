//! Pushing a whole image: children before parents.

use longshore_content::{ContentStore, ContentStoreExt};
use oci_spec::distribution::Reference;
use oci_spec::image::Descriptor;

use crate::manifest::{MAX_MANIFEST_SIZE, Origin, parse_index, parse_manifest};
use crate::{Error, Pusher, Result, Root, media};

/// Pushes an image from `content` to the repository of `reference`: config and layers, then the manifest, then an index over it; the root gets the
/// tag of `reference`. What the other side has is not sent again. Children of an index that `content` does not have (other platforms) must be there already.
///
/// When the future is dropped, blobs that were acknowledged stay; the tag does not move before all is there.
///
/// # Errors
/// Those of [`Pusher::push`]; [`Content`](crate::ErrorKind::Content) when a part is missing here.
pub async fn push_image(
    pusher: &dyn Pusher,
    content: &dyn ContentStore,
    reference: &Reference,
    target: &Descriptor,
) -> Result<()> {
    let mut order = Vec::new();
    let mut waiting = vec![target.clone()];
    while let Some(blob) = waiting.pop() {
        waiting.extend(children(content, &blob, target).await?);
        order.push(blob);
    }
    // Parents were found before their children.
    for blob in order.iter().rev() {
        let root = if blob.digest() == target.digest() {
            Root::Yes
        } else {
            Root::No
        };
        pusher.push(reference, blob, content, root).await?;
    }
    Ok(())
}

async fn children(content: &dyn ContentStore, blob: &Descriptor, target: &Descriptor) -> Result<Vec<Descriptor>> {
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
    let origin = Origin {
        registry: "the content store",
        what: "a manifest",
    };
    if manifest {
        let manifest = parse_manifest(&bytes, origin)?;
        return Ok(std::iter::once(manifest.config())
            .chain(manifest.layers())
            .cloned()
            .collect());
    }
    let mut here = Vec::new();
    for child in parse_index(&bytes, origin)?.manifests() {
        match content.info(child.digest()).await {
            Ok(_) if child.digest() != target.digest() => here.push(child.clone()),
            Err(error) if error.kind() != longshore_content::ErrorKind::NotFound => return Err(storing(error)),
            _ => {}
        }
    }
    Ok(here)
}
