use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use longshore_events::{Event, EventKind, EventSink};
use longshore_runtime::Status;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::labels::{Bounded, Ended, EndedFrom, ExitedAs, From, InState, Operation, Topic, Version};

/// How many containers have their state remembered for the gauge of states.
const MAX_TRACKED: usize = 1 << 16;

/// The figures of an engine. A clone counts into the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) events: Family<Topic, Counter>,
    pub(crate) exits: Family<ExitedAs, Counter>,
    pub(crate) oom_kills: Counter,
    pub(crate) restarts: Family<Ended, Counter>,
    pub(crate) health_checks: Family<Ended, Counter>,
    pub(crate) states: Family<InState, Gauge>,
    pub(crate) image_changes: Family<Operation, Counter>,
    pub(crate) snapshot_operations: Family<Operation, Counter>,
    pub(crate) committed_bytes: Counter,
    pub(crate) pulls: Family<EndedFrom, Counter>,
    pub(crate) pull_bytes: Family<From, Counter>,
    pub(crate) pull_cached_bytes: Family<From, Counter>,
    pub(crate) pull_retries: Family<From, Counter>,
    pub(crate) pull_duration: Family<EndedFrom, Histogram>,
    pub(crate) ingests: Family<Ended, Counter>,
    pub(crate) ingest_bytes: Counter,
    pub(crate) ingest_duration: Family<Ended, Histogram>,
    pub(crate) unpack_layers: Family<Ended, Counter>,
    pub(crate) unpack_bytes: Counter,
    pub(crate) unpack_duration: Family<Ended, Histogram>,
    pub(crate) verified_blobs: Family<Ended, Counter>,
    pub(crate) verified_bytes: Counter,
    pub(crate) repaired_blobs: Family<Ended, Counter>,
    pub(crate) create_duration: Family<Ended, Histogram>,
    pub(crate) start_duration: Family<Ended, Histogram>,
    pub(crate) exec_duration: Family<Ended, Histogram>,
    pub(crate) collections: Family<Ended, Counter>,
    pub(crate) collection_removed: Counter,
    pub(crate) collection_freed_bytes: Counter,
    pub(crate) collection_duration: Histogram,
    pub(crate) collection_pause: Histogram,
    pub(crate) registries: Arc<Bounded>,
    tracked: Arc<Mutex<HashMap<(String, String), Status>>>,
}

/// From a millisecond to about four minutes and a half, for what a container's start is made of and for downloads alike.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 19))
}

fn durations_by_outcome() -> Family<Ended, Histogram> {
    Family::new_with_constructor(durations)
}

