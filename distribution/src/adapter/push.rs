//! Writing through the client.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use http::HeaderValue;
use longshore_content::Blob;
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_spec::distribution::Reference;
use oci_spec::image::Descriptor;

use super::error::Asking;
use super::{OciClientAdapter, by_digest};
use crate::manifest::MAX_MANIFEST_SIZE;
use crate::reference::checked;
use crate::{Error, ErrorKind, Mounted, Pushed, Pusher, Result, Root, media};

/// What is read of a blob at once: the client sends a request for each piece.
const PIECE: usize = 4 << 20;

#[async_trait]
impl Pusher for OciClientAdapter {
    async fn push(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        blob: Arc<dyn Blob>,
        root: Root,
    ) -> Result<Pushed> {
        checked(reference)?;
        self.log_in(reference).await?;
        let digest = descriptor.digest().as_ref();
        let asking = Asking::new("push", reference, digest);
        if media::is_under_manifests(descriptor.media_type()) {
            return self.push_manifest(reference, descriptor, blob, root, &asking).await;
        }
        // Whoever may only push is told so by the upload.
        match self
            .client
            .blob_exists(reference, digest)
            .await
            .map_err(|error| asking.failed(error))
        {
            Ok(true) => return Ok(Pushed::Present),
            Ok(false) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unauthorized) => {}
            Err(error) => return Err(error),
        }
        let size = descriptor.size();
        let sent = self
            .client
            .push_blob_stream(reference, pieces(blob), digest, Some(size));
        sent.await.map_err(|error| asking.failed(error))?;
        Ok(Pushed::Sent)
    }

    async fn mount(&self, reference: &Reference, descriptor: &Descriptor, from: &Reference) -> Result<Mounted> {
        checked(reference)?;
        checked(from)?;
        if reference.registry() != from.registry() || media::is_under_manifests(descriptor.media_type()) {
            return Ok(Mounted::No);
        }
        self.log_in(reference).await?;
        let digest = descriptor.digest().as_ref();
        match self.client.mount_blob(reference, from, digest).await {
            Ok(()) => Ok(Mounted::Yes),
            // It opened an upload instead, which lapses.
            Err(OciDistributionError::SpecViolationError(_)) => Ok(Mounted::No),
            Err(error) => Err(Asking::new("push", reference, digest).failed(error)),
        }
    }
}

impl OciClientAdapter {
    async fn push_manifest(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        blob: Arc<dyn Blob>,
        root: Root,
        asking: &Asking,
    ) -> Result<Pushed> {
        let digest = descriptor.digest().as_ref();
        let name = match (root, reference.tag()) {
            (Root::Yes, Some(tag)) => tag,
            _ => digest,
        };
        let there = by_digest(reference, name);
        if self.stored(&there, asking).await?.as_deref() == Some(digest) {
            return Ok(Pushed::Present);
        }
        let bytes = whole(&blob, descriptor).await?;
        let media_type = HeaderValue::try_from(descriptor.media_type().as_ref()).expect("it is one of the known types");
        let put = self.client.push_manifest_raw(&there, bytes, media_type).await;
        put.map_err(|error| asking.failed(error))?;
        // The client does not look at what digest the registry acknowledged.
        match self.stored(&there, asking).await? {
            Some(stored) if stored == digest => Ok(Pushed::Sent),
            stored => Err(Error::DigestMismatch {
                what: "the manifest as it was stored".into(),
                registry: reference.registry().to_owned(),
                expected: digest.to_owned(),
                actual: stored.unwrap_or_else(|| "none: it is not there".into()),
            }),
        }
    }

    /// The digest that a registry says a manifest has; `None` when there is none.
    async fn stored(&self, reference: &Reference, asking: &Asking) -> Result<Option<String>> {
        let digest = self.client.fetch_manifest_digest(reference, &RegistryAuth::Anonymous);
        match digest.await.map_err(|error| asking.failed(error)) {
            Ok(digest) => Ok(Some(digest)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn reading(what: &Descriptor) -> impl Fn(longshore_content::Error) -> Error {
    move |source| Error::Content {
        what: format!("{} to push it", what.digest()),
        source,
    }
}

/// All of a manifest.
async fn whole(blob: &Arc<dyn Blob>, descriptor: &Descriptor) -> Result<Bytes> {
    let size = descriptor.size();
    if size > MAX_MANIFEST_SIZE {
        return Err(Error::TooLarge {
            what: format!("the manifest {}", descriptor.digest()),
            size,
            limit: MAX_MANIFEST_SIZE,
        });
    }
    piece(blob, 0, size as usize).await.map_err(reading(descriptor))
}

/// So many bytes from an offset on, fewer at the end.
async fn piece(blob: &Arc<dyn Blob>, offset: u64, length: usize) -> longshore_content::Result<Bytes> {
    let mut buffer = BytesMut::zeroed(length);
    let mut filled = 0;
    while filled < length {
        match blob.read_at(offset + filled as u64, &mut buffer[filled..]).await? {
            0 => break,
            count => filled += count,
        }
    }
    buffer.truncate(filled);
    Ok(buffer.freeze())
}

/// A blob in the client's terms.
fn pieces(blob: Arc<dyn Blob>) -> impl Stream<Item = oci_client::errors::Result<Bytes>> + Send + 'static {
    stream::try_unfold((blob, 0), |(blob, offset)| async move {
        let bytes = piece(&blob, offset, PIECE).await.map_err(std::io::Error::other)?;
        let next = offset + bytes.len() as u64;
        Ok((!bytes.is_empty()).then_some((bytes, (blob, next))))
    })
}
