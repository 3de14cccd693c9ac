//! Prometheus metrics of a container engine and of each of its containers.
//!
//! [`Metrics`] is an [`EventSink`](longshore_events::EventSink) that counts what happens, with recorders for what events do not tell (durations, bytes).
//! [`ContainerMetrics`] shows the figures of each container's cgroup. Both live in a [`Registry`] that the program hands in; nothing is global.
//! A [`Sampler`] turns samples of containers into what a person wants to see of them: processors in use, bytes a second.
//! `METRICS.md` in this crate's directory lists every metric; a test generates it.
//!
//! # What it is not for
//! Serving HTTP (any server can send what [`encode`] returns) and keeping history (Prometheus does).
//!
//! # Limitations
//! Labels have bounded sets of values: beyond [`MAX_REGISTRIES`] registries their pulls count as those of `other`, and [`ContainerMetrics`] drops containers beyond its limit, and counts that.
//!
//! # Example
//! ```
//! use std::time::Duration;
//! use longshore_events::{Event, EventKind, EventSink};
//! use longshore_metrics::{Metrics, Outcome, Pull, Registry, encode_prometheus};
//!
//! let mut registry = Registry::default();
//! let metrics = Metrics::register(&mut registry);
//! metrics.emit(Event::now("default", EventKind::TaskOom { container_id: "demo".into() }));
//! metrics.pulled(&Pull { registry: "docker.io", outcome: Outcome::Success, fetched_bytes: 3_000_000, cached_bytes: 0, retries: 0, took: Duration::from_secs(1) });
//!
//! let text = encode_prometheus(&registry)?;
//! assert!(text.contains("longshore_container_oom_kills_total 1\n"));
//! assert!(text.contains("longshore_pull_bytes_total{registry=\"docker.io\"} 3000000\n"));
//! # Ok::<(), std::fmt::Error>(())
//! ```

#![forbid(unsafe_code)]

mod bus;
mod containers;
mod engine;
mod figures;
mod labels;
mod observe;
mod text;
mod usage;

pub use bus::{register_bus, register_journal};
pub use containers::{ContainerMetrics, Sampled};
pub use engine::Metrics;
pub use labels::{MAX_REGISTRIES, Outcome};
pub use observe::{Collection, Ingest, Pull, Unpack};
pub use prometheus_client::registry::Registry;
pub use text::{OPENMETRICS_TYPE, PROMETHEUS_TYPE, encode, encode_prometheus};
pub use usage::{Flow, Sampler, Stalled, Usage};
