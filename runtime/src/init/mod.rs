//! The child, from clone3 to execve: walks a compiled program.
//!
//! Nothing here allocates, takes a lock or unwinds: the process is a copy of a program with threads, of which only this one
//! exists. All strings are in the program; buffers are on the stack; descriptors are in a table that the host made.
#![allow(unsafe_code)]

mod attributes;
mod before_start;
mod copy_up;
mod devices;
mod filter;
mod hide;
mod home;
mod identity;
mod monitor;
mod mounts;
pub(crate) mod report;
mod resolve;
mod rootfs;
pub(crate) mod sources;
mod waiting;

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use longshore_linux::{
    ChildOf, CloneOptions, Cloned, MountAttr, Namespaces, SealedExecutable, clone3, close_on_exec_from, close_range,
    duplicate_onto, execve, execve_replacing_last, exit_now, may_execute, reset_signal_handlers,
    set_controlling_terminal, set_namespace, set_parent_death_signal, set_rlimit, unshare,
};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags};
use rustix::process::DumpableBehavior;

use crate::plan::Program;
use crate::plan::op::{Assembly, Fallback, Home, Op, Slot, Source};
pub(crate) use monitor::{Duty, LogDuty, MONITOR_STEP, Pipes, SEATS, clone_first, monitor, takes_none};
use report::{At, Call, Failure, Message};
pub(crate) use waiting::hold;
#[cfg(feature = "systemd")]
pub(crate) use waiting::wait_to_be_killed;

/// No descriptor is in this slot.
pub(crate) const EMPTY: RawFd = -1;
/// The host's answer that lets the child go on.
pub(crate) const GO: u8 = b'g';
/// The number of the step in which the helper joins namespaces.
pub(crate) const HELPER_STEP: u32 = u32::MAX;
/// The start signal.
pub(crate) const START: u8 = b's';

/// Who cloned the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ancestor {
    /// The host itself.
    Host,
    /// A helper that first joined namespaces.
    Helper,
    /// The container's monitor, or a helper of that one's.
    Monitor,
}

/// The child's view of its descriptors.
#[derive(Debug)]
pub(crate) struct Slots<'a>(pub(crate) &'a mut [RawFd]);

