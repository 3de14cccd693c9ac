//! The contract, on every store and wrapper, under every kind of executor.

use std::sync::Arc;

use longshore_content::conformance::{self, Store};
use longshore_content::object_store::memory::InMemory;
use longshore_content::object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem};
use longshore_content::{
    ContentStore, ContentStoreExt, ErrorKind, Expected, IngestRequest, LayeredStore, LocalStore, MemoryStore,
    ObjectStoreContent, Verifier, repair, sha256,
};

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

// ---- A batch of commits

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batch_of_a_local_store() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (number, case) in conformance::cases().into_iter().enumerate() {
        let store = LocalStore::open(directory.path().join(number.to_string()))
            .await
            .expect("a store");
        eprintln!("conformance: {}", case.name);
        let batch = store.batch();
        case.run(Arc::new(batch.clone())).await;
        batch.finish().await.expect("the rest becomes durable");
        store.settle().await;
        let found = Verifier::new(&store).all().await.expect("a walk");
        assert!(found.problems.is_empty(), "{:?}", found.problems);
    }
}

#[tokio::test]
async fn a_batch_becomes_visible_at_its_end() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = LocalStore::open(directory.path()).await.expect("a store");
    let texts = ["one", "two", "three", "four"];
    let batch = store.batch();
    for text in texts {
        batch.put(text, text.into(), Expected::default()).await.expect("staged");
        assert_eq!(batch.read(&sha256(text.as_bytes()), 10).await.expect("readable"), text);
    }
    assert!(batch.ingests().await.expect("a list").is_empty());
    let walked: Vec<_> = futures::StreamExt::collect(store.walk()).await;
    assert!(walked.is_empty(), "nothing is acknowledged yet: {walked:?}");
    // Its reference is taken, and nobody waits for ever.
    let request = IngestRequest {
        reference: "one".into(),
        expected: Expected::default(),
    };
    assert_eq!(
        store.ingest(request.clone()).await.expect_err("held").kind(),
        ErrorKind::InUse
    );
    store.settle().await;
    // Somebody else may be faster.
    put(&store, "two").await;
    assert_eq!(batch.finish().await.expect("durable").len(), 4);
    for text in texts {
        store.verify(&sha256(text.as_bytes())).await.expect("whole");
    }
    assert!(store.ingests().await.expect("a list").is_empty());
    drop(store.ingest(request).await.expect("it is free"));
}

#[tokio::test]
async fn a_batch_that_is_dropped_leaves_what_can_be_resumed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = LocalStore::open(directory.path()).await.expect("a store");
    let request = || IngestRequest {
        reference: "a".into(),
        expected: Expected {
            digest: Some(sha256(b"staged")),
            size: Some(6),
        },
    };
    let batch = store.batch();
    let mut ingest = batch.ingest(request()).await.expect("begun");
    ingest.write("staged".into()).await.expect("written");
    ingest.commit(Expected::default()).await.expect("staged");
    drop(batch);
    assert!(!store.contains(&sha256(b"staged")).await.expect("an answer"));
    let ingest = store.ingest(request()).await.expect("resumed");
    assert_eq!(ingest.status().offset, 6);
    ingest.commit(Expected::default()).await.expect("committed");
    store.verify(&sha256(b"staged")).await.expect("whole");
}

// ---- Layers of stores

fn layered(private: Store) -> LayeredStore {
    let shared: [Store; 2] = [Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new())];
    LayeredStore::new(private, shared)
}

#[tokio::test]
async fn layered_store() {
    conformance::run(async || Arc::new(layered(memory().await)) as Store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn layered_store_on_disk() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (number, case) in conformance::cases().into_iter().enumerate() {
        let store = LocalStore::open(directory.path().join(number.to_string()))
            .await
            .expect("a store");
        eprintln!("conformance: {}", case.name);
        case.run(Arc::new(layered(Arc::new(store.clone())))).await;
        store.settle().await;
    }
}

async fn put(store: &dyn ContentStore, text: &'static str) {
    store
        .put("put", text.into(), Expected::default())
        .await
        .expect("it is stored");
}

#[tokio::test]
async fn a_layered_store_shows_all_and_writes_one() {
    let store = layered(memory().await);
    put(store.private().as_ref(), "private").await;
    put(store.shared()[0].as_ref(), "first").await;
    put(store.shared()[1].as_ref(), "second").await;
    for layer in [store.private(), &store.shared()[0], &store.shared()[1]] {
        put(layer.as_ref(), "everywhere").await;
    }
    let walked: Vec<_> = futures::TryStreamExt::try_collect(store.walk()).await.expect("a walk");
    assert_eq!(walked.len(), 4, "each once: {walked:?}");
    for text in ["private", "first", "second", "everywhere"] {
        assert_eq!(store.read(&sha256(text.as_bytes()), 100).await.expect("there"), text);
        let request = IngestRequest {
            reference: "again".into(),
            expected: Expected {
                digest: Some(sha256(text.as_bytes())),
                size: None,
            },
        };
        let refused = store.ingest(request).await.expect_err("it is there");
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    }
    for text in ["first", "second"] {
        let refused = store.remove(&sha256(text.as_bytes())).await.expect_err("it is shared");
        assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    }
    store.remove(&sha256(b"private")).await.expect("it is ours");
    assert!(!store.contains(&sha256(b"private")).await.expect("an answer"));
    store.remove(&sha256(b"everywhere")).await.expect("one of them is ours");
    assert_eq!(
        store
            .read(&sha256(b"everywhere"), 100)
            .await
            .expect("the others' are there"),
        "everywhere"
    );
    put(&store, "new").await;
    assert!(store.private().contains(&sha256(b"new")).await.expect("an answer"));
    assert!(!store.shared()[0].contains(&sha256(b"new")).await.expect("an answer"));
}

#[tokio::test]
async fn what_a_shared_store_has_ends_a_partial_ingest() {
    let store = layered(memory().await);
    let request = || IngestRequest {
        reference: "a".into(),
        expected: Expected {
            digest: Some(sha256(b"shared")),
            size: None,
        },
    };
    let mut ingest = store.ingest(request()).await.expect("begun");
    ingest.write("sha".into()).await.expect("written");
    put(store.shared()[0].as_ref(), "shared").await;
    assert_eq!(
        store.ingest(request()).await.expect_err("held").kind(),
        ErrorKind::InUse
    );
    drop(ingest);
    let refused = store.ingest(request()).await.expect_err("it is there");
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert!(store.ingests().await.expect("a list").is_empty());
}

#[tokio::test]
async fn a_good_copy_hides_a_damaged_shared_one() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let shared = LocalStore::open(directory.path()).await.expect("a store");
    put(&shared, "golden").await;
    let digest = sha256(b"golden");
    std::fs::write(directory.path().join("blobs/sha256").join(digest.digest()), "gilded").expect("written");
    let store = LayeredStore::new(memory().await, [Arc::new(shared) as Store]);
    let found = Verifier::new(&store).all().await.expect("a walk");
    assert_eq!(found.problems.len(), 1);
    let source = memory().await;
    put(source.as_ref(), "golden").await;
    let done = repair(&store, found.problems, &source).await;
    assert_eq!(done.repaired.len(), 1, "{done:?}");
    store.verify(&digest).await.expect("whole again");
    assert_eq!(store.read(&digest, 100).await.expect("there"), "golden");
}

