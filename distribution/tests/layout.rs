//! Layouts that attack, and layouts of other tools.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use longshore_content::{ContentStore, MemoryStore};
use longshore_distribution::conformance::Sample;
use longshore_distribution::{
    Error, ErrorKind, Fetcher, OciLayout, Pull, PullOptions, Reference, Resolver, export_layout,
};
use serde_json::json;

const REF_NAME: &str = "org.opencontainers.image.ref.name";

fn name(text: &str) -> Reference {
    format!("layout.localhost/{text}").parse().expect("a reference")
}

async fn exported(sample: &Sample) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let store = sample.store().await;
    export_layout(&store, &sample.manifest.0, "1", folder.path())
        .await
        .expect("exported");
    folder
}

async fn pull(folder: &Path, reference: &str) -> Result<Arc<MemoryStore>, Error> {
    let store = Arc::new(MemoryStore::new());
    let content: Arc<dyn ContentStore> = store.clone();
    let layout = Arc::new(OciLayout::open(folder).await?);
    let pull = Pull::start(layout.into(), content, &name(reference), PullOptions::default()).await?;
    pull.finish().await?;
    Ok(store)
}

fn blob_path(folder: &Path, digest: &str) -> std::path::PathBuf {
    folder.join("blobs").join(digest.replacen(':', "/", 1))
}

fn write_index(folder: &Path, entries: serde_json::Value) {
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    std::fs::write(folder.join("index.json"), index.to_string()).expect("written");
}

#[tokio::test]
async fn what_was_exported_is_pulled() {
    let sample = Sample::new();
    let folder = exported(&sample).await;
    let store = pull(folder.path(), "app:1").await.expect("pulled");
    for (blob, _) in sample.blobs.iter().chain([&sample.manifest]) {
        store.info(blob.digest()).await.expect("it is here");
    }
}

#[tokio::test]
async fn links_and_special_files_are_refused() {
    let sample = Sample::new();
    let (layer, bytes) = &sample.blobs[1];
    let outside = tempfile::tempdir().expect("a folder");
    std::fs::write(outside.path().join("secret"), bytes).expect("written");
    for attack in ["link", "fifo", "folder"] {
        let folder = exported(&sample).await;
        let path = blob_path(folder.path(), layer.digest().as_ref());
        std::fs::remove_file(&path).expect("removed");
        match attack {
            "link" => symlink(outside.path().join("secret"), &path).expect("linked"),
            "fifo" => {
                let made = std::process::Command::new("mkfifo")
                    .arg(&path)
                    .status()
                    .expect("mkfifo");
                assert!(made.success());
            }
            _ => std::fs::create_dir(&path).expect("made"),
        }
        let error = pull(folder.path(), "app:1").await.expect_err(attack);
        assert_eq!(error.kind(), ErrorKind::Protocol, "{attack}: {error:?}");
    }
    // The same one level up.
    let folder = exported(&sample).await;
    let blobs = folder.path().join("blobs");
    std::fs::rename(&blobs, outside.path().join("blobs")).expect("moved");
    symlink(outside.path().join("blobs"), &blobs).expect("linked");
    let error = pull(folder.path(), "app:1").await.expect_err("a linked folder");
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error:?}");
}

#[tokio::test]
async fn damaged_and_missing_blobs_are_told() {
    let sample = Sample::new();
    let (layer, bytes) = &sample.blobs[1];
    let mut changed = bytes.to_vec();
    changed[1000] ^= 1;
    for (content, kind) in [
        (Some(changed), ErrorKind::Verification),
        (Some(bytes[..1000].to_vec()), ErrorKind::Unavailable),
        (Some([&bytes[..], b"more"].concat()), ErrorKind::Verification),
        (None, ErrorKind::NotFound),
    ] {
        let folder = exported(&sample).await;
        let path = blob_path(folder.path(), layer.digest().as_ref());
        std::fs::remove_file(&path).expect("removed");
        if let Some(content) = content {
            std::fs::write(&path, content).expect("written");
        }
        let error = pull(folder.path(), "app:1").await.expect_err("damaged");
        assert_eq!(error.kind(), kind, "{error:?}");
    }
}

