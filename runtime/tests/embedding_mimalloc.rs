//! The executor inside a busy program whose allocator is mimalloc: other locks, other memory per thread, other handlers of fork(2).

mod support;

use support::{busy, place};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[test]
fn containers_live_in_a_busy_program_with_mimalloc() {
    let Some(place) = place() else { return };
    busy::storm(place, 100);
}
