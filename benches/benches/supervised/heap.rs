//! What is on the heap, counted by an allocator that hands everything on to the system's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

/// Allocations of up to this size are counted by their size.
const SMALL: usize = 16 << 10;
/// Sizes are told apart in steps of this.
const STEP: usize = 16;

/// The allocator.
#[derive(Debug)]
pub(crate) struct Counting;

static BYTES: AtomicIsize = AtomicIsize::new(0);
static BY_SIZE: [AtomicIsize; SMALL / STEP + 1] = [const { AtomicIsize::new(0) }; SMALL / STEP + 1];

fn count(size: usize, sign: isize) {
    BYTES.fetch_add(sign * size as isize, Ordering::Relaxed);
    BY_SIZE[(size / STEP).min(SMALL / STEP)].fetch_add(sign, Ordering::Relaxed);
}

// SAFETY: every call is handed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller's promises are the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What is allocated at a moment.
#[derive(Debug)]
pub(crate) struct Heap {
    bytes: isize,
    by_size: Vec<isize>,
}

impl Heap {
    pub(crate) fn now() -> Self {
        let by_size = BY_SIZE.iter().map(|count| count.load(Ordering::Relaxed));
        Self {
            bytes: BYTES.load(Ordering::Relaxed),
            by_size: by_size.collect(),
        }
    }

    /// Bytes that each of `many` has added since `before`.
    pub(crate) fn each_since(&self, before: &Self, many: usize) -> f64 {
        (self.bytes - before.bytes) as f64 / many as f64
    }

    /// The sizes of which each of `many` has added at least one since `before`, with how many: what to look for.
    pub(crate) fn sizes_since(&self, before: &Self, many: usize) -> Vec<(usize, f64)> {
        let grown = self.by_size.iter().zip(&before.by_size).map(|(now, then)| now - then);
        let each = grown.map(|count| count as f64 / many as f64).enumerate();
        each.filter(|(_, count)| *count > 0.5)
            .map(|(step, count)| (step * STEP, count))
            .collect()
    }
}
