//! The journal: complete, in order, through crashes, rotation and several writers.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use longshore_events::{
    Event, EventKind, EventSink, Journal, JournalOptions, Replay, ReplayFrom, SyncPolicy, Told, conformance,
};

fn numbered(pid: u32) -> Event {
    let container_id = "demo".to_owned();
    Event::now("default", EventKind::TaskStart { container_id, pid })
}

/// What a journal tells: an event by its number, what was missed as a negative number.
fn told(directory: &Path, from: ReplayFrom) -> Vec<i64> {
    let replay = Replay::open(directory, from).expect("a replay");
    replay.map(|entry| shown(&entry.expect("an entry").told)).collect()
}

fn shown(told: &Told) -> i64 {
    match told {
        Told::Event(Event {
            kind: EventKind::TaskStart { pid, .. },
            ..
        }) => i64::from(*pid),
        Told::Missed(missed) => -i64::try_from(*missed).expect("not so many"),
        other => panic!("unexpected {other:?}"),
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    files.sort();
    files
}

#[test]
fn it_conforms_and_keeps_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let tiny = Journal::open(folder.path().join("tiny"), JournalOptions::default().capacity(8)).expect("a journal");
    conformance::event_sink(&(Arc::new(tiny) as Arc<dyn EventSink>));

    let directory = folder.path().join("roomy");
    let journal =
        Arc::new(Journal::open(&directory, JournalOptions::default().file_bytes(100_000)).expect("a journal"));
    let sink: Arc<dyn EventSink> = journal.clone();
    conformance::keeps_order(&sink, || {
        journal.flush().expect("flushed");
        let replay = journal.replay(ReplayFrom::Beginning).expect("a replay");
        replay
            .filter_map(|entry| entry.expect("an entry").event().cloned())
            .collect()
    });
    assert!(files(&directory).len() > 3, "it was rotated on the way");
    assert_eq!(journal.stats().missed, 0);
}

#[test]
fn numbers_go_on_after_reopening_and_time_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = || {
        JournalOptions::default()
            .file_bytes(1)
            .sync(SyncPolicy::Every(Duration::from_millis(1)))
    };
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    for pid in 1..=4 {
        let journal = Journal::open(folder.path(), options()).expect("a journal");
        let mut event = numbered(pid);
        event.time = at(u64::from(pid) * 10);
        journal.emit(event);
        assert_eq!(journal.flush().expect("flushed"), u64::from(pid));
    }
    assert_eq!(told(folder.path(), ReplayFrom::Beginning), [1, 2, 3, 4]);
    assert_eq!(told(folder.path(), ReplayFrom::Sequence(3)), [3, 4]);
    for (seconds, expected) in [
        (0, vec![1, 2, 3, 4]),
        (20, vec![2, 3, 4]),
        (25, vec![3, 4]),
        (41, vec![]),
    ] {
        assert_eq!(
            told(folder.path(), ReplayFrom::Time(at(seconds))),
            expected,
            "from {seconds} s"
        );
    }
    assert_eq!(told(&folder.path().join("none"), ReplayFrom::Beginning), [0; 0]);
}

#[test]
fn a_torn_tail_is_cut_wherever_it_was_torn() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = folder.path().join("whole");
    let journal = Journal::open(&whole, JournalOptions::default()).expect("a journal");
    (1..=3).for_each(|pid| journal.emit(numbered(pid)));
    drop(journal);
    let name = files(&whole)[0].file_name().expect("a name").to_owned();
    let bytes = std::fs::read(whole.join(&name)).expect("the file");
    let second_ends = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .nth(1)
        .expect("lines")
        .0
        + 1;
    for length in second_ends..bytes.len() {
        let torn = folder.path().join("torn");
        std::fs::create_dir_all(&torn).expect("a folder");
        std::fs::write(torn.join(&name), &bytes[..length]).expect("written");
        assert_eq!(
            told(&torn, ReplayFrom::Beginning),
            [1, 2],
            "a reader stops before half a line"
        );
        let journal = Journal::open(&torn, JournalOptions::default().sync(SyncPolicy::Never)).expect("a journal");
        journal.emit(numbered(4));
        assert_eq!(journal.flush().expect("flushed"), 3);
        drop(journal);
        assert_eq!(told(&torn, ReplayFrom::Beginning), [1, 2, 4], "torn at {length}");
        std::fs::remove_dir_all(&torn).expect("removed");
    }
}

