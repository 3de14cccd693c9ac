//! Who asks for what, and what came of it where no other event tells: for an audit of the journal.

use std::error::Error as _;
use std::fmt::Write;

use longshore_events::EventKind;

use crate::{Engine, Result};

/// An error that is longer is cut: an event is to be kept, and a registry can say much.
const LONGEST: usize = 1024;

/// This program and its user, as an engine's events name them unless it is told otherwise ([`Engine::asker`]): `longshore[1234] of uid 0`.
pub fn this_program() -> String {
    let path = std::env::current_exe().unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (pid, user) = (std::process::id(), rustix::process::geteuid().as_raw());
    format!("{name}[{pid}] of uid {user}")
}

impl Engine {
    /// Tells that a request failed, and why; one that was granted is told by its own event.
    pub(crate) fn asked<T>(&self, request: &str, target: &str, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome {
            self.tell(request, target, reason(error));
        }
        outcome
    }

    /// The same for a request of which no event tells when it was granted.
    pub(crate) fn asked_quietly<T>(&self, request: &str, target: &str, outcome: Result<T>) -> Result<T> {
        if outcome.is_ok() {
            self.tell(request, target, "done".to_owned());
        }
        self.asked(request, target, outcome)
    }

    fn tell(&self, request: &str, target: &str, outcome: String) {
        self.emitter().emit(EventKind::Request {
            request: request.to_owned(),
            target: target.to_owned(),
            outcome,
        });
    }
}

/// An error and its causes in one line.
fn reason(error: &crate::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause.filter(|_| text.len() < LONGEST) {
        write!(text, ": {error}").expect("a string takes everything");
        cause = error.source();
    }
    let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn a_reason_has_its_causes_and_an_end() {
        let error = |reason: String| Error::Io {
            doing: "making the bundle",
            path: "/x".into(),
            source: std::io::Error::other(reason),
        };
        assert!(reason(&error("no room".to_owned())).ends_with(": no room"));
        let long = reason(&error("ä".repeat(LONGEST)));
        assert!(long.len() <= LONGEST && long.ends_with('ä'), "{} bytes", long.len());
    }

    #[test]
    fn a_program_has_a_name_and_a_user() {
        let asker = this_program();
        assert!(asker.contains(&format!("[{}] of uid ", std::process::id())), "{asker}");
    }
}
