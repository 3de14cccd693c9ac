//! Fields that this executor does not do yet, or that belong to other systems: each is an error that names it.

use oci_spec::runtime::{Linux, Process, Spec};

use super::paths::{invalid, unsupported};
use super::{HostFacts, hooks};
use crate::Result;

const LATER: &str = "this executor does not do it yet; leave the field out";

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
    spec.linux().as_ref().map_or(Ok(()), check_linux)
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

fn check_linux(linux: &Linux) -> Result<()> {
    refuse(
        &[
            (
                "linux.mountLabel",
                linux.mount_label().as_ref().is_some_and(|l| !l.is_empty()),
            ),
            ("linux.intelRdt", linux.intel_rdt().is_some()),
        ],
        LATER,
    )
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
