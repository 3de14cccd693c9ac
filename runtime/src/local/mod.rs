//! The executor of this machine: containers made by the kernel, known by a state directory.

mod checkpoint;
mod container;
mod create;
mod exec;
mod facts;
mod figures;
mod hooks;
mod list;
mod outlet;
mod process;
mod reactor;
mod record;
mod signal;
mod start_socket;
mod sweep;
mod update;

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::FutureExt;
use futures::stream::BoxStream;
use oci_spec::runtime::{LinuxResources, Spec};

#[cfg(feature = "systemd")]
use crate::cgroup::Driver;
use crate::cgroup::Manager;
use crate::executor::not_attachable;
use crate::host::{Agent, Answer, Listener, Spawner, io_error, step_error};
use crate::init::report::Message;
use crate::plan::{HostFacts, PlanOptions, plan};
use crate::seccomp::FilterCache;
use crate::{
    Attachment, CheckpointRequest, ContainerId, CreateRequest, DeleteMode, Error, ExecRequest, Executor, ExitStatus,
    KillScope, ProcessId, RestoreRequest, Result, State, Stats, Status,
};
use container::Container;
use reactor::Reactor;
use record::{ATTACH_SOCKET, ProcessName, Record, StateDir};
use signal::{kill, kill_all, outlives_init};
use start_socket::Started;
pub(crate) use start_socket::open_dir as open_directory;
#[cfg(feature = "fuzzing")]
pub(crate) use {figures::devices, record::start_time};

const SIGKILL: i32 = 9;

/// How many threads look at containers at once.
const LOOKERS: usize = 2;

/// The executor of this machine.
///
/// Opened with [`open`](Self::open), it must be used from within a tokio runtime, of either flavour: blocking work goes to the runtime's blocking
/// threads. Two threads of its own clone children and watch for their ends. Dropping it leaves its containers as they are: tied ones die with the process.
#[derive(Debug)]
pub struct LinuxExecutor {
    shared: Arc<Shared>,
}

/// What the calls share.
#[derive(Debug)]
struct Shared {
    root: PathBuf,
    facts: HostFacts,
    own: ProcessName,
    spawner: Spawner,
    /// None where the calls do all on the thread of the caller.
    reactor: Option<Reactor>,
    cgroups: Manager,
    filters: FilterCache,
    containers: Mutex<HashMap<ContainerId, Arc<Container>>>,
}

