//! The marked graph: everything that is reached from a root, and from where.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::time::SystemTime;

use super::Kinds;
use super::facts::{Doomed, Facts};
use super::port::{Depth, Edge};
use crate::{Key, Kind, Node, Record, Resource, Result, View};

/// Records that are read at once.
const PAGE: usize = 4096;
/// Resources whose edges are asked for at once.
const CHUNK: usize = 1024;

/// Why a node is held.
#[derive(Clone, Debug)]
pub(crate) enum Cause {
    /// A record that is a root.
    Record(Key),
    /// Its store says that it is used.
    InUse,
    /// Another node refers to it.
    Node(u32),
}

/// Passes on what is a hash already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are numbers of 64 bits");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[derive(Debug)]
struct Reached {
    node: Node,
    namespace: u32,
    /// Another one of the same hash: mostly the same node in another namespace.
    next: Option<u32>,
    depth: Depth,
    cause: Cause,
}

/// What is reached. It only ever grows, so that catching up with later records can spare a node but never doom one.
#[derive(Debug)]
pub(crate) struct Graph {
    now: SystemTime,
    pub(crate) revision: u64,
    namespaces: Vec<String>,
    numbers: HashMap<String, u32>,
    /// The last one of each hash. A node is hashed once, with a key of this graph's own, and neither kept twice nor looked at when the table grows: with a million of them that is most
    /// of the work.
    index: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
    hashing: RandomState,
    reached: Vec<Reached>,
    /// Edges that records name, by where they come from.
    edges: HashMap<Node, Vec<(u32, Edge)>>,
    doomed: HashMap<Key, Doomed>,
    /// Reached and still to be followed.
    frontier: Vec<u32>,
}

impl Graph {
    pub(crate) fn new(now: SystemTime) -> Self {
        Self {
            now,
            revision: 0,
            namespaces: Vec::new(),
            numbers: HashMap::new(),
            index: HashMap::default(),
            hashing: RandomState::new(),
            reached: Vec::new(),
            edges: HashMap::new(),
            doomed: HashMap::new(),
            frontier: Vec::new(),
        }
    }

