//! One layer, from its blob to its committed snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longshore_content::Blob;
use longshore_linux::Mount;
use longshore_snapshot::{Applied, ApplyOptions, Compression, Labels, apply_layer};
use oci_spec::image::{Descriptor, Digest};

use super::reader::LayerReader;
use super::thread::on_thread;
use super::{LayerState, MissingLayers, Report, Shared, snapshot_error};
use crate::{Error, Result};

/// containerd's label for what a snapshot was made for.
const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
/// Annotations of a layer that begin so become labels of its snapshot, as in containerd.
const INHERITED: &str = "containerd.io/snapshot/";
/// How long it takes until a layer that is waited for is looked for again.
const PAUSE: Duration = Duration::from_millis(20);

/// A layer to unpack.
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) report: Report,
    pub(super) diff_id: Digest,
    pub(super) chain_id: String,
    pub(super) parent: Option<String>,
    pub(super) given_up: Arc<AtomicBool>,
}

/// What became of a layer.
pub(super) enum Outcome {
    Skipped,
    Applied(Applied),
}

/// Whether the snapshotter has a layer elsewhere.
pub(super) enum Offer {
    /// It has, and has made its snapshot.
    Made,
    /// It has not: the layer must be fetched.
    None,
}

impl Job {
    /// Asks the snapshotter for the layer, and leaves nothing when it has not got it.
    pub(super) async fn offer(self) -> Result<Offer> {
        self.check_media_type()?;
        let _lock = self.shared.locks.lock(&self.chain_id).await;
        if self.shared.has_snapshot(&self.chain_id).await? {
            return Ok(Offer::Made);
        }
        let key = self.shared.extract_key(&self.chain_id);
        if self.prepare(&key).await?.is_none() {
            return Ok(Offer::Made);
        }
        self.remove(&key).await;
        Ok(Offer::None)
    }

    pub(super) async fn run(self) -> Result<Outcome> {
        self.check_media_type()?;
        let _lock = self.shared.locks.lock(&self.chain_id).await;
        loop {
            if self.is_given_up() {
                return Err(self.cancelled());
            }
            if self.shared.has_snapshot(&self.chain_id).await? {
                self.report.say(LayerState::Skipped);
                return Ok(Outcome::Skipped);
            }
            match self.attempt().await {
                Err(error) if self.may_come_yet(&error) => self.pause().await?,
                outcome => return outcome,
            }
        }
    }

    async fn attempt(&self) -> Result<Outcome> {
        let key = self.shared.extract_key(&self.chain_id);
        let Some(mounts) = self.prepare(&key).await? else {
            self.report.say(LayerState::Skipped);
            return Ok(Outcome::Skipped);
        };
        let outcome = match self.fill(mounts).await {
            Ok(applied) => self.commit(&key, applied).await,
            Err(error) => Err(error),
        };
        if !matches!(outcome, Ok(Outcome::Applied(_))) {
            self.remove(&key).await;
        }
        outcome
    }

    /// Prepares the snapshot before anything is asked of the content store. A snapshotter that has the layer elsewhere (lazily, or on other machines) recognises
    /// it by the label, makes the committed snapshot itself and answers that it exists: then there is nothing to fetch or apply.
    async fn prepare(&self, key: &str) -> Result<Option<Vec<Mount>>> {
        let snapshotter = &self.shared.snapshotter;
        match snapshotter.prepare(key, self.parent.as_deref(), self.labels()).await {
            Ok(mounts) => Ok(Some(mounts)),
            Err(error)
                if error.kind() == longshore_snapshot::ErrorKind::AlreadyExists
                    && self.shared.has_snapshot(&self.chain_id).await? =>
            {
                Ok(None)
            }
            Err(error) => Err(snapshot_error("preparing", key.to_owned())(error)),
        }
    }

    /// Applies the layer once its blob, or the fetching of it, is there.
    async fn fill(&self, mounts: Vec<Mount>) -> Result<Applied> {
        let blob = loop {
            match self.follow().await {
                Err(error) if self.may_come_yet(&error) => self.pause().await?,
                blob => break blob?,
            }
            if self.is_given_up() {
                return Err(self.cancelled());
            }
        };
        self.check_size(blob.size())?;
        self.report.say(LayerState::Started);
        self.apply(blob, mounts).await
    }

    async fn follow(&self) -> Result<Arc<dyn Blob>> {
        let blob = self.shared.content.follow(self.layer().digest()).await;
        blob.map_err(|error| self.content_error(error))
    }