impl LinuxExecutor {
    /// Opens a state directory, which is made if it is not there, with mode 0711. It belongs on a filesystem that a reboot empties (`/run`):
    /// containers do not survive one. Cleans up what programs that died have left there: half-made containers and tied ones.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) and [`PermissionDenied`](crate::ErrorKind::PermissionDenied) for the directory.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let executor = Self::with(root.as_ref(), Spawner::start()?, Some(Reactor::start()?))?;
        sweep::sweep(&executor.shared);
        Ok(executor)
    }

    /// The same without any thread, for a program that makes one call and ends, such as a command-line tool: calls do their work on the
    /// thread that polls them, which they block, and need no async runtime. Handing the work on costs such a program more than the work.
    ///
    /// A tied container is tied to the thread that creates it. The end of a container is noticed and recorded only by
    /// [`wait`](Executor::wait), so that this program must wait for what it does not detach.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on_this_thread(root: impl AsRef<Path>) -> Result<Self> {
        let executor = Self::with(root.as_ref(), Spawner::of_caller(), None)?;
        sweep::sweep(&executor.shared);
        Ok(executor)
    }

    fn with(root: &Path, spawner: Spawner, reactor: Option<Reactor>) -> Result<Self> {
        let fail = || format!("open the state directory {}", root.display());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(root)
            .map_err(io_error(fail()))?;
        let root = fs::canonicalize(root).map_err(io_error(fail()))?;
        let cgroups = Manager::detect()?;
        let shared = Shared {
            root,
            facts: HostFacts::gather_with(cgroups.host().clone())?,
            own: ProcessName::of(std::process::id() as i32)?,
            spawner,
            reactor,
            cgroups,
            filters: FilterCache::new(),
            containers: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The same, where systemd makes the groups of containers that are created from now on. Containers of another driver are served as well.
    #[cfg(feature = "systemd")]
    #[must_use]
    pub fn with_driver(mut self, driver: Driver) -> Self {
        let shared = Arc::get_mut(&mut self.shared);
        shared
            .expect("nobody else has it before the first call")
            .cgroups
            .set_driver(driver);
        self
    }

    /// The runtime spec that a container was created from, as it was then but for the limits, which are those of now: its bundle may have
    /// changed or gone since.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); [`Corrupt`](crate::ErrorKind::Corrupt) for a damaged state directory.
    pub fn spec(&self, id: &ContainerId) -> Result<Spec> {
        let container = self.shared.find(id)?;
        let record = container.dir.load()?;
        Ok(record.ok_or_else(|| Error::NotFound(id.to_string()))?.spec)
    }

    /// Saves a running container by CRIU, an own program (criu(8)); it has ended then, unless the request says otherwise, and is still to be
    /// deleted.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) unless it runs; [`Io`](crate::ErrorKind::Io) with CRIU's words, or if it is not there.
    pub async fn checkpoint(&self, id: &ContainerId, request: CheckpointRequest) -> Result<()> {
        self.take_turn(id, move |shared, container| {
            checkpoint::dump(shared, container, request)
        })
        .await
    }

    /// Makes a container out of a checkpoint; it runs then. Nothing of what it takes is left in the host's table of mounts.
    ///
    /// It is detached and has no monitor, as CRIU makes its processes: as with [`Reaper::Host`](crate::Reaper::Host), how it ended is unknown (255) to a later program if this one
    /// ends first.
    ///
    /// # Errors
    /// As of a [`create`](Executor::create); [`Io`](crate::ErrorKind::Io) with CRIU's words.
    pub async fn restore(&self, request: RestoreRequest) -> Result<State> {
        let id = request.id.clone();
        let pending = self.block(move |shared| checkpoint::restore(shared, request)).await?;
        let container = pending.commit();
        self.shared.containers().insert(id, Arc::clone(&container));
        Ok(container.state())
    }

    /// Runs blocking work where it may block.
    async fn block<T: Send + 'static>(&self, work: impl FnOnce(&Shared) -> Result<T> + Send + 'static) -> Result<T> {
        if self.shared.reactor.is_none() {
            return work(&self.shared);
        }
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(done) => done,
            Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            Err(e) => Err(e).map_err(io_error("run blocking work")),
        }
    }

    /// Runs blocking work on a container, one at a time. The turn is kept until the work is done, even if nobody waits for it any more.
    async fn take_turn<T: Send + 'static>(
        &self,
        id: &ContainerId,
        work: impl FnOnce(&Shared, &Arc<Container>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let container = self.shared.find(id)?;
        let turn = Arc::clone(&container.turn).lock_owned().await;
        self.block(move |shared| {
            let _turn = turn;
            container.refresh(&shared.cgroups)?;
            work(shared, &container)
        })
        .await
    }
}

impl Shared {
    fn containers(&self) -> std::sync::MutexGuard<'_, HashMap<ContainerId, Arc<Container>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container by its id, as far as the state directory still has it.
    fn find(&self, id: &ContainerId) -> Result<Arc<Container>> {
        let dir = StateDir::new(&self.root, id);
        if let Some(container) = self.containers().get(id)
            && dir.exists()
        {
            return Ok(Arc::clone(container));
        }
        self.containers().remove(id);
        let record = dir.load_brief()?.ok_or_else(|| Error::NotFound(id.to_string()))?;
        let container = Arc::new(Container::load(id, dir, record, &self.cgroups)?);
        Ok(Arc::clone(self.containers().entry(id.clone()).or_insert(container)))
    }
}

fn wrong_status(container: &Container, action: &'static str) -> Error {
    Error::WrongStatus {
        id: container.id.to_string(),
        action,
        status: container.status(),
    }
}

#[async_trait]
impl Executor for LinuxExecutor {
    async fn create(&self, request: CreateRequest) -> Result<State> {
        let id = request.id.clone();
        let pending = self.block(move |shared| create::create(shared, request)).await?;
        let container = pending.commit();
        self.shared.containers().insert(id, Arc::clone(&container));
        Ok(container.state_of(Status::Created))
    }

    async fn start(&self, id: &ContainerId) -> Result<()> {
        self.take_turn(id, start).await
    }

    async fn exec(&self, id: &ContainerId, request: ExecRequest) -> Result<u32> {
        let pending = self
            .take_turn(id, move |shared, container| exec::exec(shared, container, request))
            .await?;
        Ok(pending.commit())
    }

