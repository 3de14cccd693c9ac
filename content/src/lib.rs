//! A content-addressed store of blobs: what a registry sends is an *ingest* until its digest is proved, and a *blob*
//! from then on.
//!
//! [`ContentStore`] is the port; [`LocalStore`] keeps blobs on disk as an OCI image layout, [`MemoryStore`] in memory,
//! [`LayeredStore`] is a private store over shared ones. With the feature `object-store` there is one over S3, GCS, Azure and whatever else the crate of that name reaches.
//! [`ContentStoreExt`] and [`BlobExt`] are conveniences on every store and blob.
//!
//! ```
//! use longshore_content::{ContentStore, ContentStoreExt, Expected, IngestRequest, LocalStore, sha256};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let store = LocalStore::open(directory.path()).await?;
//!
//! // What a puller does: the digest is known, the bytes come piece by piece.
//! let digest = sha256(b"hello world");
//! let expected = Expected { digest: Some(digest.clone()), size: Some(11) };
//! let mut ingest = store.ingest(IngestRequest { reference: format!("layer-{digest}"), expected }).await?;
//! ingest.write("hello ".into()).await?;
//!
//! // A reader need not wait for the rest, nor trust what it reads before the end.
//! let follower = store.follow(&digest).await?;
//! let mut buf = [0; 100];
//! assert_eq!(follower.read_at(0, &mut buf).await?, 6);
//!
//! ingest.write("world".into()).await?;
//! ingest.commit(Expected::default()).await?;
//! assert_eq!(follower.read_at(11, &mut buf).await?, 0);
//! assert_eq!(store.read(&digest, 1 << 20).await?, "hello world");
//! # Ok(())
//! # }
//! ```
//!
//! # What it is not for
//! It does not know what a blob means, who refers to it, or when it may go: that is the metadata store's. It does not
//! fetch.
//!
//! # Limitations
//! - sha256, sha384 and sha512 only.
//! - An ingest can be followed only through the store that writes it, not from another process.

#![forbid(unsafe_code)]

#[cfg(feature = "conformance")]
pub mod conformance;

mod blob;
mod blocking;
mod error;
mod expect;
mod ext;
mod flight;
mod hash;
mod layered;
mod local;
mod memory;
#[cfg(feature = "object-store")]
mod object;
mod reader;
mod repair;
mod store;
mod verify;

pub use error::{Error, ErrorKind, Result};
pub use ext::ContentStoreExt;
pub use hash::{Hasher, sha256};
pub use layered::LayeredStore;
pub use local::{LocalBatch, LocalStore};
pub use memory::MemoryStore;
#[cfg(feature = "object-store")]
pub use object::ObjectStoreContent;
#[cfg(feature = "object-store")]
pub use object_store;
pub use reader::{BlobExt, BlobReader, stream};
pub use repair::{BlobSource, Repair, Supply, repair};
pub use store::{Blob, ContentStore, Expected, Info, Ingest, IngestRequest, IngestStatus};
pub use verify::{Fault, Problem, Subject, Verification, Verifier, VerifyProgress};
