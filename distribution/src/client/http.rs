//! One request and its answer: retries, time-outs, redirects. Knows nothing of registries.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http::header::{CONTENT_LENGTH, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use longshore_content::Blob;
use reqwest::Response;
use url::{Origin, Url};

use super::host::{PlainHttp, is_loopback};
use super::retry::{RetryPolicy, is_worth_retrying, retry_after};
use crate::{Error, Result};

/// How many redirects one request follows.
const MAX_REDIRECTS: u32 = 5;
/// How much of a blob is read at once to be sent.
const UPLOAD_CHUNK: usize = 256 << 10;

/// A request that can be sent again.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    pub(crate) tries: Tries,
}

/// Whether a request that got no good answer is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tries {
    /// As the policy says.
    Many,
    /// It is not: what it did so far must be looked at first.
    Once,
}

/// What a request carries.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Empty,
    Bytes(Bytes),
    /// A part of a blob.
    Blob {
        blob: Arc<dyn Blob>,
        range: Range<u64>,
    },
}

impl Call {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            payload: Payload::Empty,
            tries: Tries::Many,
        }
    }

    /// The request for messages: without the query, which may hold signatures.
    pub(crate) fn label(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        format!("{} {url}", self.method)
    }

    pub(crate) fn transport(
        &self,
        registry: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Transport {
            registry: registry.to_owned(),
            request: self.label(),
            source: source.into(),
        }
    }
}

/// Connections with one way of trusting the other side.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    /// Go through the proxy of the environment, if there is one.
    remote: reqwest::Client,
    /// Never go through a proxy: for this machine.
    local: reqwest::Client,
}

impl Connections {
    pub(super) fn new(user_agent: &str, connect: Duration, tls: rustls::ClientConfig) -> Result<Self> {
        let base = || {
            reqwest::Client::builder()
                .user_agent(user_agent)
                .connect_timeout(connect)
                // Followed by hand, so that no credential goes along.
                .redirect(reqwest::redirect::Policy::none())
                // Retried by hand, by one rule for all.
                .retry(reqwest::retry::never())
                .referer(false)
                .tls_backend_preconfigured(tls.clone())
        };
        let setup = |error: reqwest::Error| Error::Setup {
            what: "HTTP client",
            source: Box::new(error),
        };
        Ok(Self {
            remote: base().build().map_err(setup)?,
            local: base().no_proxy().build().map_err(setup)?,
        })
    }
}

/// The HTTP client of one host with its rules.
pub(crate) struct Http {
    /// To the host itself.
    pub(super) own: Connections,
    /// To where it sends us: without what is for the host alone.
    pub(super) guest: Connections,
    /// The host itself.
    pub(super) origin: Origin,
    /// Its authority, when it is to be spoken to by plain HTTP.
    pub(super) own_plain: Option<String>,
    /// What every request to the host itself has.
    pub(super) headers: HeaderMap,
    pub(super) plain: PlainHttp,
    pub(super) retry: RetryPolicy,
    /// How long the other side may be silent.
    pub(super) idle: Duration,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("plain", &self.plain)
            .field("retry", &self.retry)
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}

impl Http {
    /// Whether this host is spoken to by plain HTTP.
    pub(crate) fn is_plain(&self) -> bool {
        self.own_plain.is_some()
    }

    /// Whether the host of this URL may be spoken to by plain HTTP.
    pub(crate) fn may_be_plain(&self, url: &Url) -> bool {
        let authority = authority(url);
        self.plain.covers(&authority) || self.own_plain.as_ref() == Some(&authority)
    }

