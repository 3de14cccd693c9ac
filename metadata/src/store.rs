use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Key, Kind, Record, Result, Value};

/// One change of a [`Batch`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Op {
    /// Writes a record, keeping `created` if it exists.
    Put {
        /// Which.
        key: Key,
        /// Its labels.
        labels: BTreeMap<String, String>,
        /// What it says.
        value: Value,
    },
    /// Removes a record; that it does not exist is an error.
    Delete(Key),
}

/// What must hold for a [`Batch`] to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precondition {
    /// There is no such record.
    Absent(Key),
    /// There is one.
    Present(Key),
    /// There is one and nobody wrote it since.
    Revision(Key, u64),
    /// Nothing at all was written since this revision of the store.
    StoreRevision(u64),
}

/// Changes that happen together or not at all.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Batch {
    /// Checked first, in order; the first that does not hold is the error.
    pub preconditions: Vec<Precondition>,
    /// Applied in order.
    pub ops: Vec<Op>,
}

impl Batch {
    /// A batch without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requires something.
    #[must_use]
    pub fn require(mut self, precondition: Precondition) -> Self {
        self.preconditions.push(precondition);
        self
    }

    /// Writes a record.
    #[must_use]
    pub fn put(mut self, key: Key, labels: BTreeMap<String, String>, value: Value) -> Self {
        self.ops.push(Op::Put { key, labels, value });
        self
    }

    /// Writes a record that must not exist yet.
    #[must_use]
    pub fn create(self, key: Key, labels: BTreeMap<String, String>, value: Value) -> Self {
        self.require(Precondition::Absent(key.clone())).put(key, labels, value)
    }

    /// Removes a record.
    #[must_use]
    pub fn delete(mut self, key: Key) -> Self {
        self.ops.push(Op::Delete(key));
        self
    }
}

/// One state of a store, held still while others write on.
#[async_trait]
pub trait View: Debug + Send + Sync {
    /// The last revision that is in it.
    fn revision(&self) -> u64;

    /// One record, or `None`.
    async fn get(&self, key: &Key) -> Result<Option<Record>>;

    /// The records that come after `after` in the order of keys (from the first one, if `None`): `limit` of them, or fewer at the end.
    async fn scan(&self, after: Option<&Key>, limit: usize) -> Result<Vec<Record>>;

    /// The records that were last written after revision `since`, ordered by revision.
    async fn changed(&self, since: u64) -> Result<Vec<Record>>;
}

/// **Port**: where records live.
///
/// # Contract
/// - *Atomic and durable*: when [`apply`](Self::apply) has returned, the whole batch survives power loss; until then nobody sees any of it.
/// - *Isolated*: batches are applied one after another. [`get`](Self::get) and [`list`](Self::list) each read one consistent state and never wait for a writer.
/// - *Cancel-safe*: a batch whose future was dropped was applied whole or not at all, or will be; which of these is decided when a batch that was handed over later,
///   an empty one will do, has been applied.
/// - *Revisions*: each batch that changes something makes the next revision, a number that only grows.
/// - *Strict*: names are checked by [`validate`](crate::validate), whoever calls.
/// - *Fenced*: while a [`Removal`](Kind::Removal) of a resource stands, a batch that would make a record refer to it is refused.
#[async_trait]
pub trait MetadataStore: Debug + Send + Sync + 'static {
    /// Applies a batch and returns the revision that it made.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict), [`AlreadyExists`](crate::ErrorKind::AlreadyExists) or [`NotFound`](crate::ErrorKind::NotFound) when a precondition does not hold;
    /// [`NotFound`](crate::ErrorKind::NotFound) for a delete of nothing; [`Conflict`](crate::ErrorKind::Conflict) for a reference to what is being collected; [`Invalid`](crate::ErrorKind::Invalid) for a bad name. Nothing was changed then.
    async fn apply(&self, batch: Batch) -> Result<u64>;

    /// One record, or `None`.
    async fn get(&self, key: &Key) -> Result<Option<Record>>;

    /// All records of a kind in a namespace, ordered by id.
    async fn list(&self, namespace: &str, kind: Kind) -> Result<Vec<Record>>;

    /// Names of the namespaces that exist, by a record of their own or because they have any record; ordered.
    async fn namespaces(&self) -> Result<Vec<String>>;

    /// The state of this moment. It costs no copy of the store, but an old view keeps what was replaced since from being freed.
    async fn view(&self) -> Result<Box<dyn View>>;
}

#[async_trait]
impl<S: MetadataStore + ?Sized> MetadataStore for Arc<S> {
    async fn apply(&self, batch: Batch) -> Result<u64> {
        (**self).apply(batch).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        (**self).get(key).await
    }

    async fn list(&self, namespace: &str, kind: Kind) -> Result<Vec<Record>> {
        (**self).list(namespace, kind).await
    }

    async fn namespaces(&self) -> Result<Vec<String>> {
        (**self).namespaces().await
    }

    async fn view(&self) -> Result<Box<dyn View>> {
        (**self).view().await
    }
}
