//! Cleans up after programs that died: what they were creating, and the tied containers that died with them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::record::{Claim, ProcessName, StateDir};
use super::{Shared, delete};
use crate::{ContainerId, DeleteMode, Error, Lifetime, Result};

/// How often a dying process is looked at again, and how long between: two seconds together.
const DYING: u32 = 400;
const PAUSE: Duration = Duration::from_millis(5);

/// Looks at every entry of the state directory. What can't be cleaned up now is left for the next time.
pub(super) fn sweep(shared: &Shared) {
    let mut owners = Owners::default();
    for entry in fs::read_dir(&shared.root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let swept = match ContainerId::new(name) {
            Ok(id) => sweep_container(shared, &id, &mut owners),
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

/// The programs that made containers, each looked at once.
#[derive(Debug, Default)]
struct Owners(Vec<(ProcessName, bool)>);

impl Owners {
    fn lives(&mut self, owner: ProcessName) -> bool {
        if let Some((_, lives)) = self.0.iter().find(|(known, _)| *known == owner) {
            return *lives;
        }
        let lives = owner.lives();
        self.0.push((owner, lives));
        lives
    }
}

fn sweep_container(shared: &Shared, id: &ContainerId, owners: &mut Owners) -> Result<()> {
    let dir = StateDir::new(&shared.root, id);
    let Some(claim) = dir.claimed_by()? else {
        return Ok(());
    };
    if owners.lives(claim.owner) {
        return Ok(());
    }
    match dir.written() {
        None => {
            remove_groups(shared, id, &claim)?;
            dir.remove()
        }
        Some(_) if claim.lifetime == Lifetime::Tied => delete(shared, &shared.find(id)?, DeleteMode::Force),
        Some(_) => Ok(()),
    }
}

/// The groups of a container that was being created are where it would have them. Its process dies with its maker, and may
/// need a moment for it. None is killed: the path may be one that others use, which the maker died too early to find out.
fn remove_groups(shared: &Shared, id: &ContainerId, claim: &Claim) -> Result<()> {
    if let Some(group) = &claim.resctrl {
        group.remove()?;
    }
    let cgroup = match &claim.unit {
        Some(unit) => shared.cgroups.find_unit(unit)?,
        None => shared.cgroups.find(id, claim.cgroups_path.as_deref())?,
    };
    for _ in 0..DYING {
        if cgroup.pids()?.is_empty() {
            return cgroup.remove();
        }
        std::thread::sleep(PAUSE);
    }
    Err(Error::Corrupt {
        path: shared.root.join(id.as_str()),
        reason: "the groups of a container that was never finished have processes of others".into(),
    })
}
