//! A store of resources in memory, and a way to stop a collection, or to let others act, between any two of its steps.
#![allow(dead_code)] // each test uses its part

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use longshore_metadata::{
    Batch, Collectible, Edge, Error, Found, Key, Kind, MemoryStore, MetadataStore, Record, Removed, Resource, Result,
    StoreError, View,
};

/// Resources and what each refers to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    things: Arc<Mutex<BTreeMap<Resource, Vec<Edge>>>>,
}

impl Shelf {
    pub(crate) fn things(&self) -> MutexGuard<'_, BTreeMap<Resource, Vec<Edge>>> {
        self.things.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, resource: Resource, edges: impl IntoIterator<Item = Edge>) {
        self.things().insert(resource, edges.into_iter().collect());
    }

    pub(crate) fn has(&self, resource: &Resource) -> bool {
        self.things().contains_key(resource)
    }

    /// A snapshot that another is made from can't go.
    fn is_parent(&self, resource: &Resource) -> bool {
        matches!(resource, Resource::Snapshot { .. })
            && self.things().iter().any(|(child, edges)| {
                matches!(child, Resource::Snapshot { .. })
                    && edges.iter().any(|edge| edge.to.resource() == Some(resource))
            })
    }
}

#[async_trait]
impl Collectible for Shelf {
    fn name(&self) -> &str {
        "things"
    }

    fn owns(&self, resource: &Resource) -> bool {
        !matches!(resource, Resource::Custom { kind, .. } if kind != "cache")
    }

    fn list(&self) -> BoxStream<'_, Result<Found, StoreError>> {
        let all: Vec<_> = self.things().keys().cloned().collect();
        let changed = SystemTime::UNIX_EPOCH;
        stream::iter(all.into_iter().map(move |resource| Ok(Found { resource, changed }))).boxed()
    }

    async fn edges(&self, resources: &[Resource]) -> Result<Vec<Vec<Edge>>, StoreError> {
        let things = self.things();
        Ok(resources
            .iter()
            .map(|resource| things.get(resource).cloned().unwrap_or_default())
            .collect())
    }

    async fn size(&self, _: &Resource) -> Result<u64, StoreError> {
        Ok(10)
    }

    async fn remove(&self, resource: &Resource) -> Result<Removed, StoreError> {
        if self.is_parent(resource) {
            return Ok(Removed::InUse);
        }
        self.things().remove(resource);
        Ok(Removed::Gone)
    }
}

/// What happens before each step.
#[async_trait]
pub(crate) trait Between: Send + Sync {
    /// `false` stops the collection here, for good.
    async fn step(&self) -> bool;
}

/// Lets so many steps happen, and then none.
pub(crate) struct Steps(AtomicUsize);

impl Steps {
    pub(crate) fn new(steps: usize) -> Self {
        Self(AtomicUsize::new(steps))
    }

    pub(crate) fn left(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Between for Steps {
    async fn step(&self) -> bool {
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok()
    }
}

/// The two stores, with something between the steps.
#[derive(Clone)]
pub(crate) struct Stepped<B> {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) shelf: Shelf,
    pub(crate) between: Arc<B>,
}

impl<B> fmt::Debug for Stepped<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stepped")
    }
}

impl<B: Between> Stepped<B> {
    async fn step(&self) -> Result<()> {
        match self.between.step().await {
            true => Ok(()),
            false => Err(Error::Closed { path: "stopped".into() }),
        }
    }
}

#[async_trait]
impl<B: Between + 'static> MetadataStore for Stepped<B> {
    async fn apply(&self, batch: Batch) -> Result<u64> {
        self.step().await?;
        self.store.apply(batch).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.step().await?;
        self.store.get(key).await
    }

    async fn list(&self, namespace: &str, kind: Kind) -> Result<Vec<Record>> {
        self.step().await?;
        self.store.list(namespace, kind).await
    }

    async fn namespaces(&self) -> Result<Vec<String>> {
        self.step().await?;
        self.store.namespaces().await
    }

    async fn view(&self) -> Result<Box<dyn View>> {
        self.step().await?;
        self.store.view().await
    }
}

#[async_trait]
impl<B: Between + 'static> Collectible for Stepped<B> {
    fn name(&self) -> &str {
        self.shelf.name()
    }

    fn owns(&self, resource: &Resource) -> bool {
        self.shelf.owns(resource)
    }

    fn list(&self) -> BoxStream<'_, Result<Found, StoreError>> {
        let listed = async {
            self.step().await?;
            Ok::<_, StoreError>(self.shelf.list())
        };
        stream::once(listed)
            .flat_map(|all| match all {
                Ok(all) => all,
                Err(error) => stream::iter([Err(error)]).boxed(),
            })
            .boxed()
    }

    async fn edges(&self, resources: &[Resource]) -> Result<Vec<Vec<Edge>>, StoreError> {
        self.step().await?;
        self.shelf.edges(resources).await
    }

    async fn size(&self, resource: &Resource) -> Result<u64, StoreError> {
        self.shelf.size(resource).await
    }

    async fn remove(&self, resource: &Resource) -> Result<Removed, StoreError> {
        self.step().await?;
        self.shelf.remove(resource).await
    }
}
