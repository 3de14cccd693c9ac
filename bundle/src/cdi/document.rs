//! One CDI specification, as its file has it.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use serde::Deserialize;

use super::name::{CdiName, check_device, check_kind};

/// The versions that are known, the oldest first. Every field is checked to be of the version that a file says it has.
const VERSIONS: [&str; 8] = ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", NETWORK];
/// A class of Intel's RDT has a shorter name.
const MAX_CLASS: usize = 4096;
/// The one with network devices.
const NETWORK: &str = "1.1.0";

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Document {
    /// Its file.
    #[serde(skip)]
    pub(super) path: PathBuf,
    cdi_version: String,
    kind: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    pub(super) devices: Vec<Device>,
    #[serde(default)]
    pub(super) container_edits: Edits,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Device {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    pub(super) container_edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Edits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<Node>,
    pub(super) net_devices: Vec<NetDevice>,
    pub(super) mounts: Vec<Mount>,
    pub(super) hooks: Vec<Hook>,
    pub(super) additional_gids: Vec<u32>,
    pub(super) intel_rdt: Option<IntelRdt>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Node {
    pub(super) path: PathBuf,
    pub(super) host_path: Option<PathBuf>,
    #[serde(rename = "type", default)]
    pub(super) kind: String,
    pub(super) major: Option<i64>,
    pub(super) minor: Option<i64>,
    pub(super) file_mode: Option<u32>,
    #[serde(default)]
    pub(super) permissions: String,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NetDevice {
    pub(super) host_interface_name: String,
    pub(super) name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mount {
    pub(super) host_path: PathBuf,
    pub(super) container_path: PathBuf,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) options: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct IntelRdt {
    #[serde(rename = "closID")]
    pub(super) class: Option<String>,
    pub(super) l3_cache_schema: Option<String>,
    pub(super) mem_bw_schema: Option<String>,
    pub(super) schemata: Option<Vec<String>>,
    #[serde(rename = "enableCMT")]
    pub(super) enable_cmt: bool,
    #[serde(rename = "enableMBM")]
    pub(super) enable_mbm: bool,
    pub(super) enable_monitoring: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Hook {
    pub(super) hook_name: String,
    pub(super) path: PathBuf,
    pub(super) args: Option<Vec<String>>,
    pub(super) env: Option<Vec<String>>,
    pub(super) timeout: Option<i64>,
}

impl Document {
    /// The whole names of its devices.
    pub(super) fn names(&self) -> Vec<CdiName> {
        let devices = self.devices.iter();
        devices.map(|device| CdiName::of(&self.kind, &device.name)).collect()
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if !VERSIONS.contains(&self.cdi_version.as_str()) {
            let known = VERSIONS.join(", ");
            return Err(format!("cdiVersion: '{}' is not one of {known}", self.cdi_version));
        }
        check_kind(&self.kind).map_err(|reason| format!("kind: {reason}"))?;
        if self.devices.is_empty() {
            return Err("devices: there is none".to_owned());
        }
        self.container_edits
            .check()
            .map_err(|reason| format!("containerEdits: {reason}"))?;
        let mut names = HashSet::new();
        for device in &self.devices {
            let name = &device.name;
            let mut check = || {
                check_device(name)?;
                if !names.insert(name) {
                    return Err("it is there twice".to_owned());
                }
                if device.container_edits.is_empty() {
                    return Err("its containerEdits are empty".to_owned());
                }
                device.container_edits.check()
            };
            check().map_err(|reason| format!("device '{name}': {reason}"))?;
        }
        self.check_version()
    }

    /// A reader of that version would not know what it needs.
    fn check_version(&self) -> Result<(), String> {
        let (needed, why) = self.needed();
        match self.cdi_version.as_str() < needed {
            true => Err(format!(
                "cdiVersion: it is {}, but {why} came with {needed}",
                self.cdi_version
            )),
            false => Ok(()),
        }
    }

    /// The least version that has all it uses, and what of it has no older one. (As text, versions are in their order as long as no part has two digits.)
    fn needed(&self) -> (&'static str, &'static str) {
        let edits = || {
            self.devices
                .iter()
                .map(|device| &device.container_edits)
                .chain([&self.container_edits])
        };
        let class = self.kind.split_once('/').map_or("", |(_, class)| class);
        let digit = |device: &Device| !device.name.starts_with(|c: char| c.is_ascii_alphabetic());
        let annotated =
            !self.annotations.is_empty() || self.devices.iter().any(|device| !device.annotations.is_empty());
        let rows = [
            (
                edits().any(|edits| !edits.net_devices.is_empty()),
                NETWORK,
                "netDevices",
            ),
            (
                edits().any(|edits| edits.intel_rdt.as_ref().is_some_and(is_new_rdt)),
                NETWORK,
                "schemata and enableMonitoring",
            ),
            (edits().any(|edits| edits.intel_rdt.is_some()), "0.7.0", "intelRdt"),
            (
                edits().any(|edits| !edits.additional_gids.is_empty()),
                "0.7.0",
                "additionalGids",
            ),
            (annotated, "0.6.0", "annotations"),
            (class.contains('.'), "0.6.0", "a '.' in the class"),
            (
                self.devices.iter().any(digit),
                "0.5.0",
                "a device's name that begins with a digit",
            ),
            (
                edits().any(|edits| edits.device_nodes.iter().any(|node| node.host_path.is_some())),
                "0.5.0",
                "hostPath of a device node",
            ),
            (
                edits().any(|edits| edits.mounts.iter().any(|mount| mount.kind.is_some())),
                "0.4.0",
                "a mount's type",
            ),
        ];
        let found = rows.into_iter().find(|(uses, ..)| *uses);
        found.map_or((VERSIONS[0], "this form"), |(_, version, what)| (version, what))
    }
}

fn is_new_rdt(rdt: &IntelRdt) -> bool {
    rdt.schemata.is_some() || rdt.enable_monitoring
}

impl Edits {
    fn is_empty(&self) -> bool {
        self.env.is_empty()
            && self.device_nodes.is_empty()
            && self.net_devices.is_empty()
            && self.mounts.is_empty()
            && self.hooks.is_empty()
            && self.additional_gids.is_empty()
            && self.intel_rdt.is_none()
    }

    fn check(&self) -> Result<(), String> {
        self.env
            .iter()
            .try_for_each(|entry| check_env(entry))
            .map_err(|reason| format!("env: {reason}"))?;
        for node in &self.device_nodes {
            let at = |reason: &str| format!("device node {}: {reason}", node.path.display());
            if !node.path.is_absolute() || node.host_path.as_ref().is_some_and(|path| !path.is_absolute()) {
                return Err(at("its paths must be absolute"));
            }
            if !matches!(node.kind.as_str(), "" | "b" | "c" | "u" | "p") {
                return Err(at("its type is one of b, c, u and p"));
            }
            if !node.permissions.chars().all(|right| "rwm".contains(right)) || node.permissions.len() > 3 {
                return Err(at("its permissions are made of r, w and m"));
            }
        }
        for device in &self.net_devices {
            if device.host_interface_name.is_empty() || device.name.is_empty() {
                return Err("a network device has a hostInterfaceName and a name".to_owned());
            }
        }
        for mount in &self.mounts {
            if mount.host_path.as_os_str().is_empty() || !mount.container_path.is_absolute() {
                let path = mount.container_path.display();
                return Err(format!(
                    "mount at '{path}': it needs a hostPath, and a containerPath that is absolute"
                ));
            }
        }
        if let Some(class) = self.intel_rdt.as_ref().and_then(|rdt| rdt.class.as_deref())
            && (class.len() >= MAX_CLASS || matches!(class, "." | "..") || class.contains(['/', '\n']))
        {
            return Err(format!(
                "intelRdt: '{class}' is no closID: it is the name of a directory"
            ));
        }
        for hook in &self.hooks {
            let at = |reason: String| format!("hook {}: {reason}", hook.path.display());
            hook.point().map(drop).map_err(at)?;
            if !hook.path.is_absolute() {
                return Err(at("its path must be absolute".to_owned()));
            }
            hook.env
                .iter()
                .flatten()
                .try_for_each(|entry| check_env(entry))
                .map_err(at)?;
            if hook.timeout.is_some_and(|seconds| seconds <= 0) {
                return Err(at("its timeout is at least one second".to_owned()));
            }
        }
        Ok(())
    }
}

fn check_env(entry: &str) -> Result<(), String> {
    match entry.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(()),
        _ => Err(format!("'{entry}' is not of the form NAME=value")),
    }
}
