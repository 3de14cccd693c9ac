//! Pushes that are cut, throttled and taken over from other repositories.

use std::sync::Arc;

use http::{Method, StatusCode};
use longshore_content::ContentStoreExt;
use longshore_distribution::conformance::Sample;
use longshore_distribution::{
    Credential, ErrorKind, PushOptions, Reference, RegistryClient, Static, Uploads, push_image, push_image_with,
};
use longshore_registry::{Auth, Fault, FaultScript, Registry, RunningRegistry};

use crate::support::quick;

fn client(host: &str, uploads: Uploads) -> RegistryClient {
    let credentials = Static::new().with(host, Credential::basic("user", "secret"));
    let builder = RegistryClient::builder().retry(quick()).uploads(uploads);
    builder.credentials(Arc::new(credentials)).build().expect("a client")
}

fn name(registry: &RunningRegistry, repository: &str) -> Reference {
    format!("{}/{repository}:1", registry.host())
        .parse()
        .expect("a reference")
}

async fn assert_there(registry: &RunningRegistry, repository: &str, sample: &Sample) {
    assert_eq!(
        registry.resolve(repository, "1").as_ref(),
        Some(sample.manifest.0.digest())
    );
    for (blob, bytes) in &sample.blobs {
        assert_eq!(
            &registry.content().read(blob.digest(), 1 << 20).await.expect("a blob"),
            bytes
        );
    }
}

fn count(registry: &RunningRegistry, method: &Method, part: &str) -> usize {
    let requests = registry.requests();
    let matching = requests
        .iter()
        .filter(|request| request.method == *method && request.path.contains(part));
    matching.count()
}

#[tokio::test]
async fn an_upload_that_is_cut_goes_on_where_it_was() {
    let sample = Sample::new();
    let store = sample.store().await;
    for uploads in [Uploads::Whole, Uploads::Chunks(64_000)] {
        for offset in [1, 20_000, 63_999, 150_000, 299_999] {
            let faults = FaultScript::new();
            for method in [Method::PUT, Method::PATCH] {
                faults
                    .add("/blobs/uploads/", Fault::CutUploadAfter(offset))
                    .method(method)
                    .times(1);
            }
            let registry = Registry::builder()
                .faults(faults)
                .serve("127.0.0.1:0")
                .await
                .expect("a registry");
            let client = client(&registry.host(), uploads);
            let pushed = push_image(&client, &store, &name(&registry, "app"), &sample.manifest.0).await;
            pushed.unwrap_or_else(|error| panic!("{uploads:?}, cut after {offset}: {error:?}"));
            assert_there(&registry, "app", &sample).await;
        }
    }
}

#[tokio::test]
async fn it_is_asked_how_far_it_is_and_not_begun_anew() {
    let (sample, faults) = (Sample::new(), FaultScript::new());
    let store = sample.store().await;
    let (layer, _) = sample.blobs.iter().max_by_key(|(blob, _)| blob.size()).expect("blobs");
    faults
        .add("/blobs/uploads/", Fault::CutUploadAfter(150_000))
        .method(Method::PUT)
        .times(1);
    let registry = Registry::builder()
        .faults(faults)
        .serve("127.0.0.1:0")
        .await
        .expect("a registry");
    let client = client(&registry.host(), Uploads::Whole);
    let blob = longshore_content::ContentStore::open(&store, layer.digest()).await;
    longshore_distribution::Pusher::push(
        &client,
        &name(&registry, "app"),
        layer,
        blob.expect("it is here"),
        longshore_distribution::Root::No,
    )
    .await
    .expect("pushed");
    assert_eq!(count(&registry, &Method::POST, "/blobs/uploads/"), 1);
    assert_eq!(count(&registry, &Method::GET, "/blobs/uploads/"), 1);
    assert_eq!(count(&registry, &Method::PATCH, "/blobs/uploads/"), 1);
}

#[tokio::test]
async fn busy_registries_are_pushed_to_later() {
    let sample = Sample::new();
    let store = sample.store().await;
    for fault in [
        Fault::TooManyRequests(0),
        Fault::Status(StatusCode::SERVICE_UNAVAILABLE),
        Fault::Hangup,
    ] {
        for method in [Method::HEAD, Method::POST, Method::PUT, Method::PATCH] {
            let faults = FaultScript::new();
            faults.add("/v2/", fault.clone()).method(method.clone()).times(2);
            let registry = Registry::builder()
                .faults(faults)
                .serve("127.0.0.1:0")
                .await
                .expect("a registry");
            let client = client(&registry.host(), Uploads::Chunks(100_000));
            let pushed = push_image(&client, &store, &name(&registry, "app"), &sample.manifest.0).await;
            pushed.unwrap_or_else(|error| panic!("{fault:?} of {method}: {error:?}"));
            assert_there(&registry, "app", &sample).await;
        }
    }
    // For ever, it is one error.
    let faults = FaultScript::new();
    faults
        .add("/blobs/uploads/", Fault::CutUploadAfter(10))
        .method(Method::PUT);
    faults.add("/blobs/uploads/", Fault::Hangup).method(Method::PATCH);
    let registry = Registry::builder()
        .faults(faults)
        .serve("127.0.0.1:0")
        .await
        .expect("a registry");
    let client = client(&registry.host(), Uploads::Whole);
    let error = push_image(&client, &store, &name(&registry, "app"), &sample.manifest.0)
        .await
        .expect_err("cut for ever");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(
        registry.resolve("app", "1"),
        None,
        "the tag does not move before all is there"
    );
}

#[tokio::test]
async fn blobs_of_another_repository_are_taken_over() {
    let sample = Sample::new();
    let store = sample.store().await;
    for auth in [Auth::None, Auth::bearer("user", "secret")] {
        let registry = Registry::builder()
            .auth(auth)
            .serve("127.0.0.1:0")
            .await
            .expect("a registry");
        let client = client(&registry.host(), Uploads::Whole);
        push_image(&client, &store, &name(&registry, "base/one"), &sample.manifest.0)
            .await
            .expect("pushed");
        registry.clear_requests();
        let options = PushOptions {
            mount_from: Some(name(&registry, "base/one")),
            ..PushOptions::default()
        };
        let other = name(&registry, "app/two");
        push_image_with(&client, &store, &other, &sample.manifest.0, &options)
            .await
            .expect("pushed");
        assert_there(&registry, "app/two", &sample).await;
        let requests = registry.requests();
        let sent = requests
            .iter()
            .filter(|request| request.path.contains("/blobs/uploads/") && request.method == Method::PUT);
        assert_eq!(sent.count(), 0, "{requests:?}");
        // What is not there is sent.
        let options = PushOptions {
            mount_from: Some(name(&registry, "base/none")),
            ..PushOptions::default()
        };
        let third = name(&registry, "app/three");
        push_image_with(&client, &store, &third, &sample.manifest.0, &options)
            .await
            .expect("pushed");
        assert_there(&registry, "app/three", &sample).await;
    }
}
