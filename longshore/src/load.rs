//! Images that come in from archives and layouts on disk, go out to them, and get further names.

use std::future::IntoFuture;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use longshore_distribution::{
    Fetched, Fetcher, OciLayout, PullOptions, PullProgress, PullSource, Reference, Resolved, Resolver, SavedImage,
    export_layout, load_archive, save_archive,
};
use longshore_metadata::Resource;
use longshore_snapshot::Decompressor;
use oci_spec::image::{Descriptor, Platform};

use crate::error::At;
use crate::held::Held;
use crate::image::{Holder, parse_reference};
use crate::platforms::Platforms;
use crate::{Engine, Error, Image, Result};

/// The repository of images that come with a tag alone, or with no name.
const NAMELESS: &str = "loaded.localhost/image";
/// What writers of layouts and archives call an image by, in the order in which they count.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Images about to be loaded: await it, or set its options first.
#[must_use = "nothing is loaded before it is awaited"]
pub struct LoadBuilder {
    engine: Engine,
    source: Source,
    repository: String,
    options: PullOptions,
    platforms: Platforms,
}

enum Source {
    Archive(Box<dyn Read + Send>),
    Layout(PathBuf),
}

impl std::fmt::Debug for LoadBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadBuilder")
            .field("repository", &self.repository)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl LoadBuilder {
    /// The repository (`registry.example/team/app`) of images that the archive names by a tag alone, or not at all. Default: `loaded.localhost/image`.
    pub fn repository(mut self, repository: impl Into<String>) -> Self {
        self.repository = repository.into();
        self
    }

    /// The platform to choose from indexes, instead of the host's.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.options.platform = Some(platform);
        self
    }

    /// Brings the images of all platforms from a layout, to be pushed or saved on; one is unpacked, and must be there. (Of an archive they come always.)
    pub fn all_platforms(mut self) -> Self {
        self.platforms = Platforms::All;
        self
    }

    /// Is told of the progress, as of a pull's.
    pub fn progress(mut self, progress: Arc<dyn PullProgress>) -> Self {
        self.options.progress = Some(progress);
        self
    }
}

impl IntoFuture for LoadBuilder {
    type Output = Result<Vec<Image>>;
    type IntoFuture = BoxFuture<'static, Result<Vec<Image>>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl Engine {
    /// Loads the images of an archive: what `docker save`, `podman save`, `skopeo copy ... oci-archive:` and [`save`](Self::save) write, also when it is compressed as a whole by gzip or zstd.
    ///
    /// It is read once, from its beginning to its end. Each image is unpacked and registered under the name that the archive gives it, as after a pull. The archive is not
    /// trusted: names of blobs are proved, links lead to entries of the archive only. When the future is dropped, the names that were registered stay.
    ///
    /// ```no_run
    /// # async fn demo(engine: longshore::Engine) -> Result<(), Box<dyn std::error::Error>> {
    /// for image in engine.load(std::fs::File::open("images.tar")?).await? {
    ///     println!("{}", image.name());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) for what is no such archive, misses a part or can't be read, [`Verification`](crate::ErrorKind::Verification) for wrong bytes,
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when an image is not for this platform, [`Invalid`](crate::ErrorKind::Invalid) for a name that is none.
    pub fn load(&self, archive: impl Read + Send + 'static) -> LoadBuilder {
        self.loading(Source::Archive(Box::new(archive)))
    }

    /// Loads the images of an OCI layout in a directory, as [`load`](Self::load) those of an archive. Of an index only the image of one platform comes, unless [all](LoadBuilder::all_platforms) are asked for.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn load_layout(&self, directory: impl Into<PathBuf>) -> LoadBuilder {
        self.loading(Source::Layout(directory.into()))
    }

    fn loading(&self, source: Source) -> LoadBuilder {
        LoadBuilder {
            engine: self.clone(),
            source,
            repository: NAMELESS.to_owned(),
            options: PullOptions {
                verifier: self.verifier.clone(),
                ..Default::default()
            },
            platforms: Platforms::One,
        }
    }

    /// Writes images into one tar stream, which is both an OCI layout and what `docker load` and `podman load` read. A blob that several need is in it once;
    /// images of platforms that are not here are left out. The same images give the same bytes.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when an image is not here, [`Unavailable`](crate::ErrorKind::Unavailable) when the stream fails.
    pub async fn save<S: AsRef<str>>(
        &self,
        images: impl IntoIterator<Item = S>,
        sink: impl Write + Send + 'static,
    ) -> Result<()> {
        let mut saved = Vec::new();
        for name in images {
            let image = self.image(name.as_ref()).await?;
            let reference = parse_reference(image.name())?;
            saved.push(SavedImage::new(image.target().clone(), Some(reference)));
        }
        save_archive(self.content(), saved, sink).await.at("saving images")
    }

    /// Writes an image into the OCI layout in a directory, made if it is not there, under its tag, which moves to it.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when the image is not here; when the directory can't be written, or is no layout.
    pub async fn save_layout(&self, image: &str, directory: impl Into<PathBuf>) -> Result<()> {
        let image = self.image(image).await?;
        let reference = parse_reference(image.name())?;
        let tag = reference.tag().or(reference.digest()).unwrap_or("latest");
        let (content, directory) = (self.content(), directory.into());
        let doing = format!("saving {} in {}", image.name(), directory.display());
        export_layout(&*content, image.target(), tag, directory).await.at(doing)
    }

    /// Gives an image that is here a further name, which moves if another image had it.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when the image is not here, [`Invalid`](crate::ErrorKind::Invalid) for a name that is none, or has another image's digest.
    pub async fn tag(&self, image: &str, name: &str) -> Result<Image> {
        let reference = parse_reference(name)?;
        let image = self.image(image).await?;
        let doing = format!("naming {} {reference}", image.name());
        if let Some(digest) = reference.digest()
            && digest != image.target().digest().as_ref()
        {
            return Err(Error::Invalid {
                what: doing,
                reason: format!("it is {}", image.target().digest()),
            });
        }
        let holder = Holder::new(self, "tag").await.at(&doing)?;
        let parts = [image.target(), image.manifest_descriptor()];
        let parts = parts.map(|part| Resource::Content(part.digest().to_string()));
        holder.hold(&parts).await.at(&doing)?;
        let snapshotter = self.snapshotter.name();
        holder.hold_snapshots(image.config(), snapshotter).await.at(&doing)?;
        let manifest = image.manifest_descriptor().digest();
        self.register(&reference.whole(), image.target(), manifest, &holder)
            .await?;
        self.image(&reference.whole()).await
    }
}

