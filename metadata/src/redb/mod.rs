//! The store in a file, on redb.

mod database;
mod lock;
mod store;
mod view;
mod writer;

pub use store::RedbStore;
