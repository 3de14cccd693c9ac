//! Collection of what no image, container or lease needs: the engine's stores as what `longshore_metadata` collects.

pub(crate) mod bundles;
mod content;
mod documents;
mod schedule;
mod snapshots;
mod usage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_metadata::{CollectOptions, Collectible, Collector, Mode, Report, Resource, Way};
use longshore_metrics::Outcome;

use crate::error::At;
use crate::{Engine, Result};

use self::bundles::Bundles;
use self::content::{Blobs, Ingests};
use self::snapshots::Snapshots;

pub use schedule::{Collecting, Schedule};
pub use usage::{DiskUsage, Share};

/// How an engine collects. A clone takes turns with the original.
#[derive(Clone, Debug)]
pub struct Collection {
    /// Further resources to collect, besides blobs, snapshots, partial ingests and bundles.
    pub hooks: Vec<Arc<dyn Collectible>>,
    /// How long a partial ingest that nobody writes is kept to be resumed.
    pub ingest_age: Duration,
    turn: Arc<futures::lock::Mutex<()>>,
}

impl Default for Collection {
    /// No further resources; partial ingests stay for a day, as a pull's lease does.
    fn default() -> Self {
        Self {
            hooks: Vec::new(),
            ingest_age: Duration::from_secs(24 * 60 * 60),
            turn: Arc::default(),
        }
    }
}

impl Collection {
    /// Collects these too.
    #[must_use]
    pub fn with(mut self, hook: Arc<dyn Collectible>) -> Self {
        self.hooks.push(hook);
        self
    }

    /// Keeps partial ingests that nobody writes for so long.
    #[must_use]
    pub fn ingest_age(mut self, age: Duration) -> Self {
        self.ingest_age = age;
        self
    }
}

impl Engine {
    /// Removes what no image, container, lease or label needs, in every namespace: blobs, snapshots, bundles, partial downloads that were given up.
    ///
    /// Pulls and containers may go on beside it. It is safe to be killed in it; dropping the future lets it finish in the background. Whoever uses the engine's content store or
    /// snapshotter by themselves holds what they make by a lease (see [`MetadataStoreExt`](longshore_metadata::MetadataStoreExt)), or loses it here.
    ///
    /// # Errors
    /// When the records can't be read or written, or a manifest can't be read. What can't be removed is in the report.
    pub async fn collect(&self) -> Result<Report> {
        self.collect_with(CollectOptions::default()).await
    }

    /// The same, told how; [`CollectOptions::dry_run`] only tells what would go.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub async fn collect_with(&self, options: CollectOptions) -> Result<Report> {
        let (collector, metrics) = (self.collector(), self.senses.metrics.clone());
        let snapshotter = self.snapshotter.clone();
        let work = async move {
            let begun = Instant::now();
            let outcome = collector.collect(&options).await;
            if options.mode == Mode::Remove {
                let report = outcome.as_ref().ok();
                metrics.collected(&longshore_metrics::Collection {
                    outcome: if report.is_some() {
                        Outcome::Success
                    } else {
                        Outcome::Failure
                    },
                    removed: report.map_or(0, |report| report.removed.len() as u64),
                    freed_bytes: report.map_or(0, Report::freed_bytes),
                    took: begun.elapsed(),
                    longest_pause: report.map_or(Duration::ZERO, |report| report.longest_fence),
                });
            }
            let is_snapshot = |resource: &Resource| matches!(resource, Resource::Snapshot { .. });
            if let Ok(report) = &outcome
                && options.mode == Mode::Remove
                && report.removed.iter().any(|freed| is_snapshot(&freed.resource))
                && let Err(error) = snapshotter.cleanup().await
            {
                // Their files go in the background; what is told as freed is to be free.
                tracing::warn!(%error, "files of removed snapshots are left for the next collection or open");
            }
            outcome
        };
        match tokio::spawn(work).await {
            Ok(outcome) => {
                let outcome = outcome.at("collecting what nothing refers to");
                self.asked("collect", "every namespace", outcome)
            }
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Why a resource is not collected: the way to it from an image, container or lease, one for each namespace that has one. Empty when the next collection removes it.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub async fn explain(&self, resource: &Resource) -> Result<Vec<Way>> {
        self.collector()
            .explain(resource)
            .await
            .at(format!("looking for what holds {resource}"))
    }

    /// `<namespace>/<id>` of each bundle.
    pub(crate) async fn bundle_resources(&self) -> Result<Vec<String>> {
        let bundles = Bundles {
            root: self.root.join("bundles"),
        };
        bundles.ids().await.map_err(|source| crate::Error::Io {
            doing: "listing the bundles in",
            path: bundles.root.clone(),
            source,
        })
    }

    pub(crate) fn collectibles(&self) -> Vec<Arc<dyn Collectible>> {
        let mut all: Vec<Arc<dyn Collectible>> = vec![
            Arc::new(Blobs {
                content: self.content(),
                snapshotter: self.snapshotter.name().to_owned(),
            }),
            Arc::new(Snapshots {
                snapshotter: self.snapshotter(),
            }),
            Arc::new(Ingests {
                content: self.content(),
                age: self.collection.ingest_age,
            }),
            Arc::new(Bundles {
                root: self.root.join("bundles"),
            }),
        ];
        all.extend(self.collection.hooks.iter().cloned());
        all
    }

    pub(crate) fn collector(&self) -> Collector {
        let collector = Collector::new(self.metadata.clone()).taking_turns(self.collection.turn.clone());
        self.collectibles().into_iter().fold(collector, Collector::with)
    }
}

#[cfg(test)]
mod tests {
    use longshore_content::{ContentStore, ContentStoreExt, Expected, IngestRequest, MemoryStore, sha256};
    use longshore_metadata::conformance::collectible;
    use longshore_snapshot::Labels;

