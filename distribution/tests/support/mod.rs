//! A registry with the sample image, and clients of it.
#![allow(dead_code, reason = "each test binary uses its share")]

use std::sync::Arc;

use longshore_distribution::conformance::Sample;
use longshore_distribution::{Credential, Reference, RegistryClient, RetryPolicy, Static};
use longshore_registry::{Builder, RunningRegistry};

/// Serves the sample as `app:1`.
pub(crate) async fn serve(builder: Builder, sample: &Sample) -> (RunningRegistry, Reference) {
    let registry = builder.serve("127.0.0.1:0").await.expect("a registry");
    for (_, bytes) in &sample.blobs {
        registry.put_blob(bytes.clone()).await.expect("a blob");
    }
    let (manifest, bytes) = &sample.manifest;
    registry
        .put_manifest("app", Some("1"), manifest.media_type().as_ref(), bytes.clone())
        .await
        .expect("a manifest");
    let name = format!("{}/app:1", registry.host()).parse().expect("a reference");
    (registry, name)
}

/// A client that does not wait long between attempts.
pub(crate) fn client() -> RegistryClient {
    RegistryClient::builder().retry(quick()).build().expect("a client")
}

/// The same, with credentials for a host.
pub(crate) fn login(host: &str, user: &str, password: &str) -> RegistryClient {
    let credentials = Static::default().with(host, Credential::basic(user, password));
    RegistryClient::builder()
        .retry(quick())
        .credentials(Arc::new(credentials))
        .build()
        .expect("a client")
}

pub(crate) fn quick() -> RetryPolicy {
    RetryPolicy {
        first_wait: std::time::Duration::from_millis(5),
        ..RetryPolicy::default()
    }
}
