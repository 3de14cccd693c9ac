use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use oci_spec::image::{Descriptor, Platform};

use crate::{Fetcher, ImageVerifier, Resolver};

/// Where a pull comes from: a [`RegistryClient`](crate::RegistryClient), or two
/// parts of one's own.
#[derive(Clone, Debug)]
pub struct PullSource {
    /// Turns the name into a descriptor.
    pub resolver: Arc<dyn Resolver>,
    /// Brings manifests and blobs.
    pub fetcher: Arc<dyn Fetcher>,
}

impl PullSource {
    /// One that resolves and fetches.
    pub fn new<S: Resolver + Fetcher>(source: Arc<S>) -> Self {
        Self {
            resolver: source.clone(),
            fetcher: source,
        }
    }
}

impl<S: Resolver + Fetcher> From<Arc<S>> for PullSource {
    fn from(source: Arc<S>) -> Self {
        Self::new(source)
    }
}

/// What a pull may be told; the default suits most. Set what differs: `PullOptions { platform, ..Default::default() }`.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// The platform to choose from an index. Default: the host's.
    pub platform: Option<Platform>,
    /// Asked before anything is fetched. Default: none, every image may come in.
    pub verifier: Option<Arc<dyn ImageVerifier>>,
    /// Told of what is needed before it is looked for or stored. Default: none.
    pub keeper: Option<Arc<dyn Keeper>>,
    /// Told of what happens. Default: none.
    pub progress: Option<Arc<dyn PullProgress>>,
    /// How many layers are fetched at once. 0 counts as 1. Default: 3.
    pub concurrency: usize,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            platform: None,
            verifier: None,
            keeper: None,
            progress: None,
            concurrency: 3,
        }
    }
}

/// **Port**: protects what a pull needs from garbage collection, typically by a lease.
///
/// # Contract
/// Called with each group of blobs as the pull learns of them (root; then the manifest; then config and layers) **before** it
/// looks whether they are there and before any is committed. Once it has returned, a collector must not remove them
/// until the caller of the pull lets go of them. A blob may be named more than once.
#[async_trait]
pub trait Keeper: Debug + Send + Sync + 'static {
    /// Protects blobs, which need not exist yet. An error stops the pull.
    async fn keep(&self, blobs: &[Descriptor]) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// **Port**: is told of a pull's progress.
///
/// # Contract
/// Called from the pull's tasks, for several blobs at the same time; must neither block nor panic, and changes nothing.
pub trait PullProgress: Debug + Send + Sync + 'static {
    /// Something happened.
    fn event(&self, event: ProgressEvent<'_>);
}

/// What happens in a pull. For each blob: one of `Cached`, `Elsewhere`, `Waiting` and `Started`, any number of `Bytes` and
/// `Resumed`, then `Committed` (but after `Cached` and `Elsewhere`), unless the pull fails. A blob whose writer gave up, or whose bytes
/// were wrong when they had come in pieces, starts again.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum ProgressEvent<'a> {
    /// The name was resolved, and may come in.
    Resolved {
        /// The index or manifest that it stands for.
        target: &'a Descriptor,
    },
    /// The blob is in the store already.
    Cached {
        /// The blob.
        blob: &'a Descriptor,
    },
    /// The layer is not fetched: whoever unpacks has it otherwise ([`PullPlan::start_above`](crate::PullPlan::start_above)).
    Elsewhere {
        /// The blob.
        blob: &'a Descriptor,
    },
    /// Another pull fetches the blob: this one waits for it.
    Waiting {
        /// The blob.
        blob: &'a Descriptor,
    },
    /// The blob begins to be fetched, or will as soon as it is its turn.
    Started {
        /// The blob.
        blob: &'a Descriptor,
        /// How many bytes of it an earlier pull has left.
        offset: u64,
    },
    /// Bytes came.
    Bytes {
        /// The blob.
        blob: &'a Descriptor,
        /// How many bytes of it are here.
        offset: u64,
    },
    /// The connection was cut; the rest is asked for.
    Resumed {
        /// The blob.
        blob: &'a Descriptor,
        /// How many bytes of it are here.
        offset: u64,
        /// How it was cut.
        reason: &'a crate::Error,
    },
    /// The blob is proved, durable and visible in the store.
    Committed {
        /// The blob.
        blob: &'a Descriptor,
    },
}
