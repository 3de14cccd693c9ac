use std::path::PathBuf;
use std::sync::Arc;

use longshore_content::ContentStore;
use longshore_distribution::{Fetcher, ImageVerifier, Pusher, Resolver};
use longshore_events::{Bus, EventSink, Filter, Subscription};
use longshore_metadata::MetadataStore;
use longshore_runtime::Executor;
use longshore_snapshot::Snapshotter;

use crate::collect::Collection;
use crate::observe::{Emitter, ObservedContent, ObservedSnapshotter};
use crate::privilege::Privilege;
use crate::senses::Senses;

/// The namespace that an engine works in unless told otherwise, as containerd's.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A container engine: a plain struct of ports. [`open`](Self::open) fills it with ours; replace what you like with struct update syntax.
///
/// Cloning is cheap and gives the same engine. An engine must be used inside a tokio runtime, of either flavour.
#[derive(Clone, Debug)]
pub struct Engine {
    /// The tenant whose images and containers this engine sees.
    pub namespace: String,
    /// Who asks for what this engine does, for its events: a program, unless one that serves others says which of them.
    pub asker: String,
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
        let mut sinks: Vec<Arc<dyn EventSink>> = vec![self.senses.clone(), Arc::new(self.bus.clone())];
        sinks.extend(self.sinks.iter().cloned());
        Emitter {
            namespace: self.namespace.clone(),
            by: self.asker.clone(),
            sinks,
        }
    }
}
