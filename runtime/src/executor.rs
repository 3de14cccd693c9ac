use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::SystemTime;

use async_trait::async_trait;
use futures::stream::BoxStream;
use longshore_linux::Mount;
use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::{Deserialize, Serialize};

use crate::cgroup::{Cgroup, SubGroup};
use crate::{Attachment, ContainerId, Error, Io, Result, RootEntry, Stats};

/// How a container's life depends on the program that made it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Lifetime {
    /// It dies with the host program, even when that is killed.
    #[default]
    Tied,
    /// It survives the host program, which finds it again by the state directory.
    Detached,
}

/// Who takes a process's exit status from the kernel, which tells it once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reaper {
    /// The executor, whose [`wait`](Executor::wait) tells it. A [detached](Lifetime::Detached) container gets a monitor for that: a small process that survives the host program
    /// and writes the status, and when that was, into the state directory, so that it is known to whoever asks later.
    #[default]
    Executor,
    /// The executor of this program and no other: a detached container gets no monitor, which makes its start cheaper, and how it ended is unknown (255) to others if this program ends first.
    Host,
    /// Whoever is the parent when the host program has ended: a host that ends as soon as the process runs leaves it to its own caller, who
    /// made itself a subreaper, even if the process has ended by then. It is not one that [`wait`](Executor::wait) should be asked for.
    Heir,
}

/// Which session keyring (session-keyring(7)) the processes of a container have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Keyring {
    /// One of the container's own, named `_ses.` and its id, where the kernel has keys.
    #[default]
    Own,
    /// The host program's: whatever keys it has are in reach of the container.
    Inherited,
}

impl Keyring {
    /// The name of the keyring for a container; none when it is inherited.
    pub(crate) fn name(self, id: &str) -> Option<String> {
        (self == Self::Own).then(|| format!("_ses.{id}"))
    }
}

/// Asks for a container.
#[derive(Debug)]
#[non_exhaustive]
pub struct CreateRequest {
    /// Its id.
    pub id: ContainerId,
    /// The bundle's directory; relative paths in the spec (`root.path`) start from here. It need not hold a `config.json`.
    pub bundle: PathBuf,
    /// The runtime spec.
    pub spec: Spec,
    /// What makes up the root filesystem, mounted inside the container's mount namespace only. Empty: `root.path` of the spec is a directory that is ready.
    pub rootfs: Vec<Mount>,
    /// Where its streams go.
    pub io: Io,
    /// Whether it dies with the host program.
    pub lifetime: Lifetime,
    /// Further descriptors for its program, which has them as 3, 4 and so on, open across the execve.
    pub descriptors: Vec<OwnedFd>,
    /// Who learns how its first process ends.
    pub reaper: Reaper,
    /// Which session keyring its processes have.
    pub keyring: Keyring,
    /// How its root becomes the root.
    pub root_entry: RootEntry,
}

impl CreateRequest {
    /// A tied container of `spec`, whose root is the directory that the spec names.
    pub fn new(id: ContainerId, bundle: impl Into<PathBuf>, spec: Spec, io: Io) -> Self {
        Self {
            id,
            bundle: bundle.into(),
            spec,
            rootfs: Vec::new(),
            io,
            lifetime: Lifetime::default(),
            descriptors: Vec::new(),
            reaper: Reaper::default(),
            keyring: Keyring::default(),
            root_entry: RootEntry::default(),
        }
    }

    /// The same with another way for its root to become the root.
    #[must_use]
    pub fn root_entry(mut self, root_entry: RootEntry) -> Self {
        self.root_entry = root_entry;
        self
    }

    /// The same with a root filesystem to mount.
    #[must_use]
    pub fn rootfs(mut self, mounts: Vec<Mount>) -> Self {
        self.rootfs = mounts;
        self
    }

    /// The same with another lifetime.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// The same with another session keyring.
    #[must_use]
    pub fn keyring(mut self, keyring: Keyring) -> Self {
        self.keyring = keyring;
        self
    }

    /// The same with further descriptors for its program.
    #[must_use]
    pub fn descriptors(mut self, descriptors: Vec<OwnedFd>) -> Self {
        self.descriptors = descriptors;
        self
    }

    /// The same, and who learns how its first process ends.
    #[must_use]
    pub fn reaper(mut self, reaper: Reaper) -> Self {
        self.reaper = reaper;
        self
    }
}

