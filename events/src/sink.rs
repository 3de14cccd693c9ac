use std::fmt::Debug;

use crate::Event;

/// **Port**: where events go.
///
/// # Contract
/// [`emit`](Self::emit) is synchronous, never fails, never blocks and never panics: an observer can't change the outcome of what it observes.
/// It may be called from any thread, many at once. An implementation that can't keep up drops events and counts what it dropped.
pub trait EventSink: Debug + Send + Sync + 'static {
    /// Takes note of an event.
    fn emit(&self, event: Event);
}
