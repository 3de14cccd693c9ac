//! Garbage collection: what no record leads to is removed from the stores.

mod facts;
mod graph;
mod kinds;
mod node;
mod order;
mod port;
mod report;
mod sweep;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use futures::TryStreamExt;
use futures::lock::Mutex;

use crate::{Key, Kind, MetadataStore, Resource, Result};

use self::graph::{Cause, Graph};
pub(crate) use self::kinds::Kinds;
use self::kinds::failed;
use self::port::Edge as Reference;
use self::sweep::Sweep;

pub use node::Node;
pub use port::{Collectible, Depth, Edge, Found, Removed, StoreError};
pub use report::{CollectOptions, Collected, Mode, Report, Root, Way};

/// Removes what nothing refers to.
///
/// # What is held
/// Roots are the records of images (until the time of `containerd.io/gc.expire`) and containers, leases that have not expired, and labels of blobs and snapshots with `containerd.io/gc.root`, or with a
/// `containerd.io/gc.expire` yet to come. From there it follows what records name, their labels `containerd.io/gc.ref.*` and `containerd.io/gc.bref.*`, and what each store says that a resource
/// refers to. A lease with `containerd.io/gc.flat` holds what it names and no more. Each namespace has references of its own; a resource goes when none has one.
///
/// # How it is safe beside everything else
/// The roots are marked in one state of the store. What is not reached is removed in small groups, what refers to something never after that: a group is *fenced* by [`Removal`](crate::Kind::Removal)
/// records, so that from then on no record can be made to refer to it; the records that changed up to then are marked too, and what they hold is let go again; the rest is removed from its store,
/// and the fences come down. Writers of records never wait; one that wants a resource of a group at just that moment gets [`BeingCollected`](crate::Error::BeingCollected).
///
/// Interrupted at any point, it leaves nothing but fences, which the next run or [`lift`](Self::lift) takes down. One collector at a time may work on a store; a clone
/// is the same collector.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use longshore_metadata::{CollectOptions, Collector, MemoryStore};
///
/// let collector = Collector::new(Arc::new(MemoryStore::new()));
/// let report = collector.collect(&CollectOptions::dry_run()).await?;
/// assert!(report.removed.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Collector {
    store: Arc<dyn MetadataStore>,
    kinds: Kinds,
    turn: Arc<Mutex<()>>,
}

impl Collector {
    /// Over a store of records, with nothing to remove yet.
    pub fn new(store: Arc<dyn MetadataStore>) -> Self {
        Self {
            store,
            kinds: Kinds::default(),
            turn: Arc::default(),
        }
    }

    /// Also collects these. Of two that own a resource, the first counts.
    #[must_use]
    pub fn with(mut self, collectible: Arc<dyn Collectible>) -> Self {
        self.kinds.0.push(collectible);
        self
    }

    /// Takes turns with every other collector that has the same `turn`: for programs that make one for each collection.
    #[must_use]
    pub fn taking_turns(mut self, turn: Arc<Mutex<()>>) -> Self {
        self.turn = turn;
        self
    }

    /// Removes what nothing holds, or tells what it would. A second call waits for the first.
    ///
    /// # Errors
    /// When records can't be read or written, or a store can't tell what a resource refers to: then the rest stays. A resource that can't be removed is no error
    /// but in the [`Report`].
    pub async fn collect(&self, options: &CollectOptions) -> Result<Report> {
        let begun = Instant::now();
        let _turn = self.turn.lock().await;
        let graph = self.marked().await?;
        let mut report = Report {
            reached: graph.len(),
            marking: begun.elapsed(),
            ..Report::default()
        };
        let candidates = self.candidates(&graph, options).await?;
        let sweep = Sweep {
            store: &*self.store,
            kinds: &self.kinds,
            options,
            graph,
            report: &mut report,
        };
        match options.mode {
            Mode::Remove => {
                self.take_down_fences().await?;
                sweep.run(candidates).await?;
            }
            Mode::DryRun => sweep.tell(candidates).await?,
        }
        report.took = begun.elapsed();
        Ok(report)
    }

    /// Why a resource is not collected: a way to it from a root, for each namespace that has one. Nothing when the next run removes it.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub async fn explain(&self, resource: &Resource) -> Result<Vec<Way>> {
        let graph = self.marked().await?;
        let ways = graph.ways_to(&Node::from(resource.clone())).into_iter();
        Ok(ways
            .map(|(namespace, cause, nodes)| Way {
                namespace,
                root: match cause {
                    Cause::Record(key) => Root::Record(key),
                    Cause::InUse | Cause::Node(_) => Root::InUse,
                },
                nodes,
            })
            .collect())
    }

    /// Everything that is held, by namespace and node.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub async fn held(&self) -> Result<Vec<(String, Node)>> {
        let graph = self.marked().await?;
        let held = graph
            .reached()
            .map(|(namespace, node)| (namespace.to_owned(), node.clone()));
        Ok(held.collect())
    }

    /// Takes down the fences that an interrupted run left, so that nobody waits for the next run. Tells how many there were.
    ///
    /// # Errors
    /// When records can't be read or written.
    pub async fn lift(&self) -> Result<usize> {
        let _turn = self.turn.lock().await;
        self.take_down_fences().await
    }

    async fn take_down_fences(&self) -> Result<usize> {
        // A run that was dropped may have a batch on its way: when this one is through, that one is decided.
        self.store.apply(crate::Batch::new()).await?;
        let fences = self.store.list("", Kind::Removal).await?;
        let keys: Vec<Key> = fences.into_iter().map(|record| record.key).collect();
        for keys in keys.chunks(1024) {
            let batch = keys.iter().cloned().fold(crate::Batch::new(), crate::Batch::delete);
            self.store.apply(batch).await?;
        }
        Ok(keys.len())
    }

    /// The graph of this moment, all of it followed.
    async fn marked(&self) -> Result<Graph> {
        let mut graph = Graph::new(SystemTime::now());
        let view = self.store.view().await?;
        graph.load(&*view).await?;
        // Held no longer than needed: an old view keeps pages of the file from being used again.
        drop(view);
        sweep::follow(&mut graph, &self.kinds).await?;
        Ok(graph)
    }

    /// What is there and not reached.
    async fn candidates(&self, graph: &Graph, options: &CollectOptions) -> Result<Vec<Resource>> {
        let mut candidates = Vec::new();
        let youngest = SystemTime::now().checked_sub(options.min_age);
        for kind in &self.kinds.0 {
            let mut all = kind.list();
            let listing = |source| failed("listing", kind.name(), source);
            while let Some(found) = all.try_next().await.map_err(listing)? {
                let old = options.min_age.is_zero() || youngest.is_some_and(|youngest| found.changed <= youngest);
                let node = Node::from(found.resource);
                if old
                    && !graph.holds(&node)
                    && let Node::Resource(resource) = node
                {
                    candidates.push(resource);
                }
            }
        }
        Ok(candidates)
    }
}