/// Asks for another process in a container.
#[derive(Debug)]
#[non_exhaustive]
pub struct ExecRequest {
    /// Its name among the container's processes.
    pub exec_id: String,
    /// What to run, as `process` of the runtime spec. Capabilities, rlimits, labels and no_new_privs that it leaves out are the container's own.
    pub process: Process,
    /// Where its streams go.
    pub io: Io,
    /// Further descriptors for it, as those of a [`CreateRequest`].
    pub descriptors: Vec<OwnedFd>,
    /// What happens if the container is frozen.
    pub when_paused: WhenPaused,
    /// Groups inside the container's in which it is; none is the container's own, or init's where that one takes no processes (cgroup v2).
    pub groups: Vec<SubGroup>,
    /// Who learns how it ends. One that is left to an heir has no name afterwards.
    pub reaper: Reaper,
}

/// What becomes of a process for a container that is frozen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenPaused {
    /// It is refused.
    #[default]
    Refuse,
    /// It is made, and freezes with the others: the call returns after somebody has thawed the container.
    Enter,
}

impl ExecRequest {
    /// Another process.
    pub fn new(exec_id: impl Into<String>, process: Process, io: Io) -> Self {
        Self {
            exec_id: exec_id.into(),
            process,
            io,
            descriptors: Vec::new(),
            when_paused: WhenPaused::default(),
            groups: Vec::new(),
            reaper: Reaper::default(),
        }
    }

    /// The same, and who learns how it ends.
    #[must_use]
    pub fn reaper(mut self, reaper: Reaper) -> Self {
        self.reaper = reaper;
        self
    }

    /// The same with further descriptors.
    #[must_use]
    pub fn descriptors(mut self, descriptors: Vec<OwnedFd>) -> Self {
        self.descriptors = descriptors;
        self
    }

    /// The same in groups inside the container's.
    #[must_use]
    pub fn groups(mut self, groups: Vec<SubGroup>) -> Self {
        self.groups = groups;
        self
    }

    /// The same, and what happens if the container is frozen.
    #[must_use]
    pub fn when_paused(mut self, when_paused: WhenPaused) -> Self {
        self.when_paused = when_paused;
        self
    }
}

/// A process of a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ProcessId {
    /// The container's first one.
    Init,
    /// One made by [`Executor::exec`].
    Exec(String),
}

/// How far a signal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KillScope {
    /// To the container's init process; and SIGKILL to every process, where the container has no PID namespace of its own and so the end of
    /// init would not be theirs.
    Init,
    /// To every process of the container.
    All,
}

/// Whether a container may still run when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeleteMode {
    /// It must have stopped.
    Stopped,
    /// It is killed first.
    Force,
}

/// Where a container is in its life (runtime spec, "State").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// Being made.
    Creating,
    /// Its init process waits for the start.
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its init process has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExitStatus {
    /// Exit code, or 128 + the signal that killed it.
    pub code: u32,
    /// When.
    pub at: SystemTime,
    /// For the first process of a container: whether the kernel killed one of the container's processes for want of memory, that one or another, as Docker's `OOMKilled`. What a group that is gone
    /// counted (systemd removes one that is empty), or one below the container's on v1, is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub out_of_memory: bool,
}

impl ExitStatus {
    /// An exit that was seen now.
    pub fn now(code: u32) -> Self {
        Self {
            code,
            at: SystemTime::now(),
            out_of_memory: false,
        }
    }

    /// The same of the first process of a container that has this group, which counts the kills.
    pub(crate) fn in_group(self, cgroup: &Cgroup) -> Self {
        // The kernel counts a kill before it kills.
        let killed = || !cgroup.is_none() && cgroup.oom_kills().is_ok_and(|kills| kills > 0);
        Self {
            out_of_memory: self.out_of_memory || killed(),
            ..self
        }
    }

    /// An exit of which nobody can tell how it went.
    pub(crate) fn unknown() -> Self {
        Self::now(255)
    }

    /// Whether the program said that all is well.
    pub fn success(&self) -> bool {
        self.code == 0
    }
}

/// What is known of a container: the runtime spec's `state`, and what its users ask for besides.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct State {
    /// Its id.
    pub id: ContainerId,
    /// Where it is in its life.
    pub status: Status,
    /// Its init process in the host's PID namespace, while it lives.
    pub pid: Option<u32>,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// Annotations of the spec.
    pub annotations: BTreeMap<String, String>,
    /// When it was created.
    pub created: SystemTime,
    /// How init ended, if it did and somebody saw it.
    pub exit: Option<ExitStatus>,
}

/// Who wants to be attached finds nobody to attach to.
pub(crate) fn not_attachable(id: &ContainerId) -> Error {
    Error::Unsupported {
        field: format!("attaching to container '{id}'"),
        reason: "it has no monitor that shows its output; make it a detached container with Io::log".into(),
    }
}

