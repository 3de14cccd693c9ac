use std::ffi::c_void;

use nix::libc;
use rustix::io::Errno;

use crate::raw::syscall;

/// The most parts (of the program, of its libraries) that are kept: more than any program of ours has.
const MOST: usize = 128;
/// How much is kept around the stack's present end, and what belongs to the thread.
const MARGIN: usize = 64 << 10;
/// How much of the stack below is given back, and how near: a multiple of the usual page; the kernel refuses where pages are larger.
const BELOW: usize = 256 << 10;
const USED_BELOW: usize = 16 << 10;
/// How much there is for what is called from now on.
const STACK: usize = 768 << 10;

/// From one address up to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Range {
    start: usize,
    end: usize,
    /// Whether it is as in its file, from which it can be read again.
    unchanged: bool,
}

/// The parts of this process's memory that code needs which uses neither heap nor arguments: the program and its libraries, each with its variables.
///
/// A copy of the process (`fork`, or clone without `CLONE_VM`) can let go of all else, and be small. The value is plain, so that a copy of it can be where it is needed.
#[derive(Clone, Copy, Debug)]
pub struct Essentials {
    ranges: [Range; MOST],
    count: usize,
    page: usize,
}

impl Essentials {
    /// Looks at what is loaded now (dl_iterate_phdr(3)).
    ///
    /// # Errors
    /// `NOBUFS` when the program has more libraries than this can hold.
    pub fn of_this_program() -> Result<Self, Errno> {
        let mut found = Self {
            ranges: [Range::default(); MOST],
            count: 0,
            // SAFETY: it only tells a number.
            page: usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).map_err(|_| Errno::INVAL)?,
        };
        // SAFETY: the callback has the right type, and the pointer is to a value that outlives the call and that nobody else uses.
        let refused = unsafe { libc::dl_iterate_phdr(Some(note_object), (&raw mut found).cast()) };
        if refused != 0 || found.count == 0 {
            return Err(Errno::NOBUFS);
        }
        Ok(found)
    }

    fn add(&mut self, range: Range) -> Result<(), Errno> {
        let place = self.ranges.get_mut(self.count).ok_or(Errno::NOBUFS)?;
        *place = range;
        self.count += 1;
        Ok(())
    }

    /// Lets go of all memory but the essentials, what is near the place where the stack is now, and what belongs to the thread. Async-signal-safe.
    ///
    /// # Errors
    /// Those of munmap(2). What could be let go of is gone then.
    ///
    /// # Safety
    /// The caller is a copy of the process, with one thread, that never returns from the function that calls this, never allocates and unwinds, and uses nothing that is not in
    /// variables of the program's or in at most 32 KiB of the stack above. It calls functions that need at most 512 KiB of it.
    #[inline(never)]
    pub unsafe fn let_go_of_all_else(mut self) -> Result<(), Errno> {
        let page = self.page;
        let here = (&raw const self) as usize;
        // SAFETY: both only tell where something of the calling thread's is.
        let (errno, thread) = unsafe { (libc::__errno_location() as usize, libc::pthread_self() as usize) };
        for place in [here, errno, thread] {
            self.add(Range {
                start: place.saturating_sub(if place == here { STACK } else { MARGIN }),
                end: place.saturating_add(MARGIN),
                unchanged: false,
            })?;
        }
        let ranges = self.ranges.get_mut(..self.count).ok_or(Errno::NOBUFS)?;
        ranges.sort_unstable_by_key(|range| range.start);
        let mut from = 0;
        // A huge page of a file would be in memory for a few lines of code.
        // SAFETY: no memory is passed.
        let _ = unsafe { syscall!(libc::SYS_prctl, libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
        for range in ranges {
            let (start, end) = (range.start & !(page - 1), range.end.next_multiple_of(page));
            if start > from {
                // SAFETY: nothing in between is used any more, by the caller's promise.
                unsafe { unmap(from, start) }?;
            }
            from = from.max(end);
        }
        // The kernel refuses what is beyond the end of the address space, which depends on the machine.
        let ends = (30..=56).rev().map(|bits| (1usize << bits) - page);
        for end in ends.take_while(|end| *end > from) {
            // SAFETY: as above.
            match unsafe { unmap(from, end) } {
                Err(Errno::INVAL) => {}
                done => return done,
            }
        }
        Ok(())
    }

    /// Lets go of what is in memory as it is in its file, the program's code for one: what is used is read again. Worth it before a long wait. Async-signal-safe.
    ///
    /// # Safety
    /// Nobody has written where the program's file says that nobody does, as a debugger would.
    pub unsafe fn let_go_of_what_can_be_read_again(&self) {
        let ranges = self.ranges.get(..self.count).unwrap_or_default();
        for range in ranges.iter().filter(|range| range.unchanged) {
            let start = range.start.next_multiple_of(self.page);
            let length = (range.end & !(self.page - 1)).saturating_sub(start);
            // SAFETY: the caller's promise.
            let _ = unsafe { syscall!(libc::SYS_madvise, start, length, libc::MADV_DONTNEED) };
        }
    }
}

/// Gives the memory of whole pages in there back: they hold zeroes when somebody looks. Async-signal-safe.
///
/// # Safety
/// It is private memory that comes from no file: of the stack or the heap.
pub unsafe fn let_go_of_contents(bytes: &mut [u8]) {
    // The largest page that any machine has is a multiple of this.
    const PAGE: usize = 4096;
    let all = bytes.as_mut_ptr_range();
    let start = (all.start as usize).next_multiple_of(PAGE);
    let length = (all.end as usize & !(PAGE - 1)).saturating_sub(start);
    // SAFETY: no reference but the caller's leads there, and all bytes may be zero. Where pages are larger the kernel refuses what begins within one.
    let _ = unsafe { syscall!(libc::SYS_madvise, start, length, libc::MADV_DONTNEED) };
}

/// Gives the memory of the stack back that only calls which have returned have used. Async-signal-safe.
///
/// # Safety
/// There are 512 KiB of stack below the caller's.
#[inline(never)]
pub unsafe fn let_go_of_stack_below() {
    let here = 0u8;
    let end = (&raw const here as usize).saturating_sub(USED_BELOW) & !(USED_BELOW - 1);
    // SAFETY: it is below all that this function and the call that it makes use, and the caller's promise.
    let _ = unsafe { syscall!(libc::SYS_madvise, end - BELOW, BELOW, libc::MADV_DONTNEED) };
}

/// # Safety
/// Nobody may use what is there.
unsafe fn unmap(start: usize, end: usize) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    unsafe { syscall!(libc::SYS_munmap, start as *mut c_void, end - start) }.map(drop)
}

