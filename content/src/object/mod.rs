//! The store over somebody's objects.

mod blob;
mod ingest;
mod live;
mod store;
mod upload;

pub use store::ObjectStoreContent;
