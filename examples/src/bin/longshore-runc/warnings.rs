//! What the libraries warn of, and with `--debug` what they do, into the log.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::log::Log;

/// Sends warnings and errors of the libraries to the log, from all threads; with `--debug`, also what they say for debugging.
pub(crate) fn to_log(log: Log) {
    // Set twice it stays as it was.
    let _ = tracing::subscriber::set_global_default(ToLog { log });
}

struct ToLog {
    log: Log,
}

impl Subscriber for ToLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let most = if self.log.is_verbose() {
            Level::DEBUG
        } else {
            Level::WARN
        };
        *metadata.level() <= most && metadata.target().starts_with("longshore")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        if *event.metadata().level() <= Level::WARN {
            self.log.warn(&line.text());
        } else {
            self.log.debug(|| line.text());
        }
    }

    // Spans say nothing that a line needs.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// An event as text. The container is known to who called.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn text(&self) -> String {
        format!("{}{}", self.message, self.fields)
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A String takes everything.
        let _ = match field.name() {
            "container" => Ok(()),
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, "; {name}: {value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps the lines instead of writing them.
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl Subscriber for Kept {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn event(&self, event: &Event<'_>) {
            let mut line = Line::default();
            event.record(&mut line);
            self.0.lock().expect("no panic").push(line.text());
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn a_warning_is_a_line() {
        let kept = Arc::new(Mutex::default());
        tracing::subscriber::with_default(Kept(Arc::clone(&kept)), || {
            tracing::warn!(container = %"x", error = %"bad", "left {}", "out");
        });
        assert_eq!(*kept.lock().expect("no panic"), ["left out; error: bad"]);
    }
}
