use std::sync::mpsc;

use futures::FutureExt;
use futures::future::{join, join_all};

use super::{Store, begin, promise, put, read_all, read_from, request, sample, sha256, suite};
use crate::{BlobExt, ErrorKind, Expected};

suite!("followers":
    a_follower_reads_what_has_come_and_waits_for_the_rest,
    the_end_is_told_only_after_the_commit,
    a_committed_blob_is_followed_like_an_open_one,
    only_live_ingests_with_a_digest_are_followed,
    followers_fail_when_the_writer_is_dropped,
    followers_fail_when_the_proof_fails,
    followers_fail_at_a_restart,
    followers_of_a_second_ingest_are_served_too,
    a_resumed_ingest_is_followed_from_its_beginning,
    the_size_is_known_when_it_is,
    many_follow_one_ingest,
    threads_may_follow,
    threads_hear_of_a_failure,
);

async fn a_follower_reads_what_has_come_and_waits_for_the_rest(store: Store) {
    let data = sample(1, 1000);
    let mut ingest = begin(&store, "a", &data).await;
    let follower = store.follow(&sha256(&data)).await.unwrap();
    let mut buffer = [0; 100];
    let mut read = follower.read_at(0, &mut buffer);
    for _ in 0..10 {
        assert!(futures::poll!(&mut read).is_pending(), "there is nothing to read");
    }
    ingest.write(data.slice(..10)).await.unwrap();
    let count = read.await.unwrap();
    assert!((1..=10).contains(&count));
    assert_eq!(buffer[..count], data[..count]);
    // An empty read waits for nothing.
    assert_eq!(follower.read_at(999, &mut []).await.unwrap(), 0);
    ingest.write(data.slice(10..)).await.unwrap();
    let count = follower.read_at(900, &mut buffer).await.unwrap();
    assert_eq!(buffer[..count], data[900..900 + count]);
    ingest.commit(Expected::default()).await.unwrap();
    assert_eq!(read_all(follower.as_ref()).await.unwrap(), data);
}

async fn the_end_is_told_only_after_the_commit(store: Store) {
    let data = sample(2, 1000);
    let mut ingest = begin(&store, "a", &data).await;
    let follower = store.follow(&sha256(&data)).await.unwrap();
    ingest.write(data.clone()).await.unwrap();
    assert_eq!(read_some(follower.as_ref(), 1000).await, data);
    let (mut buffer, mut far) = ([0; 1], [0; 1]);
    let (mut end, mut beyond) = (follower.read_at(1000, &mut buffer), follower.read_at(5000, &mut far));
    for _ in 0..10 {
        assert!(futures::poll!(&mut end).is_pending(), "nothing is proved yet");
        assert!(futures::poll!(&mut beyond).is_pending());
    }
    ingest.commit(Expected::default()).await.unwrap();
    assert_eq!((end.await.unwrap(), beyond.await.unwrap()), (0, 0));
}

/// Exactly so many bytes from the beginning.
async fn read_some(blob: &dyn crate::Blob, length: usize) -> Vec<u8> {
    let mut all = vec![0; length];
    let mut filled = 0;
    while filled < length {
        filled += blob.read_at(filled as u64, &mut all[filled..]).await.unwrap();
    }
    all
}

async fn a_committed_blob_is_followed_like_an_open_one(store: Store) {
    let data = sample(3, 100_000);
    let digest = put(&store, "a", &data).await.digest;
    let follower = store.follow(&digest).await.unwrap();
    assert_eq!(follower.size(), Some(100_000));
    assert!(read_all(follower.as_ref()).await.unwrap() == data);
}

