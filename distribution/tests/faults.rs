//! What registries do wrong, and what a pull makes of it: success, or one clear error with nothing unverified visible.

#[path = "cases/archives.rs"]
mod archives;
#[path = "cases/artifacts.rs"]
mod artifacts;
#[path = "support/image.rs"]
mod image;
#[path = "cases/many.rs"]
mod many;
#[path = "cases/mirrors.rs"]
mod mirrors;
#[path = "cases/pushes.rs"]
mod pushes;
#[path = "support/script.rs"]
mod script;
mod support;
#[path = "support/tls.rs"]
mod tls;

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use longshore_content::{ContentStore, ContentStoreExt, MemoryStore};
use longshore_distribution::conformance::Sample;
use longshore_distribution::{Error, ErrorKind, Pull, PullOptions, PullSource, Reference, RegistryClient};
use longshore_registry::{Auth, Bearer, Fault, FaultScript, Registry, Users};
use support::{client, login, serve};

async fn pull(client: RegistryClient, store: &Arc<MemoryStore>, name: &Reference) -> Result<(), Error> {
    let source = PullSource::new(Arc::new(client));
    let content: Arc<dyn ContentStore> = store.clone();
    Pull::start(source, content, name, PullOptions::default())
        .await?
        .finish()
        .await?;
    Ok(())
}

async fn assert_whole(store: &MemoryStore, sample: &Sample) {
    for (blob, bytes) in sample.blobs.iter().chain([&sample.manifest]) {
        assert_eq!(&store.read(blob.digest(), 1 << 20).await.expect("a blob"), bytes);
    }
}

async fn count(store: &MemoryStore) -> usize {
    store.walk().count().await
}

#[tokio::test]
async fn a_second_pull_is_one_request() {
    let (sample, store) = (Sample::new(), Arc::new(MemoryStore::new()));
    let (registry, name) = serve(Registry::builder(), &sample).await;
    pull(client(), &store, &name).await.expect("the first");
    registry.clear_requests();
    pull(client(), &store, &name).await.expect("the second");
    let requests = registry.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_whole(&store, &sample).await;
}

#[tokio::test]
async fn cut_connections_are_resumed_where_they_broke_off() {
    let sample = Sample::new();
    for offset in [0, 1, 511, 4096, 65_536, 150_000, 299_999] {
        let (faults, store) = (FaultScript::new(), Arc::new(MemoryStore::new()));
        faults.add("/blobs/", Fault::CutAfter(offset)).times(4);
        let (registry, name) = serve(Registry::builder().faults(faults), &sample).await;
        pull(client(), &store, &name)
            .await
            .unwrap_or_else(|error| panic!("cut at {offset}: {error:?}"));
        assert_whole(&store, &sample).await;
        let resumed = registry.requests().iter().any(|request| request.range.is_some());
        assert!(resumed || offset == 0, "cut at {offset}, and nobody asked for the rest");
    }
}

#[tokio::test]
async fn a_layer_that_never_comes_whole_is_one_error() {
    let (sample, store, faults) = (Sample::new(), Arc::new(MemoryStore::new()), FaultScript::new());
    let large = sample
        .blobs
        .iter()
        .max_by_key(|(blob, _)| blob.size())
        .expect("blobs")
        .0
        .digest()
        .clone();
    faults.add(format!("/blobs/{large}"), Fault::CutAfter(0));
    let (_registry, name) = serve(Registry::builder().faults(faults), &sample).await;
    let error = pull(client(), &store, &name).await.expect_err("it is cut for ever");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(store.info(&large).await.is_err(), "nothing of it is visible");
}

#[tokio::test]
async fn wrong_bytes_are_never_visible() {
    let sample = Sample::new();
    for (path, what) in [("/blobs/", "a blob"), ("/manifests/", "the manifest")] {
        let (store, faults) = (Arc::new(MemoryStore::new()), FaultScript::new());
        faults.add(path, Fault::CorruptAt(0));
        let (_registry, name) = serve(Registry::builder().faults(faults), &sample).await;
        let name = name.clone_with_digest(sample.manifest.0.digest().to_string());
        let error = pull(client(), &store, &name).await.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Verification, "{what}: {error:?}");
        for (blob, _) in sample
            .blobs
            .iter()
            .filter(|(blob, _)| blob.size() > 0 && path == "/blobs/")
        {
            assert!(store.info(blob.digest()).await.is_err(), "{what} is visible");
        }
    }
}

