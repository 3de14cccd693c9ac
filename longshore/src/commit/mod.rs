//! Images made of containers.

mod document;
mod instruction;
mod layer;
mod pause;
mod process;

use std::future::IntoFuture;
use std::time::SystemTime;

use bytes::Bytes;
use futures::future::BoxFuture;
use longshore_bundle::Unpacker;
use longshore_content::{ContentStoreExt, Expected, sha256};
use longshore_metadata::Resource;
use longshore_runtime::Status;
use longshore_snapshot::{Change, Compression, snapshot_changes};
use oci_spec::image::{Descriptor, Digest};

use crate::error::At;
use crate::image::{DOCUMENT_LIMIT, Holder, parse_reference, unique};
use crate::{Container, Error, Image, Result};

pub use self::instruction::Instruction;

use self::document::Story;
use self::pause::PAUSING;

/// An image about to be made of a container: await it, or set its options first.
#[derive(Debug)]
#[must_use = "nothing is made before it is awaited"]
pub struct CommitBuilder {
    container: Container,
    name: String,
    options: Options,
}

#[derive(Debug)]
struct Options {
    author: Option<String>,
    comment: Option<String>,
    created: Option<SystemTime>,
    compression: Compression,
    instructions: Vec<Instruction>,
    pause: bool,
    process: Process,
}

/// What the image runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    /// As the base's config says.
    Base,
    /// What the container was made to run.
    Container,
}

impl CommitBuilder {
    /// Who made it.
    pub fn author(mut self, author: impl Into<String>) -> Self {
        self.options.author = Some(author.into());
        self
    }

    /// A sentence in its history.
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.options.comment = Some(comment.into());
        self
    }

    /// One change to its config, as an instruction of a Dockerfile: `"CMD [\"/bin/sh\"]".parse()?`.
    pub fn instruction(mut self, instruction: Instruction) -> Self {
        self.options.instructions.push(instruction);
        self
    }

    /// Makes the image run what the container runs: its arguments, environment, working directory and user, instead of those of the base's config. Instructions count
    /// after that.
    pub fn with_process(mut self) -> Self {
        self.options.process = Process::Container;
        self
    }

    /// How its layer is compressed; gzip unless told, which everything reads.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.options.compression = compression;
        self
    }

    /// The time at which it was made, instead of now. No file in its layer is younger, so the same changes give the same image (`SOURCE_DATE_EPOCH`).
    pub fn created(mut self, created: SystemTime) -> Self {
        self.options.created = Some(created);
        self
    }

    /// Lets the container run on meanwhile: its files may be of different moments then.
    pub fn without_pause(mut self) -> Self {
        self.options.pause = false;
        self
    }
}

impl IntoFuture for CommitBuilder {
    type Output = Result<Image>;
    type IntoFuture = BoxFuture<'static, Result<Image>>;

    fn into_future(self) -> Self::IntoFuture {
        // A task of its own: when the future is dropped the container must not stay paused.
        Box::pin(async move {
            let (engine, name) = (self.container.engine.clone(), self.name.clone());
            match tokio::spawn(self.run()).await {
                Ok(outcome) => engine.asked("commit", &name, outcome),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        })
    }
}

impl Container {
    /// What it changed in its image's root filesystem, sorted, as `docker diff` tells it. What is in its mounts is not part of that.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it does not exist.
    pub async fn changes(&self) -> Result<Vec<Change>> {
        let snapshot = self.engine.snapshot_key(self.container_id());
        snapshot_changes(&*self.engine.snapshotter, &snapshot)
            .await
            .at(format!("looking for what container '{}' changed", self.id()))
    }

    /// Makes an image of it: the image that it was made from, with what it changed as one more layer, under a name that may be one that is taken.
    ///
    /// A running container is paused meanwhile; when the program is killed in that time, it runs on when an engine is opened again. The image is here and unpacked then, as after a pull; it is of its base's format (OCI's or Docker's) and
    /// keeps all of the base's config, also what it says of the process ([`CommitBuilder::with_process`] takes the container's). When the future is dropped the work goes on to its end.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when the container or the image that it was made from is not here, [`Invalid`](crate::ErrorKind::Invalid) for the
    /// name, [`Unsupported`](crate::ErrorKind::Unsupported) when what it changed can't be a layer.
    ///
    /// # Example
    /// ```no_run
    /// # async fn demo(container: longshore::Container) -> Result<(), Box<dyn std::error::Error>> {
    /// let image = container
    ///     .commit("registry.example/team/app:patched")
    ///     .comment("with the patch")
    ///     .instruction("ENV MODE=production".parse()?)
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn commit(&self, name: impl Into<String>) -> CommitBuilder {
        CommitBuilder {
            container: self.clone(),
            name: name.into(),
            options: Options {
                author: None,
                comment: None,
                created: None,
                compression: Compression::Gzip,
                instructions: Vec::new(),
                pause: true,
                process: Process::Base,
            },
        }
    }
}

impl CommitBuilder {
    async fn run(self) -> Result<Image> {
        let name = parse_reference(&self.name)?.whole();
        let base = self.base().await?;
        let doing = format!("committing container '{}'", self.container.id());
        let holder = Holder::new(&self.container.engine, "commit").await.at(&doing)?;
        let made = self.make(&base, &holder, &doing).await;
        match made {
            Ok((target, digest)) => {
                let engine = &self.container.engine;
                engine.register(&name, &target, &digest, &holder).await?;
                engine.image(&name).await
            }
            Err(error) => {
                holder.let_go().await;
                Err(error)
            }
        }
    }

