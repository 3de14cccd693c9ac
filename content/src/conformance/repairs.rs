use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};

use super::{
    Store, assert_absent, assert_holds, assert_no_ingest, begin, promise, put, request, sample, sha256, suite,
};
use crate::{
    BlobSource, Error, ErrorKind, Expected, Fault, MemoryStore, Problem, Result, Subject, Supply, Verifier, repair,
};

suite!("repairs":
    a_replacement_takes_the_place_of_what_is_there,
    a_replacement_needs_nothing_to_replace,
    a_replacement_is_proved_as_well,
    readers_keep_what_was_replaced,
    a_whole_store_has_no_problems,
    what_is_not_there_is_missing,
    a_wrong_length_is_told,
    progress_is_told,
    what_is_missing_is_repaired,
    a_repair_resumes,
    a_repair_may_get_more_than_it_asked_for,
    a_source_that_lies_repairs_nothing,
);

async fn a_replacement_takes_the_place_of_what_is_there(store: Store) {
    let data = sample(1, 300_000);
    put(&store, "a", &data).await;
    let mut ingest = store.ingest(request("b", Expected::default())).await.unwrap();
    ingest.write(data.clone()).await.unwrap();
    let info = ingest.replace(promise(&data)).await.unwrap();
    assert_eq!((&info.digest, info.size), (&sha256(&data), 300_000));
    assert_eq!(store.info(&info.digest).await.unwrap(), info);
    assert_eq!(super::walked(&store).await, [sha256(&data)]);
    assert_holds(&store, &data).await;
    assert_no_ingest(&store, "b").await;
}

async fn a_replacement_needs_nothing_to_replace(store: Store) {
    let data = sample(2, 1000);
    let mut ingest = begin(&store, "a", &data).await;
    ingest.write(data.clone()).await.unwrap();
    ingest.replace(Expected::default()).await.unwrap();
    assert_holds(&store, &data).await;
}

async fn a_replacement_is_proved_as_well(store: Store) {
    let (data, wrong) = (sample(3, 1000), sample(4, 1000));
    put(&store, "a", &data).await;
    let mut ingest = store.ingest(request("b", Expected::default())).await.unwrap();
    ingest.write(wrong.clone()).await.unwrap();
    let error = ingest.replace(promise(&data)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Verification);
    assert_holds(&store, &data).await;
    assert_absent(&store, &sha256(&wrong)).await;
    assert_no_ingest(&store, "b").await;
}

async fn readers_keep_what_was_replaced(store: Store) {
    let data = sample(5, 300_000);
    put(&store, "a", &data).await;
    let open = store.open(&sha256(&data)).await.unwrap();
    let mut ingest = store.ingest(request("b", Expected::default())).await.unwrap();
    ingest.write(data.clone()).await.unwrap();
    ingest.replace(promise(&data)).await.unwrap();
    assert!(super::read_all(open.as_ref()).await.unwrap() == data);
}

async fn a_whole_store_has_no_problems(store: Store) {
    for number in 0..5 {
        put(&store, "a", &sample(10 + number, 1000 * number as usize)).await;
    }
    begin(&store, "left", &sample(20, 9))
        .await
        .write(sample(20, 9))
        .await
        .unwrap();
    let found = Verifier::new(store.as_ref()).all().await.unwrap();
    assert_eq!((found.blobs, found.bytes), (5, 10_000));
    assert!(found.problems.is_empty(), "{:?}", found.problems);
}

async fn what_is_not_there_is_missing(store: Store) {
    let data = sample(21, 1000);
    put(&store, "a", &data).await;
    let gone = sample(22, 10);
    let subjects = [&data, &gone].map(|data| Subject::from(sha256(data)));
    let found = Verifier::new(store.as_ref()).these(subjects).await;
    let [problem] = &found.problems[..] else {
        panic!("one problem, not {:?}", found.problems);
    };
    assert!(matches!(problem.fault, Fault::Missing));
    assert_eq!(problem.subject.digest, sha256(&gone));
}

async fn a_wrong_length_is_told(store: Store) {
    let data = sample(23, 1000);
    put(&store, "a", &data).await;
    let subject = Subject {
        digest: sha256(&data),
        size: Some(1001),
    };
    let found = Verifier::new(store.as_ref()).these([subject]).await;
    assert!(matches!(found.problems[0].fault, Fault::WrongLength { actual: 1000 }));
    assert!(found.problems[0].to_string().contains("1000 bytes instead of 1001"));
}

async fn progress_is_told(store: Store) {
    let data = Bytes::from(vec![24; 20 << 20]);
    put(&store, "a", &data).await;
    let mut told = Vec::new();
    let found = Verifier::new(store.as_ref())
        .progress(|progress| told.push((progress.blobs, progress.bytes)))
        .all()
        .await
        .unwrap();
    assert_eq!(found.bytes, 20 << 20);
    assert!(told.len() > 2 && told.is_sorted() && told[0] == (0, 0), "{told:?}");
}

