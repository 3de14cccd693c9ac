use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, mpsc};

use longshore_linux::{
    CloneOptions, Cloned, Copies, Errno, Essentials, SealedExecutable, SignalMask, clone3, has_ended, set_signal_mask,
};

use super::{Inputs, Post, io_error};
use crate::init::{self, Ancestor, Duty, LogDuty};
use crate::plan::Program;
use crate::{Error, Result};

/// A process that has just been cloned.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// The process that was cloned: the child, or a helper that clones it.
    pub(crate) pidfd: OwnedFd,
    pub(crate) pid: i32,
    /// Whether it is only the helper.
    pub(crate) ancestor: Ancestor,
    /// The way to speak to the monitor, if the process is one.
    pub(crate) post: Option<Post>,
}

/// What a child is cloned from.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) program: Arc<Program>,
    pub(crate) inputs: Inputs,
    /// The groups of v2, into the first of which that takes processes it is cloned.
    pub(crate) groups: Vec<OwnedFd>,
    /// What a monitor is for, if the container is to have one.
    pub(crate) monitored: Option<Monitored>,
}

/// What a monitor is for.
#[derive(Debug)]
pub(crate) struct Monitored {
    /// The container's directory.
    pub(crate) directory: OwnedFd,
    /// The log that it writes, if it does.
    pub(crate) log: Option<LogDuty>,
}

pub(crate) type Job = Box<dyn FnOnce() -> Option<OwnedFd> + Send>;

/// Clones children.
#[derive(Debug)]
pub(crate) struct Spawner {
    by: By,
    /// What it takes for a child to let go of this program's file; none if that can't be known. Made for the first child.
    sealed: OnceLock<Option<Arc<SealedExecutable>>>,
    /// What a monitor keeps of this program's memory; none if that can't be known. Made for the first monitor.
    essentials: OnceLock<Option<Essentials>>,
}

/// Who clones.
#[derive(Debug)]
enum By {
    /// One thread. The kernel sends the parent-death signal when the *thread* that cloned ends, so it ends only when the host
    /// does, or when nobody can ask it any more and its last child has ended.
    Thread(mpsc::Sender<Job>),
    /// Whoever calls.
    Caller,
}

impl Spawner {
    /// Starts the thread.
    pub(crate) fn start() -> Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("longshore-spawn".into())
            .spawn(move || serve(&queue))
            .map_err(io_error("start the thread that clones"))?;
        Ok(Self {
            by: By::Thread(jobs),
            sealed: OnceLock::new(),
            essentials: OnceLock::new(),
        })
    }

    /// For a program that makes one call: whoever calls clones.
    pub(crate) fn of_caller() -> Self {
        Self {
            by: By::Caller,
            sealed: OnceLock::new(),
            essentials: OnceLock::new(),
        }
    }

    fn sealed(&self) -> Option<Arc<SealedExecutable>> {
        let copies = match self.by {
            By::Thread(_) => Copies::Many,
            By::Caller => Copies::Few,
        };
        let prepare = || match SealedExecutable::of_this_program(copies) {
            Ok(sealed) => Some(Arc::new(sealed)),
            Err(errno) => {
                tracing::warn!(%errno, "this program's file can't be kept from its containers");
                None
            }
        };
        self.sealed.get_or_init(prepare).clone()
    }

    fn essentials(&self) -> Option<Essentials> {
        let look = || match Essentials::of_this_program() {
            Ok(essentials) => Some(essentials),
            Err(errno) => {
                tracing::warn!(%errno, "monitors keep all of this program's memory");
                None
            }
        };
        *self.essentials.get_or_init(look)
    }

    /// Clones a child that runs the program. Blocks for as long as the clone takes.
    pub(crate) fn spawn(&self, mut order: Order) -> Result<Spawned> {
        let sealed = self.sealed();
        let (duty, post) = match order.monitored.take() {
            None => (None, None),
            Some(Monitored { directory, log }) => {
                let (post, control) = Post::new()?;
                let essentials = self.essentials();
                let duty = Duty {
                    control,
                    directory,
                    essentials,
                    log,
                };
                (Some(duty), Some(post))
            }
        };
        let By::Thread(jobs) = &self.by else {
            return spawn_here(order, duty.as_ref(), sealed.as_deref()).map(|spawned| Spawned { post, ..spawned });
        };
        let (answer, answered) = mpsc::sync_channel(1);
        let job: Job = Box::new(move || {
            let spawned = clone_child(order, duty.as_ref(), sealed.as_deref());
            let child = spawned.as_ref().ok().filter(|_| duty.is_none());
            // A monitor does not die with this thread.
            let watched = child.and_then(|s| s.pidfd.try_clone().ok());
            let _ = answer.send(spawned);
            watched
        });
        let gone = |_| std::io::Error::other("the thread that clones has ended");
        jobs.send(job)
            .map_err(|_| gone(mpsc::RecvError))
            .map_err(io_error("clone a container's init process"))?;
        let spawned = answered
            .recv()
            .map_err(gone)
            .map_err(io_error("clone a container's init process"))??;
        Ok(Spawned { post, ..spawned })
    }
}

