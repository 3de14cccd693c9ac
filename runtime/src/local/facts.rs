//! What a program keeps in mind of a container that runs. The rest, the spec above all, is read from its record when it is asked for.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::SystemTime;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::record::{ProcessName, Record};
use crate::cgroup::Location;
use crate::resctrl;

/// What is kept of a container's record.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) bundle: PathBuf,
    pub(crate) created: SystemTime,
    /// In order.
    pub(crate) annotations: Box<[(String, String)]>,
    pub(crate) monitored: bool,
    /// Whether its PID namespace is its own, so that no process outlives init.
    pub(crate) has_own_pids: bool,
    /// Whether there are hooks for its end.
    pub(crate) has_poststop: bool,
    pub(crate) resctrl: Option<Box<resctrl::Group>>,
}

/// What is read of a record to know a container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Brief {
    pub(crate) init: ProcessName,
    #[serde(default)]
    pub(crate) monitor: Option<ProcessName>,
    pub(crate) cgroups: Location,
    bundle: PathBuf,
    created: SystemTime,
    spec: BriefSpec,
    #[serde(default)]
    resctrl: Option<resctrl::Group>,
}

#[derive(Debug, Deserialize)]
struct BriefSpec {
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
    #[serde(default)]
    hooks: Option<BriefHooks>,
    #[serde(default)]
    linux: Option<BriefLinux>,
}

#[derive(Debug, Deserialize)]
struct BriefHooks {
    #[serde(default)]
    poststop: Option<Vec<IgnoredAny>>,
}

#[derive(Debug, Deserialize)]
struct BriefLinux {
    #[serde(default)]
    namespaces: Option<Vec<LinuxNamespace>>,
}

impl Facts {
    /// Of a container that this program makes.
    pub(crate) fn of(record: &Record) -> Self {
        Self {
            bundle: record.bundle.clone(),
            created: record.created,
            annotations: in_order(record.spec.annotations().clone()),
            monitored: record.monitor.is_some(),
            has_own_pids: has_own_pids(namespaces(&record.spec)),
            has_poststop: poststop(&record.spec).is_some_and(|hooks| !hooks.is_empty()),
            resctrl: record.resctrl.clone().map(Box::new),
        }
    }

    /// Of one that another program made, or this one before it was started anew.
    pub(crate) fn of_brief(brief: Brief) -> Self {
        let linux = brief.spec.linux.and_then(|linux| linux.namespaces);
        let poststop = brief.spec.hooks.and_then(|hooks| hooks.poststop);
        Self {
            bundle: brief.bundle,
            created: brief.created,
            annotations: in_order(brief.spec.annotations),
            monitored: brief.monitor.is_some(),
            has_own_pids: has_own_pids(linux.as_deref()),
            has_poststop: poststop.is_some_and(|hooks| !hooks.is_empty()),
            resctrl: brief.resctrl.map(Box::new),
        }
    }
}

fn in_order(annotations: Option<HashMap<String, String>>) -> Box<[(String, String)]> {
    let mut annotations: Vec<_> = annotations.into_iter().flatten().collect();
    annotations.sort();
    annotations.into()
}

fn namespaces(spec: &Spec) -> Option<&[LinuxNamespace]> {
    spec.linux().as_ref()?.namespaces().as_deref()
}

fn poststop(spec: &Spec) -> Option<&Vec<oci_spec::runtime::Hook>> {
    spec.hooks().as_ref()?.poststop().as_ref()
}

fn has_own_pids(namespaces: Option<&[LinuxNamespace]>) -> bool {
    let is_own = |n: &LinuxNamespace| n.typ() == LinuxNamespaceType::Pid && n.path().is_none();
    namespaces.into_iter().flatten().any(is_own)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_brief_look_at_a_record_tells_what_the_record_does() {
        let spec = |linux: serde_json::Value, hooks: serde_json::Value| json!({ "ociVersion": "1.2.0", "linux": linux, "hooks": hooks, "annotations": { "b": "2", "a": "1" } });
        let hook = json!({ "path": "/bin/true" });
        let cases = [
            spec(
                json!({ "namespaces": [{ "type": "mount" }, { "type": "pid" }] }),
                json!({ "poststop": [hook] }),
            ),
            spec(
                json!({ "namespaces": [{ "type": "pid", "path": "/proc/1/ns/pid" }] }),
                json!({ "poststop": [] }),
            ),
            spec(json!({}), json!({ "poststart": [hook] })),
            json!({ "ociVersion": "1.2.0" }),
        ];
        let expected = [(true, true), (false, false), (false, false), (false, false)];
        for (spec, expected) in cases.into_iter().zip(expected) {
            let text = json!({ "id": "a", "init": { "pid": 5, "start": 7 }, "lifetime": "detached", "bundle": "/b",
                "created": SystemTime::UNIX_EPOCH, "cgroups": { "places": [] }, "steps": 3, "spec": spec,
                "monitor": { "pid": 6, "start": 7 } });
            let record: Record = serde_json::from_value(text.clone()).expect("a record");
            let brief: Brief = serde_json::from_value(text).expect("the same");
            assert_eq!(brief.init, record.init);
            let (whole, brief) = (Facts::of(&record), Facts::of_brief(brief));
            assert_eq!(format!("{whole:?}"), format!("{brief:?}"), "{spec}");
            assert_eq!((brief.has_own_pids, brief.has_poststop), expected, "{spec}");
        }
    }
}
