//! A snapshotter that has layers elsewhere: what it knows by `containerd.io/snapshot.ref` is neither asked of the content store nor applied.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use longshore_bundle::{LayerProgress, LayerState, MountsView, RootFiles, Unpacker, chain_ids, diff_ids};
use longshore_linux::Mount;
use longshore_snapshot::{Error, Info, Labels, Reach, Result, Snapshotter, Usage};
use oci_spec::image::ImageManifest;
use support::{Directories, image, layer, options, store_of};

const REF: &str = "containerd.io/snapshot.ref";

/// Makes a snapshot of what it has when it is asked for one with its name in a label, as stargz-snapshotter does.
#[derive(Debug)]
struct Remote {
    inner: Arc<Directories>,
    reach: Reach,
    /// By chainID, a file and its content.
    has: BTreeMap<String, (&'static str, &'static str)>,
    /// Says that it has everything, and has nothing.
    lies: bool,
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
        self.asked.lock().expect("a lock").push(labels.clone());
        let target = labels.get(REF).cloned().unwrap_or_default();
        if let Some((file, content)) = self.has.get(&target) {
            let own = format!("afar-{target}");
            let mounts = self.inner.prepare(&own, parent, labels.clone()).await?;
            std::fs::write(mounts[0].source.join(file), content).expect("written");
            self.inner.commit(&own, &target, labels).await?;
            return Err(Error::AlreadyExists(target));
        }
        if self.lies {
            return Err(Error::AlreadyExists(target));
        }
        self.inner.prepare(key, parent, labels).await
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

/// The manifest with these annotations on its first layer.
fn annotated(manifest: &ImageManifest, annotations: &[(&str, &str)]) -> ImageManifest {
    let mut json = serde_json::to_value(manifest).expect("JSON");
    json["layers"][0]["annotations"] = annotations.iter().copied().collect::<serde_json::Value>();
    serde_json::from_value(json).expect("a manifest")
}

#[tokio::test]
async fn layers_from_afar_are_neither_fetched_nor_applied() {
    let layers = [layer(&[("one", "1")]), layer(&[("two", "2")]), layer(&[("three", "3")])];
    let (manifest, config) = image(&layers);
    let manifest = annotated(
        &manifest,
        &[
            ("containerd.io/snapshot/remote/stargz.reference", "registry/image"),
            ("org.example.other", "x"),
        ],
    );
    let chain = chain_ids(&diff_ids(&config).expect("diffIDs"));
    let snapshotter = Arc::new(Remote {
        inner: Directories::new(),
        reach: Reach::Remote,
        has: [
            (chain[0].clone(), ("afar", "one")),
            (chain[1].clone(), ("afar2", "two")),
        ]
        .into(),
        lies: false,
        asked: Mutex::default(),
    });
    // The content store has the last layer alone, and asking it for another is an error.
    let store = Arc::new(store_of(&layers[2..]).await);
    let unpacker = Unpacker::with_options(store, snapshotter.clone(), options().label("mine", "too"));
    let states = Arc::new(Mutex::new(Vec::new()));
    let told = states.clone();
    let observer = move |progress: &LayerProgress<'_>| {
        if !matches!(progress.state, LayerState::Read(_)) {
            told.lock().expect("a lock").push((progress.index, progress.state));
        }
    };
    let unpacked = unpacker
        .unpack_observed(&manifest, &config, Arc::new(observer))
        .await
        .expect("unpacked");
    assert_eq!((unpacked.skipped, unpacked.unpacked), (2, 1));
    let states = states.lock().expect("a lock").clone();
    assert_eq!(
        states[..3],
        [
            (0, LayerState::Skipped),
            (1, LayerState::Skipped),
            (2, LayerState::Started)
        ]
    );

    let top = unpacked.chain_id.expect("a chainID");
    let view = MountsView::new(&snapshotter.mounts(&top).await.expect("mounts")).expect("a view");
    for (file, content) in [("afar", "one"), ("afar2", "two"), ("three", "3")] {
        let bytes = view.read(Path::new(file), 100).expect("read").expect(file);
        assert_eq!(bytes, content.as_bytes());
    }
    assert_eq!(
        view.read(Path::new("one"), 100).expect("read"),
        None,
        "the blob was not applied"
    );

    let asked = snapshotter.asked.lock().expect("a lock").clone();
    let refs: Vec<_> = asked.iter().map(|labels| labels[REF].clone()).collect();
    assert_eq!(refs, chain);
    assert!(asked.iter().all(|labels| labels["mine"] == "too"));
    assert_eq!(
        asked[0]["containerd.io/snapshot/remote/stargz.reference"],
        "registry/image"
    );
    assert_eq!(asked[0].len(), 3, "{:?}", asked[0]);
    let left: Vec<_> = snapshotter.walk().await.expect("snapshots");
    assert_eq!(left.len(), 3, "{left:?}");
}

#[tokio::test]
async fn a_snapshotter_that_has_not_what_it_says_is_an_error() {
    let layers = [layer(&[("one", "1")])];
    let (manifest, config) = image(&layers);
    let snapshotter = Arc::new(Remote {
        inner: Directories::new(),
        reach: Reach::Remote,
        has: BTreeMap::new(),
        lies: true,
        asked: Mutex::default(),
    });
    let store = Arc::new(store_of(&layers).await);
    let unpacker = Unpacker::with_options(store, snapshotter.clone(), options());
    let error = unpacker.unpack(&manifest, &config).await.expect_err("nothing is there");
    let source = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(
        error.to_string().contains("preparing") && source.contains("exists"),
        "{error}: {source}"
    );
}

#[tokio::test]
async fn what_need_not_be_fetched_is_known_before() {
    let layers = [layer(&[("one", "1")]), layer(&[("two", "2")]), layer(&[("three", "3")])];
    let (manifest, config) = image(&layers);
    let chain = chain_ids(&diff_ids(&config).expect("diffIDs"));
    for (reach, here) in [(Reach::Remote, 2), (Reach::Local, 0)] {
        let snapshotter = Arc::new(Remote {
            inner: Directories::new(),
            reach,
            has: [
                (chain[0].clone(), ("afar", "one")),
                (chain[1].clone(), ("afar2", "two")),
            ]
            .into(),
            lies: false,
            asked: Mutex::default(),
        });
        let store = Arc::new(store_of(&layers[2..]).await);
        let unpacker = Unpacker::with_options(store, snapshotter.clone(), options());
        for _ in 0..2 {
            assert_eq!(unpacker.present(&manifest, &config).await.expect("asked"), here);
        }
        let left: Vec<_> = snapshotter.walk().await.expect("snapshots");
        assert_eq!(left.len(), here, "nothing half-made stays: {left:?}");
        unpacker.unpack(&manifest, &config).await.expect("unpacked");
        assert_eq!(unpacker.present(&manifest, &config).await.expect("asked"), 3);
    }
}
