//! From a name to manifest and configuration.

use bytes::Bytes;
use longshore_content::ContentStore;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest, Platform};

use super::blob::Transfer;
use super::image::ResolvedImage;
use super::options::{ProgressEvent, PullOptions, PullSource};
use crate::manifest::{
    MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, Origin, classify, parse_config, parse_index, parse_manifest,
};
use crate::platform::{available, choose, distance, format_platform, host_platform};
use crate::{Error, Result, VerifyRequest, media};

/// How many indexes may lie above a manifest.
const MAX_DEPTH: usize = 4;

/// How a manifest was found.
struct Found {
    between: Vec<Descriptor>,
    descriptor: Descriptor,
    manifest: ImageManifest,
    /// Whether an index said for which platform it is.
    is_stated: bool,
}

/// Resolves the name, has it allowed, and brings in everything but the layers.
pub(super) async fn describe(
    sources: &PullSource,
    transfer: &Transfer,
    options: &PullOptions,
) -> Result<ResolvedImage> {
    let (target, at_hand) = admit(sources, transfer, options).await?;
    let reference = &transfer.reference;
    let wanted = options.platform.clone().unwrap_or_else(host_platform);
    let found = find_manifest(transfer, &target, at_hand, &wanted).await?;
    let blobs: Vec<_> = std::iter::once(found.manifest.config())
        .chain(found.manifest.layers())
        .cloned()
        .collect();
    transfer.keep(&blobs).await?;
    let config = obtain_config(transfer, &found, &wanted).await?;
    Ok(ResolvedImage {
        reference: reference.clone(),
        target,
        manifest_descriptor: found.descriptor,
        manifest: found.manifest,
        config,
        between: found.between,
    })
}

/// Resolves the name and has it allowed.
pub(super) async fn admit(
    sources: &PullSource,
    transfer: &Transfer,
    options: &PullOptions,
) -> Result<(Descriptor, Option<Bytes>)> {
    let reference = &transfer.reference;
    let resolved = sources.resolver.resolve(reference).await?;
    let target = resolved.descriptor;
    if let Some(wanted) = reference.digest().filter(|wanted| *wanted != target.digest().as_ref()) {
        return Err(Error::DigestMismatch {
            what: format!("what {reference} resolves to"),
            registry: reference.registry().to_owned(),
            expected: wanted.to_owned(),
            actual: target.digest().to_string(),
        });
    }
    if let Some(verifier) = &options.verifier {
        let allow = verifier.verify(VerifyRequest::new(reference, &target)).await?;
        tracing::debug!(%reference, digest = %target.digest(), reason = allow.reason, "image was allowed");
    }
    transfer.emit(ProgressEvent::Resolved { target: &target });
    Ok((target, resolved.manifest))
}

/// Goes down from the target, choosing by platform, until there is a manifest.
async fn find_manifest(
    transfer: &Transfer,
    target: &Descriptor,
    mut at_hand: Option<Bytes>,
    wanted: &Platform,
) -> Result<Found> {
    let mut descriptor = target.clone();
    let mut between = Vec::new();
    let mut is_stated = false;
    for depth in 0..MAX_DEPTH {
        let what = format!("manifest {} of {}", descriptor.digest(), transfer.reference);
        let origin = Origin {
            registry: transfer.reference.registry(),
            what: &what,
        };
        let bytes = obtain_document(transfer, &descriptor, at_hand.take(), origin).await?;
        let media_type = classify(&bytes, Some(descriptor.media_type().as_ref()), origin)?;
        if !media::is_index(&media_type) {
            let manifest = parse_manifest(&bytes, origin)?;
            return Ok(Found {
                between,
                descriptor,
                manifest,
                is_stated,
            });
        }
        if depth > 0 {
            between.push(descriptor);
        }
        let index = parse_index(&bytes, origin)?;
        let chosen = choose(&index, wanted).ok_or_else(|| Error::NoMatchingPlatform {
            reference: transfer.reference.to_string(),
            wanted: format_platform(wanted),
            available: available(&index),
        })?;
        is_stated |= chosen.platform().is_some();
        descriptor = chosen.clone();
    }
    Err(Error::Protocol {
        registry: transfer.reference.registry().to_owned(),
        what: transfer.reference.to_string(),
        reason: format!("its indexes are nested more than {MAX_DEPTH} deep"),
    })
}

