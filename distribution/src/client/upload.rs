//! Uploading one blob: in one piece or in chunks, going on after a cut where the registry says that it is.

use std::sync::Arc;

use http::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use longshore_content::Blob;
use oci_spec::distribution::Reference;
use oci_spec::image::Descriptor;
use reqwest::Response;
use url::Url;

use super::builder::RegistryClient;
use super::endpoint::Endpoint;
use super::http::{Call, Payload, Tries, location};
use super::retry::{is_worth_retrying, retry_after};
use crate::auth::Scope;
use crate::{Error, Result};

/// How often an upload is resumed or begun anew at all.
const MAX_CUTS: u32 = 100;
/// The registry's wish for larger chunks (distribution specification, "Pushing a blob in chunks"). More than this is not heeded.
const MAX_CHUNK: u64 = 1 << 30;
const MIN_CHUNK_HEADER: &str = "oci-chunk-min-length";

/// How a blob is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Uploads {
    /// In one request, which every registry knows; what is left after a cut in a second one.
    #[default]
    Whole,
    /// In requests of so many bytes: for proxies that limit the size of one. A registry that wants larger chunks gets them.
    Chunks(u64),
}

/// One blob on its way to one repository.
pub(super) struct Upload<'a> {
    pub(super) client: &'a RegistryClient,
    pub(super) endpoint: &'a Endpoint,
    pub(super) reference: &'a Reference,
    pub(super) descriptor: &'a Descriptor,
    pub(super) blob: Arc<dyn Blob>,
    pub(super) scope: &'a Scope,
}

/// Where an upload stands at the registry.
struct Session {
    /// Who gave us the address.
    from: Call,
    url: Url,
    offset: u64,
    chunk: u64,
}

/// What became of one request.
enum Step {
    Done,
    Further,
    /// The connection was cut, or the registry asks to come back.
    Broken(Error, Option<std::time::Duration>),
}