#[test]
fn damage_in_the_middle_is_told_and_the_rest_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(folder.path(), JournalOptions::default()).expect("a journal");
    (1..=5).for_each(|pid| journal.emit(numbered(pid)));
    drop(journal);
    let path = files(folder.path()).remove(0);
    let mut bytes = std::fs::read(&path).expect("the file");
    let line = bytes.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    bytes[line + 20] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    assert_eq!(told(folder.path(), ReplayFrom::Beginning), [1, -1, 3, 4, 5]);
    let journal = Journal::open(folder.path(), JournalOptions::default()).expect("a journal");
    journal.emit(numbered(6));
    assert_eq!(journal.flush().expect("flushed"), 6);
}

#[test]
fn old_files_go_and_that_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = JournalOptions::default().file_bytes(200).keep_bytes(500);
    let journal = Journal::open(folder.path(), options).expect("a journal");
    for pid in 1..=40 {
        journal.emit(numbered(pid));
        journal.flush().expect("flushed");
    }
    let size: u64 = files(folder.path())
        .iter()
        .map(|path| path.metadata().expect("a file").len())
        .sum();
    assert!(size < 1_000, "{size}");
    let all = told(folder.path(), ReplayFrom::Beginning);
    assert!(all.len() < 10 && all.last() == Some(&40) && all[0] > 0, "{all:?}");
    let from_one = told(folder.path(), ReplayFrom::Sequence(1));
    assert_eq!(
        (from_one[0], &from_one[1..]),
        (1 - all[0], &all[..]),
        "what is gone is counted"
    );
    drop(journal);
    thread::sleep(Duration::from_millis(5));
    let options = JournalOptions::default()
        .file_bytes(1)
        .keep_for(Duration::from_millis(1));
    let journal = Journal::open(folder.path(), options).expect("a journal");
    journal.emit(numbered(41));
    journal.flush().expect("flushed");
    assert_eq!(
        told(folder.path(), ReplayFrom::Beginning),
        [41],
        "all others are too old"
    );
}

#[test]
fn a_full_queue_blocks_nobody_and_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(folder.path(), JournalOptions::default().capacity(2)).expect("a journal");
    // As if another process were in the middle of a long batch.
    let lock = std::fs::File::open(folder.path().join("lock")).expect("the lock");
    lock.lock().expect("locked");
    // The writer takes what it finds, once, and waits for the lock; two more fit, and the others do not.
    while journal.stats().missed < 10 {
        journal.emit(numbered(1));
    }
    let missed = i64::try_from(journal.stats().missed).expect("not so many");
    lock.unlock().expect("unlocked");
    journal.flush().expect("flushed");
    let told = told(folder.path(), ReplayFrom::Beginning);
    assert_eq!(told.iter().filter(|n| **n < 0).sum::<i64>(), -missed, "{told:?}");
    assert_eq!(told.iter().filter(|n| **n > 0).count() as u64, journal.stats().written);
}

