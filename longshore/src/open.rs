use std::path::{Path, PathBuf};
use std::sync::Arc;

use longshore_content::LocalStore;
use longshore_distribution::{Credentials, DockerConfig, Hosts, ImageVerifier, RegistryClient, RegistryClientBuilder};
use longshore_events::{Bus, EventSink};
use longshore_metadata::RedbStore;
use longshore_runtime::LinuxExecutor;

use crate::collect::Collection;
use crate::error::At;
use crate::privilege::Privilege;
use crate::senses::Senses;
use crate::{DEFAULT_NAMESPACE, Engine, Error, Result};

/// Events that a slow subscriber may lag behind before it misses some.
const BUS_CAPACITY: usize = 4096;

/// An engine about to be opened: set what differs from the usual first.
///
/// ```no_run
/// use std::sync::Arc;
/// use longshore::Engine;
/// use longshore::distribution::{Credential, Hosts, Static};
///
/// # async fn demo() -> longshore::Result<()> {
/// let logins = Static::new().with("registry.example", Credential::basic("me", "secret"));
/// let engine = Engine::builder("/var/lib/app").hosts(Hosts::new().tree("/etc/app/registries")).credentials(Arc::new(logins)).open().await?;
/// # let _ = engine; Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing is opened before `open`"]
pub struct EngineBuilder {
    root: PathBuf,
    namespace: String,
    asker: String,
    client: RegistryClientBuilder,
    verifier: Option<Arc<dyn ImageVerifier>>,
    sinks: Vec<Arc<dyn EventSink>>,
}

impl EngineBuilder {
    fn new(root: &Path) -> Self {
        let client = RegistryClient::builder().hosts(Hosts::of_system());
        Self {
            root: root.to_owned(),
            namespace: DEFAULT_NAMESPACE.to_owned(),
            asker: crate::asked::this_program(),
            client: client.credentials(Arc::new(DockerConfig::from_env())),
            verifier: None,
            sinks: Vec::new(),
        }
    }

    /// The tenant whose images and containers it sees. Default: [`DEFAULT_NAMESPACE`].
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Who asks for what it does, for its events. Default: this program, its pid and its user.
    pub fn asker(mut self, asker: impl Into<String>) -> Self {
        self.asker = asker.into();
        self
    }

    /// Mirrors, and how registries are trusted. Default: what this machine's containerd, Docker and podman are told ([`Hosts::of_system`]).
    pub fn hosts(mut self, hosts: Hosts) -> Self {
        self.client = self.client.hosts(hosts);
        self
    }

    /// Who one is to registries. Default: the logins of `docker login` and `podman login` of who runs the program ([`DockerConfig::from_env`]); give
    /// [`Anonymous`](longshore_distribution::Anonymous) to use none.
    pub fn credentials(mut self, credentials: Arc<dyn Credentials>) -> Self {
        self.client = self.client.credentials(credentials);
        self
    }

    /// All settings of the registry client; replaces hosts and credentials, too.
    pub fn client(mut self, client: RegistryClientBuilder) -> Self {
        self.client = client;
        self
    }

    /// Decides whether an image may come in. Default: every image.
    pub fn verifier(mut self, verifier: Arc<dyn ImageVerifier>) -> Self {
        self.verifier = Some(verifier);
        self
    }

    /// A further place that every event goes to, those of opening included.
    pub fn sink(mut self, sink: Arc<dyn EventSink>) -> Self {
        self.sinks.push(sink);
        self
    }

    /// Opens it.
    ///
    /// # Errors
    /// Those of [`Engine::open`].
    pub async fn open(self) -> Result<Engine> {
        let root = make_root(&self.root)?;
        let metadata = RedbStore::open(root.join("metadata.redb"))
            .await
            .at("opening the metadata store")?;
        let content = LocalStore::open(root.join("content"))
            .await
            .at("opening the content store")?;
        let snapshotter = longshore_snapshot::detect(root.join("snapshots"))
            .await
            .at("opening the snapshotter")?;
        let executor = LinuxExecutor::open(root.join("state")).at("opening the executor")?;
        let client = Arc::new(self.client.build().at("setting up the registry client")?);
        let bus = Bus::new(BUS_CAPACITY);
        let engine = Engine {
            namespace: self.namespace,
            asker: self.asker,
            root,
            content: Arc::new(content),
            snapshotter,
            metadata: Arc::new(metadata),
            resolver: client.clone(),
            fetcher: client.clone(),
            pusher: client,
            verifier: self.verifier,
            executor: Arc::new(executor),
            privilege: Privilege::of_process(),
            collection: Collection::default(),
            senses: Arc::new(Senses::new(&bus)),
            bus,
            sinks: self.sinks,
        };
        engine.recover().await?;
        Ok(engine)
    }
}

impl Engine {
    /// Opens, or makes, an engine whose state lives under `root`: local content store, overlay snapshotter (native where overlay can't serve), redb,
    /// the Linux executor; a registry client with this machine's mirrors and this user's logins. One process at a time may hold a root.
    /// [`builder`](Self::builder) does so with other settings.
    ///
    /// What a program that was killed left behind is cleaned up here: containers tied to it, half-made snapshots and bundles.
    ///
    /// # Errors
    /// [`Locked`](crate::ErrorKind::Locked) when another process holds the root, [`PermissionDenied`](crate::ErrorKind::PermissionDenied) when it can't be written,
    /// [`Corrupt`](crate::ErrorKind::Corrupt) when a store is damaged.
    pub async fn open(root: impl AsRef<Path>) -> Result<Self> {
        Self::builder(root).open().await
    }

    /// An engine under `root`, to be opened when all is set.
    pub fn builder(root: impl AsRef<Path>) -> EngineBuilder {
        EngineBuilder::new(root.as_ref())
    }
}

/// Makes the root directory, for its owner alone, and resolves it: overlay mounts need absolute paths that stay true.
fn make_root(root: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let error = |source| Error::Io {
        doing: "making the engine's directory",
        path: root.to_owned(),
        source,
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .map_err(error)?;
    root.canonicalize().map_err(error)
}
