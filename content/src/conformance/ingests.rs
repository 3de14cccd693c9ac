use bytes::Bytes;
use futures::FutureExt;

use super::{
    Store, assert_absent, assert_holds, assert_no_ingest, begin, promise, put, request, sample, sha256, suite,
};
use crate::{ContentStoreExt, ErrorKind, Expected};

suite!("ingests":
    a_blob_is_invisible_until_it_is_committed,
    the_digest_may_be_unknown_beforehand,
    pieces_may_have_any_size,
    status_tells_what_is_known,
    what_was_left_is_resumed,
    what_was_left_can_be_resumed_many_times,
    another_expectation_starts_over,
    an_added_expectation_goes_on,
    a_restart_starts_over,
    what_was_left_can_be_thrown_away,
    references_are_any_text,
    old_ingests_expire,
    put_takes_what_is_there_for_success,
);

async fn a_blob_is_invisible_until_it_is_committed(store: Store) {
    let data = sample(1, 100_000);
    let mut ingest = begin(&store, "a", &data).await;
    ingest.write(data.slice(..50_000)).await.unwrap();
    assert_absent(&store, &sha256(&data)).await;
    ingest.write(data.slice(50_000..)).await.unwrap();
    assert_absent(&store, &sha256(&data)).await;
    let info = ingest.commit(Expected::default()).await.unwrap();
    assert_eq!((info.digest, info.size), (sha256(&data), 100_000));
    assert_holds(&store, &data).await;
    assert_no_ingest(&store, "a").await;
}

async fn the_digest_may_be_unknown_beforehand(store: Store) {
    let data = sample(2, 12_345);
    let mut ingest = store.ingest(request("a", Expected::default())).await.unwrap();
    ingest.write(data.clone()).await.unwrap();
    assert_eq!(ingest.commit(Expected::default()).await.unwrap().digest, sha256(&data));
    assert_holds(&store, &data).await;

    let data = sample(3, 12_345);
    let mut ingest = store.ingest(request("a", Expected::default())).await.unwrap();
    ingest.write(data.clone()).await.unwrap();
    ingest.commit(promise(&data)).await.unwrap();
    assert_holds(&store, &data).await;
}

async fn pieces_may_have_any_size(store: Store) {
    let data = sample(4, 7_000_000);
    let mut ingest = begin(&store, "a", &data).await;
    let (mut offset, mut length) = (0, 0);
    while offset < data.len() {
        let end = data.len().min(offset + length);
        ingest.write(data.slice(offset..end)).await.unwrap();
        offset = end;
        assert_eq!(ingest.status().offset, offset as u64);
        length = if length < 3000 { length + 1 } else { length * 2 };
    }
    ingest.commit(Expected::default()).await.unwrap();
    assert_holds(&store, &data).await;
}

async fn status_tells_what_is_known(store: Store) {
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(5);
    let data = sample(5, 1000);
    let mut ingest = begin(&store, "a", &data).await;
    ingest.write(data.slice(..400)).await.unwrap();
    for status in [
        ingest.status(),
        store.status("a").await.unwrap(),
        store.ingests().await.unwrap().remove(0),
    ] {
        assert_eq!((status.reference.as_str(), status.offset), ("a", 400));
        assert_eq!(status.expected, promise(&data));
        assert!(
            status.started >= before && status.updated >= status.started,
            "{status:?}"
        );
    }
    let started = ingest.status().started;
    drop(ingest);
    let left = store.status("a").await.unwrap();
    assert_eq!((left.offset, &left.expected), (400, &promise(&data)));
    assert_eq!(store.ingests().await.unwrap().len(), 1);
    assert_eq!(
        begin(&store, "a", &data).await.status().started,
        started,
        "a resumed ingest was begun once"
    );
}

async fn what_was_left_is_resumed(store: Store) {
    let data = sample(6, 3_000_000);
    let mut ingest = begin(&store, "a", &data).await;
    ingest.write(data.slice(..1_234_567)).await.unwrap();
    drop(ingest);
    assert_absent(&store, &sha256(&data)).await;
    let mut ingest = begin(&store, "a", &data).await;
    assert_eq!(ingest.status().offset, 1_234_567);
    ingest.write(data.slice(1_234_567..)).await.unwrap();
    ingest.commit(Expected::default()).await.unwrap();
    assert_holds(&store, &data).await;
    assert_no_ingest(&store, "a").await;
}

async fn what_was_left_can_be_resumed_many_times(store: Store) {
    let data = sample(7, 251);
    for _ in 0..50 {
        let mut ingest = begin(&store, "a", &data).await;
        let offset = ingest.status().offset as usize;
        ingest.write(data.slice(offset..offset + 5)).await.unwrap();
    }
    let mut ingest = begin(&store, "a", &data).await;
    assert_eq!(ingest.status().offset, 250);
    ingest.write(data.slice(250..)).await.unwrap();
    ingest.commit(Expected::default()).await.unwrap();
    assert_holds(&store, &data).await;
}

