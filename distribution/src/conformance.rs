//! The contracts of [`Resolver`], [`Fetcher`] and [`Pusher`] as suites that any implementation runs against itself.
//!
//! They need an image that the implementation can find ([`Sample`]): a tagged manifest with a config and layers. A suite panics when the contract is broken.

#![allow(clippy::unwrap_used, reason = "a suite of tests panics by design")]

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use longshore_content::{ContentStore, ContentStoreExt, Expected, MemoryStore};
use oci_spec::distribution::Reference;
use oci_spec::image::{
    Arch, Descriptor, Digest, ImageConfigurationBuilder, ImageManifestBuilder, MediaType, Os, RootFsBuilder,
    SCHEMA_VERSION,
};

use crate::{ErrorKind, Fetcher, Pushed, Pusher, Resolver, Root};

/// A small image: the bytes of its manifest, and its blobs.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The manifest.
    pub manifest: (Descriptor, Bytes),
    /// Config and layers. The layers are bytes of no meaning.
    pub blobs: Vec<(Descriptor, Bytes)>,
}

impl Sample {
    /// An image of two layers, of 300,000 and 0 bytes.
    pub fn new() -> Self {
        let large: Bytes = (0..300_000u32).map(|number| (number % 251) as u8).collect();
        let layers = [large, Bytes::new()].map(|bytes| describe(MediaType::ImageLayer, bytes));
        let diff_ids = layers
            .iter()
            .map(|(layer, _)| layer.digest().to_string())
            .collect::<Vec<_>>();
        let config = ImageConfigurationBuilder::default()
            .architecture(Arch::default())
            .os(Os::default())
            .rootfs(
                RootFsBuilder::default()
                    .typ("layers".to_owned())
                    .diff_ids(diff_ids)
                    .build()
                    .unwrap(),
            )
            .history(Vec::new())
            .build()
            .unwrap();
        let config = describe(MediaType::ImageConfig, serde_json::to_vec(&config).unwrap().into());
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(config.0.clone())
            .layers(layers.iter().map(|(layer, _)| layer.clone()).collect::<Vec<_>>())
            .build()
            .unwrap();
        let manifest = describe(MediaType::ImageManifest, serde_json::to_vec(&manifest).unwrap().into());
        Self {
            manifest,
            blobs: std::iter::once(config).chain(layers).collect(),
        }
    }

    /// A store that holds it.
    pub async fn store(&self) -> MemoryStore {
        let store = MemoryStore::new();
        for (blob, bytes) in self.blobs.iter().chain([&self.manifest]) {
            store
                .put(&format!("sample-{}", blob.digest()), bytes.clone(), Expected::default())
                .await
                .unwrap();
        }
        store
    }
}

impl Default for Sample {
    fn default() -> Self {
        Self::new()
    }
}

fn describe(media_type: MediaType, bytes: Bytes) -> (Descriptor, Bytes) {
    let digest = longshore_content::sha256(&bytes);
    (Descriptor::new(media_type, bytes.len() as u64, digest), bytes)
}

/// A digest of nothing that is there.
fn absent() -> Digest {
    format!("sha256:{}", "0".repeat(64)).parse().unwrap()
}

/// Tries a resolver that finds `sample` under `tagged`.
///
/// # Panics
/// When it breaks the contract.
pub async fn resolver(resolver: &dyn Resolver, tagged: &Reference, sample: &Sample) {
    let (descriptor, bytes) = &sample.manifest;
    let resolved = resolver.resolve(tagged).await.expect("a tag is resolved");
    assert_eq!(
        resolved.descriptor.digest(),
        descriptor.digest(),
        "the digest is that of the bytes"
    );
    assert_eq!(resolved.descriptor.size(), descriptor.size());
    assert_eq!(resolved.descriptor.media_type(), descriptor.media_type());
    if let Some(manifest) = resolved.manifest {
        assert_eq!(&manifest, bytes, "the manifest is handed on as received");
    }
    let by_digest = tagged.clone_with_digest(descriptor.digest().to_string());
    let resolved = resolver.resolve(&by_digest).await.expect("a digest is resolved");
    assert_eq!(resolved.descriptor.digest(), descriptor.digest());
    let error = resolver
        .resolve(&tagged.clone_with_digest(absent().to_string()))
        .await
        .expect_err("no such digest");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let repository = format!("{}/{}:no-such-tag", tagged.registry(), tagged.repository());
    let error = resolver
        .resolve(&repository.parse().unwrap())
        .await
        .expect_err("no such tag");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(
        error.to_string().contains("no-such-tag"),
        "the error names what was asked for: {error}"
    );
}

