//! A unit's properties, from the container's limits and annotations (systemd.resource-control(5)).

use std::collections::HashMap;

use oci_spec::runtime::{LinuxCpu, LinuxResources};

use super::super::limits;
use super::super::path::Unit;
use super::variant;
use super::wire::Value;
use crate::{Error, Result};

/// Annotations of this form are properties: `org.systemd.property.TimeoutStopSec: "uint64 5"`.
pub(crate) const ANNOTATION: &str = "org.systemd.property.";

/// The longest time of systemd: no limit.
const INFINITY: u64 = u64::MAX;

/// One property of a unit.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Property {
    name: String,
    value: Value,
}

impl Property {
    pub(super) fn new(name: impl Into<String>, value: Value) -> Self {
        Self {
            name: name.into(),
            value,
        }
    }

    pub(super) fn value(&self) -> Value {
        let value = Value::Variant(Box::new(self.value.clone()));
        Value::Struct(vec![Value::text(&self.name), value])
    }
}

/// What is known of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct About {
    /// Whether v2 is all there is.
    pub(in super::super) unified: bool,
    /// systemd's version.
    pub(in super::super) version: u32,
}

/// The properties that the unit of every container has, besides those of its limits.
pub(in super::super) fn of_unit(id: &str, unit: &Unit, pid: u32, about: About) -> Vec<Property> {
    let mut properties = vec![Property::new(
        "Description",
        Value::text(format!("longshore container {id}")),
    )];
    if unit.is_slice() {
        properties.push(Property::new(
            "Wants",
            Value::Array("s".into(), vec![Value::text(&unit.slice)]),
        ));
    } else {
        properties.push(Property::new("Slice", Value::text(&unit.slice)));
        properties.push(Property::new("Delegate", Value::Bool(true)));
        properties.push(Property::new("PIDs", Value::Array("u".into(), vec![Value::U32(pid)])));
    }
    let io = if about.unified {
        "IOAccounting"
    } else {
        "BlockIOAccounting"
    };
    for accounting in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
        properties.push(Property::new(accounting, Value::Bool(true)));
    }
    properties.push(Property::new("DefaultDependencies", Value::Bool(false)));
    properties
}

/// Properties by annotation. A time in seconds becomes one in microseconds, as the bus has it.
pub(in super::super) fn of_annotations(annotations: &HashMap<String, String>) -> Result<Vec<Property>> {
    let mut sorted: Vec<_> = annotations.iter().collect();
    sorted.sort();
    let mut properties = Vec::new();
    for (key, text) in sorted {
        let Some(name) = key.strip_prefix(ANNOTATION).filter(|name| !name.is_empty()) else {
            continue;
        };
        let invalid = |reason: String| Error::InvalidSpec {
            field: format!("annotations.{key}"),
            reason,
        };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(invalid("is not the name of a property of systemd".into()));
        }
        let value = variant::parse(text)
            .ok_or_else(|| invalid(format!("'{text}' is not a value such as true, 'text' or uint64 5")))?;
        let stem = name
            .strip_suffix("Sec")
            .filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
        properties.push(match stem {
            None => Property::new(name, value),
            Some(stem) => {
                let time =
                    microseconds(&value).ok_or_else(|| invalid(format!("'{text}' is not a number of seconds")))?;
                Property::new(format!("{stem}USec"), Value::U64(time))
            }
        });
    }
    Ok(properties)
}

fn microseconds(value: &Value) -> Option<u64> {
    const EACH: u64 = 1_000_000;
    match value {
        Value::I32(number) => u64::try_from(*number).ok()?.checked_mul(EACH),
        Value::U32(number) => u64::from(*number).checked_mul(EACH),
        Value::I64(number) => u64::try_from(*number).ok()?.checked_mul(EACH),
        Value::U64(number) => number.checked_mul(EACH),
        Value::Double(number) if (0.0..1e12).contains(number) => Some((number * 1e6) as u64),
        _ => None,
    }
}

/// The limits that systemd has properties for. It writes them again whenever it feels like it, so that it must know them; all others are
/// written past it.
pub(in super::super) fn of_limits(resources: &LinuxResources, about: About) -> Result<Vec<Property>> {
    let mut properties = Vec::new();
    memory(&mut properties, resources, about);
    if let Some(cpu) = resources.cpu() {
        processor(&mut properties, cpu, about)?;
    }
    let weight = resources
        .block_io()
        .as_ref()
        .and_then(|io| io.weight())
        .filter(|w| *w != 0);
    if let Some(weight) = weight.filter(|_| !about.unified) {
        properties.push(Property::new("BlockIOWeight", Value::U64(weight.into())));
    }
    if let Some(pids) = resources.pids() {
        properties.push(Property::new("TasksMax", Value::U64(most(pids.limit()).max(1))));
    }
    if about.unified {
        let mut sorted: Vec<_> = resources.unified().iter().flatten().collect();
        sorted.sort();
        for (key, value) in sorted {
            by_file(&mut properties, key, value.trim(), about)?;
        }
    }
    Ok(properties)
}

fn most(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(INFINITY)
}

