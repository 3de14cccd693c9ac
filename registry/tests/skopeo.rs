//! Side by side with skopeo and umoci: an image that umoci made, pushed by skopeo and pulled back, is the same.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
use std::path::Path;
use std::process::{Command, Output};

use longshore_registry::{Auth, Registry, RunningRegistry};
use serde_json::Value;

/// Whether a tool is here; says so when it is not.
fn have(tool: &str) -> bool {
    let there = Command::new(tool)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !there {
        longshore_testing::skip(&format!("{tool} is not installed"));
    }
    there
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{program} {arguments:?}: {out}{err}");
    output
}

/// An OCI layout with one image of three layers.
fn make_image(directory: &Path) -> String {
    let layout = directory.join("layout");
    let layout = layout.to_str().unwrap();
    run("umoci", &["init", "--layout", layout]);
    let image = format!("{layout}:latest");
    run("umoci", &["new", "--image", &image]);
    for (number, size) in [10, 100_000, 3_000_000].into_iter().enumerate() {
        let file = directory.join(format!("file{number}"));
        let bytes: Vec<u8> = (0..size)
            .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        std::fs::write(&file, bytes).unwrap();
        run(
            "umoci",
            &[
                "insert",
                "--rootless",
                "--image",
                &image,
                file.to_str().unwrap(),
                &format!("/file{number}"),
            ],
        );
    }
    layout.to_owned()
}

fn manifest_digest(layout: &Path) -> String {
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

async fn skopeo(arguments: Vec<String>) -> Output {
    tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run("skopeo", &arguments)
    })
    .await
    .unwrap()
}

async fn there_and_back(registry: &RunningRegistry, credentials: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let layout = make_image(directory.path());
    let remote = format!("docker://{}/some/image:1.0", registry.host());
    let copy = |from: &str, to: &str, side: &str| {
        let mut arguments: Vec<String> = ["--insecure-policy", "copy", "--preserve-digests"]
            .map(Into::into)
            .into();
        arguments.push(format!("--{side}-tls-verify=false"));
        if let [user, password] = credentials {
            arguments.push(format!("--{side}-creds={user}:{password}"));
        }
        arguments.extend([from.to_owned(), to.to_owned()]);
        skopeo(arguments)
    };
    copy(&format!("oci:{layout}:latest"), &remote, "dest").await;
    let pushed = manifest_digest(Path::new(&layout));
    assert_eq!(registry.resolve("some/image", "1.0").unwrap().as_ref(), pushed);

    let back = directory.path().join("back");
    copy(&remote, &format!("oci:{}:latest", back.display()), "src").await;
    assert_eq!(manifest_digest(&back), pushed);
    for blob in std::fs::read_dir(Path::new(&layout).join("blobs/sha256")).unwrap() {
        let name = blob.unwrap().file_name();
        let there = back.join("blobs/sha256").join(&name);
        // umoci leaves manifests of former states in its layout; what was pulled must be equal.
        if there.exists() {
            let original = std::fs::read(Path::new(&layout).join("blobs/sha256").join(&name)).unwrap();
            assert_eq!(std::fs::read(there).unwrap(), original);
        }
    }
    assert_eq!(
        std::fs::read_dir(back.join("blobs/sha256")).unwrap().count(),
        5,
        "three layers, config, manifest"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn push_and_pull() {
    if !have("skopeo") || !have("umoci") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let content = longshore_content::LocalStore::open(directory.path()).await.unwrap();
    let registry = Registry::builder()
        .content(std::sync::Arc::new(content))
        .serve("127.0.0.1:0")
        .await
        .unwrap();
    there_and_back(&registry, &[]).await;

    // A second push finds all blobs there.
    registry.clear_requests();
    let again = tempfile::tempdir().unwrap();
    let layout = make_image(again.path());
    let remote = format!("docker://{}/some/image:1.0", registry.host());
    let from = format!("oci:{layout}:latest");
    skopeo(
        ["--insecure-policy", "copy", "--dest-tls-verify=false", &from, &remote]
            .map(Into::into)
            .into(),
    )
    .await;
    assert!(!registry.requests().is_empty());

    let tags = skopeo(
        [
            "list-tags",
            "--tls-verify=false",
            &format!("docker://{}/some/image", registry.host()),
        ]
        .map(Into::into)
        .into(),
    );
    let tags: Value = serde_json::from_slice(&tags.await.stdout).unwrap();
    assert_eq!(tags["Tags"], serde_json::json!(["1.0"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_basic_authentication() {
    if !have("skopeo") || !have("umoci") {
        return;
    }
    let registry = Registry::builder()
        .auth(Auth::basic("me", "secret"))
        .serve("127.0.0.1:0")
        .await
        .unwrap();
    there_and_back(&registry, &["me", "secret"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens() {
    if !have("skopeo") || !have("umoci") {
        return;
    }
    let registry = Registry::builder()
        .auth(Auth::bearer("me", "secret"))
        .serve("127.0.0.1:0")
        .await
        .unwrap();
    there_and_back(&registry, &["me", "secret"]).await;
    let paths: Vec<String> = registry.requests().into_iter().map(|request| request.path).collect();
    assert!(paths.iter().any(|path| path == "/token"), "{paths:?}");
}
