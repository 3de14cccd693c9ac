//! Images in another form: the same files, other digests.

use std::collections::HashMap;
use std::future::IntoFuture;
use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use longshore_content::{Blob, BlobExt, ContentStore, ContentStoreExt, Expected, Hasher, sha256};
use longshore_distribution::{PullOptions, media, parse_platform};
use longshore_metadata::Resource;
use longshore_snapshot::{Compression, Compressor, Decompressor};
use oci_spec::image::{Descriptor, Digest, ImageConfiguration};
use serde_json::{Map, Value, json};

use crate::create::blocking;
use crate::error::At;
use crate::image::{DOCUMENT_LIMIT, Holder, parse_reference, unique};
use crate::load::Here;
use crate::pieces::{self, Pieces};
use crate::{Engine, Error, Image, Result};

/// Annotations of layers that tell of their bytes as they were compressed.
const OF_COMPRESSION: [&str; 2] = ["io.github.containers.zstd-chunked.", "containerd.io/snapshot/stargz/"];
/// Docker's annotation by which an attestation in an index tells which image it is about.
const ABOUT: &str = "vnd.docker.reference.digest";
/// How deep indexes may be nested.
const MAX_DEPTH: usize = 8;

/// An image about to be converted: await it, or set what it is to be first.
#[derive(Debug)]
#[must_use = "nothing is converted before it is awaited"]
pub struct ConvertBuilder {
    engine: Engine,
    image: String,
    name: String,
    form: Form,
}

/// What an image is to be like.
#[derive(Clone, Copy, Debug)]
struct Form {
    /// `None`: layers stay as they are.
    compression: Option<Compression>,
    dialect: Dialect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    AsItIs,
    Oci,
}

impl ConvertBuilder {
    /// How its layers are to be compressed. Layers that are so already stay as they are. Docker's format has no zstd: such an image becomes OCI's.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.form.compression = Some(compression);
        if compression == Compression::Zstd {
            self.form.dialect = Dialect::Oci;
        }
        self
    }

    /// Makes an image of Docker's format one of OCI's.
    pub fn oci(mut self) -> Self {
        self.form.dialect = Dialect::Oci;
        self
    }
}

impl IntoFuture for ConvertBuilder {
    type Output = Result<Image>;
    type IntoFuture = BoxFuture<'static, Result<Image>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl Engine {
    /// Makes another form of an image that is here, under a name that may be its own: other compression of its layers, OCI's format instead of Docker's. Its config and diffIDs, and so what is
    /// unpacked of it, stay the same; each layer is proved by its diffID while it is written anew. Of an index the images that are here are converted, and the others left out.
    ///
    /// The same image gives the same digests. A signature of the old ones says nothing of the new.
    ///
    /// ```no_run
    /// # async fn demo(engine: longshore::Engine) -> longshore::Result<()> {
    /// use longshore::snapshot::Compression;
    /// let smaller = engine.convert("alpine", "registry.example/alpine:zstd").compression(Compression::Zstd).await?;
    /// # let _ = smaller; Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when the image, or a blob of it, is not here; [`Verification`](crate::ErrorKind::Verification) when a layer is not what the config says.
    pub fn convert(&self, image: impl Into<String>, name: impl Into<String>) -> ConvertBuilder {
        ConvertBuilder {
            engine: self.clone(),
            image: image.into(),
            name: name.into(),
            form: Form {
                compression: None,
                dialect: Dialect::AsItIs,
            },
        }
    }
}

impl ConvertBuilder {
    async fn run(self) -> Result<Image> {
        let reference = parse_reference(&self.name)?;
        let image = self.engine.image(&self.image).await?;
        let doing = format!("converting {}", image.name());
        let holder = Holder::new(&self.engine, "convert").await.at(&doing)?;
        let conversion = Conversion {
            content: self.engine.content(),
            holder: &holder,
            form: self.form,
            doing: &doing,
            done: HashMap::new(),
        };
        let outcome = async {
            let source = Resource::Content(image.target().digest().to_string());
            holder.hold(&[source]).await.at(&doing)?;
            let target = conversion.run(image.target()).await?;
            let options = PullOptions {
                platform: Some(platform_of(image.config()).at(&doing)?),
                ..Default::default()
            };
            let source = Here::source(target, "the content store");
            self.engine.bring(&reference, source, options).await
        };
        let outcome = outcome.await;
        holder.let_go().await;
        outcome
    }
}

fn platform_of(config: &ImageConfiguration) -> longshore_distribution::Result<oci_spec::image::Platform> {
    let mut text = format!("{}/{}", config.os(), config.architecture());
    if let Some(variant) = config.variant() {
        text += &format!("/{variant}");
    }
    parse_platform(&text)
}

struct Conversion<'a> {
    content: Arc<dyn ContentStore>,
    holder: &'a Holder,
    form: Form,
    doing: &'a str,
    /// Layers and manifests that are done, by their old digests.
    done: HashMap<Digest, Descriptor>,
}

