use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Event, EventSink};

impl<S: EventSink + ?Sized> EventSink for Arc<S> {
    fn emit(&self, event: Event) {
        (**self).emit(event);
    }
}

impl<S: EventSink + ?Sized> EventSink for Box<S> {
    fn emit(&self, event: Event) {
        (**self).emit(event);
    }
}

/// Forgets every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullSink;

impl EventSink for NullSink {
    fn emit(&self, _: Event) {}
}

/// Hands every event to several sinks, in order.
#[derive(Clone, Debug, Default)]
pub struct Fanout {
    sinks: Vec<Arc<dyn EventSink>>,
}

impl Fanout {
    /// To these.
    pub fn new(sinks: impl IntoIterator<Item = Arc<dyn EventSink>>) -> Self {
        Self {
            sinks: sinks.into_iter().collect(),
        }
    }

    /// And to this.
    #[must_use]
    pub fn and(mut self, sink: impl EventSink) -> Self {
        self.sinks.push(Arc::new(sink));
        self
    }
}

impl EventSink for Fanout {
    fn emit(&self, event: Event) {
        let Some((last, others)) = self.sinks.split_last() else {
            return;
        };
        for sink in others {
            sink.emit(event.clone());
        }
        last.emit(event);
    }
}

/// A closure as a sink. The closure keeps the port's contract: it returns soon. If it panics, that ends here.
///
/// ```
/// use longshore_events::{Event, EventKind, EventSink, FnSink};
///
/// let sink = FnSink::new(|event: Event| println!("{event}"));
/// sink.emit(Event::now("default", EventKind::ImageDelete { name: "alpine".into() }));
/// ```
pub struct FnSink<F> {
    function: F,
}

impl<F: Fn(Event) + Send + Sync + 'static> FnSink<F> {
    /// Calls `function` with every event, on the thread that emits it.
    pub fn new(function: F) -> Self {
        Self { function }
    }
}

impl<F> fmt::Debug for FnSink<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FnSink")
    }
}

impl<F: Fn(Event) + Send + Sync + 'static> EventSink for FnSink<F> {
    fn emit(&self, event: Event) {
        if catch_unwind(AssertUnwindSafe(|| (self.function)(event))).is_err() {
            tracing::warn!("an event sink's closure panicked; the event was lost to it");
        }
    }
}

/// Keeps every event, without bound: for tests. A clone shares what is kept.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    events: Arc<Mutex<Vec<Event>>>,
}

impl Recorder {
    /// With nothing kept yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was emitted so far, in order.
    pub fn events(&self) -> Vec<Event> {
        self.lock().clone()
    }

    /// The topics of what was emitted so far, in order.
    pub fn topics(&self) -> Vec<&'static str> {
        self.lock().iter().map(Event::topic).collect()
    }

    /// The same as [`events`](Self::events), which are then forgotten.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.lock())
    }
}

impl EventSink for Recorder {
    fn emit(&self, event: Event) {
        self.lock().push(event);
    }
}
