//! systemd's driver: systemd makes the container's groups as a scope (or a slice) and is told the limits that it has properties for, because it
//! writes those again when it reloads. The rest is written into the groups, which are delegated, as without systemd.

mod bus;
mod properties;
mod unit;
mod variant;
mod wire;

#[cfg(feature = "fuzzing")]
pub(crate) use wire::read_values;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::runtime::LinuxResources;

use super::control::Cgroup;
use super::host::Mode;
use super::limits::Limits;
use super::manager::Manager;
use super::path::{Driver, Instance, Unit, Wanted};
use crate::{ContainerId, Error, Result};

pub(crate) use properties::ANNOTATION;
use properties::About;
use unit::Systemd;

const FIELD: &str = "linux.cgroupsPath";

/// What a unit is started for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    pub(crate) id: &'a ContainerId,
    pub(crate) unit: &'a Unit,
    pub(crate) resources: Option<&'a LinuxResources>,
    pub(crate) annotations: Option<&'a HashMap<String, String>>,
    /// Whom the group is handed to, if not to root.
    pub(crate) owner: Option<u32>,
    /// A process to be in it: systemd makes no scope without one.
    pub(crate) pid: u32,
}

impl Manager {
    /// The unit that a container is to have; none if systemd is not asked.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a path that is not `slice:prefix:name`; [`Io`](crate::ErrorKind::Io) if a user's systemd does not
    /// tell where its groups are.
    pub(crate) fn unit(&self, id: &ContainerId, path: Option<&Path>) -> Result<Option<Unit>> {
        let Driver::Systemd(instance) = self.driver() else {
            return Ok(None);
        };
        let mut unit = Unit::new(id, path, instance)?;
        if instance == Instance::User {
            let base = Systemd::connect(instance)?.group()?;
            unit.group = Path::new(base.trim_start_matches('/')).join(&unit.group);
        }
        Ok(Some(unit))
    }

    /// As [`create`](Self::create), in groups that systemd makes.
    pub(crate) fn create_unit(&self, order: Order<'_>, limits: &Limits) -> Result<Cgroup> {
        let mut systemd = Systemd::connect(order.unit.instance)?;
        let about = self.about(&mut systemd)?;
        let mut properties = properties::of_unit(order.id.as_str(), order.unit, order.pid, about);
        if let Some(annotations) = order.annotations {
            properties.extend(properties::of_annotations(annotations)?);
        }
        if let Some(resources) = order.resources {
            properties.extend(properties::of_limits(resources, about)?);
        }
        let mut cgroup = Cgroup {
            unit: Some(Arc::new(order.unit.clone())),
            ..Cgroup::default()
        };
        let wanted = Wanted::Unit(order.unit.group.clone());
        let made = systemd
            .start(order.unit, &properties)
            .and_then(|()| self.make_all(&wanted, limits, &mut cgroup))
            .and_then(|()| cgroup.write(limits))
            .and_then(|()| order.owner.map_or(Ok(()), |user| cgroup.delegate(user)));
        match made {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                // The first error is the one to tell. What stays behind is the process that waits for this, and dies.
                let _ = systemd.stop(order.unit);
                let _ = cgroup.remove();
                Err(error)
            }
        }
    }

    /// Tells systemd the limits of a container.
    pub(crate) fn update_unit(&self, unit: &Unit, resources: &LinuxResources) -> Result<()> {
        let mut systemd = Systemd::connect(unit.instance)?;
        let about = self.about(&mut systemd)?;
        systemd.set(unit, &properties::of_limits(resources, about)?)
    }

    fn about(&self, systemd: &mut Systemd) -> Result<About> {
        Ok(About {
            unified: self.host().mode() == Mode::Unified,
            version: systemd.version()?,
        })
    }
}

/// Has systemd take a unit away.
pub(super) fn stop(unit: &Unit) -> Result<()> {
    Systemd::connect(unit.instance)?.stop(unit)
}

impl Unit {
    /// By `linux.cgroupsPath`, `slice:prefix:name`; without one, a scope of our own.
    fn new(id: &ContainerId, path: Option<&Path>, instance: Instance) -> Result<Self> {
        let invalid = |reason: String| Error::InvalidSpec {
            field: FIELD.into(),
            reason,
        };
        let usual = match instance {
            Instance::System => "system.slice",
            Instance::User => "user.slice",
        };
        let text = match path.filter(|path| !path.as_os_str().is_empty()) {
            None => format!(":longshore:{id}"),
            Some(path) => path.to_string_lossy().into_owned(),
        };
        let [slice, prefix, name] = text.split(':').collect::<Vec<_>>()[..] else {
            let reason = format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"{text}\" instead"
            );
            return Err(invalid(reason));
        };
        let plain = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-.@\\+".contains(&byte))
        };
        if !plain(prefix) || !plain(name) || name.is_empty() {
            return Err(invalid(format!("'{text}' has a name that no unit of systemd can have")));
        }
        let slice = if slice.is_empty() { usual } else { slice };
        let name = match name.strip_suffix(".slice") {
            Some(_) => name.to_owned(),
            None => format!("{prefix}-{name}.scope"),
        };
        // A name of 255 bytes is the most that systemd takes.
        if name.len() > 255 {
            return Err(invalid(format!("'{name}' is longer than the name of a unit can be")));
        }
        let above = expand(slice).ok_or_else(|| invalid(format!("invalid slice name: {slice}")))?;
        Ok(Self {
            group: above.join(&name),
            name,
            slice: slice.to_owned(),
            instance,
        })
    }

    fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }
}

/// A slice's group: `a-b.slice` is in `a.slice` (systemd.slice(5)).
fn expand(slice: &str) -> Option<PathBuf> {
    let stem = slice.strip_suffix(".slice")?;
    let mut path = PathBuf::new();
    if stem == "-" {
        return Some(path);
    }
    let mut prefix = String::new();
    for part in stem.split('-') {
        if part.is_empty() || part.contains('/') || part.starts_with('.') {
            return None;
        }
        path.push(format!("{prefix}{part}.slice"));
        prefix += part;
        prefix.push('-');
    }
    Some(path)
}