impl Slots<'_> {
    fn get(&self, slot: Slot) -> Result<BorrowedFd<'_>, Failure> {
        match self.0.get(usize::from(slot.0)) {
            // SAFETY: a slot that is not empty holds an open descriptor, which nobody closes while the slots are borrowed.
            Some(&fd) if fd != EMPTY => Ok(unsafe { BorrowedFd::borrow_raw(fd) }),
            _ => Err(Errno::BADF).at(Call::Protocol),
        }
    }

    /// Sends a message and a descriptor with it.
    fn send(&self, message: Message, fd: BorrowedFd<'_>) -> Result<(), Failure> {
        let socket = self.get(Slot::REPORT)?;
        let fds = [fd];
        let mut space = [std::mem::MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let bytes = message.encode();
        let parts = [std::io::IoSlice::new(&bytes)];
        rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL)
            .map(drop)
            .at(Call::Protocol)
    }

    fn set(&mut self, slot: Slot, fd: OwnedFd) {
        if let Some(place) = self.0.get_mut(usize::from(slot.0)) {
            *place = fd.into_raw_fd();
        }
    }

    /// The descriptor, which from now on belongs to the caller.
    fn take(&mut self, slot: Slot) -> Option<OwnedFd> {
        let place = self.0.get_mut(usize::from(slot.0))?;
        let fd = std::mem::replace(place, EMPTY);
        // SAFETY: the slot owned it, and is empty now.
        (fd != EMPTY).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// The state of the walk.
struct Child<'a> {
    program: &'a Program,
    slots: Slots<'a>,
    step: u32,
    /// Whether the working directory is entered.
    in_cwd: bool,
    /// Where the root is put together.
    assembly: Assembly,
    /// The candidate that was found executable.
    found: usize,
    /// The host program's file, if this process could not let go of it.
    host_file: Option<(u64, u64)>,
    /// The user's home directory.
    home: home::Home,
    /// A procfs that is nobody else's.
    proc: Option<OwnedFd>,
    /// An empty directory, which hides others.
    empty: Option<OwnedFd>,
    /// The directory in which the last step made something, and its path.
    beside: Option<(&'a CStr, OwnedFd)>,
}

/// Runs the program in the child, to execve or to the end of the process.
///
/// # Safety
/// Only right after clone3 in the child, with a descriptor table of its own. Each slot that is not empty holds an open descriptor, 3 or higher.
pub(crate) unsafe fn run(program: &Program, slots: &mut [RawFd], sealed: Option<&SealedExecutable>) -> ! {
    // SAFETY: the process will execute or end; other threads of the host do not exist here.
    let held = unsafe {
        reset_signal_handlers();
        let held = let_go(sealed);
        close_others(slots);
        held
    };
    rustix::process::umask(rustix::fs::Mode::empty());
    let _ = longshore_linux::set_signal_mask(before_start::mask_until_start(program));
    let mut child = Child {
        program,
        slots: Slots(slots),
        step: 0,
        in_cwd: false,
        assembly: Assembly::OverOld,
        found: 0,
        host_file: held.map(SealedExecutable::identity),
        home: home::Home::none(),
        proc: None,
        empty: None,
        beside: None,
    };
    for (i, step) in program.steps.iter().enumerate() {
        child.step = i as u32;
        if let Err(failure) = child.perform(&step.op) {
            child.say(Message::Failed {
                step: i as u32,
                failure,
            });
            exit_now(code_of(failure));
        }
    }
    exit_now(1)
}

/// Joins the namespaces that must come before the clone, clones the child as one of the host, tells its pidfd and ends.
///
/// # Safety
/// As [`run`].
pub(crate) unsafe fn run_helper(program: &Program, slots: &mut [RawFd], sealed: Option<&SealedExecutable>) -> ! {
    // SAFETY: the process ends soon; other threads of the host do not exist here.
    let held = unsafe {
        let held = let_go(sealed);
        close_others(slots);
        held
    };
    let joined = join_all(program, slots).and_then(|()| set_clocks(program, slots));
    let mut options = CloneOptions::new(program.unshare);
    options.child_of = ChildOf::CallersParent;
    let cloned = match joined {
        Err(failure) => Err(failure),
        // SAFETY: the child goes straight into code that is made for it and never returns.
        Ok(()) => unsafe { clone3(options) }.at(Call::Clone),
    };
    match cloned {
        // SAFETY: this is the child, right after the clone, with the same slots.
        Ok(Cloned::Child) => unsafe { run(program, slots, held) },
        Ok(Cloned::Parent { pidfd, .. }) => {
            let sent = Slots(slots).send(Message::Child, pidfd.as_fd());
            exit_now(u8::from(sent.is_err()))
        }
        Err(failure) => {
            if let Ok(socket) = Slots(slots).get(Slot::REPORT) {
                let message = Message::Failed {
                    step: HELPER_STEP,
                    failure,
                };
                let _ = rustix::net::send(socket, &message.encode(), SendFlags::NOSIGNAL);
            }
            exit_now(1)
        }
    }
}

/// Lets go of the host program's file (CVE-2019-5736): who executes or opens `/proc/self/exe`, by name, as the interpreter of a script or
/// of a program, or `/proc/PID/exe` from another process, finds an empty one. Returns what is still held, for another try in other namespaces.
///
/// # Safety
/// As [`run`].
unsafe fn let_go(sealed: Option<&SealedExecutable>) -> Option<&SealedExecutable> {
    // SAFETY: this process is a copy of the host's that has changed nothing yet.
    sealed.filter(|sealed| unsafe { sealed.take_effect() }.is_err())
}

/// The helper's way: cgroups, then namespaces, as somebody whom nothing in them may trace.
fn join_all(program: &Program, slots: &mut [RawFd]) -> Result<(), Failure> {
    join_cgroups(slots, program.slots).at(Call::Write)?;
    // The id maps of a new user namespace are written by somebody who may be ordinary, and can't if the child is not dumpable.
    if program.id_maps.is_none() {
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Call::Prctl)?;
    }
    let slots = Slots(slots);
    program
        .join_first
        .iter()
        .try_for_each(|(slot, kinds)| set_namespace(slots.get(*slot)?, *kinds).at(Call::SetNs))
}

