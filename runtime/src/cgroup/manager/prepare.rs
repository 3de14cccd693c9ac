//! What a new group needs from its parent before it can be used.

use std::collections::BTreeSet;

use rustix::io::Errno;

use super::super::group::{Group, failed};
use super::super::host::{Home, Host};
use super::super::limits::Limits;
use crate::{Error, Result};

/// Hands controllers of v2 to the groups inside `group`: those that limits need must be, the others are for their figures
/// and for what the container may want to do with groups of its own.
pub(super) fn enable(group: &Group, host: &Host, limits: &Limits) -> Result<()> {
    const FILE: &str = "cgroup.subtree_control";
    let needed = limits.controllers(Home::V2);
    let present = group.read(FILE)?.unwrap_or_default();
    let present: BTreeSet<&str> = present.split_ascii_whitespace().collect();
    let all = host.v2_controllers.iter().map(String::as_str);
    let missing: BTreeSet<&str> = all.filter(|c| !present.contains(c)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = missing.iter().map(|c| format!("+{c}")).collect();
    if group.write(FILE, &all.join(" ")).is_ok() {
        return Ok(());
    }
    for controller in missing {
        let Err(errno) = group.write(FILE, &format!("+{controller}")) else {
            continue;
        };
        if needed.contains(controller) {
            let write = limits
                .writes
                .iter()
                .find(|w| w.home == Home::V2 && w.controller == controller);
            let field = write.map_or("linux.resources", |w| w.field.as_str());
            let why = match errno {
                Errno::BUSY => " (it has processes of its own, which v2 does not allow besides)",
                Errno::OPNOTSUPP => " (it is in a threaded part of the tree, see cgroup.type)",
                Errno::NOENT => " (its parent does not hand it down)",
                _ => "",
            };
            return Err(Error::Cgroup {
                path: group.path.join(FILE),
                action: format!("hand the {controller} controller down for {field}{why}"),
                source: errno.into(),
            });
        }
    }
    Ok(())
}

/// What a cpuset of v1 is made of. A new one has none of it, and no process can be in it until it has.
pub(super) const SETS: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Those of a group that are empty.
pub(super) fn empty_sets(group: &Group) -> Result<Vec<&'static str>> {
    let mut empty = Vec::new();
    for file in SETS {
        if group.read(file)?.is_some_and(|set| set.trim().is_empty()) {
            empty.push(file);
        }
    }
    Ok(empty)
}

/// Gives a cpuset what its parent has.
pub(super) fn inherit_sets(parent: &Group, child: &Group, files: &[&str]) -> Result<()> {
    for file in files {
        if let Some(set) = parent.read(file)? {
            let set = set.trim();
            child
                .write(file, set)
                .map_err(|e| failed(&child.path.join(file), format!("write '{set}'"), e))?;
        }
    }
    Ok(())
}
