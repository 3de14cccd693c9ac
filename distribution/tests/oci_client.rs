//! The `oci-client` crate behind the ports: the suites of the ports, Debian's docker-registry, and answers that must not be believed.

#[path = "support/docker.rs"]
mod docker;
#[path = "support/script.rs"]
mod script;
mod support;

use std::sync::Arc;

use bytes::Bytes;
use longshore_content::{ContentStore, ContentStoreExt, Expected, MemoryStore};
use longshore_distribution::conformance::{Sample, fetcher, pusher, resolver};
use longshore_distribution::oci_client::client::{
    Certificate, CertificateEncoding, Client, ClientConfig, ClientProtocol,
};
use longshore_distribution::{
    Credential, Error, ErrorKind, Fetcher, Mounted, OciClientAdapter, Pull, PullOptions, PushOptions, Pusher,
    Reference, Resolver, Root, Static, push_image, push_image_with,
};
use longshore_registry::{Auth, Registry};
use longshore_testing::skip;
use oci_spec::image::{Descriptor, MediaType};
use script::Scripted;

fn adapter(config: ClientConfig) -> OciClientAdapter {
    // Another test of this process may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    OciClientAdapter::new(Client::try_from(config).expect("a client"))
}

/// Speaks to a server in plain HTTP.
fn plain(host: &str) -> OciClientAdapter {
    adapter(ClientConfig {
        protocol: ClientProtocol::HttpsExcept(vec![host.to_owned()]),
        ..ClientConfig::default()
    })
}

fn login(client: OciClientAdapter, host: &str, user: &str, password: &str) -> OciClientAdapter {
    client.credentials(Arc::new(Static::new().with(host, Credential::basic(user, password))))
}

fn name(host: &str, repository: &str) -> Reference {
    format!("{host}/{repository}:1").parse().expect("a reference")
}

#[tokio::test]
async fn it_reads() {
    let sample = Sample::new();
    let (registry, name) = support::serve(Registry::builder(), &sample).await;
    let client = plain(&registry.host());
    resolver(&client, &name, &sample).await;
    fetcher(&client, &name, &sample).await;
}

#[tokio::test]
async fn it_reads_and_writes_with_basic_credentials_and_with_tokens() {
    for auth in [Auth::basic("user", "secret"), Auth::bearer("user", "secret")] {
        let registry = Registry::builder().auth(auth).serve("127.0.0.1:0").await;
        let registry = registry.expect("a registry");
        let host = registry.host();
        let client = login(plain(&host), &host, "user", "secret");
        let team = name(&host, "team/app");
        pusher(&client, (&client, &client), &team, &Sample::new()).await;
        let stranger = plain(&host).resolve(&team).await.expect_err("denied");
        assert_eq!(stranger.kind(), ErrorKind::Unauthorized, "{stranger:?}");
        let guesser = login(plain(&host), &host, "user", "guessed").resolve(&team).await;
        let guesser = guesser.expect_err("denied");
        assert_eq!(guesser.kind(), ErrorKind::Unauthorized, "{guesser:?}");
        assert!(!format!("{guesser} {guesser:?} {client:?}").contains("secret"));
    }
}

#[tokio::test]
async fn an_identity_token_is_refused_by_its_name() {
    let token = Static::new().with("registry.example", Credential::IdentityToken("open-sesame".into()));
    let client = plain("registry.example").credentials(Arc::new(token));
    let error = client
        .resolve(&name("registry.example", "app"))
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.to_string().contains("identity token"), "{error}");
    assert!(!format!("{error:?}").contains("open-sesame"));
}

#[tokio::test]
async fn it_finds_what_refers_to_an_image() {
    let sample = Sample::new();
    let (registry, name) = support::serve(Registry::builder(), &sample).await;
    let client = plain(&registry.host());
    let store = sample.store().await;
    let mut pushed = Vec::new();
    for artifact_type in ["application/x-one", "application/x-two"] {
        let (artifact, bytes) = artifact(artifact_type, &sample);
        let put = store.put(artifact_type, bytes, Expected::default());
        put.await.expect("stored");
        let by_digest = name.clone_with_digest(artifact.digest().to_string());
        push_image(&client, &store, &by_digest, &artifact)
            .await
            .expect("pushed");
        pushed.push(artifact.digest().to_string());
    }
    pushed.sort();
    let subject = sample.manifest.0.digest();
    let all = client.referrers(&name, subject, None).await.expect("a list");
    let mut found: Vec<_> = all.iter().map(|one| one.digest().to_string()).collect();
    found.sort();
    assert_eq!(found, pushed);
    let two = client.referrers(&name, subject, Some("application/x-two")).await;
    assert_eq!(two.expect("a list").len(), 1);
}

fn artifact(artifact_type: &str, sample: &Sample) -> (Descriptor, Bytes) {
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": artifact_type,
        "config": sample.blobs[0].0, "layers": [], "subject": sample.manifest.0,
    });
    let bytes = Bytes::from(manifest.to_string());
    let digest = longshore_content::sha256(&bytes);
    (
        Descriptor::new(MediaType::ImageManifest, bytes.len() as u64, digest),
        bytes,
    )
}