impl Metrics {
    /// New figures, all zero, registered as `longshore_*`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::new();
        let registry = registry.sub_registry_with_prefix("longshore");
        let version = Version {
            version: env!("CARGO_PKG_VERSION"),
        };
        registry.register("build", "The version of longshore", Info::new(version));
        metrics.register_lives(registry);
        metrics.register_data(registry);
        metrics
    }

    fn new() -> Self {
        Self {
            events: Family::default(),
            exits: Family::default(),
            oom_kills: Counter::default(),
            restarts: Family::default(),
            health_checks: Family::default(),
            states: Family::default(),
            image_changes: Family::default(),
            snapshot_operations: Family::default(),
            committed_bytes: Counter::default(),
            pulls: Family::default(),
            pull_bytes: Family::default(),
            pull_cached_bytes: Family::default(),
            pull_retries: Family::default(),
            pull_duration: Family::new_with_constructor(durations),
            ingests: Family::default(),
            ingest_bytes: Counter::default(),
            ingest_duration: durations_by_outcome(),
            unpack_layers: Family::default(),
            unpack_bytes: Counter::default(),
            unpack_duration: durations_by_outcome(),
            verified_blobs: Family::default(),
            verified_bytes: Counter::default(),
            repaired_blobs: Family::default(),
            create_duration: durations_by_outcome(),
            start_duration: durations_by_outcome(),
            exec_duration: durations_by_outcome(),
            collections: Family::default(),
            collection_removed: Counter::default(),
            collection_freed_bytes: Counter::default(),
            collection_duration: durations(),
            collection_pause: durations(),
            registries: Arc::default(),
            tracked: Arc::default(),
        }
    }

    fn register_lives(&self, to: &mut Registry) {
        to.register("events", "Events, by containerd's topic", self.events.clone());
        to.register("containers", "Containers, by state", self.states.clone());
        let help = "Ends of containers: success (0), failure (another exit code) or signal (128 and above)";
        to.register("container_exits", help, self.exits.clone());
        to.register(
            "container_oom_kills",
            "Containers of which a process was killed for the memory limit",
            self.oom_kills.clone(),
        );
        to.register(
            "container_restarts",
            "Restarts of supervised containers",
            self.restarts.clone(),
        );
        to.register(
            "container_health_checks",
            "Health checks of containers",
            self.health_checks.clone(),
        );
        let (create, start) = (self.create_duration.clone(), self.start_duration.clone());
        to.register_with_unit(
            "container_create_duration",
            "Time to create a container",
            Unit::Seconds,
            create,
        );
        to.register_with_unit(
            "container_start_duration",
            "Time to start a created container",
            Unit::Seconds,
            start,
        );
        to.register_with_unit(
            "container_exec_duration",
            "Time to start another process in a container",
            Unit::Seconds,
            self.exec_duration.clone(),
        );
    }

    fn register_data(&self, to: &mut Registry) {
        to.register(
            "image_changes",
            "Image names created, updated and deleted",
            self.image_changes.clone(),
        );
        to.register(
            "snapshot_operations",
            "Snapshots prepared, committed and removed",
            self.snapshot_operations.clone(),
        );
        let bytes = |to: &mut Registry, name, help, counter: &Counter| {
            to.register_with_unit(name, help, Unit::Bytes, counter.clone());
        };
        let time = |to: &mut Registry, name, help, family: &Family<Ended, Histogram>| {
            to.register_with_unit(name, help, Unit::Seconds, family.clone());
        };
        bytes(
            to,
            "content_committed",
            "Size of the blobs that were committed",
            &self.committed_bytes,
        );

        to.register("pulls", "Pulls of images", self.pulls.clone());
        to.register_with_unit("pull", "Bytes fetched by pulls", Unit::Bytes, self.pull_bytes.clone());
        let help = "Bytes that pulls found in the store already";
        to.register_with_unit("pull_cached", help, Unit::Bytes, self.pull_cached_bytes.clone());
        let help = "Downloads of blobs that broke off, and were gone on with, in pulls";
        to.register("pull_retries", help, self.pull_retries.clone());
        let help = "Time of a pull";
        to.register_with_unit("pull_duration", help, Unit::Seconds, self.pull_duration.clone());

        to.register("ingests", "Blobs written to the store", self.ingests.clone());
        bytes(to, "ingest", "Bytes written to the store, verified", &self.ingest_bytes);
        time(
            to,
            "ingest_duration",
            "Time from the first byte of a blob to its commit",
            &self.ingest_duration,
        );

        to.register(
            "unpacked_layers",
            "Layers unpacked into snapshots",
            self.unpack_layers.clone(),
        );
        bytes(
            to,
            "unpacked",
            "Uncompressed bytes of unpacked layers",
            &self.unpack_bytes,
        );
        time(to, "unpack_duration", "Time to unpack a layer", &self.unpack_duration);

        let help = "Blobs of the store that were read again: success is what they are said to be";
        to.register("verified_blobs", help, self.verified_blobs.clone());
        bytes(
            to,
            "verified",
            "Bytes of the store that were read again",
            &self.verified_bytes,
        );
        let help = "Blobs found damaged or missing that were to be fetched again";
        to.register("repaired_blobs", help, self.repaired_blobs.clone());

        to.register(
            "collections",
            "Runs of the garbage collection",
            self.collections.clone(),
        );
        to.register(
            "collection_removed",
            "Resources that collections removed",
            self.collection_removed.clone(),
        );
        bytes(
            to,
            "collection_freed",
            "Bytes that collections freed",
            &self.collection_freed_bytes,
        );
        let help = "Time of a collection";
        to.register_with_unit(
            "collection_duration",
            help,
            Unit::Seconds,
            self.collection_duration.clone(),
        );
        to.register_with_unit(
            "collection_pause",
            "Longest time for which a collection kept others from referring to something",
            Unit::Seconds,
            self.collection_pause.clone(),
        );
    }

    /// Tells the state of a container that no event told: of those found when the engine was opened. `None`: it is gone.
    pub fn container_state(&self, namespace: &str, id: &str, state: Option<Status>) {
        let key = (namespace.to_owned(), id.to_owned());
        let mut tracked = self.tracked.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match state {
            Some(state) if tracked.len() < MAX_TRACKED || tracked.contains_key(&key) => tracked.insert(key, state),
            Some(_) => return,
            None => tracked.remove(&key),
        };
        if let Some(before) = before {
            self.states.get_or_create(&in_state(before)).dec();
        }
        if let Some(now) = state {
            self.states.get_or_create(&in_state(now)).inc();
        }
    }

    /// Forgets the states of all containers for which `keep(namespace, id)` does not hold.
    pub fn retain_states(&self, mut keep: impl FnMut(&str, &str) -> bool) {
        let mut tracked = self.tracked.lock().unwrap_or_else(PoisonError::into_inner);
        tracked.retain(|(namespace, id), state| {
            let kept = keep(namespace, id);
            if !kept {
                self.states.get_or_create(&in_state(*state)).dec();
            }
            kept
        });
    }

    fn operation(family: &Family<Operation, Counter>, operation: &'static str) {
        family.get_or_create(&Operation { operation }).inc();
    }
}

