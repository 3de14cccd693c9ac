use std::sync::Arc;

use async_trait::async_trait;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use longshore_content::{Blob, ContentStore};
use oci_spec::distribution::Reference;
use oci_spec::image::Descriptor;
use url::Url;

use super::builder::RegistryClient;
use super::endpoint::Endpoint;
use super::host::checked;
use super::http::{Call, Payload, location};
use super::read::DOCKER_CONTENT_DIGEST;
use crate::auth::{Action, Scope};
use crate::hosts::Capability;
use crate::{Error, Pusher, Result, Root, media};

/// How many times an upload that broke off is begun anew.
const UPLOAD_ATTEMPTS: u32 = 3;

#[async_trait]
impl Pusher for RegistryClient {
    /// Uploads a blob in one piece (`POST`, then `PUT`), which every registry knows.
    async fn push(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        content: &dyn ContentStore,
        root: Root,
    ) -> Result<()> {
        checked(reference)?;
        let registry = self.table.registry(reference.registry()).await?;
        let endpoint = registry.with(Capability::Push)?[0];
        let scope = endpoint.scope(reference, Action::Push);
        let blob = content
            .open(descriptor.digest())
            .await
            .map_err(|source| Error::Content {
                what: format!("{} to push it to {reference}", descriptor.digest()),
                source,
            })?;
        if media::is_under_manifests(descriptor.media_type()) {
            self.push_manifest(endpoint, reference, descriptor, blob, root, &scope)
                .await
        } else {
            self.push_blob(endpoint, reference, descriptor, blob, &scope).await
        }
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
    ) -> Result<()> {
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
            return Ok(());
        }
        call.method = Method::PUT;
        call.headers.clear();
        call.headers.insert(CONTENT_TYPE, media_type);
        call.payload = Payload::Blob {
            blob,
            size: descriptor.size(),
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
            _ => Ok(()),
        }
    }

    async fn push_blob(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        descriptor: &Descriptor,
        blob: Arc<dyn Blob>,
        scope: &Scope,
    ) -> Result<()> {
        let url = endpoint.url(reference, &format!("blobs/{}", descriptor.digest()))?;
        let head = self.request(endpoint, &Call::new(Method::HEAD, url), scope).await?;
        if head.status().is_success() {
            return Ok(());
        }
        let mut attempt = 1;
        loop {
            match self.upload(endpoint, reference, descriptor, blob.clone(), scope).await {
                Err(error) if attempt < UPLOAD_ATTEMPTS && is_broken_off(&error) => attempt += 1,
                other => return other,
            }
        }
    }

    /// One upload from its beginning: an upload that failed half-way is of no use to go on with.
    async fn upload(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        descriptor: &Descriptor,
        blob: Arc<dyn Blob>,
        scope: &Scope,
    ) -> Result<()> {
        let begin = Call::new(Method::POST, endpoint.url(reference, "blobs/uploads/")?);
        let begun = self.request(endpoint, &begin, scope).await?;
        let what = format!("blob {}", descriptor.digest());
        if begun.status() != StatusCode::ACCEPTED {
            return Err(self.failure(endpoint, begun, &begin, scope, &what).await);
        }
        let mut target: Url = location(&begin, &scope.host, begun.headers())?;
        endpoint.http.may_follow(&begin, &target, &scope.host)?;
        target
            .query_pairs_mut()
            .append_pair("digest", descriptor.digest().as_ref());
        let mut call = Call::new(Method::PUT, target);
        call.headers
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        call.payload = Payload::Blob {
            blob,
            size: descriptor.size(),
        };
        let response = if call.url.origin() == begin.url.origin() {
            self.request(endpoint, &call, scope).await?
        } else {
            endpoint.http.send(&call, &scope.host, None).await?
        };
        match response.status() {
            status if status.is_success() => Ok(()),
            _ => Err(self.failure(endpoint, response, &call, scope, &what).await),
        }
    }
}

fn is_broken_off(error: &Error) -> bool {
    // 404: the upload is not known any more.
    matches!(
        error,
        Error::Transport { .. }
            | Error::Status {
                status: 404 | 500..=599,
                ..
            }
    )
}
