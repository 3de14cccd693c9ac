//! A process that is killed while it writes loses nothing that was acknowledged, and never half a batch.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use longshore_metadata::{Batch, Key, Labels, Lease, MetadataStore, MetadataStoreExt, RedbStore, Value};

const CHILD: &str = "LONGSHORE_METADATA_CRASH_CHILD";

/// Two records at once, so that half a batch would be seen.
fn pair(number: u64) -> Batch {
    let put = |batch: Batch, side: &str| {
        let key = Key::lease(side, format!("{number:08}"));
        batch.create(key, Labels::new(), Value::Lease(Lease::default()))
    };
    put(put(Batch::new(), "left"), "right")
}

/// What the killed process does: writes pairs from a number on, and prints each number once it is acknowledged.
async fn write_for_ever(path: &Path, from: u64) {
    let store = RedbStore::open(path).await.expect("open");
    for number in from.. {
        store.apply(pair(number)).await.expect("apply");
        println!("acknowledged {number}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    if let Some(given) = std::env::var_os(CHILD) {
        let given = given.into_string().expect("a path and a number");
        let (from, path) = given.split_once(':').expect("a path and a number");
        return write_for_ever(Path::new(path), from.parse().expect("a number")).await;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("metadata.redb");
    let mut next = 0;
    for round in 0_u64..20 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "what_was_acknowledged_survives_a_kill", "--nocapture"])
            .env(CHILD, format!("{next}:{}", path.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the writer");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut acknowledged = next;
        let mut note = |line: String| {
            if let Some((_, number)) = line.split_once("acknowledged ") {
                acknowledged = number.parse::<u64>().expect("a number") + 1;
            }
        };
        // A different moment of the writer's work each time, some of them in its first commit.
        for _ in 0..round * 2 {
            note(lines.next().expect("the writer goes on").expect("a line"));
        }
        std::thread::sleep(Duration::from_micros(round * 137));
        child.kill().expect("kill");
        child.wait().expect("the writer ends");
        lines.map_while(Result::ok).for_each(&mut note);

        let store = RedbStore::open(&path).await.expect("open what the killed one left");
        let names = async |side| {
            let leases = store.leases(side).await.expect("leases");
            leases
                .into_iter()
                .map(|lease| lease.name.parse::<u64>().expect("a number"))
                .collect::<Vec<_>>()
        };
        let left = names("left").await;
        assert_eq!(left, names("right").await, "round {round}: half a batch");
        let there = left.len() as u64;
        assert_eq!(left, (0..there).collect::<Vec<_>>(), "round {round}: a gap");
        assert!(
            there == acknowledged || there == acknowledged + 1,
            "round {round}: {acknowledged} acknowledged, {there} there"
        );
        next = there;
    }
    assert!(next > 100, "the writers wrote too little to mean anything: {next}");
}

/// Prints how long a look-up takes, alone and beside a writer; asserts nothing about it.
#[tokio::test(flavor = "multi_thread")]
async fn lookups_beside_a_writer() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = std::sync::Arc::new(RedbStore::open(dir.path().join("metadata.redb")).await.expect("open"));
    let mut batch = Batch::new();
    for number in 0..2_000 {
        batch = batch.put(
            Key::lease("left", format!("{number:08}")),
            Labels::new(),
            Value::Lease(Lease::default()),
        );
    }
    store.apply(batch).await.expect("fill");
    let measure = async |what: &str| {
        let mut times = Vec::new();
        for number in 0..2_000 {
            let started = Instant::now();
            assert!(
                store
                    .get(&Key::lease("left", format!("{number:08}")))
                    .await
                    .expect("get")
                    .is_some()
            );
            times.push(started.elapsed());
        }
        times.sort_unstable();
        eprintln!(
            "look-up {what}: median {:?}, p99 {:?}, worst {:?}",
            times[1_000], times[1_980], times[1_999]
        );
    };
    measure("alone").await;
    let writer = tokio::spawn({
        let store = std::sync::Arc::clone(&store);
        async move {
            for number in 10_000_u64.. {
                store.apply(pair(number)).await.expect("apply");
            }
        }
    });
    measure("beside a writer").await;
    writer.abort();
    let _ = writer.await;
}

#[tokio::test]
async fn a_store_that_was_killed_while_it_was_made_opens() {
    if let Some(path) = std::env::var_os(CHILD) {
        println!("opening");
        RedbStore::open(Path::new(&path)).await.expect("open");
        println!("opened");
        return;
    }
    for round in 0_u64..40 {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("metadata.redb");
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args([
                "--exact",
                "a_store_that_was_killed_while_it_was_made_opens",
                "--nocapture",
            ])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the maker");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        assert!(lines.any(|line| line.expect("a line").contains("opening")), "it begins");
        std::thread::sleep(Duration::from_micros(round * 200));
        child.kill().expect("kill");
        child.wait().expect("the maker ends");

        let store = RedbStore::open(&path).await.expect("open what the killed one left");
        store.apply(pair(round)).await.expect("apply");
    }
}

#[tokio::test]
async fn a_file_that_was_never_finished_is_no_hindrance() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("metadata.redb");
    std::fs::write(dir.path().join("metadata.redb.new"), "half").expect("a file");
    let store = RedbStore::open(&path).await.expect("open");
    store.apply(pair(1)).await.expect("apply");
    assert!(!dir.path().join("metadata.redb.new").exists());
}
