use futures::FutureExt;
use oci_spec::image::Digest;

use super::{Store, assert_absent, assert_holds, put, read_all, read_from, sample, sha256, suite, walked};
use crate::{ContentStoreExt, ErrorKind};

suite!("blobs":
    an_empty_store_has_nothing,
    a_blob_comes_back_at_any_offset,
    a_blob_may_be_empty,
    info_and_walk_agree,
    a_removed_blob_is_gone_but_open_readers_keep_it,
    a_removed_blob_can_come_again,
    unknown_algorithms_are_refused,
    hostile_digests_find_nothing,
    many_read_one_blob,
    small_blobs_are_read_whole_within_a_limit,
    blobs_are_copied_between_stores,
);

async fn an_empty_store_has_nothing(store: Store) {
    let digest = sha256(b"nothing");
    assert_absent(&store, &digest).await;
    assert_eq!(store.follow(&digest).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.remove(&digest).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.status("nothing").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.abort("nothing").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(walked(&store).await.is_empty());
    assert!(store.ingests().await.unwrap().is_empty());
}

async fn a_blob_comes_back_at_any_offset(store: Store) {
    let data = sample(1, 3_000_001);
    put(&store, "a", &data).await;
    let blob = store.open(&sha256(&data)).await.unwrap();
    assert_eq!((blob.size(), blob.digest()), (Some(3_000_001), &sha256(&data)));
    for offset in [0usize, 1, 4095, 4096, 1 << 20, (1 << 20) + 1, 2_999_999, 3_000_000] {
        for length in [1, 100, 70_000] {
            let mut buffer = vec![0; length];
            let count = blob.read_at(offset as u64, &mut buffer).await.unwrap();
            assert!(count > 0, "at {offset}");
            assert_eq!(buffer[..count], data[offset..offset + count], "at {offset}");
            let count = blob.read_at_blocking(offset as u64, &mut buffer).unwrap();
            assert!(
                count > 0 && buffer[..count] == data[offset..offset + count],
                "blocking, at {offset}"
            );
        }
    }
    for end in [3_000_001, 3_000_002, u64::MAX] {
        assert_eq!(blob.read_at(end, &mut [0; 10]).await.unwrap(), 0, "at {end}");
        assert_eq!(
            blob.read_at_blocking(end, &mut [0; 10]).unwrap(),
            0,
            "blocking, at {end}"
        );
    }
    assert_eq!(blob.read_at(0, &mut []).await.unwrap(), 0);
    assert!(read_from(blob.as_ref(), 1_234_567, 999).await.unwrap() == data[1_234_567..]);
}

async fn a_blob_may_be_empty(store: Store) {
    let data = sample(2, 0);
    let info = put(&store, "empty", &data).await;
    assert_eq!((info.size, &info.digest), (0, &sha256(b"")));
    assert_holds(&store, b"").await;
}

async fn info_and_walk_agree(store: Store) {
    let mut expected = Vec::new();
    for number in 0..20 {
        let data = sample(number, 100 + number as usize);
        let committed = put(&store, &format!("{number}"), &data).await;
        let info = store.info(&committed.digest).await.unwrap();
        assert_eq!((&info.digest, info.size), (&sha256(&data), data.len() as u64));
        assert_eq!(info, committed, "commit and info tell the same");
        expected.push(info.digest);
    }
    expected.sort_by_key(ToString::to_string);
    assert_eq!(walked(&store).await, expected);
}

async fn a_removed_blob_is_gone_but_open_readers_keep_it(store: Store) {
    let data = sample(3, 300_000);
    let digest = put(&store, "a", &data).await.digest;
    let open = store.open(&digest).await.unwrap();
    store.remove(&digest).await.unwrap();
    assert_absent(&store, &digest).await;
    assert_eq!(store.follow(&digest).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.remove(&digest).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(read_all(open.as_ref()).await.unwrap() == data);
}

async fn a_removed_blob_can_come_again(store: Store) {
    let data = sample(4, 1000);
    let digest = put(&store, "a", &data).await.digest;
    store.remove(&digest).await.unwrap();
    put(&store, "a", &data).await;
    assert_holds(&store, &data).await;
}

async fn unknown_algorithms_are_refused(store: Store) {
    let digest = Digest::try_from("blake3:0123456789abcdef").unwrap();
    let unsupported = ErrorKind::Unsupported;
    assert_eq!(store.info(&digest).await.unwrap_err().kind(), unsupported);
    assert_eq!(store.open(&digest).await.unwrap_err().kind(), unsupported);
    assert_eq!(store.follow(&digest).await.unwrap_err().kind(), unsupported);
    assert_eq!(store.remove(&digest).await.unwrap_err().kind(), unsupported);
    let request = super::request(
        "a",
        crate::Expected {
            digest: Some(digest),
            size: None,
        },
    );
    assert_eq!(store.ingest(request).await.unwrap_err().kind(), unsupported);
    super::assert_no_ingest(&store, "a").await;
}

async fn hostile_digests_find_nothing(store: Store) {
    // Valid by the grammar of digests, and a path to those who take them for one.
    for text in [
        "sha256+x:abc",
        "a.b:..",
        "index.json:x",
        "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3",
    ] {
        if let Ok(digest) = Digest::try_from(text) {
            let kind = store.open(&digest).await.unwrap_err().kind();
            assert!(
                matches!(kind, ErrorKind::Unsupported | ErrorKind::NotFound),
                "{text}: {kind:?}"
            );
        }
    }
}

async fn many_read_one_blob(store: Store) {
    let data = sample(5, 1 << 20);
    let digest = put(&store, "a", &data).await.digest;
    let blob = store.open(&digest).await.unwrap();
    let readers = (0..16u64).map(|number| read_from(blob.as_ref(), number * 1000, 10_000 + number as usize));
    for (number, read) in futures::future::join_all(readers).await.into_iter().enumerate() {
        assert!(read.unwrap() == data[number * 1000..], "reader {number}");
    }
}

async fn small_blobs_are_read_whole_within_a_limit(store: Store) {
    let data = sample(6, 5000);
    let digest = put(&store, "a", &data).await.digest;
    assert_eq!(store.read(&digest, 5000).await.unwrap(), data);
    assert_eq!(store.read(&digest, 4999).await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(
        store.read(&sha256(b"?"), 5000).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    store.verify(&digest).await.unwrap();
}

async fn blobs_are_copied_between_stores(store: Store) {
    let other = crate::MemoryStore::new();
    let data = sample(7, 700_000);
    let digest = put(&store, "a", &data).await.digest;
    assert_eq!(other.copy_from(store.as_ref(), &digest).await.unwrap().size, 700_000);
    other.verify(&digest).await.unwrap();
    store.remove(&digest).await.unwrap();
    store.copy_from(&other, &digest).await.unwrap();
    store.copy_from(&other, &digest).await.unwrap();
    assert_holds(&store, &data).await;
}
