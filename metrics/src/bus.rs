use std::fmt;

use longshore_events::{Bus, BusStats};
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
        let help = "Events that a slow subscriber missed.";
        ConstCounter::new(missed).encode(encoder.encode_descriptor(
            "event_missed",
            help,
            None,
            MetricType::Counter,
        )?)?;
        let gauges = [
            ("event_subscribers", "Subscribers of the event bus.", subscribers),
            ("event_queued", "Events that wait for a subscriber.", queued),
        ];
        for (name, help, value) in gauges {
            let value = ConstGauge::new(u64::try_from(value).unwrap_or(u64::MAX));
            value.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}
