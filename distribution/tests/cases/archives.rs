//! Images in one file: ours, those of others, and those that nobody should make.

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use longshore_content::{ContentStore, ContentStoreExt, Expected, MemoryStore, sha256};
use longshore_distribution::{Error, ErrorKind, LoadedImage, SavedImage, load_archive, save_archive};
use longshore_testing::{require_tool, skip};
use oci_spec::image::{Descriptor, ImageManifest, MediaType};
use serde_json::json;

/// A sink that can be looked at.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A tar of these files; a name with `->` is a link.
fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        if let Some((path, target)) = path.split_once("->") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, path, target).expect("a link");
        } else {
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, *bytes).expect("an entry");
        }
    }
    tar.into_inner().expect("a tar")
}

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| sha256(layer).to_string()).collect();
    let config = json!({ "os": "linux", "architecture": "amd64", "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    config.to_string().into_bytes()
}

fn layers() -> Vec<Vec<u8>> {
    vec![
        tar_of(&[("etc/name", b"one")]),
        tar_of(&[("etc/name", b"two"), ("bin/x", &[7; 100_000])]),
    ]
}

/// An image in an index, in a store.
async fn image(store: &MemoryStore) -> Descriptor {
    let put = async |bytes: Vec<u8>, media_type: MediaType| {
        let descriptor = Descriptor::new(media_type, bytes.len() as u64, sha256(&bytes));
        store
            .put("part", bytes.into(), Expected::default())
            .await
            .expect("stored");
        descriptor
    };
    let layers = layers();
    let config = put(config(&layers), MediaType::ImageConfig).await;
    let mut described = Vec::new();
    for layer in layers {
        described.push(put(layer, MediaType::ImageLayer).await);
    }
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": described });
    let mut manifest = put(manifest.to_string().into_bytes(), MediaType::ImageManifest).await;
    manifest.set_platform(Some(
        longshore_distribution::parse_platform("linux/amd64").expect("a platform"),
    ));
    // Another platform, which is not here.
    let absent = Descriptor::new(MediaType::ImageManifest, 3, sha256(b"absent"));
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": [manifest, absent] });
    put(index.to_string().into_bytes(), MediaType::ImageIndex).await
}

async fn save(store: &Arc<MemoryStore>, target: &Descriptor) -> Vec<u8> {
    let sink = Sink::default();
    let name = "registry.example/team/app:7".parse().expect("a name");
    let images = vec![SavedImage::new(target.clone(), Some(name))];
    save_archive(store.clone(), images, sink.clone()).await.expect("saved");
    std::mem::take(&mut *sink.0.lock().expect("not poisoned"))
}

async fn load(store: &Arc<MemoryStore>, bytes: Vec<u8>) -> Result<Vec<LoadedImage>, Error> {
    load_archive(store.clone(), io::Cursor::new(bytes)).await
}

#[tokio::test]
async fn what_is_saved_is_loaded() {
    let (store, other) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let target = image(&store).await;
    let bytes = save(&store, &target).await;
    assert_eq!(
        save(&store, &target).await,
        bytes,
        "the same image gives the same bytes"
    );
    for _ in 0..2 {
        let loaded = load(&other, bytes.clone()).await.expect("loaded");
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].target, target);
        assert_eq!(loaded[0].name.as_deref(), Some("registry.example/team/app:7"));
    }
    let all: Vec<_> = store.walk().collect().await;
    for blob in all {
        let digest = blob.expect("a blob").digest;
        let (here, there) = (store.read(&digest, 1 << 30).await, other.read(&digest, 1 << 30).await);
        assert_eq!(here.expect("here"), there.expect("there"));
    }
    assert!(other.ingests().await.expect("a list").is_empty());
}

#[tokio::test]
async fn dockers_older_form() {
    let store = Arc::new(MemoryStore::new());
    let layers = layers();
    let (one, config) = (&layers[0], config(&[layers[0].clone(), layers[0].clone()]));
    let list =
        br#"[{"Config":"abc.json","RepoTags":["app:1","app:2"],"Layers":["first/layer.tar","second/layer.tar"]}]"#;
    let bytes = tar_of(&[
        ("second/layer.tar->../first/layer.tar", b""),
        ("first/VERSION", b"1.0"),
        ("first/layer.tar", one),
        ("abc.json", &config),
        ("manifest.json", list),
    ]);
    let loaded = load(&store, bytes).await.expect("loaded");
    let names: Vec<_> = loaded
        .iter()
        .map(|image| image.name.as_deref().unwrap_or("-"))
        .collect();
    assert_eq!(names, ["app:1", "app:2"]);
    let manifest = store
        .read(loaded[0].target.digest(), 1 << 20)
        .await
        .expect("it was made");
    let manifest: ImageManifest = serde_json::from_slice(&manifest).expect("a manifest");
    assert_eq!(manifest.config().digest(), &sha256(&config));
    assert_eq!(manifest.layers().len(), 2);
    assert!(manifest.layers().iter().all(|layer| layer.digest() == &sha256(one)));
    assert_eq!(manifest.layers()[0].media_type(), &MediaType::ImageLayer);
}

