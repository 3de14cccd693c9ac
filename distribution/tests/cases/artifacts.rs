//! What is more than one image for one machine: all platforms, artifacts, what refers to an image; and who may come in.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use longshore_content::{ContentStore, ContentStoreExt, Expected, MemoryStore, sha256};
use longshore_distribution::conformance::Sample;
use longshore_distribution::{
    ErrorKind, ImageVerifier, PullOptions, Reference, VerifierPrograms, VerifyRequest, pull_everything, push_image,
};
use longshore_registry::{Fault, FaultScript, Registry};
use longshore_testing::write_program;
use oci_spec::image::{Descriptor, MediaType};
use serde_json::json;

use crate::image::{OCI, put_image, put_index};
use crate::support::{client, serve};

/// A statement about `subject`, put into a store as OCI artifacts are made.
pub(crate) async fn artifact(store: &MemoryStore, subject: &Descriptor, artifact_type: &str) -> Descriptor {
    let empty = Bytes::from_static(b"{}");
    let text = Bytes::from(format!("a statement of type {artifact_type}"));
    for bytes in [&empty, &text] {
        store
            .put("part", bytes.clone(), Expected::default())
            .await
            .expect("stored");
    }
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": artifact_type,
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(&empty), "size": 2 },
        "layers": [{ "mediaType": "text/plain", "digest": sha256(&text), "size": text.len() }],
        "subject": subject, "annotations": { "org.example.kept": "yes" },
    });
    let bytes = Bytes::from(manifest.to_string());
    store
        .put("manifest", bytes.clone(), Expected::default())
        .await
        .expect("stored");
    Descriptor::new(MediaType::ImageManifest, bytes.len() as u64, sha256(&bytes))
}

#[tokio::test]
async fn what_refers_to_an_image_is_listed() {
    let (sample, faults) = (Sample::new(), FaultScript::new());
    let (registry, name) = serve(Registry::builder().faults(faults.clone()), &sample).await;
    let (store, subject) = (MemoryStore::new(), &sample.manifest.0);
    let client = client();
    assert_eq!(
        client.referrers(&name, subject.digest(), None).await.expect("a list"),
        []
    );
    for artifact_type in ["application/x-signature", "application/x-sbom"] {
        let artifact = artifact(&store, subject, artifact_type).await;
        let by_digest = name.clone_with_digest(artifact.digest().to_string());
        push_image(&client, &store, &by_digest, &artifact)
            .await
            .expect("pushed");
    }
    let all = client.referrers(&name, subject.digest(), None).await.expect("a list");
    assert_eq!(all.len(), 2);
    let signatures = client
        .referrers(&name, subject.digest(), Some("application/x-signature"))
        .await
        .expect("a list");
    assert_eq!(signatures.len(), 1);
    let kept = signatures[0]
        .annotations()
        .as_ref()
        .and_then(|all| all.get("org.example.kept").cloned());
    assert_eq!(kept.as_deref(), Some("yes"));
    // It comes whole by its digest.
    let pulled = Arc::new(MemoryStore::new());
    let by_digest = name.clone_with_digest(signatures[0].digest().to_string());
    let content: Arc<dyn ContentStore> = pulled.clone();
    let target = pull_everything(
        Arc::new(client.clone()).into(),
        content,
        &by_digest,
        PullOptions::default(),
    )
    .await;
    assert_eq!(target.expect("pulled").digest(), signatures[0].digest());
    pulled
        .info(&sha256(b"a statement of type application/x-signature"))
        .await
        .expect("the statement is here");

    // Without the API, the tag is asked; a registry that fails is no registry without an API.
    faults.add("/referrers/", Fault::Status(StatusCode::NOT_FOUND));
    assert_eq!(client.referrers(&name, subject.digest(), None).await.expect("none"), []);
    let index = json!({ "schemaVersion": 2, "mediaType": OCI.index, "manifests": all }).to_string();
    let tag = subject.digest().to_string().replace(':', "-");
    registry
        .put_manifest("app", Some(&tag), OCI.index, index)
        .await
        .expect("an index");
    let tagged = client
        .referrers(&name, subject.digest(), Some("application/x-sbom"))
        .await
        .expect("a list");
    assert_eq!(tagged.len(), 1);
    faults.clear();
    faults.add("/referrers/", Fault::Status(StatusCode::FORBIDDEN));
    let error = client
        .referrers(&name, subject.digest(), None)
        .await
        .expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
}