#[test]
fn several_writers_share_one_journal() {
    let folder = tempfile::tempdir().expect("a folder");
    thread::scope(|scope| {
        for writer in 0..4_u32 {
            let directory = folder.path();
            scope.spawn(move || {
                let options = JournalOptions::default().file_bytes(5_000).sync(SyncPolicy::Never);
                let journal = Journal::open(directory, options).expect("a journal");
                for number in 0..100 {
                    journal.emit(numbered(writer * 1_000 + number));
                    if number % 7 == 0 {
                        journal.flush().expect("flushed");
                    }
                }
            });
        }
    });
    let replay = Replay::open(folder.path(), ReplayFrom::Beginning).expect("a replay");
    let entries: Vec<_> = replay.map(|entry| entry.expect("an entry")).collect();
    let numbers: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(numbers, (1..=400).collect::<Vec<_>>());
    for writer in 0..4 {
        let of_it = entries
            .iter()
            .map(|entry| shown(&entry.told))
            .filter(|pid| pid / 1_000 == writer);
        assert_eq!(
            of_it.collect::<Vec<_>>(),
            (0..100).map(|n| writer * 1_000 + n).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_reader_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(folder.path(), JournalOptions::default().file_bytes(300)).expect("a journal");
    let mut all = journal.replay(ReplayFrom::Beginning).expect("a replay");
    assert!(all.next().is_none());
    journal.emit(numbered(1));
    journal.flush().expect("flushed");
    let mut new = journal.replay(ReplayFrom::Now).expect("a replay");
    assert!(new.next().is_none());
    for pid in 2..30 {
        journal.emit(numbered(pid));
        journal.flush().expect("flushed");
        if pid % 3 == 0 {
            let read = |replay: &mut Replay| replay.map(|e| shown(&e.expect("an entry").told)).collect::<Vec<_>>();
            let pid = i64::from(pid);
            let first = if pid == 3 { 1 } else { pid - 2 };
            assert_eq!(read(&mut all), (first..=pid).collect::<Vec<_>>());
            assert_eq!(read(&mut new), (first.max(2)..=pid).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_directory_that_goes_away_is_told_when_it_is_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("events");
    let journal = Journal::open(&directory, JournalOptions::default()).expect("a journal");
    journal.emit(numbered(1));
    journal.flush().expect("flushed");
    std::fs::remove_dir_all(&directory).expect("removed");
    journal.emit(numbered(2));
    let error = journal.flush().expect_err("nowhere to write");
    assert!(error.to_string().contains("events-"), "{error}");
    assert_eq!(journal.stats().missed, 1);
    std::fs::create_dir(&directory).expect("made");
    journal.emit(numbered(3));
    journal.flush().expect("flushed");
    assert_eq!(told(&directory, ReplayFrom::Beginning), [-1, 3]);
}

const CHILD: &str = "LONGSHORE_EVENTS_CRASH_CHILD";

/// A process that is killed while it writes loses nothing that was acknowledged.
#[test]
fn what_was_flushed_survives_a_kill() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let journal = Journal::open(directory, JournalOptions::default().file_bytes(2_000)).expect("a journal");
        for pid in 1.. {
            journal.emit(numbered(pid));
            if pid % 3 == 0 {
                println!("acknowledged {}", journal.flush().expect("flushed"));
            }
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut last = 0;
    for round in 0..15 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "what_was_flushed_survives_a_kill", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a writer");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut acknowledged = last;
        let mut note = |line: String| {
            if let Some((_, number)) = line.split_once("acknowledged ") {
                acknowledged = number.parse::<u64>().expect("a number");
            }
        };
        for _ in 0..5 + round {
            note(lines.next().expect("it goes on").expect("a line"));
        }
        thread::sleep(Duration::from_micros(round * 211));
        child.kill().expect("kill");
        child.wait().expect("it ends");
        lines.map_while(Result::ok).for_each(&mut note);
        // What a new writer finds is what was told, and nothing half.
        drop(Journal::open(folder.path(), JournalOptions::default()).expect("a journal"));
        let replay = Replay::open(folder.path(), ReplayFrom::Beginning).expect("a replay");
        let numbers: Vec<u64> = replay.map(|entry| entry.expect("an entry").sequence).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        last = numbers.len() as u64;
        assert!(last >= acknowledged, "{acknowledged} acknowledged, {last} there");
    }
    assert!(last > 100, "the writers wrote too little to mean anything: {last}");
}
