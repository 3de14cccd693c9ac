use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::log::{Entry, Record};
use crate::{Error, Kind, Result};

/// Which snapshots there are, in memory.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) entries: BTreeMap<String, Entry>,
    children: HashMap<String, BTreeSet<String>>,
    /// Keys of snapshots being made, with their directories.
    pub(crate) reserved: HashMap<String, u64>,
    /// Keys that a call is at work on.
    pub(crate) busy: HashSet<String>,
    pub(crate) next_id: u64,
}

impl State {
    /// What a log amounts to.
    pub(crate) fn replay(records: Vec<Record>) -> Self {
        let mut by_id = HashMap::new();
        let mut next_id = 1;
        for record in records {
            match record {
                Record::Format(_) => {}
                Record::Put(entry) => {
                    next_id = next_id.max(entry.id + 1);
                    by_id.insert(entry.id, entry);
                }
                Record::Drop(id) => {
                    by_id.remove(&id);
                }
            }
        }
        let mut state = Self {
            next_id,
            ..Self::default()
        };
        for entry in by_id.into_values() {
            state.insert(entry);
        }
        state
    }

    pub(crate) fn get(&self, key: &str) -> Result<&Entry> {
        self.entries.get(key).ok_or_else(|| Error::NotFound(key.to_owned()))
    }

    pub(crate) fn check_free(&self, key: &str) -> Result<()> {
        if self.entries.contains_key(key) || self.reserved.contains_key(key) {
            return Err(Error::AlreadyExists(key.to_owned()));
        }
        Ok(())
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        if let Some(parent) = &entry.info.parent {
            self.adopt(parent.clone(), entry.info.key.clone());
        }
        self.entries.insert(entry.info.key.clone(), entry);
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        if let Some(parent) = &entry.info.parent {
            self.disown(parent, key);
        }
        Some(entry)
    }

    pub(crate) fn adopt(&mut self, parent: String, child: String) {
        self.children.entry(parent).or_default().insert(child);
    }

    pub(crate) fn disown(&mut self, parent: &str, child: &str) {
        if let Some(children) = self.children.get_mut(parent) {
            children.remove(child);
            if children.is_empty() {
                self.children.remove(parent);
            }
        }
    }

    pub(crate) fn child_of(&self, key: &str) -> Option<&String> {
        self.children.get(key)?.first()
    }

    /// Directories of `parent` and what it is made from, the topmost first.
    pub(crate) fn chain(&self, parent: Option<&str>) -> Result<Vec<u64>> {
        let mut ids = Vec::new();
        let mut next = parent;
        while let Some(key) = next {
            let entry = self.get(key)?;
            if entry.info.kind != Kind::Committed {
                return Err(Error::WrongKind {
                    key: key.to_owned(),
                    actual: entry.info.kind,
                    needed: "a committed one",
                });
            }
            ids.push(entry.id);
            next = entry.info.parent.as_deref();
        }
        Ok(ids)
    }
}
