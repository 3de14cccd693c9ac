use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;

use crate::queue::{Batch, Next, Queue};
use crate::{Event, EventSink, Filter, park};

/// What a [`Subscription`] yields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received {
    /// An event, shared with the other subscribers.
    Event(Arc<Event>),
    /// This subscriber was too slow: so many events were dropped here, between the one before and the one that follows.
    Missed(u64),
}

impl Received {
    /// The event, if it is one.
    pub fn event(&self) -> Option<&Event> {
        match self {
            Self::Event(event) => Some(event),
            Self::Missed(_) => None,
        }
    }
}

/// Figures of a [`Bus`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BusStats {
    /// Events that were emitted.
    pub emitted: u64,
    /// Events that a subscriber missed, added up over all subscribers that there ever were.
    pub missed: u64,
    /// Subscribers of this moment.
    pub subscribers: usize,
    /// Events that wait for a subscriber, added up over all subscribers.
    pub queued: usize,
}

/// Events from many to many, in memory. A clone is another handle of the same bus.
///
/// Every subscriber has a bounded queue of its own, and takes up to 64 events out of it at once. When it is full the oldest event gives way, and the subscriber is told how many it missed, at the place
/// where they would have been. So [`emit`](EventSink::emit) costs the same whether subscribers read or not: a read lock that only
/// (un)subscribing contends with, and for each subscriber that wants the event a lock held for the time of a push.
///
/// Events that were emitted before a subscription began are not seen by it; a journal keeps those.
///
/// ```
/// use futures::StreamExt;
/// use longshore_events::{Bus, Event, EventKind, EventSink, Filter, Received};
///
/// let bus = Bus::new(128);
/// let mut tasks = bus.subscribe(Filter::all().topic("/tasks/"));
/// bus.emit(Event::now("default", EventKind::TaskStart { container_id: "demo".into(), pid: 7 }));
/// drop(bus); // the stream ends when the bus is gone
///
/// futures::executor::block_on(async {
///     while let Some(received) = tasks.next().await {
///         match received {
///             Received::Event(event) => println!("{event}"),
///             Received::Missed(n) => println!("{n} events were missed"),
///             _ => {}
///         }
///     }
/// });
/// ```
#[derive(Clone, Debug)]
pub struct Bus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    capacity: usize,
    emitted: AtomicU64,
    /// Missed by subscribers that have gone.
    missed_before: AtomicU64,
    subscribers: RwLock<Vec<Arc<Queue>>>,
}

impl Shared {
    fn subscribers(&self) -> RwLockReadGuard<'_, Vec<Arc<Queue>>> {
        self.subscribers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscribers_mut(&self) -> RwLockWriteGuard<'_, Vec<Arc<Queue>>> {
        self.subscribers.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for queue in self.subscribers().iter() {
            queue.close();
        }
    }
}

impl Bus {
    /// A bus whose subscribers have room for `capacity` events each (at least one).
    pub fn new(capacity: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                capacity: capacity.max(1),
                emitted: AtomicU64::new(0),
                missed_before: AtomicU64::new(0),
                subscribers: RwLock::new(Vec::new()),
            }),
        }
    }

    /// Subscribes to the events that match, from now on.
    pub fn subscribe(&self, filter: Filter) -> Subscription {
        self.subscribe_with_capacity(filter, self.shared.capacity)
    }

    /// The same with room for another number of events (at least one) than the bus's usual one.
    pub fn subscribe_with_capacity(&self, filter: Filter, capacity: usize) -> Subscription {
        let queue = Arc::new(Queue::new(filter, capacity.max(1)));
        self.shared.subscribers_mut().push(Arc::clone(&queue));
        Subscription {
            queue,
            batch: Batch::default(),
            pace: Pace::default(),
            bus: Arc::downgrade(&self.shared),
        }
    }

    /// How it is doing.
    pub fn stats(&self) -> BusStats {
        let subscribers = self.shared.subscribers();
        let mut stats = BusStats {
            emitted: self.shared.emitted.load(Ordering::Relaxed),
            missed: self.shared.missed_before.load(Ordering::Relaxed),
            subscribers: subscribers.len(),
            queued: 0,
        };
        for queue in subscribers.iter() {
            stats.missed += queue.missed_ever();
            stats.queued += queue.len();
        }
        stats
    }
}