/// A source that counts what it is asked for, and begins where it likes.
#[derive(Debug)]
struct Asked {
    data: Bytes,
    begin: fn(u64) -> u64,
    times: AtomicUsize,
    last: AtomicUsize,
}

impl Asked {
    fn new(data: &Bytes, begin: fn(u64) -> u64) -> Self {
        let data = data.clone();
        let (times, last) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self {
            data,
            begin,
            times,
            last,
        }
    }
}

#[async_trait]
impl BlobSource for Asked {
    async fn supply(&self, _subject: &Subject, offset: u64) -> Result<Supply> {
        self.times.fetch_add(1, Ordering::Relaxed);
        self.last.store(offset as usize, Ordering::Relaxed);
        let offset = (self.begin)(offset);
        let rest = self.data.slice(offset as usize..);
        let pieces = rest.chunks(997).map(|piece| Ok(Bytes::copy_from_slice(piece)));
        let bytes = stream::iter(pieces.collect::<Vec<_>>()).boxed();
        Ok(Supply { offset, bytes })
    }
}

fn missing(data: &Bytes) -> Problem {
    Problem {
        subject: Subject {
            digest: sha256(data),
            size: Some(data.len() as u64),
        },
        fault: Fault::Missing,
    }
}

async fn what_is_missing_is_repaired(store: Store) {
    let data = sample(25, 600_000);
    let other = MemoryStore::new();
    let other: Store = Arc::new(other);
    put(&other, "a", &data).await;
    let gone = sample(26, 10);
    let done = repair(store.as_ref(), [missing(&data), missing(&gone)], &other).await;
    assert_eq!(done.repaired.len(), 1);
    assert_eq!(done.failed[0].1.kind(), ErrorKind::NotFound);
    assert_eq!(done.failed[0].0.subject.digest, sha256(&gone));
    assert_holds(&store, &data).await;
}

/// Leaves a repair that got so many bytes.
async fn cut_off(store: &Store, data: &Bytes, length: usize) {
    #[derive(Debug)]
    struct Cut(Bytes);
    #[async_trait]
    impl BlobSource for Cut {
        async fn supply(&self, subject: &Subject, offset: u64) -> Result<Supply> {
            let failure = Err(Error::NotFound(subject.digest.clone()));
            let bytes = stream::iter([Ok(self.0.clone()), failure]).boxed();
            Ok(Supply { offset, bytes })
        }
    }
    let done = repair(store.as_ref(), [missing(data)], &Cut(data.slice(..length))).await;
    assert_eq!((done.repaired.len(), done.failed.len()), (0, 1));
    assert_absent(store, &sha256(data)).await;
}

async fn a_repair_resumes(store: Store) {
    let data = sample(27, 500_000);
    cut_off(&store, &data, 200_000).await;
    let source = Asked::new(&data, |offset| offset);
    let done = repair(store.as_ref(), [missing(&data)], &source).await;
    assert!(done.failed.is_empty(), "{:?}", done.failed);
    assert_eq!(source.last.load(Ordering::Relaxed), 200_000);
    assert_holds(&store, &data).await;
}

async fn a_repair_may_get_more_than_it_asked_for(store: Store) {
    for (number, begin) in [|_| 0, |offset| offset / 2].into_iter().enumerate() {
        let data = sample(28 + number as u64, 500_000);
        cut_off(&store, &data, 200_000).await;
        let source = Asked::new(&data, begin);
        let done = repair(store.as_ref(), [missing(&data)], &source).await;
        assert!(done.failed.is_empty(), "{:?}", done.failed);
        assert_holds(&store, &data).await;
    }
}

async fn a_source_that_lies_repairs_nothing(store: Store) {
    let (data, wrong) = (sample(30, 5000), sample(31, 5000));
    let endless: Bytes = sample(31, 50_000);
    for lie in [&wrong, &wrong.slice(..4999), &endless] {
        let source = Asked::new(lie, |offset| offset);
        let done = repair(store.as_ref(), [missing(&data)], &source).await;
        assert_eq!(done.failed[0].1.kind(), ErrorKind::Verification);
        assert_absent(&store, &sha256(&data)).await;
        // What can't come right is thrown away.
        let _ = store.abort(&format!("repair-{}", sha256(&data))).await;
    }
    put(&store, "a", &data).await;
    let source = Asked::new(&wrong, |offset| offset);
    let done = repair(store.as_ref(), [missing(&data)], &source).await;
    assert_eq!(done.failed[0].1.kind(), ErrorKind::Verification);
    assert_holds(&store, &data).await;
    assert_eq!(source.times.load(Ordering::Relaxed), 1);
}
