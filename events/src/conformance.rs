//! The suite of the [`EventSink`] port. Each function panics with what does not hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use crate::{Event, EventKind, EventSink};

const THREADS: u32 = 8;
const EVENTS: u32 = 2_000;

/// An event that tells which thread emitted it and as what number.
fn numbered(thread: u32, number: u32) -> Event {
    let container_id = format!("thread-{thread}");
    Event::now(
        "conformance",
        EventKind::TaskStart {
            container_id,
            pid: number,
        },
    )
}

fn emit_from_many_threads(sink: &Arc<dyn EventSink>) {
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let sink = Arc::clone(sink);
            scope.spawn(move || (0..EVENTS).for_each(|number| sink.emit(numbered(thread, number))));
        }
    });
}

/// For every sink: more events than any queue holds, of every kind, from many threads, while nobody reads. It fails by a panic, or by not ending.
pub fn event_sink(sink: &Arc<dyn EventSink>) {
    for kind in every_kind() {
        sink.emit(Event::now("conformance", kind));
    }
    emit_from_many_threads(sink);
    // From a thread that is already panicking: a sink must not make an abort of it.
    let last = Arc::clone(sink);
    let outcome = thread::spawn(move || {
        struct EmitOnDrop(Arc<dyn EventSink>);
        impl Drop for EmitOnDrop {
            fn drop(&mut self) {
                self.0.emit(numbered(0, 0));
            }
        }
        let _guard = EmitOnDrop(last);
        std::panic::resume_unwind(Box::new("on purpose"));
    })
    .join();
    assert!(outcome.is_err(), "the thread was meant to panic");
}

/// For a sink that keeps everything: what one thread emits arrives complete and in its order. `observed` tells what has arrived.
pub fn keeps_order(sink: &Arc<dyn EventSink>, observed: impl FnOnce() -> Vec<Event>) {
    emit_from_many_threads(sink);
    let mut seen: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for event in observed() {
        if let EventKind::TaskStart { container_id, pid } = event.kind {
            seen.entry(container_id).or_default().push(pid);
        }
    }
    let expected: Vec<u32> = (0..EVENTS).collect();
    for thread in 0..THREADS {
        let numbers = seen.remove(&format!("thread-{thread}"));
        assert_eq!(numbers.as_ref(), Some(&expected), "the events of thread {thread}");
    }
    assert!(seen.is_empty(), "events that nobody emitted: {seen:?}");
}

/// One event of each kind, for tests of sinks and of what encodes events.
pub fn every_kind() -> Vec<EventKind> {
    let (id, digest, at) = (
        || "demo".to_owned(),
        || "sha256:00".to_owned(),
        std::time::SystemTime::UNIX_EPOCH,
    );
    let labels = || BTreeMap::from([("a".to_owned(), "b \n\"c\"".to_owned())]);
    vec![
        EventKind::ContentCreate {
            digest: digest(),
            size: 1,
        },
        EventKind::ContentDelete { digest: digest() },
        EventKind::ImageCreate {
            name: id(),
            labels: labels(),
        },
        EventKind::ImageUpdate {
            name: id(),
            labels: labels(),
        },
        EventKind::ImageDelete { name: id() },
        EventKind::SnapshotPrepare {
            key: id(),
            parent: Some(digest()),
            snapshotter: "overlay".into(),
        },
        EventKind::SnapshotCommit {
            key: id(),
            name: digest(),
            snapshotter: "overlay".into(),
        },
        EventKind::SnapshotRemove {
            key: id(),
            snapshotter: "overlay".into(),
        },
        EventKind::ContainerCreate { id: id(), image: id() },
        EventKind::ContainerDelete { id: id() },
        EventKind::TaskCreate {
            container_id: id(),
            bundle: "/b".into(),
            pid: 7,
        },
        EventKind::TaskStart {
            container_id: id(),
            pid: 7,
        },
        EventKind::TaskExit {
            container_id: id(),
            id: id(),
            pid: 7,
            exit_status: 137,
            exited_at: at,
        },
        EventKind::TaskDelete {
            container_id: id(),
            pid: 7,
            exit_status: 137,
            exited_at: at,
        },
        EventKind::TaskOom { container_id: id() },
        EventKind::TaskExecAdded {
            container_id: id(),
            exec_id: "e".into(),
        },
        EventKind::TaskExecStarted {
            container_id: id(),
            exec_id: "e".into(),
            pid: 8,
        },
        EventKind::TaskPaused { container_id: id() },
        EventKind::TaskResumed { container_id: id() },
        EventKind::TaskCheckpointed {
            container_id: id(),
            checkpoint: "/c".into(),
        },
        EventKind::ContainerUpdate {
            id: id(),
            image: id(),
            labels: labels(),
            snapshot_key: id(),
        },
        EventKind::NamespaceCreate {
            name: id(),
            labels: labels(),
        },
        EventKind::NamespaceUpdate {
            name: id(),
            labels: labels(),
        },
        EventKind::NamespaceDelete { name: id() },
        EventKind::Request {
            request: "start".into(),
            target: id(),
            outcome: "it is not there:\nnot at all".into(),
        },
    ]
}
