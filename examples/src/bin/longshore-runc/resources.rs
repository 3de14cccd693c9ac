//! `update`: limits.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use longshore_bundle::from_json;
use longshore_runtime::Executor;
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value};

use crate::args::Arguments;
use crate::failure::{Failure, Outcome, path_error};
use crate::global::Global;
use crate::{block_on, refuse};

/// `longshore-runc update`
pub(crate) fn update(global: &Global, arguments: &Arguments) -> Outcome {
    refuse_rdt(arguments)?;
    block_on(async {
        let (executor, id) = global.executor_of(arguments.id())?;
        let resources = match arguments.filled("resources") {
            Some(path) => resources_from(path)?,
            None => resources_of_flags(arguments)?,
        };
        warn_of_kernel_memory(global, Some(&resources));
        executor.update(&id, &resources).await?;
        Ok(0)
    })
}

/// The same words as runc, which looks for the kernel's part first.
fn refuse_rdt(arguments: &Arguments) -> Outcome {
    let rdt = [
        (
            "l3-cache-schema",
            "info/L3",
            "Intel RDT/CAT: l3 cache schema is not enabled",
        ),
        (
            "mem-bw-schema",
            "info/MB",
            "Intel RDT/MBA: memory bandwidth schema is not enabled",
        ),
    ];
    for (flag, part, absent) in rdt {
        if arguments.filled(flag).is_some() && !Path::new("/sys/fs/resctrl").join(part).exists() {
            return Err(Failure::new(absent));
        }
    }
    refuse(arguments, &rdt.map(|(flag, ..)| flag))
}

/// Says that limits of kernel memory have no effect.
#[allow(deprecated)] // That is why.
pub(crate) fn warn_of_kernel_memory(global: &Global, resources: Option<&LinuxResources>) {
    let memory = resources.and_then(|resources| resources.memory().as_ref());
    if memory.is_some_and(|memory| memory.kernel().is_some()) {
        global
            .log
            .warn("Kernel memory settings are ignored and will be removed");
    }
}

fn resources_from(path: &str) -> anyhow::Result<LinuxResources> {
    let mut json = Vec::new();
    if path == "-" {
        std::io::stdin()
            .read_to_end(&mut json)
            .context("read the resources from standard input")?;
    } else {
        let file = Path::new(path);
        json = std::fs::read(file).map_err(|error| path_error("open", file, &error))?;
    }
    let mut json: Value = serde_json::from_slice(&json)?;
    spell(&mut json);
    if let Some(all) = json.as_object_mut()
        && all.get("pids").is_some_and(|pids| pids.get("limit").is_none())
    {
        all.remove("pids");
    }
    Ok(from_json(&serde_json::to_vec(&json)?)?)
}

/// Gives keys the case that the specification gives them: Go reads them in any, and files that it reads exist.
fn spell(json: &mut Value) {
    const NAMES: &str = "memory limit reservation swap kernel kernelTCP swappiness disableOOMKiller useHierarchy checkBeforeUpdate cpu shares \
        quota burst period realtimeRuntime realtimePeriod cpus mems idle pids blockIO weight leafWeight weightDevice throttleReadBpsDevice \
        throttleWriteBpsDevice throttleReadIOPSDevice throttleWriteIOPSDevice major minor rate hugepageLimits pageSize network classID \
        priorities name priority rdma hcaHandles hcaObjects unified devices allow type access";
    match json {
        Value::Array(list) => list.iter_mut().for_each(spell),
        Value::Object(object) => {
            for (key, mut value) in std::mem::take(object) {
                let mut names = NAMES.split_ascii_whitespace();
                let name = names.find(|name| name.eq_ignore_ascii_case(&key));
                let name = name.map_or(key, str::to_owned);
                match (name.as_str(), &mut value) {
                    // Its keys are names of files.
                    ("unified", _) => {}
                    // Its keys are names of devices.
                    ("rdma", Value::Object(devices)) => devices.values_mut().for_each(spell),
                    (_, value) => spell(value),
                }
                object.insert(name, value);
            }
        }
        _ => {}
    }
}

/// How the value of a flag is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Unsigned,
    Signed,
    /// Bytes with a suffix, or -1.
    Bytes,
}

