use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::{Event, Filter, Received};

/// How many events a reader takes at once, so that it and those who emit seldom wait for each other.
const BATCH: usize = 64;

/// The queue between a bus and one subscriber. When it is full, the oldest event gives way.
#[derive(Debug)]
pub(crate) struct Queue {
    filter: Filter,
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Arc<Event>>,
    /// Dropped before the front of `events`, and not told yet.
    missed: u64,
    missed_ever: u64,
    closed: bool,
    waker: Option<Waker>,
}

/// Events that a reader has taken out of its queue and not read yet.
#[derive(Debug, Default)]
pub(crate) struct Batch(VecDeque<Arc<Event>>);

/// What is at the front of a queue.
pub(crate) enum Next {
    Received(Received),
    Empty,
    Ended,
}

impl State {
    /// The next one; some of those that follow go into `batch`, which is empty.
    fn next(&mut self, batch: &mut Batch) -> Next {
        if self.missed > 0 {
            return Next::Received(Received::Missed(std::mem::take(&mut self.missed)));
        }
        match self.events.pop_front() {
            Some(event) => {
                let more = self.events.len().min(BATCH - 1);
                batch.0.extend(self.events.drain(..more));
                Next::Received(Received::Event(event))
            }
            None if self.closed => Next::Ended,
            None => Next::Empty,
        }
    }
}

impl Queue {
    pub(crate) fn new(filter: Filter, capacity: usize) -> Self {
        Self {
            filter,
            capacity,
            state: Mutex::default(),
        }
    }

    // A panic can't leave the state half changed, so a poisoned lock is as good as any.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wants(&self, event: &Event) -> bool {
        self.filter.matches(event)
    }

    pub(crate) fn push(&self, event: Arc<Event>) {
        let mut state = self.state();
        let mut oldest = None;
        if state.events.len() >= self.capacity {
            oldest = state.events.pop_front();
            state.missed += 1;
            state.missed_ever += 1;
        }
        state.events.push_back(event);
        let waker = state.waker.take();
        drop(state);
        // Both run foreign or slow code, so they wait until the lock is free.
        drop(oldest);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn take(&self, batch: &mut Batch) -> Next {
        match batch.0.pop_front() {
            Some(event) => Next::Received(Received::Event(event)),
            None => self.state().next(batch),
        }
    }

    pub(crate) fn poll(&self, batch: &mut Batch, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        if let Some(event) = batch.0.pop_front() {
            return Poll::Ready(Some(Received::Event(event)));
        }
        let mut state = self.state();
        match state.next(batch) {
            Next::Received(received) => Poll::Ready(Some(received)),
            Next::Ended => Poll::Ready(None),
            Next::Empty => {
                match &mut state.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.state().events.len()
    }

    pub(crate) fn missed_ever(&self) -> u64 {
        self.state().missed_ever
    }
}