/// A new time namespace is for children only, and its offsets can be written as long as it has no process.
fn set_clocks(program: &Program, slots: &mut [RawFd]) -> Result<(), Failure> {
    let Some((proc, offsets)) = &program.time_offsets else {
        return Ok(());
    };
    unshare(Namespaces::TIME).at(Call::Unshare)?;
    let slots = Slots(slots);
    identity::write_own(slots.get(*proc)?, c"self/timens_offsets", offsets).at(Call::TimeOffsets)
}

/// What a shell exits with for a program that is not there or can't be executed.
fn code_of(failure: Failure) -> u8 {
    match (failure.call, failure.errno) {
        (Call::Find | Call::Execute, Errno::NOENT) => 127,
        (Call::Find | Call::Execute, _) => 126,
        _ => 1,
    }
}

/// Closes every descriptor that is in no slot: copies of the host's, among them pipe ends of other containers whose readers wait for
/// their end.
///
/// # Safety
/// As [`run`].
pub(crate) unsafe fn close_others(slots: &[RawFd]) {
    let mut from = 3;
    // The next kept descriptor at or after `from`, until there is none: quadratic in a few, and without a sorted copy.
    while let Some(kept) = slots.iter().copied().filter(|fd| *fd >= from).min() {
        if kept > from {
            // SAFETY: no slot is in the range, and nobody else runs in this process.
            let _ = unsafe { close_range(from, kept - 1) };
        }
        from = kept + 1;
    }
    // SAFETY: as above.
    let _ = unsafe { close_range(from, RawFd::MAX) };
}

