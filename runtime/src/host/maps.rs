use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::plan::op::{IdMapping, IdMaps};
use crate::{Error, Result};

/// Whether the maps are written by this process or by the setuid helpers of the shadow suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapWriter {
    Ourselves,
    Helpers,
}

/// Writes the id maps of a child's new user namespace. The child waits, and is not reaped: its pid is its own.
pub(crate) fn write_id_maps(pid: i32, maps: &IdMaps, writer: MapWriter, groups: bool) -> Result<()> {
    if writer == MapWriter::Helpers {
        run_helper("newuidmap", "linux.uidMappings", pid, &maps.users)?;
        return run_helper("newgidmap", "linux.gidMappings", pid, &maps.groups);
    }
    if !groups {
        // An ordinary user may map a group only if nobody inside can leave one.
        write(pid, "setgroups", "linux.gidMappings", "deny")?;
    }
    write(pid, "gid_map", "linux.gidMappings", &text(&maps.groups))?;
    write(pid, "uid_map", "linux.uidMappings", &text(&maps.users))
}

fn text(map: &[IdMapping]) -> String {
    let mut text = String::new();
    for m in map {
        let _ = writeln!(text, "{} {} {}", m.inside, m.outside, m.count);
    }
    text
}

fn write(pid: i32, file: &str, field: &str, value: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    fs::write(&path, value).map_err(|source| Error::Step {
        field: field.to_owned(),
        step: format!("write {:?} to {path}", value.trim_end()),
        source,
    })
}

fn run_helper(program: &str, field: &str, pid: i32, map: &[IdMapping]) -> Result<()> {
    let numbers = map.iter().flat_map(|m| [m.inside, m.outside, m.count]);
    let output = Command::new(program)
        .arg(pid.to_string())
        .args(numbers.map(|n| n.to_string()))
        .output()
        .map_err(|source| Error::Step {
            field: field.to_owned(),
            step: format!("run {program} (several id mappings need it, from the package uidmap, when not root)"),
            source,
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::InvalidSpec {
        field: field.to_owned(),
        reason: format!(
            "{program} refuses it: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    })
}
