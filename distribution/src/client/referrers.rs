//! What refers to a manifest: signatures, SBOMs, attestations (distribution specification, "Listing Referrers").

use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_TYPE, LINK};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use longshore_content::Blob;
use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, Digest, ImageIndex, MediaType};
use serde::Deserialize;
use url::Url;

use super::answer::read_bounded;
use super::builder::RegistryClient;
use super::endpoint::Endpoint;
use super::http::{Call, Payload};
use crate::Result;
use crate::auth::{Action, Scope};
use crate::hosts::Capability;
use crate::manifest::{MAX_INDEX_ENTRIES, MAX_MANIFEST_SIZE, Origin, parse_index};
use crate::reference::checked;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// More pages than these are not asked for.
const MAX_PAGES: usize = 64;

impl RegistryClient {
    /// The manifests of the repository of `reference` whose `subject` is `digest`, of one artifact type or of all. A registry without the API for it is asked for the
    /// tag that stands for it (`sha256-...`). None is an empty list; they are the registry's word until each is fetched.
    ///
    /// # Errors
    /// [`Unauthorized`](crate::ErrorKind::Unauthorized), [`Unavailable`](crate::ErrorKind::Unavailable), and [`Protocol`](crate::ErrorKind::Protocol) for what is no list.
    pub async fn referrers(
        &self,
        reference: &Reference,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        checked(reference)?;
        let registry = self.table.registry(reference.registry()).await?;
        let endpoint = registry.with(Capability::Resolve)?[0];
        let scope = endpoint.scope(reference, Action::Pull);
        let found = match self.by_api(endpoint, reference, digest, artifact_type, &scope).await? {
            Some(found) => found,
            None => {
                let tag = fallback_tag(digest);
                self.tagged_index(endpoint, reference, &tag, &scope)
                    .await?
                    .unwrap_or_default()
            }
        };
        let is_wanted = |found: &Descriptor| {
            artifact_type.is_none_or(|wanted| found.artifact_type().as_ref().is_some_and(|is| is.as_ref() == wanted))
        };
        Ok(found.into_iter().filter(is_wanted).collect())
    }

    /// By the API, page by page; `None` when the registry has none.
    async fn by_api(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        digest: &Digest,
        artifact_type: Option<&str>,
        scope: &Scope,
    ) -> Result<Option<Vec<Descriptor>>> {
        let mut url = endpoint.url(reference, &format!("referrers/{digest}"))?;
        if let Some(wanted) = artifact_type {
            url.query_pairs_mut().append_pair("artifactType", wanted);
        }
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let mut call = Call::new(Method::GET, url.clone());
            call.headers.insert(ACCEPT, HeaderValue::from_static(INDEX));
            let response = self.request(endpoint, &call, scope).await?;
            // One that knows no such path, or says so in its own way.
            if matches!(response.status().as_u16(), 400 | 404 | 405) {
                return Ok(None);
            }
            if !response.status().is_success() {
                let what = format!("the referrers of {digest}");
                return Err(self.failure(endpoint, response, &call, scope, &what).await);
            }
            let is_index = essence(response.headers()).is_some_and(|said| said == INDEX);
            if !is_index {
                return Ok(None);
            }
            let next = next_page(&url, response.headers());
            all.extend(self.read_index(endpoint, response, &call, scope).await?);
            if all.len() > MAX_INDEX_ENTRIES {
                return Err(origin(scope).protocol(format!("there are more than {MAX_INDEX_ENTRIES}")));
            }
            match next {
                Some(next) => url = next,
                None => break,
            }
        }
        Ok(Some(all))
    }

    async fn read_index(
        &self,
        endpoint: &Endpoint,
        response: reqwest::Response,
        call: &Call,
        scope: &Scope,
    ) -> Result<Vec<Descriptor>> {
        let read = read_bounded(&endpoint.http, response, call, &scope.host, MAX_MANIFEST_SIZE, WHAT);
        Ok(parse_index(&read.await?, origin(scope))?.manifests().clone())
    }

    async fn tagged_index(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        tag: &str,
        scope: &Scope,
    ) -> Result<Option<Vec<Descriptor>>> {
        let mut call = Call::new(Method::GET, endpoint.url(reference, &format!("manifests/{tag}"))?);
        call.headers.insert(ACCEPT, HeaderValue::from_static(INDEX));
        let response = self.request(endpoint, &call, scope).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => self.read_index(endpoint, response, &call, scope).await.map(Some),
            _ => {
                let what = format!("tag {tag}");
                Err(self.failure(endpoint, response, &call, scope, &what).await)
            }
        }
    }

    /// After a push to a registry that did not say that it looks at `subject`: notes the manifest under its subject's tag. Two who do so at the same moment may
    /// lose one of the notes, as the specification has it.
    pub(super) async fn note_referrer(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        descriptor: &Descriptor,
        blob: &Arc<dyn Blob>,
        scope: &Scope,
    ) -> Result<()> {
        let Some((subject, entry)) = entry(descriptor, blob).await else {
            return Ok(());
        };
        let tag = fallback_tag(&subject);
        let mut entries = self
            .tagged_index(endpoint, reference, &tag, scope)
            .await?
            .unwrap_or_default();
        if entries.iter().any(|known| known.digest() == entry.digest()) {
            return Ok(());
        }
        entries.push(entry);
        let mut index = ImageIndex::default();
        index.set_media_type(Some(MediaType::ImageIndex));
        index.set_manifests(entries);
        let bytes = serde_json::to_vec(&index).expect("an index is JSON");
        let mut call = Call::new(Method::PUT, endpoint.url(reference, &format!("manifests/{tag}"))?);
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static(INDEX));
        call.payload = Payload::Bytes(bytes.into());
        let response = self.request(endpoint, &call, scope).await?;
        if response.status().is_success() {
            return Ok(());
        }
        let what = format!("tag {tag}");
        Err(self.failure(endpoint, response, &call, scope, &what).await)
    }
}

