//! Layers from the content store into snapshots.

mod layer;
mod lock;
mod observer;
mod options;
mod reader;
mod thread;

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use longshore_content::ContentStore;
use longshore_snapshot::{Kind, Reach, Snapshotter};
use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageManifest};

use crate::{Error, Result, chain_ids, diff_ids};

pub use observer::{LayerProgress, LayerState, UnpackObserver};
pub use options::{MissingLayers, UnpackOptions};

use layer::{Job, Offer, Outcome};
use lock::Locks;

/// Beginning of the keys of snapshots that are being filled.
const EXTRACT: &str = "extract-";

/// Unpacks images: applies each layer on top of those below it, and commits it under its chainID.
///
/// - A layer whose chainID is a snapshot already is skipped, and its blob is not needed.
/// - A snapshotter may have a layer elsewhere: it knows it by the label `containerd.io/snapshot.ref`, which is the chainID, makes the committed snapshot when it is
///   asked to prepare one with that label, and answers that it exists. Then the layer is skipped as well. Annotations of the layer that begin with
///   `containerd.io/snapshot/` are labels, too.
/// - A layer is [followed](ContentStore::follow) while it is fetched: unpacking starts with its first bytes. It is
///   committed only after its blob was verified and its unpacked bytes had the diffID of the config.
/// - Clones share their work: a layer that two of them want at once is unpacked once. Between unpackers that know
///   nothing of each other, the first to commit wins and the other takes that.
/// - A layer that fails, or that nobody waits for any more because the future was dropped, stops at its next read,
///   and its half-filled snapshot is removed in the background. What a crash leaves (snapshots whose keys begin with
///   `extract-`) is removed by [`remove_leftovers`](Self::remove_leftovers).
///
/// Layers are applied on a thread of their own. Its methods must be called inside a tokio runtime, of any flavour.
///
/// ```
/// use std::sync::Arc;
///
/// use longshore_bundle::Unpacker;
/// use longshore_content::{ContentStoreExt, Expected, MemoryStore, sha256};
/// use longshore_snapshot::{Labels, Snapshotter};
/// use oci_spec::image::{ImageConfiguration, ImageManifest};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let root = tempfile::tempdir()?;
/// # let tar = vec![0; 1024];
/// # let layer = sha256(&tar);
/// # let manifest: ImageManifest = serde_json::from_str(&format!(
/// #     r#"{{"schemaVersion": 2,
/// #     "config": {{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "{layer}", "size": 1024}},
/// #     "layers": [{{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "{layer}", "size": 1024}}]}}"#
/// # ))?;
/// # let config: ImageConfiguration = serde_json::from_str(&format!(
/// #     r#"{{"architecture": "amd64", "os": "linux", "rootfs": {{"type": "layers", "diff_ids": ["{layer}"]}}}}"#
/// # ))?;
/// let content = Arc::new(MemoryStore::new());
/// content.put("layer", tar.into(), Expected::default()).await?;
/// let snapshotter = longshore_snapshot::detect(root.path()).await?;
///
/// let unpacker = Unpacker::new(content, snapshotter.clone());
/// let unpacked = unpacker.unpack(&manifest, &config).await?;
/// let mounts = snapshotter.prepare("container-1", unpacked.chain_id.as_deref(), Labels::new()).await?;
/// # assert_eq!((unpacked.unpacked, mounts.len()), (1, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Unpacker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    content: Arc<dyn ContentStore>,
    snapshotter: Arc<dyn Snapshotter>,
    options: UnpackOptions,
    locks: Locks,
    /// Makes this unpacker's keys its own.
    instance: String,
    counter: AtomicU64,
}

/// What unpacking an image came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unpacked {
    /// Name of the snapshot with the whole image, to make a container's from; `None` for an image without layers.
    pub chain_id: Option<String>,
    /// Layers that were unpacked now.
    pub unpacked: usize,
    /// Layers that were there.
    pub skipped: usize,
    /// Uncompressed bytes of the layers that were unpacked now.
    pub bytes: u64,
    /// Files, directories and whiteouts in them.
    pub entries: u64,
}

