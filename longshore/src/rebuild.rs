//! Records made anew from what the stores hold, after the metadata was lost.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use futures::TryStreamExt;
use longshore_content::ContentStoreExt;
use longshore_metadata::{Batch, Key, Kind, MetadataStoreExt, Put, RedbStore, Value};
use longshore_runtime::ContainerId;
use oci_spec::image::{Descriptor, Digest, MediaType};
use serde::Deserialize;

use crate::collect::bundles::BUNDLE;
use crate::error::At;
use crate::{Engine, Result};

/// A blob that is larger is no manifest or index.
const DOCUMENT_LIMIT: u64 = 8 << 20;

/// What [`Engine::rebuild`] made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rebuilt {
    /// Names of images.
    pub images: Vec<String>,
    /// Ids of containers.
    pub containers: Vec<String>,
}

/// As much of a manifest or an index as tells that it is one, and its name.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    #[serde(default)]
    manifests: Vec<Reference>,
    config: Option<Reference>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Reference {
    digest: Digest,
}

impl Document {
    fn media_type(&self) -> MediaType {
        match &self.media_type {
            Some(given) => MediaType::from(given.as_str()),
            None if self.config.is_some() => MediaType::ImageManifest,
            None => MediaType::ImageIndex,
        }
    }

    /// The name that the image was given by who made it, or one that says what it is.
    fn name(&self, digest: &Digest) -> String {
        let named = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
        let given = named.iter().find_map(|key| self.annotations.get(*key));
        let whole = given.and_then(|name| longshore_distribution::parse_reference(name).ok());
        match whole {
            // A bare tag is a valid reference too, and would be taken for an image of the public registry.
            Some(reference) if given.is_some_and(|name| name.contains('/')) => reference.whole(),
            _ => format!("recovered.localhost/image@{digest}"),
        }
    }
}

impl Engine {
    /// Sets a damaged metadata file aside, opens the engine with an empty one, and [rebuilds](Self::rebuild) what can be. The damaged file stays beside it.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub async fn recover_root(root: impl AsRef<Path>) -> Result<(Self, Rebuilt)> {
        let root = root.as_ref();
        RedbStore::set_aside(root.join("metadata.redb"))
            .await
            .at("setting aside the damaged metadata")?;
        let engine = Self::open(root).await?;
        let rebuilt = engine.rebuild().await?;
        Ok((engine, rebuilt))
    }

    /// Makes records for what the stores hold and no record names: an image for each manifest and index that no other names, and a container for each bundle. So nothing of it is collected.
    ///
    /// An image is called what an annotation of it says (`io.containerd.image.name`, `org.opencontainers.image.ref.name`), or `recovered.localhost/image@<digest>`: a content store holds no
    /// names. A container is not known to belong to an image any more, but runs, stops and is removed as before. Records that there are stay as they are.
    ///
    /// # Errors
    /// When the stores can't be read or the records can't be written.
    pub async fn rebuild(&self) -> Result<Rebuilt> {
        let mut rebuilt = Rebuilt::default();
        for (digest, size, document) in self.documents_without_a_record().await? {
            let name = document.name(&digest);
            let target = Descriptor::new(document.media_type(), size, digest);
            let put = self
                .metadata
                .put_image(&self.namespace, &name, target, BTreeMap::new())
                .await;
            if put.at(format!("recording image {name}"))? == Put::Created {
                rebuilt.images.push(name);
            }
        }
        for (namespace, id) in self.bundles().await? {
            let key = Key::container(&namespace, id.as_str());
            let batch = Batch::new().create(
                key,
                self.references_of(&namespace, &id),
                self.record_of(&namespace, &id),
            );
            match self.metadata.apply(batch).await {
                Err(error) if error.kind() == longshore_metadata::ErrorKind::AlreadyExists => {}
                outcome => {
                    outcome.at(format!("recording container '{id}'"))?;
                    rebuilt.containers.push(id.to_string());
                }
            }
        }
        Ok(rebuilt)
    }

    /// Manifests and indexes that neither another one nor an image names.
    async fn documents_without_a_record(&self) -> Result<Vec<(Digest, u64, Document)>> {
        let mut named = HashSet::new();
        for namespace in self.metadata.namespaces().await.at("listing namespaces")? {
            for record in self.metadata.list(&namespace, Kind::Image).await.at("listing images")? {
                if let Value::Image(image) = record.value {
                    named.insert(image.target.digest().clone());
                }
            }
        }
        let doing = "looking for images in the content store";
        let infos: Vec<_> = self.content.walk().try_collect().await.at(doing)?;
        let mut documents = Vec::new();
        for info in infos.into_iter().filter(|info| info.size <= DOCUMENT_LIMIT) {
            // A damaged blob names nothing; `verify` tells of it.
            let Ok(bytes) = self.content.read(&info.digest, DOCUMENT_LIMIT).await else {
                continue;
            };
            if let Ok(document) = serde_json::from_slice::<Document>(&bytes)
                && document.schema_version == 2
                && (document.config.is_some() || !document.manifests.is_empty())
            {
                named.extend(document.manifests.iter().map(|reference| reference.digest.clone()));
                documents.push((info.digest, info.size, document));
            }
        }
        documents.retain(|(digest, ..)| !named.contains(digest));
        documents.sort_by_key(|(digest, ..)| digest.to_string());
        Ok(documents)
    }

    async fn bundles(&self) -> Result<Vec<(String, ContainerId)>> {
        let mut bundles = Vec::new();
        for resource in self.bundle_resources().await? {
            if let Some((namespace, id)) = resource.split_once('/')
                && let Ok(id) = ContainerId::new(id)
            {
                bundles.push((namespace.to_owned(), id));
            }
        }
        bundles.sort_by(|a, b| (&a.0, a.1.as_str()).cmp(&(&b.0, b.1.as_str())));
        Ok(bundles)
    }

    fn references_of(&self, namespace: &str, id: &ContainerId) -> BTreeMap<String, String> {
        BTreeMap::from([(format!("containerd.io/gc.ref.{BUNDLE}"), format!("{namespace}/{id}"))])
    }

    fn record_of(&self, namespace: &str, id: &ContainerId) -> Value {
        let tied = (crate::recover::TIED.to_owned(), serde_json::Value::Bool(false));
        let container = longshore_metadata::Container {
            snapshotter: self.snapshotter.name().to_owned(),
            snapshot: format!("{namespace}/{id}"),
            extensions: BTreeMap::from([tied]),
            ..Default::default()
        };
        Value::Container(Box::new(container))
    }
}
