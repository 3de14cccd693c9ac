//! One blob: from wherever it is to the store.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::StreamExt;
use longshore_content::{Blob, ContentStore, ErrorKind as StoreErrorKind, Expected, Ingest, IngestRequest};
use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, Digest};

use super::options::{Keeper, ProgressEvent, PullProgress};
use crate::digest::digest_of;
use crate::{Elsewhere, Error, ErrorKind, Fetcher, Result};

/// How often a cut transfer is resumed that brings nothing new.
const MAX_BARREN_CUTS: u32 = 4;
/// How often a transfer is resumed at all.
const MAX_CUTS: u32 = 100;
/// The wait before the first resumption that follows one without new bytes; it doubles.
const RESUME_WAIT: Duration = Duration::from_millis(100);
/// How often another writer of the blob may get in the way before we give up.
const MAX_CLAIMS: u32 = 32;
/// How many times its writer, who may be just beginning, is looked for before we take it for another process's.
const PATIENT_CLAIMS: u32 = 16;

/// What the transfer of every blob of one pull shares.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) reference: Reference,
    pub(super) fetcher: Arc<dyn Fetcher>,
    pub(super) content: Arc<dyn ContentStore>,
    pub(super) keeper: Option<Arc<dyn Keeper>>,
    pub(super) progress: Option<Arc<dyn PullProgress>>,
}

/// Whose business a blob is.
pub(super) enum Claim {
    /// Nobody's: it is there.
    Cached,
    /// Ours.
    Ours(Box<dyn Ingest>),
    /// Another writer's in this process; reading to the end waits for it.
    Theirs(Arc<dyn Blob>),
}

impl Transfer {
    pub(super) fn emit(&self, event: ProgressEvent<'_>) {
        if let Some(progress) = &self.progress {
            progress.event(event);
        }
    }

