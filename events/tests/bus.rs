//! The bus and the small sinks.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures::StreamExt;
use longshore_events::{
    Bus, Event, EventKind, EventSink, Fanout, Filter, FnSink, NullSink, Received, Recorder, Waited, conformance,
};

fn numbered(number: u32) -> Event {
    Event::now(
        "default",
        EventKind::TaskStart {
            container_id: "demo".into(),
            pid: number,
        },
    )
}

fn pids(received: impl IntoIterator<Item = Received>) -> Vec<u32> {
    let pid = |received: Received| match received.event().map(|event| event.kind.clone()) {
        Some(EventKind::TaskStart { pid, .. }) => pid,
        other => panic!("unexpected {other:?}"),
    };
    received.into_iter().map(pid).collect()
}

#[test]
fn every_sink_conforms() {
    let bus = Bus::new(8);
    let _stalled = bus.subscribe(Filter::all());
    let all: Vec<Arc<dyn EventSink>> = vec![
        Arc::new(NullSink),
        Arc::new(Recorder::new()),
        Arc::new(FnSink::new(drop)),
        Arc::new(FnSink::new(|event: Event| {
            assert_ne!(event.topic(), "/tasks/oom", "on purpose")
        })),
        Arc::new(Fanout::default().and(NullSink).and(bus.clone())),
        Arc::new(bus),
    ];
    for sink in &all {
        conformance::event_sink(sink);
    }
}

#[test]
fn sinks_that_keep_everything_keep_order() {
    let recorder = Recorder::new();
    let sink: Arc<dyn EventSink> = Arc::new(Fanout::default().and(NullSink).and(recorder.clone()));
    conformance::keeps_order(&sink, || recorder.take());

    let bus = Bus::new(100_000);
    let mut subscription = bus.subscribe(Filter::all());
    let sink: Arc<dyn EventSink> = Arc::new(bus);
    conformance::keeps_order(&sink, || {
        std::iter::from_fn(|| subscription.try_recv())
            .filter_map(|r| r.event().cloned())
            .collect()
    });
}

#[test]
fn a_slow_subscriber_is_told_what_it_missed_and_others_are_not_disturbed() {
    let bus = Bus::new(4);
    let mut slow = bus.subscribe(Filter::all());
    let mut roomy = bus.subscribe_with_capacity(Filter::all(), 100);
    (0..10).for_each(|number| bus.emit(numbered(number)));

    assert_eq!(slow.try_recv(), Some(Received::Missed(6)));
    assert_eq!(pids(std::iter::from_fn(|| slow.try_recv())), [6, 7, 8, 9]);
    assert_eq!(
        pids(std::iter::from_fn(|| roomy.try_recv())),
        (0..10).collect::<Vec<_>>()
    );
    bus.emit(numbered(10));
    assert_eq!(pids(slow.try_recv()), [10], "missed events are told once");

    let stats = bus.stats();
    assert_eq!(
        (stats.emitted, stats.missed, stats.subscribers, stats.queued),
        (11, 6, 2, 1)
    );
    drop((slow, roomy));
    let stats = bus.stats();
    assert_eq!((stats.missed, stats.subscribers, stats.queued), (6, 0, 0));
}

#[test]
fn the_stream_wakes_and_ends() {
    let bus = Bus::new(4);
    let subscription = bus.subscribe(Filter::all());
    let reader = thread::spawn(move || futures::executor::block_on(subscription.collect::<Vec<_>>()));
    (0..3).for_each(|number| {
        bus.emit(numbered(number));
        thread::sleep(Duration::from_millis(5));
    });
    drop(bus);
    assert_eq!(pids(reader.join().expect("the reader ends")), [0, 1, 2]);
}

#[tokio::test]
async fn the_stream_works_on_tokio() {
    let bus = Bus::new(4);
    let mut subscription = bus.subscribe(Filter::all());
    let emitter = tokio::spawn({
        let bus = bus.clone();
        async move { bus.emit(numbered(1)) }
    });
    assert_eq!(pids(subscription.next().await), [1]);
    emitter.await.expect("the emitter ends");
}

#[test]
fn blocking_receivers_wait_time_out_and_end() {
    let bus = Bus::new(4);
    let mut subscription = bus.subscribe(Filter::all());
    assert_eq!(subscription.recv_timeout(Duration::from_millis(1)), Waited::TimedOut);
    let emitter = thread::spawn({
        let bus = bus.clone();
        move || {
            thread::sleep(Duration::from_millis(20));
            bus.emit(numbered(1));
        }
    });
    assert_eq!(pids(subscription.recv()), [1]);
    emitter.join().expect("the emitter ends");
    drop(bus);
    assert_eq!(subscription.recv(), None);
    assert_eq!(subscription.recv_timeout(Duration::from_secs(60)), Waited::Ended);
}

#[test]
fn a_line_can_not_be_forged() {
    for kind in conformance::every_kind() {
        let line = Event::now("default", kind.clone()).to_string();
        assert!(!line.contains('\n') && line.contains(kind.topic()), "{line}");
    }
    let name = "x\n1970-01-01T00:00:00Z default /tasks/oom container_id=forged".to_owned();
    let line = EventKind::ImageDelete { name }.to_string();
    assert_eq!(
        line,
        r#"/images/delete name="x\n1970-01-01T00:00:00Z default /tasks/oom container_id=forged""#
    );
}

#[test]
fn every_kind_survives_serde() {
    for kind in conformance::every_kind() {
        let event = Event::now("default", kind);
        let json = serde_json::to_string(&event).expect("events serialise");
        assert_eq!(serde_json::from_str::<Event>(&json).expect("and back"), event, "{json}");
    }
}