/// Notes where one object is. Called by dl_iterate_phdr(3).
unsafe extern "C" fn note_object(info: *mut libc::dl_phdr_info, _size: usize, found: *mut c_void) -> libc::c_int {
    // SAFETY: the caller passes one object's description and the pointer that it was given.
    let (info, found) = unsafe { (&*info, &mut *found.cast::<Essentials>()) };
    if info.dlpi_phnum == 0 {
        return 0;
    }
    // SAFETY: so many headers are there.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let ranges = loaded.map(|header| {
        let start = (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
        Range {
            start,
            end: start.wrapping_add(header.p_memsz as usize),
            unchanged: header.p_flags & libc::PF_W == 0,
        }
    });
    let added = ranges
        .filter(|range| range.start < range.end)
        .try_for_each(|range| found.add(range));
    libc::c_int::from(added.is_err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CloneOptions, Cloned, SignalMask, clone3, exit_now, reap, set_signal_mask};

    static WORD: &str = "a word of the program's";

    #[test]
    fn the_program_and_its_variables_are_essential() {
        let essentials = Essentials::of_this_program().expect("it has few libraries");
        let has = |place: usize| {
            let ranges = &essentials.ranges[..essentials.count];
            ranges.iter().any(|range| (range.start..range.end).contains(&place))
        };
        assert!(has(WORD.as_ptr() as usize));
        assert!(has(unmap as *const () as usize));
        assert!(
            has(libc::munmap as *const () as usize),
            "the C library, linked in either way"
        );
        let heap = Box::new(1);
        assert!(!has((&raw const *heap) as usize));
    }

    #[test]
    fn contents_are_given_back_by_whole_pages() {
        let mut bytes = vec![7u8; 64 << 10];
        // SAFETY: it is of the heap.
        unsafe { let_go_of_contents(&mut bytes) };
        let start = bytes.as_ptr() as usize;
        let first = start.next_multiple_of(4096) - start;
        let last = first + (bytes.len() - first) / 4096 * 4096;
        assert!(
            bytes[..first].iter().all(|byte| *byte == 7),
            "what is before the first page stays"
        );
        assert!(bytes[first..last].iter().all(|byte| *byte == 0));
        assert!(bytes[last..].iter().all(|byte| *byte == 7));
        // SAFETY: none is no memory at all.
        unsafe { let_go_of_contents(&mut []) };
    }

    #[inline(never)]
    fn deep(calls: u32) -> u32 {
        let used = std::hint::black_box([1u8; 4096]);
        if calls == 0 {
            0
        } else {
            deep(calls - 1) + u32::from(used[7])
        }
    }

    #[test]
    fn calls_go_on_where_the_stack_was_given_back() {
        let kept = std::hint::black_box([5u8; 4096]);
        for _ in 0..3 {
            assert_eq!(deep(60), 60);
            // SAFETY: a test's thread has 2 MiB of stack.
            unsafe { let_go_of_stack_below() };
        }
        assert!(kept.iter().all(|byte| *byte == 5));
    }

    #[test]
    fn a_copy_goes_on_without_all_else() {
        let heap = vec![7u8; 64 << 20];
        let essentials = Essentials::of_this_program().expect("it has few libraries");
        let before = set_signal_mask(SignalMask::ALL).expect("signals are blocked");
        // SAFETY: the child makes system calls only, and exits.
        let cloned = unsafe { clone3(CloneOptions::default()) };
        let Ok(Cloned::Parent { pidfd, .. }) = cloned else {
            // SAFETY: this is a copy with one thread; what follows uses the stack and a variable of the program's.
            let gone = unsafe { essentials.let_go_of_all_else() };
            let is_gone = |place: *const u8| {
                // SAFETY: the kernel tells whether the page is there, and writes into a variable on the stack.
                let asked = unsafe {
                    let mut there = 0u8;
                    let page = place as usize & !0xfff;
                    syscall!(libc::SYS_mincore, page, 1, &raw mut there)
                };
                asked == Err(Errno::NOMEM)
            };
            let well = gone.is_ok() && is_gone(heap.as_ptr()) && !is_gone(WORD.as_ptr());
            exit_now(if well { 3 } else { 4 });
        };
        set_signal_mask(before).expect("signals are as before");
        rustix::event::poll(
            &mut [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)],
            None,
        )
        .expect("it ends");
        assert_eq!(reap(&pidfd), Ok(crate::Exit::Code(3)));
        assert_eq!(heap[1 << 20], 7, "this process is as it was");
    }
}