    /// Has blobs protected before anything is done about them.
    pub(super) async fn keep(&self, blobs: &[Descriptor]) -> Result<()> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        keeper.keep(blobs).await.map_err(|source| Error::Keep {
            what: format!("blobs of {}", self.reference),
            source,
        })
    }

    /// Begins (or resumes) the ingest of a blob, unless it is there or someone else is at it.
    pub(super) async fn claim(&self, kind: &str, blob: &Descriptor) -> Result<Claim> {
        let digest = blob.digest();
        for attempt in 0..MAX_CLAIMS {
            let request = IngestRequest {
                reference: ingest_name(kind, digest, attempt),
                expected: expected(blob),
            };
            let error = match self.content.ingest(request).await {
                Ok(ingest) => {
                    let offset = ingest.status().offset;
                    self.emit(ProgressEvent::Started { blob, offset });
                    return Ok(Claim::Ours(ingest));
                }
                Err(error) => error,
            };
            match error.kind() {
                StoreErrorKind::AlreadyExists => {
                    self.check_size(blob).await?;
                    self.emit(ProgressEvent::Cached { blob });
                    return Ok(Claim::Cached);
                }
                StoreErrorKind::InUse => match self.content.follow(digest).await {
                    Ok(theirs) => {
                        self.emit(ProgressEvent::Waiting { blob });
                        return Ok(Claim::Theirs(theirs));
                    }
                    // Its writer is just coming or going, or is another process.
                    Err(error) if is_gone(error.kind()) => tokio::time::sleep(RESUME_WAIT / 4).await,
                    Err(error) => return Err(self.store_error(kind, digest, error)),
                },
                _ => return Err(self.store_error(kind, digest, error)),
            }
        }
        let error = longshore_content::Error::InUse(ingest_name(kind, digest, 0));
        Err(self.store_error(kind, digest, error))
    }

    /// A blob that is there must be as long as the document says that names it.
    async fn check_size(&self, blob: &Descriptor) -> Result<()> {
        let info = self.content.info(blob.digest()).await;
        let size = info
            .map_err(|error| self.store_error("blob", blob.digest(), error))?
            .size;
        if size == blob.size() {
            return Ok(());
        }
        Err(Error::Protocol {
            registry: self.reference.registry().to_owned(),
            what: format!("a descriptor of {}", blob.digest()),
            reason: format!("it says {} bytes, but what has this digest has {size}", blob.size()),
        })
    }

    /// Brings a blob in, or sees it come in; `claim` is how it stood.
    pub(super) async fn complete(&self, kind: &str, blob: &Descriptor, mut claim: Claim) -> Result<()> {
        let mut second_chance = true;
        loop {
            match claim {
                Claim::Cached => return Ok(()),
                Claim::Theirs(theirs) => match theirs.read_at(blob.size(), &mut [0]).await {
                    Ok(_) => {
                        self.check_size(blob).await?;
                        self.emit(ProgressEvent::Committed { blob });
                        return Ok(());
                    }
                    Err(error) if is_gone(error.kind()) => {}
                    Err(error) => return Err(self.store_error(kind, blob.digest(), error)),
                },
                Claim::Ours(ingest) => match self.receive_all(kind, blob, ingest).await? {
                    Received::Committed => {
                        self.emit(ProgressEvent::Committed { blob });
                        return Ok(());
                    }
                    Received::Wrong {
                        pieces: Pieces::Several,
                        ..
                    } if second_chance => second_chance = false,
                    Received::Wrong { error, .. } => {
                        let elsewhere = self.fetcher.reject(&self.reference, blob).await;
                        if elsewhere == Elsewhere::Nowhere {
                            return Err(error);
                        }
                        tracing::debug!(digest = %blob.digest(), %error, "trying another source");
                    }
                },
            }
            claim = self.claim(kind, blob).await?;
        }
    }

    /// Fetches what is missing of an ingest, as often cut as it may be, and commits it.
    async fn receive_all(&self, kind: &str, blob: &Descriptor, mut ingest: Box<dyn Ingest>) -> Result<Received> {
        let in_pieces = ingest.status().offset > 0;
        let mut cuts = 0;
        let mut barren = 0;
        if let Some(bytes) = embedded(blob) {
            let failed = |error| self.store_error(kind, blob.digest(), error);
            ingest.restart().await.map_err(failed)?;
            ingest.write(bytes).await.map_err(failed)?;
        }
        while ingest.status().offset < blob.size() {
            let before = ingest.status().offset;
            let cut = match self.receive(kind, blob, ingest.as_mut()).await {
                Err(error) if error.kind() == ErrorKind::Verification => {
                    // More bytes than there are.
                    drop(ingest);
                    return Ok(Received::Wrong {
                        error,
                        pieces: Pieces::One,
                    });
                }
                cut => cut?,
            };
            let offset = ingest.status().offset;
            if offset >= blob.size() {
                break;
            }
            let reason = cut.unwrap_or_else(|| self.ended_early(kind, blob, offset));
            cuts += 1;
            barren = if offset > before { 0 } else { barren + 1 };
            if cuts > MAX_CUTS || barren > MAX_BARREN_CUTS {
                return Err(reason);
            }
            if barren > 0 {
                tokio::time::sleep(RESUME_WAIT * (1 << barren)).await;
            }
            tracing::debug!(digest = %blob.digest(), offset, cuts, error = %reason, "transfer was cut, resuming");
            self.emit(ProgressEvent::Resumed {
                blob,
                offset,
                reason: &reason,
            });
        }
        match ingest.commit(expected(blob)).await {
            Ok(_) => Ok(Received::Committed),
            Err(error) if error.kind() == StoreErrorKind::AlreadyExists => Ok(Received::Committed),
            Err(error) => {
                let wrong = error.kind() == StoreErrorKind::Verification;
                let error = self.store_error(kind, blob.digest(), error);
                // A piece from an earlier day, or a proxy that mixed up ranges: whole, it may be right.
                let pieces = if in_pieces || cuts > 0 {
                    Pieces::Several
                } else {
                    Pieces::One
                };
                if wrong {
                    Ok(Received::Wrong { error, pieces })
                } else {
                    Err(error)
                }
            }
        }
    }

    /// One request: appends what comes until it ends. A cut connection is no error, but told.
    async fn receive(&self, kind: &str, blob: &Descriptor, ingest: &mut dyn Ingest) -> Result<Option<Error>> {
        let from = ingest.status().offset;
        let mut fetched = self.fetcher.fetch(&self.reference, blob, from).await?;
        // A source that can't resume begins at 0: what is here already is passed over.
        let mut skip = from.checked_sub(fetched.offset).ok_or_else(|| Error::Protocol {
            registry: self.reference.registry().to_owned(),
            what: format!("a part of {kind} {}", blob.digest()),
            reason: format!("it begins at byte {}, not at {from}", fetched.offset),
        })?;
        while let Some(chunk) = fetched.stream.next().await {
            let mut chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == ErrorKind::Unavailable => return Ok(Some(error)),
                Err(error) => return Err(error),
            };
            let over = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            chunk.advance(over);
            skip -= over as u64;
            if chunk.is_empty() {
                continue;
            }
            let written = ingest.write(chunk).await;
            written.map_err(|error| self.store_error(kind, blob.digest(), error))?;
            let offset = ingest.status().offset;
            self.emit(ProgressEvent::Bytes { blob, offset });
        }
        Ok(None)
    }

    /// Stores bytes that are at hand.
    pub(super) async fn store(&self, kind: &str, blob: &Descriptor, bytes: &Bytes) -> Result<()> {
        match self.claim(kind, blob).await? {
            Claim::Ours(mut ingest) => {
                let failed = |error| self.store_error(kind, blob.digest(), error);
                // What an earlier process left may be of other bytes; these are whole, so begin anew.
                ingest.restart().await.map_err(failed)?;
                ingest.write(bytes.clone()).await.map_err(failed)?;
                match ingest.commit(expected(blob)).await {
                    Err(error) if error.kind() != StoreErrorKind::AlreadyExists => return Err(failed(error)),
                    _ => self.emit(ProgressEvent::Committed { blob }),
                }
                Ok(())
            }
            other => self.complete(kind, blob, other).await,
        }
    }

    fn ended_early(&self, kind: &str, blob: &Descriptor, offset: u64) -> Error {
        Error::Transport {
            registry: self.reference.registry().to_owned(),
            request: format!("fetching {kind} {}", blob.digest()),
            source: Box::new(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                format!("it ended after {offset} of {} bytes", blob.size()),
            )),
        }
    }

    pub(super) fn store_error(&self, kind: &str, digest: &Digest, error: longshore_content::Error) -> Error {
        let what = format!("{kind} {digest} of {}", self.reference);
        match error {
            longshore_content::Error::DigestMismatch { expected, actual, .. } => Error::DigestMismatch {
                what: format!("{kind} of {}", self.reference.repository()),
                registry: self.reference.registry().to_owned(),
                expected: expected.to_string(),
                actual: actual.to_string(),
            },
            source => Error::Content { what, source },
        }
    }
}

