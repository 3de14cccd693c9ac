//! What happens in a container engine, as typed events: the [`EventSink`] port, a [`Bus`] in memory, a [`Journal`] on disk and the small sinks to compose them.
//!
//! Topics and fields are containerd's where it has them. An [`Event`] prints as one line for people and serialises with serde for programs.
//!
//! # What it is not for
//! Logs of containers, traces of the engine's own code, or messages between machines.
//!
//! # Limitations
//! A bus lives in one process, and a subscriber that does not keep up misses events (it is told how many). Entries of a journal that were rotated away are gone.
//!
//! # Example
//! ```
//! use longshore_events::{Bus, Event, EventKind, EventSink, Fanout, Filter, Recorder};
//!
//! let bus = Bus::new(64);
//! let mut images = bus.subscribe(Filter::all().topic("/images/").namespace("default"));
//! let recorder = Recorder::new();
//!
//! // What emits knows only the port; who composes decides where events go.
//! let sink = Fanout::default().and(bus.clone()).and(recorder.clone());
//! sink.emit(Event::now("default", EventKind::ImageDelete { name: "alpine:3.20".into() }));
//! sink.emit(Event::now("default", EventKind::TaskOom { container_id: "demo".into() }));
//!
//! let received = images.try_recv().expect("an event waits");
//! assert_eq!(received.event().map(Event::topic), Some("/images/delete"));
//! assert_eq!(images.try_recv(), None);
//! assert_eq!(recorder.topics(), ["/images/delete", "/tasks/oom"]);
//! ```

#![forbid(unsafe_code)]

mod bus;
#[cfg(feature = "conformance")]
pub mod conformance;
mod display;
mod event;
mod filter;
mod journal;
mod park;
mod queue;
mod sink;
mod sinks;
mod time;

pub use bus::{Bus, BusStats, Received, Subscription, Waited};
pub use event::{Event, EventKind};
pub use filter::Filter;
pub use journal::{
    Entry, Journal, JournalError, JournalErrorKind, JournalOptions, JournalStats, Replay, ReplayFrom, SyncPolicy, Told,
};
pub use longshore_filter::Error as FilterError;
pub use sink::EventSink;
pub use sinks::{Fanout, FnSink, NullSink, Recorder};
pub use time::parse as parse_time;
