//! What a document that calls itself a manifest really is, and reading it without believing it.

use bytes::Bytes;
use oci_spec::image::{Digest, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::digest::digest_of;
use crate::{Error, Result, media};

/// The largest manifest or index that is accepted: what every registry must take (distribution spec, "Pushing Manifests").
pub const MAX_MANIFEST_SIZE: u64 = 4 << 20;
/// The largest image configuration that is accepted.
pub const MAX_CONFIG_SIZE: u64 = 8 << 20;
/// The most layers that an image may have.
pub const MAX_LAYERS: usize = 512;
/// The most entries that an index may have.
pub const MAX_INDEX_ENTRIES: usize = 4096;

/// Where bytes came from, for the sentences that refuse them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) registry: &'a str,
    pub(crate) what: &'a str,
}

impl Origin<'_> {
    pub(crate) fn protocol(&self, reason: impl Into<String>) -> Error {
        Error::Protocol {
            registry: self.registry.to_owned(),
            what: self.what.to_owned(),
            reason: reason.into(),
        }
    }

    fn unsupported(&self, media_type: impl Into<String>) -> Error {
        Error::UnsupportedMediaType {
            what: format!("{} at {}", self.what, self.registry),
            media_type: media_type.into(),
        }
    }

    /// Fails unless `bytes` have this digest.
    pub(crate) fn prove(&self, bytes: &[u8], expected: &Digest) -> Result<()> {
        let Some(actual) = digest_of(expected.algorithm(), bytes) else {
            return Err(self.protocol(format!("digest algorithm '{}' is not supported", expected.algorithm())));
        };
        if &actual == expected {
            return Ok(());
        }
        Err(Error::DigestMismatch {
            what: self.what.to_owned(),
            registry: self.registry.to_owned(),
            expected: expected.to_string(),
            actual: actual.to_string(),
        })
    }
}

/// The fields that tell an index from a manifest. A field that comes twice is refused by the parser: which of the
/// two counts would be up to the reader.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// The media type of a manifest or index, from its bytes and what its bearer said of it (`Content-Type`, or the
/// descriptor). All that is said must agree, and the document must have that shape: one that can be read both as an
/// index and as a manifest would be two images under one digest (CVE-2021-41190).
pub(crate) fn classify(bytes: &[u8], said: Option<&str>, origin: Origin<'_>) -> Result<MediaType> {
    let said = said.map(essence).filter(|said| !is_generic(said));
    if let Some(old) = said.as_deref().filter(|said| media::is_schema1(said)) {
        return Err(origin.unsupported(format!(
            "{old}, Docker's schema 1, which no longer proves what it names"
        )));
    }
    let probe: Probe = serde_json::from_slice(bytes)
        .map_err(|error| origin.protocol(format!("it is not a manifest in JSON ({error})")))?;
    if probe.schema_version == Some(1) || probe.fs_layers.is_some() {
        return Err(origin.unsupported("Docker's schema 1, which no longer proves what it names"));
    }
    let is_index = probe.manifests.is_some();
    let is_manifest = probe.layers.is_some() || probe.config.is_some();
    if is_index && is_manifest {
        return Err(origin.protocol("it has both 'manifests' and 'layers' or 'config': it is ambiguous what it is"));
    }
    let own = probe.media_type.filter(|own| !own.is_empty());
    if let (Some(own), Some(said)) = (&own, &said)
        && own != said
    {
        return Err(origin.protocol(format!("it calls itself {own}, but was announced as {said}")));
    }
    let media_type = match own.or(said) {
        Some(stated) => MediaType::from(stated.as_str()),
        None if is_index => MediaType::ImageIndex,
        None if is_manifest => MediaType::ImageManifest,
        None => return Err(origin.protocol("it has neither 'manifests' nor 'layers': it is no manifest")),
    };
    match (media::is_index(&media_type), media::is_manifest(&media_type)) {
        (true, _) if is_manifest => Err(origin.protocol("it is called an index, but has the fields of a manifest")),
        (_, true) if is_index => Err(origin.protocol("it is called a manifest, but has the fields of an index")),
        (false, false) => Err(origin.unsupported(media_type.as_ref())),
        _ => Ok(media_type),
    }
}

