//! What a container needs for the devices that it was given.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use oci_spec::runtime::{Hook, HookBuilder, LinuxDeviceBuilder, LinuxDeviceType, LinuxIntelRdt, Mount, MountBuilder};

use super::document;
use crate::spec::Device;
use crate::{Error, HookPoint, Result};

/// What [`Cdi::resolve`](crate::Cdi::resolve) found, for [`SpecBuilder::with_cdi`](crate::SpecBuilder::with_cdi).
#[derive(Clone, Debug, Default)]
pub struct CdiEdits {
    pub(crate) env: Vec<String>,
    pub(crate) devices: Vec<Device>,
    pub(crate) net_devices: Vec<(String, String)>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) hooks: Vec<(HookPoint, Hook)>,
    pub(crate) groups: Vec<u32>,
    pub(crate) intel_rdt: Option<LinuxIntelRdt>,
}

impl CdiEdits {
    pub(super) fn append(&mut self, edits: &document::Edits) -> Result<()> {
        self.env.extend(edits.env.iter().cloned());
        for node in &edits.device_nodes {
            self.devices.push(node.to_device()?);
        }
        let pairs = edits.net_devices.iter();
        let pairs = pairs.map(|device| (device.host_interface_name.clone(), device.name.clone()));
        self.net_devices.extend(pairs);
        self.mounts.extend(edits.mounts.iter().map(document::Mount::to_mount));
        for hook in &edits.hooks {
            let point = hook.point().expect("it was checked when it was read");
            self.hooks.push((point, hook.to_hook()));
        }
        // Group 0 is no addition.
        self.groups
            .extend(edits.additional_gids.iter().filter(|gid| **gid != 0));
        if let Some(rdt) = &edits.intel_rdt {
            self.intel_rdt = Some(rdt.to_spec());
        }
        Ok(())
    }
}

impl document::Node {
    /// The node, with what is left out of it as this machine has it.
    fn to_device(&self) -> Result<Device> {
        let given = match self.kind.as_str() {
            "b" => Some(LinuxDeviceType::B),
            "c" => Some(LinuxDeviceType::C),
            "u" => Some(LinuxDeviceType::U),
            "p" => Some(LinuxDeviceType::P),
            _ => None,
        };
        let (kind, major, minor) = match (given, self.major) {
            (Some(LinuxDeviceType::P), _) => (LinuxDeviceType::P, 0, 0),
            (Some(kind), Some(major)) if major != 0 => (kind, major, self.minor.unwrap_or_default()),
            _ => self.look(given)?,
        };
        let mut node = LinuxDeviceBuilder::default()
            .path(&self.path)
            .typ(kind)
            .major(major)
            .minor(minor)
            .build()
            .expect("every field has a default");
        node.set_file_mode(self.file_mode).set_uid(self.uid).set_gid(self.gid);
        let device = Device::new(node).owned_by_process();
        Ok(match self.permissions.as_str() {
            "" => device,
            rights => device.access(rights),
        })
    }

    fn look(&self, given: Option<LinuxDeviceType>) -> Result<(LinuxDeviceType, i64, i64)> {
        let path = self.host_path.as_ref().unwrap_or(&self.path);
        let metadata = std::fs::metadata(path).map_err(Error::io("looking at", path))?;
        let wrong = |reason: &str| Error::option("CDI device node", path.display().to_string(), reason);
        let kind = match metadata.file_type() {
            kind if kind.is_block_device() => LinuxDeviceType::B,
            kind if kind.is_char_device() => LinuxDeviceType::C,
            kind if kind.is_fifo() => return Ok((LinuxDeviceType::P, 0, 0)),
            _ => return Err(wrong("it is no device node on this machine")),
        };
        let same = |given| given == kind || (given, kind) == (LinuxDeviceType::U, LinuxDeviceType::C);
        if given.is_some_and(|given| !same(given)) {
            return Err(wrong(
                "it is of another type on this machine than its specification says",
            ));
        }
        let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        Ok((given.unwrap_or(kind), i64::from(major), i64::from(minor)))
    }
}

impl document::Mount {
    fn to_mount(&self) -> Mount {
        let mut options = self.options.clone();
        // A path of this machine without a filesystem's type can only be bound.
        if self.kind.is_none() && !options.iter().any(|option| option == "bind" || option == "rbind") {
            options.push("bind".to_owned());
        }
        let mount = MountBuilder::default()
            .destination(&self.container_path)
            .source(&self.host_path)
            .options(options);
        let mut mount = mount.build().expect("every field has a default");
        mount.set_typ(self.kind.clone());
        mount
    }
}

impl document::IntelRdt {
    /// What was two kinds of monitoring is one in the runtime spec since 1.3.
    fn to_spec(&self) -> LinuxIntelRdt {
        let monitored = self.enable_monitoring || self.enable_cmt || self.enable_mbm;
        let mut rdt = LinuxIntelRdt::default();
        rdt.set_clos_id(self.class.clone())
            .set_l3_cache_schema(self.l3_cache_schema.clone())
            .set_mem_bw_schema(self.mem_bw_schema.clone())
            .set_schemata(self.schemata.clone())
            .set_enable_monitoring(monitored.then_some(true));
        rdt
    }
}

impl document::Hook {
    pub(super) fn point(&self) -> Result<HookPoint, String> {
        Ok(match self.hook_name.as_str() {
            "prestart" => HookPoint::Prestart,
            "createRuntime" => HookPoint::CreateRuntime,
            "createContainer" => HookPoint::CreateContainer,
            "startContainer" => HookPoint::StartContainer,
            "poststart" => HookPoint::Poststart,
            "poststop" => HookPoint::Poststop,
            other => return Err(format!("'{other}' is no point of a container's life")),
        })
    }

    fn to_hook(&self) -> Hook {
        let hook = HookBuilder::default().path(&self.path).build();
        let mut hook = hook.expect("every other field has a default");
        hook.set_args(self.args.clone())
            .set_env(self.env.clone())
            .set_timeout(self.timeout);
        hook
    }
}
