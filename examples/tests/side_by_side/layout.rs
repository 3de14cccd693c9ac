//! An OCI layout written byte for byte as a case wants it, so that nothing makes a strange layer ordinary on its way.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use longshore::content::sha256;
use serde_json::{Value, json};

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer as a registry has it, and the archive in it, whose digest is the diffID.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    media_type: &'static str,
    blob: Vec<u8>,
    archive: Vec<u8>,
}

/// One gzip member.
fn member(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory takes it")
}

/// A frame that a decoder skips.
fn skippable(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).expect("a small frame");
    [&0x184d_2a50_u32.to_le_bytes()[..], &len.to_le_bytes(), bytes].concat()
}

impl Packed {
    pub(crate) fn plain(archive: Vec<u8>) -> Self {
        let blob = archive.clone();
        Self {
            media_type: PLAIN,
            blob,
            archive,
        }
    }

    pub(crate) fn gzip(archive: Vec<u8>) -> Self {
        let blob = member(&archive);
        Self {
            media_type: GZIP,
            blob,
            archive,
        }
    }

    /// As eStargz has it: a member for every few blocks, and at the end an empty one whose extra field says where the table of contents begins.
    pub(crate) fn many_members(archive: Vec<u8>) -> Self {
        let mut blob: Vec<u8> = archive.chunks(1536).flat_map(member).collect();
        let toc = format!("{:016x}STARGZ", blob.len() / 2);
        let footer = flate2::GzBuilder::new().extra([&b"SG\x16\x00"[..], toc.as_bytes()].concat());
        blob.extend(
            footer
                .write(Vec::new(), flate2::Compression::none())
                .finish()
                .expect("memory takes it"),
        );
        Self {
            media_type: GZIP,
            blob,
            archive,
        }
    }

    /// As zstd:chunked has it: a frame for every few blocks, and the table of contents in frames that are skipped.
    pub(crate) fn chunked(archive: Vec<u8>) -> Self {
        let mut blob: Vec<u8> = archive.chunks(1536).flat_map(frame).collect();
        blob.extend(skippable(br#"{"version":1,"entries":[]}"#));
        blob.extend(skippable(&[0; 56]));
        Self {
            media_type: ZSTD,
            blob,
            archive,
        }
    }

    pub(crate) fn zstd(archive: Vec<u8>) -> Self {
        let blob = frame(&archive);
        Self {
            media_type: ZSTD,
            blob,
            archive,
        }
    }
}

/// An OCI layout with any number of images.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) path: PathBuf,
    images: Vec<Value>,
}

impl Layout {
    pub(crate) fn new(path: PathBuf) -> Self {
        fs::create_dir_all(path.join("blobs/sha256")).expect("a layout");
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
        let images = Vec::new();
        Self { path, images }
    }

    fn put(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        fs::write(self.path.join("blobs/sha256").join(digest.digest()), bytes).expect("a blob");
        json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() })
    }

    /// The manifest of an image of these layers.
    pub(crate) fn manifest(&self, layers: &[Packed]) -> Value {
        let diff_ids: Vec<_> = layers.iter().map(|layer| sha256(&layer.archive).to_string()).collect();
        let history: Vec<_> = layers.iter().map(|_| json!({ "created_by": "a test" })).collect();
        let architecture = longshore::distribution::host_platform().architecture().to_string();
        let config = json!({
            "os": "linux", "architecture": architecture, "config": {}, "history": history,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| self.put(layer.media_type, &layer.blob))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes()),
            "layers": layers,
        });
        let mut manifest = self.put(
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        );
        manifest["platform"] = json!({ "os": "linux", "architecture": architecture });
        manifest
    }

    /// An index over these manifests.
    pub(crate) fn index(&self, manifests: &[Value]) -> Value {
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
        self.put(media_type, index.to_string().as_bytes())
    }

    /// Gives a manifest or index a tag.
    pub(crate) fn tag(&mut self, tag: &str, mut descriptor: Value) {
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        self.images.push(descriptor);
        let index = json!({ "schemaVersion": 2, "manifests": self.images });
        fs::write(self.path.join("index.json"), index.to_string()).expect("an index");
    }

    pub(crate) fn tag_of(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.path.display())
    }
}
