//! Bad input, each with the message that a user gets; and nothing half-made is left behind.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use longshore::bundle::Bundle;
use longshore::content::{MemoryStore, sha256};
use longshore::oci_spec::image::{
    Arch, Descriptor, DescriptorBuilder, ImageConfigurationBuilder, ImageIndexBuilder, ImageManifestBuilder, MediaType,
    Os, PlatformBuilder, RootFsBuilder, SCHEMA_VERSION,
};
use longshore::{Engine, ErrorKind};
use longshore_registry::{Fault, FaultScript, Registry, RunningRegistry};
use longshore_testing::{require_root, skip};

async fn registry(faults: FaultScript) -> RunningRegistry {
    let registry = Registry::builder().content(Arc::new(MemoryStore::new())).faults(faults);
    registry.serve("127.0.0.1:0").await.expect("a registry")
}

/// Puts an image of one uncompressed layer into the registry as `app:1`.
async fn put_image(registry: &RunningRegistry, layer: Vec<u8>) -> Descriptor {
    let digest = registry.put_blob(layer.clone()).await.expect("a layer");
    let layer = Descriptor::new(MediaType::ImageLayer, layer.len() as u64, digest);
    let rootfs = RootFsBuilder::default()
        .typ("layers".to_owned())
        .diff_ids(vec![layer.digest().to_string()]);
    let config = ImageConfigurationBuilder::default()
        .architecture(Arch::default())
        .os(Os::default())
        .rootfs(rootfs.build().expect("rootfs"))
        .history(Vec::new())
        .build()
        .expect("a config");
    let config = serde_json::to_vec(&config).expect("JSON");
    let digest = registry.put_blob(config.clone()).await.expect("a config");
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(Descriptor::new(MediaType::ImageConfig, config.len() as u64, digest))
        .layers(vec![layer])
        .build()
        .expect("a manifest");
    let bytes = serde_json::to_vec(&manifest).expect("JSON");
    let media_type = MediaType::ImageManifest.to_string();
    let size = bytes.len() as u64;
    let digest = registry
        .put_manifest("app", Some("1"), &media_type, bytes)
        .await
        .expect("a manifest");
    Descriptor::new(MediaType::ImageManifest, size, digest)
}

