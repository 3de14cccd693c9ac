use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use oci_spec::image::Descriptor;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

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
    /// A collection is about to remove the resource that the id names. Its records have the empty namespace, and while one stands no record may
    /// be put that refers to the resource.
    Removal,
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

    /// The key of a namespace.
    pub fn namespace(name: impl Into<String>) -> Self {
        Self::new("", Kind::Namespace, name)
    }

    /// The key of the labels of a blob.
    pub fn content(namespace: impl Into<String>, digest: impl Into<String>) -> Self {
        Self::new(namespace, Kind::Content, digest)
    }

    /// The key of the labels of a snapshot.
    pub fn snapshot(namespace: impl Into<String>, snapshotter: &str, key: &str) -> Self {
        Self::new(namespace, Kind::Snapshot, format!("{snapshotter}/{key}"))
    }

    /// The resource whose labels a record of this key holds, if it is of such a kind.
    pub fn resource(&self) -> Option<Resource> {
        match self.kind {
            Kind::Content => Some(Resource::Content(self.id.clone())),
            Kind::Snapshot => {
                let (snapshotter, key) = self.id.split_once('/')?;
                Some(Resource::snapshot(snapshotter, key))
            }
            _ => None,
        }
    }

    /// The key of the removal of a resource.
    pub fn removal(resource: &Resource) -> Self {
        Self::new("", Kind::Removal, resource.to_string())
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
            Kind::Removal => return write!(f, "removal of '{}'", self.id),
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
    /// Something that a [`Collectible`](crate::Collectible) of the program's own looks after.
    Custom {
        /// What it is: an identifier, and none of the kinds above.
        kind: String,
        /// Which.
        id: String,
    },
}

impl Resource {
    /// A resource of the program's own kind.
    pub fn custom(kind: impl Into<String>, id: impl Into<String>) -> Self {
        Self::Custom {
            kind: kind.into(),
            id: id.into(),
        }
    }

    /// A snapshot.
    pub fn snapshot(snapshotter: impl Into<String>, key: impl Into<String>) -> Self {
        Self::Snapshot {
            snapshotter: snapshotter.into(),
            key: key.into(),
        }
    }
}

/// `content/<digest>`, `snapshot/<snapshotter>/<key>`, `ingest/<reference>` or `<kind>/<id>`; [`FromStr`] reads it again.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content(digest) => write!(f, "content/{digest}"),
            Self::Snapshot { snapshotter, key } => write!(f, "snapshot/{snapshotter}/{key}"),
            Self::Ingest(reference) => write!(f, "ingest/{reference}"),
            Self::Custom { kind, id } => write!(f, "{kind}/{id}"),
        }
    }
}

impl FromStr for Resource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = match text.split_once('/') {
            Some(("content", digest)) => Some(Self::Content(digest.into())),
            Some(("ingest", reference)) => Some(Self::Ingest(reference.into())),
            Some(("snapshot", rest)) => rest.split_once('/').map(|(name, key)| Self::snapshot(name, key)),
            Some((kind, id)) => Some(Self::custom(kind, id)),
            None => None,
        };
        parsed.ok_or_else(|| Error::Invalid {
            what: "resource",
            value: text.into(),
            reason: "it is none of content/<digest>, snapshot/<snapshotter>/<key>, ingest/<reference>, <kind>/<id>"
                .into(),
        })
    }
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
    Image(Box<Image>),
    /// Of a [`Kind::Container`].
    Container(Box<Container>),
    /// Of a [`Kind::Lease`].
    Lease(Lease),
    /// Of a [`Kind::Content`], [`Kind::Snapshot`] or [`Kind::Removal`]: labels alone.
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