    async fn apply(&self, blob: Arc<dyn Blob>, mounts: Vec<Mount>) -> Result<Applied> {
        let mut reader = LayerReader::new(blob, self.report.clone(), self.given_up.clone());
        let mut options = ApplyOptions::default()
            .diff_id(self.diff_id.clone())
            .ownership(self.shared.options.ownership);
        options.limits = self.shared.options.limits.clone();
        let work = move || {
            let applied = apply_layer(&mounts, &mut reader, &options);
            // After the archive's end, or when its bytes make no sense: is the blob what was promised?
            let worth_knowing = match &applied {
                Ok(_) => true,
                Err(error) => is_about_bytes(error),
            };
            let drained = if worth_knowing { reader.drain() } else { Ok(0) };
            (
                applied.and_then(|applied| drained.map(|_| applied).map_err(longshore_snapshot::Error::Source)),
                reader.take_failure(),
            )
        };
        let (applied, failure) = on_thread("longshore-unpack", work)
            .await
            .map_err(Error::io("starting", "a thread"))?;
        match (applied, failure) {
            (_, Some(failure)) => Err(self.content_error(failure)),
            (Ok(applied), None) => Ok(applied),
            (Err(_), None) if self.is_given_up() => Err(self.cancelled()),
            (Err(error), None) => Err(self.apply_error(error)),
        }
    }

    /// Commits, unless another unpacker was faster: its snapshot has the same content. While that one is still being
    /// made durable its name is taken, but it is no parent yet, and it may fail; so this waits for one or the other.
    async fn commit(&self, key: &str, applied: Applied) -> Result<Outcome> {
        loop {
            let snapshotter = &self.shared.snapshotter;
            let committed = snapshotter.commit_counted(key, &self.chain_id, self.labels(), applied.usage);
            match committed.await {
                Ok(()) => {
                    self.report.say(LayerState::Done(applied.size));
                    return Ok(Outcome::Applied(applied));
                }
                Err(error) if error.kind() == longshore_snapshot::ErrorKind::AlreadyExists => {
                    if self.shared.has_snapshot(&self.chain_id).await? {
                        self.report.say(LayerState::Skipped);
                        return Ok(Outcome::Skipped);
                    }
                    self.pause().await?;
                }
                Err(error) => return Err(snapshot_error("committing", key.to_owned())(error)),
            }
            if self.is_given_up() {
                return Err(self.cancelled());
            }
        }
    }

    async fn remove(&self, key: &str) {
        if let Err(error) = self.shared.snapshotter.remove(key).await {
            tracing::warn!(key, %error, "a half-filled snapshot could not be removed; it is left for remove_leftovers");
        }
    }

    fn layer(&self) -> &Descriptor {
        &self.report.layer
    }

    /// The labels that containerd's unpacker gives, remote snapshotters read them.
    fn labels(&self) -> Labels {
        let mut labels = self.shared.options.labels.clone();
        let annotations = self.layer().annotations().iter().flatten();
        let inherited = annotations.filter(|(key, _)| key.starts_with(INHERITED));
        labels.extend(inherited.map(|(key, value)| (key.clone(), value.clone())));
        labels.insert(SNAPSHOT_REF.to_owned(), self.chain_id.clone());
        labels
    }

    fn check_media_type(&self) -> Result<()> {
        let media_type = self.layer().media_type().to_string();
        match Compression::of_media_type(&media_type) {
            Some(_) => Ok(()),
            None => Err(Error::UnsupportedLayer {
                index: self.report.index,
                digest: self.layer().digest().clone(),
                media_type,
            }),
        }
    }

    fn check_size(&self, actual: Option<u64>) -> Result<()> {
        let expected = self.layer().size();
        match actual {
            Some(actual) if actual != expected => Err(Error::LayerSize {
                index: self.report.index,
                digest: self.layer().digest().clone(),
                expected,
                actual,
            }),
            _ => Ok(()),
        }
    }

    /// Whether the layer is not there, or was given up by its writer, and is to be waited for.
    fn may_come_yet(&self, error: &Error) -> bool {
        use longshore_content::ErrorKind as Kind;
        let waiting = self.shared.options.missing == MissingLayers::Wait;
        waiting
            && matches!(error, Error::Content { source, .. } if matches!(source.kind(), Kind::NotFound | Kind::Abandoned))
    }

    /// On a thread: a runtime need not have timers.
    async fn pause(&self) -> Result<()> {
        let slept = on_thread("longshore-wait", || std::thread::sleep(PAUSE)).await;
        slept.map_err(Error::io("starting", "a thread"))
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    fn cancelled(&self) -> Error {
        Error::Cancelled {
            index: self.report.index,
            digest: self.layer().digest().clone(),
        }
    }

    fn content_error(&self, source: longshore_content::Error) -> Error {
        Error::Content {
            index: self.report.index,
            digest: self.layer().digest().clone(),
            source: Box::new(source),
        }
    }

    fn apply_error(&self, source: longshore_snapshot::Error) -> Error {
        let (index, digest) = (self.report.index, self.layer().digest().clone());
        match source {
            longshore_snapshot::Error::DiffIdMismatch { expected, actual } => Error::DiffIdMismatch {
                index,
                digest,
                expected,
                actual,
            },
            source => Error::Apply {
                index,
                digest,
                source: Box::new(source),
            },
        }
    }
}

fn is_about_bytes(error: &longshore_snapshot::Error) -> bool {
    use longshore_snapshot::ErrorKind as Kind;
    matches!(error.kind(), Kind::InvalidLayer | Kind::Verification)
}
