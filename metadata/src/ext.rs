use std::collections::BTreeMap;
use std::time::SystemTime;

use async_trait::async_trait;
use oci_spec::image::Descriptor;

use crate::fields::{self, Masked};
use crate::{
    Batch, Container, Error, ErrorKind, Filters, Image, Key, Kind, Lease, MetadataStore, Precondition, Record,
    Resource, Result, Value,
};

/// Labels.
pub type Labels = BTreeMap<String, String>;

/// How often a change that somebody else's change got in the way of is tried again.
const RETRIES: usize = 100;

/// A record of one kind.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Entry<T> {
    /// The image's name, or the container's or lease's id.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// When it was first put.
    pub created: SystemTime,
    /// When it was last put.
    pub updated: SystemTime,
    /// The revision of the store that wrote it.
    pub revision: u64,
    /// What it says.
    pub value: T,
}

/// A value that is of one kind of records.
pub trait Recorded: Sized + Send {
    /// The kind.
    const KIND: Kind;

    /// The value as a record holds it.
    fn into_value(self) -> Value;

    /// The other way; `None` for another kind's.
    fn from_value(value: Value) -> Option<Self>;
}

impl Recorded for Image {
    const KIND: Kind = Kind::Image;

    fn into_value(self) -> Value {
        Value::Image(Box::new(self))
    }

    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Image(image) => Some(*image),
            _ => None,
        }
    }
}

impl Recorded for Container {
    const KIND: Kind = Kind::Container;

    fn into_value(self) -> Value {
        Value::Container(Box::new(self))
    }

    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Container(container) => Some(*container),
            _ => None,
        }
    }
}

impl Recorded for Lease {
    const KIND: Kind = Kind::Lease;

    fn into_value(self) -> Value {
        Value::Lease(self)
    }

    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Lease(lease) => Some(lease),
            _ => None,
        }
    }
}

impl<T: Recorded> Entry<T> {
    /// The record as a typed one; `None` if it is of another kind.
    pub fn from_record(record: Record) -> Option<Self> {
        Some(Self {
            name: record.key.id,
            labels: record.labels,
            created: record.created,
            updated: record.updated,
            revision: record.revision,
            value: T::from_value(record.value)?,
        })
    }
}

/// What a put did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Put {
    /// The record is new.
    Created,
    /// It was there and says something else now.
    Updated,
    /// It said the same already; nothing was written.
    Unchanged,
}

/// Conveniences on every [`MetadataStore`]. The errors are those of [`apply`](MetadataStore::apply).
#[async_trait]
pub trait MetadataStoreExt: MetadataStore {
    /// One record of a kind, or `None`.
    async fn entry<T: Recorded>(&self, namespace: &str, name: &str) -> Result<Option<Entry<T>>> {
        let record = self.get(&Key::new(namespace, T::KIND, name)).await?;
        Ok(record.and_then(Entry::from_record))
    }

    /// All records of a kind in a namespace, ordered by name.
    async fn entries<T: Recorded>(&self, namespace: &str) -> Result<Vec<Entry<T>>> {
        let records = self.list(namespace, T::KIND).await?;
        Ok(records.into_iter().filter_map(Entry::from_record).collect())
    }

    /// Reads a record, lets `change` change it, and writes it if nobody else has written it since; else all over again, so `change` may be called several times.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound).
    async fn modify<T, F>(&self, namespace: &str, name: &str, mut change: F) -> Result<u64>
    where
        T: Recorded,
        F: FnMut(&mut Labels, &mut T) + Send,
    {
        let key = Key::new(namespace, T::KIND, name);
        let mut attempt = 0;
        loop {
            let entry = self.entry::<T>(namespace, name).await?;
            let mut entry = entry.ok_or_else(|| Error::NotFound(key.clone()))?;
            change(&mut entry.labels, &mut entry.value);
            let unchanged = Precondition::Revision(key.clone(), entry.revision);
            let batch = Batch::new()
                .require(unchanged)
                .put(key.clone(), entry.labels, entry.value.into_value());
            match self.apply(batch).await {
                Err(Error::Conflict { .. }) if attempt < RETRIES => attempt += 1,
                done => return done,
            }
        }
    }

    /// The records of a kind in a namespace that match, ordered by name. Fields are named as containerd's clients do: `name~=alpine,labels."a.b"==c`.
    async fn filtered<T: Recorded>(&self, namespace: &str, filters: &Filters) -> Result<Vec<Entry<T>>> {
        let records = self.list(namespace, T::KIND).await?.into_iter();
        Ok(records
            .filter(|record| filters.matches(record))
            .filter_map(Entry::from_record)
            .collect())
    }

