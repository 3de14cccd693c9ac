//! From layers to a spec, on every snapshotter that there is.

mod support;

use std::path::Path;
use std::sync::Arc;

use longshore_bundle::{MountsView, RootFiles, SpecBuilder, Unpacker};
use longshore_snapshot::{ErrorKind, Kind, Labels, NativeSnapshotter, OverlaySnapshotter, Snapshotter};
use oci_spec::image::ImageConfiguration;
use support::{Layer, image, layer, options, store_of};
use tempfile::TempDir;

/// Opens every snapshotter below a directory.
async fn snapshotters(root: &TempDir) -> Vec<Arc<dyn Snapshotter>> {
    let native = NativeSnapshotter::open(root.path().join("native"))
        .await
        .expect("the native snapshotter");
    let mut all: Vec<Arc<dyn Snapshotter>> = vec![Arc::new(native)];
    match OverlaySnapshotter::open(root.path().join("overlay")).await {
        Ok(overlay) => all.push(Arc::new(overlay)),
        Err(error) if error.kind() == ErrorKind::Unsupported => longshore_testing::skip(&error.to_string()),
        Err(error) => panic!("{error}"),
    }
    all
}

fn layers() -> [Layer; 3] {
    [
        layer(&[
            ("etc/passwd", "root:x:0:0::/root:\nold:x:7:7::/:\n"),
            ("etc/group", "ssl:x:44:web\n"),
            ("etc/gone", "x"),
        ]),
        layer(&[
            ("etc/passwd", "root:x:0:0::/root:\nweb:x:33:33::/srv:\n"),
            ("etc/.wh.gone", ""),
            ("opaque/one", "1"),
        ]),
        layer(&[("opaque/.wh..wh..opq", ""), ("opaque/two", "2")]),
    ]
}

async fn view(snapshotter: &dyn Snapshotter, key: &str) -> MountsView {
    MountsView::new(&snapshotter.mounts(key).await.expect("mounts")).expect("a view")
}

fn text(view: &MountsView, path: &str) -> Option<String> {
    let bytes = view.read(Path::new(path), 1 << 20).expect(path);
    bytes.map(|bytes| String::from_utf8(bytes).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn from_layers_to_a_spec() {
    let root = tempfile::tempdir().expect("a directory");
    let layers = layers();
    let (manifest, config) = image(&layers);
    let store = Arc::new(store_of(&layers).await);
    for snapshotter in snapshotters(&root).await {
        let name = snapshotter.name().to_owned();
        let unpacked = Unpacker::with_options(store.clone(), snapshotter.clone(), options())
            .unpack(&manifest, &config)
            .await;
        let chain_id = unpacked
            .unwrap_or_else(|error| panic!("{name}: {error:?}"))
            .chain_id
            .expect("a chainID");
        snapshotter
            .prepare("container", Some(&chain_id), Labels::new())
            .await
            .expect("prepared");
        let files = view(&*snapshotter, "container").await;
        assert_eq!(text(&files, "/etc/gone"), None, "{name}");
        assert_eq!(text(&files, "/opaque/one"), None, "{name}");
        assert_eq!(text(&files, "/opaque/two").as_deref(), Some("2"), "{name}");
        assert_resolves(&config, &files);
        let again = Unpacker::with_options(store.clone(), snapshotter.clone(), options())
            .unpack(&manifest, &config)
            .await;
        assert_eq!(again.expect("unpacked").skipped, 3, "{name}");
        let committed = |info: &longshore_snapshot::Info| info.kind == Kind::Committed;
        assert_eq!(
            snapshotter
                .walk()
                .await
                .expect("snapshots")
                .iter()
                .filter(|info| committed(info))
                .count(),
            3
        );
    }
}

/// The user of the second layer, in the group of the first.
fn assert_resolves(config: &ImageConfiguration, files: &MountsView) {
    let spec = SpecBuilder::new(config)
        .args(["sh"])
        .user("web")
        .build(files)
        .expect("a spec");
    let process = spec.process().clone().expect("a process");
    assert_eq!((process.user().uid(), process.user().gid()), (33, 33));
    assert_eq!(process.user().additional_gids().clone(), Some(vec![33, 44]));
    SpecBuilder::new(config)
        .args(["sh"])
        .user("old")
        .build(files)
        .expect_err("hidden by the second layer");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_middle_leaves_what_is_below() {
    let root = tempfile::tempdir().expect("a directory");
    let mut layers = layers();
    layers[1] = layers[1].with_blob(layers[1].blob.slice(..layers[1].blob.len() / 2));
    let (manifest, config) = image(&layers);
    let store = Arc::new(store_of(&layers).await);
    for snapshotter in snapshotters(&root).await {
        let unpacker = Unpacker::with_options(store.clone(), snapshotter.clone(), options());
        unpacker.unpack(&manifest, &config).await.expect_err("damaged");
        let left: Vec<_> = snapshotter
            .walk()
            .await
            .expect("snapshots")
            .into_iter()
            .map(|info| info.key)
            .collect();
        assert_eq!(left, [layers[0].diff_id.to_string()], "{}", snapshotter.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_agree_on_one_snapshot() {
    let root = tempfile::tempdir().expect("a directory");
    let layers = layers();
    let (manifest, config) = image(&layers);
    let store = Arc::new(store_of(&layers).await);
    for snapshotter in snapshotters(&root).await {
        let unpackers = (0..4).map(|_| Unpacker::with_options(store.clone(), snapshotter.clone(), options()));
        let tasks: Vec<_> = unpackers
            .map(|unpacker| {
                let (manifest, config) = (manifest.clone(), config.clone());
                tokio::spawn(async move { unpacker.unpack(&manifest, &config).await })
            })
            .collect();
        for task in tasks {
            task.await
                .expect("a task")
                .unwrap_or_else(|error| panic!("{}: {error:?}", snapshotter.name()));
        }
        assert_eq!(
            snapshotter.walk().await.expect("snapshots").len(),
            3,
            "{}",
            snapshotter.name()
        );
    }
}

/// What unpacking counted is kept with the snapshots; where there is nothing to look through any more, only that can be told.
#[tokio::test(flavor = "multi_thread")]
async fn what_layers_take_is_known_without_looking() {
    let root = tempfile::tempdir().expect("a directory");
    let layers = layers();
    let (manifest, config) = image(&layers);
    let store = Arc::new(store_of(&layers).await);
    for snapshotter in snapshotters(&root).await {
        let name = snapshotter.name().to_owned();
        let unpacker = Unpacker::with_options(store.clone(), snapshotter.clone(), options());
        unpacker.unpack(&manifest, &config).await.expect("unpacked");
        std::fs::remove_dir_all(root.path().join(&name).join("snapshots")).expect("their files");
        for info in snapshotter.walk().await.expect("snapshots") {
            // A copy of its parent is only counted when somebody asks.
            if name == "overlay" || info.parent.is_none() {
                let usage = snapshotter.usage(&info.key).await.expect("usage");
                assert!(usage.inodes > 2, "{name}: {usage:?} of {}", info.key);
            }
        }
    }
}
