//! A busy host program: threads that allocate all the time, and many containers at once.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future;
use futures::stream::{self, StreamExt};
use longshore_runtime::{ContainerId, DeleteMode, Error, ErrorKind, ExecRequest, Executor, Io, KillScope, ProcessId};
use serde_json::json;

use super::{Place, chain, new_id, spec};

const SIGKILL: i32 = 9;

/// Threads that allocate and free as fast as they can, so that a clone finds the allocator's locks taken.
pub struct Noise {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Noise {
    pub fn start(threads: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let make = |seed: usize| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut kept: Vec<Vec<u8>> = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    for i in 0..64 {
                        kept.push(vec![0; (i * 37 + seed * 101) % 5000]);
                    }
                    kept.truncate(32);
                    std::thread::yield_now();
                }
            })
        };
        let threads = (0..threads).map(make).collect();
        Self { stop, threads }
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("it ends");
        }
    }
}

/// A runtime with more threads than this machine has CPUs.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(16)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn fail(error: &Error) -> ! {
    panic!("{}", chain(error))
}

/// A container's whole life; its exit code.
pub async fn one_life(place: &Place) -> u32 {
    let id = running(place, &["true"]).await;
    let ended = place.executor.wait(&id, &ProcessId::Init).await;
    let code = ended.unwrap_or_else(|e| fail(&e)).code;
    let deleted = place.executor.delete(&id, DeleteMode::Stopped).await;
    deleted.unwrap_or_else(|e| fail(&e));
    code
}

async fn running(place: &Place, args: &[&str]) -> ContainerId {
    let id = new_id();
    let created = place.executor.create(place.request(&id, &spec(args), Io::null())).await;
    created.unwrap_or_else(|e| fail(&e));
    place.executor.start(&id).await.unwrap_or_else(|e| fail(&e));
    id
}

/// This many lives, so many at once.
pub async fn lives(place: &Arc<Place>, count: usize, at_once: usize) {
    let lives = stream::iter(0..count).map(|_| {
        let place = Arc::clone(place);
        tokio::spawn(async move { one_life(&place).await })
    });
    let ended: Vec<_> = lives.buffer_unordered(at_once).collect().await;
    let codes: Vec<u32> = ended.into_iter().map(|life| life.expect("no panic")).collect();
    assert_eq!(codes.len(), count);
    assert!(codes.iter().all(|code| *code == 0), "{codes:?}");
}

/// This many containers, so many at once, in each of which processes are started while it is killed and deleted.
pub async fn turmoil(place: &Arc<Place>, count: usize, at_once: usize) {
    let containers = stream::iter(0..count).map(|number| {
        let place = Arc::clone(place);
        tokio::spawn(async move { turmoil_in_one(&place, number).await })
    });
    let ended: Vec<_> = containers.buffer_unordered(at_once).collect().await;
    ended.into_iter().for_each(|one| one.expect("no panic"));
}

async fn turmoil_in_one(place: &Place, number: usize) {
    let id = running(place, &["sleep", "1000"]).await;
    // Undisturbed, an exec works, whatever happens in the containers beside.
    assert_eq!(exec(place, &id, "first").await.unwrap_or_else(|e| fail(&e)), 0);
    let execs = future::join_all(["a", "b", "c"].map(|name| exec(place, &id, name)));
    let kill = async {
        // Not at once: each number meets the execs at another point.
        for _ in 0..number % 8 {
            tokio::task::yield_now().await;
        }
        place.executor.kill(&id, SIGKILL, KillScope::All).await
    };
    let delete = async {
        for _ in 0..(number / 8) % 8 {
            tokio::task::yield_now().await;
        }
        place.executor.delete(&id, DeleteMode::Force).await
    };
    let (execs, killed, deleted) = future::join3(execs, kill, delete).await;
    for done in execs {
        match done {
            Ok(code) => assert!(code == 0 || code == 128 + SIGKILL as u32, "{code}"),
            // It was killed before, or while it was on its way in.
            Err(error) => assert_ne!(error.kind(), ErrorKind::Corrupt, "{}", chain(&error)),
        }
    }
    if let Err(error) = killed {
        let kind = error.kind();
        let late = [ErrorKind::NotFound, ErrorKind::FailedPrecondition];
        assert!(late.contains(&kind), "{}", chain(&error));
    }
    deleted.unwrap_or_else(|e| fail(&e));
}

async fn exec(place: &Place, id: &ContainerId, name: &str) -> Result<u32, Error> {
    let process = json!({ "args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    let process = serde_json::from_value(process).expect("a process");
    let request = ExecRequest::new(name, process, Io::null());
    place.executor.exec(id, request).await?;
    let ended = place.executor.wait(id, &ProcessId::Exec(name.into())).await?;
    Ok(ended.code)
}

/// The mounts of this namespace that a container could have left: of its files, or where a container has mounts of its own. Others on
/// this machine mount what they like.
pub fn mounts(place: &Place) -> Vec<String> {
    let own = place.dir.path().to_str().expect("text");
    let is_at = |line: &str, top: &str| {
        let point = line.split(' ').nth(4).unwrap_or_default();
        point == "/"
            || point
                .strip_prefix(top)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let table = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let may_be_ours = |line: &&str| line.contains(own) || ["/dev", "/proc", "/sys"].iter().any(|top| is_at(line, top));
    table.lines().filter(may_be_ours).map(str::to_owned).collect()
}

/// The children of the whole program.
pub fn children() -> BTreeSet<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("readable");
    let lists = tasks.filter_map(|t| fs::read_to_string(t.ok()?.path().join("children")).ok());
    lists
        .flat_map(|l| l.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// What is in the state directory.
fn state(place: &Place) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(place.dir.path().join("state")).expect("readable");
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Waits until the program has no child and the executor no state.
pub fn until_nothing_is_left(place: &Place) {
    for _ in 0..1000 {
        if children().is_empty() && state(place).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("left: {:?} {:?}", children(), state(place));
}

/// All of it, beside threads that allocate.
pub fn storm(place: Place, count: usize) {
    let place = Arc::new(place);
    let (runtime, before) = (runtime(), mounts(&place));
    let noise = Noise::start(6);
    runtime.block_on(async {
        future::join(lives(&place, count, 32), turmoil(&place, count / 2, 16)).await;
    });
    drop(noise);
    assert_eq!(mounts(&place), before, "a mount was left behind");
    until_nothing_is_left(&place);
    let listed = runtime.block_on(place.executor.list()).expect("a list");
    assert!(listed.is_empty());
}
