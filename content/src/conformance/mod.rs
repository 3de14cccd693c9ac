//! The contract of [`ContentStore`] as a suite that any implementation runs against itself.
//!
//! ```
//! use std::sync::Arc;
//!
//! # #[tokio::main]
//! # async fn main() {
//! use longshore_content::{MemoryStore, conformance};
//!
//! conformance::run(async || Arc::new(MemoryStore::new()) as Arc<_>).await;
//! # }
//! ```
//!
//! A case panics when the contract is broken. Cases know nothing of each other: each gets a store of its own.
//!
//! # containerd's suite
//! What `core/content/testsuite` of containerd 2 asks of a store, and which cases ask it here:
//!
//! | containerd | here |
//! |---|---|
//! | `Writer` (`checkContentStoreWriter`) | `ingests::a_blob_is_invisible_until_it_is_committed`, `ingests::status_tells_what_is_known`, `writers::many_ingests_at_once`, `proofs::too_few_bytes_are_not_stored` |
//! | `UpdateStatus` (`checkUpdateStatus`) | `ingests::status_tells_what_is_known`, `ingests::pieces_may_have_any_size` |
//! | `CommitExists` (`checkCommitExists`) | `writers::the_second_commit_of_a_digest_finds_it_there`, `writers::a_blob_that_exists_is_not_ingested` |
//! | `Resume` (`checkResumeWriter`) | `ingests::what_was_left_is_resumed`, `ingests::what_was_left_can_be_resumed_many_times`, `writers::one_reference_has_one_writer` |
//! | `ResumeTruncate` (`checkResume(resumeTruncate)`) | `ingests::a_restart_starts_over` |
//! | `ResumeDiscard` (`checkResume(resumeDiscard)`) | `ingests::what_was_left_can_be_thrown_away` |
//! | `ResumeCopy`, `ResumeCopySeeker`, `ResumeCopyReaderAt` | `blobs::blobs_are_copied_between_stores`, `repairs::a_repair_resumes`, `repairs::a_repair_may_get_more_than_it_asked_for` |
//! | `SmallBlob` (`checkSmallBlob`) | `blobs::a_blob_comes_back_at_any_offset`, `blobs::small_blobs_are_read_whole_within_a_limit` |
//! | `Labels` (`checkLabels`) | not here: labels are records, kept by `longshore-metadata` |
//! | `CommitErrorState` (`checkCommitErrorState`) | `proofs::wrong_bytes_are_not_stored`, `proofs::what_the_commit_promises_counts_too`, `proofs::wrong_bytes_can_come_right_later`, `writers::the_second_commit_of_a_digest_finds_it_there` |
//! | `CrossNamespaceAppend`, `CrossNamespaceShare`, `CrossNamespaceIsolate`, `SharedNamespaceIsolate` | not here: namespaces are `longshore-metadata`'s |
//!
//! One answer differs: what failed its proof is thrown away here, where containerd keeps it for a commit that promises something else.
//! Truncation is to 0 alone ([`Ingest::restart`]), as in containerd's own local store. What containerd's suite does not ask: proofs by three
//! algorithms, followers, dropped futures, expiry, hostile names, repairs.

#![allow(clippy::unwrap_used, reason = "a suite of tests panics by design")]

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use oci_spec::image::Digest;

use crate::hash::sha256;
use crate::{Blob, ContentStore, ErrorKind, Expected, Info, Ingest, IngestRequest};

mod blobs;
mod followers;
mod ingests;
mod proofs;
mod repairs;
mod writers;

/// An empty store to be tried.
pub type Store = Arc<dyn ContentStore>;

/// One sentence of the contract.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it is called, as a path within the suite.
    pub name: &'static str,
    run: fn(Store) -> BoxFuture<'static, ()>,
}

impl Case {
    /// Tries it on an empty store.
    ///
    /// # Panics
    /// When the store breaks the contract.
    pub async fn run(&self, store: Store) {
        (self.run)(store).await;
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// Tries all cases, each on a store that `fresh` makes. Says on stderr which it is at.
///
/// # Panics
/// When a store breaks the contract.
pub async fn run(fresh: impl AsyncFn() -> Store) {
    for case in cases() {
        eprintln!("conformance: {}", case.name);
        case.run(fresh().await).await;
    }
}

/// All cases, for those that want to run them one by one.
pub fn cases() -> Vec<Case> {
    [
        blobs::CASES,
        ingests::CASES,
        proofs::CASES,
        repairs::CASES,
        writers::CASES,
        followers::CASES,
    ]
    .concat()
}

macro_rules! suite {
    ($module:literal: $($name:ident),* $(,)?) => {
        pub(super) const CASES: &[super::Case] = &[
            $(super::Case { name: concat!($module, "::", stringify!($name)), run: |store| $name(store).boxed() }),*
        ];
    };
}
use suite;

/// Bytes that differ everywhere, the same for each `seed`.
fn sample(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect::<Vec<u8>>().into()
}

fn promise(data: &[u8]) -> Expected {
    Expected {
        digest: Some(sha256(data)),
        size: Some(data.len() as u64),
    }
}

fn request(reference: &str, expected: Expected) -> IngestRequest {
    IngestRequest {
        reference: reference.into(),
        expected,
    }
}

async fn begin(store: &Store, reference: &str, data: &[u8]) -> Box<dyn Ingest> {
    store.ingest(request(reference, promise(data))).await.unwrap()
}

async fn put(store: &Store, reference: &str, data: &Bytes) -> Info {
    let mut ingest = begin(store, reference, data).await;
    ingest.write(data.clone()).await.unwrap();
    ingest.commit(Expected::default()).await.unwrap()
}

/// Reads all from an offset with a buffer of some length.
async fn read_from(blob: &dyn Blob, mut offset: u64, length: usize) -> crate::Result<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; length]);
    loop {
        match blob.read_at(offset, &mut buffer).await? {
            0 => return Ok(all),
            count => {
                all.extend_from_slice(&buffer[..count]);
                offset += count as u64;
            }
        }
    }
}

async fn read_all(blob: &dyn Blob) -> crate::Result<Vec<u8>> {
    read_from(blob, 0, 64 << 10).await
}

async fn walked(store: &Store) -> Vec<Digest> {
    let mut found: Vec<Digest> = store.walk().map(|info| info.unwrap().digest).collect().await;
    found.sort_by_key(ToString::to_string);
    found
}

/// The store has no such blob, whichever way it is asked.
async fn assert_absent(store: &Store, digest: &Digest) {
    assert_eq!(store.info(digest).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.open(digest).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!walked(store).await.contains(digest), "{digest} is seen by a walk");
}

async fn assert_holds(store: &Store, data: &[u8]) {
    let blob = store.open(&sha256(data)).await.unwrap();
    assert_eq!(blob.size(), Some(data.len() as u64));
    assert!(
        read_all(blob.as_ref()).await.unwrap() == data,
        "the blob's bytes are others"
    );
}

async fn assert_no_ingest(store: &Store, reference: &str) {
    assert_eq!(store.status(reference).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(
        store
            .ingests()
            .await
            .unwrap()
            .iter()
            .all(|ingest| ingest.reference != reference)
    );
}
