use std::future::IntoFuture;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::future::BoxFuture;
use longshore_bundle::{Unpacker, chain_ids};
use longshore_content::ContentStoreExt;
use longshore_distribution::{Keeper, Pull, PullOptions, PullProgress, PullSource, Reference};
use longshore_events::EventKind;
use longshore_metadata::{Batch, Key, Kind, MetadataStore, MetadataStoreExt, Record, Resource, Value};
use longshore_snapshot::Reach;
use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageManifest, MediaType, Platform};

use crate::error::At;
use crate::platforms::Platforms;
use crate::senses::{PullCounter, UnpackCounter};
use crate::{Engine, Error, Result, remote};

/// A manifest or config that is larger is not one.
pub(crate) const DOCUMENT_LIMIT: u64 = 8 << 20;

/// How long what a pull brings in is held when the program ends before the pull does.
const PULL_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// The label of an image's record that names the manifest of this platform.
pub(crate) const MANIFEST_LABEL: &str = "longshore.manifest";

/// An image that is here and unpacked.
#[derive(Clone, Debug)]
pub struct Image {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    target: Descriptor,
    manifest_descriptor: Descriptor,
    manifest: ImageManifest,
    config: ImageConfiguration,
    chain_id: Option<String>,
}

impl Image {
    /// Its full name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What the name stands for: a manifest or an index.
    pub fn target(&self) -> &Descriptor {
        &self.inner.target
    }

    /// Where the manifest for this platform is.
    pub fn manifest_descriptor(&self) -> &Descriptor {
        &self.inner.manifest_descriptor
    }

    /// The manifest for this platform.
    pub fn manifest(&self) -> &ImageManifest {
        &self.inner.manifest
    }

    /// The image's config.
    pub fn config(&self) -> &ImageConfiguration {
        &self.inner.config
    }

    /// The snapshot that holds its root filesystem (the chainID of the image specification); `None` for an image without layers.
    pub fn chain_id(&self) -> Option<&str> {
        self.inner.chain_id.as_deref()
    }

    /// Bytes of its compressed layers.
    pub fn size(&self) -> u64 {
        self.inner.manifest.layers().iter().map(Descriptor::size).sum()
    }
}

/// A pull about to happen: await it, or set its options first.
#[derive(Debug)]
#[must_use = "nothing is pulled before it is awaited"]
pub struct PullBuilder {
    engine: Engine,
    name: String,
    options: PullOptions,
    platforms: Platforms,
}

impl PullBuilder {
    /// The platform to choose from an index, instead of the host's.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.options.platform = Some(platform);
        self
    }

    /// Brings the images of all platforms, to be pushed or saved on; one is unpacked, and must be there.
    pub fn all_platforms(mut self) -> Self {
        self.platforms = Platforms::All;
        self
    }

    /// Is told of the pull's progress.
    pub fn progress(mut self, progress: Arc<dyn PullProgress>) -> Self {
        self.options.progress = Some(progress);
        self
    }
}

impl IntoFuture for PullBuilder {
    type Output = Result<Image>;
    type IntoFuture = BoxFuture<'static, Result<Image>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let counter = Arc::new(PullCounter::new(self.options.progress));
            let options = PullOptions {
                progress: Some(counter.clone()),
                ..self.options
            };
            let reference = self.engine.asked("pull", &self.name, parse_reference(&self.name))?;
            let outcome = self.engine.pull_image(&reference, options, self.platforms).await;
            counter.count(&self.engine.senses.metrics, reference.registry(), &outcome);
            self.engine.asked("pull", &reference.whole(), outcome)
        })
    }
}

impl Engine {
    /// Pulls an image: resolves the name, fetches what is not here yet, unpacks it while it comes, and registers the name.
    ///
    /// A snapshotter whose [`reach`](longshore_snapshot::Snapshotter::reach) is remote is asked first: of the layers from the lowest on, those that it has are not fetched. Such an image
    /// runs, but can't be pushed or saved. From the first layer that it has not got all are fetched.
    ///
    /// Short names mean what Docker takes them for: `alpine` is `docker.io/library/alpine:latest`. When the future is dropped, or the program
    /// killed, what came stays for a day, layers in part too, and the next pull goes on from there; the name is registered last.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Unauthorized`](crate::ErrorKind::Unauthorized) and [`Unavailable`](crate::ErrorKind::Unavailable) from the registry,
    /// [`Verification`](crate::ErrorKind::Verification) for wrong bytes, [`Unsupported`](crate::ErrorKind::Unsupported) when no image is for this platform.
    pub fn pull(&self, name: impl Into<String>) -> PullBuilder {
        let options = PullOptions {
            verifier: self.verifier.clone(),
            ..Default::default()
        };
        PullBuilder {
            engine: self.clone(),
            name: name.into(),
            options,
            platforms: Platforms::One,
        }
    }

    async fn pull_image(&self, reference: &Reference, options: PullOptions, platforms: Platforms) -> Result<Image> {
        let source = PullSource {
            resolver: self.resolver.clone(),
            fetcher: self.fetcher.clone(),
        };
        self.bring_platforms(reference, source, options, platforms).await
    }

