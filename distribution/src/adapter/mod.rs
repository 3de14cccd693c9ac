//! The `oci-client` crate behind the ports: it speaks, and is not believed.

mod error;
mod push;
mod read;

use std::collections::HashSet;
use std::fmt::{self, Debug};
use std::sync::Arc;

use oci_client::secrets::RegistryAuth;
use oci_spec::distribution::Reference;
use tokio::sync::Mutex;

use crate::{Anonymous, Credential, Credentials, Error, Result};

/// A client of the `oci-client` crate as [`Resolver`](crate::Resolver), [`Fetcher`](crate::Fetcher) and [`Pusher`](crate::Pusher), for a program that has one already.
/// What it says of digests is not believed: a manifest's is computed again from its bytes, and a blob's is proved by the store that takes it.
///
/// It does less than a [`RegistryClient`](crate::RegistryClient): no mirrors, no retry, no deadline but what its
/// [`ClientConfig`](oci_client::client::ClientConfig) sets; a client that was refused stays refused; user and password go to whatever token server the
/// registry names. It reads a manifest, and what a registry says of a failure, into memory before there is a chance to ask for the size: keep it to registries
/// that won't abuse that. Layers that live elsewhere (`urls`) are not looked for.
///
/// Its TLS is the one that this crate uses, rustls, whose implementation of the cryptography it takes from the process; a library must not choose that, so the program
/// does, once, before the first client is made (otherwise making one panics).
///
/// ```
/// use std::sync::Arc;
/// use longshore_content::{ContentStore, MemoryStore};
/// use longshore_distribution::oci_client::client::{Client, ClientConfig, ClientProtocol};
/// use longshore_distribution::{OciClientAdapter, Pull, PullOptions, parse_reference};
/// # use longshore_distribution::conformance::Sample;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let sample = Sample::new();
/// # let registry = longshore_registry::Registry::builder().content(Arc::new(sample.store().await)).serve("127.0.0.1:0").await?;
/// # let (manifest, bytes) = &sample.manifest;
/// # registry.put_manifest("app", Some("1"), manifest.media_type().as_ref(), bytes.clone()).await?;
/// # let host = registry.host();
/// rustls::crypto::ring::default_provider().install_default().expect("nobody chose before");
/// let config = ClientConfig { protocol: ClientProtocol::HttpsExcept(vec![host.clone()]), ..ClientConfig::default() };
/// let source = Arc::new(OciClientAdapter::new(Client::try_from(config)?));
///
/// let content = Arc::new(MemoryStore::new());
/// let name = parse_reference(&format!("{host}/app:1"))?;
/// let image = Pull::start(source.into(), content.clone(), &name, PullOptions::default()).await?.finish().await?;
/// for layer in image.layers() {
///     assert_eq!(content.info(layer.digest()).await?.size, layer.size());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct OciClientAdapter {
    client: oci_client::Client,
    credentials: Arc<dyn Credentials>,
    /// The registries whose credential the client was told. It keeps the first.
    told: Arc<Mutex<HashSet<String>>>,
}

impl OciClientAdapter {
    /// Speaks through `client`, with the credentials that it was given, or none.
    pub fn new(client: oci_client::Client) -> Self {
        Self {
            client,
            credentials: Arc::new(Anonymous),
            told: Arc::default(),
        }
    }

    /// Asks `credentials` once for each registry. The client keeps one credential for all of a registry's repositories, and can't trade an identity token.
    pub fn credentials(mut self, credentials: Arc<dyn Credentials>) -> Self {
        self.credentials = credentials;
        self
    }

    /// Sees to it that the client has the credential for a registry, and returns it: some of its methods take one.
    async fn log_in(&self, reference: &Reference) -> Result<()> {
        let registry = reference.resolve_registry();
        let mut told = self.told.lock().await;
        if told.contains(registry) {
            return Ok(());
        }
        let (host, repository) = (reference.registry(), reference.repository());
        let auth = match self.credentials.credential(host, repository).await? {
            Credential::Anonymous => RegistryAuth::Anonymous,
            Credential::Basic { username, password } => RegistryAuth::Basic(username, password),
            Credential::IdentityToken(_) => {
                return Err(Error::Credentials {
                    registry: host.to_owned(),
                    reason: "oci-client can't trade an identity token; give it a user and a password".into(),
                });
            }
        };
        self.client.store_auth_if_needed(registry, &auth).await;
        told.insert(registry.to_owned());
        Ok(())
    }
}

impl Debug for OciClientAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OciClientAdapter")
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// The manifest of this digest, by what the client takes for a tag: it asks for `manifests/<tag>`, and a digest in the other place makes it panic when a registry names no location of what was put there.
fn by_digest(reference: &Reference, digest: &str) -> Reference {
    Reference::with_tag(
        reference.registry().to_owned(),
        reference.repository().to_owned(),
        digest.to_owned(),
    )
}
