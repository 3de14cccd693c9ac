use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::labels::{Ended, EndedFrom, From};
use crate::{Metrics, Outcome};

/// A pull that ended.
#[derive(Clone, Copy, Debug)]
pub struct Pull<'a> {
    /// The registry's host.
    pub registry: &'a str,
    /// How it ended.
    pub outcome: Outcome,
    /// What came over the network.
    pub fetched_bytes: u64,
    /// What was in the store already.
    pub cached_bytes: u64,
    /// Downloads that broke off and were gone on with.
    pub retries: u64,
    /// How long it took.
    pub took: Duration,
}

/// A blob's ingest that ended.
#[derive(Clone, Copy, Debug)]
pub struct Ingest {
    /// How it ended.
    pub outcome: Outcome,
    /// What was written.
    pub bytes: u64,
    /// From the first byte to the commit.
    pub took: Duration,
}

/// A layer's unpacking that ended.
#[derive(Clone, Copy, Debug)]
pub struct Unpack {
    /// How it ended.
    pub outcome: Outcome,
    /// The layer's uncompressed size.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// A garbage collection that ended.
#[derive(Clone, Copy, Debug)]
pub struct Collection {
    /// How it ended.
    pub outcome: Outcome,
    /// Resources that were removed.
    pub removed: u64,
    /// Bytes that were freed.
    pub freed_bytes: u64,
    /// How long it took.
    pub took: Duration,
    /// The longest time for which it kept others from referring to something.
    pub longest_pause: Duration,
}

fn count(family: &Family<Ended, Counter>, good: u64, bad: u64) {
    for (outcome, number) in [(Outcome::Success, good), (Outcome::Failure, bad)] {
        family.get_or_create(&Ended { outcome }).inc_by(number);
    }
}

impl Metrics {
    /// Counts a pull.
    pub fn pulled(&self, pull: &Pull<'_>) {
        let registry = self.registries.admit(pull.registry);
        let (outcome, from) = (
            pull.outcome,
            From {
                registry: registry.clone(),
            },
        );
        let ended = EndedFrom { registry, outcome };
        self.pulls.get_or_create(&ended).inc();
        self.pull_retries.get_or_create(&from).inc_by(pull.retries);
        self.pull_bytes.get_or_create(&from).inc_by(pull.fetched_bytes);
        self.pull_cached_bytes.get_or_create(&from).inc_by(pull.cached_bytes);
        self.pull_duration
            .get_or_create(&ended)
            .observe(pull.took.as_secs_f64());
    }

    /// Counts an ingest.
    pub fn ingested(&self, ingest: &Ingest) {
        let ended = Ended {
            outcome: ingest.outcome,
        };
        self.ingests.get_or_create(&ended).inc();
        self.ingest_bytes.inc_by(ingest.bytes);
        self.ingest_duration
            .get_or_create(&ended)
            .observe(ingest.took.as_secs_f64());
    }

    /// Counts an unpacked layer.
    pub fn unpacked(&self, unpack: &Unpack) {
        let ended = Ended {
            outcome: unpack.outcome,
        };
        self.unpack_layers.get_or_create(&ended).inc();
        self.unpack_bytes.inc_by(unpack.bytes);
        self.unpack_duration
            .get_or_create(&ended)
            .observe(unpack.took.as_secs_f64());
    }

    /// Counts blobs that were read again: so many were as they should be, so many were not.
    pub fn verified(&self, good: u64, bad: u64, bytes: u64) {
        count(&self.verified_blobs, good, bad);
        self.verified_bytes.inc_by(bytes);
    }

    /// Counts blobs that were to be fetched again: so many were, so many were not.
    pub fn repaired(&self, done: u64, failed: u64) {
        count(&self.repaired_blobs, done, failed);
    }

    /// Counts a container's creation. (The event counts the container; this is for the time, and for what failed.)
    pub fn created(&self, outcome: Outcome, took: Duration) {
        self.create_duration
            .get_or_create(&Ended { outcome })
            .observe(took.as_secs_f64());
    }

    /// Counts a container's start.
    pub fn started(&self, outcome: Outcome, took: Duration) {
        self.start_duration
            .get_or_create(&Ended { outcome })
            .observe(took.as_secs_f64());
    }

    /// Counts another process in a container.
    pub fn executed(&self, outcome: Outcome, took: Duration) {
        self.exec_duration
            .get_or_create(&Ended { outcome })
            .observe(took.as_secs_f64());
    }

    /// Counts the restart of a supervised container.
    pub fn restarted(&self, outcome: Outcome) {
        self.restarts.get_or_create(&Ended { outcome }).inc();
    }

    /// Counts a health check.
    pub fn health_checked(&self, outcome: Outcome) {
        self.health_checks.get_or_create(&Ended { outcome }).inc();
    }

    /// Counts a garbage collection.
    pub fn collected(&self, collection: &Collection) {
        self.collections
            .get_or_create(&Ended {
                outcome: collection.outcome,
            })
            .inc();
        self.collection_removed.inc_by(collection.removed);
        self.collection_freed_bytes.inc_by(collection.freed_bytes);
        self.collection_duration.observe(collection.took.as_secs_f64());
        self.collection_pause.observe(collection.longest_pause.as_secs_f64());
    }
}
