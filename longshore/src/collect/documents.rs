//! What a blob refers to: a manifest to its config and layers, an index to its manifests, a config to the snapshots of its layers.

use longshore_bundle::chain_ids;
use longshore_metadata::{Edge, Resource};
use oci_spec::image::Digest;
use serde::Deserialize;

/// As much of any of the three as has references in it. Everything is optional: what has none of it refers to nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    manifests: Vec<Reference>,
    layers: Vec<Reference>,
    /// A descriptor in a manifest, something else in an image's config.
    config: serde_json::Value,
    rootfs: Rootfs,
}

#[derive(Debug, Deserialize)]
struct Reference {
    digest: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rootfs {
    diff_ids: Vec<String>,
}

/// The references of a document; none if it is no document.
pub(super) fn edges(bytes: &[u8], snapshotter: &str) -> Vec<Edge> {
    let Ok(document) = serde_json::from_slice::<Document>(bytes) else {
        return Vec::new();
    };
    let blob = |reference: &Reference| Resource::Content(reference.digest.clone());
    let mut edges: Vec<Edge> = document.manifests.iter().map(blob).map(Edge::whole).collect();
    if let Some(config) = document.config.get("digest").and_then(|digest| digest.as_str()) {
        edges.push(Edge::whole(Resource::Content(config.to_owned())));
    }
    edges.extend(document.layers.iter().map(blob).map(Edge::leaf));
    let diff_ids = document.rootfs.diff_ids.iter().map(|digest| digest.parse());
    if let Ok(diff_ids) = diff_ids.collect::<Result<Vec<Digest>, _>>() {
        // Each of the chain: of an image that is half unpacked the topmost is not there.
        let chain = chain_ids(&diff_ids).into_iter();
        edges.extend(chain.map(|key| Edge::whole(Resource::snapshot(snapshotter, key))));
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        edges(text.as_bytes(), "overlay")
            .iter()
            .map(|edge| edge.to.to_string())
            .collect()
    }

    #[test]
    fn each_kind_of_document() {
        let manifest =
            r#"{"config": {"digest": "sha256:c"}, "layers": [{"digest": "sha256:1"}, {"digest": "sha256:2"}]}"#;
        assert_eq!(
            shown(manifest),
            ["content/sha256:c", "content/sha256:1", "content/sha256:2"]
        );
        assert_eq!(
            shown(r#"{"manifests": [{"digest": "sha256:m", "platform": {}}]}"#),
            ["content/sha256:m"]
        );
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let config = format!(r#"{{"config": {{"Env": []}}, "rootfs": {{"diff_ids": ["sha256:{a}", "sha256:{b}"]}}}}"#);
        let snapshots = shown(&config);
        assert_eq!(snapshots.len(), 2);
        assert_eq!(snapshots[0], format!("snapshot/overlay/sha256:{a}"));
        for nothing in ["", "{", "[]", "{}", "{\"layers\": 7}", "a layer", "null"] {
            assert_eq!(shown(nothing), [""; 0], "{nothing}");
        }
    }
}
