use std::fmt;
use std::sync::Arc;

use longshore_events::{Bus, BusStats, Journal, JournalStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Registers the figures of a bus as `longshore_event_*`. The registry keeps a handle of the bus, so its subscriptions do not end before the registry is gone.
pub fn register_bus(registry: &mut Registry, bus: Bus) {
    registry
        .sub_registry_with_prefix("longshore")
        .register_collector(Box::new(BusCollector(bus)));
}

#[derive(Debug)]
struct BusCollector(Bus);

impl Collector for BusCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let BusStats {
            missed,
            subscribers,
            queued,
            ..
        } = self.0.stats();
        counter(
            &mut encoder,
            "event_missed",
            "Events that a slow subscriber missed.",
            missed,
        )?;
        gauge(
            &mut encoder,
            "event_subscribers",
            "Subscribers of the event bus.",
            subscribers,
        )?;
        gauge(
            &mut encoder,
            "event_queued",
            "Events that wait for a subscriber.",
            queued,
        )
    }
}

/// Registers the figures of a journal as `longshore_journal_*`. The registry keeps the journal open.
pub fn register_journal(registry: &mut Registry, journal: Arc<Journal>) {
    registry
        .sub_registry_with_prefix("longshore")
        .register_collector(Box::new(JournalCollector(journal)));
}

#[derive(Debug)]
struct JournalCollector(Arc<Journal>);

impl Collector for JournalCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let JournalStats {
            written,
            missed,
            queued,
            ..
        } = self.0.stats();
        counter(
            &mut encoder,
            "journal_written",
            "Events written to the journal.",
            written,
        )?;
        let help = "Events that the journal could not keep: its queue was full, or the disk.";
        counter(&mut encoder, "journal_missed", help, missed)?;
        gauge(
            &mut encoder,
            "journal_queued",
            "Events that wait to be written to the journal.",
            queued,
        )
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), fmt::Error> {
    ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: usize) -> Result<(), fmt::Error> {
    let value = ConstGauge::new(u64::try_from(value).unwrap_or(u64::MAX));
    value.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}
