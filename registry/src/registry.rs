//! Starts, fills and stops a registry.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use longshore_content::{ContentStore, ContentStoreExt, Expected, MemoryStore, sha256};
use oci_spec::image::Digest;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::auth::{Auth, Authority};
use crate::faults::Faults;
use crate::log::{Log, LoggedRequest, lock};
use crate::manifests::{Missing, store};
use crate::random::token;
use crate::state::State;
use crate::{Error, Result, listen, name, uploads};

/// How a registry is to be; begin with [`builder`](Self::builder).
#[derive(Debug)]
pub struct Registry;

impl Registry {
    /// A registry in memory, for anybody on this machine.
    pub fn builder() -> Builder {
        Builder {
            content: Arc::new(MemoryStore::new()),
            auth: Auth::None,
            faults: None,
            connections: 256,
            reach: Reach::ThisMachine,
        }
    }
}

/// Options of a registry; see [`Registry::builder`].
#[derive(Debug)]
#[must_use = "nothing is served before `serve`"]
pub struct Builder {
    content: Arc<dyn ContentStore>,
    auth: Auth,
    faults: Option<Arc<dyn Faults>>,
    connections: usize,
    reach: Reach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    ThisMachine,
    OtherMachines,
}

impl Builder {
    /// Keeps blobs and manifests here instead of in memory. What the store holds is served only from repositories
    /// into which it was put, pushed or mounted.
    pub fn content(mut self, content: Arc<dyn ContentStore>) -> Self {
        self.content = content;
        self
    }

    /// How clients prove who they are.
    pub fn auth(mut self, auth: impl Into<Auth>) -> Self {
        self.auth = auth.into();
        self
    }

    /// What is to go wrong.
    pub fn faults(mut self, faults: impl Faults) -> Self {
        self.faults = Some(Arc::new(faults));
        self
    }

    /// How many connections are served at a time (256); others wait to be accepted.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Allows an address that is not loopback. Everything goes over it as plain text, passwords too.
    pub fn allow_other_machines(mut self) -> Self {
        self.reach = Reach::OtherMachines;
        self
    }

    /// Listens and serves, on tasks of the current tokio runtime, until what is returned is dropped. Port 0 takes a
    /// free one.
    ///
    /// # Errors
    /// [`Listen`](crate::ErrorKind::Listen) when the address is taken, unknown, or not loopback.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn serve(self, address: &str) -> Result<RunningRegistry> {
        let failed = |source| Error::Listen {
            address: address.into(),
            source,
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if self.reach == Reach::ThisMachine && !address.ip().is_loopback() {
            return Err(Error::NotLoopback(address));
        }
        let state = Arc::new(State {
            content: self.content,
            repositories: Default::default(),
            uploads: Default::default(),
            authority: Authority::new(self.auth),
            faults: self.faults,
            log: Log::default(),
        });
        let task = tokio::spawn(listen::serve(listener, state.clone(), self.connections));
        Ok(RunningRegistry { address, state, task })
    }
}

/// A registry that serves until it is dropped; then its connections are closed, whatever they are doing.
#[must_use = "the registry stops when this is dropped"]
pub struct RunningRegistry {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl RunningRegistry {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as the host of an image reference: `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The same as the beginning of a URL: `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where its blobs and manifests are.
    pub fn content(&self) -> &Arc<dyn ContentStore> {
        &self.state.content
    }

    /// Stores a blob without HTTP. It is served once a manifest that needs it is [put](Self::put_manifest), or when
    /// it is [linked](Self::link_blob).
    ///
    /// # Errors
    /// [`Content`](crate::ErrorKind::Content).
    pub async fn put_blob(&self, bytes: impl Into<Bytes> + Send) -> Result<Digest> {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        let expected = Expected {
            digest: Some(digest.clone()),
            size: Some(bytes.len() as u64),
        };
        self.state
            .content
            .put(&format!("blob-{}", token()), bytes, expected)
            .await?;
        Ok(digest)
    }

    /// Serves a blob of the content store from a repository.
    ///
    /// # Errors
    /// [`Content`](crate::ErrorKind::Content) when the store does not have it.
    pub async fn link_blob(&self, repository: &str, digest: &Digest) -> Result<()> {
        check_repository(repository)?;
        self.state.content.info(digest).await?;
        uploads::link(&self.state, repository, digest);
        Ok(())
    }

    /// Stores a manifest or an index without HTTP, links the blobs that it needs, and tags it if `tag` is there.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when it is not a manifest, or needs what is not there.
    pub async fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: impl Into<Bytes> + Send,
    ) -> Result<Digest> {
        check_repository(repository)?;
        let bytes = bytes.into();
        let stored = store(&self.state, repository, Some(media_type), bytes, None, Missing::TakenIn).await;
        let (digest, _) = stored.map_err(|refusal| Error::InvalidManifest {
            repository: repository.into(),
            reason: refusal.message,
        })?;
        if let Some(tag) = tag {
            self.tag(repository, tag, &digest)?;
        }
        Ok(digest)
    }

    /// Points a tag at a manifest of the repository.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it has no such manifest, [`Invalid`](crate::ErrorKind::Invalid)
    /// for a bad tag.
    pub fn tag(&self, repository: &str, tag: &str, digest: &Digest) -> Result<()> {
        check_repository(repository)?;
        if !name::is_tag(tag) {
            return Err(Error::InvalidName(tag.into()));
        }
        let mut repositories = lock(&self.state.repositories);
        let found = repositories
            .get_mut(repository)
            .filter(|found| found.manifests.contains_key(digest));
        let missing = || Error::NoSuchManifest {
            repository: repository.into(),
            digest: digest.clone(),
        };
        found.ok_or_else(missing)?.tags.insert(tag.into(), digest.clone());
        Ok(())
    }

    /// The digest that a tag points at.
    pub fn resolve(&self, repository: &str, tag: &str) -> Option<Digest> {
        lock(&self.state.repositories).get(repository)?.tags.get(tag).cloned()
    }

    /// The requests that were answered, oldest first; at most 100,000.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.state.log.all()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.state.log.clear();
    }

    /// Makes all bearer tokens that were given out worthless, as if they had expired.
    pub fn revoke_tokens(&self) {
        self.state.authority.revoke();
    }
}

impl std::fmt::Debug for RunningRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningRegistry")
            .field("address", &self.address)
            .field("authority", &self.state.authority)
            .field("faults", &self.state.faults)
            .finish_non_exhaustive()
    }
}

impl Drop for RunningRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn check_repository(repository: &str) -> Result<()> {
    if name::is_repository(repository) {
        Ok(())
    } else {
        Err(Error::InvalidName(repository.into()))
    }
}
