//! The monitor of a detached container: a process between the host and init that outlives the host.
//!
//! It is init's parent, so that the kernel tells it, and nobody else, how init ended; it writes that into the state directory and ends. It is a copy of the host that
//! keeps to the rules of this module for all of its life: it allocates nothing, takes no lock and does not unwind. What it works with is on its stack; the rest of the
//! host's memory it lets go of as soon as init is cloned.

mod audience;
mod exit;
mod recorder;

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use longshore_linux::{
    CloneOptions, Cloned, Essentials, Exit, Namespaces, SealedExecutable, clone3, duplicate_onto, exit_now, has_ended,
    realtime, reap, reset_signal_handlers, send_signal,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat, renameat};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::report::{Call, Failure, Message, receive};
pub(crate) use audience::SEATS;
use recorder::Recorder;
pub(crate) use recorder::{LogDuty, Pipes};

use super::{EMPTY, GO, Slots, close_others, run, run_helper};
use crate::plan::Program;
use crate::plan::op::Slot;

/// The number of the step in which a monitor clones.
pub(crate) const MONITOR_STEP: u32 = u32::MAX - 1;
/// Its name, of at most 15 bytes.
const NAME: &CStr = c"longshore-mon";
const SIGKILL: i32 = 9;

/// What a monitor is for. The descriptors are 3 or higher.
#[derive(Debug)]
pub(crate) struct Duty {
    /// Where the host says that init is its child, and later that the container's record is ready. Its end before that is the end of both.
    pub(crate) control: OwnedFd,
    /// The container's directory of the state directory.
    pub(crate) directory: OwnedFd,
    /// What it keeps of its memory; all of it, if that can't be known.
    pub(crate) essentials: Option<Essentials>,
    /// The log that it writes, if it does.
    pub(crate) log: Option<LogDuty>,
}

/// Clones the first process of a program, into the first of these groups of v2 that takes processes.
///
/// # Safety
/// As [`clone3`].
pub(crate) unsafe fn clone_first(program: &Program, groups: &[OwnedFd]) -> Result<Cloned, Errno> {
    let direct = !program.needs_helper();
    let mut options = CloneOptions::new(if direct { program.unshare } else { Namespaces::empty() });
    let mut groups = groups.iter().map(AsFd::as_fd);
    options.cgroup = groups.next();
    loop {
        // SAFETY: the caller's promise.
        match unsafe { clone3(options) } {
            Err(errno) if takes_none(errno) => {
                options.cgroup = Some(groups.next().ok_or(errno)?);
            }
            cloned => return cloned,
        }
    }
}

/// Whether it is an error of a group that takes no processes: it has handed controllers on (cgroup-v2.rst, "No Internal Process Constraint"), is threaded, or is gone.
pub(crate) fn takes_none(errno: Errno) -> bool {
    matches!(errno, Errno::BUSY | Errno::OPNOTSUPP | Errno::NODEV)
}

/// Clones init, tells its pidfd, and watches it.
///
/// # Safety
/// As [`run`], with all signals blocked.
pub(crate) unsafe fn monitor(
    program: &Program,
    slots: &mut [RawFd],
    sealed: Option<&SealedExecutable>,
    groups: &[OwnedFd],
    duty: &Duty,
) -> ! {
    // SAFETY: both children go straight into code that is made for them.
    let cloned = unsafe { clone_first(program, groups) };
    let helped = program.needs_helper();
    let first = match cloned {
        // SAFETY: this is the child, right after the clone, with the slots of the host.
        Ok(Cloned::Child) if helped => unsafe { run_helper(program, slots, sealed) },
        // SAFETY: as above.
        Ok(Cloned::Child) => unsafe { run(program, slots, sealed) },
        Ok(Cloned::Parent { pidfd, .. }) => pidfd,
        Err(errno) => {
            let failure = Failure {
                call: Call::Clone,
                errno,
            };
            if let Ok(socket) = Slots(slots).get(Slot::REPORT) {
                let step = MONITOR_STEP;
                let _ = rustix::net::send(socket, &Message::Failed { step, failure }.encode(), SendFlags::NOSIGNAL);
            }
            exit_now(1);
        }
    };
    // A number below 3 is about to be something else.
    let Ok(first) = rustix::io::fcntl_dupfd_cloexec(&first, 3) else {
        end(&first)
    };
    // The helper tells of the child itself.
    if !helped && Slots(slots).send(Message::Child, first.as_fd()).is_err() {
        end(&first);
    }
    // SAFETY: the original is never dropped, as this never returns; all of it is plain.
    let copy = unsafe { std::ptr::read(duty) };
    // The copy is to be there before the original is gone: a compiler that takes a reference to be good for all of the call would read the original later.
    let Duty {
        control,
        directory,
        essentials,
        log,
    } = std::hint::black_box(copy);
    let of_log = log.as_ref().map_or([None; 6], LogDuty::descriptors);
    let [a, b, c, d, e, f] = of_log.map(|fd| fd.unwrap_or(EMPTY));
    // SAFETY: the other descriptors are copies that nobody here uses; neither are the host's handlers.
    unsafe {
        reset_signal_handlers();
        close_others(&[
            control.as_raw_fd(),
            directory.as_raw_fd(),
            first.as_raw_fd(),
            a,
            b,
            c,
            d,
            e,
            f,
        ]);
    }
    detach();
    if let Some(essentials) = essentials {
        // SAFETY: this never returns, and what the watch works with is on the stack, here or below. What it could not let go of, it keeps.
        let _ = unsafe { essentials.let_go_of_all_else() };
    }
    let (helper, child) = if helped {
        (Some(first), None)
    } else {
        (None, Some(first))
    };
    let watch = Watch {
        control,
        directory,
        helper,
        child,
        settled: false,
        ended: None,
        essentials,
        idle: false,
    };
    match log {
        Some(log) => watch.keep_with_log(log),
        None => watch.keep(None),
    }
}