    /// Changes the named fields of a record to those of `entry`, and leaves the others as they are, whoever wrote them meanwhile: `labels`, `labels.<label>` (which is removed when
    /// `entry` has none), and those of the value (see [`Masked`]). Without fields, all of it is put, and only if nobody wrote it since `entry` was read.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); [`Invalid`](ErrorKind::Invalid) for a field that there is not; without fields [`Conflict`](ErrorKind::Conflict).
    async fn update<T: Masked + Clone + Sync>(
        &self,
        namespace: &str,
        entry: &Entry<T>,
        fields: &[&str],
    ) -> Result<u64> {
        let key = Key::new(namespace, T::KIND, &entry.name);
        if fields.is_empty() {
            let unchanged = Precondition::Revision(key.clone(), entry.revision);
            let batch = Batch::new().require(unchanged);
            return self
                .apply(batch.put(key, entry.labels.clone(), entry.value.clone().into_value()))
                .await;
        }
        let mut outcome = Ok(());
        let applied = self
            .modify::<T, _>(namespace, &entry.name, |labels, value| {
                let (mut new_labels, mut new_value) = (labels.clone(), value.clone());
                outcome = fields::take(&mut new_labels, &mut new_value, entry, fields);
                if outcome.is_ok() {
                    (*labels, *value) = (new_labels, new_value);
                }
            })
            .await;
        outcome.and(applied)
    }

    /// Sets all labels of a namespace, whether it has a record or not.
    async fn label_namespace(&self, namespace: &str, labels: Labels) -> Result<u64> {
        self.apply(Batch::new().put(Key::namespace(namespace), labels, Value::Namespace))
            .await
    }

    /// The labels of a namespace; `None` when it has no record.
    async fn namespace_labels(&self, namespace: &str) -> Result<Option<Labels>> {
        Ok(self.get(&Key::namespace(namespace)).await?.map(|record| record.labels))
    }

    /// Removes a namespace's record.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); [`NotEmpty`](Error::NotEmpty) while anything is in it; [`Conflict`](ErrorKind::Conflict) when others write all the time.
    async fn delete_namespace(&self, namespace: &str) -> Result<()> {
        for _ in 0..RETRIES {
            let revision = self.view().await?.revision();
            for kind in [Kind::Image, Kind::Container, Kind::Lease, Kind::Content, Kind::Snapshot] {
                if let Some(record) = self.list(namespace, kind).await?.into_iter().next() {
                    return Err(Error::NotEmpty {
                        namespace: namespace.to_owned(),
                        holds: record.key,
                    });
                }
            }
            let unchanged = Precondition::StoreRevision(revision);
            match self
                .apply(Batch::new().require(unchanged).delete(Key::namespace(namespace)))
                .await
            {
                Err(Error::Moved { .. }) => {}
                outcome => return outcome.map(drop),
            }
        }
        let revision = self.view().await?.revision();
        Err(Error::Moved {
            expected: revision,
            actual: revision,
        })
    }

    /// Makes sure that a namespace has a record.
    async fn ensure_namespace(&self, namespace: &str) -> Result<()> {
        let batch = Batch::new().create(Key::namespace(namespace), Labels::new(), Value::Namespace);
        ignore(ErrorKind::AlreadyExists, self.apply(batch).await)
    }

    /// An image, or `None`.
    async fn image(&self, namespace: &str, name: &str) -> Result<Option<Entry<Image>>> {
        self.entry(namespace, name).await
    }

    /// The images of a namespace, ordered by name.
    async fn images(&self, namespace: &str) -> Result<Vec<Entry<Image>>> {
        self.entries(namespace).await
    }

