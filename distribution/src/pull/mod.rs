//! Pulling an image: from a name to blobs in a content store.

mod blob;
mod describe;
mod everything;
mod image;
mod options;

use std::sync::Arc;

use longshore_content::ContentStore;
use oci_spec::distribution::Reference;
use oci_spec::image::Descriptor;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use blob::Transfer;
pub use everything::pull_everything;
pub use image::ResolvedImage;
pub use options::{Keeper, ProgressEvent, PullOptions, PullProgress, PullSource};

use crate::{Error, Result};

/// An image on its way in. Manifest and configuration are in the store; the layers come.
///
/// Layers are fetched by tasks of their own: they come whether or not anyone polls [`finish`](Self::finish), so that one
/// can unpack each by [`follow`](ContentStore::follow) meanwhile.
///
/// # Cancelling
/// Dropping the `Pull`, or the future of `finish`, aborts those tasks. What had come of each layer stays as a partial ingest,
/// which the next pull resumes; who follows a layer gets [`Abandoned`](longshore_content::ErrorKind::Abandoned).
#[derive(Debug)]
#[must_use = "dropping a pull cancels it"]
pub struct Pull {
    image: ResolvedImage,
    layers: JoinSet<Result<()>>,
}

impl Pull {
    /// Resolves `reference`, has it allowed by the verifier, chooses the platform, brings index, manifest and configuration
    /// into `content` (byte for byte as received), and begins every layer that is missing.
    ///
    /// When it returns, [`follow`](ContentStore::follow) works on the digest of each layer: it is committed, or a writer in this process
    /// is at it. (The exception is a layer that another process is just writing into the same store: it is fetched a second time,
    /// under another ingest, and can be followed all the same.)
    ///
    /// Cut connections are resumed where they broke off. A layer that is in the manifest twice comes once. A layer that another pull in this
    /// process fetches is waited for; should that pull give up, this one takes over.
    ///
    /// Nothing is protected from garbage collection unless [`PullOptions::keeper`] does so. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Unauthorized`](crate::ErrorKind::Unauthorized), [`Unavailable`](crate::ErrorKind::Unavailable)
    /// and [`Protocol`](crate::ErrorKind::Protocol) from the source; [`Refused`](crate::ErrorKind::Refused) from the verifier;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when no image is for the platform; [`Verification`](crate::ErrorKind::Verification)
    /// for wrong bytes; [`Content`](crate::ErrorKind::Content) from the store.
    pub async fn start(
        sources: PullSource,
        content: Arc<dyn ContentStore>,
        reference: &Reference,
        options: PullOptions,
    ) -> Result<Self> {
        Self::plan(sources, content, reference, options).await?.start().await
    }

    /// Does all that [`start`](Self::start) does but for the layers, for who may have some of them otherwise.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub async fn plan(
        sources: PullSource,
        content: Arc<dyn ContentStore>,
        reference: &Reference,
        options: PullOptions,
    ) -> Result<PullPlan> {
        let transfer = Arc::new(Transfer {
            reference: reference.clone(),
            fetcher: sources.fetcher.clone(),
            content,
            keeper: options.keeper.clone(),
            progress: options.progress.clone(),
        });
        let image = describe::describe(&sources, &transfer, &options).await?;
        distinct(&image)?;
        Ok(PullPlan {
            image,
            transfer,
            concurrency: options.concurrency.clamp(1, Semaphore::MAX_PERMITS),
        })
    }

    /// What is being pulled.
    pub fn image(&self) -> &ResolvedImage {
        &self.image
    }

    /// Waits until every layer is committed.
    ///
    /// # Errors
    /// The first failure of a layer; the other layers are then cancelled.
    pub async fn finish(mut self) -> Result<ResolvedImage> {
        while let Some(layer) = self.layers.join_next().await {
            match layer {
                Ok(result) => result?,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(error) => {
                    return Err(Error::Transport {
                        registry: self.image.reference.registry().to_owned(),
                        request: "fetching the layers".into(),
                        source: Box::new(error),
                    });
                }
            }
        }
        Ok(self.image)
    }
}

/// An image whose manifest and configuration are in the store, and whose layers nobody has begun to fetch. Made by [`Pull::plan`].
#[derive(Debug)]
#[must_use = "no layer is fetched before it is started"]
pub struct PullPlan {
    image: ResolvedImage,
    transfer: Arc<Transfer>,
    concurrency: usize,
}

impl PullPlan {
    /// What is to be pulled.
    pub fn image(&self) -> &ResolvedImage {
        &self.image
    }

    /// Begins every layer that is missing.
    ///
    /// # Errors
    /// Those of [`Pull::start`].
    pub async fn start(self) -> Result<Pull> {
        self.start_above(0).await
    }

    /// The same without the `below` lowest layers: whoever unpacks has them otherwise. One that is also further up is fetched all the same.
    ///
    /// # Errors
    /// Those of [`Pull::start`].
    pub async fn start_above(self, below: usize) -> Result<Pull> {
        let Self { image, transfer, .. } = self;
        let needed = &image.layers()[below.min(image.layers().len())..];
        let is_needed = |layer: &Descriptor| needed.iter().any(|one| one.digest() == layer.digest());
        let mut claims = Vec::new();
        for layer in distinct(&image)? {
            match is_needed(layer) {
                true => claims.push((layer.clone(), transfer.claim("layer", layer).await?)),
                false => transfer.emit(ProgressEvent::Elsewhere { blob: layer }),
            }
        }
        let turns = Arc::new(Semaphore::new(self.concurrency));
        let mut layers = JoinSet::new();
        for (layer, claim) in claims {
            let (transfer, turns) = (transfer.clone(), turns.clone());
            layers.spawn(async move {
                // Whoever waits for another pull takes no turn from those who fetch. It may have to fetch after all; then
                // it does so beyond the limit, which is better than two pulls that wait for each other's turns.
                let _turn = match &claim {
                    blob::Claim::Ours(_) => Some(turns.acquire().await.expect("the semaphore is never closed")),
                    _ => None,
                };
                transfer.complete("layer", &layer, claim).await
            });
        }
        Ok(Pull { image, layers })
    }
}

/// The layers, each once.
fn distinct(image: &ResolvedImage) -> Result<Vec<&Descriptor>> {
    let mut all: Vec<&Descriptor> = Vec::new();
    for layer in image.layers() {
        match all.iter().find(|known| known.digest() == layer.digest()) {
            None => all.push(layer),
            Some(known) if known.size() == layer.size() => {}
            Some(known) => {
                return Err(Error::Protocol {
                    registry: image.reference.registry().to_owned(),
                    what: format!("the manifest of {}", image.reference),
                    reason: format!(
                        "it names layer {} twice, once with {} and once with {} bytes",
                        layer.digest(),
                        known.size(),
                        layer.size()
                    ),
                });
            }
        }
    }
    Ok(all)
}
