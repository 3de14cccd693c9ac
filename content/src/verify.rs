//! Reads blobs again, and tells which are not what they are said to be.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use oci_spec::image::{Descriptor, Digest, DigestAlgorithm};

use crate::blocking::blocking;
use crate::hash::Hasher;
use crate::{Blob, ContentStore, Error, ErrorKind, Result};

/// Bytes that are read and hashed by one trip to a blocking thread.
const STEP: u64 = 8 << 20;

/// What one read asks for.
const PIECE: usize = 1 << 20;

/// A blob to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its address.
    pub digest: Digest,
    /// How many bytes it is said to have, if anybody says so.
    pub size: Option<u64>,
}

impl From<&Descriptor> for Subject {
    fn from(descriptor: &Descriptor) -> Self {
        Self {
            digest: descriptor.digest().clone(),
            size: Some(descriptor.size()),
        }
    }
}

impl From<Digest> for Subject {
    fn from(digest: Digest) -> Self {
        Self { digest, size: None }
    }
}

/// A blob that is not what it is said to be.
#[derive(Debug)]
pub struct Problem {
    /// The blob.
    pub subject: Subject,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a blob.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fault {
    /// It is not in the store.
    Missing,
    /// It is longer or shorter than it is said to be.
    WrongLength {
        /// What the store has, in bytes.
        actual: u64,
    },
    /// Its bytes hash to something else.
    Damaged {
        /// What they hash to.
        actual: Digest,
    },
    /// The store can't give it back.
    Unreadable(Error),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = &self.subject.digest;
        match (&self.fault, self.subject.size) {
            (Fault::Missing, _) => write!(f, "{digest} is missing"),
            (Fault::WrongLength { actual }, Some(size)) => write!(f, "{digest} has {actual} bytes instead of {size}"),
            (Fault::WrongLength { actual }, None) => write!(f, "{digest} has {actual} bytes, which is wrong"),
            (Fault::Damaged { actual }, _) => write!(f, "{digest} is damaged: its bytes hash to {actual}"),
            (Fault::Unreadable(error), _) => write!(f, "{digest} can't be read: {error}"),
        }
    }
}

/// What came of a verification.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Verification {
    /// Blobs that were looked at.
    pub blobs: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Those that are not what they are said to be, in the order in which they were found.
    pub problems: Vec<Problem>,
}

/// Where a verification stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// The blob that is being read.
    pub digest: Digest,
    /// Blobs that are done.
    pub blobs: u64,
    /// Bytes that were read, of all blobs.
    pub bytes: u64,
    /// Problems until now.
    pub problems: usize,
}

/// Reads blobs of a store to their ends and proves them again: all of them, or some, as fast as it may.
///
/// It hashes on blocking threads. Dropping it in the middle leaves nothing behind.
///
/// ```
/// use std::num::NonZeroU64;
/// use longshore_content::{ContentStoreExt, Expected, MemoryStore, Verifier, sha256};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// store.put("a", "hello".into(), Expected::default()).await?;
///
/// let verifier = Verifier::new(&store).bytes_per_second(NonZeroU64::new(50 << 20).expect("not 0"));
/// let found = verifier.all().await?;
/// assert_eq!((found.blobs, found.bytes, found.problems.len()), (1, 5, 0));
///
/// // What an image needs is known from its manifest; what is not there is a problem too.
/// let found = Verifier::new(&store).these([sha256(b"hello").into(), sha256(b"gone").into()]).await;
/// assert_eq!(found.problems[0].to_string(), format!("{} is missing", sha256(b"gone")));
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is verified before `all` or `these` is awaited"]
pub struct Verifier<'a> {
    store: &'a dyn ContentStore,
    pace: Pace,
    progress: Option<Box<dyn FnMut(VerifyProgress) + Send + 'a>>,
    found: Verification,
}

impl fmt::Debug for Verifier<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl<'a> Verifier<'a> {
    /// Of a store, as fast as it goes.
    pub fn new(store: &'a dyn ContentStore) -> Self {
        Self {
            store,
            pace: Pace::default(),
            progress: None,
            found: Verification::default(),
        }
    }

    /// Reads no faster than this on average, so that others get to the disk.
    pub fn bytes_per_second(mut self, most: NonZeroU64) -> Self {
        self.pace.most = Some(most);
        self
    }

    /// Is told at each blob, and every few megabytes in a large one.
    pub fn progress(mut self, told: impl FnMut(VerifyProgress) + Send + 'a) -> Self {
        self.progress = Some(Box::new(told));
        self
    }

    /// Every blob that the store has. One that is removed meanwhile is no problem.
    ///
    /// # Errors
    /// When the store can't be walked. What is wrong with blobs is told in the [`Verification`].
    pub async fn all(mut self) -> Result<Verification> {
        let store = self.store;
        let mut walk = store.walk();
        while let Some(info) = walk.next().await {
            // Not the length that it has now: nobody promised that.
            let subject = Subject::from(info?.digest);
            self.look(subject, Absence::Allowed).await;
        }
        drop(walk);
        Ok(self.found)
    }

    /// These blobs: one that is not there is a problem.
    pub async fn these(mut self, subjects: impl IntoIterator<Item = Subject> + Send) -> Verification {
        let subjects: Vec<_> = subjects.into_iter().collect();
        for subject in subjects {
            self.look(subject, Absence::Told).await;
        }
        self.found
    }