    /// Lets a name point to a descriptor, whether it exists or not.
    async fn put_image(&self, namespace: &str, name: &str, target: Descriptor, labels: Labels) -> Result<Put> {
        let key = Key::image(namespace, name);
        let image = Image { target };
        let mut attempt = 0;
        loop {
            let (put, condition) = match self.image(namespace, name).await? {
                None => (Put::Created, Precondition::Absent(key.clone())),
                Some(old) if old.value == image && old.labels == labels => return Ok(Put::Unchanged),
                Some(old) => (Put::Updated, Precondition::Revision(key.clone(), old.revision)),
            };
            let batch = Batch::new()
                .require(condition)
                .put(key.clone(), labels.clone(), image.clone().into_value());
            match self.apply(batch).await {
                Ok(_) => return Ok(put),
                Err(Error::Conflict { .. } | Error::AlreadyExists(_) | Error::NotFound(_)) if attempt < RETRIES => {
                    attempt += 1
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes an image's name. What it pointed to is for the next collection.
    async fn delete_image(&self, namespace: &str, name: &str) -> Result<()> {
        self.apply(Batch::new().delete(Key::image(namespace, name)))
            .await
            .map(drop)
    }

    /// A container, or `None`.
    async fn container(&self, namespace: &str, id: &str) -> Result<Option<Entry<Container>>> {
        self.entry(namespace, id).await
    }

    /// The containers of a namespace, ordered by id.
    async fn containers(&self, namespace: &str) -> Result<Vec<Entry<Container>>> {
        self.entries(namespace).await
    }

    /// Records a container that must not exist yet.
    async fn create_container(&self, namespace: &str, id: &str, container: Container, labels: Labels) -> Result<u64> {
        self.apply(Batch::new().create(Key::container(namespace, id), labels, container.into_value()))
            .await
    }

    /// Removes a container's record.
    async fn delete_container(&self, namespace: &str, id: &str) -> Result<()> {
        self.apply(Batch::new().delete(Key::container(namespace, id)))
            .await
            .map(drop)
    }

    /// The leases of a namespace, ordered by id; expired ones too.
    async fn leases(&self, namespace: &str) -> Result<Vec<Entry<Lease>>> {
        self.entries(namespace).await
    }

    /// Makes a lease that holds nothing yet. `expires` of `None` is never.
    async fn create_lease(&self, namespace: &str, id: &str, expires: Option<SystemTime>) -> Result<u64> {
        let lease = Lease {
            expires,
            resources: Vec::new(),
        };
        self.apply(Batch::new().create(Key::lease(namespace, id), Labels::new(), lease.into_value()))
            .await
    }

    /// Lets a lease hold more. Do it **before** the resources are made or looked for: what is there afterwards stays there.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for the lease; [`Conflict`](ErrorKind::Conflict) when one of the resources is being collected at this moment: try again in a
    /// moment, or see [`hold`](Self::hold).
    async fn add_to_lease(&self, namespace: &str, id: &str, resources: &[Resource]) -> Result<u64> {
        self.modify::<Lease, _>(namespace, id, |_, lease| {
            for resource in resources {
                if !lease.resources.contains(resource) {
                    lease.resources.push(resource.clone());
                }
            }
        })
        .await
    }

    /// The same, waiting for as long as a collection removes one of the resources. That takes milliseconds, unless the collection was killed in the middle: then
    /// it takes until the next one, and this gives up with the error after some seconds.
    async fn hold(&self, namespace: &str, id: &str, resources: &[Resource]) -> Result<u64> {
        let mut attempt = 0;
        loop {
            match self.add_to_lease(namespace, id, resources).await {
                Err(Error::BeingCollected { .. }) if attempt < RETRIES => attempt += 1,
                done => return done,
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Lets a lease hold less.
    async fn remove_from_lease(&self, namespace: &str, id: &str, resources: &[Resource]) -> Result<u64> {
        self.modify::<Lease, _>(namespace, id, |_, lease| {
            lease.resources.retain(|held| !resources.contains(held))
        })
        .await
    }

    /// Changes when a lease expires.
    async fn renew_lease(&self, namespace: &str, id: &str, expires: Option<SystemTime>) -> Result<u64> {
        self.modify::<Lease, _>(namespace, id, |_, lease| lease.expires = expires)
            .await
    }

    /// Removes a lease; a lease that does not exist is no error, so that cleaning up can be done twice.
    async fn delete_lease(&self, namespace: &str, id: &str) -> Result<()> {
        let batch = Batch::new().delete(Key::lease(namespace, id));
        ignore(ErrorKind::NotFound, self.apply(batch).await)
    }

    /// Sets all labels of a blob as a namespace sees it.
    async fn label_content(&self, namespace: &str, digest: &str, labels: Labels) -> Result<u64> {
        self.apply(Batch::new().put(Key::content(namespace, digest), labels, Value::Labels))
            .await
    }

    /// Sets all labels of a snapshot as a namespace sees it.
    async fn label_snapshot(&self, namespace: &str, snapshotter: &str, key: &str, labels: Labels) -> Result<u64> {
        self.apply(Batch::new().put(Key::snapshot(namespace, snapshotter, key), labels, Value::Labels))
            .await
    }
}

impl<S: MetadataStore + ?Sized> MetadataStoreExt for S {}

fn ignore(kind: ErrorKind, result: Result<u64>) -> Result<()> {
    match result {
        Err(error) if error.kind() != kind => Err(error),
        _ => Ok(()),
    }
}
