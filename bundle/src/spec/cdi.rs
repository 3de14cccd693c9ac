//! CDI devices in the spec.

use oci_spec::runtime::{Linux, LinuxIntelRdt, LinuxNetDeviceBuilder, Spec};

use super::SpecBuilder;
use crate::CdiEdits;

/// The first version of the runtime spec with network devices.
const NET_DEVICES_VERSION: &str = "1.3.0";

#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    net_devices: Vec<(String, String)>,
    intel_rdt: Option<LinuxIntelRdt>,
}

impl SpecBuilder {
    /// Gives CDI devices, as [`Cdi::resolve`](crate::Cdi::resolve) found them: their environment, device nodes with their cgroup rules, network devices, mounts, hooks, groups and class of
    /// Intel's RDT. What of it has the name or place of something given before takes its place. Device nodes that say no owner are the process's.
    pub fn with_cdi(mut self, edits: CdiEdits) -> Self {
        let CdiEdits {
            env,
            devices,
            net_devices,
            mounts,
            hooks,
            groups,
            intel_rdt,
        } = edits;
        self = env.into_iter().fold(self, Self::env);
        self = self.devices(devices);
        self = mounts.into_iter().fold(self, Self::mount);
        self = hooks
            .into_iter()
            .fold(self, |spec, (point, hook)| spec.hook(point, hook));
        self = groups.into_iter().fold(self, |spec, gid| spec.group(gid.to_string()));
        self.cdi.net_devices.extend(net_devices);
        self.cdi.intel_rdt = intel_rdt.or(self.cdi.intel_rdt);
        self
    }
}

impl Options {
    pub(super) fn apply(&self, spec: &mut Spec, linux: &mut Linux) {
        linux.set_intel_rdt(self.intel_rdt.clone());
        if self.net_devices.is_empty() {
            return;
        }
        let renamed = |(host, name): &(String, String)| {
            let device = LinuxNetDeviceBuilder::default().name(name.clone()).build();
            (host.clone(), device.expect("every field has a default"))
        };
        linux.set_net_devices(Some(self.net_devices.iter().map(renamed).collect()));
        spec.set_version(NET_DEVICES_VERSION.to_owned());
    }
}
