//! A snapshotter that has layers elsewhere: a pull does not ask the registry for them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use longshore::{Engine, ErrorKind, Image, Io};
use longshore_bundle::{chain_ids, diff_ids};
use longshore_distribution::{ProgressEvent, PullProgress};
use longshore_examples::host_image;
use longshore_linux::Mount;
use longshore_registry::{Registry, RunningRegistry};
use longshore_snapshot::{
    ApplyOptions, Error, Info, Labels, OverlaySnapshotter, Reach, Result, Snapshotter, Usage, apply_layer,
};
use longshore_testing::{require_root, skip};
use oci_spec::image::{Descriptor, ImageConfiguration};

/// Makes snapshots of the layers that it has when it is asked for one with its name in a label, as stargz-snapshotter does.
#[derive(Debug)]
struct Remote {
    inner: OverlaySnapshotter,
    reach: Reach,
    /// Layers by chainID.
    has: BTreeMap<String, Bytes>,
    asked: Mutex<Vec<Labels>>,
}

#[async_trait]
impl Snapshotter for Remote {
    fn name(&self) -> &str {
        "remote"
    }

    fn reach(&self) -> Reach {
        self.reach
    }

    async fn stat(&self, key: &str) -> Result<Info> {
        self.inner.stat(key).await
    }

    async fn prepare(&self, key: &str, parent: Option<&str>, labels: Labels) -> Result<Vec<Mount>> {
        let target = labels.get("containerd.io/snapshot.ref").cloned().unwrap_or_default();
        self.asked.lock().expect("a lock").push(labels.clone());
        let Some(layer) = self.has.get(&target) else {
            return self.inner.prepare(key, parent, labels).await;
        };
        let own = format!("afar-{target}");
        let mounts = self.inner.prepare(&own, parent, labels.clone()).await?;
        tokio::task::block_in_place(|| apply_layer(&mounts, &layer[..], &ApplyOptions::default()))?;
        self.inner.commit(&own, &target, labels).await?;
        Err(Error::AlreadyExists(target))
    }

    async fn view(&self, key: &str, parent: Option<&str>, labels: Labels) -> Result<Vec<Mount>> {
        self.inner.view(key, parent, labels).await
    }

    async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        self.inner.mounts(key).await
    }

    async fn commit(&self, key: &str, name: &str, labels: Labels) -> Result<()> {
        self.inner.commit(key, name, labels).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.inner.remove(key).await
    }

    async fn usage(&self, key: &str) -> Result<Usage> {
        self.inner.usage(key).await
    }

    async fn walk(&self) -> Result<Vec<Info>> {
        self.inner.walk().await
    }

    async fn cleanup(&self) -> Result<()> {
        self.inner.cleanup().await
    }
}

/// The blobs that a pull was told to be elsewhere.
#[derive(Debug, Default)]
struct Elsewhere(Mutex<Vec<String>>);

impl PullProgress for Elsewhere {
    fn event(&self, event: ProgressEvent<'_>) {
        if let ProgressEvent::Elsewhere { blob } = event {
            self.0.lock().expect("a lock").push(blob.digest().to_string());
        }
    }
}

struct Site {
    _folder: tempfile::TempDir,
    registry: RunningRegistry,
    engine: Engine,
    snapshotter: Arc<Remote>,
    layers: Vec<(Descriptor, Bytes)>,
    chain: Vec<String>,
}

