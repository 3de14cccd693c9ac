//! What one record contributes to the graph.

use std::time::SystemTime;

use super::port::{Depth, Edge};
use crate::edges::{self, Life};
use crate::{Key, Kind, Node, Record, Resource, Value};

/// A record's nodes and edges, all in its namespace.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The node that the record is, or whose labels it holds.
    pub(crate) node: Option<Node>,
    /// That node is a root.
    pub(crate) is_root: bool,
    /// What the record holds as a root without being a node (a lease).
    pub(crate) holds: Vec<Edge>,
    /// What the node refers to.
    pub(crate) edges: Vec<Edge>,
    /// What refers to the node, by a label of the node.
    pub(crate) referrers: Vec<Node>,
    /// The record itself is to go, unless its node is reached.
    pub(crate) collectible: bool,
}

impl Facts {
    pub(crate) fn of(record: &Record, now: SystemTime) -> Self {
        let life = Life::of(&record.labels);
        let expired = life.expires.is_some_and(|expires| expires <= now);
        match &record.value {
            Value::Lease(lease) => {
                let expired = expired || lease.expires.is_some_and(|expires| expires <= now);
                let depth = if life.flat { Depth::Alone } else { Depth::Whole };
                let hold = |resource: &Resource| Edge {
                    to: resource.clone().into(),
                    depth,
                };
                Self {
                    holds: if expired {
                        Vec::new()
                    } else {
                        lease.resources.iter().map(hold).collect()
                    },
                    collectible: expired,
                    ..Self::default()
                }
            }
            Value::Image(_) => Self {
                node: Some(Node::Image(record.key.id.clone())),
                is_root: !expired,
                collectible: expired,
                ..Self::edges_of(record)
            },
            Value::Container(_) => Self {
                node: Some(Node::Container(record.key.id.clone())),
                is_root: true,
                ..Self::edges_of(record)
            },
            Value::Labels if record.key.kind != Kind::Removal => Self {
                node: record.key.resource().map(Node::from),
                is_root: life.root || (life.expires.is_some() && !expired),
                collectible: true,
                ..Self::edges_of(record)
            },
            _ => Self::default(),
        }
    }

    fn edges_of(record: &Record) -> Self {
        let own = edges::of_value(&record.value).into_iter().map(Node::from);
        Self {
            edges: own.chain(edges::references(&record.labels)).map(Edge::whole).collect(),
            referrers: edges::back_references(&record.labels).collect(),
            ..Self::default()
        }
    }
}

/// A record that goes when its node is not reached, or at once when it has none.
#[derive(Clone, Debug)]
pub(crate) struct Doomed {
    pub(crate) key: Key,
    pub(crate) revision: u64,
    pub(crate) node: Option<Node>,
}
