//! Removing what is not reached, group by group.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use futures::future::join_all;

use super::Reference;
use super::graph::{Cause, Graph};
use super::kinds::{Kinds, failed};
use super::order::groups;
use super::port::Removed;
use super::report::{CollectOptions, Collected, Report};
use crate::{Batch, ErrorKind, Key, MetadataStore, Node, Precondition, Resource, Result, Value, validate};

/// Resources whose edges are asked for at once.
const CHUNK: usize = 1024;
/// Records that go in one batch.
const RECORDS: usize = 256;
/// How often the removal of records is tried again when others write.
const ATTEMPTS: usize = 20;

/// Marks also what is in use, and follows all that was reached.
pub(crate) async fn follow(graph: &mut Graph, kinds: &Kinds) -> Result<()> {
    let nowhere = graph.number("");
    for resource in kinds.in_use().await? {
        graph.reach(nowhere, Reference::whole(resource), || Cause::InUse);
    }
    graph.follow(kinds).await
}

pub(crate) struct Sweep<'a> {
    pub(crate) store: &'a dyn MetadataStore,
    pub(crate) kinds: &'a Kinds,
    pub(crate) options: &'a CollectOptions,
    pub(crate) graph: Graph,
    pub(crate) report: &'a mut Report,
}

impl Sweep<'_> {
    /// Tells what would go.
    pub(crate) async fn tell(self, candidates: Vec<Resource>) -> Result<()> {
        for resource in self.ordered(candidates).await?.into_iter().flatten() {
            let bytes = self.size(&resource).await?;
            self.report.removed.push(Collected { resource, bytes });
        }
        self.report.records = self.graph.doomed().map(|doomed| doomed.key.clone()).collect();
        self.report.records.sort();
        Ok(())
    }

    pub(crate) async fn run(mut self, candidates: Vec<Resource>) -> Result<()> {
        for group in self.ordered(candidates).await? {
            let begun = Instant::now();
            self.group(group).await?;
            self.rest(begun.elapsed()).await;
        }
        self.records().await
    }

    /// The candidates in groups, what refers to others before these.
    async fn ordered(&self, candidates: Vec<Resource>) -> Result<Vec<Vec<Resource>>> {
        let numbers: HashMap<Node, usize> = candidates
            .iter()
            .enumerate()
            .map(|(n, r)| (Node::from(r.clone()), n))
            .collect();
        let mut edges: Vec<Vec<usize>> = vec![Vec::new(); candidates.len()];
        for kind in 0..self.kinds.0.len() {
            let owned: Vec<usize> = (0..candidates.len())
                .filter(|n| self.kinds.owner(&candidates[*n]) == Some(kind))
                .collect();
            for owned in owned.chunks(CHUNK) {
                let asked: Vec<_> = owned.iter().map(|n| candidates[*n].clone()).collect();
                for (from, references) in owned.iter().zip(self.edges_of_candidates(kind, &asked).await) {
                    edges[*from].extend(references.iter().filter_map(|edge| numbers.get(&edge.to)));
                }
            }
        }
        for (node, from) in &numbers {
            edges[*from].extend(self.graph.named_by_records(node).filter_map(|to| numbers.get(to)));
        }
        let groups = groups(&edges, self.options.batch);
        let mut candidates: Vec<Option<Resource>> = candidates.into_iter().map(Some).collect();
        let group = |numbers: Vec<usize>| numbers.into_iter().filter_map(|n| candidates[n].take()).collect();
        Ok(groups.into_iter().map(group).collect())
    }

    /// What can't be read refers to nothing here: nobody gets anywhere through it either, and it must be possible to remove it.
    async fn edges_of_candidates(&self, kind: usize, asked: &[Resource]) -> Vec<Vec<Reference>> {
        if let Ok(edges) = self.kinds.edges(kind, asked).await {
            return edges;
        }
        let mut edges = Vec::with_capacity(asked.len());
        for resource in asked {
            let one = self.kinds.edges(kind, std::slice::from_ref(resource)).await;
            edges.push(one.ok().and_then(|mut one| one.pop()).unwrap_or_default());
        }
        edges
    }

    /// Fence, look again, remove, take the fence down.
    async fn group(&mut self, mut group: Vec<Resource>) -> Result<()> {
        // A first look, so that what was taken up since is not fenced for nothing.
        self.catch_up().await?;
        self.graph.retain_unheld(&mut group);
        group.retain(|resource| match validate::resource(resource) {
            Ok(()) => true,
            Err(error) => {
                self.report.failed.push((resource.clone(), error.to_string()));
                false
            }
        });
        if group.is_empty() {
            return Ok(());
        }
        let fenced = Instant::now();
        let fences = group.iter().map(Key::removal).collect::<Vec<_>>();
        let fence = |batch: Batch, key: &Key| batch.create(key.clone(), BTreeMap::new(), Value::Labels);
        self.store.apply(fences.iter().fold(Batch::new(), fence)).await?;

        // From here on no new reference to the group is taken, so what this look spares is all that there is to spare.
        self.catch_up().await?;
        self.graph.retain_unheld(&mut group);
        for resource in group {
            self.remove(resource).await?;
        }
        self.store
            .apply(fences.into_iter().fold(Batch::new(), Batch::delete))
            .await?;
        self.report.longest_fence = self.report.longest_fence.max(fenced.elapsed());
        Ok(())
    }

    async fn catch_up(&mut self) -> Result<()> {
        let view = self.store.view().await?;
        self.graph.catch_up(&*view).await?;
        drop(view);
        follow(&mut self.graph, self.kinds).await
    }

    async fn remove(&mut self, resource: Resource) -> Result<()> {
        let Some(kind) = self.kinds.owner(&resource) else {
            return Ok(());
        };
        let bytes = self.size(&resource).await.unwrap_or_default();
        match self.kinds.0[kind].remove(&resource).await {
            Ok(Removed::Gone) => {
                self.remove_labels(&resource).await?;
                self.report.removed.push(Collected { resource, bytes });
            }
            Ok(Removed::InUse) => self.report.in_use.push(resource),
            Err(error) => {
                tracing::warn!(%resource, error = %error, "a resource could not be collected; the next run tries again");
                self.report.failed.push((resource, error.to_string()));
            }
        }
        Ok(())
    }

    async fn size(&self, resource: &Resource) -> Result<u64> {
        match self.kinds.owner(resource) {
            Some(kind) => {
                let size = self.kinds.0[kind].size(resource).await;
                size.map_err(|source| failed("measuring", resource, source))
            }
            None => Ok(0),
        }
    }

    /// The labels of what is gone, in every namespace, while the fence still stands.
    async fn remove_labels(&mut self, resource: &Resource) -> Result<()> {
        let keys = self.graph.labels_of(resource);
        let removals = keys.iter().map(|(key, revision)| {
            let unchanged = Precondition::Revision(key.clone(), *revision);
            self.store.apply(Batch::new().require(unchanged).delete(key.clone()))
        });
        for ((key, _), outcome) in keys.iter().zip(join_all(removals).await) {
            match outcome {
                Ok(_) => {
                    self.graph.forget(key);
                    self.report.records.push(key.clone());
                }
                // Somebody wrote it again, without holding what it is about; the next run decides.
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Expired leases and images, and labels of what this namespace does not reach though another does.
    async fn records(&mut self) -> Result<()> {
        let keys: Vec<Key> = self.graph.doomed().map(|doomed| doomed.key.clone()).collect();
        for keys in keys.chunks(RECORDS) {
            let begun = Instant::now();
            self.record_batch(keys).await?;
            self.rest(begun.elapsed()).await;
        }
        self.report.records.sort();
        Ok(())
    }

    /// Nothing fences records, so they go only if the store is still what was looked at.
    async fn record_batch(&mut self, keys: &[Key]) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let view = self.store.view().await?;
            self.graph.catch_up(&*view).await?;
            follow(&mut self.graph, self.kinds).await?;
            let mut doomed = Vec::new();
            for key in keys {
                // Somebody else may have removed it meanwhile.
                if self.graph.still_doomed(key).is_some() && view.get(key).await?.is_some() {
                    doomed.push(key.clone());
                }
            }
            drop(view);
            let seen = Precondition::StoreRevision(self.graph.revision);
            let batch = doomed.iter().cloned().fold(Batch::new().require(seen), Batch::delete);
            match self.store.apply(batch).await {
                Ok(_) => {
                    for key in doomed {
                        self.graph.forget(&key);
                        self.report.records.push(key);
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        tracing::info!("others write so much that expired records stay for the next collection");
        Ok(())
    }

    /// Leaves the rest of the time to others.
    async fn rest(&self, worked: Duration) {
        let share = u32::from(self.options.share.clamp(1, 100));
        let rest = worked * (100 - share) / share;
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }
}
