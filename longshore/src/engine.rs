use std::path::{Path, PathBuf};
use std::sync::Arc;

use longshore_content::{ContentStore, LocalStore};
use longshore_distribution::{Fetcher, ImageVerifier, Pusher, RegistryClient, Resolver};
use longshore_events::{Bus, EventSink, Filter, Subscription};
use longshore_metadata::{MetadataStore, RedbStore};
use longshore_runtime::{Executor, LinuxExecutor};
use longshore_snapshot::Snapshotter;

use crate::collect::Collection;
use crate::error::At;
use crate::observe::{Emitter, ObservedContent, ObservedSnapshotter};
use crate::privilege::Privilege;
use crate::senses::Senses;
use crate::{Error, Result};

/// The namespace that an engine works in unless told otherwise, as containerd's.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Events that a slow subscriber may lag behind before it misses some.
const BUS_CAPACITY: usize = 4096;

/// A container engine: a plain struct of ports. [`open`](Self::open) fills it with ours; replace what you like with struct update syntax.
///
/// Cloning is cheap and gives the same engine. An engine must be used inside a tokio runtime, of either flavour.
#[derive(Clone, Debug)]
pub struct Engine {
    /// The tenant whose images and containers this engine sees.
    pub namespace: String,
    /// The directory that bundles and log files go to.
    pub root: PathBuf,
    /// Where blobs live.
    pub content: Arc<dyn ContentStore>,
    /// Where root filesystems come from.
    pub snapshotter: Arc<dyn Snapshotter>,
    /// Where records live.
    pub metadata: Arc<dyn MetadataStore>,
    /// Turns names into descriptors.
    pub resolver: Arc<dyn Resolver>,
    /// Where manifests and blobs come from.
    pub fetcher: Arc<dyn Fetcher>,
    /// Where manifests and blobs go.
    pub pusher: Arc<dyn Pusher>,
    /// Decides whether an image may come in; `None` lets every image in.
    pub verifier: Option<Arc<dyn ImageVerifier>>,
    /// What makes containers out of bundles.
    pub executor: Arc<dyn Executor>,
    /// What the program may do; decides who owns unpacked files and whether containers get a user namespace.
    pub privilege: Privilege,
    /// How it collects what nothing needs any more.
    pub collection: Collection,
    /// The bus that [`subscribe`](Self::subscribe) listens to.
    pub bus: Bus,
    /// The engine's metrics.
    pub senses: Arc<Senses>,
    /// Further places that every event goes to.
    pub sinks: Vec<Arc<dyn EventSink>>,
}

impl Engine {
    /// Opens, or makes, an engine whose state lives under `root`: local content store, overlay snapshotter (native where overlay can't serve), redb,
    /// the Linux executor. One process at a time may hold a root.
    ///
    /// What a program that was killed left behind is cleaned up here: containers tied to it, half-made snapshots and bundles.
    ///
    /// # Errors
    /// [`Locked`](crate::ErrorKind::Locked) when another process holds the root, [`PermissionDenied`](crate::ErrorKind::PermissionDenied) when it can't be written,
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when a store is damaged.
    pub async fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = make_root(root.as_ref())?;
        let metadata = RedbStore::open(root.join("metadata.redb"))
            .await
            .at("opening the metadata store")?;
        let content = LocalStore::open(root.join("content"))
            .await
            .at("opening the content store")?;
        let snapshotter = longshore_snapshot::detect(root.join("snapshots"))
            .await
            .at("opening the snapshotter")?;
        let executor = LinuxExecutor::open(root.join("state")).at("opening the executor")?;
        let client = Arc::new(RegistryClient::builder().build().at("setting up the registry client")?);
        let bus = Bus::new(BUS_CAPACITY);
        let engine = Self {
            namespace: DEFAULT_NAMESPACE.to_owned(),
            root,
            content: Arc::new(content),
            snapshotter,
            metadata: Arc::new(metadata),
            resolver: client.clone(),
            fetcher: client.clone(),
            pusher: client,
            verifier: None,
            executor: Arc::new(executor),
            privilege: Privilege::of_process(),
            collection: Collection::default(),
            senses: Arc::new(Senses::new(&bus)),
            bus,
            sinks: Vec::new(),
        };
        engine.recover().await?;
        Ok(engine)
    }

    /// The events from now on.
    pub fn subscribe(&self, filter: Filter) -> Subscription {
        self.bus.subscribe(filter)
    }

    /// The content store, telling what happens at it.
    pub(crate) fn content(&self) -> Arc<dyn ContentStore> {
        Arc::new(ObservedContent {
            metrics: self.senses.metrics.clone(),
            inner: self.content.clone(),
            emitter: self.emitter(),
        })
    }

    /// The snapshotter, telling what happens at it.
    pub(crate) fn snapshotter(&self) -> Arc<dyn Snapshotter> {
        Arc::new(ObservedSnapshotter {
            inner: self.snapshotter.clone(),
            emitter: self.emitter(),
        })
    }

    pub(crate) fn emitter(&self) -> Emitter {
        let mut sinks: Vec<Arc<dyn EventSink>> =
            vec![Arc::new(self.senses.metrics.clone()), Arc::new(self.bus.clone())];
        sinks.extend(self.sinks.iter().cloned());
        Emitter {
            namespace: self.namespace.clone(),
            sinks,
        }
    }
}

/// Makes the root directory, for its owner alone, and resolves it: overlay mounts need absolute paths that stay true.
fn make_root(root: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let error = |source| Error::Io {
        doing: "making the engine's directory",
        path: root.to_owned(),
        source,
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .map_err(error)?;
    root.canonicalize().map_err(error)
}
