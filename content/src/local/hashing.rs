//! Hashes beside the writing: short ingests in place, long ones on a thread of their own, since hashing and handing
//! bytes to the kernel take about as long as each other.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;

use crate::hash::Hasher;

/// An ingest that is longer than this gets the thread.
const INLINE: u64 = 1 << 20;

/// Batches that wait for the thread; each is held in memory until it was hashed.
const WAITING: usize = 2;

#[derive(Debug)]
pub(crate) enum Hashing {
    Inline {
        hasher: Hasher,
        taken: u64,
    },
    Beside {
        work: SyncSender<Work>,
        thread: JoinHandle<Hasher>,
    },
}

pub(crate) enum Work {
    Take(Vec<Bytes>),
    Look(Box<dyn FnOnce(&Hasher) + Send>),
}

impl Hashing {
    pub(crate) fn new(hasher: Hasher) -> Self {
        Self::Inline { hasher, taken: 0 }
    }

    /// Takes in the next bytes, now or soon.
    pub(crate) fn take(&mut self, batch: &[Bytes]) {
        match self {
            Self::Inline { hasher, taken } => {
                for piece in batch {
                    hasher.update(piece);
                    *taken += piece.len() as u64;
                }
                if *taken > INLINE {
                    *self = Self::beside(hasher.clone());
                }
            }
            Self::Beside { work, .. } => {
                // A refusal means that the thread panicked; `finish` passes that on.
                let _ = work.send(Work::Take(batch.to_vec()));
            }
        }
    }

    /// Shows the hash of what was taken in until now, once it is known.
    pub(crate) fn look(&self, look: impl FnOnce(&Hasher) + Send + 'static) {
        match self {
            Self::Inline { hasher, .. } => look(hasher),
            Self::Beside { work, .. } => {
                let _ = work.send(Work::Look(Box::new(look)));
            }
        }
    }

    /// The hash of all that was taken in; what follows starts from nothing.
    pub(crate) fn finish(&mut self) -> Hasher {
        match std::mem::replace(self, Self::new(Hasher::default())) {
            Self::Inline { hasher, .. } => hasher,
            Self::Beside { work, thread } => {
                drop(work);
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }
        }
    }

    fn beside(mut hasher: Hasher) -> Self {
        let (work, queue) = sync_channel(WAITING);
        let kept = hasher.clone();
        let thread = std::thread::Builder::new()
            .name("longshore-hash".into())
            .stack_size(128 << 10)
            .spawn(move || {
                for work in queue {
                    match work {
                        Work::Take(batch) => batch.iter().for_each(|piece| hasher.update(piece)),
                        Work::Look(look) => look(&hasher),
                    }
                }
                hasher
            });
        match thread {
            Ok(thread) => Self::Beside { work, thread },
            // No thread to be had: go on in place, and ask again much later.
            Err(_) => Self::new(kept),
        }
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Take(_) => "Take",
            Self::Look(_) => "Look",
        })
    }
}
