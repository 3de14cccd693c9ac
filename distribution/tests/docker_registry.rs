//! Against Debian's docker-registry, with TLS by an authority of our own and passwords: pushed, pulled and refused.

#[path = "support/docker.rs"]
mod docker;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use docker::{Server, require, serve};
use futures::StreamExt;
use longshore_content::{ContentStore, ContentStoreExt, MemoryStore};
use longshore_distribution::conformance::{Sample, pusher};
use longshore_distribution::{
    Credential, ErrorKind, Fetcher, Mounted, PlainHttp, Pull, PullOptions, PushOptions, Pusher, Reference,
    RegistryClient, Resolver, Static, Uploads, push_image, push_image_with,
};
use longshore_testing::skip;
use oci_spec::image::{Descriptor, MediaType};
use support::quick;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn client(server: &Server, password: &str) -> RegistryClient {
    let credentials = Static::new().with(server.host.clone(), Credential::basic("me", password));
    RegistryClient::builder()
        .plain_http(PlainHttp::Never)
        .root_certificate(server.authority.clone())
        .credentials(Arc::new(credentials))
        .build()
        .expect("a client")
}

#[tokio::test]
async fn it_is_pushed_to_pulled_from_and_believed_by_its_certificate() {
    if let Err(why) = require() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let server = serve(folder.path());
    let sample = Sample::new();
    let name =
        |repository: &str| -> Reference { format!("{}/{repository}:1", server.host).parse().expect("a reference") };

    let good = client(&server, "secret");
    pusher(&good, (&good, &good), &name("team/conform"), &sample).await;
    let target = &sample.manifest.0;
    push_image(&good, &sample.store().await, &name("team/whole"), target)
        .await
        .expect("pushed");
    let store = Arc::new(MemoryStore::new());
    let content: Arc<dyn ContentStore> = store.clone();
    let whole = name("team/whole");
    let pull = Pull::start(Arc::new(good).into(), content, &whole, PullOptions::default());
    let image = pull.await.expect("started").finish().await.expect("pulled");
    assert_eq!(image.target.digest(), target.digest());
    for (blob, bytes) in &sample.blobs {
        assert_eq!(&store.read(blob.digest(), 1 << 20).await.expect("a blob"), bytes);
    }

    taken_over_in_chunks_and_cut(&server, &sample).await;

    let bad = client(&server, "guessed");
    let error = bad.resolve(&name("team/whole")).await.expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
    let push = push_image(&bad, &sample.store().await, &name("team/other"), target).await;
    assert_eq!(push.expect_err("denied").kind(), ErrorKind::Unauthorized);

    let stranger = RegistryClient::builder()
        .plain_http(PlainHttp::Never)
        .build()
        .expect("a client");
    let error = stranger
        .resolve(&name("team/whole"))
        .await
        .expect_err("an unknown authority");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(format!("{error:?}").contains("UnknownIssuer"), "{error:?}");
}

/// A client of the same server by another address, with a way of uploading.
fn client_at(server: &Server, host: &str, uploads: Uploads) -> RegistryClient {
    let credentials = Static::new().with(host, Credential::basic("me", "secret"));
    RegistryClient::builder()
        .plain_http(PlainHttp::Never)
        .root_certificate(server.authority.clone())
        .credentials(Arc::new(credentials))
        .uploads(uploads)
        .retry(quick())
        .build()
        .expect("a client")
}

/// Hands on what comes for the server, but closes the first connection that has sent so much.
async fn cutter(server: &str, after: u64) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let own = listener.local_addr().expect("an address").to_string();
    let (server, left) = (server.to_owned(), Arc::new(AtomicI64::new(after as i64)));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(&server).await.expect("it listens");
            tokio::spawn(hand_on(client, server, left.clone()));
        }
    });
    own
}

async fn hand_on(client: tokio::net::TcpStream, server: tokio::net::TcpStream, left: Arc<AtomicI64>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move {
        // Either side may have gone.
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    });
    let mut buffer = vec![0; 4096];
    while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
        let before = left.fetch_sub(count as i64, Ordering::SeqCst);
        if before > 0 && before <= count as i64 {
            break;
        }
        if to_server.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    back.abort();
}

