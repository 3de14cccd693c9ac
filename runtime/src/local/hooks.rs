//! Runs hooks, one after the other, with the container's state on their stdin (runtime spec, "POSIX-platform Hooks" and "Lifecycle").

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_linux::{Exit, reap, send_signal};
use oci_spec::runtime::Hook;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use super::Shared;
use super::container::Container;
use super::process::root_of;
use super::record::Record;
use crate::cgroup::Cgroup;
use crate::host::{Agent, Inputs, Meeting, Order, Session, wait_and_reap};
use crate::plan::op::Slot;
use crate::plan::{PlanOptions, Program, plan_create_container_hook, plan_start_container_hook, prestart};
use crate::{Error, Result, Status, Stdio};

const SIGKILL: i32 = 9;
/// The most of a hook's words that goes into an error.
const LONGEST_COMPLAINT: usize = 4096;

/// A container whose namespaces hooks enter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inside<'a> {
    pub(super) shared: &'a Shared,
    pub(super) record: &'a Record,
    pub(super) cgroup: &'a Cgroup,
    pub(super) init: BorrowedFd<'a>,
}

/// Steps 3 to 5 of the lifecycle. The first hook that fails ends it.
pub(super) fn run_create(inside: Inside<'_>) -> Result<()> {
    let record = inside.record;
    let Some(hooks) = record.spec.hooks() else {
        return Ok(());
    };
    let state = Container::oci_state(record, Status::Creating);
    // These are older than the status `creating`, and told of a container that is created (as with crun).
    let older = Container::oci_state(record, Status::Created);
    run_each("prestart", prestart(hooks), |hook, _| run_here(hook, record, &older))?;
    run_each("createRuntime", hooks.create_runtime(), |hook, _| {
        run_here(hook, record, &state)
    })?;
    run_each("createContainer", hooks.create_container(), |hook, field| {
        let (facts, options) = (&inside.shared.facts, inside.options());
        let program = plan_create_container_hook(field, hook, &record.spec, facts, &options);
        inside.run(hook, program.map_err(|e| e.to_string())?, Status::Creating)
    })
}

/// Step 7. The first hook that fails ends it.
pub(super) fn run_start(inside: Inside<'_>) -> Result<()> {
    let record = inside.record;
    let list = record.spec.hooks().as_ref().map(|h| h.start_container());
    run_each("startContainer", list.unwrap_or(&None), |hook, field| {
        let (facts, options) = (&inside.shared.facts, inside.options());
        let program = plan_start_container_hook(field, hook, &record.spec, facts, &options);
        inside.run(hook, program.map_err(|e| e.to_string())?, Status::Created)
    })
}

/// Step 9. The first hook that fails ends it.
pub(super) fn run_poststart(record: &Record) -> Result<()> {
    let list = record.spec.hooks().as_ref().map(|h| h.poststart());
    let state = Container::oci_state(record, Status::Running);
    run_each("poststart", list.unwrap_or(&None), |hook, _| {
        run_here(hook, record, &state)
    })
}

/// Step 13: a failure is a warning, and the next ones run.
pub(super) fn run_poststop(record: &Record) {
    let hooks = record.spec.hooks().as_ref().and_then(|h| h.poststop().as_ref());
    let state = Container::oci_state(record, Status::Stopped);
    for (i, hook) in hooks.into_iter().flatten().enumerate() {
        if let Err(reason) = run_here(hook, record, &state) {
            tracing::warn!(container = %record.id, "hooks.poststop[{i}]: {reason}");
        }
    }
}

fn run_each(
    kind: &str,
    hooks: &Option<Vec<Hook>>,
    mut run: impl FnMut(&Hook, &str) -> Result<(), String>,
) -> Result<()> {
    for (i, hook) in hooks.iter().flatten().enumerate() {
        let field = format!("hooks.{kind}[{i}]");
        run(hook, &field).map_err(|reason| Error::Hook { field, reason })?;
    }
    Ok(())
}

/// In the runtime's namespace.
fn run_here(hook: &Hook, record: &Record, state: &Value) -> Result<(), String> {
    let path = hook.path().display();
    let fail = |e: std::io::Error| format!("{path}: {e}");
    let streams = Ends::open(state).map_err(fail)?;
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    command.env_clear().current_dir(&record.bundle);
    for variable in hook.env().iter().flatten() {
        if let Some((name, value)) = variable.split_once('=') {
            command.env(name, value);
        }
    }
    command
        .stdin(streams.stdin)
        .stdout(streams.stdout)
        .stderr(streams.stderr);
    let spawned = command.spawn();
    // It has copies of the hook's ends, and the hook's output would not end while they are there.
    drop(command);
    let child = spawned.map_err(fail)?;
    let pid = Pid::from_raw(child.id() as i32).expect("a child's pid is positive");
    // It is not reaped yet: the pid is its own.
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| fail(e.into()))?;
    attend(hook, &pidfd, &streams.output)
}

