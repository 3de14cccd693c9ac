use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use oci_spec::image::Descriptor;
use serde::{Deserialize, Serialize};

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// A tenant. Its records have the empty namespace.
    Namespace,
    /// A name for a root descriptor.
    Image,
    /// A container.
    Container,
    /// A hold on resources that nothing names yet.
    Lease,
    /// Labels of a blob as one namespace sees it.
    Content,
    /// Labels of a snapshot as one namespace sees it.
    Snapshot,
}

/// The address of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The tenant.
    pub namespace: String,
    /// What it is.
    pub kind: Kind,
    /// Its name in the namespace: an image's reference, a container's or lease's id, a digest, `<snapshotter>/<key>`.
    pub id: String,
}

impl Key {
    /// A key of any kind.
    pub fn new(namespace: impl Into<String>, kind: Kind, id: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            kind,
            id: id.into(),
        }
    }

    /// The key of an image.
    pub fn image(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::new(namespace, Kind::Image, name)
    }

    /// The key of a container.
    pub fn container(namespace: impl Into<String>, id: impl Into<String>) -> Self {
        Self::new(namespace, Kind::Container, id)
    }

    /// The key of a lease.
    pub fn lease(namespace: impl Into<String>, id: impl Into<String>) -> Self {
        Self::new(namespace, Kind::Lease, id)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Namespace => return write!(f, "namespace '{}'", self.id),
            Kind::Image => "image",
            Kind::Container => "container",
            Kind::Lease => "lease",
            Kind::Content => "content",
            Kind::Snapshot => "snapshot",
        };
        write!(f, "{kind} '{}' (namespace '{}')", self.id, self.namespace)
    }
}

/// Something on disk that a record can hold on to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Resource {
    /// A blob, by digest.
    Content(String),
    /// A snapshot, by snapshotter and key.
    Snapshot {
        /// The snapshotter's name.
        snapshotter: String,
        /// The key or name.
        key: String,
    },
    /// A partial ingest, by reference.
    Ingest(String),
}

/// A stored record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// Its address.
    pub key: Key,
    /// Labels; containerd's `containerd.io/gc.*` ones are edges of the graph.
    pub labels: BTreeMap<String, String>,
    /// When it was first put.
    pub created: SystemTime,
    /// When it was last put.
    pub updated: SystemTime,
    /// Counts the changes of the whole store; that of a record is the one that wrote it.
    pub revision: u64,
    /// What it says.
    pub value: Value,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Value {
    /// Of a [`Kind::Namespace`].
    Namespace,
    /// Of a [`Kind::Image`].
    Image(Image),
    /// Of a [`Kind::Container`].
    Container(Box<Container>),
    /// Of a [`Kind::Lease`].
    Lease(Lease),
    /// Of a [`Kind::Content`] or [`Kind::Snapshot`]: labels alone.
    Labels,
}

/// An image: a name for a root descriptor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// The manifest or index.
    pub target: Descriptor,
}

/// A container, as the engine remembers it; what runs is the executor's to know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Name of the image it was made from.
    pub image: String,
    /// The image's root digest at that time.
    pub image_digest: Option<String>,
    /// The snapshotter that holds its root.
    pub snapshotter: String,
    /// The key of its writable snapshot.
    pub snapshot: String,
    /// The runtime spec (`config.json`) as it was made.
    pub spec: serde_json::Value,
    /// Facts that the engine keeps beside it (log file, restart policy), by name.
    pub extensions: BTreeMap<String, serde_json::Value>,
}

/// A lease: keeps resources alive until it is removed or expires.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// When it stops holding; `None` is never.
    pub expires: Option<SystemTime>,
    /// What it holds.
    pub resources: Vec<Resource>,
}
