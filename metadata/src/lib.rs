//! The memory of a container engine: a graph of references from names (images, containers, leases) to what they need.

#![forbid(unsafe_code)]

mod error;
mod record;
mod store;

pub use error::{Error, ErrorKind, Result};
pub use record::{Container, Image, Key, Kind, Lease, Record, Resource, Value};
pub use store::{Batch, MetadataStore, Op, Precondition};