#[tokio::test]
async fn every_platform_comes_and_goes() {
    let registry = Registry::builder().serve("127.0.0.1:0").await.expect("a registry");
    let mut entries = Vec::new();
    for arch in ["amd64", "arm64", "s390x"] {
        entries.push(put_image(&registry, OCI, ("linux", arch), &[Bytes::from(format!("for {arch}"))]).await);
    }
    let index = put_index(&registry, OCI, &entries).await;
    let name: Reference = format!("{}/app:1", registry.host()).parse().expect("a reference");
    let (client, store) = (client(), Arc::new(MemoryStore::new()));
    let content: Arc<dyn ContentStore> = store.clone();
    let target = pull_everything(Arc::new(client.clone()).into(), content, &name, PullOptions::default()).await;
    assert_eq!(target.expect("pulled"), index);
    for arch in ["amd64", "arm64", "s390x"] {
        store
            .info(&sha256(format!("for {arch}").as_bytes()))
            .await
            .expect("its layer is here");
    }
    // And the same goes elsewhere.
    let other = Registry::builder().serve("127.0.0.1:0").await.expect("a registry");
    let there: Reference = format!("{}/copy:2", other.host()).parse().expect("a reference");
    push_image(&client, store.as_ref(), &there, &index)
        .await
        .expect("pushed");
    assert_eq!(other.resolve("copy", "2").as_ref(), Some(index.digest()));
}

#[tokio::test]
async fn programs_decide() {
    let folder = tempfile::tempdir().expect("a folder");
    let descriptor = Descriptor::new(MediaType::ImageManifest, 7, sha256(b"x"));
    let name: Reference = "alpine:3".parse().expect("a reference");
    let verifier = VerifierPrograms::new(folder.path());
    let ask = async |verifier: &VerifierPrograms| verifier.verify(VerifyRequest::new(&name, &descriptor)).await;
    let none = ask(&verifier).await.expect_err("an empty folder decides nothing");
    assert_eq!(none.kind(), ErrorKind::Refused);

    let allows = format!(
        "#!/bin/sh\n[ \"$1 $2 $3 $4 $5 $6\" = '-name docker.io/library/alpine:3 -digest {} -stdin-media-type \
         application/vnd.oci.descriptor.v1+json' ] || exit 9\ngrep -q '\"size\":7' && echo signed by us\n",
        descriptor.digest()
    );
    write_program(folder.path().join("a"), &allows).expect("written");
    write_program(folder.path().join(".hidden"), "#!/bin/sh\nexit 1\n").expect("written");
    let allowed = ask(&verifier).await.expect("allowed");
    assert_eq!(allowed.reason, "a: signed by us");

    write_program(folder.path().join("b"), "#!/bin/sh\necho not by us\nexit 3\n").expect("written");
    let refused = ask(&verifier).await.expect_err("one says no").to_string();
    assert!(
        refused.contains("b says: not by us") && refused.contains("alpine"),
        "{refused}"
    );

    write_program(folder.path().join("a"), "#!/bin/sh\nexec sleep 1000\n").expect("written");
    let silent = ask(&verifier.clone().patience(Duration::from_millis(200)))
        .await
        .expect_err("it says nothing")
        .to_string();
    assert!(silent.contains("no answer"), "{silent}");
    std::fs::write(folder.path().join("a"), "not a program").expect("written");
    assert!(ask(&verifier).await.is_err());
    assert!(ask(&VerifierPrograms::new("/nonexistent/verifiers")).await.is_err());
}