/// An index or manifest, into the store and to look at.
pub(super) async fn obtain_document(
    transfer: &Transfer,
    descriptor: &Descriptor,
    at_hand: Option<Bytes>,
    origin: Origin<'_>,
) -> Result<Bytes> {
    bounded(descriptor, origin, MAX_MANIFEST_SIZE)?;
    let kind = if media::is_index(descriptor.media_type()) {
        "index"
    } else {
        "manifest"
    };
    transfer.keep(std::slice::from_ref(descriptor)).await?;
    if let Some(bytes) = at_hand {
        origin.prove(&bytes, descriptor.digest())?;
        transfer.store(kind, descriptor, &bytes).await?;
        return Ok(bytes);
    }
    let claim = transfer.claim(kind, descriptor).await?;
    transfer.complete(kind, descriptor, claim).await?;
    read(transfer, kind, descriptor).await
}

async fn obtain_config(transfer: &Transfer, found: &Found, wanted: &Platform) -> Result<ImageConfiguration> {
    let descriptor = found.manifest.config();
    let what = format!("config {} of {}", descriptor.digest(), transfer.reference);
    let origin = Origin {
        registry: transfer.reference.registry(),
        what: &what,
    };
    bounded(descriptor, origin, MAX_CONFIG_SIZE)?;
    let claim = transfer.claim("config", descriptor).await?;
    transfer.complete("config", descriptor, claim).await?;
    let config = parse_config(&read(transfer, "config", descriptor).await?, origin)?;
    let (layers, diff_ids) = (found.manifest.layers().len(), config.rootfs().diff_ids().len());
    if layers != diff_ids {
        return Err(origin.protocol(format!("it lists {diff_ids} layers (diff_ids), its manifest {layers}")));
    }
    if !found.is_stated {
        check_platform(transfer, &config, wanted)?;
    }
    Ok(config)
}

/// An image that no index vouches for must itself be for the platform. One that says nothing may be for any.
fn check_platform(transfer: &Transfer, config: &ImageConfiguration, wanted: &Platform) -> Result<()> {
    let mut own = Platform::default();
    own.set_os(config.os().clone());
    own.set_architecture(config.architecture().clone());
    own.set_variant(config.variant().clone().filter(|variant| !variant.is_empty()));
    let is_silent = own.os().to_string().is_empty() || own.architecture().to_string().is_empty();
    if is_silent || distance(wanted, &own).is_some() {
        return Ok(());
    }
    Err(Error::NoMatchingPlatform {
        reference: transfer.reference.to_string(),
        wanted: format_platform(wanted),
        available: format_platform(&own),
    })
}

fn bounded(descriptor: &Descriptor, origin: Origin<'_>, limit: u64) -> Result<()> {
    if descriptor.size() <= limit {
        return Ok(());
    }
    Err(Error::TooLarge {
        what: origin.what.to_owned(),
        size: descriptor.size(),
        limit,
    })
}

async fn read(transfer: &Transfer, kind: &str, descriptor: &Descriptor) -> Result<Bytes> {
    read_blob(transfer.content.as_ref(), descriptor)
        .await
        .map_err(|error| transfer.store_error(kind, descriptor.digest(), error))
}

/// A small blob of the store, whole. The caller has bounded its size.
pub(crate) async fn read_blob(
    content: &dyn ContentStore,
    descriptor: &Descriptor,
) -> Result<Bytes, longshore_content::Error> {
    let blob = content.open(descriptor.digest()).await?;
    let size = usize::try_from(descriptor.size()).expect("the size was bounded");
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match blob.read_at(filled as u64, &mut bytes[filled..]).await? {
            0 => break,
            n => filled += n,
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}