    async fn kill(&self, id: &ContainerId, signal: i32, scope: KillScope) -> Result<()> {
        self.take_turn(id, move |_, container| match scope {
            // Init does not take the others with it: runc's "kill", and what those who call it count on.
            KillScope::Init if signal == SIGKILL && outlives_init(container)? => kill_all(container, signal),
            KillScope::Init => kill(container, signal),
            KillScope::All => kill_all(container, signal),
        })
        .await
    }

    async fn pause(&self, id: &ContainerId) -> Result<()> {
        self.take_turn(id, |_, container| match container.status() {
            Status::Created | Status::Running => container.cgroup().freeze(),
            _ => Err(wrong_status(container, "pause")),
        })
        .await
    }

    async fn resume(&self, id: &ContainerId) -> Result<()> {
        self.take_turn(id, |_, container| match container.status() {
            Status::Paused => container.cgroup().thaw(),
            _ => Err(wrong_status(container, "resume")),
        })
        .await
    }

    async fn update(&self, id: &ContainerId, resources: &LinuxResources) -> Result<()> {
        let resources = resources.clone();
        self.take_turn(id, move |shared, container| {
            update::update(shared, container, &resources)
        })
        .await
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        let container = self.shared.find(id)?;
        self.block(move |_| container.stats()).await
    }

    async fn sample(&self, ids: &[ContainerId]) -> Vec<Result<Stats>> {
        let each = ids.len().div_ceil(LOOKERS).max(1);
        let parts = ids.chunks(each).map(|ids| {
            let ids = ids.to_vec();
            let many = ids.len();
            let sampled = self.block(move |shared| Ok(figures::sample(shared, &ids)));
            async move {
                sampled.await.unwrap_or_else(|error| {
                    let error = error.to_string();
                    let failed = || {
                        Err(Error::Io {
                            action: "sample containers".into(),
                            source: std::io::Error::other(error.clone()),
                        })
                    };
                    (0..many).map(|_| failed()).collect()
                })
            }
        });
        futures::future::join_all(parts).await.into_iter().flatten().collect()
    }

    async fn out_of_memory(&self, id: &ContainerId) -> Result<BoxStream<'static, ()>> {
        let container = self.shared.find(id)?;
        if !container.is_watched() {
            return self.watch_oom(id)?.into_stream();
        }
        let init = Arc::clone(&container.init);
        let end = async move { _ = init.wait_for_exit().await };
        container.cgroup().watch_oom(None)?.into_stream_until(end.boxed())
    }

    async fn processes(&self, id: &ContainerId) -> Result<Vec<u32>> {
        let container = self.shared.find(id)?;
        self.block(move |_| match container.has_groups() {
            false => Ok(container.state().pid.into_iter().collect()),
            true => container.cgroup().pids(),
        })
        .await
    }

    async fn wait(&self, id: &ContainerId, process: &ProcessId) -> Result<ExitStatus> {
        let container = self.shared.find(id)?;
        let watched = match process {
            ProcessId::Init => {
                container.watch(self.shared.reactor.as_ref())?;
                Arc::clone(&container.init)
            }
            ProcessId::Exec(name) => {
                let exec = container.execs().get(name).cloned();
                exec.ok_or_else(|| Error::NotFound(format!("{id}/{name}")))?
            }
        };
        let monitored = *process == ProcessId::Init && container.monitor.is_some();
        if watched.pidfd.is_none() && !monitored && watched.status().is_none() {
            // It ended while nobody looked.
            return Ok(ExitStatus::now(255));
        }
        if self.shared.reactor.is_none() {
            match process {
                ProcessId::Init => container.wait_here(),
                ProcessId::Exec(_) => watched.wait_here(),
            };
        }
        let ended = watched.wait().await;
        ended.ok_or_else(|| Error::NotFound(id.to_string()))
    }

    async fn attach(&self, id: &ContainerId) -> Result<Attachment> {
        let container = self.shared.find(id)?;
        self.block(move |_| attach(&container)).await
    }

    async fn delete(&self, id: &ContainerId, mode: DeleteMode) -> Result<()> {
        self.take_turn(id, move |shared, container| delete(shared, container, mode))
            .await
    }

    async fn state(&self, id: &ContainerId) -> Result<State> {
        self.shared.find(id).map(|container| container.state())
    }

    async fn list(&self) -> Result<Vec<State>> {
        self.block(list::list).await
    }
}