impl Site {
    /// A registry with an image of two layers, and an engine whose snapshotter has so many of them; `None` without root.
    async fn open(has: usize, reach: Reach) -> Option<Self> {
        if let Err(why) = require_root() {
            skip(&why);
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let registry = Registry::builder().serve("127.0.0.1:0").await.expect("a registry");
        let image = host_image::build().expect("an image");
        for (_, bytes) in &image.blobs {
            registry.put_blob(bytes.clone()).await.expect("a blob");
        }
        let (manifest, bytes) = image.manifest;
        let put = registry.put_manifest("app", Some("1"), manifest.media_type().as_ref(), bytes);
        put.await.expect("a manifest");

        let is_config = |blob: &&(Descriptor, Bytes)| blob.0.media_type().as_ref().contains("config");
        let config = image.blobs.iter().find(is_config).expect("a config");
        let config: ImageConfiguration = serde_json::from_slice(&config.1).expect("a config");
        let chain = chain_ids(&diff_ids(&config).expect("diffIDs"));
        let layers: Vec<_> = image.blobs.iter().filter(|blob| !is_config(blob)).cloned().collect();
        assert_eq!((layers.len(), chain.len()), (2, 2));
        let afar = chain.iter().zip(&layers).take(has);
        let inner = OverlaySnapshotter::open(folder.path().join("remote")).await;
        let snapshotter = Arc::new(Remote {
            inner: inner.expect("overlay, as root"),
            reach,
            has: afar
                .map(|(chain_id, (_, bytes))| (chain_id.clone(), bytes.clone()))
                .collect(),
            asked: Mutex::default(),
        });
        let engine = Engine {
            snapshotter: snapshotter.clone(),
            ..Engine::open(folder.path()).await.expect("an engine")
        };
        Some(Self {
            _folder: folder,
            registry,
            engine,
            snapshotter,
            layers,
            chain,
        })
    }

    fn name(&self) -> String {
        format!("{}/app:1", self.registry.host())
    }

    async fn pull(&self, progress: &Arc<Elsewhere>) -> Image {
        let pull = self.engine.pull(self.name()).progress(progress.clone());
        pull.await.expect("pulled")
    }

    /// How often the registry was asked for a layer.
    fn asked_for(&self, layer: usize) -> usize {
        let digest = self.layers[layer].0.digest().to_string();
        let requests = self.registry.requests();
        requests
            .iter()
            .filter(|request| request.path.ends_with(&digest))
            .count()
    }

    /// Runs a program that is in the upper layer, with libraries that are in the lower.
    async fn run(&self, image: &Image) {
        let builder = self.engine.container("c").image(image);
        let container = builder.args(["/bin/uname"]).io(Io::null()).create().await;
        let container = container.expect("created");
        container.start().await.expect("started");
        assert_eq!(container.wait().await.expect("ended").code, 0);
        container.delete(longshore::DeleteMode::Stopped).await.expect("deleted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_the_snapshotter_has_is_not_fetched() {
    let Some(site) = Site::open(1, Reach::Remote).await else {
        return;
    };
    let progress = Arc::new(Elsewhere::default());
    let image = site.pull(&progress).await;
    assert_eq!(
        (site.asked_for(0), site.asked_for(1)),
        (0, 1),
        "{:?}",
        site.registry.requests()
    );
    let told = progress.0.lock().expect("a lock").clone();
    assert_eq!(told, [site.layers[0].0.digest().to_string()]);
    site.run(&image).await;

    // It was told where to look, as containerd tells.
    let asked = site.snapshotter.asked.lock().expect("a lock")[0].clone();
    let digests: Vec<_> = site.layers.iter().map(|layer| layer.0.digest().to_string()).collect();
    for (label, value) in [
        ("containerd.io/snapshot.ref", &site.chain[0]),
        ("containerd.io/snapshot/cri.image-ref", &site.name()),
        ("containerd.io/snapshot/cri.layer-digest", &digests[0]),
        ("containerd.io/snapshot/cri.image-layers", &digests.join(",")),
        (
            "containerd.io/snapshot/cri.manifest-digest",
            &image.target().digest().to_string(),
        ),
    ] {
        assert_eq!(asked.get(label), Some(value), "{label}");
    }

    // Nothing is amiss, and nothing is fetched later.
    let verified = site.engine.verify_content(|verifier| verifier).await.expect("verified");
    assert!(verified.problems.is_empty(), "{:?}", verified.problems);
    site.engine.collect().await.expect("collected");
    site.registry.clear_requests();
    let image = site.pull(&progress).await;
    assert_eq!(site.registry.requests().len(), 1, "{:?}", site.registry.requests());
    site.run(&image).await;
    let left = site.snapshotter.walk().await.expect("snapshots");
    let keys: Vec<_> = left.iter().map(|info| info.key.as_str()).collect();
    let mut chain = site.chain.clone();
    chain.sort();
    assert_eq!(keys, chain, "half-made ones are gone");

    let pushed = site
        .engine
        .push(image.name(), format!("{}/b:1", site.registry.host()))
        .await;
    let error = pushed.expect_err("a layer is not here");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_the_snapshotter_has_all_of_comes_without_a_layer() {
    let Some(site) = Site::open(2, Reach::Remote).await else {
        return;
    };
    let image = site.pull(&Arc::default()).await;
    assert_eq!((site.asked_for(0), site.asked_for(1)), (0, 0));
    site.run(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_snapshotter_has_not_is_fetched() {
    for reach in [Reach::Remote, Reach::Local] {
        let Some(site) = Site::open(0, reach).await else {
            return;
        };
        let image = site.pull(&Arc::default()).await;
        assert_eq!((site.asked_for(0), site.asked_for(1)), (1, 1));
        site.run(&image).await;
    }
}
