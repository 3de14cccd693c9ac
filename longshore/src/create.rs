use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use longshore_bundle::{Bundle, MountsView, SpecBuilder, available_capabilities, signal_number};
use longshore_events::EventKind;
use longshore_linux::Mount;
use longshore_metadata::{Batch, Key, Value};
use longshore_runtime::{ContainerId, CreateRequest, Io, Lifetime};
use longshore_snapshot::Labels;
use oci_spec::runtime::Spec;

use crate::collect::bundles::BUNDLE;
use crate::error::At;
use crate::making::MAKING;
use crate::senses::outcome_of;
use crate::supervise::{RESTART, RestartPolicy};
use crate::{Container, DEFAULT_NAMESPACE, Engine, Error, Image, Result};

/// How long a create waits for a collection.
const PATIENCE: Duration = Duration::from_secs(5);

/// The fact on a container's record that says by which signal it wants to be stopped.
pub(crate) const STOP_SIGNAL: &str = "longshore.stop-signal";

/// A change that the caller makes to the spec's builder.
type Change = Box<dyn FnOnce(SpecBuilder) -> SpecBuilder + Send>;

/// Describes a container; [`create`](Self::create) makes it.
#[must_use = "nothing is made before `create` is awaited"]
pub struct ContainerBuilder {
    engine: Engine,
    id: String,
    image: Option<Image>,
    io: Io,
    lifetime: Lifetime,
    changes: Vec<Change>,
    labels: BTreeMap<String, String>,
    pub(crate) extensions: BTreeMap<String, serde_json::Value>,
}

impl std::fmt::Debug for ContainerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContainerBuilder")
            .field("id", &self.id)
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Describes a container of that id.
    pub fn container(&self, id: impl Into<String>) -> ContainerBuilder {
        ContainerBuilder {
            engine: self.clone(),
            id: id.into(),
            image: None,
            io: Io::null(),
            lifetime: Lifetime::default(),
            changes: Vec::new(),
            labels: BTreeMap::new(),
            extensions: BTreeMap::new(),
        }
    }

    pub(crate) fn snapshot_key(&self, id: &ContainerId) -> String {
        format!("{}/{id}", self.namespace)
    }

    /// What the executor calls a container. Neither a namespace nor an id has a `+`, so no two are called the same; in the default namespace it is the id.
    pub(crate) fn task_id(&self, id: &ContainerId) -> Result<ContainerId> {
        if self.namespace == DEFAULT_NAMESPACE {
            return Ok(id.clone());
        }
        ContainerId::new(format!("{}+{id}", self.namespace)).at(format!("naming container '{id}'"))
    }

    /// A cgroup that no engine with another root shares, nor another namespace of this one.
    fn cgroup(&self, id: &ContainerId) -> PathBuf {
        let engine = format!("{}\0{}", self.root.display(), self.namespace);
        let hash = longshore_content::sha256(engine.as_bytes());
        format!("/longshore/{id}-{}", &hash.digest()[..12]).into()
    }

    pub(crate) fn bundle_directory(&self, id: &ContainerId) -> PathBuf {
        self.root.join("bundles").join(&self.namespace).join(id.as_str())
    }
}

impl ContainerBuilder {
    /// The image that it is made from. Needed.
    pub fn image(mut self, image: &Image) -> Self {
        self.image = Some(image.clone());
        self
    }

    /// The command, instead of the image's own (Docker's `CMD`; the image's entrypoint stays).
    pub fn args<A: Into<String>>(self, args: impl IntoIterator<Item = A>) -> Self {
        let args: Vec<String> = args.into_iter().map(Into::into).collect();
        self.spec(move |spec| spec.args(args))
    }

    /// One more environment variable, as `NAME=value`.
    pub fn env(self, variable: impl Into<String>) -> Self {
        let variable = variable.into();
        self.spec(move |spec| spec.env(variable))
    }

