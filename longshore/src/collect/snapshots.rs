use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use longshore_metadata::{Collectible, Edge, Found, Removed, Resource, StoreError};
use longshore_snapshot::{ErrorKind, Info, Kind, Snapshotter};

/// How the keys of snapshots begin that are being filled from a layer. The unpacker removes these itself, or the next open does.
const EXTRACTING: &str = "extract-";

/// The snapshots of a snapshotter.
#[derive(Debug)]
pub(super) struct Snapshots {
    pub(super) snapshotter: Arc<dyn Snapshotter>,
}

impl Snapshots {
    fn key<'a>(&self, resource: &'a Resource) -> Option<&'a str> {
        match resource {
            Resource::Snapshot { snapshotter, key } if snapshotter == self.snapshotter.name() => Some(key),
            _ => None,
        }
    }

    fn found(&self, info: Info) -> Option<Found> {
        let filling = info.kind == Kind::Active && info.key.starts_with(EXTRACTING);
        (!filling).then(|| Found {
            resource: Resource::snapshot(self.snapshotter.name(), info.key),
            changed: info.updated,
        })
    }
}

#[async_trait]
impl Collectible for Snapshots {
    fn name(&self) -> &str {
        "snapshots"
    }

    fn owns(&self, resource: &Resource) -> bool {
        self.key(resource).is_some()
    }

    fn list(&self) -> BoxStream<'_, Result<Found, StoreError>> {
        let listed = async {
            let infos = self.snapshotter.walk().await?.into_iter();
            let found: Vec<_> = infos.filter_map(|info| self.found(info)).map(Ok).collect();
            Ok::<_, StoreError>(stream::iter(found))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn edges(&self, resources: &[Resource]) -> Result<Vec<Vec<Edge>>, StoreError> {
        let mut edges = Vec::with_capacity(resources.len());
        for resource in resources {
            let parent = match self.key(resource) {
                None => None,
                Some(key) => match self.snapshotter.stat(key).await {
                    Err(error) if error.kind() == ErrorKind::NotFound => None,
                    info => info?.parent,
                },
            };
            let parent = parent.map(|parent| Edge::whole(Resource::snapshot(self.snapshotter.name(), parent)));
            edges.push(parent.into_iter().collect());
        }
        Ok(edges)
    }

    async fn size(&self, resource: &Resource) -> Result<u64, StoreError> {
        let Some(key) = self.key(resource) else {
            return Ok(0);
        };
        match self.snapshotter.usage(key).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            usage => Ok(usage?.bytes),
        }
    }

    async fn remove(&self, resource: &Resource) -> Result<Removed, StoreError> {
        let Some(key) = self.key(resource) else {
            return Ok(Removed::Gone);
        };
        match self.snapshotter.remove(key).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Removed::Gone),
            // Something was made from it meanwhile.
            Err(error) if error.kind() == ErrorKind::FailedPrecondition => Ok(Removed::InUse),
            removed => Ok(removed.map(|()| Removed::Gone)?),
        }
    }
}
