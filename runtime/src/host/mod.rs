//! The host's side of a start: what it opens before the clone, the clone itself, and the talk with the child.

mod agent;
mod holder;
mod inputs;
mod maps;
mod net_devices;
mod post;
mod session;
mod spawner;

pub(crate) use agent::{Agent, Answer, Listener};
pub(crate) use inputs::Inputs;
pub(crate) use post::Post;
pub(crate) use session::{Meeting, Session, step_error, wait_and_reap, wait_for_end};
#[cfg(feature = "systemd")]
pub(crate) use spawner::Placeholder;
pub(crate) use spawner::{Monitored, Order, Spawned, Spawner};

use crate::Error;

/// An error of the system outside the container, from what was being done.
pub(crate) fn io_error<E: Into<std::io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Error {
    let action = action.into();
    move |source| Error::Io {
        action,
        source: source.into(),
    }
}
