//! The store on a local filesystem.

mod batch;
mod begin;
mod claim;
mod commit;
mod data;
mod durable;
mod hashing;
mod ingest;
mod layout;
mod record;
mod slots;
mod store;
mod sweep;
mod walk;
mod writer;

pub use batch::LocalBatch;
pub use store::LocalStore;