#[tokio::test]
async fn docker_registry_is_pushed_to_and_pulled_from() {
    if let Err(why) = docker::require() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let server = docker::serve(folder.path());
    let host = server.host.as_str();
    let trusting = || {
        adapter(ClientConfig {
            tls_certs_only: vec![Certificate {
                encoding: CertificateEncoding::Der,
                data: server.authority.clone(),
            }],
            ..ClientConfig::default()
        })
    };
    let (good, sample) = (login(trusting(), host, "me", "secret"), Sample::new());
    pusher(&good, (&good, &good), &name(host, "team/conform"), &sample).await;

    let (whole, mounted) = (name(host, "team/whole"), name(host, "team/mounted"));
    let (target, store) = (&sample.manifest.0, sample.store().await);
    push_image(&good, &store, &whole, target).await.expect("pushed");
    let layer = &sample.blobs[1].0;
    let taken = good.mount(&mounted, layer, &whole).await.expect("asked");
    assert_eq!(taken, Mounted::Yes);
    let taken = good.mount(&mounted, layer, &name(host, "team/nowhere")).await;
    assert_eq!(taken.expect("asked"), Mounted::No);
    let options = PushOptions {
        mount_from: Some(whole),
        ..PushOptions::default()
    };
    push_image_with(&good, &store, &mounted, target, &options)
        .await
        .expect("taken over");

    let pulled = pull(good, &mounted).await.expect("pulled");
    for (blob, bytes) in sample.blobs.iter().chain([&sample.manifest]) {
        assert_eq!(&pulled.read(blob.digest(), 1 << 20).await.expect("a blob"), bytes);
    }

    let bad = login(trusting(), host, "me", "guessed");
    let error = bad.resolve(&mounted).await.expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
    let push = push_image(&bad, &store, &name(host, "team/other"), target).await;
    assert_eq!(push.expect_err("denied").kind(), ErrorKind::Unauthorized);
    let stranger = adapter(ClientConfig::default());
    let error = stranger.resolve(&mounted).await.expect_err("an unknown authority");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(format!("{error:?}").contains("UnknownIssuer"), "{error:?}");
}

async fn pull(client: OciClientAdapter, name: &Reference) -> Result<Arc<MemoryStore>, Error> {
    let store = Arc::new(MemoryStore::new());
    let content: Arc<dyn ContentStore> = store.clone();
    let pull = Pull::start(Arc::new(client).into(), content, name, PullOptions::default());
    pull.await?.finish().await?;
    Ok(store)
}

/// A registry that answers with the sample, but for what `spoil` makes of it.
fn spoilt(sample: &Sample, spoil: fn(&str, Bytes) -> Bytes) -> Scripted {
    let mut all = sample.blobs.clone();
    all.push(sample.manifest.clone());
    Scripted::serve_bytes(move |asked, _| {
        let path = asked.line.split(' ').nth(1).unwrap_or_default();
        let tag = path.ends_with("/manifests/1");
        let asked_for =
            |digest: &str| path.ends_with(digest) || (tag && digest == all[all.len() - 1].0.digest().as_ref());
        match all.iter().find(|(blob, _)| asked_for(blob.digest().as_ref())) {
            Some((_, bytes)) => (200, Vec::new(), spoil(path, bytes.clone()).into()),
            None => (404, Vec::new(), Vec::new()),
        }
    })
}

#[tokio::test]
async fn what_it_says_is_proved() {
    let sample = Sample::new();
    let good = spoilt(&sample, |_, bytes| bytes);
    pull(plain(&good.host), &name(&good.host, "team/app"))
        .await
        .expect("pulled");

    // A blob of as many other bytes.
    let lying = spoilt(&sample, |path, bytes| match path.contains("/blobs/") {
        true => bytes.iter().map(|byte| byte ^ 1).collect(),
        false => bytes,
    });
    let error = pull(plain(&lying.host), &name(&lying.host, "team/app")).await;
    let error = error.expect_err("not the bytes of that digest");
    assert_eq!(error.kind(), ErrorKind::Verification, "{error:?}");

    // A manifest that is another than the one asked for by its digest.
    let other = spoilt(&sample, |_, bytes| [bytes, Bytes::from_static(b"\n")].concat().into());
    let by_digest = name(&other.host, "team/app").clone_with_digest(sample.manifest.0.digest().to_string());
    let error = plain(&other.host).resolve(&by_digest).await.expect_err("another");
    assert_eq!(error.kind(), ErrorKind::Verification, "{error:?}");

    // A manifest without end.
    let large = spoilt(&sample, |_, _| vec![b' '; 9 << 20].into());
    let error = plain(&large.host).resolve(&name(&large.host, "team/app")).await;
    let error = error.expect_err("too large");
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");

    // No JSON.
    let broken = spoilt(&sample, |_, _| Bytes::from_static(b"<html>"));
    let error = plain(&broken.host).resolve(&name(&broken.host, "team/app")).await;
    assert_eq!(error.expect_err("no manifest").kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn a_push_that_was_not_acknowledged_is_an_error() {
    let sample = Sample::new();
    let liar = Scripted::serve(|asked, _| match asked.line.split(' ').next() {
        // It says that it took the manifest, names no place of it, and has it not.
        Some("PUT") => (201, Vec::new(), String::new()),
        _ => (404, Vec::new(), String::new()),
    });
    let (client, name) = (plain(&liar.host), name(&liar.host, "team/app"));
    let store = sample.store().await;
    let manifest = &sample.manifest.0;
    for root in [Root::Yes, Root::No] {
        let open = store.open(manifest.digest()).await.expect("it is there");
        let error = client.push(&name, manifest, open, root).await;
        let error = error.expect_err("it is not there");
        assert_eq!(error.kind(), ErrorKind::Verification, "{error:?}");
    }
}

#[tokio::test]
async fn forged_references_go_nowhere() {
    let forged = Reference::with_tag("user@127.0.0.1:1".into(), "app".into(), "1".into());
    let client = plain("127.0.0.1:1");
    let sample = Sample::new();
    let error = client.resolve(&forged).await.expect_err("forged");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = client.fetch(&forged, &sample.manifest.0, 0).await.expect_err("forged");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}