/// Tries a fetcher that has `sample` in the repository of `reference`.
///
/// # Panics
/// When it breaks the contract.
pub async fn fetcher(fetcher: &dyn Fetcher, reference: &Reference, sample: &Sample) {
    for (descriptor, bytes) in sample.blobs.iter().chain([&sample.manifest]) {
        assert_eq!(
            &read(fetcher, reference, descriptor, 0).await,
            bytes,
            "{}",
            descriptor.digest()
        );
    }
    let (layer, bytes) = sample.blobs.iter().max_by_key(|(blob, _)| blob.size()).unwrap();
    for offset in [1, bytes.len() as u64 / 2, bytes.len() as u64 - 1] {
        let rest = read(fetcher, reference, layer, offset).await;
        assert_eq!(rest, bytes.slice(offset as usize..), "the rest from byte {offset} on");
    }
    let missing = Descriptor::new(MediaType::ImageLayer, 1, absent());
    let error = fetcher.fetch(reference, &missing, 0).await.expect_err("no such blob");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    // One stream that is dropped half-way does not disturb the next.
    let mut fetched = fetcher.fetch(reference, layer, 0).await.unwrap();
    fetched.stream.try_next().await.unwrap();
    drop(fetched);
    assert_eq!(&read(fetcher, reference, layer, 0).await, bytes);
    // Many at once.
    let all = (0..8).map(|_| read(fetcher, reference, layer, 0));
    for got in futures::future::join_all(all).await {
        assert_eq!(&got, bytes);
    }
}

/// All bytes from `offset` on, whatever the source makes of the offset.
async fn read(fetcher: &dyn Fetcher, reference: &Reference, descriptor: &Descriptor, offset: u64) -> Bytes {
    let fetched = fetcher
        .fetch(reference, descriptor, offset)
        .await
        .expect("a blob that is there");
    assert!(
        fetched.offset == offset || fetched.offset == 0,
        "it begins at {} instead of {offset}",
        fetched.offset
    );
    let skip = (offset - fetched.offset) as usize;
    let bytes: BytesMut = fetched
        .stream
        .try_collect::<Vec<_>>()
        .await
        .expect("all of it")
        .concat()
        .as_slice()
        .into();
    bytes.freeze().slice(skip..)
}

/// Tries a pusher to the repository of `tagged`, which `resolver` and `fetcher` read again.
///
/// # Panics
/// When it breaks the contract.
pub async fn pusher(pusher: &dyn Pusher, reader: (&dyn Resolver, &dyn Fetcher), tagged: &Reference, sample: &Sample) {
    let store = sample.store().await;
    let open = async |blob: &Descriptor| store.open(blob.digest()).await.expect("it is in the store");
    for (blob, _) in &sample.blobs {
        let pushed = pusher.push(tagged, blob, open(blob).await, Root::No).await;
        assert_eq!(pushed.expect("a blob is taken"), Pushed::Sent);
        // What is there already is acknowledged again.
        let again = pusher.push(tagged, blob, open(blob).await, Root::No).await;
        assert_eq!(again.expect("a blob that is there is no error"), Pushed::Present);
    }
    let manifest = &sample.manifest.0;
    for expected in [Pushed::Sent, Pushed::Present] {
        let pushed = pusher.push(tagged, manifest, open(manifest).await, Root::Yes).await;
        assert_eq!(pushed.expect("the manifest is taken"), expected);
    }
    resolver(reader.0, tagged, sample).await;
    fetcher(reader.1, tagged, sample).await;
}
