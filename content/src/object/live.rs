//! Which digests are on their way, and whose turn it is to upload one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use oci_spec::image::Digest;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::flight::lock;

/// The digests of which an ingest has a live writer, in this store.
#[derive(Debug, Default)]
pub(super) struct Live {
    writers: Mutex<HashMap<Digest, Entry>>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Entry {
    writers: usize,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// One of the writers; it is none when this is dropped, however its commit ended.
#[derive(Debug)]
pub(super) struct Writing {
    live: Arc<Live>,
    digest: Digest,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Live {
    pub(super) fn begin(self: &Arc<Self>, digest: &Digest) -> Writing {
        let mut writers = lock(&self.writers);
        let entry = writers.entry(digest.clone()).or_default();
        entry.writers += 1;
        Writing {
            live: self.clone(),
            digest: digest.clone(),
            turn: entry.turn.clone(),
        }
    }

    pub(super) fn is_written(&self, digest: &Digest) -> bool {
        lock(&self.writers).contains_key(digest)
    }

    /// Resolves when a writer ended after this call.
    pub(super) fn changed(&self) -> OwnedNotified {
        self.changed.clone().notified_owned()
    }
}

impl Writing {
    /// Uploads of one digest go one after the other, so that only one of them finds nothing there.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut writers = lock(&self.live.writers);
        if let Some(entry) = writers.get_mut(&self.digest) {
            entry.writers -= 1;
            if entry.writers == 0 {
                writers.remove(&self.digest);
            }
        }
        drop(writers);
        self.live.changed.notify_waiters();
    }
}
