//! What was asked, for tests that count requests.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Method, StatusCode};

/// Older requests are forgotten when there are more.
const KEPT: usize = 100_000;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each critical section leaves its data whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that was answered, at least with a status.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoggedRequest {
    /// `GET`, `HEAD`, ...
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// What came after the `?`, as it was sent.
    pub query: Option<String>,
    /// The `Range` header.
    pub range: Option<String>,
    /// Whether the client sent an `Authorization` header.
    pub authorized: bool,
    /// The status of the answer; `None` when the connection was cut before one.
    pub status: Option<StatusCode>,
    sent: Arc<AtomicU64>,
}

impl LoggedRequest {
    pub(crate) fn new<B>(request: &http::Request<B>) -> Self {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        Self {
            method: request.method().clone(),
            path: request.uri().path().into(),
            query: request.uri().query().map(Into::into),
            range: header(http::header::RANGE).map(Into::into),
            authorized: request.headers().contains_key(http::header::AUTHORIZATION),
            status: None,
            sent: Arc::default(),
        }
    }

    /// Bytes of the answer's body that were handed to the connection so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        self.sent.clone()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<VecDeque<LoggedRequest>>);

impl Log {
    pub(crate) fn add(&self, request: LoggedRequest) {
        let mut log = lock(&self.0);
        if log.len() == KEPT {
            log.pop_front();
        }
        log.push_back(request);
    }

    pub(crate) fn all(&self) -> Vec<LoggedRequest> {
        lock(&self.0).iter().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }
}