    async fn look(&mut self, subject: Subject, absence: Absence) {
        self.tell(&subject.digest);
        let fault = match self.examine(&subject).await {
            Ok(None) => None,
            Ok(fault) => fault,
            Err(error) if error.kind() == ErrorKind::NotFound => match absence {
                Absence::Allowed => return,
                Absence::Told => Some(Fault::Missing),
            },
            Err(error) => Some(Fault::Unreadable(error)),
        };
        self.found.blobs += 1;
        if let Some(fault) = fault {
            self.found.problems.push(Problem { subject, fault });
        }
    }

    async fn examine(&mut self, subject: &Subject) -> Result<Option<Fault>> {
        let blob = self.store.open(&subject.digest).await?;
        if let (Some(said), Some(actual)) = (subject.size, blob.size())
            && said != actual
        {
            return Ok(Some(Fault::WrongLength { actual }));
        }
        let mut hashing = Hashed::begin(blob, subject.digest.algorithm(), self.pace)?;
        loop {
            let before = hashing.offset;
            hashing = hashing.step().await?;
            self.found.bytes += hashing.offset - before;
            if hashing.ended {
                break;
            }
            self.tell(&subject.digest);
        }
        self.pace = hashing.pace;
        let actual = hashing.hasher.finish();
        Ok((actual != subject.digest).then_some(Fault::Damaged { actual }))
    }

    fn tell(&mut self, digest: &Digest) {
        if let Some(progress) = &mut self.progress {
            progress(VerifyProgress {
                digest: digest.clone(),
                blobs: self.found.blobs,
                bytes: self.found.bytes,
                problems: self.found.problems.len(),
            });
        }
    }
}

/// Whether a blob that is not there is a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absence {
    Allowed,
    Told,
}

/// What a blob hashes to now.
pub(crate) async fn hash(blob: Arc<dyn Blob>, algorithm: &DigestAlgorithm) -> Result<Digest> {
    let mut hashing = Hashed::begin(blob, algorithm, Pace::default())?;
    while !hashing.ended {
        hashing = hashing.step().await?;
    }
    Ok(hashing.hasher.finish())
}

/// A blob of which a part was hashed.
struct Hashed {
    blob: Arc<dyn Blob>,
    hasher: Hasher,
    pace: Pace,
    buffer: Vec<u8>,
    offset: u64,
    ended: bool,
}

impl Hashed {
    fn begin(blob: Arc<dyn Blob>, algorithm: &DigestAlgorithm, pace: Pace) -> Result<Self> {
        Ok(Self {
            blob,
            hasher: Hasher::new(algorithm)?,
            pace,
            buffer: Vec::new(),
            offset: 0,
            ended: false,
        })
    }

    /// Hashes some more, on a thread that may block.
    async fn step(mut self) -> Result<Self> {
        blocking(move || {
            let piece = PIECE.min(
                self.blob
                    .size()
                    .map_or(PIECE, |size| usize::try_from(size).unwrap_or(PIECE)),
            );
            self.buffer.resize(piece.max(1), 0);
            let end = self.offset + self.pace.step();
            while self.offset < end && !self.ended {
                let count = self.blob.read_at_blocking(self.offset, &mut self.buffer)?;
                self.hasher.update(&self.buffer[..count]);
                self.offset += count as u64;
                self.pace.read(count as u64);
                self.ended = count == 0;
            }
            std::thread::sleep(self.pace.rest());
            Ok(self)
        })
        .await
    }
}

/// How fast one may read.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    most: Option<NonZeroU64>,
    begun: Option<Instant>,
    bytes: u64,
}

impl Pace {
    /// Short enough that a slow one does not keep a thread for seconds.
    fn step(&self) -> u64 {
        self.most.map_or(STEP, |most| (most.get() / 8).clamp(1, STEP))
    }

    fn read(&mut self, bytes: u64) {
        self.begun.get_or_insert_with(Instant::now);
        self.bytes += bytes;
    }

    /// What is left of the time that all bytes until now may take.
    fn rest(&self) -> Duration {
        let (Some(most), Some(begun)) = (self.most, self.begun) else {
            return Duration::ZERO;
        };
        self.due(most).saturating_sub(begun.elapsed())
    }

    fn due(&self, most: NonZeroU64) -> Duration {
        Duration::try_from_secs_f64(self.bytes as f64 / most.get() as f64).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_grants_time_for_what_was_read() {
        let most = NonZeroU64::new(1000).unwrap();
        let mut pace = Pace {
            most: Some(most),
            ..Pace::default()
        };
        assert_eq!((pace.step(), pace.rest()), (125, Duration::ZERO));
        pace.read(2500);
        assert_eq!(pace.due(most), Duration::from_millis(2500));
        assert!(pace.rest() <= pace.due(most));
        let fast = Pace::default();
        assert_eq!((fast.step(), fast.rest()), (STEP, Duration::ZERO));
        let crawling = NonZeroU64::new(1).unwrap();
        let pace = Pace {
            most: Some(crawling),
            ..Pace::default()
        };
        assert_eq!(pace.step(), 1, "it gets on");
    }
}
