use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use longshore_metadata::{CollectOptions, Collectible, Edge, Key, Kind, Node, Record, Resource, Value};

use crate::error::At;
use crate::{Engine, Error, Result};

/// What an engine takes on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskUsage {
    /// Each image of each namespace, ordered by namespace and name.
    pub images: Vec<Share>,
    /// Each container: its writable snapshot.
    pub containers: Vec<Share>,
    /// All that images need, what they share counted once.
    pub image_bytes: u64,
    /// All writable snapshots.
    pub container_bytes: u64,
    /// What the next collection would free.
    pub collectible_bytes: u64,
}

/// What one image or container takes on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Share {
    /// Its namespace.
    pub namespace: String,
    /// The image's name, or the container's id.
    pub name: String,
    /// Bytes of its blobs.
    pub content: u64,
    /// Bytes of its snapshots.
    pub snapshots: u64,
    /// Bytes that no other image, or container, has as well.
    pub unique: u64,
}

impl Share {
    /// Bytes that others have as well.
    pub fn shared(&self) -> u64 {
        (self.content + self.snapshots).saturating_sub(self.unique)
    }
}

impl Engine {
    /// What images and containers of all namespaces take on disk, and what a collection would free. Snapshots are walked, so this takes its time.
    ///
    /// # Errors
    /// When records can't be read, or a store fails.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        let mut survey = Survey::new(self.collectibles());
        let mut images = Vec::new();
        let mut usage = DiskUsage::default();
        for namespace in self.metadata.namespaces().await.at("listing namespaces")? {
            for record in self.records(&namespace, Kind::Image).await? {
                if let Value::Image(image) = &record.value {
                    let target = Resource::Content(image.target.digest().to_string());
                    images.push((record.key, survey.behind(target).await?));
                }
            }
            for record in self.records(&namespace, Kind::Container).await? {
                usage.containers.push(survey.container(record).await?);
            }
        }
        let mut times: HashMap<&Resource, u32> = HashMap::new();
        for resource in images.iter().flat_map(|(_, resources)| resources) {
            *times.entry(resource).or_default() += 1;
        }
        usage.image_bytes = times.keys().map(|resource| survey.sizes[*resource]).sum();
        usage.images = images
            .iter()
            .map(|(key, resources)| survey.share(key, resources, &times))
            .collect();
        usage.container_bytes = usage.containers.iter().map(|share| share.snapshots).sum();
        usage.collectible_bytes = self.collect_with(CollectOptions::dry_run()).await?.freed_bytes();
        Ok(usage)
    }

    async fn records(&self, namespace: &str, kind: Kind) -> Result<Vec<Record>> {
        self.metadata
            .list(namespace, kind)
            .await
            .at("listing images and containers")
    }
}

/// Looks behind references, each once.
struct Survey {
    stores: Vec<Arc<dyn Collectible>>,
    edges: HashMap<Resource, Vec<Resource>>,
    sizes: HashMap<Resource, u64>,
}

impl Survey {
    fn new(stores: Vec<Arc<dyn Collectible>>) -> Self {
        Self {
            stores,
            edges: HashMap::new(),
            sizes: HashMap::new(),
        }
    }

    /// Everything that a resource leads to, itself included.
    async fn behind(&mut self, root: Resource) -> Result<HashSet<Resource>> {
        let mut seen = HashSet::from([root.clone()]);
        let mut open = VecDeque::from([root]);
        while let Some(resource) = open.pop_front() {
            self.look(&resource).await?;
            for to in &self.edges[&resource] {
                if seen.insert(to.clone()) {
                    open.push_back(to.clone());
                }
            }
        }
        Ok(seen)
    }

    async fn look(&mut self, resource: &Resource) -> Result<()> {
        if self.sizes.contains_key(resource) {
            return Ok(());
        }
        let failed = |source| Error::Metadata {
            doing: "measuring what is on disk".to_owned(),
            source: longshore_metadata::Error::Resource {
                action: "measuring",
                resource: resource.to_string(),
                source,
            },
        };
        let (mut edges, mut size) = (Vec::new(), 0);
        if let Some(store) = self.stores.iter().find(|store| store.owns(resource)) {
            let answers = store.edges(std::slice::from_ref(resource)).await.map_err(failed)?;
            let resource_of = |edge: Edge| match edge.to {
                Node::Resource(resource) => Some(resource),
                _ => None,
            };
            edges = answers.into_iter().flatten().filter_map(resource_of).collect();
            size = store.size(resource).await.map_err(failed)?;
        }
        self.edges.insert(resource.clone(), edges);
        self.sizes.insert(resource.clone(), size);
        Ok(())
    }

    fn share(&self, key: &Key, resources: &HashSet<Resource>, times: &HashMap<&Resource, u32>) -> Share {
        let mut share = Share {
            namespace: key.namespace.clone(),
            name: key.id.clone(),
            ..Share::default()
        };
        for resource in resources {
            let size = self.sizes[resource];
            match resource {
                Resource::Content(_) => share.content += size,
                _ => share.snapshots += size,
            }
            if times.get(resource) == Some(&1) {
                share.unique += size;
            }
        }
        share
    }

    async fn container(&mut self, record: Record) -> Result<Share> {
        let mut bytes = 0;
        if let Value::Container(container) = &record.value {
            let snapshot = Resource::snapshot(&container.snapshotter, &container.snapshot);
            self.look(&snapshot).await?;
            bytes = self.sizes[&snapshot];
        }
        Ok(Share {
            namespace: record.key.namespace,
            name: record.key.id,
            snapshots: bytes,
            unique: bytes,
            ..Share::default()
        })
    }
}
