//! Fields that belong to other systems, or that this machine can't do: each is an error that names it.

use oci_spec::runtime::{Process, Spec};

use super::paths::{invalid, unsupported};
use super::{HostFacts, hooks};
use crate::{Result, resctrl};

/// Refuses what can't be done, field by field.
pub(super) fn check(spec: &Spec, facts: &HostFacts) -> Result<()> {
    let elsewhere = [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("vm", spec.vm().is_some()),
        ("zos", spec.zos().is_some()),
    ];
    refuse(&elsewhere, "it is for another system")?;
    refuse(
        &[
            (
                "uidMappings",
                spec.uid_mappings().as_ref().is_some_and(|m| !m.is_empty()),
            ),
            (
                "gidMappings",
                spec.gid_mappings().as_ref().is_some_and(|m| !m.is_empty()),
            ),
        ],
        "id mappings belong into linux.uidMappings and linux.gidMappings",
    )?;
    check_version(spec.version())?;
    if let Some(hooks) = spec.hooks() {
        hooks::check(hooks, facts.privilege)?;
    }
    match spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref()) {
        Some(wanted) => resctrl::check(wanted, facts.resctrl.as_deref()),
        None => Ok(()),
    }
}

fn check_version(version: &str) -> Result<()> {
    if version.starts_with("1.") {
        Ok(())
    } else {
        Err(invalid(
            "ociVersion",
            format!("'{version}' is not a version 1 of the runtime specification"),
        ))
    }
}

/// The same for a process, whether the container's or an exec's.
pub(super) fn check_process(field: &str, process: &Process) -> Result<()> {
    match process.command_line() {
        Some(_) => Err(unsupported(format!("{field}.commandLine"), "it is for another system")),
        None => Ok(()),
    }
}

pub(super) fn refuse(fields: &[(&str, bool)], reason: &str) -> Result<()> {
    match fields.iter().find(|(_, present)| *present) {
        Some((field, _)) => Err(unsupported(*field, reason)),
        None => Ok(()),
    }
}
