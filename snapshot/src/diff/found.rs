use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::apply::path::split;
use crate::diff::ChangeKind;

/// A path from the root, ordered such that a directory comes right before what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) Vec<u8>);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.split(|b| *b == b'/').cmp(other.0.split(|b| *b == b'/'))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It is there, new or changed.
    Put(ChangeKind),
    /// It is a directory that shows nothing of what was below it.
    PutOpaque(ChangeKind),
    /// It is gone.
    Gone,
    /// It is gone, as the directory above says already.
    GoneWithParent,
}

/// What changed, and what could not be a part of a layer.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) paths: BTreeMap<Key, What>,
    pub(super) left_out: super::LeftOut,
}

impl Found {
    pub(super) fn add(&mut self, path: Vec<u8>, what: What) {
        self.paths.insert(Key(path), what);
    }

    pub(super) fn contains(&self, path: &[u8]) -> bool {
        self.paths.contains_key(&Key(path.to_vec()))
    }

    /// Adds a path, and the directories on the way to it, whose metadata an unpacker may not have otherwise.
    pub(super) fn add_with_parents(&mut self, path: Vec<u8>, what: What) {
        let mut parent = split(&path).0;
        while !parent.is_empty() && !self.contains(parent) {
            self.add(parent.to_vec(), What::Put(ChangeKind::Changed));
            parent = split(parent).0;
        }
        self.add(path, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_comes_right_before_its_content() {
        let mut found = Found::default();
        for path in ["a-b", "a/c/d", "b", "a.x"] {
            found.add_with_parents(path.into(), What::Gone);
        }
        let paths: Vec<_> = found.paths.keys().map(|key| String::from_utf8_lossy(&key.0)).collect();
        assert_eq!(paths, ["a", "a/c", "a/c/d", "a-b", "a.x", "b"]);
    }
}