    /// Any other option of the runtime spec: a change to the [`SpecBuilder`] that starts from the image's config.
    pub fn spec(mut self, change: impl FnOnce(SpecBuilder) -> SpecBuilder + Send + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Where its streams go; nowhere unless told.
    pub fn io(mut self, io: Io) -> Self {
        self.io = io;
        self
    }

    /// Whether it dies with this program; it does unless told.
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// When it is started again by a supervision ([`Container::supervise`], [`Engine::supervise_all`]); never unless told.
    pub fn restart_policy(self, policy: RestartPolicy) -> Self {
        self.extension(RESTART, policy.to_string().into())
    }

    /// A label on its record.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// A fact that the caller keeps with its record.
    pub fn extension(mut self, name: impl Into<String>, value: serde_json::Value) -> Self {
        self.extensions.insert(name.into(), value);
        self
    }

    /// Makes the container: record, writable snapshot, bundle, and an init process that waits for the start.
    ///
    /// All or nothing: what was made is taken back when a step fails. When the future is dropped in the middle, or the program killed, the next
    /// [`Engine::open`] takes it back.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) for the id, [`Invalid`](crate::ErrorKind::Invalid) and [`Unsupported`](crate::ErrorKind::Unsupported) for options,
    /// [`Start`](crate::ErrorKind::Start) for a step that the kernel refused.
    pub async fn create(self) -> Result<Container> {
        let (engine, id) = (self.engine.clone(), self.id.clone());
        engine.asked("create", &id, self.create_it().await)
    }

    async fn create_it(self) -> Result<Container> {
        let begun = Instant::now();
        let id = ContainerId::new(&self.id).at("creating a container")?;
        let Some(image) = self.image.clone() else {
            return Err(Error::Invalid {
                what: format!("container '{id}'"),
                reason: "it has no image; give one with `.image(&image)`".to_owned(),
            });
        };
        let engine = self.engine.clone();
        let container = Container::new(engine.clone(), id)?;
        // What is borrowed over an await must be fit for several threads, which streams and changes need not be: the future can be sent to another all the same.
        let extensions = self.extensions_with_facts(&image)?;
        let labels = self.labels_with_references(&engine, container.container_id(), &image);
        let making = MAKING.write(&engine, container.id()).await?;
        let registered = register(&engine, container.container_id(), &image, labels, extensions).await;
        if let Err(error) = registered {
            making.remove().await;
            return Err(error);
        }
        let built = self.build(&container, &image).await;
        engine.senses.metrics.created(outcome_of(&built), begun.elapsed());
        match built {
            Ok(()) => {
                making.remove().await;
                Ok(container)
            }
            Err(error) => {
                // The first error is the one to tell; the next open of the engine cleans up what this can't.
                // The executor has nothing of it: its create is whole or nothing, and is the last step.
                if container.forget().await.is_ok() {
                    making.remove().await;
                }
                Err(error)
            }
        }
    }

    /// What is made only after the record is held by it from the start: the bundle, and what the root filesystem is made from.
    fn labels_with_references(&self, engine: &Engine, id: &ContainerId, image: &Image) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        let bundle = format!("{}/{id}", engine.namespace);
        labels.insert(format!("containerd.io/gc.ref.{BUNDLE}"), bundle);
        if let Some(parent) = image.chain_id() {
            let snapshotter = engine.snapshotter.name();
            labels.insert(
                format!("containerd.io/gc.ref.snapshot.{snapshotter}/parent"),
                parent.to_owned(),
            );
        }
        labels
    }

    /// What the engine keeps with the record besides what the caller does.
    fn extensions_with_facts(&self, image: &Image) -> Result<BTreeMap<String, serde_json::Value>> {
        let mut extensions = self.extensions.clone();
        let tied = self.lifetime == Lifetime::Tied;
        extensions.insert(crate::recover::TIED.to_owned(), serde_json::Value::Bool(tied));
        let config = image.config().config().as_ref();
        if let Some(signal) = config.and_then(|config| config.stop_signal().as_deref()) {
            let number = signal_number(signal).at(format!("reading the stop signal of image {}", image.name()))?;
            extensions.insert(STOP_SIGNAL.to_owned(), number.into());
        }
        Ok(extensions)
    }

