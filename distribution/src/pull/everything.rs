//! All of what a name stands for: every platform, or an artifact that is no image.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use longshore_content::ContentStore;
use oci_spec::distribution::Reference;
use oci_spec::image::Descriptor;

use super::blob::Transfer;
use super::describe::{admit, obtain_document};
use super::options::{PullOptions, PullSource};
use crate::manifest::{MAX_INDEX_ENTRIES, Origin, classify, parse_any_manifest, parse_index};
use crate::{Result, media};

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 8;

/// Brings in all of what `reference` stands for, byte for byte: an index with the images of every platform, one image, or another artifact (a signature, a
/// chart). For copying; [`Pull`](super::Pull) is for running. The platform of `options` is not looked at. When it returns, everything is committed.
///
/// When the future is dropped, what had come stays, to be gone on with by the next pull.
///
/// # Errors
/// Those of [`Pull::start`](super::Pull::start); [`Protocol`](crate::ErrorKind::Protocol) when there is more than anyone could mean: more than 4096 manifests, or
/// indexes nested more than 8 deep.
pub async fn pull_everything(
    sources: PullSource,
    content: Arc<dyn ContentStore>,
    reference: &Reference,
    options: PullOptions,
) -> Result<Descriptor> {
    let transfer = Transfer {
        reference: reference.clone(),
        fetcher: sources.fetcher.clone(),
        content,
        keeper: options.keeper.clone(),
        progress: options.progress.clone(),
    };
    let (target, mut at_hand) = admit(&sources, &transfer, &options).await?;
    let what = format!("what {reference} stands for");
    let origin = Origin {
        registry: reference.registry(),
        what: &what,
    };
    let mut seen = HashSet::from([target.digest().clone()]);
    let (mut here, mut blobs) = (vec![target.clone()], Vec::new());
    let mut documents = 0;
    for depth in 0.. {
        if depth == MAX_DEPTH {
            return Err(origin.protocol(format!("its indexes are nested more than {MAX_DEPTH} deep")));
        }
        documents += here.len();
        if documents > MAX_INDEX_ENTRIES {
            return Err(origin.protocol(format!("it has more than {MAX_INDEX_ENTRIES} manifests")));
        }
        let mut below = Vec::new();
        for document in &here {
            below.extend(children(&transfer, document, at_hand.take(), origin).await?);
        }
        let is_document =
            |child: &Descriptor| media::is_index(child.media_type()) || media::is_manifest(child.media_type());
        below.retain(|child| seen.insert(child.digest().clone()));
        let (next, leaves): (Vec<_>, Vec<_>) = below.into_iter().partition(is_document);
        blobs.extend(leaves);
        here = next;
        if here.is_empty() {
            break;
        }
    }
    transfer.keep(&blobs).await?;
    let transfer = &transfer;
    // By value: of a future that borrows it, the compiler does not see that it may go to another thread.
    let transfers = blobs.into_iter().map(|blob| async move {
        let claim = transfer.claim("layer", &blob).await?;
        transfer.complete("layer", &blob, claim).await
    });
    let transfers = stream::iter(transfers).buffer_unordered(options.concurrency.max(1));
    transfers.try_collect::<()>().await?;
    Ok(target)
}

/// Brings one index or manifest in; what it consists of.
async fn children(
    transfer: &Transfer,
    document: &Descriptor,
    at_hand: Option<bytes::Bytes>,
    origin: Origin<'_>,
) -> Result<Vec<Descriptor>> {
    let bytes = obtain_document(transfer, document, at_hand, origin).await?;
    let media_type = classify(&bytes, Some(document.media_type().as_ref()), origin)?;
    if media::is_index(&media_type) {
        return Ok(parse_index(&bytes, origin)?.manifests().clone());
    }
    let manifest = parse_any_manifest(&bytes, origin)?;
    Ok(std::iter::once(manifest.config())
        .chain(manifest.layers())
        .cloned()
        .collect())
}
