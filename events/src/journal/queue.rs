use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::Result;
use crate::Event;

/// Who waits for a flush gets the last sequence number that is on disk.
pub(super) type Answer = SyncSender<Result<u64>>;

/// What waits for the journal's thread.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) events: VecDeque<Event>,
    /// Emitted when the queue was full, and not told yet.
    pub(super) missed: u64,
    pub(super) flushes: Vec<Answer>,
    pub(super) closed: bool,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.missed == 0 && self.flushes.is_empty() && !self.closed
    }
}

/// The bounded queue between those who emit and the thread that writes. A lock that is held for the time of a push.
#[derive(Debug)]
pub(super) struct Queue {
    capacity: usize,
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            waiting: Mutex::default(),
            filled: Condvar::new(),
        }
    }

    // A panic can't leave it half changed.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event, or counts it as missed; tells which.
    pub(super) fn push(&self, event: Event) -> bool {
        let mut waiting = self.lock();
        if waiting.closed || waiting.events.len() >= self.capacity {
            waiting.missed += 1;
            drop(waiting);
            drop(event);
            return false;
        }
        let was_empty = waiting.is_empty();
        waiting.events.push_back(event);
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.lock().events.len()
    }

    pub(super) fn flush(&self, answer: Answer) {
        self.lock().flushes.push(answer);
        self.filled.notify_one();
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// Counts events that were taken and then could not be written.
    pub(super) fn give_back(&self, missed: u64) {
        self.lock().missed += missed;
    }

    /// Waits until there is something, or for no longer than `timeout`, and takes all of it. Events that are missed while others are waited for stay for the next time.
    pub(super) fn take(&self, timeout: Option<Duration>) -> Waiting {
        let mut waiting = self.lock();
        match timeout {
            None => {
                while waiting.is_empty() {
                    waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
            }
            Some(timeout) if waiting.is_empty() => {
                let (woken, _) = self
                    .filled
                    .wait_timeout(waiting, timeout)
                    .unwrap_or_else(PoisonError::into_inner);
                waiting = woken;
            }
            Some(_) => {}
        }
        let closed = waiting.closed;
        let taken = std::mem::take(&mut *waiting);
        waiting.closed = closed;
        taken
    }
}