fn memory(properties: &mut Vec<Property>, resources: &LinuxResources, about: About) {
    let Some(memory) = resources.memory() else { return };
    let given = |amount: Option<i64>| amount.filter(|amount| *amount != 0);
    if let Some(limit) = given(memory.limit()) {
        let name = if about.unified { "MemoryMax" } else { "MemoryLimit" };
        properties.push(Property::new(name, Value::U64(most(limit))));
    }
    if !about.unified {
        return;
    }
    if let Some(reservation) = given(memory.reservation()) {
        properties.push(Property::new("MemoryLow", Value::U64(most(reservation))));
    }
    let swap = match (given(memory.limit()), given(memory.swap())) {
        (_, Some(-1)) | (Some(-1), None) => Some(INFINITY),
        (Some(limit), Some(both)) => Some(u64::try_from(both - limit).unwrap_or(0)),
        _ => None,
    };
    if let Some(swap) = swap {
        properties.push(Property::new("MemorySwapMax", Value::U64(swap)));
    }
}

fn processor(properties: &mut Vec<Property>, cpu: &LinuxCpu, about: About) -> Result<()> {
    // With a weight of 0, systemd makes the group idle.
    let idle = cpu.idle() == Some(1) && about.unified && about.version >= 252;
    let shares = cpu.shares().filter(|shares| *shares != 0);
    if idle {
        if shares.is_some() {
            tracing::warn!("unable to apply both CPUWeight and CpuIdle to systemd, ignoring CPUWeight");
        }
        properties.push(Property::new("CPUWeight", Value::U64(0)));
    } else if let Some(shares) = shares {
        let (name, value) = if about.unified {
            ("CPUWeight", limits::cpu_weight(shares))
        } else {
            ("CPUShares", shares)
        };
        properties.push(Property::new(name, Value::U64(value)));
    }
    let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
    quota_of(properties, quota, period, about);
    for (name, field, list) in [
        ("AllowedCPUs", "linux.resources.cpu.cpus", cpu.cpus()),
        ("AllowedMemoryNodes", "linux.resources.cpu.mems", cpu.mems()),
    ] {
        if let Some(list) = list.as_deref().filter(|list| !list.trim().is_empty()) {
            set(properties, name, field, list, about)?;
        }
    }
    Ok(())
}

/// A quota as time in each second, which systemd rounds to whole percents of a processor: rounded up here, so that it leaves what is asked for.
fn quota_of(properties: &mut Vec<Property>, quota: i64, period: u64, about: About) {
    const USUAL: u64 = 100_000;
    const PERCENT: u64 = 10_000;
    if period != 0 && about.version >= 242 {
        properties.push(Property::new("CPUQuotaPeriodUSec", Value::U64(period)));
    }
    if quota == 0 && period == 0 {
        return;
    }
    let each_second = match u64::try_from(quota) {
        Ok(quota @ 1..) => {
            let period = if period == 0 { USUAL } else { period };
            (quota.saturating_mul(1_000_000) / period)
                .div_ceil(PERCENT)
                .saturating_mul(PERCENT)
        }
        _ => INFINITY,
    };
    properties.push(Property::new("CPUQuotaPerSecUSec", Value::U64(each_second)));
}

fn set(properties: &mut Vec<Property>, name: &str, field: &str, list: &str, about: About) -> Result<()> {
    if about.version < 244 {
        return Ok(()); // It is written past systemd.
    }
    let bits = bits(list).ok_or_else(|| Error::InvalidSpec {
        field: field.to_owned(),
        reason: format!("'{list}' is not a list of numbers and ranges such as 0-3,7"),
    })?;
    properties.push(Property::new(name, Value::bytes(bits)));
    Ok(())
}