/// The blob itself, where its descriptor has it in `data` (image specification, "Descriptor"). What is not the blob is passed over: then it is fetched.
fn embedded(blob: &Descriptor) -> Option<Bytes> {
    use base64::Engine as _;
    let text = blob.data().as_ref()?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    let is_it = bytes.len() as u64 == blob.size()
        && digest_of(blob.digest().algorithm(), &bytes).as_ref() == Some(blob.digest());
    is_it.then(|| bytes.into())
}

enum Received {
    Committed,
    /// The bytes are not what they should be.
    Wrong {
        error: Error,
        pieces: Pieces,
    },
}

/// How the bytes of a blob came.
enum Pieces {
    One,
    Several,
}

pub(super) fn expected(blob: &Descriptor) -> Expected {
    Expected {
        digest: Some(blob.digest().clone()),
        size: Some(blob.size()),
    }
}

/// The name that every puller gives to the ingest of a blob, so that what one left the next resumes. Another process
/// may hold it and can't be followed: then, after a while, every second attempt is for a name of our own choice.
fn ingest_name(kind: &str, digest: &Digest, attempt: u32) -> String {
    match attempt {
        n if n < PATIENT_CLAIMS || n % 2 == 0 => format!("{kind}-{digest}"),
        n => format!("{kind}-{digest}.{}", (n - PATIENT_CLAIMS).div_ceil(2)),
    }
}

fn is_gone(kind: StoreErrorKind) -> bool {
    matches!(kind, StoreErrorKind::NotFound | StoreErrorKind::Abandoned)
}
