use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longshore_runtime::Stats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use crate::figures::{Figure, Value, figures};

/// The figures of each container, as they were sampled last. A clone shows the same ones.
///
/// Whoever samples (with `Executor::stats`, on a timer or before a scrape) hands in what it read; a scrape itself touches no cgroup.
#[derive(Clone, Debug)]
pub struct ContainerMetrics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    most: usize,
    figures: Vec<Figure>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By namespace and id; in the order of the figures, which is far less than all that was sampled.
    samples: BTreeMap<(String, String), Box<[Option<Value>]>>,
    dropped: u64,
}

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sampled {
    /// It is shown.
    Kept,
    /// There are as many containers as may be shown already; that it was dropped is counted.
    Dropped,
}

impl ContainerMetrics {
    /// Registers the figures of up to `most` containers as `longshore_container_*`. With all controllers, each container is about 25 time series.
    pub fn register(registry: &mut Registry, most: usize) -> Self {
        let metrics = Self {
            shared: Arc::new(Shared {
                most,
                figures: figures(),
                state: Mutex::default(),
            }),
        };
        let collector = ContainerCollector(Arc::clone(&metrics.shared));
        registry
            .sub_registry_with_prefix("longshore")
            .register_collector(Box::new(collector));
        metrics
    }

    /// Shows a container's figures.
    pub fn observe(&self, namespace: &str, id: &str, stats: Stats) -> Sampled {
        let values = self.shared.figures.iter().map(|figure| (figure.read)(&stats)).collect();
        let mut state = self.shared.state();
        let key = (namespace.to_owned(), id.to_owned());
        if state.samples.len() >= self.shared.most && !state.samples.contains_key(&key) {
            state.dropped += 1;
            return Sampled::Dropped;
        }
        state.samples.insert(key, values);
        Sampled::Kept
    }

    /// Shows a container's figures no more: it is gone.
    pub fn forget(&self, namespace: &str, id: &str) {
        self.shared
            .state()
            .samples
            .remove(&(namespace.to_owned(), id.to_owned()));
    }

    /// Shows only the containers for which `keep(namespace, id)` holds from now on.
    pub fn retain(&self, mut keep: impl FnMut(&str, &str) -> bool) {
        self.shared
            .state()
            .samples
            .retain(|(namespace, id), _| keep(namespace, id));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct ContainerCollector(Arc<Shared>);

impl Collector for ContainerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let state = self.0.state();
        let (help, kind) = (
            "Samples of containers beyond the most that are shown.",
            MetricType::Counter,
        );
        let dropped = encoder.encode_descriptor("container_samples_dropped", help, None, kind)?;
        encode_value(dropped, MetricType::Counter, Value::Whole(state.dropped))?;
        for (at, figure) in self.0.figures.iter().enumerate() {
            encode_figure(&mut encoder, (at, figure), &state)?;
        }
        Ok(())
    }
}

fn encode_figure(
    encoder: &mut DescriptorEncoder<'_>,
    (at, figure): (usize, &Figure),
    state: &State,
) -> Result<(), fmt::Error> {
    let mut values = state
        .samples
        .iter()
        .filter_map(|(key, values)| Some((key, values[at]?)))
        .peekable();
    if values.peek().is_none() {
        return Ok(()); // a controller that this kernel does not have
    }
    let name = format!("container_{}", figure.name);
    let mut family = encoder.encode_descriptor(&name, figure.help, figure.unit.as_ref(), figure.kind)?;
    for ((namespace, id), value) in values {
        let labels = [("container_id", id.as_str()), ("namespace", namespace.as_str())];
        encode_value(family.encode_family(&labels)?, figure.kind, value)?;
    }
    Ok(())
}

fn encode_value(mut encoder: MetricEncoder<'_>, kind: MetricType, value: Value) -> Result<(), fmt::Error> {
    const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, f64>> = None;
    match (kind, value) {
        (MetricType::Counter, Value::Whole(number)) => encoder.encode_counter(&number, NO_EXEMPLAR),
        (MetricType::Counter, Value::Real(number)) => encoder.encode_counter(&number, NO_EXEMPLAR),
        (_, Value::Whole(number)) => encoder.encode_gauge(&number),
        (_, Value::Real(number)) => encoder.encode_gauge(&number),
    }
}