    /// Brings an image in from a source, unpacks it, and registers the name.
    pub(crate) async fn bring(&self, reference: &Reference, source: PullSource, options: PullOptions) -> Result<Image> {
        let doing = || format!("pulling {reference}");
        let holder = Arc::new(Holder::new(self, "pull").await.at(doing())?);
        let options = PullOptions {
            keeper: Some(holder.clone()),
            ..options
        };
        let plan = Pull::plan(source, self.content(), reference, options)
            .await
            .at(doing())?;
        let image = plan.image().clone();
        holder
            .hold_snapshots(&image.config, self.snapshotter.name())
            .await
            .at(doing())?;
        let unpacker = Unpacker::with_options(self.content(), self.snapshotter(), self.privilege.unpack_options());
        let unpacking_it = || format!("unpacking {reference}");
        let manifest = remote::labelled(&image, self.snapshotter.reach());
        let below = match self.snapshotter.reach() {
            // What an image consists of is to be here, to be pushed and saved, even if its files were unpacked from other blobs.
            Reach::Local => 0,
            Reach::Remote => unpacker.present(&manifest, &image.config).await.at(unpacking_it())?,
        };
        let pull = plan.start_above(below).await.at(doing())?;
        let counter = Arc::new(UnpackCounter::new(self.senses.metrics.clone()));
        let unpacking = unpacker.unpack_observed(&manifest, &image.config, counter);
        // Unpacking follows the layers as they come. When a layer fails both sides fail: the fetching side knows why.
        let (fetched, unpacked) = tokio::join!(pull.finish(), unpacking);
        fetched.at(doing())?;
        let unpacked = unpacked.at(unpacking_it())?;
        let manifest = image.manifest_descriptor.digest();
        self.register(&reference.whole(), &image.target, manifest, &holder)
            .await?;
        Ok(Image {
            inner: Arc::new(Inner {
                name: reference.whole(),
                target: image.target,
                manifest_descriptor: image.manifest_descriptor,
                manifest: image.manifest,
                config: image.config,
                chain_id: unpacked.chain_id,
            }),
        })
    }

    /// Writes the name and lets go of the lease, together.
    pub(crate) async fn register(
        &self,
        name: &str,
        target: &Descriptor,
        manifest: &Digest,
        holder: &Holder,
    ) -> Result<()> {
        let name = name.to_owned();
        let key = Key::image(&self.namespace, &name);
        let doing = format!("registering {name}");
        let known = self.metadata.get(&key).await.at(&doing)?;
        let mut labels = known.as_ref().map(|record| record.labels.clone()).unwrap_or_default();
        labels.insert(MANIFEST_LABEL.to_owned(), manifest.to_string());
        let value = Value::Image(longshore_metadata::Image { target: target.clone() }.into());
        let unchanged = known
            .as_ref()
            .is_some_and(|record| record.value == value && record.labels == labels);
        let mut batch = Batch::new();
        if !unchanged {
            batch = batch.put(key, labels.clone(), value);
        }
        self.metadata
            .apply(batch.delete(holder.lease.clone()))
            .await
            .at(doing)?;
        match known {
            None => self.emitter().emit(EventKind::ImageCreate { name, labels }),
            Some(_) if !unchanged => self.emitter().emit(EventKind::ImageUpdate { name, labels }),
            Some(_) => {}
        }
        Ok(())
    }

    /// An image that is here, by its name.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when no such name is registered.
    pub async fn image(&self, name: &str) -> Result<Image> {
        let name = parse_reference(name)?.whole();
        let record = self
            .metadata
            .get(&Key::image(&self.namespace, &name))
            .await
            .at("looking up an image")?;
        self.load_image(record.ok_or(Error::NoSuchImage(name))?).await
    }

    /// The images of this engine's namespace, ordered by name.
    ///
    /// # Errors
    /// When the metadata can't be read, or the manifest of an image is gone.
    pub async fn images(&self) -> Result<Vec<Image>> {
        let records = self
            .metadata
            .list(&self.namespace, Kind::Image)
            .await
            .at("listing images")?;
        let mut images = Vec::with_capacity(records.len());
        for record in records {
            images.push(self.load_image(record).await?);
        }
        Ok(images)
    }

    /// Forgets an image's name. What it consists of stays until it is collected.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when no such name is registered.
    pub async fn remove_image(&self, name: &str) -> Result<()> {
        let outcome = self.remove_name(name).await;
        self.asked("remove image", name, outcome)
    }

    async fn remove_name(&self, name: &str) -> Result<()> {
        let name = parse_reference(name)?.whole();
        match self
            .metadata
            .apply(Batch::new().delete(Key::image(&self.namespace, &name)))
            .await
        {
            Err(error) if error.kind() == longshore_metadata::ErrorKind::NotFound => Err(Error::NoSuchImage(name)),
            outcome => {
                outcome.at(format!("removing image {name}"))?;
                self.emitter().emit(EventKind::ImageDelete { name });
                Ok(())
            }
        }
    }