    /// Sends a request until it is answered, and follows redirects of reads. `registry` is for messages.
    ///
    /// `authorization` is dropped when a redirect leaves scheme, host or port.
    pub(crate) async fn send(
        &self,
        call: &Call,
        registry: &str,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response> {
        let mut call = call.clone();
        let origin = call.url.origin();
        for _ in 0..=MAX_REDIRECTS {
            let authorization = authorization.filter(|_| call.url.origin() == origin);
            let response = self.send_patiently(&call, registry, authorization).await?;
            if !is_redirect(response.status()) || !matches!(call.method, Method::GET | Method::HEAD) {
                return Ok(response);
            }
            let next = location(&call, registry, response.headers())?;
            self.may_follow(&call, &next, registry)?;
            if next.origin() != origin {
                // A header that the caller set itself (a token server's login) must not leave either.
                call.headers.remove(http::header::AUTHORIZATION);
            }
            call.url = next;
        }
        Err(protocol(registry, format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// Whether an address that the registry gave may be used: encryption is never given up on its word.
    pub(crate) fn may_follow(&self, from: &Call, to: &Url, registry: &str) -> Result<()> {
        let fine = match (from.url.scheme(), to.scheme()) {
            (_, "https") => true,
            ("http", "http") => self.may_be_plain(to),
            _ => false,
        };
        if fine && to.host_str().is_some() && to.username().is_empty() && to.password().is_none() {
            return Ok(());
        }
        Err(protocol(
            registry,
            format!("it leads from {} to {}://{}", from.label(), to.scheme(), authority(to)),
        ))
    }

    async fn send_patiently(
        &self,
        call: &Call,
        registry: &str,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response> {
        let mut attempt = 1;
        loop {
            let (failure, asked) = match self.send_once(call, authorization).await {
                Ok(response) if is_worth_retrying(response.status()) => {
                    let asked = retry_after(response.headers());
                    (Ok(response), asked)
                }
                Ok(response) => return Ok(response),
                Err(failure) if failure.is_permanent() => return Err(call.transport(registry, failure)),
                Err(failure) => (Err(failure), None),
            };
            let again = self.retry.wait(attempt, asked).filter(|_| call.tries == Tries::Many);
            let Some(wait) = again else {
                return failure.map_err(|failure| call.transport(registry, failure));
            };
            let status = failure.as_ref().map(|response| response.status().as_u16()).ok();
            tracing::debug!(
                request = call.label(),
                attempt,
                status,
                ?wait,
                "request failed, trying again"
            );
            drop(failure);
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    async fn send_once(&self, call: &Call, authorization: Option<&HeaderValue>) -> Result<Response, Failure> {
        let is_home = call.url.origin() == self.origin;
        let connections = if is_home { &self.own } else { &self.guest };
        let client = if is_loopback(&authority(&call.url)) {
            &connections.local
        } else {
            &connections.remote
        };
        let mut headers = if is_home {
            self.headers.clone()
        } else {
            HeaderMap::new()
        };
        for (name, value) in &call.headers {
            headers.insert(name, value.clone());
        }
        if let Some(authorization) = authorization {
            headers.insert(http::header::AUTHORIZATION, authorization.clone());
        }
        let sent = Arc::new(AtomicU64::new(0));
        let mut request = client.request(call.method.clone(), call.url.clone()).headers(headers);
        request = match &call.payload {
            Payload::Empty if call.method == Method::GET || call.method == Method::HEAD => request,
            Payload::Empty => request.header(CONTENT_LENGTH, 0),
            Payload::Bytes(bytes) => request.body(bytes.clone()),
            Payload::Blob { blob, range } => {
                request
                    .header(CONTENT_LENGTH, range.end - range.start)
                    .body(reqwest::Body::wrap_stream(upload(
                        blob.clone(),
                        range.clone(),
                        sent.clone(),
                    )))
            }
        };
        self.unless_idle(request.send(), &sent).await
    }

    /// Waits for an answer as long as something moves.
    async fn unless_idle(
        &self,
        answer: impl Future<Output = Result<Response, reqwest::Error>>,
        sent: &AtomicU64,
    ) -> Result<Response, Failure> {
        let mut answer = std::pin::pin!(answer);
        let mut before = sent.load(Ordering::Relaxed);
        loop {
            match tokio::time::timeout(self.idle, &mut answer).await {
                Ok(result) => return result.map_err(Failure::of),
                Err(_) => {
                    let now = sent.load(Ordering::Relaxed);
                    if now == before {
                        return Err(Failure::Idle(self.idle));
                    }
                    before = now;
                }
            }
        }
    }

    /// The body of an answer, chunk by chunk. It ends with an error when the connection is cut or silent.
    pub(crate) fn body(&self, response: Response, call: &Call, registry: &str) -> BoxStream<'static, Result<Bytes>> {
        let state = BodyState {
            response,
            idle: self.idle,
            call: call.clone(),
            registry: registry.to_owned(),
        };
        stream::try_unfold(state, |mut state| async move {
            let chunk = match tokio::time::timeout(state.idle, state.response.chunk()).await {
                Ok(Ok(chunk)) => chunk,
                Ok(Err(error)) => return Err(state.call.transport(&state.registry, error.without_url())),
                Err(_) => return Err(state.call.transport(&state.registry, Failure::Idle(state.idle))),
            };
            Ok(chunk.map(|chunk| (chunk, state)))
        })
        .boxed()
    }
}

struct BodyState {
    response: Response,
    pub(super) idle: Duration,
    call: Call,
    registry: String,
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Client(reqwest::Error),
    #[error("it does not speak TLS; if plain HTTP is right for this registry, name it in PlainHttp::Hosts")]
    NotTls(#[source] reqwest::Error),
    #[error("nothing came for {0:?}")]
    Idle(Duration),
}

impl Failure {
    fn of(error: reqwest::Error) -> Self {
        let error = error.without_url();
        match tls_error(&error) {
            Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => Self::NotTls(error),
            _ => Self::Client(error),
        }
    }

    /// Whether trying again can't help: the request itself is wrong, or the other side is not who it should be.
    fn is_permanent(&self) -> bool {
        match self {
            Self::Client(error) => error.is_builder() || tls_error(error).is_some(),
            Self::NotTls(_) => true,
            Self::Idle(_) => false,
        }
    }
}

/// The TLS error behind a failure. It may be wrapped in several `io::Error`s, whose `source()` passes over what they wrap.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => tls_error(wrapped),
        None => tls_error(error.source()?),
    }
}

fn upload(blob: Arc<dyn Blob>, range: Range<u64>, sent: Arc<AtomicU64>) -> BoxStream<'static, io::Result<Bytes>> {
    let size = range.end;
    stream::try_unfold(range.start, move |offset| {
        let (blob, sent) = (blob.clone(), sent.clone());
        async move {
            if offset >= size {
                return Ok(None);
            }
            let wanted = usize::try_from(size - offset).unwrap_or(UPLOAD_CHUNK).min(UPLOAD_CHUNK);
            let mut buffer = vec![0; wanted];
            let n = blob.read_at(offset, &mut buffer).await.map_err(io::Error::other)?;
            if n == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the blob is shorter than it says",
                ));
            }
            buffer.truncate(n);
            sent.fetch_add(n as u64, Ordering::Relaxed);
            Ok(Some((Bytes::from(buffer), offset + n as u64)))
        }
    })
    .boxed()
}

/// The address in `Location`, which may be relative.
pub(crate) fn location(call: &Call, registry: &str, headers: &HeaderMap) -> Result<Url> {
    headers
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| call.url.join(value).ok())
        .ok_or_else(|| {
            protocol(
                registry,
                format!("the answer to {} has no Location that can be read", call.label()),
            )
        })
}

fn protocol(registry: &str, reason: String) -> Error {
    Error::Protocol {
        registry: registry.to_owned(),
        what: "a redirect".into(),
        reason,
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// `host` or `host:port` of a URL, as in a reference.
pub(super) fn authority(url: &Url) -> String {
    match (url.host_str().unwrap_or_default(), url.port()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_hide_queries() {
        let call = Call::new(Method::GET, Url::parse("https://h/p?X-Signature=secret#f").unwrap());
        assert_eq!(call.label(), "GET https://h/p");
    }
}
