use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::remove::remove_all;

/// Removes directories that nobody needs any more, one after another, on a thread that is there while there are some.
///
/// Dropping it waits until they are gone: what a short-lived program removes is not left to the next one. What a killed one leaves is.
#[derive(Debug)]
pub(super) struct Remover(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dirs: OwnedFd,
    path: PathBuf,
    queue: Mutex<Queue>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    names: VecDeque<String>,
    /// A thread is at it.
    busy: bool,
}

impl Remover {
    /// For directories in `dirs`, whose path is for messages.
    pub(super) fn new(dirs: OwnedFd, path: PathBuf) -> Self {
        Self(Arc::new(Shared {
            dirs,
            path,
            queue: Mutex::default(),
            idle: Condvar::new(),
        }))
    }

    /// Has a directory removed.
    pub(super) fn remove(&self, name: String) {
        let mut queue = self.0.queue();
        queue.names.push_back(name);
        if std::mem::replace(&mut queue.busy, true) {
            return;
        }
        drop(queue);
        let shared = Arc::clone(&self.0);
        let thread = std::thread::Builder::new().name("longshore-remove".into());
        if thread.spawn(move || shared.work()).is_err() {
            self.0.work();
        }
    }

    /// Waits until all is removed, or was found not to be removable.
    pub(super) fn wait(&self) {
        let mut queue = self.0.queue();
        while queue.busy {
            queue = self.0.idle.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        self.wait();
    }
}

impl Shared {
    fn work(&self) {
        while let Some(name) = self.next() {
            if let Err(errno) = remove_all(&self.dirs, name.as_bytes()) {
                let path = self.path.join(&name).display().to_string();
                tracing::warn!(path, error = %errno, "a removed snapshot's directory is left for the next cleanup");
            }
        }
    }

    fn next(&self) -> Option<String> {
        let mut queue = self.queue();
        let name = queue.names.pop_front();
        if name.is_none() {
            queue.busy = false;
            self.idle.notify_all();
        }
        name
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
