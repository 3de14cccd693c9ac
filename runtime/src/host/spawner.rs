use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock, mpsc};

use longshore_linux::{
    CloneOptions, Cloned, Copies, Errno, Namespaces, SealedExecutable, SignalMask, clone3, has_ended, set_signal_mask,
};

use super::{Inputs, io_error};
use crate::init::{self, Ancestor};
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
}

pub(crate) type Job = Box<dyn FnOnce() -> Option<OwnedFd> + Send>;

/// Clones children.
#[derive(Debug)]
pub(crate) struct Spawner {
    by: By,
    /// What it takes for a child to let go of this program's file; none if that can't be known. Made for the first child.
    sealed: OnceLock<Option<Arc<SealedExecutable>>>,
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
        })
    }

    /// For a program that makes one call: whoever calls clones.
    pub(crate) fn of_caller() -> Self {
        Self {
            by: By::Caller,
            sealed: OnceLock::new(),
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

    /// Clones a child that runs the program, into the first of these groups of v2 that takes processes. Blocks for as long as the clone takes.
    pub(crate) fn spawn(&self, program: Arc<Program>, inputs: Inputs, groups: Vec<OwnedFd>) -> Result<Spawned> {
        let sealed = self.sealed();
        let By::Thread(jobs) = &self.by else {
            return spawn_here(&program, inputs, &groups, sealed.as_deref());
        };
        let (answer, answered) = mpsc::sync_channel(1);
        let job: Job = Box::new(move || {
            let spawned = clone_child(&program, inputs, &groups, sealed.as_deref());
            let watched = spawned.as_ref().ok().and_then(|s| s.pidfd.try_clone().ok());
            let _ = answer.send(spawned);
            watched
        });
        let gone = |_| std::io::Error::other("the thread that clones has ended");
        jobs.send(job)
            .map_err(|_| gone(mpsc::RecvError))
            .map_err(io_error("clone a container's init process"))?;
        answered
            .recv()
            .map_err(gone)
            .map_err(io_error("clone a container's init process"))?
    }
}

/// Clones on this thread, with every signal blocked meanwhile: no handler of the host may run in the child.
fn spawn_here(
    program: &Program,
    inputs: Inputs,
    groups: &[OwnedFd],
    sealed: Option<&SealedExecutable>,
) -> Result<Spawned> {
    let before = set_signal_mask(SignalMask::ALL).map_err(io_error("block signals"))?;
    let spawned = clone_child(program, inputs, groups, sealed);
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
fn clone_child(
    program: &Program,
    mut inputs: Inputs,
    groups: &[OwnedFd],
    sealed: Option<&SealedExecutable>,
) -> Result<Spawned> {
    let direct = !program.needs_helper();
    let mut options = CloneOptions::new(if direct { program.unshare } else { Namespaces::empty() });
    let mut groups = groups.iter().map(AsFd::as_fd);
    options.cgroup = groups.next();
    loop {
        // Nothing may come between the clone and the child's code: no error text is built before it is known who reads it.
        // SAFETY: the child goes straight into code that is made for it and never returns.
        match unsafe { clone3(options) } {
            Err(errno) => {
                let next = groups.next().filter(|_| is_closed(errno));
                if next.is_none() {
                    return Err(refused(program, &options, errno));
                }
                options.cgroup = next;
            }
            Ok(Cloned::Child) if direct => {
                // SAFETY: this is the child, right after the clone; the inputs hold open descriptors of 3 and above.
                unsafe { init::run(program, inputs.slots(), sealed) }
            }
            Ok(Cloned::Child) => {
                // SAFETY: as above.
                unsafe { init::run_helper(program, inputs.slots(), sealed) }
            }
            Ok(Cloned::Parent { pid, pidfd }) => {
                return Ok(Spawned {
                    pidfd,
                    pid: pid.as_raw_nonzero().get(),
                    ancestor: if direct { Ancestor::Host } else { Ancestor::Helper },
                });
            }
        }
    }
}

/// Whether the group takes no processes: it has handed controllers on (cgroup-v2.rst, "No Internal Process Constraint"), is threaded, or is gone.
fn is_closed(errno: Errno) -> bool {
    matches!(errno, Errno::BUSY | Errno::OPNOTSUPP | Errno::NODEV)
}

fn refused(program: &Program, options: &CloneOptions<'_>, errno: Errno) -> Error {
    let action = if options.cgroup.is_some() && is_closed(errno) {
        "clone, adding pid of the new process to cgroups".to_owned()
    } else {
        format!("clone into new namespaces ({:?})", program.unshare)
    };
    io_error(action)(errno)
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
