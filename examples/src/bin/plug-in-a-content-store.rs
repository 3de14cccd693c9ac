//! A content store of one's own, plugged into an engine in one line: this one keeps blobs in memory and tells which are opened.

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use longshore::content::{Blob, ContentStore, Info, Ingest, IngestRequest, IngestStatus, MemoryStore, Result};
use longshore::oci_spec::image::Digest;
use longshore::{Engine, Io};
use longshore_examples::quickstart::serve_host_image;

/// Tells which blobs are opened and followed, and leaves the rest to another store.
#[derive(Debug)]
struct Telling<S>(S);

#[async_trait]
impl<S: ContentStore> ContentStore for Telling<S> {
    async fn open(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        println!("store: {digest} is opened");
        self.0.open(digest).await
    }

    async fn follow(&self, digest: &Digest) -> Result<Arc<dyn Blob>> {
        println!("store: {digest} is followed while it comes");
        self.0.follow(digest).await
    }

    async fn info(&self, digest: &Digest) -> Result<Info> {
        self.0.info(digest).await
    }

    async fn ingest(&self, request: IngestRequest) -> Result<Box<dyn Ingest>> {
        self.0.ingest(request).await
    }

    async fn status(&self, reference: &str) -> Result<IngestStatus> {
        self.0.status(reference).await
    }

    async fn ingests(&self) -> Result<Vec<IngestStatus>> {
        self.0.ingests().await
    }

    async fn abort(&self, reference: &str) -> Result<()> {
        self.0.abort(reference).await
    }

    fn walk(&self) -> BoxStream<'_, Result<Info>> {
        self.0.walk()
    }

    async fn remove(&self, digest: &Digest) -> Result<()> {
        self.0.remove(digest).await
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let root = std::env::temp_dir().join("longshore-plug-in-a-content-store");
    let registry = serve_host_image().await?;

    let content = Arc::new(Telling(MemoryStore::new()));
    let engine = Engine {
        content,
        ..Engine::open(&root).await?
    };

    let image = engine.pull(format!("{}/demo/host:latest", registry.host())).await?;
    let command = ["/bin/sh", "-c", "echo run from a store in memory"];
    let status = engine
        .container("plugged")
        .image(&image)
        .args(command)
        .io(Io::inherit())
        .create()
        .await?
        .run()
        .await?;
    drop((image, engine));
    std::fs::remove_dir_all(root)?;
    Ok(ExitCode::from(u8::try_from(status.code)?))
}
