//! The dashboard asks for metrics that there are, by labels that they have, in words that Prometheus understands.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::Command;

use longshore_testing::{require_tool, skip};
use serde_json::Value;

const DASHBOARD: &str = include_str!("../../docs/grafana/longshore.json");
const TABLE: &str = include_str!("../METRICS.md");

/// Every query of a panel.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries = targets.map(|target| target["expr"].as_str().expect("a query").to_owned());
    queries.collect()
}

/// Names of samples, with the labels that each has.
fn metrics() -> BTreeMap<String, BTreeSet<String>> {
    let mut metrics = BTreeMap::new();
    for line in TABLE.lines().filter(|line| line.starts_with("| `longshore_")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (name, kind, labels) = (cells[1].trim_matches('`'), cells[2], cells[4]);
        let labels = labels.split(", ").map(|label| label.trim_matches('`').to_owned());
        // Whoever scrapes adds this one.
        let labels: BTreeSet<String> = labels.chain(["instance".to_owned()]).collect();
        let suffixes: &[&str] = if kind == "histogram" {
            &["_bucket", "_sum", "_count"]
        } else {
            &[""]
        };
        for suffix in suffixes {
            let mut labels = labels.clone();
            if *suffix == "_bucket" {
                labels.insert("le".to_owned());
            }
            metrics.insert(format!("{name}{suffix}"), labels);
        }
    }
    metrics
}

/// The names of metrics in a text, each with the labels that it is chosen by.
fn asked(query: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found = Vec::new();
    for (at, _) in query.match_indices("longshore_") {
        let rest = &query[at..];
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let chosen = after
            .strip_prefix('{')
            .and_then(|after| after.split('}').next())
            .unwrap_or_default();
        let labels = chosen
            .split(',')
            .filter_map(|part| Some(part.split(['=', '!']).next()?.trim()));
        found.push((name, labels.filter(|label| !label.is_empty()).collect()));
    }
    found
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let metrics = metrics();
    assert!(metrics.len() > 50, "the table was read: {metrics:?}");
    let mut seen = BTreeSet::new();
    for query in queries() {
        let asked = asked(&query);
        assert!(!asked.is_empty(), "no metric in {query}");
        for (name, chosen) in asked {
            let labels = metrics
                .get(name)
                .unwrap_or_else(|| panic!("there is no metric {name}: {query}"));
            for label in chosen {
                assert!(labels.contains(label), "{name} has no label {label}: {query}");
            }
            seen.insert(name.to_owned());
        }
    }
    assert!(seen.len() > 40, "most of them are shown: {seen:?}");
    for variable in asked(DASHBOARD) {
        assert!(metrics.contains_key(variable.0), "there is no metric {}", variable.0);
    }
}

#[test]
fn prometheus_understands_every_query() {
    if let Err(why) = require_tool("promtool") {
        return skip(&why);
    }
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (number, query) in queries().iter().enumerate() {
        let query = query.replace("$__rate_interval", "5m");
        writeln!(rules, "  - record: query_{number}\n    expr: {}", Value::from(query))
            .expect("a string takes everything");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rules.yml");
    std::fs::write(&file, &rules).expect("written");
    let output = Command::new("promtool")
        .args(["check", "rules"])
        .arg(&file)
        .output()
        .expect("promtool");
    assert!(
        output.status.success(),
        "{}\n{rules}",
        String::from_utf8_lossy(&output.stderr)
    );
}