/// A media type without parameters, in lower case.
fn essence(media_type: &str) -> String {
    media_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// Types that a static file server sends for want of a better one.
fn is_generic(media_type: &str) -> bool {
    matches!(
        media_type,
        "" | "application/json" | "text/plain" | "application/octet-stream" | "binary/octet-stream"
    )
}

/// Reads an index.
pub(crate) fn parse_index(bytes: &[u8], origin: Origin<'_>) -> Result<ImageIndex> {
    let index: ImageIndex = parse(bytes, origin)?;
    match index.manifests().len() {
        n if n > MAX_INDEX_ENTRIES => {
            Err(origin.protocol(format!("it has {n} entries, at most {MAX_INDEX_ENTRIES} are accepted")))
        }
        _ => Ok(index),
    }
}

/// Reads the manifest of an image, or of another artifact in the same form.
pub(crate) fn parse_any_manifest(bytes: &[u8], origin: Origin<'_>) -> Result<ImageManifest> {
    let manifest: ImageManifest = parse(bytes, origin)?;
    match manifest.layers().len() {
        n if n > MAX_LAYERS => Err(origin.protocol(format!("it has {n} layers, at most {MAX_LAYERS} are accepted"))),
        _ => Ok(manifest),
    }
}

/// Reads the manifest of an image.
pub(crate) fn parse_manifest(bytes: &[u8], origin: Origin<'_>) -> Result<ImageManifest> {
    let manifest = parse_any_manifest(bytes, origin)?;
    if media::is_config(manifest.config().media_type()) {
        return Ok(manifest);
    }
    Err(Error::UnsupportedMediaType {
        what: format!(
            "the config of {} (is it an image, or another kind of artifact?)",
            origin.what
        ),
        media_type: manifest.config().media_type().to_string(),
    })
}

/// Reads an image configuration.
pub(crate) fn parse_config(bytes: &[u8], origin: Origin<'_>) -> Result<ImageConfiguration> {
    parse(bytes, origin)
}

fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8], origin: Origin<'_>) -> Result<T> {
    let refuse = |error: serde_json::Error| origin.protocol(format!("it can't be read ({error})"));
    let mut value: serde_json::Value = serde_json::from_slice(bytes).map_err(refuse)?;
    // Go writes an empty list as null. These are the lists that the specification demands.
    for pointer in ["/layers", "/manifests", "/rootfs/diff_ids"] {
        if let Some(list) = value.pointer_mut(pointer).filter(|list| list.is_null()) {
            *list = serde_json::Value::Array(Vec::new());
        }
    }
    serde_json::from_value(value).map_err(refuse)
}

/// Bytes up to a limit, whatever length was announced.
#[derive(Debug)]
pub(crate) struct Bounded {
    bytes: Vec<u8>,
    limit: u64,
}

impl Bounded {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
        }
    }

    pub(crate) fn push(&mut self, chunk: &[u8], what: &str) -> Result<()> {
        let size = self.bytes.len() as u64 + chunk.len() as u64;
        if size > self.limit {
            return Err(Error::TooLarge {
                what: format!("{what} (the size is what came so far)"),
                size,
                limit: self.limit,
            });
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const ORIGIN: Origin<'static> = Origin {
        registry: "registry.example",
        what: "manifest",
    };
    const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    #[test]
    fn classified() {
        let docker = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{}},"layers":[]}}"#,
            media::DOCKER_MANIFEST
        );
        for (document, said, expected) in [
            (r#"{"manifests":[]}"#, None, OCI_INDEX),
            (r#"{"manifests":[]}"#, Some("application/json"), OCI_INDEX),
            (
                r#"{"manifests":[]}"#,
                Some(media::DOCKER_MANIFEST_LIST),
                media::DOCKER_MANIFEST_LIST,
            ),
            (
                r#"{"config":{},"layers":[]}"#,
                Some("text/plain; charset=utf-8"),
                OCI_MANIFEST,
            ),
            (
                r#"{"config":{},"layers":[]}"#,
                Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
                OCI_MANIFEST,
            ),
            (docker.as_str(), Some(media::DOCKER_MANIFEST), media::DOCKER_MANIFEST),
            (docker.as_str(), None, media::DOCKER_MANIFEST),
        ] {
            let media_type = classify(document.as_bytes(), said, ORIGIN).unwrap();
            assert_eq!(media_type.as_ref(), expected, "{document} {said:?}");
        }
    }

    #[test]
    fn refused() {
        let docker = format!(
            r#"{{"mediaType":"{}","config":{{}},"layers":[]}}"#,
            media::DOCKER_MANIFEST
        );
        let twice = r#"{"mediaType":"a","mediaType":"b","layers":[]}"#;
        for (document, said, kind) in [
            (r#"{"manifests":[],"layers":[]}"#, None, ErrorKind::Protocol),
            (r#"{"manifests":[],"config":{}}"#, Some(OCI_INDEX), ErrorKind::Protocol),
            (r#"{"manifests":[]}"#, Some(OCI_MANIFEST), ErrorKind::Protocol),
            (r#"{"layers":[]}"#, Some(OCI_INDEX), ErrorKind::Protocol),
            (docker.as_str(), Some(OCI_MANIFEST), ErrorKind::Protocol),
            (twice, None, ErrorKind::Protocol),
            (r#"{}"#, None, ErrorKind::Protocol),
            ("<html>", Some("text/html"), ErrorKind::Protocol),
            (r#"{"a":1}"#, Some("application/x-other"), ErrorKind::Unsupported),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, None, ErrorKind::Unsupported),
            (
                "x",
                Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
                ErrorKind::Unsupported,
            ),
        ] {
            let error = classify(document.as_bytes(), said, ORIGIN).expect_err(document);
            assert_eq!(error.kind(), kind, "{document} {said:?}: {error}");
        }
    }

    #[test]
    fn null_lists_of_go_are_empty_ones() {
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":null}}"#;
        assert!(parse_config(config, ORIGIN).unwrap().rootfs().diff_ids().is_empty());
    }

    #[test]
    fn bounded() {
        let mut bytes = Bounded::new(4);
        bytes.push(b"abcd", "x").unwrap();
        assert!(matches!(
            bytes.push(b"e", "x"),
            Err(Error::TooLarge { size: 5, limit: 4, .. })
        ));
        assert_eq!(&bytes.into_bytes()[..], b"abcd");
    }
}
