//! Being attached to a container: its output, its input, its terminal; and readers that do not keep up.

mod support;

use std::thread::JoinHandle;

use longshore_runtime::{
    Attachment, ContainerId, DeleteMode, ErrorKind, Executor, Io, Lifetime, LinuxExecutor, LogFile, LogReader,
    OutputStream, ProcessId, Shown,
};
use support::{Place, new_id, place, spec};

/// Creates a detached container that logs, and takes input of those who are attached.
async fn create(place: &Place, script: &str, terminal: bool) -> (ContainerId, LogFile) {
    let (id, mut spec) = (new_id(), spec(&["sh", "-c", script]));
    spec["process"]["terminal"] = terminal.into();
    let log = LogFile::new(place.dir.path().join(format!("{id}.log")));
    let request = place.request(&id, &spec, Io::log_with_input(log.clone()));
    place
        .executor
        .create(request.lifetime(Lifetime::Detached))
        .await
        .expect("created");
    (id, log)
}

/// Everything that comes until the container ends.
#[derive(Debug, Default)]
struct Heard {
    stdout: String,
    stderr: String,
    missed: u64,
}

fn hear(attachment: &Attachment, until: Option<&str>) -> Heard {
    let mut heard = Heard::default();
    while let Some(shown) = attachment.next().expect("readable") {
        match shown {
            Shown::Output(OutputStream::Stdout, bytes) => heard.stdout += &String::from_utf8_lossy(&bytes),
            Shown::Output(OutputStream::Stderr, bytes) => heard.stderr += &String::from_utf8_lossy(&bytes),
            Shown::Missed(bytes) => heard.missed += bytes,
            _ => {}
        }
        if until.is_some_and(|until| heard.stdout.contains(until)) {
            break;
        }
    }
    heard
}

fn hear_all(attachment: Attachment) -> JoinHandle<Heard> {
    std::thread::spawn(move || hear(&attachment, None))
}

#[tokio::test(flavor = "multi_thread")]
async fn several_see_the_same_and_may_type() {
    let Some(place) = place() else { return };
    let script = "echo ready; while read line; do echo got $line; done; echo bye >&2; exit 3";
    let (id, log) = create(&place, script, false).await;
    let other = LinuxExecutor::open_on_this_thread(place.dir.path().join("state")).expect("it opens");
    let first = place.executor.attach(&id).await.expect("attached");
    let second = other.attach(&id).await.expect("attached");
    let looks = hear_all(other.attach(&id).await.expect("attached"));
    place.executor.start(&id).await.expect("started");
    first.input(b"one\n").expect("typed");
    assert_eq!(hear(&first, Some("one\n")).stdout, "ready\ngot one\n");
    drop(first);
    let again = place.executor.attach(&id).await.expect("attached again");
    again.input(b"two\n").expect("typed");
    assert_eq!(
        hear(&again, Some("two\n")).stdout,
        "got two\n",
        "what comes from now on"
    );
    second.close_input().expect("told");
    let last = hear(&second, None);
    assert_eq!(
        (last.stdout.as_str(), last.stderr.as_str()),
        ("ready\ngot one\ngot two\n", "bye\n")
    );
    assert_eq!(looks.join().expect("no panic").stdout, last.stdout);
    assert_eq!(
        place.executor.wait(&id, &ProcessId::Init).await.expect("it ends").code,
        3
    );
    let records = LogReader::open(log.path()).expect("it opens").all().expect("readable");
    let text: Vec<u8> = records.into_iter().flat_map(|record| record.text).collect();
    assert_eq!(String::from_utf8_lossy(&text), "ready\ngot one\ngot two\nbye\n");
    let error = place.executor.attach(&id).await.expect_err("it has ended");
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_does_not_wait_for_a_slow_reader_who_is_told_what_he_missed() {
    let Some(place) = place() else { return };
    let (id, log) = create(&place, "yes 0123456789 | head -n 200000; echo end", false).await;
    let slow = place.executor.attach(&id).await.expect("attached");
    place.executor.start(&id).await.expect("started");
    assert_eq!(
        place.executor.wait(&id, &ProcessId::Init).await.expect("it ends").code,
        0
    );
    let heard = hear(&slow, None);
    let total = 200_000 * 11 + 4;
    assert!(heard.missed > 0, "nobody has so much room");
    assert!(heard.stdout.starts_with("0123456789\n"));
    assert_eq!(heard.stdout.len() as u64 + heard.missed, total);
    let records = LogReader::open(log.path()).expect("it opens").all().expect("readable");
    let logged: usize = records.iter().map(|record| record.text.len()).sum();
    assert_eq!(logged as u64, total, "the log has it all");
    place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_the_size_that_it_is_told() {
    let Some(place) = place() else { return };
    let (id, _) = create(&place, "read line; stty size; read line; exit 4", true).await;
    let attachment = place.executor.attach(&id).await.expect("attached");
    place.executor.start(&id).await.expect("started");
    attachment.resize(33, 99).expect("told");
    attachment.input(b"\n").expect("typed");
    let heard = hear(&attachment, Some("33 99"));
    assert!(heard.stdout.contains("33 99"), "{heard:?}");
    attachment.input(b"\n").expect("typed");
    assert_eq!(
        place.executor.wait(&id, &ProcessId::Init).await.expect("it ends").code,
        4
    );
    place.executor.delete(&id, DeleteMode::Stopped).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn input_waits_for_a_container_that_reads_slowly_and_none_is_lost() {
    let Some(place) = place() else { return };
    let (id, _) = create(&place, "sleep 0.3; wc -c", false).await;
    let attachment = place.executor.attach(&id).await.expect("attached");
    place.executor.start(&id).await.expect("started");
    let typed = std::thread::spawn(move || {
        attachment.input(&vec![b'x'; 1_000_000]).expect("typed");
        attachment.close_input().expect("told");
        attachment
    });
    let attachment = typed.join().expect("no panic");
    assert_eq!(hear(&attachment, None).stdout.trim(), "1000000");
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn detaching_ends_the_wait_of_who_reads() {
    let Some(place) = place() else { return };
    let (id, _) = create(&place, "read line", false).await;
    let attachment = std::sync::Arc::new(place.executor.attach(&id).await.expect("attached"));
    place.executor.start(&id).await.expect("started");
    let reads = std::thread::spawn({
        let attachment = attachment.clone();
        move || hear(&attachment, None)
    });
    attachment.detach();
    assert_eq!(reads.join().expect("no panic").stdout, "");
    let state = place.executor.state(&id).await.expect("known");
    assert_eq!(state.status, longshore_runtime::Status::Running);
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
}

#[tokio::test]
async fn nobody_is_attached_where_nobody_listens() {
    let Some(place) = place() else { return };
    let id = new_id();
    let request = place.request(&id, &spec(&["sleep", "1000"]), Io::null());
    place
        .executor
        .create(request.lifetime(Lifetime::Detached))
        .await
        .expect("created");
    let error = place.executor.attach(&id).await.expect_err("it has no log");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    place.executor.delete(&id, DeleteMode::Force).await.expect("deleted");
    let log = LogFile::new(place.dir.path().join("log"));
    let request = place.request(&id, &spec(&["true"]), Io::log_with_input(log));
    let error = place.executor.create(request).await.expect_err("it has no monitor");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}