/// Clones on this thread, with every signal blocked meanwhile: no handler of the host may run in the child.
fn spawn_here(order: Order, duty: Option<&Duty>, sealed: Option<&SealedExecutable>) -> Result<Spawned> {
    let before = set_signal_mask(SignalMask::ALL).map_err(io_error("block signals"))?;
    let spawned = clone_child(order, duty, sealed);
    let _ = set_signal_mask(before);
    spawned
}

fn serve(queue: &mpsc::Receiver<Job>) {
    // Signals are for the host's threads; the child starts with them blocked and no handler of the host runs in it.
    let _ = set_signal_mask(SignalMask::ALL);
    let mut children: Vec<OwnedFd> = Vec::new();
    while let Ok(job) = queue.recv() {
        children.retain(|child| !has_ended(child));
        children.extend(job());
    }
    for child in children {
        let mut poll = [rustix::event::PollFd::new(&child, rustix::event::PollFlags::IN)];
        while rustix::event::poll(&mut poll, None).is_err() {}
    }
}

#[allow(unsafe_code)]
fn clone_child(order: Order, duty: Option<&Duty>, sealed: Option<&SealedExecutable>) -> Result<Spawned> {
    let Order {
        program,
        mut inputs,
        groups,
        ..
    } = order;
    let ancestor = match duty {
        Some(_) => Ancestor::Monitor,
        None if program.needs_helper() => Ancestor::Helper,
        None => Ancestor::Host,
    };
    // Nothing may come between the clone and the child's code: no error text is built before it is known who reads it.
    // SAFETY: the child goes straight into code that is made for it and never returns.
    let cloned = unsafe {
        match duty {
            Some(_) => clone3(CloneOptions::default()),
            None => init::clone_first(&program, &groups),
        }
    };
    match (cloned, duty) {
        (Err(errno), _) => Err(refused(&program, &groups, errno)),
        (Ok(Cloned::Child), Some(duty)) => {
            // SAFETY: this is the child, right after the clone; the inputs and the duty hold open descriptors of 3 and above; signals are blocked.
            unsafe { init::monitor(&program, inputs.slots(), sealed, &groups, duty) }
        }
        (Ok(Cloned::Child), None) if ancestor == Ancestor::Helper => {
            // SAFETY: as above.
            unsafe { init::run_helper(&program, inputs.slots(), sealed) }
        }
        (Ok(Cloned::Child), None) => {
            // SAFETY: as above.
            unsafe { init::run(&program, inputs.slots(), sealed) }
        }
        (Ok(Cloned::Parent { pid, pidfd }), _) => Ok(Spawned {
            pidfd,
            pid: pid.as_raw_nonzero().get(),
            ancestor,
            post: None,
        }),
    }
}

fn refused(program: &Program, groups: &[OwnedFd], errno: Errno) -> Error {
    let action = if !groups.is_empty() && init::takes_none(errno) {
        "clone, adding pid of the new process to cgroups".to_owned()
    } else {
        cloning(program)
    };
    io_error(action)(errno)
}

/// What a clone does, for an error's text.
pub(super) fn cloning(program: &Program) -> String {
    format!("clone into new namespaces ({:?})", program.unshare)
}

/// A process that does nothing and dies with the value, or with the thread that made it: systemd makes a scope only for one that is there.
#[cfg(feature = "systemd")]
#[derive(Debug)]
#[must_use = "dropped, it ends the process"]
pub(crate) struct Placeholder {
    pidfd: OwnedFd,
    pub(crate) pid: u32,
}

#[cfg(feature = "systemd")]
impl Placeholder {
    #[allow(unsafe_code)]
    pub(crate) fn new() -> Result<Self> {
        let before = set_signal_mask(SignalMask::ALL).map_err(io_error("block signals"))?;
        // SAFETY: the child goes straight into code that is made for it and never returns.
        let cloned = match unsafe { clone3(CloneOptions::default()) } {
            Ok(Cloned::Child) => init::wait_to_be_killed(),
            Ok(Cloned::Parent { pid, pidfd }) => Ok(Self {
                pidfd,
                pid: pid.as_raw_nonzero().get().unsigned_abs(),
            }),
            Err(errno) => Err(errno),
        };
        let _ = set_signal_mask(before);
        cloned.map_err(io_error("clone a process for systemd to make a scope for"))
    }
}

#[cfg(feature = "systemd")]
impl Drop for Placeholder {
    fn drop(&mut self) {
        let _ = longshore_linux::send_signal(&self.pidfd, 9);
        super::wait_and_reap(&self.pidfd);
    }
}
