use std::path::{Path, PathBuf};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use longshore_metadata::{Collectible, Edge, Found, Removed, Resource, StoreError};

use crate::create::blocking;

/// The kind of these resources, and the end of the label by which a container's record refers to its own.
pub(crate) const BUNDLE: &str = "bundle";

/// The bundles of containers, each a directory `<namespace>/<id>`.
#[derive(Debug)]
pub(super) struct Bundles {
    pub(super) root: PathBuf,
}

impl Bundles {
    /// `<namespace>/<id>` of each.
    pub(super) async fn ids(&self) -> std::io::Result<Vec<String>> {
        let root = self.root.clone();
        let found = blocking(move || list(&root)).await?.into_iter();
        Ok(found
            .filter_map(|found| match found.resource {
                Resource::Custom { id, .. } => Some(id),
                _ => None,
            })
            .collect())
    }

    /// The directory, if the id is one that the engine gives.
    fn directory(&self, resource: &Resource) -> Option<PathBuf> {
        let Resource::Custom { kind, id } = resource else {
            return None;
        };
        let (namespace, container) = id.split_once('/')?;
        let plain = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains('/');
        (kind == BUNDLE && plain(namespace) && plain(container)).then(|| self.root.join(namespace).join(container))
    }
}

#[async_trait]
impl Collectible for Bundles {
    fn name(&self) -> &str {
        "bundles"
    }

    fn owns(&self, resource: &Resource) -> bool {
        self.directory(resource).is_some()
    }

    fn list(&self) -> BoxStream<'_, Result<Found, StoreError>> {
        let root = self.root.clone();
        let listed = async {
            let found = blocking(move || list(&root)).await?;
            Ok::<_, StoreError>(stream::iter(found.into_iter().map(Ok)))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn edges(&self, resources: &[Resource]) -> Result<Vec<Vec<Edge>>, StoreError> {
        Ok(vec![Vec::new(); resources.len()])
    }

    async fn size(&self, _: &Resource) -> Result<u64, StoreError> {
        // A few kilobytes each, not worth a walk.
        Ok(0)
    }

    async fn remove(&self, resource: &Resource) -> Result<Removed, StoreError> {
        let Some(directory) = self.directory(resource) else {
            return Ok(Removed::Gone);
        };
        match blocking(move || std::fs::remove_dir_all(directory)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(Removed::Gone),
        }
    }
}

fn list(root: &Path) -> std::io::Result<Vec<Found>> {
    let directories = |path: &Path| match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.collect::<std::io::Result<Vec<_>>>(),
    };
    let mut found = Vec::new();
    for namespace in directories(root)? {
        for bundle in directories(&namespace.path())? {
            let (namespace, id) = (namespace.file_name(), bundle.file_name());
            let (Some(namespace), Some(id)) = (namespace.to_str(), id.to_str()) else {
                continue;
            };
            // One that went meanwhile is not there.
            let Ok(changed) = bundle.metadata().and_then(|metadata| metadata.modified()) else {
                continue;
            };
            found.push(Found {
                resource: Resource::custom(BUNDLE, format!("{namespace}/{id}")),
                changed,
            });
        }
    }
    Ok(found)
}
