//! Faults on purpose: what a client must survive.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, StatusCode};

use crate::log::{LoggedRequest, lock};

/// Decides which requests go wrong, and how.
pub trait Faults: Debug + Send + Sync + 'static {
    /// Called once for each request, before it is served. `status` of the request is not known yet.
    fn fault(&self, request: &LoggedRequest) -> Option<Fault>;
}

/// What goes wrong with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The connection is closed without an answer.
    Hangup,
    /// The answer begins as usual; the connection is closed after this many bytes of its body.
    CutAfter(u64),
    /// The answer begins as usual; after this many bytes of its body nothing more comes, and the connection stays.
    StallAfter(u64),
    /// The connection is closed after this many bytes of the request's body were taken in. Only uploads have it.
    CutUploadAfter(u64),
    /// The byte of the body at this offset is another one than it should be.
    CorruptAt(u64),
    /// `Content-Length` is more than what is sent by this many bytes; the connection is closed at the end.
    ClaimMore(u64),
    /// The body is shorter by this many bytes, and `Content-Length` says so.
    SendLess(u64),
    /// The answer comes this much later.
    Delay(Duration),
    /// This status, without serving the request.
    Status(StatusCode),
    /// `429 Too Many Requests` with this `Retry-After`, in seconds.
    TooManyRequests(u64),
    /// `401 Unauthorized` with the usual challenge, whatever the client sent: its token has "expired".
    Unauthorized,
    /// `307 Temporary Redirect` to this host (`scheme://host:port`), same path and query.
    RedirectTo(String),
    /// This body, with status 200 and this media type.
    Body(String, bytes::Bytes),
}

/// A list of [`Fault`]s for matching requests. Clones share the list, so it can be changed while the registry serves.
///
/// ```
/// use longshore_registry::{Fault, FaultScript};
///
/// let faults = FaultScript::new();
/// faults.add("/blobs/", Fault::CutAfter(1000)).times(2);
/// faults.add("/manifests/", Fault::TooManyRequests(1)).skip(1).times(1);
/// ```
#[derive(Clone, Debug, Default)]
pub struct FaultScript(Arc<Mutex<Vec<Arc<Rule>>>>);

#[derive(Debug)]
struct Rule {
    path: String,
    fault: Fault,
    method: Mutex<Option<Method>>,
    skip: AtomicU32,
    left: AtomicU32,
}

/// A rule that was just added, to be narrowed. By itself it holds for every GET and any other method, for ever.
#[derive(Debug)]
pub struct RuleHandle(Arc<Rule>);

impl FaultScript {
    /// Nothing goes wrong.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault for requests whose path contains `path`. Of several that match, the first one added happens.
    pub fn add(&self, path: impl Into<String>, fault: Fault) -> RuleHandle {
        let rule = Arc::new(Rule {
            path: path.into(),
            fault,
            method: Mutex::new(None),
            skip: AtomicU32::new(0),
            left: AtomicU32::new(u32::MAX),
        });
        lock(&self.0).push(rule.clone());
        RuleHandle(rule)
    }

    /// Nothing goes wrong any more.
    pub fn clear(&self) {
        lock(&self.0).clear();
    }
}

impl RuleHandle {
    /// Only for requests of this method.
    pub fn method(self, method: Method) -> Self {
        *lock(&self.0.method) = Some(method);
        self
    }

    /// Not for the first `count` requests that match.
    pub fn skip(self, count: u32) -> Self {
        self.0.skip.store(count, Ordering::Relaxed);
        self
    }

    /// Only so many times.
    pub fn times(self, count: u32) -> Self {
        self.0.left.store(count, Ordering::Relaxed);
        self
    }
}

impl Rule {
    fn applies(&self, request: &LoggedRequest) -> bool {
        let matches = request.path.contains(&self.path)
            && lock(&self.method)
                .as_ref()
                .is_none_or(|method| *method == request.method);
        matches && !take_one(&self.skip) && (self.left.load(Ordering::Relaxed) == u32::MAX || take_one(&self.left))
    }
}

fn take_one(count: &AtomicU32) -> bool {
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
        .is_ok()
}

impl Faults for FaultScript {
    fn fault(&self, request: &LoggedRequest) -> Option<Fault> {
        let rules = lock(&self.0).clone();
        rules
            .iter()
            .find(|rule| rule.applies(request))
            .map(|rule| rule.fault.clone())
    }
}
