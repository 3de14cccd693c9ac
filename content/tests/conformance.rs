//! The contract, on both stores, under every kind of executor.

use std::sync::Arc;

use longshore_content::conformance::{self, Store};
use longshore_content::{LocalStore, MemoryStore};

async fn memory() -> Store {
    Arc::new(MemoryStore::new())
}

async fn on_disk() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (number, case) in conformance::cases().into_iter().enumerate() {
        eprintln!("conformance: {}", case.name);
        let root = directory.path().join(number.to_string());
        let store = LocalStore::open(&root)
            .await
            .expect("an empty directory becomes a store");
        case.run(Arc::new(store.clone())).await;
        store.settle().await;
        std::fs::remove_dir_all(root).expect("nothing is left open that can't be removed");
    }
}

#[tokio::test]
async fn memory_store() {
    conformance::run(memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_store_with_threads() {
    conformance::run(memory).await;
}

#[tokio::test]
async fn local_store() {
    on_disk().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn local_store_with_threads() {
    on_disk().await;
}

/// No tokio anywhere: the ports' signatures promise that any executor will do.
#[test]
fn without_tokio() {
    futures::executor::block_on(conformance::run(memory));
    futures::executor::block_on(on_disk());
}