impl<'a> Child<'a> {
    fn perform(&mut self, op: &'a Op) -> Result<(), Failure> {
        if !matches!(op, Op::Node(_) | Op::Symlink { .. }) {
            self.beside = None;
        }
        match op {
            Op::Meet(_) => self.meet(),
            Op::ParentDeathSignal(signal) => set_parent_death_signal(*signal).at(Call::Prctl),
            Op::Undumpable => rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Call::Prctl),
            Op::Dumpable => rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).at(Call::Prctl),
            Op::JoinCgroups => join_cgroups(self.slots.0, self.program.slots).at(Call::Write),
            Op::Unshare(kinds) => unshare(*kinds).at(Call::Unshare),
            Op::SetNs { slot, kind } => set_namespace(self.slots.get(*slot)?, *kind).at(Call::SetNs),
            Op::NewSession => rustix::process::setsid().map(drop).at(Call::Session),
            Op::Terminal { rows, columns, uid } => self.terminal(*rows, *columns, *uid),
            Op::Stdio => self.stdio(),
            Op::Descriptors { first, count } => self.descriptors(*first, *count),
            Op::Hostname(name) => rustix::system::sethostname(name.to_bytes()).at(Call::Name),
            Op::Domainname(name) => rustix::system::setdomainname(name.to_bytes()).at(Call::Name),
            Op::Rlimit { resource, soft, hard } => set_rlimit(*resource, *soft, *hard).at(Call::Limit),
            Op::NoNewPrivileges => rustix::thread::set_no_new_privs(true).at(Call::Prctl),
            Op::Seccomp(filter) => self.load_filter(filter),
            Op::FindProgram => self.find_program(),
            Op::AwaitStart => self.await_start(),
            Op::CloseOnExec { from } => close_on_exec_from(*from).at(Call::CloseRange),
            Op::Execute => self.execute(),
            op => match self.perform_identity(op) {
                Some(done) => done,
                None => self.perform_rootfs(op),
            },
        }
    }

    /// Reports; a host that is gone reads nothing, and there is nobody else to tell.
    fn say(&self, message: Message) {
        if let Ok(socket) = self.slots.get(Slot::REPORT) {
            let _ = rustix::net::send(socket, &message.encode(), SendFlags::NOSIGNAL);
        }
    }

    fn meet(&self) -> Result<(), Failure> {
        self.say(Message::AtStep(self.step));
        self.await_go()
    }

    /// Waits for the host's leave.
    fn await_go(&self) -> Result<(), Failure> {
        let mut answer = [0u8; 1];
        let socket = self.slots.get(Slot::REPORT)?;
        let received = loop {
            match rustix::net::recv(socket, &mut answer[..], RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                received => break received.at(Call::Protocol)?.1,
            }
        };
        // The end of the stream is a host that has died or given up.
        if received != 1 || answer[0] != GO {
            exit_now(1);
        }
        Ok(())
    }

    /// Makes a terminal in the container's own devpts, hands its master side over and takes the other.
    fn terminal(&mut self, rows: u16, columns: u16, uid: u32) -> Result<(), Failure> {
        let (master, slave) = rootfs::open_terminal(self.slots.get(Slot::ROOT)?, rows, columns, uid)?;
        self.slots.send(Message::Terminal, master.as_fd())?;
        for slot in [Slot::STDIN, Slot::STDOUT] {
            let copy = rustix::io::fcntl_dupfd_cloexec(&slave, 3).at(Call::Duplicate)?;
            self.slots.set(slot, copy);
        }
        self.slots.set(Slot::STDERR, slave);
        Ok(())
    }

    fn stdio(&mut self) -> Result<(), Failure> {
        for (number, slot) in [Slot::STDIN, Slot::STDOUT, Slot::STDERR].into_iter().enumerate() {
            let mut fd = self.slots.take(slot).ok_or(Errno::BADF).at(Call::Protocol)?;
            if let Some(own) = self
                .slots
                .get(Slot::ROOT)
                .ok()
                .and_then(|root| rootfs::own_null(root, &fd))
            {
                fd = own;
            }
            // SAFETY: 0 to 2 are the host's, copied; no slot is below 3.
            unsafe { duplicate_onto(std::os::fd::AsRawFd::as_raw_fd(&fd), number as RawFd) }.at(Call::Duplicate)?;
        }
        if self.program.terminal {
            // SAFETY: the line above put the terminal there, and it stays.
            let terminal = unsafe { BorrowedFd::borrow_raw(0) };
            set_controlling_terminal(terminal).at(Call::Controlling)?;
        }
        Ok(())
    }

    /// The host has put the descriptors of all slots above the places.
    fn descriptors(&mut self, first: Slot, count: u16) -> Result<(), Failure> {
        for i in 0..count {
            let fd = self
                .slots
                .take(Slot(first.0 + i))
                .ok_or(Errno::BADF)
                .at(Call::Protocol)?;
            // SAFETY: nothing is open there: what was the host's is closed, and no slot is that low.
            unsafe { duplicate_onto(std::os::fd::AsRawFd::as_raw_fd(&fd), 3 + RawFd::from(i)) }.at(Call::Duplicate)?;
        }
        Ok(())
    }

    fn find_program(&mut self) -> Result<(), Failure> {
        let mut errno = Errno::NOENT;
        for (i, candidate) in self.program.executable.candidates.iter().enumerate() {
            match may_execute(candidate).and_then(|()| regular(candidate)) {
                Ok(stat) if self.host_file == Some((stat.st_dev, stat.st_ino)) && by_magic(candidate) => {
                    return Err(Errno::LOOP).at(Call::HostFile);
                }
                Ok(_) => {
                    self.found = i;
                    return Ok(());
                }
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(other) => errno = other,
            }
        }
        Err(errno).at(Call::Find)
    }

    /// Waits until somebody connects and says to start; what goes wrong from here on is told to him.
    fn await_start(&mut self) -> Result<(), Failure> {
        // Its end tells a host that is about to go that nothing depends on it any more.
        drop(self.slots.take(Slot::REPORT));
        // Who looks at a process that waits finds no way to what was made on its way.
        drop(self.empty.take());
        loop {
            let listener = self.slots.get(Slot::START)?;
            before_start::until_readable(listener)?;
            let connection = match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                answer => answer.at(Call::Accept)?,
            };
            let mut signal = [0u8; 1];
            if matches!(
                rustix::net::recv(&connection, &mut signal[..], RecvFlags::empty()),
                Ok((_, 1))
            ) && signal[0] == START
            {
                drop(self.slots.take(Slot::START));
                self.slots.set(Slot::REPORT, connection);
                return before_start::unblock();
            }
        }
    }

    fn execute(&mut self) -> Result<(), Failure> {
        let executable = &self.program.executable;
        let path = executable
            .candidates
            .get(self.found)
            .ok_or(Errno::NOENT)
            .at(Call::Execute)?;
        let (args, env) = (&executable.args, &executable.env);
        let home = self.home.variable().filter(|_| executable.home == Home::FromPasswd);
        match home {
            Some(home) => Err(execve_replacing_last(path, args, env, home)),
            None => Err(execve(path, args, env)),
        }
        .at(Call::Execute)
    }

    /// The mount that was made for this source by the host or, where it can't, in its stead.
    fn detached(&mut self, source: &Source, attr: MountAttr) -> Result<Option<OwnedFd>, Failure> {
        match source {
            Source::Fs {
                fallback: Some(Fallback::Detached(slot)),
                ..
            } => match sources::make(source, attr) {
                Err(Failure { errno: Errno::PERM, .. }) => {
                    let tree = self.slots.take(*slot).ok_or(Errno::BADF).at(Call::Protocol)?;
                    sources::instead(tree, attr).map(Some)
                }
                answer => answer.map(Some),
            },
            Source::Detached(slot) => self.slots.take(*slot).map(Some).ok_or(Errno::BADF).at(Call::Protocol),
            Source::Opened { slot, depth } => {
                let opened = self.slots.take(*slot).ok_or(Errno::BADF).at(Call::Protocol)?;
                sources::copy_opened(opened, *depth).map(Some)
            }
            Source::Named(slot) => {
                let directory = self.slots.take(*slot).ok_or(Errno::BADF).at(Call::Protocol)?;
                sources::named(directory).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// Moves the caller into the cgroups whose tasks files the host has put after the program's slots. A caller that does so for itself
/// does not wait for the other CPUs, as one who moves another does.
fn join_cgroups(slots: &mut [RawFd], first: u16) -> Result<(), Errno> {
    for fd in slots.iter_mut().skip(usize::from(first)) {
        let taken = std::mem::replace(fd, EMPTY);
        if taken != EMPTY {
            // SAFETY: the slot owned it, and is empty now.
            let file = unsafe { OwnedFd::from_raw_fd(taken) };
            rustix::io::write(&file, b"0")?;
        }
    }
    Ok(())
}

/// A directory may be "executable" too.
fn regular(path: &std::ffi::CStr) -> Result<rustix::fs::Stat, Errno> {
    let stat = rustix::fs::stat(path)?;
    match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::RegularFile => Ok(stat),
        rustix::fs::FileType::Directory => Err(Errno::ISDIR),
        _ => Err(Errno::ACCESS),
    }
}

/// Whether the path leads through a link of procfs to an open file.
fn by_magic(path: &std::ffi::CStr) -> bool {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS).is_err()
}
