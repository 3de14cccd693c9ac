//! Images made in memory, and a snapshotter that can be told to fail.
#![allow(dead_code)] // each test program uses some of it

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use longshore_bundle::UnpackOptions;
use longshore_content::{ContentStore, Expected, Ingest, IngestRequest, MemoryStore, sha256};
use longshore_linux::Mount;
use longshore_snapshot::{Error, Info, Kind, Labels, Ownership, Result, Snapshotter, Usage};
use oci_spec::image::{Digest, ImageConfiguration, ImageManifest};
use serde_json::json;
use tempfile::TempDir;

pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A layer as a registry would hold it.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) blob: Bytes,
    pub(crate) digest: Digest,
    pub(crate) diff_id: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: &'static str,
}

/// A gzip layer of files.
pub(crate) fn layer(files: &[(&str, &str)]) -> Layer {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, text.as_bytes()).expect("an entry");
    }
    layer_of(tar.into_inner().expect("an archive"))
}

pub(crate) fn layer_of(tar: Vec<u8>) -> Layer {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).expect("compressed");
    let blob = Bytes::from(gzip.finish().expect("compressed"));
    Layer {
        digest: sha256(&blob),
        diff_id: sha256(&tar),
        size: blob.len() as u64,
        blob,
        media_type: GZIP,
    }
}

impl Layer {
    /// The same layer, of which the registry has other bytes under their own digest.
    pub(crate) fn with_blob(&self, blob: Bytes) -> Self {
        Self {
            digest: sha256(&blob),
            size: blob.len() as u64,
            blob,
            ..self.clone()
        }
    }
}

/// Manifest and config of layers.
pub(crate) fn image(layers: &[Layer]) -> (ImageManifest, ImageConfiguration) {
    let descriptors: Vec<_> = layers
        .iter()
        .map(|layer| json!({"mediaType": layer.media_type, "digest": layer.digest.to_string(), "size": layer.size}))
        .collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let config =
        json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(b"").to_string(), "size": 0});
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": descriptors});
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    (
        serde_json::from_value(manifest).expect("a manifest"),
        serde_json::from_value(config).expect("a config"),
    )
}

pub(crate) async fn begin(store: &MemoryStore, layer: &Layer) -> Box<dyn Ingest> {
    let expected = Expected {
        digest: Some(layer.digest.clone()),
        size: Some(layer.blob.len() as u64),
    };
    let request = IngestRequest {
        reference: format!("layer-{}", layer.digest),
        expected,
    };
    store.ingest(request).await.expect("an ingest")
}

pub(crate) async fn put(store: &MemoryStore, layer: &Layer) {
    let mut ingest = begin(store, layer).await;
    ingest.write(layer.blob.clone()).await.expect("written");
    ingest.commit(Expected::default()).await.expect("committed");
}

pub(crate) async fn store_of(layers: &[Layer]) -> MemoryStore {
    let store = MemoryStore::new();
    for layer in layers {
        put(&store, layer).await;
    }
    store
}

/// Where a test wants a [`Directories`] to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Prepare,
    Commit,
    /// The name is taken by a commit that then fails.
    Taken,
}

/// A snapshotter that copies directories, with no thought for durability.
#[derive(Debug)]
pub(crate) struct Directories {
    root: TempDir,
    state: Mutex<BTreeMap<String, (Info, PathBuf)>>,
    fault: Mutex<Option<Fault>>,
}

impl Directories {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            root: tempfile::tempdir().expect("a directory"),
            state: Mutex::default(),
            fault: Mutex::default(),
        })
    }

    pub(crate) fn fail_next(&self, fault: Fault) {
        *self.fault.lock().expect("a lock") = Some(fault);
    }

    fn check(&self, here: Fault) -> Result<()> {
        let mut fault = self.fault.lock().expect("a lock");
        if *fault == Some(here) {
            *fault = None;
            return Err(Error::Io {
                action: "failing",
                path: self.root.path().to_owned(),
                source: std::io::ErrorKind::StorageFull.into(),
            });
        }
        Ok(())
    }
}

#[async_trait]
impl Snapshotter for Directories {
    fn name(&self) -> &str {
        "directories"
    }

    async fn stat(&self, key: &str) -> Result<Info> {
        let state = self.state.lock().expect("a lock");
        state
            .get(key)
            .map(|(info, _)| info.clone())
            .ok_or_else(|| Error::NotFound(key.into()))
    }

    async fn prepare(&self, key: &str, parent: Option<&str>, labels: Labels) -> Result<Vec<Mount>> {
        self.check(Fault::Prepare)?;
        let mut state = self.state.lock().expect("a lock");
        if state.contains_key(key) {
            return Err(Error::AlreadyExists(key.into()));
        }
        let path = self.root.path().join(sha256(key.as_bytes()).digest());
        match parent {
            None => std::fs::create_dir(&path).expect("a directory"),
            Some(parent) => {
                let (_, from) = state.get(parent).ok_or_else(|| Error::NotFound(parent.into()))?;
                let status = Command::new("cp").arg("-a").arg(from).arg(&path).status().expect("cp");
                assert!(status.success());
            }
        }
        let info = Info::new(key, parent.map(str::to_owned), Kind::Active, labels);
        state.insert(key.into(), (info, path.clone()));
        Ok(vec![Mount::bind(path)])
    }

    async fn view(&self, _: &str, _: Option<&str>, _: Labels) -> Result<Vec<Mount>> {
        unreachable!("no test asks for it")
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let state = self.state.lock().expect("a lock");
        state
            .get(key)
            .map(|(_, path)| vec![Mount::bind(path)])
            .ok_or_else(|| Error::NotFound(key.into()))
    }

    async fn commit(&self, key: &str, name: &str, labels: Labels) -> Result<()> {
        if self.check(Fault::Taken).is_err() {
            return Err(Error::AlreadyExists(name.into()));
        }
        self.check(Fault::Commit)?;
        let mut state = self.state.lock().expect("a lock");
        if state.contains_key(name) {
            return Err(Error::AlreadyExists(name.into()));
        }
        let (info, path) = state.remove(key).ok_or_else(|| Error::NotFound(key.into()))?;
        state.insert(
            name.into(),
            (Info::new(name, info.parent, Kind::Committed, labels), path),
        );
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<()> {
        let mut state = self.state.lock().expect("a lock");
        let (_, path) = state.remove(key).ok_or_else(|| Error::NotFound(key.into()))?;
        std::fs::remove_dir_all(path).expect("removed");
        Ok(())
    }

    async fn usage(&self, _: &str) -> Result<Usage> {
        Ok(Usage::default())
    }

    async fn walk(&self) -> Result<Vec<Info>> {
        Ok(self
            .state
            .lock()
            .expect("a lock")
            .values()
            .map(|(info, _)| info.clone())
            .collect())
    }

    async fn cleanup(&self) -> Result<()> {
        Ok(())
    }
}

/// How the user that runs the tests may unpack: an ordinary one can't give files away.
pub(crate) fn options() -> UnpackOptions {
    let ownership = match rustix::process::geteuid().is_root() {
        true => Ownership::Keep,
        false => Ownership::Caller,
    };
    UnpackOptions::default().ownership(ownership)
}