#[tokio::test]
async fn archives_that_nobody_should_make() {
    let layers = layers();
    let config = config(&layers[..1]);
    let digest = sha256(b"right");
    let blob = format!("blobs/sha256/{}", digest.digest());
    let index = json!({ "schemaVersion": 2, "manifests": [{ "mediaType": MediaType::ImageManifest, "digest": digest, "size": 5 }] });
    let index = index.to_string();
    let layout: (&str, &[u8]) = ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let list = |config: &str, layer: &str| format!(r#"[{{"Config":"{config}","RepoTags":null,"Layers":["{layer}"]}}]"#);
    let huge = vec![b' '; 5 << 20];
    for (what, bytes, kind) in [
        ("other bytes", tar_of(&[(&blob, b"wrong")]), ErrorKind::Verification),
        (
            "a blob is missing",
            tar_of(&[layout, ("index.json", index.as_bytes())]),
            ErrorKind::Protocol,
        ),
        ("no list", tar_of(&[("a", b"b")]), ErrorKind::Protocol),
        ("nothing", Vec::new(), ErrorKind::Protocol),
        (
            "compressed",
            vec![0x1f, 0x8b, 8, 0].into_iter().chain(huge.clone()).collect(),
            ErrorKind::Protocol,
        ),
        ("a huge list", tar_of(&[("manifest.json", &huge)]), ErrorKind::Protocol),
        ("no JSON", tar_of(&[("manifest.json", b"{")]), ErrorKind::Protocol),
        (
            "a way out",
            tar_of(&[
                ("c", &config),
                ("l->../../../../etc/passwd", b""),
                ("manifest.json", list("c", "l").as_bytes()),
            ]),
            ErrorKind::Protocol,
        ),
        (
            "a circle",
            tar_of(&[
                ("c", &config),
                ("l->m", b""),
                ("m->l", b""),
                ("manifest.json", list("c", "l").as_bytes()),
            ]),
            ErrorKind::Protocol,
        ),
        (
            "too few layers",
            tar_of(&[
                ("c", &self::config(&layers)),
                ("l", b"x"),
                ("manifest.json", list("c", "l").as_bytes()),
            ]),
            ErrorKind::Protocol,
        ),
    ] {
        let store = Arc::new(MemoryStore::new());
        let error = load(&store, bytes).await.expect_err(what);
        assert_eq!(error.kind(), kind, "{what}: {error:?}");
        assert!(store.info(&digest).await.is_err(), "{what}");
        assert!(
            store.ingests().await.expect("a list").is_empty(),
            "{what}: nothing is left half"
        );
    }
}

#[tokio::test]
async fn cut_anywhere_it_is_an_error_or_whole() {
    let store = Arc::new(MemoryStore::new());
    let target = image(&store).await;
    let bytes = save(&store, &target).await;
    for n in 0..60 {
        let cut = bytes.len() * n / 60;
        let other = Arc::new(MemoryStore::new());
        match load(&other, bytes[..cut].to_vec()).await {
            // Only the end marker and padding were cut.
            Ok(loaded) => assert!(loaded[0].target == target && bytes.len() - cut <= 2048, "cut at {cut}"),
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Protocol),
                "cut at {cut}: {error:?}"
            ),
        }
        assert!(other.ingests().await.expect("a list").is_empty(), "cut at {cut}");
    }
}

fn skopeo(folder: &Path, from: &str, to: &str) {
    let ran = Command::new("skopeo")
        .arg("--tmpdir")
        .arg(folder)
        .args(["--insecure-policy", "copy", from, to])
        .current_dir(folder)
        .output()
        .expect("skopeo");
    assert!(
        ran.status.success(),
        "{from} to {to}: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[tokio::test]
async fn skopeo_reads_and_writes_them() {
    if let Err(why) = require_tool("skopeo") {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(MemoryStore::new());
    let target = image(&store).await;
    std::fs::write(folder.path().join("ours.tar"), save(&store, &target).await).expect("written");
    let config = sha256(&config(&layers()));
    skopeo(folder.path(), "docker-archive:ours.tar", "oci:one:1");
    skopeo(folder.path(), "oci-archive:ours.tar:7", "dir:two");
    skopeo(
        folder.path(),
        "oci:one:1",
        "docker-archive:theirs.tar:registry.example/app:3",
    );
    skopeo(folder.path(), "oci:one:1", "oci-archive:theirs-oci.tar:tag");
    for (file, name) in [("theirs.tar", "registry.example/app:3"), ("theirs-oci.tar", "tag")] {
        let other = Arc::new(MemoryStore::new());
        let opened = std::fs::File::open(folder.path().join(file)).expect("it is there");
        let loaded = load_archive(other.clone(), opened)
            .await
            .unwrap_or_else(|error| panic!("{file}: {error:?}"));
        assert_eq!(loaded[0].name.as_deref(), Some(name), "{file}");
        let manifest = other
            .read(loaded[0].target.digest(), 1 << 20)
            .await
            .expect("a manifest");
        let manifest: ImageManifest = serde_json::from_slice(&manifest).expect("a manifest");
        let bytes: Bytes = other.read(manifest.config().digest(), 1 << 20).await.expect("a config");
        let config_there: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(
            config_there["rootfs"]["diff_ids"][1],
            sha256(&layers()[1]).to_string(),
            "{file}"
        );
        assert_eq!(manifest.layers().len(), 2, "{file}");
    }
    let saved: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("two/manifest.json")).expect("a manifest"))
            .expect("JSON");
    assert_eq!(saved["config"]["digest"], config.to_string());
}