#[tokio::test]
async fn what_is_no_layout_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = |path: &Path| OciLayout::open(path.to_owned());
    assert_eq!(
        open(&folder.path().join("none")).await.expect_err("none").kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        open(folder.path()).await.expect_err("empty").kind(),
        ErrorKind::NotFound
    );
    for (text, kind) in [
        ("{}", ErrorKind::Protocol),
        (r#"{"imageLayoutVersion":"2.0.0"}"#, ErrorKind::Protocol),
        (&" ".repeat(5000), ErrorKind::Protocol),
    ] {
        std::fs::write(folder.path().join("oci-layout"), text).expect("written");
        assert_eq!(open(folder.path()).await.expect_err(text).kind(), kind);
    }
    std::fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
    let layout = open(folder.path()).await.expect("a layout");
    assert_eq!(
        layout.resolve(&name("app:1")).await.expect_err("no index").kind(),
        ErrorKind::NotFound
    );
    std::fs::write(folder.path().join("index.json"), vec![b' '; 5 << 20]).expect("written");
    assert!(matches!(
        layout.resolve(&name("app:1")).await,
        Err(Error::TooLarge { .. })
    ));
}

#[tokio::test]
async fn tags_are_found_as_other_tools_write_them() {
    let sample = Sample::new();
    let folder = exported(&sample).await;
    let digest = sample.manifest.0.digest().to_string();
    let entry = |tag: &str| {
        let mut entry = serde_json::to_value(&sample.manifest.0).expect("JSON");
        if !tag.is_empty() {
            entry["annotations"] = json!({ REF_NAME: tag });
        }
        entry
    };
    let layout = OciLayout::open(folder.path()).await.expect("a layout");
    for (entries, wanted, found) in [
        (json!([entry("a"), entry("b")]), "app:b", true),
        (json!([entry("a"), entry("b")]), "app:c", false),
        (json!([entry("a"), entry("b")]), "app", false),
        (json!([entry("a")]), "app", true),
        (json!([entry("a")]), "app:c", false),
        (json!([entry("")]), "app:c", true),
        // Podman writes the whole name.
        (
            json!([entry("layout.localhost/app:x"), entry("layout.localhost/app:y")]),
            "app:y",
            true,
        ),
        (json!([]), "app", false),
    ] {
        write_index(folder.path(), entries.clone());
        match layout.resolve(&name(wanted)).await {
            Ok(resolved) => assert!(
                found && resolved.descriptor.digest().as_ref() == digest,
                "{wanted} in {entries}"
            ),
            Err(error) => assert!(
                !found && error.kind() == ErrorKind::NotFound,
                "{wanted} in {entries}: {error}"
            ),
        }
    }
}

#[tokio::test]
async fn an_index_in_a_layout_is_chosen_from() {
    let sample = Sample::new();
    let folder = exported(&sample).await;
    let mut entry = serde_json::to_value(&sample.manifest.0).expect("JSON");
    let host = longshore_distribution::host_platform();
    entry["platform"] = json!({ "os": host.os().to_string(), "architecture": host.architecture().to_string() });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
    let digest = longshore_content::sha256(index.as_bytes()).to_string();
    std::fs::write(blob_path(folder.path(), &digest), &index).expect("written");
    let media_type = "application/vnd.oci.image.index.v1+json";
    write_index(
        folder.path(),
        json!([{ "mediaType": media_type, "digest": digest, "size": index.len() }]),
    );
    let store = pull(folder.path(), "app:1").await.expect("pulled");
    store.info(sample.manifest.0.digest()).await.expect("it is here");
}

#[tokio::test]
async fn a_part_can_be_read() {
    let sample = Sample::new();
    let folder = exported(&sample).await;
    let (layer, bytes) = &sample.blobs[1];
    let layout = OciLayout::open(folder.path()).await.expect("a layout");
    let fetched = layout.fetch(&name("app:1"), layer, 299_000).await.expect("a part");
    assert_eq!(fetched.offset, 299_000);
    let pieces: Vec<_> = fetched.stream.try_collect().await.expect("all");
    assert_eq!(pieces.concat(), bytes[299_000..]);
}