impl Unpacker {
    /// Unpacks from one into the other.
    pub fn new(content: Arc<dyn ContentStore>, snapshotter: Arc<dyn Snapshotter>) -> Self {
        Self::with_options(content, snapshotter, UnpackOptions::default())
    }

    /// The same, told how.
    pub fn with_options(
        content: Arc<dyn ContentStore>,
        snapshotter: Arc<dyn Snapshotter>,
        options: UnpackOptions,
    ) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            shared: Arc::new(Shared {
                content,
                snapshotter,
                options,
                locks: Locks::default(),
                instance: format!("{:x}.{:x}", std::process::id(), now.as_nanos()),
                counter: AtomicU64::new(0),
            }),
        }
    }

    /// Unpacks an image.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when manifest and config do not belong together or a layer is damaged,
    /// [`Verification`](crate::ErrorKind::Verification) when its bytes are not the promised ones,
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a layer that is no tar archive,
    /// [`NotFound`](crate::ErrorKind::NotFound) when a layer is not in the content store (but see [`MissingLayers`]),
    /// [`Cancelled`](crate::ErrorKind::Cancelled) when the fetching of one was given up; what store and snapshotter
    /// fail with.
    pub async fn unpack(&self, manifest: &ImageManifest, config: &ImageConfiguration) -> Result<Unpacked> {
        self.unpack_observed(manifest, config, Arc::new(())).await
    }

    /// Unpacks an image and tells how it goes.
    ///
    /// # Errors
    /// As [`unpack`](Self::unpack).
    pub async fn unpack_observed(
        &self,
        manifest: &ImageManifest,
        config: &ImageConfiguration,
        observer: Arc<dyn UnpackObserver>,
    ) -> Result<Unpacked> {
        let diff_ids = checked_diff_ids(manifest, config)?;
        let layers = manifest.layers();
        let chain = chain_ids(&diff_ids);
        let first = self.first_missing(&chain).await?;
        let mut unpacked = Unpacked {
            chain_id: chain.last().cloned(),
            skipped: first,
            ..Unpacked::default()
        };
        for (index, layer) in layers.iter().enumerate() {
            let report = Report {
                observer: observer.clone(),
                index,
                count: layers.len(),
                layer: layer.clone(),
            };
            if index < first {
                report.say(LayerState::Skipped);
                continue;
            }
            match self.unpack_layer(report, &chain, &diff_ids[index]).await? {
                Outcome::Skipped => unpacked.skipped += 1,
                Outcome::Applied(applied) => {
                    unpacked.unpacked += 1;
                    unpacked.bytes += applied.size;
                    unpacked.entries += applied.entries;
                }
            }
        }
        Ok(unpacked)
    }

    /// How many layers, counted from the lowest, need not be fetched: their snapshots are there, or the snapshotter has them elsewhere and is made to make them by this.
    /// Of a snapshotter whose [`reach`](Snapshotter::reach) is local nothing is asked but what it has.
    ///
    /// What is above the first layer that has to be fetched can't be known before that one is there.
    ///
    /// # Errors
    /// As [`unpack`](Self::unpack), but nothing is asked of the content store.
    pub async fn present(&self, manifest: &ImageManifest, config: &ImageConfiguration) -> Result<usize> {
        let diff_ids = checked_diff_ids(manifest, config)?;
        let chain = chain_ids(&diff_ids);
        let mut present = self.first_missing(&chain).await?;
        if self.shared.snapshotter.reach() == Reach::Local {
            return Ok(present);
        }
        let layers = manifest.layers();
        while let Some(layer) = layers.get(present) {
            let report = Report {
                observer: Arc::new(()),
                index: present,
                count: layers.len(),
                layer: layer.clone(),
            };
            let (job, _given_up) = self.job(report, &chain, &diff_ids[present]);
            match on_task(present, layer, job.offer()).await? {
                Offer::Made => present += 1,
                Offer::None => break,
            }
        }
        Ok(present)
    }

    /// Removes what unpackers that were killed left half-filled, and tells how many that were. Snapshots of this
    /// unpacker's own are spared; those of another program that unpacks at this moment are not.
    ///
    /// # Errors
    /// What the snapshotter fails with.
    pub async fn remove_leftovers(&self) -> Result<usize> {
        let snapshotter = &self.shared.snapshotter;
        let failed = |action, key: &str| snapshot_error(action, key.to_owned());
        let own = format!("{EXTRACT}{}.", self.shared.instance);
        let mut removed = 0;
        for info in snapshotter.walk().await.map_err(failed("listing", "*"))? {
            let leftover = info.kind == Kind::Active && info.key.starts_with(EXTRACT) && !info.key.starts_with(&own);
            if leftover {
                snapshotter
                    .remove(&info.key)
                    .await
                    .map_err(failed("removing", &info.key))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The first layer that is to be unpacked. Looked for from the top: a snapshot has all its parents.
    async fn first_missing(&self, chain: &[String]) -> Result<usize> {
        for (index, chain_id) in chain.iter().enumerate().rev() {
            if self.shared.has_snapshot(chain_id).await? {
                return Ok(index + 1);
            }
        }
        Ok(0)
    }

    /// Runs on a task of its own, which goes on to clean up when this future is dropped.
    async fn unpack_layer(&self, report: Report, chain: &[String], diff_id: &Digest) -> Result<Outcome> {
        let (index, layer) = (report.index, report.layer.clone());
        let (job, _given_up) = self.job(report, chain, diff_id);
        on_task(index, &layer, job.run()).await
    }

    fn job(&self, report: Report, chain: &[String], diff_id: &Digest) -> (Job, GiveUp) {
        let index = report.index;
        let given_up = GiveUp::default();
        let job = Job {
            shared: self.shared.clone(),
            diff_id: diff_id.clone(),
            chain_id: chain[index].clone(),
            parent: index.checked_sub(1).map(|below| chain[below].clone()),
            given_up: given_up.0.clone(),
            report,
        };
        (job, given_up)
    }
}

/// Runs what must not stop half-way when its caller goes.
async fn on_task<T: Send + 'static>(
    index: usize,
    layer: &Descriptor,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Cancelled {
            index,
            digest: layer.digest().clone(),
        }),
    }
}

