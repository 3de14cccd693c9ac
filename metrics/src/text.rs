use std::fmt;

use prometheus_client::registry::Registry;

/// The content type of what [`encode`] returns.
pub const OPENMETRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of what [`encode_prometheus`] returns.
pub const PROMETHEUS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of a registry as OpenMetrics text.
///
/// # Errors
/// Only that of a collector that the program registered itself: a string takes everything.
pub fn encode(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text)
}

/// All metrics of a registry as Prometheus text (exposition format 0.0.4), for scrapers that do not know OpenMetrics: there a counter's
/// family is named like its samples, with `_total`, an info is a gauge, and there are neither units nor an end mark.
///
/// # Errors
/// As [`encode`].
pub fn encode_prometheus(registry: &Registry) -> Result<String, fmt::Error> {
    let text = encode(registry)?;
    let mut plain = String::with_capacity(text.len());
    let mut help = "";
    for line in text.lines() {
        if let Some(of) = line.strip_prefix("# HELP ") {
            help = of;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|of| of.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            let help = help.strip_prefix(name).unwrap_or_default();
            plain.push_str(&format!("# HELP {name}{suffix}{help}\n# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            plain.push_str(line);
            plain.push('\n');
        }
    }
    Ok(plain)
}