    /// The image that the container was made from, as long as it is the same.
    async fn base(&self) -> Result<Image> {
        let (container, engine) = (&self.container, &self.container.engine);
        let record = container.record().await?;
        let snapshot = engine.snapshotter.stat(&record.snapshot).await;
        let snapshot = snapshot.at(format!("looking at container '{}'", container.id()))?;
        let base = engine.image(&record.image).await?;
        match base.chain_id() == snapshot.parent.as_deref() {
            true => Ok(base),
            false => Err(Error::Invalid {
                what: format!("committing container '{}'", container.id()),
                reason: format!(
                    "{} is another image by now than the one that it was made from; pull that one again",
                    record.image
                ),
            }),
        }
    }

    async fn make(&self, base: &Image, holder: &Holder, doing: &str) -> Result<(Descriptor, Digest)> {
        let engine = &self.container.engine;
        let below = base.manifest().layers().iter().chain([base.manifest().config()]);
        let below: Vec<_> = below.map(|blob| Resource::Content(blob.digest().to_string())).collect();
        holder.hold(&below).await.at(doing)?;
        let layer = self.paused(self.write_layer(holder)).await?;

        let config = base.manifest().config().digest();
        let config = engine.content.read(config, DOCUMENT_LIMIT).await.at(doing)?;
        let story = Story {
            created: self.options.created.unwrap_or_else(SystemTime::now),
            author: self.options.author.as_deref(),
            comment: self.options.comment.as_deref(),
            container: self.container.id(),
        };
        let invalid = |reason| Error::Invalid {
            what: format!("the config of image {}", base.name()),
            reason,
        };
        let process = match self.options.process {
            Process::Container => Some(process::of(&self.container, doing).await?),
            Process::Base => None,
        };
        let instructions = &self.options.instructions;
        let config = document::config(&config, &layer, &story, process, instructions).map_err(invalid)?;
        let manifest = document::manifest(base.manifest(), &layer, &config);
        for document in [&config, &manifest] {
            self.store(document, holder, doing).await?;
        }
        let parsed = (serde_json::from_slice(&manifest), serde_json::from_slice(&config));
        let (parsed_manifest, parsed_config) = match parsed {
            (Ok(manifest), Ok(config)) => (manifest, config),
            (Err(error), _) | (_, Err(error)) => return Err(invalid(error.to_string())),
        };
        holder
            .hold_snapshots(&parsed_config, engine.snapshotter.name())
            .await
            .at(doing)?;
        let unpacker = Unpacker::with_options(
            engine.content(),
            engine.snapshotter(),
            engine.privilege.unpack_options(),
        );
        unpacker.unpack(&parsed_manifest, &parsed_config).await.at(doing)?;
        let digest = sha256(&manifest);
        let target = Descriptor::new(
            document::manifest_type(base.manifest()),
            manifest.len() as u64,
            digest.clone(),
        );
        Ok((target, digest))
    }

    async fn store(&self, document: &[u8], holder: &Holder, doing: &str) -> Result<()> {
        let digest = sha256(document);
        holder.hold(&[Resource::Content(digest.to_string())]).await.at(doing)?;
        let reference = format!("commit-{}", unique());
        let expected = Expected {
            digest: Some(digest),
            size: Some(document.len() as u64),
        };
        let content = self.container.engine.content();
        let stored = content.put(&reference, Bytes::copy_from_slice(document), expected);
        stored.await.at(doing).map(drop)
    }

    /// Does it while the container is paused, if it runs and is to be.
    async fn paused<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let container = &self.container;
        // One that is only a record, as after a restart of the machine, does not run.
        let runs = container
            .state()
            .await
            .is_ok_and(|state| state.status == Status::Running);
        if !runs || !self.options.pause {
            return work.await;
        }
        let note = PAUSING.write(&container.engine, container.id()).await?;
        if let Err(error) = container.pause().await {
            note.remove().await;
            return Err(error);
        }
        let outcome = work.await;
        let resumed = container.resume().await;
        if resumed.is_ok() {
            note.remove().await;
        }
        let outcome = outcome?;
        resumed.map(|()| outcome)
    }
}
