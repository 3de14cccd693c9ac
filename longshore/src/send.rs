//! Images on their way to registries.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use longshore_content::ContentStoreExt;
use longshore_distribution::{PushEvent, PushOptions, PushProgress, Reference, media, push_image_with};
use longshore_metadata::{Kind, Value};
use oci_spec::image::{Descriptor, ImageIndex};

use crate::error::At;
use crate::image::{DOCUMENT_LIMIT, parse_reference};
use crate::{Engine, Image, Result};

/// An image that is at a registry now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PushedImage {
    /// The name that was pushed.
    pub name: String,
    /// What it stands for there.
    pub target: Descriptor,
    /// Whether that is all of what the image's name stands for here.
    pub extent: Extent,
    /// Bytes of blobs and manifests that were sent.
    pub sent: u64,
    /// Bytes that the registry had in this repository.
    pub present: u64,
    /// Bytes that it took over from another of its repositories.
    pub mounted: u64,
}

/// How much of an image was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// The image of one platform: of the others that its index names not all are here.
    OnePlatform,
}

/// A push about to happen: await it, or set its options first.
#[derive(Debug)]
#[must_use = "nothing is pushed before it is awaited"]
pub struct PushBuilder {
    engine: Engine,
    image: String,
    name: String,
    options: PushOptions,
}

impl PushBuilder {
    /// Is told of the push's progress.
    pub fn progress(mut self, progress: Arc<dyn PushProgress>) -> Self {
        self.options.progress = Some(progress);
        self
    }

    /// A repository of the same registry whose blobs are taken over instead of being sent. Default: that of another name that the image has here.
    pub fn mount_from(mut self, repository: Reference) -> Self {
        self.options.mount_from = Some(repository);
        self
    }

    /// How many blobs are pushed at once.
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.options.concurrency = concurrency;
        self
    }
}

impl IntoFuture for PushBuilder {
    type Output = Result<PushedImage>;
    type IntoFuture = BoxFuture<'static, Result<PushedImage>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl Engine {
    /// Pushes an image that is here to the registry, repository and tag of `name`.
    ///
    /// What the registry has is not sent again, and what it has in another repository that the image is known by here is taken over from there. Of an index all
    /// images are pushed; when some are not here, that of this engine's platform alone ([`PushedImage::extent`]). When the future is dropped, blobs that were acknowledged stay there; the tag does not
    /// move before all is there.
    ///
    /// ```no_run
    /// # async fn demo(engine: longshore::Engine) -> longshore::Result<()> {
    /// let pushed = engine.push("alpine", "registry.example/team/alpine:3").await?;
    /// println!("{} bytes sent", pushed.sent);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when the image is not here, [`Unauthorized`](crate::ErrorKind::Unauthorized) and
    /// [`Unavailable`](crate::ErrorKind::Unavailable) from the registry, [`Invalid`](crate::ErrorKind::Invalid) for the name.
    pub fn push(&self, image: impl Into<String>, name: impl Into<String>) -> PushBuilder {
        PushBuilder {
            engine: self.clone(),
            image: image.into(),
            name: name.into(),
            options: PushOptions::default(),
        }
    }

    /// Manifests at the registry of `name` whose subject is the image that it stands for: signatures, SBOMs, attestations; of one artifact type or of all.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Unauthorized`](crate::ErrorKind::Unauthorized) and [`Unavailable`](crate::ErrorKind::Unavailable) from the registry.
    pub async fn referrers(&self, name: &str, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
        let reference = parse_reference(name)?;
        let doing = format!("looking for what refers to {reference}");
        let subject = self.resolver.resolve(&reference).await.at(&doing)?.descriptor;
        let found = self.resolver.referrers(&reference, subject.digest(), artifact_type);
        found.await.at(doing)
    }
}

impl PushBuilder {
    async fn run(self) -> Result<PushedImage> {
        let Self {
            engine,
            image,
            name,
            mut options,
        } = self;
        let reference = parse_reference(&name)?;
        let image = engine.image(&image).await?;
        let doing = format!("pushing {} to {reference}", image.name());
        let (target, extent) = engine.to_push(&image).await?;
        if options.mount_from.is_none() {
            options.mount_from = engine.elsewhere(&reference, &image).await?;
        }
        let counter = Arc::new(PushCounter {
            bytes: Mutex::default(),
            next: options.progress.take(),
        });
        options.progress = Some(counter.clone());
        push_image_with(&*engine.pusher, &*engine.content, &reference, &target, &options)
            .await
            .at(doing)?;
        let bytes = counter.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |kind| bytes.get(&kind).copied().unwrap_or(0);
        Ok(PushedImage {
            name: reference.whole(),
            target,
            extent,
            sent: of(Way::Sent),
            present: of(Way::Present),
            mounted: of(Way::Mounted),
        })
    }
}

impl Engine {
    /// All of an image, if all of it is here.
    async fn to_push(&self, image: &Image) -> Result<(Descriptor, Extent)> {
        let target = image.target();
        if !media::is_index(target.media_type()) {
            return Ok((target.clone(), Extent::Whole));
        }
        let doing = || format!("reading image {}", image.name());
        let bytes = self.content.read(target.digest(), DOCUMENT_LIMIT).await.at(doing())?;
        let index: ImageIndex = serde_json::from_slice(&bytes).map_err(|error| crate::Error::Invalid {
            what: format!("image {}", image.name()),
            reason: format!("its index is not one: {error}"),
        })?;
        for child in index.manifests() {
            match self.content.info(child.digest()).await {
                Ok(_) => {}
                Err(error) if error.kind() == longshore_content::ErrorKind::NotFound => {
                    return Ok((image.manifest_descriptor().clone(), Extent::OnePlatform));
                }
                Err(error) => return Err(error).at(doing()),
            }
        }
        Ok((target.clone(), Extent::Whole))
    }

    /// Another repository of the same registry that has the image, as far as names here tell.
    async fn elsewhere(&self, reference: &Reference, image: &Image) -> Result<Option<Reference>> {
        let records = self.metadata.list(&self.namespace, Kind::Image).await;
        for record in records.at("listing images")? {
            let is_same =
                matches!(&record.value, Value::Image(other) if other.target.digest() == image.target().digest());
            if is_same
                && let Ok(other) = parse_reference(&record.key.id)
                && other.registry() == reference.registry()
                && other.repository() != reference.repository()
            {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }
}

/// How a blob came to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Sent,
    Present,
    Mounted,
}

/// Counts what a push sends, and hands its progress on.
#[derive(Debug)]
struct PushCounter {
    bytes: Mutex<BTreeMap<Way, u64>>,
    next: Option<Arc<dyn PushProgress>>,
}

impl PushProgress for PushCounter {
    fn event(&self, event: PushEvent<'_>) {
        let counted = match event {
            PushEvent::Sent { blob } => Some((Way::Sent, blob)),
            PushEvent::Present { blob } => Some((Way::Present, blob)),
            PushEvent::Mounted { blob } => Some((Way::Mounted, blob)),
            _ => None,
        };
        if let Some((way, blob)) = counted {
            let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
            *bytes.entry(way).or_default() += blob.size();
        }
        if let Some(next) = &self.next {
            next.event(event);
        }
    }
}
