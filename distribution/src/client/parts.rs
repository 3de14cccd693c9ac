//! A large blob in several requests at once, handed on in order.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::builder::RegistryClient;
use super::endpoint::Endpoint;
use super::http::Call;
use crate::auth::Scope;
use crate::{Error, Result};

/// How large blobs are fetched in parts, several at a time. A registry that does not serve parts is asked for the whole.
///
/// Memory for one blob is at most `at_once` times `size`; a pull fetches as many blobs at once as its concurrency says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// How many parts of one blob are on their way at once; 1 (or 0) for one stream. Default: 3.
    pub at_once: usize,
    /// Bytes of a part. Default: 2 MiB.
    pub size: u64,
    /// A blob with fewer bytes left than this comes in one stream. Default: 32 MiB.
    pub from: u64,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            at_once: 3,
            size: 2 << 20,
            from: 32 << 20,
        }
    }
}

impl Parts {
    /// The end of the first part of what is left, if it is to come in parts.
    pub(super) fn first_end(&self, offset: u64, size: u64) -> Option<u64> {
        let is_worth_it = self.at_once > 1 && self.size > 0 && size.saturating_sub(offset) >= self.from.max(1);
        let end = offset.saturating_add(self.size);
        (is_worth_it && end < size).then_some(end)
    }
}

/// What all parts of a blob have in common.
#[derive(Clone, Debug)]
pub(super) struct Whole {
    pub(super) client: RegistryClient,
    pub(super) endpoint: Arc<Endpoint>,
    /// The request of the whole blob.
    pub(super) call: Call,
    pub(super) scope: Scope,
    pub(super) size: u64,
    pub(super) parts: Parts,
}

/// One part that is on its way.
#[derive(Debug)]
struct Part {
    received: mpsc::UnboundedReceiver<Result<Bytes>>,
    /// Bytes of it that have not been handed on.
    left: u64,
    task: JoinHandle<()>,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Whole {
    /// The bytes from `first`, the part that ends at `end`, to the end of the blob.
    pub(super) fn stream(
        self,
        first: BoxStream<'static, Result<Bytes>>,
        offset: u64,
        end: u64,
    ) -> BoxStream<'static, Result<Bytes>> {
        let state = State {
            running: VecDeque::from([forward(end - offset, async move { Ok(first) })]),
            next: end,
            whole: self,
        };
        stream::try_unfold(state, async |mut state| {
            Ok(state.next().await?.map(|bytes| (bytes, state)))
        })
        .boxed()
    }

    /// Asks for one part.
    async fn ask(self, offset: u64, end: u64) -> Result<BoxStream<'static, Result<Bytes>>> {
        let mut call = self.call;
        call.headers.insert(RANGE, range(offset, end));
        let response = self.client.request(&self.endpoint, &call, &self.scope).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            let what = format!("bytes {offset} to {end} of a blob");
            let failure = self.client.failure(&self.endpoint, response, &call, &self.scope, &what);
            return Err(failure.await);
        }
        if !is_range(response.headers(), offset, end) {
            return Err(Error::Protocol {
                registry: self.scope.host.clone(),
                what: "a part of a blob".into(),
                reason: format!("it is not bytes {offset} to {end}, which were asked for"),
            });
        }
        Ok(self.endpoint.http.body(response, &call, &self.scope.host))
    }
}

#[derive(Debug)]
struct State {
    whole: Whole,
    running: VecDeque<Part>,
    /// Where the next part to ask for begins.
    next: u64,
}

impl State {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            while self.running.len() < self.whole.parts.at_once && self.next < self.whole.size {
                let (offset, end) = (
                    self.next,
                    self.whole.size.min(self.next.saturating_add(self.whole.parts.size)),
                );
                self.running
                    .push_back(forward(end - offset, self.whole.clone().ask(offset, end)));
                self.next = end;
            }
            let Some(part) = self.running.front_mut() else {
                return Ok(None);
            };
            match part.received.recv().await.transpose()? {
                Some(bytes) => {
                    let left = part.left.checked_sub(bytes.len() as u64);
                    part.left = left.unwrap_or_default();
                    return match left {
                        Some(_) => Ok(Some(bytes)),
                        None => Err(self.wrong_length()),
                    };
                }
                None if part.left == 0 => drop(self.running.pop_front()),
                None => return Err(self.ended_early()),
            }
        }
    }

    fn wrong_length(&self) -> Error {
        Error::Protocol {
            registry: self.whole.scope.host.clone(),
            what: "a part of a blob".into(),
            reason: "it has more bytes than were asked for".into(),
        }
    }

    fn ended_early(&self) -> Error {
        let early = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "a part of it ended early");
        self.whole.call.transport(&self.whole.scope.host, early)
    }
}

/// A task that receives one part, which is what bounds the memory it takes.
fn forward(length: u64, ask: impl Future<Output = Result<BoxStream<'static, Result<Bytes>>>> + Send + 'static) -> Part {
    let (sender, received) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        let mut stream = match ask.await {
            Ok(stream) => stream,
            Err(error) => {
                // Nobody who waits: then nobody needs to know.
                let _ = sender.send(Err(error));
                return;
            }
        };
        let mut room = length;
        while let Some(chunk) = stream.next().await {
            let size = chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
            let is_last = chunk.is_err() || size > room;
            if sender.send(chunk).is_err() || is_last {
                return;
            }
            room -= size;
        }
    });
    Part {
        received,
        left: length,
        task,
    }
}

/// The header that asks for the bytes from `offset` up to `end`.
pub(super) fn range(offset: u64, end: u64) -> HeaderValue {
    HeaderValue::try_from(format!("bytes={offset}-{}", end - 1)).expect("digits fit in a header")
}

/// Whether an answer is exactly the bytes from `offset` up to `end`.
pub(super) fn is_range(headers: &HeaderMap, offset: u64, end: u64) -> bool {
    let told = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let range = told.and_then(|range| range.trim().strip_prefix("bytes ")?.split('/').next());
    range.is_some_and(|range| range.trim() == format!("{offset}-{}", end - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_parts_are_worth_it() {
        let parts = Parts {
            at_once: 2,
            size: 10,
            from: 25,
        };
        assert_eq!(parts.first_end(0, 25), Some(10));
        assert_eq!(parts.first_end(0, 24), None);
        assert_eq!(parts.first_end(5, 30), Some(15));
        assert_eq!(parts.first_end(6, 30), None);
        assert_eq!(
            Parts { from: 0, ..parts }.first_end(0, 10),
            None,
            "one part is the whole"
        );
        assert_eq!(Parts { at_once: 1, ..parts }.first_end(0, 100), None);
        assert_eq!(Parts { size: 0, ..parts }.first_end(0, 100), None);
    }

    #[test]
    fn exactly_what_was_asked_for() {
        let told = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, text.parse().unwrap());
            is_range(&headers, 5, 10)
        };
        assert!(told("bytes 5-9/20") && told("bytes 5-9/*"));
        assert!(!told("bytes 5-10/20") && !told("bytes 0-9/20") && !told("bytes */20"));
        assert!(!is_range(&HeaderMap::new(), 5, 10));
    }
}
