use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use longshore_content::{ContentStore, ContentStoreExt, ErrorKind as StoreErrorKind, Expected, IngestRequest};
use oci_spec::image::{Descriptor, Digest, ImageManifestBuilder, MediaType, SCHEMA_VERSION};
use tokio::runtime::Handle;

use super::read::{Kind, TarReader};
use super::{IMAGE_NAME, docker, protocol};
use crate::layout::REF_NAME;
use crate::manifest::{
    MAX_CONFIG_SIZE, MAX_LAYERS, MAX_MANIFEST_SIZE, Origin, parse_any_manifest, parse_config, parse_index,
};
use crate::{Error, Result, media};

/// More entries than these are refused.
const MAX_ENTRIES: usize = 100_000;
/// How long a chain of links may be.
const MAX_LINKS: usize = 8;
/// How much is handed to the store at once.
const CHUNK: usize = 256 << 10;

/// An image that was in an archive.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LoadedImage {
    /// What the archive calls it: a whole name, a tag alone, or nothing.
    pub name: Option<String>,
    /// Its index or manifest, which is in the store.
    pub target: Descriptor,
}

/// Reads an archive from a stream into `content`, in one pass: an OCI image layout in a tar (`oci-archive:`, `docker save` since 25) or Docker's older form
/// (`docker-archive:`, `podman save`), for which a manifest is made of what it lists. It must not be compressed itself; its layers may be.
///
/// Whoever made it is not trusted: nothing is unpacked, a blob's name is proved by its bytes, sizes are bounded, links lead to entries of the archive only. Entries
/// that belong to no image are stored all the same, for the collector to find. Nothing is protected from collection before it is registered.
///
/// # Errors
/// [`Protocol`](crate::ErrorKind::Protocol) for what is no such archive or misses a part, [`Verification`](crate::ErrorKind::Verification) for a blob with other bytes than its
/// name says, [`Content`](crate::ErrorKind::Content) from the store, [`Unavailable`](crate::ErrorKind::Unavailable) when the stream fails. What was stored before stays.
pub async fn load_archive(
    content: Arc<dyn ContentStore>,
    source: impl Read + Send + 'static,
) -> Result<Vec<LoadedImage>> {
    let handle = Handle::current();
    let loading = tokio::task::spawn_blocking(move || {
        let mut archive = Archive {
            content,
            handle,
            files: HashMap::new(),
            links: HashMap::new(),
            documents: HashMap::new(),
        };
        archive.read(TarReader::new(source))?;
        archive.images()
    });
    match loading.await {
        Ok(loaded) => loaded,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A file of the archive, in the store.
#[derive(Clone, Debug)]
struct Stored {
    digest: Digest,
    size: u64,
    /// Its first bytes, which tell how a layer is compressed.
    magic: [u8; 4],
}

struct Archive {
    content: Arc<dyn ContentStore>,
    handle: Handle,
    files: HashMap<String, Stored>,
    links: HashMap<String, String>,
    documents: HashMap<&'static str, Vec<u8>>,
}

impl Archive {
    fn read<R: Read>(&mut self, mut tar: TarReader<R>) -> Result<()> {
        let mut entries = 0;
        while let Some(entry) = tar.next()? {
            entries += 1;
            if entries > MAX_ENTRIES {
                return Err(protocol(
                    "an archive",
                    format!("it has more than {MAX_ENTRIES} entries"),
                ));
            }
            let path = lexical("", &entry.path);
            match entry.kind {
                Kind::File(size) => {
                    let document = ["oci-layout", "index.json", docker::NAME]
                        .into_iter()
                        .find(|name| *name == path);
                    if let Some(name) = document {
                        let bytes = tar.small(&path, MAX_MANIFEST_SIZE)?;
                        self.documents.insert(name, bytes);
                    } else {
                        let stored = self.store(&path, size, &mut tar)?;
                        self.files.insert(path, stored);
                    }
                }
                Kind::Symlink(target) => {
                    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                    let target = lexical(folder, &target);
                    self.links.insert(path, target);
                }
                Kind::HardLink(target) => drop(self.links.insert(path, lexical("", &target))),
                Kind::Other => {}
            }
        }
        Ok(())
    }

    /// One file, into the store.
    fn store<R: Read>(&self, path: &str, size: u64, tar: &mut TarReader<R>) -> Result<Stored> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let failed = |source| Error::Content {
            what: format!("'{path}' of an archive"),
            source,
        };
        let expected = Expected {
            digest: promised(path),
            size: Some(size),
        };
        let reference = format!("load-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let request = IngestRequest {
            reference: reference.clone(),
            expected: expected.clone(),
        };
        let mut stored = Stored {
            digest: longshore_content::sha256(b""),
            size,
            magic: [0; 4],
        };
        let mut ingest = match (self.handle.block_on(self.content.ingest(request)), &expected.digest) {
            (Err(error), Some(digest)) if error.kind() == StoreErrorKind::AlreadyExists => {
                // It is here, and proved: what the archive has of it does not matter.
                let mut filled = 0;
                while let count @ 1.. = tar.read(&mut stored.magic[filled..])? {
                    filled += count;
                }
                stored.digest = digest.clone();
                return Ok(stored);
            }
            (ingest, _) => ingest.map_err(failed)?,
        };
        if ingest.status().offset > 0 {
            // Of a process that had our number and was killed.
            self.handle.block_on(ingest.restart()).map_err(failed)?;
        }
        let outcome = (|| {
            let mut offset = 0;
            while offset < size {
                let mut chunk = vec![0; CHUNK];
                let count = tar.read(&mut chunk)?;
                chunk.truncate(count);
                if offset == 0 {
                    let magic = count.min(4);
                    stored.magic[..magic].copy_from_slice(&chunk[..magic]);
                }
                offset += count as u64;
                self.handle.block_on(ingest.write(chunk.into())).map_err(failed)?;
            }
            Ok(())
        })();
        if let Err(error) = outcome {
            drop(ingest);
            // Nobody is going to resume it. The first failure is what counts.
            let _ = self.handle.block_on(self.content.abort(&reference));
            return Err(error);
        }
        match self.handle.block_on(ingest.commit(expected)) {
            Ok(info) => stored.digest = info.digest,
            Err(longshore_content::Error::AlreadyExists(digest)) => stored.digest = digest,
            Err(error) => return Err(failed(error)),
        }
        Ok(stored)
    }

    /// What the archive lists.
    fn images(&self) -> Result<Vec<LoadedImage>> {
        if let (Some(_), Some(index)) = (self.documents.get("oci-layout"), self.documents.get("index.json")) {
            return self.of_layout(index);
        }
        match self.documents.get(docker::NAME) {
            Some(list) => self.of_docker(list),
            None => Err(protocol(
                "an archive",
                "it has neither an index.json with an oci-layout nor a manifest.json",
            )),
        }
    }

    fn of_layout(&self, index: &[u8]) -> Result<Vec<LoadedImage>> {
        let origin = Origin {
            registry: super::ARCHIVE,
            what: "index.json",
        };
        let index = parse_index(index, origin)?;
        let mut images = Vec::new();
        for entry in index.manifests() {
            self.check(entry)?;
            let annotation = |key: &str| entry.annotations().as_ref().and_then(|all| all.get(key).cloned());
            let name = annotation(IMAGE_NAME).or_else(|| annotation(REF_NAME));
            let mut target = Descriptor::new(entry.media_type().clone(), entry.size(), entry.digest().clone());
            target.set_platform(entry.platform().clone());
            images.push(LoadedImage { name, target });
        }
        Ok(images)
    }

    /// An image must be whole; of an index, the images of other platforms may be missing.
    fn check(&self, target: &Descriptor) -> Result<()> {
        if !media::is_manifest(target.media_type()) {
            return self.check_there(target);
        }
        self.check_there(target)?;
        let read = self.content.read(target.digest(), MAX_MANIFEST_SIZE);
        let bytes = self.handle.block_on(read).map_err(|source| Error::Content {
            what: target.digest().to_string(),
            source,
        })?;
        let origin = Origin {
            registry: super::ARCHIVE,
            what: "a manifest",
        };
        let manifest = parse_any_manifest(&bytes, origin)?;
        let parts = std::iter::once(manifest.config()).chain(manifest.layers());
        let mut needed = parts.filter(|part| part.urls().as_ref().is_none_or(Vec::is_empty));
        needed.try_for_each(|part| self.check_there(part))
    }

    fn check_there(&self, blob: &Descriptor) -> Result<()> {
        match self.handle.block_on(self.content.info(blob.digest())) {
            Ok(info) if info.size == blob.size() => Ok(()),
            Ok(info) => Err(protocol(
                blob.digest().as_ref(),
                format!("it has {} bytes, not the {} that are said", info.size, blob.size()),
            )),
            Err(error) if error.kind() == StoreErrorKind::NotFound => {
                Err(protocol("an archive", format!("{} is missing in it", blob.digest())))
            }
            Err(source) => Err(Error::Content {
                what: blob.digest().to_string(),
                source,
            }),
        }
    }

    fn of_docker(&self, list: &[u8]) -> Result<Vec<LoadedImage>> {
        let mut images = Vec::new();
        for image in docker::read(list)? {
            let target = self.manifest_of(&image)?;
            let names = image.repo_tags.unwrap_or_default();
            if names.is_empty() {
                images.push(LoadedImage {
                    name: None,
                    target: target.clone(),
                });
            }
            for name in names {
                images.push(LoadedImage {
                    name: Some(name),
                    target: target.clone(),
                });
            }
        }
        Ok(images)
    }

    /// Makes the manifest that Docker's form has none of.
    fn manifest_of(&self, image: &docker::Image) -> Result<Descriptor> {
        let config = self.find(&image.config)?;
        if image.layers.len() > MAX_LAYERS {
            return Err(protocol(
                docker::NAME,
                format!("an image in it has {} layers", image.layers.len()),
            ));
        }
        let read = self.content.read(&config.digest, MAX_CONFIG_SIZE);
        let bytes = self.handle.block_on(read).map_err(|source| Error::Content {
            what: format!("'{}' of an archive", image.config),
            source,
        })?;
        let origin = Origin {
            registry: super::ARCHIVE,
            what: &image.config,
        };
        let diff_ids = parse_config(&bytes, origin)?.rootfs().diff_ids().len();
        if diff_ids != image.layers.len() {
            return Err(origin.protocol(format!(
                "it lists {diff_ids} layers (diff_ids), {} {}",
                docker::NAME,
                image.layers.len()
            )));
        }
        let mut layers = Vec::new();
        for path in &image.layers {
            let layer = self.find(path)?;
            layers.push(Descriptor::new(
                layer_type(layer.magic),
                layer.size,
                layer.digest.clone(),
            ));
        }
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(Descriptor::new(
                MediaType::ImageConfig,
                config.size,
                config.digest.clone(),
            ))
            .layers(layers)
            .build()
            .expect("all that it needs was given");
        let bytes = Bytes::from(serde_json::to_vec(&manifest).expect("a manifest is JSON"));
        let target = Descriptor::new(
            MediaType::ImageManifest,
            bytes.len() as u64,
            longshore_content::sha256(&bytes),
        );
        let expected = Expected {
            digest: Some(target.digest().clone()),
            size: Some(target.size()),
        };
        let reference = format!("load-{}", target.digest());
        let put = self.content.put(&reference, bytes, expected);
        self.handle.block_on(put).map_err(|source| Error::Content {
            what: "a manifest".into(),
            source,
        })?;
        Ok(target)
    }

    /// A file by its path, through the archive's own links.
    fn find(&self, path: &str) -> Result<&Stored> {
        let mut path = lexical("", path);
        for _ in 0..MAX_LINKS {
            if let Some(stored) = self.files.get(&path) {
                return Ok(stored);
            }
            match self.links.get(&path) {
                Some(target) => path = target.clone(),
                None => break,
            }
        }
        Err(protocol(
            "an archive",
            format!("'{path}', which it lists, is missing in it"),
        ))
    }
}

/// A path inside the archive; what would lead out of it ends at its root.
fn lexical(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let folder = if path.starts_with('/') { "" } else { folder };
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The digest that a path promises: `blobs/sha256/<hex>`.
fn promised(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
    let digest: Digest = format!("{algorithm}:{hex}").parse().ok()?;
    longshore_content::Hasher::new(digest.algorithm())
        .is_ok()
        .then_some(digest)
}

fn layer_type(magic: [u8; 4]) -> MediaType {
    match magic {
        [0x1f, 0x8b, ..] => MediaType::ImageLayerGzip,
        [0x28, 0xb5, 0x2f, 0xfd] => MediaType::ImageLayerZstd,
        _ => MediaType::ImageLayer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(lexical("", "./a//b"), "a/b");
        assert_eq!(lexical("a/b", "../c/layer.tar"), "a/c/layer.tar");
        assert_eq!(lexical("a", "/c"), "c");
        assert_eq!(lexical("a", "../../../etc/passwd"), "etc/passwd");
        let hex = "ab".repeat(32);
        assert!(promised(&format!("blobs/sha256/{hex}")).is_some());
        assert!(promised(&format!("blobs/md5/{hex}")).is_none());
        assert!(promised("blobs/sha256/../x").is_none());
        assert!(promised(&hex).is_none());
    }
}