const WHAT: &str = "a list of referrers";

fn origin(scope: &Scope) -> Origin<'_> {
    Origin {
        registry: &scope.host,
        what: WHAT,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    subject: Option<Descriptor>,
    artifact_type: Option<MediaType>,
    config: Option<Descriptor>,
    annotations: Option<std::collections::HashMap<String, String>>,
}

/// The subject of a manifest, and how the manifest is listed under it.
async fn entry(descriptor: &Descriptor, blob: &Arc<dyn Blob>) -> Option<(Digest, Descriptor)> {
    if descriptor.size() > MAX_MANIFEST_SIZE {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(descriptor.size()).ok()?];
    let mut filled = 0;
    while filled < bytes.len() {
        match blob.read_at(filled as u64, &mut bytes[filled..]).await {
            Ok(count @ 1..) => filled += count,
            _ => return None,
        }
    }
    let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
    let subject = manifest.subject?.digest().clone();
    let media_type = descriptor.media_type().clone();
    let mut entry = Descriptor::new(media_type, descriptor.size(), descriptor.digest().clone());
    entry.set_artifact_type(
        manifest
            .artifact_type
            .or(manifest.config.map(|config| config.media_type().clone())),
    );
    entry.set_annotations(manifest.annotations);
    Some((subject, entry))
}

/// The tag that lists the referrers of a digest.
fn fallback_tag(digest: &Digest) -> String {
    let (algorithm, hex) = (digest.algorithm().to_string(), digest.digest());
    format!("{algorithm:.32}-{hex:.64}")
}

fn essence(headers: &HeaderMap) -> Option<&str> {
    Some(headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim())
}

/// The address of the next page (RFC 8288), if it is at the same host.
fn next_page(url: &Url, headers: &HeaderMap) -> Option<Url> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let (target, params) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = params
        .split(';')
        .any(|param| matches!(param.trim(), "rel=\"next\"" | "rel=next"));
    let next = url.join(target).ok()?;
    (is_next && next.origin() == url.origin() && next != *url).then_some(next)
}

/// Whether a registry said that it lists what was pushed under its subject.
pub(super) fn has_subject_support(headers: &HeaderMap) -> bool {
    headers.contains_key("oci-subject")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_pages() {
        let digest = longshore_content::sha256(b"x");
        assert_eq!(fallback_tag(&digest), digest.to_string().replace(':', "-"));
        let url = Url::parse("https://r.example/v2/a/referrers/x").unwrap();
        let next = |link: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, link.parse().unwrap());
            next_page(&url, &headers).map(|url| url.to_string())
        };
        assert_eq!(
            next("</v2/a?n=1>; rel=\"next\"").as_deref(),
            Some("https://r.example/v2/a?n=1")
        );
        assert_eq!(next("</v2/a?n=1>; rel=\"prev\""), None);
        assert_eq!(next("<https://evil.example/>; rel=\"next\""), None);
        assert_eq!(next("garbage"), None);
    }
}
