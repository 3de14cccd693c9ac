use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use longshore_bundle::{LayerProgress, LayerState, UnpackObserver};
use longshore_distribution::{ProgressEvent, PullProgress};
use longshore_events::{Bus, Event, EventSink};
use longshore_metrics::{
    ContainerMetrics, Metrics, Outcome, Pull, Registry, Unpack, encode, encode_prometheus, register_bus,
};
use longshore_runtime::Status;

use crate::error::At;
use crate::{Engine, Result};

/// How many containers a scrape shows.
const MOST_CONTAINERS: usize = 4096;

/// An engine's metrics, in a registry of its own.
#[derive(Debug)]
pub struct Senses {
    registry: Registry,
    /// What the engine does, counted; also an [`EventSink`].
    pub metrics: Metrics,
    /// The figures of each container.
    pub containers: ContainerMetrics,
}

impl EventSink for Senses {
    fn emit(&self, event: Event) {
        self.metrics.emit(event);
    }
}

impl Senses {
    /// New metrics, those of `bus` among them.
    pub fn new(bus: &Bus) -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let containers = ContainerMetrics::register(&mut registry, MOST_CONTAINERS);
        register_bus(&mut registry, bus.clone());
        Self {
            registry,
            metrics,
            containers,
        }
    }

    /// All of them as Prometheus text, containers as they were last sampled.
    pub fn text(&self) -> String {
        encode_prometheus(&self.registry).unwrap_or_else(|fmt::Error| "# the metrics could not be written\n".to_owned())
    }

    /// The same as OpenMetrics text.
    pub fn open_metrics(&self) -> String {
        encode(&self.registry).unwrap_or_else(|fmt::Error| "# EOF\n".to_owned())
    }
}

impl Engine {
    /// The engine's metrics as Prometheus text, with fresh figures of each running container of this namespace.
    ///
    /// # Errors
    /// When the metadata can't be read.
    pub async fn metrics(&self) -> Result<String> {
        self.sample().await?;
        Ok(self.senses.text())
    }

    /// Takes fresh figures of the containers of this namespace, for whoever writes the metrics then ([`Senses::text`], [`Senses::open_metrics`]): what each uses, and their states, also of those
    /// that another program made or saw end.
    ///
    /// # Errors
    /// When the metadata or the executor's state can't be read.
    pub async fn sample(&self) -> Result<()> {
        let known = self.containers().await?;
        let states = self
            .executor
            .list()
            .await
            .at("listing the containers of the executor")?;
        let states: HashMap<_, _> = states.into_iter().map(|state| (state.id, state.status)).collect();
        let ids: HashSet<&str> = known.iter().map(|container| container.id()).collect();
        let (figures, metrics) = (&self.senses.containers, &self.senses.metrics);
        let stays = |namespace: &str, id: &str| namespace != self.namespace || ids.contains(id);
        figures.retain(stays);
        metrics.retain_states(stays);
        let mut alive = Vec::new();
        for container in &known {
            let status = states.get(container.task()).copied();
            metrics.container_state(&self.namespace, container.id(), status);
            match status {
                // It has stopped: it uses nothing.
                None | Some(Status::Stopped) => figures.forget(&self.namespace, container.id()),
                Some(_) => alive.push(container),
            }
        }
        let tasks: Vec<_> = alive.iter().map(|container| container.task().clone()).collect();
        for (container, stats) in alive.iter().zip(self.executor.sample(&tasks).await) {
            match stats {
                Ok(stats) => drop(figures.observe(&self.namespace, container.id(), stats)),
                Err(_) => figures.forget(&self.namespace, container.id()),
            }
        }
        Ok(())
    }
}

/// Counts what a pull brings, and hands its progress on.
#[derive(Debug)]
pub(crate) struct PullCounter {
    begun: Instant,
    fetched: AtomicU64,
    cached: AtomicU64,
    retries: AtomicU64,
    next: Option<Arc<dyn PullProgress>>,
}

impl PullCounter {
    pub(crate) fn new(next: Option<Arc<dyn PullProgress>>) -> Self {
        Self {
            begun: Instant::now(),
            fetched: AtomicU64::new(0),
            cached: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            next,
        }
    }

    pub(crate) fn count<T>(&self, metrics: &Metrics, registry: &str, result: &Result<T>) {
        metrics.pulled(&Pull {
            registry,
            outcome: outcome_of(result),
            fetched_bytes: self.fetched.load(Ordering::Relaxed),
            cached_bytes: self.cached.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            took: self.begun.elapsed(),
        });
    }
}

impl PullProgress for PullCounter {
    fn event(&self, event: ProgressEvent<'_>) {
        match event {
            ProgressEvent::Cached { blob } => {
                self.cached.fetch_add(blob.size(), Ordering::Relaxed);
            }
            ProgressEvent::Committed { blob } => {
                self.fetched.fetch_add(blob.size(), Ordering::Relaxed);
            }
            ProgressEvent::Resumed { .. } => {
                self.retries.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        if let Some(next) = &self.next {
            next.event(event);
        }
    }
}

/// Counts layers as they are unpacked.
pub(crate) struct UnpackCounter {
    metrics: Metrics,
    begun: Mutex<Instant>,
}

impl UnpackCounter {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            begun: Mutex::new(Instant::now()),
        }
    }
}

impl UnpackObserver for UnpackCounter {
    fn layer(&self, progress: &LayerProgress<'_>) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        match progress.state {
            LayerState::Started => *begun = Instant::now(),
            LayerState::Done(bytes) => {
                self.metrics.unpacked(&Unpack {
                    outcome: Outcome::Success,
                    bytes,
                    took: begun.elapsed(),
                });
            }
            _ => {}
        }
    }
}

pub(crate) fn outcome_of<T, E>(result: &Result<T, E>) -> Outcome {
    match result {
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Failure,
    }
}