impl Conversion<'_> {
    async fn run(mut self, target: &Descriptor) -> Result<Descriptor> {
        self.document(target, 0).await
    }

    /// An index or manifest; what it is named by then.
    fn document<'b>(&'b mut self, old: &'b Descriptor, depth: usize) -> BoxFuture<'b, Result<Descriptor>> {
        Box::pin(async move {
            if let Some(done) = self.done.get(old.digest()) {
                return Ok(done.clone());
            }
            if depth == MAX_DEPTH {
                return Err(self.invalid(format!("its indexes are nested more than {MAX_DEPTH} deep")));
            }
            let is_index = media::is_index(old.media_type());
            if !is_index && !media::is_manifest(old.media_type()) {
                return Ok(old.clone());
            }
            let bytes = self.content.read(old.digest(), DOCUMENT_LIMIT).await.at(self.doing)?;
            let mut document: Map<String, Value> =
                serde_json::from_slice(&bytes).map_err(|error| self.invalid(format!("{}: {error}", old.digest())))?;
            match is_index {
                true => self.index(&mut document, depth).await?,
                false => self.manifest(&mut document).await?,
            }
            let media_type = self.type_of(old.media_type().as_ref(), None);
            if document.contains_key("mediaType") || media_type != old.media_type().as_ref() {
                document.insert("mediaType".to_owned(), media_type.clone().into());
            }
            let unchanged = serde_json::from_slice::<Map<String, Value>>(&bytes).is_ok_and(|before| before == document);
            let new = match unchanged {
                true => old.clone(),
                false => self.store(&document, &media_type).await?,
            };
            self.done.insert(old.digest().clone(), new.clone());
            Ok(new)
        })
    }

    async fn index(&mut self, index: &mut Map<String, Value>, depth: usize) -> Result<()> {
        let entries = index
            .get("manifests")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let mut kept = Vec::new();
        let mut renamed = HashMap::new();
        for mut entry in entries {
            let old = self.descriptor(&entry)?;
            match self.content.info(old.digest()).await {
                Err(error) if error.kind() == longshore_content::ErrorKind::NotFound => continue,
                outcome => drop(outcome.at(self.doing)?),
            }
            let new = self.document(&old, depth + 1).await?;
            renamed.insert(old.digest().to_string(), new.digest().to_string());
            rename(&mut entry, &new);
            kept.push(entry);
        }
        for entry in &mut kept {
            let about = entry.get_mut("annotations").and_then(|all| all.get_mut(ABOUT));
            if let Some(about) = about
                && let Some(new) = about.as_str().and_then(|old| renamed.get(old))
            {
                *about = new.clone().into();
            }
        }
        index.insert("manifests".to_owned(), kept.into());
        Ok(())
    }

    async fn manifest(&mut self, manifest: &mut Map<String, Value>) -> Result<()> {
        let config = manifest.get("config").cloned().unwrap_or_default();
        let config = self.descriptor(&config)?;
        let diff_ids = match media::is_config(config.media_type()) {
            true => self.diff_ids(config.digest()).await?,
            // An artifact's layers are no file systems.
            false => return Ok(()),
        };
        let layers = manifest
            .get("layers")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        if layers.len() != diff_ids.len() {
            let reason = format!("it has {} layers, and its config {}", layers.len(), diff_ids.len());
            return Err(self.invalid(reason));
        }
        let mut converted = Vec::new();
        for (mut layer, diff_id) in layers.into_iter().zip(&diff_ids) {
            let old = self.descriptor(&layer)?;
            let new = self.layer(&old, diff_id).await?;
            if new.digest() != old.digest()
                && let Some(annotations) = layer.get_mut("annotations").and_then(Value::as_object_mut)
            {
                annotations.retain(|key, _| !OF_COMPRESSION.iter().any(|of| key.starts_with(of)));
            }
            rename(&mut layer, &new);
            converted.push(layer);
        }
        manifest.insert("layers".to_owned(), converted.into());
        if let Some(media_type) = manifest
            .get_mut("config")
            .and_then(|config| config.get_mut("mediaType"))
        {
            *media_type = self.type_of(config.media_type().as_ref(), None).into();
        }
        Ok(())
    }

    async fn diff_ids(&self, config: &Digest) -> Result<Vec<Digest>> {
        let bytes = self.content.read(config, DOCUMENT_LIMIT).await.at(self.doing)?;
        let config: ImageConfiguration =
            serde_json::from_slice(&bytes).map_err(|error| self.invalid(format!("its config: {error}")))?;
        let diff_ids = config.rootfs().diff_ids().iter();
        let parsed = diff_ids.map(|text| text.parse().map_err(|_| self.invalid(format!("'{text}' is no diffID"))));
        parsed.collect()
    }

    async fn layer(&mut self, old: &Descriptor, diff_id: &Digest) -> Result<Descriptor> {
        if let Some(done) = self.done.get(old.digest()) {
            return Ok(done.clone());
        }
        let said = old.media_type().as_ref();
        // What must not be distributed is not made anew, and what is no tar stays what it is.
        let is_foreign = said.contains("foreign") || said.contains("nondistributable");
        let wanted = match Compression::of_media_type(said) {
            Some(_) if !is_foreign => self.form.compression,
            _ => None,
        };
        let mut new = old.clone();
        if let Some(wanted) = wanted {
            let blob = self.content.open(old.digest()).await.at(self.doing)?;
            // The bytes count: there are layers whose type says something else.
            if of_blob(&*blob).await.at(self.doing)? != wanted {
                let (digest, size) = self.compress(blob, diff_id, wanted).await?;
                new.set_digest(digest);
                new.set_size(size);
            }
        }
        new.set_media_type(self.type_of(said, wanted).as_str().into());
        self.done.insert(old.digest().clone(), new.clone());
        Ok(new)
    }

    /// Writes a layer anew; its digest and size.
    async fn compress(&self, blob: Arc<dyn Blob>, diff_id: &Digest, wanted: Compression) -> Result<(Digest, u64)> {
        let reference = format!("convert-{}", unique());
        let expected = diff_id.clone();
        let make = async |out| {
            let made = blocking(move || recompress(&blob, &expected, wanted, out));
            made.await.at(self.doing)
        };
        let ((), digest, size) = pieces::store_made(&*self.content, &reference, self.holder, make).await?;
        Ok((digest, size))
    }

    async fn store(&self, document: &Map<String, Value>, media_type: &str) -> Result<Descriptor> {
        let bytes = Bytes::from(serde_json::to_vec(document).expect("it was JSON before"));
        let (digest, size) = (sha256(&bytes), bytes.len() as u64);
        let resource = Resource::Content(digest.to_string());
        self.holder.hold(&[resource]).await.at(self.doing)?;
        let reference = format!("convert-{}", unique());
        let expected = Expected {
            digest: Some(digest.clone()),
            size: Some(size),
        };
        self.content.put(&reference, bytes, expected).await.at(self.doing)?;
        Ok(Descriptor::new(media_type.into(), size, digest))
    }

    /// A media type as the new form has it; for a layer that is compressed as told.
    fn type_of(&self, old: &str, compression: Option<Compression>) -> String {
        let docker = "application/vnd.docker.";
        if old.starts_with(docker) && self.form.dialect == Dialect::AsItIs {
            return match compression {
                Some(Compression::None) => "application/vnd.docker.image.rootfs.diff.tar".to_owned(),
                Some(Compression::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip".to_owned(),
                _ => old.to_owned(),
            };
        }
        if let Some(compression) = compression {
            return compression.media_type().to_owned();
        }
        let new = match old {
            media::DOCKER_MANIFEST_LIST => "application/vnd.oci.image.index.v1+json",
            media::DOCKER_MANIFEST => "application/vnd.oci.image.manifest.v1+json",
            media::DOCKER_CONFIG => "application/vnd.oci.image.config.v1+json",
            "application/vnd.docker.image.rootfs.foreign.diff.tar" => {
                "application/vnd.oci.image.layer.nondistributable.v1.tar"
            }
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            }
            other => match Compression::of_media_type(other) {
                Some(compression) if other.starts_with(docker) => compression.media_type(),
                _ => other,
            },
        };
        new.to_owned()
    }

    fn descriptor(&self, value: &Value) -> Result<Descriptor> {
        serde_json::from_value(value.clone()).map_err(|error| self.invalid(format!("a descriptor: {error}")))
    }

    fn invalid(&self, reason: String) -> Error {
        Error::Invalid {
            what: self.doing.to_owned(),
            reason,
        }
    }
}

