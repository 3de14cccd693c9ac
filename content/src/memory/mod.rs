//! The store in memory.

mod blocks;
mod ingest;
mod store;

pub use store::MemoryStore;
