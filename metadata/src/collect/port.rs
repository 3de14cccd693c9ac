use std::error::Error;
use std::fmt::Debug;
use std::time::SystemTime;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{Node, Resource};

/// What a [`Collectible`] fails with: an error of its own store.
pub type StoreError = Box<dyn Error + Send + Sync>;

/// How much of what is behind a reference is held with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Depth {
    /// Only what is named; of a snapshot, what it is made from besides.
    Alone,
    /// Also what labels of its records name. Its store is not asked: it is known to refer to nothing, as a layer's blob.
    Labels,
    /// All that it refers to.
    Whole,
}

/// A reference from one resource to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// To what.
    pub to: Node,
    /// How much is held with it.
    pub depth: Depth,
}

impl Edge {
    /// To something that may refer to more.
    pub fn whole(to: impl Into<Node>) -> Self {
        Self {
            to: to.into(),
            depth: Depth::Whole,
        }
    }

    /// To something that is known to refer to nothing by itself.
    pub fn leaf(to: impl Into<Node>) -> Self {
        Self {
            to: to.into(),
            depth: Depth::Labels,
        }
    }
}

/// A resource that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub resource: Resource,
    /// When it was made or last changed.
    pub changed: SystemTime,
}

/// What became of a resource that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Removed {
    /// It is gone, or was before.
    Gone,
    /// Somebody uses it at this moment, whatever the records say; the next run tries again.
    InUse,
}

/// **Port**: resources of one kind, which a [`Collector`](crate::Collector) removes when nothing holds them.
///
/// The hook for whatever a program keeps on disk and refers to from records: blobs and snapshots, but also bundles, caches, models. Records refer to a
/// [`Custom`](Resource::Custom) resource by the label `containerd.io/gc.ref.<kind>`, or a lease holds it.
///
/// # Contract
/// - Whoever makes such a resource lets a record refer to it **first** (a lease will do), and looks for what is there already after that.
/// - What a resource refers to does not change while the resource is there; or else what it refers to newly was held by a record before.
/// - Removing is whole or nothing, and survives being interrupted: a resource that is half gone is not listed.
/// - Every method may be called from any task at any time.
#[async_trait]
pub trait Collectible: Debug + Send + Sync + 'static {
    /// What they are, in a word or two, for messages: `blobs`.
    fn name(&self) -> &str;

    /// Whether a resource is one of these.
    fn owns(&self, resource: &Resource) -> bool;

    /// All that are there, in no order. What comes or goes meanwhile may be seen or not.
    fn list(&self) -> BoxStream<'_, Result<Found, StoreError>>;

    /// What each of the given ones refers to by itself, in their order; one that is not there refers to nothing. Labels of records are not its business.
    ///
    /// # Errors
    /// When it can't be known: then nothing is removed.
    async fn edges(&self, resources: &[Resource]) -> Result<Vec<Vec<Edge>>, StoreError>;

    /// Those that are used at this moment though no record may say so.
    ///
    /// # Errors
    /// When it can't be known: then nothing is removed.
    async fn in_use(&self) -> Result<Vec<Resource>, StoreError> {
        Ok(Vec::new())
    }

    /// What its removal would free, in bytes.
    ///
    /// # Errors
    /// What the store fails with.
    async fn size(&self, resource: &Resource) -> Result<u64, StoreError>;

    /// Removes one. That it is not there is no error.
    ///
    /// # Errors
    /// What the store fails with. The others are removed all the same.
    async fn remove(&self, resource: &Resource) -> Result<Removed, StoreError>;
}