/// Which flag sets which field of the runtime spec's resources.
const FIELDS: [(&str, &str, &str, Form); 16] = [
    ("blkio-weight", "blockIO", "weight", Form::Unsigned),
    ("cpu-period", "cpu", "period", Form::Unsigned),
    ("cpu-quota", "cpu", "quota", Form::Signed),
    ("cpu-burst", "cpu", "burst", Form::Unsigned),
    ("cpu-share", "cpu", "shares", Form::Unsigned),
    ("cpu-rt-period", "cpu", "realtimePeriod", Form::Unsigned),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime", Form::Signed),
    ("cpu-idle", "cpu", "idle", Form::Signed),
    ("cpuset-cpus", "cpu", "cpus", Form::Text),
    ("cpuset-mems", "cpu", "mems", Form::Text),
    ("memory", "memory", "limit", Form::Bytes),
    ("memory-reservation", "memory", "reservation", Form::Bytes),
    ("memory-swap", "memory", "swap", Form::Bytes),
    ("kernel-memory", "memory", "kernel", Form::Bytes),
    ("kernel-memory-tcp", "memory", "kernelTCP", Form::Bytes),
    ("pids-limit", "pids", "limit", Form::Signed),
];

fn resources_of_flags(arguments: &Arguments) -> anyhow::Result<LinuxResources> {
    let mut resources = Map::new();
    for (flag, section, field, form) in FIELDS {
        let Some(given) = arguments.filled(flag) else { continue };
        let bad = || format!("invalid value for {flag}: \"{given}\"");
        let value: Value = match form {
            Form::Text => given.into(),
            Form::Unsigned => given.parse::<u64>().with_context(bad)?.into(),
            Form::Signed => given.parse::<i64>().with_context(bad)?.into(),
            Form::Bytes => bytes(given).with_context(bad)?.into(),
        };
        let section = resources.entry(section).or_insert_with(|| Value::Object(Map::new()));
        section[field] = value;
    }
    Ok(serde_json::from_value(resources.into())?)
}

/// A number of bytes with a suffix of binary powers (`512m`, `1.5GiB`), or -1 for no limit.
fn bytes(text: &str) -> anyhow::Result<i64> {
    if text == "-1" {
        return Ok(-1);
    }
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().context("not a number")?;
    let unit = unit.trim().to_ascii_lowercase();
    let letters = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let power = match letters {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => bail!("unknown unit"),
    };
    // Whole bytes, as far as a float has them: limits are far below 2^53.
    Ok((number * 1024f64.powi(power)) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        let read = |text| bytes(text).ok();
        assert_eq!(read("0"), Some(0));
        assert_eq!(read("-1"), Some(-1));
        assert_eq!(read("64k"), Some(65_536));
        assert_eq!(read("1.5GiB"), Some(1_610_612_736));
        assert_eq!(read("32MB"), Some(33_554_432));
        assert_eq!((read("x"), read("1z"), read("-2")), (None, None, None));
    }

    #[test]
    fn keys_are_read_in_any_case_but_for_names() {
        let mut json = serde_json::json!({ "CPU": { "Cpus": "1" }, "unified": { "memory.High": "1", "CPU": "" },
            "hugepageLimits": [{ "pagesize": "2MB" }], "rdma": { "Name": { "HCAHandles": 1 } } });
        spell(&mut json);
        let expected = serde_json::json!({ "cpu": { "cpus": "1" }, "unified": { "memory.High": "1", "CPU": "" },
            "hugepageLimits": [{ "pageSize": "2MB" }], "rdma": { "Name": { "hcaHandles": 1 } } });
        assert_eq!(json, expected);
    }

    #[test]
    fn every_field_of_the_table_is_one_of_the_spec() {
        for (flag, _, field, form) in FIELDS {
            let value = if form == Form::Text { "0-1" } else { "100" };
            let words = [format!("--{flag}={value}"), "id".to_owned()];
            let read = Arguments::read(crate::commands::UPDATE_FLAGS, crate::args::Order::Anywhere, words);
            let resources = resources_of_flags(&read.expect("a flag")).expect("a value");
            let json = serde_json::to_value(&resources).expect("JSON").to_string();
            assert!(json.contains(&format!("\"{field}\":")), "{flag}: {json}");
        }
    }
}
