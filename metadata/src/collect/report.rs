use std::fmt;
use std::time::Duration;

use crate::{Key, Node, Resource};

/// How a collection goes about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CollectOptions {
    /// Whether anything is removed.
    pub mode: Mode,
    /// Resources that are fenced, checked and removed together; so long a writer who wants one of them waits.
    pub batch: usize,
    /// Resources that were made or changed less long ago stay, whatever refers to them. For programs that make resources before they refer to them; ours do not.
    pub min_age: Duration,
    /// The most of the time that the sweep works, in percent: after each batch it rests for the rest.
    pub share: u8,
}

impl Default for CollectOptions {
    /// Removes, 64 at a time, of any age, without rest.
    fn default() -> Self {
        Self {
            mode: Mode::Remove,
            batch: 64,
            min_age: Duration::ZERO,
            share: 100,
        }
    }
}

impl CollectOptions {
    /// Nothing is removed; the report tells what would be.
    pub fn dry_run() -> Self {
        Self {
            mode: Mode::DryRun,
            ..Self::default()
        }
    }

    /// Works for at most so many percent of the time (1 to 100).
    #[must_use]
    pub fn share(mut self, percent: u8) -> Self {
        self.share = percent;
        self
    }

    /// Spares what was made or changed less long ago.
    #[must_use]
    pub fn min_age(mut self, age: Duration) -> Self {
        self.min_age = age;
        self
    }

    /// Removes so many at a time (at least one).
    #[must_use]
    pub fn batch(mut self, resources: usize) -> Self {
        self.batch = resources;
        self
    }
}

/// Whether a collection removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// It does.
    Remove,
    /// It only tells.
    DryRun,
}

/// A resource that was removed, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// Which.
    pub resource: Resource,
    /// What that freed.
    pub bytes: u64,
}

/// What a collection came to.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Resources that went (or would), what refers to others before these.
    pub removed: Vec<Collected>,
    /// Records that went (or would): expired leases and images, labels of what is gone.
    pub records: Vec<Key>,
    /// Resources that nothing refers to but that somebody uses at this moment.
    pub in_use: Vec<Resource>,
    /// Resources that could not be removed, and why. The next run tries again.
    pub failed: Vec<(Resource, String)>,
    /// Nodes that are reached from a root.
    pub reached: usize,
    /// Time of the mark.
    pub marking: Duration,
    /// Time of the whole collection.
    pub took: Duration,
    /// The longest time for which references to some resource were refused.
    pub longest_fence: Duration,
}

impl Report {
    /// What all of it freed.
    pub fn freed_bytes(&self) -> u64 {
        self.removed.iter().map(|collected| collected.bytes).sum()
    }
}

/// What a way through the graph starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Root {
    /// A record: an image, a container, a lease, or labels with `containerd.io/gc.root`.
    Record(Key),
    /// Its store says that it is used at this moment.
    InUse,
}

/// One way from a root to a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Way {
    /// The namespace it is in.
    pub namespace: String,
    /// What it starts from.
    pub root: Root,
    /// The nodes on it, the last of which is what was asked for.
    pub nodes: Vec<Node>,
}

/// In one line: `image 'alpine' (namespace 'default') -> content/sha256:… -> content/sha256:…`.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut nodes = self.nodes.as_slice();
        match &self.root {
            Root::Record(key) => {
                key.fmt(f)?;
                // An image is its own first node.
                if !matches!(nodes.first(), Some(Node::Resource(_))) {
                    nodes = &nodes[1.min(nodes.len())..];
                }
            }
            Root::InUse => write!(f, "in use (namespace '{}')", self.namespace)?,
        }
        nodes.iter().try_for_each(|node| write!(f, " -> {node}"))
    }
}
