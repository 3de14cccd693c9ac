use std::fmt;

use crate::Resource;

/// A node of the graph of references, as one namespace sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Node {
    /// Something on disk.
    Resource(Resource),
    /// An image's record, by name.
    Image(String),
    /// A container's record, by id.
    Container(String),
}

impl From<Resource> for Node {
    fn from(resource: Resource) -> Self {
        Self::Resource(resource)
    }
}

impl Node {
    /// The resource, if it is one.
    pub fn resource(&self) -> Option<&Resource> {
        match self {
            Self::Resource(resource) => Some(resource),
            _ => None,
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(resource) => resource.fmt(f),
            Self::Image(name) => write!(f, "image/{name}"),
            Self::Container(id) => write!(f, "container/{id}"),
        }
    }
}