    use super::*;

    #[tokio::test]
    async fn the_stores_conform() {
        let folder = tempfile::tempdir().expect("a folder");
        let content = Arc::new(MemoryStore::new());
        let blobs = Blobs {
            content: content.clone(),
            snapshotter: "overlay".to_owned(),
        };
        collectible(&blobs, || async {
            let document = format!(r#"{{"layers": [{{"digest": "{}"}}]}}"#, sha256(b"layer"));
            let info = content
                .put("x", document.into(), Expected::default())
                .await
                .expect("stored");
            Resource::Content(info.digest.to_string())
        })
        .await;

        let ingests = Ingests {
            content: content.clone(),
            age: Duration::ZERO,
        };
        collectible(&ingests, || async {
            let request = IngestRequest {
                reference: "partial".to_owned(),
                expected: Expected::default(),
            };
            let mut ingest = content.ingest(request).await.expect("begun");
            ingest.write("some".into()).await.expect("written");
            Resource::Ingest("partial".to_owned())
        })
        .await;

        let snapshotter = longshore_snapshot::detect(folder.path().join("snapshots"))
            .await
            .expect("a snapshotter");
        let snapshots = Snapshots {
            snapshotter: snapshotter.clone(),
        };
        collectible(&snapshots, || async {
            snapshotter.prepare("key", None, Labels::new()).await.expect("prepared");
            Resource::snapshot(snapshotter.name(), "key")
        })
        .await;

        let bundles = Bundles {
            root: folder.path().join("bundles"),
        };
        collectible(&bundles, || async {
            std::fs::create_dir_all(folder.path().join("bundles/ns/c")).expect("a bundle");
            Resource::custom("bundle", "ns/c")
        })
        .await;
        for strange in ["..", "../x", "a/../b", "a/", "/a", ".x/y"] {
            assert!(!bundles.owns(&Resource::custom("bundle", strange)), "{strange}");
        }
    }

    #[tokio::test]
    async fn an_ingest_in_use_or_young_stays() {
        let content = Arc::new(MemoryStore::new());
        let request = IngestRequest {
            reference: "busy".to_owned(),
            expected: Expected::default(),
        };
        let writer = content.ingest(request).await.expect("begun");
        let listed = async |age| {
            let ingests = Ingests {
                content: content.clone(),
                age,
            };
            futures::TryStreamExt::try_collect::<Vec<_>>(ingests.list())
                .await
                .expect("a list")
                .len()
        };
        assert_eq!(
            (listed(Duration::ZERO).await, listed(Duration::from_secs(60)).await),
            (1, 0)
        );
        let ingests = Ingests {
            content: content.clone(),
            age: Duration::ZERO,
        };
        let busy = Resource::Ingest("busy".to_owned());
        assert_eq!(
            ingests.remove(&busy).await.expect("asked"),
            longshore_metadata::Removed::InUse
        );
        drop(writer);
    }
}
