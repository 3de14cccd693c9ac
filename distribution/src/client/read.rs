use async_trait::async_trait;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use longshore_content::sha256;
use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, Digest};

use super::builder::RegistryClient;
use super::host::{api_url, checked};
use super::http::{Call, read_bounded};
use crate::auth::{Action, Scope};
use crate::digest::digest_of;
use crate::manifest::{MAX_MANIFEST_SIZE, Origin, classify};
use crate::{Error, Fetched, Fetcher, Resolved, Resolver, Result, media};

/// Where a registry says what digest it thinks that it sends.
pub(super) const DOCKER_CONTENT_DIGEST: &str = "docker-content-digest";

pub(super) fn scope(reference: &Reference, action: Action) -> Scope {
    Scope {
        host: reference.registry().to_owned(),
        repository: reference.repository().to_owned(),
        action,
    }
}

#[async_trait]
impl Resolver for RegistryClient {
    /// Fetches the manifest itself: its digest is computed from its bytes, whatever the registry says that it is. One
    /// request, where asking with `HEAD` first would be two.
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        checked(reference)?;
        let wanted = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest,
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        };
        let url = api_url(&self.http.plain, reference, &format!("manifests/{wanted}"))?;
        let mut call = Call::new(Method::GET, url);
        call.headers.insert(ACCEPT, HeaderValue::from_static(media::ACCEPT));
        let scope = scope(reference, Action::Pull);
        let response = self.request(&call, &scope).await?;
        if !response.status().is_success() {
            return Err(self.failure(response, &call, &scope, &reference.to_string()).await);
        }
        let headers = response.headers().clone();
        let what = format!("the manifest of {reference}");
        let bytes = read_bounded(&self.http, response, &call, &scope.host, MAX_MANIFEST_SIZE, &what).await?;
        let origin = Origin {
            registry: reference.registry(),
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
        let call = fetch_call(self, reference, descriptor, offset)?;
        let scope = scope(reference, Action::Pull);
        let response = self.request(&call, &scope).await?;
        let offset = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => range_start(response.headers(), offset).ok_or_else(|| Error::Protocol {
                registry: scope.host.clone(),
                what: format!("a part of {}", descriptor.digest()),
                reason: format!("it is not the part from byte {offset} on that was asked for"),
            })?,
            _ => {
                let what = format!("{} of {}", descriptor.digest(), reference.repository());
                return Err(self.failure(response, &call, &scope, &what).await);
            }
        };
        let stream = self.http.body(response, &call, &scope.host);
        Ok(Fetched { offset, stream })
    }
}

fn fetch_call(client: &RegistryClient, reference: &Reference, descriptor: &Descriptor, offset: u64) -> Result<Call> {
    let is_manifest = media::is_under_manifests(descriptor.media_type());
    let kind = if is_manifest { "manifests" } else { "blobs" };
    let url = api_url(
        &client.http.plain,
        reference,
        &format!("{kind}/{}", descriptor.digest()),
    )?;
    let mut call = Call::new(Method::GET, url);
    // A proxy that compresses on the way would change what is hashed.
    call.headers
        .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if is_manifest {
        let accept = HeaderValue::try_from(descriptor.media_type().as_ref());
        call.headers
            .insert(ACCEPT, accept.unwrap_or(HeaderValue::from_static(media::ACCEPT)));
    }
    if offset > 0 {
        let range = HeaderValue::try_from(format!("bytes={offset}-")).expect("digits fit in a header");
        call.headers.insert(RANGE, range);
    }
    Ok(call)
}

/// Where a partial answer begins; `None` unless that is what was asked for.
fn range_start(headers: &HeaderMap, wanted: u64) -> Option<u64> {
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
