//! The memory of a container engine: a graph of references from names (images, containers, leases) to what they need.
//!
//! Records live in a [`MetadataStore`], changed by batches that happen whole or not at all. [`RedbStore`] keeps them in a file, [`MemoryStore`] in memory.
//! [`MetadataStoreExt`] adds typed records on top of either.
//!
//! # What it is not for
//! What runs: that is the executor's to know. Blobs and files: a record names them, stores of their own hold them.
//!
//! # Limitations
//! One process at a time has a file open; a second gets an error that names it. Conditional references (containerd's `gc.cond.*` labels) are not read.
//!
//! # Example
//! ```
//! use std::collections::BTreeMap;
//! use longshore_metadata::{Batch, ErrorKind, Key, Lease, MetadataStore, MetadataStoreExt, RedbStore, Value};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("metadata.redb");
//! let store = RedbStore::open(&path).await?;
//! let key = Key::lease("default", "pull-1");
//! let lease = Value::Lease(Lease::default());
//! store.apply(Batch::new().create(key.clone(), BTreeMap::new(), lease.clone())).await?;
//!
//! // It is there already: nothing of the second batch happens.
//! let again = store.apply(Batch::new().create(key.clone(), BTreeMap::new(), lease)).await;
//! assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
//!
//! drop(store);
//! let store = RedbStore::open(&path).await?;
//! assert_eq!(store.entries::<Lease>("default").await?.len(), 1);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod codec;
mod collect;
#[cfg(feature = "conformance")]
pub mod conformance;
mod edges;
mod error;
mod ext;
mod fields;
mod memory;
mod plan;
mod record;
mod redb;
mod store;
mod time;
pub mod validate;

pub use collect::{
    CollectOptions, Collected, Collectible, Collector, Depth, Edge, Found, Mode, Node, Removed, Report, Root,
    StoreError, Way,
};
pub use error::{Error, ErrorKind, Result};
pub use ext::{Entry, Labels, MetadataStoreExt, Put, Recorded};
pub use fields::Masked;
pub use longshore_filter::{Filter, Filters};
pub use memory::MemoryStore;
pub use record::{Container, Image, Key, Kind, Lease, Record, Resource, Value};
pub use redb::RedbStore;
pub use store::{Batch, MetadataStore, Op, Precondition, View};
