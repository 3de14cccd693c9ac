//! Images of any shape, put into a registry.
#![allow(dead_code, reason = "each test binary uses its share")]

use bytes::Bytes;
use longshore_content::sha256;
use longshore_registry::RunningRegistry;
use oci_spec::image::Descriptor;
use serde_json::{Value, json};

/// The names of one dialect.
#[derive(Clone, Copy)]
pub(crate) struct Dialect {
    pub(crate) index: &'static str,
    pub(crate) manifest: &'static str,
    pub(crate) config: &'static str,
    pub(crate) layer: &'static str,
}

pub(crate) const OCI: Dialect = Dialect {
    index: "application/vnd.oci.image.index.v1+json",
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar+gzip",
};

pub(crate) const DOCKER: Dialect = Dialect {
    index: "application/vnd.docker.distribution.manifest.list.v2+json",
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
};

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": sha256(bytes).to_string(), "size": bytes.len() })
}

/// Puts an image for `os/arch` into repository `app`; its descriptor.
pub(crate) async fn put_image(
    registry: &RunningRegistry,
    dialect: Dialect,
    platform: (&str, &str),
    layers: &[Bytes],
) -> Value {
    let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(layer).to_string()).collect();
    let config = json!({
        "os": platform.0, "architecture": platform.1, "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = config.to_string();
    for blob in layers.iter().cloned().chain([Bytes::from(config.clone())]) {
        registry.put_blob(blob).await.expect("a blob");
    }
    let layers: Vec<Value> = layers.iter().map(|layer| descriptor(dialect.layer, layer)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": dialect.manifest,
        "config": descriptor(dialect.config, config.as_bytes()), "layers": layers,
    });
    let manifest = manifest.to_string();
    let put = registry.put_manifest("app", Some("1"), dialect.manifest, manifest.clone());
    put.await.expect("a manifest");
    let mut found = descriptor(dialect.manifest, manifest.as_bytes());
    found["platform"] = json!({ "os": platform.0, "architecture": platform.1 });
    found
}

/// Puts an index over `entries` under `app:1`.
pub(crate) async fn put_index(registry: &RunningRegistry, dialect: Dialect, entries: &[Value]) -> Descriptor {
    let index = json!({ "schemaVersion": 2, "mediaType": dialect.index, "manifests": entries }).to_string();
    let put = registry.put_manifest("app", Some("1"), dialect.index, index.clone());
    put.await.expect("an index");
    serde_json::from_value(descriptor(dialect.index, index.as_bytes())).expect("a descriptor")
}