    async fn build(self, container: &Container, image: &Image) -> Result<()> {
        let (engine, id) = (&self.engine, container.container_id());
        let snapshot = engine.snapshot_key(id);
        let mounts = engine
            .snapshotter()
            .prepare(&snapshot, image.chain_id(), Labels::new())
            .await
            .at(format!("preparing the root filesystem of container '{id}'"))?;
        let spec = build_spec(engine, image, id, mounts.clone(), self.changes).await?;
        let directory = engine.bundle_directory(id);
        let bundle = {
            let (directory, spec) = (directory.clone(), spec.clone());
            blocking(move || Bundle::create(directory, &spec))
                .await
                .at(format!("writing the bundle of '{id}'"))?
        };
        let request = CreateRequest::new(container.task().clone(), bundle.directory(), spec, self.io)
            .rootfs(mounts)
            .lifetime(self.lifetime);
        let state = engine
            .executor
            .create(request)
            .await
            .at(format!("creating container '{id}'"))?;
        engine.emitter().emit(EventKind::TaskCreate {
            container_id: id.to_string(),
            bundle: directory.to_string_lossy().into_owned(),
            pid: state.pid.unwrap_or_default(),
        });
        Ok(())
    }
}

/// Writes the record first: from here on an interruption is found and taken back.
async fn register(
    engine: &Engine,
    id: &ContainerId,
    image: &Image,
    labels: BTreeMap<String, String>,
    extensions: BTreeMap<String, serde_json::Value>,
) -> Result<()> {
    let record = longshore_metadata::Container {
        image: image.name().to_owned(),
        image_digest: Some(image.target().digest().to_string()),
        snapshotter: engine.snapshotter.name().to_owned(),
        snapshot: engine.snapshot_key(id),
        spec: serde_json::Value::Null,
        extensions,
    };
    let key = Key::container(&engine.namespace, id.as_str());
    let batch = Batch::new().create(key, labels, Value::Container(Box::new(record)));
    apply_past_collections(engine, batch)
        .await
        .map_err(|source| match source.kind() {
            longshore_metadata::ErrorKind::AlreadyExists => Error::ContainerExists(id.to_string()),
            _ => Error::Metadata {
                doing: format!("recording container '{id}'"),
                source,
            },
        })?;
    let created = EventKind::ContainerCreate {
        id: id.to_string(),
        image: image.name().to_owned(),
    };
    engine.emitter().emit(created);
    Ok(())
}

/// Builds the spec on a thread that may block: users are looked up in the root filesystem.
async fn build_spec(
    engine: &Engine,
    image: &Image,
    id: &ContainerId,
    mounts: Vec<Mount>,
    changes: Vec<Change>,
) -> Result<Spec> {
    let builder = engine
        .privilege
        .adapt(SpecBuilder::new(image.config()), || engine.cgroup(id))
        .hostname(id.as_str());
    let builder = changes.into_iter().fold(builder, |builder, change| change(builder));
    let work = move || {
        builder
            .limit_capabilities(available_capabilities()?)
            .build(&MountsView::new(&mounts)?)
    };
    blocking(work)
        .await
        .at(format!("building the runtime spec of container '{id}'"))
}

/// Applies a batch, waiting for as long as a collection removes what it refers to: the leftovers of a container of the same id, say.
async fn apply_past_collections(engine: &Engine, batch: Batch) -> longshore_metadata::Result<u64> {
    let begun = Instant::now();
    loop {
        match engine.metadata.apply(batch.clone()).await {
            Err(longshore_metadata::Error::BeingCollected { .. }) if begun.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
