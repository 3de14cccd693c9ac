use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// The paths that a layer made, so that its whiteouts hide only what was there before it.
///
/// Only two keyed hashes of each path are kept, 16 bytes in all, so that a layer of a million files takes some 30 MB.
#[derive(Default)]
pub(super) struct Mine {
    first: RandomState,
    second: RandomState,
    paths: HashSet<u128>,
}

impl Mine {
    /// Adds a path and all directories on the way to it.
    pub(super) fn add_with_parents(&mut self, path: &[u8]) {
        let mut end = path.len();
        while self.paths.insert(self.key(&path[..end])) {
            match path[..end].iter().rposition(|b| *b == b'/') {
                Some(at) => end = at,
                None => return,
            }
        }
    }

    pub(super) fn contains(&self, path: &[u8]) -> bool {
        self.paths.contains(&self.key(path))
    }

    fn key(&self, path: &[u8]) -> u128 {
        u128::from(self.first.hash_one(path)) << 64 | u128::from(self.second.hash_one(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_count() {
        let mut mine = Mine::default();
        mine.add_with_parents(b"a/b/c");
        mine.add_with_parents(b"a/b/d");
        for path in ["a", "a/b", "a/b/c", "a/b/d"] {
            assert!(mine.contains(path.as_bytes()), "{path}");
        }
        assert!(!mine.contains(b"a/c"));
    }
}
