//! The executor inside a busy program: many threads, all allocating, many containers at once, and an allocator that ends a child
//! that allocates between its clone and its program.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use futures::stream::{self, StreamExt};
use longshore_runtime::{DeleteMode, Executor, Io, ProcessId};
use nix::libc;
use support::{Place, chain, new_id, place, spec};

/// Ends any process but the one that it was told of.
struct OnlyInParent;

static PARENT: AtomicI32 = AtomicI32::new(0);

fn check() {
    let parent = PARENT.load(Ordering::Relaxed);
    // SAFETY: getpid takes no arguments; the raw call, because libc's might remember the parent's.
    if parent != 0 && unsafe { libc::syscall(libc::SYS_getpid) } != libc::c_long::from(parent) {
        // SAFETY: both are async-signal-safe.
        unsafe {
            let text = b"the child allocates\n";
            libc::write(2, text.as_ptr().cast(), text.len());
            libc::abort();
        }
    }
}

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for OnlyInParent {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        check();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: OnlyInParent = OnlyInParent;

/// Threads that allocate and free as fast as they can, so that a clone finds the allocator's locks taken.
struct Noise {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Noise {
    fn start(threads: usize) -> Self {
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

async fn one_life(place: &Place) -> u32 {
    let id = new_id();
    let fail = |e: longshore_runtime::Error| -> ! { panic!("{}", chain(&e)) };
    place
        .executor
        .create(place.request(&id, &spec(&["true"]), Io::null()))
        .await
        .unwrap_or_else(|e| fail(e));
    place.executor.start(&id).await.unwrap_or_else(|e| fail(e));
    let exit = place
        .executor
        .wait(&id, &ProcessId::Init)
        .await
        .unwrap_or_else(|e| fail(e));
    place
        .executor
        .delete(&id, DeleteMode::Stopped)
        .await
        .unwrap_or_else(|e| fail(e));
    exit.code
}

/// The tests look at the children of the whole program.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").expect("readable")
}

fn children() -> BTreeSet<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("readable");
    let lists = tasks.filter_map(|t| fs::read_to_string(t.ok()?.path().join("children")).ok());
    lists
        .flat_map(|l| l.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn five_hundred_containers_in_a_busy_program_all_end_well_and_leave_nothing() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(place) = place() else { return };
    PARENT.store(std::process::id() as i32, Ordering::Relaxed);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(16)
        .enable_all()
        .build()
        .expect("a runtime");
    let before = mounts();
    let noise = Noise::start(6);
    let place = Arc::new(place);
    let codes: Vec<u32> = runtime.block_on(async {
        let lives = stream::iter(0..500).map(|_| {
            let place = Arc::clone(&place);
            tokio::spawn(async move { one_life(&place).await })
        });
        lives
            .buffer_unordered(64)
            .map(|life| life.expect("no panic"))
            .collect()
            .await
    });
    drop(noise);
    assert_eq!(codes.len(), 500);
    assert!(codes.iter().all(|code| *code == 0), "{codes:?}");
    assert_eq!(mounts(), before, "a mount was left behind");
    assert_eq!(children(), BTreeSet::new(), "a process was left behind");
    assert_eq!(
        fs::read_dir(place.dir.path().join("state")).expect("readable").count(),
        0,
        "state was left behind"
    );
    let longest = runtime.block_on(place.executor.list()).expect("a list");
    assert!(longest.is_empty());
}

#[test]
fn the_hosts_own_children_are_left_to_the_host() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(place) = place() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut own = std::process::Command::new("sh")
        .args(["-c", "exit 42"])
        .spawn()
        .expect("sh starts");
    for _ in 0..5 {
        assert_eq!(runtime.block_on(one_life(&place)), 0);
    }
    assert_eq!(own.wait().expect("nobody else waited for it").code(), Some(42));
}

#[test]
fn a_create_that_nobody_waits_for_any_more_leaves_nothing() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(place) = place() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let place = Arc::new(place);
    for delay in 0..20u64 {
        let (place, id) = (Arc::clone(&place), new_id());
        let request = place.request(&id, &spec(&["sleep", "1000"]), Io::null());
        runtime.block_on(async {
            let create = place.executor.create(request);
            let _ = tokio::time::timeout(std::time::Duration::from_micros(delay * 500), create).await;
        });
        let _ = runtime.block_on(place.executor.delete(&id, DeleteMode::Force));
    }
    // Shutting down waits for the blocking work that is left.
    drop(runtime);
    let state = place.dir.path().join("state");
    for _ in 0..1000 {
        if fs::read_dir(&state).expect("readable").count() == 0 && children().is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!(
        "left: {:?} {:?}",
        children(),
        fs::read_dir(&state).expect("readable").collect::<Vec<_>>()
    );
}