/// Makes an entry of a document name something else; what else is in it stays.
fn rename(entry: &mut Value, new: &Descriptor) {
    entry["mediaType"] = json!(new.media_type());
    entry["digest"] = json!(new.digest());
    entry["size"] = json!(new.size());
}

async fn of_blob(blob: &dyn Blob) -> longshore_content::Result<Compression> {
    let mut first = [0; 4];
    let mut filled = 0;
    while filled < first.len() {
        match blob.read_at(filled as u64, &mut first[filled..]).await? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(Compression::of_bytes(&first[..filled]))
}

/// Blocks. A layer that is not the one that the config names is not written to its end.
fn recompress(
    blob: &Arc<dyn Blob>,
    diff_id: &Digest,
    wanted: Compression,
    out: Pieces,
) -> longshore_snapshot::Result<()> {
    let sink = longshore_snapshot::Error::Sink;
    let mut hasher = Hasher::new(diff_id.algorithm()).map_err(|error| sink(std::io::Error::other(error)))?;
    let mut layer = Decompressor::new(blob.reader());
    let mut out = Compressor::new(wanted, out).map_err(sink)?;
    let mut buf = vec![0; 256 << 10];
    loop {
        match layer.read(&mut buf) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buf[..count]);
                out.write_all(&buf[..count]).map_err(sink)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(longshore_snapshot::Error::Source(error)),
        }
    }
    let actual = hasher.finish();
    if actual != *diff_id {
        return Err(longshore_snapshot::Error::DiffIdMismatch {
            expected: diff_id.to_string(),
            actual: actual.to_string(),
        });
    }
    out.finish().and_then(Pieces::end).map_err(sink)
}