fn in_state(status: Status) -> InState {
    InState {
        state: match status {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
            _ => "other",
        },
    }
}

impl EventSink for Metrics {
    fn emit(&self, event: Event) {
        self.events.get_or_create(&Topic { topic: event.topic() }).inc();
        let state = |id: &str, state| self.container_state(&event.namespace, id, state);
        match &event.kind {
            EventKind::ContentCreate { size, .. } => drop(self.committed_bytes.inc_by(*size)),
            EventKind::ImageCreate { .. } => Self::operation(&self.image_changes, "create"),
            EventKind::ImageUpdate { .. } => Self::operation(&self.image_changes, "update"),
            EventKind::ImageDelete { .. } => Self::operation(&self.image_changes, "delete"),
            EventKind::SnapshotPrepare { .. } => Self::operation(&self.snapshot_operations, "prepare"),
            EventKind::SnapshotCommit { .. } => Self::operation(&self.snapshot_operations, "commit"),
            EventKind::SnapshotRemove { .. } => Self::operation(&self.snapshot_operations, "remove"),
            EventKind::TaskOom { .. } => drop(self.oom_kills.inc()),
            EventKind::TaskCreate { container_id, .. } => state(container_id, Some(Status::Created)),
            EventKind::TaskStart { container_id, .. } | EventKind::TaskResumed { container_id } => {
                state(container_id, Some(Status::Running));
            }
            EventKind::TaskPaused { container_id } => state(container_id, Some(Status::Paused)),
            EventKind::TaskDelete { container_id, .. } => state(container_id, None),
            EventKind::TaskExit {
                container_id,
                id,
                exit_status,
                ..
            } if container_id == id => {
                let status = match exit_status {
                    0 => "success",
                    1..=127 => "failure",
                    _ => "signal",
                };
                self.exits.get_or_create(&ExitedAs { status }).inc();
                state(container_id, Some(Status::Stopped));
            }
            _ => {}
        }
    }
}