/// **Port**: what makes containers out of bundles and keeps them.
///
/// # Contract
/// - *Whole or nothing*: a [`create`](Self::create) that fails, or whose future is dropped, leaves no process, mount, cgroup, namespace or state.
/// - *Concurrent*: any number of calls at once; calls on one container take turns.
/// - *True*: [`state`](Self::state) is derived from the kernel (a pidfd, a start time), never from a bare pid.
/// - *Quiet*: nothing of the host process changes: working directory, environment, signal handlers, mount table, dumpable flag, oom score.
/// - A [`Detached`](Lifetime::Detached) container is there after the host program has ended, and every call works on it from another process that uses the same state directory.
#[async_trait]
pub trait Executor: Debug + Send + Sync + 'static {
    /// Creates a container whose program waits for [`start`](Self::start) (runtime spec, "Create").
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists), [`Invalid`](crate::ErrorKind::Invalid) and [`Unsupported`](crate::ErrorKind::Unsupported) with the spec's field, [`Start`](crate::ErrorKind::Start) for a step that the kernel refused.
    async fn create(&self, request: CreateRequest) -> Result<State>;

    /// Runs the program of a created container.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) unless it is [`Created`](Status::Created); [`Start`](crate::ErrorKind::Start) when the program can't be executed.
    /// A `startContainer` or `poststart` hook that fails is an error after which the container is gone, as if it had been deleted (runtime spec, "Lifecycle", steps 7 and 9).
    async fn start(&self, id: &ContainerId) -> Result<()>;

    /// Runs another process in a created or running container and returns its pid. It takes user, capabilities, labels and seccomp from the container.
    ///
    /// It has no monitor, whatever the container has: it survives a host that is killed, as a child of whoever adopts it, with the streams that it has, and then nobody learns how it ends. A later
    /// host does not know of it ([`wait`](Self::wait) is [`NotFound`](crate::ErrorKind::NotFound)); it ends with the container.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) unless it runs; [`AlreadyExists`](crate::ErrorKind::AlreadyExists) for the exec id.
    async fn exec(&self, id: &ContainerId, request: ExecRequest) -> Result<u32>;

    /// Sends a signal, by number.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) when it has stopped and left nothing behind.
    async fn kill(&self, id: &ContainerId, signal: i32, scope: KillScope) -> Result<()>;

    /// Freezes all its processes.
    async fn pause(&self, id: &ContainerId) -> Result<()>;

    /// Thaws them.
    async fn resume(&self, id: &ContainerId) -> Result<()>;

    /// Changes its resource limits.
    async fn update(&self, id: &ContainerId, resources: &LinuxResources) -> Result<()>;

    /// What it uses.
    async fn stats(&self, id: &ContainerId) -> Result<Stats>;

    /// What each of several uses, in their order, for who looks at all of them again and again. It may leave out what takes long to read and is seldom asked
    /// for: cpusets, single processors, huge pages, RDMA, other resources, the kernel's own memory and its table of memory.
    async fn sample(&self, ids: &[ContainerId]) -> Vec<Result<Stats>> {
        let mut all = Vec::with_capacity(ids.len());
        for id in ids {
            all.push(self.stats(id).await);
        }
        all
    }

    /// Word of each time that the container runs out of the memory that it may have, from now on; several times may be one item. It ends when the container has, after what came
    /// before that, and never yields where nothing counts the container's memory.
    async fn out_of_memory(&self, id: &ContainerId) -> Result<BoxStream<'static, ()>>;

    /// Its processes, in the host's PID namespace.
    async fn processes(&self, id: &ContainerId) -> Result<Vec<u32>>;

    /// Waits for the end of one of its processes; any number may wait, and one that comes late is told at once. For init, all of the output has reached its [`Io`] by then.
    async fn wait(&self, id: &ContainerId, process: &ProcessId) -> Result<ExitStatus>;

    /// Attaches to a running container that has a monitor and whose output goes into a [log](crate::Io::log): what it says from now on, and input for it where it takes any.
    /// Eight may be attached at once; others wait for a place.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) when it has stopped; [`Unsupported`](crate::ErrorKind::Unsupported) for other containers, and for executors that can't.
    async fn attach(&self, id: &ContainerId) -> Result<Attachment> {
        Err(not_attachable(id))
    }

    /// Removes a container: its cgroup and its state; runs the `poststop` hooks.
    ///
    /// # Errors
    /// [`FailedPrecondition`](crate::ErrorKind::FailedPrecondition) when it has not stopped and `mode` does not force it.
    async fn delete(&self, id: &ContainerId, mode: DeleteMode) -> Result<()>;

    /// What is known of it now.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    async fn state(&self, id: &ContainerId) -> Result<State>;

    /// All containers of this executor's state directory, ordered by id. One whose state is damaged is left out, with a warning to
    /// [`tracing`]: [`state`](Self::state) tells what is wrong with it.
    async fn list(&self) -> Result<Vec<State>>;
}
