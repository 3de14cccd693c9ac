//! The host's side of a start: what it opens before the clone, the clone itself, and the talk with the child.

mod agent;
mod holder;
mod inputs;
mod maps;
mod session;
mod spawner;

pub(crate) use agent::{Agent, Answer, Listener};
pub(crate) use inputs::Inputs;
pub(crate) use session::{Meeting, Session, receive, step_error, wait_and_reap, wait_for_end};
#[cfg(feature = "systemd")]
pub(crate) use spawner::Placeholder;
pub(crate) use spawner::{Spawned, Spawner};

use rustix::fs::{Mode, OFlags};

use crate::Error;

/// Reads a file of procfs, whose size the kernel does not tell and makes anew for every read: few large ones cost less.
pub(crate) fn read_proc(path: &str) -> std::io::Result<Vec<u8>> {
    const CHUNK: usize = 16 * 1024;
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    loop {
        bytes.reserve(CHUNK);
        if rustix::io::retry_on_intr(|| rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes)))? == 0 {
            return Ok(bytes);
        }
    }
}

/// An error of the system outside the container, from what was being done.
pub(crate) fn io_error<E: Into<std::io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Error {
    let action = action.into();
    move |source| Error::Io {
        action,
        source: source.into(),
    }
}
