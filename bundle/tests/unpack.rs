//! Unpacking: layers that are there, on their way, shared, damaged, given up.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use longshore_bundle::{
    Error, ErrorKind, LayerProgress, LayerState, MountsView, RootFiles, Unpacked, Unpacker, chain_ids, diff_ids,
};
use longshore_content::{ContentStore, Expected, MemoryStore};
use longshore_snapshot::{Kind, Labels, Snapshotter};
use oci_spec::image::{ImageConfiguration, ImageManifest};
use support::{Directories, Fault, Layer, begin, image, layer, layer_of, put, store_of};

fn base() -> Layer {
    layer(&[
        ("etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
        ("etc/old", "old"),
        ("big", &"0123456789abcdef".repeat(20_000)),
    ])
}

fn top() -> Layer {
    layer(&[
        ("etc/passwd", "web:x:33:33::/srv:/bin/sh\n"),
        ("etc/.wh.old", ""),
        ("new", "new"),
    ])
}

fn unpacker(store: &MemoryStore, snapshotter: &Arc<Directories>) -> Unpacker {
    Unpacker::with_options(Arc::new(store.clone()), snapshotter.clone(), support::options())
}

fn waiting(store: &MemoryStore, snapshotter: &Arc<Directories>) -> Unpacker {
    let options = support::options().wait_for_layers();
    Unpacker::with_options(Arc::new(store.clone()), snapshotter.clone(), options)
}

/// Keys of all snapshots; `extract` for those being filled.
async fn keys(snapshotter: &Directories) -> Vec<String> {
    let infos = snapshotter.walk().await.expect("snapshots");
    infos
        .into_iter()
        .map(|info| {
            if info.kind == Kind::Active {
                "extract".into()
            } else {
                info.key
            }
        })
        .collect()
}

async fn file(snapshotter: &Directories, chain_id: &str, path: &str) -> Option<String> {
    let mounts = snapshotter.mounts(chain_id).await.expect("mounts");
    let bytes = MountsView::new(&mounts)
        .expect("a view")
        .read(Path::new(path), 1 << 20)
        .expect("read");
    bytes.map(|bytes| String::from_utf8(bytes).expect("text"))
}

fn chain_of(config: &ImageConfiguration) -> Vec<String> {
    let mut chain = chain_ids(&diff_ids(config).expect("diffIDs"));
    chain.sort();
    chain
}

/// Unpacks what must fail, and checks that nothing half-filled is left.
async fn failure(
    store: &MemoryStore,
    snapshotter: &Arc<Directories>,
    image: &(ImageManifest, ImageConfiguration),
) -> Error {
    let error = unpacker(store, snapshotter)
        .unpack(&image.0, &image.1)
        .await
        .expect_err("it must fail");
    assert!(!keys(snapshotter).await.contains(&"extract".to_owned()), "{error}");
    error
}

/// Waits until something is so, without a word about how long that may take.
async fn until(mut so: impl AsyncFnMut() -> bool) {
    while !so().await {
        tokio::task::yield_now().await;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_stacked_under_their_chain_ids() {
    let layers = [base(), top()];
    let (manifest, config) = image(&layers);
    let (store, snapshotter) = (store_of(&layers).await, Directories::new());
    let unpacked = unpacker(&store, &snapshotter)
        .unpack(&manifest, &config)
        .await
        .expect("unpacked");
    assert_eq!((unpacked.unpacked, unpacked.skipped, unpacked.entries), (2, 0, 6));
    assert!(unpacked.bytes > 320_000, "{}", unpacked.bytes);
    let chain_id = unpacked.chain_id.expect("a chainID");
    assert_eq!(keys(&snapshotter).await, chain_of(&config));
    assert_eq!(
        file(&snapshotter, &chain_id, "/etc/passwd").await.as_deref(),
        Some("web:x:33:33::/srv:/bin/sh\n")
    );
    assert_eq!(file(&snapshotter, &chain_id, "/etc/old").await, None);
    let info = snapshotter.stat(&chain_id).await.expect("a snapshot");
    assert_eq!(info.labels["containerd.io/snapshot.ref"], chain_id);
    assert_eq!(info.parent, Some(layers[0].diff_id.to_string()));

    for layer in &layers {
        store.remove(&layer.digest).await.expect("removed");
    }
    let again = unpacker(&store, &snapshotter)
        .unpack(&manifest, &config)
        .await
        .expect("its blobs are not needed");
    assert_eq!(
        (again.unpacked, again.skipped, again.bytes, again.chain_id),
        (0, 2, 0, Some(chain_id))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_images_share_is_unpacked_once() {
    let one = [base(), top()];
    let two = [base(), layer(&[("other", "other")])];
    let store = store_of(&one).await;
    put(&store, &two[1]).await;
    let snapshotter = Directories::new();
    let unpacker = unpacker(&store, &snapshotter);
    for (layers, wanted) in [(&one, (2, 0)), (&two, (1, 1))] {
        let (manifest, config) = image(layers);
        let unpacked = unpacker.unpack(&manifest, &config).await.expect("unpacked");
        assert_eq!((unpacked.unpacked, unpacked.skipped), wanted);
    }
    assert_eq!(keys(&snapshotter).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_layers_is_nothing() {
    let (manifest, config) = image(&[]);
    let snapshotter = Directories::new();
    let unpacked = unpacker(&MemoryStore::new(), &snapshotter)
        .unpack(&manifest, &config)
        .await
        .expect("unpacked");
    assert_eq!(unpacked, Unpacked::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_missing_is_named_and_the_rest_goes_on_later() {
    let layers = [base(), top()];
    let both = image(&layers);
    let (store, snapshotter) = (store_of(&layers[..1]).await, Directories::new());
    let error = failure(&store, &snapshotter, &both).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(&layers[1].digest.to_string()), "{error}");
    assert_eq!(keys(&snapshotter).await, [layers[0].diff_id.to_string()]);
    put(&store, &layers[1]).await;
    let unpacked = unpacker(&store, &snapshotter)
        .unpack(&both.0, &both.1)
        .await
        .expect("unpacked");
    assert_eq!((unpacked.unpacked, unpacked.skipped), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn manifest_and_config_must_belong_together() {
    let layers = [base(), top()];
    let (store, snapshotter) = (store_of(&layers).await, Directories::new());
    let (manifest, _) = image(&layers);
    let (_, config) = image(&layers[..1]);
    let error = failure(&store, &snapshotter, &(manifest, config)).await;
    assert!(matches!(error, Error::LayerCount { layers: 2, diff_ids: 1 }), "{error}");

    let swapped = Layer {
        diff_id: top().diff_id,
        ..base()
    };
    let error = failure(&store, &snapshotter, &image(&[swapped])).await;
    assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
    assert!(matches!(error, Error::DiffIdMismatch { index: 0, .. }), "{error}");

    for bad in ["", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "../../etc"] {
        let mut pair = image(&layers[..1]);
        *pair.1.rootfs_mut().diff_ids_mut() = vec![bad.to_owned()];
        let error = failure(&store, &snapshotter, &pair).await;
        assert!(matches!(error, Error::InvalidDiffId { index: 0, .. }), "{error}");
    }
    assert!(keys(&snapshotter).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_layers_are_refused() {
    let snapshotter = Directories::new();
    let good = base();
    let cut = good.with_blob(good.blob.slice(..good.blob.len() / 2));
    let noise = good.with_blob(Bytes::from_static(b"this is no archive at all"));
    let padded = good.with_blob([&good.blob[..], b"garbage after the end"].concat().into());
    for damaged in [cut, noise, padded] {
        let store = store_of(std::slice::from_ref(&damaged)).await;
        let error = failure(&store, &snapshotter, &image(&[damaged])).await;
        assert!(
            matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Verification),
            "{error:?}"
        );
    }
    assert!(keys(&snapshotter).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_layers_are_refused() {
    let snapshotter = Directories::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().expect("a GNU header").name[..12].copy_from_slice(b"../../escape");
    header.set_size(0);
    header.set_cksum();
    tar.append(&header, &b""[..]).expect("an entry");
    let hostile = layer_of(tar.into_inner().expect("an archive"));
    let store = store_of(std::slice::from_ref(&hostile)).await;
    let error = failure(&store, &snapshotter, &image(&[hostile])).await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_and_media_types_are_checked_first() {
    let snapshotter = Directories::new();
    let store = store_of(&[base()]).await;
    let longer = Layer {
        size: base().size + 1,
        ..base()
    };
    let error = failure(&store, &snapshotter, &image(&[longer])).await;
    assert!(matches!(error, Error::LayerSize { .. }), "{error}");
    for media_type in [
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "application/vnd.in-toto+json",
    ] {
        let odd = Layer { media_type, ..base() };
        let error = failure(&store, &snapshotter, &image(&[odd])).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshotter_that_fails_is_reported_and_leaves_nothing() {
    let layers = [base()];
    let both = image(&layers);
    let (store, snapshotter) = (store_of(&layers).await, Directories::new());
    for fault in [Fault::Prepare, Fault::Commit] {
        snapshotter.fail_next(fault);
        let error = failure(&store, &snapshotter, &both).await;
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        assert!(keys(&snapshotter).await.is_empty());
    }
    unpacker(&store, &snapshotter)
        .unpack(&both.0, &both.1)
        .await
        .expect("the next time it works");
}

/// A name may be taken by a commit that is not through, and that fails in the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_for_a_while_is_waited_for() {
    let layers = [base(), top()];
    let (manifest, config) = image(&layers);
    let (store, snapshotter) = (store_of(&layers).await, Directories::new());
    snapshotter.fail_next(Fault::Taken);
    let unpacked = unpacker(&store, &snapshotter)
        .unpack(&manifest, &config)
        .await
        .expect("unpacked");
    assert_eq!(unpacked.unpacked, 2);
    assert_eq!(keys(&snapshotter).await, chain_of(&config));
}

#[tokio::test(flavor = "multi_thread")]
async fn unpacking_begins_before_the_layer_is_there() {
    let layer = base();
    let (manifest, config) = image(std::slice::from_ref(&layer));
    let (store, snapshotter) = (MemoryStore::new(), Directories::new());
    let mut ingest = begin(&store, &layer).await;
    let unpacker = unpacker(&store, &snapshotter);
    let unpacking = tokio::spawn(async move { unpacker.unpack(&manifest, &config).await });
    ingest
        .write(layer.blob.slice(..layer.blob.len() - 8))
        .await
        .expect("written");
    let root = {
        until(async || keys(&snapshotter).await == ["extract"]).await;
        let info = snapshotter.walk().await.expect("snapshots").remove(0);
        snapshotter.mounts(&info.key).await.expect("mounts").remove(0).source
    };
    until(async || root.join("etc/passwd").exists()).await;
    assert!(
        !unpacking.is_finished(),
        "nothing is committed before the blob is verified"
    );
    ingest
        .write(layer.blob.slice(layer.blob.len() - 8..))
        .await
        .expect("written");
    ingest.commit(Expected::default()).await.expect("committed");
    let unpacked = unpacking.await.expect("a task").expect("unpacked");
    assert_eq!(keys(&snapshotter).await, [unpacked.chain_id.expect("a chainID")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_whose_fetching_ends_is_given_up() {
    let layer = base();
    let (manifest, config) = image(std::slice::from_ref(&layer));
    let (store, snapshotter) = (MemoryStore::new(), Directories::new());
    let mut ingest = begin(&store, &layer).await;
    ingest.write(layer.blob.slice(..1000)).await.expect("written");
    let unpacker = unpacker(&store, &snapshotter);
    let unpacking = tokio::spawn(async move { unpacker.unpack(&manifest, &config).await });
    until(async || keys(&snapshotter).await == ["extract"]).await;
    drop(ingest);
    let error = unpacking.await.expect("a task").expect_err("given up");
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    assert!(keys(&snapshotter).await.is_empty());
}

/// All bytes unpack well, but the store finds that they are not those of the digest.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_fails_its_digest_is_not_committed() {
    let layer = base();
    let other = Layer {
        digest: top().digest,
        ..layer.clone()
    };
    let (manifest, config) = image(std::slice::from_ref(&other));
    let (store, snapshotter) = (MemoryStore::new(), Directories::new());
    let mut ingest = begin(&store, &other).await;
    let unpacker = unpacker(&store, &snapshotter);
    let unpacking = tokio::spawn(async move { unpacker.unpack(&manifest, &config).await });
    until(async || keys(&snapshotter).await == ["extract"]).await;
    ingest.write(layer.blob.clone()).await.expect("written");
    ingest.commit(Expected::default()).await.expect_err("another digest");
    let error = unpacking.await.expect("a task").expect_err("not verified");
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    assert!(keys(&snapshotter).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_layers_survives_a_broken_transfer() {
    let layer = base();
    let (manifest, config) = image(std::slice::from_ref(&layer));
    let (store, snapshotter) = (MemoryStore::new(), Directories::new());
    let unpacker = waiting(&store, &snapshotter);
    let followed = Arc::new(AtomicBool::new(false));
    let told = followed.clone();
    let observer = move |progress: &LayerProgress<'_>| {
        if progress.state == LayerState::Started {
            told.store(true, Ordering::SeqCst);
        }
    };
    let unpacking = async move { unpacker.unpack_observed(&manifest, &config, Arc::new(observer)).await };
    let unpacking = tokio::spawn(unpacking);
    let mut ingest = begin(&store, &layer).await;
    ingest.write(layer.blob.slice(..1000)).await.expect("written");
    until(async || followed.load(Ordering::SeqCst)).await;
    drop(ingest);
    let mut ingest = begin(&store, &layer).await;
    let offset = ingest.status().offset as usize;
    ingest.write(layer.blob.slice(offset..)).await.expect("written");
    ingest.commit(Expected::default()).await.expect("committed");
    let unpacked = unpacking.await.expect("a task").expect("unpacked");
    assert_eq!(unpacked.unpacked, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_unpacking_cleans_up() {
    let layer = base();
    let (manifest, config) = image(std::slice::from_ref(&layer));
    let (store, snapshotter) = (MemoryStore::new(), Directories::new());
    let mut ingest = begin(&store, &layer).await;
    ingest.write(layer.blob.slice(..1000)).await.expect("written");
    let unpacker = unpacker(&store, &snapshotter);
    let unpacking = tokio::spawn(async move { unpacker.unpack(&manifest, &config).await });
    until(async || keys(&snapshotter).await == ["extract"]).await;
    unpacking.abort();
    unpacking.await.expect_err("aborted");
    // It waits for bytes; the next ones wake it, and it sees that nobody wants them.
    ingest.write(layer.blob.slice(1000..2000)).await.expect("written");
    until(async || keys(&snapshotter).await.is_empty()).await;
    ingest.write(layer.blob.slice(2000..)).await.expect("written");
    ingest
        .commit(Expected::default())
        .await
        .expect("the blob is none of its business");
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_unpack_a_layer_once() {
    let layers = [base(), top()];
    let (manifest, config) = image(&layers);
    let (store, snapshotter) = (store_of(&layers).await, Directories::new());
    let unpacker = unpacker(&store, &snapshotter);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (unpacker, manifest, config) = (unpacker.clone(), manifest.clone(), config.clone());
            tokio::spawn(async move { unpacker.unpack(&manifest, &config).await })
        })
        .collect();
    let mut total = 0;
    for task in tasks {
        let unpacked = task.await.expect("a task").expect("unpacked");
        assert_eq!(unpacked.unpacked + unpacked.skipped, 2);
        total += unpacked.unpacked;
    }
    assert_eq!(total, 2);
    assert_eq!(keys(&snapshotter).await, chain_of(&config));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_agree_on_one_snapshot() {
    let layers = [base(), top()];
    let (manifest, config) = image(&layers);
    let (store, snapshotter) = (store_of(&layers).await, Directories::new());
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let (unpacker, manifest, config) = (unpacker(&store, &snapshotter), manifest.clone(), config.clone());
            tokio::spawn(async move { unpacker.unpack(&manifest, &config).await })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task").expect("unpacked");
    }
    assert_eq!(keys(&snapshotter).await, chain_of(&config));
}

#[test]
fn any_runtime_will_do() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let layer = base();
        let (manifest, config) = image(std::slice::from_ref(&layer));
        let (store, snapshotter) = (MemoryStore::new(), Directories::new());
        let unpacker = waiting(&store, &snapshotter);
        let fetching = async {
            let mut ingest = begin(&store, &layer).await;
            for start in (0..layer.blob.len()).step_by(4096) {
                let end = layer.blob.len().min(start + 4096);
                ingest.write(layer.blob.slice(start..end)).await.expect("written");
                tokio::task::yield_now().await;
            }
            ingest.commit(Expected::default()).await.expect("committed");
        };
        let (unpacked, ()) = tokio::join!(unpacker.unpack(&manifest, &config), fetching);
        assert_eq!(unpacked.expect("unpacked").unpacked, 1);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_sees_each_step_in_order() {
    let noise: String = (0..1_500_000u64)
        .map(|i| char::from(b'a' + (i.wrapping_mul(i) >> 7) as u8 % 26))
        .collect();
    let layers = [layer(&[("noise", &noise)]), top()];
    let (manifest, config) = image(&layers);
    let (store, snapshotter) = (store_of(&layers).await, Directories::new());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let observer = {
        let seen = seen.clone();
        move |progress: &LayerProgress<'_>| {
            assert_eq!(progress.count, 2);
            seen.lock().expect("a lock").push((progress.index, progress.state));
        }
    };
    let observer = Arc::new(observer);
    let unpacker = unpacker(&store, &snapshotter);
    unpacker
        .unpack_observed(&manifest, &config, observer.clone())
        .await
        .expect("unpacked");
    let steps = std::mem::take(&mut *seen.lock().expect("a lock"));
    let of_first: Vec<_> = steps
        .iter()
        .filter(|(index, _)| *index == 0)
        .map(|(_, state)| *state)
        .collect();
    assert_eq!(of_first.first(), Some(&LayerState::Started));
    assert!(
        matches!(of_first.last(), Some(LayerState::Done(size)) if *size > 1_500_000),
        "{of_first:?}"
    );
    assert_eq!(of_first[of_first.len() - 2], LayerState::Read(layers[0].size));
    assert!(steps.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    unpacker
        .unpack_observed(&manifest, &config, observer)
        .await
        .expect("unpacked");
    assert_eq!(
        *seen.lock().expect("a lock"),
        [(0, LayerState::Skipped), (1, LayerState::Skipped)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_the_dead_are_removed_and_nothing_else() {
    let layers = [base()];
    let (manifest, config) = image(&layers);
    let (store, snapshotter) = (store_of(&layers).await, Directories::new());
    let unpacker = unpacker(&store, &snapshotter);
    unpacker.unpack(&manifest, &config).await.expect("unpacked");
    for key in ["extract-1.2.0-sha256:abc", "extract-", "container-1"] {
        snapshotter.prepare(key, None, Labels::new()).await.expect("prepared");
    }
    assert_eq!(unpacker.remove_leftovers().await.expect("removed"), 2);
    let left: Vec<_> = snapshotter
        .walk()
        .await
        .expect("snapshots")
        .into_iter()
        .map(|info| info.key)
        .collect();
    assert_eq!(left, ["container-1".to_owned(), layers[0].diff_id.to_string()]);
}