    async fn load_image(&self, record: Record) -> Result<Image> {
        let name = record.key.id;
        let Value::Image(image) = record.value else {
            return Err(Error::NoSuchImage(name));
        };
        let digest = match record.labels.get(MANIFEST_LABEL) {
            Some(digest) => parse_digest(&name, digest)?,
            None => image.target.digest().clone(),
        };
        let (manifest, size): (ImageManifest, _) = self.document(&name, &digest).await?;
        let (config, _): (ImageConfiguration, _) = self.document(&name, manifest.config().digest()).await?;
        let chain_id = chain_id_of(&name, &config)?;
        let manifest_descriptor = match &digest == image.target.digest() {
            true => image.target.clone(),
            false => {
                let media_type = manifest.media_type().clone().unwrap_or(MediaType::ImageManifest);
                Descriptor::new(media_type, size, digest)
            }
        };
        Ok(Image {
            inner: Arc::new(Inner {
                name,
                target: image.target,
                manifest_descriptor,
                manifest,
                config,
                chain_id,
            }),
        })
    }

    /// A document, and its size.
    async fn document<T: serde::de::DeserializeOwned>(&self, image: &str, digest: &Digest) -> Result<(T, u64)> {
        let bytes = self
            .content
            .read(digest, DOCUMENT_LIMIT)
            .await
            .at(format!("reading image {image}"))?;
        let parsed = serde_json::from_slice(&bytes).map_err(|error| Error::Invalid {
            what: format!("image {image}"),
            reason: format!("{digest} is not what it should be: {error}"),
        })?;
        Ok((parsed, bytes.len() as u64))
    }
}

/// Parses a reference, or says what a good one looks like.
pub(crate) fn parse_reference(name: &str) -> Result<Reference> {
    longshore_distribution::parse_reference(name).at("reading an image's name")
}

fn parse_digest(image: &str, digest: &str) -> Result<Digest> {
    digest.parse().map_err(|error| Error::Invalid {
        what: format!("image {image}"),
        reason: format!("its record names '{digest}', which is not a digest: {error}"),
    })
}

fn chain_id_of(image: &str, config: &ImageConfiguration) -> Result<Option<String>> {
    let diff_ids = config.rootfs().diff_ids();
    let diff_ids = diff_ids
        .iter()
        .map(|digest| parse_digest(image, digest))
        .collect::<Result<Vec<_>>>()?;
    Ok(chain_ids(&diff_ids).pop())
}

/// Holds, by a lease, what a pull brings in until the image's name does.
#[derive(Debug)]
pub(crate) struct Holder {
    metadata: Arc<dyn MetadataStore>,
    lease: Key,
}

impl Holder {
    /// `what` makes something that is not held otherwise.
    pub(crate) async fn new(engine: &Engine, what: &str) -> longshore_metadata::Result<Self> {
        let id = format!("{what}-{}", unique());
        let expires = SystemTime::now() + PULL_LEASE;
        engine
            .metadata
            .create_lease(&engine.namespace, &id, Some(expires))
            .await?;
        Ok(Self {
            metadata: engine.metadata.clone(),
            lease: Key::lease(&engine.namespace, id),
        })
    }

    /// Lets go of all at once, when nothing came of it.
    pub(crate) async fn let_go(&self) {
        if let Err(error) = self.metadata.apply(Batch::new().delete(self.lease.clone())).await {
            tracing::debug!(%error, "a lease was left to expire");
        }
    }

    pub(crate) async fn hold(&self, resources: &[Resource]) -> longshore_metadata::Result<()> {
        self.metadata
            .hold(&self.lease.namespace, &self.lease.id, resources)
            .await?;
        Ok(())
    }

    pub(crate) async fn hold_snapshots(
        &self,
        config: &ImageConfiguration,
        snapshotter: &str,
    ) -> longshore_metadata::Result<()> {
        let diff_ids = config.rootfs().diff_ids();
        let diff_ids: Vec<Digest> = diff_ids.iter().filter_map(|digest| digest.parse().ok()).collect();
        let chain = chain_ids(&diff_ids).into_iter();
        self.hold(
            &chain
                .map(|key| Resource::snapshot(snapshotter, key))
                .collect::<Vec<_>>(),
        )
        .await
    }
}

#[async_trait]
impl Keeper for Holder {
    async fn keep(&self, blobs: &[Descriptor]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let blobs = blobs.iter().map(|blob| Resource::Content(blob.digest().to_string()));
        Ok(self.hold(&blobs.collect::<Vec<_>>()).await?)
    }
}

/// A word that nobody else was given: neither by this process nor by one that had its number before, whose leases and partial ingests may still be there.
pub(crate) fn unique() -> String {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static BEGUN: OnceLock<u128> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let begun = BEGUN.get_or_init(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(0, |now| now.as_nanos())
    });
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{begun:x}-{number}", std::process::id())
}