async fn only_live_ingests_with_a_digest_are_followed(store: Store) {
    let data = sample(4, 1000);
    let mut ingest = store.ingest(request("a", Expected::default())).await.unwrap();
    ingest.write(data.clone()).await.unwrap();
    assert_eq!(
        store.follow(&sha256(&data)).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    drop(ingest);
    let ingest = begin(&store, "a", &data).await;
    store.follow(&sha256(&data)).await.unwrap();
    drop(ingest);
    assert_eq!(
        store.follow(&sha256(&data)).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

async fn followers_fail_when_the_writer_is_dropped(store: Store) {
    let data = sample(5, 1000);
    let mut ingest = begin(&store, "a", &data).await;
    ingest.write(data.slice(..500)).await.unwrap();
    let follower = store.follow(&sha256(&data)).await.unwrap();
    assert_eq!(read_some(follower.as_ref(), 500).await, data[..500]);
    let mut buffer = [0; 10];
    let waiting = follower.read_at(500, &mut buffer);
    let (failed, ()) = join(waiting, async { drop(ingest) }).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Abandoned);
    // It does not wait for a successor, nor is it taken up by one.
    let mut ingest = begin(&store, "a", &data).await;
    ingest.write(data.slice(500..)).await.unwrap();
    ingest.commit(Expected::default()).await.unwrap();
    assert_eq!(
        read_from(follower.as_ref(), 500, 10).await.unwrap_err().kind(),
        ErrorKind::Abandoned
    );
}

async fn followers_fail_when_the_proof_fails(store: Store) {
    let (data, wrong) = (sample(6, 1000), sample(7, 1000));
    let mut ingest = begin(&store, "a", &data).await;
    let follower = store.follow(&sha256(&data)).await.unwrap();
    ingest.write(wrong).await.unwrap();
    let mut buffer = [0; 10];
    let (end, committed) = join(follower.read_at(1000, &mut buffer), ingest.commit(Expected::default())).await;
    assert_eq!(committed.unwrap_err().kind(), ErrorKind::Verification);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::Abandoned);
}

async fn followers_fail_at_a_restart(store: Store) {
    let (data, wrong) = (sample(8, 1000), sample(9, 1000));
    let mut ingest = begin(&store, "a", &data).await;
    ingest.write(wrong.slice(..500)).await.unwrap();
    let follower = store.follow(&sha256(&data)).await.unwrap();
    assert_eq!(read_some(follower.as_ref(), 500).await, wrong[..500]);
    ingest.restart().await.unwrap();
    let new = store.follow(&sha256(&data)).await.unwrap();
    ingest.write(data.clone()).await.unwrap();
    ingest.commit(Expected::default()).await.unwrap();
    // What it read was never proved, so it must not hear of a good end.
    assert_eq!(
        read_from(follower.as_ref(), 500, 10).await.unwrap_err().kind(),
        ErrorKind::Abandoned
    );
    assert_eq!(read_all(new.as_ref()).await.unwrap(), data);
}

async fn followers_of_a_second_ingest_are_served_too(store: Store) {
    let data = sample(10, 1000);
    let mut one = begin(&store, "one", &data).await;
    let of_one = store.follow(&sha256(&data)).await.unwrap();
    let mut two = begin(&store, "two", &data).await;
    two.write(data.clone()).await.unwrap();
    let of_two = store.follow(&sha256(&data)).await.unwrap();
    two.commit(Expected::default()).await.unwrap();
    assert_eq!(read_all(of_two.as_ref()).await.unwrap(), data);
    one.write(data.clone()).await.unwrap();
    assert_eq!(
        one.commit(Expected::default()).await.unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        read_all(of_one.as_ref()).await.unwrap(),
        data,
        "its bytes were proved, and are there"
    );
}

async fn a_resumed_ingest_is_followed_from_its_beginning(store: Store) {
    let data = sample(11, 500_000);
    begin(&store, "a", &data)
        .await
        .write(data.slice(..300_000))
        .await
        .unwrap();
    let mut ingest = begin(&store, "a", &data).await;
    let follower = store.follow(&sha256(&data)).await.unwrap();
    assert!(read_some(follower.as_ref(), 300_000).await == data[..300_000]);
    ingest.write(data.slice(300_000..)).await.unwrap();
    let (read, committed) = join(read_all(follower.as_ref()), ingest.commit(Expected::default())).await;
    committed.unwrap();
    assert!(read.unwrap() == data);
}

async fn the_size_is_known_when_it_is(store: Store) {
    let data = sample(12, 1000);
    let expected = Expected {
        digest: Some(sha256(&data)),
        size: None,
    };
    let mut ingest = store.ingest(request("a", expected)).await.unwrap();
    let follower = store.follow(&sha256(&data)).await.unwrap();
    assert_eq!((follower.size(), follower.digest()), (None, &sha256(&data)));
    ingest.write(data.clone()).await.unwrap();
    ingest.commit(Expected::default()).await.unwrap();
    assert_eq!(follower.size(), Some(1000));
    let data = sample(13, 1000);
    let _ingest = begin(&store, "a", &data).await;
    assert_eq!(store.follow(&sha256(&data)).await.unwrap().size(), Some(1000));
}

async fn many_follow_one_ingest(store: Store) {
    let data = sample(14, 2_000_000);
    let mut ingest = begin(&store, "a", &data).await;
    let mut followers = Vec::new();
    for _ in 0..10 {
        followers.push(store.follow(&sha256(&data)).await.unwrap());
    }
    let reads = join_all(followers.iter().map(|follower| read_all(follower.as_ref())));
    let write = async {
        for piece in 0..200 {
            ingest
                .write(data.slice(piece * 10_000..(piece + 1) * 10_000))
                .await
                .unwrap();
        }
        ingest.commit(Expected::default()).await.unwrap();
    };
    let (reads, ()) = join(reads, write).await;
    assert!(reads.into_iter().all(|read| read.unwrap() == data));
}

async fn threads_may_follow(store: Store) {
    let data = sample(15, 5_000_000);
    let mut ingest = store.ingest(request("a", promise(&data))).await.unwrap();
    let mut reader = store.follow(&sha256(&data)).await.unwrap().reader();
    let (done, read) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut all = Vec::new();
        let outcome = std::io::Read::read_to_end(&mut reader, &mut all);
        done.send((outcome.is_ok(), all)).unwrap();
    });
    for piece in 0..50 {
        ingest
            .write(data.slice(piece * 100_000..(piece + 1) * 100_000))
            .await
            .unwrap();
    }
    assert!(read.try_recv().is_err(), "the end is told only after the commit");
    ingest.commit(Expected::default()).await.unwrap();
    thread.join().unwrap();
    let (whole, all) = read.recv().unwrap();
    assert!(whole && all == data);
}

async fn threads_hear_of_a_failure(store: Store) {
    let data = sample(16, 1000);
    let mut ingest = begin(&store, "a", &data).await;
    ingest.write(data.slice(..10)).await.unwrap();
    let follower = store.follow(&sha256(&data)).await.unwrap();
    let thread = std::thread::spawn(move || follower.read_at_blocking(10, &mut [0; 10]));
    drop(ingest);
    assert_eq!(thread.join().unwrap().unwrap_err().kind(), ErrorKind::Abandoned);
}
