use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use longshore_content::sha256;
use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, Digest};

use super::answer::read_bounded;
use super::builder::RegistryClient;
use super::endpoint::Endpoint;
use super::foreign;
use super::http::Call;
use super::parts::{Whole, is_range, range};
use crate::auth::Action;
use crate::digest::digest_of;
use crate::hosts::Capability;
use crate::manifest::{MAX_MANIFEST_SIZE, Origin, classify};
use crate::reference::checked;
use crate::{Elsewhere, Error, Fetched, Fetcher, Resolved, Resolver, Result, media};

/// Where a registry says what digest it thinks that it sends.
pub(super) const DOCKER_CONTENT_DIGEST: &str = "docker-content-digest";

#[async_trait]
impl Resolver for RegistryClient {
    /// Fetches the manifest itself: its digest is computed from its bytes, whatever the registry says that it is. One
    /// request, where asking with `HEAD` first would be two.
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        checked(reference)?;
        let registry = self.table.registry(reference.registry()).await?;
        // A digest needs no trust in who answers.
        let capability = match reference.digest() {
            Some(_) => Capability::Pull,
            None => Capability::Resolve,
        };
        let mut failures = Vec::new();
        for endpoint in registry.with(capability)? {
            match self.resolve_at(endpoint, reference).await {
                Ok(resolved) => return Ok(resolved),
                Err(error) => failures.push(noted(endpoint, error)),
            }
        }
        Err(registry.failed(failures))
    }

    async fn referrers(
        &self,
        reference: &Reference,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        Self::referrers(self, reference, digest, artifact_type).await
    }
}

impl RegistryClient {
    async fn resolve_at(&self, endpoint: &Endpoint, reference: &Reference) -> Result<Resolved> {
        let wanted = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest,
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        };
        let mut call = Call::new(Method::GET, endpoint.url(reference, &format!("manifests/{wanted}"))?);
        call.headers.insert(ACCEPT, HeaderValue::from_static(media::ACCEPT));
        let scope = endpoint.scope(reference, Action::Pull);
        let response = self.request(endpoint, &call, &scope).await?;
        if !response.status().is_success() {
            let what = reference.to_string();
            return Err(self.failure(endpoint, response, &call, &scope, &what).await);
        }
        let headers = response.headers().clone();
        let what = format!("the manifest of {reference}");
        let bytes = read_bounded(&endpoint.http, response, &call, &scope.host, MAX_MANIFEST_SIZE, &what).await?;
        let origin = Origin {
            registry: &scope.host,
            what: &what,
        };
        let digest = prove(&bytes, reference, &headers, origin)?;
        let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = classify(&bytes, said, origin)?;
        Ok(Resolved {
            descriptor: Descriptor::new(media_type, bytes.len() as u64, digest),
            manifest: Some(bytes),
        })
    }

    async fn fetch_at(
        &self,
        endpoint: &Arc<Endpoint>,
        reference: &Reference,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<Fetched> {
        let mut call = fetch_call(endpoint, reference, descriptor)?;
        let scope = endpoint.scope(reference, Action::Pull);
        let whole = Whole {
            client: self.clone(),
            endpoint: endpoint.clone(),
            call: call.clone(),
            scope: scope.clone(),
            size: descriptor.size(),
            parts: self.parts,
        };
        let left = |offset| descriptor.size().saturating_sub(offset);
        if let Some(end) = self.parts.first_end(offset, descriptor.size()) {
            call.headers.insert(RANGE, range(offset, end));
            let response = self.request(endpoint, &call, &scope).await?;
            if response.status() == StatusCode::PARTIAL_CONTENT && is_range(response.headers(), offset, end) {
                let first = endpoint.http.body(response, &call, &scope.host);
                let stream = watched(whole.stream(first, offset, end), endpoint.clone(), left(offset));
                return Ok(Fetched { offset, stream });
            }
            if response.status() == StatusCode::OK {
                let stream = endpoint.http.body(response, &call, &scope.host);
                let stream = watched(stream, endpoint.clone(), left(0));
                return Ok(Fetched { offset: 0, stream });
            }
            // It may know no ranges that end: then it is asked as everyone asks.
            call.headers.remove(RANGE);
        }
        if offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={offset}-")).expect("digits fit in a header");
            call.headers.insert(RANGE, range);
        }
        let response = self.request(endpoint, &call, &scope).await?;
        let offset = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => range_start(response.headers(), offset).ok_or_else(|| Error::Protocol {
                registry: scope.host.clone(),
                what: format!("a part of {}", descriptor.digest()),
                reason: format!("it is not the part from byte {offset} on that was asked for"),
            })?,
            _ => {
                let what = format!("{} of {}", descriptor.digest(), reference.repository());
                return Err(self.failure(endpoint, response, &call, &scope, &what).await);
            }
        };
        let stream = endpoint.http.body(response, &call, &scope.host);
        let stream = watched(stream, endpoint.clone(), left(offset));
        Ok(Fetched { offset, stream })
    }
}

