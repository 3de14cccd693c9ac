//! Ports that tell what happens at them. Storage crates do not know that events exist: the facade wraps them.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use longshore_content::{Blob, ContentStore, Expected, Info, Ingest, IngestRequest, IngestStatus};
use longshore_events::{Event, EventKind, EventSink};
use longshore_linux::Mount;
use longshore_metrics::Metrics;
use longshore_snapshot::{Labels, Reach, Snapshotter, Usage};
use oci_spec::image::Digest;

use crate::senses::outcome_of;

/// Where events of one namespace go.
#[derive(Clone, Debug)]
pub(crate) struct Emitter {
    pub(crate) namespace: String,
    pub(crate) by: String,
    pub(crate) sinks: Vec<Arc<dyn EventSink>>,
}

impl Emitter {
    pub(crate) fn emit(&self, kind: EventKind) {
        let event = Event::now(&self.namespace, kind).by(&self.by);
        for sink in &self.sinks {
            sink.emit(event.clone());
        }
    }
}

/// A content store that emits `/content/create` and `/content/delete`.
#[derive(Debug)]
pub(crate) struct ObservedContent {
    pub(crate) inner: Arc<dyn ContentStore>,
    pub(crate) emitter: Emitter,
    pub(crate) metrics: Metrics,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ContentStore for ObservedContent {
    async fn info(&self, digest: &Digest) -> longshore_content::Result<Info> {
        self.inner.info(digest).await
    }

    async fn open(&self, digest: &Digest) -> longshore_content::Result<Arc<dyn Blob>> {
        self.inner.open(digest).await
    }

    async fn follow(&self, digest: &Digest) -> longshore_content::Result<Arc<dyn Blob>> {
        self.inner.follow(digest).await
    }

    async fn ingest(&self, request: IngestRequest) -> longshore_content::Result<Box<dyn Ingest>> {
        let inner = self.inner.ingest(request).await?;
        let observer = Observer {
            emitter: self.emitter.clone(),
            metrics: self.metrics.clone(),
            begun: Instant::now(),
        };
        Ok(Box::new(ObservedIngest { inner, observer }))
    }

    async fn status(&self, reference: &str) -> longshore_content::Result<IngestStatus> {
        self.inner.status(reference).await
    }

    async fn ingests(&self) -> longshore_content::Result<Vec<IngestStatus>> {
        self.inner.ingests().await
    }

    async fn abort(&self, reference: &str) -> longshore_content::Result<()> {
        self.inner.abort(reference).await
    }

    fn walk(&self) -> BoxStream<'_, longshore_content::Result<Info>> {
        self.inner.walk()
    }

    async fn remove(&self, digest: &Digest) -> longshore_content::Result<()> {
        self.inner.remove(digest).await?;
        self.emitter.emit(EventKind::ContentDelete {
            digest: digest.to_string(),
        });
        Ok(())
    }
}

#[derive(Debug)]
struct ObservedIngest {
    inner: Box<dyn Ingest>,
    observer: Observer,
}

#[derive(Debug)]
struct Observer {
    emitter: Emitter,
    metrics: Metrics,
    begun: Instant,
}

impl Observer {
    fn told(self, result: longshore_content::Result<Info>, bytes: u64) -> longshore_content::Result<Info> {
        self.metrics.ingested(&longshore_metrics::Ingest {
            outcome: outcome_of(&result),
            bytes,
            took: self.begun.elapsed(),
        });
        let info = result?;
        self.emitter.emit(EventKind::ContentCreate {
            digest: info.digest.to_string(),
            size: info.size,
        });
        Ok(info)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Ingest for ObservedIngest {
    fn status(&self) -> IngestStatus {
        self.inner.status()
    }

    async fn write(&mut self, data: Bytes) -> longshore_content::Result<()> {
        self.inner.write(data).await
    }

    async fn restart(&mut self) -> longshore_content::Result<()> {
        self.inner.restart().await
    }

    async fn commit(self: Box<Self>, expected: Expected) -> longshore_content::Result<Info> {
        let Self { inner, observer } = *self;
        let bytes = inner.status().offset;
        observer.told(inner.commit(expected).await, bytes)
    }

    async fn replace(self: Box<Self>, expected: Expected) -> longshore_content::Result<Info> {
        let Self { inner, observer } = *self;
        let bytes = inner.status().offset;
        observer.told(inner.replace(expected).await, bytes)
    }
}

/// A snapshotter that emits `/snapshot/*`.
#[derive(Debug)]
pub(crate) struct ObservedSnapshotter {
    pub(crate) inner: Arc<dyn Snapshotter>,
    pub(crate) emitter: Emitter,
}

impl ObservedSnapshotter {
    fn prepared(&self, key: &str, parent: Option<&str>) {
        self.emitter.emit(EventKind::SnapshotPrepare {
            key: key.to_owned(),
            parent: parent.map(str::to_owned),
            snapshotter: self.inner.name().to_owned(),
        });
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Snapshotter for ObservedSnapshotter {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn reach(&self) -> Reach {
        self.inner.reach()
    }

    async fn stat(&self, key: &str) -> longshore_snapshot::Result<longshore_snapshot::Info> {
        self.inner.stat(key).await
    }

    async fn prepare(&self, key: &str, parent: Option<&str>, labels: Labels) -> longshore_snapshot::Result<Vec<Mount>> {
        let mounts = self.inner.prepare(key, parent, labels).await?;
        self.prepared(key, parent);
        Ok(mounts)
    }

    async fn view(&self, key: &str, parent: Option<&str>, labels: Labels) -> longshore_snapshot::Result<Vec<Mount>> {
        let mounts = self.inner.view(key, parent, labels).await?;
        self.prepared(key, parent);
        Ok(mounts)
    }

    async fn mounts(&self, key: &str) -> longshore_snapshot::Result<Vec<Mount>> {
        self.inner.mounts(key).await
    }

    async fn commit(&self, key: &str, name: &str, labels: Labels) -> longshore_snapshot::Result<()> {
        self.commit_counted(key, name, labels, None).await
    }

    async fn commit_counted(
        &self,
        key: &str,
        name: &str,
        labels: Labels,
        usage: Option<Usage>,
    ) -> longshore_snapshot::Result<()> {
        self.inner.commit_counted(key, name, labels, usage).await?;
        self.emitter.emit(EventKind::SnapshotCommit {
            key: key.to_owned(),
            name: name.to_owned(),
            snapshotter: self.inner.name().to_owned(),
        });
        Ok(())
    }

    async fn remove(&self, key: &str) -> longshore_snapshot::Result<()> {
        self.inner.remove(key).await?;
        self.emitter.emit(EventKind::SnapshotRemove {
            key: key.to_owned(),
            snapshotter: self.inner.name().to_owned(),
        });
        Ok(())
    }

    async fn usage(&self, key: &str) -> longshore_snapshot::Result<Usage> {
        self.inner.usage(key).await
    }

    async fn walk(&self) -> longshore_snapshot::Result<Vec<longshore_snapshot::Info>> {
        self.inner.walk().await
    }

    async fn cleanup(&self) -> longshore_snapshot::Result<()> {
        self.inner.cleanup().await
    }
}