async fn assert_there(client: &RegistryClient, name: &Reference, blobs: &[(Descriptor, Bytes)]) {
    for (blob, bytes) in blobs {
        let fetched = client.fetch(name, blob, 0).await.expect("it is there");
        let pieces: Vec<_> = fetched.stream.map(|piece| piece.expect("bytes")).collect().await;
        assert_eq!(pieces.concat(), bytes[..], "{}", blob.digest());
    }
}

async fn taken_over_in_chunks_and_cut(server: &Server, sample: &Sample) {
    let name =
        |host: &str, repository: &str| -> Reference { format!("{host}/{repository}:1").parse().expect("a reference") };
    let host = server.host.as_str();
    let store = sample.store().await;
    let mut all = sample.blobs.clone();
    all.push(sample.manifest.clone());
    // An index over the image, which itself is under it.
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [sample.manifest.0], "annotations": { "kept": "yes" },
    });
    let bytes = Bytes::from(index.to_string());
    let digest = longshore_content::sha256(&bytes);
    let index = Descriptor::new(MediaType::ImageIndex, bytes.len() as u64, digest);
    let put = store.put("index", bytes.clone(), longshore_content::Expected::default());
    put.await.expect("stored");
    all.push((index.clone(), bytes));

    let chunks = client_at(server, host, Uploads::Chunks(70_000));
    let there = name(host, "team/chunks");
    push_image(&chunks, &store, &there, &index)
        .await
        .expect("pushed in chunks");
    assert_there(&chunks, &there, &all).await;

    let mounted = name(host, "team/mounted");
    let options = PushOptions {
        mount_from: Some(there.clone()),
        ..PushOptions::default()
    };
    let layer = &sample
        .blobs
        .iter()
        .max_by_key(|(blob, _)| blob.size())
        .expect("blobs")
        .0;
    assert_eq!(
        chunks.mount(&mounted, layer, &there).await.expect("asked"),
        Mounted::Yes
    );
    let nowhere = name(host, "team/nowhere");
    assert_eq!(
        chunks.mount(&mounted, layer, &nowhere).await.expect("asked"),
        Mounted::No
    );
    push_image_with(&chunks, &store, &mounted, &index, &options)
        .await
        .expect("taken over");
    assert_there(&chunks, &mounted, &all).await;

    // This registry knows no subjects: its list of what refers to an image is a tag.
    let mut found = Vec::new();
    for artifact_type in ["application/x-one", "application/x-two"] {
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": artifact_type,
            "config": sample.blobs[0].0, "layers": [], "subject": sample.manifest.0,
        });
        let bytes = Bytes::from(manifest.to_string());
        let artifact = Descriptor::new(
            MediaType::ImageManifest,
            bytes.len() as u64,
            longshore_content::sha256(&bytes),
        );
        let put = store.put("artifact", bytes, longshore_content::Expected::default());
        put.await.expect("stored");
        let by_digest = there.clone_with_digest(artifact.digest().to_string());
        push_image(&chunks, &store, &by_digest, &artifact)
            .await
            .expect("pushed");
        found.push(artifact.digest().clone());
    }
    let listed = chunks
        .referrers(&there, sample.manifest.0.digest(), None)
        .await
        .expect("a list");
    assert_eq!(listed.iter().map(|one| one.digest().clone()).collect::<Vec<_>>(), found);
    let one = chunks
        .referrers(&there, sample.manifest.0.digest(), Some("application/x-two"))
        .await;
    assert_eq!(one.expect("a list").len(), 1);

    for (n, after) in [20_000, 100_000, 200_000, 290_000].into_iter().enumerate() {
        for (way, uploads) in [("whole", Uploads::Whole), ("chunks", Uploads::Chunks(70_000))] {
            let between = cutter(host, after).await;
            let client = client_at(server, &between, uploads);
            let there = name(&between, &format!("team/cut-{way}-{n}"));
            let pushed = push_image(&client, &store, &there, &index).await;
            pushed.unwrap_or_else(|error| panic!("{way}, cut after {after}: {error:?}"));
            assert_there(&client, &there, &all).await;
        }
    }
}
