use std::fs;

use super::Shared;
use crate::host::io_error;
use crate::{ContainerId, Error, Result, State};

/// From so many containers on a second thread is worth its making.
const MANY: usize = 64;

/// The states of all containers, in the order of their ids. Blocks.
pub(super) fn list(shared: &Shared) -> Result<Vec<State>> {
    let fail = || format!("list the state directory {}", shared.root.display());
    let mut ids = Vec::new();
    for entry in fs::read_dir(&shared.root).map_err(io_error(fail()))? {
        let entry = entry.map_err(io_error(fail()))?;
        ids.extend(entry.file_name().to_str().and_then(|name| ContainerId::new(name).ok()));
    }
    ids.sort();
    if ids.len() < MANY {
        return Ok(states_of(shared, &ids));
    }
    let (low, high) = ids.split_at(ids.len() / 2);
    Ok(std::thread::scope(|scope| {
        let look = std::thread::Builder::new().spawn_scoped(scope, || states_of(shared, high));
        let mut states = states_of(shared, low);
        states.extend(match look.map(|look| look.join()) {
            Ok(Ok(others)) => others,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // Where no thread can be had one does it all.
            Err(_) => states_of(shared, high),
        });
        states
    }))
}

fn states_of(shared: &Shared, ids: &[ContainerId]) -> Vec<State> {
    let look = |id: &ContainerId| match shared.find(id) {
        Ok(container) => Some(container.state()),
        // Being created or deleted just now.
        Err(Error::NotFound(_)) => None,
        // One that is damaged must not hide the others.
        Err(error) => {
            tracing::warn!(container = %id, %error, "left out of the list");
            None
        }
    };
    ids.iter().filter_map(look).collect()
}
