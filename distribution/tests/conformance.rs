//! The suites of the ports, on each implementation that there is.

mod support;

use longshore_distribution::conformance::{Sample, fetcher, pusher, resolver};
use longshore_distribution::{OciLayout, RegistryClient, export_layout};
use longshore_registry::{Auth, Registry};
use support::{client, login};

#[tokio::test]
async fn the_registry_client_reads() {
    let sample = Sample::new();
    let (_registry, name) = support::serve(Registry::builder(), &sample).await;
    resolver(&client(), &name, &sample).await;
    fetcher(&client(), &name, &sample).await;
}

#[tokio::test]
async fn the_registry_client_reads_and_writes_with_basic_credentials() {
    write_with(Auth::basic("user", "secret")).await;
}

#[tokio::test]
async fn the_registry_client_reads_and_writes_with_tokens() {
    write_with(Auth::bearer("user", "secret")).await;
}

async fn write_with(auth: Auth) {
    let registry = Registry::builder()
        .auth(auth)
        .serve("127.0.0.1:0")
        .await
        .expect("a registry");
    let name = format!("{}/team/app:1", registry.host()).parse().expect("a reference");
    let client: RegistryClient = login(&registry.host(), "user", "secret");
    pusher(&client, (&client, &client), &name, &Sample::new()).await;
}

#[tokio::test]
async fn a_layout_reads_what_was_exported_to_it() {
    let (sample, folder) = (Sample::new(), tempfile::tempdir().expect("a folder"));
    let store = sample.store().await;
    export_layout(&store, &sample.manifest.0, "1", folder.path())
        .await
        .expect("exported");
    // A second tag, and the first one again.
    export_layout(&store, &sample.manifest.0, "2", folder.path())
        .await
        .expect("exported");
    export_layout(&store, &sample.manifest.0, "1", folder.path())
        .await
        .expect("exported");
    let layout = OciLayout::open(folder.path()).await.expect("a layout");
    assert_eq!(layout.index().await.expect("an index").manifests().len(), 2);
    let name = "layout.localhost/app:1".parse().expect("a reference");
    resolver(&layout, &name, &sample).await;
    fetcher(&layout, &name, &sample).await;
}