impl LoadBuilder {
    async fn run(self) -> Result<Vec<Image>> {
        let Self {
            engine,
            source,
            repository,
            options,
            platforms,
        } = self;
        match source {
            Source::Archive(archive) => {
                let holder = Arc::new(Holder::new(&engine, "load").await.at("loading an archive")?);
                let outcome = of_archive(&engine, archive, &holder, &repository, &options).await;
                holder.let_go().await;
                outcome
            }
            Source::Layout(directory) => of_layout(&engine, directory, &repository, &options, platforms).await,
        }
    }
}

async fn of_archive(
    engine: &Engine,
    archive: Box<dyn Read + Send>,
    holder: &Arc<Holder>,
    repository: &str,
    options: &PullOptions,
) -> Result<Vec<Image>> {
    let content = Arc::new(Held {
        inner: engine.content(),
        holder: holder.clone(),
    });
    let loaded = load_archive(content, Decompressor::new(archive)).await;
    let mut images = Vec::new();
    for found in loaded.at("loading an archive")? {
        let reference = name_of(found.name.as_deref(), &found.target, repository)?;
        let source = Here::source(found.target, "the archive");
        images.push(engine.bring(&reference, source, options.clone()).await?);
    }
    Ok(images)
}

async fn of_layout(
    engine: &Engine,
    directory: PathBuf,
    repository: &str,
    options: &PullOptions,
    platforms: Platforms,
) -> Result<Vec<Image>> {
    let doing = format!("loading {}", directory.display());
    let layout = Arc::new(OciLayout::open(directory).await.at(&doing)?);
    let mut images = Vec::new();
    for entry in layout.index().await.at(doing)?.manifests() {
        let annotations = entry.annotations().as_ref();
        let name = NAME_ANNOTATIONS
            .iter()
            .find_map(|key| annotations.and_then(|all| all.get(*key)));
        let reference = name_of(name.map(String::as_str), entry, repository)?;
        let target = Descriptor::new(entry.media_type().clone(), entry.size(), entry.digest().clone());
        let source = PullSource {
            fetcher: layout.clone(),
            ..Here::source(target, "the layout")
        };
        let image = engine.bring_platforms(&reference, source, options.clone(), platforms);
        images.push(image.await?);
    }
    Ok(images)
}

/// A name from what an archive says: a whole name, a tag alone, or nothing.
fn name_of(said: Option<&str>, target: &Descriptor, repository: &str) -> Result<Reference> {
    match said {
        Some(whole) if whole.contains(['/', ':', '@']) => parse_reference(whole),
        Some(tag) => parse_reference(&format!("{repository}:{tag}")),
        None => parse_reference(&format!("{repository}@{}", target.digest())),
    }
}

/// What is in the content store already, as a source of images.
#[derive(Debug)]
pub(crate) struct Here {
    target: Descriptor,
    origin: &'static str,
}

impl Here {
    pub(crate) fn source(target: Descriptor, origin: &'static str) -> PullSource {
        PullSource::new(Arc::new(Self { target, origin }))
    }
}

#[async_trait]
impl Resolver for Here {
    async fn resolve(&self, _reference: &Reference) -> longshore_distribution::Result<Resolved> {
        Ok(Resolved::new(self.target.clone()))
    }
}

#[async_trait]
impl Fetcher for Here {
    async fn fetch(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        _offset: u64,
    ) -> longshore_distribution::Result<Fetched> {
        Err(longshore_distribution::Error::Protocol {
            registry: self.origin.to_owned(),
            what: format!("image {reference}"),
            reason: format!("blob {} is missing", descriptor.digest()),
        })
    }
}

#[cfg(test)]
mod tests {
    use longshore_content::sha256;
    use oci_spec::image::MediaType;

    use super::*;

    #[test]
    fn names() {
        let target = Descriptor::new(MediaType::ImageManifest, 1, sha256(b"x"));
        let name = |said| name_of(said, &target, "loaded.localhost/image").map(|name| name.whole());
        assert_eq!(name(Some("alpine:3")).unwrap(), "docker.io/library/alpine:3");
        assert_eq!(name(Some("r.example/a")).unwrap(), "r.example/a:latest");
        assert_eq!(name(Some("3.20")).unwrap(), "loaded.localhost/image:3.20");
        assert_eq!(
            name(None).unwrap(),
            format!("loaded.localhost/image@{}", target.digest())
        );
        assert!(name(Some("A/b")).is_ok(), "a host with a capital letter");
        assert!(name(Some("r.example/A")).is_err());
        assert!(name(Some("../x")).is_err());
    }
}