/// A list such as `0-3,7` as bits, the first one the lowest of the first byte.
fn bits(list: &str) -> Option<Vec<u8>> {
    const MOST: usize = 1 << 16;
    let mut bytes: Vec<u8> = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        for bit in first..=last {
            if bytes.len() <= bit / 8 {
                bytes.resize(bit / 8 + 1, 0);
            }
            bytes[bit / 8] |= 1 << (bit % 8);
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

/// A file of v2 that systemd has a property for.
fn by_file(properties: &mut Vec<Property>, key: &str, value: &str, about: About) -> Result<()> {
    let field = format!("linux.resources.unified.{key}");
    let amount = || match value {
        "max" => Ok(INFINITY),
        number => number.parse::<u64>().map_err(|_| Error::InvalidSpec {
            field: field.clone(),
            reason: format!("'{value}' is not a number or max"),
        }),
    };
    let name = match key {
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "cpu.weight" => "CPUWeight",
        "pids.max" => "TasksMax",
        "cpu.idle" if value == "1" && about.version >= 252 => {
            properties.push(Property::new("CPUWeight", Value::U64(0)));
            return Ok(());
        }
        "cpu.max" => {
            let mut words = value.split_ascii_whitespace();
            let quota = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            let period = words.next().and_then(|word| word.parse().ok()).unwrap_or(100_000);
            quota_of(properties, quota, period, about);
            return Ok(());
        }
        "cpuset.cpus" => return set(properties, "AllowedCPUs", &field, value, about),
        "cpuset.mems" => return set(properties, "AllowedMemoryNodes", &field, value, about),
        // All others are written past systemd.
        _ => return Ok(()),
    };
    properties.push(Property::new(name, Value::U64(amount()?)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const V2: About = About {
        unified: true,
        version: 252,
    };
    const V1: About = About {
        unified: false,
        version: 241,
    };

    fn limits(json: serde_json::Value, about: About) -> Vec<(String, Value)> {
        let resources = serde_json::from_value(json).expect("resources");
        let properties = of_limits(&resources, about).expect("valid");
        properties.into_iter().map(|p| (p.name, p.value)).collect()
    }

    fn named(pairs: &[(&str, u64)]) -> Vec<(String, Value)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::U64(*value)))
            .collect()
    }

    #[test]
    fn limits_are_properties() {
        let all = json!({ "memory": { "limit": 100, "swap": 150, "reservation": 50 }, "cpu": { "shares": 1024, "quota": 5500, "period": 10000 },
            "pids": { "limit": 0 }, "blockIO": { "weight": 300 } });
        let v2 = [
            ("MemoryMax", 100),
            ("MemoryLow", 50),
            ("MemorySwapMax", 50),
            ("CPUWeight", 100),
            ("CPUQuotaPeriodUSec", 10_000),
            ("CPUQuotaPerSecUSec", 550_000),
            ("TasksMax", 1),
        ];
        assert_eq!(limits(all.clone(), V2), named(&v2));
        let v1 = [
            ("MemoryLimit", 100),
            ("CPUShares", 1024),
            ("CPUQuotaPerSecUSec", 550_000),
            ("BlockIOWeight", 300),
            ("TasksMax", 1),
        ];
        assert_eq!(limits(all, V1), named(&v1));
    }

    #[test]
    fn a_quota_is_rounded_up_to_what_systemd_can_keep() {
        let quota = |quota: i64| limits(json!({ "cpu": { "quota": quota } }), V2);
        assert_eq!(quota(3001), named(&[("CPUQuotaPerSecUSec", 40_000)]));
        assert_eq!(quota(-1), named(&[("CPUQuotaPerSecUSec", u64::MAX)]));
        assert_eq!(quota(0), []);
    }

    #[test]
    fn no_limit_is_infinity_and_idle_goes_before_weight() {
        let none = json!({ "memory": { "limit": -1 }, "pids": { "limit": -1 } });
        let infinity = [
            ("MemoryMax", u64::MAX),
            ("MemorySwapMax", u64::MAX),
            ("TasksMax", u64::MAX),
        ];
        assert_eq!(limits(none, V2), named(&infinity));
        let idle = json!({ "cpu": { "idle": 1, "shares": 5 } });
        assert_eq!(limits(idle, V2), named(&[("CPUWeight", 0)]));
    }

    #[test]
    fn files_are_properties_where_systemd_has_one() {
        let files = json!({ "unified": { "cpu.max": "max 50000", "cpuset.cpus": "0,9", "memory.high": "max", "hugetlb.2MB.max": "1" } });
        let mut expected = named(&[("CPUQuotaPeriodUSec", 50_000), ("CPUQuotaPerSecUSec", u64::MAX)]);
        expected.push(("AllowedCPUs".into(), Value::bytes([1, 2])));
        expected.extend(named(&[("MemoryHigh", u64::MAX)]));
        assert_eq!(limits(files.clone(), V2), expected);
        assert_eq!(limits(files, V1), []);
        let resources = serde_json::from_value(json!({ "unified": { "memory.max": "much" } })).expect("resources");
        assert!(of_limits(&resources, V2).is_err());
        assert_eq!(
            (bits("3-1"), bits("x"), bits(""), bits("99999")),
            (None, None, None, None)
        );
    }

    #[test]
    fn annotations_are_properties_and_seconds_become_microseconds() {
        let of = |pairs: &[(&str, &str)]| {
            let annotations = pairs
                .iter()
                .map(|(k, v)| (format!("{ANNOTATION}{k}"), (*v).to_owned()))
                .collect();
            of_annotations(&annotations)
        };
        let properties = of(&[
            ("CollectMode", "'inactive-or-failed'"),
            ("RuntimeMaxSec", "2"),
            ("TimeoutStopSec", "uint64 1"),
        ]);
        let expected = [
            Property::new("CollectMode", Value::text("inactive-or-failed")),
            Property::new("RuntimeMaxUSec", Value::U64(2_000_000)),
            Property::new("TimeoutStopUSec", Value::U64(1_000_000)),
        ];
        assert_eq!(properties.expect("valid"), expected);
        assert_eq!(of(&[]).expect("none"), []);
        for (name, value) in [
            ("A", "x y"),
            ("RuntimeMaxSec", "'2'"),
            ("RuntimeMaxSec", "-1"),
            ("A/B", "1"),
        ] {
            let error = of(&[(name, value)]).expect_err(value).to_string();
            assert!(
                error.starts_with(&format!("annotations.org.systemd.property.{name}: ")),
                "{error}"
            );
        }
    }
}
