//! The parts of a manifest that a registry looks at. The bytes themselves are kept as they came.

use std::collections::BTreeMap;

use oci_spec::image::Digest;
use serde::Deserialize;

/// No manifest may be larger, in bytes (the limit that the specification recommends).
pub(crate) const LIMIT: usize = 4 << 20;

/// What a manifest says of others, and of itself to those that look for referrers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    /// Blobs that it needs.
    pub(crate) blobs: Vec<Digest>,
    /// Manifests that it needs.
    pub(crate) manifests: Vec<Digest>,
    /// The manifest that it is about, which need not be there.
    pub(crate) subject: Option<Digest>,
    pub(crate) artifact_type: Option<String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) media_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Loose {
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Part>,
    #[serde(default)]
    layers: Vec<Part>,
    #[serde(default)]
    manifests: Vec<Part>,
    subject: Option<Part>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    media_type: Option<String>,
    digest: Digest,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

impl Summary {
    /// Reads a manifest or an index, OCI's or Docker's.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Loose = serde_json::from_slice(bytes).map_err(|error| format!("not a manifest: {error}"))?;
        // Layers with URLs of their own live elsewhere (Windows base layers).
        let kept = manifest
            .layers
            .into_iter()
            .filter(|layer| layer.urls.as_ref().is_none_or(Vec::is_empty));
        let config_type = manifest.config.as_ref().and_then(|config| config.media_type.clone());
        Ok(Self {
            blobs: manifest
                .config
                .into_iter()
                .chain(kept)
                .map(|part| part.digest)
                .collect(),
            manifests: manifest.manifests.into_iter().map(|part| part.digest).collect(),
            subject: manifest.subject.map(|part| part.digest),
            // An image's type is its config's, when it does not say one ("Listing Referrers").
            artifact_type: manifest.artifact_type.or(config_type),
            annotations: manifest.annotations.unwrap_or_default(),
            media_type: manifest.media_type,
        })
    }
}