/// The diffIDs, one for each layer.
fn checked_diff_ids(manifest: &ImageManifest, config: &ImageConfiguration) -> Result<Vec<Digest>> {
    let diff_ids = diff_ids(config)?;
    let layers = manifest.layers().len();
    match layers == diff_ids.len() {
        true => Ok(diff_ids),
        false => Err(Error::LayerCount {
            layers,
            diff_ids: diff_ids.len(),
        }),
    }
}

impl Shared {
    async fn has_snapshot(&self, chain_id: &str) -> Result<bool> {
        match self.snapshotter.stat(chain_id).await {
            Ok(info) => Ok(info.kind == Kind::Committed),
            Err(error) if error.kind() == longshore_snapshot::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(snapshot_error("looking for", chain_id.to_owned())(error)),
        }
    }

    fn extract_key(&self, chain_id: &str) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("{EXTRACT}{}.{number:x}-{chain_id}", self.instance)
    }
}

/// Tells a job, when it is dropped, that nobody waits for it any more.
#[derive(Default)]
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Where one layer's progress goes.
#[derive(Clone)]
struct Report {
    observer: Arc<dyn UnpackObserver>,
    index: usize,
    count: usize,
    layer: Descriptor,
}

impl Report {
    fn say(&self, state: LayerState) {
        self.observer.layer(&LayerProgress {
            index: self.index,
            count: self.count,
            layer: &self.layer,
            state,
        });
    }
}

fn snapshot_error(action: &'static str, key: String) -> impl FnOnce(longshore_snapshot::Error) -> Error {
    move |source| Error::Snapshot {
        action,
        key,
        source: Box::new(source),
    }
}