#[tokio::test]
async fn busy_registries_are_waited_for() {
    let sample = Sample::new();
    for fault in [
        Fault::TooManyRequests(0),
        Fault::Status(StatusCode::SERVICE_UNAVAILABLE),
        Fault::Status(StatusCode::BAD_GATEWAY),
        Fault::Hangup,
    ] {
        let (store, faults) = (Arc::new(MemoryStore::new()), FaultScript::new());
        faults.add("/v2/", fault.clone()).times(2);
        let (_registry, name) = serve(Registry::builder().faults(faults), &sample).await;
        pull(client(), &store, &name)
            .await
            .unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
        assert_whole(&store, &sample).await;
    }
}

#[tokio::test]
async fn a_lying_length_is_found_out() {
    let sample = Sample::new();
    let (store, faults) = (Arc::new(MemoryStore::new()), FaultScript::new());
    faults.add("/blobs/", Fault::SendLess(1));
    let (_registry, name) = serve(Registry::builder().faults(faults), &sample).await;
    let error = pull(client(), &store, &name).await.expect_err("the layer is short");
    assert!(
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Verification),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_huge_manifest_is_not_read() {
    let (store, faults) = (Arc::new(MemoryStore::new()), FaultScript::new());
    let huge = Bytes::from(vec![b' '; 5 << 20]);
    faults.add(
        "/manifests/",
        Fault::Body("application/vnd.oci.image.manifest.v1+json".into(), huge),
    );
    let (_registry, name) = serve(Registry::builder().faults(faults), &Sample::new()).await;
    let error = pull(client(), &store, &name).await.expect_err("it is too large");
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    assert_eq!(count(&store).await, 0);
}

#[tokio::test]
async fn tokens_that_expire_in_the_middle_are_renewed() {
    let (sample, store, faults) = (Sample::new(), Arc::new(MemoryStore::new()), FaultScript::new());
    faults.add("/blobs/", Fault::Unauthorized).times(1);
    let auth = Auth::from(Bearer::new(Users::default().with("user", "secret")));
    let (registry, name) = serve(Registry::builder().auth(auth).faults(faults), &sample).await;
    pull(login(&registry.host(), "user", "secret"), &store, &name)
        .await
        .expect("pulled");
    assert_whole(&store, &sample).await;
}

#[tokio::test]
async fn wrong_credentials_are_told_without_the_secret() {
    let (sample, store) = (Sample::new(), Arc::new(MemoryStore::new()));
    for auth in [Auth::basic("user", "secret"), Auth::bearer("user", "secret")] {
        let (registry, name) = serve(Registry::builder().auth(auth), &sample).await;
        let error = pull(login(&registry.host(), "user", "guess-me"), &store, &name)
            .await
            .expect_err("denied");
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
        assert!(!format!("{error:?} {error}").contains("guess-me"), "{error:?}");
        let error = pull(client(), &store, &name).await.expect_err("denied");
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
    }
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let (sample, store, faults) = (Sample::new(), Arc::new(MemoryStore::new()), FaultScript::new());
    let (elsewhere, _) = serve(Registry::builder(), &sample).await;
    faults.add("/blobs/", Fault::RedirectTo(elsewhere.url()));
    let auth = Auth::basic("user", "secret");
    let (registry, name) = serve(Registry::builder().auth(auth).faults(faults), &sample).await;
    pull(login(&registry.host(), "user", "secret"), &store, &name)
        .await
        .expect("pulled by way of the other host");
    assert_whole(&store, &sample).await;
    let there = elsewhere.requests();
    assert!(
        !there.is_empty() && there.iter().all(|request| !request.authorized),
        "{there:?}"
    );
}

#[tokio::test]
async fn a_name_that_is_not_there_is_told() {
    let (sample, store) = (Sample::new(), Arc::new(MemoryStore::new()));
    let (registry, _) = serve(Registry::builder(), &sample).await;
    let name: Reference = format!("{}/app:no-such-tag", registry.host())
        .parse()
        .expect("a reference");
    let error = pull(client(), &store, &name).await.expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("no-such-tag"), "{error}");
    assert_eq!(count(&store).await, 0);
}
