//! Images that are pushed, named, loaded, saved and converted.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use longshore::content::{ContentStoreExt, sha256};
use longshore::distribution::{Anonymous, PushEvent, PushProgress, media};
use longshore::events::Recorder;
use longshore::snapshot::{Compression, Compressor};
use longshore::{Engine, ErrorKind, Extent};
use longshore_examples::host_image;
use longshore_registry::{Auth, Registry, RunningRegistry};
use longshore_testing::require_root;
use serde_json::{Value, json};
use support::Site;

async fn registry() -> RunningRegistry {
    Registry::builder().serve("127.0.0.1:0").await.expect("a registry")
}

/// Collects what is told of a push, as words.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<&'static str>>);

impl PushProgress for Told {
    fn event(&self, event: PushEvent<'_>) {
        let word = match event {
            PushEvent::Planned { .. } => "planned",
            PushEvent::Started { .. } => "started",
            PushEvent::Bytes { .. } => "bytes",
            PushEvent::Present { .. } => "present",
            PushEvent::Mounted { .. } => "mounted",
            PushEvent::Sent { .. } => "sent",
            _ => "other",
        };
        self.0.lock().expect("no panic").push(word);
    }
}

impl Told {
    fn count(&self, word: &str) -> usize {
        self.0
            .lock()
            .expect("no panic")
            .iter()
            .filter(|told| **told == word)
            .count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_image_is_the_same_when_it_comes_back() {
    let Some(Site {
        engine,
        image,
        folder: _folder,
    }) = Site::open().await
    else {
        return;
    };
    let events = Recorder::new();
    let engine = Engine {
        sinks: vec![Arc::new(events.clone())],
        ..engine
    };
    let registry = registry().await;
    let name = format!("{}/team/app:1", registry.host());
    let tagged = engine.tag(image.name(), &name).await.expect("named");
    assert_eq!((tagged.name(), tagged.target()), (name.as_str(), image.target()));
    assert_eq!(events.topics(), ["/images/create"]);
    engine.tag(image.name(), &name).await.expect("again");
    assert_eq!(events.topics().len(), 1, "nothing has changed");

    let told = Arc::new(Told::default());
    let pushed = engine.push(&name, &name).progress(told.clone()).await.expect("pushed");
    assert_eq!(
        registry.resolve("team/app", "1").as_ref(),
        Some(image.target().digest())
    );
    assert_eq!((pushed.extent, pushed.present, pushed.mounted), (Extent::Whole, 0, 0));
    let whole = image.size() + image.target().size() + image.manifest().config().size();
    assert_eq!(pushed.sent, whole);
    let parts = image.manifest().layers().len() + 2;
    assert_eq!(
        (told.count("planned"), told.count("started"), told.count("sent")),
        (1, parts, parts)
    );
    assert!(told.count("bytes") >= parts);

    // What is there is not sent again, and another repository of the registry takes it over.
    let again = engine.push(&name, &name).await.expect("pushed again");
    assert_eq!((again.sent, again.present), (0, whole));
    let told = Arc::new(Told::default());
    let other = format!("{}/other/app:2", registry.host());
    let taken = engine
        .push(image.name(), &other)
        .progress(told.clone())
        .await
        .expect("pushed");
    assert_eq!(
        (taken.mounted, taken.sent),
        (whole - image.target().size(), image.target().size())
    );
    assert_eq!(told.count("mounted"), parts - 1);

    let folder = tempfile::tempdir().expect("a folder");
    let reader = Engine::open(folder.path()).await.expect("an engine");
    let back = reader.pull(&other).await.expect("pulled");
    assert_eq!(
        (back.target().digest(), back.chain_id()),
        (image.target().digest(), image.chain_id())
    );
    let missing = engine
        .push("nowhere.example/x", &other)
        .await
        .expect_err("it is not here");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_logged_in_is_told_how() {
    let Some((folder, engine, image)) = Site::parts().await else {
        return;
    };
    drop(engine);
    let auth = Auth::bearer("me", "secret");
    let registry = Registry::builder()
        .auth(auth)
        .serve("127.0.0.1:0")
        .await
        .expect("a registry");
    let builder = Engine::builder(folder.path()).credentials(Arc::new(Anonymous));
    let engine = builder.open().await.expect("an engine");
    let name = format!("{}/team/app:1", registry.host());
    let error = engine.push(image.name(), name).await.expect_err("no login");
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    let told = std::error::Error::source(&error).expect("a cause").to_string();
    let how = format!("docker login {}", registry.host());
    assert!(
        told.contains("no login for it is known") && told.contains(&how),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn saved_images_are_the_same_when_they_are_loaded() {
    let Some((folder, engine, image)) = Site::parts().await else {
        return;
    };
    let second = engine.tag(image.name(), "second.example/a:2").await.expect("named");
    let path = folder.path().join("images.tar");
    let names = [image.name(), second.name()];
    engine
        .save(names, File::create(&path).expect("a file"))
        .await
        .expect("saved");
    let mut plain = Vec::new();
    File::open(&path)
        .expect("the file")
        .read_to_end(&mut plain)
        .expect("read");
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let mut packed = Compressor::new(compression, Vec::new()).expect("a compressor");
        packed.write_all(&plain).expect("packed");
        let packed = packed.finish().expect("packed");
        let other = tempfile::tempdir().expect("a folder");
        let events = Recorder::new();
        let reader = Engine::builder(other.path()).sink(Arc::new(events.clone())).open();
        let reader = reader.await.expect("an engine");
        let loaded = reader.load(std::io::Cursor::new(packed.clone())).await.expect("loaded");
        let found: Vec<_> = loaded
            .iter()
            .map(|image| (image.name(), image.target().digest()))
            .collect();
        assert_eq!(found, names.map(|name| (name, image.target().digest())));
        assert_eq!(loaded[0].chain_id(), image.chain_id());
        let count = |topic| events.topics().iter().filter(|told| **told == topic).count();
        assert_eq!(count("/images/create"), 2);
        assert_eq!(count("/content/create"), image.manifest().layers().len() + 2);
        // What was loaded is held by its name, and by nothing else.
        reader.collect().await.expect("collected");
        assert_eq!(
            reader.image(names[0]).await.expect("it is here").target(),
            image.target()
        );
        reader.load(std::io::Cursor::new(packed)).await.expect("loaded again");
        assert_eq!(count("/images/create"), 2, "nothing has changed");
        for name in names {
            reader.remove_image(name).await.expect("removed");
        }
        reader.collect().await.expect("collected");
        let verified = reader.verify_content(|verifier| verifier).await.expect("verified");
        assert_eq!(verified.blobs, 0, "no lease stays behind");
    }
    let error = engine.load(&b"this is no archive"[..]).await.expect_err("no archive");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let half = plain[..plain.len() / 2].to_vec();
    engine
        .load(std::io::Cursor::new(half))
        .await
        .expect_err("half an archive");

    // The same by a layout, in which there are tags only.
    let layout = folder.path().join("layout");
    engine.save_layout(image.name(), &layout).await.expect("saved");
    let other = tempfile::tempdir().expect("a folder");
    let reader = Engine::open(other.path()).await.expect("an engine");
    let loaded = reader
        .load_layout(&layout)
        .repository("mine.example/app")
        .await
        .expect("loaded");
    let found: Vec<_> = loaded
        .iter()
        .map(|image| (image.name(), image.target().digest()))
        .collect();
    assert_eq!(found, [("mine.example/app:latest", image.target().digest())]);
    let error = engine
        .save(["nowhere.example/x"], std::io::sink())
        .await
        .expect_err("it is not here");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_converted_image_has_the_same_files() {
    let Some(Site {
        engine,
        image,
        folder: _folder,
    }) = Site::open().await
    else {
        return;
    };
    let zstd = engine
        .convert(image.name(), "converted.example/a:zstd")
        .compression(Compression::Zstd);
    let zstd = zstd.await.expect("converted");
    assert_ne!(zstd.target().digest(), image.target().digest());
    assert_eq!((zstd.chain_id(), zstd.config()), (image.chain_id(), image.config()));
    assert_eq!(zstd.manifest().config(), image.manifest().config());
    for layer in zstd.manifest().layers() {
        assert_eq!(
            layer.media_type().as_ref(),
            "application/vnd.oci.image.layer.v1.tar+zstd"
        );
    }
    let again = engine
        .convert(image.name(), "converted.example/a:again")
        .compression(Compression::Zstd);
    assert_eq!(
        again.await.expect("converted").target(),
        zstd.target(),
        "the same gives the same"
    );
    let nothing = engine
        .convert(zstd.name(), "converted.example/a:same")
        .compression(Compression::Zstd);
    assert_eq!(nothing.await.expect("nothing to do").target(), zstd.target());
    let plain = engine
        .convert(zstd.name(), "converted.example/a:plain")
        .compression(Compression::None);
    let plain = plain.await.expect("converted");
    let diff_ids: Vec<_> = plain
        .manifest()
        .layers()
        .iter()
        .map(|layer| layer.digest().to_string())
        .collect();
    assert_eq!(&diff_ids, image.config().rootfs().diff_ids());

    // It comes back from a registry, and only its names hold it.
    let registry = registry().await;
    let name = format!("{}/a:zstd", registry.host());
    engine.push(zstd.name(), &name).await.expect("pushed");
    let folder = tempfile::tempdir().expect("a folder");
    let reader = Engine::open(folder.path()).await.expect("an engine");
    assert_eq!(reader.pull(&name).await.expect("pulled").chain_id(), image.chain_id());
    for tag in ["zstd", "again", "same", "plain"] {
        engine
            .remove_image(&format!("converted.example/a:{tag}"))
            .await
            .expect("removed");
    }
    let report = engine.collect().await.expect("collected");
    assert!(!report.removed.is_empty());
    let verified = engine.verify_content(|verifier| verifier).await.expect("verified");
    assert_eq!(verified.blobs as usize, image.manifest().layers().len() + 2);
}

/// Puts the host's image into a registry in Docker's format, behind a list that also names an image that is nowhere.
async fn put_dockers(registry: &RunningRegistry) {
    let image = host_image::build().expect("an image");
    for (_, bytes) in &image.blobs {
        registry.put_blob(bytes.clone()).await.expect("a blob");
    }
    let mut manifest: Value = serde_json::from_slice(&image.manifest.1).expect("JSON");
    manifest["mediaType"] = media::DOCKER_MANIFEST.into();
    manifest["config"]["mediaType"] = media::DOCKER_CONFIG.into();
    for layer in manifest["layers"].as_array_mut().expect("layers") {
        layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
    }
    let bytes = Bytes::from(manifest.to_string());
    let put = registry.put_manifest("docker", None, media::DOCKER_MANIFEST, bytes.clone());
    put.await.expect("a manifest");
    let here = longshore::distribution::host_platform();
    let entry = |digest: String, architecture: &str| {
        json!({
            "mediaType": media::DOCKER_MANIFEST, "digest": digest, "size": bytes.len(),
            "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let other = Bytes::from(manifest.to_string() + " ");
    let put = registry.put_manifest("docker", None, media::DOCKER_MANIFEST, other.clone());
    put.await.expect("another manifest");
    let mut elsewhere = entry(sha256(&other).to_string(), "mips64le");
    elsewhere["size"] = other.len().into();
    let list = json!({
        "schemaVersion": 2, "mediaType": media::DOCKER_MANIFEST_LIST,
        "manifests": [elsewhere, entry(sha256(&bytes).to_string(), here.architecture().to_string().as_str())],
    });
    let put = registry.put_manifest("docker", Some("1"), media::DOCKER_MANIFEST_LIST, list.to_string());
    put.await.expect("a list");
}

#[tokio::test(flavor = "multi_thread")]
async fn dockers_lists_become_indexes_of_what_is_here() {
    if let Err(why) = require_root() {
        return longshore_testing::skip(&why);
    }
    let registry = registry().await;
    put_dockers(&registry).await;
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::open(folder.path()).await.expect("an engine");
    let name = format!("{}/docker:1", registry.host());
    let image = engine.pull(&name).await.expect("pulled");
    assert_ne!(
        image.target().digest(),
        image.manifest_descriptor().digest(),
        "it is behind a list"
    );

    // The list names what is not here: what is here is pushed alone.
    let alone = format!("{}/alone:1", registry.host());
    let pushed = engine.push(&name, &alone).await.expect("pushed");
    assert_eq!(pushed.extent, Extent::OnePlatform);
    assert_eq!(pushed.target.digest(), image.manifest_descriptor().digest());

    let oci = engine
        .convert(&name, "converted.example/docker:oci")
        .oci()
        .await
        .expect("converted");
    assert_eq!(
        oci.target().media_type().as_ref(),
        "application/vnd.oci.image.index.v1+json"
    );
    assert_eq!(
        oci.manifest_descriptor().media_type().as_ref(),
        "application/vnd.oci.image.manifest.v1+json"
    );
    let config = oci.manifest().config();
    assert_eq!(config.media_type().as_ref(), "application/vnd.oci.image.config.v1+json");
    assert_eq!(config.digest(), image.manifest().config().digest());
    assert_eq!(oci.chain_id(), image.chain_id());
    let layers = |image: &longshore::Image| {
        image
            .manifest()
            .layers()
            .iter()
            .map(|layer| layer.digest().clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(layers(&oci), layers(&image), "their bytes are the same");
    let whole = format!("{}/whole:1", registry.host());
    let pushed = engine.push(oci.name(), &whole).await.expect("pushed");
    assert_eq!((pushed.extent, &pushed.target), (Extent::Whole, oci.target()));

    // Without telling otherwise Docker's stays Docker's.
    let plain = engine
        .convert(&name, "converted.example/docker:plain")
        .compression(Compression::None);
    let plain = plain.await.expect("converted");
    assert_eq!(
        plain.manifest_descriptor().media_type().as_ref(),
        media::DOCKER_MANIFEST
    );
    let bytes = engine
        .content
        .read(plain.manifest_descriptor().digest(), 1 << 20)
        .await
        .expect("a manifest");
    let layer: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(
        layer["layers"][0]["mediaType"],
        "application/vnd.docker.image.rootfs.diff.tar"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_refers_to_an_image_is_listed() {
    let Some(Site {
        engine,
        image,
        folder: _folder,
    }) = Site::open().await
    else {
        return;
    };
    let registry = registry().await;
    let name = format!("{}/app:1", registry.host());
    engine.push(image.name(), &name).await.expect("pushed");
    let empty = Bytes::from_static(b"{}");
    registry.put_blob(empty.clone()).await.expect("a blob");
    let blob = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(&empty), "size": 2 });
    let artifact = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "application/spdx+json",
        "config": blob, "layers": [blob], "subject": image.target(),
    });
    let bytes = Bytes::from(artifact.to_string());
    let put = registry.put_manifest("app", None, "application/vnd.oci.image.manifest.v1+json", bytes.clone());
    put.await.expect("an artifact");
    let found = engine.referrers(&name, None).await.expect("a list");
    assert_eq!(
        found.iter().map(|one| one.digest().clone()).collect::<Vec<_>>(),
        [sha256(&bytes)]
    );
    let found = engine
        .referrers(&name, Some("application/other"))
        .await
        .expect("a list");
    assert_eq!(found, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_platforms_come_when_they_are_asked_for() {
    if let Err(why) = require_root() {
        return longshore_testing::skip(&why);
    }
    let registry = registry().await;
    put_dockers(&registry).await;
    let folder = tempfile::tempdir().expect("a folder");
    let open = async |name: &str| Engine::open(folder.path().join(name)).await.expect("an engine");
    let whole = async |engine: &Engine, image: &longshore::Image| {
        let index = engine
            .content
            .read(image.target().digest(), 1 << 20)
            .await
            .expect("an index");
        let index: Value = serde_json::from_slice(&index).expect("JSON");
        let mut here = 0;
        for manifest in index["manifests"].as_array().expect("manifests") {
            let digest = manifest["digest"].as_str().expect("text").parse().expect("a digest");
            here += usize::from(engine.content.info(&digest).await.is_ok());
        }
        here
    };

    let engine = open("pulled").await;
    let name = format!("{}/docker:1", registry.host());
    let one = engine.pull(&name).await.expect("pulled");
    assert_eq!(whole(&engine, &one).await, 1);
    let all = engine.pull(&name).all_platforms().await.expect("pulled");
    assert_eq!(whole(&engine, &all).await, 2);
    assert_eq!((all.target(), all.chain_id()), (one.target(), one.chain_id()));
    // They are the image's, and stay.
    engine.collect().await.expect("collected");
    assert_eq!(whole(&engine, &all).await, 2);
    let pushed = engine.push(&name, format!("{}/whole:1", registry.host())).await;
    assert_eq!(pushed.expect("pushed").extent, Extent::Whole);

    let layout = folder.path().join("layout");
    engine.save_layout(&name, &layout).await.expect("saved");
    for (other, asked, count) in [("one", false, 1), ("all", true, 2)] {
        let other = open(other).await;
        let load = other.load_layout(&layout);
        let images = match asked {
            true => load.all_platforms().await,
            false => load.await,
        };
        let images = images.expect("loaded");
        assert_eq!(images.len(), 1);
        assert_eq!(images[0].target().digest(), all.target().digest());
        assert_eq!(whole(&other, &images[0]).await, count);
        let leases = other
            .metadata
            .list(&other.namespace, longshore_metadata::Kind::Lease)
            .await;
        assert!(leases.expect("leases").is_empty(), "nothing is held any more");
    }
}