    /// Reads every record of a view.
    pub(crate) async fn load(&mut self, view: &dyn View) -> Result<()> {
        let mut after: Option<Key> = None;
        loop {
            let page = view.scan(after.as_ref(), PAGE).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|record| record.key.clone());
            page.into_iter().for_each(|record| self.add(&record));
            if is_last {
                break;
            }
        }
        self.revision = view.revision();
        Ok(())
    }

    /// Takes in what changed since the state that the graph knows.
    pub(crate) async fn catch_up(&mut self, view: &dyn View) -> Result<()> {
        if view.revision() > self.revision {
            for record in view.changed(self.revision).await? {
                self.add(&record);
            }
            self.revision = view.revision();
        }
        Ok(())
    }

    fn add(&mut self, record: &Record) {
        if matches!(record.key.kind, Kind::Removal | Kind::Namespace) {
            return;
        }
        let facts = Facts::of(record, self.now);
        let namespace = self.number(&record.key.namespace);
        for edge in facts.holds {
            self.reach(namespace, edge, || Cause::Record(record.key.clone()));
        }
        if let Some(node) = &facts.node {
            for edge in facts.edges {
                self.connect(namespace, node, edge);
            }
            for referrer in &facts.referrers {
                self.connect(namespace, referrer, Edge::whole(node.clone()));
            }
            if facts.is_root {
                self.reach(namespace, Edge::whole(node.clone()), || {
                    Cause::Record(record.key.clone())
                });
            }
        }
        if facts.collectible {
            let doomed = Doomed {
                key: record.key.clone(),
                revision: record.revision,
                node: facts.node,
            };
            self.doomed.insert(record.key.clone(), doomed);
        } else {
            self.doomed.remove(&record.key);
        }
    }

    pub(crate) fn number(&mut self, namespace: &str) -> u32 {
        if let Some(number) = self.numbers.get(namespace) {
            return *number;
        }
        let number = u32::try_from(self.namespaces.len()).expect("fewer namespaces than records fit in memory");
        self.namespaces.push(namespace.to_owned());
        self.numbers.insert(namespace.to_owned(), number);
        number
    }

    /// Adds an edge that a record names.
    fn connect(&mut self, namespace: u32, from: &Node, edge: Edge) {
        if let Some(at) = self.position(namespace, from)
            && self.reached[at as usize].depth > Depth::Alone
        {
            self.reach(namespace, edge.clone(), || Cause::Node(at));
        }
        match self.edges.get_mut(from) {
            Some(edges) => edges.push((namespace, edge)),
            None => drop(self.edges.insert(from.clone(), vec![(namespace, edge)])),
        }
    }

    fn position(&self, namespace: u32, node: &Node) -> Option<u32> {
        let head = self.index.get(&self.hashing.hash_one(node)).copied();
        self.find(head, namespace, node)
    }

    /// In a chain of one hash.
    fn find(&self, head: Option<u32>, namespace: u32, node: &Node) -> Option<u32> {
        let is_it = |at: &u32| {
            let reached = &self.reached[*at as usize];
            reached.namespace == namespace && reached.node == *node
        };
        self.chain(head).find(is_it)
    }

    fn chain(&self, head: Option<u32>) -> impl Iterator<Item = u32> {
        std::iter::successors(head, |at| self.reached[*at as usize].next)
    }

    /// A node in each namespace that reaches it.
    fn everywhere(&self, node: &Node) -> impl Iterator<Item = u32> {
        let head = self.index.get(&self.hashing.hash_one(node)).copied();
        self.chain(head)
            .filter(move |at| self.reached[*at as usize].node == *node)
    }

    /// Marks a node. One that was reached less deeply before is followed again.
    pub(crate) fn reach(&mut self, namespace: u32, edge: Edge, cause: impl FnOnce() -> Cause) {
        let hash = self.hashing.hash_one(&edge.to);
        let head = self.index.get(&hash).copied();
        if let Some(at) = self.find(head, namespace, &edge.to) {
            let reached = &mut self.reached[at as usize];
            if reached.depth < edge.depth {
                reached.depth = edge.depth;
                self.frontier.push(at);
            }
            return;
        }
        let at = u32::try_from(self.reached.len()).expect("fewer nodes than fit in memory");
        self.index.insert(hash, at);
        self.reached.push(Reached {
            node: edge.to,
            namespace,
            next: head,
            depth: edge.depth,
            cause: cause(),
        });
        self.frontier.push(at);
    }

    /// Follows everything that was reached and not yet followed.
    pub(crate) async fn follow(&mut self, kinds: &Kinds) -> Result<()> {
        while !self.frontier.is_empty() {
            let wave = std::mem::take(&mut self.frontier);
            for at in &wave {
                self.follow_records(*at);
            }
            for (kind, places) in kinds.by_owner(wave, |at| self.asked(*at)) {
                for places in places.chunks(CHUNK) {
                    let asked: Vec<Resource> = places.iter().filter_map(|at| self.asked(*at).cloned()).collect();
                    let answers = kinds.edges(kind, &asked).await?;
                    for (at, edges) in places.iter().zip(answers) {
                        self.follow_edges(*at, edges);
                    }
                }
            }
        }
        Ok(())
    }

    /// The resource at a place, if its store is to be asked for edges.
    fn asked(&self, at: u32) -> Option<&Resource> {
        let reached = &self.reached[at as usize];
        let resource = reached.node.resource()?;
        let is_snapshot = matches!(resource, Resource::Snapshot { .. });
        (reached.depth == Depth::Whole || is_snapshot).then_some(resource)
    }

    fn follow_records(&mut self, at: u32) {
        let reached = &self.reached[at as usize];
        if self.edges.is_empty() || reached.depth == Depth::Alone {
            return;
        }
        let namespace = reached.namespace;
        let Some(edges) = self.edges.get(&reached.node) else {
            return;
        };
        let here = edges.iter().filter(|(number, _)| *number == namespace);
        for edge in here.map(|(_, edge)| edge.clone()).collect::<Vec<_>>() {
            self.reach(namespace, edge, || Cause::Node(at));
        }
    }

    fn follow_edges(&mut self, at: u32, edges: Vec<Edge>) {
        let reached = &self.reached[at as usize];
        let (namespace, alone) = (reached.namespace, reached.depth == Depth::Alone);
        for mut edge in edges {
            if alone {
                // A snapshot is nothing without what it is made from.
                match &edge.to {
                    Node::Resource(Resource::Snapshot { .. }) => edge.depth = Depth::Alone,
                    _ => continue,
                }
            }
            self.reach(namespace, edge, || Cause::Node(at));
        }
    }

    /// Whether any namespace reaches a resource.
    pub(crate) fn holds(&self, node: &Node) -> bool {
        self.everywhere(node).next().is_some()
    }

    /// What records say that a node refers to, in whatever namespace.
    pub(crate) fn named_by_records<'a>(&'a self, node: &Node) -> impl Iterator<Item = &'a Node> + use<'a> {
        self.edges.get(node).into_iter().flatten().map(|(_, edge)| &edge.to)
    }

    /// The records that go, as far as the graph knows now.
    pub(crate) fn doomed(&self) -> impl Iterator<Item = &Doomed> {
        self.doomed.values().filter(|doomed| self.is_doomed(doomed))
    }

    fn is_doomed(&self, doomed: &Doomed) -> bool {
        let reached = doomed.node.as_ref().is_some_and(|node| {
            let number = self.numbers.get(&doomed.key.namespace);
            number.is_some_and(|number| self.position(*number, node).is_some())
        });
        !reached
    }

    /// The same, of these keys.
    pub(crate) fn still_doomed(&self, key: &Key) -> Option<&Doomed> {
        self.doomed.get(key).filter(|doomed| self.is_doomed(doomed))
    }

    /// The records that are labels of a resource which nobody reaches.
    pub(crate) fn labels_of(&self, resource: &Resource) -> Vec<(Key, u64)> {
        let (kind, id) = match resource {
            _ if self.doomed.is_empty() => return Vec::new(),
            Resource::Content(digest) => (Kind::Content, digest.clone()),
            Resource::Snapshot { snapshotter, key } => (Kind::Snapshot, format!("{snapshotter}/{key}")),
            _ => return Vec::new(),
        };
        let keys = self.namespaces.iter().map(|namespace| Key::new(namespace, kind, &id));
        keys.filter_map(|key| self.still_doomed(&key).map(|doomed| (key, doomed.revision)))
            .collect()
    }

    pub(crate) fn forget(&mut self, key: &Key) {
        self.doomed.remove(key);
    }

    /// Namespaces that reach a node, each with the way from its root: the cause of the first, then the nodes.
    pub(crate) fn ways_to(&self, node: &Node) -> Vec<(String, Cause, Vec<Node>)> {
        let mut ways = Vec::new();
        for at in self.everywhere(node) {
            let mut steps = Vec::new();
            let mut here = at;
            let cause = loop {
                let reached = &self.reached[here as usize];
                steps.push(reached.node.clone());
                match &reached.cause {
                    Cause::Node(from) => here = *from,
                    cause => break cause.clone(),
                }
            };
            steps.reverse();
            let reached = &self.reached[at as usize];
            ways.push((self.namespaces[reached.namespace as usize].clone(), cause, steps));
        }
        ways.sort_by(|a, b| a.0.cmp(&b.0));
        ways
    }

    /// All that is reached: the namespace and the node.
    pub(crate) fn reached(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.reached
            .iter()
            .map(|reached| (self.namespaces[reached.namespace as usize].as_str(), &reached.node))
    }

    pub(crate) fn len(&self) -> usize {
        self.reached.len()
    }

    /// Distinct nodes among these that nothing reaches.
    pub(crate) fn retain_unheld(&self, nodes: &mut Vec<Resource>) -> Vec<Resource> {
        let mut spared = Vec::new();
        let mut seen = HashSet::new();
        nodes.retain(|resource| {
            let node = Node::from(resource.clone());
            if self.holds(&node) {
                spared.push(resource.clone());
                return false;
            }
            seen.insert(node)
        });
        spared
    }
}
