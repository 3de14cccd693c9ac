use std::sync::Arc;

use oci_spec::runtime::LinuxResources;

use super::container::Container;
use super::{Shared, wrong_status};
use crate::cgroup::Limits;
use crate::{Error, Result, Status};

/// Changes limits, and the record that tells them. Blocks.
pub(super) fn update(shared: &Shared, container: &Arc<Container>, change: &LinuxResources) -> Result<()> {
    if container.status() == Status::Stopped {
        return Err(wrong_status(container, "update"));
    }
    // Another program may have changed limits.
    let record = container.dir.load()?;
    let mut record = record.ok_or_else(|| Error::NotFound(container.id.to_string()))?;
    let present = record.spec.linux().as_ref().and_then(|l| l.resources().as_ref());
    let (limits, all) = Limits::compile_update(present, change, shared.cgroups.host())?;

    let path = record.spec.linux().as_ref().and_then(|l| l.cgroups_path().clone());
    let before = container.cgroup();
    if let Some(wider) = shared.cgroups.widen(&container.id, path.as_deref(), &before, &limits)? {
        // First the record: who finds it can remove the groups.
        record.cgroups = wider.location();
        container.dir.save(&record)?;
        container.regroup(wider);
        container.cgroup().gather(&before)?;
    }
    #[cfg(feature = "systemd")]
    if let Some(unit) = &record.cgroups.unit {
        shared.cgroups.update_unit(unit, &all)?;
    }
    container.cgroup().update(&limits)?;
    let mut linux = record.spec.linux().clone().unwrap_or_default();
    linux.set_resources(Some(all));
    record.spec.set_linux(Some(linux));
    container.dir.save(&record)
}
