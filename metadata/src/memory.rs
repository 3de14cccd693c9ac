use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use async_trait::async_trait;

use crate::plan::{Lookup, plan};
use crate::{Batch, Key, Kind, MetadataStore, Record, Result, View};

/// Records in memory, gone with the store: for tests, and for engines that keep nothing.
///
/// A [`View`] of it copies nothing; the next batch copies the index (not the records) if a view is still held.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: RwLock<Arc<State>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    revision: u64,
    records: BTreeMap<Key, Arc<Record>>,
}

impl Lookup for State {
    fn lookup(&self, key: &Key) -> Result<Option<Record>> {
        Ok(self.records.get(key).map(|record| Record::clone(record)))
    }
}

impl MemoryStore {
    /// An empty store, at revision 0.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl MetadataStore for MemoryStore {
    async fn apply(&self, batch: Batch) -> Result<u64> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let changes = plan(batch, &**state, state.revision, SystemTime::now())?;
        if changes.is_empty() {
            return Ok(state.revision);
        }
        let state = Arc::make_mut(&mut state);
        state.revision += 1;
        for (key, change) in changes {
            match change {
                Some(record) => state.records.insert(key, Arc::new(record)),
                None => state.records.remove(&key),
            };
        }
        Ok(state.revision)
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.state().lookup(key)
    }

    async fn list(&self, namespace: &str, kind: Kind) -> Result<Vec<Record>> {
        let state = self.state();
        let of_kind = |key: &Key| key.namespace == namespace && key.kind == kind;
        let records = state.records.range(Key::new(namespace, kind, "")..);
        Ok(records
            .take_while(|(key, _)| of_kind(key))
            .map(|(_, record)| Record::clone(record))
            .collect())
    }

    async fn namespaces(&self) -> Result<Vec<String>> {
        let state = self.state();
        let names = state.records.keys().filter_map(|key| match key.kind {
            Kind::Namespace => Some(key.id.clone()),
            _ if key.namespace.is_empty() => None,
            _ => Some(key.namespace.clone()),
        });
        Ok(names.collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn view(&self) -> Result<Box<dyn View>> {
        Ok(Box::new(MemoryView(self.state())))
    }
}

#[derive(Debug)]
struct MemoryView(Arc<State>);

#[async_trait]
impl View for MemoryView {
    fn revision(&self) -> u64 {
        self.0.revision
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.0.lookup(key)
    }

    async fn scan(&self, after: Option<&Key>, limit: usize) -> Result<Vec<Record>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let records = self.0.records.range((start, Bound::Unbounded));
        Ok(records.take(limit).map(|(_, record)| Record::clone(record)).collect())
    }

    async fn changed(&self, since: u64) -> Result<Vec<Record>> {
        let changed = self.0.records.values().filter(|record| record.revision > since);
        let mut changed: Vec<_> = changed.map(|record| Record::clone(record)).collect();
        changed.sort_by_key(|record| record.revision);
        Ok(changed)
    }
}
