use std::sync::Arc;

use async_trait::async_trait;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use longshore_content::Blob;
use oci_spec::distribution::Reference;
use oci_spec::image::Descriptor;

use super::builder::RegistryClient;
use super::endpoint::Endpoint;
use super::http::{Call, Payload, location};
use super::read::DOCKER_CONTENT_DIGEST;
use super::referrers::has_subject_support;
use super::upload::Upload;
use crate::auth::{Action, Scope};
use crate::hosts::Capability;
use crate::reference::checked;
use crate::{Error, Mounted, Pushed, Pusher, Result, Root, media};

#[async_trait]
impl Pusher for RegistryClient {
    /// Uploads a blob as [`Uploads`](super::Uploads) says, unless the registry has it.
    async fn push(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        blob: Arc<dyn Blob>,
        root: Root,
    ) -> Result<Pushed> {
        checked(reference)?;
        let registry = self.table.registry(reference.registry()).await?;
        let endpoint = registry.with(Capability::Push)?[0];
        let scope = endpoint.scope(reference, Action::Push);
        if media::is_under_manifests(descriptor.media_type()) {
            self.push_manifest(endpoint, reference, descriptor, blob, root, &scope)
                .await
        } else {
            self.push_blob(endpoint, reference, descriptor, blob, &scope).await
        }
    }

    async fn mount(&self, reference: &Reference, descriptor: &Descriptor, from: &Reference) -> Result<Mounted> {
        checked(reference)?;
        checked(from)?;
        if reference.registry() != from.registry() || media::is_under_manifests(descriptor.media_type()) {
            return Ok(Mounted::No);
        }
        let registry = self.table.registry(reference.registry()).await?;
        let endpoint = registry.with(Capability::Push)?[0];
        let mut scope = endpoint.scope(reference, Action::Push);
        scope.mount_from = Some(from.repository().to_owned());
        let mut url = endpoint.url(reference, "blobs/uploads/")?;
        url.query_pairs_mut()
            .append_pair("mount", descriptor.digest().as_ref())
            .append_pair("from", from.repository());
        let call = Call::new(Method::POST, url);
        let response = self.request(endpoint, &call, &scope).await?;
        if response.status() == StatusCode::ACCEPTED {
            // It opened an upload instead, which nobody is going to go on with.
            if let Ok(url) = location(&call, &scope.host, response.headers())
                && url.origin() == call.url.origin()
            {
                let cancelled = self.request(endpoint, &Call::new(Method::DELETE, url), &scope).await;
                tracing::debug!(digest = %descriptor.digest(), ok = cancelled.is_ok(), "not mounted");
            }
        }
        Ok(match response.status() {
            StatusCode::CREATED => Mounted::Yes,
            _ => Mounted::No,
        })
    }
}

impl RegistryClient {
    async fn push_manifest(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        descriptor: &Descriptor,
        blob: Arc<dyn Blob>,
        root: Root,
        scope: &Scope,
    ) -> Result<Pushed> {
        let name = match (root, reference.tag()) {
            (Root::Yes, Some(tag)) => tag,
            _ => descriptor.digest().as_ref(),
        };
        let url = endpoint.url(reference, &format!("manifests/{name}"))?;
        let media_type = HeaderValue::try_from(descriptor.media_type().as_ref()).expect("it is one of the known types");
        let mut call = Call::new(Method::HEAD, url);
        call.headers.insert(ACCEPT, media_type.clone());
        let head = self.request(endpoint, &call, scope).await?;
        let there = head.headers().get(DOCKER_CONTENT_DIGEST);
        if head.status().is_success() && there.is_some_and(|there| there == descriptor.digest().as_ref()) {
            return Ok(Pushed::Present);
        }
        call.method = Method::PUT;
        call.headers.clear();
        call.headers.insert(CONTENT_TYPE, media_type);
        call.payload = Payload::Blob {
            blob: blob.clone(),
            range: 0..descriptor.size(),
        };
        let response = self.request(endpoint, &call, scope).await?;
        if !response.status().is_success() {
            let what = format!("manifest {}", descriptor.digest());
            return Err(self.failure(endpoint, response, &call, scope, &what).await);
        }
        match response.headers().get(DOCKER_CONTENT_DIGEST) {
            Some(stored) if stored != descriptor.digest().as_ref() => Err(Error::DigestMismatch {
                what: "the manifest as it was stored".into(),
                registry: scope.host.clone(),
                expected: descriptor.digest().to_string(),
                actual: String::from_utf8_lossy(stored.as_bytes()).into_owned(),
            }),
            _ if has_subject_support(response.headers()) => Ok(Pushed::Sent),
            _ => {
                self.note_referrer(endpoint, reference, descriptor, &blob, scope)
                    .await?;
                Ok(Pushed::Sent)
            }
        }
    }

    async fn push_blob(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        descriptor: &Descriptor,
        blob: Arc<dyn Blob>,
        scope: &Scope,
    ) -> Result<Pushed> {
        let upload = Upload {
            client: self,
            endpoint,
            reference,
            descriptor,
            blob,
            scope,
        };
        if upload.is_there().await? {
            return Ok(Pushed::Present);
        }
        upload.run().await?;
        Ok(Pushed::Sent)
    }
}