async fn another_expectation_starts_over(store: Store) {
    let (data, other) = (sample(8, 1000), sample(9, 900));
    begin(&store, "a", &data).await.write(data.slice(..500)).await.unwrap();
    let mut ingest = begin(&store, "a", &other).await;
    assert_eq!((ingest.status().offset, ingest.status().expected), (0, promise(&other)));
    ingest.write(other.clone()).await.unwrap();
    ingest.commit(Expected::default()).await.unwrap();
    assert_holds(&store, &other).await;
}

async fn an_added_expectation_goes_on(store: Store) {
    let data = sample(10, 1000);
    let mut ingest = store.ingest(request("a", Expected::default())).await.unwrap();
    ingest.write(data.slice(..500)).await.unwrap();
    drop(ingest);
    let mut ingest = begin(&store, "a", &data).await;
    assert_eq!(
        (ingest.status().offset, ingest.status().expected),
        (500, promise(&data))
    );
    ingest.write(data.slice(500..)).await.unwrap();
    drop(ingest);
    let ingest = store.ingest(request("a", Expected::default())).await.unwrap();
    assert_eq!(
        (ingest.status().offset, ingest.status().expected),
        (1000, promise(&data))
    );
    ingest.commit(Expected::default()).await.unwrap();
    assert_holds(&store, &data).await;
}

async fn a_restart_starts_over(store: Store) {
    let (wrong, data) = (sample(11, 2_000_000), sample(12, 2_000_000));
    let mut ingest = begin(&store, "a", &data).await;
    ingest.write(wrong.slice(..1_500_000)).await.unwrap();
    ingest.restart().await.unwrap();
    assert_eq!(ingest.status().offset, 0);
    assert_eq!(store.status("a").await.unwrap().offset, 0);
    ingest.write(data.slice(..10)).await.unwrap();
    drop(ingest);
    let mut ingest = begin(&store, "a", &data).await;
    assert_eq!(ingest.status().offset, 10, "what was before the restart is forgotten");
    ingest.write(data.slice(10..)).await.unwrap();
    ingest.commit(Expected::default()).await.unwrap();
    assert_holds(&store, &data).await;
}

async fn what_was_left_can_be_thrown_away(store: Store) {
    let data = sample(13, 1000);
    begin(&store, "a", &data).await.write(data.slice(..500)).await.unwrap();
    store.abort("a").await.unwrap();
    assert_no_ingest(&store, "a").await;
    assert_eq!(store.abort("a").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(begin(&store, "a", &data).await.status().offset, 0);
}

async fn references_are_any_text(store: Store) {
    let long = "x".repeat(4000);
    let references = [
        "",
        ".",
        "..",
        "/",
        "../../etc/passwd",
        "layer-sha256:abc",
        "a/b",
        "a\nb\0c",
        "ü ∞",
        &long,
    ];
    for (number, reference) in references.into_iter().enumerate() {
        let data = sample(number as u64, 1000);
        begin(&store, reference, &data)
            .await
            .write(data.slice(..500))
            .await
            .unwrap();
    }
    assert_eq!(store.ingests().await.unwrap().len(), references.len());
    for (number, reference) in references.into_iter().enumerate() {
        let data = sample(number as u64, 1000);
        let mut ingest = begin(&store, reference, &data).await;
        assert_eq!(
            (ingest.status().reference.as_str(), ingest.status().offset),
            (reference, 500)
        );
        ingest.write(data.slice(500..)).await.unwrap();
        ingest.commit(Expected::default()).await.unwrap();
        assert_holds(&store, &data).await;
    }
}

async fn old_ingests_expire(store: Store) {
    let (one, other) = (sample(14, 1000), sample(15, 1000));
    begin(&store, "left", &one).await.write(one.slice(..500)).await.unwrap();
    let live = begin(&store, "live", &other).await;
    assert!(
        store
            .expire_ingests(std::time::Duration::from_secs(3600))
            .await
            .unwrap()
            .is_empty()
    );
    let expired = store.expire_ingests(std::time::Duration::ZERO).await.unwrap();
    assert_eq!(
        expired
            .iter()
            .map(|ingest| ingest.reference.as_str())
            .collect::<Vec<_>>(),
        ["left"]
    );
    assert_no_ingest(&store, "left").await;
    drop(live);
}

async fn put_takes_what_is_there_for_success(store: Store) {
    let data = sample(16, 1000);
    begin(&store, "a", &data)
        .await
        .write(Bytes::from_static(b"wrong"))
        .await
        .unwrap();
    let info = store.put("a", data.clone(), promise(&data)).await.unwrap();
    assert_eq!(store.put("a", data.clone(), promise(&data)).await.unwrap(), info);
    assert_eq!(store.put("b", data.clone(), Expected::default()).await.unwrap(), info);
    put(&store, "c", &sample(17, 10)).await;
    assert_holds(&store, &data).await;
}
