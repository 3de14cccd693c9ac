//! A content-addressed store of blobs: what a registry sends is an *ingest* until its digest is proved, and a *blob*
//! from then on.

#![forbid(unsafe_code)]

mod error;
mod store;

pub use error::{Error, ErrorKind, Result};
pub use store::{Blob, ContentStore, Expected, Info, Ingest, IngestRequest, IngestStatus};
