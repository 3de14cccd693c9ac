//! Cleans up after programs that died: what they were creating, and the tied containers that died with them.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use super::record::{Claim, ProcessName, StateDir};
use super::{Shared, delete};
use crate::cgroup::Limits;
use crate::{ContainerId, DeleteMode, Error, Lifetime, Result};

/// How often a dying process is looked at again, and how long between: two seconds together.
const DYING: u32 = 400;
const PAUSE: Duration = Duration::from_millis(5);

/// Looks at every entry of the state directory. What can't be cleaned up now is left for the next time.
pub(super) fn sweep(shared: &Shared) {
    for entry in fs::read_dir(&shared.root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let swept = match ContainerId::new(name) {
            Ok(id) => sweep_container(shared, &id),
            Err(_) => sweep_claim(&entry.path(), name),
        };
        if let Err(error) = swept {
            tracing::warn!(%error, name, "left for the next time");
        }
    }
}

/// A directory that never became a container's: `new~<pid>~<number>`.
fn sweep_claim(path: &Path, name: &str) -> Result<()> {
    let pid = name
        .strip_prefix("new~")
        .and_then(|rest| rest.split('~').next()?.parse().ok());
    if pid.is_some_and(|pid: i32| ProcessName::of(pid).is_err()) {
        StateDir::at(path).remove()?;
    }
    Ok(())
}

fn sweep_container(shared: &Shared, id: &ContainerId) -> Result<()> {
    let dir = StateDir::new(&shared.root, id);
    let Some(claim) = dir.claimed_by()? else {
        return Ok(());
    };
    if claim.owner.lives() {
        return Ok(());
    }
    match dir.load()? {
        None => {
            remove_groups(shared, id, &claim)?;
            dir.remove()
        }
        Some(_) if claim.lifetime == Lifetime::Tied => delete(shared, &shared.find(id)?, DeleteMode::Force),
        Some(_) => Ok(()),
    }
}

/// The groups of a container that was being created are where it would have them; making them again finds them. Its process dies
/// with its maker, and may need a moment for it.
fn remove_groups(shared: &Shared, id: &ContainerId, claim: &Claim) -> Result<()> {
    let none = Limits::compile(None, shared.cgroups.host())?;
    let mut tries = 0;
    loop {
        match shared.cgroups.create(id, claim.cgroups_path.as_deref(), &none) {
            Err(Error::Cgroup { source, .. }) if source.kind() == ErrorKind::ResourceBusy && tries < DYING => {
                tries += 1
            }
            found => return found?.remove(),
        }
        std::thread::sleep(PAUSE);
    }
}
