use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use longshore_content::Blob;
use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, Digest};

use crate::Result;

/// What a name stands for at a registry.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Resolved {
    /// The manifest or index. Its digest was computed from bytes or given by the caller, never believed.
    pub descriptor: Descriptor,
    /// The manifest's bytes as received, when resolving fetched them anyway.
    pub manifest: Option<Bytes>,
}

impl Resolved {
    /// A descriptor without its bytes.
    pub fn new(descriptor: Descriptor) -> Self {
        Self {
            descriptor,
            manifest: None,
        }
    }
}

/// **Port**: turns a name into a descriptor.
///
/// # Contract
/// One answer is one moment: a tag may move between two calls. Sizes are bounded before they are believed. Cancel-safe; nothing is stored.
#[async_trait]
pub trait Resolver: Debug + Send + Sync + 'static {
    /// Resolves a reference by tag or digest.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Unauthorized`](crate::ErrorKind::Unauthorized), [`Unavailable`](crate::ErrorKind::Unavailable).
    async fn resolve(&self, reference: &Reference) -> Result<Resolved>;

    /// The manifests of the repository of `reference` whose `subject` is `digest` (distribution specification, "Listing Referrers"), of one artifact type or of all.
    /// They are the other side's word until each is fetched. By default it knows of none.
    ///
    /// # Errors
    /// As for [`resolve`](Self::resolve).
    async fn referrers(
        &self,
        _reference: &Reference,
        _digest: &Digest,
        _artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }
}

/// A blob or manifest on its way in.
pub struct Fetched {
    /// Where the stream begins: the offset that was asked for, or 0 when the source can't resume.
    pub offset: u64,
    /// The bytes, unverified. An error in the stream ends it.
    pub stream: BoxStream<'static, Result<Bytes>>,
}

impl Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// **Port**: where manifests and blobs come from.
///
/// # Contract
/// Bytes are handed on unverified and unbounded: the content store that takes them proves digest and size.
/// Retrying a request that failed before its first byte is the fetcher's; resuming a cut stream is the caller's. Cancel-safe.
#[async_trait]
pub trait Fetcher: Debug + Send + Sync + 'static {
    /// Begins to fetch `descriptor` from the repository of `reference`, from `offset` on.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Unauthorized`](crate::ErrorKind::Unauthorized), [`Unavailable`](crate::ErrorKind::Unavailable).
    async fn fetch(&self, reference: &Reference, descriptor: &Descriptor, offset: u64) -> Result<Fetched>;

    /// Is told that the bytes of `descriptor` that it gave were not the ones that its digest names. It answers whether it has another
    /// source of them, which the next [`fetch`](Self::fetch) asks; it must not answer so for ever. By default there is none.
    async fn reject(&self, _reference: &Reference, _descriptor: &Descriptor) -> Elsewhere {
        Elsewhere::Nowhere
    }
}

/// Whether bytes that were wrong may be had right from another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// Another source has not been tried yet.
    Another,
    /// There is none.
    Nowhere,
}

/// **Port**: where manifests and blobs go.
///
/// # Contract
/// When it returns, the other side has acknowledged the digest. What the other side has already is not sent again. A manifest's children
/// must have been pushed before it. Cancel-safe: an upload that was dropped leaves nothing visible.
#[async_trait]
pub trait Pusher: Debug + Send + Sync + 'static {
    /// Pushes one blob or manifest (by its media type), whose bytes are `blob`, to the repository of `reference`; a manifest also gets the tag of `reference` when `root`.
    /// The bytes may be read more than once, from any offset, when a connection is cut.
    ///
    /// # Errors
    /// [`Unauthorized`](crate::ErrorKind::Unauthorized), [`Unavailable`](crate::ErrorKind::Unavailable).
    async fn push(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        blob: Arc<dyn Blob>,
        root: Root,
    ) -> Result<Pushed>;

    /// Has the other side take a blob over from the repository of `from`, which is sent nothing then. By default it can't.
    ///
    /// # Errors
    /// Those of [`push`](Self::push). That it is not done is no error.
    async fn mount(&self, _reference: &Reference, _descriptor: &Descriptor, _from: &Reference) -> Result<Mounted> {
        Ok(Mounted::No)
    }
}

/// How the other side came to have what was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was sent.
    Sent,
    /// It was there.
    Present,
}

/// Whether a blob was taken over from another repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// It is there.
    Yes,
    /// It has to be pushed.
    No,
}

/// Whether a manifest being pushed is the one that the reference names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// It is: it gets the reference's tag.
    Yes,
    /// It is a child, addressed by digest alone.
    No,
}

/// A way to prove who one is to a registry. `Debug` does not show the secret.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credential {
    /// No proof: anonymous.
    Anonymous,
    /// User and password, for Basic, or to be traded for a token.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// An OAuth2 refresh token, to be traded for an access token.
    IdentityToken(String),
}

impl Credential {
    /// User and password.
    pub fn basic(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Basic {
            username: username.into(),
            password: password.into(),
        }
    }
}

impl Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { username, .. } => f
                .debug_struct("Basic")
                .field("username", username)
                .finish_non_exhaustive(),
            Self::IdentityToken(_) => f.write_str("IdentityToken(..)"),
        }
    }
}

/// **Port**: where credentials come from.
///
/// # Contract
/// Asked once for each repository when its host first demands them, and again after a refusal. Never sent to a host other than the one asked
/// for and, over https, the token server that it names.
#[async_trait]
pub trait Credentials: Debug + Send + Sync + 'static {
    /// The credential for a repository (`team/app`) at a registry's host (with port if it has one). Most know one for all of a host.
    async fn credential(&self, host: &str, repository: &str) -> Result<Credential>;
}

/// What an [`ImageVerifier`] is asked about.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct VerifyRequest<'a> {
    /// The name that was asked for.
    pub reference: &'a Reference,
    /// What it resolved to.
    pub descriptor: &'a Descriptor,
}

impl<'a> VerifyRequest<'a> {
    /// A question about `reference`, which resolved to `descriptor`.
    pub fn new(reference: &'a Reference, descriptor: &'a Descriptor) -> Self {
        Self { reference, descriptor }
    }
}

/// A verifier's yes. (Its no is [`Error::Refused`](crate::Error::Refused).)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// Why, for the log.
    pub reason: String,
}

/// **Port**: decides whether an image may come in, after it was resolved and before anything of it is fetched.
///
/// # Contract
/// Anything but `Ok` stops the pull. May ask the registry for signatures through ports of its own.
#[async_trait]
pub trait ImageVerifier: Debug + Send + Sync + 'static {
    /// Allows the image, or refuses with [`Error::Refused`](crate::Error::Refused).
    async fn verify(&self, request: VerifyRequest<'_>) -> Result<Allow>;
}