// ---- Objects

/// What objects can't keep: they are not there for those that have them open. The documentation of the store says so.
const NOT_OBJECTS: &str = "blobs::a_removed_blob_is_gone_but_open_readers_keep_it";

async fn over_objects(fresh: impl AsyncFn() -> Store) {
    let cases = conformance::cases();
    assert!(cases.iter().any(|case| case.name == NOT_OBJECTS));
    for case in cases.into_iter().filter(|case| case.name != NOT_OBJECTS) {
        eprintln!("conformance: {}", case.name);
        case.run(fresh().await).await;
    }
}

async fn objects_in_memory() -> Store {
    Arc::new(ObjectStoreContent::new(Arc::new(InMemory::new()), memory().await).with_prefix("team/images"))
}

#[tokio::test]
async fn object_store_in_memory() {
    over_objects(objects_in_memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn object_store_in_memory_with_threads() {
    over_objects(objects_in_memory).await;
}

/// Objects that are files, and a staging store on disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn object_store_of_files() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    over_objects(async || {
        let root = tempfile::tempdir_in(directory.path()).expect("a directory").keep();
        let objects = LocalFileSystem::new_with_prefix(&root).expect("a store of files");
        let staging = LocalStore::open(root.join("staging")).await.expect("a staging store");
        Arc::new(ObjectStoreContent::new(Arc::new(objects), Arc::new(staging))) as Store
    })
    .await;
}

#[tokio::test]
async fn two_machines_share_objects() {
    let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (one, two) = (memory().await, memory().await);
    let here = ObjectStoreContent::new(bucket.clone(), one.clone());
    let there = ObjectStoreContent::new(bucket.clone(), two.clone());
    // Large enough for parts, of which the last is short.
    let data: bytes::Bytes = (0..20_000_000u32).map(|number| (number % 251) as u8).collect();
    let digest = sha256(&data);
    here.put("a", data.clone(), Expected::default()).await.expect("stored");
    assert!(there.read(&digest, 1 << 30).await.expect("there") == data);
    there.verify(&digest).await.expect("whole");
    let request = |reference: &str| IngestRequest {
        reference: reference.into(),
        expected: Expected {
            digest: Some(digest.clone()),
            size: None,
        },
    };
    let refused = there.ingest(request("b")).await.expect_err("it is there");
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    for staging in [&one, &two] {
        let left: Vec<_> = futures::StreamExt::collect(staging.walk()).await;
        assert!(left.is_empty(), "nothing stays staged: {left:?}");
    }
    // What others keep in the bucket is not ours.
    let path = longshore_content::object_store::path::Path::from("blobs/README");
    bucket.put(&path, "strange".into()).await.expect("put");
    let walked: Vec<_> = futures::StreamExt::collect(there.walk()).await;
    assert_eq!(walked.len(), 1);
    there.remove(&digest).await.expect("removed");
    assert!(!here.contains(&digest).await.expect("an answer"));
}

#[tokio::test]
async fn an_upload_that_was_cut_off_is_made_up_for() {
    let bucket = Arc::new(InMemory::new());
    let staging = memory().await;
    let store = ObjectStoreContent::new(bucket, staging.clone());
    let request = IngestRequest {
        reference: "a".into(),
        expected: Expected {
            digest: Some(sha256(b"proved")),
            size: None,
        },
    };
    // Killed between proof and upload, for one by the next ingest, for the other by asking for it.
    put(staging.as_ref(), "proved").await;
    assert!(!store.contains(&sha256(b"proved")).await.expect("an answer"));
    assert_eq!(
        store
            .follow(&sha256(b"proved"))
            .await
            .expect_err("nobody brings it")
            .kind(),
        ErrorKind::NotFound
    );
    let refused = store.ingest(request).await.expect_err("it is proved");
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    store.verify(&sha256(b"proved")).await.expect("it is there");
    put(staging.as_ref(), "as well").await;
    let uploaded = store.recover().await.expect("recovered");
    assert_eq!(uploaded.len(), 1);
    store.verify(&sha256(b"as well")).await.expect("it is there");
    assert!(store.recover().await.expect("recovered").is_empty());
}