fn start(shared: &Shared, container: &Arc<Container>) -> Result<()> {
    if !container.may_be_started() {
        return Err(wrong_status(container, "start"));
    }
    let started = started(shared, container);
    if matches!(started, Err(Error::Hook { .. })) {
        // Runtime spec, "Lifecycle", steps 7 and 9: a hook that fails leads to the end of the life.
        let _ = delete(shared, container, DeleteMode::Force);
    }
    started
}

fn started(shared: &Shared, container: &Arc<Container>) -> Result<()> {
    let record = &*container.record()?;
    let mut agent = Agent::of(&record.spec, &record.bundle);
    let hooks = record.spec.hooks().as_ref();
    let mut hooks_due = hooks.is_some_and(|h| h.start_container().as_ref().is_some_and(|h| !h.is_empty()));
    let dir = container.dir.path();
    let socket = start_socket::signal_start(dir)?.ok_or_else(|| wrong_status(container, "start"))?;
    let started = start_socket::follow(&socket, dir, |message, fd| {
        // It waits for its hooks first.
        if std::mem::take(&mut hooks_due) {
            let init = container.init.pidfd.as_ref();
            hooks::run_start(hooks::Inside {
                shared,
                record,
                cgroup: &container.cgroup(),
                init: init.ok_or_else(|| wrong_status(container, "start"))?.as_fd(),
            })?;
            return Ok(Answer::Go);
        }
        hand_over((container, record), &mut agent, message, fd)
    });
    match started? {
        Started::Failed(message) => Err(start_error(shared, (container, record), message)),
        Started::Yes => {
            container.let_go_of_record();
            hooks::run_poststart(record)
        }
    }
}

/// Brings the seccomp agent and the listener of an init process together.
fn hand_over(
    (container, record): (&Container, &Record),
    agent: &mut Agent<'_>,
    message: Message,
    fd: Option<OwnedFd>,
) -> Result<Answer> {
    if let Message::AtStep(_) = message {
        return agent.connect().map(|()| Answer::Go);
    }
    let child = container
        .init
        .pidfd
        .as_ref()
        .ok_or_else(|| wrong_status(container, "start"))?;
    let pid = container.init.pid;
    let state = Container::oci_state(record, Status::Created);
    agent.hand_over(
        Listener {
            message,
            fd,
            child,
            pid,
        },
        state,
    )
}

/// The error of a step after the start; the program is compiled again to know which step it was.
fn start_error(shared: &Shared, (container, record): (&Container, &Record), message: Message) -> Error {
    let mut options = PlanOptions::new(&record.bundle);
    options.lifetime = record.lifetime;
    options.keyring = record.keyring.name(container.id.as_str());
    options.filters = shared.filters.clone();
    match (message, plan(&record.spec, &shared.facts, &options)) {
        (Message::Failed { step, failure }, Ok(program)) => {
            // The root filesystem is not in the record, and its mounts come first: count from the end.
            let from_end = record.steps.saturating_sub(step);
            step_error(&program, (program.steps.len() as u32).saturating_sub(from_end), failure)
        }
        _ => wrong_status(container, "start"),
    }
}

fn attach(container: &Container) -> Result<Attachment> {
    let attached = Attachment::connect(container.dir.path(), ATTACH_SOCKET)?;
    attached.ok_or_else(|| match container.status() {
        Status::Stopped => wrong_status(container, "attach to"),
        _ => not_attachable(&container.id),
    })
}

fn delete(shared: &Shared, container: &Arc<Container>, mode: DeleteMode) -> Result<()> {
    if container.status() != Status::Stopped {
        if mode == DeleteMode::Stopped {
            return Err(wrong_status(container, "delete"));
        }
        container.kill_and_wait();
    }
    container.wait_until_recorded();
    if container.has_groups() {
        // Without a PID namespace of their own, processes may have outlived init.
        if !container.facts.has_own_pids {
            container.cgroup().kill()?;
        }
        container.cgroup().remove()?;
    }
    if let Some(group) = &container.facts.resctrl {
        group.remove()?;
    }
    let hooks = container.facts.has_poststop.then(|| container.record());
    container.dir.remove()?;
    shared.containers().remove(&container.id);
    match hooks {
        Some(Ok(record)) => hooks::run_poststop(&record),
        Some(Err(error)) => tracing::warn!(container = %container.id, %error, "its poststop hooks are not run"),
        None => {}
    }
    Ok(())
}