impl EventSink for Bus {
    fn emit(&self, event: Event) {
        self.shared.emitted.fetch_add(1, Ordering::Relaxed);
        let subscribers = self.shared.subscribers();
        if subscribers.is_empty() {
            return;
        }
        let event = Arc::new(event);
        for queue in subscribers.iter().filter(|queue| queue.wants(&event)) {
            queue.push(Arc::clone(&event));
        }
    }
}

/// One subscriber's end of a [`Bus`]: a stream that needs no particular executor, and a blocking receiver besides.
///
/// It ends when every handle of the bus is gone and the queue is empty. Dropping it unsubscribes.
#[derive(Debug)]
#[must_use = "dropping a subscription unsubscribes"]
pub struct Subscription {
    queue: Arc<Queue>,
    batch: Batch,
    pace: Pace,
    bus: Weak<Shared>,
}

impl Subscription {
    /// Waits for the next event on this thread; `None` is the end. Not for use in async code: there, the subscription is a stream.
    pub fn recv(&mut self) -> Option<Received> {
        loop {
            match self.recv_timeout(Duration::MAX) {
                Waited::Received(received) => return Some(received),
                Waited::Ended => return None,
                Waited::TimedOut => {}
            }
        }
    }

    /// The same, for no longer than `timeout`: then it is [`Waited::TimedOut`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Waited {
        match self.queue.take(&mut self.batch) {
            Next::Received(received) => return Waited::Received(received),
            Next::Ended => return Waited::Ended,
            Next::Empty => self.pace.rest(timeout),
        }
        let deadline = Instant::now().checked_add(timeout);
        let waited = park::block_until(deadline, |cx| self.queue.poll(&mut self.batch, cx));
        self.pace.woken();
        match waited {
            Some(Some(received)) => Waited::Received(received),
            Some(None) => Waited::Ended,
            None => Waited::TimedOut,
        }
    }

    /// What waits already, without waiting; `None` when nothing does.
    pub fn try_recv(&mut self) -> Option<Received> {
        match self.queue.take(&mut self.batch) {
            Next::Received(received) => Some(received),
            Next::Empty | Next::Ended => None,
        }
    }
}

/// How often a thread that waits lets itself be woken.
///
/// Waking costs whoever emits more than all the rest. A reader that keeps up would be woken for every event of many, so one that was woken just now
/// rests for a moment before it asks to be woken again.
#[derive(Debug, Default)]
struct Pace {
    woken: Option<Instant>,
}

impl Pace {
    /// The rest. An event that comes in it waits so long.
    const REST: Duration = Duration::from_micros(500);

    fn rest(&self, at_most: Duration) {
        if self.woken.is_some_and(|woken| woken.elapsed() < Self::REST) {
            std::thread::sleep(Self::REST.min(at_most));
        }
    }

    fn woken(&mut self) {
        self.woken = Some(Instant::now());
    }
}

/// What came of [`Subscription::recv_timeout`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waited {
    /// This.
    Received(Received),
    /// Nothing came in time.
    TimedOut,
    /// The bus is gone.
    Ended,
}

impl Stream for Subscription {
    type Item = Received;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        let Self { queue, batch, .. } = self.get_mut();
        queue.poll(batch, cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(bus) = self.bus.upgrade() else { return };
        bus.missed_before.fetch_add(self.queue.missed_ever(), Ordering::Relaxed);
        bus.subscribers_mut().retain(|queue| !Arc::ptr_eq(queue, &self.queue));
    }
}
