//! What an engine is told of registries before it is opened.

use std::sync::Arc;

use longshore::Engine;
use longshore::ErrorKind;
use longshore::distribution::{Anonymous, DockerConfig, Host, Hosts};
use longshore::events::Recorder;
use longshore_examples::host_image;
use longshore_registry::{Auth, Registry};
use longshore_testing::{require_root, skip};

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_and_logins_are_the_programs_or_the_users() {
    if let Err(why) = require_root() {
        return skip(&why);
    }
    let auth = Auth::basic("me", "secret");
    let registry = Registry::builder()
        .auth(auth)
        .serve("127.0.0.1:0")
        .await
        .expect("a registry");
    let image = host_image::build().expect("an image");
    for (_, bytes) in &image.blobs {
        registry.put_blob(bytes.clone()).await.expect("a blob");
    }
    let (manifest, bytes) = image.manifest;
    let put = registry.put_manifest("team/app", Some("1"), manifest.media_type().as_ref(), bytes);
    put.await.expect("a manifest");

    // The registry is reached as another one's mirror, and podman's login is for a part of it.
    let folder = tempfile::tempdir().expect("a folder");
    let auths = format!(
        r#"{{"auths":{{"{0}/team":{{"auth":"bWU6c2VjcmV0"}},"{0}":{{"auth":"bWU6d3Jvbmc="}}}}}}"#,
        registry.host()
    );
    std::fs::write(folder.path().join("auth.json"), auths).expect("a file");
    let mirror = Host::new(&registry.url()).expect("a host");
    let hosts = Hosts::new().with("registry.example", [mirror]);
    let seen = Recorder::new();
    let builder = Engine::builder(folder.path().join("root"))
        .namespace("tenant")
        .hosts(hosts.clone())
        .sink(Arc::new(seen.clone()));
    let engine = builder
        .credentials(Arc::new(DockerConfig::file(folder.path().join("auth.json"))))
        .open()
        .await
        .expect("an engine");
    let pulled = engine.pull("registry.example/team/app:1").await.expect("pulled");
    assert_eq!(pulled.target().digest(), manifest.digest());
    assert_eq!(engine.namespace, "tenant");
    assert!(seen.topics().contains(&"/images/create"), "{:?}", seen.topics());
    drop((engine, pulled));

    let builder = Engine::builder(folder.path().join("other")).hosts(hosts);
    let engine = builder
        .credentials(Arc::new(Anonymous))
        .open()
        .await
        .expect("an engine");
    let error = engine.pull("registry.example/team/app:1").await.expect_err("no login");
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
}