/// Leaves what it shares with the host: its session, and with it the signals of a terminal; its streams; its working directory; its name.
fn detach() {
    let _ = rustix::process::setsid();
    if let Ok(null) = openat(CWD, c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        for stream in 0..3 {
            // SAFETY: they are the host's, copied, and nobody here uses them.
            let _ = unsafe { duplicate_onto(null.as_raw_fd(), stream) };
        }
    } else {
        // SAFETY: as above.
        let _ = unsafe { longshore_linux::close_range(0, 2) };
    }
    let _ = rustix::process::chdir(c"/");
    let _ = rustix::thread::set_name(NAME);
}

/// Kills a child, and ends when it has.
fn end(child: &OwnedFd) -> ! {
    let _ = send_signal(child, SIGKILL);
    wait_and_reap(child);
    exit_now(1)
}

fn wait_and_reap(child: &OwnedFd) -> Exit {
    while !has_ended(child) {
        let _ = poll(&mut [PollFd::new(child, PollFlags::IN)], None);
    }
    reap(child).unwrap_or(Exit::Unknown)
}

/// A monitor at work.
struct Watch {
    control: OwnedFd,
    directory: OwnedFd,
    /// Who clones the child, if that is not the monitor itself, until it has.
    helper: Option<OwnedFd>,
    child: Option<OwnedFd>,
    /// Whether the container is recorded.
    settled: bool,
    /// How and when the child ended.
    ended: Option<(Exit, Duration)>,
    essentials: Option<Essentials>,
    /// Whether it waits with as little memory as it can.
    idle: bool,
}

/// What there is to look at.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    host: bool,
    child: bool,
    streams: [bool; 2],
    /// Somebody who wants to be attached.
    door: bool,
    /// Room for input.
    input: bool,
    readers: [bool; SEATS],
}

impl Watch {
    /// The large buffers are below what the caller has on its stack, and there is no page of them where nothing is recorded.
    #[inline(never)]
    fn keep_with_log(self, log: LogDuty) -> ! {
        self.keep(Some(&mut Recorder::new(log)))
    }

    #[inline(never)]
    fn keep(mut self, mut recorder: Option<&mut Recorder>) -> ! {
        loop {
            if let (true, Some((exit, at))) = (self.settled, self.ended) {
                if let Some(recorder) = &mut recorder {
                    recorder.finish();
                }
                exit::record(self.directory.as_fd(), exit.shell_code().unwrap_or(UNKNOWN), at);
                exit_now(0);
            }
            let seen = self.wait(recorder.as_deref());
            if self.idle {
                self.rest(recorder.as_deref_mut());
            }
            if let Some(recorder) = &mut recorder {
                recorder.look(&seen);
            }
            if seen.child
                && let Some(child) = &self.child
            {
                // Who waits for it to be reaped is not kept waiting.
                self.ended = Some((wait_and_reap(child), realtime()));
            }
            if seen.host {
                self.listen(recorder.as_deref_mut());
            }
        }
    }

