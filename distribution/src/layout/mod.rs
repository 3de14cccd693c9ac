//! An OCI image layout on disk, as a source of images and as a place to export them to.

mod export;
mod files;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, ImageIndex};

pub use export::export_layout;
use files::LayoutFiles;

use crate::manifest::{MAX_MANIFEST_SIZE, Origin, parse_index};
use crate::{Error, Fetched, Fetcher, Resolved, Resolver, Result};

/// The annotation of an entry in `index.json` that holds its tag (image specification, "Pre-Defined Annotation Keys").
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// How much of a blob is read at once, in bytes.
const CHUNK: usize = 256 * 1024;

/// An OCI image layout in a directory: what `skopeo copy ... oci:DIR`, `umoci` and `buildah` write.
///
/// Whoever wrote it is not trusted: files are opened inside the directory, never through a symbolic link; sizes are bounded; digests are proved by
/// the content store that takes the bytes. Of a reference only the tag or digest counts. A tag that no entry carries names the only entry, if there is just one and it carries no tag.
#[derive(Clone, Debug)]
pub struct OciLayout {
    files: Arc<LayoutFiles>,
}

impl OciLayout {
    /// Opens the layout in `directory`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is no directory, [`Protocol`](crate::ErrorKind::Protocol) when it is not a layout of version 1.
    pub async fn open(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        blocking(move || {
            let files = LayoutFiles::open(&directory)?;
            files.check_version()?;
            Ok(Self { files: Arc::new(files) })
        })
        .await
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.files.directory()
    }

    /// The entries of its `index.json`.
    ///
    /// # Errors
    /// [`Protocol`](crate::ErrorKind::Protocol) when there is none, or it is not an index.
    pub async fn index(&self) -> Result<ImageIndex> {
        let files = self.files.clone();
        blocking(move || files.index()).await
    }

    fn name(&self) -> String {
        self.files.name()
    }
}

/// The entry that a reference means.
fn choose<'a>(index: &'a ImageIndex, reference: &Reference, name: &str) -> Result<&'a Descriptor> {
    let entries = index.manifests();
    let tag_of = |entry: &'a Descriptor| entry.annotations().as_ref().and_then(|all| all.get(REF_NAME));
    let found = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => entries.iter().find(|entry| entry.digest().as_ref() == digest),
        (None, tag) => {
            let tag = tag.unwrap_or("latest");
            // Skopeo and umoci write the tag alone, podman the whole name.
            let named = |wanted: &str| {
                entries
                    .iter()
                    .find(|entry| tag_of(entry).is_some_and(|found| found == wanted))
            };
            named(tag)
                .or_else(|| named(&reference.to_string()))
                .or_else(|| match entries.as_slice() {
                    [only] if tag == "latest" || tag_of(only).is_none() => Some(only),
                    _ => None,
                })
        }
    };
    found.ok_or_else(|| {
        let tags: Vec<&str> = entries.iter().filter_map(tag_of).map(String::as_str).collect();
        let wanted = reference.digest().or(reference.tag()).unwrap_or("latest");
        Error::NotFound {
            what: format!(
                "'{wanted}' (the layout has {})",
                if tags.is_empty() {
                    "no tags".into()
                } else {
                    tags.join(", ")
                }
            ),
            registry: name.to_owned(),
        }
    })
}

#[async_trait]
impl Resolver for OciLayout {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        let index = self.index().await?;
        let entry = choose(&index, reference, &self.name())?;
        // The descriptor's size is the layout's word: what is read is bounded whatever it says.
        if entry.size() > MAX_MANIFEST_SIZE {
            return Err(Error::TooLarge {
                what: format!("the manifest of {reference}"),
                size: entry.size(),
                limit: MAX_MANIFEST_SIZE,
            });
        }
        Ok(Resolved::new(Descriptor::new(
            entry.media_type().clone(),
            entry.size(),
            entry.digest().clone(),
        )))
    }
}

#[async_trait]
impl Fetcher for OciLayout {
    async fn fetch(&self, _reference: &Reference, descriptor: &Descriptor, offset: u64) -> Result<Fetched> {
        let (files, digest) = (self.files.clone(), descriptor.digest().clone());
        let blob = Arc::new(blocking(move || files.blob(&digest)).await?);
        let stream = stream::try_unfold(offset, move |at| {
            let blob = blob.clone();
            async move {
                let bytes = Bytes::from(blocking(move || blob.read_at(at, CHUNK)).await?);
                let next = at + bytes.len() as u64;
                Ok((!bytes.is_empty()).then_some((bytes, next)))
            }
        });
        Ok(Fetched {
            offset,
            stream: stream.boxed(),
        })
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Parses an `index.json`, naming the layout in what goes wrong.
fn index_of(bytes: &[u8], name: &str) -> Result<ImageIndex> {
    parse_index(
        bytes,
        Origin {
            registry: name,
            what: "index.json",
        },
    )
}