/// A layer of one file under a name that the `tar` crate would refuse to write.
fn layer_with(name: &[u8], link: Option<&[u8]>) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_entry_type(if link.is_some() {
        tar::EntryType::Link
    } else {
        tar::EntryType::Regular
    });
    header.set_size(if link.is_some() { 0 } else { 5 });
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    if let Some(link) = link {
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    if link.is_none() {
        bytes.extend_from_slice(b"evil\n");
        bytes.resize(1024, 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// The whole chain of an error, as a program prints it.
fn told(error: longshore::Error) -> String {
    let text = format!("{:#}", anyhow::Error::from(error));
    eprintln!("{text}");
    text
}

async fn assert_nothing_registered(engine: &Engine) {
    assert!(
        engine.images().await.expect("a list").is_empty(),
        "a broken image is registered"
    );
    assert!(
        engine.snapshotter.walk().await.expect("a list").is_empty(),
        "a snapshot of it is left"
    );
}

async fn pull_fails(engine: &Engine, name: &str) -> (ErrorKind, String) {
    let error = engine.pull(name).await.expect_err("this must fail");
    (error.kind(), told(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registrys_faults_are_told() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::open(folder.path()).await.expect("an engine");
    let faults = FaultScript::new();
    let registry = registry(faults.clone()).await;
    let good = layer_with(b"file", None);
    put_image(&registry, good.clone()).await;
    let (host, layer) = (registry.host(), sha256(&good));

    let (kind, text) = pull_fails(&engine, &format!("{host}/app:no-such-tag")).await;
    assert!(
        kind == ErrorKind::NotFound && text.contains("no-such-tag") && text.contains(&host),
        "{text}"
    );

    let (kind, text) = pull_fails(&engine, "UPPER CASE").await;
    assert!(kind == ErrorKind::Invalid && text.contains("UPPER CASE"), "{text}");

    faults.add(format!("/blobs/{layer}"), Fault::CorruptAt(700));
    let (kind, text) = pull_fails(&engine, &format!("{host}/app:1")).await;
    assert!(
        kind == ErrorKind::Verification && text.contains(&layer.to_string()),
        "{text}"
    );
    let blobs: Vec<_> = engine
        .content
        .walk()
        .map(|info| info.expect("an info").digest)
        .collect()
        .await;
    assert!(!blobs.contains(&layer), "the wrong bytes are visible");
    assert_nothing_registered(&engine).await;

    faults.clear();
    faults.add(format!("/blobs/{layer}"), Fault::CutAfter(600)).times(1);
    faults.add(format!("/blobs/{layer}"), Fault::CutAfter(0));
    let (kind, text) = pull_fails(&engine, &format!("{host}/app:1")).await;
    assert!(kind == ErrorKind::Unavailable && text.contains(&host), "{text}");
    assert_nothing_registered(&engine).await;

    faults.clear();
    engine
        .pull(format!("{host}/app:1"))
        .await
        .expect("once the registry is well, all is");
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_try_to_escape_are_refused_or_contained() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let outside = tempfile::tempdir().expect("a folder");
    let canary = outside.path().join("canary");
    std::fs::write(&canary, "untouched").expect("a canary");
    for (name, link) in [
        (b"../../etc/passwd".to_vec(), None),
        (b"a/../../../../../../../../../tmp/x".to_vec(), None),
        (b"link".to_vec(), Some(b"../../../../../../../../etc/passwd".to_vec())),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = Engine::open(folder.path()).await.expect("an engine");
        let registry = registry(FaultScript::new()).await;
        put_image(&registry, layer_with(&name, link.as_deref())).await;
        let (kind, text) = pull_fails(&engine, &format!("{}/app:1", registry.host())).await;
        let entry = String::from_utf8_lossy(link.as_deref().unwrap_or(&name)).into_owned();
        assert!(
            kind == ErrorKind::Invalid && text.contains(&entry) && text.contains("leaves the root"),
            "{text}"
        );
        assert_nothing_registered(&engine).await;
    }
    // An absolute name, and one below a symbolic link that points outside, are taken as inside the root, as every engine does.
    let absolute = layer_with(canary.as_os_str().as_encoded_bytes(), None);
    for layer in [absolute, layer_below_a_link(outside.path())] {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = Engine::open(folder.path()).await.expect("an engine");
        let registry = registry(FaultScript::new()).await;
        put_image(&registry, layer).await;
        engine
            .pull(format!("{}/app:1", registry.host()))
            .await
            .expect("contained");
        assert_eq!(std::fs::read_to_string(&canary).expect("the canary"), "untouched");
    }
}

/// A link `way` to a directory outside, and a file `way/canary`.
fn layer_below_a_link(outside: &Path) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    tar.append_link(&mut header, "way", outside).expect("a link");
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    tar.append_data(
        &mut header,
        "way/canary",
        &b"evil
"[..],
    )
    .expect("a file");
    tar.into_inner().expect("a layer")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_for_other_machines_is_told_with_what_there_is() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::open(folder.path()).await.expect("an engine");
    let registry = registry(FaultScript::new()).await;
    let manifest = put_image(&registry, layer_with(b"file", None)).await;
    let platform = PlatformBuilder::default()
        .os(Os::Windows)
        .architecture(Arch::Mips)
        .build()
        .expect("a platform");
    let entry = DescriptorBuilder::default()
        .media_type(MediaType::ImageManifest)
        .size(manifest.size())
        .digest(manifest.digest().clone())
        .platform(platform)
        .build()
        .expect("an entry");
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(vec![entry])
        .build()
        .expect("an index");
    let bytes = Bytes::from(serde_json::to_vec(&index).expect("JSON"));
    registry
        .put_manifest("app", Some("2"), MediaType::ImageIndex.as_ref(), bytes)
        .await
        .expect("an index");
    let (kind, text) = pull_fails(&engine, &format!("{}/app:2", registry.host())).await;
    assert!(
        kind == ErrorKind::Unsupported && text.contains("windows/mips"),
        "{text}"
    );
    assert_nothing_registered(&engine).await;
}

#[test]
fn a_config_json_with_an_unknown_value_names_the_field() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = r#"{"ociVersion": "1.0.2", "linux": {"seccomp": {"defaultAction": "SCMP_ACT_MAYBE"}}}"#;
    std::fs::write(folder.path().join("config.json"), text).expect("a config.json");
    let error = format!(
        "{:#}",
        anyhow::Error::from(Bundle::load(folder.path()).expect_err("an unknown action"))
    );
    eprintln!("{error}");
    assert!(
        error.contains("linux.seccomp.defaultAction") && error.contains("SCMP_ACT_MAYBE"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_held_is_told() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let _engine = Engine::open(folder.path()).await.expect("the first");
    let error = Engine::open(folder.path()).await.expect_err("the second");
    assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
    let text = told(error);
    assert!(
        text.contains(&std::process::id().to_string()),
        "the holder is named: {text}"
    );
}

/// Runs quickstart under `bash -c script` as given, where `$QUICKSTART` is the program and `$ROOT` a folder.
fn run_quickstart(script: &str, root: &Path) -> String {
    let program = root.join("quickstart");
    longshore_testing::copy_program(env!("CARGO_BIN_EXE_quickstart"), &program).expect("a copy of the program");
    let output = Command::new("bash")
        .args(["-euc", script])
        .env("QUICKSTART", &program)
        .env("ROOT", root)
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    eprintln!("{text}");
    assert!(
        !output.status.success(),
        "it worked: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    text
}

#[test]
fn a_full_disk_is_told() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    // Too small for the layers, and then too small for what they unpack to.
    for size in ["3m", "9m"] {
        let script = format!(
            "mkdir -p $ROOT/small; exec unshare -m bash -euc 'mount -t tmpfs -o size={size} none $ROOT/small; \
             LONGSHORE_ROOT=$ROOT/small/engine exec $QUICKSTART'"
        );
        let text = run_quickstart(&script, folder.path());
        assert!(
            text.contains("No space left on device") && text.contains("/small/engine/"),
            "{size}: {text}"
        );
    }
}

#[test]
fn a_root_without_permission_is_told() {
    if let Err(why) = require_root() {
        return skip(&format!("{why} to become an ordinary user"));
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("roots")).expect("a folder of root's");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("a mode");
    let script =
        "LONGSHORE_ROOT=$ROOT/roots/engine exec setpriv --reuid 65534 --regid 65534 --clear-groups $QUICKSTART";
    let text = run_quickstart(script, folder.path());
    assert!(
        text.contains("Permission denied") && text.contains("/roots/engine"),
        "{text}"
    );
}