impl Inside<'_> {
    fn options(&self) -> PlanOptions {
        let mut options = PlanOptions::new(&self.record.bundle);
        options.keyring = self.record.keyring.name(&self.record.id);
        options.filters = self.shared.filters.clone();
        options
    }

    /// In the container's namespaces.
    fn run(&self, hook: &Hook, program: Program, status: Status) -> Result<(), String> {
        let mut state = Container::oci_state(self.record, status);
        state["pid"] = pid_inside(self.record.init.pid).into();
        let (pidfd, output) = self
            .spawn(Arc::new(program), &state, status)
            .map_err(|error| format!("{}: {}", hook.path().display(), with_cause(&error)))?;
        attend(hook, &pidfd, &output)
    }

    fn spawn(&self, program: Arc<Program>, state: &Value, status: Status) -> Result<(OwnedFd, OwnedFd)> {
        let (mut inputs, socket) = Inputs::open(&program, &self.cgroup.location())?;
        let streams = Ends::open(state).map_err(crate::host::io_error("open a hook's streams"))?;
        inputs.put_streams(Stdio {
            stdin: streams.stdin.into(),
            stdout: streams.stdout,
            stderr: streams.stderr,
        })?;
        if program.enters_root_of_init() {
            inputs.put(Slot::ROOT, root_of(self.record.init.pid, self.init)?)?;
        }
        let init = self.init.try_clone_to_owned();
        inputs.put(Slot::INIT, init.map_err(crate::host::io_error("duplicate a pidfd"))?)?;
        let entry = self.cgroup.entry()?;
        inputs.put_tasks(entry.tasks)?;
        let spawned = self.shared.spawner.spawn(Order {
            program: Arc::clone(&program),
            inputs,
            groups: entry.unified.into_iter().collect(),
            monitored: None,
        })?;
        let mut session = Session::new(program, socket, spawned);
        let mut agent = Agent::of(&self.record.spec, &self.record.bundle);
        loop {
            match session.next(&self.shared.facts)? {
                Meeting::Hooks | Meeting::Created => session.go()?,
                Meeting::Agent => {
                    agent.connect()?;
                    session.go()?;
                }
                Meeting::Listener(message, fd) => {
                    let state = Container::oci_state(self.record, status);
                    session.hand_over(&mut agent, (message, fd), state)?;
                }
                Meeting::Terminal(_) => return Err(session.out_of_turn()),
                Meeting::Gone => break,
            }
        }
        Ok((session.into_pidfd(), streams.output))
    }
}

/// The streams of a hook, and our end of its output.
struct Ends {
    stdin: File,
    stdout: OwnedFd,
    stderr: OwnedFd,
    output: OwnedFd,
}

impl Ends {
    /// The state is in a file, not in a pipe: a hook need not read it, however long it is.
    fn open(state: &Value) -> std::io::Result<Self> {
        let mut stdin = File::from(memfd_create(c"state", MemfdFlags::CLOEXEC)?);
        stdin.write_all(state.to_string().as_bytes())?;
        stdin.rewind()?;
        let (output, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&output, true)?;
        let stderr = stdout.try_clone()?;
        Ok(Self {
            stdin,
            stdout,
            stderr,
            output,
        })
    }
}

/// Waits for a hook's end, for as long as it may take, and reads what it says.
fn attend(hook: &Hook, pidfd: &OwnedFd, output: &OwnedFd) -> Result<(), String> {
    let path = hook.path().display();
    let timeout = hook.timeout().and_then(|s| u64::try_from(s).ok());
    let deadline = timeout.and_then(|s| Instant::now().checked_add(Duration::from_secs(s)));
    let mut said = Said::default();
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            let _ = send_signal(pidfd, SIGKILL);
            wait_and_reap(pidfd);
            let seconds = timeout.unwrap_or(0);
            return Err(format!("{path}: hook ran past specified timeout of {seconds}s"));
        }
        let left = left.map(|d| Timespec {
            tv_sec: d.as_secs() as i64,
            tv_nsec: i64::from(d.subsec_nanos()),
        });
        let mut fds = [
            PollFd::new(pidfd, PollFlags::IN),
            PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN),
        ];
        let watched = if said.ended { &mut fds[..1] } else { &mut fds[..] };
        match poll(watched, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(format!("{path}: {errno}")),
        }
        let ended = !fds[0].revents().is_empty();
        said.read(output);
        if ended {
            break;
        }
    }
    let how = match reap(pidfd) {
        Ok(Exit::Code(0)) => return Ok(()),
        Ok(Exit::Code(code)) => format!("exit status {code}"),
        // With the word for it that tools look for: it is what a seccomp filter does.
        Ok(Exit::Signal(SIGSYS)) => "signal 31 ended it: bad system call".to_owned(),
        Ok(Exit::Signal(signal)) => format!("signal {signal} ended it"),
        _ => "it ended, and the kernel does not tell how".to_owned(),
    };
    Err(format!("{path}: {how}{}", said.text()))
}

/// signal(7): a bad system call.
const SIGSYS: i32 = 31;

/// What a hook has written so far, as far as it is kept.
#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    ended: bool,
}

impl Said {
    /// Takes all that is there; what is too long is read all the same, so that the hook is not held up.
    fn read(&mut self, output: &OwnedFd) {
        let mut buffer = [0; LONGEST_COMPLAINT];
        loop {
            match rustix::io::read(output, &mut buffer) {
                Ok(0) => {
                    self.ended = true;
                    return;
                }
                Ok(length) => {
                    let room = LONGEST_COMPLAINT - self.bytes.len();
                    self.bytes.extend_from_slice(&buffer[..length.min(room)]);
                }
                Err(_) => return,
            }
        }
    }

    fn text(&self) -> String {
        match String::from_utf8_lossy(&self.bytes).trim() {
            "" => String::new(),
            text => format!(": {text}"),
        }
    }
}

/// The pid that a process has in its innermost PID namespace (proc_pid_status(5), `NSpid`).
fn pid_inside(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("NSpid:"));
    line.and_then(|l| l.split_ascii_whitespace().last()?.parse().ok())
        .unwrap_or(pid)
}

fn with_cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_in_its_own_namespace() {
        let own = std::process::id() as i32;
        assert!(pid_inside(own) > 0 && pid_inside(own) <= own);
    }
}
