//! Both stores against the suite, and what only a file can do: be locked, damaged, reopened.

use std::sync::Arc;

use longshore_metadata::{
    Batch, Error, ErrorKind, Key, Labels, MemoryStore, MetadataStore, MetadataStoreExt, RedbStore, Value, conformance,
};

#[tokio::test]
async fn the_store_in_memory_conforms() {
    conformance::all(|| async { Arc::new(MemoryStore::new()) as Arc<dyn MetadataStore> }).await;
    conformance::all(|| async { Arc::new(Arc::new(MemoryStore::new())) as Arc<dyn MetadataStore> }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_in_a_file_conforms() {
    let dir = tempfile::tempdir().expect("a directory");
    let number = std::sync::atomic::AtomicU32::new(0);
    conformance::all(|| async {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let store = RedbStore::open(dir.path().join(format!("{number}.redb"))).await;
        Arc::new(store.expect("open")) as Arc<dyn MetadataStore>
    })
    .await;
}

#[tokio::test]
async fn what_was_put_is_there_after_reopening() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("metadata.redb");
    let store = RedbStore::open(&path).await.expect("open");
    let before = store.create_lease("ns", "l", None).await.expect("put");
    drop(store);
    let store = RedbStore::open(&path).await.expect("open again");
    assert_eq!(store.leases("ns").await.expect("leases")[0].revision, before);
    assert_eq!(store.create_lease("ns", "m", None).await.expect("put"), before + 1);
}

#[tokio::test]
async fn a_second_opener_is_told_who_has_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("metadata.redb");
    let store = RedbStore::open(&path).await.expect("open");
    let error = RedbStore::open(&path).await.expect_err("locked");
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(
        error.to_string().contains(&format!("(pid {}, ", std::process::id())),
        "{error}"
    );
    // A view keeps the file open; only when it is gone too the file is free.
    let view = store.view().await.expect("view");
    drop(store);
    assert_eq!(
        RedbStore::open(&path).await.expect_err("locked").kind(),
        ErrorKind::Locked
    );
    drop(view);
    RedbStore::open(&path).await.expect("free");
}

async fn filled(path: &std::path::Path) {
    let store = RedbStore::open(path).await.expect("open");
    for number in 0..200 {
        let labels: Labels = [("n".to_owned(), "x".repeat(500))].into();
        let key = Key::lease("ns", format!("lease-{number}"));
        store
            .apply(Batch::new().put(key, labels, Value::Lease(Default::default())))
            .await
            .expect("put");
    }
}

#[tokio::test]
async fn files_that_are_none_of_ours_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("metadata.redb");
    std::fs::write(&path, "this is a text\n".repeat(1000)).expect("write");
    let error = RedbStore::open(&path).await.expect_err("a text");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let missing = RedbStore::open(dir.path().join("no/such/dir"))
        .await
        .expect_err("no directory");
    assert!(matches!(missing, Error::Io { .. }), "{missing}");
}

#[tokio::test]
async fn damage_is_found_at_open_wherever_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("metadata.redb");
    filled(&path).await;
    let good = std::fs::read(&path).expect("read");
    let expected = {
        let store = RedbStore::open(&path).await.expect("open");
        store.leases("ns").await.expect("leases")
    };
    let mut found = 0;
    for step in 0..100 {
        let at = good.len() * step / 100;
        let mut bad = good.clone();
        let end = (at + 64).min(bad.len());
        bad[at..end].iter_mut().for_each(|byte| *byte ^= 0x5a);
        std::fs::write(&path, &bad).expect("write");
        match RedbStore::open(&path).await {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "at {at}: {error}");
                found += 1;
            }
            // A page that nothing uses, or one that could be rebuilt: then all is there.
            Ok(store) => assert_eq!(store.leases("ns").await.expect("leases"), expected, "damage at {at}"),
        }
    }
    eprintln!("{found} of 100 places refused");
    assert!(found > 0);
    for length in [1, 100, 4096, good.len() / 2, good.len() - 1] {
        std::fs::write(&path, &good[..length]).expect("write");
        match RedbStore::open(&path).await {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "cut to {length}: {error}"),
            Ok(store) => assert_eq!(store.leases("ns").await.expect("leases"), expected, "cut to {length}"),
        }
    }
}

#[tokio::test]
async fn a_damaged_file_is_set_aside() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("metadata.redb");
    std::fs::write(&path, "damaged".repeat(2000)).expect("write");
    assert_eq!(
        RedbStore::open(&path).await.expect_err("damaged").kind(),
        ErrorKind::Corrupt
    );
    let aside = RedbStore::set_aside(&path).await.expect("set aside");
    assert!(!path.exists() && std::fs::read(&aside).expect("it is kept").starts_with(b"damaged"));
    let store = RedbStore::open(&path).await.expect("an empty one");
    let error = RedbStore::set_aside(&path).await.expect_err("it is open");
    assert_eq!(error.kind(), ErrorKind::Locked);
    drop(store);
}
