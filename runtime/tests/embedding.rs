//! The executor inside a busy program: many threads, all allocating, many containers at once, and an allocator that ends a child
//! that allocates between its clone and its program.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use longshore_runtime::{DeleteMode, Executor, Io};
use nix::libc;
use support::busy::{self, Noise, one_life};
use support::{new_id, place, spec};

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

/// The tests look at the children of the whole program.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn five_hundred_containers_in_a_busy_program_all_end_well_and_leave_nothing() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(place) = place() else { return };
    PARENT.store(std::process::id() as i32, Ordering::Relaxed);
    let (runtime, before) = (busy::runtime(), busy::mounts(&place));
    let noise = Noise::start(6);
    let place = Arc::new(place);
    runtime.block_on(busy::lives(&place, 500, 64));
    drop(noise);
    assert_eq!(busy::mounts(&place), before, "a mount was left behind");
    busy::until_nothing_is_left(&place);
    let listed = runtime.block_on(place.executor.list()).expect("a list");
    assert!(listed.is_empty());
}

#[test]
fn exec_kill_and_delete_in_parallel_in_a_busy_program_leave_nothing() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(place) = place() else { return };
    PARENT.store(std::process::id() as i32, Ordering::Relaxed);
    busy::storm(place, 200);
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
    busy::until_nothing_is_left(&place);
}