    /// Gives back all the memory that it can, before a long wait.
    fn rest(&self, recorder: Option<&mut Recorder>) {
        let Some(essentials) = &self.essentials else {
            return;
        };
        if let Some(recorder) = recorder {
            // SAFETY: it is on the stack of this process, which is a copy.
            unsafe { recorder.rest() };
        }
        // SAFETY: a monitor's stack has room for all that it does, which is more than this; this is a copy of a program whose code nobody has changed, and a
        // debugger of the copy finds out.
        unsafe {
            longshore_linux::let_go_of_stack_below();
            essentials.let_go_of_what_can_be_read_again();
        }
    }

    /// Waits until there is something to look at.
    fn wait(&mut self, recorder: Option<&Recorder>) -> Seen {
        let incoming = |fd| (fd, PollFlags::IN);
        let control = Some(self.control.as_fd()).filter(|_| !self.settled);
        let child = self.child.as_ref().map(AsFd::as_fd).filter(|_| self.ended.is_none());
        let [out, err] = recorder.map_or([None; 2], Recorder::sources);
        let [door, input] = recorder.map_or([None; 2], |recorder| recorder.audience.doors());
        let readers = recorder.map_or([None; SEATS], |recorder| recorder.audience.seats());
        let first = [control, child, out, err].map(|fd| fd.map(incoming));
        let all = first.into_iter().chain([door, input]).chain(readers);
        // Only what there is is looked at: the kernel has something to say of every descriptor that it is asked about.
        let mut polled: [_; 6 + SEATS] = std::array::from_fn(|_| PollFd::new(&self.directory, PollFlags::empty()));
        let mut places = [usize::MAX; 6 + SEATS];
        let mut count = 0;
        for (place, (fd, flags)) in all.enumerate().filter_map(|(place, fd)| Some((place, fd?))) {
            if let (Some(to), Some(number)) = (polled.get_mut(count), places.get_mut(place)) {
                *to = PollFd::from_borrowed_fd(fd, flags);
                *number = count;
                count += 1;
            }
        }
        let polled = polled.get_mut(..count).unwrap_or_default();
        let timeout = Some(&PATIENCE).filter(|_| !self.idle);
        let polled_now = poll(polled, timeout);
        self.idle = polled_now == Ok(0);
        if !matches!(polled_now, Ok(1..)) {
            return Seen::default();
        }
        let seen = |place: usize| {
            let number = places.get(place).and_then(|number| polled.get(*number));
            number.is_some_and(|fd| !fd.revents().is_empty())
        };
        Seen {
            host: seen(0),
            child: seen(1),
            streams: [seen(2), seen(3)],
            door: seen(4),
            input: seen(5),
            readers: std::array::from_fn(|i| seen(6 + i)),
        }
    }

    fn listen(&mut self, recorder: Option<&mut Recorder>) {
        match receive(&self.control) {
            Ok(Some((Message::Child, Some(child)))) => {
                self.child = rustix::io::fcntl_dupfd_cloexec(&child, 3).ok();
                if let Some(helper) = self.helper.take() {
                    // It ends by itself.
                    wait_and_reap(&helper);
                }
            }
            Ok(Some((Message::Terminal, Some(master)))) => {
                if let (Some(recorder), Ok(master)) = (recorder, rustix::io::fcntl_dupfd_cloexec(&master, 3)) {
                    recorder.take_terminal(master);
                }
            }
            Ok(Some((Message::Settled, Some(talk)))) if self.child.is_some() => self.settle(&talk),
            Ok(Some(_)) => {}
            // The host has died or given up.
            Ok(None) | Err(_) => self.give_up(),
        }
    }

    /// Makes the record the container's, and lets the child go on: whatever becomes of the host, there is a container from now on.
    fn settle(&mut self, talk: &OwnedFd) {
        if renameat(&self.directory, RECORD_NEW, &self.directory, RECORD).is_err() {
            self.give_up();
        }
        let _ = rustix::net::send(talk, &[GO], SendFlags::NOSIGNAL);
        self.settled = true;
    }

    /// Takes all back. A child that it does not know of yet dies with it.
    fn give_up(&self) -> ! {
        for process in [&self.helper, &self.child].into_iter().flatten() {
            let _ = send_signal(process, SIGKILL);
            wait_and_reap(process);
        }
        exit_now(1)
    }
}

/// After how long without anything to do it waits with less memory.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// The record, as the host prepares it and as it is found.
const RECORD_NEW: &CStr = c".state.json.new";
const RECORD: &CStr = c"state.json";
/// What nobody can tell.
const UNKNOWN: u32 = 255;