impl Upload<'_> {
    /// Sends the blob, as often cut as it may be.
    pub(super) async fn run(&self) -> Result<()> {
        let mut session = self.begin().await?;
        let (mut cuts, mut barren) = (0, 0);
        loop {
            let before = session.offset;
            let (error, wait) = match self.step(&mut session).await? {
                Step::Done => return Ok(()),
                Step::Further => {
                    barren = 0;
                    continue;
                }
                Step::Broken(error, wait) => (error, wait),
            };
            match self.look(&mut session).await? {
                true if session.offset > before => barren = 0,
                true => barren += 1,
                // The answer may have been lost, not the blob.
                false if self.is_there().await? => return Ok(()),
                false => {
                    barren += 1;
                    session = self.begin().await?;
                }
            }
            cuts += 1;
            let wait = self.endpoint.http.retry.wait(barren.max(1), wait);
            let Some(wait) = wait.filter(|_| cuts < MAX_CUTS) else {
                return Err(error);
            };
            let digest = self.descriptor.digest();
            tracing::debug!(%digest, offset = session.offset, cuts, %error, "upload was cut, resuming");
            if barren > 0 {
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// Whether the registry has the blob.
    pub(super) async fn is_there(&self) -> Result<bool> {
        let path = format!("blobs/{}", self.descriptor.digest());
        let call = Call::new(Method::HEAD, self.endpoint.url(self.reference, &path)?);
        let head = self.client.request(self.endpoint, &call, self.scope).await?;
        Ok(head.status().is_success())
    }

    /// Opens an upload.
    async fn begin(&self) -> Result<Session> {
        let call = Call::new(Method::POST, self.endpoint.url(self.reference, "blobs/uploads/")?);
        let begun = self.client.request(self.endpoint, &call, self.scope).await?;
        if begun.status() != StatusCode::ACCEPTED {
            return Err(self.failure(begun, &call).await);
        }
        let url = self.follow(&call, begun.headers())?;
        let number = |text: &HeaderValue| text.to_str().ok()?.parse::<u64>().ok();
        let smallest = begun.headers().get(MIN_CHUNK_HEADER).and_then(number);
        let chunk = match self.client.uploads {
            Uploads::Whole => u64::MAX,
            Uploads::Chunks(size) => size.max(1).max(smallest.unwrap_or(0).min(MAX_CHUNK)),
        };
        Ok(Session {
            from: call,
            url,
            offset: 0,
            chunk,
        })
    }

    fn follow(&self, call: &Call, headers: &HeaderMap) -> Result<Url> {
        let url = location(call, &self.scope.host, headers)?;
        self.endpoint.http.may_follow(call, &url, &self.scope.host)?;
        Ok(url)
    }

    /// One request: a chunk, or the last one, which makes it a blob.
    async fn step(&self, session: &mut Session) -> Result<Step> {
        let size = self.descriptor.size();
        let end = size.min(session.offset.saturating_add(session.chunk));
        // Whole, it goes with the closing request; in pieces, the closing request is empty, which all registries know.
        let is_whole = session.offset == 0 && end == size;
        let closes = is_whole || session.offset == size;
        let mut url = session.url.clone();
        if closes {
            url.query_pairs_mut()
                .append_pair("digest", self.descriptor.digest().as_ref());
        }
        let mut call = Call::new(if closes { Method::PUT } else { Method::PATCH }, url);
        call.tries = Tries::Once;
        call.headers
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if end > session.offset {
            call.payload = Payload::Blob {
                blob: self.blob.clone(),
                range: session.offset..end,
            };
            if !is_whole {
                call.headers.insert(CONTENT_RANGE, content_range(session.offset, end));
            }
        }
        let response = match self.send(&call, session).await {
            Ok(response) => response,
            Err(error @ Error::Transport { .. }) => return Ok(Step::Broken(error, None)),
            Err(error) => return Err(error),
        };
        match response.status() {
            status if status.is_success() && closes => Ok(Step::Done),
            status if status.is_success() => {
                session.offset = received(response.headers()).unwrap_or(end).min(end);
                session.url = self.follow(&call, response.headers())?;
                session.from = call;
                Ok(Step::Further)
            }
            // 404: it is not known any more. 416: it is not where we thought that it is.
            status if is_worth_retrying(status) || matches!(status.as_u16(), 404 | 416) => {
                let wait = retry_after(response.headers());
                Ok(Step::Broken(self.failure(response, &call).await, wait))
            }
            _ => Err(self.failure(response, &call).await),
        }
    }

    /// Asks how far an upload is; whether it can be gone on with.
    async fn look(&self, session: &mut Session) -> Result<bool> {
        let mut call = Call::new(Method::GET, session.url.clone());
        call.tries = Tries::Once;
        let answer = match self.send(&call, session).await {
            Ok(answer) => answer,
            Err(Error::Transport { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        if answer.status() != StatusCode::NO_CONTENT {
            return Ok(false);
        }
        let Some(offset) = received(answer.headers()).filter(|offset| *offset <= self.descriptor.size()) else {
            return Ok(false);
        };
        // Some registries tell the new address, some leave it out.
        if let Ok(url) = self.follow(&call, answer.headers()) {
            session.url = url;
        }
        session.offset = offset;
        Ok(true)
    }

    async fn send(&self, call: &Call, session: &Session) -> Result<Response> {
        // What is for the registry goes to no storage that it sends us to.
        if call.url.origin() == self.endpoint.root.origin() || call.url.origin() == session.from.url.origin() {
            self.client.request(self.endpoint, call, self.scope).await
        } else {
            self.endpoint.http.send(call, &self.scope.host, None).await
        }
    }

    async fn failure(&self, response: Response, call: &Call) -> Error {
        let what = format!("blob {}", self.descriptor.digest());
        let failure = self.client.failure(self.endpoint, response, call, self.scope, &what);
        failure.await
    }
}

/// The range of a chunk, in the specification's own form.
fn content_range(offset: u64, end: u64) -> HeaderValue {
    HeaderValue::try_from(format!("{offset}-{}", end - 1)).expect("digits fit in a header")
}

/// How many bytes a registry says that it has. `0-0` is said of one byte and of none: that tells nothing.
fn received(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?.trim();
    let (first, last) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    match (first.trim(), last) {
        ("0", last @ 1..) => last.checked_add(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_has() {
        let has = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            received(&headers)
        };
        assert_eq!(has("0-0"), None);
        assert_eq!(has("0-99"), Some(100));
        assert_eq!(has("bytes=0-99"), Some(100));
        assert_eq!(has("5-99"), None);
        assert_eq!(has("0--1"), None);
        assert_eq!(has("0-18446744073709551615"), None);
        assert_eq!(received(&HeaderMap::new()), None);
    }
}
