use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// The tenant it happened to.
    pub namespace: String,
    /// When, by the wall clock.
    #[serde(with = "crate::time::rfc3339")]
    pub time: SystemTime,
    /// Who asked for what led to it, as the program that was asked calls them; unknown where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What.
    pub kind: EventKind,
}

impl Event {
    /// An event that happens now.
    pub fn now(namespace: impl Into<String>, kind: EventKind) -> Self {
        Self {
            namespace: namespace.into(),
            time: SystemTime::now(),
            by: None,
            kind,
        }
    }

    /// The same, and who asked for it.
    #[must_use]
    pub fn by(mut self, who: impl Into<String>) -> Self {
        self.by = Some(who.into());
        self
    }

    /// containerd's topic, e.g. `/tasks/start`.
    pub fn topic(&self) -> &'static str {
        self.kind.topic()
    }
}

/// What happened. Topics and fields are containerd's where it has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs)] // the fields are named after what they hold
pub enum EventKind {
    /// `/content/create`: a blob was committed.
    ContentCreate { digest: String, size: u64 },
    /// `/content/delete`: a blob was removed.
    ContentDelete { digest: String },
    /// `/images/create`: an image name was registered.
    ImageCreate {
        name: String,
        labels: BTreeMap<String, String>,
    },
    /// `/images/update`: an image name points to something else.
    ImageUpdate {
        name: String,
        labels: BTreeMap<String, String>,
    },
    /// `/images/delete`: an image name was removed.
    ImageDelete { name: String },
    /// `/snapshot/prepare`: a writable snapshot was made.
    SnapshotPrepare {
        key: String,
        parent: Option<String>,
        snapshotter: String,
    },
    /// `/snapshot/commit`: a writable snapshot became read-only under a name.
    SnapshotCommit {
        key: String,
        name: String,
        snapshotter: String,
    },
    /// `/snapshot/remove`: a snapshot was removed.
    SnapshotRemove { key: String, snapshotter: String },
    /// `/containers/create`: a container was recorded.
    ContainerCreate { id: String, image: String },
    /// `/containers/update`: a container's record was changed.
    ContainerUpdate {
        id: String,
        image: String,
        labels: BTreeMap<String, String>,
        snapshot_key: String,
    },
    /// `/containers/delete`: a container's record was removed.
    ContainerDelete { id: String },
    /// `/namespaces/create`: a namespace was recorded.
    NamespaceCreate {
        name: String,
        labels: BTreeMap<String, String>,
    },
    /// `/namespaces/update`: its labels were changed.
    NamespaceUpdate {
        name: String,
        labels: BTreeMap<String, String>,
    },
    /// `/namespaces/delete`: its record was removed.
    NamespaceDelete { name: String },
    /// `/tasks/create`: the container's init process exists and waits.
    TaskCreate {
        container_id: String,
        bundle: String,
        pid: u32,
    },
    /// `/tasks/start`: the container's program runs.
    TaskStart { container_id: String, pid: u32 },
    /// `/tasks/exit`: a process of a container ended; `id` is the container's own for init.
    TaskExit {
        container_id: String,
        id: String,
        pid: u32,
        exit_status: u32,
        #[serde(with = "crate::time::rfc3339")]
        exited_at: SystemTime,
    },
    /// `/tasks/delete`: a stopped container was deleted.
    TaskDelete {
        container_id: String,
        pid: u32,
        exit_status: u32,
        #[serde(with = "crate::time::rfc3339")]
        exited_at: SystemTime,
    },
    /// `/tasks/oom`: the kernel killed a process of the container for its memory limit.
    TaskOom { container_id: String },
    /// `/tasks/exec-added`: another process was made in the container.
    TaskExecAdded { container_id: String, exec_id: String },
    /// `/tasks/exec-started`: it runs.
    TaskExecStarted {
        container_id: String,
        exec_id: String,
        pid: u32,
    },
    /// `/tasks/paused`
    TaskPaused { container_id: String },
    /// `/tasks/resumed`
    TaskResumed { container_id: String },
    /// `/tasks/checkpointed`: its state was written to disk.
    TaskCheckpointed { container_id: String, checkpoint: String },
    /// `/longshore/request`: of a request what no other event tells: that it failed, and why; or a signal that was sent. `outcome` is `done`, or the error.
    Request {
        request: String,
        target: String,
        outcome: String,
    },
}

impl EventKind {
    /// containerd's topic of this kind of event.
    pub fn topic(&self) -> &'static str {
        match self {
            Self::ContentCreate { .. } => "/content/create",
            Self::ContentDelete { .. } => "/content/delete",
            Self::ImageCreate { .. } => "/images/create",
            Self::ImageUpdate { .. } => "/images/update",
            Self::ImageDelete { .. } => "/images/delete",
            Self::SnapshotPrepare { .. } => "/snapshot/prepare",
            Self::SnapshotCommit { .. } => "/snapshot/commit",
            Self::SnapshotRemove { .. } => "/snapshot/remove",
            Self::ContainerCreate { .. } => "/containers/create",
            Self::ContainerUpdate { .. } => "/containers/update",
            Self::NamespaceCreate { .. } => "/namespaces/create",
            Self::NamespaceUpdate { .. } => "/namespaces/update",
            Self::NamespaceDelete { .. } => "/namespaces/delete",
            Self::ContainerDelete { .. } => "/containers/delete",
            Self::TaskCreate { .. } => "/tasks/create",
            Self::TaskStart { .. } => "/tasks/start",
            Self::TaskExit { .. } => "/tasks/exit",
            Self::TaskDelete { .. } => "/tasks/delete",
            Self::TaskOom { .. } => "/tasks/oom",
            Self::TaskExecAdded { .. } => "/tasks/exec-added",
            Self::TaskExecStarted { .. } => "/tasks/exec-started",
            Self::TaskPaused { .. } => "/tasks/paused",
            Self::TaskResumed { .. } => "/tasks/resumed",
            Self::TaskCheckpointed { .. } => "/tasks/checkpointed",
            Self::Request { .. } => "/longshore/request",
        }
    }
}
