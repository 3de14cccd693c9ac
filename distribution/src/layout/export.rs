use std::collections::HashMap;
use std::path::{Path, PathBuf};

use longshore_content::{ContentStore, ContentStoreExt, LocalStore};
use oci_spec::image::{Descriptor, ImageIndex};

use super::files::{LayoutFiles, io};
use super::{REF_NAME, blocking};
use crate::manifest::{MAX_MANIFEST_SIZE, Origin, parse_index, parse_manifest};
use crate::{Error, Result, media};

/// Writes an image from `content` into the OCI image layout at `directory`, made if it is not there, under the tag `tag`, which moves to it.
///
/// Blobs come first, durable and proved; `index.json` is replaced last and in one step, so that a reader, or the next export after a crash, sees the layout as it
/// was or as it is to be. Children of an index that `content` does not have (other platforms) are left out of the copy, as the specification allows.
///
/// # Errors
/// [`Content`](crate::ErrorKind::Content) when a blob is missing or can't be written, [`Protocol`](crate::ErrorKind::Protocol) when what is there is not a layout.
pub async fn export_layout(
    content: &dyn ContentStore,
    target: &Descriptor,
    tag: &str,
    directory: impl Into<PathBuf>,
) -> Result<()> {
    let directory = directory.into();
    let store = LocalStore::open(&directory).await.map_err(storing("the layout"))?;
    let mut waiting = vec![(target.clone(), Needed::Yes)];
    while let Some((blob, needed)) = waiting.pop() {
        match store.copy_from(content, blob.digest()).await {
            Err(error) if needed == Needed::No && error.kind() == longshore_content::ErrorKind::NotFound => continue,
            outcome => outcome.map_err(storing(blob.digest().as_ref()))?,
        };
        waiting.extend(children(&store, &blob).await?);
    }
    drop(store);
    let entry = tagged(target, tag);
    blocking(move || replace_index(&directory, entry)).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needed {
    Yes,
    No,
}

/// What a blob consists of.
async fn children(store: &LocalStore, blob: &Descriptor) -> Result<Vec<(Descriptor, Needed)>> {
    let (index, manifest) = (
        media::is_index(blob.media_type()),
        media::is_manifest(blob.media_type()),
    );
    if !index && !manifest {
        return Ok(Vec::new());
    }
    let bytes = store
        .read(blob.digest(), MAX_MANIFEST_SIZE)
        .await
        .map_err(storing(blob.digest().as_ref()))?;
    let origin = Origin {
        registry: "the content store",
        what: "a manifest",
    };
    if index {
        let index = parse_index(&bytes, origin)?;
        return Ok(index
            .manifests()
            .iter()
            .map(|child| (child.clone(), Needed::No))
            .collect());
    }
    let manifest = parse_manifest(&bytes, origin)?;
    let parts = std::iter::once(manifest.config()).chain(manifest.layers());
    Ok(parts.map(|child| (child.clone(), Needed::Yes)).collect())
}

fn tagged(target: &Descriptor, tag: &str) -> Descriptor {
    let mut entry = target.clone();
    let mut annotations: HashMap<String, String> = entry.annotations().clone().unwrap_or_default();
    annotations.insert(REF_NAME.to_owned(), tag.to_owned());
    entry.set_annotations(Some(annotations));
    entry
}

/// Puts `entry` in place of the one that had its tag.
fn replace_index(directory: &Path, entry: Descriptor) -> Result<()> {
    let files = LayoutFiles::open(directory)?;
    let mut index: ImageIndex = files.index()?;
    let tag_of = |descriptor: &Descriptor| {
        descriptor
            .annotations()
            .as_ref()
            .and_then(|all| all.get(REF_NAME))
            .cloned()
    };
    let tag = tag_of(&entry);
    let mut entries = index.manifests().clone();
    entries.retain(|other| tag_of(other) != tag);
    entries.push(entry);
    index.set_manifests(entries);
    let bytes = serde_json::to_vec(&index).map_err(|error| Error::Protocol {
        registry: files.name(),
        what: "index.json".into(),
        reason: error.to_string(),
    })?;
    let (path, next) = (directory.join("index.json"), directory.join(".index.json.next"));
    std::fs::write(&next, bytes).map_err(|source| io("writing", &next, source))?;
    let synced = std::fs::File::open(&next).and_then(|file| file.sync_all());
    synced.map_err(|source| io("writing", &next, source))?;
    std::fs::rename(&next, &path).map_err(|source| io("replacing", &path, source))?;
    let synced = std::fs::File::open(directory).and_then(|folder| folder.sync_all());
    synced.map_err(|source| io("writing", directory, source))
}

fn storing(what: &str) -> impl Fn(longshore_content::Error) -> Error {
    let what = what.to_owned();
    move |source| Error::Content {
        what: what.clone(),
        source,
    }
}
