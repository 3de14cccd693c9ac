use std::os::fd::OwnedFd;
use std::sync::Arc;

use longshore_linux::{Namespaces, send_signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Shared;
use super::container::Container;
use super::create::{connect, open_streams, tell};
use super::process::{Watched, root_of};
use crate::host::{Agent, Inputs, Meeting, Order, Session, io_error, wait_and_reap};
use crate::plan::op::Slot;
use crate::plan::{PlanOptions, initial_cpus, plan_exec};
use crate::{Drained, Error, ErrorKind, ExecRequest, ExitStatus, Reaper, Result, Status, WhenPaused};

const SIGKILL: i32 = 9;

/// A process that runs and that nobody has been told of yet. Dropped, it is killed.
#[derive(Debug)]
#[must_use = "a process that is not committed is killed"]
pub(super) struct PendingExec {
    made: Option<(Arc<Container>, String, Arc<Watched>)>,
}

impl PendingExec {
    /// The process is the caller's; returns its pid.
    pub(super) fn commit(mut self) -> u32 {
        let (_, _, process) = self.made.take().expect("only commit takes it, and it takes the value");
        process.pid as u32
    }
}

impl Drop for PendingExec {
    fn drop(&mut self) {
        let Some((container, name, process)) = self.made.take() else {
            return;
        };
        container.execs().remove(&name);
        if let Some(pidfd) = &process.pidfd {
            let _ = send_signal(pidfd, SIGKILL);
            wait_and_reap(pidfd);
        }
    }
}

/// Runs another process in a container. Blocks.
pub(super) fn exec(shared: &Shared, container: &Arc<Container>, request: ExecRequest) -> Result<PendingExec> {
    make(shared, container, request).map_err(|error| {
        // One that ends meanwhile can't be entered, whichever step it is that notices.
        if is_of_an_end(&error) {
            wait_for_the_end(container);
        }
        match (error.kind(), container.status()) {
            (ErrorKind::Start | ErrorKind::Io, Status::Stopped) => super::wrong_status(container, "exec in"),
            _ => error,
        }
    })
}

/// Whether the container's end may be why: its init is gone, or the new process was killed with all of its PID namespace.
fn is_of_an_end(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let errno = cause.and_then(Errno::from_io_error);
    matches!(errno, Some(Errno::SRCH | Errno::PIPE | Errno::CONNRESET))
}

/// A process that ends has no namespaces any more for some moments before its end is told.
fn wait_for_the_end(container: &Container) {
    if let Some(pidfd) = &container.init.pidfd {
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        // An error is as good as an end here: the status tells.
        let _ = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&second));
    }
}

fn make(shared: &Shared, container: &Arc<Container>, request: ExecRequest) -> Result<PendingExec> {
    let ExecRequest {
        exec_id,
        process,
        io,
        descriptors,
        when_paused,
        groups,
        reaper,
    } = request;
    match (container.status(), when_paused) {
        (Status::Created | Status::Running, _) | (Status::Paused, WhenPaused::Enter) => {}
        _ => return Err(super::wrong_status(container, "exec in")),
    }
    if container.execs().contains_key(&exec_id) {
        return Err(Error::AlreadyExists(format!("{}/{exec_id}", container.id)));
    }
    let record = container.record()?;
    let mut options = PlanOptions::new(&record.bundle);
    options.lifetime = record.lifetime;
    options.filters = shared.filters.clone();
    options.descriptors = descriptors.len();
    options.keyring = record.keyring.name(container.id.as_str());
    options.also = time_namespace(container);
    let program = Arc::new(plan_exec(&record.spec, &process, &shared.facts, &options)?);
    tell(&container.id, program.warnings());

    let (mut inputs, socket) = Inputs::open(&program, &container.cgroup().location())?;
    inputs.put_descriptors(&program, descriptors)?;
    let init = init_pidfd(container)?;
    if program.enters_root_of_init() {
        inputs.put(Slot::ROOT, root_of(container.init.pid, &init)?)?;
    }
    inputs.put(Slot::INIT, init)?;
    let (mut streams, drained) = open_streams(io, program.terminal, &mut inputs)?;
    let entry = container.cgroup().entry_below(&groups)?;
    let mut unified: Vec<OwnedFd> = entry.unified.into_iter().collect();
    if groups.is_empty() {
        // Where the container's own group takes no processes, those of the container are where its init is.
        unified.extend(shared.cgroups.unified_group_of(container.init.pid));
    }
    inputs.put_tasks(entry.tasks)?;
    let spawned = shared.spawner.spawn(Order {
        program: Arc::clone(&program),
        inputs,
        groups: unified,
        monitored: None,
    })?;
    if let Some(cpus) = initial_cpus(&program) {
        // runc's words: tools look for them.
        let mask = cpus.iter().rev().fold(String::new(), |text, word| match text.as_str() {
            "" if *word == 0 => text,
            "" => format!("{word:x}"),
            _ => format!("{text}{word:016x}"),
        });
        tracing::debug!(pid = spawned.pid, "nsexec container setup: affinity: 0x{mask}");
    }
    let mut session = Session::new(program, socket, spawned);
    let mut agent = Agent::of(&record.spec, &record.bundle);
    loop {
        match session.next(&shared.facts)? {
            Meeting::Terminal(master) => connect(&mut streams, master)?,
            Meeting::Agent => {
                agent.connect()?;
                session.go()?;
            }
            Meeting::Listener(message, fd) => {
                let state = Container::oci_state(&record, Status::Running);
                session.hand_over(&mut agent, (message, fd), state)?;
            }
            Meeting::Hooks | Meeting::Created => {
                if let Some(group) = &record.resctrl {
                    group.join(session.pid())?;
                }
                tracing::debug!(pid = session.pid(), "setns_init: about to exec");
                session.go()?;
            }
            Meeting::Gone => break,
        }
    }
    let pid = session.pid();
    let pidfd = session.into_pidfd();
    let process = Arc::new(Watched::new(pid, Some(pidfd), drained.map(Drained::wait)));
    if reaper != Reaper::Heir {
        container.execs().insert(exec_id.clone(), Arc::clone(&process));
    }
    let pending = PendingExec {
        made: Some((Arc::clone(container), exec_id, Arc::clone(&process))),
    };
    let watched = process.pidfd.clone().filter(|_| reaper != Reaper::Heir);
    if let (Some(watched), Some(reactor)) = (watched, &shared.reactor) {
        reactor.watch(watched, move |exit| {
            process.ended(exit.unwrap_or_else(ExitStatus::unknown))
        })?;
    }
    Ok(pending)
}

/// CRIU restores into a time namespace, of which the spec says nothing: what is added must be in it as well to be saved again.
fn time_namespace(container: &Container) -> Namespaces {
    let time_of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/time")).ok();
    let differs = match (time_of("self"), time_of(&container.init.pid.to_string())) {
        (Some(own), Some(theirs)) => own != theirs,
        _ => false,
    };
    if differs { Namespaces::TIME } else { Namespaces::empty() }
}

fn init_pidfd(container: &Container) -> Result<OwnedFd> {
    let pidfd = container
        .init
        .pidfd
        .as_ref()
        .ok_or_else(|| super::wrong_status(container, "exec in"))?;
    pidfd.try_clone().map_err(io_error("duplicate a pidfd"))
}
