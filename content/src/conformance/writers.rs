use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};

use super::{
    Store, assert_absent, assert_holds, assert_no_ingest, begin, promise, put, request, sample, sha256, suite,
};
use crate::{ErrorKind, Expected};

suite!("writers":
    one_reference_has_one_writer,
    a_blob_that_exists_is_not_ingested,
    the_second_commit_of_a_digest_finds_it_there,
    many_commits_of_one_digest_leave_one_blob,
    many_ingests_at_once,
    a_dropped_write_tells_the_truth,
    a_dropped_commit_is_whole_or_nothing,
    a_dropped_begin_holds_nothing,
    a_dropped_restart_holds_nothing,
);

/// What becomes of a future that its owner loses interest in.
async fn poll_and_drop<T>(mut future: BoxFuture<'_, T>, polls: u64) {
    for _ in 0..polls {
        if futures::poll!(&mut future).is_ready() {
            return;
        }
    }
}

async fn one_reference_has_one_writer(store: Store) {
    let data = sample(1, 1000);
    let mut ingest = begin(&store, "a", &data).await;
    for expected in [promise(&data), Expected::default()] {
        assert_eq!(
            store.ingest(request("a", expected)).await.unwrap_err().kind(),
            ErrorKind::InUse
        );
    }
    assert_eq!(store.abort("a").await.unwrap_err().kind(), ErrorKind::InUse);
    ingest.write(data.clone()).await.unwrap();
    ingest.commit(Expected::default()).await.unwrap();
    assert_holds(&store, &data).await;
    let other = sample(2, 1000);
    put(&store, "a", &other).await;
}

async fn a_blob_that_exists_is_not_ingested(store: Store) {
    let data = sample(3, 1000);
    begin(&store, "left", &data)
        .await
        .write(data.slice(..10))
        .await
        .unwrap();
    put(&store, "a", &data).await;
    for reference in ["a", "b", "left"] {
        let error = store.ingest(request(reference, promise(&data))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        store
            .ingest(request(&format!("{reference}-other"), Expected::default()))
            .await
            .unwrap();
    }
}

async fn the_second_commit_of_a_digest_finds_it_there(store: Store) {
    let data = sample(4, 100_000);
    let (mut one, mut two) = (begin(&store, "one", &data).await, begin(&store, "two", &data).await);
    one.write(data.clone()).await.unwrap();
    two.write(data.clone()).await.unwrap();
    one.commit(Expected::default()).await.unwrap();
    assert_eq!(
        two.commit(Expected::default()).await.unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_no_ingest(&store, "two").await;
    assert_holds(&store, &data).await;
}

async fn many_commits_of_one_digest_leave_one_blob(store: Store) {
    let data = sample(5, 200_000);
    let ingests = (0..8).map(async |number| {
        let mut ingest = begin(&store, &format!("{number}"), &data).await;
        ingest.write(data.clone()).await.unwrap();
        ingest
    });
    let ingests = join_all(ingests).await;
    let committed = join_all(ingests.into_iter().map(|ingest| ingest.commit(Expected::default()))).await;
    let (done, refused): (Vec<_>, Vec<_>) = committed.into_iter().partition(Result::is_ok);
    assert_eq!(done.len(), 1);
    assert!(
        refused
            .iter()
            .all(|refused| refused.as_ref().unwrap_err().kind() == ErrorKind::AlreadyExists)
    );
    assert_eq!(super::walked(&store).await, [sha256(&data)]);
    assert!(store.ingests().await.unwrap().is_empty());
    assert_holds(&store, &data).await;
}

async fn many_ingests_at_once(store: Store) {
    let ingests = (0..40u64).map(async |number| {
        let data = sample(number, 10_000 * number as usize);
        let mut ingest = begin(&store, &format!("{number}"), &data).await;
        for piece in data.chunks(7_000) {
            ingest.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        ingest.commit(Expected::default()).await.unwrap();
        data
    });
    for data in join_all(ingests).await {
        assert_holds(&store, &data).await;
    }
    assert!(store.ingests().await.unwrap().is_empty());
}

async fn a_dropped_write_tells_the_truth(store: Store) {
    let data = sample(6, 6_000_000);
    let mut ingest = begin(&store, "a", &data).await;
    // Whatever a poll or two got done of each write, the next one goes on from what the status says.
    for polls in [0, 1, 2, 3, 1, 0] {
        let offset = ingest.status().offset as usize;
        poll_and_drop(ingest.write(data.slice(offset..)), polls).await;
    }
    let offset = ingest.status().offset;
    drop(ingest);
    let mut ingest = begin(&store, "a", &data).await;
    assert_eq!(ingest.status().offset, offset);
    ingest.write(data.slice(offset as usize..)).await.unwrap();
    ingest.commit(Expected::default()).await.unwrap();
    assert_holds(&store, &data).await;
}

async fn a_dropped_commit_is_whole_or_nothing(store: Store) {
    for polls in 0..4 {
        let data = sample(100 + polls, 1_000_000);
        let mut ingest = begin(&store, "a", &data).await;
        ingest.write(data.clone()).await.unwrap();
        poll_and_drop(ingest.commit(Expected::default()), polls).await;
        match store.ingest(request("a", promise(&data))).await {
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists),
            Ok(mut ingest) => {
                assert_absent(&store, &sha256(&data)).await;
                let offset = ingest.status().offset as usize;
                ingest.write(data.slice(offset..)).await.unwrap();
                ingest.commit(Expected::default()).await.unwrap();
            }
        }
        assert_holds(&store, &data).await;
    }
}

async fn a_dropped_begin_holds_nothing(store: Store) {
    let data = sample(7, 1000);
    for polls in 0..4 {
        poll_and_drop(store.ingest(request("a", promise(&data))), polls).await;
        drop(begin(&store, "a", &data).await);
    }
    put(&store, "a", &data).await;
    assert_holds(&store, &data).await;
}

async fn a_dropped_restart_holds_nothing(store: Store) {
    let data = sample(8, 100_000);
    let mut ingest = begin(&store, "a", &data).await;
    for polls in 0..3 {
        let offset = ingest.status().offset as usize;
        ingest.write(data.slice(offset..90_000)).await.unwrap();
        poll_and_drop(ingest.restart(), polls).await;
    }
    let offset = ingest.status().offset as usize;
    ingest.write(data.slice(offset..)).await.unwrap();
    ingest.commit(Expected::default()).await.unwrap();
    assert_holds(&store, &data).await;
}
