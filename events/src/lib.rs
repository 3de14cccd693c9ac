//! What happens in a container engine, as typed events: the [`EventSink`] port and a bus in memory.

#![forbid(unsafe_code)]

mod event;
mod sink;

pub use event::{Event, EventKind};
pub use sink::EventSink;
