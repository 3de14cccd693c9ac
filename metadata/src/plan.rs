//! What a batch does to a state: decided here once, for every store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use crate::{Batch, Error, Key, Kind, Op, Precondition, Record, Resource, Result, Value, edges, validate};

/// Reads one record of the state that a batch is applied to.
pub(crate) trait Lookup {
    fn lookup(&self, key: &Key) -> Result<Option<Record>>;
}

/// What becomes of each key: a record, or nothing.
pub(crate) type Changes = BTreeMap<Key, Option<Record>>;

/// Checks a batch against a state at `revision` and works out what it changes; a change has `revision + 1`.
pub(crate) fn plan(batch: Batch, state: &dyn Lookup, revision: u64, now: SystemTime) -> Result<Changes> {
    for precondition in batch.preconditions {
        check(precondition, state, revision)?;
    }
    let mut planned = Planned {
        state,
        changes: Changes::new(),
    };
    for op in batch.ops {
        match op {
            Op::Put { key, labels, value } => planned.put(key, labels, value, revision + 1, now)?,
            Op::Delete(key) => {
                if planned.get(&key)?.is_none() {
                    return Err(Error::NotFound(key));
                }
                planned.changes.insert(key, None);
            }
        }
    }
    Ok(planned.changes)
}

fn check(precondition: Precondition, state: &dyn Lookup, revision: u64) -> Result<()> {
    match precondition {
        Precondition::Absent(key) => match state.lookup(&key)? {
            Some(_) => Err(Error::AlreadyExists(key)),
            None => Ok(()),
        },
        Precondition::Present(key) => match state.lookup(&key)? {
            Some(_) => Ok(()),
            None => Err(Error::NotFound(key)),
        },
        Precondition::Revision(key, expected) => match state.lookup(&key)? {
            Some(record) if record.revision == expected => Ok(()),
            Some(record) => Err(Error::Conflict {
                key,
                expected,
                actual: record.revision,
            }),
            None => Err(Error::NotFound(key)),
        },
        Precondition::StoreRevision(expected) if expected == revision => Ok(()),
        Precondition::StoreRevision(expected) => Err(Error::Moved {
            expected,
            actual: revision,
        }),
    }
}

/// A state with the changes of the ops so far.
struct Planned<'a> {
    state: &'a dyn Lookup,
    changes: Changes,
}

impl Planned<'_> {
    fn get(&self, key: &Key) -> Result<Option<Record>> {
        match self.changes.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => self.state.lookup(key),
        }
    }

    fn put(
        &mut self,
        key: Key,
        labels: BTreeMap<String, String>,
        value: Value,
        revision: u64,
        now: SystemTime,
    ) -> Result<()> {
        validate::put(&key, &labels, &value)?;
        let before = self.get(&key)?;
        self.check_fence(&key, &labels, &value, before.as_ref())?;
        let record = Record {
            created: before.map_or(now, |record| record.created),
            updated: now,
            key: key.clone(),
            labels,
            revision,
            value,
        };
        self.changes.insert(key, Some(record));
        Ok(())
    }

    /// Refuses a new reference to what a collection is removing.
    fn check_fence(
        &self,
        key: &Key,
        labels: &BTreeMap<String, String>,
        value: &Value,
        before: Option<&Record>,
    ) -> Result<()> {
        if key.kind == Kind::Removal {
            return Ok(());
        }
        let old = before.map_or_else(BTreeSet::new, |record| referred(key, &record.labels, &record.value));
        for resource in referred(key, labels, value) {
            if !old.contains(&resource) && self.get(&Key::removal(&resource))?.is_some() {
                return Err(Error::BeingCollected {
                    key: key.clone(),
                    resource,
                });
            }
        }
        Ok(())
    }
}

/// What a record holds on to: what it names, and the resource whose labels it is.
fn referred(key: &Key, labels: &BTreeMap<String, String>, value: &Value) -> BTreeSet<Resource> {
    let mut resources: BTreeSet<_> = edges::of_value(value)
        .into_iter()
        .chain(edges::of_labels(labels))
        .collect();
    resources.extend(key.resource());
    resources
}
