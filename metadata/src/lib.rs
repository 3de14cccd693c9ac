//! The memory of a container engine: a graph of references from names (images, containers, leases) to what they need.
#![forbid(unsafe_code)]

mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
mod edges;
mod error;
mod ext;
mod memory;
mod plan;
mod record;
mod redb;
mod store;
pub mod validate;

pub use error::{Error, ErrorKind, Result};
pub use ext::{Entry, Labels, MetadataStoreExt, Put, Recorded};
pub use memory::MemoryStore;
pub use record::{Container, Image, Key, Kind, Lease, Record, Resource, Value};
pub use redb::RedbStore;
pub use store::{Batch, MetadataStore, Op, Precondition, View};
