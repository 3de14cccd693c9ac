use futures::FutureExt;
use oci_spec::image::{Digest, DigestAlgorithm};

use super::{
    Store, assert_absent, assert_holds, assert_no_ingest, begin, promise, put, request, sample, sha256, suite,
};
use crate::{ErrorKind, Expected, Hasher};

suite!("proofs":
    every_algorithm_of_the_specification_works,
    wrong_bytes_are_not_stored,
    too_few_bytes_are_not_stored,
    too_many_bytes_fail_at_once,
    what_the_commit_promises_counts_too,
    request_and_commit_must_agree,
    the_commit_may_name_another_algorithm,
    wrong_bytes_can_come_right_later,
);

fn digest(algorithm: DigestAlgorithm, data: &[u8]) -> Digest {
    let mut hasher = Hasher::new(&algorithm).unwrap();
    hasher.update(data);
    hasher.finish()
}

async fn every_algorithm_of_the_specification_works(store: Store) {
    let data = sample(1, 1_500_000);
    for algorithm in [
        DigestAlgorithm::Sha256,
        DigestAlgorithm::Sha384,
        DigestAlgorithm::Sha512,
    ] {
        let digest = digest(algorithm.clone(), &data);
        let expected = Expected {
            digest: Some(digest.clone()),
            size: None,
        };
        let mut ingest = store.ingest(request("a", expected.clone())).await.unwrap();
        ingest.write(data.slice(..777)).await.unwrap();
        drop(ingest);
        let mut ingest = store.ingest(request("a", expected)).await.unwrap();
        assert_eq!(ingest.status().offset, 777);
        ingest.write(data.slice(777..)).await.unwrap();
        assert_eq!(ingest.commit(Expected::default()).await.unwrap().digest, digest);
        let blob = store.open(&digest).await.unwrap();
        assert!(super::read_all(blob.as_ref()).await.unwrap() == data, "{algorithm}");
    }
    assert_eq!(super::walked(&store).await.len(), 3, "each address is a blob");
}

async fn wrong_bytes_are_not_stored(store: Store) {
    let (data, wrong) = (sample(2, 2_000_000), sample(3, 2_000_000));
    let mut ingest = begin(&store, "a", &data).await;
    ingest.write(wrong.clone()).await.unwrap();
    let error = ingest.commit(Expected::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Verification);
    let text = error.to_string();
    assert!(
        text.contains(sha256(&data).as_ref()) && text.contains(sha256(&wrong).as_ref()),
        "{text}"
    );
    assert_absent(&store, &sha256(&data)).await;
    assert_absent(&store, &sha256(&wrong)).await;
    assert_no_ingest(&store, "a").await;
}

async fn too_few_bytes_are_not_stored(store: Store) {
    let data = sample(4, 1000);
    let mut ingest = begin(&store, "a", &data).await;
    ingest.write(data.slice(..999)).await.unwrap();
    let error = ingest.commit(Expected::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Verification);
    assert_absent(&store, &sha256(&data)).await;
    assert_no_ingest(&store, "a").await;
}

async fn too_many_bytes_fail_at_once(store: Store) {
    let data = sample(5, 1000);
    let mut ingest = begin(&store, "a", &data).await;
    ingest.write(data.slice(..900)).await.unwrap();
    assert_eq!(
        ingest.write(data.slice(..101)).await.unwrap_err().kind(),
        ErrorKind::Verification
    );
    assert_eq!(ingest.status().offset, 900, "the status tells the truth");
    ingest.write(data.slice(900..)).await.unwrap();
    assert_eq!(
        ingest.write(data.slice(..1)).await.unwrap_err().kind(),
        ErrorKind::Verification
    );
    ingest.commit(Expected::default()).await.unwrap();
    assert_holds(&store, &data).await;
}

async fn what_the_commit_promises_counts_too(store: Store) {
    let (data, other) = (sample(6, 1000), sample(7, 1000));
    let shorter = Expected {
        digest: None,
        size: Some(999),
    };
    for expected in [promise(&other), shorter, promise(&data[..999])] {
        let mut ingest = store.ingest(request("a", Expected::default())).await.unwrap();
        ingest.write(data.clone()).await.unwrap();
        let error = ingest.commit(expected).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verification);
        assert_absent(&store, &sha256(&data)).await;
        assert_no_ingest(&store, "a").await;
    }
}

async fn request_and_commit_must_agree(store: Store) {
    let (data, other) = (sample(8, 1000), sample(9, 1000));
    let mut ingest = begin(&store, "a", &data).await;
    ingest.write(data.clone()).await.unwrap();
    assert_eq!(
        ingest.commit(promise(&other)).await.unwrap_err().kind(),
        ErrorKind::Verification
    );
    assert_absent(&store, &sha256(&data)).await;
    assert_absent(&store, &sha256(&other)).await;
}

async fn the_commit_may_name_another_algorithm(store: Store) {
    let data = sample(10, 600_000);
    let sha512 = digest(DigestAlgorithm::Sha512, &data);
    let expected = Expected {
        digest: Some(sha512.clone()),
        size: None,
    };
    let mut ingest = store.ingest(request("a", Expected::default())).await.unwrap();
    ingest.write(data.clone()).await.unwrap();
    assert_eq!(ingest.commit(expected.clone()).await.unwrap().digest, sha512);
    let mut ingest = begin(&store, "a", &data).await;
    ingest.write(data.clone()).await.unwrap();
    assert_eq!(
        ingest.commit(expected).await.unwrap().digest,
        sha256(&data),
        "the request's is the address"
    );
    let unknown = Expected {
        digest: Some(Digest::try_from("blake3:00ff").unwrap()),
        size: None,
    };
    let mut ingest = store.ingest(request("b", Expected::default())).await.unwrap();
    ingest.write(sample(11, 10)).await.unwrap();
    assert_eq!(ingest.commit(unknown).await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_absent(&store, &sha256(&sample(11, 10))).await;
}

async fn wrong_bytes_can_come_right_later(store: Store) {
    let (data, wrong) = (sample(12, 1000), sample(13, 1000));
    let mut ingest = begin(&store, "a", &data).await;
    ingest.write(wrong).await.unwrap();
    ingest.commit(Expected::default()).await.unwrap_err();
    put(&store, "a", &data).await;
    assert_holds(&store, &data).await;
}
