//! Reading through the client.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use oci_client::client::BlobResponse;
use oci_client::secrets::RegistryAuth;
use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, Digest};

use super::error::Asking;
use super::{OciClientAdapter, by_digest};
use crate::manifest::{MAX_INDEX_ENTRIES, MAX_MANIFEST_SIZE, Origin, classify};
use crate::reference::checked;
use crate::{Error, Fetched, Fetcher, Resolved, Resolver, Result, media};

#[async_trait]
impl Resolver for OciClientAdapter {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        checked(reference)?;
        let what = format!("the manifest of {reference}");
        let origin = Origin {
            registry: reference.registry(),
            what: &what,
        };
        let asked = match reference.digest() {
            Some(digest) => by_digest(reference, digest),
            None => reference.clone(),
        };
        let bytes = self.manifest(&asked, &reference.to_string()).await?;
        let digest = match reference.digest() {
            Some(wanted) => {
                let wanted: Digest = wanted.parse().expect("the reference was checked");
                origin.prove(&bytes, &wanted)?;
                wanted
            }
            None => longshore_content::sha256(&bytes),
        };
        // What it was announced as is not handed on by the client.
        let media_type = classify(&bytes, None, origin)?;
        Ok(Resolved {
            descriptor: Descriptor::new(media_type, bytes.len() as u64, digest),
            manifest: Some(bytes),
        })
    }

    /// What refers to `digest`, as far as the registry says it on its first page.
    async fn referrers(
        &self,
        reference: &Reference,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        checked(reference)?;
        self.log_in(reference).await?;
        let what = format!("what refers to {digest}");
        let origin = Origin {
            registry: reference.registry(),
            what: &what,
        };
        let asking = Asking::new("pull", reference, &what);
        let subject = reference.clone_with_digest(digest.to_string());
        let index = self.client.pull_referrers(&subject, artifact_type).await;
        let entries = index.map_err(|error| asking.failed(error))?.manifests;
        if entries.len() > MAX_INDEX_ENTRIES {
            let count = entries.len();
            return Err(origin.protocol(format!(
                "it has {count} entries, at most {MAX_INDEX_ENTRIES} are accepted"
            )));
        }
        let ours = |entry| serde_json::from_value(serde_json::to_value(entry)?);
        let found: Vec<Descriptor> = entries
            .into_iter()
            .map(ours)
            .collect::<serde_json::Result<_>>()
            .map_err(|error| origin.protocol(format!("it can't be read ({error})")))?;
        // A registry may leave the choice to who asks.
        let wanted = |one: &Descriptor| {
            artifact_type.is_none_or(|wanted| one.artifact_type().as_ref().is_some_and(|own| own.as_ref() == wanted))
        };
        Ok(found.into_iter().filter(wanted).collect())
    }
}

#[async_trait]
impl Fetcher for OciClientAdapter {
    async fn fetch(&self, reference: &Reference, descriptor: &Descriptor, offset: u64) -> Result<Fetched> {
        checked(reference)?;
        let digest = descriptor.digest().as_ref();
        let what = format!("{digest} of {}", reference.repository());
        if media::is_under_manifests(descriptor.media_type()) {
            let bytes = self.manifest(&by_digest(reference, digest), &what).await?;
            return Ok(Fetched {
                offset: 0,
                stream: stream::iter([Ok(bytes)]).boxed(),
            });
        }
        self.log_in(reference).await?;
        let asking = Asking::new("pull", reference, &what);
        // Of nothing there is no range. Of anything else a range is asked for, be it all: what is whole the client hashes, and the store hashes it anyway.
        let answer = match descriptor.size() {
            0 => self
                .client
                .pull_blob_stream(reference, digest)
                .await
                .map(BlobResponse::Full),
            _ => {
                self.client
                    .pull_blob_stream_partial(reference, digest, offset, None)
                    .await
            }
        };
        let (offset, blob) = match answer.map_err(|error| asking.failed(error))? {
            BlobResponse::Full(blob) => (0, blob),
            BlobResponse::Partial(blob) => (offset, blob),
        };
        let stream = blob.stream.map_err(move |error| asking.failed(error.into())).boxed();
        Ok(Fetched { offset, stream })
    }
}

impl OciClientAdapter {
    /// The bytes of a manifest; `what` it is for the error.
    pub(super) async fn manifest(&self, reference: &Reference, what: &str) -> Result<Bytes> {
        self.log_in(reference).await?;
        let accept: Vec<_> = media::ACCEPT.split(", ").collect();
        // It was told who we are, and asks nobody for the one that it is given here.
        let pulled = self
            .client
            .pull_manifest_raw(reference, &RegistryAuth::Anonymous, &accept);
        let asking = Asking::new("pull", reference, what);
        let (bytes, _) = pulled.await.map_err(|error| asking.failed(error))?;
        if bytes.len() as u64 > MAX_MANIFEST_SIZE {
            return Err(Error::TooLarge {
                what: what.to_owned(),
                size: bytes.len() as u64,
                limit: MAX_MANIFEST_SIZE,
            });
        }
        Ok(bytes)
    }
}