/// A host's failure, for the list of them.
fn noted(endpoint: &Endpoint, error: Error) -> (String, Error) {
    tracing::debug!(host = endpoint.name, %error, "host failed");
    (endpoint.name.clone(), error)
}

/// The same bytes; that they break off before `left` of them came is remembered of the host.
fn watched(
    stream: BoxStream<'static, Result<Bytes>>,
    endpoint: Arc<Endpoint>,
    left: u64,
) -> BoxStream<'static, Result<Bytes>> {
    let state = (stream, left);
    stream::unfold(state, move |(mut stream, mut left)| {
        let endpoint = endpoint.clone();
        async move {
            let chunk = stream.next().await;
            match &chunk {
                Some(Ok(bytes)) => left = left.saturating_sub(bytes.len() as u64),
                Some(Err(_)) => endpoint.breaks_off(),
                None if left > 0 => endpoint.breaks_off(),
                None => {}
            }
            chunk.map(|chunk| (chunk, (stream, left)))
        }
    })
    .boxed()
}

/// The digest of a manifest, proved against the reference and against what the registry claims.
fn prove(bytes: &[u8], reference: &Reference, headers: &HeaderMap, origin: Origin<'_>) -> Result<Digest> {
    if let Some(claimed) = headers.get(DOCKER_CONTENT_DIGEST) {
        let claimed: Digest = claimed
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| origin.protocol("its Docker-Content-Digest is not a digest"))?;
        // One in an algorithm that we do not know proves nothing either way.
        if digest_of(claimed.algorithm(), bytes).is_some() {
            origin.prove(bytes, &claimed)?;
        }
    }
    let Some(wanted) = reference.digest() else {
        return Ok(sha256(bytes));
    };
    let wanted: Digest = wanted.parse().expect("the reference was checked");
    origin.prove(bytes, &wanted)?;
    Ok(wanted)
}

#[async_trait]
impl Fetcher for RegistryClient {
    async fn fetch(&self, reference: &Reference, descriptor: &Descriptor, offset: u64) -> Result<Fetched> {
        checked(reference)?;
        let registry = self.table.registry(reference.registry()).await?;
        let mut failures = Vec::new();
        let sources = registry.sources(descriptor.digest())?;
        for endpoint in &sources {
            match self.fetch_at(endpoint, reference, descriptor, offset).await {
                Ok(fetched) => {
                    registry.serves(endpoint, descriptor.digest());
                    return Ok(fetched);
                }
                Err(error) => failures.push(noted(endpoint, error)),
            }
        }
        if let Some(endpoint) = sources.last() {
            for url in foreign::places(descriptor) {
                match foreign::fetch(endpoint, url, descriptor, offset).await {
                    Ok(fetched) => return Ok(fetched),
                    Err(error) => failures.push(noted(endpoint, error)),
                }
            }
        }
        Err(registry.failed(failures))
    }

    async fn reject(&self, reference: &Reference, descriptor: &Descriptor) -> Elsewhere {
        match self.table.registry(reference.registry()).await {
            Ok(registry) if registry.reject(descriptor.digest()) => Elsewhere::Another,
            _ => Elsewhere::Nowhere,
        }
    }
}

fn fetch_call(endpoint: &Endpoint, reference: &Reference, descriptor: &Descriptor) -> Result<Call> {
    let is_manifest = media::is_under_manifests(descriptor.media_type());
    let kind = if is_manifest { "manifests" } else { "blobs" };
    let url = endpoint.url(reference, &format!("{kind}/{}", descriptor.digest()))?;
    let mut call = Call::new(Method::GET, url);
    // A proxy that compresses on the way would change what is hashed.
    call.headers
        .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if is_manifest {
        let accept = HeaderValue::try_from(descriptor.media_type().as_ref());
        call.headers
            .insert(ACCEPT, accept.unwrap_or(HeaderValue::from_static(media::ACCEPT)));
    }
    Ok(call)
}

/// Where a partial answer begins; `None` unless that is what was asked for.
pub(super) fn range_start(headers: &HeaderMap, wanted: u64) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let start = range
        .trim()
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .trim()
        .parse()
        .ok()?;
    (wanted == start).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let start = |text: &str, wanted| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, text.parse().unwrap());
            range_start(&headers, wanted)
        };
        assert_eq!(start("bytes 5-9/10", 5), Some(5));
        assert_eq!(start("bytes 5-9/*", 5), Some(5));
        assert_eq!(start("bytes 4-9/10", 5), None);
        assert_eq!(start("items 5-9/10", 5), None);
        assert_eq!(start("bytes */10", 5), None);
        assert_eq!(range_start(&HeaderMap::new(), 5), None);
    }
}
