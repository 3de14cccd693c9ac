//! Media types of OCI images and of Docker's image manifest v2 schema 2, which means the same by other names.

use oci_spec::image::MediaType;

/// Docker's name for an image index.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's name for an image manifest (v2 schema 2).
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's name for an image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What a resolver accepts, most wanted first.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Whether this is an index of manifests: OCI's, or Docker's manifest list.
pub fn is_index(media_type: &MediaType) -> bool {
    matches!(media_type, MediaType::ImageIndex) || media_type.as_ref() == DOCKER_MANIFEST_LIST
}

/// Whether this is the manifest of one image: OCI's, or Docker's v2 schema 2.
pub fn is_manifest(media_type: &MediaType) -> bool {
    matches!(media_type, MediaType::ImageManifest) || media_type.as_ref() == DOCKER_MANIFEST
}

/// Whether this is an image's configuration: OCI's or Docker's.
pub fn is_config(media_type: &MediaType) -> bool {
    matches!(media_type, MediaType::ImageConfig) || media_type.as_ref() == DOCKER_CONFIG
}

/// Whether a registry keeps this under `/manifests/` rather than `/blobs/`.
pub(crate) fn is_under_manifests(media_type: &MediaType) -> bool {
    is_index(media_type) || is_manifest(media_type) || is_schema1(media_type.as_ref())
}

/// Docker's manifests before schema 2, which name layers by what they were before compression.
pub(crate) fn is_schema1(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.docker.distribution.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v1+prettyjws"
    )
}
