use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::sync::Arc;

use longshore_content::{Blob, BlobExt, ContentStore, ContentStoreExt};
use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, Digest, MediaType};

use super::{IMAGE_NAME, broken, docker};
use crate::layout::REF_NAME;
use crate::manifest::{MAX_MANIFEST_SIZE, Origin, parse_index, parse_manifest};
use crate::push::levels;
use crate::{Error, Result, media};

/// An image to be written into an archive.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SavedImage {
    /// Its index or manifest.
    pub target: Descriptor,
    /// What it is to be called when it is loaded.
    pub name: Option<Reference>,
}

impl SavedImage {
    /// An image under a name.
    pub fn new(target: Descriptor, name: Option<Reference>) -> Self {
        Self { target, name }
    }
}

/// Writes images into one tar stream that is both an OCI image layout and Docker's form: `docker load`, `podman load`, `skopeo copy oci-archive:` and
/// `docker-archive:` read it, as does [`load_archive`](super::load_archive). The same images give the same bytes. A blob that several need is in it once.
///
/// Images of other platforms that `content` does not have are left out. Docker's list has of each index the first image that is there.
///
/// # Errors
/// [`Content`](crate::ErrorKind::Content) when a part is missing here, [`Unavailable`](crate::ErrorKind::Unavailable) when the stream fails.
pub async fn save_archive(
    content: Arc<dyn ContentStore>,
    images: Vec<SavedImage>,
    sink: impl Write + Send + 'static,
) -> Result<()> {
    let mut blobs: BTreeMap<String, (Arc<dyn Blob>, u64)> = BTreeMap::new();
    let mut listed = Vec::new();
    for image in &images {
        for blob in levels(content.as_ref(), &image.target).await?.iter().flatten() {
            if let std::collections::btree_map::Entry::Vacant(entry) = blobs.entry(path_of(blob.digest())) {
                let opened = content.open(blob.digest()).await.map_err(storing(blob))?;
                let size = opened.size().unwrap_or(blob.size());
                entry.insert((opened, size));
            }
        }
        listed.extend(docker_entry(content.as_ref(), image).await?);
    }
    let index = serde_json::to_vec(&index_of(&images)).expect("an index is JSON");
    let listed = serde_json::to_vec(&listed).expect("a list is JSON");
    let writing = tokio::task::spawn_blocking(move || write(sink, &index, &listed, blobs));
    match writing.await {
        Ok(written) => written.map_err(|error| broken("writing", error)),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn write(
    sink: impl Write,
    index: &[u8],
    listed: &[u8],
    blobs: BTreeMap<String, (Arc<dyn Blob>, u64)>,
) -> io::Result<()> {
    let mut tar = tar::Builder::new(io::BufWriter::with_capacity(256 << 10, sink));
    let mut add = |path: &str, size: u64, bytes: &mut dyn Read| {
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mtime(0);
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
        } else {
            header.set_mode(0o644);
        }
        tar.append_data(&mut header, path, bytes)
    };
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
    for (path, bytes) in [
        ("oci-layout", &layout[..]),
        ("index.json", index),
        (docker::NAME, listed),
    ] {
        add(path, bytes.len() as u64, &mut &bytes[..])?;
    }
    // A directory that no entry names is made for root by some readers, which an ordinary user can't do.
    let directories: BTreeSet<&str> = blobs
        .keys()
        .filter_map(|path| path.rsplit_once('/'))
        .map(|(parent, _)| parent)
        .collect();
    for path in std::iter::once("blobs").chain(directories) {
        add(&format!("{path}/"), 0, &mut io::empty())?;
    }
    for (path, (blob, size)) in blobs {
        let mut counted = Counted {
            inner: blob.reader().take(size),
            count: 0,
        };
        add(&path, size, &mut counted)?;
        if counted.count != size {
            // What follows would be taken for something else.
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{path} is shorter than it says"),
            ));
        }
    }
    tar.into_inner()?.flush()
}

struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.count += count as u64;
        Ok(count)
    }
}

fn path_of(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}

/// The archive's index. Annotations are ordered, so that the same images give the same bytes.
fn index_of(images: &[SavedImage]) -> serde_json::Value {
    let entries = images.iter().map(|image| {
        let mut annotations: BTreeMap<String, String> = image
            .target
            .annotations()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect();
        if let Some(name) = &image.name {
            annotations.insert(IMAGE_NAME.to_owned(), name.whole());
            annotations.insert(REF_NAME.to_owned(), name.tag().unwrap_or("latest").to_owned());
        }
        let mut entry = image.target.clone();
        entry.set_annotations(None);
        let mut entry = serde_json::to_value(entry).expect("a descriptor is JSON");
        if !annotations.is_empty() {
            entry["annotations"] = annotations
                .into_iter()
                .map(|(key, value)| (key, serde_json::Value::from(value)))
                .collect();
        }
        entry
    });
    serde_json::json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": entries.collect::<Vec<_>>(),
    })
}

/// An image in Docker's list; an artifact that is no image is not in it.
async fn docker_entry(content: &dyn ContentStore, image: &SavedImage) -> Result<Option<docker::Image>> {
    let origin = Origin {
        registry: "the content store",
        what: "a manifest",
    };
    let mut target = image.target.clone();
    // An index of indexes is nothing that Docker's form could hold.
    if media::is_index(target.media_type()) {
        let read = content.read(target.digest(), MAX_MANIFEST_SIZE).await;
        let index = parse_index(&read.map_err(storing(&target))?, origin)?;
        let mut found = None;
        for entry in index.manifests() {
            if media::is_manifest(entry.media_type()) && content.info(entry.digest()).await.is_ok() {
                found = Some(entry.clone());
                break;
            }
        }
        match found {
            Some(entry) => target = entry,
            None => return Ok(None),
        }
    }
    if !media::is_manifest(target.media_type()) {
        return Ok(None);
    }
    let read = content.read(target.digest(), MAX_MANIFEST_SIZE).await;
    let Ok(manifest) = parse_manifest(&read.map_err(storing(&target))?, origin) else {
        return Ok(None);
    };
    let tag = image.name.as_ref().map(|name| {
        let tag = name.tag().unwrap_or("latest");
        format!("{}/{}:{tag}", name.registry(), name.repository())
    });
    Ok(Some(docker::Image {
        config: path_of(manifest.config().digest()),
        repo_tags: tag.map(|tag| vec![tag]),
        layers: manifest.layers().iter().map(|layer| path_of(layer.digest())).collect(),
    }))
}

fn storing(blob: &Descriptor) -> impl Fn(longshore_content::Error) -> Error {
    let what = blob.digest().to_string();
    move |source| Error::Content {
        what: what.clone(),
        source,
    }
}
